//! The convolutions of a nuclei autoencoder (64 x 64 pixels, minibatch 32), its batch norms, and a kernel of 3 for comparison.

use super::{Case, filled};
use crate::device::cpu_gemm::conv::Geometry;
use crate::engine::nn::BatchNorm;
use crate::engine::ops::activation::Activation;
use crate::engine::ops::batch_norm::Running;
use crate::engine::ops::conv::ConvShape;
use crate::engine::{Step, Var};
use crate::error::Result;

pub(super) fn cases(s: &mut Step) -> Result<Vec<Case>> {
    let batch = 32;
    let mut all = Vec::new();
    for (channels @ [c, oc], side, [kernel, stride, padding]) in [
        ([1, 128], 64, [4, 2, 1]),
        ([128, 256], 32, [4, 2, 1]),
        ([512, 1024], 8, [4, 2, 1]),
        ([1024, 1024], 4, [4, 2, 1]),
        ([64, 64], 16, [3, 1, 1]),
    ] {
        let down = ConvShape { channels_in: c, channels_out: oc, height: side, width: side, kernel, stride, padding };
        let [small, _] = down.output();
        let up = ConvShape { channels_in: oc, channels_out: c, height: small, width: small, ..down };
        let (large_size, small_size, taps) = (c * side * side, oc * small * small, c * kernel * kernel);
        let (large, little) = (filled(s, [batch, large_size], "large")?, filled(s, [batch, small_size], "small")?);
        let (w, dw) = (filled(s, [oc, taps], "w")?, filled(s, [oc, taps], "dw")?);
        let flops = 2.0 * (batch * small * small * oc * taps) as f64;
        let bytes = 4.0 * (batch * (large_size + small_size) + oc * taps) as f64;
        let shape = format!("{channels:?} {side}x{side} k{kernel} s{stride} p{padding} cells {batch}");
        let mut case = |kernel, run: Box<dyn FnMut(&mut Step)>| all.push(Case { kernel, shape: shape.clone(), flops, bytes, run });
        case("conv_gather", Box::new(move |s| _ = s.conv2d(large, w, Var::NONE, down, Activation::Identity)));
        case("conv_scatter", Box::new(move |s| _ = s.conv_transpose2d(little, w, Var::NONE, up, Activation::Identity)));
        let g = Geometry { batch, large: [c, side, side], small: [oc, small, small], kernel, stride, padding };
        case("conv_weight", Box::new(move |s| s.conv_weight(&g, dw, little, large, false)));
    }
    let (channels, pixels) = (256, 256);
    let x = filled(s, [batch, channels * pixels], "images")?;
    let norm = BatchNorm::plain(s, "bench.images", channels, 1e-5, 0.9, Running::Unbiased)?;
    let words = (batch * channels * pixels) as f64;
    all.push(Case {
        kernel: "batch_norm_images_fwd",
        shape: format!("cells {batch} channels {channels} pixels {pixels}"),
        flops: 7.0 * words,
        bytes: 16.0 * words,
        run: Box::new(move |s| _ = norm.forward_images(s, x, Activation::LeakyRelu(0.2))),
    });
    Ok(all)
}
