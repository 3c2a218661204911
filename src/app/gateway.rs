//! A gateway as a whole process: settings, signals, exit code.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info};

use super::store::place;
use super::{Listeners, Parts, Running, StartError, start};
use crate::clock::Clock;
use crate::config::{self, Loaded, LogConfig, Sources};
use crate::model::Handler;
use crate::telemetry::{self, LogError, LogFormat, logging};

/// Settings were wrong or an address was taken.
const EXIT_SETTINGS: u8 = 2;
/// The store failed; `EX_IOERR` of sysexits(3). A supervisor starts the process again.
const EXIT_STORE: u8 = 74;
/// A second signal ended the process before it had drained.
const EXIT_AT_ONCE: u8 = 130;

/// A gateway that is configured like the `hapax` binary, with its handler or with yours.
pub struct Gateway {
    handler: Option<Arc<dyn Handler>>,
    config_file: Option<PathBuf>,
    env_file: Option<PathBuf>,
}

impl Gateway {
    /// Every turn is answered by `handler`.
    pub fn new(handler: impl Handler + 'static) -> Self {
        Self {
            handler: Some(Arc::new(handler)),
            config_file: None,
            env_file: None,
        }
    }

    /// Turns are answered by the handler that the configuration names.
    pub fn configured() -> Self {
        Self {
            handler: None,
            config_file: None,
            env_file: None,
        }
    }

    /// Reads this TOML file instead of `hapax.toml`.
    #[must_use]
    pub fn config_file(mut self, path: Option<PathBuf>) -> Self {
        self.config_file = path;
        self
    }

    /// Reads settings from a file of `NAME=value` lines as well.
    #[must_use]
    pub fn env_file(mut self, path: Option<PathBuf>) -> Self {
        self.env_file = path;
        self
    }

    /// Runs until SIGTERM or SIGINT, then drains; a second signal ends it at once.
    ///
    /// Answers 0 after a drain, 2 for wrong settings or a taken address, 74 when the store has
    /// failed, 130 after a second signal. What went wrong is on stderr.
    pub async fn run(self) -> ExitCode {
        let mut sources = Sources::from_process(self.config_file, self.env_file);
        if self.handler.is_some() {
            // The settings demand a handler; the one given here takes its place.
            sources
                .env
                .push(("HAPAX_HANDLER".to_owned(), "echo".to_owned()));
        }
        let loaded = match config::load(sources) {
            Ok(loaded) => loaded,
            Err(faults) => return fault(&faults.to_string()),
        };
        if let Err(error) = init_logging(&loaded.config.log, Clock::system()) {
            return fault(&format!("log.level (HAPAX_LOG): {error}"));
        }
        let handler = match &self.handler {
            Some(_) => "your own",
            None => loaded.config.handler.as_str(),
        };
        // Listened for before anything is served: from then on whoever asks it to end is heard.
        let mut signals = match Signals::listen() {
            Ok(signals) => signals,
            Err(error) => return fault(&format!("signals: {error}")),
        };
        let begun = tokio::select! {
            begun = begin(&loaded, self.handler) => begun,
            // Nothing has been taken yet.
            () = signals.next() => return ExitCode::SUCCESS,
        };
        match begun {
            Ok(running) => attend(running, &loaded, handler, signals).await,
            Err(StartError::Store(error @ crate::store::StoreError::Fatal(_))) => {
                error!(%error, "could not start");
                ExitCode::from(EXIT_STORE)
            }
            Err(error) => fault(&error.to_string()),
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "faults are for the person who typed the command"
)]
fn fault(text: &str) -> ExitCode {
    eprintln!("hapax: {text}");
    ExitCode::from(EXIT_SETTINGS)
}

/// Sends log lines to stderr as the settings say, and panics into the log.
///
/// # Errors
/// The level can't be read, or logging is set up already.
pub fn init_logging(log: &LogConfig, clock: Clock) -> Result<(), LogError> {
    let format = match log.format {
        config::LogFormat::Auto => LogFormat::Auto,
        config::LogFormat::Json => LogFormat::Json,
        config::LogFormat::Pretty => LogFormat::Pretty,
    };
    logging::init(&log.level, format, clock)?;
    telemetry::install_panic_hook();
    Ok(())
}

async fn begin(loaded: &Loaded, handler: Option<Arc<dyn Handler>>) -> Result<Running, StartError> {
    let listeners = Listeners::bind(&loaded.config).await?;
    start(
        &loaded.config,
        Parts {
            listeners,
            clock: Clock::system(),
            handler,
        },
    )
    .await
}

async fn attend(
    running: Running,
    loaded: &Loaded,
    handler: &str,
    mut signals: Signals,
) -> ExitCode {
    announce(&running, loaded, handler);
    tokio::select! {
        reason = running.failed() => {
            error!(%reason, "the store has failed: nothing is answered 200 from here on; the \
                             process ends, and what was acknowledged is on disk");
            return ExitCode::from(EXIT_STORE);
        }
        () = signals.next() => {}
    }
    tokio::select! {
        () = running.drain() => ExitCode::SUCCESS,
        () = signals.next() => {
            error!("a second signal: ended at once; leases and receipts will tell the rest");
            ExitCode::from(EXIT_AT_ONCE)
        }
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Says on stdout what one needs to connect Meta and the bot.
#[expect(clippy::print_stdout, reason = "for the person who typed the command")]
fn announce(running: &Running, loaded: &Loaded, handler: &str) {
    let config = &loaded.config;
    for note in &loaded.notes {
        info!(note, "settings");
    }
    let webhook = match &config.public.url {
        Some(url) => format!("{}/webhook", url.trim_end_matches('/')),
        None => format!(
            "{}  (Meta needs https: a tunnel or a TLS proxy)",
            running.webhook_url()
        ),
    };
    println!("hapax {}", env!("CARGO_PKG_VERSION"));
    println!("  webhook       {webhook}");
    println!(
        "  verify token  from {}",
        loaded.origins.of("whatsapp.verify_token")
    );
    println!("  store         {}", place(&config.store));
    println!("  handler       {handler}");
    println!(
        "  bot side      http://{}  (in place of https://graph.facebook.com)",
        running.bot
    );
    println!("  admin         http://{}/metrics", running.admin);
    info!(public = %running.public, bot = %running.bot, admin = %running.admin,
          handler, store = place(&config.store), "serving");
}
