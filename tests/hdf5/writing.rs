//! What `embed` and `translate` write, read back by us and by anndata, and used in place without a copy.

use crate::matrix::matrix;
use crate::{expected, golden, imported, label};
use couplet::data::formats::ModalitySource;
use couplet::data::import::{ImportReport, ImportSpec, import};
use couplet::data::simulate::{SimulateSpec, simulate};
use couplet::data::{Dataset, Hooks};
use couplet::error::Result;
use couplet::run::h5ad::{Cells, Column, Matrix};
use couplet::run::rows::RowsWriter;
use std::path::{Path, PathBuf};

/// Two files as `embed` and `translate` write them, of a dataset of 150 cells in two modalities and a label with gaps.
fn written(dir: &Path) -> (PathBuf, PathBuf) {
    let data = dir.join("data");
    simulate(&SimulateSpec { recipe: "branching", cells: Some(150), ..Default::default() }, &data, &mut Hooks::default()).unwrap();
    let dataset = Dataset::open(&data).unwrap();
    let (embedded, translated) = (dir.join("z.h5ad"), dir.join("x.h5ad"));
    let mut cells = Cells::of(&dataset, &[0, 1]).unwrap();
    let predicted = (0..300).map(|i| (i % 3 > 0).then_some(i % 2)).collect();
    cells.add("predicted", Column::Classes(vec!["α".into(), "β".into()], predicted));
    let mut out = RowsWriter::annotated(&embedded, &cells, &Matrix::Obsm("X_couplet", 3)).unwrap();
    (0..300).for_each(|i| out.row(&["c", "m"], &[i as f32, -1.5, 0.25]).unwrap());
    out.commit().unwrap();
    let features = dataset.modality(1).feature_names();
    let mut out = RowsWriter::annotated(&translated, &Cells::of(&dataset, &[0]).unwrap(), &Matrix::X(features)).unwrap();
    let mut row = vec![0.0; features.len()];
    for i in 0..150 {
        dataset.modality(1).row_into(i, &mut row).unwrap();
        assert!(out.row(&["c"], &row[1..]).is_err());
        out.row(&["c"], &row).unwrap();
    }
    out.commit().unwrap();
    (embedded, translated)
}

#[test]
fn what_is_written_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let (embedded, translated) = written(dir.path());
    let data = Dataset::open(&dir.path().join("data")).unwrap();
    let (_, back) = imported(dir.path(), &[format!("rna={}", translated.display())], false).unwrap();
    assert_eq!(matrix(&back, 0), matrix(&data, 1));
    let (m, n) = (back.modality(0), data.modality(1));
    assert_eq!((m.cell_ids(), m.feature_names()), (n.cell_ids(), n.feature_names()));
    assert_eq!(back.label_columns(), data.label_columns());
    assert_eq!(label(&back, 0, "branch"), label(&data, 0, "branch"));
    let numbers = |d: &Dataset| d.label("Z1").unwrap().numbers(d.dir()).unwrap().swap_remove(0);
    assert_eq!(numbers(&back), numbers(&data));
    let file = hdf5_pure::File::open(&embedded).unwrap();
    let z = file.dataset("obsm/X_couplet").unwrap();
    assert_eq!(z.shape().unwrap(), [300, 3]);
    assert_eq!(z.read_f32().unwrap()[897..], [299.0, -1.5, 0.25]);
    assert_eq!(file.dataset("obs/_index").unwrap().read_string().unwrap()[150], "cell0-view2");
    assert_eq!(file.dataset("obs/predicted/codes").unwrap().read_i8().unwrap()[..4], [-1, 1, 0, -1]);
    // What a run's head said, for the cells that it knows.
    std::fs::write(dir.path().join("predicted.view1.csv"), "cell,label,probability,p.a,p.b\ncell1,b,0.75,0.25,0.75\ngone,a,1,1,0\n")
        .unwrap();
    let mut cells = Cells::of(&data, &[0]).unwrap();
    cells.add_predictions(dir.path(), &data, &[0]).unwrap();
    let path = dir.path().join("p.h5ad");
    let mut out = RowsWriter::annotated(&path, &cells, &Matrix::X(&["f".to_string()])).unwrap();
    (0..150).for_each(|i| out.row(&[], &[i as f32]).unwrap());
    out.commit().unwrap();
    let (_, back) = imported(dir.path(), &[format!("rna={}", path.display())], false).unwrap();
    let predicted = (label(&back, 0, "predicted_label"), label(&back, 0, "predicted_probability"));
    assert_eq!((&predicted.0[..3], &predicted.1[..3]), (&["", "b", ""].map(String::from)[..], &["", "0.75", ""].map(String::from)[..]));
    let unfinished = RowsWriter::annotated(&dir.path().join("u.h5ad"), &Cells::of(&data, &[0]).unwrap(), &Matrix::Obsm("z", 2)).unwrap();
    assert!(unfinished.commit().is_err() && !dir.path().join("u.h5ad").exists());
}

#[test]
#[ignore = "a measurement: half a gigabyte on disk"]
fn a_million_cells_are_written_in_bounded_memory() {
    let peak = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    };
    let dir = tempfile::tempdir().unwrap();
    let spec = SimulateSpec { recipe: "atlas", cells: Some(1_000_000), like: Some("scrna"), features: &[5], ..Default::default() };
    simulate(&spec, &dir.path().join("data"), &mut Hooks::default()).unwrap();
    let before = peak();
    let cells = Cells::of(&Dataset::open(&dir.path().join("data")).unwrap(), &[0]).unwrap();
    let mut out = RowsWriter::annotated(&dir.path().join("z.h5ad"), &cells, &Matrix::Obsm("X_couplet", 128)).unwrap();
    (0..cells.len()).for_each(|i| out.row(&[], &[i as f32; 128]).unwrap());
    out.commit().unwrap();
    println!("peak of resident memory: {before} MiB after simulating, {} MiB after writing", peak());
    assert!(peak() < 1500);
}

