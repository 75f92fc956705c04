//! Why a source was not imported, with the place.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::training::dataset::DataError;

/// Why a source was not imported.
#[derive(Debug, Error)]
pub enum ImportError {
    /// The file system refused, or a compressed file is cut off.
    #[error("{}: {source}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A field of one line is wrong, or the line as a whole.
    #[error("{}, line {line}, {field}: {problem}", file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// The field's name in the source.
        field: String,
        /// What it holds and what was expected.
        problem: String,
    },
    /// A file lacks a column.
    #[error("{}: no column {column:?}; the columns are: {present}", file.display())]
    Column {
        /// The file.
        file: PathBuf,
        /// The column's name.
        column: String,
        /// The columns that are there.
        present: String,
    },
    /// A flag holds something that it cannot.
    #[error("--{flag} {value:?}: {problem}")]
    Flag {
        /// The flag.
        flag: &'static str,
        /// What it holds.
        value: String,
        /// What was expected.
        problem: String,
    },
    /// A directory that holds none of the known layouts.
    #[error("{}: {problem}", directory.display())]
    Layout {
        /// The directory.
        directory: PathBuf,
        /// What was looked for.
        problem: &'static str,
    },
    /// An event log cannot be read.
    #[error(transparent)]
    Log(#[from] crate::events::SegmentError),
    /// What was read makes no data set, or it could not be written.
    #[error(transparent)]
    Data(#[from] DataError),
}

impl ImportError {
    pub(super) fn io(file: &Path, source: std::io::Error) -> Self {
        Self::Io { file: file.to_path_buf(), source }
    }

    pub(super) fn line(file: &Path, line: u64, field: &str, problem: impl Into<String>) -> Self {
        Self::Line { file: file.to_path_buf(), line, field: field.to_owned(), problem: problem.into() }
    }
}
