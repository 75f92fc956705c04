//! From the two Parquet files to a data set.
//!
//! | file | column | type | |
//! |---|---|---|---|
//! | interactions | `user_id`, `item_id`, `timestamp`, `position` | integer | no nulls; a user's positions are 0, 1, 2, … |
//! | | `rating` | float | optional |
//! | | `kind` | string | optional: view, click, cart, purchase, hide, rating; null is view |
//! | | `external_user_id` | string | optional: the user's id outside, one for each `user_id` |
//! | items | `item_id` | integer | unique |
//! | | `title`, `short_text`, `brand`, `text`, `description` | string | optional |
//! | | `categories`, `categories_other` | list of strings | optional |
//! | | `price` | float | optional, not negative |
//! | | `eligible` | boolean | optional; null is true |
//! | | `embedding` | list of floats | optional, all of one width |
//! | | `external_id` | string | optional: the item's id outside, unique |
//!
//! Other columns are not read.

use std::collections::HashMap;
use std::path::Path;

use super::columns::{Chunk, Table};
use super::{DataError, Dataset, DatasetItem, INTERACTIONS_FILE, ITEMS_FILE, Interaction};
use crate::domain::{EventKind, Item, ItemNumber};

const ITEM_COLUMNS: [&str; 12] = [
    "item_id",
    "title",
    "short_text",
    "brand",
    "text",
    "description",
    "categories",
    "categories_other",
    "price",
    "eligible",
    "embedding",
    "external_id",
];
const INTERACTION_COLUMNS: [&str; 7] =
    ["user_id", "item_id", "timestamp", "position", "rating", "kind", "external_user_id"];

/// Reads both files of `directory`.
pub(super) fn read(directory: &Path) -> Result<Dataset, DataError> {
    let catalogue = read_items(&directory.join(ITEMS_FILE))?;
    let (user_ids, sequences) = read_interactions(&directory.join(INTERACTIONS_FILE), &catalogue.numbers)?;
    Dataset::new(user_ids, catalogue.items, sequences)
}

/// The items of one file.
pub(super) fn items(file: &Path) -> Result<Vec<DatasetItem>, DataError> {
    Ok(read_items(file)?.items)
}

struct Catalogue {
    items: Vec<DatasetItem>,
    numbers: HashMap<i64, ItemNumber>,
}

fn read_items(file: &Path) -> Result<Catalogue, DataError> {
    let mut table = Table::open(file, &ITEM_COLUMNS)?;
    let mut catalogue = Catalogue { items: Vec::new(), numbers: HashMap::new() };
    let mut external = HashMap::new();
    let mut width = None;
    while let Some(chunk) = table.next_chunk()? {
        for (row, (id, item)) in item_rows(&chunk)?.into_iter().enumerate() {
            let number = catalogue.items.len();
            if let Some(earlier) = catalogue.numbers.insert(id, number as ItemNumber) {
                return Err(chunk.wrong(row, "item_id", format!("{id} is in row {earlier} already, expected it once")));
            }
            if let Some(earlier) = external.insert(item.item.id.clone(), number) {
                let problem = format!("{:?} is the id of row {earlier} already, expected it once", item.item.id);
                return Err(chunk.wrong(row, "external_id", problem));
            }
            if let Some(embedding) = &item.embedding {
                let width = *width.get_or_insert(embedding.len());
                if embedding.is_empty() || embedding.len() != width {
                    let problem = format!("{} numbers, expected {}", embedding.len(), width.max(1));
                    return Err(chunk.wrong(row, "embedding", problem));
                }
            }
            catalogue.items.push(item);
        }
    }
    if catalogue.items.is_empty() {
        return Err(DataError::Empty { file: file.into() });
    }
    Ok(catalogue)
}

fn item_rows(chunk: &Chunk<'_>) -> Result<Vec<(i64, DatasetItem)>, DataError> {
    let ids = chunk.integers("item_id")?;
    let mut titles = chunk.strings("title")?;
    let mut short_texts = chunk.strings("short_text")?;
    let mut brands = chunk.strings("brand")?;
    let mut texts = chunk.strings("text")?;
    let mut descriptions = chunk.strings("description")?;
    let mut categories = chunk.string_lists("categories")?;
    let mut other_categories = chunk.string_lists("categories_other")?;
    let prices = chunk.floats("price")?;
    let eligible = chunk.booleans("eligible")?;
    let mut embeddings = chunk.vectors("embedding")?;
    let mut external = chunk.strings("external_id")?;
    if let Some((row, price)) = first(&prices, |price| price.is_some_and(|price| price < 0.0)) {
        let problem = format!("{}, expected a number that is not negative, or null", price.unwrap_or_default());
        return Err(chunk.wrong(row, "price", problem));
    }
    let rows = ids.into_iter().enumerate().map(|(row, id)| {
        // A short text is a machine-made name: it stands in where there is no title.
        let title = titles[row].take().or_else(|| short_texts[row].take());
        let text = texts[row].take().or_else(|| {
            let description = descriptions[row].take();
            compose(title.as_deref(), description, std::mem::take(&mut other_categories[row]))
        });
        let item = Item {
            id: external[row].take().unwrap_or_else(|| id.to_string()),
            title,
            brand: brands[row].take(),
            categories: std::mem::take(&mut categories[row]),
            price: prices[row],
            eligible: eligible[row].unwrap_or(true),
        };
        (id, DatasetItem { item, text, embedding: embeddings[row].take() })
    });
    Ok(rows.collect())
}

