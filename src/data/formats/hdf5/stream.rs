//! One-axis arrays read front to back, a window at a time: the indices and values of sparse matrices, checked as they come.

use std::path::{Path, PathBuf};

use super::super::finite;
use super::array::Array;
use crate::data::npy::{Dtype, decode_f32, decode_i64};
use crate::error::{Error, Result};

/// Windows of an array, decoded: elements before `at` have been taken.
struct Stream<T> {
    array: Array,
    dtype: Dtype,
    big_endian: bool,
    length: u64,
    /// Position of the window's first element in the array.
    first: u64,
    window: Vec<T>,
    at: usize,
}

impl<T: Copy> Stream<T> {
    fn new(array: Array) -> Result<Stream<T>> {
        let ((dtype, big_endian), length) = (array.number()?, array.length()?);
        Ok(Stream { array, dtype, big_endian, length, first: 0, window: Vec::new(), at: 0 })
    }

    fn position(&self) -> u64 {
        self.first + self.at as u64
    }

    /// Bytes of the next window; the window itself is emptied.
    fn advance(&mut self) -> Result<Vec<u8>> {
        self.first += self.window.len() as u64;
        self.window.clear();
        self.at = 0;
        let count = self.array.window().min(self.length - self.first);
        if count == 0 {
            return Err(self.array.bad("it is shorter than its pointers say: the file is damaged"));
        }
        self.array.rows(self.first, count)
    }

    fn one(&mut self) -> T {
        self.at += 1;
        self.window[self.at - 1]
    }

    /// Moves up to `n` elements of the window to `out`; how many.
    fn some(&mut self, n: u64, out: &mut Vec<T>) -> u64 {
        let n = n.min((self.window.len() - self.at) as u64) as usize;
        out.extend_from_slice(&self.window[self.at..self.at + n]);
        self.at += n;
        n as u64
    }
}

/// Indices, every one from 0 to below a limit.
pub(super) struct Indices {
    stream: Stream<i32>,
    limit: usize,
    wide: Vec<i64>,
}

impl Indices {
    pub fn new(array: Array, limit: usize) -> Result<Indices> {
        Ok(Indices { stream: Stream::new(array)?, limit, wide: Vec::new() })
    }

    fn load(&mut self) -> Result<()> {
        let bytes = self.stream.advance()?;
        self.wide.clear();
        let s = &mut self.stream;
        if !decode_i64(s.dtype, s.big_endian, &bytes, &mut self.wide) {
            return Err(s.array.bad(format!("whole numbers are wanted, it holds {}", s.dtype.name())));
        }
        if let Some(i) = self.wide.iter().position(|&i| i < 0 || i >= self.limit as i64) {
            let message = format!(
                "element {} is {}, a number from 0 to below {} is wanted: the file is damaged",
                s.first + i as u64,
                self.wide[i],
                self.limit
            );
            return Err(s.array.bad(message));
        }
        s.window.extend(self.wide.iter().map(|&i| i as i32));
        Ok(())
    }

    /// Appends the next `n`.
    pub fn take(&mut self, n: u64, out: &mut Vec<i32>) -> Result<()> {
        let mut left = n - self.stream.some(n, out);
        while left > 0 {
            self.load()?;
            left -= self.stream.some(left, out);
        }
        Ok(())
    }

    /// Counts how often each index occurs, from here to the end; `tick` is told how far it has come.
    pub fn count(&mut self, counts: &mut [u32], tick: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
        while self.stream.position() < self.stream.length {
            self.load()?;
            for &i in &self.stream.window {
                let count = &mut counts[i as usize];
                *count = count.checked_add(1).ok_or_else(|| self.stream.array.bad(format!("{i} occurs over 4 billion times")))?;
            }
            self.stream.at = self.stream.window.len();
            tick(self.stream.position())?;
        }
        Ok(())
    }

    /// The next one.
    pub fn one(&mut self) -> Result<i32> {
        if self.stream.at == self.stream.window.len() {
            self.load()?;
        }
        Ok(self.stream.one())
    }
}

/// Values, finite or missing.
pub(super) struct Values {
    stream: Stream<f32>,
    file: PathBuf,
    missing_nan: bool,
}

impl Values {
    pub fn new(array: Array, file: &Path, missing_nan: bool) -> Result<Values> {
        Ok(Values { stream: Stream::new(array)?, file: file.to_path_buf(), missing_nan })
    }

    /// How many have been taken.
    pub fn position(&self) -> u64 {
        self.stream.position()
    }

    fn load(&mut self) -> Result<()> {
        let bytes = self.stream.advance()?;
        let s = &mut self.stream;
        let place = |i: usize| format!("{}, element {}", s.array.name(), s.first + i as u64);
        decode_f32(s.dtype, s.big_endian, &bytes, &mut s.window)
            .map_err(|i| Error::input(&self.file, place(i), "the value is too large for a 32-bit float"))?;
        for (i, value) in s.window.iter_mut().enumerate() {
            if !value.is_finite() {
                *value = finite(*value, self.missing_nan, &self.file, || place(i))?;
            }
        }
        Ok(())
    }

    /// Appends the next `n`.
    pub fn take(&mut self, n: u64, out: &mut Vec<f32>) -> Result<()> {
        let mut left = n - self.stream.some(n, out);
        while left > 0 {
            self.load()?;
            left -= self.stream.some(left, out);
        }
        Ok(())
    }

    /// The next one.
    pub fn one(&mut self) -> Result<f32> {
        if self.stream.at == self.stream.window.len() {
            self.load()?;
        }
        Ok(self.stream.one())
    }
}
