//! The kinds of chart: curves, changes with whiskers, grouped bars, a heat map, a reliability diagram.

use super::svg::{Anchor, Area, Canvas, Scale};
use super::tables::{Difference, count, share};
use crate::evaluation::CalibrationBin;

/// Colours that are told apart; further series repeat them, dashed or paler.
const COLOURS: usize = 8;

/// One run's way through the epochs.
#[derive(Debug, Clone)]
pub(super) struct Curve {
    pub slot: usize,
    pub name: String,
    /// Epoch, counted from one, and value.
    pub points: Vec<(usize, f64)>,
    /// The epoch that was kept.
    pub best: Option<usize>,
}

/// The class that carries a slot's colour.
pub(super) fn colour(slot: usize) -> String {
    format!("c{}{}", slot % COLOURS, if slot >= COLOURS { " alt" } else { "" })
}

/// Values by epoch, with a ring at the epoch that was kept.
pub(super) fn curves(curves: &[Curve], value_name: &str) -> String {
    let mut canvas = Canvas::new(360.0, 250.0);
    let area = Area { left: 46.0, top: 34.0, width: 302.0, height: 164.0 };
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let span = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| (least.min(value), most.max(value)))
    };
    let (least, most) = span(&mut points().map(|point| point.1));
    let room = (most - least) * 0.06;
    let (first, last) = span(&mut points().map(|point| point.0 as f64));
    let across = Scale::new((first, last), (area.left, area.right()));
    let up = Scale::new(((least - room).max(0.0), most + room), (area.bottom(), area.top));
    frame(&mut canvas, area, up, value_name);
    below(&mut canvas, area, 42.0, "epoch");
    for (value, label) in across.ticks(10).into_iter().filter(|(value, _)| value.fract() == 0.0) {
        canvas.text("tick", (across.at(value), area.bottom() + 18.0), Anchor::Middle, &label);
    }
    for curve in curves {
        let class = colour(curve.slot);
        let at = |&(epoch, value): &(usize, f64)| (across.at(epoch as f64), up.at(value));
        canvas.curve(&format!("curve {class}"), &curve.points.iter().map(at).collect::<Vec<_>>());
        for point in &curve.points {
            let title = format!("{}, epoch {}: {}", curve.name, point.0, digits(point.1));
            let (kind, radius) = match curve.best {
                Some(best) if best == point.0 => ("ring", 4.5),
                _ if curve.points.len() == 1 => ("ring", 4.5),
                _ => ("touch", 7.0),
            };
            canvas.circle(&format!("{kind} {class}"), at(point), radius, &title);
        }
    }
    canvas.finish(&format!("{value_name} by epoch"))
}

/// A bar a system, right where it gains and left where it loses, with a whisker of one error either way.
pub(super) fn changes(rows: &[Difference], base: &str) -> String {
    const ROW: f64 = 30.0;
    let height = rows.len() as f64 * ROW;
    let mut canvas = Canvas::new(720.0, height + 60.0);
    let area = Area { left: 212.0, top: 6.0, width: 428.0, height };
    let reach = |sign: f64| rows.iter().map(|row| (row.change * sign + row.error).max(0.0)).fold(0.0, f64::max);
    let span = Scale::new((-reach(-1.0), reach(1.0)), (area.left + 8.0, area.right() - 8.0));
    for (value, label) in span.ticks(6) {
        canvas.line("grid", (span.at(value), area.top), (span.at(value), area.bottom()));
        let label = if value > 0.0 { format!("+{label}") } else { label };
        canvas.text("tick", (span.at(value), area.bottom() + 18.0), Anchor::Middle, &label);
    }
    below(&mut canvas, area, 42.0, &format!("change in Recall@10 against {}", shortened(base, 40)));
    for (at, row) in rows.iter().enumerate() {
        let middle = area.top + (at as f64 + 0.5) * ROW;
        let (from, to) = (span.at(row.change.min(0.0)), span.at(row.change.max(0.0)));
        let title =
            format!("{}: {}, {:+.4} (one error {})", row.name, share(row.recall_at_10), row.change, share(row.error));
        let bar = Area { left: from, top: middle - 8.0, width: (to - from).max(0.5), height: 16.0 };
        canvas.rect(if row.change < 0.0 { "bar loss" } else { "bar gain" }, bar, &title);
        let whisker = (span.at(row.change - row.error), span.at(row.change + row.error));
        canvas.line("whisker", (whisker.0, middle), (whisker.1, middle));
        for end in [whisker.0, whisker.1] {
            canvas.line("whisker", (end, middle - 4.0), (end, middle + 4.0));
        }
        canvas.text("name", (area.left - 10.0, middle + 4.0), Anchor::End, &shortened(&row.name, 26));
        canvas.text("value", (area.right() + 8.0, middle + 4.0), Anchor::Start, &format!("{:+.4}", row.change));
    }
    canvas.line("zero", (span.at(0.0), area.top), (span.at(0.0), area.bottom()));
    canvas.finish(&format!("change in Recall@10 against {base}"))
}

