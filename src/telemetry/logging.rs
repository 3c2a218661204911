//! Log lines: where they go, which ones, and in which form.
//!
//! They go to stderr; stdout belongs to what a command prints. A failure is logged once, by
//! whoever handles it.

use std::io::IsTerminal;
use std::panic::Location;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

use super::format::{JsonLine, PrettyLine};
use crate::clock::Clock;

/// Every field that a log line may carry beside `timestamp`, `level`, `target` and `message`,
/// and what it holds.
pub const FIELDS: &[(&str, &str)] = &[
    (
        "process.pid",
        "the operating system's number of the process",
    ),
    (
        "node.id",
        "the incarnation of the process, as the ledger knows it",
    ),
    ("delivery.id", "one POST from Meta"),
    ("delivery.events", "how many events it held"),
    ("http.status", "what it was answered"),
    ("latency_ms", "how long that took, in milliseconds"),
    ("event.key", "the event, equal across redeliveries"),
    ("event.kind", "message, status or notice"),
    (
        "verdict",
        "accepted, duplicate or rejected; of a bot's send: new, joined, repeated or diverged",
    ),
    (
        "arrival.count",
        "how often the event has arrived, this time included",
    ),
    (
        "arrival.gap_ms",
        "since the arrival before, in milliseconds",
    ),
    ("arrival.previous_status", "what that arrival was answered"),
    (
        "arrival.previous_latency_ms",
        "how long that answer took, in milliseconds",
    ),
    ("cause", "the likely reason of a redelivery"),
    ("trace_id", "the event's key again, as a W3C trace id"),
    ("conversation.id", "the conversation"),
    ("message.seq", "the message's place in it, from 1"),
    (
        "thread.version",
        "the number of a right to make the conversation's AI thread",
    ),
    (
        "message.wamid",
        "Meta's id of the message; only where `log.identifiers` is `plain`",
    ),
    ("turn.id", "the turn, the same over all attempts"),
    ("turn.attempt", "its attempt, from 1"),
    (
        "turn.outcome",
        "reply, silence, acknowledged (the bot has taken it, and answers by itself), retry, discard \
         or dead; fenced: its write came too late; lost: not written",
    ),
    (
        "lease.epoch",
        "the number of the right to work on the conversation",
    ),
    ("outgoing.id", "one message to send"),
    ("outgoing.attempt", "its attempt, from 1"),
    ("bot_send.id", "one message that a bot has asked to send"),
    (
        "told",
        "what the caller heard of it: accepted, refused, own_id, failed or nothing",
    ),
    (
        "send.result",
        "accepted, retry, paused, refused or unsure: what became of the call to Meta",
    ),
    (
        "reason",
        "why, in words of ours; empty where nothing went wrong",
    ),
    ("error", "what failed on our side"),
    ("bot.url", "a URL of the bot, by host and port"),
    ("node.was", "the incarnation before"),
    (
        "conversations",
        "how many conversations a dead node had held",
    ),
    ("unsure", "how many sends a dead node left unanswered"),
    (
        "pruned.events",
        "how many events a round of retention has forgotten",
    ),
    ("pruned.payloads", "how many payloads it has emptied"),
    ("relay.failures", "how often a status or notice has failed"),
    (
        "relays",
        "how many statuses and notices the bot never gets, since this was said last",
    ),
    ("note", "a remark on the settings"),
    ("public", "where the public listener listens"),
    ("bot", "where the bot's listener listens"),
    ("admin", "where the admin listener listens"),
    ("handler", "the kind of handler"),
    ("store", "where the ledger is"),
    (
        "drain_timeout_ms",
        "how long the drain may take, in milliseconds",
    ),
];

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// [`LogFormat::Pretty`] if stderr is a terminal, else [`LogFormat::Json`].
    Auto,
    /// One flat JSON object a line.
    Json,
    /// For people.
    Pretty,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level is neither a level nor directives.
    #[error("not a log level: {0}")]
    Level(String),
    /// The process already has a subscriber.
    #[error("logging is already set up")]
    AlreadySet,
}

/// Sends the log lines of this process to stderr, from now on and once for all.
///
/// `level` is one level for Hapax, below which nothing of it is shown, while libraries stay at
/// `warn`; or `EnvFilter` directives, taken as they are.
///
/// # Errors
/// [`LogError`]; nothing is set up then.
pub fn init(level: &str, format: LogFormat, clock: Clock) -> Result<(), LogError> {
    let terminal = std::io::stderr().is_terminal();
    let subscriber = subscriber(level, format, clock, terminal, std::io::stderr)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::AlreadySet)
}

