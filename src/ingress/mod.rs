//! Stage 1: verify, decode, append, and only then 200. Waits for nobody but the store.
//!
//! What is rightly signed is kept and answered 200, whatever it says: any other answer earns
//! seven days of redelivery. What is not from Meta is refused before it costs anything.

mod failures;
mod receive;
mod tell;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderName, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use tokio::sync::Semaphore;

use self::failures::Failures;
pub use self::receive::{Refusal, Verified};
use crate::clock::Clock;
use crate::crash_point::{self, Point};
use crate::guard::{self, Guard};
use crate::model::{Answer, Event, NumberId, Timestamp};
use crate::store::{
    Answered, Appended, AppendedEvent, Delivery, Membership, SharedStore, StoreError, Verdict,
};
use crate::telemetry::Metrics;
use crate::whatsapp::{self, AppSecrets, Handshake, Relays, VerifyTokens};

/// The bounds of ingress.
#[derive(Debug, Clone, Copy)]
pub struct IngressLimits {
    /// The longest body, in bytes. Meta's limit is 3 MB.
    pub body_max: usize,
    /// The longest wait for a body.
    pub body_timeout: Duration,
    /// The bytes of all bodies under way together.
    pub body_memory_max: usize,
    /// The longest wait for the commit.
    pub store_wait_max: Duration,
}

/// The parts that ingress is made of.
pub struct IngressParts {
    /// The ledger.
    pub store: SharedStore,
    /// This process as the ledger knows it.
    pub membership: Arc<Membership>,
    /// What Meta signs with.
    pub secrets: AppSecrets,
    /// What Meta shows when the webhook is set up.
    pub tokens: VerifyTokens,
    /// Only messages and statuses of this number are taken up; of others a notice is kept.
    pub only_number: Option<NumberId>,
    /// Which events beside messages the bot is to get, once they are stored.
    pub relays: Relays,
    /// Time.
    pub clock: Clock,
    /// Counters.
    pub metrics: Metrics,
    /// Set to whether deliveries are being answered 200.
    pub receiving: Arc<AtomicBool>,
    /// Whether logs name wamids.
    pub plain_identifiers: bool,
}

/// The stage.
pub struct Ingress {
    parts: IngressParts,
    limits: IngressLimits,
    memory: Arc<Semaphore>,
    failures: Failures,
    /// When a delivery was last answered 200, in milliseconds since boot; 0: never.
    heard_at: AtomicU64,
}

/// Who knocks with a wrong signature so soon after Meta was heard is not Meta.
const STRANGER_FOR: Duration = Duration::from_secs(60);
/// What a delivery that can't be stored now is told to wait.
const RETRY_AFTER_SECONDS: &str = "5";
/// How long a 200 that does not wait for its commit goes ahead of it: long enough to be out.
const LATE: Duration = Duration::from_millis(20);

impl Ingress {
    /// The stage, ready to be served.
    pub fn new(parts: IngressParts, limits: IngressLimits) -> Arc<Self> {
        let memory = Arc::new(Semaphore::new(receive::kibibytes(limits.body_memory_max)));
        Arc::new(Self {
            parts,
            limits,
            memory,
            failures: Failures::default(),
            heard_at: AtomicU64::new(0),
        })
    }

    /// What the public listener serves: `/webhook`, `/healthz`, `/readyz`, and nothing else.
    pub fn router(self: &Arc<Self>) -> Router {
        let webhook: MethodRouter<Arc<Self>> = get(handshake).post(deliver);
        Router::new()
            .route("/webhook", webhook)
            .route("/healthz", get(|| async { "alive\n" }))
            .route("/readyz", get(ready))
            .with_state(Arc::clone(self))
    }

