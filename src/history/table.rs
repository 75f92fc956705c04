//! Histories from a Parquet file, a row an event, loaded in bulk.
//!
//! | column | type | |
//! |---|---|---|
//! | `user_id`, `item_id` | string | ids as requests name them; no nulls, 1 to 256 bytes |
//! | `time` | int64 | Unix seconds; no nulls |
//! | `kind` | string | optional: view, click, cart, purchase, hide, rating; null is view |
//! | `value` | float or double | optional, finite |
//!
//! Other columns are not read. These are the columns of the event log's own Parquet files, so those load too: rows of the
//! kind `exposure` are left out.

use std::collections::HashMap;
use std::fmt::Display;
use std::fs::File;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow_schema::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use thiserror::Error;

use super::store::{HistoryStore, Mark, Noted, StoreError};
use crate::domain::{self, Event, EventKind};

const COLUMNS: [&str; 5] = ["user_id", "item_id", "time", "kind", "value"];
/// Rows that are read and written together.
const ROWS: usize = 8192;
/// Longest ids, in bytes, as in requests.
const LONGEST_ID: usize = 256;
/// Rows of the event log's tables that are no events.
const EXPOSURE: &str = "exposure";

/// Why a file is not loaded, or not to its end.
#[derive(Debug, Error)]
pub enum TableError {
    /// The file cannot be read or is no Parquet file.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A column is missing or of another type.
    #[error("{}: column {column} {reason}", path.display())]
    Column {
        /// The file.
        path: PathBuf,
        /// Which.
        column: &'static str,
        /// What was found and what was expected.
        reason: String,
    },
    /// A value is wrong.
    #[error("{}: row {row}, column {column}: {reason}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// Counted from 0.
        row: usize,
        /// Which.
        column: &'static str,
        /// What was found and what was expected.
        reason: String,
    },
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Writes every event of the file into the store, but those of users that `left_out` names, and answers how many they
/// are. What the store holds already, from this file or its beginning, it does not take in again. Blocks its thread on
/// the file, and on the runtime's `handle` for the store.
///
/// # Errors
/// See [`TableError`]. What stands before the error may be in the store; the file may be loaded again.
pub fn load_table(
    file: &Path,
    store: &dyn HistoryStore,
    handle: &tokio::runtime::Handle,
    left_out: &dyn Fn(&str) -> bool,
) -> Result<usize, TableError> {
    let opened = contained(file, || File::open(file))?;
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder = contained(file, || ParquetRecordBatchReaderBuilder::try_new_with_options(opened, options))?;
    let roots = builder.parquet_schema().root_schema().get_fields();
    let kept: Vec<usize> = (0..roots.len()).filter(|&at| COLUMNS.contains(&roots[at].name())).collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), kept);
    let builder = builder.with_projection(mask).with_batch_size(ROWS);
    let mut reader = contained(file, || builder.build())?;
    let (mut first, mut loaded) = (0, 0);
    let mut places: HashMap<String, usize> = HashMap::new();
    while let Some(batch) = contained(file, || reader.next().transpose())? {
        let rows = Rows { file, first, batch: &batch };
        let events = rows.events()?.into_iter().filter(|(user, _)| !left_out(user));
        let noted: Vec<Noted> = events.map(|(user, event)| note(user, event, &mut places)).collect();
        handle.block_on(store.append(&noted, None))?;
        loaded += noted.len();
        first += batch.num_rows();
    }
    Ok(loaded)
}

/// Runs the Parquet library, which answers some damage with a panic.
fn contained<T, E: Display>(file: &Path, read: impl FnOnce() -> Result<T, E>) -> Result<T, TableError> {
    let failed = |reason: String| TableError::File { path: file.into(), reason };
    domain::contained(read).map_err(failed)?.map_err(|error| failed(error.to_string()))
}

fn note(user: String, event: Event, places: &mut HashMap<String, usize>) -> Noted {
    let place = places.entry(user.clone()).or_default();
    *place += 1;
    Noted { mark: Mark::loaded(&user, *place, &event), order: *place as u64, user, event }
}

