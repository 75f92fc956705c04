//! What became of the requests, counted.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::Context;
use hdrhistogram::Histogram;
use serde::Serialize;
use tonic::Code;

use super::manner::Manner;

/// Longest latency that is told apart, in microseconds.
const LONGEST_US: u64 = 600_000_000;
/// Digits that a latency is kept with.
const DIGITS: u8 = 3;
/// The percentiles that are told.
const TOLD: [f64; 6] = [50.0, 90.0, 99.0, 99.9, 99.99, 100.0];

/// What became of one request.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It was answered.
    Answered { after: Duration, degraded: bool },
    /// It was answered with a status other than OK.
    Refused { after: Duration, code: Code, message: String },
    /// No answer came by its deadline.
    GivenUp,
    /// It was not sent: this program was too slow.
    Unsent,
}

/// Counts all of them.
pub struct Tally {
    deadline: Duration,
    duration: Duration,
    answered: Histogram<u64>,
    refused: Histogram<u64>,
    answers: BTreeMap<String, u64>,
    messages: BTreeMap<String, String>,
    seconds: Vec<Part>,
    manners: BTreeMap<Manner, Part>,
    /// With nothing counted.
    part: Part,
    within: u64,
    degraded: u64,
    given_up: u64,
    unsent: u64,
}

/// A part of the requests: those of a second, or of one manner of asking.
#[derive(Clone)]
struct Part {
    requests: u64,
    within: u64,
    refused: u64,
    answered: Histogram<u64>,
}

impl Part {
    fn note(&mut self, within: bool, outcome: &Outcome) {
        self.requests += 1;
        match outcome {
            Outcome::Answered { after, .. } => {
                self.within += u64::from(within);
                self.answered.saturating_record(us(*after));
            }
            Outcome::Refused { .. } => self.refused += 1,
            Outcome::GivenUp | Outcome::Unsent => {}
        }
    }

    fn point(&self) -> Point {
        let ms = |percentile| self.answered.value_at_percentile(percentile) as f64 / 1e3;
        Point {
            requests: self.requests,
            within_deadline: self.within,
            refused: self.refused,
            p50_ms: ms(50.0),
            p99_ms: ms(99.0),
        }
    }
}

fn us(after: Duration) -> u64 {
    u64::try_from(after.as_micros()).unwrap_or(u64::MAX)
}

impl Tally {
    pub fn new(duration: Duration, deadline: Duration) -> anyhow::Result<Self> {
        let histogram = |digits| Histogram::new_with_bounds(1, LONGEST_US, digits).context("a histogram");
        // Two digits for each second: there may be many.
        let part =
            |digits| Ok::<_, anyhow::Error>(Part { requests: 0, within: 0, refused: 0, answered: histogram(digits)? });
        Ok(Self {
            deadline,
            duration,
            answered: histogram(DIGITS)?,
            refused: histogram(DIGITS)?,
            answers: BTreeMap::new(),
            messages: BTreeMap::new(),
            seconds: vec![part(2)?; duration.as_secs_f64().ceil() as usize],
            manners: BTreeMap::new(),
            part: part(DIGITS)?,
            within: 0,
            degraded: 0,
            given_up: 0,
            unsent: 0,
        })
    }

    /// Counts one that was due `at` after the beginning.
    pub fn note(&mut self, at: Duration, manner: Manner, outcome: Outcome) {
        let Some(second) = self.seconds.get_mut(at.as_secs() as usize) else { return };
        let within = matches!(outcome, Outcome::Answered { after, .. } if after <= self.deadline);
        second.note(within, &outcome);
        self.manners.entry(manner).or_insert_with(|| self.part.clone()).note(within, &outcome);
        self.within += u64::from(within);
        match outcome {
            Outcome::Answered { after, degraded } => {
                self.degraded += u64::from(degraded);
                self.answered.saturating_record(us(after));
                *self.answers.entry("OK".into()).or_default() += 1;
            }
            Outcome::Refused { after, code, message } => {
                self.refused.saturating_record(us(after));
                let code = format!("{code:?}");
                self.messages.entry(code.clone()).or_insert(message);
                *self.answers.entry(code).or_default() += 1;
            }
            Outcome::GivenUp => self.given_up += 1,
            Outcome::Unsent => self.unsent += 1,
        }
    }

    pub fn report(&self, title: &str) -> Report {
        let seconds = self.duration.as_secs_f64();
        Report {
            title: title.to_owned(),
            seconds,
            deadline_ms: self.deadline.as_secs_f64() * 1e3,
            requests: self.seconds.iter().map(|second| second.requests).sum(),
            answers: self.answers.clone(),
            messages: self.messages.clone(),
            given_up: self.given_up,
            unsent: self.unsent,
            degraded: self.degraded,
            answered_per_second: self.answered.len() as f64 / seconds,
            goodput_per_second: self.within as f64 / seconds,
            answered_ms: Latencies::of(&self.answered),
            refused_ms: Latencies::of(&self.refused),
            timeline: self.seconds.iter().map(Part::point).collect(),
            clients: self.manners.iter().map(|(manner, part)| (manner.name(), part.point())).collect(),
            curve: curve(&self.answered),
        }
    }
}

