//! From a modality's raw rows to what a model is given, and back: the preprocessing steps, then, where the model asks for it, a
//! projection onto principal components.
//!
//!   forward    x → steps → V (x - m) → (s - μ)/σ             V `[width, features]`, m `[features]`; μ, σ scalars over all training scores
//!   backward   s → σ s + μ → Vᵀ s + m                        in the preprocessed units of the features
//!   columns    of a model whose modalities have the same features: those that all of them have, in the order of the first; of others
//!              those that vary most, if `n_top_genes` asks for some; components are then theirs
//!   fitted     on the training cells alone, and kept with the run
//!
//! One scalar scales all components: their relative size stays as the principal components left it (JAMIE, section on preprocessing).

mod components;

use super::canvas::Canvas;
use crate::data::Modality;
use crate::data::dataset::FETCHED;
use crate::data::preprocess::{Preprocess, Recipe};
use crate::error::{Error, Result};
use crate::models::settings::Settings;
use crate::run::{Saved, Tensor};
use components::Projection;

/// Rows that are preprocessed at once before they are projected.
const ROWS: usize = 256;

/// A modality's way in.
#[derive(Clone, Debug)]
pub struct Input {
    preprocess: Preprocess,
    given: Given,
    scratch: Vec<f32>,
}

/// What a model is given of a cell's preprocessed features.
#[derive(Clone, Debug)]
enum Given {
    /// All of them in their order.
    All,
    /// These.
    Columns(Vec<u32>),
    /// Scores of principal components.
    Components(Projection),
    /// An image on its canvas.
    Canvas(Canvas),
}

impl Input {
    /// Fits the steps and, if `components` is not 0, that many components (as many as there are cells or features at most) of all features
    /// or of these.
    pub fn fit(
        modality: &Modality,
        rows: &[u32],
        recipe: &Recipe,
        columns: Option<Vec<u32>>,
        components: usize,
        seed: u64,
    ) -> Result<Input> {
        let mut input = Input::of(Preprocess::fit(modality, rows, recipe)?, columns.clone());
        let features = columns.as_ref().map_or(modality.features(), Vec::len);
        let width = components.min(rows.len()).min(features);
        if width > 0 {
            let projection = Projection::fit(&input.preprocess, modality, rows, columns, width, seed)?;
            input.given = Given::Components(projection);
        }
        Ok(input)
    }

    /// With these steps, of these features alone or all of them.
    pub fn of(preprocess: Preprocess, columns: Option<Vec<u32>>) -> Input {
        Input { preprocess, given: columns.map_or(Given::All, Given::Columns), scratch: Vec::new() }
    }

    /// Gives the model the modality's images on canvases with sides that are multiples of `multiple`, in place of their pixels alone.
    pub fn put_on_canvas(&mut self, modality: &Modality, multiple: usize) {
        if let Some(image) = modality.image() {
            self.given = Given::Canvas(Canvas::of(image, multiple));
        }
    }

    /// C, H, W of the canvas, where the model is given images.
    pub fn image(&self) -> Option<[usize; 3]> {
        match &self.given {
            Given::Canvas(c) => Some(c.shape()),
            _ => None,
        }
    }

    /// The preprocessing steps.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// How many numbers a model is given of a cell.
    pub fn width(&self) -> usize {
        match &self.given {
            Given::All => self.preprocess.features(),
            Given::Columns(columns) => columns.len(),
            Given::Components(p) => p.width,
            Given::Canvas(c) => c.len(),
        }
    }

    /// The features that a model is given, itself or by components of them, if not all of them in their order.
    pub fn columns(&self) -> Option<&[u32]> {
        match &self.given {
            Given::Columns(columns) => Some(columns),
            Given::Components(p) => p.columns.as_deref(),
            _ => None,
        }
    }

    /// Whether the model is given features as they are, not components or a canvas.
    pub fn gives_features(&self) -> bool {
        matches!(self.given, Given::All | Given::Columns(_))
    }

    /// What is done to a row, for a person.
    pub fn describe(&self) -> String {
        let steps = self.preprocess.recipe().to_string();
        match &self.given {
            Given::Columns(columns) => format!("{steps}, {} of its features", columns.len()),
            Given::Components(Projection { width, columns: Some(columns), .. }) => {
                format!("{steps}, {width} principal components of {} of its features", columns.len())
            }
            Given::Components(p) => format!("{steps}, {} principal components", p.width),
            Given::Canvas(c) if c.sides != [c.image[1], c.image[2]] => format!("{steps}, zeros around to {} x {}", c.sides[0], c.sides[1]),
            Given::All | Given::Canvas(_) => steps,
        }
    }

