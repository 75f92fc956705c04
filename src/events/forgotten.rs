//! Who was forgotten, beside the log: so that what is read at every start from elsewhere, as histories from a data set, does
//! not bring a user back. Ids stand there by their hash alone, a line each.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::segment::{SegmentError, io_error, sync_directory};

/// The list, in the log's directory.
const NAME: &str = "forgotten";

/// Users that were forgotten, by the head of the SHA-256 of their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForgottenUsers {
    hashes: HashSet<String>,
}

impl ForgottenUsers {
    /// Those of the log in `directory`; nobody where there is none. What a write left unfinished is passed over.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub fn read(directory: &Path) -> Result<Self, SegmentError> {
        let path = directory.join(NAME);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            read => read.map_err(io_error(&path))?,
        };
        let text = String::from_utf8_lossy(&text);
        let whole = text.lines().filter(|line| line.len() == 32);
        Ok(Self { hashes: whole.map(str::to_owned).collect() })
    }

    /// Whether this user was forgotten. Events that came since are in the log.
    pub fn contains(&self, user: &str) -> bool {
        // As a rule nobody was.
        !self.hashes.is_empty() && self.hashes.contains(&hex(user.as_bytes()))
    }
}

/// The list as the log's writer keeps it.
#[derive(Debug)]
pub(super) struct ForgottenList {
    path: PathBuf,
    known: ForgottenUsers,
}

impl ForgottenList {
    pub(super) fn open(directory: &Path) -> Result<Self, SegmentError> {
        Ok(Self { path: directory.join(NAME), known: ForgottenUsers::read(directory)? })
    }

    /// Adds users by their hashes; they are on disk when this answers.
    pub(super) fn add<'a>(&mut self, hashes: impl IntoIterator<Item = &'a String>) -> Result<(), SegmentError> {
        let new: Vec<&String> = hashes.into_iter().filter(|hash| !self.known.hashes.contains(*hash)).collect();
        if new.is_empty() {
            return Ok(());
        }
        // A line of its own, whatever a write before may have left unfinished.
        let lines: String = new.iter().map(|hash| format!("\n{hash}")).collect();
        self.append(&lines).map_err(io_error(&self.path))?;
        self.known.hashes.extend(new.into_iter().cloned());
        Ok(())
    }

    fn append(&self, lines: &str) -> io::Result<()> {
        let mut file: File = OpenOptions::new().append(true).create(true).open(&self.path)?;
        file.write_all(lines.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        self.path.parent().map_or(Ok(()), sync_directory)
    }
}

/// The head of the SHA-256 in hex: what an id looks like where no free text is taken, or where it must not be told.
pub(super) fn hex(id: &[u8]) -> String {
    Sha256::digest(id)[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn who_was_added_is_known_from_then_on_and_half_a_line_is_nobody() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(ForgottenUsers::read(home.path()).unwrap(), ForgottenUsers::default());
        let mut list = ForgottenList::open(home.path()).unwrap();
        list.add(&[hex(b"ann")]).unwrap();
        let file = home.path().join(NAME);
        let half = fs::read_to_string(&file).unwrap() + "\n0123456789";
        fs::write(&file, half).unwrap();
        let mut list = ForgottenList::open(home.path()).unwrap();
        list.add(&[hex(b"ann"), hex(b"bob")]).unwrap();
        let known = ForgottenUsers::read(home.path()).unwrap();
        assert!(known.contains("ann") && known.contains("bob") && !known.contains("cid"));
        assert_eq!(known.hashes.len(), 2);
        assert!(!fs::read_to_string(&file).unwrap().contains("ann"));
    }
}
