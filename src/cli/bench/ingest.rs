//! `hapax bench ingest`: the durable path beside its ceiling, in turn, in one process.
//!
//! The ceiling is everything but the store: the same listener, verification and decoding. Both
//! share the processor with the load generator, as the ratio does.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::routing::post;
use clap::Args;
use indicatif::ProgressBar;
use tokio_util::sync::CancellationToken;

use super::load::{Round, Shot, fire};
use crate::cli::fault;
use crate::clock::Clock;
use crate::ingress::{Ingress as Stage, IngressLimits, IngressParts};
use crate::listener;
use crate::model::Secret;
use crate::simulator::payload::{Element, Side, sign, single, wamid};
use crate::simulator::person::Person;
use crate::simulator::seed::Draw;
use crate::store::sqlite::{SqliteSettings, SqliteStore};
use crate::store::{Commits, Membership, SharedStore, Timing};
use crate::telemetry::Metrics;
use crate::whatsapp::{AppSecrets, VerifyTokens, decode};

#[derive(Debug, Args)]
pub(in crate::cli) struct Ingest {
    /// Connections, each with one delivery under way.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=4096))]
    connections: u16,
    /// Deliveries a round.
    #[arg(long, default_value_t = 20_000)]
    deliveries: usize,
    /// Rounds of each path, after one to warm up.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// People who write.
    #[arg(long, default_value_t = 10_000)]
    people: usize,
    /// Where the store's file is made; should be on the disk that will be used.
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

const APP_SECRET: &str = "bench-app-secret";
const NUMBER: &str = "106540352242922";

/// Both paths, being served.
struct Paths {
    ceiling: SocketAddr,
    durable: SocketAddr,
    store: SharedStore,
    stop: CancellationToken,
}

/// What was measured.
struct Measured {
    ceiling: Vec<Round>,
    durable: Vec<Round>,
    commits: Commits,
}

impl Ingest {
    pub(super) async fn run(self) -> ExitCode {
        match self.measure().await {
            Ok(measured) => self.show(&measured),
            Err(text) => return fault(&text),
        }
        ExitCode::SUCCESS
    }

    async fn measure(&self) -> Result<Measured, String> {
        let clock = Clock::system();
        let folder = match &self.folder {
            Some(folder) => tempfile::tempdir_in(folder),
            None => tempfile::tempdir(),
        };
        let folder = folder.map_err(|error| format!("no temporary folder: {error}"))?;
        let paths = serve(folder.path().join("bench.db"), clock.clone()).await?;
        let mut generator = Generator::new(self.people);
        let bar = if self.json {
            ProgressBar::hidden()
        } else {
            self.bar()
        };
        let mut measured = Measured {
            ceiling: Vec::new(),
            durable: Vec::new(),
            commits: Commits::default(),
        };
        let mut warm = Commits::default();
        for round in 0..=self.rounds {
            for target in [paths.ceiling, paths.durable] {
                let shots = Arc::new(generator.shots(self.deliveries));
                let fired = fire(target, shots, self.connections.into(), &clock).await?;
                let rounds = match target == paths.durable {
                    true => &mut measured.durable,
                    false => &mut measured.ceiling,
                };
                // The first round of each fills caches and makes the people known.
                if round > 0 {
                    rounds.push(fired);
                }
                bar.inc(1);
            }
            if round == 0 {
                warm = paths.store.commits();
            }
        }
        bar.finish_and_clear();
        let all = paths.store.commits();
        measured.commits = Commits {
            commits: all.commits - warm.commits,
            writes: all.writes - warm.writes,
        };
        paths.stop.cancel();
        paths.store.close().await;
        Ok(measured)
    }

    fn bar(&self) -> ProgressBar {
        ProgressBar::new(2 * (u64::from(self.rounds) + 1))
    }

