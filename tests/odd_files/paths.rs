//! What is no file, or may not be read; and HDF5 files that are kept, odd as they are.

use crate::tables::TABLE;
use crate::{Odd, folder, modality};
#[cfg(unix)]
use std::ffi::OsString;

/// Folders, links to nowhere, nothing and noise by the name of every format.
pub fn no_files(odd: &mut Odd) {
    for name in ["d.csv", "d.tsv.gz", "d.npy", "d.npz", "d.mtx", "d.h5ad", "d.h5mu", "d.h5"] {
        std::fs::create_dir(odd.path(name)).unwrap();
        odd.refuse_at("directory", &odd.path(name));
        std::fs::remove_dir(odd.path(name)).unwrap();
        odd.refuse_at("missing", &odd.path(name));
        odd.refuse("empty", name, b"");
        odd.refuse("damaged", name, b"\x00\x01\x02\x03\xff\xfe\xfd\xfc and nothing else");
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(odd.path("nowhere"), odd.path(name)).unwrap();
            odd.refuse_at("missing", &odd.path(name));
            std::fs::remove_file(odd.path(name)).unwrap();
            use std::os::unix::fs::PermissionsExt;
            let path = odd.write(name, TABLE);
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o0)).unwrap();
            if std::fs::File::open(&path).is_err() {
                odd.refuse_at("permission", &path);
            } else if name == "d.csv" {
                println!("skipped: files without permission, which this user may read all the same");
            }
            std::fs::remove_file(path).unwrap();
        }
    }
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStringExt;
        // A name that is no UTF-8, of a file that is there.
        let name = OsString::from_vec(b"n\xffme.csv".to_vec());
        std::fs::write(odd.dir.path().join(&name), TABLE).unwrap();
        odd.refuse_args("name", &modality(&odd.dir.path().join(&name), &[]), &[]);
        std::fs::remove_file(odd.dir.path().join(&name)).unwrap();
    }
}

/// Those of tests/golden/hdf5/make.py that name no matrix, or one that cannot be.
pub fn golden(odd: &mut Odd) {
    for name in [
        "duplicate-ids.h5ad",
        "no-cells.h5ad",
        "no-cells-csr.h5ad",
        "no-features.h5ad",
        "no-x.h5ad",
        "nan-csr.h5ad",
        "nan-csc.h5ad",
        "nan-dense.h5ad",
        "too-large-csr.h5ad",
        "too-large-csc.h5ad",
        "too-large-dense.h5ad",
        "zstd.h5ad",
        "virtual.h5ad",
        "other.h5",
        "pair.h5mu",
        "10x-multiome.h5",
        "10x-genomes.h5",
    ] {
        odd.refuse_at("hdf5", &folder::golden("hdf5").join(name));
    }
}
