//! Facts about views and the log of changes.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use crate::domain::{CatalogChange, CodeShape, CodeTable, DescribedItem, Filter, Item, ItemNumber};

use super::{AddedItem, CatalogItem, ChangeLog, ChangeLogError, Entries, Entry, Index, View, Word};

fn item(id: &str) -> Item {
    Item { id: id.into(), title: None, brand: None, categories: vec![], price: None, eligible: true }
}

fn row(item: Item) -> CatalogItem {
    CatalogItem { item, category: 0, prior: 0.0 }
}

fn index(items: Vec<Item>) -> Arc<Index> {
    let codes = CodeTable::new(CodeShape { codebooks: 2, entries: 3 }, vec![1; items.len() * 2]).unwrap();
    let rows = items.into_iter().map(row).collect();
    Arc::new(Index::build(rows, codes, vec!["any".into()], "7".into()).unwrap())
}

fn upsert(id: &str, text: Option<&str>) -> CatalogChange {
    CatalogChange::Upsert(Box::new(DescribedItem { item: item(id), text: text.map(str::to_owned), embedding: None }))
}

prop_compose! {
    fn any_item()(
        categories in prop::collection::vec((0..3u8).prop_map(|n| format!("c{n}")), 0..3),
        brand in prop::option::of((0..3u8).prop_map(|n| format!("b{n}"))),
        price in prop::option::of((0..9u8).prop_map(f32::from)),
        eligible in prop::bool::weighted(0.8),
    ) -> Item {
        Item { categories, brand, price, eligible, ..item("") }
    }
}

prop_compose! {
    fn any_filter()(
        exclude_items in prop::collection::vec((0..40u8).prop_map(|n| n.to_string()), 0..3),
        include_categories in prop::collection::vec((0..4u8).prop_map(|n| format!("c{n}")), 0..2),
        exclude_brands in prop::collection::vec((0..4u8).prop_map(|n| format!("b{n}")), 0..2),
        min_price in prop::option::of((0..9u8).prop_map(f32::from)),
        max_price in prop::option::of((0..9u8).prop_map(f32::from)),
    ) -> Filter {
        Filter { exclude_items, include_categories, exclude_brands, min_price, max_price, ..Filter::default() }
    }
}

