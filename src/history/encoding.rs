//! One event as bytes, in stores that outlive the process: mark (16), kind (1), whether there is a value (1), time (8),
//! value (4), length of the item id (2), item id. Numbers are little-endian.

use super::store::Mark;
use crate::domain::{Event, EventKind};

/// The version of this layout. A store says it once for all it holds and refuses another.
pub(super) const VERSION: u8 = 1;
/// Bytes before the item id.
const HEAD: usize = 32;

/// Appends the event to `out`. An item id longer than 65,535 bytes, which no request may have, is cut at the last whole
/// letter.
pub(super) fn write(mark: Mark, event: &Event, out: &mut Vec<u8>) {
    let id = whole(&event.item_id, usize::from(u16::MAX));
    out.extend(mark.0);
    out.push(event.kind as u8);
    out.push(u8::from(event.value.is_some()));
    out.extend(event.time.to_le_bytes());
    out.extend(event.value.unwrap_or_default().to_le_bytes());
    out.extend((id.len() as u16).to_le_bytes());
    out.extend(id.as_bytes());
}

/// The longest head of `text` that ends with a whole letter.
fn whole(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Reads the event that `bytes` begin with, and what follows it; or says what is wrong.
pub(super) fn read(bytes: &[u8]) -> Result<(Mark, Event, &[u8]), String> {
    let short = || format!("{} bytes, expected an event of {HEAD} bytes and an item id", bytes.len());
    let (head, rest) = bytes.split_at_checked(HEAD).ok_or_else(short)?;
    let part = |from: usize, to: usize| &head[from..to];
    let mark = Mark(array(part(0, 16)));
    let most = EventKind::ALL.len() - 1;
    let kind = head[16];
    let &kind = EventKind::ALL.get(usize::from(kind)).ok_or_else(|| format!("kind {kind}, expected 0 to {most}"))?;
    let value = (head[17] == 1).then(|| f32::from_le_bytes(array(part(26, 30))));
    let time = i64::from_le_bytes(array(part(18, 26)));
    let length = usize::from(u16::from_le_bytes(array(part(30, 32))));
    let (id, rest) = rest.split_at_checked(length).ok_or_else(short)?;
    let item_id = String::from_utf8(id.to_vec()).map_err(|error| format!("an item id that is no text: {error}"))?;
    Ok((mark, Event { item_id, kind, time, value }, rest))
}

/// The head of `bytes`, which are as long.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[..N]);
    array
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_is_read(id in ".{0,40}", kind in 0..6usize, time: i64, value: Option<i16>, mark: [u8; 16]) {
            let event = Event { item_id: id, kind: EventKind::ALL[kind], time, value: value.map(f32::from) };
            let mut bytes = Vec::new();
            write(Mark(mark), &event, &mut bytes);
            bytes.extend([7, 7]);
            prop_assert_eq!(read(&bytes).unwrap(), (Mark(mark), event, &[7u8, 7][..]));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            // Either is an answer.
            let _read = read(&bytes);
        }
    }
}
