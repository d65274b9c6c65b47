//! An HDF5 file, opened for reading: what is in a group, attributes as text and numbers, arrays by path.
//!
//! This file and [`array`](super::array) are the only readers of the HDF5 crate, so that another one could take its place. The file
//! is read by position, never whole; the crate keeps parsed metadata up to [`METADATA`] bytes and the list of chunks of each open
//! array, and no decompressed chunk: arrays are read once, front to back.

use std::fs::File;
use std::path::{Path, PathBuf};

use hdf5_pure::{AttrValue, ChunkCacheConfig, Error as H5Error, FileAccessProperties, FormatError, MetadataCacheConfig, ReadSeekSource};

use super::array::Array;
use crate::data::mapped::open_regular;
use crate::error::{Error, Result};

/// Bytes of parsed metadata that are kept.
const METADATA: usize = 4 << 20;

/// An open file. Paths inside it are like `obs/cell_type`; the empty path is the root.
pub(super) struct H5 {
    file: hdf5_pure::File,
    path: PathBuf,
    length: u64,
}

/// What stands under a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Group,
    Array,
}

impl H5 {
    pub fn open(path: &Path) -> Result<H5> {
        let file = open_regular(path)?;
        let length = file.metadata().map_err(|e| Error::io("read", path, e))?.len();
        let source = ReadSeekSource::<File>::new(file).map_err(|e| refused(path, "", e.into()))?;
        let access = FileAccessProperties::new()
            .with_metadata_cache(MetadataCacheConfig::new(METADATA))
            .with_chunk_cache(ChunkCacheConfig::disabled().with_index_cache(true));
        let file = hdf5_pure::File::from_source_with_options(source, access).map_err(|e| refused(path, "", e))?;
        let promised = file.superblock().eof_address;
        if promised > length {
            return Err(Error::input(
                path,
                "",
                format!("the file is cut off: it has {length} bytes, {promised} are promised in it; copy it again"),
            ));
        }
        Ok(H5 { file, path: path.to_path_buf(), length })
    }

    /// The file's name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An error about something inside.
    pub fn bad(&self, place: impl Into<String>, message: impl Into<String>) -> Error {
        Error::input(&self.path, place, message)
    }

    /// What stands under a path, if anything.
    pub fn kind(&self, inside: &str) -> Result<Option<Kind>> {
        if inside.is_empty() {
            return Ok(Some(Kind::Group));
        }
        match self.file.dataset(inside) {
            Ok(_) => Ok(Some(Kind::Array)),
            Err(H5Error::NotADataset(_)) => match self.file.group(inside) {
                Ok(_) => Ok(Some(Kind::Group)),
                Err(H5Error::NotAGroup(_)) => Ok(None),
                Err(e) => Err(refused(&self.path, inside, e)),
            },
            // A part of the path that is an array has nothing inside it.
            Err(H5Error::Format(FormatError::PathNotFound(_)) | H5Error::NotAGroup(_)) => Ok(None),
            Err(e) => Err(refused(&self.path, inside, e)),
        }
    }

    pub fn is_group(&self, inside: &str) -> Result<bool> {
        Ok(self.kind(inside)? == Some(Kind::Group))
    }

    pub fn is_array(&self, inside: &str) -> Result<bool> {
        Ok(self.kind(inside)? == Some(Kind::Array))
    }

    /// Names of what a group holds, groups and arrays together, by name; nothing if there is no such group.
    pub fn members(&self, group: &str) -> Result<Vec<String>> {
        if !self.is_group(group)? {
            return Ok(Vec::new());
        }
        let group_error = |e| refused(&self.path, group, e);
        let opened = self.group(group)?;
        let mut names = opened.groups().map_err(group_error)?;
        names.extend(opened.datasets().map_err(group_error)?);
        names.sort();
        Ok(names)
    }

    fn group(&self, inside: &str) -> Result<hdf5_pure::Group> {
        if inside.is_empty() { Ok(self.file.root()) } else { self.file.group(inside).map_err(|e| refused(&self.path, inside, e)) }
    }

    /// An attribute of a group or array, if it is there and of a kind that is read.
    fn attribute(&self, inside: &str, name: &str) -> Result<Option<AttrValue>> {
        let attributes = match self.kind(inside)? {
            None => return Ok(None),
            Some(Kind::Group) => self.group(inside)?.attrs(),
            Some(Kind::Array) => self.file.dataset(inside).and_then(|d| d.attrs()),
        };
        Ok(attributes.map_err(|e| refused(&self.path, inside, e))?.remove(name))
    }

    /// An attribute that is a text.
    pub fn text(&self, inside: &str, name: &str) -> Result<Option<String>> {
        Ok(self.attribute(inside, name)?.and_then(|a| a.as_str().map(|s| s.trim_end_matches('\0').to_string())))
    }

    /// An attribute that is a list of texts; of another kind, as an empty list of floats is, it is nothing.
    pub fn texts(&self, inside: &str, name: &str) -> Result<Option<Vec<String>>> {
        Ok(self.attribute(inside, name)?.and_then(|a| a.as_strings().map(<[String]>::to_vec)))
    }

    /// An attribute that is a list of whole numbers.
    pub fn numbers(&self, inside: &str, name: &str) -> Result<Option<Vec<i64>>> {
        Ok(self.attribute(inside, name)?.and_then(|a| a.to_i64s()))
    }

    /// An array.
    pub fn array(&self, inside: &str) -> Result<Array> {
        match self.kind(inside)? {
            Some(Kind::Array) => {}
            Some(Kind::Group) => return Err(self.bad(inside, "it is a group, an array is wanted")),
            None => return Err(self.bad(inside, "it is not in the file, which is damaged or made by a program that is not known here")),
        }
        let dataset = self.file.dataset(inside).map_err(|e| refused(&self.path, inside, e))?;
        Array::open(dataset, &self.path, inside, self.length)
    }
}

/// What the HDF5 crate refused, in a sentence.
pub(super) fn refused(path: &Path, place: &str, e: H5Error) -> Error {
    let message = match e {
        H5Error::Io(e) => return Error::io("read", path, e),
        H5Error::Format(FormatError::SignatureNotFound) => "not an HDF5 file".to_string(),
        H5Error::Format(FormatError::UnsupportedFilter(id)) => unreadable_filter(id),
        e => {
            format!(
                "it cannot be read as HDF5 ({e}): the file is damaged, newer than what is read, or was left open by the program that wrote it; copy or write it again"
            )
        }
    };
    Error::input(path, place, message)
}

/// The sentence for a compression that is not read.
pub(super) fn unreadable_filter(id: u16) -> String {
    let name = match id {
        4 => "szip",
        5 => "nbit",
        307 => "bzip2",
        32001 => "blosc",
        32004 => "lz4",
        32008 => "bitshuffle",
        32013 => "zfp",
        32015 => "zstd",
        32026 => "blosc2",
        _ => "unknown",
    };
    format!("it is compressed by {name} (filter {id}), which is not read: write the file again with compression=\"gzip\", \"lzf\" or none")
}
