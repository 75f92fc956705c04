//! Which modalities an item's feature row has, how wide and how heavy.

use serde::{Deserialize, Serialize};

use crate::domain::Violation;

/// One source of information about an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Modality {
    /// What the item is: a given embedding, or its text.
    Content,
    /// What users have together with it.
    Behaviour,
    /// Its category path.
    Category,
    /// Its brand.
    Brand,
    /// Its price.
    Price,
}

impl Modality {
    /// The name in settings and in saved tensors.
    pub fn name(self) -> &'static str {
        match self {
            Modality::Content => "content",
            Modality::Behaviour => "behaviour",
            Modality::Category => "category",
            Modality::Brand => "brand",
            Modality::Price => "price",
        }
    }
}

/// How one modality enters the feature row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockConfig {
    /// Whether it enters at all.
    pub enabled: bool,
    /// Its share of the row's variance, relative to the other modalities'; independent of its width.
    pub weight: f32,
    /// Most numbers it may take; wider sources are reduced by truncated SVD. Price always takes one.
    pub width: usize,
}

impl BlockConfig {
    const fn new(weight: f32, width: usize) -> Self {
        Self { enabled: true, weight, width }
    }
}

/// Settings of the feature row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FeatureConfig {
    /// Seed of every random projection and hash.
    pub seed: u64,
    /// Given embeddings, or text when no item has one.
    pub content: BlockConfig,
    /// Numbers that text is reduced to (at most `content.width` are kept).
    pub text_width: usize,
    /// Hash buckets of the text's terms.
    pub text_buckets: usize,
    /// Co-occurrence in the training sequences.
    pub behaviour: BlockConfig,
    /// Events at most this far apart in a sequence co-occur, weighted by one over their distance.
    pub behaviour_window: usize,
    /// ln of this many times chance is subtracted from the pointwise mutual information (1 = PPMI).
    pub behaviour_shift: f32,
    /// Category path, every level of it.
    pub category: BlockConfig,
    /// Hash buckets of category paths.
    pub category_buckets: usize,
    /// Brand.
    pub brand: BlockConfig,
    /// Hash buckets of brands.
    pub brand_buckets: usize,
    /// ln(1 + price).
    pub price: BlockConfig,
}

impl Default for FeatureConfig {
    fn default() -> Self {
        Self {
            seed: 17,
            content: BlockConfig::new(1.0, 384),
            text_width: 96,
            text_buckets: 8192,
            behaviour: BlockConfig::new(0.4, 64),
            behaviour_window: 8,
            behaviour_shift: 1.0,
            category: BlockConfig::new(0.2, 32),
            category_buckets: 2048,
            brand: BlockConfig::new(0.1, 16),
            brand_buckets: 8192,
            price: BlockConfig::new(0.05, 1),
        }
    }
}

impl FeatureConfig {
    /// The settings of one modality.
    pub fn block(&self, modality: Modality) -> &BlockConfig {
        match modality {
            Modality::Content => &self.content,
            Modality::Behaviour => &self.behaviour,
            Modality::Category => &self.category,
            Modality::Brand => &self.brand,
            Modality::Price => &self.price,
        }
    }

    /// Checks every setting and names each one that is out of range.
    pub fn validate(&self) -> Result<(), Vec<Violation>> {
        let mut wrong = Vec::new();
        for modality in [Modality::Content, Modality::Behaviour, Modality::Category, Modality::Brand, Modality::Price] {
            let (block, name) = (self.block(modality), modality.name());
            if !(block.weight.is_finite() && block.weight > 0.0) {
                let found = block.weight;
                wrong.push(Violation::new(format!("{name}.weight"), format!("{found}: expected a number above 0")));
            }
            if !(1..=4096).contains(&block.width) {
                wrong.push(Violation::new(format!("{name}.width"), format!("{}: expected 1 to 4096", block.width)));
            }
        }
        if !(1..=4096).contains(&self.text_width) {
            wrong.push(Violation::new("text_width", format!("{}: expected 1 to 4096", self.text_width)));
        }
        for (name, buckets) in [
            ("text_buckets", self.text_buckets),
            ("category_buckets", self.category_buckets),
            ("brand_buckets", self.brand_buckets),
        ] {
            if !(2..=1 << 20).contains(&buckets) {
                wrong.push(Violation::new(name, format!("{buckets}: expected 2 to 1048576")));
            }
        }
        if !(1..=1000).contains(&self.behaviour_window) {
            wrong.push(Violation::new("behaviour_window", format!("{}: expected 1 to 1000", self.behaviour_window)));
        }
        if !(self.behaviour_shift.is_finite() && self.behaviour_shift >= 1.0) {
            let found = self.behaviour_shift;
            wrong.push(Violation::new("behaviour_shift", format!("{found}: expected a number of at least 1")));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}
