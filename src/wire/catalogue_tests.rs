//! What is taken for items, and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;
use prost::Message;

use super::*;

fn sent(id: &str) -> v1::CatalogItem {
    v1::CatalogItem { item_id: id.into(), ..Default::default() }
}

fn refused<T: std::fmt::Debug>(outcome: Result<T, Failure>) -> Vec<String> {
    let Err(Failure::Invalid(wrong)) = outcome else { panic!("accepted: {outcome:?}") };
    wrong.into_iter().map(|wrong| format!("{} {}", wrong.field, wrong.description)).collect()
}

#[test]
fn what_is_unset_is_none_but_an_item_is_eligible() {
    let changes = upserts(v1::UpsertItemsRequest { items: vec![sent("a")] }).unwrap();
    let item = Item { id: "a".into(), title: None, brand: None, categories: vec![], price: None, eligible: true };
    assert_eq!(changes, [CatalogChange::Upsert(Box::new(DescribedItem { item, text: None, embedding: None }))]);
}

#[test]
fn every_wrong_field_of_every_item_is_named() {
    let odd = v1::CatalogItem { price: Some(-1.0), embedding: vec![1.0, f32::NAN], ..sent("") };
    let odder = v1::CatalogItem {
        title: vec![0xff],
        text: vec![b'x'; MAX_DESCRIPTION + 1],
        categories: vec![b"Hats".to_vec(), Vec::new()],
        ..sent("a")
    };
    let wrong = refused(upserts(v1::UpsertItemsRequest { items: vec![odd, sent("a"), odder] }));
    assert_eq!(
        wrong,
        [
            "items[0].item_id is empty, expected 1 to 256 bytes of UTF-8",
            "items[0].price is -1, expected a finite number from 0 on",
            "items[0].embedding[1] is NaN, expected a finite number",
            "items[2].title byte 0xff at position 0 is not UTF-8",
            "items[2].text 65537 bytes, expected at most 65536",
            "items[2].categories[1] is empty, expected 1 to 256 bytes of UTF-8",
            "items[2].item_id \"a\" is there twice, expected each id once",
        ]
    );
}

#[test]
fn too_few_and_too_many_are_refused() {
    let many = |count| v1::UpsertItemsRequest { items: (0..count).map(|at| sent(&at.to_string())).collect() };
    assert_eq!(refused(upserts(many(0))), ["items is empty, expected 1 to 1000 entries"]);
    assert_eq!(refused(upserts(many(1001))), ["items 1001 entries, expected at most 1000"]);
    assert_eq!(refused(removals(v1::RemoveItemsRequest::default())), ["item_ids is empty, expected 1 to 1000 entries"]);
    let page = |page_size| page_asked(v1::ListItemsRequest { page_size, ..Default::default() });
    assert_eq!(refused(page(1001)), ["page_size is 1001, expected 1 to 1000"]);
    assert_eq!(page(0).unwrap(), (None, 100));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_reader_of_items_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(sent) = v1::UpsertItemsRequest::decode(bytes.as_slice()) {
            drop(upserts(sent));
        }
        if let Ok(sent) = v1::SetEligibilityRequest::decode(bytes.as_slice()) {
            drop(eligibilities(sent));
        }
        if let Ok(sent) = v1::ListItemsRequest::decode(bytes.as_slice()) {
            drop(page_asked(sent));
        }
    }

    #[test]
    fn an_item_is_taken_exactly_when_each_of_its_fields_is_in_order(
        id in prop::collection::vec(any::<u8>(), 0..6),
        title in prop::collection::vec(any::<u8>(), 0..4),
        categories in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3), 0..34),
        price in prop::option::of(any::<f32>()),
        embedding in prop::collection::vec(any::<f32>(), 0..4),
    ) {
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok();
        let name = |bytes: &[u8]| !bytes.is_empty() && text(bytes);
        let right = name(&id)
            && text(&title)
            && categories.len() <= 32
            && categories.iter().all(|category| name(category))
            && price.is_none_or(|price| price.is_finite() && price >= 0.0)
            && embedding.iter().all(|number| number.is_finite());
        let item = v1::CatalogItem { item_id: id, title, categories, price, embedding, ..Default::default() };
        // As it comes over the wire.
        let bytes = v1::UpsertItemsRequest { items: vec![item] }.encode_to_vec();
        let taken = upserts(v1::UpsertItemsRequest::decode(bytes.as_slice()).unwrap());
        prop_assert_eq!(taken.is_ok(), right, "{:?}", taken);
    }
}
