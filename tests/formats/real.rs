//! The real data, where they are at hand.

use crate::matrix::matrix;
use crate::shared::shared;
use couplet::data::formats::ModalitySource;
use couplet::data::import::{ImportReport, ImportSpec, LabelSource, import};
use couplet::data::pairs::PairsRule;
use couplet::data::{Dataset, Hooks};
use std::path::Path;

fn import_real(
    folder: &Path,
    modalities: &[(&str, &str)],
    label_file: Option<&str>,
    pairs: Option<PairsRule>,
) -> (tempfile::TempDir, ImportReport, Dataset) {
    let out = tempfile::tempdir().unwrap();
    let modalities = modalities.iter().map(|(n, f)| ModalitySource { name: n.to_string(), file: folder.join(f), key: None }).collect();
    let labels = label_file.map(|f| LabelSource { modality: None, file: folder.join(f), column: None }).into_iter().collect();
    let spec = ImportSpec { modalities, labels, pairs, ..Default::default() };
    let report = import(&spec, &out.path().join("d"), &mut Hooks::default()).unwrap();
    let d = Dataset::open(&out.path().join("d")).unwrap();
    (out, report, d)
}

#[test]
fn patchseq_pairs_by_name_with_labels() {
    let Some(folder) = shared("patchseq-motor") else { return };
    let (_out, report, d) = import_real(&folder, &[("rna", "gene_counts.csv.gz"), ("ephys", "ephys.csv")], Some("cells.csv"), None);
    assert_eq!((report.pairs.as_str(), report.units, d.cells()), ("by-name", 725, 725));
    assert_eq!((d.modality(0).features(), d.modality(1).features(), d.default_label()), (1286, 29, Some("rna_family")));
    assert_eq!(d.label("rna_family").unwrap().classes.len(), 9);
    let facts = d.modality(0).facts();
    assert!(facts.all_integers_nonnegative && facts.max.unwrap() > 1e5 && !d.modality(1).facts().all_integers_nonnegative);
    let zeros = 1.0 - facts.nonzeros as f64 / (725.0 * 1286.0);
    assert!((zeros - 0.38).abs() < 0.01, "{zeros}");
}

#[test]
fn scmt_keeps_its_missing_values_and_partial_pairs() {
    let Some(folder) = shared("scmt") else { return };
    let files =
        [("rna", "rna.csv.gz"), ("cpg", "met_cpg_islands.csv.gz"), ("enh", "met_enhancers.csv.gz"), ("prom", "met_promoters.csv.gz")];
    let (_out, report, d) = import_real(&folder, &files, None, None);
    assert_eq!(report.pairs, "by-name");
    assert_eq!(d.modalities().iter().map(|m| m.cells()).collect::<Vec<_>>(), [81, 83, 83, 83]);
    for m in &d.modalities()[1..] {
        let share = m.facts().missing as f64 / (m.cells() * m.features()) as f64;
        assert!((0.76..0.88).contains(&share), "{} {share}", m.name());
    }
    assert_eq!(d.modality(0).facts().missing, 0);
    assert!(d.links().pairs(0, 1).all(|(a, b, _)| d.modality(0).cell_id(a as usize) == d.modality(1).cell_id(b as usize)));
}

#[test]
fn scgem_ids_are_row_numbers_and_pair_by_row_only() {
    let Some(folder) = shared("scgem") else { return };
    let files = [("expression", "expression.csv"), ("methylation", "methylation.csv")];
    let (_out, report, _) = import_real(&folder, &files, Some("cells.csv"), None);
    assert_eq!((report.pairs.as_str(), report.units), ("none", 0));
    let (_out, report, d) = import_real(&folder, &files, Some("cells.csv"), Some(PairsRule::ByRow));
    assert_eq!((report.units, d.cells(), d.label("type").unwrap().classes.len()), (177, 177, 5));
}

#[test]
fn the_10x_folder_is_cells_by_genes() {
    let Some(folder) = shared("formats/10x-mtx") else { return };
    let (_out, _, d) = import_real(&folder, &[("rna", "")], None, None);
    let m = d.modality(0);
    assert_eq!((m.cells(), m.features(), m.facts().nonzeros, m.is_sparse()), (1107, 507, 23866, true));
    assert_eq!((m.cell_id(0), m.feature_names()[0].as_str()), ("AAACCCAAGGAGAGTA-1", "CH507-9B2.2"));
    // "458 1 3" is the file's first entry: three reads of gene 458 in cell 1.
    assert_eq!(matrix(&d, 0)[0][457], 3.0);
}

#[test]
fn mnist_images_take_their_ids_from_the_labels() {
    let Some(folder) = shared("mnist") else { return };
    let (_out, report, d) = import_real(&folder, &[("a", "images.npy"), ("b", "images.npy")], Some("labels.csv"), None);
    assert_eq!((report.pairs.as_str(), report.units), ("by-name", 10_000));
    let m = d.modality(1);
    assert_eq!((m.cell_id(9999), m.shape(), m.stored_bytes(), m.facts().max), ("m09999", &[1, 28, 28][..], 7_840_000, Some(255.0)));
    assert_eq!(d.label("digit").unwrap().classes.len(), 10);
}
