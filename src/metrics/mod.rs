//! The measures of the field, on host arrays: what is compared, what counts as good, and how it is told.
//!
//! [`METRICS`] lists every key of `metrics.json` that is computed here; [`Metrics`] holds values by key and prints or serialises them;
//! [`evaluation`] fills it for the embeddings of a run. Then a file a subject, none of which knows a device, a file or a model:
//! [`alignment`], [`silhouette`], [`transfer`], [`clustering`], [`agreement`], [`imputation`], [`linear`], [`unshared`], [`collapse`], and the
//! closed-form [`baselines`] on [`pca`] and [`cca`] (of cells without pairs: [`diagonal`]) with the metrics of [`translation`].
//!
//! Every result is the same for any number of threads, and a metric that cannot be said (no pairs, one class, one cell) is absent.

pub mod agreement;
pub mod alignment;
pub mod baselines;
pub mod cca;
pub mod clustering;
pub mod collapse;
pub mod comparison;
pub mod diagonal;
pub mod evaluation;
pub mod forest;
pub mod imputation;
pub mod linear;
pub mod matrix;
pub mod neighbours;
pub mod pca;
pub mod phenotype;
pub mod silhouette;
pub mod transfer;
pub mod translation;
pub mod unshared;

pub use evaluation::{Evaluated, Evaluation, PairSet, embedding_metrics, label_transfer};
pub use matrix::Matrix;
pub use translation::{ByFeature, baseline_metrics, distribution_metrics, translation_metrics};

use serde::ser::{Serialize, SerializeMap, Serializer};
use std::fmt;

/// Which way a metric is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Smaller values.
    Lower,
    /// Greater values.
    Higher,
    /// It only describes.
    Neither,
}

impl Better {
    /// ↑, ↓ or a blank.
    pub fn arrow(self) -> char {
        match self {
            Better::Lower => '↓',
            Better::Higher => '↑',
            Better::Neither => ' ',
        }
    }
}

/// A row of [`METRICS`].
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The key; capitals stand for modalities (A, B), for the number of neighbours (K) and for a label (TYPE). Extensions follow a dot.
    pub key: &'static str,
    /// What it is, in a line.
    pub what: &'static str,
    /// Which way it is better.
    pub better: Better,
}

const fn metric(key: &'static str, better: Better, what: &'static str) -> Metric {
    Metric { key, what, better }
}

use Better::{Higher, Lower, Neither};

