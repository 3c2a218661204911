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
            conversation: turn.conversation,
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
