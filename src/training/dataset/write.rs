//! From a data set to the two Parquet files.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, FixedSizeListBuilder, Float16Builder, Float32Builder, ListBuilder, StringBuilder,
};
use arrow_array::{ArrayRef, Float32Array, Int32Array, Int64Array, RecordBatch, StringArray};
use half::f16;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::{DataError, Dataset, DatasetItem, INTERACTIONS_FILE, ITEMS_FILE, Interaction};
use crate::domain::EventKind;

type Column = (&'static str, ArrayRef);

/// Writes both files; columns that would hold nothing are left out.
pub(super) fn write(dataset: &Dataset, directory: &Path) -> Result<(), DataError> {
    std::fs::create_dir_all(directory).map_err(|source| DataError::io(directory, source))?;
    let item_ids = Ids::of(dataset.items.iter().map(|item| item.item.id.as_str()));
    // The reader numbers users by their ids, so ids that fall would come back in another order.
    let user_ids = Ids::of(dataset.user_ids.iter().map(String::as_str)).if_rising();
    write_table(&directory.join(ITEMS_FILE), item_columns(&dataset.items, &item_ids))?;
    write_table(&directory.join(INTERACTIONS_FILE), interaction_columns(dataset, &user_ids, &item_ids))
}

/// The layout's integer ids of users or items.
struct Ids {
    numbers: Vec<i64>,
    /// Whether the numbers are the ids themselves; else they only count, and the ids need a column of their own.
    plain: bool,
}

impl Ids {
    fn of<'a>(ids: impl ExactSizeIterator<Item = &'a str>) -> Self {
        let count = ids.len() as i64;
        let decimal = |id: &str| id.parse().ok().filter(|number: &i64| number.to_string() == id);
        match ids.map(decimal).collect() {
            Some(numbers) => Self { numbers, plain: true },
            None => Self { numbers: (0..count).collect(), plain: false },
        }
    }

    fn if_rising(self) -> Self {
        if self.numbers.is_sorted() {
            return self;
        }
        Self { numbers: (0..self.numbers.len() as i64).collect(), plain: false }
    }
}

fn item_columns(items: &[DatasetItem], ids: &Ids) -> Vec<Column> {
    let mut columns: Vec<Column> = vec![("item_id", Arc::new(Int64Array::from(ids.numbers.clone())))];
    if !ids.plain {
        columns.push(("external_id", strings(items.iter().map(|item| Some(item.item.id.as_str())))));
    }
    columns.push(("title", strings(items.iter().map(|item| item.item.title.as_deref()))));
    columns.push(("brand", strings(items.iter().map(|item| item.item.brand.as_deref()))));
    let mut categories = ListBuilder::new(StringBuilder::new());
    for item in items {
        categories.append_value(item.item.categories.iter().map(Some));
    }
    columns.push(("categories", Arc::new(categories.finish())));
    columns.push(("price", Arc::new(items.iter().map(|item| item.item.price).collect::<Float32Array>())));
    if items.iter().any(|item| !item.item.eligible) {
        let mut eligible = BooleanBuilder::new();
        items.iter().for_each(|item| eligible.append_value(item.item.eligible));
        columns.push(("eligible", Arc::new(eligible.finish())));
    }
    if items.iter().any(|item| item.text.is_some()) {
        columns.push(("text", strings(items.iter().map(|item| item.text.as_deref()))));
    }
    columns.extend(embedding_column(items));
    columns
}

/// Half floats where every number is one already, else floats.
fn embedding_column(items: &[DatasetItem]) -> Option<Column> {
    let width = items.iter().find_map(|item| item.embedding.as_ref())?.len();
    let all = || items.iter().filter_map(|item| item.embedding.as_deref()).flatten();
    let column: ArrayRef = if all().all(|&value| f16::from_f32(value).to_f32().to_bits() == value.to_bits()) {
        let mut rows = FixedSizeListBuilder::new(Float16Builder::new(), width as i32);
        for item in items {
            match &item.embedding {
                Some(embedding) => embedding.iter().for_each(|&value| rows.values().append_value(f16::from_f32(value))),
                None => rows.values().append_nulls(width),
            }
            rows.append(item.embedding.is_some());
        }
        Arc::new(rows.finish())
    } else {
        let mut rows = FixedSizeListBuilder::new(Float32Builder::new(), width as i32);
        for item in items {
            match &item.embedding {
                Some(embedding) => rows.values().append_slice(embedding),
                None => rows.values().append_nulls(width),
            }
            rows.append(item.embedding.is_some());
        }
        Arc::new(rows.finish())
    };
    Some(("embedding", column))
}

fn interaction_columns(dataset: &Dataset, user_ids: &Ids, item_ids: &Ids) -> Vec<Column> {
    let events = || dataset.sequences.iter().flatten();
    let longs = |numbers: Vec<i64>| -> ArrayRef { Arc::new(Int64Array::from(numbers)) };
    let positions = dataset.sequences.iter().flat_map(|sequence| 0..sequence.len() as i32);
    let mut columns: Vec<Column> = vec![
        ("user_id", longs(events().map(|event| user_ids.numbers[event.user as usize]).collect())),
        ("item_id", longs(events().map(|event| item_ids.numbers[event.item as usize]).collect())),
        ("timestamp", longs(events().map(|event| event.time).collect())),
        ("position", Arc::new(positions.collect::<Int32Array>())),
    ];
    if events().any(|event| event.value.is_some()) {
        columns.push(("rating", Arc::new(events().map(|event| event.value).collect::<Float32Array>())));
    }
    if events().any(|event| event.kind != EventKind::default()) {
        columns.push(("kind", strings(events().map(|event: &Interaction| Some(event.kind.name())))));
    }
    if !user_ids.plain {
        let ids = events().map(|event| Some(dataset.user_ids[event.user as usize].as_str()));
        columns.push(("external_user_id", strings(ids)));
    }
    columns
}

fn strings<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

fn write_table(file: &Path, columns: Vec<Column>) -> Result<(), DataError> {
    let wrong = |error: &dyn std::fmt::Display| DataError::parquet(file, error);
    let batch = RecordBatch::try_from_iter(columns).map_err(|error| wrong(&error))?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let handle = File::create(file).map_err(|source| DataError::io(file, source))?;
    let mut writer = ArrowWriter::try_new(handle, batch.schema(), Some(properties)).map_err(|error| wrong(&error))?;
    writer.write(&batch).map_err(|error| wrong(&error))?;
    writer.close().map_err(|error| wrong(&error))?;
    Ok(())
}
