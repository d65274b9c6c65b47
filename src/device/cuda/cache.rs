//! Compiled kernels kept between runs, under `$XDG_CACHE_HOME/couplet` or `~/.cache/couplet`.
//!
//! A file's name carries a hash of everything its content depends on, so a changed source is another file. The
//! content carries that hash again and a checksum: a file that was cut short or altered is compiled anew. The cache
//! is a convenience, so a folder that cannot be written costs time and is no error.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Where compiled kernels are kept.
pub struct Cache {
    folder: Option<PathBuf>,
}

const MAGIC: &[u8; 16] = b"couplet kernel 1";
const HEADER: usize = MAGIC.len() + 16 + 16;

/// FNV-1a over 128 bits: a change of any byte changes it, and nobody gains by forging their own cache.
pub fn hash(parts: &[&[u8]]) -> u128 {
    const PRIME: u128 = (1 << 88) + 0x13b;
    let mut h: u128 = 0x6c62272e07bb014262b821756295c58d;
    for part in parts {
        // The length first, so that moving a byte from one part to the next is a change too.
        for byte in (part.len() as u64).to_le_bytes().iter().chain(*part) {
            h = (h ^ u128::from(*byte)).wrapping_mul(PRIME);
        }
    }
    h
}

impl Cache {
    /// This user's cache; none where the environment names no home.
    pub fn of_user(env: &dyn Fn(&str) -> Option<OsString>) -> Cache {
        let folder = |name: &str| env(name).map(PathBuf::from).filter(|p| p.is_absolute());
        Cache { folder: folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|h| h.join(".cache"))).map(|f| f.join("couplet")) }
    }

    /// The image of `name` under `key`, from the disk if it is there and whole, else from `make`.
    pub fn get_or_make<E>(&self, name: &str, key: u128, make: impl FnOnce() -> Result<Vec<u8>, E>) -> Result<Vec<u8>, E> {
        let file = self.folder.as_ref().map(|f| f.join(format!("{name}-{key:032x}.bin")));
        if let Some(image) = file.as_deref().and_then(|f| read(f, key)) {
            return Ok(image);
        }
        let image = make()?;
        if let Some(file) = file {
            // No room or no permission: the next run compiles again.
            let _ = write(&file, key, &image);
        }
        Ok(image)
    }
}

fn read(file: &Path, key: u128) -> Option<Vec<u8>> {
    let mut bytes = fs::read(file).ok()?;
    let (head, image) = bytes.split_at_checked(HEADER)?;
    let whole = head == header(key, image);
    bytes.drain(..HEADER);
    whole.then_some(bytes)
}

fn header(key: u128, image: &[u8]) -> Vec<u8> {
    [&MAGIC[..], &key.to_le_bytes(), &hash(&[image]).to_le_bytes()].concat()
}

/// Written beside and renamed: another process sees the whole file or none.
fn write(file: &Path, key: u128, image: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let beside = file.with_extension(format!("{}-{:?}.part", std::process::id(), std::thread::current().id()));
    let written = (|| {
        let mut f = File::create(&beside)?;
        f.write_all(&header(key, image))?;
        f.write_all(image)?;
        f.sync_all()?;
        fs::rename(&beside, file)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(folder: &Path) -> Cache {
        Cache { folder: Some(folder.to_path_buf()) }
    }

    fn must_not_compile() -> Result<Vec<u8>, String> {
        Err("compiled again".into())
    }

    #[test]
    fn an_image_is_made_once_and_read_from_then_on() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a").join("couplet");
        let made = cache(&folder).get_or_make("linear-sm_80", 7, || Ok::<_, String>(vec![1, 2, 3])).unwrap();
        assert_eq!(made, [1, 2, 3]);
        assert_eq!(cache(&folder).get_or_make("linear-sm_80", 7, must_not_compile).unwrap(), [1, 2, 3]);
        assert!(cache(&folder).get_or_make("linear-sm_80", 8, must_not_compile).is_err(), "another key is another image");
        let names: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), 1, "no half-written file stays behind: {names:?}");
    }

    #[test]
    fn a_file_cut_short_or_altered_anywhere_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let image: Vec<u8> = (0..100).collect();
        let fill = || cache(dir.path()).get_or_make("x", 1, || Ok::<_, String>(image.clone())).unwrap();
        fill();
        let file = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
        let whole = fs::read(&file).unwrap();
        for length in [0, 10, HEADER - 1, HEADER, whole.len() - 1] {
            fs::write(&file, &whole[..length]).unwrap();
            assert_eq!(fill(), image, "cut to {length} bytes");
            assert_eq!(fs::read(&file).unwrap(), whole, "repaired after a cut to {length} bytes");
        }
        for place in [0, 17, 40, HEADER, whole.len() - 1] {
            let mut altered = whole.clone();
            altered[place] ^= 1;
            fs::write(&file, &altered).unwrap();
            assert_eq!(fill(), image, "byte {place} altered");
        }
    }

    #[test]
    fn a_failure_to_compile_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(cache(dir.path()).get_or_make("x", 1, must_not_compile), Err("compiled again".to_string()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_cannot_be_made_costs_time_only() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a file");
        fs::write(&file, "").unwrap();
        assert_eq!(cache(&file.join("below")).get_or_make("x", 1, || Ok::<_, String>(vec![9])).unwrap(), [9]);
        assert_eq!(Cache { folder: None }.get_or_make("x", 1, || Ok::<_, String>(vec![9])).unwrap(), [9]);
    }

    #[test]
    fn the_folder_follows_the_environment() {
        let folder = |pairs: &'static [(&str, &str)]| {
            Cache::of_user(&|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v))).folder
        };
        assert_eq!(folder(&[("XDG_CACHE_HOME", "/c"), ("HOME", "/h")]), Some(PathBuf::from("/c/couplet")));
        assert_eq!(folder(&[("HOME", "/h")]), Some(PathBuf::from("/h/.cache/couplet")));
        assert_eq!(folder(&[("XDG_CACHE_HOME", ""), ("HOME", "/h")]), Some(PathBuf::from("/h/.cache/couplet")));
        assert_eq!(folder(&[("XDG_CACHE_HOME", "relative")]), None);
        assert_eq!(folder(&[]), None);
    }

    #[test]
    fn the_hash_tells_parts_apart() {
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
        assert_ne!(hash(&[b"a"]), hash(&[b"a", b""]));
        assert_ne!(hash(&[b"source", b"sm_80"]), hash(&[b"source", b"sm_90a"]));
    }
}
