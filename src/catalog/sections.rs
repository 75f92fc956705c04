//! A file of arrays of numbers, each under a name and with a checksum.
//!
//! Magic, then the arrays one after another, each at a multiple of 64 bytes, little-endian; then a table of them as JSON;
//! then the table's place, length and checksum. What is read is believed only when every checksum holds.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytemuck::{Pod, Zeroable, cast_slice, cast_slice_mut};
use serde::{Deserialize, Serialize};

/// What every such file begins and ends with: the format's version in it.
const MAGIC: [u8; 8] = *b"R4RIDX02";
const ALIGNMENT: u64 = 64;
/// The table's place, its length and checksum, and the magic again.
const TRAILER: u64 = 8 + 4 + 4 + 8;
/// Bytes that are read and summed at a time, while they are still in the cache.
const PIECE: usize = 1 << 20;
/// No table is longer.
const LONGEST_TABLE: u32 = 1 << 20;

/// One array of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Section {
    pub(super) name: String,
    pub(super) at: u64,
    pub(super) bytes: u64,
    pub(super) crc: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct Table {
    /// What the file was made of, and for what.
    facts: BTreeMap<String, String>,
    sections: Vec<Section>,
}

/// Writes the arrays, then the table.
pub(super) struct SectionWriter {
    file: BufWriter<File>,
    at: u64,
    table: Table,
}

impl SectionWriter {
    pub(super) fn create(path: &Path) -> std::io::Result<Self> {
        let mut file = BufWriter::with_capacity(PIECE, File::create(path)?);
        file.write_all(&MAGIC)?;
        Ok(Self { file, at: MAGIC.len() as u64, table: Table { facts: BTreeMap::new(), sections: Vec::new() } })
    }

    /// Notes a fact beside the arrays.
    pub(super) fn fact(&mut self, name: impl Into<String>, value: impl ToString) {
        self.table.facts.insert(name.into(), value.to_string());
    }

    /// Writes one array.
    pub(super) fn put<T: Pod>(&mut self, name: impl Into<String>, values: &[T]) -> std::io::Result<()> {
        self.put_pieces(name, std::iter::once(cast_slice(values)))
    }

    /// Writes one array that comes in pieces.
    pub(super) fn put_pieces<P: AsRef<[u8]>>(
        &mut self,
        name: impl Into<String>,
        pieces: impl Iterator<Item = P>,
    ) -> std::io::Result<()> {
        let padding = self.at.next_multiple_of(ALIGNMENT) - self.at;
        self.file.write_all(&[0; ALIGNMENT as usize][..padding as usize])?;
        self.at += padding;
        let (mut sum, mut bytes) = (crc32fast::Hasher::new(), 0u64);
        for piece in pieces {
            let piece = piece.as_ref();
            sum.update(piece);
            bytes += piece.len() as u64;
            self.file.write_all(piece)?;
        }
        self.table.sections.push(Section { name: name.into(), at: self.at, bytes, crc: sum.finalize() });
        self.at += bytes;
        Ok(())
    }

    /// Writes the table and makes all durable.
    pub(super) fn finish(mut self) -> std::io::Result<()> {
        let table = serde_json::to_vec(&self.table)?;
        self.file.write_all(&table)?;
        self.file.write_all(&self.at.to_le_bytes())?;
        self.file.write_all(&(table.len() as u32).to_le_bytes())?;
        self.file.write_all(&crc32fast::hash(&table).to_le_bytes())?;
        self.file.write_all(&MAGIC)?;
        self.file.into_inner().map_err(|error| error.into_error())?.sync_all()
    }
}

/// The table of an opened file; its arrays are read one by one, or several at once.
#[derive(Debug)]
pub(super) struct SectionReader {
    path: PathBuf,
    table: Table,
}

impl SectionReader {
    /// Reads and checks the table.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        if cfg!(target_endian = "big") {
            return Err("written for machines of the other byte order".to_owned());
        }
        let mut file = open(path)?;
        let size = file.metadata().map_err(told)?.len();
        let mut magic = [0; 8];
        file.read_exact(&mut magic).map_err(told)?;
        if magic != MAGIC || size < MAGIC.len() as u64 + TRAILER {
            return Err("another format, or another version of it".to_owned());
        }
        let mut trailer = [0; TRAILER as usize];
        file.seek(SeekFrom::End(-(TRAILER as i64))).map_err(told)?;
        file.read_exact(&mut trailer).map_err(told)?;
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
        let (at, length, crc) = (number(&trailer[..8]), number(&trailer[8..12]), number(&trailer[12..16]));
        let fits = length <= u64::from(LONGEST_TABLE) && at.checked_add(length + TRAILER) == Some(size);
        if trailer[16..] != MAGIC || !fits {
            return Err("cut short".to_owned());
        }
        let mut table = vec![0; length as usize];
        file.seek(SeekFrom::Start(at)).map_err(told)?;
        file.read_exact(&mut table).map_err(told)?;
        if u64::from(crc32fast::hash(&table)) != crc {
            return Err("the checksum of its table differs".to_owned());
        }
        let table: Table = serde_json::from_slice(&table).map_err(told)?;
        if let Some(section) = table.sections.iter().find(|section| section.at.saturating_add(section.bytes) > at) {
            return Err(format!("{} is past the end", section.name));
        }
        Ok(Self { path: path.to_owned(), table })
    }

    /// What the file says that it was made of.
    pub(super) fn fact(&self, name: &str) -> Option<&str> {
        self.table.facts.get(name).map(String::as_str)
    }

    pub(super) fn section(&self, name: &str) -> Result<&Section, String> {
        self.table.sections.iter().find(|section| section.name == name).ok_or_else(|| format!("{name} is missing"))
    }

    /// One array.
    pub(super) fn take<T: Pod + Zeroable + Send>(&self, name: &str) -> Result<Vec<T>, String> {
        let section = self.section(name)?;
        let refuse = |reason: &dyn std::fmt::Display| format!("{name}: {reason}");
        let width = size_of::<T>() as u64;
        if !section.bytes.is_multiple_of(width) {
            return Err(refuse(&"its length is no multiple of a number's"));
        }
        let count = usize::try_from(section.bytes / width).map_err(|error| refuse(&error))?;
        let mut values = Vec::new();
        values.try_reserve_exact(count).map_err(|error| refuse(&error))?;
        values.resize(count, T::zeroed());
        let mut file = open(&self.path)?;
        file.seek(SeekFrom::Start(section.at)).map_err(|error| refuse(&error))?;
        let mut sum = crc32fast::Hasher::new();
        for piece in cast_slice_mut::<T, u8>(&mut values).chunks_mut(PIECE) {
            file.read_exact(piece).map_err(|error| refuse(&error))?;
            sum.update(piece);
        }
        if sum.finalize() != section.crc {
            return Err(refuse(&"its checksum differs"));
        }
        Ok(values)
    }
}

fn open(path: &Path) -> Result<File, String> {
    File::open(path).map_err(told)
}

fn told(error: impl std::fmt::Display) -> String {
    error.to_string()
}
