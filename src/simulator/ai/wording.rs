//! What the pretend AI says: quotes the tokens of what it was asked, and words no two of its
//! answers to one question alike.

use std::time::Duration;

use serde_json::Value;

use crate::simulator::seed::Draw;
use crate::simulator::token;

const OPENERS: [&str; 12] = [
    "Sure.",
    "Of course.",
    "Good question.",
    "Happy to help.",
    "Let me see.",
    "Thanks for asking.",
    "Right.",
    "Gladly.",
    "No problem.",
    "Understood.",
    "One moment.",
    "Here you are.",
];
const MIDDLES: [&str; 6] = [
    "As to {},",
    "About {}:",
    "Regarding {},",
    "You wrote {};",
    "I have looked into {},",
    "On your message {}:",
];
const CLOSERS: [&str; 8] = [
    "we are open until eight.",
    "it is on its way.",
    "that can be arranged.",
    "I have made a note of it.",
    "a colleague will call you.",
    "nothing else is needed.",
    "you can pay on delivery.",
    "tomorrow would suit us well.",
];

/// The shortest and, over it, the longest time that an answer takes.
const PAUSE_MIN: Duration = Duration::from_millis(15);
const PAUSE_OVER: Duration = Duration::from_millis(60);

/// An answer, and how long it takes.
pub(super) struct Worded {
    pub(super) text: String,
    pub(super) pause: Duration,
}

/// The `count`-th answer, from 0, to what holds these tokens.
pub(super) fn answer(root: &Draw, tokens: &[String], count: u64) -> Worded {
    let about = match tokens {
        [] => "your message".to_owned(),
        tokens => tokens.join(" "),
    };
    // The opener goes on from answer to answer, so neighbours never begin alike.
    let first = root.fork(&about).below(OPENERS.len() as u64);
    let opener = OPENERS[((first + count) % OPENERS.len() as u64) as usize];
    let mut draw = root.fork(&format!("{about} {count}"));
    let middle = draw.pick(&MIDDLES).replace("{}", &about);
    let closer = draw.pick(&CLOSERS);
    Worded {
        text: format!("{opener} {middle} {closer}"),
        pause: pause(&mut draw),
    }
}

/// How long a call takes.
pub(super) fn pause(draw: &mut Draw) -> Duration {
    PAUSE_MIN + draw.duration_below(PAUSE_OVER)
}

/// The text of an entry's `content`: a string, or parts with a `text` each.
fn text(entry: &Value) -> String {
    match &entry["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part["text"].as_str());
            texts.collect::<Vec<_>>().join(" ")
        }
        _ => String::new(),
    }
}

/// The tokens in what a person said since the last answer, in a list of entries with `role` and
/// `content`.
pub(super) fn asked(entries: &[Value]) -> Vec<String> {
    let is_answer = |entry: &Value| entry["role"] == "assistant";
    let start = entries.iter().rposition(is_answer).map_or(0, |at| at + 1);
    of_user(&entries[start..])
}

/// The tokens in all that a person said.
pub(super) fn of_user(entries: &[Value]) -> Vec<String> {
    let said = entries.iter().filter(|entry| entry["role"] == "user");
    token::find(&said.map(text).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn two_answers_to_one_question_differ_and_both_quote_it() {
        let root = Draw::new(7);
        let tokens = ["#bcdfg".to_owned()];
        let texts: Vec<String> = (0..5).map(|n| answer(&root, &tokens, n).text).collect();
        for (index, text) in texts.iter().enumerate() {
            assert_eq!(token::find(text), tokens, "{text}");
            assert!(!texts[..index].contains(text), "{text}");
        }
        assert_eq!(answer(&root, &tokens, 0).text, texts[0]);
        assert!(answer(&root, &[], 0).text.contains("your message"));
    }

    #[test]
    fn what_was_answered_before_is_not_asked_again() {
        let entries = json!([
            { "role": "system", "content": "be kind #sssss" },
            { "role": "user", "content": "hi #bcdfg" },
            { "role": "assistant", "content": "hi" },
            { "role": "user", "content": [{ "type": "text", "text": "more #hjkmn" }] },
            { "role": "user", "content": "and #pqrst" },
        ]);
        let entries = entries.as_array().unwrap();
        assert_eq!(asked(entries), ["#hjkmn", "#pqrst"]);
        assert_eq!(of_user(entries), ["#bcdfg", "#hjkmn", "#pqrst"]);
    }
}
