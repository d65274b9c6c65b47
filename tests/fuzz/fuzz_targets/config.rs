//! `config.toml` of a run and `--config` of a user: read as one and as the other, the options given to every model.
#![no_main]

use couplet::models::MODELS;
use couplet::models::settings::{Settings, Source};
use couplet::run::Config;
use couplet::run::config::read_toml;
use couplet_fuzz::{hold, sentence};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    hold(&[("config.toml", data)], |dir| {
        let path = dir.join("config.toml");
        let modalities = ["x".to_string(), "y".to_string()];
        let mut table = read_toml(&path)?;
        table.retain(|key, _| !couplet::run::config::GIVEN.contains(&key) && !couplet::run::config::TOLD.contains(&key));
        for model in MODELS {
            let mut settings = Settings::new(model.name, model.options, &modalities)?;
            match settings.apply_table(&path, &table, Source::File) {
                Err(e) => sentence(&e),
                Ok(()) => {
                    // What is written out reads back as what it was.
                    let mut again = Settings::new(model.name, model.options, &modalities)?;
                    again.apply_table(&path, &settings.to_toml().parse().expect("TOML of ours"), Source::File).expect("settings of ours");
                    assert_eq!(again.to_toml(), settings.to_toml());
                }
            }
        }
        Config::read(&path)?.options_table().map(|_| ())
    });
});
