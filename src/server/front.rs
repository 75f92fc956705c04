//! What every call passes before its body is read: the deadline, the bound on calls at once, and the counters.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Code, Status};

use crate::domain::{Failure, Lateness, Overload, Violation};
use crate::wire;

use super::config::ServerConfig;
use super::desk::Phase;
use super::lasting::Lasting;
use super::metrics::{CallVariant, Method, ServerMetrics};

/// What the front tells the service of a call.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// When the answer must be ready, or the stream over, if the caller said so. The server's own maximum is kept by the
    /// front, but for the requests of a stream.
    pub deadline: Option<Instant>,
    /// How long each request of a stream may take; none: the call is no stream.
    pub longest: Option<Duration>,
    /// Where to say which variant answers.
    pub variant: CallVariant,
}

/// The front's own state.
#[derive(Debug)]
pub(super) struct Front {
    max_deadline: Duration,
    margin: Duration,
    /// A call has one until it is answered, a stream until it has ended.
    places: Arc<Semaphore>,
    metrics: Arc<ServerMetrics>,
    /// Closures, as the front need not know the recommender's type.
    phase: PhaseReader,
    refusals: RefusalReader,
}

/// Reads the phase, and for how long it has been.
pub(super) struct PhaseReader(pub Box<dyn Fn() -> (Phase, Duration) + Send + Sync>);

/// Reads what every request would be refused with that came now with a deadline.
pub(super) struct RefusalReader(pub Box<dyn Fn(Instant) -> Option<Failure> + Send + Sync>);

impl std::fmt::Debug for RefusalReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RefusalReader")
    }
}

impl std::fmt::Debug for PhaseReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PhaseReader").field(&(self.0)()).finish()
    }
}

impl Front {
    pub fn new(
        config: &ServerConfig,
        max_deadline: Duration,
        metrics: Arc<ServerMetrics>,
        phase: PhaseReader,
        refusals: RefusalReader,
    ) -> Self {
        Self {
            max_deadline,
            margin: config.deadline_margin(),
            places: Arc::new(Semaphore::new(config.max_inflight)),
            metrics,
            phase,
            refusals,
        }
    }

    /// The refusal of a `Recommend` that no engine has time for, from its headers alone: under several times its load a server
    /// spends most of its time on those whom it refuses. None of gRPC-web, whose refusals are in its body.
    pub fn refused_unread(&self, path: &str, headers: &HeaderMap) -> Option<Response> {
        let method = Method::of(path).filter(|method| *method == Method::Recommend)?;
        let native = |kind: &HeaderValue| kind == "application/grpc" || kind == "application/grpc+proto";
        headers.get(CONTENT_TYPE).filter(|kind| native(kind))?;
        // A timeout that cannot be read is told as such.
        let allowed = self.allowed(timeout(headers).ok()?.unwrap_or(Duration::MAX));
        // Who comes too late is told so, and not to try again.
        let failure = (!allowed.is_zero()).then(|| (self.refusals.0)(Instant::now() + allowed))??;
        let call = self.metrics.begin(method);
        self.note_phase();
        self.metrics.refused(&failure, None);
        let response = refusal(&failure);
        call.end(wire::code(&failure));
        Some(response)
    }

    /// Counts a call that comes after the server said that it is not ready.
    fn note_phase(&self) {
        let (phase, since) = (self.phase.0)();
        if phase != Phase::Serving {
            self.metrics.arrived_not_ready(since);
        }
    }

    /// How long the server may take: less than it is given, by the way back.
    ///
    /// tonic runs a timer of its own on `grpc-timeout` that answers CANCELLED. The margin (at least 2 ms, and timers
    /// tick in 1 ms) keeps ours ahead of it, and lets the answer reach a caller who still listens.
    fn allowed(&self, given: Duration) -> Duration {
        given.min(self.max_deadline).saturating_sub(self.margin)
    }
}

