//! A request to `/messages`: a message to send, or one to mark as read.

use serde_json::{Map, Value, json};

use super::parameters::{Parameters, as_text};
use super::recipient::Dialled;
use crate::model::bot_send::Content;
use crate::model::{BotSendId, StoreId, Wamid};
use crate::whatsapp::compose::TYPES;
use crate::whatsapp::decode;
use crate::whatsapp::message::original_id;
use crate::whatsapp::minted;
use crate::whatsapp::told::Refused;

/// Members that say to whom, and for whom, and not what.
const FRAME: [&str; 5] = [
    "messaging_product",
    "recipient_type",
    "to",
    "recipient",
    "biz_opaque_callback_data",
];

/// Types of message that act on another one, which an object of their name names.
const ACTS: [&str; 2] = ["reaction", "pin"];

/// What is asked of `/messages`.
#[derive(Debug, Clone)]
pub enum Asked {
    /// A message is to be sent.
    Send(Box<ToSend>),
    /// Something is to be said of a message that came: that it is read, that an answer is typed.
    Mark(Mark),
}

/// A message to send.
#[derive(Clone, PartialEq)]
pub struct ToSend {
    /// To whom.
    pub to: Dialled,
    /// What it says, as far as two requests can be told apart by it. The same in whichever way a
    /// request is written, and before any id in it is translated.
    pub content: Content,
    /// The bot's own `biz_opaque_callback_data`.
    pub callback: Option<String>,
    message: Map<String, Value>,
}

impl std::fmt::Debug for ToSend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ToSend({:?}, {:?})", self.to, self.content)
    }
}

/// Something that is said of a message that came.
#[derive(Clone, PartialEq)]
pub struct Mark(Map<String, Value>);

impl std::fmt::Debug for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mark(…)")
    }
}

/// What stands for an id of ours towards Meta.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Quote {
    /// Meta's id of the message.
    Real(Wamid),
    /// Meta's id is not known, or not yet.
    Unknown,
}

/// Reads what is asked of `/messages`.
///
/// # Errors
/// What surely would be refused by Meta, or could not be routed: with Graph's codes 100, 131008
/// and 131009.
///
/// Source: Meta, *Messages API*; *Mark messages as read*; *Typing indicators*.
pub fn asked(parameters: Parameters) -> Result<Asked, Refused> {
    if parameters.text("messaging_product").as_deref() != Some("whatsapp") {
        return Err(Refused::product());
    }
    let names_nobody = parameters.text("to").is_none() && parameters.text("recipient").is_none();
    // With a recipient it might be sent all the same: then it is to be on record.
    if parameters.get("status").is_some() && names_nobody {
        let mut mark = parameters.into_said();
        give_original_id(&mut mark);
        return Ok(Asked::Mark(Mark(mark)));
    }
    let to = Dialled::of(&parameters)?;
    let callback = parameters.text("biz_opaque_callback_data");
    let mut message = parameters.into_said();
    message.retain(|name, _| !FRAME.contains(&name.as_str()));
    set_type(&mut message)?;
    for member in ["context"].iter().chain(&ACTS) {
        if let Some(Value::Object(named)) = message.get_mut(*member) {
            give_original_id(named);
        }
    }
    Ok(Asked::Send(Box::new(ToSend {
        content: content(&to, &message),
        to,
        // No ledger keeps a NUL in a text.
        callback: callback.map(|text| text.replace('\0', "\u{fffd}")),
        message,
    })))
}

/// A message that was handed to the bot again may have had an id made from Meta's. For Meta, and
/// to compare two attempts, it is the same message.
fn give_original_id(named: &mut Map<String, Value>) {
    if let Some(Value::String(id)) = named.get_mut("message_id") {
        *id = original_id(id).to_owned();
    }
}

/// Graph takes a message without a type for a text.
fn set_type(message: &mut Map<String, Value>) -> Result<(), Refused> {
    let kind = match message.get("type") {
        Some(Value::String(kind)) => kind.clone(),
        None if message.contains_key("text") => "text".to_owned(),
        Some(_) => return Err(Refused::value("type", "is not a word")),
        None => return Err(Refused::missing("type")),
    };
    if TYPES.contains(&kind.as_str()) && !message.contains_key(&kind) {
        return Err(Refused::missing(&kind));
    }
    message.insert("type".to_owned(), Value::from(kind));
    Ok(())
}

fn content(to: &Dialled, message: &Map<String, Value>) -> Content {
    let plain = message.iter().map(|(name, value)| {
        let value = as_text(value).map_or_else(|| value.clone(), Value::from);
        (name.clone(), value)
    });
    let plain = decode::canonical_text(&Value::Object(plain.collect()));
    Content::of(&[&to.recipient.encode(), &plain])
}

