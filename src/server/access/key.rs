//! Keys and their salted hashes.
//!
//! A key is `NAME.SECRET`: the name finds the hash, so that one hash is worked out however many keys there are. The
//! secret is 32 random bytes, so that a fast hash is enough: there is nothing to guess.

use std::fmt;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::domain::Secret;

/// Longest name, in bytes.
const LONGEST_NAME: usize = 64;
/// Bytes of a secret.
const SECRET: usize = 32;
/// Bytes of a salt.
const SALT: usize = 16;
/// How a hash in the settings begins.
const SCHEME: &str = "sha256";

/// Whether a key may be called so: it is a label of metrics.
pub fn is_name(name: &str) -> bool {
    (1..=LONGEST_NAME).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// The salted hash of a key, `sha256:SALT:HASH` in hexadecimal digits. It is not shown for debugging.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct KeyHash(String);

/// A hash that can be held against keys.
#[derive(Clone)]
pub(super) struct Lock {
    salt: [u8; SALT],
    hash: [u8; 32],
}

impl KeyHash {
    /// As it stands in the settings.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// None when it is no hash of ours.
    pub(super) fn lock(&self) -> Option<Lock> {
        let mut parts = self.0.split(':');
        let (scheme, salt, hash) = (parts.next()?, parts.next()?, parts.next()?);
        (scheme == SCHEME && parts.next().is_none())
            .then(|| Some(Lock { salt: bytes(salt)?, hash: bytes(hash)? }))
            .flatten()
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hash)")
    }
}

impl Lock {
    /// One that no key opens, to be tried where no key has the name, so that the answer takes as long.
    pub(super) const SHUT: Self = Self { salt: [0; SALT], hash: [0; 32] };

    fn of(salt: [u8; SALT], key: &str) -> Self {
        Self { salt, hash: Sha256::new().chain_update(salt).chain_update(key).finalize().into() }
    }

    /// Whether the key has this hash. How long that takes tells nothing of either.
    pub(super) fn opens(&self, key: &str) -> bool {
        Self::of(self.salt, key).hash.ct_eq(&self.hash).into()
    }
}

/// A new key and its hash. The key is told once, to whoever will use it; the settings hold the hash.
pub struct NewKey {
    /// What callers send.
    key: String,
    /// What the settings hold.
    pub hash: KeyHash,
}

impl NewKey {
    /// Made of the system's randomness.
    ///
    /// # Errors
    /// When the system has none, or when it may not be called so.
    pub fn make(name: &str) -> Result<Self, String> {
        if !is_name(name) {
            return Err(format!("the name is {name:?}, expected 1 to {LONGEST_NAME} of A-Z a-z 0-9 - _"));
        }
        let (mut secret, mut salt) = ([0; SECRET], [0; SALT]);
        for bytes in [&mut secret[..], &mut salt[..]] {
            getrandom::fill(bytes).map_err(|error| format!("the system gives no random numbers: {error}"))?;
        }
        let key = format!("{name}.{}", digits(&secret));
        let hash = KeyHash(format!("{SCHEME}:{}:{}", digits(&salt), digits(&Lock::of(salt, &key).hash)));
        Ok(Self { key, hash })
    }

    /// The key itself, to be told to a person.
    pub fn reveal(&self) -> &str {
        &self.key
    }

    /// The key as something that is not shown.
    pub fn secret(&self) -> Secret {
        Secret::new(self.key.clone())
    }
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(key)")
    }
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let digits = digits.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |place: usize| char::from(pair[place]).to_digit(16);
        *byte = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_opens_its_own_hash_alone_and_is_not_shown() {
        let (one, other) = (NewKey::make("shop").unwrap(), NewKey::make("shop").unwrap());
        let lock = one.hash.lock().unwrap();
        assert!(lock.opens(one.reveal()) && !lock.opens(other.reveal()) && !lock.opens(""));
        assert!(!Lock::SHUT.opens(one.reveal()));
        assert_eq!(one.reveal().len(), "shop.".len() + 2 * SECRET);
        assert_eq!(format!("{one:?} {:?} {:?}", one.hash, one.secret()), "(key) (hash) (secret)");
    }

    #[test]
    fn what_is_no_hash_is_none() {
        let hash = NewKey::make("a").unwrap().hash;
        assert!(hash.lock().is_some());
        let text = hash.text();
        let (short, more) = (&text[..text.len() - 1], format!("{text}:00"));
        for wrong in ["", "sha256", "sha256::", short, &more, &text.replace("sha256", "md5"), &text.replace(':', "x")] {
            assert!(KeyHash(wrong.to_owned()).lock().is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn a_name_is_a_label() {
        for (name, fine) in [("shop-1_a", true), ("", false), ("a.b", false), ("a b", false), ("ä", false)] {
            assert_eq!(is_name(name), fine, "{name:?}");
            assert_eq!(NewKey::make(name).is_ok(), fine, "{name:?}");
        }
        assert!(!is_name(&"a".repeat(LONGEST_NAME + 1)));
    }
}
