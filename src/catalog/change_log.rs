//! The log of what the owner of the items says: on disk before it is acknowledged, read again at every start.
//!
//! One file, `items.log`: eight bytes that say what it is, then records. A record is what holds of one item from then on:
//! the length of a protobuf message and its checksum (CRC-32), 4 bytes each and little-endian, then the message. The last
//! record of an item counts, so that the file is made smaller by writing only those.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message;
use thiserror::Error;

use super::entry::{Entries, Entry, Word};
use crate::domain::{DescribedItem, Item};

/// "R4CT", and the version of the format.
const MAGIC: [u8; 8] = *b"R4CT\x01\0\0\0";
const FILE: &str = "items.log";
/// The file while it is written anew.
const DRAFT: &str = "items.log.draft";
/// Held by whoever writes the log.
const LOCK: &str = "lock";
/// Bytes before a record's message.
const HEAD: usize = 8;
/// No message is as long: a longer length is damage.
const LONGEST: usize = 1 << 20;
/// The file is written anew once it is larger than this and ...
const SMALL: u64 = 1 << 20;
/// ... so many times as large as it would be then.
const WASTE: u64 = 3;

/// Why the log cannot be opened.
#[derive(Debug, Error)]
pub enum ChangeLogError {
    /// The file system.
    #[error("{}: {reason}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// Another process writes it.
    #[error("{}: another process has this catalogue open", .0.display())]
    Taken(PathBuf),
    /// The file is no such log, or holds damage that no write that was cut off explains. Nothing is changed.
    #[error("{}: byte {at}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        at: usize,
        /// What is wrong, and what was expected.
        reason: String,
    },
}

/// The message. Tags are never given to another field.
#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(string, tag = "1")]
    item_id: String,
    #[prost(int64, tag = "2")]
    changed_ms: i64,
    #[prost(int64, optional, tag = "3")]
    described_ms: Option<i64>,
    /// 1: an item, 2: eligible, 3: not eligible, 4: removed.
    #[prost(uint32, tag = "4")]
    word: u32,
    #[prost(string, optional, tag = "5")]
    title: Option<String>,
    #[prost(string, optional, tag = "6")]
    brand: Option<String>,
    #[prost(string, repeated, tag = "7")]
    categories: Vec<String>,
    #[prost(float, optional, tag = "8")]
    price: Option<f32>,
    #[prost(bool, tag = "9")]
    eligible: bool,
    #[prost(string, optional, tag = "10")]
    text: Option<String>,
    #[prost(bool, tag = "11")]
    embedded: bool,
    #[prost(float, repeated, tag = "12")]
    embedding: Vec<f32>,
}

/// The log, open to be written.
#[derive(Debug)]
pub struct ChangeLog {
    directory: PathBuf,
    file: File,
    bytes: u64,
    /// Bytes of the last record of every item.
    live: u64,
    /// A write failed in a way that leaves unknown what the file holds; a restart reads it again.
    broken: bool,
    _lock: File,
}

impl ChangeLog {
    /// Opens the log in `directory`, which is made when it is not there, and reads what it says. The end of a write that was
    /// cut off, which was never acknowledged, is taken off. Not for an async task.
    ///
    /// # Errors
    /// When another process has it open, when it cannot be read, or is damaged.
    pub fn open(directory: &Path) -> Result<(Self, Entries), ChangeLogError> {
        fs::create_dir_all(directory).map_err(io_error(directory))?;
        let lock = lock(directory)?;
        let path = directory.join(FILE);
        drop(fs::remove_file(directory.join(DRAFT)));
        let content = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read.map_err(io_error(&path))?,
        };
        let (entries, whole) = read(&path, &content)?;
        let file = OpenOptions::new().append(true).create(true).open(&path).map_err(io_error(&path))?;
        let mended = file.set_len(whole as u64).and_then(|()| {
            if whole == 0 {
                (&file).write_all(&MAGIC)?;
            }
            file.sync_all()?;
            sync_directory(directory)
        });
        mended.map_err(io_error(&path))?;
        let bytes = whole.max(MAGIC.len()) as u64;
        let live = entries.iter().map(|(id, entry)| record(id, entry).len() as u64).sum();
        Ok((Self { directory: directory.to_owned(), file, bytes, live, broken: false, _lock: lock }, entries))
    }

    /// Appends what holds of some items, all or nothing; on disk when this returns.
    ///
    /// # Errors
    /// When the disk does not take it. After some failures nothing more is taken until a restart.
    pub fn append<'a>(&mut self, entries: impl IntoIterator<Item = (&'a str, &'a Entry)>) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("a sync failed before; a restart reads the file again"));
        }
        let mut bytes = Vec::new();
        entries.into_iter().for_each(|(id, entry)| bytes.extend(record(id, entry)));
        if let Err(error) = self.file.write_all(&bytes) {
            // Half a record at the end would be damage once another follows it.
            self.broken = self.file.set_len(self.bytes).is_err();
            return Err(error);
        }
        self.bytes += bytes.len() as u64;
        self.file.sync_data().inspect_err(|_| self.broken = true)
    }

    /// Writes the file anew where most of it has been said otherwise since. Answers whether it did.
    ///
    /// # Errors
    /// When the disk does not take it; the file then stays as it is.
    pub fn compact(&mut self, entries: &Entries) -> io::Result<bool> {
        if self.broken || self.bytes <= SMALL || self.bytes / WASTE < self.live {
            return Ok(false);
        }
        self.live = entries.iter().map(|(id, entry)| record(id, entry).len() as u64).sum();
        if self.bytes / WASTE < self.live {
            return Ok(false);
        }
        self.rewrite(entries).map(|()| true)
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn rewrite(&mut self, entries: &Entries) -> io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        entries.iter().for_each(|(id, entry)| bytes.extend(record(id, entry)));
        let draft = self.directory.join(DRAFT);
        let mut file = File::create(&draft)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&draft, self.directory.join(FILE))?;
        // From here on the new file is the log, whatever else fails.
        self.file =
            OpenOptions::new().append(true).open(self.directory.join(FILE)).inspect_err(|_| self.broken = true)?;
        self.bytes = bytes.len() as u64;
        sync_directory(&self.directory)
    }
}

