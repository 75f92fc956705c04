//! From a user's scores to items: CRSS beam search, CORP pruning, early finish, the exact scorer, and the draft.
//!
//! Pure: no tensors, no async, and no clock but that of threads that stand back. The network stands behind [`PathModel`].
//!
//! [`decode`] takes a batch of requests through the search in fixed steps: one `encode`, then one `advance` a step for
//! all of them. Each request has its own search, so that its answer never depends on its batch-mates.
//!
//! A draft is the same search with other paths: in the place of the beam it follows every path that leads to one of the
//! scorer's best items, so that each of them gets the score of its own confidence path. Items share the paths' beginnings,
//! so that each is read once. CORP prunes nothing there.
//!
//! A network that holds the catalogue on its device ([`ResidentModel`]) goes through candidates there: requests that want no
//! more than items are searched so, the others as ever.
//!
//! Scores that are not finite numbers (a broken network) are read as worse than any finite score, and counted in
//! [`Outcome::non_finite`]: a search ends with eligible items whatever the network says.

mod alone;
mod answers;
mod bias;
mod child;
mod corp;
mod dot;
mod exact;
mod expand;
mod greatest;
mod groups;
mod job;
mod limits;
mod near;
mod resident;
mod resident_run;
mod resident_search;
mod run;
mod scoring;
mod scratch;
mod search;
mod settings;
mod sums;
#[cfg(test)]
mod tests;
mod trail;
mod watch;
mod weights;

pub(crate) use alone::{alone, threads_to_use};
pub use bias::Bias;
pub use corp::divergence;
pub(crate) use dot::Dot;
pub use job::{DecodeError, DecodeJob, Outcome, Ranked};
pub use limits::Limits;
pub use resident::{Ask, Depth, Heavy, Opening, ResidentModel, Step, Told};
pub(crate) use run::MOST_SCORES;
pub use run::{Decoder, decode};
pub use scoring::{Advance, Margins, PathModel, PathState, Placement, Shape, TokenVectors};
pub use settings::{DecodeSettings, Engine, Expansion};
pub(crate) use sums::{BYTE, tabulate};
pub use watch::Part;
#[cfg(feature = "train")]
pub(crate) use weights::exp;
pub(crate) use weights::{best_of, weigh};
