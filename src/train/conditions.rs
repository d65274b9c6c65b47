//! What a model is told of the condition that each cell was seen under: the classes of the label column that its option `condition` names,
//! numbered as its option `conditions` lists them, so that a run knows them again in other data.

use crate::data::Dataset;
use crate::error::{Error, Result, nearest};
use crate::models::options::Value;
use crate::models::settings::Settings;

/// The column, if the settings name one.
pub fn column(settings: &Settings) -> Result<Option<String>> {
    if !settings.has("condition") {
        return Ok(None);
    }
    Ok(Some(settings.get("condition")?.word()?.to_string()).filter(|c| c != "none"))
}

/// Writes out which conditions there are, where that is left to the data.
pub fn resolve(dataset: &Dataset, settings: &mut Settings) -> Result<()> {
    if !settings.has("conditions") || !settings.get("conditions")?.is_auto() {
        return Ok(());
    }
    let names = column(settings)?.map(|c| dataset.label(&c)).transpose()?.map_or(Vec::new(), |l| l.classes);
    settings.fill("conditions", "", Value::Words(names));
    Ok(())
}

/// The number of every row's condition, by modality; NaN for a row without one. Empty where the settings name no column.
pub fn rows(dataset: &Dataset, settings: &Settings) -> Result<Vec<Vec<f32>>> {
    let Some(column) = column(settings)? else { return Ok(Vec::new()) };
    let labels = dataset.label(&column)?;
    let known = settings.get("conditions")?.words()?;
    let mut numbers = Vec::with_capacity(labels.classes.len());
    for class in &labels.classes {
        let Some(number) = known.iter().position(|k| k == class) else {
            return Err(Error::input(
                dataset.dir().join("cells.csv"),
                format!("column \"{column}\""),
                format!("{class} is not among the conditions of the run: {}", known.join(", ")),
            ));
        };
        numbers.push(number as f32);
    }
    for (modality, rows) in dataset.modalities().iter().zip(&labels.rows) {
        if rows.iter().all(Option::is_none) {
            return Err(Error::input(
                dataset.dir().join("cells.csv"),
                format!("column \"{column}\""),
                format!("no cell of {} has a label there, and every modality is told its cells' condition", modality.name()),
            ));
        }
    }
    let number = |class: &Option<u32>| class.map_or(f32::NAN, |c| numbers[c as usize]);
    Ok(labels.rows.iter().map(|rows| rows.iter().map(number).collect()).collect())
}

/// The number of a condition that is typed; the error lists those there are.
pub fn number(settings: &Settings, name: &str) -> Result<u32> {
    let Some(column) = column(settings)? else {
        return Err(Error::usage("--condition: the model of this run is told no condition; train apollo with --set condition=COLUMN"));
    };
    let known = settings.get("conditions")?.words()?;
    known.iter().position(|k| k == name).map(|n| n as u32).ok_or_else(|| {
        let hint = nearest(name, known.iter().map(String::as_str)).map(|n| format!("; did you mean {n}?")).unwrap_or_default();
        Error::usage(format!("--condition {name}: the conditions of the run, by its column {column}, are {}{hint}", known.join(", ")))
    })
}
