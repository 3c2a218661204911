//! JSON as a tree that holds what no reader keeps: members of one name, numbers by their digits,
//! halves of surrogate pairs. It can be damaged at any place, and written in several layouts.

use std::fmt;

use proptest::prelude::*;
use proptest::sample::select;

/// Names that mean something to the decoder, so that damage leads somewhere.
const NAMES: [&str; 38] = [
    "object",
    "entry",
    "id",
    "time",
    "changes",
    "field",
    "value",
    "messaging_product",
    "metadata",
    "phone_number_id",
    "recipient",
    "contacts",
    "wa_id",
    "user_id",
    "parent_user_id",
    "profile",
    "messages",
    "statuses",
    "errors",
    "user_actions",
    "calls",
    "event",
    "message_echoes",
    "standby",
    "from",
    "from_user_id",
    "group_id",
    "type",
    "text",
    "body",
    "timestamp",
    "status",
    "payment",
    "transaction",
    "code",
    "is_transient",
    "biz_opaque_callback_data",
    "later\\u0000\\ud800",
];

/// Texts that mean something, and texts that hurt.
const LITERALS: [&str; 24] = [
    "null",
    "true",
    "\"\"",
    "[]",
    "{}",
    "0",
    "-0",
    "17",
    "1e999",
    "-1.5e-400",
    "9223372036854775808",
    "123456789012345678901234567890",
    r#""whatsapp_business_account""#,
    r#""messages""#,
    r#""text""#,
    r#""system""#,
    r#""failed""#,
    r#""4915""#,
    r#""US.1""#,
    r#""a\u0000b""#,
    r#""\u0000""#,
    r#""\ud800""#,
    r#""\udfff\ud83d\ude00\ud83d""#,
    r#""\\\"\/\b\f\n\r\tä😀""#,
];

#[derive(Clone, PartialEq)]
pub(super) enum Json {
    /// As it stands.
    Literal(String),
    /// What a string says, not how it is written.
    Text(String),
    Array(Vec<Json>),
    /// Each name as it stands between its quotes.
    Object(Vec<(String, Json)>),
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written(Layout::default()))
    }
}

/// How a tree is written.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Layout {
    pub(super) is_spaced: bool,
    pub(super) is_backwards: bool,
    pub(super) is_escaped: bool,
}

/// Damage at one place, counted from the root through all nodes.
#[derive(Debug, Clone)]
pub(super) struct Damage {
    at: usize,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Become(Json),
    Drop(usize),
    Double(usize, Json),
    Add(String, Json),
    Nest(usize),
}

impl Json {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(super) fn literal(text: impl ToString) -> Self {
        Self::Literal(text.to_string())
    }

    pub(super) fn object<const N: usize>(members: [(&str, Self); N]) -> Self {
        let members = members.into_iter();
        Self::Object(
            members
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        )
    }

    /// Adds a member.
    pub(super) fn with(mut self, name: &str, value: Self) -> Self {
        if let Self::Object(members) = &mut self {
            members.push((name.to_owned(), value));
        }
        self
    }

    pub(super) fn written(&self, layout: Layout) -> String {
        let mut out = String::new();
        self.write(layout, &mut out);
        out
    }

    /// Does the damage, at a place that is there.
    pub(super) fn damage(&mut self, damage: &Damage) {
        let mut at = damage.at % self.nodes();
        let node = self.nth(&mut at).expect("counted before");
        match (&damage.kind, node) {
            (Kind::Drop(which), Self::Object(members)) if !members.is_empty() => {
                members.remove(which % members.len());
            }
            (Kind::Drop(which), Self::Array(elements)) if !elements.is_empty() => {
                elements.remove(which % elements.len());
            }
            (Kind::Double(which, value), Self::Object(members)) if !members.is_empty() => {
                let name = members[which % members.len()].0.clone();
                members.insert(which / 7 % members.len(), (name, value.clone()));
            }
            (Kind::Double(which, _), Self::Array(elements)) if !elements.is_empty() => {
                let twin = elements[which % elements.len()].clone();
                elements.push(twin);
            }
            (Kind::Add(name, value), Self::Object(members)) => {
                members.push((name.clone(), value.clone()));
            }
            (Kind::Add(_, value), Self::Array(elements)) => elements.push(value.clone()),
            (Kind::Nest(depth), node) => {
                let inside = node.written(Layout::default());
                let (open, close) = ("[".repeat(*depth), "]".repeat(*depth));
                *node = Self::Literal(format!("{open}{inside}{close}"));
            }
            (Kind::Become(value) | Kind::Double(_, value) | Kind::Add(_, value), node) => {
                *node = value.clone();
            }
            (Kind::Drop(_), node) => *node = Self::literal("null"),
        }
    }

