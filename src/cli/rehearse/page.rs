//! One page with pictures, in one file that needs nothing else: what was done, what came of it,
//! one run along its time, and how long replies took.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::plot;
use super::tally::{Line, Tally};

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1c2024; --paper: #fff; --faint: #8b8d98; --rule: #e0e1e6;
  --good: #2b9a66; --bad: #ce2c31; --first: #3e63dd; --second: #f76b15; --band: #f76b1518; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #edeef0; --paper: #111113; --faint: #777b84; --rule: #2e3135;
    --good: #3dd68c; --bad: #ff9592; --first: #9eb1ff; --second: #ffa057; --band: #ffa05720; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0 } h2 { margin-top: 2.5rem }
.verdict { font-size: 1.25rem } .good { color: var(--good) } .bad { color: var(--bad) }
.faint { color: var(--faint) }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
td, th { padding: .2rem .8rem .2rem 0; border-bottom: 1px solid var(--rule); text-align: left }
td.number { text-align: right } code { font-size: .9em; overflow-wrap: anywhere }
svg { width: 100%; height: auto; display: block } svg text { font: 11px system-ui, sans-serif;
  fill: var(--faint) } .axis { stroke: var(--rule) } .one { stroke: var(--first); fill: none }
.two { stroke: var(--second); fill: none } .bar { fill: var(--first) } .band { fill: var(--band) }
.dot { fill: var(--first); fill-opacity: .5 } .lane { stroke: var(--second); stroke-width: 5 }
.seed { fill: var(--good) } .seed.bad { fill: var(--bad) }
";

/// The page; for every reader the same, whatever the seeds.
pub(super) fn page(tally: &Tally, store: &str, nodes: usize) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Hapax rehearsal: " (title(tally)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "A rehearsal of Hapax" }
                p.faint {
                    "hapax " (env!("CARGO_PKG_VERSION")) ", " (nodes) " nodes on " (store) ", "
                    (tally.lines.len()) " runs"
                }
                (verdict(tally))
                (failures(tally))
                h2 { "What was done" }
                (figures(tally))
                (shown(tally))
                h2 { "How long replies took, over all runs" }
                p.faint { "From the first posting of a message to its reply, outages included." }
                (PreEscaped(plot::waits(&tally.waits)))
                h2 { "Every run" }
                p.faint { "Its length is the time it took; the seed stands beside it." }
                (PreEscaped(plot::runs(&tally.lines)))
            }
        }
    };
    page.into_string()
}

fn title(tally: &Tally) -> &'static str {
    match tally.is_clean() {
        true => "every promise was kept",
        false => "a promise was broken",
    }
}

fn verdict(tally: &Tally) -> Markup {
    let failed = tally.failed().count();
    html! {
        @if failed == 0 {
            p.verdict.good { "Every promise was kept." }
        } @else {
            p.verdict.bad { "A promise was broken in " (failed) " of " (tally.lines.len()) " runs." }
        }
    }
}

fn failures(tally: &Tally) -> Markup {
    html! { @for line in tally.failed() { (failure(line)) } }
}

fn failure(line: &Line) -> Markup {
    html! {
        h3.bad { "Seed " (line.seed) }
        table {
            @for (breach, found) in line.report.breaches() {
                @for example in &found.examples {
                    tr { td { (breach.as_str()) } td { (example) } }
                }
            }
            @if line.report.undelivered > 0 {
                tr { td { "undelivered" } td { (line.report.undelivered) } }
            }
        }
        p { "Again: " code { (line.command) } }
        @if let Some(logs) = &line.logs { p.faint { "Logs of the nodes: " code { (logs) } } }
    }
}

fn figures(tally: &Tally) -> Markup {
    html! {
        table {
            @for (name, count) in tally.rows() {
                tr { td { (name) } td.number { (count) } }
            }
        }
        h3 { "Faults" }
        table {
            @for (what, count) in &tally.faults {
                tr { td { (what.as_str()) } td.number { (count) } }
            }
        }
    }
}

fn shown(tally: &Tally) -> Markup {
    let Some(played) = &tally.shown else {
        return html! {};
    };
    html! {
        h2 { "One run along its time: seed " (played.plan.seed) }
        p.faint {
            "Deliveries and replies a second above; below them what was broken, and for how long."
        }
        (PreEscaped(plot::timeline(&played.timeline, &played.struck)))
        p.faint { "Each message: when it was posted, and how long its reply took." }
        (PreEscaped(plot::scatter(&played.timeline, &played.struck)))
    }
}
