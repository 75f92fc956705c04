//! How good a ranking is: metrics over the full catalogue of items, and the baselines beside it.
//!
//! Leave-one-out: a ranker sees a user's history and names items, best first; what counts is the place of the one item
//! that came next. Items are ranked, never codes: items that share a code are different items.

mod content_knn;
mod fixed_order;
mod harness;
mod item_knn;
mod item_scorer;
mod metrics;
mod popular;
mod report;
mod search;
mod trial;

pub use content_knn::ContentKnn;
pub use fixed_order::FixedOrder;
pub use harness::{EvaluationError, RankError, Ranker, evaluate};
pub use item_knn::{ItemKnn, ItemKnnConfig};
pub use item_scorer::ItemScorer;
pub use metrics::{CUTOFFS, Metrics, Tally};
pub use popular::Popular;
pub use report::{Evaluation, Scores, baselines};
pub use search::Search;
pub use trial::{HISTORY_LIMIT, Question, Trial};
