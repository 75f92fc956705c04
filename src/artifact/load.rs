//! Reads a bundle and believes nothing that it has not checked.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use burn::tensor::backend::Backend;
use sha2::{Digest, Sha256};
use tracing::warn;

use super::manifest::{
    CODEBOOKS_FILE, FileFacts, GOLDEN_FILE, ITEMS_FILE, MANIFEST_FILE, Manifest, WARMUP_FILE, WEIGHTS_FILE,
};
use super::{BundleError, Golden, TensorFacts, WarmupShape, golden, items, publish, saved_index, tensors};
use crate::catalog::Index;
use crate::domain::{self, breathe};
use crate::model::{Network, NetworkConfig, load_weights};

/// A manifest is some kilobytes; this bounds what is read before anything is known.
pub(super) const LARGEST_MANIFEST: u64 = 64 << 20;
/// How often a load begins anew when the bundle is replaced under it.
const ATTEMPTS: usize = 5;
/// Bytes of a file that are read, or hashed, at a time.
pub(super) const PIECE: usize = 1 << 18;
/// Enough of the digest to tell two indexes apart.
const INDEX_VERSION_DIGITS: usize = 16;

/// A bundle in memory, every file checked against the manifest and against the others.
#[derive(Debug, Clone)]
pub struct LoadedBundle {
    /// What the bundle says of itself.
    pub manifest: Manifest,
    /// Its items and their codes. Its version is the first 16 digits of the manifest's digest.
    pub index: Index,
    /// The network's tensors: a well-formed safetensors file of finite numbers.
    pub weights: Vec<u8>,
    /// The tokenizer's tensors, the same.
    pub codebooks: Vec<u8>,
    /// Requests with known answers.
    pub golden: Vec<Golden>,
    /// Shapes to run before the first request.
    pub warmup: Vec<WarmupShape>,
    /// How much `weights` holds.
    pub weight_facts: TensorFacts,
    /// How much `codebooks` holds.
    pub codebook_facts: TensorFacts,
}

/// The bytes of every listed file.
#[derive(Debug)]
pub(super) struct Content {
    pub weights: Vec<u8>,
    pub codebooks: Vec<u8>,
    pub items: Items,
    pub golden: Vec<u8>,
    pub warmup: Vec<u8>,
}

/// The items' bytes, or what was made of them before.
#[derive(Debug)]
pub(super) enum Items {
    /// `items.parquet`.
    Table(Vec<u8>),
    /// The index that was saved of it.
    Ready(Box<Index>),
}

/// What the items of a bundle must fit, and what their index is called.
pub(super) fn expected(manifest: &Manifest) -> items::Expected {
    items::Expected {
        rows: manifest.network.items,
        shape: manifest.network.codes,
        categories: manifest.categories.clone(),
        version: manifest.digest.chars().take(INDEX_VERSION_DIGITS).collect(),
    }
}

impl LoadedBundle {
    /// The network on `device`, as [`build_network`] makes it.
    pub fn network<B: Backend>(&self, device: &B::Device) -> Result<Network<B>, BundleError> {
        build_network(&self.manifest.network, self.weight_facts, self.weights.clone(), device)
    }
}

/// The network of the sizes `config` with a bundle's weights, on `device`. `facts` is what the weights were found to
/// hold. Refuses weights that do not fit the sizes: every tensor must be there with its shape, and no other.
pub fn build_network<B: Backend>(
    config: &NetworkConfig,
    facts: TensorFacts,
    weights: Vec<u8>,
    device: &B::Device,
) -> Result<Network<B>, BundleError> {
    let refuse = |reason: String| BundleError::new(WEIGHTS_FILE, reason);
    // Made first and filled then, so sizes that these weights cannot fill must not ask for memory.
    let least = least_numbers(config);
    if least > facts.numbers {
        return Err(refuse(format!(
            "holds {} numbers, a network of the manifest's sizes has at least {least}",
            facts.numbers
        )));
    }
    contained(WEIGHTS_FILE, || load_weights(config, weights, device).map_err(|error| refuse(error.to_string())))
}

