//! Every form, type and kind of file is read, and edges are read or refused in words.

use crate::matrix::matrix;
use crate::shared::shared;
use crate::{complaint, expected, golden, import_golden, imported, label, numbered};
use couplet::data::Dataset;

#[test]
fn every_form_compression_and_type_is_the_same_matrix() {
    for form in ["dense", "csr", "csc"] {
        for kind in ["none", "gzip", "lzf", "bool", "uint8", "uint16", "int32", "int64", "float64"] {
            let (_dir, dataset) = import_golden(&format!("{form}-{kind}.h5ad"));
            let wanted = if kind == "bool" {
                expected().into_iter().map(|row| row.into_iter().map(|x| f32::from(x != 0.0)).collect()).collect()
            } else {
                expected()
            };
            let m = dataset.modality(0);
            assert_eq!(matrix(&dataset, 0), wanted, "{form} {kind}");
            assert_eq!((m.cell_ids(), m.feature_names()), (&numbered("cell", 0..7)[..], &numbered("gene", 0..5)[..]));
            assert_eq!(m.is_sparse(), form != "dense");
            let small = match kind {
                "bool" | "uint8" => "u8",
                "uint16" => "u16",
                _ => "f32",
            };
            assert_eq!(m.entry().dtype, if form == "dense" { small } else { "f32" }, "{form} {kind}");
        }
    }
}

#[test]
fn chunks_byte_orders_and_forms_that_scipy_allows_make_no_difference() {
    for name in [
        "dense-float16",
        "dense-chunks",
        "dense-chunks-v114",
        "csr-unsorted",
        "csr-repeated",
        "csr-stored-zeros",
        "csr-int64-indices",
        "table-vlen",
        "table-fixed",
        "labels",
    ] {
        let (_dir, dataset) = import_golden(&format!("{name}.h5ad"));
        assert_eq!(matrix(&dataset, 0), expected(), "{name}");
        assert_eq!(dataset.modality(0).cell_ids(), numbered("cell", 0..7), "{name}");
        assert_eq!(dataset.modality(0).facts().nonzeros, 13, "{name}");
    }
}

#[test]
fn columns_of_obs_are_labels_without_being_asked_for() {
    let (_dir, dataset) = import_golden("labels.h5ad");
    assert_eq!(dataset.label_columns(), ["type", "order", "text", "whole", "real", "true", "nullable", "nullable_bool"]);
    assert_eq!(dataset.default_label(), Some("type"));
    assert_eq!(label(&dataset, 0, "type"), ["b", "a", "", "b", "a", "c", "b"]);
    assert_eq!(label(&dataset, 0, "order"), ["2", "1", "1", "3", "2", "1", "3"]);
    assert_eq!(label(&dataset, 0, "text"), ["x", "y, z", "q\"q", "ü", "x", "", "x"]);
    assert_eq!(label(&dataset, 0, "real"), ["0.5", "", "1", "2", "3", "4", "5"]);
    assert_eq!(label(&dataset, 0, "true")[..2], ["True", "False"]);
    assert_eq!(label(&dataset, 0, "nullable"), ["1", "", "3", "4", "5", "6", "7"]);
    assert_eq!(label(&dataset, 0, "nullable_bool")[..3], ["True", "", "False"]);
    for name in ["labels-nullable-text.h5ad", "table-vlen.h5ad", "table-fixed.h5ad"] {
        let (_dir, dataset) = import_golden(name);
        assert_eq!(label(&dataset, 0, "type"), ["b", "a", "", "b", "a", "c", "b"], "{name}");
    }
}

#[test]
fn layers_and_raw_are_chosen_by_key() {
    let counts = import_golden("layers.h5ad#counts").1;
    assert_eq!(matrix(&counts, 0), expected());
    assert!(!counts.modality(0).is_sparse());
    let halves: Vec<Vec<f32>> = expected().iter().map(|row| row.iter().map(|x| x / 2.0).collect()).collect();
    assert_eq!(matrix(&import_golden("layers.h5ad#half").1, 0), halves);
    assert_eq!(matrix(&import_golden("layers.h5ad#X").1, 0), expected());
    assert_eq!(matrix(&import_golden("no-x.h5ad#counts").1, 0), expected());
    assert_eq!(import_golden("raw.h5ad").1.modality(0).features(), 3);
    assert_eq!(matrix(&import_golden("raw.h5ad#raw").1, 0), expected());
    let message = complaint(&golden("no-x.h5ad"));
    assert!(message.contains("no X") && message.ends_with("there are: counts"), "{message}");
    let message = complaint(&golden("layers.h5ad#count"));
    assert!(message.contains("did you mean counts?") && message.contains("counts, half, X"), "{message}");
}

#[test]
fn mudata_gives_its_modalities_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let pair = golden("pair.h5mu");
    let (report, dataset) = imported(dir.path(), &[format!("rna={pair}#rna"), format!("atac={pair}#atac")], false).unwrap();
    assert_eq!((report.units, report.pairs.as_str()), (5, "by-name"));
    assert_eq!(matrix(&dataset, 0), expected());
    assert_eq!(matrix(&dataset, 1), expected().into_iter().rev().collect::<Vec<_>>());
    assert_eq!(dataset.modality(1).cell_ids(), numbered("cell", 2..9));
    assert_eq!(label(&dataset, 1, "donor"), ["d0", "d1", "d0", "d1", "d0", "d1", "d0"]);
    // Both have a column "depth", of other numbers for the same cells.
    assert_eq!(label(&dataset, 0, "depth"), ["0", "1", "2", "3", "4", "5", "6"]);
    assert_eq!(label(&dataset, 1, "atac:depth"), ["0", "10", "20", "30", "40", "50", "60"]);
    assert!(report.notes.iter().any(|n| n.contains("atac:depth")), "{:?}", report.notes);
    assert_eq!(matrix(&import_golden("pair.h5mu#rna/counts").1, 0), expected());
    assert_eq!(matrix(&import_golden("single.h5mu").1, 0), expected());
    let message = complaint(&pair);
    assert!(message.contains("several modalities") && message.ends_with("there are: rna, atac"), "{message}");
    assert!(complaint(&format!("{pair}#rnaa")).contains("did you mean rna?"));
}

