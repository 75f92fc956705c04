//! `reg4rec experiment`: who gets which arm, as the server and GrowthBook's SDKs work it out, and what came of it.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::{Serialize, Serializer};
use serde_json::json;

use reg4rec::domain::Violation;
use reg4rec::experiment::{BucketRange, HashVersion, MAX_ARMS, bucket_ranges, choose, equal_weights, weight_problems};

#[derive(Debug, Subcommand)]
pub enum Experiment {
    /// The bucket of a unit, the ranges of the arms, and the arm whose range holds the bucket
    Assign(Assign),
    /// What came of experiments: arms compared by an event log
    Report(super::report::Report),
    /// The experiments that a server runs, as a file that `set` takes
    Get(super::experiments::Get),
    /// Lets a server run other experiments at once, and keep them
    Set(super::experiments::Set),
}

#[derive(Debug, Args)]
pub struct Assign {
    /// What is hashed with the unit; an experiment's key where its settings name no seed
    #[arg(long, allow_hyphen_values = true)]
    seed: String,
    /// What is assigned, as a user's id
    #[arg(long, allow_hyphen_values = true)]
    unit: String,
    /// How many arms there are
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    arms: String,
    /// The share of each arm, 1 in sum [default: equal ones, also where there are too few or too many, or their sum is
    /// not 1, as for GrowthBook; a server's settings refuse such]
    #[arg(long, value_name = "W,W,…", allow_hyphen_values = true)]
    weights: Option<String>,
    /// Share of each arm's range that takes part; below 0 is 0, above 1 is 1, as for GrowthBook
    #[arg(long, value_name = "SHARE", default_value = "1", allow_hyphen_values = true)]
    coverage: String,
    /// How seed and unit become a bucket: 1 or 2
    #[arg(long, value_name = "VERSION", default_value = "2", allow_hyphen_values = true)]
    hash_version: String,
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
}

/// What comes of it; the order of the fields is that of the output.
#[derive(Debug, Serialize)]
struct Assigned {
    bucket: f64,
    #[serde(serialize_with = "pairs")]
    ranges: Vec<BucketRange>,
    /// Counted from 0; null: the bucket lies in no range.
    arm: Option<usize>,
}

impl Experiment {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let assign = match self {
            Experiment::Assign(assign) => assign,
            Experiment::Report(report) => return report.run(),
            Experiment::Get(get) => return get.run(),
            Experiment::Set(set) => return set.run(),
        };
        let json = assign.json;
        match assign.work_out() {
            Ok(assigned) if json => println!("{}", serde_json::to_string(&assigned)?),
            Ok(assigned) => println!("{}", assigned.line()),
            Err(wrong) => {
                for Violation { field, description } in &wrong {
                    eprintln!("reg4rec: {field} is {description}");
                }
                if json {
                    println!("{}", refusal(&wrong));
                }
                return Ok(ExitCode::FAILURE);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Assign {
    fn work_out(&self) -> Result<Assigned, Vec<Violation>> {
        let mut wrong = Vec::new();
        let mut number = |flag: &str, text: &str, expected: &str| {
            let parsed = text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
            parsed.unwrap_or_else(|| {
                wrong.push(Violation::new(flag, format!("{text:?}: expected {expected}")));
                0.0
            })
        };
        let coverage = number("--coverage", &self.coverage, "a finite number, as 0.5");
        if !(0.0..=1.0).contains(&coverage) {
            eprintln!("reg4rec: --coverage {coverage} counts as {}", coverage.clamp(0.0, 1.0));
        }
        let listed = self.weights.as_deref().map(|list| {
            let each = list.split(',').enumerate();
            let weight = |(at, text)| number(&format!("--weights[{at}]"), text, "a finite number from 0 on");
            each.map(weight).collect::<Vec<f64>>()
        });
        let (unreadable, mut equal) = (!wrong.is_empty(), false);
        let arms = self.arms.parse::<usize>().ok().filter(|arms| (1..=MAX_ARMS).contains(arms));
        if arms.is_none() {
            wrong.push(Violation::new("--arms", format!("{:?}: expected 1 to {MAX_ARMS}", self.arms)));
        }
        let hash = self.hash_version.parse::<u8>().ok().and_then(|number| HashVersion::try_from(number).ok());
        if hash.is_none() {
            wrong.push(Violation::new("--hash-version", format!("{:?}: expected 1 or 2", self.hash_version)));
        }
        if let (Some(weights), Some(arms), false) = (&listed, arms, unreadable) {
            for (at, description) in weight_problems(weights, arms) {
                match at {
                    Some(at) => wrong.push(Violation::new(format!("--weights[{at}]"), description)),
                    None => {
                        eprintln!("reg4rec: --weights is {description}; equal ones are taken, as GrowthBook does");
                        equal = true;
                    }
                }
            }
        }
        let listed = listed.filter(|_| !equal);
        match (arms, hash) {
            (Some(arms), Some(hash)) if wrong.is_empty() => {
                let bucket = hash.bucket(&self.seed, &self.unit);
                let ranges = bucket_ranges(&listed.unwrap_or_else(|| equal_weights(arms)), coverage);
                Ok(Assigned { bucket, arm: choose(bucket, &ranges), ranges })
            }
            _ => Err(wrong),
        }
    }
}

impl Assigned {
    fn line(&self) -> String {
        let Some(arm) = self.arm else { return format!("bucket {}: no arm, it lies in no arm's range", self.bucket) };
        let BucketRange { start, end } = self.ranges[arm];
        format!("bucket {}: arm {arm} of {}, which has [{start}, {end})", self.bucket, self.ranges.len())
    }
}

fn pairs<S: Serializer>(ranges: &[BucketRange], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(ranges.iter().map(|range| [range.start, range.end]))
}

/// A refusal in the shape that all commands give it.
pub fn refusal(wrong: &[Violation]) -> serde_json::Value {
    let violations: Vec<_> =
        wrong.iter().map(|wrong| json!({"field": wrong.field, "description": wrong.description})).collect();
    let fields: Vec<&str> = wrong.iter().map(|wrong| wrong.field.as_str()).collect();
    let message = format!("invalid: {}", fields.join(", "));
    json!({"error": {"code": "InvalidArgument", "message": message, "violations": violations}})
}
