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
pub(super) use self::route::Person;
pub use self::settings::{BotSettings, SettingsError};
use self::target::Target;
use crate::clock::{Clock, Elapsed};
use crate::model::{Failure, Outcome};

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
    pub(super) person: Person,
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
        for target in self.candidates(call.person) {
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
    fn candidates(&self, person: Person) -> Vec<&Target> {
        let now = self.clock.boottime();
        let order = route::order(person, self.targets.iter().map(|target| target.place));
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
        if !matches!(fault, Some(Fault::Down { .. } | Fault::Lost { .. })) {
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
            // The next URL could send what this one has sent: only another attempt knows of that.
            Fault::Lost { after } => {
                let until = self.clock.boottime().saturating_add(self.settings.down_for);
                target.mark_down(until, found);
                Tried::Ended(Outcome::Retry {
                    reason: format!("the bot is down: {reason}"),
                    failure: Failure::Unavailable,
                    after,
                })
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

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU16, Ordering};

    use axum::response::IntoResponse;
    use http::StatusCode;
    use tokio::sync::Semaphore;
    use tokio::task::JoinSet;

    use super::*;
    use crate::handler::testing::{TestBot, nobody, raw_bot, retry, settings};
    use crate::model::{ConversationId, Timestamp};

    const DEADLINE: Duration = Duration::from_secs(30);

    /// A bot behind a clock that stands still.
    struct Fixture {
        bot: Bot,
        clock: Clock,
    }

    impl Fixture {
        fn new(urls: Vec<String>) -> Self {
            Self::with(settings(urls))
        }

        fn with(settings: BotSettings) -> Self {
            let clock = Clock::manual(Timestamp(0));
            let bot = Bot::new(settings, clock.clone()).expect("the settings are right");
            Self { bot, clock }
        }

        async fn post(&self, conversation: i64) -> Result<Result<Bytes, Unread>, Outcome> {
            let deadline = Deadline::new(&self.clock, DEADLINE);
            let call = Call {
                person: Person::from(ConversationId(conversation)),
                headers: HeaderMap::new(),
                body: Bytes::from_static("{\"secret\":\" ☕\"}".as_bytes()),
                answer_max: 16,
                deadline: &deadline,
            };
            self.bot.post(call).await.map(|answer| answer.body)
        }

        async fn refused(&self, conversation: i64) -> Outcome {
            self.post(conversation).await.expect_err("is not taken")
        }
    }

    /// A bot whose status the test sets.
    async fn switched() -> (TestBot, Arc<AtomicU16>) {
        let switch = Arc::new(AtomicU16::new(200));
        let status = switch.clone();
        let answer = move || {
            let status = status.load(Ordering::SeqCst);
            StatusCode::from_u16(status)
                .expect("a status")
                .into_response()
        };
        (TestBot::start(answer).await, switch)
    }

    #[tokio::test]
    async fn an_answer_comes_back_with_its_body_up_to_a_limit() {
        let short = TestBot::start(|| "short".into_response()).await;
        let body = Fixture::new(vec![short.url()]).post(1).await;
        assert_eq!(body, Ok(Ok(Bytes::from_static(b"short"))));
        let long = TestBot::start(|| "longer than sixteen".into_response()).await;
        let body = Fixture::new(vec![long.url()]).post(1).await;
        assert_eq!(body, Ok(Err(Unread::TooLong(16))));
    }

    #[tokio::test]
    async fn a_bot_that_is_not_there_is_waited_for() {
        let (failure, reason, after) = retry(Fixture::new(vec![nobody().await]).refused(1).await);
        assert_eq!((failure, after), (Failure::Unavailable, None));
        assert!(reason.contains("Connection refused"), "{reason}");
        // Longer than a label may be (RFC 1035, 2.3.4): no resolver has to be asked.
        let nowhere = format!("http://{}.invalid/?token=secret", "bot".repeat(30));
        let (failure, reason, _) = retry(Fixture::new(vec![nowhere]).refused(1).await);
        assert_eq!(failure, Failure::Unavailable);
        assert!(
            reason.contains("bot.invalid:80 has no address: "),
            "{reason}"
        );
    }

    #[tokio::test]
    async fn an_unencrypted_bot_behind_https_is_waited_for() {
        let bot = TestBot::answering(200).await;
        let url = bot.url().replace("http:", "https:");
        let (failure, _, _) = retry(Fixture::new(vec![url]).refused(1).await);
        assert_eq!(failure, Failure::Unavailable);
    }

    #[tokio::test]
    async fn people_of_a_lost_url_move_at_once_and_come_back() {
        let (mut a, switch) = switched().await;
        let mut b = TestBot::answering(200).await;
        let fixture = Fixture::new(vec![a.url(), b.url()]);
        let met_a = async |fixture: &Fixture, a: &mut TestBot| {
            let mut people = Vec::new();
            for person in 1..=20 {
                fixture
                    .post(person)
                    .await
                    .expect("is taken")
                    .expect("is read");
                if a.count() == 1 {
                    people.push(person);
                }
            }
            people
        };
        let before = met_a(&fixture, &mut a).await;
        assert!((1..20).contains(&before.len()), "{before:?}");
        assert_eq!(b.count(), 20 - before.len());

        switch.store(503, Ordering::SeqCst);
        fixture
            .post(before[0])
            .await
            .expect("is taken")
            .expect("is read");
        assert_eq!((a.count(), b.count()), (1, 1));
        switch.store(200, Ordering::SeqCst);
        assert_eq!(met_a(&fixture, &mut a).await, [] as [i64; 0]);

        fixture.clock.advance(Duration::from_secs(10));
        assert_eq!(met_a(&fixture, &mut a).await, before);
    }

    #[tokio::test]
    async fn when_all_are_down_each_is_named_and_the_turn_waits() {
        let a = TestBot::answering(503).await;
        let b = TestBot::answering(503).await;
        let fixture = Fixture::new(vec![a.url(), b.url()]);
        let (failure, reason, after) = retry(fixture.refused(1).await);
        assert_eq!((failure, after), (Failure::Unavailable, None));
        for bot in [&a, &b] {
            let part = format!("{} answered 503", bot.name());
            assert!(reason.contains(&part), "{reason}");
        }
    }

    #[tokio::test]
    async fn one_that_was_lost_in_the_middle_is_not_asked_of_another_in_the_same_attempt() {
        for status in [502, 504] {
            let (mut a, lost) = switched().await;
            let (mut b, _) = switched().await;
            let fixture = Fixture::new(vec![a.url(), b.url()]);
            lost.store(status, Ordering::SeqCst);
            let meets_a = |id: &i64| {
                let person = Person::from(ConversationId(*id));
                fixture.bot.candidates(person)[0].name == a.name()
            };
            let person = (1..).find(meets_a).expect("somebody meets the first");
            let (failure, reason, _) = retry(fixture.refused(person).await);
            assert_eq!(failure, Failure::Unavailable);
            assert!(reason.contains(&format!("answered {status}")), "{reason}");
            assert_eq!((a.count(), b.count()), (1, 0));
            fixture
                .post(person)
                .await
                .expect("is taken")
                .expect("is read");
            assert_eq!(
                (a.count(), b.count()),
                (0, 1),
                "the next attempt goes elsewhere"
            );
        }
    }

    #[tokio::test]
    async fn a_bot_that_is_back_is_not_left_waiting() {
        let (mut bot, switch) = switched().await;
        switch.store(503, Ordering::SeqCst);
        let fixture = Fixture::new(vec![bot.url()]);
        retry(fixture.refused(1).await);
        switch.store(200, Ordering::SeqCst);
        fixture.post(1).await.expect("is taken").expect("is read");
        assert_eq!(bot.count(), 2);
    }

    #[tokio::test]
    async fn a_busy_bot_says_when_and_nobody_moves() {
        let busy = || {
            (
                StatusCode::TOO_MANY_REQUESTS,
                [("retry-after", "7")],
                "secret",
            )
        };
        let mut a = TestBot::start(move || busy().into_response()).await;
        let mut b = TestBot::start(move || busy().into_response()).await;
        let fixture = Fixture::new(vec![a.url(), b.url()]);
        let (failure, _, after) = retry(fixture.refused(1).await);
        assert_eq!(failure, Failure::Unavailable);
        assert_eq!(after, Some(Duration::from_secs(7)));
        assert_eq!(a.count() + b.count(), 1);
    }

    #[tokio::test]
    async fn a_call_that_may_have_been_handled_is_made_once_and_counts() {
        for answer in [
            "",
            "HTTP/1.1 200",
            "secret\r\n\r\n",
            "HTTP/1.1 500 secret\r\n\r\n",
        ] {
            let (a, mut calls_a) = raw_bot(answer).await;
            let (b, mut calls_b) = raw_bot(answer).await;
            let (failure, _, after) = retry(Fixture::new(vec![a, b]).refused(1).await);
            assert_eq!((failure, after), (Failure::Failed, None), "{answer:?}");
            let calls = [calls_a.try_recv().is_ok(), calls_b.try_recv().is_ok()];
            assert_ne!(calls[0], calls[1], "{answer:?}");
            assert!(calls_a.try_recv().is_err() && calls_b.try_recv().is_err());
        }
    }

    #[tokio::test]
    async fn what_a_bot_refuses_is_given_up() {
        for status in [301, 307, 400, 401, 404, 422] {
            let mut bot = TestBot::answering(status).await;
            match Fixture::new(vec![bot.url()]).refused(1).await {
                Outcome::Discard { reason } => {
                    let said = format!("{} answered {status}", bot.name());
                    assert!(reason.starts_with(&said), "{reason}");
                }
                other => panic!("{status}: {other:?}"),
            }
            assert_eq!(bot.count(), 1);
        }
    }

    #[tokio::test]
    async fn a_call_ends_with_the_turn() {
        let mut bot = TestBot::gated(Arc::new(Semaphore::new(0)), || unreachable!()).await;
        let fixture = Fixture::new(vec![bot.url()]);
        let expiry = async {
            bot.next().await;
            fixture.clock.advance(DEADLINE);
        };
        let (outcome, ()) = tokio::join!(fixture.refused(1), expiry);
        let (failure, reason, _) = retry(outcome);
        assert_eq!(failure, Failure::Failed);
        assert!(
            reason.ends_with("gave no answer within the turn's 30 s"),
            "{reason}"
        );
    }

    #[tokio::test]
    async fn no_more_calls_than_allowed_are_made_and_waiting_costs_no_attempt() {
        let gate = Arc::new(Semaphore::new(0));
        let mut bot = TestBot::gated(gate.clone(), || "done".into_response()).await;
        let mut settings = settings(vec![bot.url()]);
        settings.concurrency = 2;
        let fixture = Fixture::with(settings);
        let (mut first, mut second) = (pin!(fixture.post(1)), pin!(fixture.post(2)));
        let third = tokio::select! {
            _ = first.as_mut() => panic!("answered before the gate was open"),
            _ = second.as_mut() => panic!("answered before the gate was open"),
            third = async {
                bot.next().await;
                bot.next().await;
                let wait = async { fixture.clock.advance(DEADLINE / 2) };
                tokio::join!(biased; fixture.refused(3), wait).0
            } => third,
        };
        let (failure, reason, _) = retry(third);
        assert_eq!(failure, Failure::Unavailable);
        assert_eq!(reason, format!("all 2 calls to {} are in use", bot.name()));
        gate.add_permits(2);
        let done = Ok(Ok(Bytes::from_static(b"done")));
        assert_eq!(tokio::join!(first, second), (done.clone(), done));
        assert_eq!(bot.count(), 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_bot_that_closes_connections_unannounced_loses_no_call() {
        let (url, mut calls) = raw_bot("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let fixture = Arc::new(Fixture::new(vec![url]));
        let mut callers = JoinSet::new();
        for person in 0..8 {
            let fixture = fixture.clone();
            callers.spawn(async move {
                for _ in 0..100 {
                    assert_eq!(fixture.post(person).await, Ok(Ok(Bytes::new())));
                }
            });
        }
        let mut count = 0;
        tokio::select! {
            () = async { while calls.recv().await.is_some() { count += 1 } } => {}
            _ = callers.join_all() => {}
        }
        while calls.try_recv().is_ok() {
            count += 1;
        }
        assert_eq!(count, 800, "a call arrived twice");
    }
}
