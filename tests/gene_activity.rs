//! `import --gene-activity`: an example worked by hand, the forms in which peaks and genes come, and what is refused.
#![cfg(feature = "models")]

#[path = "common/matrix.rs"]
mod matrix;
#[cfg(feature = "cli")]
#[path = "common/program.rs"]
mod program;

use std::io::Write;
use std::path::{Path, PathBuf};

use couplet::data::formats::ModalitySource;
use couplet::data::gene_activity::{GeneActivity, Peaks};
use couplet::data::import::{ImportReport, ImportSpec, import};
use couplet::data::{Dataset, Hooks};
use couplet::error::Result;
use flate2::{Compression, write::GzEncoder};

/// Six peaks of three cells; `.` is what no gene sums up.
const PEAKS: [&str; 6] = ["chr1:90-100", "chr1:95-101", "chr1:190-210", "chr1:300-310", "chr2:100-200", "chrM:5-9"];
const COUNTS: [[f32; 6]; 3] = [[1.0, 2.0, 4.0, 8.0, 16.0, 32.0], [0.0; 6], [0.0, 3.0, 5.0, 0.0, 0.0, 1.0]];

/// Bodies [100, 200) on both strands, one that begins where the first ends, one on the other chromosome, one with no peak.
const BED: &str =
    "chr1\t100\t200\tA\t0\t+\nchr1\t100\t200\tB\t0\t-\nchr1\t200\t300\tC\t0\t+\nchr2\t150\t160\tD\t0\t-\nchr3\t1\t2\tE\t0\t+\n";
/// The same, counted from 1 with both ends, and a line that is no gene.
const GTF: &str = "#!build\nchr1\th\tgene\t101\t200\t.\t+\t.\tgene_id \"gA\"; gene_name \"A\";\nchr1\th\texon\t1\t900\t.\t+\t.\tgene_id \"gA\";\n\
                   chr1\th\tgene\t101\t200\t.\t-\t.\tgene_id \"gB\"; gene_name \"B\";\nchr1\th\tgene\t201\t300\t.\t+\t.\tgene_id \"gC\"; gene_name \"C\";\n\
                   chr2\th\tgene\t151\t160\t.\t-\t.\tgene_id \"gD\"; gene_name \"D\";\nchr3\th\tgene\t2\t2\t.\t+\t.\tgene_id \"gE\"; gene_name \"E\";\n";

/// By hand: peak 0 ends where A and B begin and misses them; peak 1 meets both by one base; peak 2 meets A, B and C; peak 3 begins where C
/// ends; peak 4 meets D.
const WANTED: [[f32; 5]; 3] = [[6.0, 6.0, 4.0, 16.0, 0.0], [0.0; 5], [8.0, 8.0, 5.0, 0.0, 0.0]];
/// Ten bases upstream: A from 90 meets peak 0, B up to 210 nothing new, C from 190 nothing new, D up to 170.
const UPSTREAM: [[f32; 5]; 3] = [[7.0, 6.0, 4.0, 16.0, 0.0], [0.0; 5], [8.0, 8.0, 5.0, 0.0, 0.0]];

struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Bench {
        let bench = Bench(tempfile::tempdir().unwrap());
        let mut csv = format!("cell,{}\n", PEAKS.join(","));
        let mut mtx =
            format!("%%MatrixMarket matrix coordinate real general\n6 3 {}\n", COUNTS.iter().flatten().filter(|x| **x > 0.0).count());
        for (c, row) in COUNTS.iter().enumerate() {
            csv += &format!("c{c},{}\n", row.map(|x| x.to_string()).join(","));
            for (f, x) in row.iter().enumerate().filter(|(_, x)| **x > 0.0) {
                mtx += &format!("{} {} {x}\n", f + 1, c + 1);
            }
        }
        bench.write("peaks.csv", &csv);
        std::fs::create_dir(bench.path("tenx")).unwrap();
        bench.write("tenx/matrix.mtx", &mtx);
        bench.write("tenx/barcodes.tsv", "c0\nc1\nc2\n");
        bench.write("tenx/features.tsv", &PEAKS.map(|p| format!("{p}\t{p}\tPeaks\n")).concat());
        bench.write("rna.csv", "cell,A,X\nc0,1,2\nc1,3,4\nc2,1,1\n");
        bench.write("peaks.bed", &bed_of(&PEAKS));
        bench.write("genes.bed", BED);
        bench.write("genes.gtf", GTF);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn packed(&self, name: &str) {
        let mut gz = GzEncoder::new(std::fs::File::create(self.path(&format!("{name}.gz"))).unwrap(), Compression::fast());
        gz.write_all(&std::fs::read(self.path(name)).unwrap()).unwrap();
        gz.finish().unwrap();
    }

    fn activity(&self, peaks: &str, genes: &str, upstream: u64) -> GeneActivity {
        let peaks = if peaks == "var" { Peaks::Names } else { Peaks::Bed(self.path(peaks)) };
        GeneActivity { modality: None, peaks, genes: self.path(genes), attribute: None, upstream }
    }

    fn import(&self, modalities: &[(&str, &str)], activity: GeneActivity) -> Result<(ImportReport, Dataset)> {
        let source = |&(name, file): &(&str, &str)| ModalitySource { name: name.into(), file: self.path(file), key: None };
        let spec = ImportSpec { modalities: modalities.iter().map(source).collect(), activity: Some(activity), ..ImportSpec::default() };
        let out = self.path("dataset");
        let _ = std::fs::remove_dir_all(&out);
        let report = import(&spec, &out, &mut Hooks::default());
        if report.is_err() {
            assert!(std::fs::read_dir(self.0.path()).unwrap().all(|e| !e.unwrap().file_name().to_string_lossy().contains("dataset")));
        }
        Ok((report?, Dataset::open(&out)?))
    }

    fn complaint(&self, modalities: &[(&str, &str)], activity: GeneActivity) -> String {
        let error = self.import(modalities, activity).err().expect("this must be refused");
        assert!(error.exit_code() == 2 && !error.to_string().contains('\n'), "{error}");
        error.to_string()
    }
}

