//! Hands each message to a bot's own webhook, in Meta's shape and signed as Meta signs.
//!
//! For the bot that exists already and stays as it is. It answers people by itself, so that a
//! turn that it has taken is only acknowledged. How to sign is handed in, not known here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::call::{Bot, BotSettings, Call, Deadline, Person, SettingsError, headers};
use crate::clock::Clock;
use crate::model::{ConversationId, EventKey, Handler, Message, NumberId, Outcome, Turn};

const SIGNATURE: HeaderName = HeaderName::from_static("x-hub-signature-256");
const EVENT: HeaderName = HeaderName::from_static("x-hapax-event");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The body of an answer means nothing here; it is read, up to this many bytes, only so that its
/// connection can be used again.
const ANSWER_MAX: usize = 64 * 1024;

/// Gives the value of `X-Hub-Signature-256` for a body.
pub type Sign = Arc<dyn Fn(&[u8]) -> String + Send + Sync>;

/// Gives the envelope of a message another id of it, for the attempt of this epoch.
pub type Rename = Arc<dyn Fn(&Message, i64) -> String + Send + Sync>;

/// What [`Forward`] needs.
#[derive(Clone)]
pub struct ForwardSettings {
    /// The bot; each URL is a webhook that takes Meta's POSTs.
    pub bot: BotSettings,
    /// Signs with the app secret that the bot checks against.
    pub sign: Sign,
    /// Bots that answer for one number each, instead of that one.
    pub of_numbers: Vec<(NumberId, BotSettings)>,
    /// A message that the bot may have had before has another id; `None`: it keeps its own.
    pub rename: Option<Rename>,
}

/// An event that is no message: what became of one that was sent, or a notice.
pub struct RelayedEvent<'a> {
    /// Equal whenever it comes.
    pub key: EventKey,
    /// Our number that it concerns.
    pub number: &'a NumberId,
    /// Whose it is, where that is known.
    pub conversation: Option<ConversationId>,
    /// A whole webhook body in Meta's shape.
    pub body: Bytes,
    /// The time that the call may take.
    pub deadline: Duration,
}

/// Hands each message of a turn to a bot, one POST each, in order. The module's table tells how a
/// call ends.
///
/// Where a later message of a turn fails after an earlier one was taken, the whole turn is tried
/// again, and the bot gets the earlier one twice, with the same `Idempotency-Key`: turns of one
/// message avoid that.
pub struct Forward {
    bot: Bot,
    of_numbers: HashMap<NumberId, Bot>,
    sign: Sign,
    rename: Option<Rename>,
    clock: Clock,
}

impl Forward {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// The first fault of the settings.
    pub fn new(settings: ForwardSettings, clock: Clock) -> Result<Self, SettingsError> {
        let of_number = |(number, bot)| Ok((number, Bot::new(bot, clock.clone())?));
        let of_numbers = settings.of_numbers.into_iter().map(of_number);
        Ok(Self {
            bot: Bot::new(settings.bot, clock.clone())?,
            of_numbers: of_numbers.collect::<Result<_, SettingsError>>()?,
            sign: settings.sign,
            rename: settings.rename,
            clock,
        })
    }

    /// Hands over an event that is no message, as a POST of its own.
    ///
    /// # Errors
    /// What [`Handler::handle`] would answer for a message.
    pub async fn relay(&self, event: RelayedEvent<'_>) -> Result<(), Outcome> {
        let deadline = Deadline::new(&self.clock, event.deadline);
        let mut headers = HeaderMap::new();
        self.mark(&mut headers, event.key, &event.body)?;
        let call = Call {
            person: event
                .conversation
                .map_or_else(|| Person::from(event.number), Person::from),
            headers,
            body: event.body,
            answer_max: ANSWER_MAX,
            deadline: &deadline,
        };
        self.bot_of(event.number).post(call).await.map(drop)
    }

    fn bot_of(&self, number: &NumberId) -> &Bot {
        self.of_numbers.get(number).unwrap_or(&self.bot)
    }

    /// The headers that tell whence a body is, and which event it is.
    fn mark(&self, headers: &mut HeaderMap, key: EventKey, body: &[u8]) -> Result<(), Outcome> {
        let signature = (self.sign)(body);
        let signature = HeaderValue::try_from(signature)
            .map_err(|_| Outcome::failed("the signature is not a header value"))?;
        headers.insert(SIGNATURE, signature);
        headers.insert(EVENT, headers::value(key));
        headers.insert(IDEMPOTENCY_KEY, headers::value(key));
        Ok(())
    }

    fn headers(&self, turn: &Turn, message: &Message, body: &[u8]) -> Result<HeaderMap, Outcome> {
        let mut headers = headers::of_turn(turn, message.key);
        self.mark(&mut headers, message.key, body)?;
        Ok(headers)
    }

