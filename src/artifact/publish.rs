//! Writes a bundle whole or not at all.
//!
//! Everything is written to a directory `.NAME.PID-N.tmp` beside the target, each file synced, the manifest last, the
//! directory synced; then that directory takes the target's name and the parent is synced. A reader sees the bundle
//! before or the one after, never a part.
//!
//! Replacing a bundle swaps the two names in one system call where the platform has one (Linux: `RENAME_EXCHANGE`).
//! Where it has none, the old bundle is moved aside to `.NAME.old.tmp`, the new one moved in, the old one removed. A
//! writer killed between the two moves leaves no bundle under the name, but the old one aside: readers find it there,
//! and the next writer moves it back first.
//!
//! A writer holds a lock on the parent directory, which the system drops when it dies, however it dies. So whoever has
//! the lock knows that temporary directories of this target belong to the dead, and removes them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use burn::backend::Flex;
use tracing::warn;

use super::load::{Content, Items, assemble};
use super::manifest::{
    CODEBOOKS_FILE, FileFacts, GOLDEN_FILE, ITEMS_FILE, LISTED_FILES, MANIFEST_FILE, SCHEMA_VERSION, WARMUP_FILE,
    WEIGHTS_FILE, check_name, now,
};
use super::{BundleError, Golden, Manifest, WarmupShape, golden, items, saved_index};
use crate::catalog::{CatalogItem, Index};
use crate::domain::CodeTable;

/// What goes into a bundle beside its manifest.
#[derive(Debug, Clone)]
pub struct BundleParts {
    /// The network's tensors, as a safetensors file.
    pub weights: Vec<u8>,
    /// The tokenizer's tensors, as a safetensors file.
    pub codebooks: Vec<u8>,
    /// The items; an item's place is its dense number.
    pub items: Vec<CatalogItem>,
    /// Their codes, one row an item.
    pub codes: CodeTable,
    /// Requests with the answers that this bundle gives.
    pub golden: Vec<Golden>,
    /// Shapes to run before the first request.
    pub warmup: Vec<WarmupShape>,
}

/// Writes a bundle at `dir`, replacing the bundle that stands there, and returns its manifest as written.
///
/// Fills in the manifest's schema version, file list and digest, and `created` when empty. Refuses what
/// [`verify`](super::verify()) would refuse, and a `dir` that holds anything but a bundle; then nothing is changed.
/// Missing parent directories are made.
pub fn publish(dir: &Path, manifest: Manifest, parts: BundleParts) -> Result<Manifest, BundleError> {
    let target = Target::of(dir)?;
    target.check_replaceable()?;
    let bundle = seal(manifest, parts)?;
    let lock = target.lock()?;
    if lock.is_some() {
        target.restore()?;
        target.remove_leftovers()?;
    }
    let written = target.write(&bundle)?;
    target.install(written)?;
    Ok(bundle.manifest)
}

/// Refuses what [`publish()`] would refuse of a place and a name, before anything is made to be published there: a
/// directory that holds anything but a bundle, or a name that a manifest cannot carry.
pub fn check_target(dir: &Path, name: &str) -> Result<(), BundleError> {
    check_name("name", name)?;
    Target::of(dir)?.check_replaceable()
}

/// Where a replaced bundle waits while the new one moves in, on platforms that cannot swap two names.
pub(super) fn aside(dir: &Path) -> Option<PathBuf> {
    let name = dir.file_name()?.to_str()?;
    Some(dir.with_file_name(format!(".{name}.old.tmp")))
}