fn bed_of(peaks: &[&str]) -> String {
    peaks.iter().map(|p| p.replace([':', '-'], "\t") + "\n").collect()
}

fn values(dataset: &Dataset, name: &str) -> Vec<Vec<f32>> {
    let position = dataset.position(name).unwrap();
    assert!(dataset.modality(position).is_sparse(), "sparse out");
    matrix::matrix(dataset, position)
}

#[test]
fn the_example_worked_by_hand_in_every_form() {
    let bench = Bench::new();
    for name in ["peaks.bed", "genes.bed", "genes.gtf"] {
        bench.packed(name);
    }
    for file in ["peaks.csv", "tenx"] {
        for peaks in ["peaks.bed", "peaks.bed.gz", "var"] {
            for genes in ["genes.bed", "genes.bed.gz", "genes.gtf", "genes.gtf.gz"] {
                for (upstream, wanted) in [(0, WANTED), (10, UPSTREAM)] {
                    let (report, d) = bench.import(&[("atac", file)], bench.activity(peaks, genes, upstream)).unwrap();
                    assert_eq!(values(&d, "atac"), wanted, "{file} {peaks} {genes} {upstream}");
                    assert_eq!(d.modality(0).feature_names(), ["A", "B", "C", "D", "E"]);
                    assert_eq!(d.modality(0).cell_id(2), "c2");
                    let note = &report.notes[0];
                    assert!(note.contains("5 genes from 6 peaks; 1 genes overlap no peak"), "{note}");
                    assert!(note.contains(if upstream == 0 { "3 peaks overlap no gene" } else { "2 peaks overlap no gene" }), "{note}");
                }
            }
        }
    }
    let (_, d) = bench.import(&[("atac", "tenx")], bench.activity("var", "genes.bed", 5)).unwrap();
    let made = d.modality(0).entry().source.made.as_deref().unwrap();
    assert!(made.contains("peaks var") && made.contains("genes.bed") && made.contains("upstream 5"), "{made}");
}

#[test]
fn the_modality_with_the_peaks_is_found_or_asked_for() {
    let bench = Bench::new();
    for peaks in ["peaks.bed", "var"] {
        let (_, d) = bench.import(&[("rna", "rna.csv"), ("atac", "tenx")], bench.activity(peaks, "genes.gtf", 0)).unwrap();
        assert_eq!(
            (values(&d, "atac"), d.modality(0).feature_names()),
            (WANTED.map(Vec::from).to_vec(), &["A".to_string(), "X".into()][..])
        );
        assert_eq!(d.links().len(), 3, "still paired by name");
    }
    let both = [("a", "tenx"), ("b", "peaks.csv")];
    assert!(bench.complaint(&both, bench.activity("var", "genes.bed", 0)).contains("several modalities have columns that fit"));
    let named = |name: &str| GeneActivity { modality: Some(name.into()), ..bench.activity("var", "genes.bed", 0) };
    assert_eq!(bench.import(&both, named("b")).unwrap().1.modality(0).features(), 6);
    assert!(bench.complaint(&both, named("c")).contains("there is no modality \"c\"; there are: a, b"));
    assert!(
        bench
            .complaint(&[("rna", "rna.csv"), ("x", "rna.csv")], bench.activity("peaks.bed", "genes.bed", 0))
            .contains("none of the modalities")
    );
}

