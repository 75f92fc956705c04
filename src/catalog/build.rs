//! From items, one at a time, to an index.

use crate::domain::{CodeTable, ItemNumber, Token};

use super::attributes::{Attributes, AttributesDraft};
use super::candidates::Candidates;
use super::code_order::{CodeOrder, in_code_order};
use super::cooccurrence::Cooccurrence;
use super::crowds::Crowds;
use super::dictionary::{Dictionary, Texts};
use super::index::{CatalogError, CatalogItem, Index, Paths};
use super::postings::Postings;
use super::titles::{TitleTexts, Titles};

/// One item, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The owner's id.
    pub id: &'a str,
    /// A short human-readable name.
    pub title: Option<&'a str>,
    /// Maker or label.
    pub brand: Option<&'a str>,
    /// Price; finite and not negative.
    pub price: Option<f32>,
    /// Whether it may be recommended.
    pub eligible: bool,
    /// Its class of the category head: below the number of category names.
    pub category: u32,
    /// Smoothed log popularity in the training part; finite.
    pub prior: f32,
}

impl<'a> From<&'a CatalogItem> for Row<'a> {
    fn from(entry: &'a CatalogItem) -> Self {
        let item = &entry.item;
        Row {
            id: &item.id,
            title: item.title.as_deref(),
            brand: item.brand.as_deref(),
            price: item.price,
            eligible: item.eligible,
            category: entry.category,
            prior: entry.prior,
        }
    }
}

/// An index for look-ups of paths may take so many bytes more for every item, for masks.
const MASK_BYTES: usize = 2;

/// Takes items in the order of their numbers, unless it numbers them itself ([`Self::for_paths`]), and keeps of each what the
/// index keeps: memory is that of the index and about as much again while the look-ups are built.
#[derive(Debug)]
pub struct IndexBuilder {
    ids: Texts,
    titles: TitleTexts,
    attributes: AttributesDraft,
    priors: Vec<f32>,
    eligible: Vec<u64>,
    category_names: Vec<String>,
    for_paths: bool,
}

impl IndexBuilder {
    /// No items yet; `category_names[c]` is the name of class c of the category head.
    pub fn new(category_names: Vec<String>) -> Self {
        Self {
            ids: Texts::default(),
            titles: TitleTexts::default(),
            attributes: AttributesDraft::default(),
            priors: Vec::new(),
            eligible: Vec::new(),
            category_names,
            for_paths: false,
        }
    }

    /// Makes the index one for look-ups of paths over the whole catalogue ([`NextTokens`](super::NextTokens)): four to six
    /// times as fast at 10^7 items, for some seconds of building. Its items are numbered in the order of their codes, not
    /// as they come; those of the same code as they come.
    pub fn for_paths(self) -> Self {
        Self { for_paths: true, ..self }
    }

    /// Items taken so far.
    pub fn len(&self) -> usize {
        self.priors.len()
    }

    /// Whether none was taken.
    pub fn is_empty(&self) -> bool {
        self.priors.is_empty()
    }

