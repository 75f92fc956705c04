//! The Amazon review data of J. McAuley's group, releases of 2014 and 2018: a JSON object a line; the metadata of 2014
//! is written as Python literals instead.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::draft::{Draft, Finished, Told};
use super::literal;
use super::source::{Encoding, Line, Lines};
use super::{AmazonArgs, ImportError};
use crate::domain::{EventKind, Item};
use crate::training::dataset::DatasetItem;

/// The longest text kept of an item, in bytes: descriptions run to whole catalogues.
const LONGEST_TEXT: usize = 2_000;

/// What is read of a review.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    #[serde(rename = "reviewerID")]
    reviewer_id: String,
    asin: String,
    unix_review_time: i64,
    overall: Option<f32>,
}

/// Reads reviews and metadata.
pub(super) fn import(args: &AmazonArgs) -> Result<Finished, ImportError> {
    let mut draft = Draft::timed();
    let mut reviews = Lines::open(&args.reviews, Encoding::Utf8)?;
    while let Some(line) = reviews.next_line()? {
        let review = review(&args.reviews, &line)?;
        draft.event(&Told {
            user: &review.reviewer_id,
            item: &review.asin,
            time: review.unix_review_time,
            kind: EventKind::default(),
            value: review.overall,
        });
    }
    let mut repeated = 0;
    let mut unpriced = 0;
    let mut metadata = Lines::open(&args.meta, Encoding::Utf8)?;
    while let Some(line) = metadata.next_line()? {
        let described = describe(&args.meta, &line)?;
        // The metadata is of the whole shop; what nobody reviewed cannot stay in a core.
        if args.k_core > 0 && !draft.knows(&described.item.item.id) {
            continue;
        }
        unpriced += usize::from(described.odd_price);
        repeated += usize::from(!draft.describe(described.item));
    }
    let mut finished = draft.finish(args.k_core)?;
    if repeated > 0 {
        finished.notes.push(format!("{repeated} items described more than once: the first stands"));
    }
    if unpriced > 0 {
        finished.notes.push(format!("{unpriced} prices that are not one amount left out"));
    }
    Ok(finished)
}

fn review(file: &Path, line: &Line) -> Result<Review, ImportError> {
    let review: Review = serde_json::from_str(&line.text)
        .map_err(|error| ImportError::line(file, line.number, "review", error.to_string()))?;
    for (field, value) in [("reviewerID", &review.reviewer_id), ("asin", &review.asin)] {
        if value.trim().is_empty() {
            return Err(ImportError::line(file, line.number, field, "empty, expected an id"));
        }
    }
    Ok(review)
}

struct Described {
    item: DatasetItem,
    /// The price was something else than one amount.
    odd_price: bool,
}

fn describe(file: &Path, line: &Line) -> Result<Described, ImportError> {
    let wrong = |field: &str, problem: String| ImportError::line(file, line.number, field, problem);
    let value = serde_json::from_str(&line.text).or_else(|error| {
        // A line that opens as JSON is judged as JSON.
        let json = line.text.trim_start().starts_with("{\"");
        literal::parse(&line.text).map_err(|problem| wrong("item", if json { error.to_string() } else { problem }))
    })?;
    let Value::Object(fields) = value else {
        return Err(wrong("item", "expected an object with the item's fields".to_owned()));
    };
    let id = match fields.get("asin") {
        Some(Value::String(id)) if !id.trim().is_empty() => id.clone(),
        Some(other) => return Err(wrong("asin", format!("{other}, expected an id"))),
        None => return Err(wrong("asin", "missing".to_owned())),
    };
    let text = |name: &str| fields.get(name).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
    let title = text("title").map(str::to_owned);
    let categories = categories(fields.get("categories"), fields.get("category"));
    let (price, odd_price) = price(fields.get("price"));
    let mut parts: Vec<&str> = title.as_deref().into_iter().collect();
    for name in ["description", "feature"] {
        match fields.get(name) {
            Some(Value::Array(entries)) => parts.extend(entries.iter().filter_map(Value::as_str)),
            Some(Value::String(entry)) => parts.push(entry),
            _ => {}
        }
    }
    parts.retain(|part| !part.trim().is_empty());
    let text = (parts.len() > usize::from(title.is_some())).then(|| shorten(parts.join(". ")));
    let brand = fields.get("brand").and_then(Value::as_str).map(str::trim).filter(|brand| !brand.is_empty());
    let item = Item { id, title: title.clone(), brand: brand.map(str::to_owned), categories, price, eligible: true };
    Ok(Described { item: DatasetItem { item, text, embedding: None }, odd_price })
}

/// 2014: `categories`, a list of paths, of which the first counts. 2018: `category`, one path.
fn categories(paths: Option<&Value>, path: Option<&Value>) -> Vec<String> {
    let first = paths.and_then(|paths| paths.get(0)).filter(|path| path.is_array());
    let entries = first.or(path).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    entries.map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// A number, or a text such as `$12.99`; ranges and whatever else stands there in 2018 are no price.
fn price(value: Option<&Value>) -> (Option<f32>, bool) {
    let amount = match value {
        None | Some(Value::Null) => return (None, false),
        Some(Value::String(text)) if text.trim().is_empty() => return (None, false),
        Some(Value::String(text)) => text.trim().trim_start_matches('$').replace(',', "").parse::<f32>().ok(),
        Some(other) => other.as_f64().map(|amount| amount as f32),
    };
    let amount = amount.filter(|amount| amount.is_finite() && *amount >= 0.0);
    (amount, amount.is_none())
}

fn shorten(mut text: String) -> String {
    if text.len() > LONGEST_TEXT {
        let end = (0..=LONGEST_TEXT).rev().find(|&at| text.is_char_boundary(at)).unwrap_or_default();
        text.truncate(end);
    }
    text
}