/// A bundle as bytes, checked as a reader would check it.
struct Sealed {
    manifest: Manifest,
    manifest_bytes: Vec<u8>,
    files: Vec<(&'static str, Vec<u8>)>,
    index: Index,
}

fn seal(mut manifest: Manifest, parts: BundleParts) -> Result<Sealed, BundleError> {
    let (shape, wanted) = (parts.codes.shape(), manifest.network.codes);
    if shape != wanted {
        return Err(BundleError::new(
            ITEMS_FILE,
            format!(
                "codes of {} codebooks of {} entries, network.codes says {} of {}",
                shape.codebooks, shape.entries, wanted.codebooks, wanted.entries
            ),
        ));
    }
    let table = items::pack(&parts.items, &parts.codes)?;
    let content = Content {
        weights: parts.weights,
        codebooks: parts.codebooks,
        items: Items::Table(table.clone()),
        golden: golden::pack_golden(&parts.golden)?,
        warmup: golden::pack_warmup(&parts.warmup)?,
    };
    manifest.schema_version = SCHEMA_VERSION;
    if manifest.created.is_empty() {
        manifest.created = now();
    }
    let (golden, warmup) = (content.golden.clone(), content.warmup.clone());
    manifest.files = [
        (WEIGHTS_FILE, &content.weights),
        (CODEBOOKS_FILE, &content.codebooks),
        (ITEMS_FILE, &table),
        (GOLDEN_FILE, &content.golden),
        (WARMUP_FILE, &content.warmup),
    ]
    .map(|(name, bytes)| (name.to_owned(), FileFacts::of(bytes)))
    .into();
    let (manifest, manifest_bytes) = manifest.sealed()?;
    let checked = assemble(manifest, content)?;
    checked.network::<Flex>(&Default::default())?;
    let files = vec![
        (WEIGHTS_FILE, checked.weights),
        (CODEBOOKS_FILE, checked.codebooks),
        (ITEMS_FILE, table),
        (GOLDEN_FILE, golden),
        (WARMUP_FILE, warmup),
    ];
    Ok(Sealed { manifest: checked.manifest, manifest_bytes, files, index: checked.index })
}

/// A directory to publish to, and its neighbours.
pub(super) struct Target {
    dir: PathBuf,
    parent: PathBuf,
    name: String,
}

impl Target {
    pub(super) fn of(dir: &Path) -> Result<Self, BundleError> {
        let refuse = |reason: &str| BundleError::new(dir.display().to_string(), reason);
        // A link to a bundle stays; what it points at is replaced.
        let dir = match fs::canonicalize(dir) {
            Ok(found) => found,
            Err(_) => std::path::absolute(dir).map_err(|error| failed("cannot be made absolute", dir, &error))?,
        };
        let parent = dir.parent().ok_or_else(|| refuse("expected a directory with a name"))?.to_owned();
        let name = dir.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| refuse("expected a directory with a name in UTF-8"))?.to_owned();
        Ok(Self { dir, parent, name })
    }

