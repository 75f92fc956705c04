//! The manners in which clients ask: a call for each request, calls of several, and streams.

use std::collections::VecDeque;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::Rng;
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};

use reg4rec::wire::client::RecommendationServiceClient;
use reg4rec::wire::v1;
use reg4rec::wire::v1::recommend_result::Outcome as Told;

use super::super::channel::Line;

/// Requests that a call of several may hold.
const MOST_IN_A_BATCH: usize = 256;
/// Requests that a stream holds before the server takes them.
const STREAM_ROOM: usize = 1024;

/// How a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Manner {
    /// `Recommend`, a call for each request.
    Call,
    /// `RecommendBatch`, so many requests a call.
    Batch(usize),
    /// `RecommendStream`, request after request over one call.
    Stream,
}

impl Manner {
    /// As in the report.
    pub fn name(self) -> String {
        match self {
            Self::Call => "call".to_owned(),
            Self::Batch(size) => format!("batch:{size}"),
            Self::Stream => "stream".to_owned(),
        }
    }

    /// How many requests are asked together.
    pub fn size(self) -> usize {
        match self {
            Self::Call | Self::Stream => 1,
            Self::Batch(size) => size,
        }
    }
}

/// The manners of a run, and what share of it each has: `call=8,batch:16=1,stream=1`.
#[derive(Debug, Clone, PartialEq)]
pub struct Mix {
    /// Not empty; shares are above zero.
    shares: Vec<(Manner, f64)>,
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut shares: Vec<(Manner, f64)> = Vec::new();
        for part in text.split(',') {
            let (name, share) = part.split_once('=').unwrap_or((part, "1"));
            let manner = match name.split_once(':') {
                None if name == "call" => Some(Manner::Call),
                None if name == "stream" => Some(Manner::Stream),
                Some(("batch", size)) => {
                    size.parse().ok().filter(|size| (1..=MOST_IN_A_BATCH).contains(size)).map(Manner::Batch)
                }
                _ => None,
            };
            let manner = manner.ok_or_else(|| {
                format!("{name:?}, expected call, stream or batch:N with N from 1 to {MOST_IN_A_BATCH}")
            })?;
            let share: f64 = share.parse().ok().filter(|share| (1e-6..=1e6).contains(share)).ok_or_else(|| {
                format!("the share of {name} is {share:?}, expected a number from 0.000001 to 1000000")
            })?;
            if shares.iter().any(|(known, _)| *known == manner) {
                return Err(format!("{name} is there twice"));
            }
            shares.push((manner, share));
        }
        Ok(Self { shares })
    }
}

impl Mix {
    /// The manner of caller `place` of `callers`: of many callers each manner has its share.
    pub fn of_caller(&self, place: usize, callers: usize) -> Manner {
        self.at((place as f64 + 0.5) / callers as f64, |_| 1.0)
    }

    /// Draws the manner of those who ask next, so that each manner has its share of the requests.
    pub fn draw(&self, random: &mut impl Rng) -> Manner {
        self.at(random.random(), |manner| 1.0 / manner.size() as f64)
    }

    /// The manner at a place from 0 to 1, where each takes its share times its weight.
    fn at(&self, place: f64, weight: impl Fn(Manner) -> f64) -> Manner {
        let weighted = || self.shares.iter().map(|(manner, share)| (*manner, share * weight(*manner)));
        let mut rest = place * weighted().map(|(_, share)| share).sum::<f64>();
        for (manner, share) in weighted() {
            rest -= share;
            if rest < 0.0 {
                return manner;
            }
        }
        // A place of 1, but for rounding.
        self.shares.last().map_or(Manner::Call, |(manner, _)| *manner)
    }
}

/// What a client learns of one request.
pub type Answer = Result<v1::RecommendResponse, Refusal>;

/// Why a request got no answer.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub code: Code,
    /// What was said with it.
    pub message: String,
    /// When to try again, where the server says so.
    pub after: Duration,
    /// The client's own timer said it, not the server.
    pub given_up: bool,
}

