//! `couplet import`: files of other programs become one DATASET, streaming, all or nothing.
//!
//! Ids of a file that has none: those of a label table with as many rows, else (`by-row`) those of the paired modality, else row
//! numbers. Pairs without `--pairs`: by name if any ids are shared; ids that are row numbers never pair by name.

use std::path::{Path, PathBuf};

use super::builder::{Builder, Identities, Stored};
use super::formats::{self, ModalitySource, Opening, RowsAre, Table, split_key};
use super::gene_activity::GeneActivity;
use super::hooks::Hooks;
use super::intervals::Interval;
use super::labels::Given;
use super::manifest::Provenance;
use super::oriented;
use super::own_labels;
use super::pairs::{self, Ids, Links, PairsRule};
use crate::error::{Error, Result, nearest};

/// A table of labels as typed: `FILE`, `FILE#COLUMN` or `NAME=FILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelSource {
    /// For this modality alone.
    pub modality: Option<String>,
    /// The table.
    pub file: PathBuf,
    /// The column meant when none is named.
    pub column: Option<String>,
}

impl LabelSource {
    /// Reads `FILE`, `FILE#COLUMN`, `NAME=FILE` or `NAME=FILE#COLUMN`; NAME must be one of `modalities`.
    pub fn parse(text: &str, modalities: &[ModalitySource]) -> LabelSource {
        let named =
            text.split_once('=').filter(|(n, f)| modalities.iter().any(|m| m.name == *n) && !f.is_empty() && !Path::new(text).exists());
        let (modality, rest) = named.map_or((None, text), |(n, f)| (Some(n.to_string()), f));
        let (file, column) = split_key(rest);
        LabelSource { modality, file, column }
    }
}

/// What to import.
#[derive(Debug, Clone, Default)]
pub struct ImportSpec {
    /// The modalities, in the order typed.
    pub modalities: Vec<ModalitySource>,
    /// Tables of labels.
    pub labels: Vec<LabelSource>,
    /// `--pairs`; without it by name if any ids are shared.
    pub pairs: Option<PairsRule>,
    /// `--rows`
    pub rows: Option<RowsAre>,
    /// `--missing nan`
    pub missing_nan: bool,
    /// `--in-place`: dense matrices that can be mapped where they are, are.
    pub in_place: bool,
    /// `--gene-activity`: the peaks of a modality become genes.
    pub activity: Option<GeneActivity>,
    /// `--orient`: the names of modalities whose images are turned by their moments.
    pub orient: Vec<String>,
}

/// What was imported, for the user.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportReport {
    /// How the rows were paired: `by-name`, `by-row`, `none` or the file.
    pub pairs: String,
    /// Cells with rows in two modalities or more.
    pub units: usize,
    /// Sentences worth a line each: rows of labels without a cell, repeated feature names.
    pub notes: Vec<String>,
}

