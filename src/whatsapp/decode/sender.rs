//! Who wrote a message: what the element says, and what the contact beside it adds.
//!
//! Contacts are matched by id, never by position: Meta promises no order.

use serde_json::value::RawValue;

use crate::model::Aliases;
use crate::whatsapp::json::{self, Object, Text};

/// The contacts of one value.
pub(super) struct Contacts<'a>(Vec<Contact<'a>>);

pub(super) struct Contact<'a> {
    pub(super) raw: &'a RawValue,
    user_id: Option<Text<'a>>,
    parent_user_id: Option<Text<'a>>,
    wa_id: Option<Text<'a>>,
}

impl<'a> Contacts<'a> {
    pub(super) fn of(value: &Object<'a>) -> Self {
        let contacts = value.array("contacts").unwrap_or_default();
        Self(contacts.into_iter().filter_map(Contact::read).collect())
    }

    /// The contact of a message. One that stands alone beside the only message (`sole`) is its
    /// contact whatever its ids: the `wa_id` may be written differently from `from`.
    pub(super) fn of_message(&self, message: &Object<'a>, sole: bool) -> Option<&Contact<'a>> {
        if let ([contact], true) = (self.0.as_slice(), sole) {
            return Some(contact);
        }
        let user_id = message.text("from_user_id");
        let wa_id = message.text("from");
        let same =
            |ours: &Option<Text<'a>>, theirs: &Option<Text<'a>>| ours.is_some() && ours == theirs;
        let contacts = || self.0.iter();
        contacts()
            .find(|contact| same(&contact.user_id, &user_id))
            .or_else(|| contacts().find(|contact| same(&contact.wa_id, &wa_id)))
    }
}

/// Where an element that is no message names its person, by user id and by phone number.
const USER_IDS: [&str; 3] = ["recipient_user_id", "from_user_id", "to_user_id"];
const PHONES: [&str; 3] = ["recipient_id", "from", "to"];

impl<'a> Contacts<'a> {
    /// The contact of any other element, by the same rule.
    pub(super) fn of_element(&self, element: &Object<'a>, sole: bool) -> Option<&Contact<'a>> {
        if let ([contact], true) = (self.0.as_slice(), sole) {
            return Some(contact);
        }
        let names = |known: &Option<Text<'a>>, places: [&str; 3]| {
            let named = || places.into_iter().filter_map(|place| element.text(place));
            known.is_some() && named().any(|name| Some(name) == *known)
        };
        let contacts = || self.0.iter();
        contacts()
            .find(|contact| names(&contact.user_id, USER_IDS))
            .or_else(|| contacts().find(|contact| names(&contact.wa_id, PHONES)))
    }
}

impl<'a> Contact<'a> {
    fn read(raw: &'a RawValue) -> Option<Self> {
        let contact = json::object(raw)?;
        Some(Self {
            raw,
            user_id: contact.text("user_id"),
            parent_user_id: contact.text("parent_user_id"),
            wa_id: contact.text("wa_id"),
        })
    }
}

/// Every way in which the sender is named. A contact that names another user id than the message
/// does adds nothing: linking two persons would hand one the other's conversation.
pub(super) fn aliases(message: &Object<'_>, contact: Option<&Contact<'_>>) -> Aliases {
    let from = message.text("from");
    let mut aliases = Aliases {
        bsuid: message.text("from_user_id").map(|id| id.to_text()),
        parent: message.text("from_parent_user_id").map(|id| id.to_text()),
        phone: from.as_ref().and_then(phone),
        group: message.text("group_id").map(|id| id.to_text()),
    };
    if aliases.bsuid.is_none() && aliases.phone.is_none() {
        // No page of Meta's says that `from` stays empty for ever where there is no phone.
        aliases.bsuid = from.map(|id| id.to_text()).filter(|id| is_bsuid(id));
    }
    let Some(contact) = contact else {
        return aliases;
    };
    let user_id = contact.user_id.as_ref().map(Text::to_text);
    if aliases.bsuid.is_some() && user_id.is_some() && aliases.bsuid != user_id {
        return aliases;
    }
    aliases.bsuid = aliases.bsuid.or(user_id);
    aliases.parent = aliases
        .parent
        .or_else(|| contact.parent_user_id.as_ref().map(Text::to_text));
    aliases.phone = aliases
        .phone
        .or_else(|| contact.wa_id.as_ref().and_then(phone));
    aliases
}

/// A phone number as digits with country code; `None` where it holds anything that no one dials.
pub(in crate::whatsapp) fn phone(text: &Text<'_>) -> Option<String> {
    digits(std::str::from_utf8(text.as_bytes()).ok()?)
}

/// The digits of a phone number as people write them; `None` where it holds anything else.
pub(in crate::whatsapp) fn digits(text: &str) -> Option<String> {
    let mut digits = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' => digits.push(char::from(byte)),
            b'+' | b' ' | b'-' | b'(' | b')' => {}
            _ => return None,
        }
    }
    (!digits.is_empty()).then_some(digits)
}

