//! Answers each message with what it says: the first run, before there is a bot.

use async_trait::async_trait;

use crate::model::{Handler, Message, Outcome, Reply, Turn};

/// Replies to each message of a turn with its text, or with its type in brackets where it has
/// none, for example `[image]`.
///
/// Reactions, revocations and system messages get no reply: they say something about another
/// message or about the person, and nobody expects an answer to them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Echo;

#[async_trait]
impl Handler for Echo {
    async fn handle(&self, turn: &Turn) -> Outcome {
        let replies: Vec<Reply> = turn.messages.iter().filter_map(reply).collect();
        if replies.is_empty() {
            Outcome::Silence
        } else {
            Outcome::Reply(replies)
        }
    }
}

fn reply(message: &Message) -> Option<Reply> {
    match (message.kind.as_str(), message.text.as_deref()) {
        ("reaction" | "revoke" | "system", _) => None,
        (_, Some(text)) if !text.is_empty() => Some(Reply::Text(text.to_owned())),
        (kind, _) => Some(Reply::Text(format!("[{kind}]"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::testing::{message, turn};

    async fn answer(messages: Vec<Message>) -> Outcome {
        let mut turn = turn(1, &[]);
        turn.messages = messages;
        Echo.handle(&turn).await
    }

    #[tokio::test]
    async fn each_message_is_answered_in_order() {
        let messages = vec![
            message("text", Some("hi")),
            message("reaction", Some("👍")),
            message("image", Some("my cat")),
            message("image", None),
            message("unsupported", None),
            message("text", Some("")),
        ];
        let texts = ["hi", "my cat", "[image]", "[unsupported]", "[text]"];
        let replies = texts.map(|text| Reply::Text(text.to_owned()));
        assert_eq!(answer(messages).await, Outcome::Reply(replies.to_vec()));
    }

    #[tokio::test]
    async fn what_expects_no_answer_gets_none() {
        let messages = vec![message("reaction", Some("👍")), message("system", None)];
        assert_eq!(answer(messages).await, Outcome::Silence);
    }
}
