//! The items that the candidate knows: those of the present bundle, and new ones tokenised on the way.

use std::collections::HashMap;

use burn::backend::Flex;
use burn::tensor::{Tensor, TensorData};
use sha2::{Digest, Sha256};

use crate::artifact::LoadedBundle;
use crate::catalog::{CatalogItem, Index};
use crate::domain::{CodeTable, Item};
use crate::model::{Network, NetworkConfig};
use crate::tokenizer::{Likeness, Tokenizer};
use crate::training::dataset::DatasetItem;
use crate::training::fit::item_source;
use crate::training::newcomers::{Arrival, Launch};

/// The class of items that have no other, as a fit names it.
const UNCATEGORISED: &str = "uncategorised";

/// Items, codes, and a network to go on from.
#[derive(Debug)]
pub struct Catalogue {
    /// All items with their codes, those of the present bundle first, with its priors.
    pub index: Index,
    /// The bundle's network with a residual for every item. It reads no features: those are in the residuals.
    pub network: Network<Flex>,
    /// Its sizes.
    pub config: NetworkConfig,
    /// Items that the present bundle has.
    pub known: usize,
    /// New items that could not be added, and why.
    pub left_out: Option<(usize, String)>,
}

impl Catalogue {
    /// The catalogue of `bundle`, and of `items` those that it does not know, tokenised by its tokenizer and started from
    /// the likest of the known items that `items` describes too. What cannot be added is left out and told.
    ///
    /// # Errors
    /// When the bundle's weights do not fit its sizes.
    pub fn of(bundle: &LoadedBundle, items: &[DatasetItem]) -> anyhow::Result<Self> {
        let config = NetworkConfig { feature_width: 0, own_residuals: true, ..bundle.manifest.network.clone() };
        let network = bundle.network::<Flex>(&Default::default())?.without_features();
        let known = bundle.index.len();
        let plain = Self { index: bundle.index.clone(), network, config, known, left_out: None };
        let new: Vec<&DatasetItem> = items.iter().filter(|item| bundle.index.number(&item.item.id).is_none()).collect();
        if new.is_empty() {
            return Ok(plain);
        }
        match Tokenizer::from_bytes(&bundle.codebooks) {
            Ok(tokenizer) => plain.grown(&tokenizer, items, new),
            Err(error) => {
                let reason = format!("the bundle's tokenizer cannot be read: {error}");
                Ok(Self { left_out: Some((new.len(), reason)), ..plain })
            }
        }
    }

