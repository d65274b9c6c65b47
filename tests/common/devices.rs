//! The devices that answer.

use couplet::device::Device;

pub fn devices() -> Vec<(&'static str, Device)> {
    #[allow(unused_mut)]
    let mut all = vec![("cpu", Device::cpu())];
    #[cfg(feature = "emulated")]
    all.push(("emulated", Device::emulated(5)));
    #[cfg(feature = "cuda")]
    match Device::cuda(0) {
        Ok(gpu) => all.push(("cuda", gpu)),
        Err(why) => eprintln!("not checked on a GPU: {why}"),
    }
    all
}