/// Every key that is computed here, in the order they are told. A key is matched by its longest row; `.train` may follow any key.
pub const METRICS: &[Metric] = &[
    metric("cells", Neither, "cells evaluated, a paired cell once"),
    metric("paired_cells", Neither, "of them, cells seen in two modalities or more"),
    metric("foscttm", Lower, "cells closer than the true match (Euclidean); 0.5 is chance"),
    metric("foscttm_l1", Lower, "the same by l1 distance"),
    metric("lta", Higher, "label transfer accuracy: kNN (k=5) from the second modality to the first"),
    metric("knn_accuracy@K.A_to_B", Higher, "true match among the K nearest cells of B (l1)"),
    metric("knn_accuracy_repo@K.A_to_B", Higher, "nearest cell of B among the K nearest in B of the true match, itself one of them (l1)"),
    metric("class_accuracy.A", Higher, "A's labels by kNN (k=10, l1) on the other modality"),
    metric("head_accuracy.A", Higher, "A's labels by the model's own class head"),
    metric("f1.macro", Higher, "B's labels by a linear SVM on A's embedding, mean F1 of the classes"),
    metric("f1.macro.genes", Neither, "baseline: the same on the features as the model is given them"),
    metric("f1.macro.cca", Neither, "baseline: the same on 20 canonical variables of the features, which need no pairs"),
    metric(
        "f1.macro.within",
        Neither,
        "baseline: labels of B's cells by a linear SVM on B's own labelled cells, by five folds or held out",
    ),
    metric("f1.weighted", Higher, "the same as f1.macro, classes weighted by their cells"),
    metric("f1.weighted.genes", Neither, "baseline: the same on the features as the model is given them"),
    metric("f1.weighted.cca", Neither, "baseline: the same on 20 canonical variables of the features, which need no pairs"),
    metric(
        "f1.weighted.within",
        Neither,
        "baseline: labels of B's cells by a linear SVM on B's own labelled cells, by five folds or held out",
    ),
    metric("head_f1.macro", Higher, "B's labels by the model's own class head, mean F1 of the classes"),
    metric("silhouette.labels", Higher, "how apart the labels lie in the joint embedding"),
    metric("silhouette.modality", Lower, "how apart the modalities lie; 0 is mixed"),
    metric("silhouette.TYPE.shared", Neither, "how apart a label's classes lie in the shared space, mean of the encoders"),
    metric("silhouette.TYPE.shared.A", Neither, "the same of A's encoder"),
    metric("silhouette.TYPE.specific.A", Neither, "the same of the space that is A's alone"),
    metric("silhouette.TYPE.table.shared", Neither, "the same of the learned shared table"),
    metric("silhouette.TYPE.table.specific.A", Neither, "the same of A's learned table"),
    metric("r2.TYPE.shared", Neither, "share of a numeric or two-class label that is linear in the shared space, mean of the encoders"),
    metric("r2.TYPE.shared.A", Neither, "the same of A's encoder"),
    metric("r2.TYPE.specific.A", Neither, "the same of the space that is A's alone"),
    metric("r2.TYPE.table.shared", Neither, "the same of the learned shared table"),
    metric("r2.TYPE.table.specific.A", Neither, "the same of A's learned table"),
    metric(
        "classifier_accuracy.shared.A",
        Higher,
        "labels by a small network on the shared part of A's codes, on cells that it has not seen",
    ),
    metric("classifier_accuracy.specific.A", Neither, "the same on the part that is A's alone"),
    metric("classifier_accuracy.full.A", Higher, "the same on all of A's code"),
    metric("classifier_accuracy.chance", Neither, "baseline: the same from shuffled labels"),
    metric("qda_accuracy.A", Higher, "labels from A's codes by one Gaussian a class"),
    metric("qda_accuracy.A.error", Neither, "standard error over folds of the accuracy"),
    metric("qda_accuracy.A.most_frequent", Neither, "baseline: always the most frequent class"),
    metric("qda_accuracy.A.random", Neither, "baseline: classes at random by frequency"),
    metric("ami", Higher, "agreement of clusters found in each modality; 0 is chance, 1 is perfect"),
    metric("nearest_distance.A_to_B", Lower, "from A's cells to the nearest training cell of B, mean"),
    metric("unshared_ks.A_to_B.TYPE", Neither, "a type no training pair has: its distances against the rest's (K-S)"),
    metric("unshared_p.A_to_B.TYPE", Neither, "the test's p: small if the type lies apart from B"),
    metric("forest_auc.A_to_B", Higher, "classes of cells translated to B, by a random forest trained on measured B"),
    metric("forest_auc.A", Neither, "the same of A's own measured cells: what translated ones can reach"),
    metric("lda_auc.A_to_B", Higher, "classes of B's codes along the discriminant of A's training codes"),
    metric("lda_auc.A", Higher, "classes of A's codes along their own discriminant"),
    metric("de_pearson.A_to_B", Higher, "correlation over B's features of differences between classes, translated and measured"),
    metric("marker_overlap.A_to_B.TYPE", Higher, "of the 50 strongest markers of a class in measured B, how many are in translated B"),
    metric("latent_rms.A", Neither, "root mean square of A's codes"),
    metric("latent_singular_min.A", Higher, "least deviation of A's codes along any axis; 0 is collapsed"),
    metric("latent_singular_ratio.A", Higher, "least over greatest deviation; 1 is white"),
    metric("recon_mse.A", Lower, "error of A from its own code, standardised: the mean scores 1"),
    metric("cross_mse.A_to_B", Lower, "error of B from A's code, standardised: the mean scores 1"),
    metric("cross_mse.A_to_B.knn", Neither, "baseline: mean of the 5 nearest training cells' B"),
    metric("cross_mse.A_to_B.pc_cca", Neither, "baseline: least squares from A's PC-CCA scores"),
    metric("pearson.A_to_B", Higher, "correlation of imputed and measured, mean over features"),
    metric("pearson.A_to_B.knn", Neither, "baseline: the same of 5 nearest neighbours"),
    metric("auroc.A_to_B", Higher, "imputed value against measured above median, mean over features"),
    metric("auroc.A_to_B.knn", Neither, "baseline: the same of 5 nearest neighbours"),
    metric("binomial_p.pearson.A_to_B", Neither, "p that as many features have a higher correlation than the baseline's by chance"),
    metric("binomial_p.auroc.A_to_B", Neither, "the same of the area under the curve"),
    metric("binomial_p.pearson.A_to_B.wins", Neither, "features where the model is better than 5 nearest neighbours"),
    metric("binomial_p.pearson.A_to_B.losses", Neither, "features where the neighbours are better"),
    metric("binomial_p.auroc.A_to_B.wins", Neither, "features where the model is better than 5 nearest neighbours"),
    metric("binomial_p.auroc.A_to_B.losses", Neither, "features where the neighbours are better"),
    metric("js_distance.A_to_B", Lower, "Jensen-Shannon distance of imputed and measured, mean over features and classes"),
    metric("js_distance.A_to_B.deviation", Neither, "its standard deviation"),
    metric("held_out", Neither, "whether the plain keys are of cells that training never saw"),
];

