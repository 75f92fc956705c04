//! What a user did, and the bounded memory of it.

use serde::{Deserialize, Serialize};

use super::ItemNumber;

/// What kind of interaction an event is. Its number is its row in the network's event-kind embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The item was shown in detail.
    #[default]
    View = 0,
    /// The item was clicked.
    Click = 1,
    /// The item was put into the cart.
    Cart = 2,
    /// The item was bought.
    Purchase = 3,
    /// The user asked not to see the item again.
    Hide = 4,
    /// The user rated the item; the value is the rating.
    Rating = 5,
}

impl EventKind {
    /// Every kind, in the order of its number.
    pub const ALL: [EventKind; 6] =
        [EventKind::View, EventKind::Click, EventKind::Cart, EventKind::Purchase, EventKind::Hide, EventKind::Rating];

    /// Its name in files, metrics and commands.
    pub fn name(self) -> &'static str {
        match self {
            EventKind::View => "view",
            EventKind::Click => "click",
            EventKind::Cart => "cart",
            EventKind::Purchase => "purchase",
            EventKind::Hide => "hide",
            EventKind::Rating => "rating",
        }
    }

    /// The kind of that name; none when no kind is called so.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// One thing that one user did, as the outside tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The owner's item id; it need not be known to the bundle.
    pub item_id: String,
    /// What was done.
    pub kind: EventKind,
    /// Unix time in seconds.
    pub time: i64,
    /// Rating or amount, finite.
    pub value: Option<f32>,
}

/// An event with whose it is, as it is recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct UserEvent {
    /// Who did it.
    pub user_id: String,
    /// What was done.
    pub event: Event,
    /// Names the event: recorded twice, it counts once. Empty: it has no name, and counts every time.
    pub event_id: String,
    /// The recommendation that it answers, as that answer's `request_id` names it. Empty: none that is known.
    pub request_id: String,
}

/// What became of events that were to be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recorded {
    /// New ones.
    pub recorded: usize,
    /// Those that were recorded before.
    pub duplicates: usize,
}

/// What was removed of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Forgotten {
    /// Events of the stored history.
    pub history_events: usize,
    /// Events of the event log.
    pub logged_events: u64,
    /// Exposures of the event log.
    pub logged_exposures: u64,
    /// Files of the event log that were written anew.
    pub files: usize,
}

/// One event of a history, resolved to the items of one bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The item, by its dense number.
    pub item: ItemNumber,
    /// What was done.
    pub kind: EventKind,
    /// Unix time in seconds.
    pub time: i64,
}

/// A user's recent events that the bundle knows, oldest first.
pub type History = Vec<HistoryEntry>;
