//! The index of a large bundle, saved beside it, so that a restart reads what the last one built.
//!
//! The file is no part of the bundle: no manifest lists it, nothing is believed of it that does not fit the manifest's hash
//! of the items, and a bundle without it loads as well, only later.

use std::path::Path;
use std::time::Instant;

use tracing::{info, warn};

use super::Manifest;
use super::items::Expected;
use super::load::expected;
use super::manifest::ITEMS_FILE;
use crate::catalog::{Index, SavedFor};

/// Its name in the bundle's directory.
const INDEX_FILE: &str = "items.index";
/// Fewer items are indexed about as fast as they are read.
const LEAST_ITEMS: usize = 100_000;

/// Whether a file of a bundle's directory is a saved index, or the draft of one.
pub(super) fn is_saved_index(name: &str) -> bool {
    let draft = |rest: &str| rest.starts_with('.') && rest.ends_with(".tmp");
    name.strip_prefix(INDEX_FILE).is_some_and(|rest| rest.is_empty() || draft(rest))
}

/// Whether an index of so many items is worth a file.
pub(super) fn is_worth_saving(index: &Index) -> bool {
    index.len() >= LEAST_ITEMS
}

/// The index that was saved in `place` for the items of the manifest, if there is one and it is sound.
pub(super) fn open(place: &Path, manifest: &Manifest) -> Option<Index> {
    let path = place.join(INDEX_FILE);
    if !path.is_file() {
        return None;
    }
    let began = Instant::now();
    let Expected { rows, shape, categories, version } = expected(manifest);
    let key = key(manifest)?.to_owned();
    match Index::open_saved(&path, SavedFor { key, items: rows, shape, category_names: categories, version }) {
        Ok(index) => {
            info!(path = %path.display(), items = rows, seconds = began.elapsed().as_secs_f64(), "read the saved index");
            Some(index)
        }
        Err(reason) => {
            warn!(path = %path.display(), reason, "the saved index is not used; building it from the items");
            None
        }
    }
}

/// Saves the index in `place`. A place that cannot be written to is told in the log, and costs the next start its time.
pub(super) fn save(place: &Path, manifest: &Manifest, index: &Index) {
    let path = place.join(INDEX_FILE);
    let (Some(key), began) = (key(manifest), Instant::now()) else { return };
    match index.save(&path, key) {
        Ok(()) => info!(path = %path.display(), seconds = began.elapsed().as_secs_f64(), "saved the index"),
        Err(error) => warn!(path = %path.display(), %error, "cannot save the index; the next start builds it again"),
    }
}

/// What the index is of.
fn key(manifest: &Manifest) -> Option<&str> {
    manifest.files.get(ITEMS_FILE).map(|facts| facts.sha256.as_str())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use super::super::load::load_manifest;
    use super::super::{load, publish, sample, verify};
    use super::*;

    #[test]
    fn a_saved_index_gives_the_same_bundle_and_is_no_part_of_it() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("shop");
        publish(&dir, sample::manifest("1"), sample::parts()).unwrap();
        let (built, manifest) = (load(&dir).unwrap(), load_manifest(&dir).unwrap());
        assert!(open(&dir, &manifest).is_none() && built.index.bytes().titles > 0);
        save(&dir, &manifest, &built.index);
        let read = load(&dir).unwrap();
        assert_eq!(read.index.bytes().titles, 0, "it was built");
        assert_eq!(read.index.items().collect::<Vec<_>>(), built.index.items().collect::<Vec<_>>());
        assert_eq!((read.index.codes(), read.index.version()), (built.index.codes(), built.index.version()));
        assert_eq!(verify(&dir).unwrap().unlisted, Vec::<String>::new());
        // Items that changed are refused, whatever was saved of them.
        let path = dir.join(ITEMS_FILE);
        let mut items = fs::read(&path).unwrap();
        let middle = items.len() / 2;
        items[middle] ^= 1;
        fs::write(&path, items).unwrap();
        assert_eq!(load(&dir).unwrap_err().file, ITEMS_FILE);
        // It does not stand in the way of the next bundle, and is not taken for that one's.
        let mut other = sample::parts();
        other.items[0].item.title = Some("Another".to_owned());
        publish(&dir, sample::manifest("2"), other.clone()).unwrap();
        save(&dir, &manifest, &built.index);
        let next = load(&dir).unwrap();
        assert_eq!(next.index.items().collect::<Vec<_>>(), other.items);
        assert!(next.index.bytes().titles > 0, "the old index was used");
    }

    #[test]
    fn a_damaged_index_is_built_anew() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("shop");
        publish(&dir, sample::manifest("1"), sample::parts()).unwrap();
        let (built, manifest) = (load(&dir).unwrap(), load_manifest(&dir).unwrap());
        save(&dir, &manifest, &built.index);
        let sound = fs::read(dir.join(INDEX_FILE)).unwrap();
        for (name, damaged) in
            [("empty", vec![]), ("cut", sound[..sound.len() - 9].to_vec()), ("old", b"R4RIDX00".to_vec())]
        {
            fs::write(dir.join(INDEX_FILE), damaged).unwrap();
            let loaded = load(&dir).unwrap();
            assert!(loaded.index.bytes().titles > 0, "{name}");
            assert_eq!(loaded.index.items().collect::<Vec<_>>(), built.index.items().collect::<Vec<_>>());
        }
    }

    #[test]
    fn only_its_own_names_are_a_saved_index() {
        assert!(is_saved_index("items.index") && is_saved_index("items.index.123.tmp"));
        assert!(!is_saved_index("items.indexes") && !is_saved_index("items.index.txt") && !is_saved_index("weights"));
    }
}
