//! Why a request got no answer. Each kind becomes one gRPC status at the edge.

use std::time::Duration;

use thiserror::Error;

/// One wrong field of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field's path, as in `history[3].value`.
    pub field: String,
    /// What it held and what was expected.
    pub description: String,
}

impl Violation {
    /// A violation of `field`.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self { field: field.into(), description: description.into() }
    }
}

/// Where a request was found to be past its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lateness {
    /// Before it entered the queue.
    Enqueue,
    /// When it was taken out of the queue.
    Dequeue,
    /// Between two decoding steps.
    Step,
    /// While its caller waited for the answer.
    Answer,
}

/// What there was too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Overload {
    /// Calls at once.
    Busy,
    /// Requests that wait for a batch.
    QueueFull,
    /// Work before this request, which would be done too late.
    PredictedLate,
    /// Requests that wait for the event log.
    LogFull,
    /// Requests that wait to change the catalogue.
    CatalogueFull,
}

impl Overload {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Busy, Self::QueueFull, Self::PredictedLate, Self::LogFull, Self::CatalogueFull];

    /// The name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::QueueFull => "queue_full",
            Self::PredictedLate => "predicted_late",
            Self::LogFull => "log_full",
            Self::CatalogueFull => "catalogue_full",
        }
    }
}

/// Why a request got no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Failure {
    /// Fields are wrong; every one of them is named.
    #[error("{} invalid field(s)", .0.len())]
    Invalid(Vec<Violation>),
    /// No such variant is loaded.
    #[error("unknown variant {0:?}")]
    UnknownVariant(String),
    /// The backlog cannot be worked off before the deadline.
    #[error("overloaded, retry in {retry_after:?}")]
    Overloaded {
        /// By what.
        reason: Overload,
        /// When to try again.
        retry_after: Duration,
    },
    /// The caller has asked more than it may.
    #[error("client {client:?} is over its quota, retry in {retry_after:?}")]
    OverQuota {
        /// The name of its key.
        client: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// The deadline passed.
    #[error("deadline passed ({0:?})")]
    Late(Lateness),
    /// Not warm yet, or draining.
    #[error("not ready: {reason}")]
    NotReady {
        /// Which of the two.
        reason: &'static str,
        /// When to try again.
        retry_after: Duration,
    },
    /// This server is not configured to do that.
    #[error("off: {0}")]
    Off(&'static str),
    /// No item has this id.
    #[error("unknown item {0:?}")]
    UnknownItem(String),
    /// The registry holds no such bundle.
    #[error("no bundle {0:?} in the registry")]
    UnknownBundle(String),
    /// What an operator asked for cannot be done as things stand; nothing was changed.
    #[error("{reason}")]
    Unmet {
        /// Why, for programs: `BUNDLE_REFUSED`, `NO_PREVIOUS`, `NO_REGISTRY` or `NO_LOG_FILTER`.
        code: &'static str,
        /// Why, for people.
        reason: String,
    },
    /// The caller has shown no key that is known here.
    #[error("unauthenticated: {0}")]
    Unauthenticated(&'static str),
    /// The caller may not do what it asks for.
    #[error("denied: {0}")]
    Denied(&'static str),
    /// Ours. The cause goes to the log under an id; the caller gets the id.
    #[error("internal: {0}")]
    Internal(String),
}
