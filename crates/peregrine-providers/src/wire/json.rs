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

/// Appends the arguments of a tool call as an object. Text that is not an object goes under
/// `invalid_arguments`, so that nothing the model wrote is lost; empty text is `{}`.
pub(crate) fn write_arguments(out: &mut Vec<u8>, arguments: &str) {
    let text = arguments.trim();
    if text.is_empty() {
        out.extend_from_slice(b"{}");
    } else if text.starts_with('{') && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
        out.extend_from_slice(text.as_bytes());
    } else {
        out.extend_from_slice(br#"{"invalid_arguments":"#);
        write(out, arguments);
        out.push(b'}');
    }
}

/// Bytes as a JSON string of standard base64.
pub(crate) struct Base64<'a>(pub(crate) &'a [u8]);

impl Serialize for Base64<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let engine = &base64::engine::general_purpose::STANDARD;
        serializer.collect_str(&base64::display::Base64Display::new(self.0, engine))
    }
}

/// For fields that are worth reading but not worth failing for: `None` for `null` and for other shapes.
pub(crate) fn or_none<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::Deserialize<'de>,
{
    let raw: &'de serde_json::value::RawValue = serde::Deserialize::deserialize(deserializer)?;
    Ok(serde_json::from_str(raw.get()).ok())
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
    fn arguments_are_always_an_object() {
        let written = |text: &str| {
            let mut out = Vec::new();
            write_arguments(&mut out, text);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(" "), "{}");
        assert_eq!(written("{ \"a\": 1.50 }\n"), "{ \"a\": 1.50 }");
        assert_eq!(written("{\"a\":"), r#"{"invalid_arguments":"{\"a\":"}"#);
        assert_eq!(written("[1]"), r#"{"invalid_arguments":"[1]"}"#);
    }

    #[test]
    fn fields_of_the_wrong_shape_are_none() {
        #[derive(serde::Deserialize)]
        struct Body {
            #[serde(default, deserialize_with = "or_none")]
            n: Option<u8>,
        }
        let read = |text: &str| serde_json::from_str::<Body>(text).unwrap().n;
        assert_eq!(read(r#"{"n":7}"#), Some(7));
        for other in [
            r#"{"n":null}"#,
            r#"{"n":"7"}"#,
            r#"{"n":[{}]}"#,
            r#"{"n":700}"#,
            "{}",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
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
