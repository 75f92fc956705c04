//! A registry: a local directory of bundles, by variant and version, with a pointer to the one that is to serve.
//!
//! | path | what it is |
//! |---|---|
//! | `VARIANT/VERSION/` | one bundle; takes its name whole or not at all |
//! | `VARIANT/current` | the version that is to serve, a line of text, written by rename |
//! | `VARIANT/previous` | the version that `current` named before, the same |
//! | `VARIANT/.lease` | who publishes there, locked for as long |
//!
//! Names that begin with a dot are temporary and never a version. Servers read the pointer; who publishes, promotes or
//! rolls back writes it.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Write};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use super::load::load_manifest;
use super::manifest::{LISTED_FILES, MANIFEST_FILE, check_name};
use super::publish::{Target, failed, sync_dir};
use super::{BundleError, verify};

pub(super) const CURRENT: &str = "current";
pub(super) const PREVIOUS: &str = "previous";
/// A version and a line's end; more is no pointer.
pub(super) const LONGEST_POINTER: u64 = 128;

/// A directory of bundles by variant and version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleRegistry {
    root: PathBuf,
}

/// One file of a bundle as the file system describes it. Two looks that differ say that the bundle was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMark {
    name: &'static str,
    bytes: u64,
    modified: Option<SystemTime>,
}

impl BundleRegistry {
    /// The registry at `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Refuses a name that no directory of a variant has.
    pub fn check_variant(name: &str) -> Result<(), BundleError> {
        check_name("variant", name)
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The version that is to serve; none when the variant has no pointer.
    ///
    /// # Errors
    /// When the pointer cannot be read or names no version.
    pub fn current(&self, variant: &str) -> Result<Option<String>, BundleError> {
        self.pointer(variant, CURRENT)
    }

    /// The version that was to serve before; none when there was none.
    ///
    /// # Errors
    /// As [`BundleRegistry::current`].
    pub fn previous(&self, variant: &str) -> Result<Option<String>, BundleError> {
        self.pointer(variant, PREVIOUS)
    }

    /// Where a version stands, whether it is there or not.
    ///
    /// # Errors
    /// When a name holds other letters than those of bundles.
    pub fn directory(&self, variant: &str, version: &str) -> Result<PathBuf, BundleError> {
        check_name("variant", variant)?;
        check_version(version)?;
        Ok(self.root.join(variant).join(version))
    }

    /// The directory at `path`, which counts from the registry's own. None when there is none.
    ///
    /// # Errors
    /// When the path leads out of the registry, by its own words or by a link.
    pub fn inside(&self, path: &str) -> Result<Option<PathBuf>, BundleError> {
        let refuse = || BundleError::new(path, "leads out of the registry; expected VARIANT/VERSION below it");
        let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        if path.is_empty() || !plain {
            return Err(refuse());
        }
        let dir = self.root.join(path);
        let (Ok(real), Ok(root)) = (fs::canonicalize(&dir), fs::canonicalize(&self.root)) else { return Ok(None) };
        if real == root || !real.starts_with(&root) {
            return Err(refuse());
        }
        Ok(real.is_dir().then_some(dir))
    }

    /// The version of `variant` that stands at `dir`; none when it is no version of it.
    pub fn version_at(&self, variant: &str, dir: &Path) -> Option<String> {
        let version = dir.file_name()?.to_str()?;
        let place = self.directory(variant, version).ok()?;
        (place == dir && dir.is_dir()).then(|| version.to_owned())
    }

    /// What the file system says of the files of a version; fewer than a bundle has when some are missing.
    pub fn marks(&self, variant: &str, version: &str) -> Vec<FileMark> {
        let Ok(dir) = self.directory(variant, version) else { return Vec::new() };
        let mark = |name: &'static str| {
            let about = fs::metadata(dir.join(name)).ok()?;
            Some(FileMark { name, bytes: about.len(), modified: about.modified().ok() })
        };
        LISTED_FILES.into_iter().chain([MANIFEST_FILE]).filter_map(mark).collect()
    }

