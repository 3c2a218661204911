//! Deliveries put together from elements of every kind, however they are batched. Each element
//! has an id and a person of its own, so that it can be told from all others.

use proptest::prelude::*;
use proptest::sample::select;

use super::json::Json;

/// How many changes differ in what surrounds their elements.
const FRAMES: usize = 3;

/// The array in which an element stands; its change's `field` follows from that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Messages,
    Statuses,
    Errors,
    Echoes,
    Calls,
    Standby,
}

impl Place {
    const fn field(self) -> &'static str {
        match self {
            Self::Messages | Self::Statuses | Self::Errors => "messages",
            Self::Echoes => "smb_message_echoes",
            Self::Calls => "calls",
            Self::Standby => "standby",
        }
    }

    const fn array(self) -> &'static str {
        match self {
            Self::Messages | Self::Standby => "messages",
            Self::Statuses => "statuses",
            Self::Errors => "errors",
            Self::Echoes => "message_echoes",
            Self::Calls => "calls",
        }
    }
}

/// What surrounds elements.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    number: String,
    /// The number stands where handovers have it.
    is_recipient: bool,
    time: Option<u32>,
    /// The length of a member that we do not know.
    later: Option<usize>,
}

#[derive(Debug, Clone)]
pub(super) struct Element {
    pub(super) frame: usize,
    pub(super) place: Place,
    pub(super) json: Json,
    pub(super) contact: Option<Json>,
    /// Nobody wrote it: a notice, although it stands among messages.
    pub(super) is_system: bool,
}

/// Elements, and what surrounds them.
#[derive(Debug, Clone)]
pub(super) struct Drawn {
    pub(super) frames: Vec<Frame>,
    pub(super) elements: Vec<Element>,
}

impl Drawn {
    /// One delivery of these elements in this order: a new change where the array's field or the
    /// frame is another, and where `split` says so.
    pub(super) fn batch(&self, elements: &[Element], split: impl Fn(usize) -> bool) -> Json {
        let mut entries: Vec<Json> = Vec::new();
        let mut begun = 0;
        for index in 1..=elements.len() {
            let [last, next] = [Some(&elements[index - 1]), elements.get(index)];
            let key = |element: &Element| (element.frame, element.place.field());
            if last.map(key) == next.map(key) && !split(index) {
                continue;
            }
            let change = self.change(&elements[begun..index]);
            begun = index;
            let frame = &self.frames[elements[index - 1].frame];
            let entry = Json::object([("id", Json::text("waba"))]);
            let entry = match frame.time {
                Some(time) => entry.with("time", Json::literal(time)),
                None => entry,
            };
            entries.push(entry.with("changes", Json::Array(vec![change])));
        }
        let object = Json::text("whatsapp_business_account");
        Json::object([("object", object), ("entry", Json::Array(entries))])
    }

    /// A delivery of this element and no other.
    pub(super) fn alone(&self, element: &Element) -> Json {
        self.batch(std::slice::from_ref(element), |_| false)
    }

    fn change(&self, elements: &[Element]) -> Json {
        let first = &elements[0];
        let frame = &self.frames[first.frame];
        let number = Json::object([("phone_number_id", Json::text(&*frame.number))]);
        let place = if frame.is_recipient {
            "recipient"
        } else {
            "metadata"
        };
        let product = Json::text("whatsapp");
        let mut value = Json::object([("messaging_product", product), (place, number)]);
        if let Some(length) = frame.later {
            value = value.with("later", Json::text("x".repeat(length)));
        }
        let contacts: Vec<Json> = elements.iter().filter_map(|e| e.contact.clone()).collect();
        if !contacts.is_empty() {
            value = value.with("contacts", Json::Array(contacts));
        }
        let mut arrays = Json::object([]);
        for place in [Place::Messages, Place::Statuses, Place::Errors] {
            arrays = with_array(arrays, place, elements);
        }
        for place in [Place::Echoes, Place::Calls, Place::Standby] {
            arrays = with_array(arrays, place, elements);
        }
        let field = Json::text(first.place.field());
        if first.place == Place::Standby {
            value = value.with("standby", arrays);
        } else if let (Json::Object(members), Json::Object(arrays)) = (&mut value, arrays) {
            members.extend(arrays);
        }
        Json::object([("value", value), ("field", field)])
    }
}

fn with_array(value: Json, place: Place, elements: &[Element]) -> Json {
    let there = elements.iter().filter(|element| element.place == place);
    let there: Vec<Json> = there.map(|element| element.json.clone()).collect();
    if there.is_empty() {
        value
    } else {
        value.with(place.array(), Json::Array(there))
    }
}

