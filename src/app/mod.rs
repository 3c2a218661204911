//! Builds the parts from the configuration, starts the stages, and drains them.

mod build;
mod gateway;
pub mod store;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub use self::build::StartError;
pub use self::gateway::{Gateway, init_logging};
use crate::clock::Clock;
use crate::config::Config;
use crate::guard;
use crate::listener;
use crate::model::Handler;
use crate::proxy;
use crate::store::{Membership, SharedStore};

/// What the caller owns and hands in.
pub struct Parts {
    /// Bound sockets.
    pub listeners: Listeners,
    /// Time.
    pub clock: Clock,
    /// What answers, in place of the configured handler.
    pub handler: Option<Arc<dyn Handler>>,
}

/// The three doors.
pub struct Listeners {
    /// For Meta.
    pub public: TcpListener,
    /// For the bot.
    pub bot: TcpListener,
    /// For operators.
    pub admin: TcpListener,
}

impl Listeners {
    /// Binds all three. The error names the setting whose address is taken.
    pub async fn bind(config: &Config) -> Result<Self, StartError> {
        let bind = async |key: &'static str, address: SocketAddr| {
            let bound = listener::bind(address).await;
            bound.map_err(|source| StartError::Listen { key, source })
        };
        Ok(Self {
            public: bind(
                "public.listen (HAPAX_PUBLIC_LISTEN, PORT)",
                config.public.listen,
            )
            .await?,
            bot: bind("bot.listen (HAPAX_BOT_LISTEN)", config.bot.listen).await?,
            admin: bind("admin.listen (HAPAX_ADMIN_LISTEN)", config.admin.listen).await?,
        })
    }
}

/// A gateway at work.
pub struct Running {
    /// Where Meta's deliveries are taken.
    pub public: SocketAddr,
    /// Where the bot's calls are taken.
    pub bot: SocketAddr,
    /// Where figures are shown.
    pub admin: SocketAddr,
    store: SharedStore,
    membership: Arc<Membership>,
    clock: Clock,
    drain_timeout: Duration,
    receiving: Arc<AtomicBool>,
    stops: Stops,
    doors: TaskTracker,
    bot_door: TaskTracker,
    workers: TaskTracker,
    senders: TaskTracker,
    tenders: TaskTracker,
}

/// The stages stop one after the other, in the order in which a message walks through them.
#[derive(Default)]
struct Stops {
    doors: CancellationToken,
    /// The bot's, through which turns that are under way may still want to send.
    bot_door: CancellationToken,
    worker: CancellationToken,
    /// Turns under way are given back.
    cut: CancellationToken,
    sender: CancellationToken,
    tenders: CancellationToken,
}

/// Starts everything; returns when deliveries are taken.
///
/// # Errors
/// The store can't be opened, or a setting can't be carried out. Nothing runs then.
pub async fn start(config: &Config, parts: Parts) -> Result<Running, StartError> {
    let Parts {
        listeners,
        clock,
        handler,
    } = parts;
    warn_of_sabotage();
    let store = store::open(&config.store, clock.clone()).await?;
    let built = build::stages(config, store.clone(), clock.clone(), handler).await?;
    let running = Running {
        public: build::address(&listeners.public)?,
        bot: build::address(&listeners.bot)?,
        admin: build::address(&listeners.admin)?,
        store,
        membership: built.membership,
        clock: clock.clone(),
        drain_timeout: config.worker.drain_timeout,
        receiving: built.receiving,
        stops: Stops::default(),
        doors: TaskTracker::new(),
        bot_door: TaskTracker::new(),
        workers: TaskTracker::new(),
        senders: TaskTracker::new(),
        tenders: TaskTracker::new(),
    };
    let (stops, senders, tenders) = (&running.stops, &running.senders, &running.tenders);
    let membership = Arc::clone(&running.membership);
    let tender = stops.tenders.clone();
    tenders.spawn(async move { membership.keep(tender).await });
    tenders.spawn(Arc::clone(&built.worker).tend(stops.tenders.clone()));
    tenders.spawn(Arc::clone(&built.sender).tend(stops.tenders.clone()));
    tenders.spawn(built.janitor.run(stops.tenders.clone()));
    running
        .workers
        .spawn(built.worker.run(stops.worker.clone(), stops.cut.clone()));
    senders.spawn(built.sender.run(stops.sender.clone()));
    if let Some(relay) = built.relay {
        senders.spawn(relay.run(stops.sender.clone()));
    }
    let bot_side = build::bot_side(
        config,
        running.store.clone(),
        clock,
        &built.egress,
        stops.bot_door.clone(),
    );
    senders.spawn(built.egress.run(stops.sender.clone()));
    let routers = Routers {
        public: built.ingress.router(),
        bot: bot_side,
        admin: built.admin,
    };
    running.open_doors(config, listeners, routers);
    Ok(running)
}

