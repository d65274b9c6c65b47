//! Whole files or none: what is written lies beside its final name until it is complete and on disk.

use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A file that appears under its name only by [`AtomicFile::commit`]; dropped before that, it leaves nothing behind.
pub struct AtomicFile {
    file: Option<BufWriter<File>>,
    part: PathBuf,
    path: PathBuf,
}

impl AtomicFile {
    /// Opens a file beside `path`. The name holds the process number, so that two processes never write into one file.
    pub fn create(path: &Path) -> Result<AtomicFile> {
        let Some(name) = path.file_name() else {
            return Err(Error::usage(format!("{}: this is no name for a file", path.display())));
        };
        let part = path.with_file_name(format!(".{}.{}.part", name.to_string_lossy(), std::process::id()));
        let file = File::create(&part).map_err(|e| refused(path, e))?;
        Ok(AtomicFile { file: Some(BufWriter::with_capacity(1 << 18, file)), part, path: path.to_path_buf() })
    }

    /// Flushes, waits for the disk, and gives the file its name.
    pub fn commit(mut self) -> Result<()> {
        let result = (|| {
            let Some(file) = self.file.take() else { return Ok(()) };
            file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            fs::rename(&self.part, &self.path)?;
            // The rename itself reaches the disk with the directory; a file system that cannot sync one loses only the newest file.
            if let Some(dir) = self.path.parent() {
                let _ = File::open(if dir.as_os_str().is_empty() { Path::new(".") } else { dir }).and_then(|d| d.sync_all());
            }
            Ok(())
        })();
        if result.is_err() {
            let _ = fs::remove_file(&self.part);
        }
        result.map_err(|e| refused(&self.path, e))
    }

    /// Writes, with an error that names the final file.
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.file {
            Some(file) => file.write_all(bytes).map_err(|e| refused(&self.path, e)),
            None => Ok(()),
        }
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.file {
            Some(file) => file.write(bytes),
            None => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            let _ = fs::remove_file(&self.part);
        }
    }
}

/// Writes a whole file at once.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.put(bytes)?;
    file.commit()
}

fn refused(path: &Path, e: io::Error) -> Error {
    if e.kind() == io::ErrorKind::NotFound {
        // The only thing that can be missing when a file is created is its folder, and the user named that.
        let dir = path.parent().unwrap_or(path).display();
        return Error::usage(format!("cannot write {}: there is no folder {dir}: make it first", path.display()));
    }
    Error::io("write", path, e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.csv");
        let mut file = AtomicFile::create(&path).unwrap();
        file.put(b"half").unwrap();
        assert!(!path.exists());
        drop(file);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_folder_is_a_usage_error_that_names_it() {
        let e = write(Path::new("no/such/folder/x.csv"), b"").unwrap_err();
        assert_eq!(e.exit_code(), 2);
        assert!(e.to_string().contains("there is no folder no/such/folder"), "{e}");
    }
}
