//! Intervals on chromosomes, for [`gene_activity`](super::gene_activity): read from BED, GTF or names of features, and which of them overlap.
//!
//!   interval   half-open and counted from 0, `start <= x < end`, as BED has it; GTF counts from 1 and includes both ends
//!   overlap    the same chromosome, and `a.start < b.end && b.start < a.end`
//!   upstream   a gene's body grows by so many bases at its 5' end: towards 0 on the plus strand, away from it on the minus strand
//!   source     UCSC: BED format; Ensembl: GTF 2.2

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::Path;

use super::formats::{open_text, read_error};
use crate::error::{Error, Result};

/// Where something lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interval {
    /// The chromosome, as the file names it.
    pub chromosome: String,
    /// First base, from 0.
    pub start: u64,
    /// One past the last base.
    pub end: u64,
}

/// A gene's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gene {
    /// Its name.
    pub name: String,
    /// From the start of transcription to its end, whichever comes first on the chromosome.
    pub body: Interval,
    /// Whether it is read towards 0; none where the file does not say.
    pub minus: Option<bool>,
    /// Its line in the file.
    line: u64,
}

/// The attribute of a GTF that names genes, and the one taken where a gene lacks it.
const GENE_NAME: &str = "gene_name";
const GENE_ID: &str = "gene_id";

/// The lines of a BED or GTF file that mean something, with their numbers.
fn each_line(path: &Path, mut take: impl FnMut(u64, &str) -> Result<()>) -> Result<()> {
    let (mut reader, mut buffer, mut number) = (open_text(path)?, Vec::new(), 0u64);
    loop {
        buffer.clear();
        number += 1;
        let place = || format!("line {number}");
        if reader.read_until(b'\n', &mut buffer).map_err(|e| read_error(path, place(), e))? == 0 {
            return Ok(());
        }
        let line = std::str::from_utf8(&buffer).map_err(|_| Error::input(path, place(), "not UTF-8 text"))?;
        let line = line.trim_end_matches(['\n', '\r']);
        // A browser's settings in BED, comments in both.
        let skipped =
            line.trim().is_empty() || line.starts_with('#') || matches!(line.split_whitespace().next(), Some("track" | "browser"));
        if !skipped {
            take(number, line)?;
        }
    }
}

/// The fields of a line of BED: between tabs, or between blanks where there is no tab.
fn bed_fields(line: &str) -> Vec<&str> {
    if line.contains('\t') { line.split('\t').map(str::trim).collect() } else { line.split_whitespace().collect() }
}

/// The first three fields of a line of BED.
fn bed_interval(path: &Path, number: u64, fields: &[&str]) -> Result<Interval> {
    let wrong = |message: String| Error::input(path, format!("line {number}"), message);
    let &[chromosome, start, end, ..] = fields else {
        return Err(wrong(format!("{} fields: a line of BED has a chromosome, a start and an end", fields.len())));
    };
    if chromosome.is_empty() {
        return Err(wrong("the chromosome is empty".into()));
    }
    let bounds = [start, end]
        .map(|text| text.parse::<u64>().map_err(|_| wrong(format!("\"{text}\" is no position: whole numbers from 0 are wanted"))));
    let [start, end] = bounds;
    interval(chromosome, start?, end?).map_err(wrong)
}

fn interval(chromosome: &str, start: u64, end: u64) -> Result<Interval, String> {
    if start >= end {
        return Err(format!("it begins at {start} and ends at {end}: the end must lie behind the beginning"));
    }
    Ok(Interval { chromosome: chromosome.to_string(), start, end })
}

/// The peaks of a BED file, in its order.
pub fn peaks_of_bed(path: &Path) -> Result<Vec<Interval>> {
    let mut peaks = Vec::new();
    each_line(path, |number, line| {
        peaks.push(bed_interval(path, number, &bed_fields(line))?);
        Ok(())
    })?;
    if peaks.is_empty() {
        return Err(Error::input(path, "", "there is no peak in it: a line of BED for each column of the matrix is wanted"));
    }
    Ok(peaks)
}

/// The peak that a feature's name says: `chr1:100-200`, `chr1-100-200` or `chr1_100_200`; what stands before the last two numbers is the chromosome.
pub fn peak_of_name(name: &str) -> Option<Interval> {
    let mut parts = name.trim().rsplitn(3, [':', '-', '_']);
    let (end, start, chromosome) = (parts.next()?, parts.next()?, parts.next()?);
    let number = |text: &str| text.replace(',', "").parse().ok();
    if chromosome.is_empty() {
        return None;
    }
    interval(chromosome, number(start)?, number(end)?).ok()
}

