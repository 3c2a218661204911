//! One call to a bot: choose its URL, wait for a permit, post, and say what came of it.
//!
//! What is posted, and what an answer's body means, is the business of the handlers that share
//! this. No reason made here holds a body, a query or anything else of a message.

mod fault;
pub(super) mod headers;
mod route;
mod settings;
mod target;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use reqwest::{Client, Response};
use tokio::sync::SemaphorePermit;

use self::fault::Fault;
pub use self::settings::{BotSettings, SettingsError};
use self::target::Target;
use crate::clock::{Clock, Elapsed};
use crate::model::{ConversationId, Failure, Outcome};

/// A bot, reached by its URLs.
pub(super) struct Bot {
    targets: Vec<Target>,
    client: Client,
    clock: Clock,
    settings: BotSettings,
}

/// One POST.
pub(super) struct Call<'a> {
    /// Whose; decides which URL is met.
    pub(super) conversation: ConversationId,
    /// Headers beside the content type.
    pub(super) headers: HeaderMap,
    /// JSON.
    pub(super) body: Bytes,
    /// How much of the answer's body is read, in bytes.
    pub(super) answer_max: usize,
    /// The time it may take.
    pub(super) deadline: &'a Deadline,
}

/// A 2xx.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    /// Who gave it, for reasons.
    pub(super) name: &'a str,
    /// Its body. Where it could not be read, the call was taken all the same.
    pub(super) body: Result<Bytes, Unread>,
}

/// Why the body of an answer could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unread {
    #[error("an answer longer than {0} bytes")]
    TooLong(usize),
    #[error("an answer that broke off")]
    Cut,
    #[error("an answer that did not end in time")]
    TooSlow,
}

/// The end of a turn's time.
pub(super) struct Deadline {
    clock: Clock,
    total: Duration,
    end: Duration,
}

impl Deadline {
    /// `total` from now.
    pub(super) fn new(clock: &Clock, total: Duration) -> Self {
        Self {
            clock: clock.clone(),
            total,
            end: clock.boottime().saturating_add(total),
        }
    }

    fn left(&self) -> Duration {
        self.end.saturating_sub(self.clock.boottime())
    }

    async fn limit<F: Future>(&self, future: F) -> Result<F::Output, Elapsed> {
        self.clock.timeout(self.left(), future).await
    }
}

/// What one URL did with a call.
enum Tried<'a> {
    Taken(Answer<'a>),
    /// Surely not handled here: the next URL may be tried.
    Down {
        reason: String,
        after: Option<Duration>,
    },
    Ended(Outcome),
}

impl Bot {
    /// # Errors
    /// The first fault of the settings.
    pub(super) fn new(settings: BotSettings, clock: Clock) -> Result<Self, SettingsError> {
        let targets = Target::all(&settings)?;
        let https = targets.iter().any(|target| target.url.scheme() == "https");
        Ok(Self {
            client: settings::client(&settings, https)?,
            targets,
            clock,
            settings,
        })
    }

    /// Makes one call; any 2xx is an answer.
    ///
    /// A URL that is down is passed over for the person's next one. Any other ending is final: a
    /// call that may have been handled is not made again here.
    ///
    /// # Errors
    /// The outcome of the turn, when the bot did not take the call.
    pub(super) async fn post(&self, call: Call<'_>) -> Result<Answer<'_>, Outcome> {
        let mut reasons: Vec<String> = Vec::new();
        let mut wait = None;
        for target in self.candidates(call.conversation) {
            // With less than this left, a dead host would be taken for a slow bot.
            if !reasons.is_empty() && call.deadline.left() <= self.settings.connect_timeout {
                break;
            }
            match self.attempt(target, &call).await {
                Tried::Taken(answer) => return Ok(answer),
                Tried::Ended(outcome) => return Err(outcome),
                Tried::Down { reason, after } => {
                    // `None` is the least: who gives no time may be back at any moment.
                    wait = if reasons.is_empty() {
                        after
                    } else {
                        wait.min(after)
                    };
                    reasons.push(reason);
                }
            }
        }
        Err(Outcome::Retry {
            reason: format!("the bot is down: {}", reasons.join("; ")),
            failure: Failure::Unavailable,
            after: wait,
        })
    }

    /// The URLs to try, in the person's order. A mark only says whom to pass over for another:
    /// when all are marked, each is worth a try, or a bot that is back would be left waiting.
    fn candidates(&self, conversation: ConversationId) -> Vec<&Target> {
        let now = self.clock.boottime();
        let order = route::order(conversation, self.targets.iter().map(|target| target.place));
        let mut candidates: Vec<&Target> = order.iter().map(|&i| &self.targets[i]).collect();
        if candidates.iter().any(|target| target.is_up(now)) {
            candidates.retain(|target| target.is_up(now));
        }
        candidates
    }

    async fn attempt<'a>(&'a self, target: &'a Target, call: &Call<'_>) -> Tried<'a> {
        let Some(_permit) = self.permit(target, call.deadline).await else {
            return Tried::Ended(Outcome::unavailable(format!(
                "all {} calls to {} are in use",
                self.settings.concurrency, target.name
            )));
        };
        let request = self
            .client
            .post(target.url.clone())
            .headers(call.headers.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(call.body.clone());
        match call.deadline.limit(request.send()).await {
            Ok(Ok(response)) => self.answered(target, call, response).await,
            Ok(Err(error)) => self.conclude(
                target,
                fault::of_error(&error),
                &fault::describe_error(error),
            ),
            Err(Elapsed) => Tried::Ended(Outcome::failed(format!(
                "{} gave no answer within the turn's {} s",
                target.name,
                call.deadline.total.as_secs_f32()
            ))),
        }
    }

    /// Waits at most half of the turn's time, so that the other half is left for the call.
    async fn permit<'a>(
        &self,
        target: &'a Target,
        deadline: &Deadline,
    ) -> Option<SemaphorePermit<'a>> {
        let wait = deadline.left().min(deadline.total / 2);
        let permit = self.clock.timeout(wait, target.permits.acquire()).await;
        permit.ok()?.ok()
    }

    async fn answered<'a>(
        &self,
        target: &'a Target,
        call: &Call<'_>,
        response: Response,
    ) -> Tried<'a> {
        let status = response.status();
        let fault = fault::of_answer(status, response.headers());
        if !matches!(fault, Some(Fault::Down { .. })) {
            target.mark_up();
        }
        match fault {
            Some(fault) => self.conclude(target, fault, &fault::describe_answer(status)),
            None => {
                let body = call.deadline.limit(read(response, call.answer_max)).await;
                Tried::Taken(Answer {
                    name: &target.name,
                    body: body.unwrap_or(Err(Unread::TooSlow)),
                })
            }
        }
    }

    /// What a call that was not taken means for the URL and for the turn.
    fn conclude<'a>(&self, target: &Target, fault: Fault, found: &str) -> Tried<'a> {
        let reason = format!("{} {found}", target.name);
        match fault {
            Fault::Down { after } => {
                let until = self.clock.boottime().saturating_add(self.settings.down_for);
                target.mark_down(until, found);
                Tried::Down { reason, after }
            }
            Fault::Busy { after } => Tried::Ended(Outcome::Retry {
                reason,
                failure: Failure::Unavailable,
                after,
            }),
            Fault::Failed => Tried::Ended(Outcome::failed(reason)),
            Fault::Refused => Tried::Ended(Outcome::Discard { reason }),
        }
    }
}

async fn read(mut response: Response, max: usize) -> Result<Bytes, Unread> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|_| Unread::Cut)? {
        if body.len() + chunk.len() > max {
            return Err(Unread::TooLong(max));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}