/// What anndata and scanpy must find.
const PYTHON: &str = r#"
import sys, numpy as np, anndata as ad
z, x = ad.read_h5ad(sys.argv[1]), ad.read_h5ad(sys.argv[2])
assert z.shape == (300, 0) and z.obs_names.is_unique and z.obs_names[150] == "cell0-view2", z
assert z.obsm["X_couplet"].shape == (300, 3) and z.obsm["X_couplet"][299].tolist() == [299, -1.5, .25]
assert z.obs["modality"].value_counts().to_dict() == {"view1": 150, "view2": 150}
assert z.obs["branch"].dtype == "category" and set(z.obs["branch"]) == {"1", "2", "3"}
assert z.obs["Z1"].dtype == float and z.obs["cell"].nunique() == 150
assert z.obs["predicted"].isna().sum() == 100 and list(z.obs["predicted"].cat.categories) == ["α", "β"]
assert x.shape == (150, 100) and x.X.dtype == np.float32 and x.var_names[0] == "view2_001", x
wanted = np.load(sys.argv[3])
assert (x.X == wanted).all()
assert (ad.read_h5ad(sys.argv[2], backed="r").X[10:12] == wanted[10:12]).all()
x.write_h5ad(sys.argv[2] + ".again.h5ad")
try:
    import scanpy as sc
except ImportError:
    print("no scanpy")
else:
    sc.pp.neighbors(z, use_rep="X_couplet"); sc.tl.umap(z); sc.pp.pca(x)
    assert z.obsm["X_umap"].shape == (300, 2)
print("read")
"#;

#[test]
fn anndata_opens_what_is_written() {
    let python = std::env::var("COUPLET_PYTHON").unwrap_or("python3".into());
    let has = |module: &str| {
        std::process::Command::new(&python).args(["-c", &format!("import {module}")]).output().is_ok_and(|o| o.status.success())
    };
    if !has("anndata") {
        println!("skipped: {python} has no anndata (set COUPLET_PYTHON to one that has)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (embedded, translated) = written(dir.path());
    let mut run = std::process::Command::new(&python);
    run.args(["-c", PYTHON]).args([&embedded, &translated]).arg(dir.path().join("data/view2/values.npy"));
    let out = run.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let again = PathBuf::from(format!("{}.again.h5ad", translated.display()));
    assert_eq!(imported(dir.path(), &[format!("rna={}", again.display())], false).unwrap().1.modality(0).features(), 100);
}

/// Imports a file in place.
fn mapped(dir: &Path, file: &Path) -> Result<(ImportReport, Dataset)> {
    let out = dir.join("dataset");
    let _ = std::fs::remove_dir_all(&out);
    let modalities = vec![ModalitySource { name: "rna".into(), file: file.to_path_buf(), key: None }];
    let report = import(&ImportSpec { modalities, in_place: true, ..Default::default() }, &out, &mut Hooks::default())?;
    Ok((report, Dataset::open(&out)?))
}

#[test]
fn a_matrix_used_in_place_is_not_copied_and_a_changed_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (_, x) = written(dir.path());
    let npy = dir.path().join("data/view2/values.npy");
    for file in [&x, &npy] {
        let (report, dataset) = mapped(dir.path(), file).unwrap();
        assert!(report.notes.is_empty() && !dataset.dir().join("rna/values.npy").exists(), "{:?}", report.notes);
        assert_eq!(matrix(&dataset, 0), matrix(&Dataset::open(&dir.path().join("data")).unwrap(), 1));
        dataset.verify(&mut Hooks::default()).unwrap();
    }
    // Touched, it is still the same; changed, cut or gone, it is named.
    let (_, dataset) = mapped(dir.path(), &x).unwrap();
    let folder = dataset.dir().to_path_buf();
    drop(dataset);
    let bytes = std::fs::read(&x).unwrap();
    std::fs::write(&x, &bytes).unwrap();
    Dataset::open(&folder).unwrap();
    let mut changed = bytes.clone();
    *changed.last_mut().unwrap() ^= 1;
    for (content, says) in
        [(&changed[..], "changed since it was imported in place"), (&bytes[..bytes.len() - 4], "the file changed, import it again")]
    {
        std::fs::write(&x, content).unwrap();
        let error = Dataset::open(&folder).err().unwrap();
        assert!(error.exit_code() == 2 && error.to_string().contains("x.h5ad") && error.to_string().contains(says), "{error}");
    }
    std::fs::remove_file(&x).unwrap();
    assert!(Dataset::open(&folder).err().unwrap().to_string().contains("it is gone"));
    for (name, why) in
        [("csr-none", "sparse"), ("dense-gzip", "compressed"), ("dense-float16", "none of f32, u8, u16"), ("dense-chunks", "big-endian")]
    {
        let (report, dataset) = mapped(dir.path(), Path::new(&golden(&format!("{name}.h5ad")))).unwrap();
        assert!(report.notes[0].contains(why), "{:?}", report.notes);
        assert_eq!(matrix(&dataset, 0), expected());
    }
    let (_, dataset) = mapped(dir.path(), Path::new(&golden("dense-none.h5ad"))).unwrap();
    assert_eq!((matrix(&dataset, 0), dataset.modality(0).entry().in_place.is_some()), (expected(), true));
}