    /// Takes one delivery: everything that happens between its head and its answer.
    async fn deliver(&self, request: Request<Body>) -> Response {
        let received = Received {
            at: self.parts.clock.now(),
            clocked: self.parts.clock.boottime(),
        };
        let verified = match self.receive(request).await {
            Ok(verified) => verified,
            Err(refusal) => return self.refuse(refusal, received),
        };
        // Holds its share of memory until it is stored.
        let delivery = Arc::new(self.open(&verified, received.at));
        // If Meta hangs up, this future is dropped at the next await: the guard says so.
        let mut guard = HungUp {
            ingress: self,
            received,
            delivery: Some(summary(&delivery)),
        };
        crash_point::pass(Point::BeforeAppend);
        let appended = self.append(Arc::clone(&delivery)).await;
        guard.delivery = None;
        match appended {
            Ok(appended) => {
                crash_point::pass(Point::AfterAppend);
                let answer = self.answer(received, StatusCode::OK);
                self.record(&delivery, received, answer);
                self.tell_appended(&delivery, &appended, answer);
                crash_point::pass(Point::Before200);
                StatusCode::OK.into_response()
            }
            Err(error) => {
                let answer = self.answer(received, StatusCode::SERVICE_UNAVAILABLE);
                self.failures.remember(&delivery, answer);
                self.tell_not_stored(&delivery, &error, answer);
                not_now()
            }
        }
    }

    fn open(&self, verified: &Verified, at: Timestamp) -> Delivery {
        let mut events = whatsapp::decode_for(&verified.body, self.parts.relays);
        if let Some(only) = &self.parts.only_number {
            events
                .iter_mut()
                .for_each(|event| receive::set_aside_other_number(event, only));
        }
        let failed_before = self.failures.recall(&events);
        Delivery {
            id: self.parts.membership.next_delivery(),
            at,
            events,
            failed_before,
        }
    }

    async fn append(&self, delivery: Arc<Delivery>) -> Result<Appended, StoreError> {
        if !guard::holds(Guard::CommitBeforeOk) {
            return Ok(self.append_later(delivery));
        }
        let limit = self.limits.store_wait_max;
        match self
            .parts
            .clock
            .timeout(limit, self.parts.store.append(delivery))
            .await
        {
            Ok(appended) => appended,
            Err(_) => Err(StoreError::Unavailable(format!(
                "no commit within {limit:?}"
            ))),
        }
    }

    /// Has a delivery stored in a while and says at once that it is.
    fn append_later(&self, delivery: Arc<Delivery>) -> Appended {
        let accepted = |event: &Event| AppendedEvent {
            key: event.key,
            kind: event.kind(),
            verdict: Verdict::Accepted,
            place: None,
            outgoing: None,
            collision: false,
        };
        let events = delivery.events.iter().map(accepted).collect();
        let (store, clock) = (self.parts.store.clone(), self.parts.clock.clone());
        tokio::spawn(async move {
            clock.sleep(LATE).await;
            // Whatever becomes of it: Meta has its 200.
            let _ = store.append(delivery).await;
        });
        Appended { events }
    }

    /// The answer as it will be remembered, counted now.
    fn answer(&self, received: Received, status: StatusCode) -> Answer {
        let latency = self.parts.clock.boottime().saturating_sub(received.clocked);
        self.parts.metrics.delivery(status.as_u16(), latency);
        if status == StatusCode::OK || status.is_server_error() {
            let is_ok = status == StatusCode::OK;
            self.parts.receiving.store(is_ok, Ordering::Relaxed);
            if is_ok {
                self.heard_at.store(self.now_ms(), Ordering::Relaxed);
            }
        }
        Answer {
            status: status.as_u16(),
            latency,
        }
    }

    /// Whether Meta was heard a short while ago: a stranger must not be able to say otherwise.
    fn heard_lately(&self) -> bool {
        let heard_at = self.heard_at.load(Ordering::Relaxed);
        let ago = self.now_ms().saturating_sub(heard_at);
        heard_at > 0 && u128::from(ago) < STRANGER_FOR.as_millis()
    }

