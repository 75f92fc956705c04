//! Text files, plain or gzip, line by line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::ImportError;

const BUFFER: usize = 1 << 18;

/// Opens a file; gzip is known by its first two bytes, not by its name.
pub(super) fn open(file: &Path) -> Result<Box<dyn BufRead>, ImportError> {
    let handle = File::open(file).map_err(|source| ImportError::io(file, source))?;
    let mut reader = BufReader::with_capacity(BUFFER, handle);
    let start = reader.fill_buf().map_err(|source| ImportError::io(file, source))?;
    if start.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(reader))));
    }
    Ok(Box::new(reader))
}

/// How a file's bytes become characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Utf8,
    /// Each byte is the character of its number.
    Latin1,
}

/// The lines of a file that are not blank, with their numbers.
pub(super) struct Lines {
    file: PathBuf,
    reader: Box<dyn BufRead>,
    encoding: Encoding,
    number: u64,
}

/// One line, without its end.
pub(super) struct Line {
    /// Counted from 1.
    pub(super) number: u64,
    pub(super) text: String,
}

impl Lines {
    pub(super) fn open(file: &Path, encoding: Encoding) -> Result<Self, ImportError> {
        Ok(Self { file: file.to_path_buf(), reader: open(file)?, encoding, number: 0 })
    }

    /// The next line that holds something; none at the end.
    pub(super) fn next_line(&mut self) -> Result<Option<Line>, ImportError> {
        loop {
            let mut bytes = Vec::new();
            let read =
                self.reader.read_until(b'\n', &mut bytes).map_err(|source| ImportError::io(&self.file, source))?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
                bytes.pop();
            }
            if bytes.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            return self.decode(bytes).map(|text| Some(Line { number: self.number, text }));
        }
    }

    fn decode(&self, bytes: Vec<u8>) -> Result<String, ImportError> {
        match self.encoding {
            Encoding::Latin1 => Ok(bytes.into_iter().map(char::from).collect()),
            Encoding::Utf8 => String::from_utf8(bytes).map_err(|error| {
                let at = error.utf8_error().valid_up_to();
                ImportError::line(&self.file, self.number, "text", format!("byte {at} is not UTF-8"))
            }),
        }
    }
}

/// A CSV reader over a file whose first line names the columns.
pub(super) fn csv(file: &Path, delimiter: u8) -> Result<csv::Reader<Box<dyn Read>>, ImportError> {
    let reader: Box<dyn Read> = Box::new(open(file)?);
    Ok(csv::ReaderBuilder::new().delimiter(delimiter).trim(csv::Trim::All).from_reader(reader))
}

/// What the CSV library says, with its place.
pub(super) fn csv_error(file: &Path, error: csv::Error) -> ImportError {
    let line = error.position().map_or(1, csv::Position::line);
    match error.into_kind() {
        csv::ErrorKind::Io(source) => ImportError::io(file, source),
        csv::ErrorKind::Utf8 { err, .. } => ImportError::line(file, line, "text", err.to_string()),
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            ImportError::line(file, line, "fields", format!("{len}, expected {expected_len} as in the first line"))
        }
        other => ImportError::line(file, line, "text", format!("{other:?}")),
    }
}

/// Where a column stands in the first line.
pub(super) fn place(file: &Path, header: &csv::StringRecord, column: &str) -> Result<usize, ImportError> {
    header.iter().position(|name| name == column).ok_or_else(|| ImportError::Column {
        file: file.to_path_buf(),
        column: column.to_owned(),
        present: header.iter().collect::<Vec<&str>>().join(", "),
    })
}
