//! Typed columns of a Parquet file, chunk by chunk, each value checked and each error with its row.

use std::fmt::Display;
use std::fs::File;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, RecordBatch};
use arrow_schema::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::DataError;
use crate::domain;

const CHUNK_ROWS: usize = 8192;

/// An open Parquet file, read as a run of [`Chunk`]s.
pub(super) struct Table {
    file: PathBuf,
    /// The names of all its columns, for errors.
    columns: String,
    reader: ParquetRecordBatchReader,
    next_row: usize,
}

impl Table {
    /// Opens `file` for those of the `wanted` columns that it has.
    ///
    /// The types are those of the Parquet schema itself, so that what the writing program kept in memory
    /// (dictionaries, string views, lists of fixed size) makes no difference.
    pub(super) fn open(file: &Path, wanted: &[&str]) -> Result<Self, DataError> {
        let handle = File::open(file).map_err(|source| DataError::io(file, source))?;
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder = contained(file, || ParquetRecordBatchReaderBuilder::try_new_with_options(handle, options))?;
        let roots = builder.parquet_schema().root_schema().get_fields();
        let kept: Vec<usize> = (0..roots.len()).filter(|&at| wanted.contains(&roots[at].name())).collect();
        let columns = roots.iter().map(|root| root.name()).collect::<Vec<&str>>().join(", ");
        let mask = ProjectionMask::roots(builder.parquet_schema(), kept);
        let builder = builder.with_projection(mask).with_batch_size(CHUNK_ROWS);
        let reader = contained(file, || builder.build())?;
        Ok(Self { file: file.to_path_buf(), columns, reader, next_row: 0 })
    }

    /// The next rows; none at the end.
    pub(super) fn next_chunk(&mut self) -> Result<Option<Chunk<'_>>, DataError> {
        let reader = &mut self.reader;
        let Some(batch) = contained(&self.file, || reader.next().transpose())? else { return Ok(None) };
        let first_row = self.next_row;
        self.next_row += batch.num_rows();
        Ok(Some(Chunk { file: &self.file, columns: &self.columns, first_row, batch }))
    }
}

/// Runs the Parquet library, which answers some damage with a panic.
fn contained<T, E: Display>(file: &Path, read: impl FnOnce() -> Result<T, E>) -> Result<T, DataError> {
    let read = domain::contained(read).map_err(|reason| DataError::parquet(file, reason))?;
    read.map_err(|error| DataError::parquet(file, error))
}

/// Some consecutive rows of a file. An optional column that the file lacks reads as one without values.
pub(super) struct Chunk<'a> {
    /// The file, for errors.
    pub(super) file: &'a Path,
    /// The place in the file of this chunk's first row.
    pub(super) first_row: usize,
    columns: &'a str,
    batch: RecordBatch,
}

