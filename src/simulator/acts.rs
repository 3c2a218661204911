//! What people do in WhatsApp besides writing: they react, edit, tap, send pictures and places,
//! or something that nobody knows yet. And what comes beside messages and only looks like one.

use serde_json::{Map, Value, json};

use super::payload::{Element, Side, wamid};
use super::person::Person;
use super::seed::Draw;
use crate::model::Timestamp;

/// How much of WhatsApp people use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variety {
    /// They write texts.
    Texts,
    /// Everything.
    All,
}

const TEXT_CHANCE: f64 = 0.55;
const NOTICE_CHANCE: f64 = 0.04;
const OLD_MESSAGES: usize = 12;

/// Where and when something is done.
pub(super) struct Scene<'a> {
    pub(super) number: &'a str,
    pub(super) person: &'a Person,
    pub(super) at: Timestamp,
}

/// One message, of a kind that is drawn. `text` is what is said, where anything is; `before` the
/// message before it in the conversation, to react to or to change.
pub(super) fn message(
    scene: &Scene<'_>,
    id: &str,
    text: &str,
    before: Option<&str>,
    draw: &mut Draw,
) -> Element {
    let before = before.unwrap_or("wamid.of-long-ago");
    let (kind, object) = if draw.chance(TEXT_CHANCE) {
        ("text", json!({ "body": text }))
    } else {
        other(text, before, draw)
    };
    Element::message_of_type(scene.number, scene.person, id, scene.at, kind, object)
}

fn other(text: &str, before: &str, draw: &mut Draw) -> (&'static str, Value) {
    let media = |draw: &mut Draw, mime: &str| {
        json!({ "id": draw.below(1 << 50).to_string(), "mime_type": mime,
                "sha256": draw.hex(32), "caption": text })
    };
    match draw.below(11) {
        0 => (
            "reaction",
            json!({ "message_id": before, "emoji": draw.pick(&["👍", "❤️", "🙏"]) }),
        ),
        1 => (
            "edit",
            json!({ "original_message_id": before,
                    "message": { "type": "text", "text": { "body": text } } }),
        ),
        2 => ("button", json!({ "payload": "YES", "text": "Yes" })),
        3 => (
            "interactive",
            json!({ "type": "button_reply",
                    "button_reply": { "id": "yes", "title": "Yes" } }),
        ),
        4 => (
            "interactive",
            json!({ "type": "list_reply",
                    "list_reply": { "id": "row-2", "title": "Tuesday", "description": text } }),
        ),
        5 => ("image", media(draw, "image/jpeg")),
        6 => ("document", media(draw, "application/pdf")),
        7 => (
            "audio",
            json!({ "id": "77", "mime_type": "audio/ogg; codecs=opus", "voice": true }),
        ),
        8 => ("location", json!({ "latitude": 52.5, "longitude": 13.4 })),
        9 => ("hologram", json!({ "of": text })),
        _ => ("revoke", json!({ "original_message_id": before })),
    }
}

/// Now and then, something that looks like a message of this person and must not be answered.
pub(super) fn notice(scene: &Scene<'_>, text: &str, draw: &mut Draw) -> Option<Element> {
    if !draw.chance(NOTICE_CHANCE) {
        return None;
    }
    let id = wamid(scene.person, Side::Person, draw);
    let item = copy(scene, &id, text);
    let mut members = Map::new();
    let field = if draw.chance(0.5) {
        members.insert("standby".into(), json!({ "messages": [item] }));
        "standby"
    } else {
        members.insert("message_echoes".into(), json!([item]));
        "smb_message_echoes"
    };
    Some(Element::notice(scene.number, field, members))
}

/// What a number that joins from the phone app brings along: old messages, in one delivery.
pub(super) fn history(scene: &Scene<'_>, draw: &mut Draw) -> Element {
    let old = |draw: &mut Draw| {
        let id = wamid(scene.person, Side::Person, draw);
        copy(scene, &id, "from before")
    };
    let messages: Vec<Value> = (0..OLD_MESSAGES).map(|_| old(draw)).collect();
    let thread = json!({ "id": scene.person.alias(), "messages": messages });
    let part = json!({
        "metadata": { "phase": 0, "chunk_order": 1, "progress": 100 }, "threads": [thread],
    });
    let mut members = Map::new();
    members.insert("history".into(), json!([part]));
    Element::notice(scene.number, "history", members)
}

fn copy(scene: &Scene<'_>, id: &str, text: &str) -> Value {
    json!({
        "from": scene.person.alias(), "id": id, "timestamp": scene.at.as_seconds().to_string(),
        "type": "text", "text": { "body": text },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::simulator::payload::single;
    use crate::simulator::seen::{Seen, read};

    #[test]
    fn every_kind_is_a_message_and_every_notice_is_none() {
        let ann = Person::by_both("15550000001", "US.1");
        let scene = Scene {
            number: "n",
            person: &ann,
            at: Timestamp(0),
        };
        let mut draw = Draw::new(1);
        let mut kinds = HashSet::new();
        for n in 0..400 {
            let element = message(&scene, &format!("wamid.{n}"), "hi", None, &mut draw);
            let body = single(&element);
            let json: Value = serde_json::from_slice(&body).unwrap();
            let kind = &json["entry"][0]["changes"][0]["value"]["messages"][0]["type"];
            kinds.insert(kind.as_str().unwrap().to_owned());
            assert!(matches!(read(&body)[..], [Seen::Message { .. }]));
        }
        assert_eq!(kinds.len(), 11, "{kinds:?}");
        let notices = (0..400).filter_map(|_| notice(&scene, "hi", &mut draw));
        let mut notices: Vec<Element> = notices.collect();
        assert!(notices.len() > 5);
        notices.push(history(&scene, &mut draw));
        for element in &notices {
            let seen = read(&single(element));
            assert!(!seen.is_empty());
            assert!(seen.iter().all(|s| matches!(s, Seen::Notice { .. })));
        }
    }
}
