//! What can go wrong outside the benchmarks themselves.

use std::path::PathBuf;

use thiserror::Error;

/// The result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("reading {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("writing {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path} is no file of this harness: {message}")]
    Format {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A folder has no results.
    #[error("there are no results in {path}")]
    NothingThere {
        /// Which.
        path: PathBuf,
    },
    /// A benchmark gave no samples.
    #[error("{name} gave no samples")]
    NoSamples {
        /// Which.
        name: String,
    },
    /// A name that is not `suite/op/param/impl`.
    #[error("`{name}` is not `suite/op/param/impl` in lower-case letters, digits, `_`, `-` and `.`")]
    Name {
        /// Which.
        name: String,
    },
    /// A program that is needed did not start.
    #[error("`{program}` did not start")]
    Start {
        /// Which.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// A program that is needed failed.
    #[error("`{program}` failed: {message}")]
    Program {
        /// Which.
        program: String,
        /// What it said, or how it ended.
        message: String,
    },
    /// Nothing that was asked for exists, or it was asked in the wrong way.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    /// What went wrong, with its causes, in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text += &format!(": {error}");
            source = error.source();
        }
        text
    }
}