impl Chunk<'_> {
    /// The number of rows.
    pub(super) fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// An error at `row` of this chunk.
    pub(super) fn wrong(&self, row: usize, column: &'static str, problem: impl Into<String>) -> DataError {
        DataError::value(self.file, self.first_row + row, column, problem)
    }

    /// A column of integers that must be there, without nulls.
    pub(super) fn integers(&self, column: &'static str) -> Result<Vec<i64>, DataError> {
        let Some(array) = self.batch.column_by_name(column) else {
            return Err(DataError::MissingColumn { file: self.file.into(), column, present: self.columns.into() });
        };
        let values = match array.data_type() {
            DataType::Int64 => cast::<Int64Type, _>(array, Some),
            DataType::Int32 => cast::<Int32Type, _>(array, |value| Some(i64::from(value))),
            DataType::Int16 => cast::<Int16Type, _>(array, |value| Some(i64::from(value))),
            DataType::Int8 => cast::<Int8Type, _>(array, |value| Some(i64::from(value))),
            DataType::UInt64 => cast::<UInt64Type, _>(array, |value| i64::try_from(value).ok()),
            DataType::UInt32 => cast::<UInt32Type, _>(array, |value| Some(i64::from(value))),
            DataType::UInt16 => cast::<UInt16Type, _>(array, |value| Some(i64::from(value))),
            DataType::UInt8 => cast::<UInt8Type, _>(array, |value| Some(i64::from(value))),
            other => return Err(self.wrong_type(column, other, "an integer")),
        };
        let checked = values.into_iter().enumerate().map(|(row, value)| match value {
            Cell::Value(Some(value)) => Ok(value),
            Cell::Value(None) => Err(self.wrong(row, column, "above 2^63 - 1, expected a 64-bit signed integer")),
            Cell::Null => Err(self.wrong(row, column, "null, expected an integer")),
        });
        checked.collect()
    }

    /// A column of numbers, nulls allowed; NaN and infinities are refused.
    pub(super) fn floats(&self, column: &'static str) -> Result<Vec<Option<f32>>, DataError> {
        let Some(array) = self.batch.column_by_name(column) else { return Ok(vec![None; self.rows()]) };
        let values = self.float_cells(column, array)?;
        let checked = values.into_iter().enumerate().map(|(row, cell)| match cell {
            Cell::Null => Ok(None),
            Cell::Value(value) if value.is_finite() => Ok(Some(value)),
            Cell::Value(value) => Err(self.wrong(row, column, format!("{value}, expected a finite number or null"))),
        });
        checked.collect()
    }

    /// A column of strings, nulls allowed. A string of blanks says nothing: it reads as null.
    pub(super) fn strings(&self, column: &'static str) -> Result<Vec<Option<String>>, DataError> {
        let Some(array) = self.batch.column_by_name(column) else { return Ok(vec![None; self.rows()]) };
        if array.data_type() == &DataType::Null {
            return Ok(vec![None; self.rows()]);
        }
        let Some(strings) = array.as_string_opt::<i32>() else {
            return Err(self.wrong_type(column, array.data_type(), "a string"));
        };
        Ok(strings.iter().map(|text| text.filter(|text| !text.trim().is_empty()).map(str::to_owned)).collect())
    }

    /// A column of lists of strings; a null list is an empty one, blanks are left out, a null inside is refused.
    pub(super) fn string_lists(&self, column: &'static str) -> Result<Vec<Vec<String>>, DataError> {
        let Some(array) = self.batch.column_by_name(column) else { return Ok(vec![Vec::new(); self.rows()]) };
        let expected = "a list of strings";
        let Some(lists) = array.as_list_opt::<i32>() else {
            return Err(self.wrong_type(column, array.data_type(), expected));
        };
        let read = lists.iter().enumerate().map(|(row, list)| {
            let Some(list) = list else { return Ok(Vec::new()) };
            if list.is_empty() {
                return Ok(Vec::new());
            }
            let Some(entries) = list.as_string_opt::<i32>() else {
                return Err(self.wrong_type(column, array.data_type(), expected));
            };
            if let Some(at) = (0..entries.len()).find(|&at| entries.is_null(at)) {
                return Err(self.wrong(row, column, format!("entry {at} is null, expected a string")));
            }
            Ok(entries.iter().flatten().filter(|text| !text.trim().is_empty()).map(str::to_owned).collect())
        });
        read.collect()
    }

    /// A column of vectors, nulls allowed; every number must be finite.
    pub(super) fn vectors(&self, column: &'static str) -> Result<Vec<Option<Vec<f32>>>, DataError> {
        let Some(array) = self.batch.column_by_name(column) else { return Ok(vec![None; self.rows()]) };
        let Some(lists) = array.as_list_opt::<i32>() else {
            return Err(self.wrong_type(column, array.data_type(), "a list of floats"));
        };
        let offsets = lists.value_offsets();
        let cells = self.float_cells(column, lists.values())?;
        let read = (0..lists.len()).map(|row| {
            if lists.is_null(row) {
                return Ok(None);
            }
            let row_cells = &cells[offsets[row] as usize..offsets[row + 1] as usize];
            let numbers = row_cells.iter().enumerate().map(|(at, cell)| match *cell {
                Cell::Value(value) if value.is_finite() => Ok(value),
                Cell::Value(value) => {
                    Err(self.wrong(row, column, format!("entry {at} is {value}, expected a finite number")))
                }
                Cell::Null => Err(self.wrong(row, column, format!("entry {at} is null, expected a finite number"))),
            });
            numbers.collect::<Result<Vec<f32>, DataError>>().map(Some)
        });
        read.collect()
    }

    /// A column of booleans, nulls allowed.
    pub(super) fn booleans(&self, column: &'static str) -> Result<Vec<Option<bool>>, DataError> {
        let Some(array) = self.batch.column_by_name(column) else { return Ok(vec![None; self.rows()]) };
        let Some(booleans) = array.as_boolean_opt() else {
            return Err(self.wrong_type(column, array.data_type(), "a boolean"));
        };
        Ok(booleans.iter().collect())
    }

    fn float_cells(&self, column: &'static str, array: &ArrayRef) -> Result<Vec<Cell<f32>>, DataError> {
        Ok(match array.data_type() {
            DataType::Float16 => cast::<Float16Type, _>(array, f32::from),
            DataType::Float32 => cast::<Float32Type, _>(array, |value| value),
            DataType::Float64 => cast::<Float64Type, _>(array, |value| value as f32),
            DataType::Int64 => cast::<Int64Type, _>(array, |value| value as f32),
            DataType::Int32 => cast::<Int32Type, _>(array, |value| value as f32),
            DataType::Int16 => cast::<Int16Type, _>(array, f32::from),
            DataType::Int8 => cast::<Int8Type, _>(array, f32::from),
            DataType::UInt8 => cast::<UInt8Type, _>(array, f32::from),
            DataType::Null => vec![Cell::Null; array.len()],
            other => return Err(self.wrong_type(column, other, "a number (float16, float32, float64 or integer)")),
        })
    }

    fn wrong_type(&self, column: &'static str, found: &DataType, expected: &'static str) -> DataError {
        DataError::ColumnType { file: self.file.into(), column, found: found.to_string(), expected }
    }
}

#[derive(Clone, Copy)]
enum Cell<T> {
    Null,
    Value(T),
}

fn cast<T: ArrowPrimitiveType, U>(array: &ArrayRef, convert: impl Fn(T::Native) -> U) -> Vec<Cell<U>> {
    let cells = array.as_primitive::<T>().iter().map(|cell| match cell {
        Some(value) => Cell::Value(convert(value)),
        None => Cell::Null,
    });
    cells.collect()
}
