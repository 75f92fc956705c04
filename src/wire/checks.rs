//! Collects every violation of a request while its fields are read.

use std::fmt::Display;
use std::ops::RangeInclusive;

use crate::domain::Violation;

/// Longest string, in bytes, where a field does not say otherwise.
pub(super) const MAX_TEXT: usize = 256;

/// The violations found so far. Each check returns a usable value even when it fails, so that reading goes on to the
/// next field; the caller refuses the whole in the end.
#[derive(Debug, Default)]
pub(super) struct Checks {
    violations: Vec<Violation>,
}

impl Checks {
    /// Notes that `field` is wrong.
    pub fn refuse(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.violations.push(Violation::new(field, description));
    }

    /// The violations; `Ok` when there are none.
    pub fn finish(self) -> Result<(), Vec<Violation>> {
        if self.violations.is_empty() { Ok(()) } else { Err(self.violations) }
    }

    /// UTF-8 of at most `most` bytes; may be empty.
    pub fn text(&mut self, field: impl Display, bytes: Vec<u8>, most: usize) -> String {
        if bytes.len() > most {
            self.refuse(field.to_string(), format!("{} bytes, expected at most {most}", bytes.len()));
            return String::new();
        }
        match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                let byte = error.as_bytes().get(at).copied().unwrap_or_default();
                self.refuse(field.to_string(), format!("byte {byte:#04x} at position {at} is not UTF-8"));
                String::new()
            }
        }
    }

    /// An id or a name: UTF-8, not empty, at most [`MAX_TEXT`] bytes.
    pub fn name(&mut self, field: impl Display, bytes: Vec<u8>) -> String {
        if bytes.is_empty() {
            self.refuse(field.to_string(), format!("is empty, expected 1 to {MAX_TEXT} bytes of UTF-8"));
        }
        self.text(field, bytes, MAX_TEXT)
    }

    /// Names, at most `most` of them.
    pub fn names(&mut self, field: &str, list: Vec<Vec<u8>>, most: usize) -> Vec<String> {
        self.count(field, list.len(), most);
        let checked = list.into_iter().take(most).enumerate();
        checked.map(|(at, bytes)| self.name(format_args!("{field}[{at}]"), bytes)).collect()
    }

    /// At most `most` entries.
    pub fn count(&mut self, field: &str, entries: usize, most: usize) {
        if entries > most {
            self.refuse(field, format!("{entries} entries, expected at most {most}"));
        }
    }

    /// A whole number within `range`.
    pub fn within(&mut self, field: &str, value: u32, range: RangeInclusive<u32>) -> usize {
        if !range.contains(&value) {
            self.refuse(field, format!("is {value}, expected {} to {}", range.start(), range.end()));
        }
        value as usize
    }

    /// A number that is neither NaN nor infinite.
    pub fn finite(&mut self, field: impl Display, value: f32) -> f32 {
        if !value.is_finite() {
            self.refuse(field.to_string(), format!("is {value}, expected a finite number"));
        }
        value
    }

    /// A finite number from 0 to `most`.
    pub fn up_to(&mut self, field: &str, value: f32, most: f32) -> f32 {
        // Not `value < 0 || value > most`: NaN must fail too.
        if !(0.0..=most).contains(&value) {
            let expected = if most == f32::MAX { "a finite number from 0 on".into() } else { format!("0 to {most}") };
            self.refuse(field, format!("is {value}, expected {expected}"));
        }
        value
    }
}
