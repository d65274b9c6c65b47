//! The features that are contrasted, and where a cell's come from: the modality after its logarithm, numbers measured on images, or a table.

use super::contrast::Effect;
use super::pictures;
use crate::data::formats::Table;
use crate::data::preprocess::{Preprocess, Recipe, Step};
use crate::data::{Dataset, Hooks, Modality};
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::path::Path;

/// The recipe of counts: the fold changes are of counts per 10,000.
const COUNTS: &str = "counts10k-log1p";
/// Images between two looks at whether to stop.
const LOOK: usize = 256;

/// Features of a modality's cells.
pub struct Values<'a> {
    /// What they are, for a person.
    pub what: String,
    /// Their names.
    pub names: Vec<String>,
    /// How a difference is told.
    pub effect: Effect,
    from: From<'a>,
}

enum From<'a> {
    /// Rows of a modality as they pass by.
    Modality(&'a Modality, Preprocess),
    /// Row by row in memory, NaN where there is none.
    Memory(Vec<f32>),
}

impl<'a> Values<'a> {
    /// Of a modality itself: counts after counts10k-log1p, anything else as imported, unless `recipe` says otherwise; of images what
    /// [`pictures`] measures.
    pub fn of(dataset: &'a Dataset, modality: usize, recipe: Option<&str>, hooks: &mut Hooks) -> Result<Values<'a>> {
        let m = dataset.modality(modality);
        if let (Some(shape), None) = (m.image(), recipe) {
            return Values::of_images(m, shape, hooks);
        }
        let recipe = match recipe {
            Some(text) => Recipe::parse(text)?,
            None => Recipe::Auto,
        };
        let recipe = match recipe {
            // What is no count stays as it was imported: standardised, nothing would have a fold change.
            Recipe::Auto => Recipe::Auto.resolve(m, COUNTS, false)?.before_standardise(),
            other => other,
        };
        let rows: Vec<u32> = (0..m.cells() as u32).collect();
        let preprocess = Preprocess::fit(m, &rows, &recipe)?;
        let not_negative = m.facts().min.is_none_or(|min| min >= 0.0);
        let effect = match recipe.steps().last() {
            Some(Step::Log1p | Step::Counts10kLog1p | Step::CpmLog1p) => Effect::FoldOfLog1p,
            None if not_negative => Effect::Fold,
            _ => Effect::Difference,
        };
        let what = if recipe.steps().is_empty() { "as imported".to_string() } else { format!("after {recipe}") };
        Ok(Values { what, names: m.feature_names().to_vec(), effect, from: From::Modality(m, preprocess) })
    }

    fn of_images(m: &Modality, shape: [usize; 3], hooks: &mut Hooks) -> Result<Values<'a>> {
        let names = pictures::names(shape[0]);
        let mut values = Vec::with_capacity(m.cells() * names.len());
        let mut pixels = vec![0.0; m.features()];
        for row in 0..m.cells() {
            m.row_into(row, &mut pixels)?;
            values.extend(pictures::measure(&pixels, shape));
            if row % LOOK == 0 {
                hooks.tick("measuring images", row as u64, Some(m.cells() as u64))?;
            }
        }
        Ok(Values { what: "measured on the images".into(), effect: effect_of(&values), names, from: From::Memory(values) })
    }

    /// Of a table with the cells' ids in its first column; an empty field is missing, as is a cell without a row.
    pub fn of_table(file: &Path, m: &Modality) -> Result<Values<'a>> {
        let table = Table::read(file)?;
        let places: HashMap<&str, usize> = table.ids.iter().enumerate().map(|(i, id)| (id.as_str(), i)).collect();
        let width = table.columns.len();
        let mut values = vec![f32::NAN; m.cells() * width];
        let mut known = 0;
        for (out, id) in values.chunks_exact_mut(width).zip(m.cell_ids()) {
            let Some(&row) = places.get(id.as_str()) else { continue };
            known += 1;
            for ((out, texts), column) in out.iter_mut().zip(&table.values).zip(&table.columns) {
                let text = texts.get(row).trim();
                if text.is_empty() {
                    continue;
                }
                let number = text.parse::<f32>().ok().filter(|v| v.is_finite());
                *out = number.ok_or_else(|| {
                    let place = format!("line {}, column \"{column}\"", table.lines[row]);
                    Error::input(file, place, format!("\"{text}\" is not a number: a feature is wanted, or an empty field"))
                })?;
            }
        }
        if known == 0 {
            let message =
                format!("none of its {} cells is a cell of {}: cell ids are wanted in the first column", table.ids.len(), m.name());
            return Err(Error::input(file, "", message));
        }
        let effect = effect_of(&values);
        Ok(Values { what: format!("from {}", file.display()), names: table.columns, effect, from: From::Memory(values) })
    }

    #[cfg(test)]
    pub(super) fn in_memory(names: Vec<String>, values: Vec<f32>) -> Values<'a> {
        Values { what: String::new(), names, effect: effect_of(&values), from: From::Memory(values) }
    }

    /// A cell's features.
    pub fn row(&self, row: usize, out: &mut [f32]) -> Result<()> {
        match &self.from {
            From::Modality(m, preprocess) => preprocess.row(m, row, out),
            From::Memory(values) => {
                out.copy_from_slice(&values[row * out.len()..][..out.len()]);
                Ok(())
            }
        }
    }
}

/// Fold changes, unless a value is negative.
fn effect_of(values: &[f32]) -> Effect {
    if values.iter().any(|&v| v < 0.0) { Effect::Difference } else { Effect::Fold }
}
