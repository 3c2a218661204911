//! Lenient reading of Meta's JSON, one layer at a time, borrowed from the body.
//!
//! A layer that is read says nothing of what lies deeper, so a broken element harms only itself.
//! Nothing here fails: what cannot be read is absent. It knows no field of Meta's.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::model::Timestamp;

/// A JSON string, decoded, or an integer by its digits. Held as bytes, in which a lone surrogate
/// keeps its own (WTF-8) form: two texts that differ only there are still different keys.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Text<'a>(Cow<'a, [u8]>);

impl Text<'_> {
    /// The bytes, for keys and comparisons.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is exactly this.
    pub(super) fn is(&self, text: &str) -> bool {
        &*self.0 == text.as_bytes()
    }

    /// As text that any store takes: a lone surrogate or a NUL is U+FFFD.
    pub(super) fn to_text(&self) -> String {
        let mut text = String::with_capacity(self.0.len());
        for chunk in self.0.utf8_chunks() {
            text.push_str(chunk.valid());
            // A surrogate's three bytes come as three invalid chunks; the first one counts.
            if chunk.invalid().first() == Some(&0xed) {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        if text.contains('\0') {
            text = text.replace('\0', "\u{fffd}");
        }
        text
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Text(…)")
    }
}

/// A JSON object whose members are not read yet.
#[derive(Default)]
pub(super) struct Object<'a>(Vec<(Text<'a>, &'a RawValue)>);

impl<'a> Object<'a> {
    /// All members, in their order.
    pub(super) fn members(&self) -> impl Iterator<Item = (&Text<'a>, &'a RawValue)> {
        self.0.iter().map(|(name, value)| (name, *value))
    }

    /// A member as it came. Of two with one name the last counts, as for most bots' parsers.
    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0
            .iter()
            .rev()
            .find_map(|(key, value)| key.is(name).then_some(*value))
    }

    /// A member that is a string or an integer, and not empty.
    pub(super) fn text(&self, name: &str) -> Option<Text<'a>> {
        self.get(name).and_then(text)
    }

    /// A member that is an object.
    pub(super) fn object(&self, name: &str) -> Option<Object<'a>> {
        self.get(name).and_then(object)
    }

    /// A member that is an array.
    pub(super) fn array(&self, name: &str) -> Option<Vec<&'a RawValue>> {
        self.get(name).and_then(array)
    }

    /// A member that is an integer, or a string of its digits.
    pub(super) fn integer(&self, name: &str) -> Option<i64> {
        let text = self.text(name)?;
        std::str::from_utf8(text.as_bytes()).ok()?.parse().ok()
    }

    /// A member that is Meta's timestamp: seconds since 1970.
    pub(super) fn timestamp(&self, name: &str) -> Option<Timestamp> {
        self.integer(name)?.checked_mul(1000).map(Timestamp)
    }

    /// Whether a member is `true`.
    pub(super) fn is_true(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.get() == "true")
    }
}

/// Reads a whole text as an object.
pub(super) fn parse(text: &str) -> Option<Object<'_>> {
    serde_json::from_str(text).ok()
}

/// Reads one layer of an object.
pub(super) fn object(raw: &RawValue) -> Option<Object<'_>> {
    raw.get()
        .starts_with('{')
        .then(|| parse(raw.get()))
        .flatten()
}

/// Reads one layer of an array.
pub(super) fn array(raw: &RawValue) -> Option<Vec<&RawValue>> {
    raw.get()
        .starts_with('[')
        .then(|| serde_json::from_str(raw.get()).ok())
        .flatten()
}

/// Reads a string or an integer; an empty string is nothing.
pub(super) fn text(raw: &RawValue) -> Option<Text<'_>> {
    let source = raw.get().as_bytes();
    match source {
        [b'"', inner @ .., b'"'] if !inner.contains(&b'\\') => {
            (!inner.is_empty()).then_some(Text(Cow::Borrowed(inner)))
        }
        [b'"', ..] => serde_json::from_str(raw.get()).ok(),
        [b'-' | b'0'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit) => {
            Some(Text(Cow::Borrowed(source)))
        }
        _ => None,
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // As bytes, because serde_json refuses a lone surrogate in a text, but not in bytes.
        deserializer.deserialize_bytes(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Borrowed(bytes)))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Owned(bytes.to_vec())))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Object<'de>, M::Error> {
        let mut members = Vec::with_capacity(8);
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_integers_are_texts() {
        let object = parse(r#"{"a":"x\/y","b":42,"c":"","d":null,"e":1.5,"f":true}"#).unwrap();
        assert_eq!(object.text("a").unwrap().to_text(), "x/y");
        assert_eq!(object.text("b").unwrap().to_text(), "42");
        for absent in ["c", "d", "e", "f", "g"] {
            assert_eq!(object.text(absent), None, "{absent}");
        }
        assert!(object.is_true("f") && !object.is_true("b"));
    }

    #[test]
    fn timestamps_are_seconds_as_string_or_number() {
        let object = parse(r#"{"a":"17","b":17,"c":"soon","d":"9223372036854775807"}"#).unwrap();
        assert_eq!(object.timestamp("a"), Some(Timestamp(17_000)));
        assert_eq!(object.timestamp("b"), Some(Timestamp(17_000)));
        assert_eq!(object.timestamp("c"), None);
        assert_eq!(object.timestamp("d"), None);
    }

    #[test]
    fn poisonous_characters_are_replaced_in_texts_but_not_in_keys() {
        let source = r#"{"a":"x\ud800y","b":"x\udfffy","c":"x\u0000y","\ud800":1}"#;
        let object = parse(source).unwrap();
        for name in ["a", "b", "c"] {
            assert_eq!(object.text(name).unwrap().to_text(), "x\u{fffd}y", "{name}");
        }
        assert_ne!(object.text("a"), object.text("b"));
        assert_eq!(object.members().count(), 4);
    }

    #[test]
    fn the_last_of_two_members_counts() {
        let object = parse(r#"{"a":"1","a":"2"}"#).unwrap();
        assert!(object.text("a").unwrap().is("2"));
    }

    #[test]
    fn deep_nesting_is_no_deep_recursion() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let object = parse(&deep).unwrap();
        assert_eq!(object.array("a").unwrap().len(), 1);
    }
}
