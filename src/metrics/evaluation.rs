//! All metrics of the embeddings of a run that need nothing but the embeddings, the pairs and the labels.
//!
//! If any cell is held out, the plain keys are of the held-out cells and `KEY.train` of the training cells; otherwise the plain keys
//! are the training cells' and `held_out` is false. A pair belongs to the held-out cells if both its ends do, to the training cells if
//! neither does. Classifiers and mixtures learn from training cells only; the pool of `knn_accuracy` is all cells.

use super::Metrics;
use super::alignment::{Labelled, class_accuracy, foscttm, knn_accuracy, knn_accuracy_repo, lta};
use super::clustering::{Mixture, MixtureSettings, consistency};
use super::collapse::spread;
use super::matrix::{Matrix, stream};
use super::neighbours::Distance;
use super::phenotype::{along, area, lda_axis};
use super::silhouette::{EXACT, silhouette};
use super::transfer::{F1, LinearSvm, Scores, Settings, cross_validate, f1, hold_out};
use super::unshared::{each_against_the_rest, nearest_distances};
use crate::data::split::Role;
use crate::engine::rng::Sequence;
use std::collections::BTreeSet;

/// Neighbours for which `knn_accuracy@K` is told.
pub const NEIGHBOURS: [usize; 4] = [1, 5, 10, 50];
type Accuracy = fn(Matrix<'_>, Matrix<'_>, &[(u32, u32)], [usize; 4]) -> Option<[f64; 4]>;
/// Folds of `qda_accuracy` where it is cross-validated.
pub const FOLDS: usize = 10;
/// Components of the mixtures behind `ami` where there are no labels to count.
const COMPONENTS: usize = 10;
/// Support vector machines learn from at most so many training cells.
const LEARNT: usize = 20_000;
/// Mixtures are fitted to at most so many training cells; all cells are labelled.
const FITTED: usize = 5_000;

/// One modality's embedding.
#[derive(Clone, Copy)]
pub struct Evaluated<'a> {
    /// The modality's name, as it stands in keys.
    pub name: &'a str,
    /// Cells x latent.
    pub embedding: &'a [f32],
    /// What each cell was to the training.
    pub roles: &'a [Role],
    /// Each cell's label, an index that means the same class in every modality; `None` if the modality has no labels.
    pub labels: Option<&'a [Option<u32>]>,
}

/// Which rows of two modalities are the same cell.
#[derive(Clone, Debug)]
pub struct PairSet {
    /// Index of the first modality.
    pub a: usize,
    /// Index of the second.
    pub b: usize,
    /// (row of a, row of b).
    pub pairs: Vec<(u32, u32)>,
}

/// What is evaluated.
pub struct Evaluation<'a> {
    /// In the order typed; the first is A.
    pub modalities: Vec<Evaluated<'a>>,
    /// Known pairs, all of them, whatever part training was given.
    pub links: Vec<PairSet>,
    /// The classes' names, by label.
    pub classes: &'a [String],
    /// Latent dimensions of every embedding.
    pub latent: usize,
    /// Of folds, samples and initialisations.
    pub seed: u64,
}

impl Evaluation<'_> {
    /// The pairs of a link of which both ends were held out, or both trained on.
    pub fn pairs(&self, link: &PairSet, held_out: bool) -> Vec<(u32, u32)> {
        let (a, b) = (self.modalities[link.a].roles, self.modalities[link.b].roles);
        link.pairs.iter().filter(|p| a[p.0 as usize].is(held_out) && b[p.1 as usize].is(held_out)).copied().collect()
    }
}

/// A subset of the cells: the held-out or the training ones.
struct Part<'e, 'a> {
    all: &'e Evaluation<'a>,
    held_out: bool,
    /// Rows of each modality that belong to it.
    rows: Vec<Vec<u32>>,
}