    /// Takes the next item; `categories` is its path, coarse to fine.
    ///
    /// # Errors
    /// When its id is empty, its price negative or no number, its category without a name, its prior not finite, or when
    /// there are more items than numbers.
    pub fn push<'a>(&mut self, row: &Row<'_>, categories: impl Iterator<Item = &'a str>) -> Result<(), CatalogError> {
        let number = self.len();
        if let Some(reason) = fault(row, self.category_names.len()) {
            return Err(CatalogError::Item { number, id: row.id.to_owned(), reason });
        }
        // One less than there are numbers: a look-up keeps them plus one.
        if number >= u32::MAX as usize {
            return Err(CatalogError::Codes { items: number + 1, codes: number });
        }
        self.ids.push(row.id);
        self.titles.push(row.title);
        self.attributes.push(row.category, categories, row.brand, row.price);
        self.priors.push(row.prior);
        if number.is_multiple_of(64) {
            self.eligible.push(0);
        }
        if let Some(word) = self.eligible.last_mut() {
            *word |= u64::from(row.eligible) << (number % 64);
        }
        Ok(())
    }

    /// Builds the look-ups, on all threads. The item that came n-th has the code `codes.code(n)`.
    ///
    /// # Errors
    /// A code table of another length, or an item whose id was there before.
    pub fn finish(self, codes: CodeTable, version: String) -> Result<Index, CatalogError> {
        if self.len() != codes.items() {
            return Err(CatalogError::Codes { items: self.len(), codes: codes.items() });
        }
        let order = if self.for_paths { in_code_order(&codes) } else { None };
        match order {
            Some(order) => {
                let ordered = codes.in_order(order.iter().copied());
                drop(codes);
                self.in_order(&order).index(ordered, version, |number| order[number] as usize)
            }
            None => self.index(codes, version, |number| number),
        }
    }

    /// These items, numbered in this order.
    fn in_order(self, items: &[ItemNumber]) -> Self {
        let Self { ids, titles, attributes, priors, eligible, .. } = self;
        let was_eligible = |item: ItemNumber| u64::from(eligible[item as usize / 64] >> (item % 64) & 1 == 1);
        let word = |items: &[ItemNumber]| {
            items.iter().enumerate().fold(0, |word, (at, &item)| word | was_eligible(item) << at)
        };
        let (ids, (titles, attributes)) =
            rayon::join(|| ids.in_order(items), || (titles.in_order(items), attributes.in_order(items)));
        Self {
            ids,
            titles,
            attributes,
            priors: items.iter().map(|&item| priors[item as usize]).collect(),
            eligible: items.chunks(64).map(word).collect(),
            ..self
        }
    }

    /// Of items as they are numbered; `came` tells as which an item came.
    fn index(self, codes: CodeTable, version: String, came: impl Fn(usize) -> usize) -> Result<Index, CatalogError> {
        let Self { ids, titles, attributes, mut priors, eligible, category_names, for_paths } = self;
        let items = priors.len();
        let eligible = Candidates::of_words(items, eligible).unwrap_or_else(|| Candidates::none(items));
        let (ids, (((postings, paths), cooccurrence), attributes)) = rayon::join(
            || Dictionary::of(ids),
            || {
                rayon::join(
                    || (postings(&codes, &eligible, for_paths), Cooccurrence::of(&codes, &eligible)),
                    || Attributes::of(attributes),
                )
            },
        );
        let mut ids = ids.map_err(|(texts, twice)| {
            let id = texts.get(twice.again).unwrap_or_default().to_owned();
            let (one, other) = (came(twice.first), came(twice.again));
            let reason = format!("the id is already that of item {}", one.min(other));
            CatalogError::Item { number: one.max(other), id, reason }
        })?;
        ids.texts.shrink();
        priors.shrink_to_fit();
        let titles = Titles::Memory(titles);
        Ok(Index {
            codes,
            ids,
            titles,
            attributes,
            priors,
            eligible,
            postings,
            cooccurrence,
            paths,
            category_names,
            version,
        })
    }
}

/// The items by token; of an index for paths, whose items are in the order of their codes, with what goes with that.
fn postings(codes: &CodeTable, eligible: &Candidates, for_paths: bool) -> (Postings, Option<Paths>) {
    if !for_paths {
        return (Postings::of_tokens(codes, 0), None);
    }
    let (order, postings) = (CodeOrder::of(codes), Postings::of_tokens(codes, 1));
    let codes_of = |token: Token| {
        let list = order.list(token, postings.of(codes.shape().flat(token)));
        let mut found = Vec::with_capacity(list.len() * codes.shape().codebooks);
        list.iter().filter(|&item| eligible.contains(item)).for_each(|item| found.extend(codes.code(item)));
        found
    };
    let crowds = Crowds::of(codes.shape(), MASK_BYTES * codes.items(), codes_of);
    (postings, Some(Paths { order, crowds }))
}

/// What is wrong with an item on its own, if anything.
fn fault(row: &Row<'_>, categories: usize) -> Option<String> {
    if row.id.is_empty() {
        return Some("the id is empty".to_owned());
    }
    if let Some(price) = row.price
        && !(price.is_finite() && price >= 0.0)
    {
        return Some(format!("price {price}: expected a finite number that is not negative"));
    }
    if row.category as usize >= categories {
        return Some(format!("category {}: expected a number below {categories}", row.category));
    }
    if !row.prior.is_finite() {
        return Some(format!("prior {}: expected a finite number", row.prior));
    }
    None
}
