//! What `preprocess.NAME` may say: steps in order, applied to one cell's values.
//!
//!   name             a cell's values x become                          undone
//!   log1p            ln(1 + x)                                         yes
//!   log2p1           log2(1 + x)                                       yes
//!   log-half         ln(1 + 2x) = ln(x + 1/2) + ln 2                   yes
//!   counts10k-log1p  ln(1 + 10,000 x / total of the cell)              the logarithm; the total is not kept: counts per 10,000
//!   cpm-log1p        ln(1 + 1,000,000 x / total of the cell)           likewise, counts per million
//!   standardise      (x - mean) / sd, per feature, training cells      yes
//!   minmax-cell      (x - min) / (max - min) over the cell             no: the two are not kept
//!   divide255, divide4095, divide65535     x over that: images of 8, 12, 16 bits onto 0..1       yes
//!   clip10           limited to -10 .. 10                              no: what was beyond is not kept
//!
//! Missing values (NaN) take part in no total, minimum or maximum and stay missing. A cell without counts stays zero.

use std::fmt;

use super::logarithm;
use crate::data::dataset::Modality;
use crate::error::{Error, Result, nearest};

/// The words of a recipe, for help and option tables.
pub const STEPS: &[&str] = &[
    "auto",
    "none",
    "log1p",
    "log2p1",
    "log-half",
    "counts10k-log1p",
    "cpm-log1p",
    "standardise",
    "minmax-cell",
    "clip10",
    "divide255",
    "divide4095",
    "divide65535",
];

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// ln(1 + x)
    Log1p,
    /// log2(1 + x)
    Log2p1,
    /// ln(1 + 2x), which is ln(x + 1/2) but for a constant that leaves zero where it is.
    LogHalf,
    /// Counts to counts per 10,000, then [`Step::Log1p`].
    Counts10kLog1p,
    /// Counts to counts per million, then [`Step::Log1p`].
    CpmLog1p,
    /// Zero mean and unit deviation over the training cells, per feature.
    Standardise,
    /// The cell's values onto 0..1.
    MinmaxCell,
    /// What lies beyond -10 or 10 becomes that.
    Clip10,
    /// Over the largest value that so many bits hold.
    Divide(u32),
}

const NAMES: [(Step, &str); 11] = [
    (Step::Log1p, "log1p"),
    (Step::Log2p1, "log2p1"),
    (Step::LogHalf, "log-half"),
    (Step::Counts10kLog1p, "counts10k-log1p"),
    (Step::CpmLog1p, "cpm-log1p"),
    (Step::Standardise, "standardise"),
    (Step::MinmaxCell, "minmax-cell"),
    (Step::Clip10, "clip10"),
    (Step::Divide(255), "divide255"),
    (Step::Divide(4095), "divide4095"),
    (Step::Divide(65535), "divide65535"),
];

impl Step {
    /// The word of a recipe.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|n| n.0 == self).map_or("", |n| n.1)
    }

    /// Whether zeros stay zeros, so that a sparse row's non-zeros are all there is to do.
    pub(super) fn keeps_zeros(self) -> bool {
        matches!(self, Step::Log1p | Step::Log2p1 | Step::LogHalf | Step::Counts10kLog1p | Step::CpmLog1p | Step::Clip10 | Step::Divide(_))
    }
}

/// A recipe as given: `auto`, or steps (none of them for `none`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipe {
    /// Decided by the modality's facts and the model.
    Auto,
    /// These steps, in order.
    Steps(Vec<Step>),
}

impl Recipe {
    /// Reads `auto`, `none`, a step or several between commas.
    pub fn parse(text: &str) -> Result<Recipe> {
        Recipe::from_words(text.split(','))
    }