/// Fills in every metric that applies.
///
/// # Panics
///
/// If an embedding, its roles and its labels differ in their number of cells, or a pair names a cell that is not there.
#[track_caller]
pub fn embedding_metrics(e: &Evaluation<'_>) -> Metrics {
    for m in &e.modalities {
        let n = m.roles.len();
        let labels = m.labels.map_or(n, <[_]>::len);
        assert!(m.embedding.len() == n * e.latent && labels == n, "modality {}: embedding, roles and labels of different lengths", m.name);
    }
    for l in &e.links {
        let (a, b) = (e.modalities[l.a].roles.len(), e.modalities[l.b].roles.len());
        assert!(l.pairs.iter().all(|p| (p.0 as usize) < a && (p.1 as usize) < b), "a pair names a cell that is not there");
    }
    let held_out = e.modalities.iter().any(|m| m.roles.contains(&Role::HeldOut));
    let clusters = Clusters::fit(e);
    let mut metrics = Metrics::new();
    let mut fill = |wanted: bool, suffix: &str| {
        let part = Part::new(e, wanted);
        let mut values = Metrics::new();
        part.fill(&clusters, &mut values);
        values.iter().for_each(|(key, value)| metrics.set(format!("{key}{suffix}"), value));
        values.notes().iter().for_each(|note| metrics.note(note));
    };
    fill(held_out, "");
    if held_out {
        fill(false, ".train");
    }
    metrics.set("held_out", held_out);
    metrics
}

impl<'e, 'a> Part<'e, 'a> {
    fn new(all: &'e Evaluation<'a>, held_out: bool) -> Self {
        let rows = all.modalities.iter().map(|m| rows_where(m.roles, held_out)).collect();
        Part { all, held_out, rows }
    }

