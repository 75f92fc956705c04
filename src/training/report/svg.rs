//! Drawing: an SVG element a line, coordinates in pixels of the view box, looks by class.

use super::html::escape;

/// An `<svg>` in the making.
#[derive(Debug)]
pub(super) struct Canvas {
    width: f64,
    height: f64,
    body: String,
}

/// Where a text's coordinate lies in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A rectangle by its upper left corner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Area {
    pub left: f64,
    pub top: f64,
    pub width: f64,
    pub height: f64,
}

impl Area {
    pub fn right(&self) -> f64 {
        self.left + self.width
    }

    pub fn bottom(&self) -> f64 {
        self.top + self.height
    }
}

impl Canvas {
    pub fn new(width: f64, height: f64) -> Self {
        Self { width, height, body: String::new() }
    }

    pub fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.push(format!(r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#));
    }

    /// A rectangle with a title that shows where a pointer rests on it.
    pub fn rect(&mut self, class: &str, area: Area, title: &str) {
        self.shade(class, area, 1.0, title);
    }

    /// [`Self::rect`], let through by `opacity` of its colour.
    pub fn shade(&mut self, class: &str, area: Area, opacity: f64, title: &str) {
        let Area { left, top, width, height } = area;
        let shade = if opacity < 1.0 { format!(r#" fill-opacity="{opacity:.2}""#) } else { String::new() };
        self.push(format!(
            r#"<rect class="{class}" x="{left:.1}" y="{top:.1}" width="{width:.1}" height="{height:.1}"{shade}>{}</rect>"#,
            title_of(title)
        ));
    }

    pub fn circle(&mut self, class: &str, at: (f64, f64), radius: f64, title: &str) {
        let (x, y) = at;
        self.push(format!(
            r#"<circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="{radius:.1}">{}</circle>"#,
            title_of(title)
        ));
    }

    pub fn curve(&mut self, class: &str, points: &[(f64, f64)]) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        self.push(format!(r#"<polyline class="{class}" points="{}"/>"#, points.join(" ")));
    }

    pub fn text(&mut self, class: &str, at: (f64, f64), anchor: Anchor, text: &str) {
        let (x, y) = at;
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        self.push(format!(
            r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{}</text>"#,
            escape(text)
        ));
    }

    /// The element; `about` is what it says to those who cannot see it.
    pub fn finish(self, about: &str) -> String {
        let Self { width, height, body } = self;
        let about = escape(about);
        format!("<svg viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"{about}\">\n{body}</svg>\n")
    }

    fn push(&mut self, element: String) {
        self.body.push_str(&element);
        self.body.push('\n');
    }
}

fn title_of(title: &str) -> String {
    if title.is_empty() { String::new() } else { format!("<title>{}</title>", escape(title)) }
}

/// Values to coordinates, in proportion.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    least: f64,
    most: f64,
    start: f64,
    end: f64,
}

impl Scale {
    /// `least` is drawn at `start`, `most` at `end`; a span of nothing is made one that can be drawn.
    pub fn new((least, most): (f64, f64), (start, end): (f64, f64)) -> Self {
        let most = if most > least { most } else { least + least.abs().max(1.0e-9) };
        Self { least, most, start, end }
    }

    pub fn at(&self, value: f64) -> f64 {
        self.start + (value - self.least) / (self.most - self.least) * (self.end - self.start)
    }

    /// About `wanted` round values in the span, with their labels.
    pub fn ticks(&self, wanted: usize) -> Vec<(f64, String)> {
        let step = round_step((self.most - self.least) / wanted.max(1) as f64);
        let digits = (-step.log10().floor()).max(0.0) as usize;
        let first = (self.least / step - 1.0e-9).ceil() as i64;
        let last = (self.most / step + 1.0e-9).floor() as i64;
        (first..=last).map(|at| at as f64 * step).map(|value| (value, format!("{value:.digits$}"))).collect()
    }
}

/// The next of 1, 2, 5 times a power of ten.
fn round_step(raw: f64) -> f64 {
    let power = 10.0_f64.powf(raw.log10().floor());
    let fit = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= raw * (1.0 - 1.0e-9));
    fit.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside_the_span() {
        let labels = |least, most, wanted| -> Vec<String> {
            let scale = Scale::new((least, most), (0.0, 1.0));
            scale.ticks(wanted).into_iter().map(|(_, label)| label).collect()
        };
        assert_eq!(labels(0.0, 0.1, 5), ["0.00", "0.02", "0.04", "0.06", "0.08", "0.10"]);
        assert_eq!(labels(-0.004, 0.003, 4), ["-0.004", "-0.002", "0.000", "0.002"]);
        assert_eq!(labels(1.0, 12.0, 6), ["2", "4", "6", "8", "10", "12"]);
        assert!(!labels(0.0, 0.0, 4).is_empty());
    }

    #[test]
    fn what_is_drawn_is_escaped() {
        let mut canvas = Canvas::new(10.0, 10.0);
        canvas.text("t", (0.0, 0.0), Anchor::Start, "<b>");
        canvas.circle("c", (0.0, 0.0), 1.0, "a & \"b\"");
        let svg = canvas.finish("x \"y\"");
        assert!(svg.contains("&lt;b&gt;") && svg.contains("a &amp; &quot;b&quot;") && !svg.contains("<b>"), "{svg}");
        assert!(svg.contains("aria-label=\"x &quot;y&quot;\""), "{svg}");
    }
}
