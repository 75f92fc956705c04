//! The report's tables: built once, written as HTML and as Markdown.

use std::collections::BTreeSet;

use super::sections::Names;
use crate::evaluation::{
    CalibrationBin, EpochPoint, GroupRuns, Machine, Metrics, RunRecord, Scores, Slice, Spread, Summary, SystemRuns,
    binomial_error, relative,
};

/// Rows under headings.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Table {
    pub title: String,
    /// What to know when reading it.
    pub note: String,
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Cell>>,
}

/// A heading, and whether words or numbers stand below it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Column {
    pub name: String,
    pub words: bool,
}

/// One value.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Cell {
    pub text: String,
    /// Smaller, behind or below it.
    pub detail: Option<String>,
    /// The best of its column.
    pub best: bool,
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, ..Self::default() }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

fn columns(words: &[&str], numbers: impl IntoIterator<Item = String>) -> Vec<Column> {
    let words = words.iter().map(|name| Column { name: (*name).to_owned(), words: true });
    words.chain(numbers.into_iter().map(|name| Column { name, words: false })).collect()
}

/// A system's name, with its preset where the group has more than one of that name.
pub(super) fn label(group: &GroupRuns<'_>, runs: &SystemRuns<'_>) -> String {
    let several = group.systems.iter().filter(|other| other.system == runs.system).count() > 1;
    match runs.preset.filter(|_| several) {
        Some(preset) => format!("{} ({preset})", runs.system),
        None => runs.system.to_owned(),
    }
}

/// Every system and metric; the best of each in bold, the two metrics at 10 against the reference.
pub(super) fn metrics(
    summary: &Summary<'_>,
    group: &GroupRuns<'_>,
    names: Names<'_>,
    title: &str,
    part: fn(&Scores) -> Metrics,
) -> Table {
    let take = |run: &RunRecord| part(&run.test);
    let mut systems: Vec<(&SystemRuns<'_>, Vec<(&str, Spread)>)> =
        group.systems.iter().map(|runs| (runs, runs.spreads(take))).collect();
    let recall_at_10 = 1;
    systems.sort_by(|one, other| other.1[recall_at_10].1.mean.total_cmp(&one.1[recall_at_10].1.mean));
    let best: Vec<String> = (0..Metrics::default().named().len())
        .map(|at| share(systems.iter().map(|(_, spreads)| spreads[at].1.mean).fold(0.0, f64::max)))
        .collect();
    let references: Vec<_> =
        group.systems.iter().map(|runs| (runs, summary.counterpart(group, runs, names.reference))).collect();
    let compared = references.iter().any(|(runs, reference)| reference.is_some_and(|found| !same(found, runs)));
    let rows = systems.iter().map(|(runs, spreads)| {
        let mut row = vec![label(group, runs).into(), runs.runs.len().to_string().into()];
        row.extend(spreads.iter().zip(&best).map(|((_, spread), best)| {
            let text = share(spread.mean);
            Cell { best: text == *best && spread.mean > 0.0, detail: range(spread), text }
        }));
        if compared {
            let reference = summary.counterpart(group, runs, names.reference).filter(|found| !same(found, runs));
            let reference = reference.map(|found| found.spreads(take));
            for at in [recall_at_10, 4] {
                let ratio = reference.as_ref().and_then(|found| relative(spreads[at].1.mean, found[at].1.mean));
                row.push(ratio.map_or_else(|| "".into(), percent).into());
            }
        }
        row
    });
    let mut numbers = vec!["seeds".to_owned()];
    numbers.extend(Metrics::default().named().map(|(name, _)| heading(name)));
    if compared {
        numbers.extend(["Recall@10", "NDCG@10"].map(|metric| format!("{metric} against {}", names.reference)));
    }
    Table {
        title: title.to_owned(),
        note: "Means over seeds, smallest to largest beside them; the best of each column in bold.".to_owned(),
        rows: rows.collect(),
        columns: columns(&["system"], numbers),
    }
}

/// What an ablation changes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Difference {
    pub name: String,
    pub recall_at_10: f64,
    /// Against the base's.
    pub change: f64,
    /// One binomial standard error of its own recall.
    pub error: f64,
    /// Share of the base's; none when that is zero.
    pub relative: Option<f64>,
}

/// Every system of a group against the base, the largest gain first; empty where there is no base.
pub(super) fn differences(summary: &Summary<'_>, group: &GroupRuns<'_>, base: &str) -> Vec<Difference> {
    let mut found: Vec<Difference> = group
        .systems
        .iter()
        .filter_map(|runs| {
            let base = summary.counterpart(group, runs, base).filter(|found| !same(found, runs))?.recall_at_10();
            let recall_at_10 = runs.recall_at_10();
            let trials = runs.runs.iter().map(|run| run.trials).max().unwrap_or_default();
            Some(Difference {
                name: label(group, runs),
                recall_at_10,
                change: recall_at_10 - base,
                error: binomial_error(recall_at_10, trials),
                relative: relative(recall_at_10, base),
            })
        })
        .collect();
    found.sort_by(|one, other| other.change.total_cmp(&one.change));
    found
}

