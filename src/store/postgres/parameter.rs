//! Values on their way into a statement, each with its type, and the few types of our own.

use std::error::Error;

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use crate::model::EventKey;

/// A value with the type that the statement expects. Telling types saves asking the server, and
/// makes one round trip of a statement that isn't prepared.
pub(super) type Parameter = (Box<dyn ToSql + Sync + Send>, Type);

/// What can be bound.
pub(super) trait Bind: ToSql + Sync + Send + 'static {
    /// As which type.
    const TYPE: Type;
}

/// A value as a parameter.
pub(super) fn bind<T: Bind>(value: T) -> Parameter {
    (Box::new(value), T::TYPE)
}

/// The parameters of one statement, in order.
macro_rules! parameters {
    ($($value:expr),* $(,)?) => {
        vec![$($crate::store::postgres::parameter::bind($value)),*]
    };
}
pub(super) use parameters;

macro_rules! binds {
    ($($rust:ty => $sql:ident,)*) => {
        $(impl Bind for $rust {
            const TYPE: Type = Type::$sql;
        })*
    };
}
binds! {
    bool => BOOL,
    i16 => INT2,
    i32 => INT4,
    i64 => INT8,
    String => TEXT,
    Option<i64> => INT8,
    Option<String> => TEXT,
    Key => UUID,
    Vec<bool> => BOOL_ARRAY,
    Vec<i16> => INT2_ARRAY,
    Vec<i32> => INT4_ARRAY,
    Vec<i64> => INT8_ARRAY,
    Vec<Option<i16>> => INT2_ARRAY,
    Vec<Option<i64>> => INT8_ARRAY,
    Vec<String> => TEXT_ARRAY,
    Vec<Option<String>> => TEXT_ARRAY,
    Vec<Key> => UUID_ARRAY,
}

/// An event's key as PostgreSQL's `uuid`: sixteen bytes without a length, which no other type of
/// it is. It is not a UUID otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(pub(super) [u8; 16]);

impl From<EventKey> for Key {
    fn from(key: EventKey) -> Self {
        Self(key.0)
    }
}

impl From<Key> for EventKey {
    fn from(key: Key) -> Self {
        Self(key.0)
    }
}

impl ToSql for Key {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.put_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::UUID
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Key {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw.try_into()?))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::UUID
    }
}

/// A text without NUL, the one character that PostgreSQL's `text` can't hold. Keys are derived
/// from the original, so nothing is taken for something else.
pub(super) fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Bytes of a text that is part of an index entry; PostgreSQL refuses entries of 2,700 and more.
const INDEXED_MAX: usize = 600;

/// A text as part of an index entry: whole, or its beginning and a digest of the whole.
pub(super) fn indexed(text: &str) -> String {
    if text.len() <= INDEXED_MAX {
        return storable(text);
    }
    let beginning: String = text.chars().take(INDEXED_MAX / 4).collect();
    let digest = EventKey::derive(&[b"indexed", text.as_bytes()]);
    format!("{}…{digest}", storable(&beginning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_stored_whole_where_it_can_be() {
        assert_eq!(storable("a\0b"), "a\u{fffd}b");
        assert_eq!(indexed("wamid.A"), "wamid.A");
        let long = "ä".repeat(5_000);
        let other = format!("{long}!");
        assert!(indexed(&long).len() < INDEXED_MAX);
        assert_ne!(indexed(&long), indexed(&other));
    }
}
