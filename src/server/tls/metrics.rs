//! What is counted of connections and of TLS.

use prometheus::{IntCounterVec, Opts, Registry};

/// How a handshake ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum Handshake {
    /// The connection is encrypted.
    Done,
    /// The caller speaks no TLS, trusts us not, or is not trusted.
    Failed,
    /// The caller took too long.
    TimedOut,
}

impl Handshake {
    const ALL: [Self; 3] = [Self::Done, Self::Failed, Self::TimedOut];

    fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
        }
    }
}

/// Why a connection was closed before it was served.
#[derive(Debug, Clone, Copy)]
pub(super) enum Refused {
    /// There were as many as there may be.
    Full,
    /// It did not say enough in time.
    Silent,
}

impl Refused {
    const ALL: [Self; 2] = [Self::Full, Self::Silent];

    fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Silent => "silent",
        }
    }
}

/// Counters of both ports.
#[derive(Debug, Clone)]
pub(in crate::server) struct TlsMetrics {
    handshakes: IntCounterVec,
    reloads: IntCounterVec,
    refused: IntCounterVec,
}

impl TlsMetrics {
    /// Registers the series, each at zero.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let handshakes = IntCounterVec::new(
            Opts::new("reg4rec_tls_handshakes_total", "Connections that began with a TLS handshake, by its end"),
            &["result"],
        )?;
        let reloads = IntCounterVec::new(
            Opts::new("reg4rec_tls_reloads_total", "Certificate files that had changed, taken or refused"),
            &["result"],
        )?;
        let refused = IntCounterVec::new(
            Opts::new("reg4rec_connections_refused_total", "Connections closed before they were served, by why"),
            &["reason"],
        )?;
        Refused::ALL.iter().for_each(|why| drop(refused.with_label_values(&[why.name()])));
        Handshake::ALL.iter().for_each(|end| drop(handshakes.with_label_values(&[end.name()])));
        ["taken", "refused"].iter().for_each(|result| drop(reloads.with_label_values(&[result])));
        registry.register(Box::new(handshakes.clone()))?;
        registry.register(Box::new(reloads.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        Ok(Self { handshakes, reloads, refused })
    }

    pub(super) fn refused(&self, why: Refused) {
        self.refused.with_label_values(&[why.name()]).inc();
    }

    pub(super) fn shook(&self, end: Handshake) {
        self.handshakes.with_label_values(&[end.name()]).inc();
    }

    pub(super) fn reloaded(&self, taken: bool, changed: bool) {
        if changed || !taken {
            self.reloads.with_label_values(&[if taken { "taken" } else { "refused" }]).inc();
        }
    }
}
