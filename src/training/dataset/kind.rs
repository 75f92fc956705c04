//! The names of event kinds in files.

use crate::domain::EventKind;

/// The name of a kind in the `kind` column.
pub fn kind_name(kind: EventKind) -> &'static str {
    match kind {
        EventKind::View => "view",
        EventKind::Click => "click",
        EventKind::Cart => "cart",
        EventKind::Purchase => "purchase",
        EventKind::Hide => "hide",
        EventKind::Rating => "rating",
    }
}

/// The kind of that name; none when no kind is called so.
pub fn kind_named(name: &str) -> Option<EventKind> {
    EventKind::ALL.into_iter().find(|&kind| kind_name(kind) == name)
}
