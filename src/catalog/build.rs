//! From items, one at a time, to an index.

use crate::domain::{CodeTable, Token};

use super::attributes::{Attributes, AttributesDraft};
use super::candidates::Candidates;
use super::code_order::CodeOrder;
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

/// An index for look-ups of paths may take so many bytes more for every item, and so many of them for masks.
const PATHS_BYTES: usize = 4;
const MASK_BYTES: usize = 2;

/// Takes items in the order of their numbers, and keeps of each what the index keeps: memory is that of the index and
/// about as much again while the look-ups are built.
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

    /// Makes the index one for look-ups of paths over the whole catalogue ([`NextTokens`](super::NextTokens)): a few times
    /// as fast at 10^7 items, for about two bytes an item more, some seconds of building, and postings in the order of codes.
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

    /// Builds the look-ups, on all threads. Item n has the code `codes.code(n)`.
    ///
    /// # Errors
    /// A code table of another length, or the first item whose id was there before.
    pub fn finish(self, codes: CodeTable, version: String) -> Result<Index, CatalogError> {
        let Self { ids, titles, attributes, mut priors, eligible, category_names, for_paths } = self;
        let items = priors.len();
        if items != codes.items() {
            return Err(CatalogError::Codes { items, codes: codes.items() });
        }
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
        let mut ids = ids.map_err(|(texts, twice)| CatalogError::Item {
            number: twice.again,
            id: texts.get(twice.again).unwrap_or_default().to_owned(),
            reason: format!("the id is already that of item {}", twice.first),
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

/// The items by token; of an index for paths by places, with what goes with that.
fn postings(codes: &CodeTable, eligible: &Candidates, for_paths: bool) -> (Postings, Option<Paths>) {
    if !for_paths {
        return (Postings::of_tokens(codes, 0), None);
    }
    let (order, by_place) = CodeOrder::of(codes);
    let postings = Postings::of_tokens(&by_place, 1);
    let codes_of = |token: Token| {
        let list = order.list(token, postings.of(codes.shape().flat(token)));
        let mut found = Vec::with_capacity(list.len() * codes.shape().codebooks);
        // By place, and so one after another.
        list.by_place(list.ends(), None).iter().for_each(|place| {
            if eligible.contains(list.item(place)) {
                found.extend(by_place.code(place));
            }
        });
        found
    };
    let room = (PATHS_BYTES * codes.items()).saturating_sub(order.bytes()).min(MASK_BYTES * codes.items());
    let crowds = Crowds::of(codes.shape(), room, codes_of);
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
