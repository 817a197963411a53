//! Writes the top level of a request body: each field once, the messages last.
//!
//! Invariant: a field that the request's provider options name is written from them and nowhere else, and
//! the field that grows from turn to turn stands last, so that a turn's body is a prefix of the next one's.

use peregrine_core::{Error, Result};
use serde::Serialize;
use serde_json::{Map, Value};

use super::json;

/// A JSON object under construction at the end of a buffer.
pub(crate) struct Body<'a> {
    out: &'a mut Vec<u8>,
    options: Option<&'a Map<String, Value>>,
    empty: bool,
}

impl<'a> Body<'a> {
    /// Opens the object.
    pub(crate) fn begin(out: &'a mut Vec<u8>, options: Option<&'a Map<String, Value>>) -> Self {
        out.push(b'{');
        Self {
            out,
            options,
            empty: true,
        }
    }

    /// Whether the options set this field.
    pub(crate) fn is_option(&self, name: &str) -> bool {
        self.options.is_some_and(|options| options.contains_key(name))
    }

    /// Writes the name of a field and gives the buffer for its value; `None` if the options set the field.
    pub(crate) fn key(&mut self, name: &str) -> Option<&mut Vec<u8>> {
        if self.is_option(name) {
            return None;
        }
        self.name(name);
        Some(self.out)
    }

    /// Writes a field.
    pub(crate) fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        if let Some(out) = self.key(name) {
            json::write(out, value);
        }
    }

    /// Writes a field if there is a value.
    pub(crate) fn optional<T: Serialize>(&mut self, name: &str, value: Option<&T>) {
        if let Some(value) = value {
            self.field(name, value);
        }
    }

    /// Writes the options and then the last field: gives the buffer for its value, or `None` if an option
    /// was that field. The caller closes the object.
    pub(crate) fn last(mut self, name: &str) -> Option<&'a mut Vec<u8>> {
        for (option, value) in self.options.into_iter().flatten() {
            if option != name {
                self.name(option);
                json::write(self.out, value);
            }
        }
        self.name(name);
        match self.options.and_then(|options| options.get(name)) {
            Some(value) => {
                json::write(self.out, value);
                None
            }
            None => Some(self.out),
        }
    }

    fn name(&mut self, name: &str) {
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
        json::write(self.out, name);
        self.out.push(b':');
    }
}

/// JSON has no NaN and no infinity, and a serializer would write `null` for them.
pub(crate) fn finite(name: &str, value: Option<f64>) -> Result<()> {
    match value {
        Some(value) if !value.is_finite() => Err(Error::invalid_request(format!(
            "{name} is {value}, which cannot be sent; it must be a finite number"
        ))),
        _ => Ok(()),
    }
}

/// The error for what a dialect has no way to say.
pub(crate) fn cannot_say(dialect: &str, what: &str, instead: &str) -> Error {
    Error::invalid_request(format!("{dialect} cannot express {what}; {instead}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn body(options: &Value) -> String {
        let mut out = b"kept:".to_vec();
        let mut body = Body::begin(&mut out, options.as_object());
        body.field("model", "m");
        body.optional("seed", Some(&0));
        body.optional("top_k", None::<&u8>);
        if let Some(out) = body.key("tools") {
            out.extend_from_slice(b"[1]");
        }
        if let Some(out) = body.last("messages") {
            out.extend_from_slice(b"[]");
        }
        out.push(b'}');
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_field_stands_once_and_the_messages_last() {
        assert_eq!(
            body(&json!({})),
            r#"kept:{"model":"m","seed":0,"tools":[1],"messages":[]}"#
        );
        assert_eq!(
            body(&json!({"tools": null, "model": "n", "x": {"a": 1}})),
            r#"kept:{"seed":0,"tools":null,"model":"n","x":{"a":1},"messages":[]}"#
        );
        assert_eq!(
            body(&json!({"messages": "mine", "x": 1})),
            r#"kept:{"model":"m","seed":0,"tools":[1],"x":1,"messages":"mine"}"#
        );
    }

    #[test]
    fn numbers_that_json_lacks_are_refused() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(
                finite("temperature", Some(value))
                    .unwrap_err()
                    .to_string()
                    .contains("temperature")
            );
        }
        assert!(finite("temperature", Some(0.0)).is_ok() && finite("temperature", None).is_ok());
    }
}