    /// The standard deviation of each number that a model is given, over the training cells; 1 for components and pixels.
    pub fn deviations(&self) -> Vec<f32> {
        let sd = self.preprocess.unit_sd();
        match &self.given {
            Given::All => sd.to_vec(),
            Given::Columns(columns) => columns.iter().map(|&c| sd[c as usize]).collect(),
            Given::Components(_) | Given::Canvas(_) => vec![1.0; self.width()],
        }
    }

    /// Rows of a modality as a model is given them: `out` [rows, width]. An error names the cell and the feature.
    pub fn rows(&mut self, modality: &Modality, rows: &[u32], out: &mut [f32]) -> Result<()> {
        let (features, width) = (self.preprocess.features(), self.width().max(1));
        if let Given::All = self.given {
            return out.chunks_mut(FETCHED * width).zip(rows.chunks(FETCHED)).try_for_each(|(out, rows)| {
                modality.fetch(rows);
                let mut each = out.chunks_exact_mut(width).zip(rows);
                each.try_for_each(|(out, &row)| self.preprocess.row(modality, row as usize, out))
            });
        }
        // Components are one product of many rows.
        let at_once = if let Given::Components(_) = self.given { ROWS } else { 1 };
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.resize(at_once.min(rows.len().max(1)) * features, 0.0);
        for (out, rows) in out.chunks_mut(at_once * width).zip(rows.chunks(at_once)) {
            let x = &mut scratch[..rows.len() * features];
            for (x, &row) in x.chunks_exact_mut(features).zip(rows) {
                self.preprocess.row(modality, row as usize, x)?;
            }
            self.project(x, out);
        }
        self.scratch = scratch;
        Ok(())
    }

    /// Rows of a modality after the steps alone, before any projection: [rows, features]. An error names the cell and the feature.
    pub fn preprocessed(&self, modality: &Modality, rows: &[u32]) -> Result<Vec<f32>> {
        let features = self.preprocess.features();
        let mut out = vec![0.0; rows.len() * features];
        for (out, &row) in out.chunks_exact_mut(features.max(1)).zip(rows) {
            self.preprocess.row(modality, row as usize, out)?;
        }
        Ok(out)
    }

    /// Preprocessed values x [rows, features] as a model is given them: `out` [rows, width].
    pub fn project(&self, x: &[f32], out: &mut [f32]) {
        let cells = x.chunks_exact(self.preprocess.features().max(1));
        let width = self.width().max(1);
        let rows = |out| cells.clone().zip(<[f32]>::chunks_exact_mut(out, width));
        match &self.given {
            Given::All => out.copy_from_slice(x),
            Given::Columns(columns) => {
                rows(out).for_each(|(x, out)| out.iter_mut().zip(columns).for_each(|(out, &c)| *out = x[c as usize]))
            }
            Given::Components(p) => match &p.columns {
                None => p.forward(x, x.len() / p.centre.len(), out),
                Some(columns) => {
                    let chosen: Vec<f32> = cells.flat_map(|x| columns.iter().map(|&c| x[c as usize])).collect();
                    p.forward(&chosen, chosen.len() / p.centre.len(), out);
                }
            },
            Given::Canvas(c) => rows(out).for_each(|(x, out)| c.put(x, out)),
        }
    }

    /// One preprocessed feature of a cell that a model made, `y` `[width]`.
    pub fn feature(&self, y: &[f32], feature: usize) -> f32 {
        match &self.given {
            Given::All => y[feature],
            // What the model knows nothing of is the mean cell's.
            Given::Columns(columns) => {
                let at = columns.iter().position(|&c| c as usize == feature);
                at.map_or(self.preprocess.unit_mean()[feature], |at| y[at])
            }
            Given::Components(Projection { columns: Some(columns), .. }) if !columns.contains(&(feature as u32)) => {
                self.preprocess.unit_mean()[feature]
            }
            Given::Components(p) => {
                let place = p.columns.as_ref().and_then(|columns| columns.iter().position(|&c| c as usize == feature));
                p.feature(y, place.unwrap_or(feature))
            }
            Given::Canvas(c) => y[c.place(feature)],
        }
    }

