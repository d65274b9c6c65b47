//! Where a DATASET comes from: a directory, or files that are imported on the fly.

use super::{note, progress};
use couplet::data::Dataset;
use couplet::data::formats::{ModalitySource, RowsAre, split_key};
use couplet::data::gene_activity::{GeneActivity, Peaks};
use couplet::data::import::{ImportSpec, LabelSource, import};
use couplet::data::pairs::PairsRule;
use couplet::error::{Error, Result};
use couplet::run::Run;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// Files that other programs wrote: the flags of `import`, and of every command that takes a DATASET.
#[derive(clap::Args)]
pub struct FileArgs {
    /// A modality and its file, repeatable; KEY chooses one of several matrices in it
    #[arg(long, value_name = "NAME=FILE[#KEY]")]
    pub modality: Vec<String>,
    /// Which rows are the same cell: by-name, by-row, none, or a CSV of two ids and perhaps a confidence, of more where its first line names
    /// the modalities [default: by-name if ids are shared]
    #[arg(long, value_name = "FILE|by-name|by-row|none", requires = "modality")]
    pub pairs: Option<String>,
    /// nan: values that are no finite numbers are missing, not errors
    #[arg(long, value_name = "nan", requires = "modality", value_parser = ["nan"])]
    pub missing: Option<String>,
    /// What the rows of a MatrixMarket file without names beside it are
    #[arg(long, value_name = "cells|features", requires = "modality", value_parser = ["cells", "features"])]
    pub rows: Option<String>,
    /// Use dense matrices where they are, if they are uncompressed (.npy, .h5ad), instead of copying them
    #[arg(long, requires = "modality")]
    pub in_place: bool,
    /// Turn every image of this modality by its own moments, so that its subject lies across the middle, its longer tails to the right and
    /// down; repeatable
    #[arg(long, value_name = "NAME", requires = "modality")]
    pub orient: Vec<String>,
    /// Turn the peaks of a modality into the activity of genes: where its columns lie, in their order, or var if their names say it
    /// (chr1:100-200). NAME is needed where the columns of several modalities would fit
    #[arg(long, value_name = "[NAME=]PEAKS.bed|var", requires_all = ["modality", "genes"])]
    pub gene_activity: Option<String>,
    /// The genes of --gene-activity, .bed (name in the fourth, strand in the sixth column) or .gtf, .gz too; ATTRIBUTE of a GTF names
    /// them [default: gene_name, else gene_id]
    #[arg(long, value_name = "GENES.gtf|bed[#ATTRIBUTE]", requires = "gene_activity")]
    pub genes: Option<String>,
    /// Let the bodies of the genes begin so many bases before transcription does
    #[arg(long, value_name = "BASES", requires = "gene_activity", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=1 << 40))]
    pub upstream: u64,
}

/// A DATASET, wherever one stands.
#[derive(clap::Args)]
pub struct DatasetArgs {
    /// What `couplet import` or `couplet simulate` made
    #[arg(value_name = "DATASET", conflicts_with = "modality")]
    dataset: Option<PathBuf>,
    #[command(flatten)]
    files: FileArgs,
    /// A label column; with --modality also a table of labels: FILE, FILE#COLUMN, or NAME=FILE for one modality
    #[arg(long, value_name = "COLUMN")]
    labels: Vec<String>,
}

/// What a command does with its DATASET.
pub struct Place {
    /// The dataset where none is named.
    pub default: Option<PathBuf>,
    /// Where files are imported to.
    pub imported: PathBuf,
    /// Whether that stays.
    pub keep: bool,
    /// Whether files that were imported before are taken as they are.
    pub reuse: bool,
}

impl Place {
    /// For a command that uses a run: its dataset, unless another is named, and files are imported for this time only.
    pub fn of_run(run: &Path) -> Result<Place> {
        let (_, config) = Run::open(run)?;
        let imported = run.join(format!(".dataset.{}", std::process::id()));
        Ok(Place { default: Some(config.dataset_from(run)), imported, keep: false, reuse: false })
    }
}