    /// Refuses to replace anything that is no bundle: a mistyped path must not cost a directory of somebody's files.
    fn check_replaceable(&self) -> Result<(), BundleError> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed("cannot be listed", &self.dir, &error)),
            Ok(entries) => entries,
        };
        let refuse = |reason: String| Err(BundleError::new(self.dir.display().to_string(), reason));
        let (mut any, mut manifest) = (false, false);
        for entry in entries {
            let name = entry.map_err(|error| failed("cannot be listed", &self.dir, &error))?.file_name();
            let is = |known: &str| name.to_str() == Some(known);
            (any, manifest) = (true, manifest || is(MANIFEST_FILE));
            let own = name.to_str().is_some_and(saved_index::is_saved_index);
            if !is(MANIFEST_FILE) && !own && !LISTED_FILES.iter().any(|known| is(known)) {
                return refuse(format!("holds {name:?}, which is no file of a bundle; only a bundle is replaced"));
            }
        }
        if any && !manifest {
            return refuse(format!("holds files but no {MANIFEST_FILE}; only a bundle is replaced"));
        }
        Ok(())
    }

    /// Makes the parent directory and holds other writers off until dropped. None where the file system has no locks:
    /// then nobody is held off, and leftovers stay because nobody can tell the dead from the living.
    pub(super) fn lock(&self) -> Result<Option<File>, BundleError> {
        fs::create_dir_all(&self.parent).map_err(|error| failed("cannot be made", &self.parent, &error))?;
        let parent = File::open(&self.parent).map_err(|error| failed("cannot be opened", &self.parent, &error))?;
        match parent.lock() {
            Ok(()) => Ok(Some(parent)),
            Err(error) => {
                warn!(directory = %self.parent.display(), %error, "cannot lock; other writers are not held off");
                Ok(None)
            }
        }
    }

    /// Moves back the bundle that a dead writer had moved aside.
    fn restore(&self) -> Result<(), BundleError> {
        let Some(aside) = aside(&self.dir).filter(|aside| aside.exists()) else { return Ok(()) };
        if self.dir.exists() {
            fs::remove_dir_all(&aside).map_err(|error| failed("cannot be removed", &aside, &error))
        } else {
            fs::rename(&aside, &self.dir).map_err(|error| failed("cannot be moved back", &aside, &error))
        }
    }

    /// Removes the temporary directories of dead writers. Only for who holds the lock.
    pub(super) fn remove_leftovers(&self) -> Result<(), BundleError> {
        let list = |error| failed("cannot be listed", &self.parent, &error);
        for entry in fs::read_dir(&self.parent).map_err(list)? {
            let entry = entry.map_err(list)?;
            if entry.file_name().to_str().is_some_and(|name| self.is_temporary(name)) {
                fs::remove_dir_all(entry.path()).map_err(|error| failed("cannot be removed", &entry.path(), &error))?;
            }
        }
        Ok(())
    }

    /// Whether `name` is a temporary directory of this target: `.NAME.PID-N.tmp`.
    fn is_temporary(&self, name: &str) -> bool {
        let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        name.strip_prefix('.')
            .and_then(|rest| rest.strip_prefix(&self.name))
            .and_then(|rest| rest.strip_prefix('.'))
            .and_then(|rest| rest.strip_suffix(".tmp"))
            .and_then(|middle| middle.split_once('-'))
            .is_some_and(|(pid, nth)| number(pid) && number(nth))
    }

    /// An empty temporary directory beside the target.
    pub(super) fn temporary(&self) -> Result<Temporary, BundleError> {
        static NTH: AtomicU32 = AtomicU32::new(0);
        let nth = NTH.fetch_add(1, Ordering::Relaxed);
        let path = self.parent.join(format!(".{}.{}-{nth}.tmp", self.name, std::process::id()));
        fs::create_dir(&path).map_err(|error| failed("cannot be made", &path, &error))?;
        Ok(Temporary { path })
    }

    fn write(&self, bundle: &Sealed) -> Result<Temporary, BundleError> {
        let temporary = self.temporary()?;
        let manifest = (MANIFEST_FILE, &bundle.manifest_bytes);
        for (name, bytes) in bundle.files.iter().map(|(name, bytes)| (*name, bytes)).chain([manifest]) {
            write_synced(&temporary.path.join(name), bytes)
                .map_err(|error| BundleError::new(name, format!("cannot be written: {error}")))?;
        }
        if saved_index::is_worth_saving(&bundle.index) {
            saved_index::save(&temporary.path, &bundle.manifest, &bundle.index);
        }
        sync_dir(&temporary.path).map_err(|error| failed("cannot be synced", &temporary.path, &error))?;
        Ok(temporary)
    }

    /// Gives the written bundle its name. What stood there before ends under the temporary name and goes with it.
    fn install(&self, written: Temporary) -> Result<(), BundleError> {
        let moved = |error| failed("cannot take the new bundle", &self.dir, &error);
        if self.dir.exists() {
            match exchange(&written.path, &self.dir) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(moved(error)),
                // Not every file system can swap two names.
                Err(_) => self.step_aside(&written.path).map_err(moved)?,
            }
        } else {
            fs::rename(&written.path, &self.dir).map_err(moved)?;
        }
        sync_dir(&self.parent).map_err(|error| failed("cannot be synced", &self.parent, &error))
    }

    /// Replaces the bundle in two moves, for file systems that cannot do it in one.
    fn step_aside(&self, written: &Path) -> io::Result<()> {
        let aside = aside(&self.dir).ok_or(io::ErrorKind::InvalidInput)?;
        fs::rename(&self.dir, &aside)?;
        if let Err(error) = fs::rename(written, &self.dir) {
            fs::rename(&aside, &self.dir)?;
            return Err(error);
        }
        // Durable before the old one goes.
        sync_dir(&self.parent)?;
        fs::remove_dir_all(&aside)
    }
}

/// A directory that is gone when dropped, unless it was renamed.
pub(super) struct Temporary {
    pub(super) path: PathBuf,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(path = %self.path.display(), %error, "cannot remove a temporary directory; the next writer will");
            }
            _ => {}
        }
    }
}

#[cfg(target_os = "linux")]
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
}

