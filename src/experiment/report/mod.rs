//! What came of an experiment: exposures and events joined by request id, arms compared with the first. Pure: whoever
//! reads a log tells a [`Ledger`] what stands there, in any order, and asks it for [`Ledger::report`].

mod comparison;
mod ledger;
mod rate;
mod replay;
mod sequence;
mod summary;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;

pub use comparison::{Comparison, FEWEST_UNITS, compare};
pub use ledger::Ledger;
pub use rate::{Outcome, Rate};
pub use sequence::ConfidenceSequence;
pub use summary::{ArmReport, ExperimentReport, Lifts, Point, Report, Unjoined};
