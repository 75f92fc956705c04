//! The pointers of a registry, and what was made of them so far.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::artifact::{BundleError, BundleRegistry, FileMark};

/// A registry with the last look at each pointer, so that a change is seen once, and a bundle that was refused is not
/// tried again until its files or its pointer change.
#[derive(Debug)]
pub struct Pointers {
    registry: BundleRegistry,
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
    /// The pointers of `registry`, none of them seen.
    pub fn new(registry: BundleRegistry) -> Self {
        Self { registry, seen: Mutex::default() }
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
    pub(super) fn point(&self, variant: &str, version: &str) -> Result<(), BundleError> {
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
