//! Why a data set was refused, with the place.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a data set could not be read or written.
#[derive(Debug, Error)]
pub enum DataError {
    /// The file system refused.
    #[error("{}: {source}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not Parquet, is cut off, or is packed in a way that this build cannot read.
    #[error("{}: {message}", file.display())]
    Parquet {
        /// The file.
        file: PathBuf,
        /// What the Parquet library said.
        message: String,
    },
    /// A column that must be there is not.
    #[error("{}: no column {column}; the columns are: {present}", file.display())]
    MissingColumn {
        /// The file.
        file: PathBuf,
        /// The column's name.
        column: &'static str,
        /// The names of the columns that are there.
        present: String,
    },
    /// A column has a type that cannot be read as what it stands for.
    #[error("{}: column {column} is {found}, expected {expected}", file.display())]
    ColumnType {
        /// The file.
        file: PathBuf,
        /// The column's name.
        column: &'static str,
        /// Its type.
        found: String,
        /// The types that are taken.
        expected: &'static str,
    },
    /// One value is wrong.
    #[error("{}, row {row} (from 0), column {column}: {problem}", file.display())]
    Value {
        /// The file.
        file: PathBuf,
        /// The row, counted from 0.
        row: usize,
        /// The column's name.
        column: &'static str,
        /// The value and what was expected.
        problem: String,
    },
    /// A file without rows.
    #[error("{}: holds no rows", file.display())]
    Empty {
        /// The file.
        file: PathBuf,
    },
    /// A data set in memory that contradicts itself.
    #[error("the data set contradicts itself: {0}")]
    Inconsistent(String),
}

impl DataError {
    pub(super) fn value(file: &Path, row: usize, column: &'static str, problem: impl Into<String>) -> Self {
        Self::Value { file: file.to_path_buf(), row, column, problem: problem.into() }
    }

    pub(super) fn io(file: &Path, source: std::io::Error) -> Self {
        Self::Io { file: file.to_path_buf(), source }
    }

    pub(super) fn parquet(file: &Path, error: impl std::fmt::Display) -> Self {
        Self::Parquet { file: file.to_path_buf(), message: error.to_string() }
    }
}
