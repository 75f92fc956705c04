//! The words that every room shares. No runtime, no wire format, no tensors.

mod assignment;
mod breath;
mod catalogue;
mod code;
mod edition;
mod event;
mod exposure;
mod failure;
mod foreign;
mod item;
mod path;
mod request;
mod secret;
mod share;

pub use assignment::{Assignment, AssignmentReason, ForcedArm};
pub use breath::{breathe, breathe_at, stand_back};
pub use catalogue::{CatalogChange, CatalogChanged, DescribedItem, ItemPage, StoredItem};
pub use code::{Code, CodeShape, CodeTable, Entries, Token};
pub use edition::{ExperimentsChange, ExperimentsEdition};
pub use event::{Event, EventKind, Forgotten, History, HistoryEntry, Recorded, UserEvent};
pub use exposure::{Design, ExposedArm, Exposure};
pub use failure::{Failure, Lateness, Overload, Violation};
pub use foreign::{contained, panic_text};
pub use item::{Item, ItemNumber};
pub use path::{Attended, Belief, Path, Step};
pub use request::{
    DecodeOverrides, Engine, Filter, NamedPath, RecommendAnswer, RecommendRequest, Recommendation, Stage, Steering,
};
pub use secret::Secret;
pub use share::share_out;
