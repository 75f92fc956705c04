//! A registry in an object store: the names of a [`BundleRegistry`] as keys, mirrored into a directory that is one.
//!
//! An object store renames nothing, so who publishes writes a version's files first, its manifest after them, and the
//! pointer last. Who reads trusts no order: a version counts once every file has come with the size and hash that its
//! manifest says, and only then takes its name in the mirror. What is fetched is written and hashed as it comes: bring
//! and publish on a thread that may wait for files.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path as ObjectPath;
use object_store::{GetOptions, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload};
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio_stream::StreamExt;

use super::load::{LARGEST_MANIFEST, check_file, load_manifest};
use super::manifest::{FileFacts, LISTED_FILES, MANIFEST_FILE, Manifest};
use super::publish::{failed, sync_dir};
use super::registry::{CURRENT, LONGEST_POINTER, PREVIOUS, check_version};
use super::{BundleError, BundleRegistry, store, verify};

/// Versions of a variant that the mirror keeps beside those that its pointers name.
const KEPT: usize = 4;
/// How long nothing was written to what nobody fetches any more.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);
/// Digits of the URL's hash that keep the mirrors of two stores apart.
const MIRROR_DIGITS: usize = 16;

/// A registry in an object store, with its mirror.
#[derive(Debug)]
pub struct RemoteRegistry {
    url: String,
    store: Arc<dyn ObjectStore>,
    root: ObjectPath,
    mirror: BundleRegistry,
}

/// Why something was not had from a store, or not written to it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RemoteError {
    /// The store does not answer or refuses us, or the mirror cannot be written: it may go better the next time.
    #[error("{0}")]
    Away(String),
    /// What lies there is no bundle, and will be none until it changes.
    #[error(transparent)]
    Refused(#[from] BundleError),
}

/// A pointer, as compared with the last look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemotePointer {
    /// It has the tag that was known.
    Same,
    /// There is none.
    Absent,
    /// The version that it names.
    At {
        /// Which one.
        version: String,
        /// What the store calls this content; none where it does not say.
        tag: Option<String>,
    },
}

/// One object of a bundle as the store describes it. Two looks that differ say that it was written anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMark {
    name: &'static str,
    bytes: u64,
    tag: Option<String>,
    modified: i64,
}

impl RemoteRegistry {
    /// The registry at `url`, mirrored into a directory of its own below `mirrors`. Nothing is asked of the store yet.
    ///
    /// # Errors
    /// A URL that names no store, and settings in the environment that a store cannot be opened with.
    pub fn open(url: &str, mirrors: &Path) -> Result<Self, BundleError> {
        let (store, root) = store::open(url)?;
        Ok(Self::over(url, store, root, mirrors))
    }

