//! A rendered prompt: its elements in the order in which providers cache them.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;

use peregrine_core::{ChatRequest, Message, Role};
use serde::Serialize;

use super::json::normalised;

/// A prompt.
#[derive(Debug, Default)]
pub(super) struct Prompt<'a> {
    pub(super) elements: Vec<Element<'a>>,
    /// The first message of the user, by its place in `elements`.
    pub(super) first_user: Option<usize>,
}

/// A tool, a block of the system prompt, or a message.
#[derive(Debug, Clone)]
pub(super) struct Element<'a> {
    pub(super) section: Section,
    /// The field's name, such as `tools` or `contents`.
    pub(super) field: &'static str,
    /// Its place in the field; `None` if the field is no list.
    pub(super) index: Option<usize>,
    pub(super) text: Text<'a>,
    pub(super) hash: u64,
}

/// The order of the sections is that of the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Section {
    Tools,
    System,
    Messages,
}

/// JSON, as it was written.
#[derive(Debug, Clone)]
pub(super) enum Text<'a> {
    Borrowed(&'a str),
    Shared(Arc<str>),
}

impl Text<'_> {
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl<'a> Element<'a> {
    pub(super) fn new(section: Section, field: &'static str, index: Option<usize>, text: Text<'a>) -> Self {
        let mut hasher = DefaultHasher::new();
        text.as_str().hash(&mut hasher);
        Self {
            section,
            field,
            index,
            text,
            hash: hasher.finish(),
        }
    }

    pub(super) fn text(&self) -> &str {
        self.text.as_str()
    }

    pub(super) fn is(&self, other: &Element<'_>) -> bool {
        self.hash == other.hash && self.text() == other.text()
    }

    /// Its length in the rendered prompt.
    pub(super) fn rendered_len(&self) -> u64 {
        self.text().len() as u64 + 1
    }
}

impl Prompt<'_> {
    pub(super) fn rendered_len(&self) -> u64 {
        self.elements.iter().map(Element::rendered_len).sum()
    }
}

/// Makes prompts of requests. Requests of a conversation share their messages, so a message that the last one had at the
/// same place is not written again.
#[derive(Debug, Default)]
pub(super) struct Prompts {
    messages: Vec<(Arc<Message>, Arc<str>)>,
}

impl Prompts {
    pub(super) fn of_request(&mut self, request: &ChatRequest) -> Prompt<'static> {
        let mut prompt = Prompt::default();
        for (index, tool) in request.tools.iter().enumerate() {
            let text = Text::Shared(written(tool));
            prompt
                .elements
                .push(Element::new(Section::Tools, "tools", Some(index), text));
        }
        self.messages.truncate(request.messages.len());
        for index in 0..request.messages.len() {
            let Some(message) = request.messages.get_shared(index) else {
                break;
            };
            let text = match self.messages.get(index) {
                Some((known, text)) if Arc::ptr_eq(known, message) => text.clone(),
                _ => {
                    let text = written(&**message);
                    self.messages.truncate(index);
                    self.messages.push((message.clone(), text.clone()));
                    text
                }
            };
            if prompt.first_user.is_none() && message.role == Role::User {
                prompt.first_user = Some(prompt.elements.len());
            }
            let text = Text::Shared(text);
            prompt
                .elements
                .push(Element::new(Section::Messages, "messages", Some(index), text));
        }
        prompt
    }
}

fn written(value: &impl Serialize) -> Arc<str> {
    let text = serde_json::to_string(value).expect("tools and messages have string keys, and bytes as text");
    normalised(&text, false).into()
}
