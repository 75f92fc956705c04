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

use super::super::channel::Line;
use super::Arrivals;
use super::manner::{Answer, Asker, Manner, Mix, Refusal};
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
    pub mix: Mix,
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
        let askers: Vec<_> = lines
            .into_iter()
            .map(|line| RecommendationServiceClient::new(line).max_decoding_message_size(usize::MAX))
            .map(|client| Asker::new(client, refusal))
            .collect();
        match self.pace {
            Pace::Open { rate, arrivals } => {
                open(&run, &askers, &self.mix, started, rate, arrivals, self.seed).await;
            }
            Pace::Closed { callers } => closed(&run, &askers, &self.mix, callers).await,
        }
        drop(askers);
        let run = Arc::into_inner(run);
        ensure!(run.is_some(), "a request has not ended");
        let tally = run.map(|run| run.tally.into_inner().unwrap_or_else(PoisonError::into_inner));
        tally.ok_or_else(|| anyhow::anyhow!("a request has not ended"))
    }
}

async fn open(run: &Arc<Run>, askers: &[Asker], mix: &Mix, started: Instant, rate: f64, arrivals: Arrivals, seed: u64) {
    let mut draw = ChaCha8Rng::seed_from_u64(seed);
    let mut asked = JoinSet::new();
    let (mut due, mut nth, mut turn) = (started, 0, 0);
    while due < run.ends {
        tokio::time::sleep_until(due.into()).await;
        while asked.try_join_next().is_some() {}
        // All that is due: a timer ticks in milliseconds.
        while due < run.ends && due <= Instant::now() {
            let manner = mix.draw(&mut draw);
            if asked.len() < OUTSTANDING {
                let (run, asker) = (Arc::clone(run), askers[turn % askers.len()].clone());
                asked.spawn(async move { run.ask(&asker, manner, nth, due).await });
            } else {
                (0..manner.size()).for_each(|_| run.note(due, manner, Outcome::Unsent));
            }
            nth += manner.size();
            turn += 1;
            let mut gap = || match arrivals {
                Arrivals::Steady => 1.0 / rate,
                // 1 - u is never 0.
                Arrivals::Poisson => -(1.0 - draw.random::<f64>()).ln() / rate,
            };
            // Those that are asked together take the time of as many.
            due += Duration::from_secs_f64((0..manner.size()).map(|_| gap()).sum());
        }
    }
    while asked.join_next().await.is_some() {}
}

async fn closed(run: &Arc<Run>, askers: &[Asker], mix: &Mix, callers: usize) {
    let mut asking = JoinSet::new();
    for caller in 0..callers {
        let manner = mix.of_caller(caller, callers);
        let (run, asker) = (Arc::clone(run), askers[caller % askers.len()].with_own_stream());
        asking.spawn(async move {
            let mut nth = caller;
            while Instant::now() < run.ends {
                let after = run.ask(&asker, manner, nth, Instant::now()).await;
                // Who is told when to try again waits, as a client should: else refusals would be all that it gets.
                // A timer ticks in milliseconds, also one of no time at all.
                if !after.is_zero() {
                    tokio::time::sleep(after.min(LONGEST_WAIT)).await;
                }
                nth += callers * manner.size();
            }
        });
    }
    while asking.join_next().await.is_some() {}
}

impl Run {
    /// Asks as many requests as go together. Answers when the server said to try again, the longest of them; at once where
    /// it did not say.
    async fn ask(&self, asker: &Asker, manner: Manner, nth: usize, due: Instant) -> Duration {
        let deadline = due + self.deadline;
        if deadline <= Instant::now() {
            // This program is too slow for what it was asked to send.
            (0..manner.size()).for_each(|_| self.note(due, manner, Outcome::Unsent));
            return Duration::ZERO;
        }
        let requests = (nth..nth + manner.size()).map(|nth| self.traffic.request(nth)).collect();
        let answers = asker.ask(manner, requests, deadline).await;
        let told = answers.iter().filter_map(|answer| answer.as_ref().err()).map(|refusal| refusal.after);
        let after = told.max().unwrap_or_default();
        answers.into_iter().for_each(|answer| self.note(due, manner, outcome(due, answer)));
        after
    }

    /// Counts what was due once it counts.
    fn note(&self, due: Instant, manner: Manner, outcome: Outcome) {
        if let Some(at) = due.checked_duration_since(self.began)
            && due < self.ends
        {
            self.tally.lock().unwrap_or_else(PoisonError::into_inner).note(at, manner, outcome);
        }
    }
}

fn outcome(due: Instant, answer: Answer) -> Outcome {
    match answer {
        Ok(answer) => Outcome::Answered { after: due.elapsed(), degraded: answer.degraded },
        Err(refusal) if refusal.given_up => Outcome::GivenUp,
        Err(refusal) => Outcome::Refused { after: due.elapsed(), code: refusal.code, message: refusal.message },
    }
}

fn refusal(status: &Status) -> Refusal {
    let after = status.get_details_retry_info().and_then(|told| told.retry_delay).unwrap_or_default();
    let given_up = status.code() == Code::Cancelled && status.message().contains(GIVEN_UP);
    Refusal { code: status.code(), message: status.message().to_owned(), after, given_up }
}
