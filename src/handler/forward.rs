//! Hands each message to a bot's own webhook, in Meta's shape and signed as Meta signs.
//!
//! For the bot that exists already and stays as it is. It answers people by itself, so that a
//! turn that it has taken is silence on our side. How to sign is handed in, not known here.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::call::{Bot, BotSettings, Call, Deadline, SettingsError, headers};
use crate::clock::Clock;
use crate::model::{Handler, Message, Outcome, Turn};

const SIGNATURE: HeaderName = HeaderName::from_static("x-hub-signature-256");
const EVENT: HeaderName = HeaderName::from_static("x-hapax-event");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The body of an answer means nothing here; it is read, up to this many bytes, only so that its
/// connection can be used again.
const ANSWER_MAX: usize = 64 * 1024;

/// Gives the value of `X-Hub-Signature-256` for a body.
pub type Sign = Arc<dyn Fn(&[u8]) -> String + Send + Sync>;

/// What [`Forward`] needs.
#[derive(Clone)]
pub struct ForwardSettings {
    /// The bot; each URL is a webhook that takes Meta's POSTs.
    pub bot: BotSettings,
    /// Signs with the app secret that the bot checks against.
    pub sign: Sign,
}

/// Hands each message of a turn to a bot, one POST each, in order. The module's table tells how a
/// call ends.
///
/// Where a later message of a turn fails after an earlier one was taken, the whole turn is tried
/// again, and the bot gets the earlier one twice, with the same `Idempotency-Key`: turns of one
/// message avoid that.
pub struct Forward {
    bot: Bot,
    sign: Sign,
    clock: Clock,
}

impl Forward {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// The first fault of the settings.
    pub fn new(settings: ForwardSettings, clock: Clock) -> Result<Self, SettingsError> {
        Ok(Self {
            bot: Bot::new(settings.bot, clock.clone())?,
            sign: settings.sign,
            clock,
        })
    }

    fn headers(&self, turn: &Turn, message: &Message) -> Result<HeaderMap, Outcome> {
        let signature = (self.sign)(message.envelope.as_bytes());
        let signature = HeaderValue::try_from(signature)
            .map_err(|_| Outcome::failed("the signature is not a header value"))?;
        let mut headers = headers::of_turn(turn, message.key);
        headers.insert(SIGNATURE, signature);
        headers.insert(EVENT, headers::value(message.key));
        headers.insert(IDEMPOTENCY_KEY, headers::value(message.key));
        Ok(headers)
    }

    async fn forward(&self, turn: &Turn) -> Result<(), Outcome> {
        let deadline = Deadline::new(&self.clock, turn.deadline);
        for message in &turn.messages {
            let call = Call {
                conversation: turn.conversation,
                headers: self.headers(turn, message)?,
                body: Bytes::copy_from_slice(message.envelope.as_bytes()),
                answer_max: ANSWER_MAX,
                deadline: &deadline,
            };
            // The 2xx is the bot's word; a body that could not be read takes nothing from it.
            self.bot.post(call).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Handler for Forward {
    async fn handle(&self, turn: &Turn) -> Outcome {
        match self.forward(turn).await {
            Ok(()) => Outcome::Silence,
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
        };
        Forward::new(settings, Clock::manual(Timestamp(0))).expect("the settings are right")
    }

    #[tokio::test]
    async fn a_message_arrives_as_meta_would_send_it_with_our_headers() {
        let mut bot = TestBot::answering(200).await;
        let mut turn = turn(7, &["hi"]);
        turn.attempt = 2;
        assert_eq!(forward(&bot).handle(&turn).await, Outcome::Silence);
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
        assert_eq!(forward(&bot).handle(&turn).await, Outcome::Silence);
        for message in &turn.messages {
            assert_eq!(bot.next().await.body, message.envelope.as_bytes());
        }
        assert_eq!(bot.count(), 0);
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
            Outcome::Silence
        );
    }
}
