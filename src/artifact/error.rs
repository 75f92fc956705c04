//! Why a bundle was refused.

use thiserror::Error;

use super::Manifest;

/// A bundle cannot be read or written: the file at fault and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{file}: {reason}")]
pub struct BundleError {
    /// A file of the bundle by its name, or a directory by its path.
    pub file: String,
    /// What was found and what was expected.
    pub reason: String,
}

impl BundleError {
    /// `file` is refused for `reason`.
    pub fn new(file: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { file: file.into(), reason: reason.into() }
    }

    /// `place` holds the bundle `found`, and `wanted` is another.
    pub(super) fn taken(place: impl Into<String>, found: &Manifest, wanted: &Manifest) -> Self {
        let reason = format!(
            "holds another bundle ({}, digest {}), expected none or digest {}; versions are not overwritten",
            found.label(),
            found.digest,
            wanted.digest
        );
        Self::new(place, reason)
    }
}
