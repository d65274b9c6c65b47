//! `couplet evaluate`: the metrics of a run, as a table and as `metrics.json`.

use super::dataset::{DatasetArgs, Opened, Place};
use super::{DeviceArgs, check_out, interrupt, say_exactly};
use couplet::error::Result;
use couplet::run::{Run, write_json};
use couplet::train::Trained;
use serde_json::{Map, Value};
use std::path::PathBuf;

/// The flags of `couplet evaluate`.
#[derive(clap::Args)]
pub struct Args {
    /// The run that is measured
    #[arg(value_name = "RUN")]
    run: PathBuf,
    #[command(flatten)]
    data: DatasetArgs,
    /// Write the metrics here too, as JSON
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Evaluates.
pub fn run(args: Args) -> Result<()> {
    if let Some(out) = &args.out {
        check_out(out)?;
    }
    let labels = args.data.label_column()?;
    let stop = interrupt::install("metrics.json stays as it is")?;
    let Opened { dataset, .. } = &args.data.open(Place::of_run(&args.run)?, &stop)?;
    let mut trained = Trained::open(&args.run, args.device.open()?)?;
    let metrics = trained.evaluate(dataset, labels.as_deref())?;
    Run::open(&args.run)?.0.save_metrics(&metrics)?;
    if let Some(out) = &args.out {
        write_json(out, &metrics)?;
    }
    say_exactly(&table(&metrics))
}

/// The metrics, one a line; where there are held-out cells, the training cells' value stands beside theirs.
pub fn table(metrics: &Map<String, Value>) -> String {
    let shown = |v: &Value| match v {
        Value::Number(n) if n.is_f64() => format!("{:.4}", n.as_f64().unwrap_or(f64::NAN)),
        v => v.to_string(),
    };
    let keys: Vec<&String> = metrics.keys().filter(|k| k.strip_suffix(".train").is_none_or(|plain| !metrics.contains_key(plain))).collect();
    let width = keys.iter().map(|k| k.len()).max().unwrap_or(0);
    let held_out = metrics.get("held_out") == Some(&Value::Bool(true));
    let mut out = match held_out {
        true => format!("{:width$}  {:>10}  {:>10}\n", "metric", "held out", "training"),
        false => format!("{:width$}  {:>10}\n", "metric", "training"),
    };
    for key in keys {
        let value = metrics.get(key).map(shown).unwrap_or_default();
        let train = metrics.get(&format!("{key}.train")).map(|v| format!("  {:>10}", shown(v))).unwrap_or_default();
        out += &format!("{key:width$}  {value:>10}{train}\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_out_and_training_values_stand_side_by_side() {
        let Value::Object(m) = serde_json::json!({"cells": 60, "foscttm": 0.0125, "foscttm.train": 0.5, "held_out": true}) else { panic!() };
        let text = table(&m);
        assert!(text.contains("foscttm       0.0125      0.5000\n") && text.contains("cells             60\n"), "{text}");
        assert!(!text.contains("foscttm.train"));
    }
}
