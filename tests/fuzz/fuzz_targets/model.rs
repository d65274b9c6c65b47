//! `model.safetensors`: [model][file], beside the `config.toml` of a run of that model; it embeds and translates the cells of the run.
#![no_main]

use couplet::device::Device;
use couplet::train::{Space, Trained};
use couplet_fuzz::checksums::resealed;
use couplet_fuzz::hold;
use couplet_fuzz::runs::runs;

libfuzzer_sys::fuzz_target!(
    init: {
        runs();
    },
    |data: &[u8]| {
        let Some((model, file)) = data.split_first() else { return };
        let runs = runs();
        let dir = &runs.dirs[usize::from(*model) % runs.dirs.len()];
        let config = std::fs::read(dir.join("config.toml")).expect("a run");
        hold(&[("config.toml", &config), ("model.safetensors", &resealed(file))], |dir| {
            let mut trained = Trained::open(dir, Device::cpu())?;
            let mut cells = 0;
            let mut count = |_: usize, _: &[f32]| {
                cells += 1;
                Ok(())
            };
            trained.embed(&runs.dataset, 0, &mut count)?;
            trained.translate(&runs.dataset, 0, 1, Space::Input, &mut count)?;
            assert_eq!(cells, 2 * runs.dataset.modality(0).cells());
            Ok(())
        });
    }
);
