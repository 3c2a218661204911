//! The door through which a bot calls the Graph API as if it were Meta's own. What it sends goes
//! onto the record of its turn first and is answered with what became of it; all else goes
//! through to Meta as it came, but for what would lead Meta away from here.
//!
//! Sends nothing by itself, and waits for nobody but the ledger.

mod answer;
mod asked;
mod fates;
mod links;
mod pass;
mod send;
mod tell;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::answer::{plain, refused};
use self::asked::Call;
use self::fates::Fates;
use self::links::Links;
use self::tell::Tellers;
use crate::clock::Clock;
use crate::model::{NumberId, Secret};
use crate::store::{SendWhen, SharedStore};
use crate::telemetry::Metrics;
use crate::whatsapp::asked::{Called, called};
use crate::whatsapp::passage::Passage;
use crate::whatsapp::told::Refused;

/// The parts that the door is made of.
pub struct EgressParts {
    /// The ledger.
    pub store: SharedStore,
    /// The way through to Meta.
    pub passage: Passage,
    /// Time.
    pub clock: Clock,
    /// Counters.
    pub metrics: Metrics,
    /// What callers must show as their access token.
    pub token: Secret,
    /// The only number that is served, if not all are.
    pub only_number: Option<NumberId>,
}

/// What the door goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EgressSettings {
    /// The longest wait of a caller from its whole request to its answer.
    pub answer_within: Duration,
    /// When what a bot sends in a turn goes out.
    pub when: SendWhen,
    /// How long after its end a turn's record still stands in for what is asked for.
    pub tail: Duration,
    /// How long a body that is read whole may take.
    pub body_timeout: Duration,
    /// How long an answer of the ledger may take.
    pub store_wait_max: Duration,
}

/// The door.
pub struct Egress {
    parts: EgressParts,
    settings: EgressSettings,
    fates: Fates,
    tellers: Tellers,
    links: Links,
    /// What must come to its end though nobody waits for it any more.
    tasks: TaskTracker,
    /// When it was last said that the bot sends after its answer, in milliseconds since boot.
    late_told: AtomicU64,
}

impl Egress {
    /// A door that is not open yet.
    pub fn new(parts: EgressParts, settings: EgressSettings) -> Arc<Self> {
        let fates = Fates::new(
            parts.store.clone(),
            parts.clock.clone(),
            settings.store_wait_max,
        );
        Arc::new(Self {
            parts,
            settings,
            fates,
            tellers: Tellers::new(),
            links: Links::default(),
            tasks: TaskTracker::new(),
            late_told: AtomicU64::new(0),
        })
    }

    /// What the bot's listener serves wherever nothing of Hapax's own is.
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new().fallback(serve).with_state(Arc::clone(self))
    }

    /// Looks after those who wait, until `stop`; then brings to its end what was begun.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        self.fates.look(&stop).await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn serve(State(egress): State<Arc<Egress>>, request: Request) -> Response {
    match egress.answer(request).await {
        Ok(response) => response,
        Err(refusal) => refused(&refusal),
    }
}

const MARKETING: &str = "marketing_messages would go round Hapax's record of what was sent, and \
                         could reach a person twice; send the template through /messages";
const BATCH: &str = "a batch would go round Hapax's record of what was sent, and could reach a \
                     person twice; make each call by itself";

impl Egress {
    async fn answer(self: &Arc<Self>, request: Request) -> Result<Response, Refused> {
        let call = Call::of(request);
        let found = called(&call.method, call.uri.path(), call.query());
        match found {
            Called::Messages(number) => {
                let call = self.whole(call).await?;
                send::messages(self, number, call).await
            }
            Called::MarketingMessages | Called::Batch => {
                self.admit_shown(&call)?;
                let is_batch = found == Called::Batch;
                Err(Refused::goes_round(if is_batch {
                    BATCH
                } else {
                    MARKETING
                }))
            }
            Called::Subscriptions => {
                self.whole(call).await?;
                Ok(withhold("it would change the webhooks of the app"))
            }
            Called::Unsubscribe => {
                self.whole(call).await?;
                Ok(withhold("it would end the subscription of the app"))
            }
            Called::Subscribe | Called::Settings => {
                let call = self.whole(call).await?;
                if call.ends_a_subscription(&found) {
                    return Ok(withhold("it would end the subscription of the app"));
                }
                match call.leads_away() {
                    true => Ok(withhold("it would give Meta another webhook")),
                    false => pass::whole(self, call).await,
                }
            }
            Called::Other => pass::through(self, call).await,
        }
    }
}

/// Says that it was done, and does it not.
fn withhold(reason: &'static str) -> Response {
    tracing::warn!(
        reason,
        "a call of the bot's was answered and not passed on to Meta: events would no longer \
         come here"
    );
    plain(200, crate::whatsapp::told::success())
}
