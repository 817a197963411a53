//! Writing a request body: an object whose fields are each written once, with the caller's options over them.
//!
//! Invariant: a name stands in the body at most once. What the caller's provider options name is theirs: the
//! codec's own value for it is passed over, and the options are written behind the codec's fields, in their
//! order. The messages come last, so that a turn's body is, up to its closing brackets, a prefix of the next.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use peregrine_core::{Error, Message, Messages, Result};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{EncodedPrefix, json};

/// A JSON object that is being written.
pub(crate) struct Body<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    options: Option<&'a Map<String, Value>>,
}

impl<'a> Body<'a> {
    /// Opens the object.
    pub(crate) fn open(out: &'a mut Vec<u8>, options: Option<&'a Map<String, Value>>) -> Self {
        out.push(b'{');
        let start = out.len();
        Self { out, start, options }
    }

    /// Whether the caller's options name this field.
    pub(crate) fn option(&self, name: &str) -> Option<&'a Value> {
        self.options.and_then(|options| options.get(name))
    }

    /// Writes a field.
    pub(crate) fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        if let Some(out) = self.place(name) {
            json::write(out, value);
        }
    }

    /// Writes a field if there is a value.
    pub(crate) fn optional<T: Serialize>(&mut self, name: &str, value: Option<T>) {
        if let Some(value) = value {
            self.field(name, &value);
        }
    }

    /// Where the value of this field is to be written; `None` if the options have it.
    pub(crate) fn place(&mut self, name: &str) -> Option<&mut Vec<u8>> {
        if self.option(name).is_some() {
            return None;
        }
        Some(self.name(name))
    }

    /// Writes the caller's options, all but `last`, and closes the object with the field `last`: the option of
    /// that name, or what `write` writes.
    pub(crate) fn close<T>(
        mut self,
        last: &str,
        write: impl FnOnce(&mut Vec<u8>) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        for (name, value) in self
            .options
            .into_iter()
            .flatten()
            .filter(|(name, _)| *name != last)
        {
            json::write(self.name(name), value);
        }
        let written = match self.option(last) {
            Some(value) => {
                json::write(self.name(last), value);
                None
            }
            None => write(self.name(last))?,
        };
        self.out.push(b'}');
        Ok(written)
    }

    fn name(&mut self, name: &str) -> &mut Vec<u8> {
        if self.out.len() > self.start {
            self.out.push(b',');
        }
        json::write(self.out, name);
        self.out.push(b':');
        self.out
    }
}

/// Writes a list of all messages, those that `key` remembers as they were, the others through `write`.
///
/// A message for which `write` writes nothing takes no place. Returns where the messages stand if that is worth
/// remembering.
pub(crate) fn messages(
    out: &mut Vec<u8>,
    messages: &Messages,
    key: u64,
    mut write: impl FnMut(&mut Vec<u8>, &Message) -> Result<()>,
) -> Result<Option<EncodedPrefix>> {
    out.push(b'[');
    let start = out.len();
    let known = resume(out, messages, key, 0).unwrap_or(0);
    for message in (known..messages.len()).filter_map(|place| messages.get(place)) {
        let end = out.len();
        if end > start {
            out.push(b',');
        }
        let from = out.len();
        write(out, message)?;
        if out.len() == from {
            out.truncate(end);
        }
    }
    let range = start..out.len();
    out.push(b']');
    let count = messages.len();
    Ok((count >= 2).then_some(EncodedPrefix { key, count, range }))
}

/// Appends the messages that `key` remembers, if they are more than `beyond`; how many they are.
///
/// If the body that they stand in begins with what `out` holds, and nobody else has it, it takes the place of `out`: then
/// nothing is copied, however long the conversation is.
pub(crate) fn resume(out: &mut Vec<u8>, messages: &Messages, key: u64, beyond: usize) -> Option<usize> {
    let (count, body, range) = messages.take_body(key, beyond)?;
    if body.is_unique() && range.start == out.len() && body.starts_with(out) {
        *out = Vec::from(body);
        out.truncate(range.end);
    } else {
        out.extend_from_slice(&body[range]);
    }
    Some(count)
}

/// The error for what a dialect has no way to say.
pub(crate) fn cannot_say(dialect: &str, what: &str, instead: &str) -> Error {
    Error::invalid_request(format!("{dialect} cannot express {what}; {instead}"))
}

/// What a dialect, or one server of it, has no word for.
pub(crate) fn unsupported(provider: &str, dialect: &str, field: &str, help: &str) -> Error {
    Error::invalid_request(format!(
        "{provider} ({dialect}) has no way to say `{field}`; {help}"
    ))
}

/// A number as JSON has it.
pub(crate) fn finite(field: &str, value: Option<f64>) -> Result<Option<f64>> {
    match value {
        Some(value) if !value.is_finite() => Err(Error::invalid_request(format!(
            "`{field}` is {value}; a finite number is needed"
        ))),
        value => Ok(value),
    }
}

