//! Asks a bot what to reply, and leaves the sending to Hapax: the bot needs no token of Meta's,
//! and what it decides is sent once.

mod answer;
mod signature;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;

use self::signature::Signer;
use super::call::{Answer, Bot, BotSettings, Call, Deadline, SettingsError, headers};
use crate::clock::Clock;
use crate::model::{Handler, Message, Outcome, Secret, Turn};

/// How much of an answer is read, in bytes.
const ANSWER_MAX: usize = 1024 * 1024;

/// What [`Ask`] needs.
#[derive(Clone)]
pub struct AskSettings {
    /// The bot; each URL takes questions.
    pub bot: BotSettings,
    /// The key that questions are signed with: `whsec_` and base64, or any text.
    pub secret: Secret,
}

/// Posts each turn as one JSON question and takes the replies from the answer. The module's table
/// tells how a call ends; an answer that can't be read is a failure, too.
///
/// The question: `{conversation, is_new, thread, messages, attempt, turn, number}`. `conversation`
/// is the same for one person and number, for ever; `thread` is `null` while no thread is known;
/// `turn` is the same over all attempts. It is signed by the Standard Webhooks convention, under
/// the id of the turn.
///
/// The answer: 204 or nothing is silence; `{"replies": […]}`, at most 20, each a text,
/// `{"text": "…"}` or a message body of the Graph API; a bare list or a single reply will do.
pub struct Ask {
    bot: Bot,
    signer: Signer,
    clock: Clock,
}

#[derive(Serialize)]
struct Question<'a> {
    conversation: String,
    is_new: bool,
    thread: Option<&'a str>,
    messages: &'a [Message],
    attempt: u32,
    turn: String,
    number: &'a str,
}

impl Ask {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// The first fault of the settings.
    pub fn new(settings: AskSettings, clock: Clock) -> Result<Self, SettingsError> {
        Ok(Self {
            signer: Signer::new(&settings.secret)?,
            bot: Bot::new(settings.bot, clock.clone())?,
            clock,
        })
    }

    async fn ask(&self, turn: &Turn) -> Result<Outcome, Outcome> {
        let Some(first) = turn.messages.first() else {
            return Ok(Outcome::Silence);
        };
        let deadline = Deadline::new(&self.clock, turn.deadline);
        let body = question(turn);
        let mut headers = headers::of_turn(turn, first.key);
        self.signer
            .sign(&mut headers, turn.id, self.clock.now(), &body);
        let call = Call {
            person: turn.conversation.into(),
            headers,
            body,
            answer_max: ANSWER_MAX,
            deadline: &deadline,
        };
        outcome(self.bot.post(call).await?)
    }
}

#[async_trait]
impl Handler for Ask {
    async fn handle(&self, turn: &Turn) -> Outcome {
        match self.ask(turn).await {
            Ok(outcome) | Err(outcome) => outcome,
        }
    }
}

fn question(turn: &Turn) -> Bytes {
    let question = Question {
        conversation: turn.conversation.to_string(),
        is_new: turn.is_new,
        thread: None,
        messages: &turn.messages,
        attempt: turn.attempt,
        turn: turn.id.to_string(),
        number: turn.number.as_str(),
    };
    let json = serde_json::to_vec(&question).expect("texts, numbers and JSON make JSON");
    json.into()
}

fn outcome(answer: Answer<'_>) -> Result<Outcome, Outcome> {
    let failed =
        |why: &dyn std::fmt::Display| Outcome::failed(format!("{} gave {why}", answer.name));
    match answer.body {
        Ok(body) => answer::read(&body)
            .map_err(|fault| failed(&format!("an answer that can't be read: {fault}"))),
        Err(unread) => Err(failed(&unread)),
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use hmac::{Hmac, KeyInit, Mac};
    use serde_json::{Value, json};
    use sha2::Sha256;

    use super::*;
    use crate::handler::testing::{TestBot, retry, settings, turn};
    use crate::model::{Failure, Reply, Timestamp};

    const NOW: Timestamp = Timestamp(1_760_000_000_999);

    fn asking(bot: &TestBot) -> Ask {
        let settings = AskSettings {
            bot: settings(vec![bot.url()]),
            secret: Secret::new("whsec_c2VzYW1l"),
        };
        Ask::new(settings, Clock::manual(NOW)).expect("the settings are right")
    }

    async fn answer_to(body: &'static str) -> Outcome {
        let bot = TestBot::start(move || body.into_response()).await;
        asking(&bot).handle(&turn(7, &["hi"])).await
    }

    #[tokio::test]
    async fn a_question_holds_the_turn_and_is_signed() {
        let mut bot = TestBot::answering(204).await;
        let mut turn = turn(7, &["hi", "there"]);
        turn.attempt = 2;
        assert_eq!(asking(&bot).handle(&turn).await, Outcome::Silence);
        let received = bot.next().await;
        let message = |text| {
            json!({
                "id": "wamid.secret", "type": "text", "from": "15550100", "name": "Ann",
                "timestamp": 1_760_000_000, "text": text, "raw": {"type": "text"},
            })
        };
        let question: Value = serde_json::from_slice(&received.body).expect("is JSON");
        let expected = json!({
            "conversation": "cv_7", "is_new": false, "thread": null, "attempt": 2,
            "turn": "turn_7_3", "number": "106540352242922",
            "messages": [message("hi"), message("there")],
        });
        assert_eq!(question, expected);

        assert_eq!(received.headers["content-type"], "application/json");
        assert_eq!(received.headers["webhook-id"], "turn_7_3");
        assert_eq!(received.headers["webhook-timestamp"], "1760000000");
        let mut mac = Hmac::<Sha256>::new_from_slice(b"sesame").expect("any length");
        mac.update(&[b"turn_7_3.1760000000.".as_slice(), &received.body].concat());
        let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        assert_eq!(received.headers["webhook-signature"], signature);
    }

    #[tokio::test]
    async fn the_answer_is_the_outcome() {
        let replies = vec![Reply::Text("one".to_owned()), Reply::Text("two".to_owned())];
        assert_eq!(
            answer_to(r#"{"replies":["one",{"text":"two"}]}"#).await,
            Outcome::Reply(replies)
        );
        assert_eq!(answer_to("").await, Outcome::Silence);
    }

    #[tokio::test]
    async fn an_answer_that_cannot_be_read_is_a_failure_that_tells_nothing() {
        let (failure, reason, _) = retry(answer_to("{\"text\": secret}").await);
        assert_eq!(failure, Failure::Failed);
        assert!(reason.ends_with("no JSON at line 1, column 10"), "{reason}");
    }

    #[tokio::test]
    async fn an_endless_answer_is_a_failure() {
        let bot = TestBot::start(|| " ".repeat(ANSWER_MAX + 1).into_response()).await;
        let (failure, reason, _) = retry(asking(&bot).handle(&turn(1, &["a"])).await);
        assert_eq!(failure, Failure::Failed);
        assert!(
            reason.ends_with("gave an answer longer than 1048576 bytes"),
            "{reason}"
        );
    }
}