pub(super) fn difference_table(differences: &[Difference], base: &str) -> Table {
    let rows = differences.iter().map(|row| {
        vec![
            row.name.as_str().into(),
            share(row.recall_at_10).into(),
            format!("{:+.4}", row.change).into(),
            row.relative.map_or_else(|| "".into(), percent).into(),
            share(row.error).into(),
        ]
    });
    let numbers = ["Recall@10".to_owned(), format!("against {base}"), "relative".to_owned(), "one error".to_owned()];
    Table {
        title: format!("Change in Recall@10 against {base}"),
        note: "Seen items filtered. One error: sqrt(p (1 - p) / users) of the system's own recall.".to_owned(),
        rows: rows.collect(),
        columns: columns(&["system"], numbers),
    }
}

/// How one way of cutting the trials is talked of.
#[derive(Debug, Clone, Copy)]
pub(super) struct SliceWords<'a> {
    pub title: &'a str,
    /// What a slice's name names.
    pub kind: &'a str,
    /// What its bounds count.
    pub events: &'a str,
    pub note: &'a str,
}

/// Recall@10 of every system in every slice. `systems` are labels with slices of the same names.
pub(super) fn slice_table(words: &SliceWords<'_>, systems: &[(String, Vec<Slice>)]) -> Table {
    let first = systems.first().map(|(_, slices)| slices.as_slice()).unwrap_or_default();
    let rows = first.iter().map(|slice| {
        let mut row: Vec<Cell> = vec![slice.name.as_str().into(), bounds(slice).into(), count(slice.trials).into()];
        row.extend(systems.iter().map(|(_, slices)| {
            let own = slices.iter().find(|own| own.name == slice.name && own.trials > 0);
            own.map_or_else(Cell::default, |own| share(own.recall_at_10).into())
        }));
        row
    });
    let mut columns = columns(&[words.kind, words.events], ["users".to_owned()]);
    columns.extend(systems.iter().map(|(name, _)| Column { name: name.clone(), words: false }));
    Table { title: words.title.to_owned(), note: words.note.to_owned(), rows: rows.collect(), columns }
}

/// How learning went, a line a run.
pub(super) fn learning_table(runs: &[(String, &RunRecord)]) -> Table {
    let rows = runs.iter().map(|(name, run)| {
        let best = run.epochs.iter().find(|epoch| Some(epoch.epoch) == run.best_epoch).or(run.epochs.last());
        let at_best = |value: fn(&EpochPoint) -> f64| best.map(value).map(share).unwrap_or_default();
        let loss = run.epochs.last().map(|epoch| format!("{:.3}", epoch.scorer_loss)).unwrap_or_default();
        vec![
            name.as_str().into(),
            run.seed.to_string().into(),
            run.epochs.len().to_string().into(),
            run.best_epoch.map(|best| (best + 1).to_string()).unwrap_or_default().into(),
            at_best(|epoch| epoch.recall_at_10).into(),
            at_best(|epoch| epoch.ndcg_at_10).into(),
            loss.into(),
        ]
    });
    let numbers =
        ["seed", "epochs", "best epoch", "validation Recall@10", "validation NDCG@10", "last training loss (nats)"];
    Table {
        title: "Learning".to_owned(),
        note: "Validation users, seen items filtered, after the best epoch.".to_owned(),
        rows: rows.collect(),
        columns: columns(&["system"], numbers.map(str::to_owned)),
    }
}

/// How tokens are used, a line a run.
pub(super) fn token_table(runs: &[(String, &RunRecord)]) -> Table {
    let rows = runs.iter().filter_map(|(name, run)| {
        let tokens = run.tokens.as_ref()?;
        let entries = tokens.codebooks.first().map_or(0, |codebook| codebook.counts.len());
        let used = Spread::of(tokens.codebooks.iter().map(|codebook| codebook.used() as f64))?;
        let perplexity = Spread::of(tokens.codebooks.iter().map(|codebook| codebook.perplexity))?;
        Some(vec![
            name.as_str().into(),
            format!("{} x {entries}", tokens.codebooks.len()).into(),
            Cell { detail: between(&used, 0), ..format!("{:.0}", used.mean).into() },
            Cell { detail: between(&perplexity, 1), ..format!("{:.1}", perplexity.mean).into() },
            tokens.distinct_codes_before.map(count).unwrap_or_default().into(),
            count(tokens.distinct_codes).into(),
            count(tokens.items).into(),
            tokens.variance_left.map(|left| format!("{:.1}%", left * 100.0)).unwrap_or_default().into(),
        ])
    });
    let numbers = [
        "codebooks x entries",
        "entries used",
        "perplexity",
        "distinct codes before assignment",
        "distinct codes",
        "items",
        "variance left",
    ];
    Table {
        title: "Tokens".to_owned(),
        note: "Means over codebooks, smallest to largest beside them.".to_owned(),
        rows: rows.collect(),
        columns: columns(&["system"], numbers.map(str::to_owned)),
    }
}

