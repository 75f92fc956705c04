//! One file of the log: eight bytes that say what it is, then records. Its name is the place of its first record.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::record::{Found, Record};
use super::table;

/// "R4EV", and the version of the format.
const MAGIC: [u8; 8] = *b"R4EV\x01\0\0\0";
/// How files are called: `00000000000000000001.events`.
const EXTENSION: &str = "events";
/// A segment that is being written anew.
pub(super) const DRAFT: &str = "draft";

/// Why the log cannot be read.
#[derive(Debug, Error)]
pub enum SegmentError {
    /// The file system.
    #[error("{}: {reason}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// A file is no segment of this format.
    #[error("{}: begins with {found:?}, expected an event log of version 1", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its first bytes.
        found: Vec<u8>,
    },
    /// A record cannot be read, and it is not the end of the last segment, where a write may have been cut off. Nothing
    /// is changed: what follows may hold acknowledged events.
    #[error("{}: byte {at}: {reason}; expected a record", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        at: usize,
        /// What is wrong.
        reason: String,
    },
}

/// What there is to know of a segment without reading it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    pub(super) events: u64,
    pub(super) exposures: u64,
    /// Place of its last record, or of the record before the segment when it is empty.
    pub(super) last: u64,
    /// When its newest record arrived, in Unix milliseconds.
    pub(super) newest_ms: i64,
    /// When its oldest one did.
    pub(super) oldest_ms: i64,
}

/// What was taken out of a segment.
#[derive(Debug, Default)]
pub(super) struct Removed {
    pub(super) events: u64,
    pub(super) exposures: u64,
    /// The ids of the events.
    pub(super) ids: Vec<String>,
}

pub(super) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> SegmentError {
    move |reason| SegmentError::Io { path: path.to_owned(), reason }
}

/// Removes drafts of segments that were never finished.
pub(super) fn clear_drafts(directory: &Path) -> Result<(), SegmentError> {
    for entry in fs::read_dir(directory).map_err(io_error(directory))? {
        let path = entry.map_err(io_error(directory))?.path();
        if path.extension().is_some_and(|extension| extension == DRAFT) {
            fs::remove_file(&path).map_err(io_error(&path))?;
        }
    }
    Ok(())
}

/// The segments of a log, oldest first. Other files of the directory are not its own.
pub(super) fn list(directory: &Path) -> Result<Vec<PathBuf>, SegmentError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(io_error(directory))? {
        let path = entry.map_err(io_error(directory))?.path();
        if path.extension().is_some_and(|extension| extension == EXTENSION) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The place of a segment's first record, or of the next one while it is empty: its name says it.
pub(super) fn first_place(path: &Path) -> Option<u64> {
    path.file_stem()?.to_str()?.parse().ok()
}

impl Segment {
    /// Makes an empty segment whose first record will be at `first`, and puts its name on disk.
    pub(super) fn create(directory: &Path, first: u64) -> Result<(Self, File), SegmentError> {
        let path = directory.join(format!("{first:020}.{EXTENSION}"));
        let mut file = OpenOptions::new().append(true).create_new(true).open(&path).map_err(io_error(&path))?;
        let made = file.write_all(&MAGIC).and_then(|()| file.sync_all()).and_then(|()| sync_directory(directory));
        made.map_err(io_error(&path))?;
        let bytes = MAGIC.len() as u64;
        Ok((Self { bytes, ..Self::empty(path, first) }, file))
    }

    fn empty(path: PathBuf, first: u64) -> Self {
        let last = first.saturating_sub(1);
        Self { path, bytes: 0, events: 0, exposures: 0, last, newest_ms: i64::MIN, oldest_ms: i64::MAX }
    }

    /// Whether it holds no record.
    pub(super) fn is_empty(&self) -> bool {
        self.events + self.exposures == 0
    }

    /// Takes a record into account.
    pub(super) fn count(&mut self, record: &Record) {
        match record {
            Record::Event(_) => self.events += 1,
            Record::Exposure(_) => self.exposures += 1,
        }
        self.last = record.sequence();
        self.newest_ms = self.newest_ms.max(record.arrived_ms());
        self.oldest_ms = self.oldest_ms.min(record.arrived_ms());
    }

    /// Reads every record. With `may_end_early`, what is cut off at the end is left out: a write that never ended was
    /// never acknowledged. `bytes` then counts what is whole.
    pub(super) fn scan(
        path: &Path,
        may_end_early: bool,
        take: &mut dyn FnMut(Record),
    ) -> Result<Segment, SegmentError> {
        let content = fs::read(path).map_err(io_error(path))?;
        let mut segment = Segment::empty(path.to_owned(), first_place(path).unwrap_or(1));
        let Some(mut rest) = content.strip_prefix(&MAGIC) else {
            if may_end_early && MAGIC.starts_with(&content) {
                return Ok(segment);
            }
            let found = content.iter().take(MAGIC.len()).copied().collect();
            return Err(SegmentError::Format { path: path.to_owned(), found });
        };
        loop {
            let at = content.len() - rest.len();
            segment.bytes = at as u64;
            match Record::read(rest) {
                Found::Record(record, length) => {
                    segment.count(&record);
                    rest = &rest[length..];
                    take(*record);
                }
                Found::End => return Ok(segment),
                Found::Cut if may_end_early => return Ok(segment),
                Found::Cut => {
                    let reason = "the record is cut off".to_owned();
                    return Err(SegmentError::Damaged { path: path.to_owned(), at, reason });
                }
                Found::Damaged(reason) => return Err(SegmentError::Damaged { path: path.to_owned(), at, reason }),
            }
        }
    }

    /// Opens the segment to write on, cut to what is whole.
    pub(super) fn reopen(&mut self) -> Result<File, SegmentError> {
        let path = &self.path;
        let file = OpenOptions::new().append(true).open(path).map_err(io_error(path))?;
        let mended = file.set_len(self.bytes).and_then(|()| {
            if self.bytes == 0 {
                (&file).write_all(&MAGIC)?;
            }
            file.sync_all()
        });
        mended.map_err(io_error(path))?;
        self.bytes = self.bytes.max(MAGIC.len() as u64);
        Ok(file)
    }

    /// Writes the segment anew without what is of `user`, and answers what that was. The new file takes the old one's
    /// place at once, or not at all.
    pub(super) fn without(&mut self, user: &str) -> Result<Removed, SegmentError> {
        let mut kept = MAGIC.to_vec();
        let mut removed = Removed::default();
        let mut after = Self { events: 0, exposures: 0, newest_ms: i64::MIN, oldest_ms: i64::MAX, ..self.clone() };
        Segment::scan(&self.path, false, &mut |record| match record {
            Record::Event(logged) if logged.event.user_id == user => {
                removed.events += 1;
                removed.ids.push(logged.event.event_id);
            }
            Record::Exposure(exposed) if exposed.exposure.user_id == user => removed.exposures += 1,
            other => {
                after.count(&other);
                other.write(&mut kept);
            }
        })?;
        if removed.events + removed.exposures == 0 {
            return Ok(removed);
        }
        // Made of what is about to change; who opens the log after a crash makes it anew.
        table::remove(&self.path).map_err(io_error(&self.path))?;
        let draft = self.path.with_extension(DRAFT);
        let written = File::create(&draft)
            .and_then(|mut file| file.write_all(&kept).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&draft, &self.path))
            .and_then(|()| self.path.parent().map_or(Ok(()), sync_directory));
        written.map_err(io_error(&draft))?;
        *self = Self { bytes: kept.len() as u64, last: self.last, ..after };
        Ok(removed)
    }
}

/// A file's name is on disk when its directory is.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