    /// What a model makes of cells, `y` [rows, width], as preprocessed features: `out` [rows, features]. Features that the model is not
    /// given are the mean cell's.
    pub fn features(&self, y: &[f32], out: &mut Vec<f32>) {
        let (features, width) = (self.preprocess.features(), self.width().max(1));
        out.clear();
        if let Given::All = self.given {
            return out.extend_from_slice(y);
        }
        out.resize(y.len() / width * features, 0.0);
        let rows = |out| y.chunks_exact(width).zip(<[f32]>::chunks_exact_mut(out, features.max(1)));
        match &self.given {
            Given::All => {}
            Given::Columns(columns) => rows(out).for_each(|(y, out)| {
                out.copy_from_slice(self.preprocess.unit_mean());
                y.iter().zip(columns).for_each(|(&y, &c)| out[c as usize] = y);
            }),
            Given::Components(p) => match &p.columns {
                None => p.backward(y, out),
                Some(columns) => {
                    let mut chosen = vec![0.0; y.len() / width * columns.len()];
                    p.backward(y, &mut chosen);
                    for (x, out) in chosen.chunks_exact(columns.len()).zip(out.chunks_exact_mut(features.max(1))) {
                        out.copy_from_slice(self.preprocess.unit_mean());
                        x.iter().zip(columns).for_each(|(&x, &c)| out[c as usize] = x);
                    }
                }
            },
            Given::Canvas(c) => rows(out).for_each(|(y, out)| c.take(y, out)),
        }
    }

    /// What the run keeps.
    pub fn tensors(&self, name: &str) -> Vec<Tensor> {
        let p = &self.preprocess;
        let tensor = |what: &str, v: &[f32]| (format!("preprocess.{name}.{what}"), [1, v.len()], v.to_vec());
        let mut all = vec![
            tensor("mean", p.means()),
            tensor("scale", p.scales()),
            tensor("unit_mean", p.unit_mean()),
            tensor("unit_sd", p.unit_sd()),
        ];
        all.extend(self.columns().map(|columns| tensor("columns", &columns.iter().map(|&c| c as f32).collect::<Vec<f32>>())));
        match &self.given {
            Given::All | Given::Columns(_) => {}
            Given::Components(p) => {
                all.push((format!("preprocess.{name}.components"), [p.width, p.centre.len()], p.components.clone()));
                all.push(tensor("centre", &p.centre));
                all.push(tensor("score_mean_and_deviation", &[p.mean, p.deviation]));
            }
            Given::Canvas(Canvas { image: [c, h, w], sides: [height, width] }) => {
                all.push(tensor("canvas", &[c, h, w, height, width].map(|n| *n as f32)));
            }
        }
        all
    }

