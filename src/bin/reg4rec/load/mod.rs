//! `reg4rec load`: how much a running server answers, and how fast.

mod drive;
mod manner;
mod picture;
mod tally;
mod traffic;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};

use super::channel::{self, Access};
use drive::{Drive, Pace};
use manner::Mix;
use tally::Tally;
use traffic::Traffic;

/// Longest run, in seconds: a day.
const LONGEST: f64 = 86_400.0;

/// How requests of an open loop are spaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Arrivals {
    /// At random and independent of each other, as those of many users are.
    Poisson,
    /// Equally.
    Steady,
}

#[derive(Debug, Args)]
pub struct Load {
    /// The server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50051")]
    server: String,
    #[command(flatten)]
    access: Access,
    /// A bundle whose items the histories are made of
    #[arg(long, value_name = "DIR", default_value = "model-artifacts/demo")]
    bundle: PathBuf,
    /// Open loop: so many requests a second, whether or not those before are answered
    #[arg(long, value_name = "PER_SECOND", conflicts_with = "concurrency")]
    rate: Option<f64>,
    /// How requests of an open loop are spaced
    #[arg(long, value_enum, default_value = "poisson")]
    arrivals: Arrivals,
    /// Closed loop: so many callers, each of which asks again when it is answered, or when a refusal says to
    #[arg(long, value_name = "CALLERS", default_value_t = 16)]
    concurrency: usize,
    /// How clients ask, and what share of the requests (of the callers in a closed loop) each has: `call` for Recommend,
    /// `batch:N` for RecommendBatch of N, `stream` for RecommendStream
    #[arg(long, value_name = "HOW=SHARE,…", default_value = "call")]
    clients: Mix,
    /// How long it counts, in seconds
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    duration: f64,
    /// How long it asks before it counts, in seconds
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    warmup: f64,
    /// Each request's deadline, in milliseconds from when it was to be sent
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    deadline: u64,
    /// How many items a request wants; of several each is drawn as often
    #[arg(short, value_name = "K,K,…", value_delimiter = ',', default_value = "10")]
    k: Vec<u32>,
    /// Events of a history; drawn evenly from a range
    #[arg(long, value_name = "N|LOW-HIGH", default_value = "1-30", value_parser = traffic::range)]
    history: (usize, usize),
    /// The width of the beam that a request asks for [default: the server's own]
    #[arg(long, value_name = "PATHS")]
    beam: Option<u32>,
    /// Different histories that are asked with, over and over
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    users: usize,
    /// Connections that the requests are spread over
    #[arg(long, value_name = "N", default_value_t = 4)]
    connections: usize,
    /// What is drawn follows from it
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
    /// Draw it, as SVG
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
}

impl Load {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        self.check()?;
        let traffic = Traffic::of(&self.bundle, self.history, &self.k, self.beam, self.users, self.seed)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let tally = runtime.block_on(self.drive(traffic))?;
        runtime.shutdown_background();
        let report = tally.report(&self.title());
        if let Some(file) = &self.picture {
            std::fs::write(file, picture::draw(&report)).with_context(|| file.display().to_string())?;
        }
        if self.json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            print!("{report}");
        }
        Ok(if report.answers.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn check(&self) -> anyhow::Result<()> {
        let within = |name: &str, value: f64, low: f64, high: f64| {
            ensure!((low..=high).contains(&value), "{name} is {value}, expected {low} to {high}");
            Ok(())
        };
        within("--rate", self.rate.unwrap_or(1.0), 0.01, 1e6)?;
        within("--concurrency", self.concurrency as f64, 1.0, 1e5)?;
        within("--duration", self.duration, 0.1, LONGEST)?;
        within("--warmup", self.warmup, 0.0, LONGEST)?;
        within("--deadline", self.deadline as f64, 1.0, 600_000.0)?;
        within("--users", self.users as f64, 1.0, 1e6)?;
        within("--connections", self.connections as f64, 1.0, 10_000.0)?;
        Ok(())
    }

    async fn drive(&self, traffic: Traffic) -> anyhow::Result<Tally> {
        let mut lines = Vec::with_capacity(self.connections);
        for _ in 0..self.connections {
            lines.push(channel::to_server(&self.server, &self.access, Duration::from_secs(10)).await?);
        }
        let pace = match self.rate {
            Some(rate) => Pace::Open { rate, arrivals: self.arrivals },
            None => Pace::Closed { callers: self.concurrency },
        };
        let drive = Drive {
            pace,
            mix: self.clients.clone(),
            warmup: Duration::from_secs_f64(self.warmup),
            duration: Duration::from_secs_f64(self.duration),
            deadline: Duration::from_millis(self.deadline),
            seed: self.seed,
        };
        drive.run(lines, traffic).await
    }

    fn title(&self) -> String {
        let pace = match (self.rate, self.arrivals) {
            (Some(rate), Arrivals::Poisson) => format!("open loop, {rate} requests/s"),
            (Some(rate), Arrivals::Steady) => format!("open loop, {rate} requests/s, equally spaced"),
            (None, _) => format!("closed loop, {} callers", self.concurrency),
        };
        format!("{pace}, deadline {} ms", self.deadline)
    }
}
