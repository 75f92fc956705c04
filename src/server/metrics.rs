//! What the server counts of its calls. Every series exists from the start, at zero; every label comes from a closed
//! list. What is counted of requests stands in `recommend`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};
use tonic::Code;

use crate::domain::{Failure, Overload};

/// The variant label of calls that reached no known variant.
const NO_VARIANT: &str = "none";

/// The client label of calls that showed no key.
const NO_CLIENT: &str = "none";

/// The reason label of calls over their quota.
const QUOTA: &str = "quota";

/// Seconds: from a cached answer to a very late one.
const SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

/// The calls that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Recommend,
    RecommendBatch,
    RecommendStream,
    Record,
    RecordStream,
    UpsertItems,
    RemoveItems,
    SetEligibility,
    GetItem,
    ListItems,
}

impl Method {
    const ALL: [Method; 10] = [
        Method::Recommend,
        Method::RecommendBatch,
        Method::RecommendStream,
        Method::Record,
        Method::RecordStream,
        Method::UpsertItems,
        Method::RemoveItems,
        Method::SetEligibility,
        Method::GetItem,
        Method::ListItems,
    ];

    fn name(self) -> &'static str {
        match self {
            Method::Recommend => "Recommend",
            Method::RecommendBatch => "RecommendBatch",
            Method::RecommendStream => "RecommendStream",
            Method::Record => "Record",
            Method::RecordStream => "RecordStream",
            Method::UpsertItems => "UpsertItems",
            Method::RemoveItems => "RemoveItems",
            Method::SetEligibility => "SetEligibility",
            Method::GetItem => "GetItem",
            Method::ListItems => "ListItems",
        }
    }

    /// Whether a call of it is a stream of requests.
    pub fn is_stream(self) -> bool {
        matches!(self, Method::RecommendStream | Method::RecordStream)
    }

    /// The method of a path such as `/reg4rec.v1.RecommendationService/Recommend`.
    pub fn of(path: &str) -> Option<Self> {
        let name = path.rsplit('/').next()?;
        Self::ALL.into_iter().find(|method| method.name() == name)
    }
}

/// Every status code, by its name in gRPC.
const CODES: [(Code, &str); 17] = [
    (Code::Ok, "OK"),
    (Code::Cancelled, "CANCELLED"),
    (Code::Unknown, "UNKNOWN"),
    (Code::InvalidArgument, "INVALID_ARGUMENT"),
    (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
    (Code::NotFound, "NOT_FOUND"),
    (Code::AlreadyExists, "ALREADY_EXISTS"),
    (Code::PermissionDenied, "PERMISSION_DENIED"),
    (Code::ResourceExhausted, "RESOURCE_EXHAUSTED"),
    (Code::FailedPrecondition, "FAILED_PRECONDITION"),
    (Code::Aborted, "ABORTED"),
    (Code::OutOfRange, "OUT_OF_RANGE"),
    (Code::Unimplemented, "UNIMPLEMENTED"),
    (Code::Internal, "INTERNAL"),
    (Code::Unavailable, "UNAVAILABLE"),
    (Code::DataLoss, "DATA_LOSS"),
    (Code::Unauthenticated, "UNAUTHENTICATED"),
];

fn code_name(code: Code) -> &'static str {
    CODES.into_iter().find(|(known, _)| *known == code).map_or("UNKNOWN", |(_, name)| name)
}

/// The server's metrics.
#[derive(Debug)]
pub(super) struct ServerMetrics {
    variants: Vec<String>,
    requests: IntCounterVec,
    durations: HistogramVec,
    inflight: IntGauge,
    not_ready_arrivals: Histogram,
    rejected: IntCounterVec,
    access_refused: IntCounterVec,
}