/// The row that describes `key`, `.train` or not: the one whose pattern agrees with most of the key.
pub fn describe(key: &str) -> Option<&'static Metric> {
    let key = key.strip_suffix(".train").unwrap_or(key);
    let agreement = |row: &Metric| {
        let mut parts = key.split('.');
        let mut score = 0;
        for pattern in row.key.split('.') {
            let part = parts.next()?;
            score += match pattern {
                "A" | "TYPE" => 1,
                "A_to_B" if part.contains("_to_") => 2,
                _ if pattern.ends_with("@K") && part.starts_with(pattern.trim_end_matches('K')) => 3,
                _ if pattern == part => 3,
                _ => return None,
            };
        }
        Some(score)
    };
    METRICS
        .iter()
        .filter_map(|row| agreement(row).map(|score| (score, row)))
        .fold(None, |best, next| match best {
            Some((score, row)) if score >= next.0 => Some((score, row)),
            _ => Some(next),
        })
        .map(|best| best.1)
}

/// A metric's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A measured number; always finite.
    Number(f64),
    /// A count.
    Count(u64),
    /// Yes or no.
    Flag(bool),
}

impl From<f64> for Value {
    fn from(v: f64) -> Value {
        Value::Number(v)
    }
}

impl From<usize> for Value {
    fn from(v: usize) -> Value {
        Value::Count(v as u64)
    }
}

impl From<bool> for Value {
    fn from(v: bool) -> Value {
        Value::Flag(v)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Number(v) if *v != 0.0 && v.abs() < 5e-4 => write!(f, "{v:.1e}"),
            Value::Number(v) => write!(f, "{v:.4}"),
            Value::Count(v) => write!(f, "{v}"),
            Value::Flag(v) => f.write_str(if *v { "yes" } else { "no" }),
        }
    }
}

/// Values by key, in the order they were set, and remarks on how they came about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    values: Vec<(String, Value)>,
    notes: Vec<String>,
    features: Vec<FeatureRow>,
}

