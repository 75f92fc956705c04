//! A closed segment as a Parquet file beside it, for tools that read tables.
//!
//! | column | type | |
//! |---|---|---|
//! | sequence | int64 | place in the log |
//! | arrived | timestamp, ms, UTC | |
//! | kind | string | view, click, cart, purchase, hide, rating; exposure |
//! | user_id, request_id | string | request_id may be null |
//! | item_id, time, value, event_id | string, int64 (Unix seconds), float32, string | null for exposures |
//! | variant, bundle_version, item_ids, arms | string, string, list of string, list of string (EXPERIMENT=ARM) | null for events |
//!
//! The table is made of the segment and never read here: it goes before the segment changes and is made anew after.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::{Float32Builder, Int64Builder, ListBuilder, StringBuilder, TimestampMillisecondBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::record::{Exposed, Logged, Record};
use super::segment::{DRAFT, Segment, SegmentError, io_error, sync_directory};

/// How tables are called: as their segment, with another ending.
const EXTENSION: &str = "parquet";
/// Rows that are encoded together.
const ROWS: usize = 65_536;
/// The kind of an exposure, which is no event.
const EXPOSURE: &str = "exposure";

/// Where the table of a segment is.
pub(super) fn path(segment: &Path) -> PathBuf {
    segment.with_extension(EXTENSION)
}

/// Removes the table of a segment, if there is one; durable when this returns.
pub(super) fn remove(segment: &Path) -> io::Result<()> {
    match fs::remove_file(path(segment)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => segment.parent().map_or(Ok(()), sync_directory),
    }
}

/// Writes the table of a closed segment, whole or not at all.
pub(super) fn write(segment: &Path) -> Result<(), SegmentError> {
    let table = path(segment);
    let draft = segment.with_extension(format!("{EXTENSION}.{DRAFT}"));
    let failed = |error: &dyn std::fmt::Display| io_error(&draft)(io::Error::other(error.to_string()));
    let mut columns = Columns::default();
    let first = columns.batch().map_err(|error| failed(&error))?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let file = File::create(&draft).map_err(io_error(&draft))?;
    let mut writer = ArrowWriter::try_new(file, first.schema(), Some(properties)).map_err(|error| failed(&error))?;
    let mut outcome: Result<(), ParquetError> = Ok(());
    Segment::scan(segment, false, &mut |record| {
        columns.add(&record);
        if columns.rows == ROWS && outcome.is_ok() {
            outcome = columns.batch().map_err(Into::into).and_then(|batch| writer.write(&batch));
        }
    })?;
    outcome.map_err(|error| failed(&error))?;
    let last = columns.batch().map_err(|error| failed(&error))?;
    writer.write(&last).map_err(|error| failed(&error))?;
    let file = writer.into_inner().map_err(|error| failed(&error))?;
    let named = file.sync_all().and_then(|()| fs::rename(&draft, &table));
    named.and_then(|()| table.parent().map_or(Ok(()), sync_directory)).map_err(io_error(&table))
}

/// The columns while they are filled.
#[derive(Default)]
struct Columns {
    rows: usize,
    sequence: Int64Builder,
    arrived: TimestampMillisecondBuilder,
    kind: StringBuilder,
    user_id: StringBuilder,
    request_id: StringBuilder,
    item_id: StringBuilder,
    time: Int64Builder,
    value: Float32Builder,
    event_id: StringBuilder,
    variant: StringBuilder,
    bundle_version: StringBuilder,
    item_ids: ListBuilder<StringBuilder>,
    arms: ListBuilder<StringBuilder>,
}

/// What is empty in the log is null in a table.
fn text(value: &str) -> Option<&str> {
    (!value.is_empty()).then_some(value)
}

impl Columns {
    fn add(&mut self, record: &Record) {
        self.rows += 1;
        self.sequence.append_value(i64::try_from(record.sequence()).unwrap_or(i64::MAX));
        self.arrived.append_value(record.arrived_ms());
        self.user_id.append_value(record.user_id());
        match record {
            Record::Event(logged) => self.event(logged),
            Record::Exposure(exposed) => self.exposure(exposed),
        }
    }

    fn event(&mut self, logged: &Logged) {
        let event = &logged.event;
        self.kind.append_value(event.event.kind.name());
        self.request_id.append_option(text(&event.request_id));
        self.item_id.append_value(&event.event.item_id);
        self.time.append_value(event.event.time);
        self.value.append_option(event.event.value);
        self.event_id.append_option(text(&event.event_id));
        self.variant.append_null();
        self.bundle_version.append_null();
        self.item_ids.append_null();
        self.arms.append_null();
    }

    fn exposure(&mut self, exposed: &Exposed) {
        let exposure = &exposed.exposure;
        self.kind.append_value(EXPOSURE);
        self.request_id.append_option(text(&exposure.request_id));
        self.item_id.append_null();
        self.time.append_null();
        self.value.append_null();
        self.event_id.append_null();
        self.variant.append_value(&exposure.variant);
        self.bundle_version.append_value(&exposure.bundle_version);
        exposure.item_ids.iter().for_each(|id| self.item_ids.values().append_value(id));
        self.item_ids.append(true);
        for shown in &exposure.arms {
            let arm = shown.design.arms.get(shown.arm).map_or("", String::as_str);
            self.arms.values().append_value(format!("{}={arm}", shown.design.experiment));
        }
        self.arms.append(true);
    }

    /// What was added since the last batch.
    fn batch(&mut self) -> Result<RecordBatch, arrow_schema::ArrowError> {
        self.rows = 0;
        let arrived = self.arrived.finish().with_timezone("UTC");
        let columns: Vec<(&str, ArrayRef, bool)> = vec![
            ("sequence", Arc::new(self.sequence.finish()), false),
            ("arrived", Arc::new(arrived), false),
            ("kind", Arc::new(self.kind.finish()), false),
            ("user_id", Arc::new(self.user_id.finish()), false),
            ("request_id", Arc::new(self.request_id.finish()), true),
            ("item_id", Arc::new(self.item_id.finish()), true),
            ("time", Arc::new(self.time.finish()), true),
            ("value", Arc::new(self.value.finish()), true),
            ("event_id", Arc::new(self.event_id.finish()), true),
            ("variant", Arc::new(self.variant.finish()), true),
            ("bundle_version", Arc::new(self.bundle_version.finish()), true),
            ("item_ids", Arc::new(self.item_ids.finish()), true),
            ("arms", Arc::new(self.arms.finish()), true),
        ];
        RecordBatch::try_from_iter_with_nullable(columns)
    }
}