/// The heights of one series over the bins.
#[derive(Debug, Clone)]
pub(super) struct Bars {
    pub slot: usize,
    pub name: String,
    /// A bin without trials has none.
    pub heights: Vec<Option<f64>>,
}

/// What stands below a group of bars.
#[derive(Debug, Clone)]
pub(super) struct Bin {
    pub name: String,
    /// What it holds, for the pointer.
    pub about: String,
    pub users: usize,
}

/// Bars side by side in every bin, from zero.
pub(super) fn grouped(bins: &[Bin], series: &[Bars], value_name: &str, bin_name: &str) -> String {
    let mut canvas = Canvas::new(720.0, 304.0);
    let area = Area { left: 52.0, top: 34.0, width: 660.0, height: 200.0 };
    let most = series.iter().flat_map(|bars| &bars.heights).flatten().copied().fold(0.0, f64::max);
    let up = Scale::new((0.0, most * 1.05), (area.bottom(), area.top));
    frame(&mut canvas, area, up, value_name);
    below(&mut canvas, area, 56.0, bin_name);
    let room = area.width / bins.len().max(1) as f64;
    let pitch = (room * 0.82 / series.len().max(1) as f64).min(28.0);
    for (at, bin) in bins.iter().enumerate() {
        let middle = area.left + (at as f64 + 0.5) * room;
        canvas.text("tick", (middle, area.bottom() + 17.0), Anchor::Middle, &bin.name);
        canvas.text("small", (middle, area.bottom() + 31.0), Anchor::Middle, &count(bin.users));
        for (place, bars) in series.iter().enumerate() {
            let Some(height) = bars.heights.get(at).copied().flatten() else { continue };
            let left = middle + (place as f64 - series.len() as f64 / 2.0) * pitch;
            let gap = if pitch > 6.0 { 2.0 } else { 0.5 };
            let top = up.at(height);
            let bar = Area { left, top, width: pitch - gap, height: area.bottom() - top };
            let title = format!("{}, {} ({} users): {}", bars.name, bin.about, count(bin.users), share(height));
            canvas.rect(&format!("bar {}", colour(bars.slot)), bar, &title);
        }
    }
    canvas.line("zero", (area.left, area.bottom()), (area.right(), area.bottom()));
    canvas.finish(&format!("{value_name} by {bin_name}"))
}

/// One codebook in the heat map.
#[derive(Debug, Clone)]
pub(super) struct HeatRow {
    /// Use of each entry as a multiple of an even share, the most used first.
    pub uses: Vec<f64>,
    pub perplexity: f64,
}

/// Codebooks by entry rank, darker where more used. `most` is the use that has the full colour.
pub(super) fn heat(name: &str, rows: &[HeatRow], most: f64) -> String {
    const ROW: f64 = 18.0;
    let height = rows.len() as f64 * ROW;
    let mut canvas = Canvas::new(720.0, height + 88.0);
    let area = Area { left: 90.0, top: 48.0, width: 530.0, height };
    canvas.text("axis", (0.0, 16.0), Anchor::Start, &shortened(name, 60));
    canvas.text("small", (area.left, area.top - 8.0), Anchor::Start, "most used entry");
    canvas.text("small", (area.right(), area.top - 8.0), Anchor::End, "least used");
    canvas.text("small", (area.right() + 90.0, area.top - 8.0), Anchor::End, "perplexity");
    // The root tells rare entries from unused ones.
    let shade = |part: f64| 0.05 + 0.95 * part.clamp(0.0, 1.0).sqrt();
    for (at, row) in rows.iter().enumerate() {
        let top = area.top + at as f64 * ROW;
        canvas.text("tick", (area.left - 8.0, top + 13.0), Anchor::End, &format!("codebook {}", at + 1));
        canvas.text("tick", (area.right() + 90.0, top + 13.0), Anchor::End, &format!("{:.1}", row.perplexity));
        let columns = row.uses.len().min(64);
        let width = area.width / columns.max(1) as f64;
        for column in 0..columns {
            let ranks = column * row.uses.len() / columns..(column + 1) * row.uses.len() / columns;
            let mean = row.uses[ranks.clone()].iter().sum::<f64>() / ranks.len() as f64;
            let cell = Area { left: area.left + column as f64 * width, top, width: width - 0.5, height: ROW - 2.0 };
            let title = format!(
                "codebook {}, ranks {} to {}: {mean:.2} times an even share",
                at + 1,
                ranks.start + 1,
                ranks.end
            );
            canvas.shade("heat", cell, shade(mean / most.max(f64::MIN_POSITIVE)), &title);
        }
    }
    let (top, steps, width) = (area.bottom() + 12.0, 24, 200.0);
    for step in 0..steps {
        let left = area.left + f64::from(step) * width / f64::from(steps);
        let part = f64::from(step) / f64::from(steps - 1);
        let cell = Area { left, top, width: width / f64::from(steps) + 0.2, height: 8.0 };
        canvas.shade("heat", cell, shade(part * part), "");
    }
    for (part, anchor) in [(0.0, Anchor::Start), (0.5, Anchor::Middle), (1.0, Anchor::End)] {
        let label = format!("{:.1}", part * part * most);
        canvas.text("small", (area.left + part * width, top + 21.0), anchor, &label);
    }
    canvas.text("small", (area.left + width + 12.0, top + 8.0), Anchor::Start, "times an even share");
    canvas.finish(&format!("use of tokens by {name}"))
}