impl ToSend {
    /// Ids of ours that the message names, each with the store that gave it.
    pub fn own_ids(&self) -> Vec<(StoreId, BotSendId)> {
        let named = ["context"].iter().chain(&ACTS).filter_map(|member| {
            let id = self.message.get(*member)?.get("message_id")?.as_str()?;
            minted::parse(id)
        });
        named.collect()
    }

    /// The body as Meta is to get it, without a recipient. For each id of ours stands what
    /// `translate` says: a quote of what is not known is left out.
    ///
    /// # Errors
    /// The message acts on one of which Meta's id is not known: Graph's code 131009.
    pub fn body(&self, translate: impl Fn(StoreId, BotSendId) -> Quote) -> Result<String, Refused> {
        let mut message = self.message.clone();
        let real = |value: Option<&Value>| -> Option<Quote> {
            let (store, id) = minted::parse(value?.get("message_id")?.as_str()?)?;
            Some(translate(store, id))
        };
        match real(message.get("context")) {
            Some(Quote::Real(wamid)) => {
                message["context"]["message_id"] = json!(wamid.as_str());
            }
            Some(Quote::Unknown) => {
                message.remove("context");
            }
            None => {}
        }
        for act in ACTS {
            match real(message.get(act)) {
                Some(Quote::Real(wamid)) => message[act]["message_id"] = json!(wamid.as_str()),
                Some(Quote::Unknown) => {
                    let why = "names a message that has not been sent, or not yet";
                    return Err(Refused::value(&format!("{act}['message_id']"), why));
                }
                None => {}
            }
        }
        Ok(Value::Object(message).to_string())
    }
}

impl Mark {
    /// Whether it speaks of a message by an id of ours, of which Meta knows nothing.
    pub fn is_of_own_id(&self) -> bool {
        let id = self.0.get("message_id").and_then(Value::as_str);
        id.and_then(minted::parse).is_some()
    }

