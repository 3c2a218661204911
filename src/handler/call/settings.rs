//! What is asked of an operator to call a bot, and every way in which that can be wrong.

use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderMap, HeaderValue};
use reqwest::{Client, redirect, retry};
use rustls::crypto::ring;

/// How long an unused TLS connection is kept. Shorter than the keep-alive of what bots stand
/// behind (5 s and more), so that we close first.
const IDLE_MAX: Duration = Duration::from_secs(1);

/// Where a bot is and how it may be called.
#[derive(Clone, PartialEq, Eq)]
pub struct BotSettings {
    /// One URL for each of its workers, at least one. A person always meets the same.
    pub urls: Vec<String>,
    /// Calls at a time to each URL, at least 1.
    pub concurrency: usize,
    /// How long a URL that was down is passed over, where another one is up.
    pub down_for: Duration,
    /// How long a connection may take to come to be, TLS included.
    pub connect_timeout: Duration,
}

/// Why a handler can't be built from its settings. Shows no URL, because one may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// There is nobody to call.
    #[error("expected at least one bot URL, found none")]
    NoUrl,
    /// A URL can't be called.
    #[error("bot URL {position}: expected an http or https URL, found {found}")]
    Url {
        /// Which, from 1.
        position: usize,
        /// What stands there instead.
        found: String,
    },
    /// Two URLs are the same: people would not spread over them.
    #[error("bot URL {position}: expected each URL once, found the same as URL {earlier}")]
    Twice {
        /// Which, from 1.
        position: usize,
        /// The one that it repeats.
        earlier: usize,
    },
    /// No call could ever be made.
    #[error("expected at least 1 call at a time to each bot URL, found 0")]
    NoCalls,
    /// The secret can't be a key.
    #[error("secret for signing: expected a text, or whsec_ and base64, found {found}")]
    Secret {
        /// What stands there instead.
        found: &'static str,
    },
    /// TLS can't be set up, for example because the machine has no CA certificates.
    #[error("the HTTP client can't be set up: {0}")]
    Client(String),
}

/// The client that calls the bot.
///
/// It writes no request twice: reqwest's own retries are off, and what hyper-util (0.1,
/// `legacy::Client`) sends again is only a request that it gets back untouched from a reused
/// connection. No proxy: bots are near, and the environment is not read here. Without an https
/// URL no CA certificates are needed.
pub(super) fn client(settings: &BotSettings, https: bool) -> Result<Client, SettingsError> {
    // Whoever was first has chosen the provider for the whole process; any will do.
    let _ = ring::default_provider().install_default();
    let builder = Client::builder()
        .user_agent(concat!("hapax/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .no_proxy()
        .referer(false)
        .http1_only()
        .connect_timeout(settings.connect_timeout);
    let builder = if https {
        builder
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(settings.concurrency)
    } else {
        // A request written into a connection that the bot is just closing is lost, and nobody can
        // say whether it was handled: 4 % of the calls to a bot that closes unannounced, when
        // eight at a time reused connections. A new one costs some 50 µs here. The bot is told,
        // so that it closes first and the ports in TIME_WAIT are not ours.
        let close = HeaderMap::from_iter([(CONNECTION, HeaderValue::from_static("close"))]);
        builder
            .pool_max_idle_per_host(0)
            .default_headers(close)
            .tls_certs_only([])
    };
    let client = builder.build();
    client.map_err(|error| SettingsError::Client(super::fault::innermost(&error)))
}