    fn grown(mut self, tokenizer: &Tokenizer, items: &[DatasetItem], new: Vec<&DatasetItem>) -> anyhow::Result<Self> {
        let classes: HashMap<&str, u32> =
            (0u32..).zip(self.index.category_names()).map(|(at, name)| (name.as_str(), at)).collect();
        let all = new.len();
        let new: Vec<(&DatasetItem, u32)> =
            new.into_iter().filter_map(|item| Some((item, class(&classes, &item.item)?))).collect();
        if new.len() < all {
            let reason = "no class of the bundle is one of their categories".to_owned();
            self.left_out = Some((all - new.len(), reason));
        }
        if new.is_empty() {
            return Ok(self);
        }
        let sources: Vec<_> = new.iter().map(|(item, _)| item_source(item)).collect();
        let rows = tokenizer.features().rows(&sources)?;
        let codes = tokenizer.tokenize(&rows)?;
        let shape = self.index.codes().shape();
        let entries = [self.index.codes().entries(), codes.entries()].concat();
        let codes = CodeTable::new(shape, entries).map_err(|wrong| anyhow::anyhow!("codes of new items: {wrong}"))?;
        // As smoothed popularity has it that nobody took.
        let least = (0..self.index.len() as u32).map(|item| self.index.prior(item)).fold(f32::INFINITY, f32::min);
        let added = new.iter().map(|&(item, category)| CatalogItem { item: item.item.clone(), category, prior: least });
        let rows_of_all = self.index.items().chain(added).collect();
        let names = self.index.category_names().to_vec();
        let numbered = |item| -> Option<(&DatasetItem, u32)> { Some((item, self.index.number(&item.item.id)?)) };
        let mut described: Vec<(&DatasetItem, u32)> = items.iter().filter_map(numbered).collect();
        // Where nobody describes the known items, likeness goes by what the bundle keeps of all.
        let by_bundle = described.is_empty();
        let kept: Vec<DatasetItem> =
            self.index.items().filter(|_| by_bundle).map(|row| undescribed(row.item)).collect();
        described.extend(kept.iter().zip(0..));
        let likened = if by_bundle {
            let new: Vec<DatasetItem> = new.iter().map(|(item, _)| undescribed(item.item.clone())).collect();
            tokenizer.features().rows(&new.iter().map(item_source).collect::<Vec<_>>())?
        } else {
            rows
        };
        self.index = Index::build(rows_of_all, codes, names, "candidate".to_owned())?;

        self.config.items = self.index.len();
        let device = Default::default();
        let padding = Tensor::<Flex, 2>::from_data(
            TensorData::new(vec![0.0f32; new.len() * self.config.width], [new.len(), self.config.width]),
            &device,
        );
        let residuals = Tensor::cat(vec![self.network.residuals(), padding], 0);
        self.network = self.network.with_residuals(residuals);
        // With nothing to be like, a new item is what its tokens say.
        if !described.is_empty() {
            let known: Vec<_> = described.iter().map(|(item, _)| item_source(item)).collect();
            let known = tokenizer.features().rows(&known)?;
            let numbers: Vec<u32> = described.iter().map(|&(_, number)| number).collect();
            let newcomers: Vec<u32> = (self.known as u32..self.index.len() as u32).collect();
            let arrival = Arrival {
                config: &self.config,
                codes: self.index.codes(),
                known: (&numbers, &Likeness::of(&known, 0..numbers.len())),
                newcomers: (&newcomers, &Likeness::of(&likened, 0..newcomers.len())),
                histories: &[],
            };
            self.network = arrival.settle(self.network, Launch::default(), &device)?;
        }
        Ok(self)
    }

    /// Stands for the new items: others have another, and none have always the same.
    pub fn fingerprint(&self) -> String {
        let mut sum = Sha256::new();
        for row in self.index.items().skip(self.known) {
            sum.update(row.item.id.as_bytes());
            sum.update([0]);
        }
        sum.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// New items.
    pub fn added(&self) -> usize {
        self.index.len() - self.known
    }

    /// The index with priors that count the events of `taken` too; `events` were counted by the present ones.
    ///
    /// # Errors
    /// Never, unless a prior of the bundle is beyond all measure.
    pub fn with_priors(&self, taken: &[u32], events: u64) -> anyhow::Result<Index> {
        let before = (events + self.known as u64) as f64;
        let counts: Vec<f64> = (0u32..)
            .zip(taken)
            .take(self.index.len())
            .map(|(item, &count)| f64::from(self.index.prior(item)).exp() * before + f64::from(count))
            .collect();
        let total: f64 = counts.iter().sum();
        let rows = self.index.items().zip(counts);
        let rows = rows.map(|(row, count)| CatalogItem { prior: (count / total).ln() as f32, ..row });
        let (codes, names) = (self.index.codes().clone(), self.index.category_names().to_vec());
        Ok(Index::build(rows.collect(), codes, names, "candidate".to_owned())?)
    }
}

/// The item as a bundle keeps it.
fn undescribed(item: Item) -> DatasetItem {
    DatasetItem { item, text: None, embedding: None }
}

/// The finest class of the bundle that the item's categories lead to.
fn class(classes: &HashMap<&str, u32>, item: &Item) -> Option<u32> {
    let paths = (1..=item.categories.len()).rev().map(|level| item.categories[..level].join(" > "));
    let found = paths.into_iter().find_map(|path| classes.get(path.as_str()).copied());
    found.or_else(|| classes.get(UNCATEGORISED).copied())
}
