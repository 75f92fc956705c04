//! Sends the requests, and takes down what became of each.
//!
//! In an open loop a request is due at a time that does not depend on the answers before it, and its latency and its
//! deadline count from then: a server that stalls for a second is seen to make everybody wait who came in that second,
//! not only the one request that was on its way.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use reg4rec::wire::client::RecommendationServiceClient;
use reg4rec::wire::v1;

use super::super::channel::Line;
use super::Arrivals;
use super::tally::{Outcome, Tally};
use super::traffic::Traffic;

/// Most requests on their way at once; more are not sent, and counted.
const OUTSTANDING: usize = 50_000;

/// Longest that a caller of a closed loop waits before it asks again.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// What tonic's client says of a call that it gave up at its deadline, before the server answered.
const GIVEN_UP: &str = "Timeout expired";

/// When requests are sent.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// At their times.
    Open { rate: f64, arrivals: Arrivals },
    /// By so many callers, one after the other each.
    Closed { callers: usize },
}

pub struct Drive {
    pub pace: Pace,
    pub warmup: Duration,
    pub duration: Duration,
    pub deadline: Duration,
    pub seed: u64,
}

/// What all requests share.
struct Run {
    traffic: Traffic,
    began: Instant,
    ends: Instant,
    deadline: Duration,
    tally: Mutex<Tally>,
}

impl Drive {
    /// Until the last request has ended.
    pub async fn run(self, lines: Vec<Line>, traffic: Traffic) -> anyhow::Result<Tally> {
        let started = Instant::now();
        let began = started + self.warmup;
        let run = Arc::new(Run {
            traffic,
            began,
            ends: began + self.duration,
            deadline: self.deadline,
            tally: Mutex::new(Tally::new(self.duration, self.deadline)?),
        });
        let clients: Vec<_> = lines
            .into_iter()
            .map(|line| RecommendationServiceClient::new(line).max_decoding_message_size(usize::MAX))
            .collect();
        match self.pace {
            Pace::Open { rate, arrivals } => open(&run, &clients, started, rate, arrivals, self.seed).await,
            Pace::Closed { callers } => closed(&run, &clients, callers).await,
        }
        let run = Arc::into_inner(run);
        ensure!(run.is_some(), "a request has not ended");
        let tally = run.map(|run| run.tally.into_inner().unwrap_or_else(PoisonError::into_inner));
        tally.ok_or_else(|| anyhow::anyhow!("a request has not ended"))
    }
}

type Client = RecommendationServiceClient<Line>;

async fn open(run: &Arc<Run>, clients: &[Client], started: Instant, rate: f64, arrivals: Arrivals, seed: u64) {
    let mut draw = ChaCha8Rng::seed_from_u64(seed);
    let mut gap = || match arrivals {
        Arrivals::Steady => 1.0 / rate,
        // 1 - u is never 0.
        Arrivals::Poisson => -(1.0 - draw.random::<f64>()).ln() / rate,
    };
    let mut asked = JoinSet::new();
    let (mut due, mut nth) = (started, 0);
    while due < run.ends {
        tokio::time::sleep_until(due.into()).await;
        while asked.try_join_next().is_some() {}
        // All that is due: a timer ticks in milliseconds.
        while due < run.ends && due <= Instant::now() {
            if asked.len() < OUTSTANDING {
                let (run, client) = (Arc::clone(run), clients[nth % clients.len()].clone());
                asked.spawn(async move { run.ask(client, nth, due).await });
            } else {
                run.note(due, Outcome::Unsent);
            }
            nth += 1;
            due += Duration::from_secs_f64(gap());
        }
    }
    while asked.join_next().await.is_some() {}
}

async fn closed(run: &Arc<Run>, clients: &[Client], callers: usize) {
    let mut asking = JoinSet::new();
    for caller in 0..callers {
        let (run, client) = (Arc::clone(run), clients[caller % clients.len()].clone());
        asking.spawn(async move {
            let mut nth = caller;
            while Instant::now() < run.ends {
                let after = run.ask(client.clone(), nth, Instant::now()).await;
                // Who is told when to try again waits, as a client should: else refusals would be all that it gets.
                // A timer ticks in milliseconds, also one of no time at all.
                if !after.is_zero() {
                    tokio::time::sleep(after.min(LONGEST_WAIT)).await;
                }
                nth += callers;
            }
        });
    }
    while asking.join_next().await.is_some() {}
}

impl Run {
    /// Answers when the server said to try again; at once where it did not say.
    async fn ask(&self, mut client: Client, nth: usize, due: Instant) -> Duration {
        let left = (due + self.deadline).saturating_duration_since(Instant::now());
        if left.is_zero() {
            // This program is too slow for what it was asked to send.
            self.note(due, Outcome::Unsent);
            return Duration::ZERO;
        }
        let mut request = tonic::Request::new(self.traffic.request(nth));
        request.set_timeout(left);
        let (outcome, after) = match client.recommend(request).await {
            Ok(answer) => (answered(due, answer.get_ref()), None),
            Err(status) => (refused(due, &status), status.get_details_retry_info()),
        };
        self.note(due, outcome);
        after.and_then(|told| told.retry_delay).unwrap_or_default()
    }

    /// Counts what was due once it counts.
    fn note(&self, due: Instant, outcome: Outcome) {
        if let Some(at) = due.checked_duration_since(self.began)
            && due < self.ends
        {
            self.tally.lock().unwrap_or_else(PoisonError::into_inner).note(at, outcome);
        }
    }
}

fn answered(due: Instant, answer: &v1::RecommendResponse) -> Outcome {
    Outcome::Answered { after: due.elapsed(), degraded: answer.degraded }
}

fn refused(due: Instant, status: &Status) -> Outcome {
    match status.code() {
        Code::Cancelled if status.message().contains(GIVEN_UP) => Outcome::GivenUp,
        code => Outcome::Refused { after: due.elapsed(), code },
    }
}