/// What the log in `directory` says of every item, by whoever does not write it; nothing where there is none. A write that is
/// not finished is not told.
///
/// # Errors
/// When it cannot be read, or is damaged.
pub fn read_changes(directory: &Path) -> Result<Entries, ChangeLogError> {
    let path = directory.join(FILE);
    match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Entries::new()),
        content => read(&path, &content.map_err(io_error(&path))?).map(|(entries, _)| entries),
    }
}

/// What holds of every item, and how many bytes are whole.
fn read(path: &Path, content: &[u8]) -> Result<(Entries, usize), ChangeLogError> {
    let damaged = |at: usize, reason: String| ChangeLogError::Damaged { path: path.to_owned(), at, reason };
    let mut entries = Entries::new();
    if content.len() < MAGIC.len() && MAGIC.starts_with(content) {
        return Ok((entries, 0));
    }
    let Some(mut rest) = content.strip_prefix(&MAGIC) else {
        let found: Vec<u8> = content.iter().take(MAGIC.len()).copied().collect();
        return Err(damaged(0, format!("begins with {found:?}, expected a log of items of version 1")));
    };
    while !rest.is_empty() {
        let at = content.len() - rest.len();
        let unfinished = rest.iter().all(|&byte| byte == 0);
        let (Some(length), Some(sum)) = (word(rest, 0), word(rest, 4)) else { return Ok((entries, at)) };
        let length = length as usize;
        if unfinished {
            return Ok((entries, at));
        }
        if length > LONGEST {
            return Err(damaged(at, format!("a record of {length} bytes, expected at most {LONGEST}")));
        }
        let Some(message) = rest.get(HEAD..HEAD + length) else { return Ok((entries, at)) };
        if crc32fast::hash(message) != sum {
            return Err(damaged(at, "the checksum is another, expected a whole record".to_owned()));
        }
        let stored = Stored::decode(message).map_err(|error| damaged(at, format!("{error}, expected a record")))?;
        let (id, entry) = entry(stored).map_err(|reason| damaged(at, reason))?;
        entries.insert(id, Arc::new(entry));
        rest = &rest[HEAD + length..];
    }
    Ok((entries, content.len()))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let four: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_le_bytes(four))
}

fn record(id: &str, entry: &Entry) -> Vec<u8> {
    let mut stored = Stored {
        item_id: id.to_owned(),
        changed_ms: entry.changed_ms,
        described_ms: entry.described_ms,
        word: match &entry.word {
            Word::Item(_) => 1,
            Word::Eligible(true) => 2,
            Word::Eligible(false) => 3,
            Word::Removed => 4,
        },
        ..Stored::default()
    };
    if let Word::Item(described) = &entry.word {
        let DescribedItem { item, text, embedding } = DescribedItem::clone(described);
        stored = Stored {
            title: item.title,
            brand: item.brand,
            categories: item.categories,
            price: item.price,
            eligible: item.eligible,
            text,
            embedded: embedding.is_some(),
            embedding: embedding.unwrap_or_default(),
            ..stored
        };
    }
    let message = stored.encode_to_vec();
    let mut bytes = Vec::with_capacity(HEAD + message.len());
    bytes.extend((message.len() as u32).to_le_bytes());
    bytes.extend(crc32fast::hash(&message).to_le_bytes());
    bytes.extend(message);
    bytes
}

fn entry(stored: Stored) -> Result<(String, Entry), String> {
    let word = match stored.word {
        1 => {
            let item = Item {
                id: stored.item_id.clone(),
                title: stored.title,
                brand: stored.brand,
                categories: stored.categories,
                price: stored.price,
                eligible: stored.eligible,
            };
            let embedding = stored.embedded.then_some(stored.embedding);
            Word::Item(Box::new(DescribedItem { item, text: stored.text, embedding }))
        }
        2 => Word::Eligible(true),
        3 => Word::Eligible(false),
        4 => Word::Removed,
        other => return Err(format!("says {other} of an item, expected 1 to 4")),
    };
    Ok((stored.item_id, Entry { changed_ms: stored.changed_ms, described_ms: stored.described_ms, word }))
}

fn lock(directory: &Path) -> Result<File, ChangeLogError> {
    let path = directory.join(LOCK);
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(io_error(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(ChangeLogError::Taken(directory.to_owned())),
        Err(fs::TryLockError::Error(reason)) => Err(ChangeLogError::Io { path, reason }),
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> ChangeLogError {
    move |reason| ChangeLogError::Io { path: path.to_owned(), reason }
}

/// A file's name is on disk when its directory is.
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