impl ServerMetrics {
    /// Registers the metrics; `variants` is the closed list of variants that may answer, `clients` that of keys.
    pub fn new(registry: &Registry, variants: &[String], clients: &[String]) -> prometheus::Result<Self> {
        let seconds = |name: &str, about: &str| HistogramOpts::new(name, about).buckets(SECONDS.to_vec());
        let mut labels: Vec<String> = variants.to_vec();
        labels.push(NO_VARIANT.to_owned());
        let metrics = Self {
            variants: labels,
            requests: IntCounterVec::new(
                Opts::new(
                    "reg4rec_requests_total",
                    "Calls answered, and requests of streams, by method, gRPC status and variant.",
                ),
                &["method", "code", "variant"],
            )?,
            durations: HistogramVec::new(
                seconds(
                    "reg4rec_request_duration_seconds",
                    "Seconds from a call's headers, or a stream's request, to its answer.",
                ),
                &["method", "variant"],
            )?,
            inflight: IntGauge::new("reg4rec_inflight", "Calls being worked on, streams until they end.")?,
            not_ready_arrivals: Histogram::with_opts(
                HistogramOpts::new(
                    "reg4rec_not_ready_arrival_seconds",
                    "How long the server had been not ready (starting or draining) when calls still arrived.",
                )
                .buckets(vec![0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0]),
            )?,
            rejected: IntCounterVec::new(
                Opts::new(
                    "reg4rec_admission_rejected_total",
                    "Requests refused because there was too much of something, by what and by the caller's key.",
                ),
                &["reason", "client"],
            )?,
            access_refused: IntCounterVec::new(
                Opts::new("reg4rec_access_refused_total", "Calls without the right to what they asked for."),
                &["reason"],
            )?,
        };
        metrics.register(registry)?;
        metrics.start_at_zero(clients);
        Ok(metrics)
    }

    fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.requests.clone()))?;
        registry.register(Box::new(self.durations.clone()))?;
        registry.register(Box::new(self.inflight.clone()))?;
        registry.register(Box::new(self.rejected.clone()))?;
        registry.register(Box::new(self.access_refused.clone()))?;
        registry.register(Box::new(self.not_ready_arrivals.clone()))
    }

    fn start_at_zero(&self, clients: &[String]) {
        for client in clients.iter().map(String::as_str).chain([NO_CLIENT]) {
            for reason in Overload::ALL.map(Overload::name).into_iter().chain([QUOTA]) {
                self.rejected.with_label_values(&[reason, client]);
            }
        }
        for reason in ["unauthenticated", "denied"] {
            self.access_refused.with_label_values(&[reason]);
        }
        for variant in &self.variants {
            for method in Method::ALL {
                self.durations.with_label_values(&[method.name(), variant]);
                for (_, code) in CODES {
                    self.requests.with_label_values(&[method.name(), code, variant]);
                }
            }
        }
    }

    /// Notes a call that arrived although the server had been not ready for so long.
    pub fn arrived_not_ready(&self, after: Duration) {
        self.not_ready_arrivals.observe(after.as_secs_f64());
    }

    /// Counts a refusal if it is one of there being too much, or of rights. `client`: the name of a key of ours.
    pub fn refused(&self, failure: &Failure, client: Option<&str>) {
        let client = client.unwrap_or(NO_CLIENT);
        match failure {
            Failure::Overloaded { reason, .. } => self.rejected.with_label_values(&[reason.name(), client]).inc(),
            Failure::OverQuota { client, .. } => self.rejected.with_label_values(&[QUOTA, client]).inc(),
            Failure::Unauthenticated(_) => self.access_refused.with_label_values(&["unauthenticated"]).inc(),
            Failure::Denied(_) => self.access_refused.with_label_values(&["denied"]).inc(),
            _ => {}
        }
    }

    /// Calls being worked on, and open streams.
    pub fn inflight(&self) -> i64 {
        self.inflight.get()
    }

    /// Begins to count a call; it is counted when the guard is dropped, however that comes about.
    pub fn begin(self: &Arc<Self>, method: Method) -> CallGuard {
        self.inflight.inc();
        let mut call = self.begin_request(method);
        call.inflight = Some(Inflight(self.inflight.clone()));
        call
    }

    /// Begins to count a request of a stream, which is counted as a call is; the stream is the one that is in flight.
    pub fn begin_request(self: &Arc<Self>, method: Method) -> CallGuard {
        let metrics = Some(Arc::clone(self));
        CallGuard {
            metrics,
            method,
            began: Instant::now(),
            code: Code::Cancelled,
            variant: Arc::default(),
            inflight: None,
        }
    }
}

