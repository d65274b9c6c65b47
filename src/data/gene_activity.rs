//! `import --gene-activity`: counts of peaks become the activity of genes, row by row as they are imported.
//!
//!   activity   of gene g in a cell: the sum of the values of all peaks that overlap g's body; a peak counts for every gene that it overlaps
//!   upstream   lets bodies begin so many bases before transcription does (0 in sciCAN's preprint, 2,000 is the habit elsewhere)
//!   genes      all of the file, in its order; those without a peak are 0 in every cell, and counted in a note
//!   missing    a gene with a missing peak is missing
//!   memory     one row; in sparse or dense, out sparse, sums in f64 in the order of the peaks
//!   source     sciCAN (Xu et al. 2022), Methods: gene activity as the sum of a gene body's counts

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::formats::{Layout, Row, Rows, Source, Table};
use super::hooks::Hooks;
use super::intervals::{self, Interval};
use crate::error::{Error, Result};

/// Where the peaks of a modality's columns lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peaks {
    /// A BED file, a line a column, in the order of the columns.
    Bed(PathBuf),
    /// The names of the columns say it: `chr1:100-200`, `chr1-100-200` or `chr1_100_200`.
    Names,
}

/// What is to become gene activity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneActivity {
    /// The modality; none: the one whose columns fit the peaks.
    pub modality: Option<String>,
    /// Where its columns lie.
    pub peaks: Peaks,
    /// BED or GTF of the genes.
    pub genes: PathBuf,
    /// The attribute of a GTF that names the genes; `gene_name` without one.
    pub attribute: Option<String>,
    /// Bases by which bodies begin earlier.
    pub upstream: u64,
}

impl GeneActivity {
    /// Whether a modality with these features can be meant.
    pub fn fits(&self, peaks: Option<&[Interval]>, features: usize, names: Option<&[String]>) -> bool {
        match peaks {
            Some(peaks) => peaks.len() == features,
            None => names.is_some_and(|names| names.iter().all(|n| intervals::peak_of_name(n).is_some())),
        }
    }

    /// The peaks of the BED file, where there is one.
    pub fn peaks_given(&self) -> Result<Option<Vec<Interval>>> {
        match &self.peaks {
            Peaks::Bed(path) => intervals::peaks_of_bed(path).map(Some),
            Peaks::Names => Ok(None),
        }
    }

    /// In a few words, for `dataset.json`.
    pub fn describe(&self) -> String {
        let peaks = match &self.peaks {
            Peaks::Bed(path) => path.display().to_string(),
            Peaks::Names => "var".into(),
        };
        let attribute = self.attribute.as_ref().map(|a| format!("#{a}")).unwrap_or_default();
        format!("gene activity: peaks {peaks}, genes {}{attribute}, upstream {}", self.genes.display(), self.upstream)
    }

    /// The source of genes in place of the source of peaks that `file` gives.
    pub fn convert(&self, source: Source, file: &std::path::Path, given: Option<&[Interval]>) -> Result<Source> {
        let Source { mut head, rows } = source;
        if head.shape.len() != 1 {
            return Err(Error::input(file, "", "its cells are images, which have no peaks: leave --gene-activity out"));
        }
        let width = head.width();
        let mut notes = Vec::new();
        let of_names;
        let peaks = match given {
            Some(peaks) => {
                if let (Peaks::Bed(bed), true) = (&self.peaks, peaks.len() != width) {
                    let message = format!(
                        "{} peaks, {} has {width} columns: a line for each column in their order is wanted",
                        peaks.len(),
                        file.display()
                    );
                    return Err(Error::input(bed, "", message));
                }
                notes.extend(disagreement(peaks, head.features.as_deref()));
                peaks
            }
            None => {
                of_names = peaks_of_names(file, head.features.as_deref())?;
                &of_names
            }
        };
        let mut genes = intervals::genes_of(&self.genes, self.attribute.as_deref())?;
        intervals::extend_upstream(&mut genes, self.upstream, &self.genes)?;
        let chromosomes: BTreeSet<&str> = genes.iter().map(|g| g.body.chromosome.as_str()).collect();
        if !peaks.iter().any(|p| chromosomes.contains(p.chromosome.as_str())) {
            let first = |names: &mut dyn Iterator<Item = &str>| names.take(3).collect::<Vec<_>>().join(", ");
            let of_peaks: BTreeSet<&str> = peaks.iter().map(|p| p.chromosome.as_str()).collect();
            let message = format!(
                "no chromosome of the genes ({}, ...) is one of the peaks' ({}, ...): take the annotation of the same genome, with chromosomes of the same names",
                first(&mut chromosomes.iter().copied()),
                first(&mut of_peaks.iter().copied())
            );
            return Err(Error::input(&self.genes, "", message));
        }
        let (starts, of_peak) = intervals::overlaps(peaks, &genes);
        let mut touched = vec![false; genes.len()];
        of_peak.iter().for_each(|&g| touched[g as usize] = true);
        let (none, idle) = (touched.iter().filter(|t| !**t).count(), starts.windows(2).filter(|w| w[0] == w[1]).count());
        notes.push(format!(
            "{} genes from {width} peaks; {none} genes overlap no peak and are 0, {idle} peaks overlap no gene and are left out",
            genes.len()
        ));
        let sparse = head.layout == Layout::Sparse;
        (head.shape, head.layout) = (vec![genes.len()], Layout::Sparse);
        head.features = Some(genes.into_iter().map(|g| g.name).collect());
        let sums = vec![0.0; head.width()];
        let rows =
            Activity { peaks: rows, sparse, row: Row::default(), starts, genes: of_peak, touched: vec![false; sums.len()], sums, notes };
        Ok(Source { head, rows: Box::new(rows) })
    }
}