    /// Reads a list of words.
    pub fn from_words<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> Result<Recipe> {
        let words: Vec<String> = words.into_iter().map(|w| w.as_ref().trim().to_string()).collect();
        match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["auto"] => return Ok(Recipe::Auto),
            ["none"] | [] => return Ok(Recipe::Steps(Vec::new())),
            _ => {}
        }
        let mut steps = Vec::new();
        for word in &words {
            let Some(&(step, _)) = NAMES.iter().find(|n| n.1 == word) else {
                if STEPS.contains(&word.as_str()) {
                    return Err(Error::usage(format!("preprocess: \"{word}\" stands alone, not in a list")));
                }
                let hint = nearest(word, STEPS.iter().copied()).map(|n| format!(" (did you mean {n}?)")).unwrap_or_default();
                return Err(Error::usage(format!("preprocess: there is no step \"{word}\"{hint}; there are: {}", STEPS.join(", "))));
            };
            if step == Step::Standardise && steps.contains(&step) {
                return Err(Error::usage("preprocess: standardise can be in a recipe once"));
            }
            steps.push(step);
        }
        Ok(Recipe::Steps(steps))
    }

    /// Decides `auto`: counts (non-negative integers, not just 0 and 1, and not an image) get `count_recipe`, anything else is
    /// standardised. Where the model takes `images` as images their pixels are brought to 0..1: whole numbers by the largest that their
    /// bits hold, so that brightness stays comparable between cells, others cell by cell unless they lie there already.
    pub fn resolve(&self, modality: &Modality, count_recipe: &str, images: bool) -> Result<Recipe> {
        if *self != Recipe::Auto {
            return Ok(self.clone());
        }
        let facts = modality.facts();
        if modality.is_image() && images {
            let (least, most) = (facts.min.unwrap_or(0.0), facts.max.unwrap_or(0.0));
            return Ok(Recipe::Steps(match [255, 4095, 65535].into_iter().find(|&n| most <= f64::from(n)) {
                _ if least >= 0.0 && most <= 1.0 => Vec::new(),
                Some(n) if facts.all_integers_nonnegative => vec![Step::Divide(n)],
                _ => vec![Step::MinmaxCell],
            }));
        }
        if are_counts(modality) { Recipe::parse(count_recipe) } else { Ok(Recipe::Steps(vec![Step::Standardise])) }
    }

    /// The steps up to `standardise`, if it is one of them.
    pub fn before_standardise(&self) -> Recipe {
        Recipe::Steps(self.steps().iter().copied().take_while(|&s| s != Step::Standardise).collect())
    }

    /// The steps; none of them for `auto`, which must be [resolved](Recipe::resolve) first.
    pub fn steps(&self) -> &[Step] {
        match self {
            Recipe::Auto => &[],
            Recipe::Steps(steps) => steps,
        }
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Recipe::Auto => f.write_str("auto"),
            Recipe::Steps(steps) if steps.is_empty() => f.write_str("none"),
            Recipe::Steps(steps) => f.write_str(&steps.iter().map(|s| s.name()).collect::<Vec<_>>().join(",")),
        }
    }
}

/// A value that a step cannot take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Refused {
    /// Its place in the row.
    pub at: usize,
    /// What it is when the step meets it.
    pub value: f32,
    /// The step.
    pub step: Step,
}

/// Applies steps other than [`Step::Standardise`] to a cell's values, or to its non-zeros where all steps keep zeros.
pub(super) fn apply(step: Step, x: &mut [f32]) -> Result<(), Refused> {
    match step {
        Step::Standardise => {}
        Step::Divide(by) => x.iter_mut().for_each(|v| *v /= by as f32),
        // clamp keeps a NaN, which is missing.
        Step::Clip10 => x.iter_mut().for_each(|v| *v = v.clamp(-10.0, 10.0)),
        Step::MinmaxCell => {
            let (low, high) = x.iter().filter(|v| !v.is_nan()).fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
            let range = high - low;
            // A constant cell has no range; zero says so without a division.
            x.iter_mut().for_each(|v| *v = if range > 0.0 { (*v - low) / range } else { *v - low });
        }
        _ => {
            // Not ended at the first one, so that it vectorises.
            if x.iter().fold(false, |found, &v| found | (v < 0.0)) {
                let at = x.iter().position(|&v| v < 0.0).unwrap_or(0);
                return Err(Refused { at, value: x[at], step });
            }
            let scale = match step {
                Step::Counts10kLog1p => 1e4,
                Step::CpmLog1p => 1e6,
                _ => 0.0,
            };
            if scale > 0.0 {
                let total = logarithm::sum(x);
                let factor = if total > 0.0 { (scale / total) as f32 } else { 0.0 };
                x.iter_mut().for_each(|v| *v *= factor);
            }
            match step {
                Step::Log2p1 => x.iter_mut().for_each(|v| *v = (*v as f64 + 1.0).log2() as f32),
                Step::LogHalf => {
                    x.iter_mut().for_each(|v| *v *= 2.0);
                    logarithm::ln_1p(x);
                }
                _ => logarithm::ln_1p(x),
            }
        }
    }
    Ok(())
}