    /// Says that `version` is to serve. What was to serve before is kept as [`BundleRegistry::previous`].
    ///
    /// # Errors
    /// When there is no such version, or the pointer cannot be written; then it is as it was.
    pub fn point(&self, variant: &str, version: &str) -> Result<(), BundleError> {
        let dir = self.directory(variant, version)?;
        if !dir.join(MANIFEST_FILE).is_file() {
            return Err(BundleError::new(MANIFEST_FILE, format!("missing from {}", dir.display())));
        }
        // A pointer that cannot be read is about to be replaced: there is nothing to keep of it.
        let before = self.current(variant).ok().flatten().filter(|before| before != version);
        if let Some(before) = before {
            self.write_pointer(variant, PREVIOUS, &before)?;
        }
        self.write_pointer(variant, CURRENT, version)
    }

    /// Copies the bundle in `from` into the registry, verifies the copy, gives it its name and points at it. Returns
    /// where it stands. `version` is the manifest's own where none is given.
    ///
    /// A version is never overwritten: where the same bundle stands already, only the pointer is written.
    ///
    /// # Errors
    /// What [`verify`] refuses, a version that holds another bundle, and failures to write.
    pub fn publish(&self, from: &Path, variant: &str, version: Option<&str>) -> Result<PathBuf, BundleError> {
        let manifest = load_manifest(from)?;
        let version = version.unwrap_or(&manifest.version);
        let dir = self.directory(variant, version)?;
        let target = Target::of(&dir)?;
        let lock = target.lock()?;
        if lock.is_some() {
            target.remove_leftovers()?;
        }
        if dir.exists() {
            let found = load_manifest(&dir)?;
            if found.digest != manifest.digest {
                return Err(BundleError::taken(dir.display().to_string(), &found, &manifest));
            }
        } else {
            let copy = target.temporary()?;
            for name in LISTED_FILES.into_iter().chain([MANIFEST_FILE]) {
                copy_synced(&from.join(name), &copy.path.join(name))
                    .map_err(|error| BundleError::new(name, format!("cannot be copied: {error}")))?;
            }
            sync_dir(&copy.path).map_err(|error| failed("cannot be synced", &copy.path, &error))?;
            verify(&copy.path)?;
            fs::rename(&copy.path, &dir).map_err(|error| failed("cannot take its name", &dir, &error))?;
            let parent = self.root.join(variant);
            sync_dir(&parent).map_err(|error| failed("cannot be synced", &parent, &error))?;
        }
        self.point(variant, version)?;
        Ok(dir)
    }

    fn pointer(&self, variant: &str, file: &str) -> Result<Option<String>, BundleError> {
        check_name("variant", variant)?;
        let path = self.root.join(variant).join(file);
        let refuse = |reason: String| BundleError::new(path.display().to_string(), reason);
        let size = match fs::metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(refuse(format!("cannot be read: {error}"))),
            Ok(about) if !about.is_file() => return Err(refuse("is not a plain file".to_owned())),
            Ok(about) => about.len(),
        };
        if size > LONGEST_POINTER {
            return Err(refuse(format!("{size} bytes, expected a version in at most {LONGEST_POINTER}")));
        }
        let text = fs::read_to_string(&path).map_err(|error| refuse(format!("cannot be read: {error}")))?;
        let version = text.trim();
        check_version(version).map_err(|error| refuse(error.reason))?;
        Ok(Some(version.to_owned()))
    }

    fn write_pointer(&self, variant: &str, file: &str, version: &str) -> Result<(), BundleError> {
        let parent = self.root.join(variant);
        let path = parent.join(file);
        // A random mark and no process id: those of containers that share a registry are alike.
        let temporary = parent.join(format!(".{file}.{:016x}.tmp", RandomState::new().hash_one(version)));
        let write = || -> io::Result<()> {
            let mut written = File::create(&temporary)?;
            writeln!(written, "{version}")?;
            written.sync_all()?;
            fs::rename(&temporary, &path)?;
            sync_dir(&parent)
        };
        write().map_err(|error| failed("cannot be written", &path, &error))
    }
}

/// A version is a name as bundles have it, and none of the pointers'.
pub(super) fn check_version(version: &str) -> Result<(), BundleError> {
    if [CURRENT, PREVIOUS].contains(&version) {
        return Err(BundleError::new(MANIFEST_FILE, format!("version: {version:?} is the name of a pointer")));
    }
    check_name("version", version)
}

