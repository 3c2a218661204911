//! The pictures of the page, as SVG.

use std::fmt::Write;
use std::time::Duration;

use super::strikes::Struck;
use super::tally::Line;
use super::timeline::Timeline;

const WIDTH: f64 = 900.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 30.0;
/// Seconds of one step of a rate.
const STEP: f64 = 0.1;
const LANE: f64 = 14.0;
/// So many runs are drawn one by one.
const RUNS_MAX: usize = 400;

/// A picture that is being drawn. Writing into a text does not fail.
struct Picture {
    svg: String,
    height: f64,
}

impl Picture {
    fn new(height: f64, label: &str) -> Self {
        let mut svg = String::new();
        let _ = write!(
            svg,
            r#"<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">"#
        );
        Self { svg, height }
    }

    fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = write!(
            self.svg,
            r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#
        );
    }

    fn rect(&mut self, class: &str, at: (f64, f64), size: (f64, f64)) {
        let ((x, y), (width, height)) = (at, size);
        let _ = write!(
            self.svg,
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}"/>"#
        );
    }

    fn dot(&mut self, (x, y): (f64, f64)) {
        let _ = write!(
            self.svg,
            r#"<circle class="dot" cx="{x:.1}" cy="{y:.1}" r="2.5"/>"#
        );
    }

    fn text(&mut self, (x, y): (f64, f64), anchor: &str, text: &str) {
        let _ = write!(
            self.svg,
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#
        );
    }

    fn curve(&mut self, class: &str, points: &[(f64, f64)]) {
        let points: Vec<String> = points
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let points = points.join(" ");
        let _ = write!(self.svg, r#"<polyline class="{class}" points="{points}"/>"#);
    }

    /// Marks from zero to `most` along the height from `top` to `bottom`.
    fn scale(&mut self, (top, bottom): (f64, f64), most: f64, unit: &str) {
        for share in [0.0, 0.5, 1.0] {
            let y = bottom - (bottom - top) * share;
            self.line("axis", (LEFT, y), (WIDTH - RIGHT, y));
            self.text(
                (LEFT - 6.0, y + 4.0),
                "end",
                &format!("{}{unit}", round(most * share)),
            );
        }
    }

    /// Seconds along the foot.
    fn seconds(&mut self, end: f64) {
        let y = self.height - 4.0;
        for step in 0..=5 {
            let at = end * f64::from(step) / 5.0;
            self.text((x(at, end), y), "middle", &time(at));
        }
    }

    fn done(mut self) -> String {
        self.svg += "</svg>";
        self.svg
    }
}

fn x(at: f64, end: f64) -> f64 {
    LEFT + (WIDTH - LEFT - RIGHT) * (at / end.max(STEP)).clamp(0.0, 1.0)
}

/// A time in words: two digits that count.
fn time(seconds: f64) -> String {
    match seconds {
        s if s == 0.0 || s >= 1.0 => format!("{} s", round(s)),
        s => format!("{} ms", round(s * 1000.0)),
    }
}