/// Whether the values are counts: non-negative integers. A measured 0 or 1 (a methylated site) is a state; the logarithm of its share of the
/// cell's total means nothing.
pub(super) fn are_counts(modality: &Modality) -> bool {
    let facts = modality.facts();
    facts.all_integers_nonnegative && facts.max.is_some_and(|max| max > 1.0) && !modality.is_image()
}

/// Undoes what can be undone of a step other than [`Step::Standardise`].
pub(super) fn undo(step: Step, x: &mut [f32]) {
    match step {
        Step::Standardise | Step::MinmaxCell | Step::Clip10 => {}
        Step::Divide(by) => x.iter_mut().for_each(|v| *v *= by as f32),
        Step::Log2p1 => x.iter_mut().for_each(|v| *v = ((*v as f64).exp2() - 1.0) as f32),
        Step::LogHalf => x.iter_mut().for_each(|v| *v = 0.5 * v.exp_m1()),
        Step::Log1p | Step::Counts10kLog1p | Step::CpmLog1p => x.iter_mut().for_each(|v| *v = v.exp_m1()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_print_as_they_read() {
        for text in ["auto", "none", "log2p1,standardise", "counts10k-log1p", "minmax-cell,standardise", "divide255"] {
            assert_eq!(Recipe::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Recipe::parse(" log1p , standardise ").unwrap().to_string(), "log1p,standardise");
        for bad in ["", "log", "auto,log1p", "standardise,standardise", "log1p,,standardise"] {
            assert_eq!(Recipe::parse(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
        assert!(Recipe::parse("standardize").unwrap_err().to_string().contains("did you mean standardise?"));
        assert!(STEPS[2..].iter().zip(NAMES).all(|(s, n)| *s == n.1));
    }

    #[test]
    fn steps_have_their_formulas_and_missing_values_stay() {
        let after = |step, x: &[f32]| {
            let mut x = x.to_vec();
            apply(step, &mut x).unwrap();
            x
        };
        let near = |x: f32, y: f64| (x as f64 - y).abs() < 1e-5;
        let x = after(Step::Counts10kLog1p, &[1.0, f32::NAN, 3.0]);
        assert!(near(x[0], 2501f64.ln()) && x[1].is_nan() && near(x[2], 7501f64.ln()));
        assert!(near(after(Step::CpmLog1p, &[1.0, 3.0])[0], 250_001f64.ln()));
        assert_eq!(after(Step::Log2p1, &[0.0, 1.0, 7.0]), [0.0, 1.0, 3.0]);
        assert!(near(after(Step::LogHalf, &[0.0, 3.0])[1], 7f64.ln()));
        assert_eq!(after(Step::Counts10kLog1p, &[0.0, 0.0]), [0.0, 0.0]);
        let x = after(Step::MinmaxCell, &[2.0, f32::NAN, 4.0, 3.0]);
        assert!(x[0] == 0.0 && x[1].is_nan() && x[2] == 1.0 && x[3] == 0.5);
        assert_eq!(after(Step::MinmaxCell, &[5.0, 5.0]), [0.0, 0.0]);
        assert_eq!(apply(Step::Log1p, &mut [1.0, -2.0]), Err(Refused { at: 1, value: -2.0, step: Step::Log1p }));
    }
}