/// A text of what else is told of an item; none where the title says it all.
fn compose(title: Option<&str>, description: Option<String>, other_categories: Vec<String>) -> Option<String> {
    if description.is_none() && other_categories.is_empty() {
        return None;
    }
    let parts = title.map(str::to_owned).into_iter().chain(description).chain(other_categories);
    Some(parts.collect::<Vec<String>>().join(". "))
}

struct Row {
    user: i64,
    position: i64,
    file_row: usize,
    event: Interaction,
}

type Sequences = (Vec<String>, Vec<Vec<Interaction>>);

fn read_interactions(file: &Path, numbers: &HashMap<i64, ItemNumber>) -> Result<Sequences, DataError> {
    let mut table = Table::open(file, &INTERACTION_COLUMNS)?;
    let mut rows: Vec<Row> = Vec::new();
    let mut external: HashMap<i64, Option<String>> = HashMap::new();
    while let Some(chunk) = table.next_chunk()? {
        interaction_rows(&chunk, numbers, &mut rows)?;
        external_users(&chunk, &rows[chunk.first_row..], &mut external)?;
    }
    if rows.is_empty() {
        return Err(DataError::Empty { file: file.into() });
    }
    if !rows.is_sorted_by_key(|row| (row.user, row.position)) {
        rows.sort_by_key(|row| (row.user, row.position));
    }
    let mut user_ids = Vec::new();
    let mut sequences = Vec::new();
    for group in rows.chunk_by(|one, next| one.user == next.user) {
        let number = user_ids.len() as u32;
        let id = group[0].user;
        user_ids.push(external.remove(&id).flatten().unwrap_or_else(|| id.to_string()));
        sequences.push(sequence(file, number, group)?);
    }
    check_user_ids(file, &user_ids, &rows)?;
    Ok((user_ids, sequences))
}

fn interaction_rows(
    chunk: &Chunk<'_>,
    numbers: &HashMap<i64, ItemNumber>,
    rows: &mut Vec<Row>,
) -> Result<(), DataError> {
    let users = chunk.integers("user_id")?;
    let items = chunk.integers("item_id")?;
    let times = chunk.integers("timestamp")?;
    let positions = chunk.integers("position")?;
    let ratings = chunk.floats("rating")?;
    let kinds = chunk.strings("kind")?;
    for row in 0..chunk.rows() {
        let Some(&item) = numbers.get(&items[row]) else {
            let problem = format!("{} is not in {ITEMS_FILE}, expected an item that a row there defines", items[row]);
            return Err(chunk.wrong(row, "item_id", problem));
        };
        let kind = match kinds[row].as_deref() {
            None => EventKind::default(),
            Some(name) => EventKind::named(name).ok_or_else(|| {
                let known = EventKind::ALL.map(EventKind::name).join(", ");
                chunk.wrong(row, "kind", format!("{name:?}, expected one of {known}"))
            })?,
        };
        let event = Interaction { user: 0, item, time: times[row], kind, value: ratings[row] };
        rows.push(Row { user: users[row], position: positions[row], file_row: chunk.first_row + row, event });
    }
    Ok(())
}

/// Takes in the ids that users have outside; all rows of one user must agree.
fn external_users(
    chunk: &Chunk<'_>,
    rows: &[Row],
    external: &mut HashMap<i64, Option<String>>,
) -> Result<(), DataError> {
    let ids = chunk.strings("external_user_id")?;
    for (at, (row, id)) in rows.iter().zip(ids).enumerate() {
        let known = external.entry(row.user).or_insert_with(|| id.clone());
        if *known != id {
            let problem = format!("{id:?}, expected {known:?} as in the earlier rows of user {}", row.user);
            return Err(chunk.wrong(at, "external_user_id", problem));
        }
    }
    Ok(())
}

fn sequence(file: &Path, user: u32, group: &[Row]) -> Result<Vec<Interaction>, DataError> {
    let events = group.iter().enumerate().map(|(place, row)| {
        if row.position != place as i64 {
            let problem = if place > 0 && row.position == group[place - 1].position {
                format!("{} twice for user {} (also in row {})", row.position, row.user, group[place - 1].file_row)
            } else {
                format!("{} for user {}, expected {place}: positions count from 0 without gaps", row.position, row.user)
            };
            return Err(DataError::value(file, row.file_row, "position", problem));
        }
        Ok(Interaction { user, ..row.event })
    });
    events.collect()
}

/// Two users must not share an id outside.
fn check_user_ids(file: &Path, user_ids: &[String], rows: &[Row]) -> Result<(), DataError> {
    let mut seen = HashMap::with_capacity(user_ids.len());
    let groups = rows.chunk_by(|one, next| one.user == next.user);
    for (id, group) in user_ids.iter().zip(groups) {
        if let Some(earlier) = seen.insert(id, group[0].user) {
            let problem = format!("{id:?} is the id of both user {earlier} and user {}", group[0].user);
            return Err(DataError::value(file, group[0].file_row, "external_user_id", problem));
        }
    }
    Ok(())
}

fn first<T: Copy>(values: &[T], wanted: impl Fn(T) -> bool) -> Option<(usize, T)> {
    values.iter().copied().enumerate().find(|&(_, value)| wanted(value))
}
