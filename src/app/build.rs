//! From settings to parts. Every setting is read here and nowhere further down.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, AdminParts};
use crate::clock::Clock;
use crate::config::{
    Config, EgressWhen, ForwardDone, ForwardNoReply, ForwardRetryId, HandlerConfig, LogIdentifiers,
    TurnPolicy,
};
use crate::egress::{Egress, EgressParts, EgressSettings};
use crate::handler::{
    Ask, AskSettings, BotSettings, Echo, Forward, ForwardSettings, SettingsError,
};
use crate::ingress::{Ingress, IngressLimits, IngressParts};
use crate::janitor::{Janitor, JanitorParts, JanitorSettings};
use crate::listener::Limits;
use crate::model::{Backoff, Handler, Message};
use crate::relay::{Relay, RelayParts, RelaySettings};
use crate::sender::{SendPolicy, Sender, SenderParts, SenderSettings};
use crate::store::{Membership, Policy, SendWhen, SharedStore, StoreError, Timing};
use crate::telemetry::Metrics;
use crate::threads::{self, ThreadParts, ThreadSettings};
use crate::whatsapp::passage::Passage;
use crate::whatsapp::{self, AppSecrets, Graph, GraphSettings, Relays, VerifyTokens, signature};
use crate::worker::{NoReply, ReplyPolicy, RetryPolicy, Worker, WorkerParts, WorkerSettings};

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address can't be listened on.
    #[error("{key}: expected a free address, found one in use or not of this machine: {source}")]
    Listen {
        /// The setting.
        key: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The store can't be opened or joined.
    #[error("store.url (HAPAX_STORE): {0}")]
    Store(#[from] StoreError),
    /// The bot can't be called as configured.
    #[error("handler.bot_url (HAPAX_BOT_URL): {0}")]
    Handler(#[from] SettingsError),
    /// The way to Meta can't be built.
    #[error("whatsapp.api_url (WHATSAPP_API_URL): {0}")]
    Graph(String),
    /// The system refused something it always grants.
    #[error("the system refused: {0}")]
    System(#[from] io::Error),
}

/// The longest life of a connection; a reverse proxy opens a new one without ado.
const CONNECTION_AGE: Duration = Duration::from_secs(3600);
/// A bot's connection that takes longer than this is as good as refused.
const BOT_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a URL of an asked bot that refused is passed over, where another one is up.
const ASK_DOWN_FOR: Duration = Duration::from_secs(5);
/// One in so many of the calls to a URL may hand over a status or notice, and at most so many.
const RELAY_SHARE: usize = 4;
const RELAY_CALLS_MAX: usize = 8;
/// A bot has nothing to think about when it gets one.
const RELAY_DEADLINE_MAX: Duration = Duration::from_secs(30);
/// How often one is tried that the bot does not take, though it is there.
const RELAY_ATTEMPTS_MAX: u32 = 4;
/// How often the sender and the worker look after what only time can settle.
const TEND_EVERY: Duration = Duration::from_secs(1);

/// The stages, ready to run.
pub(super) struct Stages {
    pub(super) membership: Arc<Membership>,
    pub(super) ingress: Arc<Ingress>,
    pub(super) worker: Arc<Worker>,
    pub(super) sender: Arc<Sender>,
    /// Only where the operator asks for it.
    pub(super) relay: Option<Arc<Relay>>,
    pub(super) janitor: Janitor,
    pub(super) egress: Arc<Egress>,
    pub(super) admin: Router,
    /// Whether deliveries are being answered 200.
    pub(super) receiving: Arc<AtomicBool>,
}

pub(super) async fn stages(
    config: &Config,
    store: SharedStore,
    clock: Clock,
    handler: Option<Arc<dyn Handler>>,
) -> Result<Stages, StartError> {
    let (handler, bot) = match handler {
        Some(handler) => (handler, None),
        None => configured_handler(config, clock.clone())?,
    };
    let relays = relays(config, bot.is_some());
    let graph = graph(config, clock.clone())?;
    let membership = Membership::join(store.clone(), clock.clone(), timing(config)).await?;
    let metrics = Metrics::new();
    let receiving = Arc::new(AtomicBool::new(true));
    let ingress = ingress(
        config,
        &store,
        &membership,
        &clock,
        &metrics,
        &receiving,
        relays,
    );
    let worker = Worker::new(
        WorkerParts {
            store: store.clone(),
            membership: Arc::clone(&membership),
            handler,
            graph: graph.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
        },
        worker_settings(config),
    );
    let sender = Sender::new(
        SenderParts {
            store: store.clone(),
            membership: Arc::clone(&membership),
            graph,
            clock: clock.clone(),
            metrics: metrics.clone(),
            receiving: Arc::clone(&receiving),
        },
        sender_settings(config),
    );
    let bot = bot.filter(|_| relays.any());
    let relay = bot.map(|bot| relay(config, bot, &store, &membership, &clock, &metrics));
    let janitor = janitor(config, &store, &membership, &clock, &metrics);
    let egress = egress(config, &store, &clock, &metrics)?;
    let admin = admin::router(AdminParts {
        store,
        metrics,
        token: config.admin.token.clone(),
    });
    Ok(Stages {
        membership,
        ingress,
        worker,
        sender,
        relay,
        janitor,
        egress,
        admin,
        receiving,
    })
}

fn timing(config: &Config) -> Timing {
    Timing {
        lease_ttl: config.node.lease_ttl,
        renew_every: config.node.renew_every,
    }
}

fn relay(
    config: &Config,
    bot: Arc<Forward>,
    store: &SharedStore,
    membership: &Arc<Membership>,
    clock: &Clock,
    metrics: &Metrics,
) -> Arc<Relay> {
    let parts = RelayParts {
        store: store.clone(),
        membership: Arc::clone(membership),
        bot,
        clock: clock.clone(),
        metrics: metrics.clone(),
    };
    Relay::new(parts, relay_settings(config))
}

fn janitor(
    config: &Config,
    store: &SharedStore,
    membership: &Arc<Membership>,
    clock: &Clock,
    metrics: &Metrics,
) -> Janitor {
    let parts = JanitorParts {
        store: store.clone(),
        membership: Arc::clone(membership),
        clock: clock.clone(),
        metrics: metrics.clone(),
    };
    let settings = JanitorSettings {
        keys: config.retention.keys,
        payloads: config.retention.payloads,
        relays: config.turn.unavailable_max,
        every: config.retention.every,
    };
    Janitor::new(parts, settings)
}

fn ingress(
    config: &Config,
    store: &SharedStore,
    membership: &Arc<Membership>,
    clock: &Clock,
    metrics: &Metrics,
    receiving: &Arc<AtomicBool>,
    relays: Relays,
) -> Arc<Ingress> {
    let whatsapp = &config.whatsapp;
    let parts = IngressParts {
        store: store.clone(),
        membership: Arc::clone(membership),
        secrets: AppSecrets::new(
            whatsapp.app_secret.clone(),
            whatsapp.app_secret_previous.clone(),
        ),
        tokens: VerifyTokens::new(
            whatsapp.verify_token.clone(),
            whatsapp.verify_token_previous.clone(),
        ),
        only_number: whatsapp.phone_number_id.clone(),
        relays,
        clock: clock.clone(),
        metrics: metrics.clone(),
        receiving: Arc::clone(receiving),
        plain_identifiers: config.log.identifiers == LogIdentifiers::Plain,
    };
    let limits = IngressLimits {
        body_max: config.public.body_max,
        body_timeout: config.public.body_timeout,
        body_memory_max: config.public.body_memory_max,
        store_wait_max: config.store.wait_max,
    };
    Ingress::new(parts, limits)
}

fn graph(config: &Config, clock: Clock) -> Result<Graph, StartError> {
    Graph::new(&graph_settings(config), clock).map_err(|error| StartError::Graph(error.to_string()))
}

fn egress(
    config: &Config,
    store: &SharedStore,
    clock: &Clock,
    metrics: &Metrics,
) -> Result<Arc<Egress>, StartError> {
    let access_token = &config.whatsapp.access_token;
    let passage = Passage::new(&graph_settings(config), clock.clone());
    let parts = EgressParts {
        store: store.clone(),
        passage: passage.map_err(|error| StartError::Graph(error.to_string()))?,
        clock: clock.clone(),
        metrics: metrics.clone(),
        token: config.egress.token.as_ref().unwrap_or(access_token).clone(),
        only_number: config.whatsapp.phone_number_id.clone(),
    };
    let settings = EgressSettings {
        answer_within: config.egress.answer_within,
        when: match config.egress.when {
            EgressWhen::Now => SendWhen::Now,
            EgressWhen::AtFinish => SendWhen::AtFinish,
        },
        tail: match &config.handler {
            HandlerConfig::Forward(forward) => forward.tail,
            HandlerConfig::Echo | HandlerConfig::Ask(_) => Duration::ZERO,
        },
        body_timeout: config.public.body_timeout,
        store_wait_max: config.store.wait_max,
    };
    Ok(Egress::new(parts, settings))
}

fn graph_settings(config: &Config) -> GraphSettings {
    GraphSettings {
        base_url: config.whatsapp.api_url.clone(),
        version: config.whatsapp.api_version.clone(),
        access_token: config.whatsapp.access_token.clone(),
        // The client counts its own from the established connection; the setting holds both.
        timeout: config
            .send
            .timeout
            .saturating_sub(config.send.connect_timeout),
        connect_timeout: config.send.connect_timeout,
    }
}

/// What answers turns, and the same as the way to a bot that takes more than messages.
type Configured = (Arc<dyn Handler>, Option<Arc<Forward>>);

fn configured_handler(config: &Config, clock: Clock) -> Result<Configured, StartError> {
    let bot = |urls: &[String], concurrency, down_for| BotSettings {
        urls: urls.to_vec(),
        concurrency,
        down_for,
        connect_timeout: BOT_CONNECT_TIMEOUT,
    };
    Ok(match &config.handler {
        HandlerConfig::Echo => (Arc::new(Echo), None),
        HandlerConfig::Forward(forward) => {
            let secret = config.whatsapp.app_secret.clone();
            let settings = ForwardSettings {
                bot: bot(&forward.bot_urls, forward.concurrency, forward.down_for),
                of_numbers: forward
                    .number_urls
                    .iter()
                    .map(|(number, url)| {
                        let urls = std::slice::from_ref(url);
                        (
                            number.clone(),
                            bot(urls, forward.concurrency, forward.down_for),
                        )
                    })
                    .collect(),
                rename: match forward.retry_id {
                    ForwardRetryId::Same => None,
                    ForwardRetryId::Fresh => Some(Arc::new(|message: &Message, epoch| {
                        whatsapp::message::renamed(&message.envelope, &message.id, epoch)
                    })),
                },
                sign: Arc::new(move |body| signature::AppSecrets::sign(&secret, body)),
            };
            let forward = Arc::new(Forward::new(settings, clock)?);
            (forward.clone(), Some(forward))
        }
        HandlerConfig::Ask(ask) => {
            let settings = AskSettings {
                bot: bot(&ask.bot_urls, config.worker.concurrency, ASK_DOWN_FOR),
                secret: ask.secret.clone(),
            };
            (Arc::new(Ask::new(settings, clock)?), None)
        }
    })
}

/// What the bot gets beside messages, if there is a way to it.
fn relays(config: &Config, has_bot: bool) -> Relays {
    match &config.handler {
        HandlerConfig::Forward(forward) if has_bot => Relays {
            statuses: forward.statuses,
            notices: forward.notices,
        },
        HandlerConfig::Forward(_) | HandlerConfig::Echo | HandlerConfig::Ask(_) => {
            Relays::default()
        }
    }
}

fn relay_settings(config: &Config) -> RelaySettings {
    let concurrency = match &config.handler {
        HandlerConfig::Forward(forward) => forward.concurrency,
        HandlerConfig::Echo | HandlerConfig::Ask(_) => 1,
    };
    let turn = &config.turn;
    RelaySettings {
        // Messages go first: most of the calls to a URL are left to them.
        concurrency: (concurrency / RELAY_SHARE).clamp(1, RELAY_CALLS_MAX),
        deadline: turn.deadline.min(RELAY_DEADLINE_MAX),
        attempts_max: RELAY_ATTEMPTS_MAX,
        backoff: Backoff {
            first: turn.backoff_first,
            factor: 2,
            max: turn.backoff_max,
        },
        unavailable_wait_max: turn.unavailable_backoff_max,
    }
}

fn worker_settings(config: &Config) -> WorkerSettings {
    let turn = &config.turn;
    WorkerSettings {
        concurrency: config.worker.concurrency,
        policy: match turn.policy {
            TurnPolicy::Queue => Policy::Queue,
        },
        deadline: turn.deadline,
        retry: RetryPolicy {
            attempts_max: turn.attempts_max,
            backoff: Backoff {
                first: turn.backoff_first,
                factor: 2,
                max: turn.backoff_max,
            },
            unavailable_max: turn.unavailable_max,
            unavailable_wait_max: turn.unavailable_backoff_max,
        },
        reply: reply_policy(&config.handler),
        mark_read: turn.mark_read,
        tend_every: TEND_EVERY,
    }
}

/// When a turn is done that the bot has acknowledged; `None`: at once.
fn reply_policy(handler: &HandlerConfig) -> Option<ReplyPolicy> {
    let HandlerConfig::Forward(forward) = handler else {
        return None;
    };
    match forward.done {
        ForwardDone::Response => None,
        ForwardDone::Reply => Some(ReplyPolicy {
            wait: forward.reply_wait,
            tail: forward.tail,
            none: match forward.no_reply {
                ForwardNoReply::Retry => NoReply::Retry,
                ForwardNoReply::Silence => NoReply::Silence,
                ForwardNoReply::DeadLetter => NoReply::Dead,
            },
        }),
    }
}

fn sender_settings(config: &Config) -> SenderSettings {
    let send = &config.send;
    SenderSettings {
        concurrency: send.concurrency,
        per_second: send.per_second,
        policy: SendPolicy {
            retry_max: send.retry_max,
            backoff_first: send.backoff_first,
            pause: send.pause,
        },
        unsure_wait: send.unsure_wait,
        tend_every: TEND_EVERY,
    }
}

pub(super) fn limits(config: &Config) -> Limits {
    Limits {
        connections: config.public.connections_max,
        header: config.public.header_timeout,
        age: CONNECTION_AGE,
        drain: config.worker.drain_timeout / 2,
    }
}

/// What the bot side serves.
pub(super) fn bot_side(
    config: &Config,
    store: SharedStore,
    clock: Clock,
    egress: &Arc<Egress>,
    stop: CancellationToken,
) -> Router {
    let parts = ThreadParts {
        store,
        clock,
        token: config.bot.token.clone(),
        only_number: config.whatsapp.phone_number_id.clone(),
        stop,
    };
    let settings = ThreadSettings {
        create_timeout: config.thread.create_timeout,
        wait_max: config.thread.wait_max,
        body_timeout: config.public.body_timeout,
        store_wait_max: config.store.wait_max,
    };
    threads::router(parts, settings).merge(egress.router())
}

pub(super) fn address(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    Ok(listener.local_addr()?)
}
