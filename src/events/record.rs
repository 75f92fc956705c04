//! One event or exposure as bytes: length and checksum (CRC-32), both 4 bytes and little-endian, then a protobuf message.

use prost::Message;

use super::stored_exposure::StoredExposure;
use crate::domain::{Event, EventKind, Exposure, UserEvent};

/// Bytes before a record's message.
pub(super) const HEAD: usize = 8;
/// No message is as long: a longer length is damage.
pub(super) const LONGEST: usize = 1 << 20;
/// In an exposure's record the kind is none of an event, so that a reader that knows no exposures refuses the file, where
/// it would else take each for a view of an item without a name.
const NO_EVENT: u32 = u32::MAX;

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

/// An exposure of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Exposed {
    /// Its place in the log, which it shares with no event.
    pub sequence: u64,
    /// When the answer was given: Unix time in milliseconds.
    pub arrived_ms: i64,
    /// What was shown.
    pub exposure: Exposure,
}

/// What stands at one place of the log.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// Something that a user did.
    Event(Logged),
    /// Something that a user was shown.
    Exposure(Exposed),
}

/// The message: of an event, or of an exposure where that is set. Tags are never given to another field.
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
    #[prost(message, optional, tag = "10")]
    exposure: Option<StoredExposure>,
}

/// What stands at a place of a segment.
#[derive(Debug)]
pub(super) enum Found {
    /// A whole record; the next begins after so many bytes.
    Record(Box<Record>, usize),
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
            exposure: None,
        };
        stored.append(out);
    }
}

impl Exposed {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let stored = Stored {
            sequence: self.sequence,
            arrived_ms: self.arrived_ms,
            user_id: self.exposure.user_id.clone(),
            kind: NO_EVENT,
            request_id: self.exposure.request_id.clone(),
            exposure: Some(StoredExposure::new(&self.exposure)),
            ..Stored::default()
        };
        stored.append(out);
    }
}

impl Stored {
    fn append(&self, out: &mut Vec<u8>) {
        let message = self.encode_to_vec();
        out.extend((message.len() as u32).to_le_bytes());
        out.extend(crc32fast::hash(&message).to_le_bytes());
        out.extend(message);
    }

    /// The record that the message is of, or what is wrong with it.
    fn record(self) -> Result<Record, String> {
        let Self { sequence, arrived_ms, user_id, item_id, kind, time, value, event_id, request_id, exposure } = self;
        if let Some(exposure) = exposure {
            let exposure = exposure.exposure(request_id, user_id)?;
            return Ok(Record::Exposure(Exposed { sequence, arrived_ms, exposure }));
        }
        let most = EventKind::ALL.len() - 1;
        let &kind = EventKind::ALL.get(kind as usize).ok_or_else(|| format!("kind {kind}, expected 0 to {most}"))?;
        let event = Event { item_id, kind, time, value };
        Ok(Record::Event(Logged { sequence, arrived_ms, event: UserEvent { user_id, event, event_id, request_id } }))
    }
}

impl Record {
    /// Its place in the log.
    pub fn sequence(&self) -> u64 {
        match self {
            Self::Event(logged) => logged.sequence,
            Self::Exposure(exposed) => exposed.sequence,
        }
    }

    /// When it came: Unix time in milliseconds.
    pub fn arrived_ms(&self) -> i64 {
        match self {
            Self::Event(logged) => logged.arrived_ms,
            Self::Exposure(exposed) => exposed.arrived_ms,
        }
    }

    /// Whose it is.
    pub fn user_id(&self) -> &str {
        match self {
            Self::Event(logged) => &logged.event.user_id,
            Self::Exposure(exposed) => &exposed.exposure.user_id,
        }
    }

    /// Appends the record to `out`, as it stands in a file.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Event(logged) => logged.write(out),
            Self::Exposure(exposed) => exposed.write(out),
        }
    }

    /// Whether it is short enough to be read again.
    pub(super) fn fits(&self) -> bool {
        let mut bytes = Vec::new();
        self.write(&mut bytes);
        bytes.len() <= HEAD + LONGEST
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
        let record = Stored::decode(message).map_err(|error| error.to_string()).and_then(Stored::record);
        record.map_or_else(Found::Damaged, |record| Found::Record(Box::new(record), HEAD + length))
    }
}
