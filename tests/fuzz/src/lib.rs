//! What the targets share: a folder in memory where an input becomes files, what every edge must hold, and how one input holds several files.
//!
//! An edge that is given damaged files must return an error of one line with exit status 2 (the files are the user's, so is the mistake)
//! and leave nothing behind. Panics, overflows and memory errors end the process, which libFuzzer counts, as it does an input that takes
//! too long or memory that a number in the file asks for (`-malloc_limit_mb`).

pub mod checksums;
pub mod packed;
pub mod runs;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use couplet::data::formats::ModalitySource;
use couplet::data::import::{ImportSpec, import};
use couplet::data::{Dataset, Hooks, Modality};
use couplet::error::{Error, Result};
pub use packed::{DATASET_FILES, HDF5_KEYS, NPZ_NAMES, gz, npz};

/// Stands between the files of an input.
pub const NEXT: &[u8] = b"\xffNEXT\xff";

/// Longer than any sentence that quotes a name as long as its file.
const LONGEST_SENTENCE: usize = 1000;

/// The folder of this process: `COUPLET_FUZZ_DIR`, else in memory where there is such a place.
pub fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let given = std::env::var_os("COUPLET_FUZZ_DIR").map(PathBuf::from);
        let memory = Some(PathBuf::from("/dev/shm")).filter(|p| p.is_dir());
        let root = given.or(memory).unwrap_or_else(std::env::temp_dir).join(format!("couplet-fuzz.{}", std::process::id()));
        fs::create_dir_all(&root).expect("a folder for the inputs");
        root
    })
}

/// The files of an input; a file that is not in it is empty.
pub fn parts<const N: usize>(data: &[u8]) -> [&[u8]; N] {
    let mut rest = Some(data);
    std::array::from_fn(|i| {
        let now = rest.take().unwrap_or(&[]);
        match now.windows(NEXT.len()).position(|w| w == NEXT).filter(|_| i + 1 < N) {
            None => now,
            Some(at) => {
                rest = Some(&now[at + NEXT.len()..]);
                &now[..at]
            }
        }
    })
}

/// Several files as one input.
pub fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.join(NEXT)
}

/// Writes the files into a fresh folder, lets `edge` read them there, and sees that an error is one that a user can act on and that
/// nothing is left of it.
pub fn hold(files: &[(&str, &[u8])], edge: impl FnOnce(&Path) -> Result<()>) {
    let dir = root().join("case");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("a folder");
    for (name, bytes) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap_or(&dir)).expect("a folder");
        fs::write(path, bytes).expect("a file");
    }
    let before = listing(&dir);
    if let Err(e) = edge(&dir) {
        sentence(&e);
        assert_eq!(listing(&dir), before, "after \"{e}\" something is left behind");
    }
}

/// An error that the user's bytes may cause.
#[track_caller]
pub fn sentence(e: &Error) {
    let text = e.to_string();
    assert_eq!(e.exit_code(), 2, "{e:?}");
    assert!(!text.contains(|c: char| c.is_control()), "more than a line, or what a terminal obeys: {text:?}");
    assert!(text.len() < LONGEST_SENTENCE, "no short sentence: {text}");
}

fn listing(dir: &Path) -> BTreeSet<PathBuf> {
    let mut all = BTreeSet::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.extend(listing(&path));
        }
        all.insert(path);
    }
    all
}

/// A modality called `name`.
pub fn modality(name: &str, file: PathBuf, key: Option<&str>) -> ModalitySource {
    ModalitySource { name: name.into(), file, key: key.map(String::from) }
}

/// Imports, and reads all of what was made: a dataset that import writes is one that opens.
pub fn import_and_read(spec: &ImportSpec, dir: &Path) -> Result<()> {
    let out = dir.join("out");
    import(spec, &out, &mut Hooks::default())?;
    let whole = Dataset::open(&out).and_then(|dataset| {
        dataset.verify(&mut Hooks::default())?;
        let facts = |m: &Modality| [m.facts().sum, m.facts().min.unwrap_or(0.0), m.facts().max.unwrap_or(0.0)];
        assert!(dataset.modalities().iter().flat_map(facts).all(f64::is_finite), "a value that is not finite");
        read(&dataset)
    });
    whole.expect("what import wrote");
    Ok(())
}

/// One modality from one file.
pub fn import_one(file: PathBuf, key: Option<&str>, missing_nan: bool, in_place: bool, dir: &Path) -> Result<()> {
    import_and_read(&ImportSpec { modalities: vec![modality("m", file, key)], missing_nan, in_place, ..Default::default() }, dir)
}

/// Every row and every label of a dataset.
pub fn read(dataset: &Dataset) -> Result<()> {
    for m in dataset.modalities() {
        let mut values = vec![0.0; m.features()];
        for row in 0..m.cells() {
            m.row_into(row, &mut values)?;
            m.sparse_row(row)?;
        }
    }
    for labels in dataset.labels()? {
        for (m, rows) in labels.rows.iter().enumerate() {
            (0..rows.len()).for_each(|row| {
                labels.text(m, row);
            });
        }
        if let Err(e) = labels.numbers(dataset.dir()) {
            sentence(&e);
        }
    }
    for unit in 0..dataset.links().len() {
        (0..dataset.modalities().len()).for_each(|m| {
            dataset.links().row(unit, m);
        });
        dataset.links().confidence(unit);
    }
    Ok(())
}