    fn nodes(&self) -> usize {
        1 + match self {
            Self::Literal(_) | Self::Text(_) => 0,
            Self::Array(elements) => elements.iter().map(Self::nodes).sum(),
            Self::Object(members) => members.iter().map(|(_, value)| value.nodes()).sum(),
        }
    }

    fn nth(&mut self, at: &mut usize) -> Option<&mut Self> {
        if *at == 0 {
            return Some(self);
        }
        *at -= 1;
        match self {
            Self::Literal(_) | Self::Text(_) => None,
            Self::Array(elements) => elements.iter_mut().find_map(|element| element.nth(at)),
            Self::Object(members) => members.iter_mut().find_map(|(_, value)| value.nth(at)),
        }
    }

    fn write(&self, layout: Layout, out: &mut String) {
        let space = if layout.is_spaced { " \r\n\t" } else { "" };
        match self {
            Self::Literal(text) => out.push_str(text),
            Self::Text(text) => quote(text, layout.is_escaped, out),
            Self::Array(elements) => {
                out.push('[');
                for (index, element) in elements.iter().enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    out.push_str(space);
                    element.write(layout, out);
                }
                out.push_str(space);
                out.push(']');
            }
            Self::Object(members) => {
                let mut members: Vec<_> = members.iter().collect();
                if layout.is_backwards {
                    members.reverse();
                }
                out.push('{');
                for (index, (name, value)) in members.into_iter().enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    out.push_str(space);
                    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric());
                    if layout.is_escaped && is_plain {
                        quote(name, true, out);
                    } else {
                        out.push_str(&format!("\"{name}\""));
                    }
                    out.push_str(&format!("{space}:{space}"));
                    value.write(layout, out);
                }
                out.push_str(space);
                out.push('}');
            }
        }
    }
}

fn quote(text: &str, is_escaped: bool, out: &mut String) {
    if is_escaped {
        out.push('"');
        text.encode_utf16()
            .for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        out.push('"');
    } else {
        out.push_str(&serde_json::Value::from(text).to_string());
    }
}

pub(super) fn layout() -> impl Strategy<Value = Layout> {
    any::<[bool; 3]>().prop_map(|[is_spaced, is_backwards, is_escaped]| Layout {
        is_spaced,
        is_backwards,
        is_escaped,
    })
}

fn leaf() -> impl Strategy<Value = Json> {
    prop_oneof![
        3 => select(&LITERALS[..]).prop_map(Json::literal),
        1 => any::<f64>()
            .prop_filter("JSON knows no other", |number| number.is_finite())
            .prop_map(Json::literal),
        2 => any::<String>().prop_map(Json::Text),
    ]
}

fn name() -> impl Strategy<Value = String> {
    select(&NAMES[..]).prop_map(str::to_owned)
}

/// Any JSON at all.
pub(super) fn any_json() -> impl Strategy<Value = Json> {
    leaf().prop_recursive(8, 48, 5, |inner| {
        let member = (name(), inner.clone());
        prop_oneof![
            prop::collection::vec(inner, 0..5).prop_map(Json::Array),
            prop::collection::vec(member, 0..6).prop_map(Json::Object),
        ]
    })
}

/// JSON that serde_json reads exactly: no name twice, nothing that only we keep.
pub(super) fn plain_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Json::literal),
        any::<bool>().prop_map(Json::literal),
        (-1e9..1e9_f64).prop_map(Json::literal),
        any::<String>().prop_map(Json::Text),
        Just(Json::literal("null")),
    ];
    leaf.prop_recursive(5, 32, 5, |inner| {
        let members = prop::collection::btree_map("[a-c]{1,2}|é", inner.clone(), 0..5);
        prop_oneof![
            prop::collection::vec(inner, 0..5).prop_map(Json::Array),
            members.prop_map(|members| Json::Object(members.into_iter().collect())),
        ]
    })
}

pub(super) fn damage() -> impl Strategy<Value = Damage> {
    let value = || prop_oneof![3 => leaf().boxed(), 1 => any_json().boxed()];
    let kind = prop_oneof![
        4 => any::<usize>().prop_map(Kind::Drop),
        4 => value().prop_map(Kind::Become),
        2 => (any::<usize>(), value()).prop_map(|(which, value)| Kind::Double(which, value)),
        2 => (name(), value()).prop_map(|(name, value)| Kind::Add(name, value)),
        1 => (1..300_usize).prop_map(Kind::Nest),
    ];
    (any::<usize>(), kind).prop_map(|(at, kind)| Damage { at, kind })
}
