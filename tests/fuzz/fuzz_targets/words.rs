//! Small languages of the command line: recipes, held-out cells, options of models as `key=value`, a modality, a table of labels.
#![no_main]

use couplet::data::formats::ModalitySource;
use couplet::data::import::LabelSource;
use couplet::data::preprocess::Recipe;
use couplet::data::split::Holdout;
use couplet::models::MODELS;
use couplet::models::settings::Settings;
use couplet_fuzz::sentence;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let modalities = ["x".to_string(), "y".to_string()];
    for model in MODELS {
        let mut settings = Settings::new(model.name, model.options, &modalities).expect("its own options");
        let _ = settings.apply_flags(&[text.to_string()]).map_err(|e| sentence(&e));
    }
    if let Ok(recipe) = Recipe::parse(text).map_err(|e| sentence(&e)) {
        assert_eq!(Recipe::parse(&recipe.to_string()).expect("a recipe of ours"), recipe);
    }
    if let Ok(holdout) = Holdout::parse(text).map_err(|e| sentence(&e)) {
        Holdout::parse(&holdout.to_string()).expect("a holdout of ours");
    }
    let _ = ModalitySource::parse(text).map_err(|e| sentence(&e));
    LabelSource::parse(text, &[]);
});
