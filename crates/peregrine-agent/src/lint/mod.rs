//! Prompt lint: does the prompt of each request begin with the whole prompt of the one before?
//!
//! Providers keep the prompts that they have read and charge a fraction for a prompt that begins with the same bytes. One
//! changed byte near the front makes everything behind it new. This finds that byte, in requests ([`lint_requests`]) or
//! in request bodies as they were sent ([`lint_bodies`]).
//!
//! The *rendered prompt* of a request is what providers cache, in their order: tools, system, messages. Each tool, block
//! and message is an element, written as the body has it (the order of keys and the spaces are part of it) and ended by
//! a line break. Offsets are bytes of this text. Hints that only say where to cache (`cache_control`,
//! `prompt_cache_breakpoint`) are no part of it, and text as a list of one block is the same as the text alone, since
//! hints move from turn to turn and providers read both alike. Everything else of a body (model, sampling, format of
//! the answer) is not looked at.
//!
//! Which requests belong together: a request goes on with the newest one that has the same first user message (white
//! space aside); else with a recent one in which its first user message stands further behind (the beginning was
//! dropped) or which has the same message behind the first user message (that one was edited). Otherwise it begins a
//! conversation, and so does one that ends with another question where its predecessor has one: the same instructions
//! and examples serve many conversations. Conversations may be interleaved. Two that begin with the same user message
//! are taken for one, unless they were told apart like that.
//!
//! A request whose prompt is a beginning of the one before reads nothing anew, and is no break.
//!
//! Cost: linear in the bytes given, with a bounded number of breaks kept; no input makes it panic.

mod body;
mod cause;
mod compare;
mod follow;
mod json;
mod prompt;

use std::fmt;

use peregrine_core::ChatRequest;
use serde::Serialize;

use compare::Compared;
use follow::Conversations;
use prompt::Prompts;

/// How many breaks are described; more are counted.
pub const MAX_BREAKS: usize = 1_000;

/// What was found in a series of requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PromptLint {
    /// How many requests were looked at.
    pub requests: usize,
    /// How many conversations they belong to.
    pub conversations: usize,
    /// How many of them follow another one, and were compared with it.
    pub compared: usize,
    /// Where a prompt does not begin with the one before, in order; the first [`MAX_BREAKS`].
    pub breaks: Vec<PromptBreak>,
    /// How many more there are.
    pub more_breaks: usize,
    /// The bytes of prompts that can no longer be read from the provider's cache, for all breaks together.
    pub lost_bytes: u64,
    /// The same in tokens, estimated ([`tokens`](crate::tokens)).
    pub lost_tokens: u64,
}

impl PromptLint {
    /// Whether every prompt begins with the one before.
    pub fn is_stable(&self) -> bool {
        self.breaks.is_empty()
    }
}

/// The place where a prompt leaves the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PromptBreak {
    /// The earlier request, by its place in what was given, from 0.
    pub before: usize,
    /// The later one.
    pub after: usize,
    /// The first byte that differs, in the rendered prompt of both.
    pub offset: u64,
    /// The field that it stands in, such as `messages[0].content`.
    pub field: String,
    /// The earlier prompt around that byte.
    pub before_excerpt: String,
    /// The later prompt around that byte.
    pub after_excerpt: String,
    /// The bytes of the earlier prompt from there on: what could have been read from the provider's cache.
    pub lost_bytes: u64,
    /// The same in tokens, estimated.
    pub lost_tokens: u64,
    /// What it probably comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
}

/// What a break probably comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cause {
    /// A date or a time that moves on.
    Timestamp,
    /// A UUID or another random id.
    RandomId,
    /// Tools were added, removed or rewritten.
    ToolsChanged,
    /// The same tools in another order.
    ToolsReordered,
    /// The same values with their keys in another order.
    KeyOrder,
    /// Nothing but white space.
    Whitespace,
    /// The same values, escaped or written in another way.
    Encoding,
    /// Messages were dropped, by a history window for one.
    Dropped,
}

