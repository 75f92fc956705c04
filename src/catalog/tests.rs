//! Facts about the index, held against slow and obvious ways to the same answer.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;

use crate::domain::{CodeShape, CodeTable, Filter, Item, ItemNumber, Token};

use super::{Candidates, CatalogError, CatalogItem, Cooccurrence, Index, IndexBuilder, Row};

fn entry(id: &str) -> CatalogItem {
    let item = Item { id: id.into(), title: None, brand: None, categories: vec![], price: None, eligible: true };
    CatalogItem { item, category: 0, prior: 0.0 }
}

fn build(items: Vec<CatalogItem>, shape: CodeShape, entries: Vec<u16>) -> Result<Index, CatalogError> {
    Index::build(items, CodeTable::new(shape, entries).unwrap(), vec!["any".into()], "7".into())
}

/// The reason why these items are refused.
fn refusal(change: impl Fn(&mut CatalogItem)) -> String {
    let mut items = vec![entry("a"), entry("b")];
    change(&mut items[1]);
    build(items, CodeShape { codebooks: 1, entries: 2 }, vec![0, 1]).unwrap_err().to_string()
}

#[test]
fn a_bad_item_is_named_with_the_reason() {
    assert_eq!(refusal(|b| b.item.id = "a".into()), "item 1 (id \"a\"): the id is already that of item 0");
    assert_eq!(refusal(|b| b.item.id = String::new()), "item 1 (id \"\"): the id is empty");
    assert_eq!(refusal(|b| b.category = 1), "item 1 (id \"b\"): category 1: expected a number below 1");
    assert!(refusal(|b| b.item.price = Some(f32::NAN)).starts_with("item 1 (id \"b\"): price NaN"));
    assert!(refusal(|b| b.item.price = Some(-1.0)).contains("not negative"));
    assert!(refusal(|b| b.prior = f32::NEG_INFINITY).contains("prior -inf"));
    let short = build(vec![entry("a")], CodeShape { codebooks: 1, entries: 2 }, vec![0, 1]);
    assert_eq!(short.unwrap_err(), CatalogError::Codes { items: 1, codes: 2 });
}

#[test]
fn an_index_for_paths_numbers_items_in_the_order_of_their_codes_and_keeps_what_is_theirs() {
    let shape = CodeShape { codebooks: 2, entries: 7 };
    let entries: Vec<u16> = (0..300u32).map(|at| (at.wrapping_mul(0x9E37_79B9) >> 9) as u16 % 7).collect();
    let items: Vec<CatalogItem> = (0..150u32)
        .map(|n| CatalogItem {
            item: Item {
                id: format!("item-{n}"),
                title: (n % 3 != 0).then(|| format!("Title {n}")),
                brand: (n % 4 != 0).then(|| format!("brand {}", n % 9)),
                categories: (0..n % 3).map(|level| format!("level {level} {}", n % 5)).collect(),
                price: (n % 5 != 0).then_some(n as f32),
                eligible: n % 6 != 0,
            },
            category: n % 2,
            prior: -(n as f32),
        })
        .collect();
    let index = |items: &[CatalogItem]| {
        let mut builder = IndexBuilder::new(vec!["a".into(), "b".into()]).for_paths();
        for entry in items {
            builder.push(&Row::from(entry), entry.item.categories.iter().map(String::as_str)).unwrap();
        }
        builder.finish(CodeTable::new(shape, entries.clone()).unwrap(), "7".into())
    };
    let found = index(&items).unwrap();
    for (entry, code) in items.iter().zip(entries.chunks(2)) {
        let number = found.number(&entry.item.id).unwrap();
        assert_eq!((found.item(number), found.codes().code(number).to_vec()), (entry.clone(), code.to_vec()));
        assert_eq!(found.is_eligible(number), entry.item.eligible);
    }
    // By code, and those of one code as they came.
    let came = |number| -> usize { found.item(number).item.id["item-".len()..].parse().unwrap() };
    let keys: Vec<(Vec<u16>, usize)> =
        (0..150).map(|number| (found.codes().code(number).to_vec(), came(number))).collect();
    assert!(keys.is_sorted());

    let mut twice = items;
    twice[140].item.id = "item-3".into();
    let refused = index(&twice).unwrap_err().to_string();
    assert_eq!(refused, "item 140 (id \"item-3\"): the id is already that of item 3");
}

#[test]
fn an_index_of_nothing_works() {
    let index = build(vec![], CodeShape { codebooks: 2, entries: 2 }, vec![]).unwrap();
    let root = index.root(&Filter { max_price: Some(1.0), ..Filter::default() }, &[0, 5]);
    assert!(index.is_empty() && root.is_empty() && index.popular(&root, 3).is_empty());
    assert!(index.postings(Token { codebook: 1, entry: 1 }).is_empty());
}

#[test]
fn items_are_found_by_id_and_by_token() {
    let shape = CodeShape { codebooks: 2, entries: 3 };
    let index = build(vec![entry("x"), entry("y"), entry("z")], shape, vec![0, 2, 1, 2, 0, 0]).unwrap();
    assert_eq!((index.number("y"), index.number("w")), (Some(1), None));
    assert_eq!(index.postings(Token { codebook: 0, entry: 0 }).to_vec(), [0, 2]);
    assert_eq!(index.postings(Token { codebook: 1, entry: 2 }).to_vec(), [0, 1]);
    assert!(index.postings(Token { codebook: 1, entry: 1 }).is_empty());
    let together = index.cooccurrence().unwrap();
    let token = |codebook, entry| Token { codebook, entry };
    assert!(together.together(token(0, 1), token(1, 2)) && together.together(token(1, 2), token(0, 1)));
    assert!(!together.together(token(0, 1), token(1, 0)) && !together.together(token(1, 1), token(1, 1)));
    assert_eq!(together.mask(token(0, 0)), [0b10_1001]);
}

