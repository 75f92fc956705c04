//! `reg4rec experiment report`: what came of experiments, read from an event log.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use reg4rec::events::{Record, read_records};
use reg4rec::experiment::report::{Comparison, ExperimentReport, FEWEST_UNITS, Ledger};

use super::experiment::refusal;
use super::picture;

#[derive(Debug, Args)]
pub struct Report {
    /// The event log's directory; a server may be writing it
    #[arg(long, value_name = "DIR")]
    log: PathBuf,
    /// Only this experiment
    #[arg(long, value_name = "KEY")]
    experiment: Option<String>,
    /// How likely, at most, a band ever leaves the truth out; above 0, at most 0.5
    #[arg(long, default_value_t = 0.05, allow_negative_numbers = true)]
    alpha: f64,
    /// The bands are tightest after so many answers of both arms. Chosen before one looks
    #[arg(long, value_name = "ANSWERS", default_value_t = 10_000)]
    tightest_at: u64,
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
    /// Draw the lift of CTR over time with its band
    #[arg(long, value_name = "FILE.svg")]
    picture: Option<PathBuf>,
}

impl Report {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let mut ledger = Ledger::default();
        read_records(&self.log, &mut |record| match record {
            Record::Event(logged) => ledger.happened(logged.arrived_ms, &logged.event),
            Record::Exposure(exposed) => ledger.exposed(exposed.arrived_ms, &exposed.exposure),
        })?;
        let report = match ledger.report(self.alpha, self.tightest_at, self.experiment.as_deref()) {
            Ok(report) => report,
            Err(mut wrong) => {
                for violation in &mut wrong {
                    violation.field = format!("--{}", violation.field.replace('_', "-"));
                    eprintln!("reg4rec: {} is {}", violation.field, violation.description);
                }
                if self.json {
                    println!("{}", refusal(&wrong));
                }
                return Ok(ExitCode::FAILURE);
            }
        };
        if let Some(file) = &self.picture {
            let drawn = picture::draw(&report.experiments, report.alpha);
            std::fs::write(file, drawn).with_context(|| format!("--picture {}", file.display()))?;
        }
        if self.json {
            println!("{}", serde_json::to_string(&report)?);
            return Ok(ExitCode::SUCCESS);
        }
        let unjoined = report.unjoined;
        println!(
            "{} exposures ({} repeated), {} events ({} repeated): {} joined, {} without a request id, {} of an unknown one",
            report.exposures,
            report.repeated_exposures,
            report.events,
            report.repeated_events,
            report.joined,
            unjoined.without_request_id,
            unjoined.unknown_request_id,
        );
        report.experiments.iter().for_each(|experiment| print!("\n{}", page(experiment, report.alpha)));
        Ok(ExitCode::SUCCESS)
    }
}

/// One experiment as tables.
fn page(experiment: &ExperimentReport, alpha: f64) -> String {
    let mut page = String::new();
    let versions: Vec<&str> = experiment.versions.iter().map(String::as_str).collect();
    let (first, last) = (moment(experiment.first_ms), moment(experiment.last_ms));
    // Writing to a string cannot fail.
    let _ = writeln!(page, "{}, version {}, {first} to {last}", experiment.experiment, versions.join(", "));
    let width = experiment.arms.iter().map(|arm| arm.arm.chars().count()).max().unwrap_or(0).max(3);
    let _ = writeln!(
        page,
        "  {:width$} {:>6} {:>8} {:>8} {:>8} {:>7} {:>8} {:>9} {:>11} {:>7} {:>7} {:>9}",
        "arm",
        "weight",
        "units",
        "answers",
        "clicked",
        "CTR",
        "clicks",
        "purchases",
        "value",
        "forced",
        "killed",
        "fallback"
    );
    for arm in &experiment.arms {
        let ctr = arm.ctr.map_or_else(|| "-".to_owned(), |ctr| format!("{:.2}%", ctr * 100.0));
        let _ = writeln!(
            page,
            "  {:width$} {:>6.3} {:>8} {:>8} {:>8} {ctr:>7} {:>8} {:>9} {:>11.2} {:>7} {:>7} {:>9}",
            arm.arm,
            arm.weight,
            arm.units,
            arm.impressions,
            arm.clicked,
            arm.clicks,
            arm.conversions,
            arm.value,
            arm.forced,
            arm.killed,
            arm.fallback_not_loaded + arm.fallback_error
        );
    }
    let control = experiment.arms.first().map_or("", |arm| &arm.arm);
    for arm in &experiment.arms {
        let Some(over) = &arm.over_control else { continue };
        let _ = writeln!(page, "  {} over {control}, within the {} % band:", arm.arm, (1.0 - alpha) * 100.0);
        for (name, lift) in [("CTR", &over.ctr), ("purchases a unit", &over.conversions), ("value a unit", &over.value)]
        {
            let _ = writeln!(page, "    {name:16} {}", self::lift(lift.as_ref()));
        }
    }
    let _ = writeln!(page, "  units by weights: p {:.4}", experiment.sample_ratio_p);
    for (count, what) in [
        (experiment.superseded, "answers under other arms or weights left out"),
        (experiment.crossed, "answers to units of another arm left out"),
    ] {
        if count > 0 {
            let _ = writeln!(page, "  {count} {what}");
        }
    }
    page
}

/// `+12.30% [-4.00%, +30.10%]`, and a star where 0 is left out.
fn lift(comparison: Option<&Comparison>) -> String {
    let Some(comparison) = comparison else {
        return format!("too little to compare: fewer than {FEWEST_UNITS} units in an arm, or all alike");
    };
    let percent = |share: f64| format!("{:+.2}%", share * 100.0);
    let star = if comparison.is_conclusive() { " *" } else { "" };
    match (comparison.lift, comparison.lift_low, comparison.lift_high) {
        (Some(lift), Some(low), Some(high)) => format!("{} [{}, {}]{star}", percent(lift), percent(low), percent(high)),
        _ => format!(
            "{:+.4} [{:+.4}, {:+.4}]{star} in all; the control is too near 0 for a share of it",
            comparison.difference, comparison.difference_low, comparison.difference_high
        ),
    }
}

/// `2026-01-31T00:00:00Z`
pub fn moment(unix_ms: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(unix_ms.div_euclid(1000)).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{unix_ms} ms"))
}
