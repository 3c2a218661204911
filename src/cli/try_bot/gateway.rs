//! The real Hapax between the pretend Meta and the bot: in this process, with a ledger of its own.

use std::net::Ipv4Addr;
use std::path::Path;

use tokio::net::TcpListener;

use super::environment::{APP_SECRET, NUMBER, TOKEN, VERIFY_TOKEN};
use super::way::AUTHORITY;
use super::{Done, RetryId};
use crate::app::{self, Listeners, Parts, Running};
use crate::clock::Clock;
use crate::config::{self, Config, Sources};

/// Meta's highest throughput: the pretend people are faster than the default of 80 a second.
const PER_SECOND: u32 = 1000;

/// What the gateway is to stand between.
pub(super) struct Between<'a> {
    /// The pretend Graph API.
    pub(super) graph: &'a str,
    /// The bot's webhook.
    pub(super) bot: &'a str,
    /// When a message counts as done.
    pub(super) done: Done,
    /// Under which id a message comes to the bot again.
    pub(super) retry_id: RetryId,
    /// For the ledger.
    pub(super) folder: &'a Path,
}

pub(super) async fn start(between: &Between<'_>, clock: &Clock) -> Result<Running, String> {
    let config = settings(between)?;
    // Fails where it is set up already, which is as good.
    let _ = app::init_logging(&config.log, clock.clone());
    let bind = async || {
        let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        bound.map_err(|error| format!("no port: {error}"))
    };
    let parts = Parts {
        listeners: Listeners {
            public: bind().await?,
            bot: bind().await?,
            admin: bind().await?,
        },
        clock: clock.clone(),
        handler: None,
    };
    let started = app::start(&config, parts).await;
    started.map_err(|error| error.to_string())
}

fn settings(between: &Between<'_>) -> Result<Config, String> {
    let wanted = ["HAPAX_LOG", "HAPAX_LOG_FORMAT"];
    let mut env: Vec<(String, String)> = Sources::from_process(None, None)
        .env
        .into_iter()
        .filter(|(name, _)| wanted.contains(&name.as_str()))
        .collect();
    let asked_for_logs = env.iter().any(|(name, _)| name == "HAPAX_LOG");
    let ledger = format!("sqlite:{}", between.folder.join("hapax.db").display());
    let authority = between.folder.join(AUTHORITY).display().to_string();
    let settings = [
        ("HAPAX_STORE", ledger.as_str()),
        ("HAPAX_BOT_CA_DIR", authority.as_str()),
        ("HAPAX_HANDLER", "forward"),
        ("HAPAX_BOT_URL", between.bot),
        ("HAPAX_FORWARD_DONE", between.done.as_str()),
        ("HAPAX_FORWARD_RETRY_ID", between.retry_id.as_str()),
        // Somebody watches: the long waits of a bad minute are not for them.
        ("HAPAX_TURN_BACKOFF_MAX", "8s"),
        ("WHATSAPP_ACCESS_TOKEN", TOKEN),
        ("WHATSAPP_APP_SECRET", APP_SECRET),
        ("WHATSAPP_VERIFY_TOKEN", VERIFY_TOKEN),
        ("WHATSAPP_PHONE_NUMBER_ID", NUMBER),
        ("WHATSAPP_API_URL", between.graph),
    ];
    let set = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    env.extend(settings.map(set));
    let sources = Sources {
        env,
        ..Sources::default()
    };
    let loaded = config::load(sources).map_err(|faults| faults.to_string())?;
    let mut config = loaded.config;
    config.send.per_second = PER_SECOND;
    if !asked_for_logs {
        // The line on the terminal is what one looks at.
        "error".clone_into(&mut config.log.level);
    }
    Ok(config)
}
