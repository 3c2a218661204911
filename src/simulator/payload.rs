//! Meta's JSON, built and read from the simulator's own knowledge: elements, deliveries, ids of
//! messages, signatures.
//!
//! Shares nothing with the gateway's decoder on purpose: a mistake made on both sides would
//! never be found. Source: Meta's webhook reference for the field `messages`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Map, Value, json};
use sha2::Sha256;

use super::person::Person;
use super::seed::Draw;
use crate::model::Timestamp;

const ACCOUNT: &str = "100000000000001";
const DISPLAY_PHONE: &str = "15550999999";

/// One element of a delivery, of one business number. Does not print what it holds.
#[derive(Clone, PartialEq)]
pub struct Element {
    number: String,
    kind: Kind,
}

#[derive(Clone, PartialEq)]
enum Kind {
    Message {
        contact: Option<Value>,
        message: Value,
    },
    Status(Value),
    /// A change of another field, whole.
    Notice {
        field: &'static str,
        value: Map<String, Value>,
    },
}

impl std::fmt::Debug for Element {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.kind {
            Kind::Message { .. } => "Element(message)",
            Kind::Status(_) => "Element(status)",
            Kind::Notice { .. } => "Element(notice)",
        })
    }
}

/// What a status says of a message that the business sent.
#[derive(Clone)]
pub struct StatusOf<'a> {
    /// The message.
    pub wamid: &'a str,
    /// Who it was sent to.
    pub person: &'a Person,
    /// Meta's word: `sent`, `delivered`, `read`, `played` or `failed`.
    pub status: &'a str,
    /// The error code of a `failed`.
    pub code: Option<i64>,
    /// `biz_opaque_callback_data` of the send.
    pub tag: Option<&'a str>,
    /// The member of a group whom it speaks of; Meta reports on each.
    pub participant: Option<&'a str>,
}

impl Element {
    /// A text that `person` wrote.
    pub fn text(number: &str, person: &Person, wamid: &str, at: Timestamp, text: &str) -> Self {
        Self::message_of_type(number, person, wamid, at, "text", json!({ "body": text }))
    }

    /// A message of any type: `object` stands under the key `kind`.
    pub fn message_of_type(
        number: &str,
        person: &Person,
        wamid: &str,
        at: Timestamp,
        kind: &str,
        object: Value,
    ) -> Self {
        let mut contact = Map::new();
        let mut message = Map::new();
        contact.insert("profile".into(), json!({ "name": person.name }));
        // An id that is not shown is left out, never empty.
        if let Some(phone) = &person.phone {
            contact.insert("wa_id".into(), json!(phone));
            message.insert("from".into(), json!(phone));
        }
        if let Some(bsuid) = &person.bsuid {
            contact.insert("user_id".into(), json!(bsuid));
            message.insert("from_user_id".into(), json!(bsuid));
        }
        if let Some(group) = &person.group {
            message.insert("group_id".into(), json!(group));
        }
        message.insert("id".into(), json!(wamid));
        message.insert("timestamp".into(), json!(at.as_seconds().to_string()));
        message.insert("type".into(), json!(kind));
        message.insert(kind.into(), object);
        Self::message(number, Some(contact.into()), message.into())
    }

    /// A message as it stands, for shapes that nobody else builds: `system` messages have no
    /// contact, malformed ones have anything.
    pub fn message(number: &str, contact: Option<Value>, message: Value) -> Self {
        Self {
            number: number.to_owned(),
            kind: Kind::Message { contact, message },
        }
    }

    /// A status of a message that the business sent.
    pub fn status(number: &str, of: &StatusOf<'_>, at: Timestamp) -> Self {
        let mut status = Map::new();
        status.insert("id".into(), json!(of.wamid));
        status.insert("status".into(), json!(of.status));
        status.insert("timestamp".into(), json!(at.as_seconds().to_string()));
        match &of.person.group {
            Some(group) => {
                status.insert("recipient_id".into(), json!(group));
                status.insert("recipient_type".into(), json!("group"));
                if let Some(participant) = &of.participant {
                    status.insert("recipient_participant_id".into(), json!(participant));
                }
            }
            None => {
                if let Some(phone) = &of.person.phone {
                    status.insert("recipient_id".into(), json!(phone));
                }
                if let Some(bsuid) = &of.person.bsuid {
                    status.insert("recipient_user_id".into(), json!(bsuid));
                }
            }
        }
        if let Some(tag) = of.tag {
            status.insert("biz_opaque_callback_data".into(), json!(tag));
        }
        if let Some(code) = of.code {
            let error = json!({
                "code": code, "title": "Message failed", "message": "Message failed",
                "error_data": { "details": "The simulator was told to fail this message." },
            });
            status.insert("errors".into(), json!([error]));
        }
        Self::raw_status(number, status.into())
    }