/// How well one feature is predicted from another modality: a row of `metrics_by_feature.csv`.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct FeatureRow {
    /// "A_to_B".
    pub direction: String,
    /// "held-out" or "train".
    pub cells: &'static str,
    /// Its name in B.
    pub feature: String,
    /// Correlation of predicted and measured values; none where either does not vary.
    pub pearson: Option<f64>,
    /// Area under the curve, measured values above 0 against the others; none where all are of one kind.
    pub auroc: Option<f64>,
    /// The same of the nearest neighbours' mean; none of training cells.
    pub pearson_knn: Option<f64>,
    /// As `auroc`.
    pub auroc_knn: Option<f64>,
}

impl Metrics {
    /// Empty.
    pub fn new() -> Metrics {
        Metrics::default()
    }

    /// Sets a key. A number that is not finite does not apply: the key stays (or becomes) absent.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        let (key, value) = (key.into(), value.into());
        let finite = !matches!(value, Value::Number(v) if !v.is_finite());
        match self.values.iter().position(|v| v.0 == key) {
            Some(at) if finite => self.values[at].1 = value,
            Some(at) => {
                self.values.remove(at);
            }
            None if finite => self.values.push((key, value)),
            None => {}
        }
    }

    /// Sets a key if there is a value for it.
    pub fn set_some(&mut self, key: impl Into<String>, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.set(key, value);
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<Value> {
        self.values.iter().find(|v| v.0 == key).map(|v| v.1)
    }

    /// The number of a key.
    pub fn number(&self, key: &str) -> Option<f64> {
        match self.get(key)? {
            Value::Number(v) => Some(v),
            Value::Count(v) => Some(v as f64),
            Value::Flag(_) => None,
        }
    }

    /// Keys and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Value)> {
        self.values.iter().map(|v| (v.0.as_str(), v.1))
    }

    /// A remark for the reader of the table (not in the JSON); the same one twice is kept once.
    pub fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// The remarks.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Features one by one: not in the JSON, which is flat.
    pub fn features(&self) -> &[FeatureRow] {
        &self.features
    }

    /// Adds a feature's row.
    pub fn add_feature(&mut self, row: FeatureRow) {
        self.features.push(row);
    }

    /// Takes over the values, remarks and features of `other`.
    pub fn extend(&mut self, other: Metrics) {
        self.features.extend(other.features);
        other.values.into_iter().for_each(|(key, value)| self.set(key, value));
        other.notes.into_iter().for_each(|note| self.note(note));
    }

    /// One flat JSON object, a key a line, ending in a newline.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("strings and finite numbers");
        text.push('\n');
        text
    }

    /// A table for people: a metric a line, held-out and training values side by side, which way is better, what it means.
    pub fn to_table(&self) -> String {
        let held_out = self.get("held_out") == Some(Value::Flag(true));
        let plain = |key: &str| key.strip_suffix(".train").unwrap_or(key).to_string();
        let mut keys: Vec<String> = Vec::new();
        for (key, _) in self.iter().filter(|(key, _)| *key != "held_out") {
            if !keys.contains(&plain(key)) {
                keys.push(plain(key));
            }
        }
        // In the order of METRICS; keys of one row, and keys without one, in the order they were set.
        let place = |key: &String| describe(key).and_then(|row| METRICS.iter().position(|m| m.key == row.key)).unwrap_or(METRICS.len());
        keys.sort_by_key(place);
        let cell = |key: &str| self.get(key).map_or(String::new(), |v| v.to_string());
        let mut rows = vec![vec!["metric".to_string(), if held_out { "held out" } else { "value" }.to_string()]];
        if held_out {
            rows[0].push("training".to_string());
        }
        for key in &keys {
            let mut row = vec![key.clone(), cell(key)];
            if held_out {
                row.push(cell(&format!("{key}.train")));
            }
            rows.push(row);
        }
        let widths: Vec<usize> = (0..rows[0].len()).map(|c| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0)).collect();
        let mut text = String::new();
        for (at, row) in rows.iter().enumerate() {
            let mut line = format!("{:<1$}", row[0], widths[0]);
            for (value, width) in row.iter().zip(&widths).skip(1) {
                line += &format!("  {value:>width$}");
            }
            let described = at.checked_sub(1).and_then(|at| describe(&keys[at]));
            line += &described.map_or(String::new(), |m| format!("  {}  {}", m.better.arrow(), m.what));
            text += line.trim_end();
            text.push('\n');
        }
        if !held_out && self.get("held_out").is_some() {
            text += "\nno cells were held out: these are the training cells' values\n";
        }
        for (at, note) in self.notes.iter().enumerate() {
            text += &format!("{}{note}\n", if at == 0 { "\n" } else { "" });
        }
        text
    }
}

