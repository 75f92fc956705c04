//! A text that must not be told.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// A token or a key. It is never shown, also not for debugging.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// A secret of this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How long it is, in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The text itself, for whom it is meant: never for a log or an error.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether both are the same. How long that takes tells nothing of either: hashes of one length are compared, all of
    /// them.
    pub fn matches(&self, other: &Self) -> bool {
        Sha256::digest(&self.0).as_slice().ct_eq(Sha256::digest(&other.0).as_slice()).into()
    }
}

/// Settings are shown as they were read, but for this.
impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.is_empty() { "" } else { "(secret)" })
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other)
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "(none)" } else { "(secret)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_matches_itself_alone_and_is_not_shown() {
        let secret = Secret::new("open sesame 0123");
        assert!(secret.matches(&Secret::new("open sesame 0123")));
        for other in ["", "open sesame 0124", "open sesame 012", "open sesame 01234"] {
            assert!(!secret.matches(&Secret::new(other)), "{other:?}");
        }
        assert_eq!(format!("{secret:?} {:?}", Secret::default()), "(secret) (none)");
    }
}
