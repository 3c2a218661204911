//! A message that a bot sends: put on record, waited for, and answered with what became of it, or
//! with an id of ours where that is not known in time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::http::Method;
use axum::response::Response;
use tracing::{info, warn};

use super::answer::plain;
use super::asked::Whole;
use super::links::Link;
use super::tell::Whom;
use super::{Egress, pass};
use crate::clock::Clock;
use crate::model::bot_send::{Likeness, Told};
use crate::model::{BotSendId, NumberId, StoreId};
use crate::store::{Fate, Stage, Staged, StoreError};
use crate::telemetry::{BotSendAnswer, BotSendVerdict, Metrics};
use crate::whatsapp::asked::{Asked, Dialled, Quote, ToSend, asked};
use crate::whatsapp::minted;
use crate::whatsapp::told::{self, Refused};

/// How often it is said at most that the bot sends after its answer.
const LATE_EVERY: Duration = Duration::from_secs(60);
/// How often the record of what a caller was told is tried.
const TELL_TRIES: u32 = 3;
/// The pause between two tries.
const TELL_PAUSE: Duration = Duration::from_millis(200);

/// `POST /{version}/{number}/messages`.
pub(super) async fn messages(
    egress: &Arc<Egress>,
    number: NumberId,
    call: Whole,
) -> Result<Response, Refused> {
    let begun = egress.parts.clock.boottime();
    if egress
        .parts
        .only_number
        .as_ref()
        .is_some_and(|only| *only != number)
    {
        return Err(Refused::number());
    }
    if call
        .parameters
        .method()
        .is_some_and(|method| method != Method::POST)
    {
        return Err(Refused::wrong("expected POST, found another method"));
    }
    let (key, is_apart) = (call.key()?, call.is_apart()?);
    match asked(call.parameters)? {
        // Meta never heard of that id, and the message is the bot's own.
        Asked::Mark(mark) if mark.is_of_own_id() => Ok(plain(200, told::success())),
        Asked::Mark(mark) => pass::json(egress, &call.uri, mark.body()).await,
        Asked::Send(send) => {
            let sending = Sending {
                egress,
                number,
                ends_at: begun + egress.settings.answer_within,
                begun,
            };
            let answered = sending.send(*send, key, is_apart).await;
            if answered.is_err() {
                let took = egress.parts.clock.boottime().saturating_sub(begun);
                let metrics = &egress.parts.metrics;
                metrics.bot_send_answer(BotSendAnswer::Failed, took);
            }
            answered
        }
    }
}

/// One request to send, and until when it is answered.
struct Sending<'a> {
    egress: &'a Arc<Egress>,
    number: NumberId,
    begun: Duration,
    ends_at: Duration,
}