/// Some rows of a file, from its row `first` on.
struct Rows<'a> {
    file: &'a Path,
    first: usize,
    batch: &'a RecordBatch,
}

impl Rows<'_> {
    fn events(&self) -> Result<Vec<(String, Event)>, TableError> {
        let (users, items) = (self.text("user_id")?, self.text("item_id")?);
        let users = users.ok_or_else(|| self.missing("user_id", "a string"))?;
        let items = items.ok_or_else(|| self.missing("item_id", "a string"))?;
        let kinds = self.text("kind")?;
        let times = self.batch.column_by_name("time").ok_or_else(|| self.missing("time", "int64"))?;
        let times = times.as_primitive_opt::<Int64Type>().ok_or_else(|| self.wrong_type("time", times, "int64"))?;
        let values = self.values()?;
        let mut events = Vec::with_capacity(self.batch.num_rows());
        for (row, value) in values.into_iter().enumerate() {
            let kind = kinds.as_ref().filter(|kinds| kinds.is_valid(row)).map(|kinds| kinds.value(row));
            if kind == Some(EXPOSURE) {
                continue;
            }
            let known = || EventKind::ALL.map(EventKind::name).join(", ");
            let kind = kind.map_or(Ok(EventKind::default()), |name| {
                let wrong = || self.wrong(row, "kind", format!("{name:?}, expected one of {}", known()));
                EventKind::named(name).ok_or_else(wrong)
            })?;
            if times.is_null(row) {
                return Err(self.wrong(row, "time", "null, expected Unix seconds".to_owned()));
            }
            if value.is_some_and(|value| !value.is_finite()) {
                return Err(self.wrong(row, "value", format!("{value:?}, expected a finite number or null")));
            }
            let (user, item_id) = (self.id(&users, row, "user_id")?, self.id(&items, row, "item_id")?);
            events.push((user, Event { item_id, kind, time: times.value(row), value }));
        }
        Ok(events)
    }

    fn text(&self, column: &'static str) -> Result<Option<StringArray>, TableError> {
        let Some(array) = self.batch.column_by_name(column) else { return Ok(None) };
        let text = array.as_string_opt::<i32>().ok_or_else(|| self.wrong_type(column, array, "a string"))?;
        Ok(Some(text.clone()))
    }

    fn id(&self, ids: &StringArray, row: usize, column: &'static str) -> Result<String, TableError> {
        let id = if ids.is_null(row) { "" } else { ids.value(row) };
        if !(1..=LONGEST_ID).contains(&id.len()) {
            return Err(self.wrong(row, column, format!("{} bytes, expected 1 to {LONGEST_ID}", id.len())));
        }
        Ok(id.to_owned())
    }

    fn values(&self) -> Result<Vec<Option<f32>>, TableError> {
        let Some(array) = self.batch.column_by_name("value") else { return Ok(vec![None; self.batch.num_rows()]) };
        match array.data_type() {
            DataType::Float32 => Ok(array.as_primitive::<Float32Type>().iter().collect()),
            DataType::Float64 => {
                Ok(array.as_primitive::<Float64Type>().iter().map(|value| value.map(|value| value as f32)).collect())
            }
            _ => Err(self.wrong_type("value", array, "float or double")),
        }
    }

    fn missing(&self, column: &'static str, expected: &str) -> TableError {
        let reason = format!("is not there, expected one of {expected}");
        TableError::Column { path: self.file.into(), column, reason }
    }

    fn wrong_type(&self, column: &'static str, array: &ArrayRef, expected: &str) -> TableError {
        let reason = format!("is of type {}, expected {expected}", array.data_type());
        TableError::Column { path: self.file.into(), column, reason }
    }

    fn wrong(&self, row: usize, column: &'static str, reason: String) -> TableError {
        TableError::Value { path: self.file.into(), row: self.first + row, column, reason }
    }
}
