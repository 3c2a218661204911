//! One text for all spellings of a JSON value: members sorted by name, no white space, strings
//! and numbers written one way. Only for keys.

use serde_json::Value;
use serde_json::value::RawValue;

/// From here on, not every whole number is a floating-point number: several would be one.
const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;

/// The canonical text. A value that serde_json will not read (nested deeper than 128, a lone
/// surrogate), or not exactly (a whole number of more than 64 bits), stands for itself, byte by
/// byte.
pub(super) fn canonical(raw: &RawValue) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.get().len());
    match serde_json::from_str::<Value>(raw.get()) {
        Ok(value) if is_exact(&value) => write(&value, &mut out),
        Ok(_) | Err(_) => out.extend_from_slice(raw.get().as_bytes()),
    }
    out
}

/// The canonical text of a value that is read already.
pub(in crate::whatsapp) fn canonical_text(value: &Value) -> String {
    let mut out = Vec::new();
    write(value, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

fn is_exact(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.values().all(is_exact),
        Value::Array(elements) => elements.iter().all(is_exact),
        Value::Number(number) if number.is_f64() => number
            .as_f64()
            .is_some_and(|number| number.abs() < EXACT_BELOW),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

// Sorts by hand: whether serde_json's own map is sorted depends on features that any crate of
// the build may switch on. Its reader bounds the depth.
fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| name.as_str());
            write_list(out, b"{}", members, |(name, value), out| {
                out.extend_from_slice(Value::from(name.as_str()).to_string().as_bytes());
                out.push(b':');
                write(value, out);
            });
        }
        Value::Array(elements) => write_list(out, b"[]", elements, write),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            out.extend_from_slice(value.to_string().as_bytes());
        }
    }
}

fn write_list<T>(
    out: &mut Vec<u8>,
    brackets: &[u8; 2],
    items: impl IntoIterator<Item = T>,
    write_item: impl Fn(T, &mut Vec<u8>),
) {
    out.push(brackets[0]);
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_item(item, out);
    }
    out.push(brackets[1]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, expected: &str) {
        let raw: &RawValue = serde_json::from_str(source).unwrap();
        assert_eq!(String::from_utf8(canonical(raw)).unwrap(), expected);
    }

    #[test]
    fn spelling_does_not_matter() {
        let expected = r#"{"a":"ä/","b":[1,2.5,{"c":null,"d":true}]}"#;
        check(r#"{"b":[1, 2.5,{"d":true,"c":null}],"a":"ä/"}"#, expected);
        check(
            r#" {"a":"\u00e4\/" , "b":[1,2.5,{"c":null,"d":true}]}"#,
            expected,
        );
    }

    #[test]
    fn what_cannot_be_read_stands_for_itself() {
        check(r#"{ "a":"\ud800"}"#, r#"{ "a":"\ud800"}"#);
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        check(&deep, &deep);
    }

    #[test]
    fn numbers_that_would_be_one_stand_for_themselves() {
        let long = r#"{ "id":123456789012345678901}"#;
        check(long, long);
        check(
            &long.replace("901}", "902}"),
            r#"{ "id":123456789012345678902}"#,
        );
        check(
            r#"{ "id":18446744073709551615, "at":-0.5}"#,
            r#"{"at":-0.5,"id":18446744073709551615}"#,
        );
    }
}