/// What is drawn for one element before it has its number.
type Draft = (usize, Place, usize, u8, String);

fn element(index: usize, (frame, place, kind, names, text): Draft) -> Element {
    let id = Json::text(format!("wamid.{index}=="));
    let mut element = Element {
        frame,
        place,
        json: Json::object([("id", id.clone())]),
        contact: None,
        is_system: false,
    };
    let (phone, user) = (format!("49155{index:06}"), format!("DE.{index}"));
    let phone_text = Json::text(&*phone);
    match place {
        Place::Messages | Place::Echoes | Place::Standby => {
            let mut contact = Json::object([("profile", Json::object([]))]);
            let mut json = element.json;
            if names % 4 != 1 {
                let from = if names >= 128 {
                    Json::literal(&phone)
                } else {
                    phone_text.clone()
                };
                json = json.with("from", from);
                contact = contact.with("wa_id", phone_text);
            }
            if names % 4 != 0 {
                json = json.with("from_user_id", Json::text(&*user));
                contact = contact.with("user_id", Json::text(user));
            }
            if names % 8 == 7 {
                json = json.with("group_id", Json::text("g"));
            }
            json = json.with("timestamp", Json::text("1790000000"));
            element.json = content(json, kind, text);
            let has_contact = place == Place::Messages && names % 3 != 0;
            element.contact = has_contact.then_some(contact);
            element.is_system = kind % KINDS == SYSTEM;
        }
        Place::Statuses => {
            let words = ["sent", "delivered", "read", "played", "failed", "pending"];
            let error = Json::object([("code", Json::literal(131_000 + kind))]);
            element.json = element
                .json
                .with("status", Json::text(words[kind % words.len()]))
                .with("recipient_id", phone_text)
                .with("biz_opaque_callback_data", Json::text(text))
                .with("errors", Json::Array(vec![error]));
        }
        Place::Errors => {
            element.json = Json::object([("code", Json::literal(index)), ("title", id)]);
        }
        Place::Calls => element.json = element.json.with("event", Json::text("connect")),
    }
    element
}

const KINDS: usize = 8;
const SYSTEM: usize = 4;

fn content(json: Json, kind: usize, text: String) -> Json {
    let body = Json::object([("body", Json::Text(text.clone()))]);
    match kind % KINDS {
        0 => json.with("type", Json::text("text")).with("text", body),
        1 => json.with("type", Json::text("image")).with(
            "image",
            Json::object([("id", Json::literal(7)), ("caption", Json::Text(text))]),
        ),
        2 => json
            .with("type", Json::text("contacts"))
            .with("contacts", Json::Array(vec![body])),
        3 => json.with("type", Json::text("hologram")),
        SYSTEM => json.with("type", Json::text("system")),
        // Not the shape of its type.
        5 => json
            .with("type", Json::text("text"))
            .with("text", Json::Text(text)),
        6 => json.with("later", body),
        _ => json
            .with("type", Json::text("unsupported"))
            .with("errors", Json::Array(vec![body])),
    }
}

fn frames() -> impl Strategy<Value = Vec<Frame>> {
    let frame = (
        prop::bool::weighted(0.2),
        prop::option::of(any::<u32>()),
        prop_oneof![4 => Just(None), 2 => Just(Some(9)), 1 => Just(Some(20_000))],
    );
    prop::collection::vec(frame, FRAMES).prop_map(|frames| {
        let frames = frames.into_iter().enumerate();
        frames
            .map(|(index, (is_recipient, time, later))| Frame {
                number: format!("10{index}"),
                is_recipient,
                time,
                later,
            })
            .collect()
    })
}

fn elements(places: &'static [Place]) -> impl Strategy<Value = Vec<Element>> {
    let draft = (
        0..FRAMES,
        select(places),
        0..64_usize,
        any::<u8>(),
        any::<String>(),
    );
    prop::collection::vec(draft, 1..8).prop_map(|drafts| {
        let drafts = drafts.into_iter().enumerate();
        drafts.map(|(index, draft)| element(index, draft)).collect()
    })
}

/// Elements of every kind.
pub(super) fn drawn() -> impl Strategy<Value = Drawn> {
    use Place::{Calls, Echoes, Errors, Messages, Standby, Statuses};
    const PLACES: [Place; 9] = [
        Messages, Messages, Messages, Messages, Statuses, Errors, Echoes, Calls, Standby,
    ];
    let drawn = (frames(), elements(&PLACES));
    drawn.prop_map(|(frames, elements)| Drawn { frames, elements })
}