    /// Put together again from what a run kept.
    pub fn restore(saved: &Saved, settings: &Settings, modality: &Modality) -> Result<Input> {
        let name = modality.name();
        let recipe = settings.of("preprocess", name)?.words()?.join(",");
        let part = |what: &str| Ok::<_, Error>(saved.need(&format!("preprocess.{name}.{what}"))?.1.to_vec());
        let preprocess = Preprocess::from_parts(&recipe, part("mean")?, part("scale")?, part("unit_mean")?, part("unit_sd")?)?;
        let damaged = |what: &str| Error::usage(format!("{what} of {name} is damaged or does not fit its features: train the run again"));
        let find = |what: &str| saved.get(&format!("preprocess.{name}.{what}"));
        let known = |&c: &f32| c >= 0.0 && c.fract() == 0.0 && (c as usize) < preprocess.features();
        let columns = match find("columns") {
            Some((_, columns)) if !columns.iter().all(known) => return Err(damaged("the list of features")),
            Some((_, columns)) => Some(columns.iter().map(|&c| c as u32).collect::<Vec<u32>>()),
            None => None,
        };
        let given = if let Some(([width, features], components)) = find("components") {
            let (centre, scalars) = (part("centre")?, part("score_mean_and_deviation")?);
            let [mean, deviation] = scalars[..] else { return Err(damaged("the projection")) };
            let wanted = columns.as_ref().map_or(preprocess.features(), Vec::len);
            if centre.len() != features || features != wanted || components.len() != width * features {
                return Err(damaged("the projection"));
            }
            let offset = vec![0.0; width];
            let mut p = Projection { width, columns, components: components.to_vec(), centre, offset, mean, deviation };
            p.set_offset();
            Given::Components(p)
        } else if let Some(columns) = columns {
            Given::Columns(columns)
        } else if let Some((_, canvas)) = find("canvas") {
            let &[c, h, w, height, width] = canvas else { return Err(damaged("the canvas")) };
            let [c, h, w, height, width] = [c, h, w, height, width].map(|n| n as usize);
            let whole = c.checked_mul(h).and_then(|n| n.checked_mul(w));
            if whole != Some(preprocess.features()) || height < h || width < w {
                return Err(damaged("the canvas"));
            }
            Given::Canvas(Canvas { image: [c, h, w], sides: [height, width] })
        } else {
            Given::All
        };
        Ok(Input { preprocess, given, scratch: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::simulate::{SimulateSpec, simulate};
    use crate::data::{Dataset, Hooks};

    #[test]
    fn chosen_features_come_in_their_order_and_go_back_to_their_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        simulate(&SimulateSpec { recipe: "branching", cells: Some(20), seed: 2, ..Default::default() }, &path, &mut Hooks::default())
            .unwrap();
        let d = Dataset::open(&path).unwrap();
        let (m, rows) = (d.modality(1), (0..20).collect::<Vec<u32>>());
        let preprocess = Preprocess::fit(m, &rows, &Recipe::parse("none").unwrap()).unwrap();
        let (mut all, mut chosen) = (Input::of(preprocess.clone(), None), Input::of(preprocess, Some(vec![7, 99, 0])));
        let (mut whole, mut part, mut projected, mut back) = (vec![0.0; 200], vec![0.0; 6], vec![0.0; 6], Vec::new());
        all.rows(m, &[3, 5], &mut whole).unwrap();
        chosen.rows(m, &[3, 5], &mut part).unwrap();
        assert_eq!(part, [7, 99, 0, 107, 199, 100].map(|i| whole[i]));
        chosen.project(&whole, &mut projected);
        assert_eq!((chosen.width(), &projected), (3, &part));
        chosen.features(&part, &mut back);
        assert_eq!((back[7], back[199], back[100]), (whole[7], whole[199], whole[100]));
        assert_eq!(back[50], chosen.preprocess().unit_mean()[50], "the mean cell's");
        assert_eq!((chosen.feature(&part[..3], 99), chosen.feature(&part[..3], 50)), (back[99], back[50]));
    }

    #[test]
    fn a_projection_of_full_rank_loses_nothing_and_scales_all_components_alike() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        simulate(&SimulateSpec { recipe: "branching", cells: Some(150), seed: 2, ..Default::default() }, &path, &mut Hooks::default())
            .unwrap();
        let d = Dataset::open(&path).unwrap();
        let m = d.modality(1);
        let rows: Vec<u32> = (0..150).collect();
        let recipe = Recipe::parse("standardise").unwrap();
        let mut input = Input::fit(m, &rows, &recipe, None, 512, 0).unwrap();
        assert_eq!(input.width(), 100);
        let (mut scores, mut back) = (vec![0.0; 150 * 100], Vec::new());
        input.rows(m, &rows, &mut scores).unwrap();
        let mean = scores.iter().map(|&s| s as f64).sum::<f64>() / scores.len() as f64;
        let variance = scores.iter().map(|&s| (s as f64 - mean).powi(2)).sum::<f64>() / scores.len() as f64;
        assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-4, "{mean} {variance}");
        input.features(&scores, &mut back);
        let mut projected = vec![0.0; 150 * 100];
        let mut plain = Input::fit(m, &rows, &recipe, None, 0, 0).unwrap();
        let mut x = vec![0.0; 150 * 100];
        plain.rows(m, &rows, &mut x).unwrap();
        assert!(x.iter().zip(&back).all(|(x, y)| (x - y).abs() < 1e-4), "what comes back is what went in");
        input.project(&x, &mut projected);
        assert_eq!(projected, scores);
        assert!((0..100).all(|f| (input.feature(&scores[..100], f) - back[f]).abs() < 1e-5), "one feature is as good as all");
        // One row at a time gives the same numbers as all at once.
        let mut one = vec![0.0; 100];
        input.rows(m, &[77], &mut one).unwrap();
        assert_eq!(one, scores[7700..7800]);
    }

    #[test]
    fn components_of_chosen_features_are_those_of_a_dataset_of_them_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        simulate(&SimulateSpec { recipe: "branching", cells: Some(60), seed: 2, ..Default::default() }, &path, &mut Hooks::default())
            .unwrap();
        let d = Dataset::open(&path).unwrap();
        let (m, rows, recipe) = (d.modality(1), (0..60).collect::<Vec<u32>>(), Recipe::parse("standardise").unwrap());
        let columns = vec![3, 4, 10, 50, 51, 99];
        let mut input = Input::fit(m, &rows, &recipe, Some(columns.clone()), 6, 0).unwrap();
        assert_eq!((input.width(), input.columns()), (6, Some(columns.as_slice())));
        let (mut scores, mut back, mut whole) = (vec![0.0; 60 * 6], Vec::new(), vec![0.0; 60 * 100]);
        input.rows(m, &rows, &mut scores).unwrap();
        input.features(&scores, &mut back);
        Input::fit(m, &rows, &recipe, None, 0, 0).unwrap().rows(m, &rows, &mut whole).unwrap();
        for (at, (x, y)) in whole.iter().zip(&back).enumerate() {
            // Six components lose nothing of six features; the others are the mean cell's.
            let (feature, wanted) = ((at % 100) as u32, if columns.contains(&((at % 100) as u32)) { *x } else { 0.0 });
            assert!((y - wanted).abs() < 1e-4, "{feature} {y} {wanted}");
            assert!((input.feature(&scores[at / 100 * 6..][..6], feature as usize) - y).abs() < 1e-5);
        }
    }
}