    fn over(url: &str, store: Arc<dyn ObjectStore>, root: ObjectPath, mirrors: &Path) -> Self {
        let name: String = format!("{:x}", Sha256::digest(url)).chars().take(MIRROR_DIGITS).collect();
        Self { url: url.to_owned(), store, root, mirror: BundleRegistry::new(mirrors.join(name)) }
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What has come from it, as a registry in a directory.
    pub fn mirror(&self) -> &BundleRegistry {
        &self.mirror
    }

    /// The version that is to serve, unless the pointer still has the tag `known`.
    ///
    /// # Errors
    /// When the store is away or the pointer names no version.
    pub async fn current(&self, variant: &str, known: Option<&str>) -> Result<RemotePointer, RemoteError> {
        self.pointer(variant, CURRENT, known).await
    }

    /// The version that was to serve before; none when there was none.
    ///
    /// # Errors
    /// As [`RemoteRegistry::current`].
    pub async fn previous(&self, variant: &str) -> Result<Option<String>, RemoteError> {
        Ok(match self.pointer(variant, PREVIOUS, None).await? {
            RemotePointer::At { version, .. } => Some(version),
            RemotePointer::Same | RemotePointer::Absent => None,
        })
    }

    /// What the store says of a version's objects, the manifest first; fewer than a bundle has when some are missing.
    /// With `all` unset, of the manifest only.
    ///
    /// # Errors
    /// When the store is away.
    pub async fn marks(&self, variant: &str, version: &str, all: bool) -> Result<Vec<ObjectMark>, RemoteError> {
        let files = if all { LISTED_FILES.as_slice() } else { &[] };
        let mut marks = Vec::new();
        for name in [MANIFEST_FILE].into_iter().chain(files.iter().copied()) {
            let key = self.key(&[variant, version, name]);
            match self.store.head(&key).await {
                Ok(ObjectMeta { size, e_tag, last_modified, .. }) => {
                    marks.push(ObjectMark { name, bytes: size, tag: e_tag, modified: last_modified.timestamp_millis() })
                }
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(self.away(&key, &error)),
            }
        }
        Ok(marks)
    }

    /// Brings a version into the mirror, unless it stands there whole already, and answers its directory.
    ///
    /// # Errors
    /// The file that is missing, too long, too short, or of another hash than the manifest says.
    pub async fn bring(&self, variant: &str, version: &str) -> Result<PathBuf, RemoteError> {
        let dir = self.mirror.directory(variant, version)?;
        let (manifest, bytes) = self.manifest(variant, version).await?;
        if load_manifest(&dir).is_ok_and(|found| found.digest == manifest.digest) && is_whole(&dir, &manifest) {
            return Ok(dir);
        }
        let parent = self.mirror.root().join(variant);
        fs::create_dir_all(&parent).map_err(|error| local("cannot be made", &parent, &error))?;
        // Two servers may share the mirror, so each has a name of its own until it is whole.
        let coming = begin(&parent, version)?;
        for name in LISTED_FILES {
            let wanted = manifest.files.get(name).ok_or_else(|| BundleError::new(name, "is not listed"))?;
            self.fetch(&self.key(&[variant, version, name]), name, wanted, &coming.0.join(name)).await?;
        }
        write_synced(&coming.0.join(MANIFEST_FILE), &bytes)?;
        sync_dir(&coming.0).map_err(|error| local("cannot be synced", &coming.0, &error))?;
        if dir.exists() {
            fs::remove_dir_all(&dir).map_err(|error| local("cannot be replaced", &dir, &error))?;
        }
        match fs::rename(&coming.0, &dir) {
            // Somebody else brought it meanwhile.
            Err(_) if is_whole(&dir, &manifest) => {}
            renamed => renamed.map_err(|error| local("cannot take its name", &dir, &error))?,
        }
        sync_dir(&parent).map_err(|error| local("cannot be synced", &parent, &error))?;
        if let Err(error) = self.mirror.prune(variant, KEPT) {
            tracing::warn!(%error, "old versions of the mirror stay");
        }
        Ok(dir)
    }

    /// Says that `version` is to serve. What was to serve before is kept as [`RemoteRegistry::previous`].
    ///
    /// # Errors
    /// When the version has no manifest there, or the store is away.
    pub async fn point(&self, variant: &str, version: &str) -> Result<(), RemoteError> {
        check_version(version)?;
        if self.marks(variant, version, false).await?.is_empty() {
            let place = self.key(&[variant, version]);
            return Err(BundleError::new(MANIFEST_FILE, format!("missing from {place} in {}", self.url)).into());
        }
        // A pointer that names nothing is about to be replaced: there is nothing to keep of it.
        let before = match self.current(variant, None).await {
            Ok(RemotePointer::At { version, .. }) => Some(version),
            Ok(_) | Err(RemoteError::Refused(_)) => None,
            Err(away) => return Err(away),
        };
        if let Some(before) = before.filter(|before| before != version) {
            self.put(&self.key(&[variant, PREVIOUS]), format!("{before}\n").into_bytes()).await?;
        }
        self.put(&self.key(&[variant, CURRENT]), format!("{version}\n").into_bytes()).await
    }

    /// Uploads the bundle in `from`, its manifest after its files, and points at it. Answers its key. `version` is the
    /// manifest's own where none is given. Holds one file at a time in memory.
    ///
    /// A version is never overwritten: where the same bundle stands already, only the pointer is written.
    ///
    /// # Errors
    /// What [`verify`] refuses, a version that holds another bundle, and a store that is away.
    pub async fn publish(&self, from: &Path, variant: &str, version: Option<&str>) -> Result<String, RemoteError> {
        verify(from)?;
        let manifest = load_manifest(from)?;
        let version = version.unwrap_or(&manifest.version);
        self.mirror.directory(variant, version)?;
        let key = self.key(&[variant, version]);
        if self.marks(variant, version, false).await?.is_empty() {
            for name in LISTED_FILES.into_iter().chain([MANIFEST_FILE]) {
                let bytes = fs::read(from.join(name)).map_err(|error| local("cannot be read", from, &error))?;
                self.put(&self.key(&[variant, version, name]), bytes).await?;
            }
        } else {
            let (found, _) = self.manifest(variant, version).await?;
            if found.digest != manifest.digest {
                return Err(BundleError::taken(key.to_string(), &found, &manifest).into());
            }
        }
        self.point(variant, version).await?;
        Ok(key.to_string())
    }

    async fn pointer(&self, variant: &str, file: &str, known: Option<&str>) -> Result<RemotePointer, RemoteError> {
        BundleRegistry::check_variant(variant)?;
        let key = self.key(&[variant, file]);
        let options = GetOptions { if_none_match: known.map(str::to_owned), ..GetOptions::default() };
        let refuse = |reason: String| RemoteError::Refused(BundleError::new(key.to_string(), reason));
        let found = match self.store.get_opts(&key, options).await {
            Ok(found) => found,
            Err(object_store::Error::NotModified { .. }) => return Ok(RemotePointer::Same),
            Err(object_store::Error::NotFound { .. }) => return Ok(RemotePointer::Absent),
            Err(error) => return Err(self.away(&key, &error)),
        };
        let tag = found.meta.e_tag.clone();
        let bytes = self.bounded(&key, found, LONGEST_POINTER, "a version").await?;
        let text = String::from_utf8(bytes).map_err(|_| refuse("is no text".to_owned()))?;
        let version = text.trim();
        check_version(version).map_err(|error| refuse(error.reason))?;
        Ok(RemotePointer::At { version: version.to_owned(), tag })
    }

    async fn manifest(&self, variant: &str, version: &str) -> Result<(Manifest, Vec<u8>), RemoteError> {
        self.mirror.directory(variant, version)?;
        let key = self.key(&[variant, version, MANIFEST_FILE]);
        let found = self.store.get(&key).await.map_err(|error| self.missing(MANIFEST_FILE, &key, &error))?;
        let bytes = self.bounded(&key, found, LARGEST_MANIFEST, MANIFEST_FILE).await?;
        Ok((Manifest::from_bytes(&bytes)?, bytes))
    }

    /// A small object, read no further than `most` bytes.
    async fn bounded(&self, key: &ObjectPath, found: GetResult, most: u64, what: &str) -> Result<Vec<u8>, RemoteError> {
        let mut pieces = found.into_stream();
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.next().await {
            bytes.extend_from_slice(&piece.map_err(|error| self.away(key, &error))?);
            if bytes.len() as u64 > most {
                let reason = format!("more than {most} bytes, expected {what} in at most so many");
                return Err(BundleError::new(key.to_string(), reason).into());
            }
        }
        Ok(bytes)
    }

    /// Writes an object to a file as it comes, and holds it against what the manifest says.
    async fn fetch(&self, key: &ObjectPath, name: &str, wanted: &FileFacts, to: &Path) -> Result<(), RemoteError> {
        let refuse = |reason: String| RemoteError::Refused(BundleError::new(name, reason));
        let found = self.store.get(key).await.map_err(|error| self.missing(name, key, &error))?;
        let mut file = File::create_new(to).map_err(|error| local("cannot be written", to, &error))?;
        let (mut digest, mut bytes) = (Sha256::new(), 0);
        let mut pieces = found.into_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| self.away(key, &error))?;
            bytes += piece.len() as u64;
            if bytes > wanted.bytes {
                return Err(refuse(format!("more than the {} bytes that the manifest says", wanted.bytes)));
            }
            digest.update(&piece);
            file.write_all(&piece).map_err(|error| local("cannot be written", to, &error))?;
        }
        if bytes != wanted.bytes {
            return Err(refuse(format!("{bytes} bytes, the manifest says {}", wanted.bytes)));
        }
        let sha256 = format!("{:x}", digest.finalize());
        if sha256 != wanted.sha256 {
            return Err(refuse(format!("sha256 is {sha256}, the manifest says {}", wanted.sha256)));
        }
        file.sync_all().map_err(|error| local("cannot be synced", to, &error))
    }

    async fn put(&self, key: &ObjectPath, bytes: Vec<u8>) -> Result<(), RemoteError> {
        let written = self.store.put(key, PutPayload::from(bytes)).await;
        written.map(drop).map_err(|error| self.away(key, &error))
    }

    fn key(&self, parts: &[&str]) -> ObjectPath {
        parts.iter().fold(self.root.clone(), |key, part| key.join(*part))
    }

    fn missing(&self, name: &str, key: &ObjectPath, error: &object_store::Error) -> RemoteError {
        match error {
            object_store::Error::NotFound { .. } => {
                BundleError::new(name, format!("missing: {key} is not in {}", self.url)).into()
            }
            error => self.away(key, error),
        }
    }

    fn away(&self, key: &ObjectPath, error: &object_store::Error) -> RemoteError {
        RemoteError::Away(format!("{key} of {}: {error}", self.url))
    }
}