/// What is told in the end.
#[derive(Debug, Serialize)]
pub struct Report {
    pub title: String,
    /// How long it counted.
    pub seconds: f64,
    pub deadline_ms: f64,
    /// Requests that were due.
    pub requests: u64,
    /// Answers by their gRPC status.
    pub answers: BTreeMap<String, u64>,
    /// By the same names: the first message of each status other than OK.
    pub messages: BTreeMap<String, String>,
    /// Requests without any answer by their deadline.
    pub given_up: u64,
    /// Requests that this program was too slow to send.
    pub unsent: u64,
    /// Answers of the status OK that say that they are degraded.
    pub degraded: u64,
    /// Answers of the status OK a second.
    pub answered_per_second: f64,
    /// Those of them that came by their deadline.
    pub goodput_per_second: f64,
    /// Of answers of the status OK.
    pub answered_ms: Latencies,
    /// Of all other answers.
    pub refused_ms: Latencies,
    /// A point for every second, of the requests that were due in it.
    pub timeline: Vec<Point>,
    /// The requests of each manner of asking.
    pub clients: BTreeMap<String, Point>,
    /// Percentile and milliseconds, of answers of the status OK.
    pub curve: Vec<(f64, f64)>,
}

/// Those of a second, or of one manner of asking.
#[derive(Debug, Serialize)]
pub struct Point {
    pub requests: u64,
    pub within_deadline: u64,
    pub refused: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// Latencies in milliseconds: in an open loop from when the request was due, in a closed one from when it was sent.
#[derive(Debug, Serialize)]
pub struct Latencies {
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub p9999: f64,
    pub max: f64,
}

impl Latencies {
    fn of(histogram: &Histogram<u64>) -> Self {
        let [p50, p90, p99, p999, p9999, max] =
            TOLD.map(|percentile| histogram.value_at_percentile(percentile) as f64 / 1e3);
        Self { mean: histogram.mean() / 1e3, p50, p90, p99, p999, p9999, max }
    }
}

/// Percentiles ever closer to 100, as far as there are answers.
fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let mut curve = Vec::new();
    let mut beyond = 1.0_f64;
    while histogram.len() as f64 * beyond >= 1.0 && curve.len() < 100 {
        let percentile = 100.0 * (1.0 - beyond);
        curve.push((percentile, histogram.value_at_percentile(percentile) as f64 / 1e3));
        beyond *= 0.8;
    }
    curve
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, for {} s", self.title, self.seconds)?;
        let told: Vec<String> = self.answers.iter().map(|(code, count)| format!("{count} {code}")).collect();
        writeln!(
            f,
            "{} requests: {}; {} without an answer by their deadline, {} not sent",
            self.requests,
            told.join(", "),
            self.given_up,
            self.unsent
        )?;
        for (code, message) in &self.messages {
            writeln!(f, "{code}: {message:?}")?;
        }
        writeln!(
            f,
            "{:.1} answers/s, {:.1}/s within the deadline; {} degraded",
            self.answered_per_second, self.goodput_per_second, self.degraded
        )?;
        for (name, ms) in [("answered", &self.answered_ms), ("refused", &self.refused_ms)] {
            writeln!(
                f,
                "{name:>9} ms: mean {:.1}, p50 {:.1}, p90 {:.1}, p99 {:.1}, p99.9 {:.1}, longest {:.1}",
                ms.mean, ms.p50, ms.p90, ms.p99, ms.p999, ms.max
            )?;
        }
        for (name, part) in self.clients.iter().filter(|_| self.clients.len() > 1) {
            writeln!(
                f,
                "{name:>9}: {} requests, {} within the deadline, {} refused; p50 {:.1} ms, p99 {:.1} ms",
                part.requests, part.within_deadline, part.refused, part.p50_ms, part.p99_ms
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_counted_once_under_what_became_of_it() {
        let ms = Duration::from_millis;
        let mut tally = Tally::new(Duration::from_secs(2), ms(100)).unwrap();
        let refused =
            |said: &str| Outcome::Refused { after: ms(1), code: Code::ResourceExhausted, message: said.to_owned() };
        tally.note(ms(10), Manner::Call, Outcome::Answered { after: ms(20), degraded: true });
        tally.note(ms(1500), Manner::Call, Outcome::Answered { after: ms(150), degraded: false });
        tally.note(ms(20), Manner::Call, refused("full"));
        tally.note(ms(25), Manner::Call, refused("still full"));
        tally.note(ms(30), Manner::Stream, Outcome::GivenUp);
        tally.note(ms(40), Manner::Call, Outcome::Unsent);
        tally.note(ms(2500), Manner::Call, Outcome::Unsent);
        let report = tally.report("t");
        assert_eq!((report.requests, report.given_up, report.unsent, report.degraded), (6, 1, 1, 1));
        assert_eq!(report.answers, BTreeMap::from([("OK".into(), 2), ("ResourceExhausted".into(), 2)]));
        assert_eq!(report.messages, BTreeMap::from([("ResourceExhausted".into(), "full".into())]));
        assert_eq!((report.answered_per_second, report.goodput_per_second), (1.0, 0.5));
        assert_eq!((report.answered_ms.p50.round(), report.answered_ms.max.round()), (20.0, 150.0));
        assert_eq!((report.timeline[0].requests, report.timeline[1].requests), (5, 1));
        assert_eq!((report.timeline[0].within_deadline, report.timeline[1].within_deadline), (1, 0));
        assert_eq!((report.clients["call"].requests, report.clients["stream"].requests), (5, 1));
        assert!(report.to_string().contains("6 requests: 2 OK, 2 ResourceExhausted"), "{report}");
    }
}