/// Imports into `out`, which must not exist; an error or an interruption leaves nothing there.
pub fn import(spec: &ImportSpec, out: &Path, hooks: &mut Hooks) -> Result<ImportReport> {
    check(spec)?;
    let mut tables = read_labels(spec)?;
    let mut builder = Builder::create(out)?;
    if spec.in_place {
        builder.leave_in_place();
    }
    let (mut stored, mut own, mut notes) = (Vec::new(), Vec::new(), Vec::new());
    let scratch = builder.scratch()?;
    let open = |m: &ModalitySource| {
        formats::open(&Opening { file: &m.file, key: m.key.as_deref(), rows: spec.rows, missing_nan: spec.missing_nan, scratch: &scratch })
    };
    let peaks = spec.activity.as_ref().map(GeneActivity::peaks_given).transpose()?.flatten();
    let of_peaks = spec.activity.as_ref().map(|a| place_of_peaks(spec, a, peaks.as_deref(), &open)).transpose()?;
    for (place, m) in spec.modalities.iter().enumerate() {
        let mut source = open(m)?;
        let bytes = std::fs::metadata(&m.file).ok().filter(|d| d.is_file()).map(|d| d.len());
        let activity = spec.activity.as_ref().filter(|_| of_peaks == Some(place));
        if let Some(activity) = activity {
            source = activity.convert(source, &m.file, peaks.as_deref())?;
        }
        let orient = spec.orient.contains(&m.name);
        if orient {
            source = oriented::orient(source, &m.file)?;
        }
        let made = activity.map(GeneActivity::describe).or(orient.then(|| oriented::MADE.to_string()));
        let from = Provenance { file: m.file.display().to_string(), key: m.key.clone(), bytes, made };
        let mut done = builder.add(&m.name, source, from, hooks)?;
        if done.repeated_features > 0 {
            notes.push(format!("{}: {} feature names repeat an earlier one and are kept as they are", m.name, done.repeated_features));
        }
        notes.extend(done.notes.drain(..).map(|note| format!("{}: {note}", m.name)));
        own.extend(done.labels.take().map(|table| (place, table)));
        stored.push(done);
    }
    let ids = resolve_ids(spec, stored, &tables);
    let links = link(spec, &ids, &mut notes)?;
    let names: Vec<&str> = spec.modalities.iter().map(|m| m.name.as_str()).collect();
    let rows: Vec<&[String]> = ids.iter().map(|(ids, _)| ids.as_slice()).collect();
    notes.extend(own_labels::append(&mut tables, own, &names, &rows, &links));
    let rule = match (&spec.pairs, links.is_empty()) {
        (Some(PairsRule::File(file)), _) => file.display().to_string(),
        (Some(PairsRule::ByRow), false) => "by-row".into(),
        (_, true) => "none".into(),
        (_, false) => "by-name".into(),
    };
    let units = links.len();
    let default_label = spec.labels.iter().find_map(|l| l.column.clone());
    let who = Identities { ids, links, rule: rule.clone(), labels: &tables, default_label };
    notes.extend(builder.finish(who)?);
    Ok(ImportReport { pairs: rule, units, notes })
}

/// Which modality has the peaks: the one that is named, the only one, or the one whose columns fit them.
fn place_of_peaks(
    spec: &ImportSpec,
    activity: &GeneActivity,
    peaks: Option<&[Interval]>,
    open: &dyn Fn(&ModalitySource) -> Result<formats::Source>,
) -> Result<usize> {
    let names = || spec.modalities.iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(name) = &activity.modality {
        let place = spec.modalities.iter().position(|m| m.name == *name);
        return place
            .ok_or_else(|| Error::usage(format!("--gene-activity {name}=...: there is no modality \"{name}\"; there are: {}", names())));
    }
    let mut fitting = Vec::new();
    for (place, m) in spec.modalities.iter().enumerate().filter(|_| spec.modalities.len() > 1) {
        let head = open(m)?.head;
        if activity.fits(peaks, head.width(), head.features.as_deref()) {
            fitting.push(place);
        }
    }
    match fitting[..] {
        [place] => Ok(place),
        [] if spec.modalities.len() == 1 => Ok(0),
        _ => {
            let how =
                if fitting.is_empty() { "none of the modalities has columns that fit" } else { "several modalities have columns that fit" };
            Err(Error::usage(format!("--gene-activity: {how} the peaks: say which one is meant, NAME=PEAKS with NAME one of {}", names())))
        }
    }
}

fn check(spec: &ImportSpec) -> Result<()> {
    if spec.modalities.is_empty() {
        return Err(Error::usage("nothing to import: give --modality NAME=FILE, once for each modality"));
    }
    for (i, m) in spec.modalities.iter().enumerate() {
        formats::check_name(&m.name)?;
        if spec.modalities[..i].iter().any(|other| other.name.eq_ignore_ascii_case(&m.name)) {
            return Err(Error::usage(format!("two modalities are called \"{}\": give them different names", m.name)));
        }
    }
    let names = || spec.modalities.iter().map(|m| m.name.as_str());
    if let Some(name) = spec.orient.iter().find(|name| !names().any(|n| n == *name)) {
        let hint = nearest(name, names()).map(|n| format!(" (did you mean {n}?)")).unwrap_or_default();
        let have = names().collect::<Vec<_>>().join(", ");
        return Err(Error::usage(format!("--orient {name}: there is no modality \"{name}\"{hint}; there are: {have}")));
    }
    Ok(())
}