/// A directory that is removed again unless it was renamed.
struct Coming(PathBuf);

impl Drop for Coming {
    fn drop(&mut self) {
        // After a rename there is nothing left to remove.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Makes the directory in which a version comes.
fn begin(parent: &Path, version: &str) -> Result<Coming, RemoteError> {
    remove_abandoned(parent);
    let coming = Coming(parent.join(format!(".{version}.{}.tmp", std::process::id())));
    if coming.0.exists() {
        fs::remove_dir_all(&coming.0).map_err(|error| local("cannot be removed", &coming.0, &error))?;
    }
    fs::create_dir(&coming.0).map_err(|error| local("cannot be made", &coming.0, &error))?;
    Ok(coming)
}

/// Removes what a process left that was killed while it fetched: nothing comes for a day.
fn remove_abandoned(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let temporary = name.to_str().is_some_and(|name| name.starts_with('.') && name.ends_with(".tmp"));
        let changed = entry.metadata().and_then(|about| about.modified());
        if temporary && changed.is_ok_and(|changed| changed.elapsed().is_ok_and(|age| age > ABANDONED)) {
            // Whoever comes next tries again.
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}

fn is_whole(dir: &Path, manifest: &Manifest) -> bool {
    LISTED_FILES.into_iter().all(|name| check_file(dir, name, manifest).is_ok())
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), RemoteError> {
    let write = || -> std::io::Result<()> {
        let mut file = File::create_new(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| local("cannot be written", path, &error))
}

/// The mirror's own trouble, as of a full disk, may pass like the store's.
fn local(what: &str, path: &Path, error: &std::io::Error) -> RemoteError {
    RemoteError::Away(failed(what, path, error).to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use object_store::memory::InMemory;

    use super::super::{publish, sample};
    use super::*;

    /// A registry in memory, mirrored below `home`, and a bundle of version "1".
    fn remote(home: &Path) -> (RemoteRegistry, PathBuf) {
        let made = home.join("made");
        publish(&made, sample::manifest("1"), sample::parts()).unwrap();
        let root = ObjectPath::from("shops/one");
        (RemoteRegistry::over("memory://", Arc::new(InMemory::new()), root, &home.join("mirrors")), made)
    }

    fn refused(outcome: Result<PathBuf, RemoteError>) -> BundleError {
        match outcome {
            Err(RemoteError::Refused(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn what_is_published_comes_whole_and_a_pointer_is_fetched_once() {
        let home = tempfile::tempdir().unwrap();
        let (remote, made) = remote(home.path());
        assert_eq!(remote.current("main", None).await.unwrap(), RemotePointer::Absent);
        assert_eq!(remote.publish(&made, "main", None).await.unwrap(), "shops/one/main/1");
        let RemotePointer::At { version, tag: Some(tag) } = remote.current("main", None).await.unwrap() else {
            panic!("no pointer, or no tag")
        };
        assert_eq!(version, "1");
        assert_eq!(remote.current("main", Some(&tag)).await.unwrap(), RemotePointer::Same);
        let dir = remote.bring("main", "1").await.unwrap();
        assert_eq!(verify(&dir).unwrap().digest, verify(&made).unwrap().digest);
        assert_eq!(dir, remote.mirror().directory("main", "1").unwrap());
        // Again: nothing to fetch.
        let before = remote.mirror().marks("main", "1");
        remote.bring("main", "1").await.unwrap();
        assert_eq!(remote.mirror().marks("main", "1"), before);
        // A file of the mirror that was damaged is fetched anew.
        fs::write(dir.join("weights.safetensors"), "half").unwrap();
        remote.bring("main", "1").await.unwrap();
        assert!(verify(&dir).is_ok());
        assert_eq!(remote.marks("main", "1", true).await.unwrap().len(), LISTED_FILES.len() + 1);
    }

    #[tokio::test]
    async fn a_half_upload_and_a_wrong_hash_are_refused_by_file_and_leave_nothing() {
        let home = tempfile::tempdir().unwrap();
        let (remote, made) = remote(home.path());
        remote.publish(&made, "main", None).await.unwrap();
        let key = remote.key(&["main", "1", "items.parquet"]);
        let whole = fs::read(made.join("items.parquet")).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        let cases: [(Vec<u8>, &str); 3] = [
            (whole[..whole.len() / 2].to_vec(), "bytes, the manifest says"),
            ([whole.clone(), vec![0]].concat(), "more than the"),
            (flipped, "sha256 is"),
        ];
        for (bytes, told) in cases {
            remote.put(&key, bytes).await.unwrap();
            let error = refused(remote.bring("main", "1").await);
            assert!(error.file == "items.parquet" && error.reason.contains(told), "{error}");
            assert_eq!(fs::read_dir(remote.mirror().root().join("main")).unwrap().count(), 0);
        }
        remote.store.delete(&key).await.unwrap();
        let error = refused(remote.bring("main", "1").await);
        assert!(error.file == "items.parquet" && error.reason.starts_with("missing"), "{error}");
        let error = refused(remote.bring("main", "9").await);
        assert!(error.file == "manifest.json" && error.reason.starts_with("missing"), "{error}");
        remote.put(&key, whole).await.unwrap();
        assert!(remote.bring("main", "1").await.is_ok());
    }

    #[tokio::test]
    async fn pointers_are_kept_checked_and_versions_never_overwritten() {
        let home = tempfile::tempdir().unwrap();
        let (remote, made) = remote(home.path());
        remote.publish(&made, "main", None).await.unwrap();
        let other = home.path().join("other");
        publish(&other, sample::manifest("2"), sample::parts()).unwrap();
        let error = remote.publish(&other, "main", Some("1")).await.unwrap_err();
        assert!(error.to_string().contains("holds another bundle (shop/1"), "{error}");
        remote.publish(&other, "main", None).await.unwrap();
        assert_eq!(remote.previous("main").await.unwrap().as_deref(), Some("1"));
        assert!(remote.point("main", "9").await.unwrap_err().to_string().contains("missing"));
        remote.point("main", "1").await.unwrap();
        assert_eq!(remote.previous("main").await.unwrap().as_deref(), Some("2"));
        for wrong in ["../made\n", "\n", "current", &"1".repeat(200)] {
            remote.put(&remote.key(&["main", CURRENT]), wrong.into()).await.unwrap();
            assert!(matches!(remote.current("main", None).await, Err(RemoteError::Refused(_))), "{wrong:?}");
        }
        for (variant, version) in [("..", "1"), ("main", "../made"), ("main", "current"), ("a/b", "1")] {
            assert!(
                matches!(remote.bring(variant, version).await, Err(RemoteError::Refused(_))),
                "{variant}/{version}"
            );
        }
    }
}