    /// A whole change of a field other than `messages`: what `members` say beside the number.
    /// Never shares a change with anything else.
    pub fn notice(number: &str, field: &'static str, members: Map<String, Value>) -> Self {
        Self {
            number: number.to_owned(),
            kind: Kind::Notice {
                field,
                value: members,
            },
        }
    }

    const fn is_notice(&self) -> bool {
        matches!(self.kind, Kind::Notice { .. })
    }

    /// A status as it stands.
    pub fn raw_status(number: &str, status: Value) -> Self {
        Self {
            number: number.to_owned(),
            kind: Kind::Status(status),
        }
    }
}

/// How several elements are put into one delivery. Meta documents all three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One change with all of them.
    Together,
    /// One entry with a change for each.
    ChangeEach,
    /// An entry for each.
    EntryEach,
}

impl Layout {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Together, Self::ChangeEach, Self::EntryEach];
}

/// The body of one POST. Elements of several numbers never share a change.
pub fn delivery(elements: &[&Element], layout: Layout) -> Bytes {
    let groups: Vec<&[&Element]> = match layout {
        Layout::Together => elements.chunk_by(|a, b| shares_change(a, b)).collect(),
        Layout::ChangeEach | Layout::EntryEach => elements.chunks(1).collect(),
    };
    let changes = groups.into_iter().map(change);
    let entry = |changes: Vec<Value>| json!({ "id": ACCOUNT, "changes": changes });
    let entries: Vec<Value> = match layout {
        Layout::EntryEach => changes.map(|change| entry(vec![change])).collect(),
        Layout::Together | Layout::ChangeEach => vec![entry(changes.collect())],
    };
    let body = json!({ "object": "whatsapp_business_account", "entry": entries });
    Bytes::from(body.to_string())
}

fn shares_change(a: &Element, b: &Element) -> bool {
    a.number == b.number && !a.is_notice() && !b.is_notice()
}

/// The body of one POST with one element.
pub fn single(element: &Element) -> Bytes {
    delivery(&[element], Layout::Together)
}

/// What every value begins with.
fn addressed(number: &str) -> Map<String, Value> {
    let mut value = Map::new();
    value.insert("messaging_product".into(), json!("whatsapp"));
    value.insert(
        "metadata".into(),
        json!({ "display_phone_number": DISPLAY_PHONE, "phone_number_id": number }),
    );
    value
}

fn notice(number: &str, field: &str, members: &Map<String, Value>) -> Value {
    let mut value = addressed(number);
    value.extend(members.clone());
    json!({ "field": field, "value": value })
}

fn change(elements: &[&Element]) -> Value {
    let number = elements.first().map_or("", |e| e.number.as_str());
    let mut contacts: Vec<&Value> = Vec::new();
    let mut messages = Vec::new();
    let mut statuses = Vec::new();
    for element in elements {
        match &element.kind {
            Kind::Message { contact, message } => {
                contacts.extend(
                    contact
                        .iter()
                        .filter(|c| !contacts.contains(c))
                        .collect::<Vec<_>>(),
                );
                messages.push(message);
            }
            Kind::Status(status) => statuses.push(status),
            Kind::Notice { field, value } => return notice(number, field, value),
        }
    }
    let mut value = addressed(number);
    let lists = [
        ("contacts", contacts),
        ("messages", messages),
        ("statuses", statuses),
    ];
    for (key, list) in lists {
        if !list.is_empty() {
            value.insert(key.into(), json!(list));
        }
    }
    json!({ "field": "messages", "value": value })
}

/// Which side a message comes from; part of its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The person wrote it.
    Person,
    /// The business wrote it.
    Business,
}

