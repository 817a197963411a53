//! Request bodies: where each dialect has its tools, its system prompt and its messages.
//!
//! The body is split by the JSON parser into slices of what was sent; nothing is copied but elements that carry cache
//! hints. Of a name that stands twice, the last value counts, as in every parser.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::LintError;
use super::json::normalised;
use super::prompt::{Element, Prompt, Section, Text};

/// The fields that are prompt, by section, in the order of the prompt. No dialect has two of a section.
const FIELDS: [(Section, &str); 8] = [
    (Section::Tools, "tools"),
    (Section::System, "system"),
    (Section::System, "instructions"),
    (Section::System, "systemInstruction"),
    (Section::System, "system_instruction"),
    (Section::Messages, "messages"),
    (Section::Messages, "input"),
    (Section::Messages, "contents"),
];

/// The values of [`FIELDS`].
struct Fields<'a>([Option<&'a RawValue>; FIELDS.len()]);

pub(super) fn prompt(at: usize, body: &[u8]) -> Result<Prompt<'_>, LintError> {
    let not_json = |source| LintError::NotJson { at, source };
    let Fields(values) = serde_json::from_slice(body).map_err(not_json)?;
    let mut prompt = Prompt::default();
    let mut has_messages = false;
    for ((section, field), value) in FIELDS.into_iter().zip(values) {
        let Some(value) = value.map(RawValue::get).filter(|value| *value != "null") else {
            continue;
        };
        has_messages |= section == Section::Messages;
        let items: Vec<(Option<usize>, &str)> = if value.starts_with('[') {
            let items: Vec<&RawValue> = serde_json::from_str(value).map_err(not_json)?;
            items
                .into_iter()
                .enumerate()
                .map(|(index, item)| (Some(index), item.get()))
                .collect()
        } else {
            vec![(None, value)]
        };
        for (index, item) in items {
            let text = match normalised(item, true) {
                Cow::Borrowed(text) => Text::Borrowed(text),
                Cow::Owned(text) => Text::Shared(text.into()),
            };
            let element = Element::new(section, field, index, text);
            if prompt.first_user.is_none() && is_user(&element) {
                prompt.first_user = Some(prompt.elements.len());
            }
            prompt.elements.push(element);
        }
    }
    if !has_messages {
        return Err(LintError::NoMessages { at });
    }
    Ok(prompt)
}

/// Whether an element is a message of the user.
pub(super) fn is_user(element: &Element<'_>) -> bool {
    #[derive(Deserialize)]
    struct Head<'a> {
        #[serde(borrow, default)]
        role: Option<Cow<'a, str>>,
        /// Gemini's messages may leave out the role.
        parts: Option<IgnoredAny>,
    }
    if element.section != Section::Messages {
        return false;
    }
    let text = element.text();
    // The Responses dialect takes a text for the user's message.
    text.starts_with('"')
        || serde_json::from_str::<Head<'_>>(text).is_ok_and(|head| match head.role {
            Some(role) => role == "user",
            None => head.parts.is_some() && element.field == "contents",
        })
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body of a request, an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Fields<'de>, M::Error> {
        let mut fields = Fields([None; FIELDS.len()]);
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            match FIELDS.iter().position(|(_, field)| *field == name) {
                Some(place) => fields.0[place] = Some(map.next_value()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(fields)
    }
}
