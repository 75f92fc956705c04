//! The trainer: data sets in, bundles out.

mod simulate;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use reg4rec::evaluation::RunRecord;
use reg4rec::training::{baseline, cold_start, evaluate, fit, generate, import, posttrain, reflect, report, sidecar};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "reg4rec-trainer", version, about = "Trains and evaluates REG4Rec bundles")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a synthetic shop
    Generate(generate::GenerateArgs),
    /// Bring foreign data into the data set layout
    Import(import::ImportArgs),
    /// From a data set to a verified bundle
    Fit(fit::FitArgs),
    /// From a bundle to one whose paths were rewarded
    PostTrain(posttrain::PostTrainArgs),
    /// Metrics of a bundle on a data set, with baselines beside it
    Evaluate(evaluate::EvaluateArgs),
    /// Train and evaluate a rival system: most popular, item-kNN, SASRec, TIGER
    Baseline(baseline::BaselineArgs),
    /// Hold items out of training, add them by their features alone, and rank for who took them
    ColdStart(cold_start::ColdStartArgs),
    /// What searching paths brings over scoring items, by engine, order, beam and CORP's threshold
    Reflect(reflect::ReflectArgs),
    /// Run records as a page of tables and charts
    Report(report::ReportArgs),
    /// Watch a server's event log and refresh the bundle that it serves
    Sidecar(sidecar::SidecarArgs),
    /// The whole loop on a synthetic shop: serve, log, learn, compare, promote
    Simulate(simulate::SimulateArgs),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match command {
        Command::Generate(args) => writeln!(out, "{}", generate::run(&args)?)?,
        Command::Import(args) => writeln!(out, "{}", import::run(&args)?)?,
        Command::Fit(args) => {
            let fit = fit::fit(&args, &mut fit::Narrator::new())?;
            writeln!(out, "{}\n{} is published at {}", fit.evaluation, fit.manifest.label(), args.out.display())?;
        }
        Command::PostTrain(args) => {
            let fit = posttrain::run(&args, &mut fit::Narrator::new())?;
            writeln!(out, "{}\n{} is published at {}", fit.evaluation, fit.manifest.label(), args.out.display())?;
        }
        Command::Reflect(args) => {
            let found = reflect::run(&args, &mut fit::Narrator::new())?;
            let json = if args.json { Some(serde_json::to_string(&found)?) } else { None };
            writeln!(out, "{}", json.unwrap_or_else(|| found.to_string()))?;
        }
        Command::Evaluate(args) => {
            let mut narrator = if args.json { fit::Narrator::silent() } else { fit::Narrator::new() };
            let found = evaluate::run(&args, &mut |done, all| narrator.counted(done, all))?;
            narrator.stage("done", &args.bundle.display().to_string());
            if args.json {
                writeln!(out, "{}", serde_json::to_string(&found)?)?;
            } else {
                writeln!(out, "{found}")?;
            }
        }
        Command::Baseline(args) => {
            let record = baseline::run(&args, &mut fit::Narrator::new())?;
            writeln!(out, "{}", told(&record))?;
        }
        Command::ColdStart(args) => {
            for record in cold_start::run(&args, &mut fit::Narrator::new())? {
                writeln!(out, "{}", told(&record))?;
            }
        }
        Command::Report(args) => writeln!(out, "{} runs are shown in {}", report::run(&args)?, args.out.display())?,
        Command::Sidecar(args) => {
            log_to_stderr();
            writeln!(out, "{}", sidecar::run(&args)?.trim_end())?;
        }
        Command::Simulate(args) => writeln!(out, "{}", simulate::run(&args)?)?,
    }
    Ok(())
}

/// The sidecar runs unattended: what it does goes to a log, as `RUST_LOG` says or from `info` on.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

/// A record in a line.
fn told(record: &RunRecord) -> String {
    let (filtered, all) = (&record.test.filtered, &record.test.all);
    format!(
        "{}: {} users; recall@10 {:.4}, ndcg@10 {:.4} seen items filtered; {:.4}, {:.4} allowed",
        record.system, record.trials, filtered.recall_at_10, filtered.ndcg_at_10, all.recall_at_10, all.ndcg_at_10
    )
}
