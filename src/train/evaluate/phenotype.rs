//! Whether translated cells keep their class: forests, differential expression and markers, for labels of a few classes.

use super::Errors;
use crate::error::Result;
use crate::metrics::Matrix;
use crate::metrics::forest::Forest;
use crate::metrics::phenotype::{area, correlation, differences, markers};

/// With more classes than this the table would be of classes, not of the model.
const MOST_CLASSES: usize = 8;

/// Rows of a modality with a class, and the classes.
type Labelled = (Vec<u32>, Vec<u32>);

impl Errors<'_> {
    /// `forest_auc`, `de_pearson` and `marker_overlap` for every direction between modalities whose cells have labels.
    pub(super) fn classes_kept(&mut self, seed: u64) -> Result<()> {
        let Some(labels) = self.labels else { return Ok(()) };
        let (k, classes) = (self.dataset.modalities().len(), labels.classes.len());
        if !(2..=MOST_CLASSES).contains(&classes) {
            return Ok(());
        }
        for to in 0..k {
            let (rows, known) = self.labelled(to, false);
            if (0..classes as u32).filter(|c| known.contains(c)).count() < 2 {
                continue;
            }
            let features = self.features(to);
            let trained_on = self.measured(to, &rows)?;
            let forest = Forest::grow(Matrix::new(&trained_on, rows.len(), features), &known, classes, seed);
            let (own, own_classes) = self.labelled(to, self.held_out);
            let measured = self.measured(to, &own)?;
            let name = |m: usize| self.dataset.modality(m).name().to_string();
            let (to_name, names) = (name(to), (0..k).map(name).collect::<Vec<_>>());
            let area = judged(&forest, &measured, features, &own_classes, classes);
            self.out.set_some(format!("forest_auc.{to_name}"), area.filter(|_| self.held_out));
            let made = self.session.model.decodes(to);
            for (from, name) in names.iter().enumerate().filter(|(from, _)| *from != to && made) {
                let (rows, of) = self.labelled(from, self.held_out);
                let translated = self.imputed(from, to, &rows)?;
                let direction = format!("{name}_to_{to_name}");
                self.out.set_some(format!("forest_auc.{direction}"), judged(&forest, &translated, features, &of, classes));
                if self.dataset.modality(to).is_image() {
                    continue; // a pixel is no gene
                }
                let matrix = |v| Matrix::new(v, v.len() / features, features);
                self.expression(&direction, matrix(&measured), &own_classes, matrix(&translated), &of, &labels.classes);
            }
        }
        Ok(())
    }

    fn labelled(&mut self, m: usize, held_out: bool) -> Labelled {
        let Some(labels) = self.labels else { return Default::default() };
        let all = if held_out { self.split.held_out(m) } else { self.split.training(m) };
        let with: Vec<(u32, u32)> = all.iter().filter_map(|&r| labels.rows[m][r as usize].map(|c| (r, c))).collect();
        self.some(&with).into_iter().unzip()
    }

    /// Differences and markers of each class against the rest; of two classes the second alone differs.
    fn expression(&mut self, direction: &str, measured: Matrix<'_>, of: &[u32], translated: Matrix<'_>, to: &[u32], classes: &[String]) {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for class in u32::from(classes.len() == 2)..classes.len() as u32 {
            let is = |c: &[u32]| c.iter().map(|&c| c == class).collect::<Vec<bool>>();
            let (a, b) = (is(of), is(to));
            let (Some(m), Some(t)) = (differences(measured, &a), differences(translated, &b)) else { continue };
            theirs.extend(m);
            ours.extend(t);
            let (m, t) = (markers(measured, &a), markers(translated, &b));
            let shared = |side: usize| m[side].iter().filter(|f| t[side].contains(f)).count();
            let mut told = |class: usize, side: usize| {
                self.out
                    .set_some(format!("marker_overlap.{direction}.{}", classes[class]), (!m[side].is_empty()).then(|| shared(side) as f64));
            };
            told(class as usize, 1);
            if classes.len() == 2 {
                told(0, 0);
            }
        }
        self.out.set_some(format!("de_pearson.{direction}"), correlation(&ours, &theirs));
    }
}

/// The area under the curve of the forest's probability of a class, against its cells: of two classes the second's, else the mean.
fn judged(forest: &Forest, x: &[f32], features: usize, of: &[u32], classes: usize) -> Option<f64> {
    let said: Vec<Vec<f64>> = x.chunks_exact(features).map(|row| forest.probabilities(row)).collect();
    let areas: Vec<f64> = (usize::from(classes == 2)..classes)
        .filter_map(|class| {
            let p: Vec<f64> = said.iter().map(|p| p[class]).collect();
            area(&p, &of.iter().map(|&c| c as usize == class).collect::<Vec<_>>())
        })
        .collect();
    (!areas.is_empty()).then(|| areas.iter().sum::<f64>() / areas.len() as f64)
}
