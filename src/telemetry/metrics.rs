//! Every metric, in one place: its name, its labels, and a method named after what is counted.
//!
//! No globals: whoever counts is handed a [`Metrics`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};

use super::labels::{
    BotSendAnswer, BotSendVerdict, DeadLetterKind, EventVerdict, FencedWrite, RelayResult,
    SentResult, TurnResult,
};
use crate::model::{Cause, EventKind};

/// Every metric: its name and what it shows.
pub const ALL: &[(&str, &str)] = &[
    (
        "hapax_oldest_unanswered_seconds",
        "Age of the oldest message without an end, by what it waits for",
    ),
    ("hapax_messages_pending", "Messages without an end"),
    (
        "hapax_conversations_pending",
        "Conversations with such messages",
    ),
    (
        "hapax_outgoing_open",
        "Messages to send that are not yet settled",
    ),
    (
        "hapax_outgoing_unsure",
        "Of these, how many may or may not have been sent",
    ),
    (
        "hapax_dead_letters_open",
        "Dead letters that nobody has dealt with",
    ),
    (
        "hapax_numbers_paused",
        "Business numbers that can not send at the moment",
    ),
    (
        "hapax_relays_waiting",
        "Statuses and notices that the bot has not got yet",
    ),
    (
        "hapax_store_up",
        "1 if the ledger could be read for these figures; 0: the other gauges are old",
    ),
    (
        "hapax_deliveries_total",
        "Deliveries from Meta, by the HTTP status they were answered",
    ),
    (
        "hapax_ingest_seconds",
        "From the head of a delivery to its answer",
    ),
    (
        "hapax_events_total",
        "Events in deliveries, by kind and verdict",
    ),
    (
        "hapax_duplicates_total",
        "Events that came again, by the likely reason",
    ),
    ("hapax_turns_total", "Attempts of turns, by how they ended"),
    ("hapax_turn_seconds", "How long the handler took"),
    (
        "hapax_fenced_total",
        "Late writes of a former holder that were refused: the design working",
    ),
    (
        "hapax_sends_total",
        "Calls to Meta that send a message, by what became of them",
    ),
    ("hapax_send_seconds", "How long such a call took"),
    (
        "hapax_bot_sends_total",
        "Sends that bots asked for, by what they were taken for",
    ),
    (
        "hapax_bot_send_answers_total",
        "Such requests, by what they were answered",
    ),
    (
        "hapax_bot_send_answer_seconds",
        "From such a request to its answer",
    ),
    (
        "hapax_bot_sends_late_total",
        "Such requests that came after the bot's 2xx had ended their turn",
    ),
    ("hapax_relays_total", "Tries to relay, by how they ended"),
    ("hapax_dead_letters_total", "Dead letters made, by kind"),
    (
        "hapax_pruned_events_total",
        "Events that this process has forgotten by their age",
    ),
    (
        "hapax_pruned_payloads_total",
        "Payloads that this process has emptied by their age",
    ),
    (
        "hapax_store_commits_total",
        "Transactions committed to disk",
    ),
    (
        "hapax_store_writes_total",
        "Writes that these transactions carried",
    ),
    ("hapax_build_info", "Always 1; the label names the version"),
];

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Seconds to answer Meta, who asks for a median of 0.25 and less than one in a hundred over 1.
const INGEST_BUCKETS: [f64; 13] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
const TURN_BUCKETS: [f64; 12] = [
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
];
const SEND_BUCKETS: [f64; 10] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0];

/// What waits, as gauges show it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    /// What the oldest message without an end waits for, in one word, and its age.
    pub oldest: Option<(&'static str, Duration)>,
    /// Messages without an end.
    pub messages_pending: u64,
    /// Conversations with such messages.
    pub conversations_pending: u64,
    /// Outgoings not yet settled.
    pub outgoing_open: u64,
    /// Of these, the unsure ones.
    pub outgoing_unsure: u64,
    /// Dead letters that nobody has dealt with.
    pub dead_letters_open: u64,
    /// Numbers that are paused.
    pub numbers_paused: u64,
    /// Statuses and notices that the bot has not got yet.
    pub relays_waiting: u64,
}

