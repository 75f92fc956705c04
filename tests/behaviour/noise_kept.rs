//! Noise in what is kept: the items of bundles, the catalogue's log, and items that a running server is told of. See
//! [`crate::noise`] for how to run it for long.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::{FixedSizeListBuilder, ListBuilder, StringBuilder, UInt16Builder};
use arrow_array::{
    ArrayRef, BooleanArray, Float32Array, Int64Array, RecordBatch, StringArray, UInt32Array, new_null_array,
};
use parquet::arrow::ArrowWriter;
use prometheus::Registry;
use proptest::prelude::*;
use tonic::Code;

use reg4rec::artifact;
use reg4rec::catalog::{ChangeLog, Entry, Word};
use reg4rec::domain::{DescribedItem, Item};
use reg4rec::history::{HistoryConfig, MemoryStore, load_table};
use reg4rec::training::dataset::read_items;
use reg4rec::wire::client::CatalogServiceClient;
use reg4rec::wire::v1;

use crate::bundle::{self, DEMO};
use crate::fake::{Client, page_at};
use crate::noise::{feed, noisy};
use crate::operated::{channel, request};
use crate::process::Process;

const ITEMS: usize = 300;

/// Writes a bundle; where its files are in memory, if there is such a place.
fn written() -> (tempfile::TempDir, PathBuf) {
    let memory = Path::new("/dev/shm");
    let home = tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()).unwrap();
    let dir = home.path().join("tiny");
    bundle::write(&dir, 0.0);
    (home, dir)
}

/// What a column of a table is like.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Sound,
    Missing,
    Null,
    Other,
    Extreme,
}

/// A column of the table of items in a mood; an extreme one holds one value that is no good at `at`.
fn column(name: &str, mood: Mood, at: usize, code_width: i32) -> Option<ArrayRef> {
    let extreme = |row: usize| mood == Mood::Extreme && row == at;
    let texts =
        |text: &dyn Fn(usize) -> String| Arc::new(StringArray::from_iter_values((0..ITEMS).map(text))) as ArrayRef;
    let numbers =
        |number: &dyn Fn(usize) -> f32| Arc::new(Float32Array::from_iter_values((0..ITEMS).map(number))) as ArrayRef;
    let sound: ArrayRef = match name {
        "item_id" => texts(&|row| if extreme(row) { "item-0".repeat(row % 50) } else { format!("item-{row}") }),
        "title" | "brand" => texts(&|row| if extreme(row) { "\u{1F3A9}".repeat(5000) } else { format!("Thing {row}") }),
        "price" => numbers(&|row| if extreme(row) { f32::NEG_INFINITY } else { row as f32 }),
        "prior" => numbers(&|row| if extreme(row) { f32::NAN } else { -(row as f32) }),
        "category" => Arc::new(UInt32Array::from_iter_values(
            (0..ITEMS).map(|row| if extreme(row) { u32::MAX } else { row as u32 % 3 }),
        )),
        "eligible" => Arc::new(BooleanArray::from_iter((0..ITEMS).map(|row| Some(!extreme(row))))),
        "categories" => {
            let mut paths = ListBuilder::new(StringBuilder::new());
            for row in 0..ITEMS {
                let depth = if extreme(row) { 1000 } else { row % 3 };
                (0..depth).for_each(|level| paths.values().append_value(format!("level {level}")));
                paths.append(true);
            }
            Arc::new(paths.finish())
        }
        _ => {
            let mut codes = FixedSizeListBuilder::new(UInt16Builder::new(), code_width);
            for row in 0..ITEMS {
                for place in 0..code_width as usize {
                    codes.values().append_value(if extreme(row) {
                        u16::MAX
                    } else {
                        ((row >> (3 * place)) % 8) as u16
                    });
                }
                codes.append(true);
            }
            Arc::new(codes.finish())
        }
    };
    match mood {
        Mood::Missing => None,
        Mood::Null => Some(new_null_array(sound.data_type(), ITEMS)),
        Mood::Other => Some(Arc::new(Int64Array::from(vec![7; ITEMS]))),
        Mood::Sound | Mood::Extreme => Some(sound),
    }
}

const COLUMNS: [&str; 9] =
    ["item_id", "title", "brand", "price", "categories", "category", "prior", "eligible", "code"];

/// A Parquet file of the items whose columns are in these moods.
fn table(moods: &[Mood], at: usize, code_width: i32) -> Option<Vec<u8>> {
    let columns = COLUMNS.iter().zip(moods);
    let columns = columns.filter_map(|(&name, &mood)| Some((name, column(name, mood, at, code_width)?, true)));
    // Without any column there is no table.
    let batch = RecordBatch::try_from_iter_with_nullable(columns).ok()?;
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    Some(bytes)
}

