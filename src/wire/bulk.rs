//! How much memory the entries of a message will take, told from its bytes before it is decoded.
//!
//! prost makes a whole message before anybody may look at it, and an entry of two bytes can become one of hundreds. So the
//! bytes are walked first, by the descriptors of the messages: every entry of a list or a map of messages or strings is
//! counted with what it takes beside its own bytes. Numbers are not counted: they take at most eight times their bytes.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FileDescriptorSet};

use super::{ADMIN_DESCRIPTORS, DESCRIPTORS};

/// The most that the entries of one message may take beside their bytes: 256 MiB.
///
/// It passes 256 requests with 1000 events and 10,000 ids to leave out each (about 150 MB), and a list of a million events
/// (about 190 MB), which is then refused by its own name. Lists grow by doubling, so that for a moment there may be three
/// times as much.
const MOST: usize = 256 << 20;

/// What a list takes: pointer, length, room.
const LIST: usize = 24;
/// What a string takes beside its bytes: as a list, and the least that an allocation takes.
const TEXT: usize = LIST + 16;
/// What a number takes, with whether it is set.
const NUMBER: usize = 16;

/// How deep prost follows messages within messages; it refuses what goes deeper.
const DEEPEST: usize = 100;

/// That a message would take too much.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Excess {
    /// The list that went too far, as in `requests.history`.
    pub field: String,
    /// The message's entries up to there.
    pub entries: usize,
}

impl Excess {
    /// What was found, and what was expected.
    pub fn description(&self) -> String {
        format!(
            "holds entry {} of the message, with which they take more than {MOST} bytes of memory, expected at most that",
            self.entries
        )
    }
}

/// A kind of message: its fields that are lists, or lead to some, by number.
type Shape = Vec<Field>;

#[derive(Debug)]
struct Field {
    number: u64,
    name: String,
    /// What an entry takes; none: no list.
    entry: Option<usize>,
    /// The kind of message that it holds, where that has lists.
    inner: Option<usize>,
}

/// The kinds of messages, and where each stands by its full name.
#[derive(Debug)]
struct Shapes {
    places: HashMap<String, usize>,
    shapes: Vec<Shape>,
}

static SHAPES: LazyLock<Shapes> = LazyLock::new(|| Shapes::read(&[DESCRIPTORS, ADMIN_DESCRIPTORS]));

/// A kind of message that holds lists.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bulky(usize);

impl Bulky {
    /// The kind of this full name, as in `reg4rec.v1.Filter`; none: it holds no lists.
    pub fn named(name: &str) -> Option<Self> {
        let at = *SHAPES.places.get(name)?;
        (!SHAPES.shapes[at].is_empty()).then_some(Self(at))
    }

    /// Counts the entries of an encoded message. What cannot be read ends the count: prost refuses it.
    ///
    /// # Errors
    /// [`Excess`] when they would take more than [`MOST`].
    pub fn check(self, bytes: &[u8]) -> Result<(), Excess> {
        let mut count = Count { entries: 0, bytes: 0, most: MOST };
        SHAPES.walk(self.0, bytes, 0, &mut count)
    }
}

/// What was counted so far.
#[derive(Debug)]
struct Count {
    entries: usize,
    bytes: usize,
    most: usize,
}