#[test]
fn cellrangers_features_are_split_by_type() {
    let columns = |keep: &[usize]| expected().iter().map(|row| keep.iter().map(|&f| row[f]).collect()).collect::<Vec<Vec<f32>>>();
    let genes = import_golden("10x-multiome.h5#Gene Expression").1;
    assert_eq!((matrix(&genes, 0), genes.modality(0).feature_names()), (columns(&[0, 2]), &["gene0", "gene2"].map(String::from)[..]));
    assert_eq!(matrix(&import_golden("10x-multiome.h5#Peaks").1, 0), columns(&[1, 3, 4]));
    assert_eq!(matrix(&import_golden("10x-genomes.h5#mm10").1, 0), expected());
    assert!(complaint(&golden("10x-multiome.h5")).contains("Gene Expression (2), Peaks (3); choose one with FILE#TYPE"));
    assert!(complaint(&golden("10x-genomes.h5")).ends_with("there are: hg19, mm10"));
}

#[test]
fn edges_are_read_or_refused_in_words() {
    for name in ["one-cell.h5ad", "one-cell-csr.h5ad"] {
        assert_eq!(matrix(&import_golden(name).1, 0), expected()[..1]);
    }
    assert_eq!(matrix(&import_golden("one-feature-csc.h5ad").1, 0), expected().iter().map(|row| row[..1].to_vec()).collect::<Vec<_>>());
    assert_eq!(import_golden("all-zero-csr.h5ad").1.modality(0).facts().nonzeros, 0);
    let said = [
        ("no-cells.h5ad", "there are no cells in it"),
        ("no-cells-csr.h5ad", "there are no cells in it"),
        ("no-features.h5ad", "there are no features in it"),
        ("duplicate-ids.h5ad", "the cell id \"same\" stands on row 0"),
        ("nan-dense.h5ad", "X, row 4, column 1: the value is nan"),
        ("nan-csr.h5ad", "X/data, element 7: the value is nan"),
        ("nan-csc.h5ad", "the value is nan"),
        ("too-large-dense.h5ad", "too large for a 32-bit float"),
        ("too-large-csr.h5ad", "too large for a 32-bit float"),
        ("too-large-csc.h5ad", "too large for a 32-bit float"),
        ("zstd.h5ad", "compressed by zstd (filter 32015)"),
        ("virtual.h5ad", "lie in other files"),
        ("other.h5", "there is notes, weights"),
        ("latin1-names.h5ad", "obs/_index: text 3 is not UTF-8"),
        ("empty-name.h5ad", "row 2 of the cells' names: the cell id is empty"),
        ("make.py", "the ending says no format"),
    ];
    for (name, says) in said {
        let message = complaint(&golden(name));
        assert!(message.contains(says), "{name}: {message}");
    }
    for form in ["dense", "csr", "csc"] {
        let dir = tempfile::tempdir().unwrap();
        let (_, dataset) = imported(dir.path(), &[format!("rna={}", golden(&format!("nan-{form}.h5ad")))], true).unwrap();
        assert!(matrix(&dataset, 0)[4][1].is_nan() && dataset.modality(0).facts().missing == 1, "{form}");
    }
}

#[test]
fn the_projects_own_archives_are_read() {
    let Some(folder) = shared("formats") else { return };
    let at = |name: &str| folder.join(name).display().to_string();
    let open = |name: &str| {
        let dir = tempfile::tempdir().unwrap();
        let (_, dataset) = imported(dir.path(), &[format!("rna={}", at(name))], false).unwrap_or_else(|e| panic!("{name}: {e}"));
        (dir, dataset)
    };
    let shape = |d: &Dataset| (d.modality(0).cells(), d.modality(0).features(), d.modality(0).facts().nonzeros);
    for (name, nonzeros) in [("anndata-v0.7.0.h5ad", 228), ("anndata-v0.7.8.h5ad", 239)] {
        let (_dir, d) = open(name);
        assert_eq!(shape(&d), (30, 20, nonzeros));
        assert_eq!(d.label_columns(), ["obs_cat", "cat_ordered", "int64", "float64", "uint8"]);
        assert_eq!(shape(&open(&format!("{name}#sparse")).1).2, 6);
        assert_eq!(open(&format!("{name}#raw")).1.modality(0).features(), 40);
    }
    assert!(complaint(&at("anndata-v0.11.4.h5ad")).contains("no X and no layers"));
    for name in ["mudata-v0.1.2.h5mu", "mudata-v0.3.10.h5mu"] {
        let (_dir, d) = open(&format!("{name}#mod1"));
        assert_eq!(shape(&d), (100, 20, 1999));
        assert_eq!(open(&format!("{name}#mod2")).1.modality(0).features(), 30);
        assert!(complaint(&at(name)).ends_with("there are: mod2, mod1"));
    }
    assert_eq!(shape(&open("10x-v3.h5").1), (1107, 507, 23866));
    assert_eq!(shape(&open("10x-v1.h5").1), (12, 343, 12));
    let (_dir, d) = open("pbmc68k.h5ad");
    assert_eq!(shape(&d).0, 700);
    let types = d.label("bulk_labels").unwrap();
    assert_eq!((types.classes.len(), types.text(0, 0)), (10, Some("CD14+ Monocyte")));
}