/// One call, from its headers to its answer, or to the end of its stream.
pub(super) async fn pass(State(front): State<Arc<Front>>, request: Request, next: Next) -> Response {
    // A method that does not exist: tonic says UNIMPLEMENTED.
    let Some(method) = Method::of(request.uri().path()) else { return next.run(request).await };
    let call = front.metrics.begin(method);
    let answered = answer(&front, method, call.variant(), request, next).await;
    let (response, opened) = answered.unwrap_or_else(|failure| {
        front.metrics.refused(&failure, None);
        (refusal(&failure), None)
    });
    match (opened, code(&response)) {
        (Some(Opened { place, deadline }), Code::Ok) => {
            let held = (place, call.into_stream());
            response.map(|body| Lasting::body(body, held, passed(deadline)))
        }
        (_, code) => {
            call.end(code);
            response
        }
    }
}

/// What an open stream keeps.
struct Opened {
    place: OwnedSemaphorePermit,
    /// None: it may go on for ever.
    deadline: Option<Instant>,
}

async fn answer(
    front: &Front,
    method: Method,
    variant: CallVariant,
    mut request: Request,
    next: Next,
) -> Result<(Response, Option<Opened>), Failure> {
    let began = Instant::now();
    front.note_phase();
    let asked = timeout(request.headers())?;
    let allowed = front.allowed(asked.unwrap_or(Duration::MAX));
    if allowed.is_zero() {
        return Err(Failure::Late(Lateness::Enqueue));
    }
    let latest = began + allowed;
    // A stream lasts as long as its caller says; the server's own maximum is for each of its requests, and for its opening.
    let deadline = match asked {
        Some(asked) if method.is_stream() => began.checked_add(asked.saturating_sub(front.margin)),
        Some(_) => Some(latest),
        None => None,
    };
    let busy = |_| Failure::Overloaded { reason: Overload::Busy, retry_after: Duration::from_millis(100) };
    let place = Arc::clone(&front.places).try_acquire_owned().map_err(busy)?;
    let longest = method.is_stream().then_some(front.max_deadline);
    request.extensions_mut().insert(Call { deadline, longest, variant });
    let late = |_| Failure::Late(Lateness::Answer);
    let response = tokio::time::timeout_at(latest.into(), next.run(request)).await.map_err(late)?;
    Ok((response, method.is_stream().then_some(Opened { place, deadline })))
}

/// Resolves at the deadline of a stream.
async fn passed(deadline: Option<Instant>) -> Option<Status> {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
    Some(wire::status(&Failure::Late(Lateness::Answer), ""))
}

fn refusal(failure: &Failure) -> Response {
    wire::status(failure, "").into_http::<Body>()
}

/// A failed unary call says so in its headers; any other goes well.
fn code(response: &Response) -> Code {
    Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code())
}

/// The `grpc-timeout` header: up to 8 digits and a unit.
///
/// # Errors
/// [`Failure::Invalid`] when it is there but cannot be read: a deadline that is silently ignored helps nobody.
fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Failure> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(parse_timeout);
    let expected = || {
        let description = format!("is {value:?}, expected 1 to 8 digits and one of the units H, M, S, m, u, n");
        Failure::Invalid(vec![Violation::new("grpc-timeout", description)])
    };
    parsed.map(Some).ok_or_else(expected)
}

fn parse_timeout(text: &str) -> Option<Duration> {
    let (unit_at, _) = text.char_indices().last()?;
    let (digits, unit) = text.split_at(unit_at);
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_digits_and_a_unit() {
        for (text, expected) in [
            ("250m", Some(Duration::from_millis(250))),
            ("1S", Some(Duration::from_secs(1))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("5u", Some(Duration::from_micros(5))),
            ("0n", Some(Duration::ZERO)),
            ("", None),
            ("m", None),
            ("12", None),
            ("+1S", None),
            ("123456789n", None),
            ("1é", None),
        ] {
            assert_eq!(parse_timeout(text), expected, "{text:?}");
        }
    }
}
