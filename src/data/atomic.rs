//! Nothing half-written under a final name: write beside, fsync, rename.
//!
//! The temporary name is `.NAME.PID.partial` in the same directory, so that the rename stays inside one file system. Dropped
//! before [`commit`](AtomicFile::commit) - an error, a full disk, Ctrl-C - it is removed.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A file that appears under its name only when it is whole. An existing file of that name is replaced then.
pub struct AtomicFile {
    file: Option<BufWriter<File>>,
    temporary: PathBuf,
    target: PathBuf,
}

impl AtomicFile {
    /// Opens the temporary file beside `target`, whose directory must exist.
    pub fn create(target: &Path) -> Result<AtomicFile> {
        if target.is_dir() {
            return Err(Error::io("write", target, io::Error::from(io::ErrorKind::IsADirectory)));
        }
        let temporary = beside(target)?;
        let file = File::create(&temporary).map_err(|e| Error::io("create", target, e))?;
        Ok(AtomicFile { file: Some(BufWriter::with_capacity(1 << 18, file)), temporary, target: target.to_path_buf() })
    }

    /// The final name.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(bytes).map_err(|e| Error::io("write", &self.target, e))
    }

    /// Overwrites the beginning of what was written, for a header that is known only at the end.
    pub fn overwrite_start(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let done = file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(bytes)).and_then(|()| file.seek(SeekFrom::End(0)));
        done.map(|_| ()).map_err(|e| Error::io("write", &self.target, e))
    }

    /// Flushes to the disk and gives the file its name.
    pub fn commit(mut self) -> Result<()> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        let finish = file.flush().and_then(|()| file.get_ref().sync_all());
        drop(file);
        let result = finish.and_then(|()| fs::rename(&self.temporary, &self.target));
        if let Err(e) = result {
            // The leftover is ours alone; the error that matters is the one above.
            let _ = fs::remove_file(&self.temporary);
            return Err(Error::io("write", &self.target, e));
        }
        sync_directory(&self.target);
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_mut().map_or(Ok(bytes.len()), |f| f.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), |f| f.flush())
    }
}

impl Seek for AtomicFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.as_mut().map_or(Ok(0), |f| f.seek(to))
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Writes a small file atomically.
pub fn write_file(target: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(target)?;
    AtomicFile::write(&mut file, bytes)?;
    file.commit()
}

/// A directory that appears under its name only when everything in it is whole.
pub struct AtomicDir {
    temporary: PathBuf,
    target: PathBuf,
    committed: bool,
}

impl AtomicDir {
    /// Makes the temporary directory beside `target`, which must not exist; missing parents are made.
    pub fn create(target: &Path) -> Result<AtomicDir> {
        if fs::symlink_metadata(target).is_ok() {
            return Err(Error::usage(format!("{} exists already: remove it or choose another name with --out", target.display())));
        }
        let temporary = beside(target)?;
        if temporary.exists() {
            fs::remove_dir_all(&temporary).map_err(|e| Error::io("create", &temporary, e))?;
        }
        fs::create_dir_all(&temporary).map_err(|e| Error::io("create", target, e))?;
        Ok(AtomicDir { temporary, target: target.to_path_buf(), committed: false })
    }

    /// Where to write meanwhile.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Gives the directory its name. The files in it must have been synced by whoever wrote them.
    pub fn commit(mut self) -> Result<()> {
        sync_directory(&self.temporary.join("."));
        // Renaming onto an empty directory would succeed: look again, somebody may have made one meanwhile.
        if fs::symlink_metadata(&self.target).is_ok() {
            return Err(Error::usage(format!("{} appeared while it was being written: choose another --out", self.target.display())));
        }
        fs::rename(&self.temporary, &self.target).map_err(|e| Error::io("write", &self.target, e))?;
        self.committed = true;
        sync_directory(&self.target);
        Ok(())
    }
}

impl Drop for AtomicDir {
    fn drop(&mut self) {
        if !self.committed {
            let _ = fs::remove_dir_all(&self.temporary);
        }
    }
}

/// An empty file for reading and writing on the disk where `target` will be, without a name: it goes when it is closed, however the
/// process ends. `part` tells several of one target apart.
pub fn nameless(target: &Path, part: &str) -> Result<File> {
    let temporary = beside(&target.with_extension(part))?;
    let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&temporary);
    let file = file.map_err(|e| Error::io("create", target, e))?;
    fs::remove_file(&temporary).map_err(|e| Error::io("create", target, e))?;
    Ok(file)
}

fn beside(target: &Path) -> Result<PathBuf> {
    let name = target.file_name().ok_or_else(|| Error::usage(format!("\"{}\" is not a name for an output", target.display())))?;
    Ok(target.with_file_name(format!(".{}.{}.partial", name.to_string_lossy(), std::process::id())))
}

/// Makes a rename durable. Not every file system can sync a directory, and the data is safe by then, so a refusal is ignored.
fn sync_directory(child: &Path) {
    let parent = child.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Ok(directory) = File::open(parent) {
        let _ = directory.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_file_leaves_the_old_one_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        write_file(&path, b"old").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        AtomicFile::write(&mut file, b"new, half").unwrap();
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_committed_file_replaces_the_old_one_and_its_start_can_be_patched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        write_file(&path, b"old").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        AtomicFile::write(&mut file, b"____ body").unwrap();
        file.overwrite_start(b"head").unwrap();
        AtomicFile::write(&mut file, b" end").unwrap();
        file.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"head body end");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_appears_only_when_committed_and_never_over_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/out");
        let pending = AtomicDir::create(&path).unwrap();
        fs::write(pending.path().join("x"), b"1").unwrap();
        assert!(!path.exists());
        drop(pending);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
        let pending = AtomicDir::create(&path).unwrap();
        pending.commit().unwrap();
        let Err(refused) = AtomicDir::create(&path) else { panic!("an existing directory must be refused") };
        assert_eq!(refused.exit_code(), 2);
    }

    #[test]
    fn a_nameless_file_is_nowhere_to_be_seen() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = nameless(&dir.path().join("x.npz"), "data").unwrap();
        file.write_all(b"here").unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let mut back = String::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        io::Read::read_to_string(&mut file, &mut back).unwrap();
        assert_eq!(back, "here");
    }

    #[test]
    fn writing_over_a_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(AtomicFile::create(dir.path()).is_err());
    }
}
