//! The right to publish to a variant: one trainer at a time.
//!
//! A lease is a lock on the file `VARIANT/.lease`. The system drops it when its holder ends, however that comes about, so
//! that no lease outlives its trainer and none has to be broken by hand. What the file says of the holder is for people.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::manifest::now;
use super::{BundleError, BundleRegistry};

const LEASE: &str = ".lease";

/// Who holds a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// As the holder names itself.
    pub owner: String,
    /// Its process.
    pub pid: u32,
    /// Since when, in UTC: `2026-01-31T23:59:59Z`.
    pub since: String,
}

/// A lease that is held until it is dropped, or its process ends.
#[derive(Debug)]
pub struct Lease {
    _locked: File,
}

/// Why there is no lease.
#[derive(Debug, Error)]
pub enum LeaseError {
    /// Somebody else has it.
    #[error("{}: {} has it; one trainer publishes to a variant at a time", path.display(), named(holder.as_ref()))]
    Taken {
        /// The lease's file.
        path: PathBuf,
        /// Who; none when the file does not say.
        holder: Option<Holder>,
    },
    /// The variant's name or its directory.
    #[error(transparent)]
    Registry(#[from] BundleError),
    /// The file.
    #[error("{}: {reason}", path.display())]
    Io {
        /// The lease's file.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
}

fn named(holder: Option<&Holder>) -> String {
    match holder {
        Some(Holder { owner, pid, since }) => format!("{owner} (process {pid}, since {since})"),
        None => "a process that did not say who it is".to_owned(),
    }
}

impl BundleRegistry {
    /// Takes the lease of a variant; never waits. `owner` is what others are told.
    ///
    /// # Errors
    /// [`LeaseError::Taken`] names who has it.
    pub fn lease(&self, variant: &str, owner: &str) -> Result<Lease, LeaseError> {
        Self::check_variant(variant)?;
        let directory = self.root().join(variant);
        let path = directory.join(LEASE);
        let io = |reason| LeaseError::Io { path: path.clone(), reason };
        fs::create_dir_all(&directory).map_err(io)?;
        let mut file = File::options().create(true).truncate(false).read(true).write(true).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                // The holder may be writing it just now: then it is not known who that is.
                let holder = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
                return Err(LeaseError::Taken { path, holder });
            }
            Err(TryLockError::Error(reason)) => return Err(io(reason)),
        }
        let holder = Holder { owner: owner.to_owned(), pid: std::process::id(), since: now() };
        let text = serde_json::to_vec(&holder).map_err(|error| io(error.into()))?;
        file.set_len(0).and_then(|()| file.write_all(&text)).and_then(|()| file.flush()).map_err(io)?;
        Ok(Lease { _locked: file })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_had_once_and_a_second_trainer_is_told_who_has_it() {
        let root = tempfile::tempdir().unwrap();
        let registry = BundleRegistry::new(root.path());
        let first = registry.lease("main", "the first trainer").unwrap();
        let LeaseError::Taken { holder: Some(holder), path } = registry.lease("main", "another").unwrap_err() else {
            panic!("no holder")
        };
        assert_eq!((holder.owner.as_str(), holder.pid), ("the first trainer", std::process::id()));
        assert_eq!(path, root.path().join("main/.lease"));
        let told = registry.lease("main", "another").unwrap_err().to_string();
        assert!(told.contains("the first trainer (process") && told.contains(&holder.since), "{told}");
        // Another variant is another lease, and none is a version.
        let _other = registry.lease("other", "another").unwrap();
        assert!(registry.versions("main").unwrap().is_empty());
        drop(first);
        registry.lease("main", "another").unwrap();
        assert!(registry.lease("../main", "another").is_err());
    }
}