fn read_labels(spec: &ImportSpec) -> Result<Vec<Given>> {
    let mut tables = Vec::new();
    for source in &spec.labels {
        let place = |name: &String| {
            spec.modalities.iter().position(|m| m.name == *name).ok_or_else(|| {
                let names: Vec<&str> = spec.modalities.iter().map(|m| m.name.as_str()).collect();
                Error::usage(format!("--labels {name}=...: there is no modality \"{name}\"; there are: {}", names.join(", ")))
            })
        };
        let modality = source.modality.as_ref().map(place).transpose()?;
        let table = Table::read(&source.file)?;
        if let Some(column) = source.column.as_ref().filter(|c| !table.columns.contains(c)) {
            let hint =
                nearest(column, table.columns.iter().map(String::as_str)).map(|n| format!(" (did you mean {n}?)")).unwrap_or_default();
            let message = format!("there is no column \"{column}\"{hint}; there are: {}", table.columns.join(", "));
            return Err(Error::input(&source.file, "line 1", message));
        }
        tables.push(Given { modality, table });
    }
    Ok(tables)
}

/// The ids of every row, and in a word where they came from.
fn resolve_ids(spec: &ImportSpec, stored: Vec<Stored>, tables: &[Given]) -> Vec<(Vec<String>, &'static str)> {
    let mut known: Vec<Option<(Vec<String>, &'static str)>> = Vec::new();
    let cells: Vec<usize> = stored.iter().map(|s| s.cells).collect();
    for (m, s) in stored.into_iter().enumerate() {
        let own = tables.iter().filter(|t| t.modality == Some(m));
        let mut fitting = own.chain(tables.iter().filter(|t| t.modality.is_none())).filter(|t| t.table.ids.len() == s.cells);
        known.push(match s.ids {
            Some(ids) => Some((ids, "file")),
            None => fitting.next().map(|t| (t.table.ids.clone(), "labels")),
        });
    }
    let lent = if spec.pairs == Some(PairsRule::ByRow) { known.iter().flatten().next().map(|(ids, _)| ids.clone()) } else { None };
    let fill = |(found, n): (Option<(Vec<String>, &'static str)>, usize)| {
        found.unwrap_or_else(|| match lent.as_ref().filter(|ids| ids.len() == n) {
            Some(ids) => (ids.clone(), "paired modality"),
            None => ((0..n).map(|row| row.to_string()).collect(), "row numbers"),
        })
    };
    known.into_iter().zip(cells).map(fill).collect()
}

fn link(spec: &ImportSpec, ids: &[(Vec<String>, &'static str)], notes: &mut Vec<String>) -> Result<Links> {
    let modalities: Vec<Ids> = spec.modalities.iter().zip(ids).map(|(m, (ids, _))| Ids { name: &m.name, ids }).collect();
    match &spec.pairs {
        None => Ok(pairs::by_name(&modalities)),
        Some(PairsRule::None) => Ok(Links::none(modalities.len())),
        Some(PairsRule::File(file)) => pairs::from_file(file, &modalities),
        Some(PairsRule::ByRow) => {
            let links = pairs::by_row(&modalities)?;
            let named = pairs::by_name(&modalities);
            let crossed = (0..named.len()).filter(|&u| {
                let mut rows = (0..modalities.len()).filter_map(|m| named.row(u, m));
                let first = rows.next();
                rows.any(|r| Some(r) != first)
            });
            let crossed = crossed.count();
            if crossed > 0 {
                notes.push(format!("paired by row, although {crossed} cell ids stand in different rows: if equal ids are the same cell, use --pairs by-name"));
            }
            Ok(links)
        }
        Some(PairsRule::ByName) => {
            let links = pairs::by_name(&modalities);
            if !links.is_empty() || modalities.len() < 2 {
                return Ok(links);
            }
            if let Some(m) = modalities.iter().find(|m| pairs::are_row_numbers(m.ids)) {
                return Err(Error::usage(format!(
                    "--pairs by-name: the cells of \"{}\" have row numbers for ids, which do not say which cells they are; use --pairs by-row if rows are the same cells",
                    m.name
                )));
            }
            let (a, b) = (&modalities[0], &modalities[1]);
            Err(Error::usage(format!(
                "--pairs by-name: no cell id is in two modalities (\"{}\" begins with \"{}\", \"{}\" with \"{}\")",
                a.name, a.ids[0], b.name, b.ids[0]
            )))
        }
    }
}
