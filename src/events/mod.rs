//! What users did, on disk before it is acknowledged: a log of segments with one writer, and whoever follows it.
//!
//! [`EventLog::open`] replays the log to its [`Follower`] and starts the one thread that writes it. That thread takes all
//! that waits, writes it, syncs once, tells the follower, and acknowledges: many callers share a sync.
//!
//! Beside events the log holds exposures, which answer of an experiment's arm was given to whom ([`EventLog::expose`]).
//! For these nobody waits: a bounded queue of their own drops what the writer is too busy for.

mod carrier;
mod config;
mod exposure_queue;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod exposure_tests;
mod forgotten;
mod ids;
mod log;
mod metrics;
mod nats;
mod record;
mod segment;
mod stored_exposure;
mod table;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod table_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
mod writer;

pub use carrier::ExposureCarrier;
pub use config::{EventsConfig, NatsConfig, Sync};
pub use forgotten::ForgottenUsers;
pub use log::{EventLog, EventLogError, Opened, Refusal, read, read_name, read_records, read_records_after};
pub use nats::{EventStream, StreamError};
pub use record::{Exposed, Logged, Record};
pub use segment::SegmentError;

/// Keeps what the log says in another form, as histories do. It is told by one thread, in the order of the log: at
/// opening everything that the log holds, from then on what becomes durable, before that is acknowledged.
pub trait Follower: Send {
    /// An event is in the log.
    fn recorded(&mut self, logged: &Logged);

    /// All that was recorded together has been told; it is acknowledged when this returns.
    fn settled(&mut self) {}

    /// No event of the user is in the log any more.
    fn forgotten(&mut self, user: &str);

    /// The same of users that another server was asked to forget. `users` are those of whom the log held something; `is_one`
    /// knows the others too.
    fn forgotten_elsewhere(&mut self, users: &[String], _is_one: &dyn Fn(&str) -> bool) {
        users.iter().for_each(|user| self.forgotten(user));
    }
}