fn peaks_of_names(file: &std::path::Path, names: Option<&[String]>) -> Result<Vec<Interval>> {
    let Some(names) = names else {
        return Err(Error::input(
            file,
            "",
            "its columns have no names that could say where peaks lie: give a BED file with --gene-activity",
        ));
    };
    let peak = |(column, name): (usize, &String)| {
        intervals::peak_of_name(name).ok_or_else(|| {
            let message = format!("the name \"{name}\" says no peak such as chr1:100-200: give a BED file with --gene-activity");
            Error::input(file, format!("feature {column}"), message)
        })
    };
    names.iter().enumerate().map(peak).collect()
}

/// Peaks of a BED file that lie elsewhere than the columns' names say; one base more or less is only another way of counting.
fn disagreement(peaks: &[Interval], names: Option<&[String]>) -> Option<String> {
    let elsewhere = |(peak, name): &(&Interval, &String)| {
        let said = intervals::peak_of_name(name);
        said.is_some_and(|s| s.chromosome != peak.chromosome || s.start.abs_diff(peak.start) > 1 || s.end.abs_diff(peak.end) > 1)
    };
    let mut wrong = peaks.iter().zip(names?).filter(elsewhere);
    let (peak, name) = wrong.next()?;
    let Interval { chromosome, start, end } = peak;
    Some(format!(
        "{} peaks lie elsewhere than their columns' names say, the first at {chromosome}:{start}-{end} is called {name}; the BED file is followed",
        1 + wrong.count()
    ))
}

/// The rows of peaks on their way to genes.
struct Activity {
    peaks: Box<dyn Rows>,
    sparse: bool,
    row: Row,
    /// The genes of peak p: `genes[starts[p]..starts[p + 1]]`.
    starts: Vec<usize>,
    genes: Vec<u32>,
    /// All zeros and false between two rows.
    sums: Vec<f64>,
    touched: Vec<bool>,
    notes: Vec<String>,
}

impl Rows for Activity {
    fn prepare(&mut self, stage: &str, hooks: &mut Hooks) -> Result<()> {
        self.peaks.prepare(stage, hooks)
    }

    fn next_row(&mut self, row: &mut Row) -> Result<bool> {
        if !self.peaks.next_row(&mut self.row)? {
            return Ok(false);
        }
        row.id = self.row.id.take();
        row.indices.clear();
        row.values.clear();
        for (at, &value) in self.row.values.iter().enumerate().filter(|(_, v)| **v != 0.0) {
            let peak = if self.sparse { self.row.indices[at] as usize } else { at };
            for &gene in &self.genes[self.starts[peak]..self.starts[peak + 1]] {
                let g = gene as usize;
                if !std::mem::replace(&mut self.touched[g], true) {
                    row.indices.push(gene as i32);
                }
                self.sums[g] += f64::from(value);
            }
        }
        row.indices.sort_unstable();
        row.indices.retain(|&g| {
            self.touched[g as usize] = false;
            let sum = std::mem::take(&mut self.sums[g as usize]) as f32;
            // What cancels out is a zero like the others.
            if sum != 0.0 {
                row.values.push(sum);
            }
            sum != 0.0
        });
        Ok(true)
    }

    fn place(&self, row: usize) -> String {
        self.peaks.place(row)
    }

    fn in_place(&self) -> Result<super::in_place::Place, &'static str> {
        Err("genes are summed up of its peaks")
    }

    fn labels(&mut self) -> Option<Table> {
        self.peaks.labels()
    }

    fn notes(&mut self) -> Vec<String> {
        let mut all = self.peaks.notes();
        all.append(&mut self.notes);
        all
    }
}