/// Two digits that count.
fn round(value: f64) -> String {
    match value {
        v if v >= 10.0 || v == 0.0 => format!("{v:.0}"),
        v if v >= 1.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// When the last thing happened.
fn end_of(timeline: &Timeline, struck: &[Struck]) -> f64 {
    let posts = timeline.posts.iter().map(|(at, _)| *at);
    let ends = struck
        .iter()
        .map(|struck| struck.ended.saturating_sub(timeline.began));
    let times = posts.chain(timeline.replies.iter().copied());
    times
        .chain(ends.map(|end| end.as_secs_f64()))
        .fold(1.0, f64::max)
}

/// Rates above, faults in lanes below.
pub(super) fn timeline(timeline: &Timeline, struck: &[Struck]) -> String {
    let since = |time: Duration| time.saturating_sub(timeline.began).as_secs_f64();
    let posts = timeline.posts.iter().map(|(at, _)| *at);
    let end = end_of(timeline, struck);
    let bottom = 160.0;
    let mut picture = Picture::new(bottom + 30.0 + LANE * struck.len() as f64, "one run");
    let rates = [
        rate(posts, end),
        rate(timeline.replies.iter().copied(), end),
    ];
    let most = rates.iter().flatten().copied().fold(1.0, f64::max);
    picture.scale((10.0, bottom), most, "/s");
    for (class, rate) in ["one", "two"].into_iter().zip(&rates) {
        let height = |value: f64| bottom - (bottom - 10.0) * value / most;
        let points: Vec<(f64, f64)> = rate
            .iter()
            .enumerate()
            .map(|(step, value)| (x((step as f64 + 0.5) * STEP, end), height(*value)))
            .collect();
        picture.curve(class, &points);
    }
    picture.text(
        (WIDTH - RIGHT, 20.0),
        "end",
        "deliveries (blue), replies (orange)",
    );
    for (lane, struck) in struck.iter().enumerate() {
        let y = bottom + 12.0 + LANE * lane as f64;
        let (from, to) = (x(since(struck.began), end), x(since(struck.ended), end));
        picture.rect("band", (from, 10.0), ((to - from).max(1.0), bottom - 10.0));
        picture.line("lane", (from, y), (to.max(from + 2.0), y));
        let name = format!("{} {}", struck.fault.what.as_str(), struck.fault.node);
        picture.text((LEFT - 6.0, y + 4.0), "end", &name);
    }
    picture.seconds(end);
    picture.done()
}

fn rate(times: impl Iterator<Item = f64>, end: f64) -> Vec<f64> {
    let mut steps = vec![0.0; (end / STEP).ceil() as usize + 1];
    for at in times {
        if let Some(step) = steps.get_mut((at / STEP) as usize) {
            *step += 1.0 / STEP;
        }
    }
    steps
}

/// Each message of a run by when it was posted, and how long its reply took.
pub(super) fn scatter(timeline: &Timeline, struck: &[Struck]) -> String {
    let end = end_of(timeline, struck);
    let most = timeline.waits.iter().map(|(_, wait)| *wait);
    let most = most.fold(0.1, f64::max);
    let (top, bottom) = (10.0, 150.0);
    let mut picture = Picture::new(180.0, "how long each reply took");
    picture.scale((top, bottom), most, " s");
    for (at, wait) in &timeline.waits {
        picture.dot((x(*at, end), bottom - (bottom - top) * wait / most));
    }
    picture.seconds(end);
    picture.done()
}

/// How many replies took how long; each bar is twice as long a wait as the one before.
pub(super) fn waits(waits: &[f64]) -> String {
    const BARS: usize = 14;
    let mut counts = [0_usize; BARS];
    for wait in waits {
        let milliseconds = (wait * 1000.0).max(1.0);
        counts[(milliseconds.log2() as usize).min(BARS - 1)] += 1;
    }
    let most = counts.iter().copied().max().unwrap_or(0).max(1) as f64;
    let (top, bottom) = (10.0, 150.0);
    let mut picture = Picture::new(180.0, "how many replies took how long");
    picture.scale((top, bottom), most, "");
    let width = (WIDTH - LEFT - RIGHT) / BARS as f64;
    for (bar, count) in counts.iter().enumerate() {
        let left = LEFT + width * bar as f64;
        let height = (bottom - top) * *count as f64 / most;
        picture.rect("bar", (left + 2.0, bottom - height), (width - 4.0, height));
        let from = (1_u64 << bar) as f64 / 1000.0;
        picture.text((left, bottom + 18.0), "middle", &time(from));
    }
    picture.done()
}

/// A bar for each run.
pub(super) fn runs(lines: &[Line]) -> String {
    let lines = &lines[lines.len().saturating_sub(RUNS_MAX)..];
    let most = lines
        .iter()
        .map(|line| line.took.as_secs_f64())
        .fold(1.0, f64::max);
    let (top, bottom) = (10.0, 130.0);
    let mut picture = Picture::new(160.0, "how long each run took");
    picture.scale((top, bottom), most, " s");
    let width = (WIDTH - LEFT - RIGHT) / lines.len().max(1) as f64;
    let every = (lines.len() / 20).max(1);
    for (index, line) in lines.iter().enumerate() {
        let left = LEFT + width * index as f64;
        let height = (bottom - top) * line.took.as_secs_f64() / most;
        let class = if line.report.is_clean() {
            "seed"
        } else {
            "seed bad"
        };
        let bar = (width * 0.8).min(40.0);
        picture.rect(class, (left, bottom - height), (bar, height));
        if index % every == 0 {
            picture.text(
                (left + bar / 2.0, bottom + 16.0),
                "middle",
                &line.seed.to_string(),
            );
        }
    }
    picture.done()
}
