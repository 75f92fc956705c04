//! The synthetic shop's items: what they are called, where they stand, what they cost, how popular they are.

use std::collections::HashMap;

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};

use super::words::{BRAND_HEADS, BRAND_TAILS, Habit, LINES, SHELVES, STYLES, Shelf};
use crate::domain::{Item, ItemNumber};
use crate::training::dataset::DatasetItem;

/// Items that are bought together, of each item.
const COMPANIONS: usize = 4;
/// The first item's id: all ids have as many digits, for shops of up to 900,000 items.
const FIRST_ID: usize = 100_000;

/// What the simulation knows of an item beyond its description.
pub(super) struct Traits {
    pub(super) shelf: usize,
    pub(super) style: usize,
    pub(super) brand: usize,
    /// 0 cheap, 1 middling, 2 dear.
    pub(super) tier: usize,
    /// What is bought with it or after it, likeliest first.
    pub(super) companions: Vec<ItemNumber>,
}

/// All items, and how to draw from a shelf.
pub(super) struct Catalogue {
    pub(super) items: Vec<DatasetItem>,
    pub(super) traits: Vec<Traits>,
    /// Of each shelf.
    stock: Vec<Stock>,
}

/// A shelf's items with their popularity, summed up: a draw is one binary search.
#[derive(Default)]
struct Stock {
    items: Vec<ItemNumber>,
    cumulated: Vec<f64>,
}

struct Brand {
    name: String,
    department: &'static str,
    style: usize,
    tier: usize,
}

impl Catalogue {
    /// `count` items, at least as many as there are shelves (so that none is empty).
    pub(super) fn new(count: usize, rng: &mut impl Rng) -> Self {
        let brands = brands(count, rng);
        let mut places: Vec<usize> = (0..count).map(|item| item % SHELVES.len()).collect();
        places.shuffle(rng);
        let mut titles = HashMap::new();
        let mut items = Vec::with_capacity(count);
        let mut traits = Vec::with_capacity(count);
        for (number, shelf) in places.into_iter().enumerate() {
            let (item, character) = compose(number, shelf, &brands, &mut titles, rng);
            items.push(item);
            traits.push(character);
        }
        let stock = stock(&traits, rng);
        let mut catalogue = Self { items, traits, stock };
        for item in 0..count {
            catalogue.traits[item].companions = catalogue.companions(item as ItemNumber, rng);
        }
        catalogue
    }

    /// One item of a shelf, by popularity.
    pub(super) fn draw(&self, shelf: usize, rng: &mut impl Rng) -> ItemNumber {
        let stock = &self.stock[shelf];
        let total = stock.cumulated[stock.cumulated.len() - 1];
        let mark = rng.random_range(0.0..total);
        let at = stock.cumulated.partition_point(|&sum| sum <= mark);
        stock.items[at.min(stock.items.len() - 1)]
    }

    /// How people buy this item.
    pub(super) fn habit(&self, item: ItemNumber) -> Habit {
        SHELVES[self.traits[item as usize].shelf].habit
    }

    /// Things of the same aisle that share the item's style or brand, most of them from other shelves.
    fn companions(&self, item: ItemNumber, rng: &mut impl Rng) -> Vec<ItemNumber> {
        let own = &self.traits[item as usize];
        let beside = aisle(own.shelf);
        let mut companions: Vec<ItemNumber> = Vec::with_capacity(COMPANIONS);
        for attempt in 0..COMPANIONS * 12 {
            let shelf = beside[rng.random_range(0..beside.len())];
            let other = self.draw(shelf, rng);
            let traits = &self.traits[other as usize];
            // The last attempts take anything, so that a shelf without a match still leads somewhere.
            let fits = traits.style == own.style || traits.brand == own.brand || attempt >= COMPANIONS * 10;
            if fits && other != item && !companions.contains(&other) {
                companions.push(other);
                if companions.len() == COMPANIONS {
                    break;
                }
            }
        }
        companions
    }
}