    fn cells(&self, modality: usize) -> Matrix<'a> {
        let m = &self.all.modalities[modality];
        Matrix::new(m.embedding, m.roles.len(), self.all.latent)
    }

    fn train(&self, modality: usize) -> Vec<u32> {
        rows_where(self.all.modalities[modality].roles, false)
    }

    /// The pairs of a link that lie in this part.
    fn pairs(&self, link: &PairSet) -> Vec<(u32, u32)> {
        self.all.pairs(link, self.held_out)
    }

    /// Labelled cells of this part: (row, label).
    fn labelled(&self, modality: usize, rows: &[u32]) -> Vec<(u32, u32)> {
        let labels = self.all.modalities[modality].labels;
        labels.map_or(Vec::new(), |labels| rows.iter().filter_map(|&r| labels[r as usize].map(|l| (r, l))).collect())
    }

    fn fill(&self, clusters: &Clusters, out: &mut Metrics) {
        let (cells, paired) = self.counts();
        out.set("cells", cells);
        out.set("paired_cells", paired);
        self.fill_alignment(out);
        self.fill_transfer(out);
        self.fill_discriminants(out);
        self.fill_f1(out);
        self.fill_silhouettes(out);
        self.fill_types(out);
        self.fill_clusters(clusters, out);
        self.fill_unshared(out);
        for (i, m) in self.all.modalities.iter().enumerate() {
            if let Some(s) = spread(self.cells(i), &self.rows[i]) {
                out.set(format!("latent_rms.{}", m.name), s.rms);
                out.set_some(format!("latent_singular_min.{}", m.name), s.singular.last().copied());
                out.set(format!("latent_singular_ratio.{}", m.name), s.ratio);
            }
        }
    }

    /// Distinct cells of this part, and those of them that are seen in two modalities or more.
    fn counts(&self) -> (usize, usize) {
        let mut starts = vec![0];
        self.all.modalities.iter().for_each(|m| starts.push(starts[starts.len() - 1] + m.roles.len()));
        // Union-find over (modality, row): pairs join the views of one cell.
        let mut parent: Vec<usize> = (0..starts[starts.len() - 1]).collect();
        fn root(parent: &mut [usize], mut at: usize) -> usize {
            while parent[at] != at {
                parent[at] = parent[parent[at]];
                at = parent[at];
            }
            at
        }
        let mut paired = vec![false; parent.len()];
        for link in &self.all.links {
            for (a, b) in self.pairs(link) {
                let (a, b) = (starts[link.a] + a as usize, starts[link.b] + b as usize);
                let (x, y) = (root(&mut parent, a), root(&mut parent, b));
                parent[x.max(y)] = x.min(y);
                paired[a] = true;
                paired[b] = true;
            }
        }
        let here = self.rows.iter().zip(&starts).flat_map(|(rows, start)| rows.iter().map(move |&r| start + r as usize));
        let mut roots: Vec<(usize, bool)> = here.map(|at| (root(&mut parent, at), paired[at])).collect();
        roots.sort_unstable();
        roots.dedup_by_key(|r| r.0);
        (roots.len(), roots.iter().filter(|r| r.1).count())
    }

    /// foscttm, foscttm_l1, knn_accuracy: of every pair of modalities with pairs; the means over modality pairs.
    fn fill_alignment(&self, out: &mut Metrics) {
        for (key, distance) in [("foscttm", Distance::Euclidean), ("foscttm_l1", Distance::L1)] {
            let mut each = Vec::new();
            for link in &self.all.links {
                if let Some(value) = foscttm(self.cells(link.a), self.cells(link.b), &self.pairs(link), distance) {
                    each.push((format!("{key}.{}_{}", self.name(link.a), self.name(link.b)), value));
                }
            }
            out.set(key, each.iter().map(|e| e.1).sum::<f64>() / each.len() as f64);
            each.into_iter().for_each(|(key, value)| out.set(key, value));
        }
        for link in &self.all.links {
            let pairs = self.pairs(link);
            let turned: Vec<(u32, u32)> = pairs.iter().map(|p| (p.1, p.0)).collect();
            for (from, to, pairs) in [(link.a, link.b, &pairs), (link.b, link.a, &turned)] {
                for (key, accuracy) in [("knn_accuracy", knn_accuracy as Accuracy), ("knn_accuracy_repo", knn_accuracy_repo)] {
                    if let Some(values) = accuracy(self.cells(from), self.cells(to), pairs, NEIGHBOURS) {
                        for (k, value) in NEIGHBOURS.into_iter().zip(values) {
                            out.set(format!("{key}@{k}.{}_to_{}", self.name(from), self.name(to)), value);
                        }
                    }
                }
            }
        }
    }

    /// lda_auc: of two classes, how well the axis that parts the training codes of A parts those of B.
    fn fill_discriminants(&self, out: &mut Metrics) {
        let coded = |m: usize, rows: &[u32]| -> (Vec<f32>, Vec<bool>) {
            let of = self.labelled(m, rows);
            (of.iter().flat_map(|&(r, _)| self.cells(m).row(r as usize).to_vec()).collect(), of.iter().map(|&(_, c)| c == 1).collect())
        };
        for a in (0..self.all.modalities.len()).filter(|_| self.all.classes.len() == 2) {
            let (codes, classes) = coded(a, &self.train(a));
            let Some(axis) = lda_axis(Matrix::new(&codes, classes.len(), self.all.latent), &classes) else { continue };
            for b in 0..self.all.modalities.len() {
                let (codes, classes) = coded(b, &self.rows[b]);
                let value = area(&along(Matrix::new(&codes, classes.len(), self.all.latent), &axis), &classes);
                let key = if a == b { self.name(a).to_string() } else { format!("{}_to_{}", self.name(a), self.name(b)) };
                out.set_some(format!("lda_auc.{key}"), value);
            }
        }
    }

    fn name(&self, modality: usize) -> &'a str {
        self.all.modalities[modality].name
    }

    /// lta from the second modality to the first; class_accuracy of each from the other (the mean where there are several others).
    fn fill_transfer(&self, out: &mut Metrics) {
        let n = self.all.modalities.len();
        let transfer = |from: usize, to: usize, f: fn(Labelled<'_>, Labelled<'_>) -> Option<f64>| {
            let (known, wanted) = (self.all.modalities[from].labels?, self.all.modalities[to].labels?);
            let train = self.train(from);
            let learn = Labelled { cells: self.cells(from), rows: &train, labels: known };
            f(learn, Labelled { cells: self.cells(to), rows: &self.rows[to], labels: wanted })
        };
        if n >= 2 {
            out.set_some("lta", transfer(1, 0, lta));
        }
        for to in 0..n {
            let each: Vec<f64> = (0..n).filter(|&from| from != to).filter_map(|from| transfer(from, to, class_accuracy)).collect();
            out.set(format!("class_accuracy.{}", self.name(to)), each.iter().sum::<f64>() / each.len() as f64);
        }
    }

    /// f1: the second modality's labels by a machine that learnt the first's.
    fn fill_f1(&self, out: &mut Metrics) {
        let [first, second, ..] = self.all.modalities.as_slice() else { return };
        let (Some(known), Some(wanted)) = (first.labels, second.labels) else { return };
        let cells = |m: usize| self.cells(m);
        let train = self.train(0);
        let learn = Labelled { cells: cells(0), rows: &train, labels: known };
        let told = Labelled { cells: cells(1), rows: &self.rows[1], labels: wanted };
        if let Some(f) = label_transfer(learn, told, self.all.seed, out) {
            out.set("f1.macro", f.of_classes);
            out.set("f1.weighted", f.of_cells);
        }
    }

    fn fill_silhouettes(&self, out: &mut Metrics) {
        let mut joint = Vec::new();
        let (mut by_label, mut by_modality) = (Vec::new(), Vec::new());
        for (i, rows) in self.rows.iter().enumerate() {
            let first = (joint.len() / self.all.latent.max(1)) as u32;
            joint.extend(self.cells(i).gather(rows));
            by_modality.extend((0..rows.len() as u32).map(|r| (first + r, i as u32)));
            if let Some(labels) = self.all.modalities[i].labels {
                let known = rows.iter().zip(first..).filter_map(|(&row, at)| labels[row as usize].map(|label| (at, label)));
                by_label.extend(known);
            }
        }
        let joint = Matrix::new(&joint, by_modality.len(), self.all.latent);
        for (key, points) in [("silhouette.labels", by_label), ("silhouette.modality", by_modality)] {
            if let Some(s) = silhouette(joint, &points, self.all.seed) {
                out.set(key, s.value);
                if s.sampled {
                    out.note(format!("silhouettes are of {EXACT} cells drawn by the seed, of {}", points.len()));
                }
            }
        }
    }

    /// Held-out cells are predicted from all training cells; training cells by cross-validation among themselves.
    fn fill_types(&self, out: &mut Metrics) {
        for (i, m) in self.all.modalities.iter().enumerate() {
            let train = self.labelled(i, &self.train(i));
            let scores = if self.held_out {
                hold_out(self.cells(i), &train, &self.labelled(i, &self.rows[i]), Settings::default())
            } else {
                cross_validate(self.cells(i), &train, FOLDS, self.all.seed, Settings::default())
            };
            // One class is told from nothing.
            if let Some(Scores { qda, most_frequent, random, classes: 2.. }) = scores {
                let key = format!("qda_accuracy.{}", m.name);
                out.set(key.as_str(), qda.mean);
                if qda.folds > 1 {
                    out.set(format!("{key}.error"), qda.standard_error);
                }
                out.set(format!("{key}.most_frequent"), most_frequent.mean);
                out.set(format!("{key}.random"), random.mean);
            }
        }
    }

    /// ami of the clusters of every pair of modalities with pairs; the mean over them.
    fn fill_clusters(&self, clusters: &Clusters, out: &mut Metrics) {
        let agreement = |link: &PairSet| {
            let side = |modality: usize| clusters.mixtures[modality].as_ref().map(|m| (m, self.cells(modality)));
            consistency(side(link.a)?, side(link.b)?, &self.pairs(link))
        };
        let each: Vec<f64> = self.all.links.iter().filter_map(agreement).collect();
        if !each.is_empty() {
            out.set("ami", each.iter().sum::<f64>() / each.len() as f64);
            out.note(clusters.how.as_str());
        }
    }

    /// How far this part's cells of A lie from the nearest training cell of B, and whether the types that no training pair of the two
    /// has lie further away than the rest: a type that B lacks should, one that is in both and merely unpaired should not.
    fn fill_unshared(&self, out: &mut Metrics) {
        for link in &self.all.links {
            let known = self.all.pairs(link, false);
            // Without any known pair every type is unpaired, which says nothing of it.
            let some_known = !known.is_empty();
            let turned: Vec<(u32, u32)> = known.iter().map(|p| (p.1, p.0)).collect();
            for (from, to, known) in [(link.a, link.b, &known), (link.b, link.a, &turned)] {
                let rows = &self.rows[from];
                let Some(far) = nearest_distances(self.cells(from), rows, self.cells(to), &self.train(to)) else { continue };
                let direction = format!("{}_to_{}", self.name(from), self.name(to));
                out.set(format!("nearest_distance.{direction}"), far.iter().sum::<f64>() / far.len() as f64);
                // Where nothing is paired, every type is unpaired, and none is apart for that.
                let Some(labels) = self.all.modalities[from].labels.filter(|_| !known.is_empty()) else { continue };
                let types: Vec<Option<u32>> = rows.iter().map(|&r| labels[r as usize]).collect();
                let paired: BTreeSet<u32> = known.iter().filter_map(|p| labels[p.0 as usize]).collect();
                for (class, test) in each_against_the_rest(&far, &types).into_iter().filter(|(c, _)| some_known && !paired.contains(c)) {
                    let name = self.all.classes.get(class as usize).map_or_else(|| class.to_string(), String::clone);
                    out.set(format!("unshared_ks.{direction}.{name}"), test.statistic);
                    out.set(format!("unshared_p.{direction}.{name}"), test.p);
                }
            }
        }
    }
}

