//! Small helpers for writing and reading JSON on the wire.

use std::borrow::Cow;
use std::fmt;

use peregrine_core::ProtocolError;
use serde::Serialize;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

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
    if serde_json::from_str::<IgnoredAny>(text).is_err() {
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
    } else if text.starts_with('{') && serde_json::from_str::<IgnoredAny>(text).is_ok() {
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
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let raw: &'de serde_json::value::RawValue = Deserialize::deserialize(deserializer)?;
    Ok(serde_json::from_str(raw.get()).ok())
}

/// The error for JSON that is not what it should be. The parser's own words may quote the payload, so only the
/// place and the class of the fault are told.
pub(crate) fn protocol_error(what: &str, error: &serde_json::Error) -> ProtocolError {
    let fault = match error.classify() {
        serde_json::error::Category::Syntax => "broken JSON",
        serde_json::error::Category::Eof => "JSON that ends too early",
        _ => "JSON of another form",
    };
    ProtocolError::new(format!(
        "{what} is {fault} at line {}, column {}",
        error.line(),
        error.column()
    ))
}

/// Text that may be missing, null or a number; a value of any other type reads as missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Text<'a>(Option<Cow<'a, str>>);

impl<'a> Text<'a> {
    /// The text, if there is any.
    pub(crate) fn get(&self) -> Option<&str> {
        self.0.as_deref().filter(|text| !text.is_empty())
    }

    /// The text, if there is any.
    pub(crate) fn into_string(self) -> Option<String> {
        self.0.filter(|text| !text.is_empty()).map(Cow::into_owned)
    }
}

/// A count that may be missing, null, or text of digits; a value of any other type reads as missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) Option<u64>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Lenient).map(|scalar| match scalar {
            Scalar::Text(text) => Self(Some(text)),
            Scalar::Number(number) => Self(Some(Cow::Owned(number.to_string()))),
            Scalar::Other => Self(None),
        })
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Lenient).map(|scalar| match scalar {
            Scalar::Text(text) => Self(text.parse().ok()),
            Scalar::Number(number) => Self(number.as_u64().or_else(|| {
                let number = number.as_f64().filter(|number| (0.0..9e15).contains(number))?;
                // The range makes the cast exact up to the fraction, which a count does not have.
                Some(number as u64)
            })),
            Scalar::Other => Self(None),
        })
    }
}

enum Scalar<'a> {
    Text(Cow<'a, str>),
    Number(serde_json::Number),
    Other,
}

struct Lenient;

impl<'de> Visitor<'de> for Lenient {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Scalar::Number(number.into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Scalar::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(serde_json::Number::from_f64(number).map_or(Scalar::Other, Scalar::Number))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Scalar::Other)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Scalar::Other)
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(Scalar::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_of_any_type_are_read() {
        let texts: Vec<Text<'_>> = serde_json::from_str(r#"["a","",7,null,{"x":[1]},[{}],true]"#).unwrap();
        let texts: Vec<_> = texts.iter().map(Text::get).collect();
        assert_eq!(texts, [Some("a"), None, Some("7"), None, None, None, None]);
        let counts: Vec<Count> = serde_json::from_str(r#"[7,7.9,"7",-1,1e300,null,{},[1],"x"]"#).unwrap();
        let counts: Vec<_> = counts.iter().map(|count| count.0).collect();
        assert_eq!(
            counts,
            [Some(7), Some(7), Some(7), None, None, None, None, None, None]
        );
    }

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
