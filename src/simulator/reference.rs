//! How a reply tells which message it answers, and in which call of the bot it was said.

use std::fmt;

use super::record::Mark;

/// What the pretend bot of a rehearsal says to a message: names it, and the call in which it said
/// it, so that two answers of an artificial mind to one question are two different texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The message it answers.
    pub wamid: String,
    /// The number of the call; 0 where it is said in the same words in each.
    pub call: Mark,
    /// Which of the replies of that call, from 1.
    pub part: usize,
    /// How many there are.
    pub parts: usize,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            wamid,
            call,
            part,
            parts,
        } = self;
        write!(f, "to {wamid} in call {call}, {part} of {parts}")
    }
}

impl Reference {
    /// A reply to messages, a line for each: what was said in a call, as which part of how many.
    pub(super) fn lines(wamids: &[String], call: Mark, (part, parts): (usize, usize)) -> String {
        let line = |wamid: &String| {
            let reference = Self {
                wamid: wamid.clone(),
                call,
                part,
                parts,
            };
            reference.to_string()
        };
        wamids.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// Reads a reply's text; `None` for any other.
    pub fn parse(text: &str) -> Option<Self> {
        let (wamid, rest) = text.strip_prefix("to ")?.split_once(" in call ")?;
        let (call, rest) = rest.split_once(", ")?;
        let (part, parts) = rest.split_once(" of ")?;
        Some(Self {
            wamid: wamid.to_owned(),
            call: call.parse().ok()?,
            part: part.parse().ok()?,
            parts: parts.parse().ok()?,
        })
    }
}

/// What a reply is about, whichever call it was said in: what is drawn for it must not depend on
/// when the bot was called.
pub(super) fn about(text: &str) -> String {
    match Reference::parse(text) {
        Some(to) => format!("{} {}", to.wamid, to.part),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_reads_back_and_other_texts_are_none() {
        let reference = Reference {
            wamid: "wamid.A".to_owned(),
            call: 7,
            part: 1,
            parts: 2,
        };
        assert_eq!(Reference::parse(&reference.to_string()), Some(reference));
        for text in [
            "",
            "to me",
            "to wamid.A in call x, 1 of 2",
            "good morning #1",
        ] {
            assert_eq!(Reference::parse(text), None, "{text}");
        }
    }
}