/// F1 of a linear support vector machine that learns the one's labels and tells the other's; `None` where there are no two classes, or as
/// many as every other cell has one of its own. A machine learns from `LEARNT` cells at most.
pub fn label_transfer(learn: Labelled<'_>, told: Labelled<'_>, seed: u64, out: &mut Metrics) -> Option<F1> {
    let of = |l: &Labelled<'_>| l.rows.iter().filter_map(|&r| Some((r, l.labels[r as usize]?))).collect::<Vec<(u32, u32)>>();
    let (mut train, test) = (of(&learn), of(&told));
    let classes: BTreeSet<u32> = train.iter().map(|c| c.1).collect();
    if 2 * classes.len() > train.len() {
        return None;
    }
    if train.len() > LEARNT {
        out.note(format!("support vector machines learn from {LEARNT} of the cells, drawn evenly"));
        train = (0..LEARNT).map(|i| train[i * train.len() / LEARNT]).collect();
    }
    let svm = LinearSvm::fit(learn.cells, &train, seed)?;
    f1(test.into_iter().map(|(r, class)| (class, svm.predict(told.cells.row(r as usize)))))
}

/// Mixtures fitted to the training codes of every modality that has pairs, and a remark on how.
struct Clusters {
    mixtures: Vec<Option<Mixture>>,
    how: String,
}

