//! `CatalogService`: items out of bytes, and what is told of them.

use std::collections::HashSet;

use crate::domain::{CatalogChange, CatalogChanged, DescribedItem, Failure, Item, ItemPage, StoredItem};

use super::checks::{Checks, MAX_TEXT};
use super::v1;

/// Most items of a request.
const MAX_ITEMS: usize = 1000;
/// Longest title, in bytes.
const MAX_TITLE: usize = 1024;
/// Longest description, in bytes.
const MAX_DESCRIPTION: usize = 1 << 16;
/// Most categories of an item.
const MAX_CATEGORIES: usize = 32;
/// Most numbers of an embedding.
const MAX_EMBEDDING: usize = 8192;
/// Items of a page where a request does not say.
const PAGE: u32 = 100;

/// The changes of an upsert, or every wrong field.
pub fn upserts(sent: v1::UpsertItemsRequest) -> Result<Vec<CatalogChange>, Failure> {
    let mut checks = Checks::default();
    some(&mut checks, "items", sent.items.len());
    let items: Vec<DescribedItem> =
        sent.items.into_iter().take(MAX_ITEMS).enumerate().map(|(at, item)| described(&mut checks, at, item)).collect();
    let mut seen = HashSet::new();
    for (at, DescribedItem { item, .. }) in items.iter().enumerate() {
        if !item.id.is_empty() && !seen.insert(item.id.as_str()) {
            checks
                .refuse(format!("items[{at}].item_id"), format!("{:?} is there twice, expected each id once", item.id));
        }
    }
    let changes = items.into_iter().map(|item| CatalogChange::Upsert(Box::new(item))).collect();
    checks.finish().map(|()| changes).map_err(Failure::Invalid)
}

/// The changes of a removal, or every wrong field.
pub fn removals(sent: v1::RemoveItemsRequest) -> Result<Vec<CatalogChange>, Failure> {
    let mut checks = Checks::default();
    some(&mut checks, "item_ids", sent.item_ids.len());
    let ids = sent.item_ids.into_iter().take(MAX_ITEMS).enumerate();
    let changes = ids.map(|(at, id)| CatalogChange::Remove(checks.name(format_args!("item_ids[{at}]"), id))).collect();
    checks.finish().map(|()| changes).map_err(Failure::Invalid)
}

/// The changes of a setting of eligibility, or every wrong field.
pub fn eligibilities(sent: v1::SetEligibilityRequest) -> Result<Vec<CatalogChange>, Failure> {
    let mut checks = Checks::default();
    some(&mut checks, "items", sent.items.len());
    let items = sent.items.into_iter().take(MAX_ITEMS).enumerate();
    let changes = items
        .map(|(at, item)| {
            let id = checks.name(format_args!("items[{at}].item_id"), item.item_id);
            CatalogChange::SetEligibility(id, item.eligible)
        })
        .collect();
    checks.finish().map(|()| changes).map_err(Failure::Invalid)
}

/// The id that is asked for.
pub fn asked(sent: v1::GetItemRequest) -> Result<String, Failure> {
    let mut checks = Checks::default();
    let id = checks.name("item_id", sent.item_id);
    checks.finish().map(|()| id).map_err(Failure::Invalid)
}

/// The id after which a page begins, and how many items it may hold.
pub fn page_asked(sent: v1::ListItemsRequest) -> Result<(Option<String>, usize), Failure> {
    let mut checks = Checks::default();
    let size = if sent.page_size == 0 { PAGE } else { sent.page_size };
    let size = checks.within("page_size", size, 1..=MAX_ITEMS as u32);
    // A token is the last id of the page before; ids of bundles may be longer than those that are sent here.
    let after = checks.text("page_token", sent.page_token, 4 * MAX_TEXT);
    checks.finish().map(|()| ((!after.is_empty()).then_some(after), size)).map_err(Failure::Invalid)
}

/// What became of an upsert.
pub fn upserted(changed: CatalogChanged) -> v1::UpsertItemsResponse {
    // At most `MAX_ITEMS` each.
    v1::UpsertItemsResponse {
        added: changed.added as u32,
        changed: changed.changed as u32,
        index_version: changed.index_version,
    }
}

/// What became of a removal.
pub fn removed(changed: CatalogChanged) -> v1::RemoveItemsResponse {
    v1::RemoveItemsResponse {
        removed: changed.changed as u32,
        unknown_item_ids: changed.unknown,
        index_version: changed.index_version,
    }
}

/// What became of a setting of eligibility.
pub fn set(changed: CatalogChanged) -> v1::SetEligibilityResponse {
    v1::SetEligibilityResponse {
        changed: changed.changed as u32,
        unknown_item_ids: changed.unknown,
        index_version: changed.index_version,
    }
}

/// One item.
pub fn found(item: StoredItem) -> v1::GetItemResponse {
    v1::GetItemResponse { item: Some(stored(item)) }
}

/// A page of items.
pub fn page(page: ItemPage) -> v1::ListItemsResponse {
    v1::ListItemsResponse {
        items: page.items.into_iter().map(stored).collect(),
        next_page_token: page.next.unwrap_or_default(),
    }
}

fn some(checks: &mut Checks, field: &str, entries: usize) {
    if entries == 0 {
        checks.refuse(field, format!("is empty, expected 1 to {MAX_ITEMS} entries"));
    }
    checks.count(field, entries, MAX_ITEMS);
}

fn described(checks: &mut Checks, at: usize, sent: v1::CatalogItem) -> DescribedItem {
    let field = |name: &str| format!("items[{at}].{name}");
    let id = checks.name(field("item_id"), sent.item_id);
    let mut text =
        |name: &str, bytes, most| Some(checks.text(field(name), bytes, most)).filter(|text| !text.is_empty());
    let title = text("title", sent.title, MAX_TITLE);
    let description = text("text", sent.text, MAX_DESCRIPTION);
    let brand = text("brand", sent.brand, MAX_TEXT);
    let categories = checks.names(&field("categories"), sent.categories, MAX_CATEGORIES);
    let price = sent.price.map(|price| checks.up_to(&field("price"), price, f32::MAX));
    checks.count(&field("embedding"), sent.embedding.len(), MAX_EMBEDDING);
    if let Some(place) = sent.embedding.iter().position(|number| !number.is_finite()) {
        checks.finite(format_args!("items[{at}].embedding[{place}]"), sent.embedding[place]);
    }
    DescribedItem {
        item: Item { id, title, brand, categories, price, eligible: sent.eligible.unwrap_or(true) },
        text: description,
        embedding: (!sent.embedding.is_empty()).then_some(sent.embedding),
    }
}

fn stored(item: StoredItem) -> v1::StoredItem {
    let StoredItem { described: DescribedItem { item, text, embedding }, code, changed_ms, learnt } = item;
    let timestamp = |ms: i64| prost_types::Timestamp {
        seconds: ms.div_euclid(1000),
        nanos: (ms.rem_euclid(1000) * 1_000_000) as i32,
    };
    v1::StoredItem {
        item_id: item.id,
        title: item.title.unwrap_or_default(),
        text: text.unwrap_or_default(),
        brand: item.brand.unwrap_or_default(),
        categories: item.categories,
        price: item.price,
        eligible: item.eligible,
        embedding_width: embedding.map_or(0, |embedding| embedding.len() as u32),
        tokens: code.into_iter().map(u32::from).collect(),
        changed: changed_ms.map(timestamp),
        learnt,
    }
}

#[cfg(test)]
#[path = "catalogue_tests.rs"]
mod tests;