/// The genes of a BED (four columns; the sixth is the strand) or GTF file (its lines of the feature `gene`), in its order. `attribute` of a GTF
/// names them: without one `gene_name`, or `gene_id` where a gene has no name.
pub fn genes_of(path: &Path, attribute: Option<&str>) -> Result<Vec<Gene>> {
    let name = path.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
    let name = name.trim_end_matches(".gz");
    let genes = if name.ends_with(".gtf") {
        genes_of_gtf(path, attribute)?
    } else if let Some(key) = attribute {
        return Err(Error::input(path, "", format!("#{key} chooses an attribute of a GTF, and this is none")));
    } else if name.ends_with(".bed") {
        genes_of_bed(path)?
    } else {
        return Err(Error::input(path, "", "the ending says neither .gtf nor .bed (.gz too): rename it, or convert it to one of them"));
    };
    if genes.is_empty() {
        return Err(Error::input(
            path,
            "",
            "there is no gene in it: lines of BED with a name, or lines of GTF with the feature \"gene\" are wanted",
        ));
    }
    Ok(genes)
}

fn strand(path: &Path, line: u64, text: &str) -> Result<Option<bool>> {
    match text {
        "+" => Ok(Some(false)),
        "-" => Ok(Some(true)),
        "." | "" => Ok(None),
        _ => Err(Error::input(path, format!("line {line}"), format!("the strand is \"{text}\": + or - or . is wanted"))),
    }
}

fn genes_of_bed(path: &Path) -> Result<Vec<Gene>> {
    let mut genes = Vec::new();
    each_line(path, |line, text| {
        let fields = bed_fields(text);
        let body = bed_interval(path, line, &fields)?;
        let Some(name) = fields.get(3).filter(|name| !name.is_empty()) else {
            let message = format!("{} fields: genes have a name in the fourth and a strand in the sixth", fields.len());
            return Err(Error::input(path, format!("line {line}"), message));
        };
        let minus = strand(path, line, fields.get(5).unwrap_or(&"."))?;
        genes.push(Gene { name: name.to_string(), body, minus, line });
        Ok(())
    })?;
    Ok(genes)
}

fn genes_of_gtf(path: &Path, attribute: Option<&str>) -> Result<Vec<Gene>> {
    let mut genes = Vec::new();
    each_line(path, |line, text| {
        let wrong = |message: String| Error::input(path, format!("line {line}"), message);
        let fields: Vec<&str> = text.split('\t').collect();
        let &[chromosome, _, feature, start, end, _, strand_of, _, attributes, ..] = fields.as_slice() else {
            return Err(wrong(format!("{} fields between tabs: a line of GTF has 9", fields.len())));
        };
        if feature != "gene" {
            return Ok(());
        }
        let number = |text: &str| {
            let found = text.trim().parse::<u64>().ok().filter(|&n| n > 0);
            found.ok_or_else(|| wrong(format!("\"{text}\" is no position: whole numbers from 1 are wanted")))
        };
        let body = interval(chromosome.trim(), number(start)? - 1, number(end)?).map_err(wrong)?;
        let named = match attribute {
            Some(key) => attribute_of(attributes, key),
            None => attribute_of(attributes, GENE_NAME).or_else(|| attribute_of(attributes, GENE_ID)),
        };
        let Some(name) = named else {
            return Err(wrong(format!("the gene has no attribute {}", attribute.unwrap_or("gene_name and no gene_id"))));
        };
        genes.push(Gene { name: name.to_string(), body, minus: strand(path, line, strand_of.trim())?, line });
        Ok(())
    })?;
    Ok(genes)
}

/// The value of `key "value";` among a GTF's attributes; a `;` between quotes does not end one.
fn attribute_of<'a>(attributes: &'a str, key: &str) -> Option<&'a str> {
    let mut rest = attributes.trim();
    while !rest.is_empty() {
        let (name, after) = rest.split_once(char::is_whitespace)?;
        let after = after.trim_start();
        let (value, left) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_at(after.find(';').unwrap_or(after.len())),
        };
        if name == key {
            return Some(value.trim()).filter(|v| !v.is_empty());
        }
        rest = left.trim_start_matches([';', ' ', '\t']);
    }
    None
}

