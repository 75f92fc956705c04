//! Titles, which are read only to be shown: in memory while an index is built, on disk once it was saved.

use std::fs::File;
use std::io;
use std::sync::Arc;

use tracing::error;

use super::dictionary::Texts;

/// Bytes of a saved title's entry: where its text begins (u64), its length, its checksum.
pub(super) const ENTRY: usize = 16;
/// The length that says that there is no title.
pub(super) const NONE: u32 = u32::MAX;

/// The titles of all items.
#[derive(Debug, Clone)]
pub(super) enum Titles {
    /// In memory.
    Memory(TitleTexts),
    /// In the saved index, read one by one.
    Disk(Arc<TitleFile>),
}

/// Titles in one arena. An item without a title has an empty text and no bit.
#[derive(Debug, Clone, Default)]
pub(super) struct TitleTexts {
    texts: Texts,
    present: Vec<u64>,
}

impl TitleTexts {
    pub(super) fn push(&mut self, title: Option<&str>) {
        let at = self.texts.len();
        if at.is_multiple_of(64) {
            self.present.push(0);
        }
        if let Some(word) = self.present.last_mut() {
            *word |= u64::from(title.is_some()) << (at % 64);
        }
        self.texts.push(title.unwrap_or_default());
    }

    /// Those of these items, in their order.
    pub(super) fn in_order(self, items: &[u32]) -> Self {
        let mut ordered = Self::default();
        items.iter().for_each(|&item| ordered.push(self.get(item as usize)));
        ordered
    }

    fn get(&self, item: usize) -> Option<&str> {
        let present = self.present.get(item / 64)? >> (item % 64) & 1 == 1;
        present.then(|| self.texts.get(item)).flatten()
    }
}

/// An open saved index. Its titles stay readable when the file is replaced.
#[derive(Debug)]
pub(super) struct TitleFile {
    pub(super) file: File,
    /// Where the entries begin, and how many there are.
    pub(super) entries: u64,
    pub(super) items: usize,
    /// Where the texts begin, and their bytes.
    pub(super) texts: u64,
    pub(super) bytes: u64,
}

impl Titles {
    /// The title of an item, if it has one. One that cannot be read from disk is told in the log, and then none.
    pub(super) fn get(&self, item: usize) -> Option<String> {
        match self {
            Titles::Memory(titles) => titles.get(item).map(str::to_owned),
            Titles::Disk(file) => file.get(item).unwrap_or_else(|reason| {
                error!(item, %reason, "a title cannot be read from the saved index");
                None
            }),
        }
    }

    /// Bytes held in memory.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Titles::Memory(titles) => titles.texts.bytes() + 8 * titles.present.len(),
            Titles::Disk(_) => 0,
        }
    }
}

impl TitleFile {
    fn get(&self, item: usize) -> io::Result<Option<String>> {
        if item >= self.items {
            return Ok(None);
        }
        let broken = |reason: &'static str| io::Error::new(io::ErrorKind::InvalidData, reason);
        let mut entry = [0; ENTRY];
        read_at(&self.file, &mut entry, self.entries + (item * ENTRY) as u64)?;
        let (start, rest) = entry.split_at(8);
        let (length, checksum) = rest.split_at(4);
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
        let (start, length) = (number(start), number(length));
        if length == u64::from(NONE) {
            return Ok(None);
        }
        if start.saturating_add(length) > self.bytes {
            return Err(broken("its place is past the end"));
        }
        let mut text = vec![0; length as usize];
        read_at(&self.file, &mut text, self.texts + start)?;
        if u64::from(crc32fast::hash(&text)) != number(checksum) {
            return Err(broken("its checksum differs"));
        }
        String::from_utf8(text).map(Some).map_err(|_| broken("it is not UTF-8"))
    }
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, at)
}

#[cfg(not(unix))]
fn read_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    // Handles share one position where places cannot be read directly; one reader at a time.
    static READING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _reading = READING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut file = file;
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(bytes)
}