type Client = RecommendationServiceClient<Line>;

/// One connection, to be asked in any manner. Clones share it, and its stream.
#[derive(Clone)]
pub struct Asker {
    client: Client,
    stream: Arc<AsyncMutex<Option<Stream>>>,
    refusal: fn(&Status) -> Refusal,
}

impl Asker {
    /// `refusal` reads the status of a call.
    pub fn new(client: Client, refusal: fn(&Status) -> Refusal) -> Self {
        Self { client, stream: Arc::default(), refusal }
    }

    /// The same connection with a stream of its own.
    pub fn with_own_stream(&self) -> Self {
        Self { stream: Arc::default(), ..self.clone() }
    }

    /// What became of each of these requests, by `deadline`.
    pub async fn ask(&self, manner: Manner, requests: Vec<v1::RecommendRequest>, deadline: Instant) -> Vec<Answer> {
        let count = requests.len();
        let mut client = self.client.clone();
        let left = deadline.saturating_duration_since(Instant::now());
        let refused = |status: Status| vec![Err((self.refusal)(&status)); count];
        match manner {
            Manner::Call => {
                let mut answers = Vec::with_capacity(count);
                for request in requests {
                    let answer = client.recommend(timed(request, left)).await;
                    answers.push(answer.map(tonic::Response::into_inner).map_err(|status| (self.refusal)(&status)));
                }
                answers
            }
            Manner::Batch(_) => match client.recommend_batch(timed(v1::RecommendBatchRequest { requests }, left)).await
            {
                Ok(results) => results.into_inner().results.into_iter().map(read).collect(),
                Err(status) => refused(status),
            },
            Manner::Stream => {
                let mut answers = Vec::with_capacity(count);
                for mut request in requests {
                    // None left is no time that a server takes.
                    request.timeout = left.max(Duration::from_micros(1)).try_into().ok();
                    let given_up = Refusal { given_up: true, ..refused_here(Code::DeadlineExceeded, "no answer yet") };
                    let answer = tokio::time::timeout_at(deadline.into(), self.over_stream(request)).await;
                    answers.push(answer.unwrap_or(Err(given_up)));
                }
                answers
            }
        }
    }

    /// Asks over the stream, and opens one where there is none. May be dropped at any time.
    async fn over_stream(&self, request: v1::RecommendRequest) -> Answer {
        let answer = {
            let mut stream = self.stream.lock().await;
            if stream.as_ref().is_none_or(Stream::is_over) {
                *stream = None;
                let opened = Stream::open(self.client.clone(), self.refusal).await;
                *stream = Some(opened.map_err(|status| (self.refusal)(&status))?);
            }
            match stream.as_ref() {
                Some(stream) => stream.send(request).await,
                None => return Err(gone()),
            }
        };
        match answer {
            Some(answer) => answer.await.unwrap_or_else(|_| Err(gone())),
            None => Err(gone()),
        }
    }
}

fn timed<T>(message: T, left: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(left);
    request
}

/// What this side says.
fn refused_here(code: Code, message: &str) -> Refusal {
    Refusal { code, message: message.to_owned(), after: Duration::ZERO, given_up: false }
}

fn gone() -> Refusal {
    refused_here(Code::Unavailable, "the stream has ended")
}

/// One result of several.
fn read(result: v1::RecommendResult) -> Answer {
    match result.outcome {
        Some(Told::Response(response)) => Ok(response),
        Some(Told::Status(status)) => Err(Refusal {
            code: i32::try_from(status.code).map_or(Code::Unknown, Code::from),
            message: status.message,
            after: status.retry_after.and_then(|after| after.try_into().ok()).unwrap_or_default(),
            given_up: false,
        }),
        None => Err(refused_here(Code::Unknown, "a result without an outcome")),
    }
}

/// An open `RecommendStream`. Answers come in the order asked.
struct Stream {
    requests: mpsc::Sender<v1::RecommendRequest>,
    waiting: Waiting,
}

