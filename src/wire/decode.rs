//! Requests as sent to requests as checked. Every field is read, and every violation named, before anything is refused.

use std::collections::BTreeMap;
use std::f32::consts::LN_2;
use std::fmt::Display;
use std::time::Duration;

use crate::domain::{DecodeOverrides, Engine, Event, EventKind, Failure, Filter, RecommendRequest, Steering};

use super::checks::{Checks, MAX_TEXT};
use super::v1;

/// How many items are answered when a request does not say.
pub const DEFAULT_K: usize = 10;
/// Most items of one answer.
pub const MAX_K: u32 = 1000;
/// Most events of an inline history.
pub const MAX_HISTORY: usize = 1000;
/// Most requests of one batch.
pub const MAX_BATCH: usize = 256;
/// Most entries of each list of a filter.
pub const MAX_FILTER: usize = 10_000;
/// Most attributes.
pub const MAX_ATTRIBUTES: usize = 64;
/// Longest value of an attribute, in bytes.
pub const MAX_ATTRIBUTE: usize = 1024;
/// Most categories that one request steers by.
pub const MAX_STEERED: usize = 100;
/// Most items that one request wants more or less like.
pub const MAX_LIKES: usize = 20;
/// Strongest steering, in nats.
pub const MAX_WEIGHT: f32 = 20.0;
/// Widest beam.
pub const MAX_BEAM: u32 = 1000;

/// What google.protobuf.Timestamp may hold: the years 1 to 9999, in Unix seconds.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// Checks one request.
///
/// # Errors
/// [`Failure::Invalid`] with a violation for every wrong field.
pub fn recommend(sent: v1::RecommendRequest) -> Result<RecommendRequest, Failure> {
    let mut checks = Checks::default();
    if sent.user_id.is_empty() && sent.history.is_empty() {
        checks.refuse("user_id", "is empty and so is `history`, expected at least one of them");
        checks.refuse("history", "is empty and so is `user_id`, expected at least one of them");
    }
    let request = RecommendRequest {
        request_id: checks.text("request_id", sent.request_id, MAX_TEXT),
        user_id: checks.text("user_id", sent.user_id, MAX_TEXT),
        history: history(&mut checks, sent.history),
        k: sent.k.map_or(DEFAULT_K, |k| checks.within("k", k, 1..=MAX_K)),
        filter: sent.filter.map(|sent| filter(&mut checks, sent)).unwrap_or_default(),
        explain: sent.explain,
        variant: checks.text("variant", sent.variant, MAX_TEXT),
        decode: sent.decode.map(|sent| overrides(&mut checks, sent)).unwrap_or_default(),
        steering: sent.steering.map(|sent| steering(&mut checks, sent)).unwrap_or_default(),
        attributes: attributes(&mut checks, sent.attributes),
        timeout: sent.timeout.and_then(|sent| timeout(&mut checks, sent)),
        // Not in the message: the call's metadata may name one.
        forced: None,
    };
    checks.finish().map(|()| request).map_err(Failure::Invalid)
}

/// Checks the requests of a batch, each on its own.
///
/// # Errors
/// [`Failure::Invalid`] when the batch itself is empty or too large.
pub fn batch(sent: v1::RecommendBatchRequest) -> Result<Vec<Result<RecommendRequest, Failure>>, Failure> {
    let mut checks = Checks::default();
    if sent.requests.is_empty() {
        checks.refuse("requests", format!("is empty, expected 1 to {MAX_BATCH} requests"));
    }
    checks.count("requests", sent.requests.len(), MAX_BATCH);
    checks.finish().map_err(Failure::Invalid)?;
    Ok(sent.requests.into_iter().map(recommend).collect())
}

fn timeout(checks: &mut Checks, sent: prost_types::Duration) -> Option<Duration> {
    let read = Duration::try_from(sent).ok().filter(|timeout| !timeout.is_zero());
    if read.is_none() {
        checks.refuse("timeout", format!("is {} s and {} ns, expected more than 0", sent.seconds, sent.nanos));
    }
    read
}

fn history(checks: &mut Checks, sent: Vec<v1::Event>) -> Vec<Event> {
    checks.count("history", sent.len(), MAX_HISTORY);
    // Events without a time before the first that has one take its time, so that no gap of decades opens.
    let first = sent.iter().find_map(|event| event.time.map(|time| time.seconds)).unwrap_or_default();
    let (mut before, mut before_at) = (first, None);
    let mut events = Vec::with_capacity(sent.len().min(MAX_HISTORY));
    for (at, event) in sent.into_iter().take(MAX_HISTORY).enumerate() {
        let time = event.time.map_or(before, |time| {
            timestamp(checks, format!("history[{at}].time"), time);
            if let (true, Some(earlier)) = (time.seconds < before, before_at) {
                let expected = format!("is before history[{earlier}].time, expected the oldest event first");
                checks.refuse(format!("history[{at}].time"), expected);
            }
            before_at = Some(at);
            time.seconds
        });
        before = time;
        events.push(Event {
            item_id: checks.name(format_args!("history[{at}].item_id"), event.item_id),
            kind: kind(checks, format_args!("history[{at}].kind"), event.kind),
            time,
            value: event.value.map(|value| checks.finite(format_args!("history[{at}].value"), value)),
        });
    }
    events
}

pub(super) fn timestamp(checks: &mut Checks, field: String, time: prost_types::Timestamp) {
    if !SECONDS.contains(&time.seconds) {
        checks.refuse(field, format!("is {} s, expected the years 1 to 9999", time.seconds));
    } else if !(0..1_000_000_000).contains(&time.nanos) {
        checks.refuse(field, format!("has {} ns, expected 0 to 999999999", time.nanos));
    }
}

