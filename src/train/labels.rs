//! What a model learns of its cells' labels: a number a cell, minibatch by minibatch.

use crate::data::Dataset;
use crate::data::labels::Labels;
use crate::data::plan::Plan;
use crate::engine::{Step, Var};
use crate::error::Result;
use crate::models;

/// The labels' way to the device: an epoch's worth at a time.
pub struct LabelFeed {
    /// By modality and row of the dataset; NaN where nothing is known.
    values: Vec<Vec<f32>>,
    /// An epoch's [slots, 1], a modality each.
    vars: Vec<Var>,
    host: Vec<f32>,
}

/// The numbers that a model is given: the classes', or the labels themselves standardised over the training cells.
pub fn numbers(dataset: &Dataset, labels: &Labels, training: &[Vec<u32>], use_of: models::Labels) -> Result<Vec<Vec<f32>>> {
    if use_of == models::Labels::Classes {
        return Ok(labels.rows.iter().map(|rows| rows.iter().map(|c| c.map_or(f32::NAN, |c| c as f32)).collect()).collect());
    }
    let mut values = labels.numbers(&dataset.dir().join("cells.csv"))?;
    let seen = || values.iter().zip(training).flat_map(|(v, rows)| rows.iter().map(|&r| f64::from(v[r as usize]))).filter(|v| !v.is_nan());
    let n = seen().count().max(1) as f64;
    let mean = seen().sum::<f64>() / n;
    let deviation = (seen().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
    let scale = if deviation > 0.0 { 1.0 / deviation } else { 1.0 };
    values.iter_mut().flatten().for_each(|v| *v = ((f64::from(*v) - mean) * scale) as f32);
    Ok(values)
}

impl LabelFeed {
    /// Makes room for epochs of `slots`. `values` is of every modality's rows.
    pub fn new(s: &mut Step, values: Vec<Vec<f32>>, slots: usize) -> Result<LabelFeed> {
        s.end();
        let vars = values.iter().map(|_| s.resident([slots, 1])).collect::<Result<_>>()?;
        Ok(LabelFeed { values, vars, host: Vec::with_capacity(slots) })
    }

    /// Takes over an epoch's order.
    pub fn set_order(&mut self, s: &mut Step, plan: &Plan) -> Result<()> {
        for (m, (values, &v)) in self.values.iter().zip(&self.vars).enumerate() {
            self.host.clear();
            self.host.extend(plan.order(m).iter().map(|&row| values[row as usize]));
            s.upload(v, &self.host)?;
        }
        Ok(())
    }

    /// The labels [rows, 1] of the step under way, a modality each.
    pub fn minibatch<const N: usize>(&self, s: &mut Step, rows: usize) -> [Var; N] {
        let mut out = [Var::NONE; N];
        out.iter_mut().zip(&self.vars).for_each(|(out, &v)| *out = s.window(v, rows));
        out
    }

    /// How many modalities there are.
    pub fn modalities(&self) -> usize {
        self.vars.len()
    }
}
