//! The layout, read as other programs write it, with everything that can be wrong about it.

use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{FixedSizeListBuilder, Float16Builder, Float64Builder, ListBuilder, StringBuilder};
use arrow_array::{
    ArrayRef, DictionaryArray, Float32Array, Float64Array, Int32Array, Int64Array, LargeStringArray, RecordBatch,
    StringArray, types::Int32Type,
};
use half::f16;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::evaluation::HISTORY_LIMIT;

type Columns = Vec<(&'static str, ArrayRef)>;

fn longs(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn ints(values: &[i32]) -> ArrayRef {
    Arc::new(Int32Array::from(values.to_vec()))
}

fn texts(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn store(file: &Path, columns: Columns, row_group: usize) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(row_group)).build();
    let handle = std::fs::File::create(file).unwrap();
    let mut writer = ArrowWriter::try_new(handle, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// Users 5 and 9, items 30, 10, 20; rows neither sorted nor in one row group.
fn events() -> Columns {
    vec![
        ("user_id", longs(&[9, 5, 9, 5, 9])),
        ("item_id", longs(&[10, 20, 30, 30, 20])),
        ("timestamp", longs(&[700, 100, 800, 90, 900])),
        ("position", ints(&[0, 1, 1, 0, 2])),
    ]
}

fn items() -> Columns {
    vec![("item_id", longs(&[30, 10, 20])), ("title", texts(&[Some("Soap"), None, Some(" ")]))]
}

fn set(columns: &mut Columns, name: &'static str, values: ArrayRef) {
    columns.retain(|(column, _)| *column != name);
    columns.push((name, values));
}

fn read_back(events: Columns, items: Columns) -> Result<Dataset, DataError> {
    let directory = TempDir::new().unwrap();
    store(&directory.path().join(INTERACTIONS_FILE), events, 2);
    store(&directory.path().join(ITEMS_FILE), items, 2);
    Dataset::read(directory.path())
}

fn refusal(events: Columns, items: Columns) -> String {
    let message = read_back(events, items).unwrap_err().to_string();
    message[message.rfind('/').unwrap() + 1..].to_owned()
}

#[test]
fn rows_in_any_order_are_grouped_by_user_and_ordered_by_position() {
    let data = read_back(events(), items()).unwrap();
    assert_eq!(data.user_ids, ["5", "9"]);
    assert_eq!(data.items.iter().map(|item| item.item.id.as_str()).collect::<Vec<_>>(), ["30", "10", "20"]);
    let places: Vec<Vec<u32>> =
        data.sequences.iter().map(|sequence| sequence.iter().map(|event| event.item).collect()).collect();
    assert_eq!(places, [vec![0, 2], vec![1, 0, 2]]);
    assert_eq!(data.sequences[1].iter().map(|event| event.time).collect::<Vec<_>>(), [700, 800, 900]);
    assert!(data.sequences[1].iter().all(|event| event.user == 1 && event.kind == EventKind::View));
    assert!(data.has_times);
    assert_eq!(data.items[0].item.title.as_deref(), Some("Soap"));
    assert_eq!(data.items[2].item.title, None, "blanks say nothing");
    assert!(data.items.iter().all(|item| item.item.eligible && item.text.is_none() && item.embedding.is_none()));
}

#[test]
fn equal_data_has_an_equal_fingerprint_however_it_is_packed() {
    let data = read_back(events(), items()).unwrap();
    let directory = TempDir::new().unwrap();
    data.write(directory.path()).unwrap();
    assert_eq!(Dataset::read(directory.path()).unwrap().fingerprint, data.fingerprint);
    assert_eq!(data.fingerprint.len(), 64);

    let mut later = events();
    set(&mut later, "timestamp", longs(&[700, 100, 800, 90, 901]));
    assert_ne!(read_back(later, items()).unwrap().fingerprint, data.fingerprint);
}

#[test]
fn times_that_only_count_are_order_and_no_times() {
    let mut order = events();
    set(&mut order, "timestamp", longs(&[0, 1, 1, 0, 2]));
    assert!(!read_back(order, items()).unwrap().has_times);
}

#[test]
fn the_types_that_other_programs_write_are_taken() {
    let mut events = events();
    set(&mut events, "user_id", ints(&[9, 5, 9, 5, 9]));
    set(&mut events, "position", longs(&[0, 1, 1, 0, 2]));
    set(&mut events, "rating", Arc::new(Float64Array::from(vec![Some(4.5), None, Some(1.0), None, None])));
    let kinds: DictionaryArray<Int32Type> =
        [Some("purchase"), Some("view"), None, Some("rating"), Some("hide")].into_iter().collect();
    set(&mut events, "kind", Arc::new(kinds));
    let mut items = items();
    set(&mut items, "brand", Arc::new(LargeStringArray::from(vec![Some("Acme"), None, None])));
    set(&mut items, "price", ints(&[3, 0, 12]));
    let mut categories = ListBuilder::new(StringBuilder::new());
    categories.append_value([Some("Home"), Some("Bath")]);
    categories.append_null();
    categories.append_value([Some("Home"), Some("")]);
    set(&mut items, "categories", Arc::new(categories.finish()));
    let mut vectors = FixedSizeListBuilder::new(Float16Builder::new(), 2);
    for row in [Some([0.5, -2.0]), None, Some([1.0, 0.25])] {
        let numbers = row.map_or([None; 2], |row| row.map(|value| Some(f16::from_f32(value))));
        numbers.into_iter().for_each(|number| vectors.values().append_option(number));
        vectors.append(row.is_some());
    }
    set(&mut items, "embedding", Arc::new(vectors.finish()));

    let data = read_back(events, items).unwrap();
    assert_eq!(data.sequences[1][0].value, Some(4.5));
    let kinds: Vec<EventKind> = data.sequences.iter().flatten().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::Rating, EventKind::View, EventKind::Purchase, EventKind::View, EventKind::Hide]);
    assert_eq!(data.items[0].item.brand.as_deref(), Some("Acme"));
    assert_eq!(data.items.iter().map(|item| item.item.price).collect::<Vec<_>>(), [Some(3.0), Some(0.0), Some(12.0)]);
    assert_eq!(data.items[0].item.categories, ["Home", "Bath"]);
    assert!(data.items[1].item.categories.is_empty());
    assert_eq!(data.items[2].item.categories, ["Home"]);
    assert_eq!(data.items[0].embedding.as_deref(), Some([0.5, -2.0].as_slice()));
    assert_eq!(data.items[1].embedding, None);
}

#[test]
fn text_is_composed_of_what_is_told_where_there_is_none() {
    let mut columns = items();
    set(&mut columns, "short_text", texts(&[Some("soap bar"), Some("pen"), None]));
    set(&mut columns, "description", texts(&[Some("Smells of pine"), None, Some("Blue")]));
    let data = read_back(events(), columns).unwrap();
    let texts: Vec<Option<&str>> = data.items.iter().map(|item| item.text.as_deref()).collect();
    assert_eq!(texts, [Some("Soap. Smells of pine"), None, Some("Blue")]);
    assert_eq!(data.items[1].item.title.as_deref(), Some("pen"));
}

#[test]
fn a_missing_or_mistyped_column_is_named() {
    for name in ["user_id", "item_id", "timestamp", "position"] {
        let mut columns = events();
        columns.retain(|(column, _)| *column != name);
        let message = refusal(columns, items());
        assert!(
            message.starts_with(&format!("interactions.parquet: no column {name}; the columns are: ")),
            "{message}"
        );
        let mut columns = events();
        set(&mut columns, name, texts(&[Some("1"); 5]));
        let message = refusal(columns, items());
        assert_eq!(message, format!("interactions.parquet: column {name} is Utf8, expected an integer"));
    }
    let columns = vec![("title", texts(&[None]))];
    assert!(refusal(events(), columns).starts_with("items.parquet: no column item_id"));
    let mut columns = items();
    set(&mut columns, "price", texts(&[Some("1"); 3]));
    assert!(refusal(events(), columns).starts_with("items.parquet: column price is Utf8, expected a number"));
    let mut columns = items();
    set(&mut columns, "categories", texts(&[Some("Home"); 3]));
    assert_eq!(refusal(events(), columns), "items.parquet: column categories is Utf8, expected a list of strings");
}

#[test]
fn a_wrong_value_is_named_with_file_row_and_column() {
    let place = |column: &str, row: usize| format!("interactions.parquet, row {row} (from 0), column {column}: ");
    let cases: [(&'static str, ArrayRef, usize, &str); 8] = [
        ("item_id", longs(&[10, 20, 30, 77, 20]), 3, "77 is not in items.parquet"),
        ("item_id", Arc::new(Int64Array::from(vec![Some(10), None, Some(30), Some(30), Some(20)])), 1, "null"),
        ("timestamp", Arc::new(Int64Array::from(vec![Some(10), Some(1), Some(30), Some(30), None])), 4, "null"),
        ("position", ints(&[0, 1, 1, 0, 3]), 4, "3 for user 9, expected 2"),
        ("position", ints(&[0, 1, 1, 1, 2]), 1, "1 for user 5, expected 0"),
        ("position", ints(&[0, 1, 1, 0, 1]), 4, "1 twice for user 9 (also in row 2)"),
        ("rating", Arc::new(Float32Array::from(vec![1.0, 1.0, f32::NAN, 1.0, 1.0])), 2, "NaN, expected a finite"),
        ("kind", texts(&[None, Some("View"), None, None, None]), 1, "\"View\", expected one of view, click"),
    ];
    for (column, values, row, problem) in cases {
        let mut columns = events();
        set(&mut columns, column, values);
        let message = refusal(columns, items());
        assert!(message.starts_with(&format!("{}{problem}", place(column, row))), "{message}");
    }
    let twice = longs(&[30, 10, 30]);
    let mut columns = items();
    set(&mut columns, "item_id", twice);
    let message = refusal(events(), columns);
    assert_eq!(message, "items.parquet, row 2 (from 0), column item_id: 30 is in row 0 already, expected it once");
    for (price, shown) in [(f32::NAN, "NaN"), (-1.0, "-1"), (f32::INFINITY, "inf")] {
        let mut columns = items();
        set(&mut columns, "price", Arc::new(Float32Array::from(vec![1.0, 2.0, price])));
        let message = refusal(events(), columns);
        assert!(message.starts_with(&format!("items.parquet, row 2 (from 0), column price: {shown}, ")), "{message}");
    }
}

#[test]
fn embeddings_must_be_finite_and_of_one_width() {
    let vectors = |rows: &[&[f64]]| -> ArrayRef {
        let mut list = ListBuilder::new(Float64Builder::new());
        rows.iter().for_each(|row| list.append_value(row.iter().copied().map(Some)));
        Arc::new(list.finish())
    };
    let mut columns = items();
    set(&mut columns, "embedding", vectors(&[&[1.0, 2.0], &[1.0, f64::NAN], &[0.0, 0.0]]));
    let message = refusal(events(), columns);
    assert!(message.starts_with("items.parquet, row 1 (from 0), column embedding: entry 1 is NaN"), "{message}");
    let mut columns = items();
    set(&mut columns, "embedding", vectors(&[&[1.0, 2.0], &[1.0, 2.0], &[0.0]]));
    let message = refusal(events(), columns);
    assert_eq!(message, "items.parquet, row 2 (from 0), column embedding: 1 numbers, expected 2");
}

#[test]
fn ids_from_outside_are_used_and_must_agree() {
    let mut with_ids = events();
    let names = [Some("eve"), Some("bob"), Some("eve"), Some("bob"), Some("eve")];
    set(&mut with_ids, "external_user_id", texts(&names));
    let mut columns = items();
    set(&mut columns, "external_id", texts(&[Some("B00X"), Some("B00Y"), None]));
    let data = read_back(with_ids, columns).unwrap();
    assert_eq!(data.user_ids, ["bob", "eve"]);
    assert_eq!(data.items.iter().map(|item| item.item.id.as_str()).collect::<Vec<_>>(), ["B00X", "B00Y", "20"]);

    let mut torn = events();
    set(&mut torn, "external_user_id", texts(&[Some("eve"), Some("bob"), Some("ann"), Some("bob"), Some("eve")]));
    let message = refusal(torn, items());
    assert!(message.starts_with("interactions.parquet, row 2 (from 0), column external_user_id: "), "{message}");
    let mut shared = events();
    set(&mut shared, "external_user_id", texts(&[Some("eve"); 5]));
    assert!(refusal(shared, items()).contains("\"eve\" is the id of both user 5 and user 9"));
    let mut columns = items();
    set(&mut columns, "external_id", texts(&[Some("B00X"), Some("B00X"), None]));
    assert!(refusal(events(), columns).starts_with("items.parquet, row 1 (from 0), column external_id: \"B00X\""));
}

#[test]
fn what_is_no_parquet_file_is_refused_with_its_name() {
    let directory = TempDir::new().unwrap();
    let missing = Dataset::read(directory.path()).unwrap_err();
    assert!(matches!(missing, DataError::Io { .. }), "{missing}");
    std::fs::write(directory.path().join(ITEMS_FILE), b"PAR1 but cut off").unwrap();
    let cut = Dataset::read(directory.path()).unwrap_err();
    assert!(matches!(cut, DataError::Parquet { .. }), "{cut}");
    let empty = read_back(events().into_iter().map(|(name, column)| (name, column.slice(0, 0))).collect(), items());
    assert!(matches!(empty, Err(DataError::Empty { .. })));
}

#[test]
fn a_data_set_that_contradicts_itself_is_refused() {
    let data = read_back(events(), items()).unwrap();
    let refused = |change: &dyn Fn(&mut Dataset)| {
        let mut data = data.clone();
        change(&mut data);
        Dataset::new(data.user_ids, data.items, data.sequences).unwrap_err().to_string()
    };
    assert!(refused(&|data| data.user_ids[1] = "5".into()).contains("\"5\", which another has too"));
    assert!(refused(&|data| data.sequences[1][0].item = 3).contains("user 1, event 0: item 3 of 3"));
    assert!(refused(&|data| data.sequences[0][1].user = 1).contains("belongs to user 1"));
    assert!(refused(&|data| data.sequences[0].clear()).contains("user 0 has no event"));
    assert!(refused(&|data| data.items[0].item.price = Some(-1.0)).contains("item 0: price -1"));
    assert!(refused(&|data| data.items[0].embedding = Some(vec![])).contains("embedding of 0 numbers"));
}

#[test]
fn amazon_beauty_has_its_known_counts() {
    let Some(root) = std::env::var_os("REG4REC_DATA") else {
        eprintln!("skipped: REG4REC_DATA, the directory that holds amazon-beauty-2014, is not set");
        return;
    };
    let data = Dataset::read(&Path::new(&root).join("amazon-beauty-2014")).unwrap();
    assert_eq!((data.user_ids.len(), data.items.len(), data.interactions()), (22_363, 12_101, 198_502));
    assert!(data.has_times);
    assert_eq!(data.items.iter().filter(|item| item.item.brand.is_some()).count(), 7_456);
    assert!(data.items.iter().all(|item| item.embedding.as_ref().is_some_and(|numbers| numbers.len() == 384)));
    assert_eq!(k_core(&data, 5).unwrap(), data, "it is a 5-core already");
    let split = Split::new(&data);
    assert_eq!(split.trials(Part::Test).len(), 22_363);
    let directory = TempDir::new().unwrap();
    data.write(directory.path()).unwrap();
    assert_eq!(Dataset::read(directory.path()).unwrap(), data);
}

#[test]
fn a_history_holds_the_latest_events_and_seen_holds_all() {
    let count = HISTORY_LIMIT as i64 + 12;
    let columns = vec![
        ("user_id", longs(&vec![1; count as usize])),
        ("item_id", longs(&(0..count).collect::<Vec<i64>>())),
        ("timestamp", longs(&(0..count).collect::<Vec<i64>>())),
        ("position", longs(&(0..count).collect::<Vec<i64>>())),
    ];
    let data = read_back(columns, vec![("item_id", longs(&(0..count).collect::<Vec<i64>>()))]).unwrap();
    let trials = Split::new(&data).trials(Part::Test);
    assert_eq!(trials[0].history.len(), HISTORY_LIMIT);
    assert_eq!((trials[0].history[0].item, trials[0].history[HISTORY_LIMIT - 1].item), (11, 60));
    assert_eq!((trials[0].seen.len(), trials[0].target), (61, 61));
    assert_eq!(Split::new(&data).trials(Part::Valid)[0].target, 60);
}

fn optional_text() -> impl Strategy<Value = Option<String>> {
    proptest::option::of("[a-zA-Zäß€,\"'%]{1,8}( [a-z]{1,5})?")
}

fn any_item(width: usize) -> impl Strategy<Value = DatasetItem> {
    let categories = proptest::collection::vec("[A-Z][a-z &]{0,6}", 0..4);
    let price = proptest::option::of(0.0_f32..1e6);
    let embedding = proptest::option::of(proptest::collection::vec(-1e3_f32..1e3, width));
    (optional_text(), optional_text(), optional_text(), categories, price, any::<bool>(), embedding).prop_map(
        |(title, brand, text, categories, price, eligible, embedding)| {
            let item = Item { id: String::new(), title, brand, categories, price, eligible };
            DatasetItem { item, text, embedding }
        },
    )
}

/// Ids as one kind of data set has them: small numbers, or words, or numbers that fall.
fn id(style: u8, number: usize) -> String {
    match style {
        0 => (number * 3).to_string(),
        1 => format!("B{number:04}"),
        _ => (5_000 - number).to_string(),
    }
}

fn any_dataset() -> impl Strategy<Value = Dataset> {
    let item_count = 1..12_usize;
    (item_count, 1..4_usize, 0..3_u8, 0..3_u8).prop_flat_map(|(item_count, width, user_style, item_style)| {
        let event = (0..item_count as u32, any::<i64>(), 0..6_usize, proptest::option::of(-10.0_f32..10.0));
        let sequences = proptest::collection::vec(proptest::collection::vec(event, 1..9), 1..9);
        let items = proptest::collection::vec(any_item(width), item_count);
        (items, sequences).prop_map(move |(mut items, sequences)| {
            for (number, item) in items.iter_mut().enumerate() {
                item.item.id = id(item_style, number);
            }
            let user_ids = (0..sequences.len()).map(|number| id(user_style, number)).collect();
            let sequences = sequences.into_iter().enumerate().map(|(user, sequence)| {
                let events = sequence.into_iter().map(|(item, time, kind, value)| Interaction {
                    user: user as u32,
                    item,
                    time,
                    kind: EventKind::ALL[kind],
                    value,
                });
                events.collect()
            });
            Dataset::new(user_ids, items, sequences.collect()).unwrap()
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_written_reads_back(data in any_dataset()) {
        let directory = TempDir::new().unwrap();
        data.write(directory.path()).unwrap();
        prop_assert_eq!(Dataset::read(directory.path()).unwrap(), data);
    }

    #[test]
    fn a_core_keeps_its_promise_and_is_its_own_core(data in any_dataset(), k in 1..4_usize) {
        if let Ok(core) = k_core(&data, k) {
            let mut events = vec![0; core.items.len()];
            for sequence in &core.sequences {
                prop_assert!(sequence.len() >= k);
                sequence.iter().for_each(|event| events[event.item as usize] += 1);
            }
            prop_assert!(events.iter().all(|&count| count >= k));
            prop_assert_eq!(k_core(&core, k).unwrap(), core);
        }
    }

    #[test]
    fn training_part_and_targets_make_up_the_sequence(data in any_dataset()) {
        let split = Split::new(&data);
        for (user, sequence) in data.sequences.iter().enumerate() {
            let targets = [Part::Valid, Part::Test].map(|part| split.target(user, part).copied());
            let parts = split.train(user).iter().copied().chain(targets.into_iter().flatten());
            prop_assert_eq!(&parts.collect::<Vec<_>>(), sequence);
            prop_assert_eq!(targets[1].is_some(), sequence.len() >= 3);
        }
        for trial in split.trials(Part::Test) {
            let sequence = &data.sequences[trial.user as usize];
            let before = &sequence[..sequence.len() - 1];
            prop_assert_eq!(trial.target, sequence[sequence.len() - 1].item);
            prop_assert!(trial.history.iter().eq(before.iter().map(Interaction::entry).collect::<Vec<_>>().iter()));
            prop_assert!(before.iter().all(|event| trial.seen.contains(&event.item)));
        }
    }
}
