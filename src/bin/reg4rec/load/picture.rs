//! A run as a picture: what became of the requests second by second, and the latencies by percentile.

use std::fmt::Write;

use super::tally::Report;

const WIDTH: f64 = 760.0;
/// Of one panel.
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 36.0;
/// Told apart also without red and green (Okabe and Ito's palette).
const COLOURS: [&str; 3] = ["#0072b2", "#d55e00", "#999999"];
/// The share of requests beyond the last mark of the percentiles' scale: 99.999 %.
const LAST: f64 = 1e-5;

/// A whole SVG document that needs nothing else.
pub fn draw(report: &Report) -> String {
    let mut svg = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {}" font-family="sans-serif" font-size="12">"#,
        HEIGHT * 3.0
    );
    let _ = writeln!(svg, r#"<rect width="{WIDTH}" height="{}" fill="white"/>"#, HEIGHT * 3.0);
    let line = |name, values: Vec<f64>| (name, over_time(values));
    let timeline = &report.timeline;
    let counts = [
        line("within the deadline", timeline.iter().map(|point| point.within_deadline as f64).collect()),
        line("refused", timeline.iter().map(|point| point.refused as f64).collect()),
        line("due", timeline.iter().map(|point| point.requests as f64).collect()),
    ];
    let latencies = [
        line("p50", timeline.iter().map(|point| point.p50_ms).collect()),
        line("p99", timeline.iter().map(|point| point.p99_ms).collect()),
    ];
    let place = |percentile: f64| (1.0 - percentile / 100.0).max(LAST).ln() / LAST.ln();
    let curve = report.curve.iter().map(|(percentile, ms)| (place(*percentile), *ms)).collect();
    let seconds = [(0.0, "0 s".to_owned()), (1.0, format!("{:.0} s", report.seconds))];
    let percentiles = [50.0, 90.0, 99.0, 99.9, 99.99].map(|mark| (place(mark), format!("{mark} %")));
    panel(&mut svg, 0, &format!("{}: requests a second", report.title), &counts, &seconds, None);
    panel(&mut svg, 1, "latency of answers, ms", &latencies, &seconds, Some(report.deadline_ms));
    let curve = [("", curve)];
    panel(&mut svg, 2, "latency of answers by percentile, ms", &curve, &percentiles, Some(report.deadline_ms));
    svg.push_str("</svg>\n");
    svg
}

/// Values second by second, from 0 to 1.
fn over_time(values: Vec<f64>) -> Vec<(f64, f64)> {
    let last = values.len().saturating_sub(1).max(1) as f64;
    values.into_iter().enumerate().map(|(second, value)| (second as f64 / last, value)).collect()
}

/// Lines over a scale from 0 up; `marks` stand below it, and `limit` is a dashed line where it is on the scale.
fn panel(
    svg: &mut String,
    number: usize,
    title: &str,
    lines: &[(&str, Vec<(f64, f64)>)],
    marks: &[(f64, String)],
    limit: Option<f64>,
) {
    let most = lines.iter().flat_map(|(_, points)| points).map(|(_, value)| *value).fold(1e-3, f64::max) * 1.1;
    let x = |place: f64| LEFT + place * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - value / most * (HEIGHT - TOP - BOTTOM);
    let _ = writeln!(svg, r#"<g transform="translate(0 {})">"#, HEIGHT * number as f64);
    let _ = writeln!(svg, r#"<text x="{LEFT}" y="20" font-weight="bold">{}</text>"#, escape(title));
    for step in 0..=4 {
        let value = most * f64::from(step) / 4.0;
        let _ = writeln!(
            svg,
            r##"<line x1="{LEFT}" y1="{0:.1}" x2="{1}" y2="{0:.1}" stroke="#ddd"/><text x="{2}" y="{3:.1}" text-anchor="end">{value:.0}</text>"##,
            y(value),
            WIDTH - RIGHT,
            LEFT - 6.0,
            y(value) + 4.0
        );
    }
    for (place, mark) in marks {
        let _ = writeln!(svg, r#"<text x="{:.1}" y="{}" text-anchor="middle">{mark}</text>"#, x(*place), HEIGHT - 16.0);
    }
    if let Some(limit) = limit.filter(|limit| *limit <= most) {
        let _ = writeln!(
            svg,
            r##"<line x1="{LEFT}" y1="{0:.1}" x2="{1}" y2="{0:.1}" stroke="#444" stroke-dasharray="4 3"/><text x="{1}" y="{2:.1}" text-anchor="end">deadline</text>"##,
            y(limit),
            WIDTH - RIGHT,
            y(limit) - 4.0
        );
    }
    for (at, (name, points)) in lines.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let corners: Vec<String> =
            points.iter().map(|(place, value)| format!("{:.1},{:.1}", x(*place), y(*value))).collect();
        let _ = writeln!(
            svg,
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/><text x="{}" y="38" fill="{colour}">{name}</text>"#,
            corners.join(" "),
            LEFT + 150.0 * at as f64
        );
    }
    svg.push_str("</g>\n");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