#[test]
fn large_codes_go_without_the_mask() {
    let shape = CodeShape { codebooks: 1, entries: Cooccurrence::MOST_TOKENS + 1 };
    assert!(build(vec![entry("x")], shape, vec![0]).unwrap().cooccurrence().is_none());
}

#[test]
fn popular_items_come_by_prior_then_number() {
    let mut items: Vec<CatalogItem> = (0..5).map(|n| entry(&n.to_string())).collect();
    for (item, prior) in items.iter_mut().zip([-2.0, -1.0, -2.0, -3.0, -1.0]) {
        item.prior = prior;
    }
    let index = build(items, CodeShape { codebooks: 1, entries: 2 }, vec![0; 5]).unwrap();
    let root = index.root(&Filter::default(), &[1]);
    assert_eq!(index.popular(&root, 3), [4, 0, 2]);
    assert_eq!(index.popular(&root, 10), [4, 0, 2, 3]);
    assert!(index.popular(&root, 0).is_empty());
}

#[test]
fn a_price_bound_is_inclusive_and_wants_a_price() {
    let mut items: Vec<CatalogItem> = (0..4).map(|n| entry(&n.to_string())).collect();
    for (item, price) in items.iter_mut().zip([Some(5.0), None, Some(1.0), Some(0.0)]) {
        item.item.price = price;
    }
    let index = build(items, CodeShape { codebooks: 1, entries: 2 }, vec![0; 4]).unwrap();
    let between = |min_price, max_price| -> Vec<ItemNumber> {
        index.root(&Filter { min_price, max_price, ..Filter::default() }, &[]).iter().collect()
    };
    assert_eq!(between(Some(1.0), Some(5.0)), [0, 2]);
    assert_eq!(between(Some(1.1), None), [0]);
    assert_eq!(between(None, Some(1.0)), [2, 3]);
    assert!(between(Some(3.0), Some(2.0)).is_empty() && between(Some(f32::NAN), None).is_empty());
}

/// What the filter means, item by item.
fn passes(filter: &Filter, item: &Item) -> bool {
    let among = |names: &[String]| item.categories.iter().any(|category| names.contains(category));
    let branded = |names: &[String]| item.brand.as_ref().is_some_and(|brand| names.contains(brand));
    let (min, max) = (filter.min_price, filter.max_price);
    item.eligible
        && !filter.exclude_items.contains(&item.id)
        && (filter.include_categories.is_empty() || among(&filter.include_categories))
        && !among(&filter.exclude_categories)
        && (filter.include_brands.is_empty() || branded(&filter.include_brands))
        && !branded(&filter.exclude_brands)
        && min.is_none_or(|min| item.price.is_some_and(|price| price >= min))
        && max.is_none_or(|max| item.price.is_some_and(|price| price <= max))
}

fn names(prefix: &'static str) -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec((0..6u8).prop_map(move |n| format!("{prefix}{n}")), 0..3)
}

prop_compose! {
    fn any_item()(
        categories in names("c"),
        brand in prop::option::of((0..5u8).prop_map(|n| format!("b{n}"))),
        price in prop::option::of((0..9u8).prop_map(f32::from)),
        eligible in prop::bool::weighted(0.9),
    ) -> Item {
        Item { id: String::new(), title: None, brand, categories, price, eligible }
    }
}

prop_compose! {
    fn any_filter()(
        exclude_items in prop::collection::vec((0..90u8).prop_map(|n| n.to_string()), 0..4),
        (include_categories, exclude_categories) in (names("c"), names("c")),
        (include_brands, exclude_brands) in (names("b"), names("b")),
        min_price in prop::option::of((0..9u8).prop_map(f32::from)),
        max_price in prop::option::of((0..9u8).prop_map(f32::from)),
    ) -> Filter {
        Filter {
            exclude_items, include_categories, exclude_categories, include_brands, exclude_brands, min_price, max_price,
            exclude_seen: false,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_root_is_what_passes_the_filter_item_by_item(
        items in prop::collection::vec(any_item(), 0..80),
        filter in any_filter(),
        exclude in prop::collection::vec(0u32..100, 0..4),
    ) {
        let items: Vec<CatalogItem> = items
            .into_iter()
            .enumerate()
            .map(|(n, item)| CatalogItem { item: Item { id: n.to_string(), ..item }, category: 0, prior: 0.0 })
            .collect();
        let wanted: Vec<ItemNumber> = (0..items.len() as u32)
            .filter(|n| passes(&filter, &items[*n as usize].item) && !exclude.contains(n))
            .collect();
        let codes = vec![0; items.len()];
        let index = build(items, CodeShape { codebooks: 1, entries: 2 }, codes).unwrap();
        let root = index.root(&filter, &exclude);
        prop_assert_eq!(root.iter().collect::<Vec<_>>(), wanted.clone());
        prop_assert_eq!(root.len(), wanted.len());
        prop_assert_eq!(&root, &Candidates::of(index.len(), wanted));
    }
}