/// A number of numbers that no network of these sizes goes below.
fn least_numbers(config: &NetworkConfig) -> usize {
    let layers = config.encoder_layers.saturating_add(config.decoder_layers);
    let layer = config.width.saturating_mul(config.attention_width().max(config.feed_forward));
    [
        config.items.saturating_mul(config.width),
        config.codes.tokens().saturating_mul(config.width),
        config.max_history.saturating_mul(config.width),
        config.categories.saturating_mul(config.width),
        layers.saturating_mul(layer),
    ]
    .into_iter()
    .max()
    .unwrap_or(0)
}

/// Loads the bundle in `dir`.
///
/// Checks the manifest's schema version and digest, size and sha256 of every file, every tensor, and every row:
/// unique ids, codes below D, categories within the manifest's, finite priors, golden requests of known items. The
/// first fault refuses the bundle. Whether the weights fit the network is checked where they are put on a device, by
/// [`LoadedBundle::network`]. When the bundle is replaced meanwhile, the new one is loaded.
pub fn load(dir: &Path) -> Result<LoadedBundle, BundleError> {
    let mut attempt = 1;
    loop {
        let place = locate(dir);
        let manifest = read_manifest_bytes(&place)?;
        match load_with(&place, &manifest) {
            // Files of two bundles look like a damaged one; only the manifest tells which it was.
            Err(_) if attempt < ATTEMPTS && was_replaced(dir, &manifest) => attempt += 1,
            outcome => return outcome,
        }
    }
}

/// The manifest of the bundle in `dir`, checked, without reading the other files.
pub(super) fn load_manifest(dir: &Path) -> Result<Manifest, BundleError> {
    Manifest::from_bytes(&read_manifest_bytes(&locate(dir))?)
}

/// Checks a bundle's content against its manifest and its parts against each other.
pub(super) fn assemble(manifest: Manifest, content: Content) -> Result<LoadedBundle, BundleError> {
    let Content { weights, codebooks, items: table, golden: requests, warmup } = content;
    let weight_facts = contained(WEIGHTS_FILE, || tensors::check(WEIGHTS_FILE, &weights))?;
    let codebook_facts = contained(CODEBOOKS_FILE, || tensors::check(CODEBOOKS_FILE, &codebooks))?;
    let index = match table {
        Items::Table(table) => contained(ITEMS_FILE, || items::read(table, expected(&manifest)))?,
        Items::Ready(index) => *index,
    };
    let golden = golden::read_golden(&requests, |id| index.number(id).is_some())?;
    let warmup = golden::read_warmup(&warmup, manifest.network.max_history)?;
    Ok(LoadedBundle { manifest, index, weights, codebooks, golden, warmup, weight_facts, codebook_facts })
}

fn load_with(place: &Path, manifest: &[u8]) -> Result<LoadedBundle, BundleError> {
    let manifest = Manifest::from_bytes(manifest)?;
    let read = |name: &str| {
        // The manifest was checked to list every file of a bundle.
        let facts = manifest.files.get(name).ok_or_else(|| BundleError::new(name, "is not listed"))?;
        read_file(place, name, facts)
    };
    let saved = saved_index::open(place, &manifest);
    let was_saved = saved.is_some();
    let items = match saved {
        // The items themselves are checked all the same: an index is no reason to trust a damaged bundle.
        Some(index) => check_file(place, ITEMS_FILE, &manifest).map(|()| Items::Ready(Box::new(index)))?,
        None => Items::Table(read(ITEMS_FILE)?),
    };
    let content = Content {
        weights: read(WEIGHTS_FILE)?,
        codebooks: read(CODEBOOKS_FILE)?,
        items,
        golden: read(GOLDEN_FILE)?,
        warmup: read(WARMUP_FILE)?,
    };
    let loaded = assemble(manifest, content)?;
    if !was_saved && saved_index::is_worth_saving(&loaded.index) {
        saved_index::save(place, &loaded.manifest, &loaded.index);
    }
    Ok(loaded)
}

