//! The pointers of a registry, and what was made of them so far.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::artifact::{BundleError, BundleRegistry, FileMark, RegistryPlace, RemoteError, RemoteRegistry};

use super::loader::Loader;
use super::mirror::Mirror;
use super::refusal::Refusal;

/// A registry with the last look at each pointer, so that a change is seen once, and a bundle that was refused is not
/// tried again until its files or its pointer change. Of a registry in an object store, the mirror of it is looked at.
#[derive(Debug)]
pub struct Pointers {
    registry: BundleRegistry,
    mirror: Option<Mirror>,
    seen: Mutex<BTreeMap<String, Look>>,
}

/// What a pointer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
    /// There is none.
    Absent,
    /// It cannot be read or names no version.
    Broken(BundleError),
    /// A version, there or not.
    At(Pointed),
}

/// A version and the files that stand there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pointed {
    pub(super) directory: PathBuf,
    files: Vec<FileMark>,
}

impl Pointers {
    /// The pointers of the registry at `place`, none of them seen. An object store is mirrored below `cache`; `loader` is who
    /// counts that.
    ///
    /// # Errors
    /// A store that cannot be opened. Whether it answers is not asked.
    pub fn open(place: &RegistryPlace, cache: &Path, loader: &Loader) -> Result<Self, BundleError> {
        let mirror = match place {
            RegistryPlace::Directory(root) => {
                return Ok(Self { registry: BundleRegistry::new(root), mirror: None, seen: Mutex::default() });
            }
            RegistryPlace::Url(url) => Mirror::new(RemoteRegistry::open(url, cache)?, loader.metrics.clone()),
        };
        Ok(Self { registry: mirror.registry().clone(), mirror: Some(mirror), seen: Mutex::default() })
    }

    /// Brings what an object store newly says into its mirror. The error is told once: a version that did not come whole.
    pub(super) fn refresh(&self, variant: &str) -> Result<(), (PathBuf, Refusal)> {
        self.mirror.as_ref().map_or(Ok(()), |mirror| mirror.refresh(variant))
    }

    /// Whether there is anything to refresh.
    pub(super) fn is_mirrored(&self) -> bool {
        self.mirror.is_some()
    }

    /// Makes sure that a version is here, where it is to come from an object store.
    pub(super) fn bring(&self, variant: &str, version: &str) -> Result<(), RemoteError> {
        self.mirror.as_ref().map_or(Ok(()), |mirror| mirror.bring(variant, version).map(drop))
    }

    /// The version that was to serve before; none where the registry does not say.
    pub(super) fn previous(&self, variant: &str) -> Option<String> {
        match &self.mirror {
            Some(mirror) => mirror.previous(variant).ok().flatten(),
            None => self.registry.previous(variant).ok().flatten(),
        }
    }

    pub(super) fn registry(&self) -> &BundleRegistry {
        &self.registry
    }

    /// The pointer of `variant`, when it or what it points at has changed since the last call.
    pub(super) fn changed(&self, variant: &str) -> Option<Look> {
        let mut seen = self.seen();
        let look = self.look(variant);
        let before = seen.insert(variant.to_owned(), look.clone());
        (before.as_ref() != Some(&look)).then_some(look)
    }

    /// Whether `variant` still points at what was seen.
    pub(super) fn still(&self, variant: &str, pointed: &Pointed) -> bool {
        let _seen = self.seen();
        self.look(variant) == Look::At(pointed.clone())
    }

    /// Points `variant` at `version`, which is then no change that [`Pointers::changed`] would tell.
    pub(super) fn point(&self, variant: &str, version: &str) -> Result<(), RemoteError> {
        if let Some(mirror) = &self.mirror {
            mirror.point(variant, version)?;
        }
        let _pointed = self.mirror.as_ref().map(Mirror::was_pointed);
        let mut seen = self.seen();
        self.registry.point(variant, version)?;
        seen.insert(variant.to_owned(), self.look(variant));
        Ok(())
    }

    fn look(&self, variant: &str) -> Look {
        let found = self.registry.current(variant).and_then(|version| {
            let Some(version) = version else { return Ok(Look::Absent) };
            let directory = self.registry.directory(variant, &version)?;
            Ok(Look::At(Pointed { directory, files: self.registry.marks(variant, &version) }))
        });
        found.unwrap_or_else(Look::Broken)
    }

    /// Held while files are looked at, so that looking and pointing come one after the other.
    fn seen(&self) -> MutexGuard<'_, BTreeMap<String, Look>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