impl Shapes {
    fn read(sets: &[&[u8]]) -> Self {
        // They are compiled in; the tests read them.
        let sets = sets.iter().filter_map(|set| FileDescriptorSet::decode(*set).ok());
        let mut messages = Vec::new();
        for file in sets.flat_map(|set| set.file) {
            let package = format!(".{}", file.package());
            file.message_type.into_iter().for_each(|message| gather(&package, message, &mut messages));
        }
        let places: HashMap<String, usize> =
            messages.iter().enumerate().map(|(at, (name, _))| (name.clone(), at)).collect();
        // A message holds lists that has one, or a message that does.
        let mut holding: HashSet<&str> = HashSet::new();
        loop {
            let before = holding.len();
            for (name, message) in &messages {
                if message.field.iter().any(|field| is_counted(field) || holding.contains(field.type_name())) {
                    holding.insert(name);
                }
            }
            if holding.len() == before {
                break;
            }
        }
        let field = |field: &prost_types::FieldDescriptorProto| {
            let inner = places.get(field.type_name()).copied().filter(|_| holding.contains(field.type_name()));
            let entry = is_counted(field).then(|| match field.r#type() {
                Type::Message => places.get(field.type_name()).map_or(0, |at| size(*at, &messages, &places, 0)),
                _ => TEXT,
            });
            let number = u64::try_from(field.number()).unwrap_or_default();
            (entry.is_some() || inner.is_some()).then(|| Field { number, name: field.name().to_owned(), entry, inner })
        };
        let shapes = messages.iter().map(|(_, message)| message.field.iter().filter_map(&field).collect()).collect();
        let places = places.iter().map(|(name, at)| (name.trim_start_matches('.').to_owned(), *at)).collect();
        Self { places, shapes }
    }

    fn walk(&self, at: usize, mut bytes: &[u8], depth: usize, count: &mut Count) -> Result<(), Excess> {
        while !bytes.is_empty() {
            let Some((number, kind, value)) = next(&mut bytes) else { return Ok(()) };
            if kind != LENGTH_DELIMITED {
                continue;
            }
            let Some(field) = self.shapes[at].iter().find(|field| field.number == number) else { continue };
            if let Some(entry) = field.entry {
                count.entries += 1;
                count.bytes = count.bytes.saturating_add(entry);
                if count.bytes > count.most {
                    return Err(Excess { field: field.name.clone(), entries: count.entries });
                }
            }
            if let Some(inner) = field.inner
                && depth < DEEPEST
            {
                let within = |excess: Excess| Excess { field: format!("{}.{}", field.name, excess.field), ..excess };
                self.walk(inner, value, depth + 1, count).map_err(within)?;
            }
        }
        Ok(())
    }
}

/// The message and those within it, by their full names, each after a dot.
fn gather(scope: &str, mut message: DescriptorProto, into: &mut Vec<(String, DescriptorProto)>) {
    let name = format!("{scope}.{}", message.name());
    std::mem::take(&mut message.nested_type).into_iter().for_each(|nested| gather(&name, nested, into));
    into.push((name, message));
}

/// Whether it is a list, or a map, of messages or strings.
fn is_counted(field: &prost_types::FieldDescriptorProto) -> bool {
    field.label() == Label::Repeated && matches!(field.r#type(), Type::Message | Type::String | Type::Bytes)
}

/// What a message takes at most when all its fields are set, beside the bytes of its strings and its entries.
fn size(at: usize, messages: &[(String, DescriptorProto)], places: &HashMap<String, usize>, depth: usize) -> usize {
    let field = |field: &prost_types::FieldDescriptorProto| match field.r#type() {
        _ if field.label() == Label::Repeated => LIST,
        // A message that holds itself does so by a pointer.
        Type::Message if depth < DEEPEST => {
            8 + places.get(field.type_name()).map_or(0, |inner| size(*inner, messages, places, depth + 1))
        }
        Type::String | Type::Bytes => TEXT,
        _ => NUMBER,
    };
    messages[at].1.field.iter().map(field).sum()
}

const VARINT: u64 = 0;
const SIXTY_FOUR_BIT: u64 = 1;
const LENGTH_DELIMITED: u64 = 2;
const START_GROUP: u64 = 3;
const END_GROUP: u64 = 4;
const THIRTY_TWO_BIT: u64 = 5;

/// Takes the next field: its number, its wire type, and the bytes of one that is length-delimited. None: it cannot be
/// read. It reads all that prost reads, and to the same end, or prost could be shown what is not counted here.
fn next<'a>(bytes: &mut &'a [u8]) -> Option<(u64, u64, &'a [u8])> {
    let key = varint(bytes)?;
    let kind = key & 7;
    Some((key >> 3, kind, value(kind, bytes)?))
}

fn value<'a>(kind: u64, bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    match kind {
        VARINT => varint(bytes).map(|_| &[][..]),
        SIXTY_FOUR_BIT => bytes.split_off(..8),
        THIRTY_TWO_BIT => bytes.split_off(..4),
        LENGTH_DELIMITED => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            bytes.split_off(..length)
        }
        START_GROUP => {
            // A group is no field of ours: it is left out as a whole, with the groups within it.
            let mut open = 1_usize;
            while open > 0 {
                match varint(bytes)? & 7 {
                    START_GROUP => open += 1,
                    END_GROUP => open -= 1,
                    kind => {
                        value(kind, bytes)?;
                    }
                }
            }
            Some(&[])
        }
        _ => None,
    }
}

/// A number in groups of seven bits, the lowest first, in at most ten bytes.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for group in 0..10 {
        let byte = *bytes.split_off_first()?;
        number |= u64::from(byte & 0x7f) << (7 * group);
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
#[path = "bulk_tests.rs"]
mod tests;