    async fn forward(&self, turn: &Turn) -> Result<(), Outcome> {
        let deadline = Deadline::new(&self.clock, turn.deadline);
        let bot = self.bot_of(&turn.number);
        for message in &turn.messages {
            let body = match &self.rename {
                Some(rename) if turn.is_again => Bytes::from(rename(message, turn.epoch)),
                _ => Bytes::copy_from_slice(message.envelope.as_bytes()),
            };
            let call = Call {
                person: turn.conversation.into(),
                headers: self.headers(turn, message, &body)?,
                body,
                answer_max: ANSWER_MAX,
                deadline: &deadline,
            };
            // The 2xx is the bot's word; a body that could not be read takes nothing from it.
            bot.post(call).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Handler for Forward {
    async fn handle(&self, turn: &Turn) -> Outcome {
        match self.forward(turn).await {
            Ok(()) => Outcome::Acknowledged,
            Err(outcome) => outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::response::IntoResponse;
    use http::StatusCode;

    use super::*;
    use crate::handler::testing::{TestBot, retry, settings, turn};
    use crate::model::{Failure, Timestamp};

    fn forward(bot: &TestBot) -> Forward {
        let settings = ForwardSettings {
            bot: settings(vec![bot.url()]),
            sign: Arc::new(|body| format!("sha256={}", body.len())),
            of_numbers: Vec::new(),
            rename: None,
        };
        Forward::new(settings, Clock::manual(Timestamp(0))).expect("the settings are right")
    }

    #[tokio::test]
    async fn a_message_arrives_as_meta_would_send_it_with_our_headers() {
        let mut bot = TestBot::answering(200).await;
        let mut turn = turn(7, &["hi"]);
        turn.attempt = 2;
        assert_eq!(forward(&bot).handle(&turn).await, Outcome::Acknowledged);
        let received = bot.next().await;
        let message = &turn.messages[0];
        assert_eq!(received.body, message.envelope.as_bytes());
        assert_eq!(received.uri, "/hook?token=secret");
        let key = message.key.to_string();
        let expected = [
            ("content-type", "application/json"),
            ("connection", "close"),
            ("user-agent", concat!("hapax/", env!("CARGO_PKG_VERSION"))),
            (
                "x-hub-signature-256",
                &format!("sha256={}", message.envelope.len()),
            ),
            ("x-hapax-event", &key),
            ("x-hapax-conversation", "cv_7"),
            ("x-hapax-turn", "turn_7_3"),
            ("x-hapax-attempt", "2"),
            ("idempotency-key", &key),
            ("traceparent", &format!("00-{key}-4f6eb1a9ade664f3-01")),
        ];
        for (name, value) in expected {
            assert_eq!(received.headers[name], value, "{name}");
        }
    }

    #[tokio::test]
    async fn messages_arrive_in_order_one_at_a_time() {
        let mut bot = TestBot::answering(204).await;
        let turn = turn(1, &["a", "b", "c"]);
        assert_eq!(forward(&bot).handle(&turn).await, Outcome::Acknowledged);
        for message in &turn.messages {
            assert_eq!(bot.next().await.body, message.envelope.as_bytes());
        }
        assert_eq!(bot.count(), 0);
    }

    #[tokio::test]
    async fn a_number_may_have_a_bot_of_its_own() {
        let (mut all, mut one) = (TestBot::answering(200).await, TestBot::answering(200).await);
        let mut turn = turn(7, &["hi"]);
        let forward = Forward::new(
            ForwardSettings {
                bot: settings(vec![all.url()]),
                sign: Arc::new(|_| String::new()),
                of_numbers: vec![(turn.number.clone(), settings(vec![one.url()]))],
                rename: None,
            },
            Clock::manual(Timestamp(0)),
        );
        let forward = forward.expect("the settings are right");
        assert_eq!(forward.handle(&turn).await, Outcome::Acknowledged);
        assert_eq!((one.count(), all.count()), (1, 0));
        turn.number = NumberId::from("2");
        assert_eq!(forward.handle(&turn).await, Outcome::Acknowledged);
        assert_eq!((one.count(), all.count()), (0, 1));
    }

    #[tokio::test]
    async fn a_message_that_comes_again_may_have_another_id_and_is_signed_with_it() {
        let mut bot = TestBot::answering(200).await;
        let forward = Forward::new(
            ForwardSettings {
                bot: settings(vec![bot.url()]),
                sign: Arc::new(|body| format!("sha256={}", body.len())),
                of_numbers: Vec::new(),
                rename: Some(Arc::new(|message, epoch| format!("{}~{epoch}", message.id))),
            },
            Clock::manual(Timestamp(0)),
        );
        let forward = forward.expect("the settings are right");
        let mut turn = turn(7, &["hi"]);
        forward.handle(&turn).await;
        assert_eq!(bot.next().await.body, turn.messages[0].envelope.as_bytes());
        // Also where the attempt before did not count.
        (turn.is_again, turn.epoch) = (true, 7);
        forward.handle(&turn).await;
        let again = bot.next().await;
        assert_eq!(again.body, "wamid.secret~7");
        assert_eq!(again.headers["x-hub-signature-256"], "sha256=14");
        assert_eq!(
            again.headers["idempotency-key"],
            turn.messages[0].key.to_string()
        );
    }

    #[tokio::test]
    async fn a_failure_ends_the_turn_before_the_messages_that_follow() {
        let calls = AtomicUsize::new(0);
        let answer = move || match calls.fetch_add(1, Ordering::SeqCst) {
            0 => StatusCode::OK.into_response(),
            _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        };
        let mut bot = TestBot::start(answer).await;
        let outcome = forward(&bot).handle(&turn(1, &["a", "b", "c"])).await;
        let (failure, reason, _) = retry(outcome);
        assert_eq!(failure, Failure::Failed);
        assert_eq!(reason, format!("{} answered 500", bot.name()));
        assert_eq!(bot.count(), 2);
    }

    #[tokio::test]
    async fn a_long_answer_is_still_a_yes() {
        let bot = TestBot::start(|| "x".repeat(ANSWER_MAX + 1).into_response()).await;
        assert_eq!(
            forward(&bot).handle(&turn(1, &["a"])).await,
            Outcome::Acknowledged
        );
    }
}