/// A call that is in flight until this is dropped.
#[derive(Debug)]
pub(super) struct Inflight(IntGauge);

impl Drop for Inflight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The variant that a call turned out to be for.
pub(super) type CallVariant = Arc<std::sync::OnceLock<String>>;

/// One call being worked on. A caller that goes away drops it as it stands: CANCELLED.
#[derive(Debug)]
pub(super) struct CallGuard {
    /// None: it is a stream, of which the requests are counted.
    metrics: Option<Arc<ServerMetrics>>,
    method: Method,
    began: Instant,
    code: Code,
    variant: CallVariant,
    /// None: a request of a stream.
    inflight: Option<Inflight>,
}

impl CallGuard {
    /// To be told the call's variant later.
    pub fn variant(&self) -> CallVariant {
        Arc::clone(&self.variant)
    }

    /// Goes on as a stream that is open: its requests are counted, and not itself.
    pub fn into_stream(mut self) -> Option<Inflight> {
        self.metrics = None;
        self.inflight.take()
    }

    /// Ends the call with `code`.
    pub fn end(mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        let Some(metrics) = &self.metrics else { return };
        let named = self.variant.get();
        let known = named.filter(|named| metrics.variants.contains(named));
        let variant = known.map_or(NO_VARIANT, String::as_str);
        metrics.requests.with_label_values(&[self.method.name(), code_name(self.code), variant]).inc();
        let took = self.began.elapsed().as_secs_f64();
        metrics.durations.with_label_values(&[self.method.name(), variant]).observe(took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> (Registry, Arc<ServerMetrics>) {
        let registry = Registry::new();
        let metrics = Arc::new(ServerMetrics::new(&registry, &["default".to_owned()], &["shop".to_owned()]).unwrap());
        (registry, metrics)
    }

    #[test]
    fn every_series_is_there_before_the_first_call() {
        let (registry, _metrics) = metrics();
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            r#"reg4rec_requests_total{code="OK",method="Recommend",variant="default"} 0"#,
            r#"reg4rec_requests_total{code="DEADLINE_EXCEEDED",method="RecommendBatch",variant="none"} 0"#,
            r#"reg4rec_request_duration_seconds_count{method="Recommend",variant="default"} 0"#,
            "reg4rec_inflight 0",
            r#"reg4rec_admission_rejected_total{client="shop",reason="quota"} 0"#,
            r#"reg4rec_admission_rejected_total{client="none",reason="predicted_late"} 0"#,
            r#"reg4rec_access_refused_total{reason="unauthenticated"} 0"#,
            "reg4rec_not_ready_arrival_seconds_count 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_dropped_call_counts_as_cancelled_and_an_unknown_variant_as_none() {
        let (_registry, metrics) = metrics();
        let call = metrics.begin(Method::Recommend);
        assert_eq!(metrics.inflight(), 1);
        call.variant().set("made up by a caller".into()).unwrap();
        drop(call);
        assert_eq!(metrics.inflight(), 0);
        assert_eq!(metrics.requests.with_label_values(&["Recommend", "CANCELLED", "none"]).get(), 1);
    }

    #[test]
    fn a_stream_is_in_flight_until_it_ends_and_its_requests_are_counted() {
        let (_registry, metrics) = metrics();
        let counted = |code: &str| metrics.requests.with_label_values(&["RecordStream", code, "none"]).get();
        let stream = metrics.begin(Method::RecordStream).into_stream();
        assert_eq!((metrics.inflight(), counted("OK"), counted("CANCELLED")), (1, 0, 0));
        metrics.begin_request(Method::RecordStream).end(Code::Ok);
        assert_eq!((metrics.inflight(), counted("OK")), (1, 1));
        drop(stream);
        assert_eq!((metrics.inflight(), counted("OK"), counted("CANCELLED")), (0, 1, 0));
    }
}
