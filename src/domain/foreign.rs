//! Readers of foreign bytes.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a reader of foreign bytes. The libraries behind it return errors for malformed files, but they are large and
/// promise nothing for files made to deceive, and some damage makes them panic: a server must refuse such a file and live.
///
/// # Errors
/// In words, that the reader panicked.
pub fn contained<T>(read: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(read))
        .map_err(|panic| format!("malformed: its reader gave up: {}", panic_text(panic.as_ref())))
}

/// The words that a panic was raised with, as far as it has some.
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_panics_is_an_error_with_its_reason() {
        assert_eq!(contained(|| 3), Ok(3));
        let given_up = contained(|| -> u8 { panic!("row {}", 7) });
        assert_eq!(given_up, Err("malformed: its reader gave up: row 7".to_owned()));
    }
}