    #[expect(clippy::print_stdout, reason = "what the command is for")]
    fn show(&self, measured: &Measured) {
        let rps = |rounds: &[Round]| median(rounds.iter().map(Round::per_second).collect());
        let quantile = |rounds: &[Round], share| {
            let of = |round: &Round| round.quantile(share).as_secs_f64() * 1000.0;
            median(rounds.iter().map(of).collect())
        };
        let pairs = measured.durable.iter().zip(&measured.ceiling);
        let ratios: Vec<f64> = pairs
            .map(|(durable, ceiling)| durable.per_second() / ceiling.per_second())
            .collect();
        let processor = |rounds: &[Round]| median(rounds.iter().map(Round::processor_us).collect());
        let commits = measured.commits.commits.max(1);
        let batch = measured.commits.writes as f64 / commits as f64;
        let figures = serde_json::json!({
            "connections": self.connections,
            "deliveries_per_round": self.deliveries,
            "rounds": self.rounds,
            "ceiling_rps": rps(&measured.ceiling).round(),
            "durable_rps": rps(&measured.durable).round(),
            "ratio": round3(median(ratios)),
            "p50_ms": round3(quantile(&measured.durable, 0.50)),
            "p99_ms": round3(quantile(&measured.durable, 0.99)),
            "ceiling_p50_ms": round3(quantile(&measured.ceiling, 0.50)),
            "ceiling_p99_ms": round3(quantile(&measured.ceiling, 0.99)),
            "ceiling_processor_us": round3(processor(&measured.ceiling)),
            "durable_processor_us": round3(processor(&measured.durable)),
            "commits": measured.commits.commits,
            "mean_batch": round3(batch),
        });
        if self.json {
            println!("{figures}");
            return;
        }
        println!(
            "{} connections, medians of {} rounds in turn",
            self.connections, self.rounds
        );
        println!(
            "{:<12}{:>14}{:>12}{:>12}",
            "", "deliveries/s", "p50 ms", "p99 ms"
        );
        for (name, rounds) in [
            ("ceiling", &measured.ceiling),
            ("durable", &measured.durable),
        ] {
            let (p50, p99) = (quantile(rounds, 0.5), quantile(rounds, 0.99));
            println!("{name:<12}{:>14.0}{p50:>12.2}{p99:>12.2}", rps(rounds));
        }
        println!(
            "ratio {}, {commits} commits of {batch:.1} deliveries on average",
            figures["ratio"]
        );
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn round3(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Makes messages that differ, of people who come back.
struct Generator {
    people: Vec<Person>,
    draw: Draw,
    clock: Clock,
}

impl Generator {
    fn new(people: usize) -> Self {
        let mut draw = Draw::new(1);
        let people = (0..people.max(1))
            .map(|index| Person::draw(index, &mut draw))
            .collect();
        Self {
            people,
            draw,
            clock: Clock::system(),
        }
    }

    fn shots(&mut self, count: usize) -> Vec<Shot> {
        (0..count).map(|_| self.shot()).collect()
    }

    fn shot(&mut self) -> Shot {
        let person = self.people[self.draw.below(self.people.len() as u64) as usize].clone();
        let id = wamid(&person, Side::Person, &mut self.draw);
        let text = "Is the blue one still there, and could you send it by Friday?";
        let body = single(&Element::text(NUMBER, &person, &id, self.clock.now(), text));
        let signature = sign(APP_SECRET, &body);
        Shot { body, signature }
    }
}

async fn serve(file: PathBuf, clock: Clock) -> Result<Paths, String> {
    let settings = SqliteSettings {
        path: file,
        queue_max: 65_536,
        wal_max: 64_000_000,
    };
    let store: SharedStore =
        Arc::new(SqliteStore::open(&settings, clock.clone()).map_err(|error| error.to_string())?);
    let timing = Timing {
        lease_ttl: Duration::from_secs(3600),
        renew_every: Duration::from_secs(3600),
    };
    let membership = Membership::join(store.clone(), clock.clone(), timing)
        .await
        .map_err(|error| error.to_string())?;
    let stage = Stage::new(
        IngressParts {
            store: store.clone(),
            membership,
            secrets: AppSecrets::new(Secret::new(APP_SECRET), None),
            tokens: VerifyTokens::new(Secret::new("bench"), None),
            only_number: None,
            clock: clock.clone(),
            metrics: Metrics::new(),
            receiving: Arc::new(AtomicBool::new(true)),
            plain_identifiers: false,
        },
        IngressLimits {
            body_max: 3_500_000,
            body_timeout: Duration::from_secs(10),
            body_memory_max: 256_000_000,
            store_wait_max: Duration::from_secs(60),
        },
    );
    let ceiling = Router::new().route("/webhook", post(verify_and_decode));
    let stop = CancellationToken::new();
    Ok(Paths {
        durable: spawn(stage.router(), &clock, &stop).await?,
        ceiling: spawn(ceiling.with_state(stage), &clock, &stop).await?,
        store,
        stop,
    })
}

async fn spawn(
    router: Router,
    clock: &Clock,
    stop: &CancellationToken,
) -> Result<SocketAddr, String> {
    let listener = listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .await
        .map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let limits = listener::Limits {
        connections: 8192,
        header: Duration::from_secs(60),
        age: Duration::from_secs(3600),
        drain: Duration::from_secs(1),
    };
    tokio::spawn(listener::serve(
        listener,
        router,
        limits,
        clock.clone(),
        stop.clone(),
    ));
    Ok(address)
}

/// The ceiling: the durable path without its store.
async fn verify_and_decode(State(stage): State<Arc<Stage>>, request: Request<Body>) -> StatusCode {
    match stage.receive(request).await {
        Ok(verified) => {
            std::hint::black_box(decode(&verified.body));
            StatusCode::OK
        }
        Err(refusal) => refusal.status(),
    }
}
