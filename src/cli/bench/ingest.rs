//! `hapax bench ingest`: the durable path of each engine beside its ceiling, in turn, in one
//! process.
//!
//! The ceiling is everything but the store: the same listener, verification and decoding. All
//! share the processor with the load generator, as the ratios do; the server of a database is
//! another process, and its share is in no figure of the processor.

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
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::ledger::{Engine, Ledger, Ledgers};
use super::load::{Round, fire};
use super::shots::{APP_SECRET, Generator};
use super::statistics::{commits_since, mean_batch, median, millis, quantile, round3};
use crate::cli::fault;
use crate::cli::interrupt::Interrupt;
use crate::clock::Clock;
use crate::ingress::{Ingress as Stage, IngressLimits, IngressParts};
use crate::listener;
use crate::model::Secret;
use crate::store::{Commits, Membership, SharedStore, Timing};
use crate::telemetry::Metrics;
use crate::whatsapp::Relays;
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
    /// Measure PostgreSQL as well: postgres://…, in a schema of its own that is dropped at the end.
    #[arg(long, value_name = "URL", value_parser = crate::cli::address)]
    store: Option<Secret>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// All paths, being served.
struct Paths {
    ceiling: SocketAddr,
    durable: Vec<Durable>,
    stop: CancellationToken,
}

/// The durable path of one engine.
struct Durable {
    engine: Engine,
    address: SocketAddr,
    stage: Arc<Stage>,
    store: SharedStore,
}

/// What was measured.
struct Measured {
    ceiling: Vec<Round>,
    engines: Vec<MeasuredEngine>,
}

struct MeasuredEngine {
    engine: Engine,
    rounds: Vec<Round>,
    /// Of the rounds that count.
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
        let mut interrupt = Interrupt::listen()?;
        let ledgers = Ledgers::plan(self.folder.as_deref(), self.store.as_ref())?;
        let measured = match interrupt.cuts(Paths::serve(&ledgers, &clock)).await {
            Ok(paths) => {
                let measured = interrupt.cuts(self.take_turns(&paths, &clock)).await;
                paths.close().await;
                measured
            }
            Err(text) => Err(text),
        };
        let destroyed = ledgers.destroy(&clock).await;
        measured.and_then(|measured| destroyed.map(|()| measured))
    }

    async fn take_turns(&self, paths: &Paths, clock: &Clock) -> Result<Measured, String> {
        let mut generator = Generator::new(self.people, clock.clone());
        let bar = self.bar(1 + paths.durable.len());
        let mut ceiling = Vec::new();
        let mut durable: Vec<Vec<Round>> = paths.durable.iter().map(|_| Vec::new()).collect();
        let mut warm = Vec::new();
        let mut fire_at = async |target| {
            let shots = Arc::new(generator.shots(self.deliveries));
            let fired = fire(target, shots, self.connections.into(), clock).await;
            bar.inc(1);
            fired
        };
        for round in 0..=self.rounds {
            let fired = fire_at(paths.ceiling).await?;
            // The first round of each fills caches and makes the people known.
            ceiling.extend((round > 0).then_some(fired));
            for (path, rounds) in paths.durable.iter().zip(&mut durable) {
                let fired = fire_at(path.address).await?;
                rounds.extend((round > 0).then_some(fired));
            }
            if round == 0 {
                warm = paths
                    .durable
                    .iter()
                    .map(|path| path.store.commits())
                    .collect();
            }
        }
        bar.finish_and_clear();
        let engines = paths.durable.iter().zip(durable).zip(warm);
        let engines = engines.map(|((path, rounds), warm)| MeasuredEngine {
            engine: path.engine,
            rounds,
            commits: commits_since(warm, path.store.commits()),
        });
        Ok(Measured {
            ceiling,
            engines: engines.collect(),
        })
    }

    fn bar(&self, paths: usize) -> ProgressBar {
        if self.json {
            return ProgressBar::hidden();
        }
        ProgressBar::new(paths as u64 * (u64::from(self.rounds) + 1))
    }

    #[expect(clippy::print_stdout, reason = "what the command is for")]
    fn show(&self, measured: &Measured) {
        if self.json {
            println!("{}", self.figures(measured));
            return;
        }
        println!(
            "{} connections, medians of {} rounds in turn",
            self.connections, self.rounds
        );
        println!(
            "{:<12}{:>14}{:>10}{:>10}{:>10}{:>14}{:>13}",
            "", "deliveries/s", "ratio", "p50 ms", "p99 ms", "processor µs", "mean batch"
        );
        let start = |name: &str, rounds: &[Round], ratio: f64| {
            let (rps, p50, p99) = (
                per_second(rounds),
                of_share(rounds, 0.5),
                of_share(rounds, 0.99),
            );
            let processor = processor_us(rounds);
            format!("{name:<12}{rps:>14.0}{ratio:>10.3}{p50:>10.2}{p99:>10.2}{processor:>14.0}")
        };
        println!("{}", start("ceiling", &measured.ceiling, 1.0));
        for engine in &measured.engines {
            let (name, ratio) = (engine.engine.as_str(), measured.to_ceiling(engine));
            let line = start(name, &engine.rounds, ratio);
            println!("{line}{:>13.1}", mean_batch(engine.commits));
        }
        if let Some(ratio) = measured.postgres_to_sqlite() {
            println!("postgres to sqlite: {ratio:.3}");
        }
    }

    /// SQLite's figures stand by themselves, as they do where nothing else is measured.
    fn figures(&self, measured: &Measured) -> Value {
        let mut figures = json!({
            "connections": self.connections,
            "deliveries_per_round": self.deliveries,
            "rounds": self.rounds,
            "ceiling_rps": per_second(&measured.ceiling).round(),
            "ceiling_p50_ms": round3(of_share(&measured.ceiling, 0.50)),
            "ceiling_p99_ms": round3(of_share(&measured.ceiling, 0.99)),
            "ceiling_processor_us": round3(processor_us(&measured.ceiling)),
        });
        for engine in &measured.engines {
            let durable = json!({
                "durable_rps": per_second(&engine.rounds).round(),
                "ratio": round3(measured.to_ceiling(engine)),
                "p50_ms": round3(of_share(&engine.rounds, 0.50)),
                "p99_ms": round3(of_share(&engine.rounds, 0.99)),
                "durable_processor_us": round3(processor_us(&engine.rounds)),
                "commits": engine.commits.commits,
                "mean_batch": round3(mean_batch(engine.commits)),
            });
            match (engine.engine, durable) {
                (Engine::Sqlite, Value::Object(durable)) => {
                    durable
                        .into_iter()
                        .for_each(|(name, figure)| figures[name] = figure);
                }
                (engine, durable) => figures[engine.as_str()] = durable,
            }
        }
        if let Some(ratio) = measured.postgres_to_sqlite() {
            figures["postgres_to_sqlite"] = round3(ratio).into();
        }
        figures
    }
}