impl Sending<'_> {
    fn clock(&self) -> &Clock {
        &self.egress.parts.clock
    }

    fn rest(&self) -> Duration {
        self.ends_at.saturating_sub(self.clock().boottime())
    }

    async fn send(
        &self,
        send: ToSend,
        key: Option<String>,
        is_apart: bool,
    ) -> Result<Response, Refused> {
        let whom = (self.number.clone(), send.to.recipient.encode());
        let body = self.translated(&send).await?;
        let none_is_told = self.egress.tellers.none(&whom);
        // Too long a wait leaves it to the ledger, which then has what it has.
        let _ = self.clock().timeout(self.rest(), none_is_told).await;
        let stage = Stage {
            number: self.number.clone(),
            to: send.to.to.clone(),
            recipient: send.to.recipient.clone(),
            body,
            content: send.content,
            key,
            callback: send.callback,
            is_apart,
            when: self.egress.settings.when,
            tail: self.egress.settings.tail,
        };
        let Some(staged) = self.stage(stage).await? else {
            warn!("a bot has asked for too many sends in one turn; one more was refused");
            return Err(Refused::pair_rate());
        };
        self.egress.warn_if_late(&staged);
        let mut account = Account::of(self, &staged);
        let fate = match staged.fate {
            Fate::Waiting => {
                let known = self.egress.fates.of(staged.id, self.rest()).await;
                known.unwrap_or(Fate::Waiting)
            }
            known => known,
        };
        let answer = self.answer(&fate, staged.id, &send.to);
        self.tell(&fate, staged.id, &answer, (whom, &send.to)).await;
        account.answered(answer.word);
        Ok(plain(answer.status, answer.body))
    }

    /// The body, in which ids of ours are Meta's.
    async fn translated(&self, send: &ToSend) -> Result<String, Refused> {
        let ours = self.egress.parts.store.id();
        let ids = send.own_ids();
        let ids: Vec<BotSendId> = ids
            .into_iter()
            .filter(|(store, _)| *store == ours)
            .map(|(_, id)| id)
            .collect();
        let fates = match ids.is_empty() {
            true => Vec::new(),
            false => {
                let fates = self.egress.fates.now(ids.clone(), self.rest()).await;
                fates.map_err(|error| unavailable(&error))?
            }
        };
        let translate = |store: StoreId, id: BotSendId| {
            let at = ids.iter().position(|known| *known == id);
            let fate = at.filter(|_| store == ours).and_then(|at| fates.get(at));
            match fate {
                Some(Fate::Accepted { wamid, .. }) => Quote::Real(wamid.clone()),
                Some(
                    Fate::Held | Fate::Waiting | Fate::Refused { .. } | Fate::Unknown | Fate::Gone,
                )
                | None => Quote::Unknown,
            }
        };
        send.body(translate)
    }

    /// Puts it on record. That comes to its end even if the caller hangs up: what was asked for
    /// is there as a whole or not at all.
    async fn stage(&self, stage: Stage) -> Result<Option<Staged>, Refused> {
        let store = self.egress.parts.store.clone();
        let staging = async move { store.stage(stage).await };
        let staging = self.egress.tasks.spawn(staging);
        let limit = self.rest().min(self.egress.settings.store_wait_max);
        let staged = match self.clock().timeout(limit, staging).await {
            Ok(Ok(staged)) => staged,
            Ok(Err(_)) => Err(StoreError::Lost),
            Err(_) => Err(StoreError::Unavailable(format!(
                "no answer within {limit:?}"
            ))),
        };
        staged.map_err(|error| unavailable(&error))
    }

    fn answer(&self, fate: &Fate, id: BotSendId, dialled: &Dialled) -> Answer {
        let success = |answer: Option<&str>, id: &str, word| Answer {
            status: 200,
            body: told::accepted(answer, id, dialled),
            word,
        };
        match fate {
            Fate::Accepted { wamid, answer } => {
                let answer = answer.as_ref().map(|answer| answer.body.as_str());
                success(answer, wamid.as_str(), BotSendAnswer::Accepted)
            }
            Fate::Refused { answer, reason } => {
                let (status, body) = match answer {
                    Some(answer) => (answer.status, answer.body.clone()),
                    None => {
                        let refused = Refused::never(reason);
                        (refused.status(), refused.body_text())
                    }
                };
                Answer {
                    status,
                    body,
                    word: BotSendAnswer::Refused,
                }
            }
            Fate::Held | Fate::Waiting | Fate::Unknown | Fate::Gone => {
                let id = minted::mint(self.egress.parts.store.id(), id);
                success(None, &id, BotSendAnswer::OwnId)
            }
        }
    }

    /// Begins to record what the caller is told now, and what was learnt of the number that it
    /// has dialled. The answer does not wait for it.
    async fn tell(&self, fate: &Fate, id: BotSendId, answer: &Answer, to: (Whom, &Dialled)) {
        let (whom, dialled) = to;
        let begin = self.egress.tellers.begin(whom);
        let Ok(telling) = self.clock().timeout(self.rest(), begin).await else {
            warn!(bot_send.id = %id, "what a caller was told could not be recorded in time");
            return;
        };
        let told = answer.word.told();
        let taken_for = taken_for(fate, dialled);
        let (egress, number) = (Arc::clone(self.egress), self.number.clone());
        self.egress.tasks.spawn(async move {
            egress.record(id, told).await;
            drop(telling);
            if let Some((dialled, wa_id)) = taken_for {
                egress.link((number, dialled, wa_id)).await;
            }
        });
    }
}

/// What a caller is told.
struct Answer {
    status: u16,
    body: String,
    word: BotSendAnswer,
}

/// The number that was dialled, and the one that Meta took it for, if that is another one.
fn taken_for(fate: &Fate, dialled: &Dialled) -> Option<(String, String)> {
    let Fate::Accepted {
        answer: Some(answer),
        ..
    } = fate
    else {
        return None;
    };
    let wa_id = told::taken_for(&answer.body, dialled)?;
    Some((dialled.to.phone.clone()?, wa_id))
}

fn unavailable(error: &StoreError) -> Refused {
    warn!(%error, "the ledger did not answer about a send of the bot's");
    Refused::unavailable("Hapax's ledger does not answer; try again")
}