impl Cause {
    /// In a few words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timestamp => "a date or a time",
            Self::RandomId => "a random id",
            Self::ToolsChanged => "another list of tools",
            Self::ToolsReordered => "the same tools in another order",
            Self::KeyOrder => "the same keys in another order",
            Self::Whitespace => "white space",
            Self::Encoding => "the same value in another notation",
            Self::Dropped => "dropped messages",
        }
    }

    /// What helps.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Timestamp => "give the time in the newest message, or round it to what is needed",
            Self::RandomId => "leave the id out of the prompt, or keep it for the whole conversation",
            Self::ToolsChanged => {
                "offer the same tools in every turn, and say with the tool choice which may be called"
            }
            Self::ToolsReordered => "list tools in a fixed order, not in that of a hash map",
            Self::KeyOrder => "write objects with their keys in a fixed order, not in that of a hash map",
            Self::Whitespace => "send earlier messages as they were sent, untrimmed and unformatted",
            Self::Encoding => "send earlier messages as they were sent, not parsed and written again",
            Self::Dropped => {
                "cut rarely and much: a window with slack, or one that keeps less than its budget"
            }
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why bodies could not be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LintError {
    /// A body is not a JSON object.
    #[error("request {at} is no JSON object: {source}")]
    NotJson {
        /// Its place, from 0.
        at: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A body has none of the fields that hold messages.
    #[error("request {at} has no messages: none of `messages`, `input`, `contents` is there")]
    NoMessages {
        /// Its place, from 0.
        at: usize,
    },
}

/// Compares requests in the order in which they were made.
///
/// Elements are in the stored form of [`ChatRequest`]; fields are those of that form, such as `messages[0].parts[0].text`.
///
/// # Examples
///
/// ```
/// use peregrine_agent::{Cause, lint_requests};
/// use peregrine_core::{ChatRequest, Message};
///
/// let turn = |time: &str| ChatRequest::new([Message::system(format!("It is {time}.")), Message::user("Hello?")]);
/// let found = lint_requests(&[turn("10:15:00"), turn("10:15:07")]);
/// assert_eq!(found.breaks[0].field, "messages[0].parts[0].text");
/// assert_eq!(found.breaks[0].cause, Some(Cause::Timestamp));
/// ```
pub fn lint_requests(requests: &[ChatRequest]) -> PromptLint {
    let mut lint = PromptLint::default();
    let mut conversations = Conversations::default();
    let mut prompts = Prompts::default();
    for request in requests {
        let prompt = prompts.of_request(request);
        lint.add(&mut conversations, prompt);
    }
    lint
}

/// Compares request bodies in the order in which they were sent: of OpenAI's two dialects, Anthropic, Gemini or Ollama.
///
/// # Errors
///
/// [`LintError`] names the first body that is none of these.
///
/// # Examples
///
/// ```
/// use peregrine_agent::{Cause, lint_bodies};
///
/// let found = lint_bodies(&[
///     r#"{"model":"m","tools":[{"name":"a"},{"name":"b"}],"messages":[{"role":"user","content":"hi"}]}"#,
///     r#"{"model":"m","tools":[{"name":"b"},{"name":"a"}],"messages":[{"role":"user","content":"hi"}]}"#,
/// ])?;
/// assert_eq!((found.breaks[0].field.as_str(), found.breaks[0].offset), ("tools[0].name", 9));
/// assert_eq!(found.breaks[0].cause, Some(Cause::ToolsReordered));
/// # Ok::<(), peregrine_agent::LintError>(())
/// ```
pub fn lint_bodies<B: AsRef<[u8]>>(bodies: &[B]) -> Result<PromptLint, LintError> {
    let mut lint = PromptLint::default();
    let mut conversations = Conversations::default();
    for (at, body) in bodies.iter().enumerate() {
        lint.add(&mut conversations, body::prompt(at, body.as_ref())?);
    }
    Ok(lint)
}

impl PromptLint {
    fn add<'a>(&mut self, conversations: &mut Conversations<'a>, prompt: prompt::Prompt<'a>) {
        let after = self.requests;
        self.requests += 1;
        let mut goes_on = None;
        let mut broken = None;
        for (id, newest) in conversations.candidates(&prompt) {
            match compare::compare(&newest.prompt, &prompt, newest.at, after) {
                Compared::Stable => {
                    (goes_on, broken) = (Some(id), None);
                    break;
                }
                Compared::Broken(found) if goes_on.is_none() => (goes_on, broken) = (Some(id), Some(found)),
                Compared::Broken(_) | Compared::Another => {}
            }
        }
        self.compared += usize::from(goes_on.is_some());
        self.conversations += usize::from(goes_on.is_none());
        if let Some(broken) = broken {
            self.lost_bytes = self.lost_bytes.saturating_add(broken.lost_bytes);
            self.lost_tokens = self.lost_tokens.saturating_add(broken.lost_tokens);
            if self.breaks.len() < MAX_BREAKS {
                self.breaks.push(*broken);
            } else {
                self.more_breaks += 1;
            }
        }
        conversations.put(goes_on, after, prompt);
    }
}
