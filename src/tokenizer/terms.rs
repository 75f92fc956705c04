//! Words of an item as hashed terms: title and text, category path, brand.

use super::ItemSource;

/// A term's bucket and sign, the same on every machine and in every version: FNV-1a, finished by splitmix64.
pub(super) fn hashed(term: &str, seed: u64, buckets: usize) -> (u32, f32) {
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for byte in term.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    let sign = if hash >> 63 == 0 { 1.0 } else { -1.0 };
    ((hash % buckets as u64) as u32, sign)
}

/// Lower-case words of the text, or of the title where there is no text, and their neighbouring pairs.
pub(super) fn text_terms(item: &ItemSource) -> Vec<String> {
    let text = item.text.or(item.title).unwrap_or_default().to_lowercase();
    let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let pairs = words.windows(2).map(|pair| format!("{} {}", pair[0], pair[1]));
    words.iter().map(|word| (*word).to_owned()).chain(pairs).collect()
}

/// One term for every level of the category path: the path down to it.
pub(super) fn category_terms(item: &ItemSource) -> Vec<String> {
    (1..=item.categories.len()).map(|depth| item.categories[..depth].join("\u{1f}")).collect()
}

/// The brand without regard to case; none when it is blank.
pub(super) fn brand_terms(item: &ItemSource) -> Vec<String> {
    let brand = item.brand.unwrap_or_default().trim().to_lowercase();
    if brand.is_empty() { Vec::new() } else { vec![brand] }
}
