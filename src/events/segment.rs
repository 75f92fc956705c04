//! One file of the log: eight bytes that say what it is, then records. Its name is the place of its first record.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::record::{Found, Logged};

/// "R4EV", and the version of the format.
const MAGIC: [u8; 8] = *b"R4EV\x01\0\0\0";
/// How files are called: `00000000000000000001.events`.
const EXTENSION: &str = "events";
/// A segment that is being written anew.
const DRAFT: &str = "draft";

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
    /// Place of its last record, or of the record before the segment when it is empty.
    pub(super) last: u64,
    /// When its newest record arrived, in Unix milliseconds.
    pub(super) newest_ms: i64,
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

impl Segment {
    /// Makes an empty segment whose first record will be at `first`, and puts its name on disk.
    pub(super) fn create(directory: &Path, first: u64) -> Result<(Self, File), SegmentError> {
        let path = directory.join(format!("{first:020}.{EXTENSION}"));
        let mut file = OpenOptions::new().append(true).create_new(true).open(&path).map_err(io_error(&path))?;
        let made = file.write_all(&MAGIC).and_then(|()| file.sync_all()).and_then(|()| sync_directory(directory));
        made.map_err(io_error(&path))?;
        let bytes = MAGIC.len() as u64;
        Ok((Self { path, bytes, events: 0, last: first.saturating_sub(1), newest_ms: i64::MIN }, file))
    }

    /// Reads every record. With `may_end_early`, what is cut off at the end is left out: a write that never ended was
    /// never acknowledged. `bytes` then counts what is whole.
    pub(super) fn scan(
        path: &Path,
        may_end_early: bool,
        take: &mut dyn FnMut(Logged),
    ) -> Result<Segment, SegmentError> {
        let content = fs::read(path).map_err(io_error(path))?;
        let before = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok()).unwrap_or(1);
        let mut segment =
            Segment { path: path.to_owned(), bytes: 0, events: 0, last: before.saturating_sub(1), newest_ms: i64::MIN };
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
            match Logged::read(rest) {
                Found::Record(logged, length) => {
                    segment.events += 1;
                    segment.last = logged.sequence;
                    segment.newest_ms = segment.newest_ms.max(logged.arrived_ms);
                    rest = &rest[length..];
                    take(*logged);
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

    /// Writes the segment anew without the events of `user`; answers how many those were, and their ids. The new file
    /// takes the old one's place at once, or not at all.
    pub(super) fn without(&mut self, user: &str) -> Result<(u64, Vec<String>), SegmentError> {
        let mut kept = MAGIC.to_vec();
        let (mut gone, mut ids) = (0, Vec::new());
        let (mut events, mut newest_ms) = (0, i64::MIN);
        Segment::scan(&self.path, false, &mut |logged| {
            if logged.event.user_id == user {
                gone += 1;
                ids.push(logged.event.event_id);
            } else {
                events += 1;
                newest_ms = newest_ms.max(logged.arrived_ms);
                logged.write(&mut kept);
            }
        })?;
        if gone == 0 {
            return Ok((0, ids));
        }
        let draft = self.path.with_extension(DRAFT);
        let written = File::create(&draft)
            .and_then(|mut file| file.write_all(&kept).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&draft, &self.path))
            .and_then(|()| self.path.parent().map_or(Ok(()), sync_directory));
        written.map_err(io_error(&draft))?;
        (self.bytes, self.events, self.newest_ms) = (kept.len() as u64, events, newest_ms);
        Ok((gone, ids))
    }
}

/// A file's name is on disk when its directory is.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
