//! `items.parquet`: one row an item, in the order of the dense item numbers.
//!
//! | column | type | |
//! |---|---|---|
//! | item_id | string | the owner's id, unique |
//! | title, brand | string, may be null | |
//! | price | float32, may be null | finite, not negative |
//! | categories | list of string | coarse to fine |
//! | category | uint32 | class of the category head |
//! | prior | float32 | ln of the smoothed popularity |
//! | eligible | boolean | |
//! | code | fixed-size list of uint16 | M entries, each below D |

use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, FixedSizeListBuilder, Float32Builder, ListBuilder, StringBuilder, UInt16Builder, UInt32Builder,
};
use arrow_array::{
    Array, ArrayRef, BooleanArray, FixedSizeListArray, Float32Array, ListArray, RecordBatch, StringArray, UInt16Array,
    UInt32Array,
};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use sha2::{Digest, Sha256};

use super::BundleError;
use super::manifest::ITEMS_FILE;
use crate::catalog::{CatalogItem, Index, IndexBuilder, Row};
use crate::domain::{CodeShape, CodeTable, Item, breathe_at};

/// The file's own note of [`ids_digest`]; files from before it was written have none.
const IDS_KEY: &str = "item_ids_sha256";

/// Rows that are decoded at a time.
const BATCH_ROWS: usize = 8192;

/// The table as Parquet bytes. `items` and `codes` must be of the same length, one row an item.
pub(super) fn pack(items: &[CatalogItem], codes: &CodeTable) -> Result<Vec<u8>, BundleError> {
    if codes.items() != items.len() {
        return Err(refuse(format!("{} codes for {} items", codes.items(), items.len())));
    }
    let batch = RecordBatch::try_from_iter_with_nullable(columns(items, codes)?).map_err(cannot_write)?;
    let mut digest = IdsDigest::default();
    items.iter().for_each(|row| digest.add(&row.item.id));
    let digest = digest.finish();
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_key_value_metadata(Some(vec![KeyValue::new(IDS_KEY.to_owned(), digest)]))
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).map_err(cannot_write)?;
    writer.write(&batch).map_err(cannot_write)?;
    writer.close().map_err(cannot_write)?;
    Ok(bytes)
}

/// What a table must fit.
pub(super) struct Expected {
    /// Items.
    pub(super) rows: usize,
    /// M and D.
    pub(super) shape: CodeShape,
    /// Names of the classes of the category head.
    pub(super) categories: Vec<String>,
    /// The version of the index.
    pub(super) version: String,
}

/// Reads the table into an index, batch after batch.
pub(super) fn read(bytes: Vec<u8>, expected: Expected) -> Result<Index, BundleError> {
    let Expected { rows, shape, categories, version } = expected;
    let broken = |error| refuse(format!("not a Parquet file: {error}"));
    let builder = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).map_err(broken)?;
    let noted = builder.metadata().file_metadata().key_value_metadata();
    let digest = noted.and_then(|all| all.iter().find(|pair| pair.key == IDS_KEY)?.value.clone());
    let reader = builder.with_batch_size(BATCH_ROWS).build().map_err(broken)?;
    let wrong_code = |reason: String| refuse(format!("code: {reason}"));
    let mut codes = CodeTable::empty(shape).map_err(wrong_code)?;
    let (mut items, mut ids) = (IndexBuilder::new(categories), IdsDigest::default());
    for batch in reader {
        let batch = batch.map_err(|error| refuse(format!("cannot be decoded: {error}")))?;
        if items.len() + batch.num_rows() > rows {
            return Err(refuse(format!("more rows than the {rows} that the manifest says")));
        }
        read_items(&batch, &mut items, &mut ids)?;
        let entries = read_codes(&batch, shape)?;
        codes.extend(&entries).map_err(wrong_code)?;
    }
    if items.len() != rows {
        return Err(refuse(format!("{} rows, the manifest says {rows}", items.len())));
    }
    // Other files name items by id: ids that changed are this file's fault, not theirs.
    if digest.is_some_and(|digest| digest != ids.finish()) {
        return Err(refuse("item_id: other ids than the file was written with"));
    }
    items.finish(codes, version).map_err(|error| refuse(error.to_string()))
}

/// sha256 of all ids in order, each after its length.
#[derive(Default)]
struct IdsDigest(Sha256);

impl IdsDigest {
    fn add(&mut self, id: &str) {
        self.0.update((id.len() as u64).to_le_bytes());
        self.0.update(id.as_bytes());
    }

    fn finish(self) -> String {
        format!("{:x}", self.0.finalize())
    }
}