pub(super) fn kind(checks: &mut Checks, field: impl Display, number: i32) -> EventKind {
    match v1::EventKind::try_from(number) {
        Ok(v1::EventKind::Unspecified | v1::EventKind::View) => EventKind::View,
        Ok(v1::EventKind::Click) => EventKind::Click,
        Ok(v1::EventKind::Cart) => EventKind::Cart,
        Ok(v1::EventKind::Purchase) => EventKind::Purchase,
        Ok(v1::EventKind::Hide) => EventKind::Hide,
        Ok(v1::EventKind::Rating) => EventKind::Rating,
        Err(_) => {
            checks.refuse(field.to_string(), format!("is {number}, expected an EventKind (0 to 6)"));
            EventKind::View
        }
    }
}

fn filter(checks: &mut Checks, sent: v1::Filter) -> Filter {
    let price = sent.price.unwrap_or_default();
    let min_price = price.min.map(|min| checks.up_to("filter.price.min", min, f32::MAX));
    let max_price = price.max.map(|max| checks.up_to("filter.price.max", max, f32::MAX));
    if let (Some(min), Some(max)) = (min_price, max_price)
        && min > max
    {
        checks.refuse("filter.price", format!("min {min} is above max {max}"));
    }
    Filter {
        exclude_items: checks.names("filter.exclude_items", sent.exclude_items, MAX_FILTER),
        include_categories: checks.names("filter.include_categories", sent.include_categories, MAX_FILTER),
        exclude_categories: checks.names("filter.exclude_categories", sent.exclude_categories, MAX_FILTER),
        include_brands: checks.names("filter.include_brands", sent.include_brands, MAX_FILTER),
        exclude_brands: checks.names("filter.exclude_brands", sent.exclude_brands, MAX_FILTER),
        min_price,
        max_price,
        exclude_seen: sent.exclude_seen,
    }
}

fn steering(checks: &mut Checks, sent: v1::Steering) -> Steering {
    checks.count("steering.categories", sent.categories.len(), MAX_STEERED);
    checks.count("steering.likes", sent.likes.len(), MAX_LIKES);
    let categories = sent.categories.into_iter().take(MAX_STEERED).enumerate().map(|(at, one)| {
        let name = checks.name(format_args!("steering.categories[{at}].category"), one.category);
        (name, weight(checks, format_args!("steering.categories[{at}].weight"), one.weight))
    });
    let categories = categories.collect();
    let likes = sent.likes.into_iter().take(MAX_LIKES).enumerate().map(|(at, one)| {
        let id = checks.name(format_args!("steering.likes[{at}].item_id"), one.item_id);
        (id, weight(checks, format_args!("steering.likes[{at}].weight"), one.weight))
    });
    let likes = likes.collect();
    let max_per_category =
        sent.max_per_category.map(|most| checks.within("steering.max_per_category", most, 1..=MAX_K));
    checks.count("steering.limits", sent.limits.len(), MAX_STEERED);
    let limits = sent.limits.into_iter().take(MAX_STEERED).enumerate().map(|(at, one)| {
        let name = checks.name(format_args!("steering.limits[{at}].category"), one.category);
        (name, checks.within(&format!("steering.limits[{at}].most"), one.most, 0..=MAX_K))
    });
    let limits = limits.collect();
    Steering { categories, likes, max_per_category, limits }
}

fn weight(checks: &mut Checks, field: impl Display, weight: f32) -> f32 {
    if !(-MAX_WEIGHT..=MAX_WEIGHT).contains(&weight) {
        checks.refuse(field.to_string(), format!("is {weight}, expected -{MAX_WEIGHT} to {MAX_WEIGHT}"));
    }
    weight
}

fn overrides(checks: &mut Checks, sent: v1::DecodeOptions) -> DecodeOverrides {
    let engine = match v1::Engine::try_from(sent.engine) {
        Ok(v1::Engine::Unspecified) => None,
        Ok(v1::Engine::Beam) => Some(Engine::Beam),
        Ok(v1::Engine::Exact) => Some(Engine::Exact),
        Ok(v1::Engine::Draft) => Some(Engine::Draft),
        Err(_) => {
            checks.refuse("decode.engine", format!("is {}, expected an Engine (0 to 3)", sent.engine));
            None
        }
    };
    DecodeOverrides {
        beam: sent.beam.map(|beam| checks.within("decode.beam", beam, 1..=MAX_BEAM)),
        theta: sent.theta.map(|theta| checks.up_to("decode.theta", theta, LN_2)),
        corp: sent.corp,
        full_path: sent.full_path,
        engine,
    }
}

fn attributes(checks: &mut Checks, sent: Vec<v1::recommend_request::AttributesEntry>) -> BTreeMap<String, String> {
    checks.count("attributes", sent.len(), MAX_ATTRIBUTES);
    let mut attributes = BTreeMap::new();
    for entry in sent.into_iter().take(MAX_ATTRIBUTES) {
        let shown = String::from_utf8_lossy(&entry.key).chars().take(MAX_TEXT).collect::<String>();
        let key = checks.name(format_args!("attributes[{shown:?}]"), entry.key);
        let value = checks.text(format_args!("attributes[{shown:?}]"), entry.value, MAX_ATTRIBUTE);
        // A key that comes twice keeps its last value, as in every protobuf map.
        attributes.insert(key, value);
    }
    attributes
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
