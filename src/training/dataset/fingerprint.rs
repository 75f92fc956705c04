//! A hash of what a data set says, not of how its files are packed.

use sha2::{Digest, Sha256};

use super::{Dataset, DatasetItem};

/// SHA-256 in lower-case hex. Every text and list goes in behind its length and every option behind a mark, so that no
/// two different data sets feed the same bytes.
pub(super) fn fingerprint(dataset: &Dataset) -> String {
    let mut hash = Sink(Sha256::new());
    hash.count(dataset.items.len());
    for item in &dataset.items {
        hash.item(item);
    }
    hash.count(dataset.user_ids.len());
    for (id, sequence) in dataset.user_ids.iter().zip(&dataset.sequences) {
        hash.text(id);
        hash.count(sequence.len());
        for event in sequence {
            hash.0.update(event.item.to_le_bytes());
            hash.0.update(event.time.to_le_bytes());
            hash.0.update([event.kind as u8]);
            hash.number(event.value);
        }
    }
    hash.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Sink(Sha256);

impl Sink {
    fn count(&mut self, count: usize) {
        self.0.update((count as u64).to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.update(text);
    }

    fn optional_text(&mut self, text: Option<&str>) {
        self.0.update([u8::from(text.is_some())]);
        self.text(text.unwrap_or_default());
    }

    fn number(&mut self, number: Option<f32>) {
        self.0.update([u8::from(number.is_some())]);
        self.0.update(number.unwrap_or_default().to_le_bytes());
    }

    fn item(&mut self, item: &DatasetItem) {
        self.text(&item.item.id);
        self.optional_text(item.item.title.as_deref());
        self.optional_text(item.item.brand.as_deref());
        self.optional_text(item.text.as_deref());
        self.count(item.item.categories.len());
        for category in &item.item.categories {
            self.text(category);
        }
        self.number(item.item.price);
        self.0.update([u8::from(item.item.eligible)]);
        let embedding = item.embedding.as_deref().unwrap_or_default();
        self.count(embedding.len());
        for value in embedding {
            self.0.update(value.to_le_bytes());
        }
    }
}