fn columns(items: &[CatalogItem], codes: &CodeTable) -> Result<Vec<(&'static str, ArrayRef, bool)>, BundleError> {
    let texts = |text: fn(&Item) -> Option<&str>| -> ArrayRef {
        let mut column = StringBuilder::new();
        items.iter().for_each(|row| column.append_option(text(&row.item)));
        Arc::new(column.finish())
    };
    let mut prices = Float32Builder::new();
    let mut paths = ListBuilder::new(StringBuilder::new());
    let mut categories = UInt32Builder::new();
    let mut priors = Float32Builder::new();
    let mut eligible = BooleanBuilder::new();
    let width = i32::try_from(codes.shape().codebooks).map_err(|_| refuse("code: too many codebooks"))?;
    let mut code_rows = FixedSizeListBuilder::new(UInt16Builder::new(), width);
    for (row, code) in items.iter().zip(codes.entries().chunks(codes.shape().codebooks)) {
        prices.append_option(row.item.price);
        row.item.categories.iter().for_each(|name| paths.values().append_value(name));
        paths.append(true);
        categories.append_value(row.category);
        priors.append_value(row.prior);
        eligible.append_value(row.item.eligible);
        code_rows.values().append_slice(code);
        code_rows.append(true);
    }
    Ok(vec![
        ("item_id", texts(|item| Some(&item.id)), false),
        ("title", texts(|item| item.title.as_deref()), true),
        ("brand", texts(|item| item.brand.as_deref()), true),
        ("price", Arc::new(prices.finish()), true),
        ("categories", Arc::new(paths.finish()), false),
        ("category", Arc::new(categories.finish()), false),
        ("prior", Arc::new(priors.finish()), false),
        ("eligible", Arc::new(eligible.finish()), false),
        ("code", Arc::new(code_rows.finish()), false),
    ])
}

fn read_items(batch: &RecordBatch, items: &mut IndexBuilder, digest: &mut IdsDigest) -> Result<(), BundleError> {
    let ids: &StringArray = required(batch, "item_id", "string")?;
    let titles: &StringArray = column(batch, "title", "string")?;
    let brands: &StringArray = column(batch, "brand", "string")?;
    let prices: &Float32Array = column(batch, "price", "float32")?;
    let paths: &ListArray = required(batch, "categories", "list of string")?;
    let categories: &UInt32Array = required(batch, "category", "uint32")?;
    let priors: &Float32Array = required(batch, "prior", "float32")?;
    let eligible: &BooleanArray = required(batch, "eligible", "boolean")?;
    let names = paths.values().as_any().downcast_ref::<StringArray>();
    let names = names.ok_or_else(|| refuse("column categories: expected a list of string"))?;
    for at in 0..batch.num_rows() {
        breathe_at(at);
        let row = Row {
            id: ids.value(at),
            title: titles.is_valid(at).then(|| titles.value(at)),
            brand: brands.is_valid(at).then(|| brands.value(at)),
            price: prices.is_valid(at).then(|| prices.value(at)),
            eligible: eligible.value(at),
            category: categories.value(at),
            prior: priors.value(at),
        };
        let path = paths.value_offsets()[at] as usize..paths.value_offsets()[at + 1] as usize;
        if path.clone().any(|name| names.is_null(name)) {
            return Err(refuse("column categories: expected a list of string without nulls"));
        }
        digest.add(row.id);
        items.push(&row, path.map(|name| names.value(name))).map_err(|error| refuse(error.to_string()))?;
    }
    Ok(())
}

/// The entries of a batch's codes, row after row.
fn read_codes(batch: &RecordBatch, shape: CodeShape) -> Result<Vec<u16>, BundleError> {
    let rows: &FixedSizeListArray = required(batch, "code", "fixed-size list of uint16")?;
    if usize::try_from(rows.value_length()).ok() != Some(shape.codebooks) {
        return Err(refuse(format!(
            "column code: {} entries an item, the manifest says {}",
            rows.value_length(),
            shape.codebooks
        )));
    }
    let mut entries = Vec::with_capacity(rows.len() * shape.codebooks);
    for row in 0..rows.len() {
        let code = rows.value(row);
        let code = code
            .as_any()
            .downcast_ref::<UInt16Array>()
            .filter(|code| code.null_count() == 0)
            .ok_or_else(|| refuse("column code: expected a fixed-size list of uint16 without nulls"))?;
        entries.extend_from_slice(code.values());
    }
    Ok(entries)
}

/// A column that may hold nulls.
fn column<'a, T: Array + 'static>(batch: &'a RecordBatch, name: &str, wanted: &str) -> Result<&'a T, BundleError> {
    let found = batch.column_by_name(name).ok_or_else(|| refuse(format!("column {name} is missing")))?;
    let typed = found.as_any().downcast_ref::<T>();
    typed.ok_or_else(|| refuse(format!("column {name}: {}, expected {wanted}", found.data_type())))
}

/// A column that holds no nulls.
fn required<'a, T: Array + 'static>(batch: &'a RecordBatch, name: &str, wanted: &str) -> Result<&'a T, BundleError> {
    let typed: &T = column(batch, name, wanted)?;
    match typed.null_count() {
        0 => Ok(typed),
        nulls => Err(refuse(format!("column {name}: {nulls} nulls, expected none"))),
    }
}

fn cannot_write(error: impl std::fmt::Display) -> BundleError {
    refuse(format!("cannot be written: {error}"))
}

fn refuse(reason: impl Into<String>) -> BundleError {
    BundleError::new(ITEMS_FILE, reason)
}