/// What the category head says against what is so, a line a run.
pub(super) fn calibration_table(runs: &[(String, &RunRecord)]) -> Table {
    let rows = runs.iter().filter_map(|(name, run)| {
        let calibration = run.calibration.as_ref()?;
        let trials: usize = calibration.bins.iter().map(|bin| bin.count).sum();
        let mean = |value: fn(&CalibrationBin) -> f64| {
            let sum: f64 = calibration.bins.iter().map(|bin| value(bin) * bin.count as f64).sum();
            format!("{:.3}", sum / trials.max(1) as f64)
        };
        Some(vec![
            name.as_str().into(),
            count(trials).into(),
            mean(|bin| bin.belief).into(),
            mean(|bin| bin.accuracy).into(),
            format!("{:.3}", calibration.expected_error()).into(),
        ])
    });
    let numbers = ["beliefs", "mean belief", "accuracy", "expected calibration error"];
    Table {
        title: "Calibration of the category head".to_owned(),
        note: "The strongest category's belief against how often it is the target's.".to_owned(),
        rows: rows.collect(),
        columns: columns(&["system"], numbers.map(str::to_owned)),
    }
}

/// What every run cost and where.
pub(super) fn cost_table(summary: &Summary<'_>) -> Table {
    let runs = || summary.groups.iter().flat_map(|group| group.systems.iter().flat_map(|runs| &runs.runs));
    let machines: BTreeSet<&Machine> = runs().filter_map(|run| run.machine.as_ref()).collect();
    let told = machines
        .iter()
        .enumerate()
        .map(|(at, machine)| format!(" Machine {}: {}, {}.", at + 1, machine.cpu, plural(machine.cores, "core")));
    let note = format!("Empty where a run did not record it.{}", told.collect::<String>());
    let rows = runs().map(|run| {
        let speed = Spread::of(run.epochs.iter().map(|epoch| epoch.sequences_per_second));
        let machine = machines.iter().position(|machine| Some(*machine) == run.machine.as_ref());
        vec![
            run.dataset.name.as_str().into(),
            run.group.as_str().into(),
            run.system.as_str().into(),
            run.preset.clone().unwrap_or_default().into(),
            run.seed.to_string().into(),
            run.epochs.len().to_string().into(),
            speed.map(|speed| count(speed.mean.round() as usize)).unwrap_or_default().into(),
            run.seconds.map(duration).unwrap_or_default().into(),
            run.peak_memory_bytes.map(memory).unwrap_or_default().into(),
            machine.map(|at| (at + 1).to_string()).unwrap_or_default().into(),
            run.notes.join(" ").into(),
        ]
    });
    let numbers = ["seed", "epochs", "sequences/s", "wall time", "peak memory", "machine"];
    let mut columns = columns(&["data", "group", "system", "preset"], numbers.map(str::to_owned));
    columns.push(Column { name: "notes".to_owned(), words: true });
    Table { title: "Machine, time, memory".to_owned(), note, rows: rows.collect(), columns }
}

fn plural(count: usize, name: &str) -> String {
    if count == 1 { format!("1 {name}") } else { format!("{count} {name}s") }
}

fn same(one: &SystemRuns<'_>, other: &SystemRuns<'_>) -> bool {
    one.runs.iter().zip(&other.runs).all(|(one, other)| std::ptr::eq(*one, *other))
}

/// `recall@10` as people write it.
fn heading(metric: &str) -> String {
    metric.replace("recall", "Recall").replace("ndcg", "NDCG")
}

/// A share in four digits.
pub(super) fn share(value: f64) -> String {
    format!("{value:.4}")
}

fn range(spread: &Spread) -> Option<String> {
    between(spread, 4)
}

fn between(spread: &Spread, digits: usize) -> Option<String> {
    (spread.runs > 1).then(|| format!("{:.digits$} to {:.digits$}", spread.least, spread.most))
}

fn percent(ratio: f64) -> String {
    format!("{:+.1}%", ratio * 100.0)
}

/// A whole number with its thousands apart.
pub(super) fn count(value: usize) -> String {
    let digits = value.to_string();
    let grouped = digits.as_bytes().rchunks(3).rev().map(|three| String::from_utf8_lossy(three).into_owned());
    grouped.collect::<Vec<_>>().join(",")
}

/// The slice's range of events, in words.
pub(super) fn bounds(slice: &Slice) -> String {
    match (slice.least, slice.most) {
        (Some(least), Some(most)) if least == most => least.to_string(),
        (Some(least), Some(most)) => format!("{least} to {most}"),
        (Some(least), None) => format!("{least} and more"),
        (None, _) => String::new(),
    }
}

fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

fn memory(bytes: u64) -> String {
    let mebibytes = bytes as f64 / (1024.0 * 1024.0);
    if mebibytes < 1024.0 { format!("{mebibytes:.0} MiB") } else { format!("{:.1} GiB", mebibytes / 1024.0) }
}
