//! How the three products of a convolution are launched: which kernel, how many parts share a sum.

use super::*;
use crate::device::Device;

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Product {
    /// The small image.
    Gather,
    /// The large image.
    Scatter,
    /// The weights' gradient.
    Weight,
}

/// Rows and columns of C that a block computes.
const TILE: usize = 64;
/// As deep as a part of a sum is at least; see `Plan` of gemm.
const SHARE: usize = 128;

/// The kernel, for k = 4, s = 2, p = 1 or for any.
fn kernel(product: Product, usual: bool, precision: Precision) -> &'static str {
    macro_rules! names {
        ($($product:ident $stem:literal),*) => {
            match (product, usual, precision) {
                $((Product::$product, false, Precision::F32) => concat!("conv_", $stem, "_f32"),
                (Product::$product, false, Precision::Tf32) => concat!("conv_", $stem, "_tf32"),
                (Product::$product, false, Precision::Bf16) => concat!("conv_", $stem, "_bf16"),
                (Product::$product, true, Precision::F32) => concat!("conv_", $stem, "_k4s2p1_f32"),
                (Product::$product, true, Precision::Tf32) => concat!("conv_", $stem, "_k4s2p1_tf32"),
                (Product::$product, true, Precision::Bf16) => concat!("conv_", $stem, "_k4s2p1_bf16"),)*
            }
        };
    }
    names!(Gather "gather", Scatter "scatter", Weight "weight")
}

/// How a product is launched.
#[derive(Debug, PartialEq)]
struct Plan {
    grid: Grid,
    parts: usize,
    part: usize,
}

impl Plan {
    /// Blocks share a sum where tiles are too few to occupy the GPU: the last layers of an encoder have 2x2 pixels and 1,024 channels.
    /// Reasoned, not yet measured on a GPU.
    fn new(product: Product, g: &Geometry, precision: Precision, multiprocessors: usize) -> Plan {
        let ([c, h, w], [oc, oh, ow]) = (g.large, g.small);
        let (taps, s) = (g.kernel * g.kernel, g.stride);
        let [m, n, k, phases] = match product {
            Product::Gather => [oc, g.batch * oh * ow, c * taps, 1],
            // The longest of the phases.
            Product::Scatter => [c, g.batch * h.div_ceil(s) * w.div_ceil(s), oc * g.kernel.div_ceil(s).pow(2), s * s],
            Product::Weight => [oc, c * taps, g.batch * oh * ow, 1],
        };
        let tiles = [n.div_ceil(TILE), m.div_ceil(TILE)];
        let wanted = (multiprocessors / (tiles[0] * tiles[1] * phases).max(1)).min(k / SHARE).max(1);
        // Whole steps of the kernels' loop, so that only the last part has a ragged end.
        let part = k.div_ceil(wanted).next_multiple_of(32).max(1);
        let parts = k.div_ceil(part).max(1);
        let threads = if precision == Precision::F32 { 256 } else { 128 };
        let blocks = [tiles[0] as u32, tiles[1] as u32, (phases * parts) as u32];
        Plan { grid: Grid { blocks, threads: [threads, 1, 1], shared: 0 }, parts, part }
    }
}

impl Step {
    /// to (+)= the product of a and b: W and the image that is read, or the small and the large image.
    #[allow(clippy::too_many_arguments)] // a product's own
    pub(super) fn conv_launch(&mut self, product: Product, g: &Geometry, to: Var, [a, b]: [Var; 2], add: bool, bias: Var, f: Activation) {
        let multiprocessors = match self.device() {
            Device::Cpu(_) => 1,
            Device::Kernels(k) => k.0.multiprocessors(),
        };
        let plan = Plan::new(product, g, self.precision, multiprocessors);
        let size = self.size(to);
        let target = if plan.parts > 1 { self.alloc([plan.parts, size]) } else { to };
        let usual = [g.kernel, g.stride, g.padding] == [4, 2, 1];
        let ([c, h, w], [oc, oh, ow]) = (g.large, g.small);
        let [target, to, a, b, bias] = [target, to, a, b, bias].map(|v| self.ptr(v));
        let [batch, c, h, w, oc, oh, ow, kernel_, stride, padding, part, parts]: [Arg; 12] =
            [g.batch, c, h, w, oc, oh, ow, g.kernel, g.stride, g.padding, plan.part, plan.parts].map(Arg::from);
        let [add, code]: [Arg; 2] = [add.into(), f.code().into()];
        let sizes = [batch, c, h, w, oc, oh, ow, kernel_, stride, padding, part, parts];
        let [s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11] = sizes;
        let args = [target, a, b, bias, s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, add, code, f.parameter().into()];
        self.launch(kernel(product, usual, self.precision), plan.grid, &args);
        if plan.parts > 1 {
            // Of the weights' gradient nobody asks the channel: it has no bias.
            let (channels, pixels) = match product {
                Product::Gather => (oc, (g.small[1] * g.small[2]).into()),
                Product::Scatter => (c, (g.large[1] * g.large[2]).into()),
                Product::Weight => (oc, Arg::I32(1)),
            };
            let args = [to, target, bias, size.into(), channels, pixels, parts, add, code, f.parameter().into()];
            self.launch("conv_parts_sum", Grid::over(size), &args);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plan_shares_a_sum_only_where_tiles_are_few() {
        let last = Geometry { batch: 32, large: [1024, 4, 4], small: [1024, 2, 2], kernel: 4, stride: 2, padding: 1 };
        let plan = |product, g: &Geometry| Plan::new(product, g, Precision::Tf32, 132);
        let p = plan(Product::Gather, &last);
        assert_eq!((p.grid.blocks, p.parts, p.part), ([2, 16, 4], 4, 4096));
        assert_eq!(plan(Product::Weight, &last).parts, 1);
        let wide = Geometry { batch: 32, large: [128, 32, 32], small: [256, 16, 16], ..last };
        assert_eq!(plan(Product::Gather, &wide).parts, 1);
        assert_eq!(plan(Product::Scatter, &wide).grid.blocks, [128, 2, 4]);
    }
}
