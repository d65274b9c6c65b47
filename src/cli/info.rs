//! `couplet info`: what is in a DATASET, on a page.

use super::dataset::{DatasetArgs, Opened, Place};
use super::{interrupt, progress, say, say_exactly};
use couplet::data::labels::Labels;
use couplet::data::{Dataset, Modality};
use couplet::error::Result;
use std::path::PathBuf;

/// The flags of `couplet info`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    data: DatasetArgs,
    /// Read every file and compare it with its checksum
    #[arg(long)]
    verify: bool,
}

/// As many classes of a label column as are listed one by one.
const LISTED: usize = 12;

/// Describes a dataset.
pub fn run(args: Args) -> Result<()> {
    let stop = interrupt::install("nothing is kept")?;
    let imported = PathBuf::from(format!(".couplet-info.{}", std::process::id()));
    let Opened { dataset, .. } = &args.data.open(Place { default: None, imported, keep: false, reuse: false }, &stop)?;
    say_exactly(&describe(dataset)?)?;
    if args.verify {
        progress::with_hooks(Some(&stop), |hooks| dataset.verify(hooks))?;
        say("every file is as it was written")?;
    }
    Ok(())
}

/// The page.
pub fn describe(dataset: &Dataset) -> Result<String> {
    let manifest = dataset.manifest();
    let mut rows = vec![["modality", "cells", "features", "stored", "non-zero", "range", "missing", "from"].map(str::to_string)];
    rows.extend(dataset.modalities().iter().map(row));
    let mut out = format!("{}: {} cells, made by {}\n\n{}", dataset.dir().display(), dataset.cells(), manifest.made_by, columns(&rows));
    let pairs = &manifest.pairs;
    let weighted = if pairs.weighted { ", weighted" } else { "" };
    out += &match (pairs.units, pairs.rule.as_str()) {
        (0, _) => "\nno pairs\n".to_string(),
        (n, rule) => format!("\n{n} pair{} ({rule}{weighted})\n", if n == 1 { "" } else { "s" }),
    };
    for (labels, entry) in dataset.labels()?.zip(&manifest.labels) {
        let column = &labels.column;
        let mut counts = vec![0usize; labels.classes.len()];
        let mut unlabelled = 0usize;
        for class in cells(dataset, &labels) {
            match class.and_then(|c| counts.get_mut(c as usize)) {
                Some(count) => *count += 1,
                None => unlabelled += 1,
            }
        }
        let default = if dataset.default_label() == Some(column) { " (default)" } else { "" };
        let of = entry.modalities.as_ref().map(|m| format!(" of {}", m.join(", "))).unwrap_or_default();
        let list = match labels.classes.len() {
            0 => "no labels".to_string(),
            n if n > LISTED => format!("{n} different values, {} to {}", labels.classes[0], labels.classes[n - 1]),
            _ => labels.classes.iter().zip(&counts).map(|(c, n)| format!("{c} {n}")).collect::<Vec<_>>().join(", "),
        };
        let unlabelled = if unlabelled > 0 { format!(", {unlabelled} cells unlabelled") } else { String::new() };
        out += &format!("label {column}{default}{of}: {list}{unlabelled}\n");
    }
    Ok(out)
}

/// The class of every cell that a column labels, a cell with rows in several modalities once.
fn cells(dataset: &Dataset, labels: &Labels) -> Vec<Option<u32>> {
    let mut by_line: Vec<Option<Option<u32>>> = vec![None; dataset.cells()];
    for (modality, classes) in dataset.modalities().iter().zip(&labels.rows) {
        for (&line, class) in modality.lines().iter().zip(classes) {
            let known = by_line[line as usize].flatten();
            by_line[line as usize] = Some(known.or(*class));
        }
    }
    by_line.into_iter().flatten().collect()
}

fn row(m: &Modality) -> [String; 8] {
    let (entry, facts) = (m.entry(), m.facts());
    let shape = match m.is_image() {
        true => m.shape().iter().map(usize::to_string).collect::<Vec<_>>().join(" x "),
        false => m.features().to_string(),
    };
    let percent = |n: u64| format!("{:.1} %", 100.0 * n as f64 / (m.cells() as f64 * m.features() as f64));
    let range = match (facts.min, facts.max) {
        (Some(min), Some(max)) => {
            let kind = if facts.all_integers_nonnegative { " whole" } else { "" };
            format!("{min:.4}..{max:.4}{kind}").replace(".0000", "")
        }
        _ => "-".into(),
    };
    let missing = if facts.missing == 0 { "-".into() } else { format!("{} ({})", facts.missing, percent(facts.missing)) };
    let from = entry.source.key.as_ref().map_or(entry.source.file.clone(), |key| format!("{}#{key}", entry.source.file));
    let from = entry.source.made.as_ref().map_or(from.clone(), |made| format!("{from}; {made}"));
    let stored = format!("{} {}, {}", entry.layout, entry.dtype, bytes(m.stored_bytes()));
    [m.name().to_string(), m.cells().to_string(), shape, stored, percent(facts.nonzeros), range, missing, from]
}

/// Columns as wide as their widest entry.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |c: usize| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| row.iter().zip(&widths).map(|(text, &w)| format!("{text:w$}")).collect::<Vec<_>>().join("  ");
    rows.iter().map(|r| line(r).trim_end().to_string() + "\n").collect()
}

/// `12.3 MB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "kB", "MB", "GB", "TB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} bytes") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_a_person_says_them() {
        assert_eq!([999, 1000, 1_234_567, u64::MAX].map(bytes), ["999 bytes", "1.0 kB", "1.2 MB", "18446744.1 TB"]);
    }
}