/// A fresh id of a message: like Meta's, a Thrift-compact struct with the person's phone number
/// (here: the user id where there is no phone), the side and a drawn inner id, in base64.
pub fn wamid(person: &Person, side: Side, draw: &mut Draw) -> String {
    let (flag, inner) = match side {
        Side::Person => (0x12, draw.hex(16)),
        Side::Business => (0x11, draw.hex(9)),
    };
    let mut id = vec![0x1c, 0x18];
    push_text(&mut id, person.alias());
    id.extend([0x15, 0x02, 0x00, flag, 0x18]);
    push_text(&mut id, &inner);
    id.push(0x00);
    format!("wamid.{}", STANDARD.encode(id))
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    let mut length = text.len();
    while length > 0x7f {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend(text.as_bytes());
}

/// The value of `X-Hub-Signature-256` for a body: HMAC-SHA256 over its exact bytes, keyed with
/// the app secret. Source: Meta, "Validate payloads".
pub fn sign(app_secret: &str, body: &[u8]) -> String {
    format!(
        "sha256={}",
        hex::encode(hmac_sha256(app_secret.as_bytes(), &[body]))
    )
}

/// HMAC-SHA256 over the parts, one after the other.
pub(super) fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::seen::read;

    fn list(value: &Value) -> &[Value] {
        value.as_array().map_or(&[], Vec::as_slice)
    }

    fn elements() -> Vec<Element> {
        let ann = Person::by_both("15550000001", "US.1");
        let bob = Person::by_bsuid("US.2");
        let status = StatusOf {
            wamid: "wamid.S",
            person: &ann,
            status: "failed",
            code: Some(131_026),
            tag: Some("tag"),
            participant: None,
        };
        vec![
            Element::text("n1", &ann, "wamid.A", Timestamp(1_700_000_000_999), "hi"),
            Element::message_of_type(
                "n1",
                &bob,
                "wamid.B",
                Timestamp(0),
                "reaction",
                json!({ "message_id": "wamid.X" }),
            ),
            Element::status("n1", &status, Timestamp(0)),
            Element::text("n2", &bob, "wamid.C", Timestamp(0), "other number"),
        ]
    }

    #[test]
    fn the_signature_is_metas() {
        let body = br#"{"object":"whatsapp_business_account","entry":[]}"#;
        assert_eq!(
            sign("test_app_secret", body),
            "sha256=dec6a680679a968e7e0319355b23599cbfc54502c0784668e9618baa0c633756"
        );
    }

    #[test]
    fn every_layout_carries_every_element() {
        let elements = elements();
        let all: Vec<&Element> = elements.iter().collect();
        for (layout, entries, changes) in [
            (Layout::Together, 1, 2),
            (Layout::ChangeEach, 1, 4),
            (Layout::EntryEach, 4, 4),
        ] {
            let body = delivery(&all, layout);
            let json: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(list(&json["entry"]).len(), entries, "{layout:?}");
            let count: usize = list(&json["entry"])
                .iter()
                .map(|e| list(&e["changes"]).len())
                .sum();
            assert_eq!(count, changes, "{layout:?}");
            let mut ids: Vec<String> = read(&body)
                .into_iter()
                .map(|seen| seen.wamid().to_owned())
                .collect();
            ids.sort();
            assert_eq!(ids, ["wamid.A", "wamid.B", "wamid.C", "wamid.S"]);
        }
    }

    #[test]
    fn the_shape_is_metas() {
        let elements = elements();
        let json: Value = serde_json::from_slice(&single(&elements[0])).unwrap();
        let value = &json["entry"][0]["changes"][0]["value"];
        let message = json!({
            "from": "15550000001", "from_user_id": "US.1", "id": "wamid.A",
            "timestamp": "1700000000", "type": "text", "text": { "body": "hi" },
        });
        assert_eq!(value["messages"], json!([message]));
        let contact = json!({
            "profile": { "name": "Ann" }, "wa_id": "15550000001", "user_id": "US.1",
        });
        assert_eq!(value["contacts"], json!([contact]));
        assert!(value.get("statuses").is_none());

        let json: Value = serde_json::from_slice(&single(&elements[2])).unwrap();
        let status = &json["entry"][0]["changes"][0]["value"]["statuses"][0];
        assert_eq!(status["biz_opaque_callback_data"], "tag");
        assert_eq!(status["errors"][0]["code"], 131_026);

        let json: Value = serde_json::from_slice(&single(&elements[3])).unwrap();
        let message = &json["entry"][0]["changes"][0]["value"]["messages"][0];
        assert!(
            message.get("from").is_none(),
            "an unknown phone is left out"
        );
    }

    #[test]
    fn an_id_contains_the_phone_and_is_new_each_time() {
        let ann = Person::by_phone("15550000001");
        let mut draw = Draw::new(1);
        let id = wamid(&ann, Side::Person, &mut draw);
        // The look of all ids of inbound messages that Meta's pages show.
        assert!(id.starts_with("wamid.HBgLMTU1NT"), "{id}");
        let bytes = STANDARD.decode(&id["wamid.".len()..]).unwrap();
        assert!(bytes.windows(11).any(|window| window == b"15550000001"));
        assert_ne!(id, wamid(&ann, Side::Person, &mut draw));
    }
}
