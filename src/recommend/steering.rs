//! A request's steering in the terms of one index.

use crate::catalog::View;
use crate::domain::{Steering, Token};
use crate::engine::{Bias, Limits};

/// Categories become sets of items, likes become tokens: an item with all tokens of a liked one gets all of its weight.
pub(super) fn bias(steering: &Steering, view: &View) -> Bias {
    let index = view.index();
    let set = |(name, nats): &(String, f32)| {
        let items = view.of_category(name);
        (!items.is_empty()).then_some((items, *nats))
    };
    let tokens = |(id, nats): &(String, f32)| {
        let code = index.number(id).map(|number| index.codes().code(number)).unwrap_or_default();
        let each = nats / code.len().max(1) as f32;
        let token = move |(codebook, &entry): (usize, &u16)| (Token { codebook: codebook as u8, entry }, each);
        code.iter().enumerate().map(token)
    };
    let Steering { max_per_category: per_category, limits, .. } = steering;
    let limits = Limits {
        per_category: *per_category,
        moved: per_category.map(|_| view.moved_categories()).unwrap_or_default(),
        sets: limits.iter().map(|(name, most)| (view.of_category(name), *most)).collect(),
    };
    Bias {
        limits,
        sets: steering.categories.iter().filter_map(set).collect(),
        tokens: steering.likes.iter().flat_map(tokens).collect(),
    }
}
