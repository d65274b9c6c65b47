//! Arrays on disk, mapped: the operating system reads the pages that are touched and forgets them when memory is short.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytemuck::Pod;
use memmap2::Mmap;

use super::npy::{self, Header};
use crate::error::{Error, Result};

/// One `.npy` file, header read, body mapped; or an array that lies in another file. A copy is the same map.
#[derive(Clone)]
pub struct MappedArray {
    map: Arc<Mmap>,
    header: Header,
    file: PathBuf,
}

impl MappedArray {
    /// Opens a file and checks that it is exactly as long as its header says.
    pub fn open(path: &Path) -> Result<MappedArray> {
        let file = open_regular(path)?;
        let length = file.metadata().map_err(|e| Error::io("read", path, e))?.len();
        let header = npy::read_header(&mut BufReader::new(&file), path, "")?;
        let wanted = header.body + header.body_len;
        if length != wanted {
            let what = if length < wanted { "truncated" } else { "followed by something else" };
            return Err(Error::input(
                path,
                "",
                format!("the array of shape {:?} is {what}: the file has {length} bytes, its header asks for {wanted}", header.shape),
            ));
        }
        Ok(MappedArray { map: map_file(&file, path)?, header, file: path.to_path_buf() })
    }

    /// Elements inside a file of another format: little-endian, in C order, from byte `offset` on.
    pub fn part(path: &Path, offset: u64, dtype: npy::Dtype, shape: &[usize]) -> Result<MappedArray> {
        let file = open_regular(path)?;
        let length = file.metadata().map_err(|e| Error::io("read", path, e))?.len();
        let bytes = shape.iter().try_fold(dtype.size() as u64, |n, &d| n.checked_mul(d as u64));
        let Some(body_len) = bytes.filter(|&n| offset.checked_add(n).is_some_and(|end| end <= length)) else {
            let message = format!(
                "values of shape {shape:?} from byte {offset} on do not fit into its {length} bytes: the file changed, import it again"
            );
            return Err(Error::input(path, "", message));
        };
        if !offset.is_multiple_of(dtype.size() as u64) {
            return Err(Error::input(path, "", format!("its values begin at byte {offset}, which cannot be mapped as {}", dtype.name())));
        }
        let header = Header { dtype, big_endian: false, fortran: false, shape: shape.to_vec(), body: offset, body_len };
        Ok(MappedArray { map: map_file(&file, path)?, header, file: path.to_path_buf() })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The file's name, for messages.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The body.
    pub fn bytes(&self) -> &[u8] {
        let (start, length) = (self.header.body as usize, self.header.body_len as usize);
        self.map.get(start..).and_then(|rest| rest.get(..length)).unwrap_or(&[])
    }

    /// The body as elements; empty if it does not lie at a multiple of their size (see [`check`](MappedArray::check)).
    pub fn elements<T: Pod>(&self) -> &[T] {
        bytemuck::try_cast_slice(self.bytes()).unwrap_or(&[])
    }

    /// Checks type, shape, order and alignment against what a dataset says of this file.
    pub fn check(&self, dtype: npy::Dtype, shape: &[usize]) -> Result<()> {
        let h = &self.header;
        let wrong = |found: String, wanted: String| {
            Err(Error::input(&self.file, "", format!("{found}, dataset.json says {wanted}: import the dataset again")))
        };
        if h.dtype != dtype || h.big_endian {
            return wrong(format!("elements are {}{}", if h.big_endian { "big-endian " } else { "" }, h.dtype.name()), dtype.name().into());
        }
        if h.shape != shape {
            return wrong(format!("the shape is {:?}", h.shape), format!("{shape:?}"));
        }
        if h.fortran && h.shape.iter().filter(|&&d| d > 1).count() > 1 {
            return wrong("the array is in Fortran order".into(), "C order".into());
        }
        if !h.body.is_multiple_of(dtype.size() as u64) {
            return wrong(format!("the body begins at byte {}", h.body), format!("a multiple of {}", dtype.size()));
        }
        Ok(())
    }
}

/// Opens a file for reading, with a plain sentence for a directory or a pipe.
pub fn open_regular(path: &Path) -> Result<File> {
    let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
    let kind = file.metadata().map_err(|e| Error::io("read", path, e))?;
    if kind.is_dir() {
        return Err(Error::io("read", path, io::Error::from(io::ErrorKind::IsADirectory)));
    }
    if !kind.is_file() {
        return Err(Error::input(path, "", "neither a file nor a folder: pipes and devices cannot be mapped, save to a file first"));
    }
    Ok(file)
}

fn map_file(file: &File, path: &Path) -> Result<Arc<Mmap>> {
    // SAFETY: the map is read-only and private to `MappedArray`; every element type it is cast to is plain old data, valid for any bits. The caller
    // has compared the file's length with its header. What remains is the operating system's contract: another process that changes
    // the file shows other numbers, one that truncates it stops this process with a bus error; datasets are written under another
    // name and renamed, so `couplet` itself never changes a file that may be mapped.
    unsafe { Mmap::map(file) }.map(Arc::new).map_err(|e| Error::io("map", path, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::npy::{Dtype, NpyWriter};

    #[test]
    fn a_written_array_maps_and_a_cut_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        let mut writer = NpyWriter::create(&path, Dtype::I32, &[2]).unwrap();
        writer.write(&[1i32, 2, 3, 4]).unwrap();
        writer.finish().unwrap();
        let array = MappedArray::open(&path).unwrap();
        array.check(Dtype::I32, &[2, 2]).unwrap();
        assert_eq!(array.elements::<i32>(), [1, 2, 3, 4]);
        assert!(array.check(Dtype::F32, &[2, 2]).is_err());
        assert!(array.check(Dtype::I32, &[4]).is_err());
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(MappedArray::open(&path).err().unwrap().to_string().contains("truncated"));
    }

    #[test]
    fn an_empty_array_maps() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        NpyWriter::create(&path, Dtype::F32, &[2]).unwrap().finish().unwrap();
        let array = MappedArray::open(&path).unwrap();
        array.check(Dtype::F32, &[0, 2]).unwrap();
        assert!(array.elements::<f32>().is_empty());
    }

    #[test]
    fn a_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(MappedArray::open(dir.path()).err().unwrap().to_string().contains("directory"));
    }
}