#[test]
fn noise_in_the_items_of_a_bundle_that_fits_its_seal_is_refused_by_file_or_is_items() {
    let (_home, dir) = written();
    let sound = std::fs::read(dir.join("items.parquet")).unwrap();
    assert!(artifact::load(&dir).is_ok());
    feed("bytes of items.parquet", 300, &noisy(sound), |bytes| {
        bundle::replace(&dir, "items.parquet", &bytes);
        if let Err(error) = artifact::load(&dir) {
            prop_assert!(["items.parquet", "golden.json"].contains(&error.file.as_str()), "{error}");
        }
        Ok(())
    });
}

#[test]
fn columns_of_items_that_are_not_what_they_should_be_are_refused_by_file() {
    let (_home, dir) = written();
    let mood = prop_oneof![
        12 => Just(Mood::Sound),
        1 => Just(Mood::Missing),
        1 => Just(Mood::Null),
        1 => Just(Mood::Other),
        2 => Just(Mood::Extreme)
    ];
    let width = prop_oneof![8 => Just(4), 1 => 1..6];
    let inputs = (prop::collection::vec(mood, COLUMNS.len()), 0..ITEMS, width);
    feed("columns of items.parquet", 200, &inputs, |(moods, at, width)| {
        let Some(bytes) = table(&moods, at, width) else { return Ok(()) };
        bundle::replace(&dir, "items.parquet", &bytes);
        let told = artifact::load(&dir).map(|_| ()).map_err(|error| error.file);
        let essential =
            [0, 4, 5, 6, 7, 8].iter().any(|&at| matches!(moods[at], Mood::Missing | Mood::Null | Mood::Other));
        let broken = essential || width != 4 || [5, 6, 8].iter().any(|&at| moods[at] == Mood::Extreme);
        prop_assert!(!broken || told.is_err(), "taken with {moods:?}, {at}, {width}");
        if let Err(file) = told {
            prop_assert!(["items.parquet", "golden.json"].contains(&file.as_str()), "{file}");
        }
        Ok(())
    });
}

/// A table that people bring: the items of a data set, whose ids are numbers, or events that fill the histories.
#[derive(Debug, Clone, Copy)]
enum Brought {
    Items,
    Events,
}

impl Brought {
    fn sound(self) -> Vec<u8> {
        let texts = |name: &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values((0..9).map(|row| format!("{name}-{row}"))))
        };
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..9));
        let values: ArrayRef =
            Arc::new(Float32Array::from_iter((0..9_u8).map(|row| (row > 3).then_some(f32::from(row)))));
        let columns = match self {
            Brought::Items => vec![("item_id", numbers), ("title", texts("title")), ("price", values)],
            Brought::Events => {
                vec![("item_id", texts("item")), ("user_id", texts("user")), ("time", numbers), ("value", values)]
            }
        };
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        bytes
    }

    fn read(self, file: &Path, store: &MemoryStore, runtime: &tokio::runtime::Handle) -> Result<(), String> {
        match self {
            Brought::Items => read_items(file).map(drop).map_err(|error| error.to_string()),
            Brought::Events => {
                load_table(file, store, runtime, &|_| false).map(drop).map_err(|error| error.to_string())
            }
        }
    }
}

fn memory() -> MemoryStore {
    let config = HistoryConfig { max_events: 8, max_users: 64, ..HistoryConfig::default() };
    MemoryStore::new(&config, &Registry::new()).unwrap()
}

#[test]
fn any_byte_of_a_table_may_be_wrong_and_its_reader_says_so() {
    let (home, _) = written();
    let (file, store) = (home.path().join("brought.parquet"), memory());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for kind in [Brought::Items, Brought::Events] {
        let sound = kind.sound();
        std::fs::write(&file, &sound).unwrap();
        assert_eq!(kind.read(&file, &store, runtime.handle()), Ok(()), "{kind:?}");
        // The library behind the readers panics over some of these.
        for at in 0..sound.len() {
            for change in [0x01, 0x80, 0xFF] {
                let mut bytes = sound.clone();
                bytes[at] ^= change;
                std::fs::write(&file, &bytes).unwrap();
                if let Err(error) = kind.read(&file, &store, runtime.handle()) {
                    assert!(error.contains("brought.parquet"), "{kind:?}, byte {at} ^ {change}: {error}");
                }
            }
        }
    }
}

#[test]
fn noise_in_tables_that_people_bring_is_refused_by_file_or_is_a_table() {
    let (home, _) = written();
    let (file, store) = (home.path().join("brought.parquet"), memory());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let noise = |kind: Brought| noisy(kind.sound()).prop_map(move |bytes| (kind, bytes));
    let inputs = prop_oneof![noise(Brought::Items), noise(Brought::Events)];
    feed("tables that people bring", 500, &inputs, |(kind, bytes)| {
        std::fs::write(&file, &bytes).unwrap();
        if let Err(error) = kind.read(&file, &store, runtime.handle()) {
            prop_assert!(error.contains("brought.parquet"), "{kind:?}: {error}");
        }
        Ok(())
    });
}