/// Those who wait for their answers, in the order asked; none once the stream has ended.
type Waiting = Arc<Mutex<Option<VecDeque<oneshot::Sender<Answer>>>>>;

impl Stream {
    async fn open(mut client: Client, refusal: fn(&Status) -> Refusal) -> Result<Self, Status> {
        let (requests, sent) = mpsc::channel(STREAM_ROOM);
        let results = client.recommend_stream(ReceiverStream::new(sent)).await?.into_inner();
        let waiting: Waiting = Arc::new(Mutex::new(Some(VecDeque::new())));
        tokio::spawn(hand_out(results, Arc::clone(&waiting), refusal));
        Ok(Self { requests, waiting })
    }

    fn is_over(&self) -> bool {
        self.requests.is_closed() || lock(&self.waiting).is_none()
    }

    /// None: the stream has ended.
    async fn send(&self, request: v1::RecommendRequest) -> Option<oneshot::Receiver<Answer>> {
        // First a place, so that nobody waits for an answer to what was not sent.
        let place = self.requests.reserve().await.ok()?;
        let (sender, answer) = oneshot::channel();
        lock(&self.waiting).as_mut()?.push_back(sender);
        place.send(request);
        Some(answer)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives each result to who waits for it; when the stream ends, all that are left are told.
async fn hand_out(mut results: Streaming<v1::RecommendResult>, waiting: Waiting, refusal: fn(&Status) -> Refusal) {
    let last = loop {
        match results.message().await {
            Ok(Some(result)) => {
                if let Some(first) = lock(&waiting).as_mut().and_then(VecDeque::pop_front) {
                    // Who gave up has counted so.
                    drop(first.send(read(result)));
                }
            }
            Ok(None) => break gone(),
            Err(status) => break refusal(&status),
        }
    };
    let left = lock(&waiting).take();
    for left in left.into_iter().flatten() {
        drop(left.send(Err(last.clone())));
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn a_mix_is_read_or_refused_by_what_is_wrong() {
        let mix: Mix = "call=8,batch:16=1.5,stream".parse().unwrap();
        assert_eq!(mix.shares, [(Manner::Call, 8.0), (Manner::Batch(16), 1.5), (Manner::Stream, 1.0)]);
        for (text, told) in [
            ("", "\"\", expected call"),
            ("calls", "\"calls\", expected call"),
            ("batch", "\"batch\", expected"),
            ("batch:0", "\"batch:0\", expected"),
            ("batch:257", "\"batch:257\", expected"),
            ("call=0", "the share of call is \"0\""),
            ("call=x", "the share of call is \"x\""),
            ("call=NaN", "the share of call is \"NaN\""),
            ("call,stream,call=2", "call is there twice"),
        ] {
            let refused = text.parse::<Mix>().unwrap_err();
            assert!(refused.contains(told), "{text:?}: {refused}");
        }
    }

    #[test]
    fn each_manner_has_its_share_of_callers_and_of_requests() {
        let mix: Mix = "call=2,batch:4=1,stream=1".parse().unwrap();
        let callers: Vec<Manner> = (0..8).map(|place| mix.of_caller(place, 8)).collect();
        let of = |manner| callers.iter().filter(|caller| **caller == manner).count();
        assert_eq!((of(Manner::Call), of(Manner::Batch(4)), of(Manner::Stream)), (4, 2, 2));
        assert_eq!(mix.of_caller(0, 1), Manner::Batch(4));

        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut asked = [0usize; 3];
        for _ in 0..40_000 {
            let manner = mix.draw(&mut random);
            let place = [Manner::Call, Manner::Batch(4), Manner::Stream].iter().position(|one| *one == manner).unwrap();
            asked[place] += manner.size();
        }
        let all: usize = asked.iter().sum();
        for (count, share) in asked.into_iter().zip([0.5, 0.25, 0.25]) {
            assert!((count as f64 / all as f64 - share).abs() < 0.02, "{asked:?}");
        }
    }
}
