//! The figures of `hapax bench turns`, as a table and as JSON.

use serde_json::{Value, json};

use super::contender::{SENDS, TURNS, Turned};
use super::{Measured, Turns};
use crate::cli::bench::ledger::Engine;
use crate::cli::bench::statistics::{mean_batch, median, millis, quantile, round3};

impl Turns {
    #[expect(clippy::print_stdout, reason = "what the command is for")]
    pub(super) fn show(&self, measured: &[Measured]) {
        if self.json {
            println!("{}", self.figures(measured));
            return;
        }
        println!(
            "{} messages of {} people over {} connections, medians of {} rounds in turn",
            self.messages, self.people, self.connections, self.rounds
        );
        println!(
            "the echo answers, sends are not paced, nothing is marked as read, up to {TURNS} turns \
             and {SENDS} sends at once"
        );
        println!(
            "{:<12}{:>12}{:>10}{:>10}{:>14}{:>17}{:>14}",
            "",
            "messages/s",
            "p50 ms",
            "p99 ms",
            "processor µs",
            "commits/message",
            "writes/commit"
        );
        for measured in measured {
            println!(
                "{:<12}{:>12.0}{:>10.1}{:>10.1}{:>14.0}{:>17.3}{:>14.1}",
                measured.engine.as_str(),
                measured.per_second(),
                measured.of_share(0.50),
                measured.of_share(0.99),
                measured.of(Turned::processor_us),
                measured.of(Turned::commits_per_message),
                measured.mean_batch(),
            );
        }
        if let Some(ratio) = postgres_to_sqlite(measured) {
            println!("postgres to sqlite: {ratio:.3}");
        }
    }

    fn figures(&self, measured: &[Measured]) -> Value {
        let mut figures = json!({
            "messages_per_round": self.messages,
            "people": self.people,
            "connections": self.connections,
            "rounds": self.rounds,
            "turns_at_once": TURNS,
            "sends_at_once": SENDS,
        });
        for measured in measured {
            figures[measured.engine.as_str()] = json!({
                "messages_per_second": measured.per_second().round(),
                "p50_ms": round3(measured.of_share(0.50)),
                "p99_ms": round3(measured.of_share(0.99)),
                "processor_us": round3(measured.of(Turned::processor_us)),
                "commits_per_message": round3(measured.of(Turned::commits_per_message)),
                "mean_batch": round3(measured.mean_batch()),
            });
        }
        if let Some(ratio) = postgres_to_sqlite(measured) {
            figures["postgres_to_sqlite"] = round3(ratio).into();
        }
        figures
    }
}

impl Measured {
    fn of(&self, figure: impl Fn(&Turned) -> f64) -> f64 {
        median(self.rounds.iter().map(figure))
    }

    fn per_second(&self) -> f64 {
        self.of(Turned::per_second)
    }

    /// From the post to the call of the pretend Graph, in milliseconds.
    fn of_share(&self, share: f64) -> f64 {
        self.of(|round| millis(quantile(&round.latencies, share)))
    }

    fn mean_batch(&self) -> f64 {
        self.of(|round| mean_batch(round.commits))
    }
}

/// Of rounds that took turns, each against its neighbour.
fn postgres_to_sqlite(measured: &[Measured]) -> Option<f64> {
    let of = |wanted| measured.iter().find(|measured| measured.engine == wanted);
    let pairs = of(Engine::Postgres)?.rounds.iter();
    let pairs = pairs.zip(&of(Engine::Sqlite)?.rounds);
    Some(median(pairs.map(|(postgres, sqlite)| {
        postgres.per_second() / sqlite.per_second()
    })))
}