/// The shelves of one shelf's aisle, itself among them.
pub(super) fn aisle(shelf: usize) -> Vec<usize> {
    let same = |other: &Shelf| other.department == SHELVES[shelf].department && other.aisle == SHELVES[shelf].aisle;
    (0..SHELVES.len()).filter(|&other| same(&SHELVES[other])).collect()
}

fn brands(items: usize, rng: &mut impl Rng) -> Vec<Brand> {
    let mut names: Vec<String> =
        BRAND_HEADS.iter().flat_map(|head| BRAND_TAILS.iter().map(move |tail| format!("{head}{tail}"))).collect();
    names.shuffle(rng);
    names.truncate((items / 15).clamp(24, names.len()));
    let mut departments: Vec<&'static str> = SHELVES.iter().map(|shelf| shelf.department).collect();
    departments.dedup();
    let named = names.into_iter().enumerate();
    let brands = named.map(|(at, name)| Brand {
        name,
        department: departments[at % departments.len()],
        style: rng.random_range(0..STYLES.len()),
        tier: rng.random_range(0..3),
    });
    brands.collect()
}

fn compose(
    number: usize,
    shelf: usize,
    brands: &[Brand],
    titles: &mut HashMap<String, usize>,
    rng: &mut impl Rng,
) -> (DatasetItem, Traits) {
    let place = &SHELVES[shelf];
    let own: Vec<usize> = (0..brands.len()).filter(|&at| brands[at].department == place.department).collect();
    let brand = own[rng.random_range(0..own.len())];
    let maker = &brands[brand];
    // Brands mostly keep to their style and price.
    let style = if rng.random_bool(0.6) { maker.style } else { rng.random_range(0..STYLES.len()) };
    let tier = if rng.random_bool(0.7) { maker.tier } else { rng.random_range(0..3) };
    let pick = |words: &[&'static str], rng: &mut _| words.choose(rng).copied().unwrap_or_default();
    let (noun, detail) = (pick(&place.nouns, rng), pick(&place.details, rng));
    let line = pick(&LINES, rng);
    let (style_name, style_text) = STYLES[style];
    let mut title = format!("{} {line} {style_name} {noun}, {detail}", maker.name);
    let count = titles.entry(title.clone()).or_insert(0);
    *count += 1;
    if *count > 1 {
        title = format!("{title}, No. {count}");
    }
    let text = format!("{title}. {noun} {detail}, {style_text}. {} for {}.", place.name, place.aisle);
    let price = place.price * [0.55, 1.0, 1.9][tier] * rng.random_range(0.75..1.3_f32);
    let item = Item {
        id: (FIRST_ID + number).to_string(),
        title: Some(title),
        brand: rng.random_bool(0.97).then(|| maker.name.clone()),
        categories: [place.department, place.aisle, place.name].map(str::to_owned).to_vec(),
        price: rng.random_bool(0.98).then(|| price.round().max(1.0) - 0.01),
        eligible: true,
    };
    let traits = Traits { shelf, style, brand, tier, companions: Vec::new() };
    (DatasetItem { item, text: Some(text), embedding: None }, traits)
}

/// Popularity falls off as in Zipf's law over the whole catalogue.
fn stock(traits: &[Traits], rng: &mut impl Rng) -> Vec<Stock> {
    let mut ranks: Vec<usize> = (0..traits.len()).collect();
    ranks.shuffle(rng);
    let mut shelves: Vec<Stock> = SHELVES.iter().map(|_| Stock::default()).collect();
    for (item, (character, rank)) in traits.iter().zip(ranks).enumerate() {
        let stock = &mut shelves[character.shelf];
        let before = stock.cumulated.last().copied().unwrap_or_default();
        stock.items.push(item as ItemNumber);
        stock.cumulated.push(before + (rank as f64 + 10.0).powf(-0.8));
    }
    shelves
}