/// Checks the name of a response schema: 1 to 64 characters of `[A-Za-z0-9_-]`.
pub(crate) fn schema_name(name: &str) -> Result<&str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
        return Err(Error::invalid_request(format!(
            "the response schema's name {name:?} is refused by the provider; use 1 to 64 characters of [A-Za-z0-9_-]"
        )));
    }
    Ok(name)
}

/// Appends a plain text document as a JSON string, for dialects that only have text.
pub(crate) fn append_document(out: &mut Vec<u8>, title: Option<&str>, text: &str) {
    let open = match title {
        Some(title) => format!("<document title={title:?}>\n"),
        None => "<document>\n".to_owned(),
    };
    json::write(out, &format!("{open}{text}\n</document>"));
}

/// Appends bytes as a JSON string of base64.
pub(crate) fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    append_base64(out, bytes);
    out.push(b'"');
}

/// Appends bytes as a JSON string that holds a `data:` address (RFC 2397).
pub(crate) fn data_url(out: &mut Vec<u8>, media_type: &str, bytes: &[u8]) {
    json::write(out, &format!("data:{media_type};base64,"));
    out.pop();
    append_base64(out, bytes);
    out.push(b'"');
}

fn append_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let from = out.len();
    out.resize(from + bytes.len().div_ceil(3) * 4, 0);
    let written = STANDARD
        .encode_slice(bytes, &mut out[from..])
        .expect("4 characters for 3 bytes fit");
    out.truncate(from + written);
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn options_stand_once_and_behind_the_fields() {
        let options = serde_json::json!({"b": null, "x": [1], "last": 7});
        let mut out = Vec::new();
        let mut body = Body::open(&mut out, options.as_object());
        body.field("a", &1);
        body.field("b", &2);
        body.optional("c", Some(0));
        body.optional("d", None::<u8>);
        let written = body.close("last", |_| Ok(Some(()))).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"a":1,"c":0,"b":null,"x":[1],"last":7}"#
        );
        assert_eq!(written, None);
        let mut out = Vec::new();
        let body = Body::open(&mut out, None);
        body.close("last", |out| {
            out.extend_from_slice(b"[]");
            Ok(Some(()))
        })
        .unwrap();
        assert_eq!(out, br#"{"last":[]}"#);
    }

    #[test]
    fn remembered_messages_are_not_written_again() {
        let list = Messages::from(vec![Message::user("a"), Message::user(""), Message::user("c")]);
        list.remember_prefix(1, 2, Bytes::from_static(b"remembered"));
        let mut out = Vec::new();
        let mut write = |out: &mut Vec<u8>, message: &Message| {
            out.extend_from_slice(message.text().as_bytes());
            Ok(())
        };
        let prefix = messages(&mut out, &list, 1, &mut write).unwrap().unwrap();
        assert_eq!((out.as_slice(), prefix.count), (b"[remembered,c]".as_slice(), 3));
        assert_eq!(&out[prefix.range], b"remembered,c");
        out.clear();
        messages(&mut out, &list, 2, &mut write).unwrap();
        assert_eq!(
            out, b"[a,c]",
            "nothing is written for a message without words, not even a comma"
        );
    }

    #[test]
    fn a_turn_writes_on_in_the_buffer_of_the_last_one_unless_somebody_holds_it() {
        let mut list = Messages::from(vec![Message::user("a"), Message::user("b")]);
        let write = |out: &mut Vec<u8>, message: &Message| {
            out.extend_from_slice(message.text().as_bytes());
            Ok(())
        };
        let turn = |list: &Messages, head: &[u8]| {
            let mut out = head.to_vec();
            let prefix = messages(&mut out, list, 1, write).unwrap().unwrap();
            let body = Bytes::from(out);
            list.remember_body(prefix.key, prefix.count, body.clone(), prefix.range);
            body
        };
        let first = turn(&list, b"head");
        assert_eq!(first, "head[a,b]");
        let held = turn(&list, b"head");
        assert_ne!(
            held.as_ptr(),
            first.as_ptr(),
            "what is still being sent is left alone"
        );
        assert_eq!(held, first);
        drop(first);
        let at = held.as_ptr();
        drop(held);
        // The same again, as for a retry, and then one message more.
        for (said, expected) in [(None, "head[a,b]"), (Some("c"), "head[a,b,c]")] {
            list.extend(said.map(Message::user));
            let body = turn(&list, b"head");
            assert_eq!(body, expected);
            // A buffer that has to grow may move.
            assert!(said.is_some() || body.as_ptr() == at, "nothing is copied");
        }
        assert_eq!(
            turn(&list, b"other head"),
            "other head[a,b,c]",
            "another beginning is another body"
        );
    }

    #[test]
    fn binary_data_and_names() {
        let mut out = Vec::new();
        data_url(&mut out, "a\"b", b"\xff\x00");
        assert_eq!(out, br#""data:a\"b;base64,/wA=""#);
        assert!(schema_name("a-Z_9").is_ok());
        for bad in ["", "a b", "é", &"x".repeat(65)] {
            assert!(schema_name(bad).is_err(), "{bad}");
        }
    }
}