impl BotSendAnswer {
    /// What the ledger is to know of it.
    const fn told(self) -> Told {
        match self {
            Self::Accepted | Self::Refused => Told::Truth,
            Self::OwnId => Told::OwnId,
            Self::Failed | Self::Unheard => Told::Nothing,
        }
    }
}

impl Egress {
    async fn record(&self, id: BotSendId, told: Told) {
        let mut tries = 1;
        loop {
            let telling = self.parts.store.told(id, told);
            let limit = self.settings.store_wait_max;
            let error = match self.parts.clock.timeout(limit, telling).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error,
                Err(_) => StoreError::Unavailable(format!("no answer within {limit:?}")),
            };
            if tries == TELL_TRIES {
                warn!(bot_send.id = %id, %error, "what a caller was told could not be recorded");
                return;
            }
            tries += 1;
            self.parts.clock.sleep(TELL_PAUSE).await;
        }
    }

    /// Learnt again with the next send if it can't be kept now.
    async fn link(&self, link: Link) {
        if self.links.is_known(&link) {
            return;
        }
        let (number, dialled, wa_id) = link.clone();
        let linking = self.parts.store.link_dialled(number, dialled, wa_id);
        let linked = self
            .parts
            .clock
            .timeout(self.settings.store_wait_max, linking);
        match linked.await {
            Ok(Ok(())) => self.links.remember(link),
            Ok(Err(error)) => {
                warn!(%error, "a number that was dialled could not be linked to the one it means");
            }
            Err(_) => {}
        }
    }

    /// Not more than once a minute: such a bot does it each time.
    fn warn_if_late(&self, staged: &Staged) {
        if !staged.is_late {
            return;
        }
        self.parts.metrics.bot_send_late();
        let now = self.parts.clock.boottime().as_millis() as u64;
        let before = self.late_told.load(Ordering::Relaxed);
        let is_due = before == 0 || now.saturating_sub(before) >= LATE_EVERY.as_millis() as u64;
        let is_ours = || {
            let swapped = self.late_told.compare_exchange(
                before,
                now.max(1),
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            swapped.is_ok()
        };
        if is_due && is_ours() {
            warn!(
                conversation.id = %staged.conversation,
                turn.id = staged.turn.map(tracing::field::display),
                "the bot sends after it has answered its 200: order and once end at that answer; \
                 set forward.done = \"reply\""
            );
        }
    }
}

/// Says at its end what became of one request, also where the caller has hung up.
struct Account {
    metrics: Metrics,
    clock: Clock,
    begun: Duration,
    staged: (BotSendId, Staged),
    answer: BotSendAnswer,
}

impl Account {
    fn of(sending: &Sending<'_>, staged: &Staged) -> Self {
        let parts = &sending.egress.parts;
        parts.metrics.bot_send(verdict(staged.taken_for));
        Self {
            metrics: parts.metrics.clone(),
            clock: parts.clock.clone(),
            begun: sending.begun,
            staged: (staged.id, staged.clone()),
            answer: BotSendAnswer::Unheard,
        }
    }

    fn answered(&mut self, answer: BotSendAnswer) {
        self.answer = answer;
    }
}

const fn verdict(taken_for: Option<Likeness>) -> BotSendVerdict {
    match taken_for {
        None => BotSendVerdict::New,
        Some(Likeness::Joined) => BotSendVerdict::Joined,
        Some(Likeness::Repeated) => BotSendVerdict::Repeated,
        Some(Likeness::Diverged) => BotSendVerdict::Diverged,
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let took = self.clock.boottime().saturating_sub(self.begun);
        self.metrics.bot_send_answer(self.answer, took);
        let (id, staged) = &self.staged;
        macro_rules! line {
            ($text:literal) => {
                info!(
                    bot_send.id = %id,
                    conversation.id = %staged.conversation,
                    turn.id = staged.turn.map(tracing::field::display),
                    verdict = verdict(staged.taken_for).as_str(),
                    told = self.answer.as_str(),
                    latency_ms = took.as_millis() as u64,
                    $text
                )
            };
        }
        match staged.taken_for {
            None => line!("the bot sends"),
            Some(Likeness::Joined) => line!("the bot asks again for a send: it is the same one"),
            Some(Likeness::Repeated) => line!("an earlier attempt has sent this: not sent again"),
            Some(Likeness::Diverged) => {
                line!("an earlier attempt has sent other words at this place: not sent")
            }
        }
    }
}