impl Clusters {
    fn fit(e: &Evaluation<'_>) -> Clusters {
        let mut classes: Vec<u32> = e.modalities.iter().filter_map(|m| m.labels).flatten().flatten().copied().collect();
        classes.sort_unstable();
        classes.dedup();
        let k = if classes.is_empty() { COMPONENTS } else { classes.len() };
        let settings = MixtureSettings { seed: e.seed, ..MixtureSettings::default() };
        let why = if classes.is_empty() { "no labels to count" } else { "one a label" };
        let mut how = format!("ami: Gaussian mixtures of {k} components ({why}), best of {} starts", settings.starts);
        let fit = |(i, m): (usize, &Evaluated<'_>)| {
            // One cluster agrees with everything.
            if k < 2 || !e.links.iter().any(|l| (l.a == i || l.b == i) && !l.pairs.is_empty()) {
                return None;
            }
            let mut rows = rows_where(m.roles, false);
            if rows.len() > FITTED {
                Sequence::new(e.seed, stream::SAMPLE, 0).shuffle(&mut rows);
                rows.truncate(FITTED);
            }
            Mixture::fit(Matrix::new(m.embedding, m.roles.len(), e.latent), &rows, k, settings)
        };
        let mixtures = e.modalities.iter().enumerate().map(fit).collect();
        if e.modalities.iter().any(|m| rows_where(m.roles, false).len() > FITTED) {
            how += &format!(", fitted to {FITTED} training cells drawn by the seed");
        }
        Clusters { mixtures, how }
    }
}

fn rows_where(roles: &[Role], held_out: bool) -> Vec<u32> {
    roles.iter().zip(0u32..).filter(|(role, _)| role.is(held_out)).map(|(_, row)| row).collect()
}

#[cfg(test)]
mod tests;
