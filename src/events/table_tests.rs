//! Tables beside closed segments: what they hold, when they are made, and that they forget.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int64Type};
use arrow_array::{Array, RecordBatch};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::exposure_tests::exposure;
use super::tests::{config, event, open, open_with, record};
use super::{EventsConfig, Record, read_records};

/// Tables are written, of segments of a few dozen events.
fn tabled(path: &Path) -> EventsConfig {
    EventsConfig { parquet: true, segment_bytes: 4096, ..config(path) }
}

fn named(path: &Path, extension: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|file| file.extension().is_some_and(|found| found == extension)).collect();
    files.sort();
    files
}

fn rows(table: &Path) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(table).unwrap()).unwrap().build().unwrap();
    let batches: Vec<RecordBatch> = reader.map(|batch| batch.unwrap()).collect();
    assert_eq!(batches.len(), 1, "{}", table.display());
    batches.into_iter().next().unwrap()
}

fn users(path: &Path) -> Vec<String> {
    let tables = named(path, "parquet");
    let column = |table: &PathBuf| {
        let rows = rows(table);
        let users = rows["user_id"].as_string::<i32>();
        (0..users.len()).map(|row| users.value(row).to_owned()).collect::<Vec<_>>()
    };
    tables.iter().flat_map(column).collect()
}

#[tokio::test]
async fn a_closed_segment_is_a_table_of_its_records_and_the_active_one_is_none() {
    let home = tempfile::tempdir().unwrap();
    let (log, _, _) = open_with(&tabled(home.path()));
    let mut rated = event("ü", "second", "");
    (rated.event.value, rated.request_id) = (Some(4.5), "r0".into());
    record(&log, &[event("a", "first", "e1"), rated]).await;
    log.expose(exposure("v", "r1"), 3_000);
    for at in 0..400 {
        record(&log, &[event("a", "more", &format!("m{at}"))]).await;
    }
    drop(log);
    let (segments, tables) = (named(home.path(), "events"), named(home.path(), "parquet"));
    assert!(tables.len() > 1 && segments.len() == tables.len() + 1, "{segments:?} {tables:?}");
    assert!(named(home.path(), "draft").is_empty());
    let mut all = Vec::new();
    read_records(home.path(), &mut |record| all.push(record)).unwrap();
    let mut at = 0;
    for table in &tables {
        let rows = rows(table);
        let places = rows["sequence"].as_primitive::<Int64Type>();
        for row in 0..rows.num_rows() {
            assert_eq!(places.value(row), all[at].sequence() as i64);
            at += 1;
        }
    }
    assert!(at < all.len() && at > 50, "{at} of {}", all.len());
    let first = rows(&tables[0]);
    let text = |column: &str, row: usize| {
        let column = first[column].as_string::<i32>();
        column.is_valid(row).then(|| column.value(row).to_owned())
    };
    let whole = |row| {
        [text("user_id", row), text("kind", row), text("item_id", row), text("event_id", row), text("request_id", row)]
    };
    let some = |texts: [&str; 5]| texts.map(|text| (!text.is_empty()).then(|| text.to_owned()));
    assert_eq!(whole(0), some(["a", "click", "first", "e1", ""]));
    assert_eq!(whole(1), some(["ü", "click", "second", "", "r0"]));
    assert_eq!(first["value"].as_primitive::<Float32Type>().value(1), 4.5);
    assert_eq!(first["time"].as_primitive::<Int64Type>().value(1), 5);
    let shown = all.iter().position(|record| matches!(record, Record::Exposure(_))).unwrap();
    assert_eq!(whole(shown), some(["v", "exposure", "", "", "r1"]));
    let list = |column: &str| {
        let list = first[column].as_list::<i32>().value(shown);
        let list = list.as_string::<i32>();
        (0..list.len()).map(|at| list.value(at).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        (list("item_ids"), list("arms")),
        (vec!["i1".into(), "ü".into()], vec!["search=exact".into(), "other=control".into()])
    );
    assert!(first["item_ids"].is_null(0) && first["variant"].is_null(0));
}

#[tokio::test]
async fn a_forgotten_user_is_in_no_table_and_tables_that_are_missing_are_made_at_the_next_opening() {
    let home = tempfile::tempdir().unwrap();
    let (log, _, _) = open_with(&tabled(home.path()));
    for at in 0..150 {
        record(&log, &[event(["stays", "leaves", "also"][at % 3], "item", &format!("e{at}"))]).await;
    }
    let before = users(home.path()).len();
    assert!(users(home.path()).contains(&"leaves".to_owned()));
    log.forget("leaves".into()).await.unwrap();
    assert!(!users(home.path()).contains(&"leaves".to_owned()), "forgotten, but for a table");
    drop(log);
    // The active segment was closed for it, so that all that is left is in a table.
    let after = users(home.path());
    assert_eq!(after.len(), 100, "{before} before");

    // A crash between a segment and its table leaves none: made anew. Without the setting nothing is made.
    let tables = named(home.path(), "parquet");
    fs::remove_file(&tables[0]).unwrap();
    fs::write(home.path().join("00000000000000000001.parquet.draft"), "half").unwrap();
    drop(open(home.path()));
    assert_eq!(named(home.path(), "parquet").len(), tables.len() - 1);
    assert!(named(home.path(), "draft").is_empty());
    drop(open_with(&tabled(home.path())));
    assert_eq!(named(home.path(), "parquet"), tables);
    assert_eq!(users(home.path()), after);

    // A table from when the setting was on forgets too.
    let (log, _, _) = open(home.path());
    log.forget("also".into()).await.unwrap();
    drop(log);
    assert!(!users(home.path()).contains(&"also".to_owned()));
}

#[tokio::test]
async fn a_table_goes_with_its_segment() {
    let home = tempfile::tempdir().unwrap();
    let (log, _, _) = open_with(&tabled(home.path()));
    for at in 0..400 {
        record(&log, &[event("a", "item", &format!("e{at}"))]).await; // in 1970
    }
    drop(log);
    assert!(named(home.path(), "parquet").len() > 1);
    drop(open_with(&EventsConfig { keep_days: 1, ..tabled(home.path()) }));
    assert_eq!((named(home.path(), "parquet").len(), named(home.path(), "events").len()), (0, 1));
}
