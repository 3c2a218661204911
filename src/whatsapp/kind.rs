//! The message types that we know, and what an element must hold to be of its type.

use super::json::Object;

/// The kind of what has no type, one that we do not know, or not the shape of its type.
pub(super) const UNKNOWN: &str = "unknown";

/// Messages of this type are Meta's own; nobody wrote them.
pub(super) const SYSTEM: &str = "system";

/// What stands beside `type` under the type's own name.
enum Shape {
    Object,
    Array,
    Anything,
}

/// Source: Meta, *Messages webhook reference*, one page per type.
const KINDS: [(&str, Shape); 19] = [
    ("text", Shape::Object),
    ("image", Shape::Object),
    ("video", Shape::Object),
    ("audio", Shape::Object),
    ("document", Shape::Object),
    ("sticker", Shape::Object),
    ("interactive", Shape::Object),
    ("button", Shape::Object),
    ("reaction", Shape::Object),
    ("location", Shape::Object),
    ("contacts", Shape::Array),
    ("order", Shape::Object),
    ("edit", Shape::Object),
    ("revoke", Shape::Object),
    (SYSTEM, Shape::Anything),
    ("unsupported", Shape::Anything),
    ("request_welcome", Shape::Anything),
    ("media_placeholder", Shape::Anything),
    (UNKNOWN, Shape::Anything),
];

/// The type of an element of `messages[]`, or [`UNKNOWN`].
pub(super) fn of(message: &Object<'_>) -> &'static str {
    let Some(word) = message.text("type") else {
        return UNKNOWN;
    };
    let Some((kind, shape)) = KINDS.iter().find(|(kind, _)| word.is(kind)) else {
        return UNKNOWN;
    };
    let starts = |bracket| {
        message
            .get(kind)
            .is_some_and(|raw| raw.get().starts_with(bracket))
    };
    let fits = match shape {
        Shape::Object => starts('{'),
        Shape::Array => starts('['),
        Shape::Anything => true,
    };
    if fits { kind } else { UNKNOWN }
}

#[cfg(test)]
mod tests {
    use super::super::json;

    #[test]
    fn a_type_counts_only_with_its_shape() {
        let cases = [
            (r#"{"type":"text","text":{}}"#, "text"),
            (r#"{"type":"text"}"#, "unknown"),
            (r#"{"type":"text","text":"hi"}"#, "unknown"),
            (r#"{"type":"contacts","contacts":[]}"#, "contacts"),
            (r#"{"type":"contacts","contacts":{}}"#, "unknown"),
            (r#"{"type":"unsupported"}"#, "unsupported"),
            (r#"{"type":"hologram","hologram":{}}"#, "unknown"),
            (r#"{"type":{"a":1}}"#, "unknown"),
            ("{}", "unknown"),
        ];
        for (element, kind) in cases {
            let element = json::parse(element).unwrap();
            assert_eq!(super::of(&element), kind);
        }
    }
}