/// Lets the bodies of genes begin so many bases before their transcription does.
pub fn extend_upstream(genes: &mut [Gene], bases: u64, file: &Path) -> Result<()> {
    if bases == 0 {
        return Ok(());
    }
    for gene in genes {
        match gene.minus {
            Some(false) => gene.body.start = gene.body.start.saturating_sub(bases),
            Some(true) => gene.body.end = gene.body.end.saturating_add(bases),
            None => {
                let message = format!(
                    "the gene \"{}\" has no strand, so that upstream of it is nowhere: leave --upstream out or say + or -",
                    gene.name
                );
                return Err(Error::input(file, format!("line {}", gene.line), message));
            }
        }
    }
    Ok(())
}

/// For each peak the genes that it overlaps, ascending: `(starts, genes)`, those of peak p being `genes[starts[p]..starts[p + 1]]`.
pub fn overlaps(peaks: &[Interval], genes: &[Gene]) -> (Vec<usize>, Vec<u32>) {
    // Of each chromosome its genes by where they begin, with the furthest end up to each: a look back can stop where nothing reaches.
    let mut on: BTreeMap<&str, Vec<(u64, u64, u32)>> = BTreeMap::new();
    for (g, gene) in genes.iter().enumerate() {
        on.entry(&gene.body.chromosome).or_default().push((gene.body.start, gene.body.end, g as u32));
    }
    for of in on.values_mut() {
        of.sort_unstable();
    }
    let furthest: BTreeMap<&str, Vec<u64>> = on
        .iter()
        .map(|(&name, of)| {
            let mut so_far = 0;
            let ends = of.iter().map(|&(_, end, _)| {
                so_far = so_far.max(end);
                so_far
            });
            (name, ends.collect())
        })
        .collect();
    let (mut starts, mut found) = (vec![0], Vec::new());
    for peak in peaks {
        let first = found.len();
        if let (Some(of), Some(furthest)) = (on.get(peak.chromosome.as_str()), furthest.get(peak.chromosome.as_str())) {
            let before = of.partition_point(|&(start, _, _)| start < peak.end);
            for at in (0..before).rev().take_while(|&at| furthest[at] > peak.start) {
                if of[at].1 > peak.start {
                    found.push(of[at].2);
                }
            }
        }
        found[first..].sort_unstable();
        starts.push(found.len());
    }
    (starts, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(chromosome: &str, start: u64, end: u64) -> Interval {
        Interval { chromosome: chromosome.into(), start, end }
    }

    fn gene(name: &str, body: Interval, minus: Option<bool>) -> Gene {
        Gene { name: name.into(), body, minus, line: 1 }
    }

    fn written(name: &str, text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn overlap_is_what_comparing_every_pair_finds() {
        let mut draw = crate::engine::rng::Sequence::new(3, 1, 0);
        let mut any = |longest: usize| {
            let (chromosome, start) = (["chr1", "chr2"][draw.below(2)], draw.below(300) as u64);
            at(chromosome, start, start + 1 + draw.below(longest) as u64)
        };
        let peaks: Vec<Interval> = (0..200).map(|_| any(10)).collect();
        let genes: Vec<Gene> = (0..60).map(|i| gene("g", any(if i == 0 { 280 } else { 25 }), None)).collect();
        let (starts, found) = overlaps(&peaks, &genes);
        for (p, peak) in peaks.iter().enumerate() {
            let meets = |g: &Gene| g.body.chromosome == peak.chromosome && g.body.start < peak.end && peak.start < g.body.end;
            let wanted: Vec<u32> = (0..60).filter(|&g| meets(&genes[g as usize])).collect();
            assert_eq!(found[starts[p]..starts[p + 1]], wanted, "{peak:?}");
        }
    }

    #[test]
    fn intervals_that_touch_do_not_overlap_and_one_base_is_enough() {
        let genes = [gene("a", at("1", 10, 20), None)];
        for (peak, meets) in
            [(at("1", 5, 10), false), (at("1", 5, 11), true), (at("1", 20, 25), false), (at("1", 19, 25), true), (at("2", 10, 20), false)]
        {
            assert_eq!(overlaps(std::slice::from_ref(&peak), &genes).1.len(), usize::from(meets), "{peak:?}");
        }
    }

    #[test]
    fn upstream_grows_against_the_direction_of_transcription() {
        let mut genes = [
            gene("p", at("1", 1000, 1100), Some(false)),
            gene("m", at("1", 1000, 1100), Some(true)),
            gene("p0", at("1", 50, 60), Some(false)),
        ];
        extend_upstream(&mut genes, 200, Path::new("g.bed")).unwrap();
        assert_eq!(genes.map(|g| (g.body.start, g.body.end)), [(800, 1100), (1000, 1300), (0, 60)]);
        let e = extend_upstream(&mut [gene("n", at("1", 5, 6), None)], 1, Path::new("g.bed")).unwrap_err();
        assert!(e.exit_code() == 2 && e.to_string().contains("g.bed, line 1: the gene \"n\" has no strand"), "{e}");
    }

    #[test]
    fn a_gtf_gives_its_genes_from_1_with_both_ends_and_a_bed_from_0() {
        let text = "#!genome\nchr1\tx\tgene\t101\t200\t.\t-\t.\tgene_id \"E1\"; gene_name \"A;1\";\nchr1\tx\texon\t101\t120\t.\t-\t.\tgene_id \"E1\";\n\
                    chr2\tx\tgene\t1\t1\t.\t+\t.\tgene_id \"E2\"; level 2;\n";
        let (_dir, path) = written("g.gtf", text);
        let genes = genes_of(&path, None).unwrap();
        let told: Vec<_> = genes.iter().map(|g| (g.name.as_str(), g.body.start, g.body.end, g.minus)).collect();
        assert_eq!(told, [("A;1", 100, 200, Some(true)), ("E2", 0, 1, Some(false))]);
        let ids: Vec<String> = genes_of(&path, Some("gene_id")).unwrap().into_iter().map(|g| g.name).collect();
        assert_eq!(ids, ["E1", "E2"]);
        assert!(genes_of(&path, Some("level")).unwrap_err().to_string().contains("line 2: the gene has no attribute level"));
        let (_dir, path) = written("g.bed", "track name=x\nchr1 100 200 A 0 -\nchr2\t0\t1\tB\n");
        let told: Vec<_> = genes_of(&path, None).unwrap().into_iter().map(|g| (g.name, g.body.start, g.body.end, g.minus)).collect();
        assert_eq!(told, [("A".into(), 100, 200, Some(true)), ("B".into(), 0, 1, None)]);
    }

    #[test]
    fn names_of_features_are_read_in_the_three_ways_that_they_are_written() {
        for name in ["chr1:100-200", "chr1-100-200", "chr1_100_200", "chr1:1,00-2,00"] {
            assert_eq!(peak_of_name(name), Some(at("chr1", 100, 200)), "{name}");
        }
        assert_eq!(peak_of_name("chrUn_KI270:5-9"), Some(at("chrUn_KI270", 5, 9)));
        for name in ["GAPDH", "HLA-A", "chr1:200-100", ":1-2", "chr1:-5-7x", "RP11-34-P13"] {
            assert_eq!(peak_of_name(name), None, "{name}");
        }
    }

    #[test]
    fn faulty_lines_are_named() {
        for (name, text, says) in [
            ("p.bed", "chr1\t5\n", "line 1: 2 fields"),
            ("p.bed", "chr1\t1\t2\nchr1\t9\t9\n", "line 2: it begins at 9 and ends at 9"),
            ("p.bed", "chr1\t-1\t2\n", "line 1: \"-1\" is no position"),
            ("p.bed", "chr1\t1\t2.5\n", "\"2.5\" is no position"),
            ("p.bed", "\t1\t2\n", "the chromosome is empty"),
            ("p.bed", "#nothing\n", "there is no peak in it"),
        ] {
            let (_dir, path) = written(name, text);
            let e = peaks_of_bed(&path).unwrap_err();
            assert!(e.exit_code() == 2 && e.to_string().contains(says), "{text:?}: {e}");
        }
        for (name, text, says) in [
            ("g.bed", "chr1\t1\t2\n", "line 1: 3 fields: genes have a name"),
            ("g.bed", "chr1\t1\t2\tA\t0\tx\n", "the strand is \"x\""),
            ("g.gtf", "chr1\tx\tgene\t1\t5\n", "line 1: 5 fields between tabs"),
            ("g.gtf", "chr1\tx\tgene\t0\t5\t.\t+\t.\tgene_id \"a\";\n", "\"0\" is no position"),
            ("g.gtf", "chr1\tx\texon\t1\t5\t.\t+\t.\tgene_id \"a\";\n", "there is no gene in it"),
            ("g.gff3", "", "neither .gtf nor .bed"),
        ] {
            let (_dir, path) = written(name, text);
            let e = genes_of(&path, None).unwrap_err();
            assert!(e.exit_code() == 2 && e.to_string().contains(says), "{text:?}: {e}");
        }
        let (_dir, path) = written("p.bed", "chr1\t1\t2\n");
        std::fs::write(&path, [b"chr1\t1\t2\nchr".as_slice(), &[0xff], b"\t1\t2\n"].concat()).unwrap();
        assert!(peaks_of_bed(&path).unwrap_err().to_string().contains("line 2: not UTF-8 text"));
    }
}