/// A subscriber as [`init`] installs it, for any writer: what a test captures lines with.
///
/// # Errors
/// [`LogError::Level`].
pub fn subscriber<W>(
    level: &str,
    format: LogFormat,
    clock: Clock,
    terminal: bool,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, LogError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(directives(level))
        .map_err(|error| LogError::Level(error.to_string()))?;
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    // Where it is a terminal, the layer's own default stands, which obeys NO_COLOR.
    let layer = if terminal {
        layer
    } else {
        layer.with_ansi(false)
    };
    let pretty = match format {
        LogFormat::Auto => terminal,
        LogFormat::Json => false,
        LogFormat::Pretty => true,
    };
    Ok(if pretty {
        Box::new(registry.with(layer.event_format(PrettyLine { clock })))
    } else {
        let pid = std::process::id();
        Box::new(registry.with(layer.event_format(JsonLine { clock, pid })))
    })
}

/// A single level is meant for Hapax: nobody who asks for `debug` wants the HTTP library's.
fn directives(level: &str) -> String {
    let is_word = level.bytes().all(|byte| byte.is_ascii_alphabetic());
    match level.parse::<LevelFilter>() {
        Ok(filter) if is_word => {
            let others = filter.min(LevelFilter::WARN);
            format!("{others},hapax={filter}")
        }
        _ => level.to_owned(),
    }
}

/// Logs a panic as one line with its place. What was panicked with is left out: it may hold
/// what somebody wrote.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| report(panic.location())));
}

fn report(location: Option<&Location<'_>>) {
    let place = location.map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    tracing::error!("panicked at {place}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;
    use serde_json::Value;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic while writing").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: &str, format: LogFormat, terminal: bool, act: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let clock = Clock::manual(Timestamp(1_700_000_000_000));
        let subscriber = subscriber(level, format, clock, terminal, move || writer.clone());
        tracing::subscriber::with_default(subscriber.expect("a level"), act);
        let bytes = lines.0.lock().expect("no panic while writing").clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn a_json_line_is_one_flat_object() {
        let text = logged("info", LogFormat::Auto, false, || {
            let error = io::Error::other("two\nlines");
            tracing::info!(
                target: "hapax::test",
                {
                    event.key = %"ab\"c\\",
                    turn.attempt = 2u32,
                    arrival.count = -1i64,
                    ratio = f64::NAN,
                    is_new = true,
                    error = &error as &dyn std::error::Error,
                },
                "Hello {}\t\u{1b}[31m",
                "world"
            );
        });
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let line: Value = serde_json::from_str(&text).expect("JSON");
        let expected = serde_json::json!({
            "timestamp": "2023-11-14T22:13:20.000Z",
            "level": "INFO",
            "target": "hapax::test",
            "message": "Hello world\t\u{1b}[31m",
            "event.key": "ab\"c\\",
            "turn.attempt": 2,
            "arrival.count": -1,
            "ratio": "NaN",
            "is_new": true,
            "error": "two\nlines",
            "process.pid": std::process::id(),
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn a_pretty_line_is_readable_and_can_not_be_forged() {
        let act = || tracing::warn!(target: "hapax", { turn.id = %"turn_1_2" }, "a\nb\u{1b}[2J");
        let text = logged("info", LogFormat::Pretty, false, act);
        let expected = "2023-11-14T22:13:20.000Z  WARN a\\nb\\u{1b}[2J turn.id=turn_1_2\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn auto_is_pretty_on_a_terminal() {
        let act = || tracing::info!(target: "hapax", "x");
        let text = logged("info", LogFormat::Auto, true, act);
        assert!(!text.starts_with('{'), "{text}");
    }

    #[test]
    fn a_level_is_for_hapax_alone() {
        let act = || {
            tracing::debug!(target: "hapax::store", "ours");
            tracing::info!(target: "hyper", "theirs");
            tracing::warn!(target: "hyper", "their warning");
        };
        let text = logged("debug", LogFormat::Pretty, false, act);
        assert!(
            text.contains("ours") && text.contains("their warning"),
            "{text}"
        );
        assert!(!text.contains("theirs"), "{text}");
        let text = logged("error", LogFormat::Pretty, false, act);
        assert_eq!(text, "");
        let text = logged("hyper=info", LogFormat::Pretty, false, act);
        assert!(text.contains("theirs") && !text.contains("ours"), "{text}");
    }

    #[test]
    fn what_is_no_level_is_refused() {
        let clock = Clock::system();
        let error = subscriber("hapax=loud", LogFormat::Json, clock, false, io::sink).err();
        assert!(matches!(error, Some(LogError::Level(_))));
    }

    #[test]
    fn a_panic_shows_its_place_and_not_its_payload() {
        let text = logged("info", LogFormat::Pretty, false, || {
            let before = std::panic::take_hook();
            install_panic_hook();
            let caught = std::panic::catch_unwind(|| panic!("what Ann wrote"));
            std::panic::set_hook(before);
            assert!(caught.is_err());
        });
        assert!(
            text.contains("ERROR panicked at src/telemetry/logging.rs:"),
            "{text}"
        );
        assert!(!text.contains("Ann"), "{text}");
    }

    #[test]
    fn every_field_is_documented() {
        let page = include_str!("../../docs/operations.md");
        for (name, help) in FIELDS {
            let row = format!("| `{name}` | {help} |");
            assert!(
                page.contains(&row),
                "docs/operations.md lacks the row: {row}"
            );
        }
    }
}