/// What is served at the doors.
struct Routers {
    public: Router,
    bot: Router,
    admin: Router,
}

/// Nobody shall take such a process for a gateway.
fn warn_of_sabotage() {
    let off = guard::switched_off().unwrap_or_default();
    if !off.is_empty() {
        let reason = format!("{}: {}", guard::VARIABLE, guard::names(off));
        warn!(
            reason,
            "SABOTAGE: guards are switched off and promises will be broken; never for a real bot"
        );
    }
}

/// How long releasing and closing may take after the turns under way were cut.
const CUT_GRACE: Duration = Duration::from_secs(2);

impl Running {
    /// Takes calls at every door, until the doors are stopped.
    fn open_doors(&self, config: &Config, listeners: Listeners, routers: Routers) {
        let limits = build::limits(config);
        let (clock, stop) = (&self.clock, &self.stops.doors);
        self.bot_door.spawn(proxy::serve(
            listeners.bot,
            routers.bot,
            config.bot.ca_dir.clone(),
            limits,
            clock.clone(),
            self.stops.bot_door.clone(),
        ));
        for (listener, router) in [
            (listeners.public, routers.public),
            (listeners.admin, routers.admin),
        ] {
            let served = listener::serve(listener, router, limits, clock.clone(), stop.clone());
            self.doors.spawn(served);
        }
    }

    /// Where the deliveries go, from this machine.
    pub fn webhook_url(&self) -> String {
        format!("http://{}/webhook", self.public)
    }

    /// The ledger, to look into.
    pub const fn store(&self) -> &SharedStore {
        &self.store
    }

    /// Returns when the store has failed for good, with the reason. The process must end then.
    pub async fn failed(&self) -> Arc<str> {
        let mut fatal = self.store.fatal();
        loop {
            if let Some(reason) = fatal.borrow_and_update().clone() {
                return reason;
            }
            if fatal.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Stops taking deliveries, lets what is under way finish, gives back what does not finish
    /// within the drain time-out, and closes the store.
    pub async fn drain(self) {
        let started = self.clock.boottime();
        let left = || {
            self.drain_timeout
                .saturating_sub(self.clock.boottime() - started)
        };
        let grace = CUT_GRACE.min(self.drain_timeout / 4);
        info!(
            drain_timeout_ms = self.drain_timeout.as_millis() as u64,
            "draining"
        );
        self.stops.doors.cancel();
        self.doors.close();
        self.stops.worker.cancel();
        self.workers.close();
        let closed = async {
            self.doors.wait().await;
            // No receipt gets in here any more, while sends may still wait for one.
            self.receiving.store(false, Ordering::Relaxed);
        };
        let finished = async { tokio::join!(closed, self.workers.wait()) };
        if self
            .clock
            .timeout(left().saturating_sub(grace), finished)
            .await
            .is_err()
        {
            warn!("turns that did not finish in time are given back");
            self.stops.cut.cancel();
            let released = self
                .clock
                .timeout(left().max(grace / 2), self.workers.wait())
                .await;
            if released.is_err() {
                warn!("some turns could not be given back; their lease will end");
            }
        }
        // Nobody is under way any more who might want to send.
        self.stops.bot_door.cancel();
        self.bot_door.close();
        let closed = self
            .clock
            .timeout(left().max(grace / 2), self.bot_door.wait());
        if closed.await.is_err() {
            warn!("some calls of the bot's were cut; what they asked to send is on record");
        }
        self.stops.sender.cancel();
        self.senders.close();
        if self
            .clock
            .timeout(left().max(grace / 2), self.senders.wait())
            .await
            .is_err()
        {
            warn!("some sends did not finish in time; their receipts will tell");
        }
        self.stops.tenders.cancel();
        self.tenders.close();
        self.tenders.wait().await;
        if let Err(error) = self.membership.leave().await {
            warn!(%error, "could not leave in order; the lease will end");
        }
        self.store.close().await;
        info!("drained");
    }
}
