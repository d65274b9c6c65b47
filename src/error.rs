//! The one error type of the crate's edges: files, flags, devices, checkpoints.
//!
//! Edges return `Result`; mathematics does not. A shape mismatch inside a model is a bug in the model and
//! panics at the model's line, because a loss should read as its formula; sizes that come from a user's
//! data are checked once, here, when the model is built.
//!
//! Every message is one sentence that says where, what was found, what was wanted and what to do.
//! [`Error::exit_code`] is 2 for a wrong input or command line, 1 for a failure while running.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The crate's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong at the edges, by who must act.
#[derive(Debug)]
pub enum Error {
    /// The command line or a configuration asks for something that cannot be done. The user changes the command.
    Usage(String),
    /// A file's content is not what it must be. `place` is a row, line, column or key, and may be empty.
    Input {
        /// The file, as the user named it.
        file: PathBuf,
        /// Row, line, column or key; empty when the whole file is meant.
        place: String,
        /// What was found and what was wanted.
        message: String,
    },
    /// The operating system refused: missing file, no permission, full disk.
    Io {
        /// What was being done: "read", "write", "create".
        doing: &'static str,
        /// The file.
        file: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A loss term stopped being a finite number.
    Diverged {
        /// The step at which it was first seen, from 1.
        step: u64,
        /// The loss term.
        term: String,
        /// The first operation on the tape whose output was not finite.
        op: String,
    },
    /// A device cannot be used, or failed while running.
    Device {
        /// `cuda:0`, `emulated`, ...
        device: String,
        /// What happened and what to do about it.
        message: String,
        /// Whether the user asked for something impossible (exit 2) rather than a failure while running (exit 1).
        asked: bool,
    },
    /// The user stopped the run (Ctrl-C); what was there has been kept.
    Interrupted(String),
    /// A failure of a kind that no user can act on alone.
    Internal(String),
}

impl Error {
    /// An error about a file's content, with the place inside it (`"line 12"`, `"column \"x\""`) or `""`.
    pub fn input(file: impl AsRef<Path>, place: impl Into<String>, message: impl Into<String>) -> Error {
        Error::Input { file: file.as_ref().to_path_buf(), place: place.into(), message: message.into() }
    }

    /// An error of the operating system on a file; use as `.map_err(|e| Error::io("read", path, e))`.
    pub fn io(doing: &'static str, file: impl AsRef<Path>, source: io::Error) -> Error {
        Error::Io { doing, file: file.as_ref().to_path_buf(), source }
    }

    /// A usage error.
    pub fn usage(message: impl Into<String>) -> Error {
        Error::Usage(message.into())
    }

    /// The process exit status: 2 for a usage or input error, 1 for a failure while running.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) | Error::Input { .. } => 2,
            // A file that is missing, unreadable or a directory was named by the user; a failing write was not.
            Error::Io { doing, .. } => {
                if matches!(*doing, "read" | "open" | "map") {
                    2
                } else {
                    1
                }
            }
            Error::Device { asked, .. } => {
                if *asked {
                    2
                } else {
                    1
                }
            }
            Error::Diverged { .. } | Error::Interrupted(_) | Error::Internal(_) => 1,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Error::Usage(m) | Error::Interrupted(m) => m.clone(),
            Error::Input { file, place, message } if place.is_empty() => format!("{}: {message}", file.display()),
            Error::Input { file, place, message } => format!("{}, {place}: {message}", file.display()),
            Error::Io { doing, file, source } => {
                let hint = match source.kind() {
                    io::ErrorKind::NotFound => "there is no such file",
                    io::ErrorKind::PermissionDenied => "permission denied",
                    io::ErrorKind::StorageFull => "the disk is full: free some space and run the command again",
                    io::ErrorKind::IsADirectory => "it is a directory, a file is needed",
                    _ => &source.to_string(),
                };
                format!("cannot {doing} {}: {hint}", file.display())
            }
            Error::Diverged { step, term, op } => {
                format!("step {step}: loss term \"{term}\" is not a finite number, first in {op}; try a lower --set lr=...")
            }
            Error::Device { device, message, .. } => format!("device {device}: {message}"),
            Error::Internal(m) => format!("internal error: {m}"),
        };
        f.write_str(&one_line(&text))
    }
}

/// Longer sentences lose their middle: names out of a file stand there, and what to do stands at the end.
const LONGEST: usize = 900;
/// So much of their beginning and end stays.
const KEPT: [usize; 2] = [600, 250];

/// A text for a terminal, whatever names out of files are quoted in it: control characters are written out (`\n`, `\u{1b}`), so that it
/// stays one line and gives the terminal no orders, and it is no longer than a person reads.
pub fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) && text.len() <= LONGEST {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    if shown.len() > LONGEST {
        let boundary = |from: usize| (from..=shown.len()).find(|&at| shown.is_char_boundary(at)).unwrap_or(shown.len());
        shown = format!("{} [...] {}", &shown[..boundary(KEPT[0])], &shown[boundary(shown.len() - KEPT[1])..]);
    }
    Cow::Owned(shown)
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// The candidate closest to `word` by edit distance, if it is close enough to have been meant.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best: Option<(usize, &str)> = None;
    for c in candidates {
        let d = edit_distance(&word.to_lowercase(), &c.to_lowercase());
        if d <= 1 + c.len() / 3 && best.is_none_or(|(b, _)| d < b) {
            best = Some((d, c));
        }
    }
    best.map(|(_, c)| c)
}

fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_finds_the_word_that_was_meant() {
        let keys = ["lambda", "latent", "hidden"];
        assert_eq!(nearest("lamda", keys), Some("lambda"));
        assert_eq!(nearest("Latnet", keys), Some("latent"));
        assert_eq!(nearest("zzzzzzzz", keys), None);
    }

    #[test]
    fn names_out_of_a_file_neither_break_the_line_nor_fill_the_screen() {
        let e = Error::input("a.csv", "row \"x\ny\"", format!("\u{1b}[2J{}: give it another name", "ä".repeat(5000)));
        let text = e.to_string();
        assert!(text.starts_with("a.csv, row \"x\\ny\": \\u{1b}[2Jä") && text.ends_with("ä: give it another name"), "{text}");
        assert!(text.len() < 1000 && text.contains(" [...] "), "{text}");
        assert!(matches!(one_line("Zürich\u{a0}1"), Cow::Borrowed(_)));
    }

    #[test]
    fn input_errors_name_file_and_place_and_exit_with_two() {
        let e = Error::input("rna.csv", "line 3", "4 fields, the header has 5");
        assert_eq!(e.to_string(), "rna.csv, line 3: 4 fields, the header has 5");
        assert_eq!(e.exit_code(), 2);
        let e = Error::io("write", "out.npy", io::Error::from(io::ErrorKind::StorageFull));
        assert!(e.to_string().contains("disk is full"));
        assert_eq!(e.exit_code(), 1);
    }
}