impl Measured {
    /// How fast an engine was where the ceiling is 1.
    fn to_ceiling(&self, engine: &MeasuredEngine) -> f64 {
        ratio(&engine.rounds, &self.ceiling)
    }

    fn postgres_to_sqlite(&self) -> Option<f64> {
        let of = |wanted| self.engines.iter().find(|engine| engine.engine == wanted);
        Some(ratio(
            &of(Engine::Postgres)?.rounds,
            &of(Engine::Sqlite)?.rounds,
        ))
    }
}

/// Of rounds that took turns, each against its neighbour.
fn ratio(rounds: &[Round], others: &[Round]) -> f64 {
    let pairs = rounds.iter().zip(others);
    median(pairs.map(|(round, other)| round.per_second() / other.per_second()))
}

fn per_second(rounds: &[Round]) -> f64 {
    median(rounds.iter().map(Round::per_second))
}

fn processor_us(rounds: &[Round]) -> f64 {
    median(rounds.iter().map(Round::processor_us))
}

/// The latency that `share` of the answers did not exceed, in milliseconds.
fn of_share(rounds: &[Round], share: f64) -> f64 {
    let of = |round: &Round| millis(quantile(&round.latencies, share));
    median(rounds.iter().map(of))
}

impl Paths {
    async fn serve(ledgers: &Ledgers, clock: &Clock) -> Result<Self, String> {
        let stop = CancellationToken::new();
        let mut durable = Vec::new();
        for ledger in &ledgers.all {
            durable.push(Durable::serve(ledger, clock, &stop).await?);
        }
        let sqlite = durable.first().ok_or("nothing to measure")?;
        let ceiling = Router::new().route("/webhook", post(verify_and_decode));
        let ceiling = ceiling.with_state(Arc::clone(&sqlite.stage));
        Ok(Self {
            ceiling: spawn(ceiling, clock, &stop).await?,
            durable,
            stop,
        })
    }

    async fn close(self) {
        self.stop.cancel();
        for path in self.durable {
            path.store.close().await;
        }
    }
}

impl Durable {
    async fn serve(
        ledger: &Ledger,
        clock: &Clock,
        stop: &CancellationToken,
    ) -> Result<Self, String> {
        let store = ledger.open(clock).await?;
        let timing = Timing {
            lease_ttl: Duration::from_secs(3600),
            renew_every: Duration::from_secs(3600),
        };
        let membership = Membership::join(store.clone(), clock.clone(), timing)
            .await
            .map_err(|error| error.to_string())?;
        let stage = stage(store.clone(), membership, clock);
        Ok(Self {
            engine: ledger.engine,
            address: spawn(stage.router(), clock, stop).await?,
            stage,
            store,
        })
    }
}

fn stage(store: SharedStore, membership: Arc<Membership>, clock: &Clock) -> Arc<Stage> {
    let parts = IngressParts {
        store,
        membership,
        secrets: AppSecrets::new(Secret::new(APP_SECRET), None),
        tokens: VerifyTokens::new(Secret::new("bench"), None),
        relays: Relays::default(),
        only_number: None,
        clock: clock.clone(),
        metrics: Metrics::new(),
        receiving: Arc::new(AtomicBool::new(true)),
        plain_identifiers: false,
    };
    let limits = IngressLimits {
        body_max: 3_500_000,
        body_timeout: Duration::from_secs(10),
        body_memory_max: 256_000_000,
        store_wait_max: Duration::from_secs(60),
    };
    Stage::new(parts, limits)
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