/// What one run's category head says against what is so.
#[derive(Debug, Clone)]
pub(super) struct Reliability<'a> {
    pub slot: usize,
    pub name: String,
    pub bins: &'a [CalibrationBin],
}

/// Accuracy by stated belief; on the diagonal what is said is so. A dot's size tells how often it was said.
pub(super) fn reliability(series: &[Reliability<'_>]) -> String {
    let mut canvas = Canvas::new(360.0, 370.0);
    let area = Area { left: 46.0, top: 34.0, width: 286.0, height: 286.0 };
    let across = Scale::new((0.0, 1.0), (area.left, area.right()));
    let up = Scale::new((0.0, 1.0), (area.bottom(), area.top));
    frame(&mut canvas, area, up, "accuracy");
    below(&mut canvas, area, 42.0, "stated belief in the top category");
    for (value, label) in across.ticks(5) {
        canvas.text("tick", (across.at(value), area.bottom() + 18.0), Anchor::Middle, &label);
    }
    canvas.line("diagonal", (across.at(0.0), up.at(0.0)), (across.at(1.0), up.at(1.0)));
    for one in series {
        let class = colour(one.slot);
        let bins: Vec<&CalibrationBin> = one.bins.iter().filter(|bin| bin.count > 0).collect();
        let at = |bin: &CalibrationBin| (across.at(bin.belief), up.at(bin.accuracy));
        canvas.curve(&format!("curve {class}"), &bins.iter().map(|bin| at(bin)).collect::<Vec<_>>());
        let total: usize = bins.iter().map(|bin| bin.count).sum();
        for bin in bins {
            let title = format!(
                "{}: belief {:.3}, accuracy {:.3}, {} times",
                one.name,
                bin.belief,
                bin.accuracy,
                count(bin.count)
            );
            let radius = 3.0 + 8.0 * (bin.count as f64 / total as f64).sqrt();
            canvas.circle(&format!("dot {class}"), at(bin), radius, &title);
        }
    }
    canvas.finish("accuracy of the category head by stated belief")
}

/// The name of the axis across, `down` below the drawing.
fn below(canvas: &mut Canvas, area: Area, down: f64, name: &str) {
    canvas.text("axis", (area.left + area.width / 2.0, area.bottom() + down), Anchor::Middle, name);
}

/// Level lines with their values, and the name of what goes up.
fn frame(canvas: &mut Canvas, area: Area, up: Scale, value_name: &str) {
    canvas.text("axis", (0.0, 16.0), Anchor::Start, value_name);
    for (value, label) in up.ticks(7) {
        canvas.line("grid", (area.left, up.at(value)), (area.right(), up.at(value)));
        canvas.text("tick", (area.left - 8.0, up.at(value) + 4.0), Anchor::End, &label);
    }
}

/// A share in four digits, a loss in three.
fn digits(value: f64) -> String {
    if value < 1.0 { share(value) } else { format!("{value:.3}") }
}

/// At most `longest` letters, the rest as an ellipsis.
fn shortened(text: &str, longest: usize) -> String {
    if text.chars().count() <= longest {
        return text.to_owned();
    }
    text.chars().take(longest - 1).chain(['…']).collect()
}
