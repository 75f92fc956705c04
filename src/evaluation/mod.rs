//! How good a ranking is: metrics over the full catalogue of items, and the baselines beside it.
//!
//! Leave-one-out: a ranker sees a user's history and names items, best first; what counts is the place of the one item
//! that came next. Items are ranked, never codes: items that share a code are different items.

mod calibration;
mod content_knn;
mod harness;
mod holders;
mod item_knn;
mod item_scorer;
mod machine;
mod metrics;
mod popular;
mod record;
mod report;
mod search;
mod slices;
mod summary;
mod token_search;
mod token_use;
mod trial;

pub use calibration::{CalibrationBin, CategoryCalibration};
pub use content_knn::ContentKnn;
pub use harness::{EvaluationError, Placed, RankError, Ranker, evaluate, evaluate_with_places};
pub use holders::Holders;
pub use item_knn::{ItemKnn, ItemKnnConfig};
pub use item_scorer::{ItemScorer, last_states};
pub use machine::{Machine, peak_memory_bytes};
pub use metrics::{CUTOFFS, Metrics, Tally};
pub use popular::Popular;
pub use record::{DatasetFacts, EpochPoint, RECORD_VERSION, RecordError, RunLabel, RunRecord};
pub use report::{Evaluation, Scores, baselines};
pub use search::Search;
pub use slices::{Slice, Slices, event_counts};
pub use summary::{GroupRuns, HEADLINE, Spread, Summary, SystemRuns, binomial_error, relative};
pub use token_search::{TokenOrder, TokenSearch};
pub use token_use::{CodebookUse, TokenUse};
pub use trial::{HISTORY_LIMIT, Question, Trial};