    fn now_ms(&self) -> u64 {
        let now = self.parts.clock.boottime().as_millis();
        u64::try_from(now).unwrap_or(u64::MAX)
    }

    fn record(&self, delivery: &Delivery, received: Received, answer: Answer) {
        self.parts.store.answered(Answered {
            delivery: delivery.id,
            at: received.at,
            events: delivery.events.len(),
            answer,
        });
    }

    fn refuse(&self, refusal: Refusal, received: Received) -> Response {
        let answer = self.answer(received, refusal.status());
        if refusal == Refusal::Signature && !self.heard_lately() {
            // Perhaps Meta, with another secret than ours: then no receipt gets in.
            self.parts.receiving.store(false, Ordering::Relaxed);
        }
        self.tell_refused(&refusal, answer);
        match refusal {
            Refusal::Busy => not_now(),
            other => (other.status(), format!("{other}\n")).into_response(),
        }
    }
}

/// When a delivery's head arrived, by both clocks.
#[derive(Debug, Clone, Copy)]
struct Received {
    at: Timestamp,
    clocked: Duration,
}

/// Records that Meta did not wait for the answer, if dropped with a delivery in it.
struct HungUp<'a> {
    ingress: &'a Ingress,
    received: Received,
    delivery: Option<Answered>,
}

/// As nginx counts a client that hung up.
const CLIENT_CLOSED_REQUEST: u16 = 499;

impl Drop for HungUp<'_> {
    fn drop(&mut self) {
        let Some(mut answered) = self.delivery.take() else {
            return;
        };
        let clock = &self.ingress.parts.clock;
        let latency = clock.boottime().saturating_sub(self.received.clocked);
        answered.answer = Answer {
            status: CLIENT_CLOSED_REQUEST,
            latency,
        };
        self.ingress
            .parts
            .metrics
            .delivery(CLIENT_CLOSED_REQUEST, latency);
        self.ingress.parts.store.answered(answered);
        tell::tell_hung_up(&answered);
    }
}

fn summary(delivery: &Delivery) -> Answered {
    Answered {
        delivery: delivery.id,
        at: delivery.at,
        events: delivery.events.len(),
        answer: Answer {
            status: CLIENT_CLOSED_REQUEST,
            latency: Duration::ZERO,
        },
    }
}

fn not_now() -> Response {
    let retry_after = (
        header::RETRY_AFTER,
        HeaderValue::from_static(RETRY_AFTER_SECONDS),
    );
    (
        StatusCode::SERVICE_UNAVAILABLE,
        [retry_after],
        "try again\n",
    )
        .into_response()
}

async fn deliver(State(ingress): State<Arc<Ingress>>, request: Request<Body>) -> Response {
    ingress.deliver(request).await
}

/// Meta's handshake when the webhook is set up: the challenge as plain text.
async fn handshake(
    State(ingress): State<Arc<Ingress>>,
    Query(query): Query<Handshake>,
) -> Response {
    let no_sniff: (HeaderName, HeaderValue) = (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    match ingress.parts.tokens.answer(&query) {
        Some(challenge) => {
            tracing::info!("Meta's handshake was answered: the webhook is set up");
            ([no_sniff], challenge.to_owned()).into_response()
        }
        None => {
            tracing::warn!("a handshake with a wrong verify token was refused");
            (
                StatusCode::FORBIDDEN,
                "the verify token is not the one set here\n",
            )
                .into_response()
        }
    }
}

/// Whether deliveries would be stored: asks the store's writer itself.
async fn ready(State(ingress): State<Arc<Ingress>>) -> Response {
    let fatal = ingress.parts.store.fatal().borrow().is_some();
    let node = ingress.parts.membership.node();
    if fatal || !ingress.parts.membership.is_entitled(node) {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "the store can't be written\n",
        )
            .into_response();
    }
    "ready\n".into_response()
}