/// Checks size and hash of a listed file without keeping what it holds.
pub(super) fn check_file(place: &Path, name: &str, manifest: &Manifest) -> Result<(), BundleError> {
    let refuse = |reason: String| BundleError::new(name, reason);
    let wanted = manifest.files.get(name).ok_or_else(|| refuse("is not listed".to_owned()))?;
    let (mut file, size) = open(place, name)?;
    if size != wanted.bytes {
        return Err(refuse(format!("{size} bytes, the manifest says {}", wanted.bytes)));
    }
    let (mut digest, mut piece) = (Sha256::new(), vec![0; PIECE]);
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => {
                breathe();
                digest.update(&piece[..read]);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(refuse(format!("cannot be read: {error}"))),
        }
    }
    let found = format!("{:x}", digest.finalize());
    if found != wanted.sha256 {
        return Err(refuse(format!("sha256 is {found}, the manifest says {}", wanted.sha256)));
    }
    Ok(())
}

fn read_file(place: &Path, name: &str, wanted: &FileFacts) -> Result<Vec<u8>, BundleError> {
    let refuse = |reason: String| BundleError::new(name, reason);
    let (file, size) = open(place, name)?;
    if size != wanted.bytes {
        return Err(refuse(format!("{size} bytes, the manifest says {}", wanted.bytes)));
    }
    let bytes = read_bounded(name, file, size)?;
    let found = FileFacts::of(&bytes);
    if found.bytes != wanted.bytes {
        return Err(refuse(format!("{} bytes, the manifest says {}", found.bytes, wanted.bytes)));
    }
    if found.sha256 != wanted.sha256 {
        return Err(refuse(format!("sha256 is {}, the manifest says {}", found.sha256, wanted.sha256)));
    }
    Ok(bytes)
}

fn read_manifest_bytes(place: &Path) -> Result<Vec<u8>, BundleError> {
    let (file, size) = open(place, MANIFEST_FILE)?;
    if size > LARGEST_MANIFEST {
        return Err(BundleError::new(MANIFEST_FILE, format!("{size} bytes, expected at most {LARGEST_MANIFEST}")));
    }
    read_bounded(MANIFEST_FILE, file, size)
}

/// Opens a plain file and tells its size.
fn open(place: &Path, name: &str) -> Result<(File, u64), BundleError> {
    let refuse = |reason: String| BundleError::new(name, reason);
    let path = place.join(name);
    // Looked at before it is opened: opening a pipe would wait for a writer.
    let about = fs::metadata(&path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => refuse(format!("missing from {}", place.display())),
        _ => refuse(format!("cannot be read in {}: {error}", place.display())),
    })?;
    if !about.is_file() {
        return Err(refuse(format!("is not a plain file in {}", place.display())));
    }
    let file = File::open(&path).map_err(|error| refuse(format!("cannot be opened: {error}")))?;
    Ok((file, about.len()))
}

/// Reads at most one byte more than expected, so that a growing file is noticed and fills no memory.
fn read_bounded(name: &str, file: File, size: u64) -> Result<Vec<u8>, BundleError> {
    let mut bytes = Vec::new();
    let expected = usize::try_from(size).map_err(|_| BundleError::new(name, format!("{size} bytes are too many")))?;
    let refuse = |error: &dyn std::fmt::Display| BundleError::new(name, format!("cannot be read: {error}"));
    bytes.try_reserve_exact(expected).map_err(|error| refuse(&error))?;
    let mut file = file.take(size.saturating_add(1));
    loop {
        breathe();
        if file.by_ref().take(PIECE as u64).read_to_end(&mut bytes).map_err(|error| refuse(&error))? == 0 {
            return Ok(bytes);
        }
    }
}

/// Where the bundle stands: in `dir`, or beside it when a writer died between moving the old one aside and the new
/// one in (see [`publish`](super::publish())).
fn locate(dir: &Path) -> PathBuf {
    if let Some(aside) = publish::aside(dir)
        && !dir.exists()
        && aside.join(MANIFEST_FILE).is_file()
    {
        warn!(bundle = %dir.display(), aside = %aside.display(), "replacing this bundle was cut short; reading the old one");
        return aside;
    }
    dir.to_owned()
}