#[test]
fn a_gene_may_be_named_by_another_attribute() {
    let bench = Bench::new();
    let activity = GeneActivity { attribute: Some("gene_id".into()), ..bench.activity("var", "genes.gtf", 0) };
    let (_, d) = bench.import(&[("atac", "tenx")], activity.clone()).unwrap();
    assert_eq!(d.modality(0).feature_names(), ["gA", "gB", "gC", "gD", "gE"]);
    let wrong = GeneActivity { attribute: Some("symbol".into()), ..activity };
    assert!(bench.complaint(&[("atac", "tenx")], wrong).contains("genes.gtf, line 2: the gene has no attribute symbol"));
}

#[test]
fn a_missing_peak_makes_its_genes_missing() {
    let bench = Bench::new();
    bench.write("holes.csv", &format!("cell,{}\nc0,1,,4,8,16,32\n", PEAKS.join(",")));
    let (_, d) = bench.import(&[("atac", "holes.csv")], bench.activity("var", "genes.bed", 0)).unwrap();
    let row = &values(&d, "atac")[0];
    assert!(row[0].is_nan() && row[1].is_nan());
    assert_eq!((&row[2..], d.modality(0).facts().missing), (&[4.0, 16.0, 0.0][..], 2));
}

#[test]
fn what_does_not_fit_is_one_sentence_with_file_and_line() {
    let bench = Bench::new();
    bench.write("other.bed", &BED.replace("chr", ""));
    bench.write("short.bed", &bed_of(&PEAKS[..5]));
    bench.write("turned.bed", "chr1\t9\t5\n");
    bench.write("strandless.bed", "chr1\t100\t200\tA\n");
    bench.write("genes.gff3", GTF);
    let tenx = [("atac", "tenx")];
    for (peaks, genes, upstream, says) in [
        ("var", "other.bed", 0, &["other.bed: no chromosome of the genes (1, 2, 3, ...)", "(chr1, chr2, chrM, ...)"][..]),
        ("short.bed", "genes.bed", 0, &["short.bed: 5 peaks", "has 6 columns"]),
        ("turned.bed", "genes.bed", 0, &["turned.bed, line 1", "begins at 9 and ends at 5"]),
        ("peaks.bed", "turned.bed", 0, &["turned.bed, line 1"]),
        ("peaks.bed", "genes.gff3", 0, &["genes.gff3", "neither .gtf nor .bed"]),
        ("peaks.bed", "gone.bed", 0, &["gone.bed: there is no such file"]),
        ("gone.bed", "genes.bed", 0, &["gone.bed: there is no such file"]),
        ("peaks.bed", "strandless.bed", 5, &["strandless.bed, line 1", "has no strand"]),
    ] {
        let said = bench.complaint(&tenx, bench.activity(peaks, genes, upstream));
        assert!(says.iter().all(|s| said.contains(s)), "{said}");
    }
    assert!(
        bench
            .complaint(&[("rna", "rna.csv")], bench.activity("var", "genes.bed", 0))
            .contains("rna.csv, feature 0: the name \"A\" says no peak")
    );
    // Names that say another place than the BED are told, and the BED is followed.
    bench.write("moved.bed", &bed_of(&["chr1:80-100", "chr1:95-101", "chr1:190-210", "chr1:300-310", "chr2:100-200", "chr9:5-9"]));
    let (report, d) = bench.import(&tenx, bench.activity("moved.bed", "genes.bed", 0)).unwrap();
    assert_eq!(values(&d, "atac"), WANTED);
    assert!(
        report.notes[0].contains("2 peaks lie elsewhere") && report.notes[0].contains("chr1:80-100 is called chr1:90-100"),
        "{:?}",
        report.notes
    );
}

/// The command line, as the issue writes it.
#[test]
#[cfg(feature = "cli")]
fn the_flags_of_import() {
    let bench = Bench::new();
    let text = |path: &Path| path.to_str().unwrap().to_string();
    let run = |more: &[String]| {
        let given = ["import".to_string(), "--modality".into(), format!("rna={}", text(&bench.path("rna.csv")))];
        let atac = ["--modality".to_string(), format!("atac={}", text(&bench.path("tenx"))), "--out".into(), text(&bench.path("d"))];
        program::couplet().args(given.iter().chain(&atac).chain(more)).output().unwrap()
    };
    let (peaks, genes) = (text(&bench.path("peaks.bed")), text(&bench.path("genes.gtf")));
    let out = run(&["--gene-activity".into(), peaks.clone()]);
    assert!(out.status.code() == Some(2) && String::from_utf8_lossy(&out.stderr).contains("--genes"));
    let out = run(&[
        "--gene-activity".into(),
        format!("atac={peaks}"),
        "--genes".into(),
        format!("{genes}#gene_id"),
        "--upstream".into(),
        "10".into(),
    ]);
    let said = String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && said.contains("atac: 5 genes from 6 peaks") && said.contains("gene activity: peaks"), "{said}");
    let d = Dataset::open(&bench.path("d")).unwrap();
    assert_eq!((values(&d, "atac"), d.modality(1).feature_names()[0].as_str()), (UPSTREAM.map(Vec::from).to_vec(), "gA"));
}
