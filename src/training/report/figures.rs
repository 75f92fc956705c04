//! The figures of a section: which charts, with what legend, and the same numbers as a table.

use super::charts::{self, Bars, Bin, Curve, HeatRow, Reliability};
use super::sections::{Figure, Series};
use super::tables::{self, Difference, SliceWords};
use crate::evaluation::{EpochPoint, RunRecord, Slice, Slices};

/// Loss and validation by epoch, a curve a run; none where nothing learnt.
pub(super) fn learning(series: &[Series<'_>]) -> Option<Figure> {
    let learnt: Vec<&Series<'_>> = series.iter().filter(|one| !one.with(learns).is_empty()).collect();
    if learnt.is_empty() {
        return None;
    }
    let draw = |name: &str, value: fn(&EpochPoint) -> f64| {
        let curve = |slot: usize, (name, run): (String, &RunRecord)| Curve {
            slot,
            name: format!("{name}, seed {}", run.seed),
            points: run.epochs.iter().map(|epoch| (epoch.epoch + 1, value(epoch))).collect(),
            best: run.best_epoch.map(|best| best + 1),
        };
        let curves = learnt.iter().flat_map(|one| one.with(learns).into_iter().map(|run| curve(one.slot, run)));
        charts::curves(&curves.collect::<Vec<_>>(), name)
    };
    let runs: Vec<_> = learnt.iter().flat_map(|one| one.with(learns)).collect();
    Some(Figure {
        title: "Learning curves".to_owned(),
        caption: "One line a run; a dot marks the epoch whose weights are kept. Validation users, seen items filtered."
            .to_owned(),
        legend: legend(&learnt),
        charts: vec![
            draw("validation Recall@10", |epoch| epoch.recall_at_10),
            draw("validation NDCG@10", |epoch| epoch.ndcg_at_10),
            draw("training loss of the scorer (nats)", |epoch| epoch.scorer_loss),
        ],
        wide: false,
        table: tables::learning_table(&runs),
    })
}

/// What each system of an ablation gains or loses; none where there is nothing to compare with.
pub(super) fn changes(changes: &[Difference], base: &str) -> Option<Figure> {
    if changes.is_empty() {
        return None;
    }
    Some(Figure {
        title: format!("Change in Recall@10 against {base}"),
        caption: "Test users, seen items filtered, means over seeds. Whiskers: one standard error of the system's own \
                  recall, sqrt(p (1 - p) / users). Both systems ranked for the same users, so the error of the \
                  difference itself is usually smaller."
            .to_owned(),
        legend: Vec::new(),
        charts: vec![charts::changes(changes, base)],
        wide: true,
        table: tables::difference_table(changes, base),
    })
}

/// Recall by how popular the target is.
pub(super) fn popularity(series: &[Series<'_>]) -> Option<Figure> {
    let words = SliceWords {
        title: "Recall@10 by popularity of the target",
        kind: "tenth of the items",
        events: "training events",
        note: "Tenths of the trained items by training events, 1 the rarest; then targets that training never met. \
               Seen items filtered, means over seeds.",
    };
    sliced(series, |slices| &slices.popularity, &words)
}

/// Recall by how much is known of the user.
pub(super) fn history(series: &[Series<'_>]) -> Option<Figure> {
    let words = SliceWords {
        title: "Recall@10 by length of the history",
        kind: "events in the history",
        events: "events",
        note: "Events that the ranker was given. Seen items filtered, means over seeds.",
    };
    sliced(series, |slices| &slices.history, &words)
}

fn sliced(series: &[Series<'_>], part: fn(&Slices) -> &[Slice], words: &SliceWords<'_>) -> Option<Figure> {
    let kind = words.kind;
    let cut: Vec<(&Series<'_>, Vec<Slice>)> =
        series.iter().map(|one| (one, one.runs.slices(part))).filter(|(_, slices)| !slices.is_empty()).collect();
    let (_, first) = cut.first()?;
    let bin = |slice: &Slice| Bin {
        name: slice.name.clone(),
        about: format!("{kind}: {} ({} {})", slice.name, tables::bounds(slice), words.events),
        users: slice.trials,
    };
    let bars = |(one, slices): &(&Series<'_>, Vec<Slice>)| {
        let height = |wanted: &Slice| {
            let own = slices.iter().find(|own| own.name == wanted.name && own.trials > 0);
            own.map(|own| own.recall_at_10)
        };
        Bars { slot: one.slot, name: one.name.clone(), heights: first.iter().map(height).collect() }
    };
    let bins: Vec<Bin> = first.iter().map(bin).collect();
    let chart = charts::grouped(&bins, &cut.iter().map(bars).collect::<Vec<_>>(), "Recall@10", kind);
    let named: Vec<(String, Vec<Slice>)> = cut.iter().map(|(one, slices)| (one.name.clone(), slices.clone())).collect();
    Some(Figure {
        title: words.title.to_owned(),
        caption: format!("{} Below each bin: its users.", words.note),
        legend: legend(&cut.iter().map(|(one, _)| *one).collect::<Vec<_>>()),
        charts: vec![chart],
        wide: true,
        table: tables::slice_table(words, &named),
    })
}

/// How evenly entries are used, a map a system (its first seed).
pub(super) fn tokens(series: &[Series<'_>]) -> Option<Figure> {
    let runs: Vec<(String, &RunRecord)> =
        series.iter().flat_map(|one| one.with(|run| run.tokens.is_some()).into_iter().take(1)).collect();
    let maps: Vec<(&str, Vec<HeatRow>)> = runs.iter().map(|(name, run)| (name.as_str(), heat_rows(run))).collect();
    let uses = maps.iter().flat_map(|(_, rows)| rows).flat_map(|row| &row.uses).copied();
    let most = uses.fold(0.0, f64::max);
    if most == 0.0 {
        return None;
    }
    Some(Figure {
        title: "Use of tokens".to_owned(),
        caption: "Entries of each codebook by rank, darker where more items have them; an even share is items / \
                  entries. The first seed of each system."
            .to_owned(),
        legend: Vec::new(),
        charts: maps.iter().map(|(name, rows)| charts::heat(name, rows, most)).collect(),
        wide: true,
        table: tables::token_table(&runs),
    })
}

fn heat_rows(run: &RunRecord) -> Vec<HeatRow> {
    let Some(tokens) = &run.tokens else { return Vec::new() };
    let rows = tokens.codebooks.iter().map(|codebook| {
        let even = tokens.items.max(1) as f64 / codebook.counts.len().max(1) as f64;
        let uses = codebook.counts.iter().map(|&count| f64::from(count) / even).collect();
        HeatRow { uses, perplexity: codebook.perplexity }
    });
    rows.collect()
}

/// Whether the category head means what it says, a line a system (its first seed).
pub(super) fn calibration(series: &[Series<'_>]) -> Option<Figure> {
    let told: Vec<&Series<'_>> =
        series.iter().filter(|one| !one.with(|run| run.calibration.is_some()).is_empty()).collect();
    let runs: Vec<(usize, (String, &RunRecord))> = told
        .iter()
        .flat_map(|one| one.with(|run| run.calibration.is_some()).into_iter().take(1).map(|run| (one.slot, run)))
        .collect();
    let lines: Vec<Reliability<'_>> = runs
        .iter()
        .filter_map(|(slot, (name, run))| {
            let bins = run.calibration.as_ref()?.bins.as_slice();
            Some(Reliability { slot: *slot, name: name.clone(), bins })
        })
        .collect();
    if lines.is_empty() {
        return None;
    }
    let runs: Vec<(String, &RunRecord)> = runs.into_iter().map(|(_, run)| run).collect();
    Some(Figure {
        title: "Calibration of the category head".to_owned(),
        caption: "On the line what is said is so; below it the head is too sure. Larger dots were said more often. \
                  The first seed of each system."
            .to_owned(),
        legend: legend(&told),
        charts: vec![charts::reliability(&lines)],
        wide: false,
        table: tables::calibration_table(&runs),
    })
}

fn learns(run: &RunRecord) -> bool {
    !run.epochs.is_empty()
}

/// None where one series needs no telling apart; its name then stands in the table.
fn legend(series: &[&Series<'_>]) -> Vec<(usize, String)> {
    series.iter().map(|one| (one.slot, one.name.clone())).collect()
}
