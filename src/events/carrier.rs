//! Exposures on their way to the stream, so that the logs of other servers hold them, too: what one server showed may be
//! clicked at another.

use std::future::IntoFuture;

use async_nats::jetstream::message::PublishMessage;
use prometheus::IntCounter;
use tokio::sync::mpsc;

use super::forgotten::hex;
use super::nats::{AGAIN, EventStream, StreamError, away};
use super::record::Exposed;
use crate::domain::Exposure;

/// Exposures that wait for the stream.
const WAITING: usize = 4096;
/// Exposures that are published together.
const TOGETHER: usize = 256;
/// The header that names the log that has the exposure already.
pub(super) const ORIGIN: &str = "Reg4rec-Origin";

/// Where a server leaves the exposures of its own log for others. Clones share everything.
#[derive(Debug, Clone)]
pub struct ExposureCarrier {
    waiting: mpsc::Sender<Exposed>,
    dropped: IntCounter,
}

impl ExposureCarrier {
    /// Leaves the exposure for the stream; never waits, and drops it when too many wait already. `now_ms`: when the answer
    /// was given, in Unix milliseconds.
    pub fn leave(&self, exposure: Exposure, now_ms: i64) {
        if self.waiting.try_send(Exposed { sequence: 0, arrived_ms: now_ms, exposure }).is_err() {
            self.dropped.inc();
        }
    }
}

impl EventStream {
    /// Publishes what the carrier is given, until it is dropped. `origin`: the log that has it already. Called within a tokio
    /// runtime.
    pub fn carrier(&self, origin: &str) -> ExposureCarrier {
        let (waiting, mut left) = mpsc::channel(WAITING);
        let (stream, origin) = (self.clone(), origin.to_owned());
        tokio::spawn(async move {
            let mut together = Vec::with_capacity(TOGETHER);
            while left.recv_many(&mut together, TOGETHER).await > 0 {
                let mut told = false;
                // Sent again whole: the stream knows those that came through by their ids.
                while let Err(reason) = stream.expose(&together, &origin).await {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(%reason, "exposures wait for the event stream");
                    }
                    tokio::time::sleep(AGAIN).await;
                }
                together.clear();
            }
        });
        ExposureCarrier { waiting, dropped: self.inner.metrics.exposures_dropped.clone() }
    }

    async fn expose(&self, exposures: &[Exposed], origin: &str) -> Result<(), StreamError> {
        let (context, expected) = (&self.inner.context, &self.inner.config.stream);
        let mut sent = Vec::with_capacity(exposures.len());
        for exposed in exposures {
            let mut payload = Vec::new();
            exposed.write(&mut payload);
            let id = hex(format!("exposure {}", exposed.exposure.request_id).as_bytes());
            let publish = PublishMessage::build().payload(payload.into()).message_id(id).expected_stream(expected);
            let subject = self.subject(&exposed.exposure.user_id);
            sent.push(context.send_publish(subject, publish.header(ORIGIN, origin)).await.map_err(away)?);
        }
        for acknowledgement in sent {
            acknowledgement.into_future().await.map_err(away)?;
        }
        Ok(())
    }
}
