//! The lift of CTR over time as a picture: a panel for each experiment, a line with its band for each arm.

use std::fmt::Write;

use reg4rec::experiment::report::{Comparison, ExperimentReport};

use super::report::moment;

const WIDTH: f64 = 760.0;
/// Of one panel.
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 40.0;
/// Told apart also without red and green (Okabe and Ito's palette).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
/// The scale shows at least this lift to each side.
const LEAST: f64 = 0.05;

/// A whole SVG document that needs nothing else.
pub fn draw(experiments: &[ExperimentReport], alpha: f64) -> String {
    let height = HEIGHT * experiments.len().max(1) as f64;
    let mut svg = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">"#
    );
    let _ = writeln!(svg, r#"<rect width="{WIDTH}" height="{height}" fill="white"/>"#);
    if experiments.is_empty() {
        let _ = writeln!(svg, r#"<text x="{LEFT}" y="{TOP}">The log holds no exposure of any experiment.</text>"#);
    }
    for (at, experiment) in experiments.iter().enumerate() {
        let _ = writeln!(svg, r#"<g transform="translate(0 {})">"#, HEIGHT * at as f64);
        Panel::of(experiment, at).draw(&mut svg, alpha);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

struct Panel<'a> {
    experiment: &'a ExperimentReport,
    number: usize,
    /// The largest lift on the scale, to both sides.
    most: f64,
}

impl<'a> Panel<'a> {
    /// The scale holds every line from half of the time on, and the bands at the end; a band's beginning is far wider.
    fn of(experiment: &'a ExperimentReport, number: usize) -> Self {
        let timeline = &experiment.timeline;
        let late = timeline.iter().skip(timeline.len() / 2).flat_map(|point| &point.ctr).flatten();
        let last = timeline.last().into_iter().flat_map(|point| &point.ctr).flatten();
        let lines = late.filter_map(|comparison| comparison.lift);
        let bands = last.flat_map(|comparison| [comparison.lift_low, comparison.lift_high]).flatten();
        let most = lines.chain(bands).fold(LEAST, |most, lift| most.max(lift.abs()));
        Self { experiment, number, most: most * 1.2 }
    }

    fn draw(&self, svg: &mut String, alpha: f64) {
        let key = escape(&self.experiment.experiment);
        let band = (1.0 - alpha) * 100.0;
        let _ = writeln!(
            svg,
            r#"<text x="{LEFT}" y="20" font-weight="bold">{key}: lift of CTR over {}, {band} % band at all times</text>"#,
            escape(self.experiment.arms.first().map_or("", |arm| &arm.arm))
        );
        self.axes(svg);
        let (right, bottom) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
        let clip = format!("panel{}", self.number);
        let _ = writeln!(
            svg,
            r#"<clipPath id="{clip}"><rect x="{LEFT}" y="{TOP}" width="{right}" height="{bottom}"/></clipPath>"#
        );
        let _ = writeln!(svg, r#"<g clip-path="url(#{clip})">"#);
        let others = self.experiment.arms.iter().skip(1).enumerate();
        others.clone().for_each(|(at, _)| self.arm(svg, at));
        svg.push_str("</g>\n");
        for (at, arm) in others {
            let (x, colour) = (LEFT + 10.0 + 150.0 * (at % 4) as f64, COLOURS[at % COLOURS.len()]);
            let y = TOP + 14.0 + 14.0 * (at / 4) as f64;
            let _ = writeln!(svg, r#"<text x="{x}" y="{y}" fill="{colour}">{}</text>"#, escape(&arm.arm));
        }
    }

    fn axes(&self, svg: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for step in -2..=2 {
            let lift = self.most * f64::from(step) / 2.0;
            let (y, colour) = (self.y(lift), if step == 0 { "#444" } else { "#ddd" });
            let _ = writeln!(svg, r#"<line x1="{LEFT}" y1="{y:.1}" x2="{right}" y2="{y:.1}" stroke="{colour}"/>"#);
            let (x, y, percent) = (LEFT - 6.0, y + 4.0, lift * 100.0);
            let _ = writeln!(svg, r#"<text x="{x}" y="{y:.1}" text-anchor="end">{percent:+.1}%</text>"#);
        }
        let timeline = &self.experiment.timeline;
        let y = bottom + 18.0;
        for (point, x, anchor) in [(timeline.first(), LEFT, "start"), (timeline.last(), right, "end")] {
            let Some(point) = point else { continue };
            let _ = writeln!(svg, r#"<text x="{x}" y="{y}" text-anchor="{anchor}">{}</text>"#, moment(point.at_ms));
        }
    }

    /// The line of one arm, counted without the control, over its band; gaps where there is nothing to show.
    fn arm(&self, svg: &mut String, at: usize) {
        let colour = COLOURS[at % COLOURS.len()];
        let told = |comparison: &Comparison| Some((comparison.lift?, comparison.lift_low.zip(comparison.lift_high)));
        let points: Vec<_> = self
            .experiment
            .timeline
            .iter()
            .map(|point| (self.x(point.at_ms), point.ctr[at].as_ref().and_then(told)))
            .collect();
        for run in points.split(|(_, told)| !told.is_some_and(|(_, band)| band.is_some())) {
            let edge = |high: bool| {
                run.iter().filter_map(move |(x, told)| {
                    let (low, top) = (*told)?.1?;
                    Some((*x, if high { top } else { low }))
                })
            };
            let around: Vec<(f64, f64)> = edge(true).chain(edge(false).collect::<Vec<_>>().into_iter().rev()).collect();
            if !around.is_empty() {
                let corners = self.corners(around);
                let _ = writeln!(svg, r#"<polygon points="{corners}" fill="{colour}" fill-opacity="0.15"/>"#);
            }
        }
        for run in points.split(|(_, told)| told.is_none()) {
            let line = run.iter().filter_map(|(x, told)| Some((*x, told.as_ref()?.0)));
            let corners = self.corners(line);
            if !corners.is_empty() {
                let _ = writeln!(
                    svg,
                    r#"<polyline points="{corners}" fill="none" stroke="{colour}" stroke-width="2" stroke-linecap="round"/>"#
                );
            }
        }
    }

    fn corners(&self, points: impl IntoIterator<Item = (f64, f64)>) -> String {
        let corner = |(x, lift): (f64, f64)| format!("{x:.1},{:.1}", self.y(lift));
        points.into_iter().map(corner).collect::<Vec<_>>().join(" ")
    }

    fn x(&self, at_ms: i64) -> f64 {
        let timeline = &self.experiment.timeline;
        let (Some(first), Some(last)) = (timeline.first(), timeline.last()) else { return LEFT };
        let span = (last.at_ms - first.at_ms).max(1) as f64;
        LEFT + (at_ms - first.at_ms) as f64 / span * (WIDTH - LEFT - RIGHT)
    }

    /// Far off the scale a coordinate stays a short number; the clip hides it.
    fn y(&self, lift: f64) -> f64 {
        let (middle, half) = ((TOP + HEIGHT - BOTTOM) / 2.0, (HEIGHT - TOP - BOTTOM) / 2.0);
        middle - (lift / self.most).clamp(-10.0, 10.0) * half
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