fn copy_synced(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut copy = File::create_new(to)?;
    io::copy(&mut source, &mut copy)?;
    copy.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::super::{publish, sample};
    use super::*;

    fn bundle(root: &Path, version: &str) -> PathBuf {
        let dir = root.join(format!("made-{version}"));
        publish(&dir, sample::manifest(version), sample::parts()).unwrap();
        dir
    }

    #[test]
    fn what_is_published_is_whole_and_pointed_at() {
        let root = tempfile::tempdir().unwrap();
        let registry = BundleRegistry::new(root.path().join("registry"));
        assert_eq!(registry.current("main").unwrap(), None);
        let first = registry.publish(&bundle(root.path(), "1"), "main", None).unwrap();
        assert_eq!(registry.current("main").unwrap().as_deref(), Some("1"));
        assert_eq!(registry.previous("main").unwrap(), None);
        assert_eq!(verify(&first).unwrap().bundle, "shop/1");
        registry.publish(&bundle(root.path(), "2"), "main", Some("second")).unwrap();
        assert_eq!(registry.current("main").unwrap().as_deref(), Some("second"));
        assert_eq!(registry.previous("main").unwrap().as_deref(), Some("1"));
        assert_eq!(registry.version_at("main", &first).as_deref(), Some("1"));
        assert_eq!(registry.version_at("other", &first), None);
        // Again: nothing to copy, only to point at.
        registry.publish(&root.path().join("made-1"), "main", None).unwrap();
        assert_eq!(registry.current("main").unwrap().as_deref(), Some("1"));
    }

    #[test]
    fn a_version_is_never_overwritten_and_a_broken_bundle_never_published() {
        let root = tempfile::tempdir().unwrap();
        let registry = BundleRegistry::new(root.path().join("registry"));
        registry.publish(&bundle(root.path(), "1"), "main", None).unwrap();
        let error = registry.publish(&bundle(root.path(), "2"), "main", Some("1")).unwrap_err();
        assert!(error.reason.contains("holds another bundle (shop/1"), "{error}");
        let broken = bundle(root.path(), "3");
        fs::write(broken.join("weights.safetensors"), "half").unwrap();
        let error = registry.publish(&broken, "main", None).unwrap_err();
        assert_eq!(error.file, "weights.safetensors");
        assert_eq!(registry.current("main").unwrap().as_deref(), Some("1"));
        let mut left: Vec<_> = fs::read_dir(registry.root().join("main"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["1", "current"]);
    }

    #[test]
    fn names_and_paths_that_lead_elsewhere_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let registry = BundleRegistry::new(root.path().join("registry"));
        let outside = bundle(root.path(), "1");
        registry.publish(&outside, "main", None).unwrap();
        for (variant, version) in [("..", "1"), ("main", "../main"), ("main", ""), ("main", "current"), ("a/b", "1")] {
            assert!(registry.directory(variant, version).is_err(), "{variant}/{version}");
        }
        for path in ["", ".", "..", "../made-1", "main/../../made-1", "/", outside.to_str().unwrap()] {
            assert!(registry.inside(path).is_err(), "{path:?}");
        }
        assert_eq!(registry.inside("main/9").unwrap(), None);
        assert_eq!(registry.inside("main/current").unwrap(), None);
        assert_eq!(registry.inside("main/1").unwrap(), Some(registry.root().join("main/1")));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(&outside, registry.root().join("main/link")).unwrap();
            assert!(registry.inside("main/link").is_err());
        }
        assert!(registry.point("main", "9").is_err());
        for wrong in ["../made-1\n", "\n", "a b\n", &"1".repeat(200)] {
            fs::write(registry.root().join("main/current"), wrong).unwrap();
            assert!(registry.current("main").is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_change_of_any_file_shows_in_the_marks() {
        let root = tempfile::tempdir().unwrap();
        let registry = BundleRegistry::new(root.path().join("registry"));
        let dir = registry.publish(&bundle(root.path(), "1"), "main", None).unwrap();
        let before = registry.marks("main", "1");
        assert_eq!(before.len(), LISTED_FILES.len() + 1);
        assert_eq!(registry.marks("main", "1"), before);
        let weights = dir.join("weights.safetensors");
        fs::write(&weights, [fs::read(&weights).unwrap(), vec![0]].concat()).unwrap();
        assert_ne!(registry.marks("main", "1"), before);
        assert!(registry.marks("main", "2").is_empty());
    }
}