fn numbered(items: Vec<Item>) -> Vec<Item> {
    items.into_iter().enumerate().map(|(n, item)| Item { id: n.to_string(), ..item }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_view_finds_what_an_index_of_the_changed_items_finds(
        items in prop::collection::vec(any_item(), 1..40),
        changes in prop::collection::vec((0usize..40, any_item()), 0..12),
        added in prop::collection::vec(any_item(), 0..5),
        filter in any_filter(),
        exclude in prop::collection::vec(0u32..45, 0..3),
    ) {
        let known = items.len();
        let mut all = numbered(items.into_iter().chain(added).collect());
        let fresh = all.split_off(known);
        let mut view = View::of(index(all.clone()));
        for (at, change) in changes {
            let at = at % known;
            all[at] = Item { id: at.to_string(), ..change };
            view = view.with([(at as ItemNumber, all[at].clone())], "7+1".into());
        }
        let expected = index(all.clone());
        prop_assert_eq!(view.root(&filter, &exclude), expected.root(&filter, &exclude));
        for (number, item) in all.iter().enumerate() {
            prop_assert_eq!(&view.item(number as ItemNumber), item);
        }
        for name in ["c0", "c1", "nothing"] {
            let listed: Vec<ItemNumber> = view.of_category(name).iter().collect();
            prop_assert_eq!(listed, expected.of_category(name));
        }
        // Folded, with items more, it is the same again; numbers stay.
        let rows = fresh.iter().map(|item| AddedItem { row: row(item.clone()), code: vec![2, 0] }).collect();
        let folded = view.folded(rows, &[(0, vec![0, 2])], "7+2".into()).unwrap();
        all.extend(fresh);
        let expected = index(all.clone());
        prop_assert_eq!(folded.overlaid(), 0);
        prop_assert_eq!(folded.root(&filter, &exclude), expected.root(&filter, &exclude));
        prop_assert!(all.iter().zip(0..).all(|(item, number)| folded.index().number(&item.id) == Some(number)));
        prop_assert_eq!(folded.index().codes().code(0).to_vec(), [0, 2]);
        prop_assert!((known..all.len()).all(|number| folded.index().codes().code(number as u32).to_vec() == [2, 0]));
        prop_assert_eq!((folded.version(), folded.index().version()), ("7+2", "7"));
    }
}

#[test]
fn a_view_that_somebody_has_says_what_it_said() {
    let before = View::of(index(vec![item("a"), item("b")]));
    let after = before.with([(0, Item { eligible: false, ..item("a") })], "7+1".into());
    let all = |view: &View| view.root(&Filter::default(), &[]).iter().collect::<Vec<_>>();
    assert_eq!((all(&before), all(&after)), (vec![0, 1], vec![1]));
    assert_eq!((before.version(), after.version()), ("7", "7+1"));
}

#[test]
fn what_is_said_of_an_item_adds_up() {
    let first = Entry::after(None, upsert("a", Some("red hat")), 1);
    assert_eq!((first.changed_ms, first.described_ms), (1, Some(1)));
    // The same text again is no other text; none is.
    let priced = Entry::after(Some(&first), upsert("a", Some("red hat")), 2);
    assert_eq!((priced.changed_ms, priced.described_ms), (2, Some(1)));
    assert_eq!(Entry::after(Some(&first), upsert("a", None), 2).described_ms, Some(2));
    assert_eq!(Entry::after(None, upsert("a", None), 2).described_ms, None);
    assert_eq!(Entry::after(Some(&first), upsert("a", Some("blue hat")), 2).described_ms, Some(2));
    let hidden = Entry::after(Some(&priced), CatalogChange::SetEligibility("a".into(), false), 3);
    assert_eq!(hidden.item(None), Some(Item { eligible: false, ..item("a") }));
    let gone = Entry::after(Some(&hidden), CatalogChange::Remove("a".into()), 4);
    assert!(gone.is_removed() && gone.item(None).is_none());
    assert!(Entry::after(Some(&gone), CatalogChange::SetEligibility("a".into(), true), 5).is_removed());
    let back = Entry::after(Some(&gone), upsert("a", Some("red hat")), 6);
    assert_eq!((back.item(None), back.described_ms), (Some(item("a")), Some(6)));
    // Of an item that a bundle has.
    let bundle = Item { price: Some(3.0), ..item("a") };
    let off = Entry::after(None, CatalogChange::SetEligibility("a".into(), false), 1);
    assert_eq!(off.item(Some(&bundle)), Some(Item { eligible: false, ..bundle.clone() }));
    assert_eq!(gone.item(Some(&bundle)), Some(Item { eligible: false, ..bundle }));
}

/// Some of everything that can be said.
fn said() -> Vec<(String, Entry)> {
    let full = DescribedItem {
        item: Item {
            title: Some("H\u{e9}".into()),
            brand: Some(String::new()),
            categories: vec!["a".into(), "b".into()],
            price: Some(0.0),
            eligible: false,
            ..item("full")
        },
        text: Some("text".into()),
        embedding: Some(vec![1.5, -2.0]),
    };
    let words = [
        Word::Item(Box::new(full)),
        Word::Item(Box::new(DescribedItem { item: item("1"), text: None, embedding: Some(vec![]) })),
        Word::Eligible(true),
        Word::Eligible(false),
        Word::Removed,
    ];
    let ids = ["full", "1", "on", "off", "gone"];
    let entry =
        |(at, word)| Entry { changed_ms: 1_700_000_000_000 + at, described_ms: (at % 2 == 0).then_some(at), word };
    ids.into_iter().map(str::to_owned).zip((0..).zip(words).map(entry)).collect()
}

fn write(directory: &Path, said: &[(String, Entry)]) {
    let (mut log, _) = ChangeLog::open(directory).unwrap();
    for (id, entry) in said {
        log.append([(id.as_str(), entry)]).unwrap();
    }
}

fn read(directory: &Path) -> Entries {
    ChangeLog::open(directory).unwrap().1
}

fn expected(said: &[(String, Entry)]) -> Entries {
    said.iter().map(|(id, entry)| (id.clone(), Arc::new(entry.clone()))).collect()
}

#[test]
fn the_log_says_again_what_it_was_told_last() {
    let home = tempfile::tempdir().unwrap();
    let mut said = said();
    write(home.path(), &said);
    assert_eq!(read(home.path()), expected(&said));
    let off = Entry { changed_ms: 1, described_ms: None, word: Word::Removed };
    write(home.path(), &[("full".to_owned(), off.clone())]);
    said[0].1 = off;
    assert_eq!(read(home.path()), expected(&said));
}

#[test]
fn a_log_cut_anywhere_says_what_was_whole_and_takes_more() {
    let home = tempfile::tempdir().unwrap();
    let said = said();
    let file = home.path().join("items.log");
    let mut ends = Vec::new();
    for one in &said {
        write(home.path(), std::slice::from_ref(one));
        ends.push(fs::metadata(&file).unwrap().len() as usize);
    }
    let content = fs::read(&file).unwrap();
    for cut in 0..=content.len() {
        fs::write(&file, &content[..cut]).unwrap();
        let whole = ends.iter().filter(|&&end| end <= cut).count();
        assert_eq!(read(home.path()), expected(&said[..whole]), "cut at {cut}");
        write(home.path(), &said[4..]);
        assert!(read(home.path()).contains_key("gone"), "cut at {cut}");
    }
    // What a file system may leave of a write that was cut off.
    fs::write(&file, [&content[..ends[1]], &[0; 40]].concat()).unwrap();
    assert_eq!(read(home.path()), expected(&said[..2]));
}

#[test]
fn a_damaged_log_is_refused_and_left_as_it_is() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), &said());
    let file = home.path().join("items.log");
    let sound = fs::read(&file).unwrap();
    for at in [0, 5, 16, 40, sound.len() - 3] {
        let mut damaged = sound.clone();
        damaged[at] ^= 4;
        fs::write(&file, &damaged).unwrap();
        let outcome = ChangeLog::open(home.path());
        assert!(matches!(outcome, Err(ChangeLogError::Damaged { .. })), "byte {at}: {outcome:?}");
        assert!(fs::read(&file).unwrap() == damaged, "byte {at}: the file was changed");
    }
}