impl Serialize for Metrics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.values.len()))?;
        for (key, value) in &self.values {
            match value {
                Value::Number(v) => map.serialize_entry(key, v)?,
                Value::Count(v) => map.serialize_entry(key, v)?,
                Value::Flag(v) => map.serialize_entry(key, v)?,
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_find_the_row_that_says_most_about_them() {
        let row = |key| describe(key).map(|m| m.key);
        assert_eq!(row("foscttm"), Some("foscttm"));
        assert_eq!(row("foscttm.rna_ephys.train"), Some("foscttm"));
        assert_eq!(row("foscttm_l1.rna_ephys"), Some("foscttm_l1"));
        assert_eq!(row("knn_accuracy@50.rna_to_ephys"), Some("knn_accuracy@K.A_to_B"));
        assert_eq!(row("silhouette.modality"), Some("silhouette.modality"));
        assert_eq!(row("qda_accuracy.rna"), Some("qda_accuracy.A"));
        assert_eq!(row("qda_accuracy.rna.error.train"), Some("qda_accuracy.A.error"));
        assert_eq!(row("cross_mse.a_to_b.knn"), Some("cross_mse.A_to_B.knn"));
        assert_eq!(row("pearson.a_to_b.median"), Some("pearson.A_to_B"));
        assert_eq!(row("unheard_of"), None);
        for m in METRICS {
            assert_eq!(row(m.key), Some(m.key));
        }
    }

    #[test]
    fn json_is_flat_in_order_and_without_what_does_not_apply() {
        let mut m = Metrics::new();
        m.set("cells", 7usize);
        m.set("lta", 0.5);
        m.set("ami", f64::NAN);
        m.set("held_out", true);
        m.set_some("qda_accuracy.a", None::<f64>);
        m.set("lta", 0.25);
        assert_eq!(m.to_json(), "{\n  \"cells\": 7,\n  \"lta\": 0.25,\n  \"held_out\": true\n}\n");
        m.set("lta", f64::INFINITY);
        assert_eq!((m.get("lta"), m.number("cells"), m.number("held_out")), (None, Some(7.0), None));
    }

    #[test]
    fn table_puts_training_values_beside_held_out_ones() {
        let mut m = Metrics::new();
        m.set("lta", 0.5);
        m.set("foscttm.a_b", 0.25);
        m.set("foscttm", 0.25);
        m.set("foscttm.train", 0.0001);
        m.set("held_out", true);
        m.note("remark");
        m.note("remark");
        let table = m.to_table();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0], "metric       held out  training");
        assert!(lines[1].starts_with("foscttm.a_b    0.2500            ↓  cells closer"), "{table}");
        assert!(lines[2].starts_with("foscttm        0.2500    1.0e-4  ↓  cells closer"), "{table}");
        assert!(lines[3].starts_with("lta            0.5000            ↑  label"), "{table}");
        assert_eq!(lines[4..], ["", "remark"]);
        m.set("held_out", false);
        assert!(m.to_table().contains("no cells were held out"));
    }
}
