//! Entries are counted as prost reads them, too many are refused, and all that is legal passes.

use super::*;
use crate::wire::v1;

fn check(name: &str, bytes: &[u8]) -> Result<(), Excess> {
    Bulky::named(&format!("reg4rec.v1.{name}")).unwrap().check(bytes)
}

/// The entries of a request for recommendations.
fn entries(bytes: &[u8]) -> usize {
    let mut count = Count { entries: 0, bytes: 0, most: MOST };
    SHAPES.walk(SHAPES.places["reg4rec.v1.RecommendRequest"], bytes, 0, &mut count).unwrap();
    count.entries
}

/// A message of `times` entries of field 1.
fn repeated(entry: &[u8], times: usize) -> Vec<u8> {
    let mut one = vec![0x0a];
    prost::encode_length_delimiter(entry.len(), &mut one).unwrap();
    one.extend(entry);
    one.repeat(times)
}

fn event() -> v1::Event {
    let time = Some(prost_types::Timestamp { seconds: 1_400_000_000, nanos: 1 });
    v1::Event { item_id: b"item-1".to_vec(), kind: 4, time, value: Some(1.0), ..Default::default() }
}

#[test]
fn entries_of_two_bytes_are_refused_before_they_become_gigabytes() {
    let excess = check("RecommendBatchRequest", &repeated(&[], 16 << 20)).unwrap_err();
    assert_eq!(excess.field, "requests");
    assert!((100_000..1_000_000).contains(&excess.entries), "{excess:?}");
    assert!(excess.description().contains("268435456"), "{}", excess.description());
    for (name, field) in
        [("UpsertItemsRequest", "items"), ("RecordRequest", "events"), ("RemoveItemsRequest", "item_ids")]
    {
        assert_eq!(check(name, &repeated(&[], 16 << 20)).unwrap_err().field, field);
    }
    assert_eq!(check("RecommendRequest", &[0x1a, 0].repeat(16 << 20)).unwrap_err().field, "history");
    // One message that comes in pieces is as large as its pieces: field 5, and in it an empty entry of field 1.
    let excess = check("RecommendRequest", &[0x2a, 2, 0x0a, 0].repeat(8 << 20)).unwrap_err();
    assert_eq!(excess.field, "filter.exclude_items");
    let within = repeated(&[0x2a, 2, 0x0a, 0].repeat(1 << 15), 1 << 8);
    assert_eq!(check("RecommendBatchRequest", &within).unwrap_err().field, "requests.filter.exclude_items");
}

#[test]
fn the_largest_messages_that_are_legal_pass() {
    let ids = (0..10_000).map(|at| format!("item-{at}").into_bytes()).collect();
    let filter = Some(v1::Filter { exclude_items: ids, ..Default::default() });
    let request = v1::RecommendRequest { history: vec![event(); 1000], filter, ..Default::default() }.encode_to_vec();
    assert_eq!(entries(&request), 11_000);
    assert_eq!(check("RecommendBatchRequest", &repeated(&request, 256)), Ok(()));
    // Not legal, but it can be refused by name.
    assert_eq!(check("RecommendRequest", &[&[0x1a, 3][..], &[0x0a, 1, b'i']].concat().repeat(1_000_000)), Ok(()));

    let categories = (0..32).map(|at| format!("category {at}").into_bytes()).collect();
    let item = v1::CatalogItem { categories, embedding: vec![0.5; 8192], ..Default::default() }.encode_to_vec();
    assert_eq!(check("UpsertItemsRequest", &repeated(&item, 1000)), Ok(()));
    let event = v1::UserEvent { user_id: b"u".to_vec(), event: Some(event()) }.encode_to_vec();
    assert_eq!(check("RecordRequest", &repeated(&event, 1000)), Ok(()));
}

#[test]
fn what_is_counted_is_what_prost_reads() {
    let entry = v1::recommend_request::AttributesEntry { key: b"k".to_vec(), value: b"v".to_vec() };
    let limits = vec![v1::CategoryLimit::default(); 3];
    let sound = v1::RecommendRequest {
        history: vec![event(); 5],
        filter: Some(v1::Filter { include_brands: vec![b"b".to_vec(); 2], ..Default::default() }),
        steering: Some(v1::Steering { limits, ..Default::default() }),
        attributes: vec![entry; 4],
        ..Default::default()
    };
    let sound = sound.encode_to_vec();
    assert_eq!(entries(&sound), 14);
    // Groups, with groups within them and what looks like an entry that cannot be read; fields that nobody knows.
    let group = [0x7b, 0x1a, 1, 0xff, 0x83, 1, 0x1a, 0, 0x84, 1, 0x7c];
    let unknown = [&[0xf8, 1, 0xff, 1][..], &[0xf9, 1], &[9; 8], &[0xfd, 1], &[9; 4], &[0xfa, 1, 1, 7]].concat();
    let whole = [&group[..], &unknown, &sound].concat();
    assert_eq!(v1::RecommendRequest::decode(&whole[..]).unwrap().history.len(), 5);
    assert_eq!(entries(&whole), 14);
    // What is cut off ends the count, and prost refuses it.
    for end in 1..sound.len() {
        assert!(entries(&sound[..end]) <= 14, "{end}");
    }
    assert_eq!(entries(&[0xff; 16]), 0);
}

#[test]
fn an_entry_is_not_thought_smaller_than_it_is() {
    let taken = |name: &str, field: &str| {
        let shape = &SHAPES.shapes[SHAPES.places[&format!("reg4rec.v1.{name}")]];
        shape.iter().find(|known| known.name == field).unwrap().entry.unwrap()
    };
    for (name, field, least) in [
        ("RecommendBatchRequest", "requests", size_of::<v1::RecommendRequest>()),
        ("RecommendRequest", "history", size_of::<v1::Event>()),
        ("RecommendRequest", "attributes", size_of::<v1::recommend_request::AttributesEntry>()),
        ("Filter", "exclude_items", size_of::<Vec<u8>>()),
        ("Steering", "categories", size_of::<v1::CategoryWeight>()),
        ("Steering", "limits", size_of::<v1::CategoryLimit>()),
        ("RecordRequest", "events", size_of::<v1::UserEvent>()),
        ("UpsertItemsRequest", "items", size_of::<v1::CatalogItem>()),
        ("SetEligibilityRequest", "items", size_of::<v1::ItemEligibility>()),
    ] {
        assert!((least..4 * least).contains(&taken(name, field)), "{name}.{field}: {} for {least}", taken(name, field));
    }
}

#[test]
fn every_request_of_every_service_is_known() {
    let sets = [DESCRIPTORS, ADMIN_DESCRIPTORS].map(|set| FileDescriptorSet::decode(set).unwrap());
    let methods = sets.iter().flat_map(|set| &set.file).flat_map(|file| &file.service).flat_map(|one| &one.method);
    let asked: Vec<&str> = methods.map(|method| method.input_type().trim_start_matches('.')).collect();
    assert!(asked.len() > 15 && asked.iter().all(|name| SHAPES.places.contains_key(*name)), "{asked:?}");
    assert!(Bulky::named("reg4rec.v1.GetItemRequest").is_none());
}