#[test]
fn one_process_has_a_log_and_one_log_has_one_writer() {
    let home = tempfile::tempdir().unwrap();
    let log = ChangeLog::open(home.path()).unwrap();
    assert!(matches!(ChangeLog::open(home.path()), Err(ChangeLogError::Taken(_))));
    drop(log);
    assert!(ChangeLog::open(home.path()).is_ok());
}

#[test]
fn a_log_of_things_said_otherwise_since_is_made_smaller_and_says_the_same() {
    let home = tempfile::tempdir().unwrap();
    let (mut log, mut entries) = ChangeLog::open(home.path()).unwrap();
    let long = "x".repeat(10_000);
    let mut now = 0;
    for round in 0..60 {
        for id in ["a", "b", "c"] {
            now += 1;
            let entry = Entry::after(None, upsert(id, Some(&format!("{long}{round}"))), now);
            log.append([(id, &entry)]).unwrap();
            entries.insert(id.to_owned(), Arc::new(entry));
        }
    }
    let before = log.bytes();
    assert!(log.compact(&entries).unwrap());
    assert!(log.bytes() < before / 40, "{} of {before} bytes", log.bytes());
    assert!(!log.compact(&entries).unwrap(), "made smaller twice");
    let last = Entry::after(None, CatalogChange::Remove("b".into()), now + 1);
    log.append([("b", &last)]).unwrap();
    entries.insert("b".into(), Arc::new(last));
    drop(log);
    assert_eq!(read(home.path()), entries);
}