    /// The body for Meta.
    pub fn body(&self) -> String {
        Value::Object(self.0.clone()).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Written;
    use super::*;
    use crate::model::{Aliases, Recipient};

    fn read(body: &Value) -> Result<Asked, Refused> {
        let body = body.to_string();
        asked(Parameters::read("", Written::Json, body.as_bytes())?)
    }

    fn sent(mut body: Value) -> ToSend {
        body["messaging_product"] = json!("whatsapp");
        match read(&body) {
            Ok(Asked::Send(send)) => *send,
            other => panic!("{body}: {other:?}"),
        }
    }

    fn refused(body: Value) -> i64 {
        read(&body).expect_err("it is refused").code()
    }

    fn plain(send: &ToSend) -> Value {
        let body = send.body(|_, _| Quote::Unknown).expect("no act");
        serde_json::from_str(&body).expect("JSON")
    }

    #[test]
    fn a_phone_number_is_its_digits_however_it_is_dialled() {
        for to in [
            json!("4915112345"),
            json!("+4915112345"),
            json!("+49 (151) 123-45"),
            json!(4_915_112_345_u64),
        ] {
            let send = sent(json!({"to": to, "text": {"body": "hi"}}));
            assert_eq!(send.to.recipient, Recipient::Phone("4915112345".to_owned()));
            assert_eq!(send.to.to.phone.as_deref(), Some("4915112345"));
            let expected = json!({"type": "text", "text": {"body": "hi"}});
            assert_eq!(plain(&send), expected);
        }
        let both = sent(json!({"to": "49", "recipient": "US.1", "text": {}}));
        assert_eq!(both.to.recipient, Recipient::Phone("49".to_owned()));
    }

    #[test]
    fn a_user_and_a_group_are_written_to() {
        let send = sent(json!({"recipient": "US.1", "text": {}}));
        assert_eq!(send.to.recipient, Recipient::Bsuid("US.1".to_owned()));
        assert_eq!(send.to.to.bsuid.as_deref(), Some("US.1"));
        let send = sent(json!({"recipient": "US.ENT.1", "text": {}}));
        assert_eq!(send.to.to.parent.as_deref(), Some("US.ENT.1"));
        let send = sent(json!({"to": "grp-1", "recipient_type": "group", "text": {}}));
        assert_eq!(send.to.recipient, Recipient::Group("grp-1".to_owned()));
        let group = Aliases {
            group: Some("grp-1".to_owned()),
            ..Aliases::default()
        };
        assert_eq!(send.to.to, group);
    }

    #[test]
    fn what_can_not_be_sent_is_refused_as_meta_does() {
        let whole = json!({"messaging_product": "whatsapp", "to": "49", "text": {}});
        assert!(read(&whole).is_ok());
        let with = |name: &str, value: Value| {
            let mut body = whole.clone();
            body[name] = value;
            refused(body)
        };
        assert_eq!(with("messaging_product", json!("messenger")), 100);
        assert_eq!(with("messaging_product", Value::Null), 100);
        assert_eq!(with("to", Value::Null), 131_008);
        assert_eq!(with("to", json!("Ann")), 131_009);
        assert_eq!(with("to", json!("123456789012345678901")), 131_009);
        assert_eq!(with("text", Value::Null), 131_008);
        assert_eq!(with("type", json!("image")), 131_008);
        assert_eq!(with("type", json!(7)), 131_009);
    }

    #[test]
    fn a_new_type_is_metas_to_judge() {
        let body = json!({"to": "49", "type": "hologram", "hologram": {"id": 1}});
        assert_eq!(plain(&sent(body))["hologram"], json!({"id": 1}));
    }

    #[test]
    fn the_same_is_the_same_and_other_words_are_not() {
        let one = json!({"to": "+49", "type": "text", "text": {"body": "hi"}});
        let two = json!({"to": "4 9", "text": {"body": "hi"}, "biz_opaque_callback_data": "x",
                         "recipient_type": "individual"});
        assert_eq!(sent(one.clone()).content, sent(two.clone()).content);
        assert_eq!(sent(two).callback.as_deref(), Some("x"));
        let mut other = one.clone();
        other["text"]["body"] = json!("ho");
        assert_ne!(sent(one.clone()).content, sent(other).content);
        let mut other = one.clone();
        other["to"] = json!("50");
        assert_ne!(sent(one).content, sent(other).content);
    }

    #[test]
    fn an_id_of_ours_is_translated_or_left_out() {
        let ours = minted::mint(StoreId(7), BotSendId(3));
        let quoting = sent(json!({"to": "49", "text": {"body": "hi"},
            "context": {"message_id": ours}}));
        assert_eq!(quoting.own_ids(), [(StoreId(7), BotSendId(3))]);
        assert_eq!(plain(&quoting).get("context"), None);
        let body = quoting.body(|_, _| Quote::Real(Wamid::from("wamid.A")));
        let body: Value = serde_json::from_str(&body.unwrap()).unwrap();
        assert_eq!(body["context"]["message_id"], "wamid.A");

        let acting = sent(json!({"to": "49", "type": "reaction",
            "reaction": {"message_id": ours, "emoji": "👍"}}));
        let refused = acting.body(|_, _| Quote::Unknown);
        assert_eq!(refused.unwrap_err().code(), 131_009);
        let body = acting.body(|_, _| Quote::Real(Wamid::from("wamid.A")));
        let body: Value = serde_json::from_str(&body.unwrap()).unwrap();
        assert_eq!(body["reaction"]["message_id"], "wamid.A");

        let foreign = sent(json!({"to": "49", "text": {}, "context": {"message_id": "wamid.A"}}));
        assert_eq!(foreign.own_ids(), []);
        assert_eq!(plain(&foreign)["context"]["message_id"], "wamid.A");
    }

    #[test]
    fn a_message_is_the_same_by_the_id_of_each_attempt() {
        let quoting =
            |id: &str| sent(json!({"to": "49", "text": {}, "context": {"message_id": id}}));
        let (first, second) = (quoting("wamid.A"), quoting("wamid.A~2"));
        assert_eq!(first.content, second.content);
        assert_eq!(plain(&second)["context"]["message_id"], "wamid.A");
        let mark = json!({"messaging_product": "whatsapp", "status": "read",
            "message_id": "wamid.A~2"});
        let Ok(Asked::Mark(mark)) = read(&mark) else {
            panic!("it marks a message as read");
        };
        assert!(mark.body().contains("\"wamid.A\""));
    }

    #[test]
    fn a_mark_is_no_send() {
        let body = json!({"messaging_product": "whatsapp", "status": "read",
            "message_id": "wamid.A", "typing_indicator": {"type": "text"}});
        let Ok(Asked::Mark(mark)) = read(&body) else {
            panic!("it marks a message as read");
        };
        assert_eq!(serde_json::from_str::<Value>(&mark.body()).unwrap(), body);
        assert!(!mark.is_of_own_id());
        let mut ours = body.clone();
        ours["message_id"] = json!(minted::mint(StoreId(7), BotSendId(3)));
        let Ok(Asked::Mark(mark)) = read(&ours) else {
            panic!("it marks a message as read");
        };
        assert!(mark.is_of_own_id());
        let mut both = body;
        (both["to"], both["text"]) = (json!("49"), json!({"body": "hi"}));
        assert!(matches!(read(&both), Ok(Asked::Send(_))));
    }
}