fn was_replaced(dir: &Path, manifest: &[u8]) -> bool {
    read_manifest_bytes(&locate(dir)).is_ok_and(|now| now != manifest)
}

/// Runs a reader of a bundle's file that may panic.
fn contained<T>(file: &str, read: impl FnOnce() -> Result<T, BundleError>) -> Result<T, BundleError> {
    domain::contained(read).unwrap_or_else(|reason| Err(BundleError::new(file, reason)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::collections::BTreeMap;

    use burn::backend::Flex;
    use proptest::prelude::*;

    use super::super::manifest::LISTED_FILES;
    use super::super::{publish, sample, show, verify};
    use super::*;

    fn published() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("shop");
        publish(&dir, sample::manifest("1"), sample::parts()).unwrap();
        (root, dir)
    }

    fn every_file() -> impl Iterator<Item = &'static str> {
        LISTED_FILES.into_iter().chain([MANIFEST_FILE])
    }

    /// The bundle's content with one file changed, its manifest sealed anew as a deceiver would.
    fn resealed(dir: &Path, name: &str, change: impl Fn(&mut Vec<u8>)) -> Result<LoadedBundle, BundleError> {
        let mut files: BTreeMap<&str, Vec<u8>> =
            LISTED_FILES.iter().map(|name| (*name, fs::read(dir.join(name)).unwrap())).collect();
        change(files.get_mut(name).unwrap());
        let mut take = |name: &str| files.remove(name).unwrap();
        let content = Content {
            weights: take(WEIGHTS_FILE),
            codebooks: take(CODEBOOKS_FILE),
            items: Items::Table(take(ITEMS_FILE)),
            golden: take(GOLDEN_FILE),
            warmup: take(WARMUP_FILE),
        };
        assemble(load_manifest(dir).unwrap(), content)
    }

    #[test]
    fn what_was_published_is_loaded() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("shop");
        let parts = sample::parts();
        publish(&dir, sample::manifest("1"), parts.clone()).unwrap();
        let loaded = load(&dir).unwrap();
        assert_eq!(loaded.index.items().collect::<Vec<_>>(), parts.items);
        assert_eq!(loaded.index.codes(), &parts.codes);
        assert_eq!(loaded.index.version(), &loaded.manifest.digest[..16]);
        assert_eq!(loaded.index.category_names(), loaded.manifest.categories);
        assert!(loaded.weights == parts.weights, "weights differ");
        assert!(loaded.codebooks == parts.codebooks, "codebooks differ");
        assert_eq!(loaded.golden, parts.golden);
        assert_eq!(loaded.warmup, parts.warmup);
        assert_eq!(loaded.weight_facts, tensors::check(WEIGHTS_FILE, &parts.weights).unwrap());
        assert_eq!(show(&dir).unwrap().manifest, loaded.manifest);
        let report = verify(&dir).unwrap();
        assert_eq!((report.items, report.eligible, report.distinct_codes, report.largest_group), (4, 3, 3, 2));
    }

    #[test]
    fn a_flipped_byte_anywhere_is_refused() {
        let (_root, dir) = published();
        for name in every_file() {
            let path = dir.join(name);
            let sound = fs::read(&path).unwrap();
            for at in (0..sound.len()).step_by(sound.len() / 150 + 1) {
                let mut damaged = sound.clone();
                damaged[at] ^= 1 << (at % 8);
                fs::write(&path, &damaged).unwrap();
                let error = load(&dir).expect_err(&format!("{name} with byte {at} flipped"));
                assert_eq!(error.file, name, "byte {at}: {error}");
            }
            fs::write(&path, &sound).unwrap();
        }
        load(&dir).unwrap();
    }

    #[test]
    fn truncation_and_growth_are_refused() {
        let (_root, dir) = published();
        for name in every_file() {
            let path = dir.join(name);
            let sound = fs::read(&path).unwrap();
            let shorter = (0..sound.len()).step_by(sound.len() / 50 + 1).map(|length| sound[..length].to_vec());
            let longer = [b"\n".as_slice(), b"{}", &[0; 512]].map(|more| [&sound, more].concat());
            for damaged in shorter.chain(longer) {
                fs::write(&path, &damaged).unwrap();
                let error = load(&dir).expect_err(&format!("{name} of {} bytes", damaged.len()));
                assert_eq!(error.file, name, "{} bytes: {error}", damaged.len());
            }
            fs::write(&path, &sound).unwrap();
        }
    }

    #[test]
    fn a_missing_file_and_a_directory_in_its_place_are_refused_by_name() {
        for name in every_file() {
            let (_root, dir) = published();
            fs::remove_file(dir.join(name)).unwrap();
            let error = load(&dir).unwrap_err();
            assert!(error.file == name && error.reason.starts_with("missing"), "{error}");
            fs::create_dir(dir.join(name)).unwrap();
            let error = load(&dir).unwrap_err();
            assert!(error.file == name && error.reason.contains("not a plain file"), "{error}");
        }
        assert!(load(Path::new("no/such/bundle")).unwrap_err().to_string().contains("no/such/bundle"));
    }

    #[test]
    fn a_changed_file_is_refused_with_both_hashes() {
        let (_root, dir) = published();
        let path = dir.join(WEIGHTS_FILE);
        let mut bytes = fs::read(&path).unwrap();
        let wanted = FileFacts::of(&bytes).sha256;
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, &bytes).unwrap();
        let found = FileFacts::of(&bytes).sha256;
        assert_eq!(
            load(&dir).unwrap_err().to_string(),
            format!("weights.safetensors: sha256 is {found}, the manifest says {wanted}")
        );
    }

    #[test]
    fn weights_of_another_network_are_refused() {
        let (_root, dir) = published();
        let mut loaded = load(&dir).unwrap();
        let device = Default::default();
        loaded.network::<Flex>(&device).unwrap();
        loaded.manifest.network.categories += 1;
        let error = loaded.network::<Flex>(&device).unwrap_err();
        assert!(error.file == WEIGHTS_FILE && error.reason.contains("category_head"), "{error}");
        // Sizes far beyond the file are refused before memory is asked for them.
        loaded.manifest.network.width = 1 << 40;
        let error = loaded.network::<Flex>(&device).unwrap_err();
        assert!(error.reason.contains("numbers"), "{error}");
    }

    #[test]
    fn an_unlisted_file_is_reported_and_never_read() {
        let (_root, dir) = published();
        fs::write(dir.join("notes.txt"), "hello").unwrap();
        assert_eq!(verify(&dir).unwrap().unlisted, ["notes.txt"]);
    }

    #[test]
    fn pages_and_json_tell_the_same_bundle() {
        let (_root, dir) = published();
        let (report, view) = (verify(&dir).unwrap(), show(&dir).unwrap());
        let page = report.to_string();
        assert!(page.contains("shop/1") && page.contains("3 distinct") && page.contains("1 golden"), "{page}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((&json["items"], &json["files"][0]["name"]), (&4.into(), &CODEBOOKS_FILE.into()));
        let page = view.to_string();
        assert!(page.contains("filtered.recall@10") && page.contains("0.06") && page.contains("3.5 3.9"), "{page}");
        assert_eq!(serde_json::to_value(&view).unwrap()["manifest"]["network"]["width"], 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        /// Behind a seal made to fit, damaged content may be refused or may be read, but never ends the program.
        #[test]
        fn resealed_damage_never_panics(
            file in prop::sample::select(LISTED_FILES.as_slice()),
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            thread_local!(static BUNDLE: (tempfile::TempDir, PathBuf) = published());
            BUNDLE.with(|(_root, dir)| {
                let outcome = resealed(dir, file, |bytes| {
                    for (at, byte) in &edits {
                        let at = at.index(bytes.len());
                        bytes[at] = *byte;
                    }
                    if let Some(cut) = cut {
                        bytes.truncate(cut.index(bytes.len()));
                    }
                });
                if let Err(error) = outcome {
                    assert_eq!(error.file, file);
                    assert!(!error.reason.is_empty());
                }
            });
        }
    }
}