/// All metrics of one process. Clones count into the same.
#[derive(Clone)]
pub struct Metrics(Arc<Series>);

/// One label, under the name that the metric gives it.
macro_rules! label {
    ($name:ident { $($label:ident: $kind:ty),* }) => {
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $name { $($label: $kind),* }
    };
}

label!(ByAnswer { answer: u16 });
label!(ByVerdict { kind: &'static str, verdict: &'static str });
label!(ByCause { cause: &'static str });
label!(ByOutcome { outcome: &'static str });
label!(ByResult { result: &'static str });
label!(ByWrite { write: &'static str });
label!(ByKind { kind: &'static str });
label!(OfSend { verdict: &'static str });
label!(OfAnswer { answer: &'static str });
label!(ByReason { reason: &'static str });

type Level = Gauge<i64>;
type Seconds = Gauge<f64, AtomicU64>;

struct Series {
    registry: Registry,
    oldest: Family<ByReason, Seconds>,
    messages_pending: Level,
    conversations_pending: Level,
    outgoing_open: Level,
    outgoing_unsure: Level,
    dead_letters_open: Level,
    numbers_paused: Level,
    relays_waiting: Level,
    store_up: Level,
    deliveries: Family<ByAnswer, Counter>,
    ingest: Histogram,
    events: Family<ByVerdict, Counter>,
    duplicates: Family<ByCause, Counter>,
    turns: Family<ByOutcome, Counter>,
    turn: Histogram,
    fenced: Family<ByWrite, Counter>,
    sends: Family<ByResult, Counter>,
    send: Histogram,
    bot_sends: Family<OfSend, Counter>,
    bot_send_answers: Family<OfAnswer, Counter>,
    bot_send_answer: Histogram,
    bot_sends_late: Counter,
    dead_letters: Family<ByKind, Counter>,
    relays: Family<ByResult, Counter>,
    pruned_events: Counter,
    pruned_payloads: Counter,
    commits: Counter,
    writes: Counter,
}

/// Registers metrics under names of [`ALL`].
struct Names(Registry);

impl Names {
    fn add<M: Metric + Clone>(&mut self, name: &'static str, metric: M) -> M {
        self.register(name, metric.clone());
        metric
    }

    fn register(&mut self, name: &'static str, metric: impl Metric) {
        let (_, help) = ALL
            .iter()
            .find(|(known, _)| *known == name)
            .expect("every metric is registered under a name of the list");
        // The encoder adds these endings by itself.
        let stem = name
            .strip_suffix("_total")
            .or_else(|| name.strip_suffix("_info"));
        self.0.register(stem.unwrap_or(name), *help, metric);
    }
}

impl Metrics {
    /// All metrics at zero. Every series with a closed set of labels is there from the start, so
    /// that an alert on its growth sees the first time too.
    pub fn new() -> Self {
        let mut names = Names(Registry::default());
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        names.register("hapax_build_info", build);
        let series = Series {
            oldest: names.add("hapax_oldest_unanswered_seconds", Family::default()),
            messages_pending: names.add("hapax_messages_pending", Level::default()),
            conversations_pending: names.add("hapax_conversations_pending", Level::default()),
            outgoing_open: names.add("hapax_outgoing_open", Level::default()),
            outgoing_unsure: names.add("hapax_outgoing_unsure", Level::default()),
            dead_letters_open: names.add("hapax_dead_letters_open", Level::default()),
            numbers_paused: names.add("hapax_numbers_paused", Level::default()),
            relays_waiting: names.add("hapax_relays_waiting", Level::default()),
            store_up: names.add("hapax_store_up", Level::default()),
            deliveries: names.add("hapax_deliveries_total", Family::default()),
            ingest: names.add("hapax_ingest_seconds", Histogram::new(INGEST_BUCKETS)),
            events: names.add("hapax_events_total", Family::default()),
            duplicates: names.add("hapax_duplicates_total", Family::default()),
            turns: names.add("hapax_turns_total", Family::default()),
            turn: names.add("hapax_turn_seconds", Histogram::new(TURN_BUCKETS)),
            fenced: names.add("hapax_fenced_total", Family::default()),
            sends: names.add("hapax_sends_total", Family::default()),
            send: names.add("hapax_send_seconds", Histogram::new(SEND_BUCKETS)),
            bot_sends: names.add("hapax_bot_sends_total", Family::default()),
            bot_send_answers: names.add("hapax_bot_send_answers_total", Family::default()),
            bot_send_answer: names.add(
                "hapax_bot_send_answer_seconds",
                Histogram::new(SEND_BUCKETS),
            ),
            bot_sends_late: names.add("hapax_bot_sends_late_total", Counter::default()),
            dead_letters: names.add("hapax_dead_letters_total", Family::default()),
            relays: names.add("hapax_relays_total", Family::default()),
            pruned_events: names.add("hapax_pruned_events_total", Counter::default()),
            pruned_payloads: names.add("hapax_pruned_payloads_total", Counter::default()),
            commits: names.add("hapax_store_commits_total", Counter::default()),
            writes: names.add("hapax_store_writes_total", Counter::default()),
            registry: names.0,
        };
        series.open();
        Self(Arc::new(series))
    }

    /// A delivery was answered with `status` after `latency`.
    pub fn delivery(&self, status: u16, latency: Duration) {
        self.0
            .deliveries
            .get_or_create(&ByAnswer { answer: status })
            .inc();
        self.0.ingest.observe(latency.as_secs_f64());
    }

    /// An event of a delivery was judged.
    pub fn event(&self, kind: EventKind, verdict: EventVerdict) {
        let labels = ByVerdict {
            kind: kind.as_str(),
            verdict: verdict.as_str(),
        };
        self.0.events.get_or_create(&labels).inc();
    }

    /// An event came again.
    pub fn duplicate(&self, cause: Cause) {
        let labels = ByCause {
            cause: cause.as_str(),
        };
        self.0.duplicates.get_or_create(&labels).inc();
    }

    /// An attempt of a turn ended after `took`.
    pub fn turn(&self, result: TurnResult, took: Duration) {
        let labels = ByOutcome {
            outcome: result.as_str(),
        };
        self.0.turns.get_or_create(&labels).inc();
        self.0.turn.observe(took.as_secs_f64());
    }

    /// A late write was refused.
    pub fn fenced(&self, write: FencedWrite) {
        let labels = ByWrite {
            write: write.as_str(),
        };
        self.0.fenced.get_or_create(&labels).inc();
    }

    /// A call that sends a message ended after `took`.
    pub fn send(&self, result: SentResult, took: Duration) {
        let labels = ByResult {
            result: result.as_str(),
        };
        self.0.sends.get_or_create(&labels).inc();
        self.0.send.observe(took.as_secs_f64());
    }

    /// A bot has asked to send.
    pub fn bot_send(&self, verdict: BotSendVerdict) {
        let verdict = verdict.as_str();
        self.0.bot_sends.get_or_create(&OfSend { verdict }).inc();
    }

    /// Such a request was answered after `took`.
    pub fn bot_send_answer(&self, answer: BotSendAnswer, took: Duration) {
        let answer = answer.as_str();
        let answers = &self.0.bot_send_answers;
        answers.get_or_create(&OfAnswer { answer }).inc();
        self.0.bot_send_answer.observe(took.as_secs_f64());
    }

    /// Such a request came after the end of its turn.
    pub fn bot_send_late(&self) {
        self.0.bot_sends_late.inc();
    }

    /// A dead letter was made.
    pub fn dead_letter(&self, kind: DeadLetterKind) {
        let labels = ByKind {
            kind: kind.as_str(),
        };
        self.0.dead_letters.get_or_create(&labels).inc();
    }

    /// So many statuses or notices were handed to the bot, or were to be.
    pub fn relayed(&self, result: RelayResult, count: u64) {
        let result = result.as_str();
        let labels = ByResult { result };
        self.0.relays.get_or_create(&labels).inc_by(count);
    }

    /// Retention has forgotten so many events and emptied so many payloads.
    pub fn pruned(&self, events: u64, payloads: u64) {
        self.0.pruned_events.inc_by(events);
        self.0.pruned_payloads.inc_by(payloads);
    }

    /// What waits now. To be set before [`Metrics::render`].
    pub fn waiting(&self, waiting: &Waiting) {
        let (reason, age) = waiting.oldest.unwrap_or(("none", Duration::ZERO));
        self.0.oldest.clear();
        let oldest = self.0.oldest.get_or_create_owned(&ByReason { reason });
        oldest.set(age.as_secs_f64());
        let levels = [
            (&self.0.messages_pending, waiting.messages_pending),
            (&self.0.conversations_pending, waiting.conversations_pending),
            (&self.0.outgoing_open, waiting.outgoing_open),
            (&self.0.outgoing_unsure, waiting.outgoing_unsure),
            (&self.0.dead_letters_open, waiting.dead_letters_open),
            (&self.0.numbers_paused, waiting.numbers_paused),
            (&self.0.relays_waiting, waiting.relays_waiting),
        ];
        for (gauge, level) in levels {
            gauge.set(i64::try_from(level).unwrap_or(i64::MAX));
        }
        self.0.store_up.set(1);
    }

    /// What waits is not known now: the gauges stay as they were, and say so.
    pub fn waiting_unknown(&self) {
        self.0.store_up.set(0);
    }

    /// What the store has committed since it was opened. To be set before [`Metrics::render`].
    pub fn store(&self, commits: u64, writes: u64) {
        self.0.commits.inner().store(commits, Ordering::Relaxed);
        self.0.writes.inner().store(writes, Ordering::Relaxed);
    }

    /// All metrics as OpenMetrics text, of type [`CONTENT_TYPE`].
    pub fn render(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.0.registry) {
            Ok(()) => text,
            // Writing into a string does not fail; half a page would be worse than none.
            Err(fmt::Error) => String::new(),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Series {
    fn open(&self) {
        let _ = self.oldest.get_or_create(&ByReason { reason: "none" });
        for answer in [200, 401, 503] {
            let _ = self.deliveries.get_or_create(&ByAnswer { answer });
        }
        for cause in [
            Cause::AfterOurFailure,
            Cause::AfterSlowAnswer,
            Cause::Twin,
            Cause::Rebatched,
            Cause::Storm,
            Cause::LateReplay,
            Cause::Unknown,
        ] {
            let cause = cause.as_str();
            let _ = self.duplicates.get_or_create(&ByCause { cause });
        }
        for kind in [EventKind::Message, EventKind::Status, EventKind::Notice] {
            for verdict in EventVerdict::ALL {
                let _ = self.events.get_or_create(&ByVerdict {
                    kind: kind.as_str(),
                    verdict: verdict.as_str(),
                });
            }
        }
        for result in TurnResult::ALL {
            let outcome = result.as_str();
            let _ = self.turns.get_or_create(&ByOutcome { outcome });
        }
        for write in FencedWrite::ALL {
            let write = write.as_str();
            let _ = self.fenced.get_or_create(&ByWrite { write });
        }
        for result in SentResult::ALL {
            let result = result.as_str();
            let _ = self.sends.get_or_create(&ByResult { result });
        }
        for verdict in BotSendVerdict::ALL {
            let verdict = verdict.as_str();
            let _ = self.bot_sends.get_or_create(&OfSend { verdict });
        }
        for answer in BotSendAnswer::ALL {
            let answer = answer.as_str();
            let _ = self.bot_send_answers.get_or_create(&OfAnswer { answer });
        }
        for result in RelayResult::ALL {
            let result = result.as_str();
            let _ = self.relays.get_or_create(&ByResult { result });
        }
        for kind in DeadLetterKind::ALL {
            let kind = kind.as_str();
            let _ = self.dead_letters.get_or_create(&ByKind { kind });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn value(text: &str, series: &str) -> Option<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(series))?;
        line.trim().parse().ok()
    }

    #[test]
    fn the_list_and_the_page_name_the_same_metrics() {
        let text = Metrics::new().render();
        let rendered: BTreeSet<String> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .map(|line| match line.split_once(' ') {
                Some((name, "counter")) => format!("{name}_total"),
                Some((name, "info")) => format!("{name}_info"),
                Some((name, _)) => name.to_owned(),
                None => line.to_owned(),
            })
            .collect();
        let listed: BTreeSet<String> = ALL.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(rendered, listed);
    }

    #[test]
    fn every_metric_is_documented() {
        let page = include_str!("../../docs/operations.md");
        for (name, help) in ALL {
            assert!(
                page.contains(&format!("| `{name}")),
                "docs/operations.md lacks {name}"
            );
            assert!(page.contains(help), "docs/operations.md lacks: {help}");
        }
    }

    #[test]
    fn each_event_counts_in_its_series() {
        let metrics = Metrics::new();
        let twin = metrics.clone();
        metrics.delivery(200, Duration::from_millis(3));
        twin.delivery(503, Duration::from_secs(10));
        metrics.event(EventKind::Status, EventVerdict::Duplicate);
        metrics.duplicate(Cause::Twin);
        metrics.turn(TurnResult::Reply, Duration::from_secs(2));
        metrics.fenced(FencedWrite::Finish);
        metrics.send(SentResult::Unsure, Duration::from_secs(20));
        metrics.dead_letter(DeadLetterKind::Unsure);
        metrics.pruned(7, 0);
        twin.pruned(2, 1);
        metrics.store(3, 40);
        metrics.store(5, 70);
        let text = metrics.render();
        let expected = [
            ("hapax_deliveries_total{answer=\"200\"}", 1.0),
            ("hapax_deliveries_total{answer=\"503\"}", 1.0),
            ("hapax_ingest_seconds_count", 2.0),
            ("hapax_ingest_seconds_bucket{le=\"0.005\"}", 1.0),
            (
                "hapax_events_total{kind=\"status\",verdict=\"duplicate\"}",
                1.0,
            ),
            (
                "hapax_events_total{kind=\"message\",verdict=\"accepted\"}",
                0.0,
            ),
            ("hapax_duplicates_total{cause=\"twin\"}", 1.0),
            ("hapax_turns_total{outcome=\"reply\"}", 1.0),
            ("hapax_turn_seconds_sum", 2.0),
            ("hapax_fenced_total{write=\"finish\"}", 1.0),
            ("hapax_fenced_total{write=\"release\"}", 0.0),
            ("hapax_sends_total{result=\"unsure\"}", 1.0),
            ("hapax_dead_letters_total{kind=\"unsure\"}", 1.0),
            ("hapax_pruned_events_total", 9.0),
            ("hapax_pruned_payloads_total", 1.0),
            ("hapax_store_commits_total", 5.0),
            ("hapax_store_writes_total", 70.0),
        ];
        for (series, expected) in expected {
            assert_eq!(value(&text, series), Some(expected), "{series}\n{text}");
        }
        let build = format!(
            "hapax_build_info{{version=\"{}\"}}",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(value(&text, &build), Some(1.0));
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn the_oldest_message_shows_under_its_reason_only() {
        let metrics = Metrics::new();
        let waiting = Waiting {
            oldest: Some(("retry", Duration::from_millis(1500))),
            messages_pending: 7,
            ..Waiting::default()
        };
        metrics.waiting(&waiting);
        let text = metrics.render();
        let retry = "hapax_oldest_unanswered_seconds{reason=\"retry\"}";
        assert_eq!(value(&text, retry), Some(1.5));
        assert_eq!(value(&text, "hapax_messages_pending"), Some(7.0));
        metrics.waiting(&Waiting::default());
        let text = metrics.render();
        assert_eq!(value(&text, retry), None);
        let none = "hapax_oldest_unanswered_seconds{reason=\"none\"}";
        assert_eq!(value(&text, none), Some(0.0));
        assert_eq!(value(&text, "hapax_messages_pending"), Some(0.0));
    }
}