#[cfg(not(target_os = "linux"))]
fn exchange(_one: &Path, _other: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes the names in a directory durable, where directories can be synced.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

pub(super) fn failed(what: &str, path: &Path, error: &io::Error) -> BundleError {
    BundleError::new(path.display().to_string(), format!("{what}: {error}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::collections::BTreeMap;
    use std::process::{Command, Stdio};
    use std::sync::atomic::AtomicBool;
    use std::time::{Duration, Instant};

    use super::super::{Tensor, load, pack_tensors, sample};
    use super::*;
    use crate::domain::CodeShape;

    /// Tells the child of the kill test where to publish.
    const KILL_DIR: &str = "REG4REC_TEST_PUBLISH_DIR";

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn publish_version(dir: &Path, version: &str) -> Result<Manifest, BundleError> {
        publish(dir, sample::manifest(version), sample::parts())
    }

    #[test]
    fn a_bundle_is_published_replaced_and_alone() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("made/on/the/way/shop");
        for version in ["1", "2", "3"] {
            let manifest = publish_version(&dir, version).unwrap();
            assert_eq!(load(&dir).unwrap().manifest, manifest);
            assert_eq!(manifest.version, version);
            assert_eq!(names(dir.parent().unwrap()), ["shop"]);
            assert_eq!(names(&dir).len(), 6);
        }
    }

    #[test]
    fn an_empty_directory_and_a_relative_path_are_published_to() {
        let root = tempfile::tempdir().unwrap();
        publish_version(root.path(), "1").unwrap();
        assert_eq!(load(root.path()).unwrap().manifest.version, "1");
        assert!(publish_version(Path::new("/"), "1").is_err());
    }

    #[test]
    fn a_directory_of_other_files_is_not_replaced() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("thesis");
        fs::create_dir(&dir).unwrap();
        for file in ["thesis.tex", ITEMS_FILE] {
            fs::write(dir.join(file), "years of work").unwrap();
            let error = publish_version(&dir, "1").unwrap_err();
            assert!(error.file.ends_with("thesis") && error.reason.contains("only a bundle"), "{error}");
            assert_eq!(names(&dir), [file]);
            fs::remove_file(dir.join(file)).unwrap();
        }
    }

    #[test]
    fn a_refused_bundle_leaves_the_old_one() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("shop");
        publish_version(&dir, "1").unwrap();
        let weights = |value: f32| {
            let tensor = Tensor { shape: vec![1], values: vec![value] };
            pack_tensors(WEIGHTS_FILE, &BTreeMap::from([("w".to_owned(), tensor)])).unwrap()
        };
        type Spoil<'a> = Box<dyn Fn(&mut BundleParts) + 'a>;
        let cases: [(&str, &str, Spoil<'_>); 19] = [
            (WEIGHTS_FILE, "not a safetensors", Box::new(|parts| parts.weights = vec![1, 2, 3])),
            (WEIGHTS_FILE, "number 0 is NaN", Box::new(|parts| parts.weights = weights(f32::NAN))),
            (WEIGHTS_FILE, "no tensors", Box::new(|parts| parts.weights = b"\x02\0\0\0\0\0\0\0{}".to_vec())),
            (WEIGHTS_FILE, "holds 1 numbers", Box::new(|parts| parts.weights = weights(1.0))),
            (
                ITEMS_FILE,
                "of 9 entries",
                Box::new(|parts| {
                    let shape = CodeShape { codebooks: 2, entries: 9 };
                    parts.codes = CodeTable::new(shape, parts.codes.entries().to_vec()).unwrap();
                }),
            ),
            (CODEBOOKS_FILE, "inf", Box::new(|parts| parts.codebooks = weights(f32::INFINITY))),
            (ITEMS_FILE, "4 codes for 3 items", Box::new(|parts| drop(parts.items.pop()))),
            (ITEMS_FILE, "item 2 (id \"item-0\")", Box::new(|parts| parts.items[2].item.id = "item-0".to_owned())),
            (ITEMS_FILE, "item 2 (id \"\")", Box::new(|parts| parts.items[2].item.id.clear())),
            (ITEMS_FILE, "category 2", Box::new(|parts| parts.items[1].category = 2)),
            (
                ITEMS_FILE,
                "item 3 (id \"item-3\"): prior -inf",
                Box::new(|parts| parts.items[3].prior = f32::NEG_INFINITY),
            ),
            (ITEMS_FILE, "price -1", Box::new(|parts| parts.items[0].item.price = Some(-1.0))),
            (GOLDEN_FILE, "k: 0", Box::new(|parts| parts.golden[0].k = 0)),
            (GOLDEN_FILE, "at most k", Box::new(|parts| parts.golden[0].k = 1)),
            (GOLDEN_FILE, "history: empty", Box::new(|parts| parts.golden[0].history.clear())),
            (GOLDEN_FILE, "\"nothing\"", Box::new(|parts| parts.golden[0].answers[1].item_id = "nothing".to_owned())),
            (GOLDEN_FILE, "twice", Box::new(|parts| parts.golden[0].answers[1].item_id = "item-1".to_owned())),
            (WARMUP_FILE, "shapes[0].batch: 0", Box::new(|parts| parts.warmup[0].batch = 0)),
            (WARMUP_FILE, "shapes[1].history: 9", Box::new(|parts| parts.warmup[1].history = 9)),
        ];
        for (file, reason, spoil) in cases {
            let mut parts = sample::parts();
            spoil(&mut parts);
            let error = publish(&dir, sample::manifest("2"), parts).expect_err(reason);
            assert!(error.file == file && error.reason.contains(reason), "expected {file}: {reason}, got {error}");
            assert_eq!(names(root.path()), ["shop"]);
        }
        assert_eq!(load(&dir).unwrap().manifest.version, "1");
    }

    #[test]
    fn what_dead_writers_left_is_removed_and_neighbours_stay() {
        let root = tempfile::tempdir().unwrap();
        for name in [".shop.12-0.tmp", ".shop.12-x.tmp", ".other.12-0.tmp", "shop.12-0.tmp"] {
            fs::create_dir(root.path().join(name)).unwrap();
            fs::write(root.path().join(name).join(WEIGHTS_FILE), "half").unwrap();
        }
        publish_version(&root.path().join("shop"), "1").unwrap();
        assert_eq!(names(root.path()), [".other.12-0.tmp", ".shop.12-x.tmp", "shop", "shop.12-0.tmp"]);
    }

    #[test]
    fn replacing_in_two_moves_can_be_cut_anywhere() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("shop");
        let aside = aside(&dir).unwrap();
        publish_version(&dir, "1").unwrap();
        // Cut after the first move: the old one is aside, the new one not yet in.
        fs::rename(&dir, &aside).unwrap();
        assert_eq!(load(&dir).unwrap().manifest.version, "1");
        publish_version(&dir, "2").unwrap();
        assert_eq!(load(&dir).unwrap().manifest.version, "2");
        assert_eq!(names(root.path()), ["shop"]);
        // Cut after the second: the old one was not yet removed.
        publish_version(&aside, "1").unwrap();
        assert_eq!(load(&dir).unwrap().manifest.version, "2");
        publish_version(&dir, "3").unwrap();
        assert_eq!(names(root.path()), ["shop"]);
        // Not cut at all.
        let other = root.path().join("other");
        publish_version(&other, "4").unwrap();
        Target::of(&dir).unwrap().step_aside(&other).unwrap();
        assert_eq!(load(&dir).unwrap().manifest.version, "4");
        assert_eq!(names(root.path()), ["shop"]);
    }

    #[test]
    fn readers_and_writers_at_once_see_whole_bundles() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("shop");
        publish_version(&dir, "0").unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writers = [1, 2].map(|writer| {
                let dir = &dir;
                scope.spawn(move || {
                    for nth in 0..40 {
                        publish(dir, sample::manifest(&format!("{writer}.{nth}")), sample::parts()).unwrap();
                    }
                })
            });
            let reader = scope.spawn(|| {
                let mut loads = 0;
                while !done.load(Ordering::Relaxed) {
                    load(&dir).unwrap();
                    loads += 1;
                }
                loads
            });
            writers.into_iter().for_each(|writer| writer.join().unwrap());
            done.store(true, Ordering::Relaxed);
            assert!(reader.join().unwrap() > 0);
        });
        assert_eq!(names(root.path()), ["shop"]);
    }

    /// Not a test of its own: the writer that the next test kills.
    #[test]
    #[ignore = "run by a_killed_writer_leaves_a_whole_bundle"]
    fn publish_until_killed() {
        let Some(dir) = std::env::var_os(KILL_DIR) else { return };
        let started = Instant::now();
        for nth in 0.. {
            publish_version(Path::new(&dir), &nth.to_string()).unwrap();
            if started.elapsed() > Duration::from_secs(60) {
                return;
            }
        }
    }

    #[test]
    fn a_killed_writer_leaves_a_whole_bundle() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("shop");
        publish_version(&dir, "0").unwrap();
        for round in 0..8 {
            let mut writer = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "--ignored", "artifact::publish::tests::publish_until_killed"])
                .env(KILL_DIR, &dir)
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            // Wait until it writes, then a little longer, never the same.
            let before = load(&dir).unwrap().manifest.digest;
            let limit = Instant::now() + Duration::from_secs(30);
            while load(&dir).unwrap().manifest.digest == before && Instant::now() < limit {}
            let until = Instant::now() + Duration::from_micros(round * 1370);
            while Instant::now() < until {}
            writer.kill().unwrap();
            writer.wait().unwrap();
            load(&dir).unwrap();
        }
        publish_version(&dir, "last").unwrap();
        assert_eq!(load(&dir).unwrap().manifest.version, "last");
        assert_eq!(names(root.path()), ["shop"]);
    }
}
