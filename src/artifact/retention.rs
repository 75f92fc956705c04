//! Which versions a variant has, and how the oldest go.

use std::fs;
use std::io::ErrorKind;

use super::load::load_manifest;
use super::publish::{Target, failed, sync_dir};
use super::{BundleError, BundleRegistry};

/// Ends the name of a version that is being removed.
const GOING: &str = ".going.tmp";

impl BundleRegistry {
    /// The versions of a variant, by when they were made, oldest first. Directories without a readable manifest are none.
    ///
    /// # Errors
    /// When the variant's directory cannot be listed; one that is not there has no versions.
    pub fn versions(&self, variant: &str) -> Result<Vec<String>, BundleError> {
        Self::check_variant(variant)?;
        let parent = self.root().join(variant);
        let list = |error| failed("cannot be listed", &parent, &error);
        let entries = match fs::read_dir(&parent) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(list)?,
        };
        let mut versions = Vec::new();
        for entry in entries {
            let path = entry.map_err(list)?.path();
            if let Some(version) = self.version_at(variant, &path)
                && let Ok(manifest) = load_manifest(&path)
            {
                versions.push((manifest.created, version));
            }
        }
        versions.sort();
        Ok(versions.into_iter().map(|(_, version)| version).collect())
    }

    /// Removes the oldest versions of a variant until `keep` are left, and says which. What `current` and `previous` name
    /// stays, whatever its age.
    ///
    /// # Errors
    /// When a pointer or the directory cannot be read, or a version not be removed.
    pub fn prune(&self, variant: &str, keep: usize) -> Result<Vec<String>, BundleError> {
        let versions = self.versions(variant)?;
        let Some(any) = versions.first() else { return Ok(Vec::new()) };
        let parent = self.root().join(variant);
        // As whoever publishes: no version is to appear or to be pointed at by a writer meanwhile.
        let _lock = Target::of(&self.directory(variant, any)?)?.lock()?;
        let pointed = [self.current(variant)?, self.previous(variant)?];
        let spare = versions.len().saturating_sub(keep);
        let old = versions.into_iter().take(spare).filter(|version| !pointed.contains(&Some(version.clone())));
        let mut gone = Vec::new();
        for version in old {
            let (dir, going) = (self.directory(variant, &version)?, parent.join(format!(".{version}{GOING}")));
            // At once out of sight, so that nobody meets half of it.
            fs::rename(&dir, &going).map_err(|error| failed("cannot be moved aside", &dir, &error))?;
            gone.push(version);
        }
        sync_dir(&parent).map_err(|error| failed("cannot be synced", &parent, &error))?;
        for entry in fs::read_dir(&parent).map_err(|error| failed("cannot be listed", &parent, &error))? {
            let path = entry.map_err(|error| failed("cannot be listed", &parent, &error))?.path();
            // Those too that a remover before left, who was killed.
            if path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(GOING)) {
                fs::remove_dir_all(&path).map_err(|error| failed("cannot be removed", &path, &error))?;
            }
        }
        Ok(gone)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::super::{Manifest, publish, sample};
    use super::*;

    #[test]
    fn the_oldest_go_and_what_a_pointer_names_stays() {
        let root = tempfile::tempdir().unwrap();
        let registry = BundleRegistry::new(root.path());
        for at in 1..=6 {
            let manifest =
                Manifest { created: format!("2026-01-0{at}T00:00:00Z"), ..sample::manifest(&format!("v{}", 9 - at)) };
            publish(&root.path().join(format!("main/{}", manifest.version)), manifest, sample::parts()).unwrap();
        }
        // Made in the order v8 to v3, and pointed at the second, then at the last.
        registry.point("main", "v7").unwrap();
        registry.point("main", "v3").unwrap();
        assert_eq!(registry.versions("main").unwrap(), ["v8", "v7", "v6", "v5", "v4", "v3"]);
        assert_eq!(registry.prune("main", 6).unwrap(), [""; 0]);
        fs::create_dir(root.path().join("main/.v1.going.tmp")).unwrap();
        assert_eq!(registry.prune("main", 2).unwrap(), ["v8", "v6", "v5"]);
        assert_eq!(registry.versions("main").unwrap(), ["v7", "v4", "v3"]);
        assert_eq!(registry.prune("main", 0).unwrap(), ["v4"]);
        assert!(!root.path().join("main/.v1.going.tmp").exists());
        assert_eq!(registry.prune("nobody", 0).unwrap(), [""; 0]);
    }
}
