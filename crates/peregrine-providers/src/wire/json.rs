//! Small helpers for writing and reading JSON on the wire.

use serde::Serialize;

/// Appends `value` as JSON.
pub(crate) fn write<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("wire structs have string keys and a Vec takes every byte");
}

/// Appends `,"name":value`.
pub(crate) fn field<T: Serialize + ?Sized>(out: &mut Vec<u8>, name: &str, value: &T) {
    out.push(b',');
    write(out, name);
    out.push(b':');
    write(out, value);
}

/// Appends `,"name":value` if there is a value.
pub(crate) fn optional<T: Serialize>(out: &mut Vec<u8>, name: &str, value: Option<&T>) {
    if let Some(value) = value {
        field(out, name, value);
    }
}

/// JSON text without white space between its tokens; the tokens stay as they are. Text that is not JSON
/// comes back unchanged.
pub(crate) fn compact(text: &str) -> String {
    if serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() {
        return text.to_owned();
    }
    let mut compacted = String::with_capacity(text.len());
    let (mut in_string, mut escaped) = (false, false);
    for c in text.chars() {
        if in_string {
            (in_string, escaped) = (escaped || c != '"', !escaped && c == '\\');
        } else if c.is_ascii_whitespace() {
            continue;
        } else {
            in_string = c == '"';
        }
        compacted.push(c);
    }
    compacted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compacting_keeps_tokens_and_strings() {
        let text = "{ \"b\" : 1.50 ,\n \"a\\\" \\\\\" : [ \"x  y\" , null ] }";
        assert_eq!(compact(text), r#"{"b":1.50,"a\" \\":["x  y",null]}"#);
        assert_eq!(compact("{ not json"), "{ not json");
        assert_eq!(compact(""), "");
    }

    #[test]
    fn fields_are_appended_in_order() {
        let mut out = b"{\"a\":1".to_vec();
        field(&mut out, "b", &0);
        optional(&mut out, "c", None::<&u8>);
        optional(&mut out, "d", Some(&""));
        assert_eq!(out, br#"{"a":1,"b":0,"d":"""#);
    }
}