/// An open dataset. One that was imported for this time only goes when this does.
pub struct Opened {
    /// The dataset; it is closed before its files go.
    pub dataset: Dataset,
    _scratch: Option<Scratch>,
}

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl FileArgs {
    /// For a command that imports on the fly: what in `labels` is no table is a column.
    fn spec(&self, labels: &[String]) -> Result<ImportSpec> {
        let modalities: Vec<ModalitySource> = self.modality.iter().map(|m| ModalitySource::parse(m)).collect::<Result<_>>()?;
        let labels = labels.iter().filter_map(|l| table(l, &modalities)).collect();
        Ok(ImportSpec {
            labels,
            pairs: self.pairs.as_deref().map(PairsRule::parse),
            rows: self.rows.as_deref().map(RowsAre::parse).transpose()?,
            missing_nan: self.missing.is_some(),
            in_place: self.in_place,
            activity: self.activity(),
            orient: self.orient.clone(),
            modalities,
        })
    }

    /// What `--gene-activity` and `--genes` say.
    fn activity(&self) -> Option<GeneActivity> {
        let (peaks, genes) = (self.gene_activity.as_ref()?, self.genes.as_ref()?);
        let named = peaks.split_once('=').filter(|(_, file)| !file.is_empty() && !Path::new(peaks).exists());
        let (modality, peaks) = named.map_or((None, peaks.as_str()), |(name, file)| (Some(name.to_string()), file));
        let peaks = if peaks == "var" { Peaks::Names } else { Peaks::Bed(peaks.into()) };
        let (genes, attribute) = split_key(genes);
        Some(GeneActivity { modality, peaks, genes, attribute, upstream: self.upstream })
    }

    /// What `couplet import` imports: every `--labels` is a table.
    pub fn spec_of_tables(&self, labels: &[String]) -> Result<ImportSpec> {
        let mut spec = self.spec(&[])?;
        spec.labels = labels.iter().map(|l| LabelSource::parse(l, &spec.modalities)).collect();
        Ok(spec)
    }
}

/// Imports, with a bar, and says what is worth saying.
pub fn import_into(spec: &ImportSpec, out: &Path, stop: &AtomicBool) -> Result<Dataset> {
    let report = progress::with_hooks(Some(stop), |hooks| import(spec, out, hooks))?;
    report.notes.iter().for_each(note);
    Dataset::open(out)
}

/// The table that a `--labels` names, if it is one and not a column.
fn table(text: &str, modalities: &[ModalitySource]) -> Option<LabelSource> {
    let source = LabelSource::parse(text, modalities);
    (source.modality.is_some() || source.file.is_file()).then_some(source)
}

impl DatasetArgs {
    /// Opens what is meant: the DATASET, the files, or the default of the place.
    pub fn open(&self, place: Place, stop: &AtomicBool) -> Result<Opened> {
        if self.files.modality.is_empty() {
            let Some(dir) = self.dataset.as_ref().or(place.default.as_ref()) else {
                return Err(Error::usage("name a DATASET, or give its files by --modality NAME=FILE, once for each modality"));
            };
            let dataset = Dataset::open(dir).map_err(|e| match &self.dataset {
                None if !dir.exists() => Error::usage(format!("the run's dataset {} is gone: name a DATASET", dir.display())),
                _ => e,
            })?;
            return Ok(Opened { dataset, _scratch: None });
        }
        if place.reuse && place.imported.exists() {
            note(format!("the files were imported before: using {}", place.imported.display()));
            return Ok(Opened { dataset: Dataset::open(&place.imported)?, _scratch: None });
        }
        let spec = self.files.spec(&self.labels)?;
        let scratch = (!place.keep).then(|| Scratch(place.imported.clone()));
        let dataset = import_into(&spec, &place.imported, stop)?;
        Ok(Opened { dataset, _scratch: scratch })
    }

    /// The column that `--labels` names, by itself or as `FILE#COLUMN`.
    pub fn label_column(&self) -> Result<Option<String>> {
        let modalities: Vec<ModalitySource> = self.files.modality.iter().map(|m| ModalitySource::parse(m)).collect::<Result<_>>()?;
        let mut columns = Vec::new();
        for text in &self.labels {
            match table(text, &modalities) {
                Some(_) if modalities.is_empty() => {
                    return Err(Error::usage(format!(
                        "--labels {text}: a table of labels is read where --modality stands and by `couplet import`; here name a column"
                    )));
                }
                Some(table) => columns.extend(table.column),
                None => columns.push(text.clone()),
            }
        }
        match columns.as_slice() {
            [] | [_] => Ok(columns.pop()),
            [a, b, ..] => Err(Error::usage(format!("--labels names two columns, {a} and {b}: name one"))),
        }
    }
}
