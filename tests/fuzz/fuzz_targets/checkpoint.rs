//! What `--resume` finds: [model][checkpoint, history.csv, F.npy] in a run of that model, which goes on for an epoch.
#![no_main]

use couplet::error::Error;
use couplet_fuzz::checksums::resealed;
use couplet_fuzz::runs::{MODELS, run, runs};
use couplet_fuzz::{hold, parts};

libfuzzer_sys::fuzz_target!(
    init: {
        runs();
    },
    |data: &[u8]| {
        let Some((model, files)) = data.split_first() else { return };
        let runs = runs();
        let model = usize::from(*model) % runs.dirs.len();
        let config = std::fs::read(runs.dirs[model].join("config.toml")).expect("a run");
        let [checkpoint, history, inferred] = parts(files);
        let state = resealed(checkpoint);
        let all = [
            ("run/config.toml", config.as_slice()),
            ("run/checkpoint/state.safetensors", &state),
            ("run/history.csv", history),
            ("run/F.npy", inferred),
        ];
        let there: Vec<_> = all.into_iter().filter(|(_, f)| !f.is_empty()).collect();
        hold(&there, |dir| {
            let (name, options) = MODELS[model];
            match run(name, options, 2, &runs.dataset, &dir.join("run"), true) {
                // Weights that a number was changed in.
                Err(Error::Diverged { .. }) => Ok(()),
                Err(e) => {
                    couplet_fuzz::sentence(&e);
                    Ok(())
                }
                Ok(()) => Ok(()),
            }
        });
    }
);