#[test]
fn noise_in_the_catalogues_log_is_damage_or_the_end_of_a_write() {
    let (home, _) = written();
    let log = home.path().join("log");
    let described = |at: usize| DescribedItem {
        item: Item {
            id: format!("item-{at}"),
            title: Some("A hat".into()),
            brand: None,
            categories: vec!["Shop".into()],
            price: Some(1.0),
            eligible: true,
        },
        text: Some("of felt".into()),
        embedding: Some(vec![0.5; 3]),
    };
    let entry = |word| Entry { changed_ms: 1_700_000_000_000, described_ms: None, word };
    let (mut open, _) = ChangeLog::open(&log).unwrap();
    let said = [entry(Word::Item(Box::new(described(0)))), entry(Word::Eligible(false)), entry(Word::Removed)];
    open.append([("item-0", &said[0]), ("item-1", &said[1]), ("item-2", &said[2])]).unwrap();
    drop(open);
    let file = log.join("items.log");
    let sound = std::fs::read(&file).unwrap();
    feed("the catalogue's log", 1000, &noisy(sound), |bytes| {
        std::fs::write(&file, &bytes).unwrap();
        match ChangeLog::open(&log) {
            Ok((mut open, entries)) => {
                // What it took for a log can be written and read again.
                prop_assert!(open.append([("item-9", &said[1])]).is_ok());
                drop(open);
                let (_, again) = ChangeLog::open(&log).unwrap();
                prop_assert_eq!(again.len(), entries.len() + usize::from(!entries.contains_key("item-9")));
            }
            Err(error) => prop_assert!(error.to_string().contains("items.log"), "{}", error),
        }
        Ok(())
    });
}

/// Words that may be said of an item.
fn items() -> impl Strategy<Value = Vec<v1::CatalogItem>> {
    let text = prop_oneof![Just(String::new()), "[a-z ]{0,30}", "\\PC{0,60}", Just("a".repeat(1500))];
    let number = prop_oneof![Just(0.0_f32), any::<f32>(), Just(f32::MAX), Just(1e-40)];
    let words = (text.clone(), text.clone(), prop::collection::vec(text.clone(), 0..6), text);
    let more =
        (prop::option::of(number.clone()), prop::option::of(any::<bool>()), prop::collection::vec(number, 0..40));
    let item =
        (0..40_usize, words, more).prop_map(|(at, (title, brand, categories, text), (price, eligible, embedding))| {
            v1::CatalogItem {
                item_id: if at == 0 { "\u{0}".into() } else { format!("noise-{at}").into() },
                title: title.into(),
                brand: brand.into(),
                categories: categories.into_iter().map(Into::into).collect(),
                price,
                eligible,
                text: text.into(),
                embedding,
            }
        });
    prop::collection::vec(item, 0..4)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_server_is_told_of_items_it_takes_or_refuses_by_name_and_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let demo = Path::new(DEMO);
    let log = home.path().join("catalogue");
    let process = tokio::task::spawn_blocking(move || {
        Process::start_with(demo, |command| {
            command.env("REG4REC__CATALOGUE__PATH", log);
        })
    });
    let process = process.await.unwrap();
    let to = channel(&process.public).await;
    let runtime = tokio::runtime::Handle::current();
    let keeper = CatalogServiceClient::new(to.clone());
    let fed = tokio::task::spawn_blocking(move || {
        feed("items told to a server", 40, &items(), |items| {
            let ids: Vec<Vec<u8>> = items.iter().map(|item| item.item_id.to_vec()).collect();
            let told = runtime.block_on(keeper.clone().upsert_items(v1::UpsertItemsRequest { items }));
            let told = told.map(|_| ()).map_err(|status| status.code());
            prop_assert!(matches!(told, Ok(()) | Err(Code::InvalidArgument)), "{told:?}");
            if told.is_ok() {
                let gone = runtime.block_on(keeper.clone().remove_items(v1::RemoveItemsRequest { item_ids: ids }));
                prop_assert!(gone.is_ok(), "{gone:?}");
            }
            Ok(())
        });
    });
    fed.await.unwrap();
    let status = Client::new(to).recommend(request("")).await;
    assert!(status.is_ok(), "{status:?}");
    let (_, page) = page_at(process.admin(), "/metrics").await;
    assert!(page.contains("reg4rec_non_finite_scores_total 0"), "scores that are no numbers");
}
