//! One event as bytes: length and checksum (CRC-32), both 4 bytes and little-endian, then a protobuf message.

use prost::Message;

use crate::domain::{Event, EventKind, UserEvent};

/// Bytes before a record's message.
pub(super) const HEAD: usize = 8;
/// No message is as long: a longer length is damage.
pub(super) const LONGEST: usize = 1 << 20;

/// An event of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Logged {
    /// Its place in the log, from 1 on. Places rise; those of forgotten events stay empty.
    pub sequence: u64,
    /// When it arrived: Unix time in milliseconds.
    pub arrived_ms: i64,
    /// What happened.
    pub event: UserEvent,
}

/// The message. Tags are never given to another field.
#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(uint64, tag = "1")]
    sequence: u64,
    #[prost(int64, tag = "2")]
    arrived_ms: i64,
    #[prost(string, tag = "3")]
    user_id: String,
    #[prost(string, tag = "4")]
    item_id: String,
    #[prost(uint32, tag = "5")]
    kind: u32,
    #[prost(sint64, tag = "6")]
    time: i64,
    #[prost(float, optional, tag = "7")]
    value: Option<f32>,
    #[prost(string, tag = "8")]
    event_id: String,
    #[prost(string, tag = "9")]
    request_id: String,
}

/// What stands at a place of a segment.
#[derive(Debug)]
pub(super) enum Found {
    /// A whole record; the next begins after so many bytes.
    Record(Box<Logged>, usize),
    /// The segment ends here.
    End,
    /// The rest is the beginning of a record, or zeros: a write that never ended.
    Cut,
    /// No record, and no unfinished write either.
    Damaged(String),
}

impl Logged {
    /// Appends the record to `out`, as it stands in a file.
    pub fn write(&self, out: &mut Vec<u8>) {
        let UserEvent { user_id, event, event_id, request_id } = self.event.clone();
        let stored = Stored {
            sequence: self.sequence,
            arrived_ms: self.arrived_ms,
            user_id,
            item_id: event.item_id,
            kind: event.kind as u32,
            time: event.time,
            value: event.value,
            event_id,
            request_id,
        };
        let message = stored.encode_to_vec();
        out.extend((message.len() as u32).to_le_bytes());
        out.extend(crc32fast::hash(&message).to_le_bytes());
        out.extend(message);
    }

    /// Reads what `bytes` begin with.
    pub(super) fn read(bytes: &[u8]) -> Found {
        if bytes.is_empty() {
            return Found::End;
        }
        let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Found::Cut };
        let Some((checksum, rest)) = rest.split_first_chunk::<4>() else { return Found::Cut };
        let length = u32::from_le_bytes(*length) as usize;
        if length == 0 && bytes.iter().all(|&byte| byte == 0) {
            return Found::Cut;
        }
        if !(1..=LONGEST).contains(&length) {
            return Found::Damaged(format!("a length of {length} bytes, expected 1 to {LONGEST}"));
        }
        let Some(message) = rest.get(..length) else { return Found::Cut };
        if crc32fast::hash(message) != u32::from_le_bytes(*checksum) {
            return Found::Damaged("the checksum is of other bytes".to_owned());
        }
        let stored = match Stored::decode(message) {
            Ok(stored) => stored,
            Err(error) => return Found::Damaged(error.to_string()),
        };
        let Some(&kind) = EventKind::ALL.get(stored.kind as usize) else {
            return Found::Damaged(format!("kind {}, expected 0 to {}", stored.kind, EventKind::ALL.len() - 1));
        };
        let event = Event { item_id: stored.item_id, kind, time: stored.time, value: stored.value };
        let event =
            UserEvent { user_id: stored.user_id, event, event_id: stored.event_id, request_id: stored.request_id };
        let logged = Logged { sequence: stored.sequence, arrived_ms: stored.arrived_ms, event };
        Found::Record(Box::new(logged), HEAD + length)
    }
}