/// Digits of a phone number with its country code, by ITU-T E.164 at most 15.
const PHONE_DIGITS: std::ops::RangeInclusive<usize> = 5..=15;
/// Far longer than any user id.
const USER_ID_MAX: usize = 200;

/// The person whom a bot names: by phone number with country code, with or without `+`; by user id
/// (`US.123`) or by parent user id (`US.ENT.123`). `None` for anything else, such as a number
/// that begins with 0, which no country code does: taken as it stands, it would be somebody whom
/// no message is ever from.
pub fn person(text: &str) -> Option<Aliases> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    let is_phone = PHONE_DIGITS.contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && !digits.starts_with('0');
    if is_phone {
        return Some(Aliases {
            phone: Some(digits.to_owned()),
            ..Aliases::default()
        });
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !is_bsuid(text) || text.len() > USER_ID_MAX || !text.bytes().all(fits) {
        return None;
    }
    let id = Some(text.to_owned());
    Some(match text[3..].starts_with("ENT.") {
        true => Aliases {
            parent: id,
            ..Aliases::default()
        },
        false => Aliases {
            bsuid: id,
            ..Aliases::default()
        },
    })
}

/// `CC.` and more, where CC is a country's two letters.
fn is_bsuid(id: &str) -> bool {
    matches!(id.as_bytes(), [a, b, b'.', _, ..] if a.is_ascii_uppercase() && b.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(message: &str, contacts: &str, sole: bool, expected: [Option<&str>; 3]) {
        let value = format!(r#"{{"contacts":{contacts}}}"#);
        let value = json::parse(&value).unwrap();
        let message = json::parse(message).unwrap();
        let contacts = Contacts::of(&value);
        let aliases = aliases(&message, contacts.of_message(&message, sole));
        let found = [&aliases.bsuid, &aliases.parent, &aliases.phone].map(Option::as_deref);
        assert_eq!(found, expected);
    }

    #[test]
    fn the_contact_is_found_by_id_and_not_by_position() {
        let contacts = r#"[{"wa_id":"1","user_id":"US.a"},
            {"wa_id":"2","user_id":"US.b","parent_user_id":"US.ENT.b"}]"#;
        let expected = [Some("US.b"), Some("US.ENT.b"), Some("2")];
        check(r#"{"from":"2"}"#, contacts, false, expected);
        check(r#"{"from_user_id":"US.b"}"#, contacts, false, expected);
        check(r#"{"from":"3"}"#, contacts, false, [None, None, Some("3")]);
    }

    #[test]
    fn a_lone_contact_is_the_lone_messages() {
        let contact = r#"[{"wa_id":"5511987654321","user_id":"BR.1"}]"#;
        let from = r#"{"from":"551187654321"}"#;
        check(
            from,
            contact,
            true,
            [Some("BR.1"), None, Some("551187654321")],
        );
        check(from, contact, false, [None, None, Some("551187654321")]);
        check(
            "{}",
            contact,
            true,
            [Some("BR.1"), None, Some("5511987654321")],
        );
    }

    #[test]
    fn a_contact_with_another_user_id_adds_nothing() {
        let contact = r#"[{"wa_id":"1","user_id":"US.b","parent_user_id":"US.ENT.b"}]"#;
        check(
            r#"{"from_user_id":"US.a"}"#,
            contact,
            true,
            [Some("US.a"), None, None],
        );
    }

    #[test]
    fn a_person_is_named_as_meta_names_them_or_not_at_all() {
        let named = |text| {
            let person = person(text)?;
            let [bsuid, parent, phone] = [person.bsuid, person.parent, person.phone];
            Some((bsuid, parent, phone))
        };
        let owned = |text: &str| Some(text.to_owned());
        for text in ["4915112345", "+4915112345"] {
            assert_eq!(named(text), Some((None, None, owned("4915112345"))));
        }
        assert_eq!(named("US.9"), Some((owned("US.9"), None, None)));
        assert_eq!(named("US.ENT.9"), Some((None, owned("US.ENT.9"), None)));
        for wrong in [
            "",
            "+",
            "4915",
            "004915112345",
            "++4915112345",
            "49 15112345",
            "1234567890123456",
            "us.9",
            "US.",
            "US.9/8",
            "<PHONE>",
            "cv_7",
        ] {
            assert_eq!(named(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn phones_are_digits() {
        check(
            r#"{"from":491511}"#,
            "[]",
            true,
            [None, None, Some("491511")],
        );
        check(
            r#"{"from":"+49 (15) 1-1"}"#,
            "[]",
            true,
            [None, None, Some("491511")],
        );
        check(r#"{"from":"<PHONE>"}"#, "[]", true, [None, None, None]);
        check(r#"{"from":"US.9"}"#, "[]", true, [Some("US.9"), None, None]);
        check(r#"{"from":["4915"]}"#, "[]", true, [None, None, None]);
    }
}
