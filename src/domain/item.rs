//! What can be recommended.

/// The dense number of an item inside one bundle: its row in the code table, the residual table and the index.
pub type ItemNumber = u32;

/// Something to recommend, as its owner describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The owner's id, unique within a catalogue.
    pub id: String,
    /// A short human-readable name.
    pub title: Option<String>,
    /// Maker or label.
    pub brand: Option<String>,
    /// One path of categories, coarse to fine.
    pub categories: Vec<String>,
    /// Price in the catalogue's currency; finite and not negative.
    pub price: Option<f32>,
    /// Whether it may be recommended now.
    pub eligible: bool,
}
