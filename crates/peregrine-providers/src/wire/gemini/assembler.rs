//! From responses to events.
//!
//! Algorithm: every piece of a stream is a whole response. Pieces of text that follow each other are one part
//! until a signature, or a part of another kind, ends it: a signature belongs to the part on which it stands.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use peregrine_core::{
    ChatEvent, Done, Finish, MediaPart, Metadata, OpaquePart, Part, ProviderData, Result, ToolCall, Usage,
};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::DIALECT;
use super::content::SIGNATURE;
use super::response::Problem;
use crate::wire::fields::{self, Fields};
use crate::wire::{Events, json};

/// Reads the responses of one answer.
#[derive(Debug)]
pub(super) struct Assembler {
    id: Option<String>,
    model: Option<String>,
    open: Open,
    calls: u32,
    has_begun: bool,
    pub(super) has_candidate: bool,
    finish_reason: Option<String>,
    metadata: Metadata,
}

/// The kind of part that more text would continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Nothing,
    Text,
    Thought,
}

impl Assembler {
    pub(super) fn new() -> Self {
        Self {
            id: None,
            model: None,
            open: Open::Nothing,
            calls: 0,
            has_begun: false,
            has_candidate: false,
            finish_reason: None,
            metadata: Metadata::new(),
        }
    }

    /// Whether the model has said why it ended.
    pub(super) fn is_finished(&self) -> bool {
        self.finish_reason.is_some()
    }

    /// Takes the next response.
    pub(super) fn piece(&mut self, answer: Answer<'_>, events: &mut Events) -> Result<(), Problem> {
        let Answer {
            candidates,
            prompt_feedback,
            usage_metadata,
            model_version,
            response_id,
            error,
        } = answer;
        if error.is_some() {
            return Err(Problem::Error);
        }
        let is_news = |new: &Option<String>, known: &Option<String>| new.is_some() && new != known;
        if !std::mem::replace(&mut self.has_begun, true)
            || is_news(&response_id, &self.id)
            || is_news(&model_version, &self.model)
        {
            self.id = response_id.or(self.id.take());
            self.model = model_version.or(self.model.take());
            events.push_back(ChatEvent::Start {
                id: self.id.clone(),
                model: self.model.clone(),
            });
        }
        // Of several candidates the first is the answer; the others are in the raw response.
        let candidate = candidates
            .unwrap_or_default()
            .into_iter()
            .find(|candidate| candidate.index.unwrap_or(0) == 0);
        if let Some(feedback) = prompt_feedback.filter(|_| candidate.is_none() && !self.has_candidate)
            && let Some(reason) = feedback.block_reason
        {
            return Err(Problem::Blocked(reason, feedback.block_reason_message));
        }
        if let Some(candidate) = candidate {
            self.candidate(candidate, events)?;
        }
        if let Some(counts) = usage_metadata {
            self.note("service_tier", counts.service_tier.clone());
            self.note(
                "tool_use_prompt_tokens",
                counts.tool_use_prompt_token_count.map(Value::from),
            );
            events.extend(counts.usage().map(|usage| ChatEvent::Usage { usage }));
        }
        Ok(())
    }

    fn candidate(&mut self, candidate: Candidate<'_>, events: &mut Events) -> Result<(), Problem> {
        let Candidate {
            index: _,
            content,
            finish_reason,
            finish_message,
            safety_ratings,
            citation_metadata,
            grounding_metadata,
            url_context_metadata,
            continuation_token,
        } = candidate;
        self.has_candidate = true;
        for part in content.and_then(|content| content.parts).unwrap_or_default() {
            self.part(part, events)?;
        }
        self.finish_reason = finish_reason.or(self.finish_reason.take());
        self.note("finish_message", finish_message);
        self.note("safety_ratings", safety_ratings);
        self.note("citation_metadata", citation_metadata);
        self.note("grounding_metadata", grounding_metadata);
        self.note("url_context_metadata", url_context_metadata);
        self.note("continuation_token", continuation_token);
        Ok(())
    }

    fn part(&mut self, raw: &RawValue, events: &mut Events) -> Result<(), Problem> {
        let fields: Fields<'_> = serde_json::from_str(raw.get())?;
        let signature = fields.text(SIGNATURE);
        let is_thought = fields.read("thought").unwrap_or(false);
        if let Some(text) = fields.read::<String>("text") {
            self.text(text, is_thought, signature, events);
        } else if let Some(call) = fields.read::<Fields<'_>>("functionCall") {
            self.close(events);
            self.call(&call, signature.as_deref(), events);
        } else if let Some(media) = fields
            .read::<Fields<'_>>("inlineData")
            .filter(|_| !is_thought)
            .and_then(|inline| media(&inline))
        {
            self.close(events);
            push_part(media, events);
            if let Some(signature) = signature {
                let kept = json!({"text": "", SIGNATURE: signature});
                push_part(opaque(SIGNATURE, kept), events);
            }
        } else {
            self.close(events);
            let beside = [SIGNATURE, "thought", "partMetadata"];
            let kind = fields.names().find(|name| !beside.contains(name));
            let value = serde_json::from_str(raw.get())?;
            push_part(opaque(kind.unwrap_or(SIGNATURE), value), events);
        }
        Ok(())
    }

    fn text(&mut self, text: String, is_thought: bool, signature: Option<String>, events: &mut Events) {
        let kind = if is_thought { Open::Thought } else { Open::Text };
        // An empty piece without a signature says nothing, not even that another kind of part begins.
        if text.is_empty() && signature.is_none() {
            return;
        }
        if self.open != kind {
            self.close(events);
        }
        if !text.is_empty() {
            events.push_back(match kind {
                Open::Thought => ChatEvent::ReasoningDelta { text },
                _ => ChatEvent::TextDelta { text },
            });
            self.open = kind;
        }
        if let Some(signature) = signature {
            self.open = Open::Nothing;
            let data = Some(signed(&signature));
            events.push_back(match kind {
                Open::Thought => ChatEvent::ReasoningEnd { data },
                _ => ChatEvent::TextEnd { data },
            });
        }
    }

    fn call(&mut self, fields: &Fields<'_>, signature: Option<&str>, events: &mut Events) {
        let index = self.calls;
        self.calls += 1;
        let made_up = || match &self.id {
            Some(answer) => format!("{answer}_call_{index}"),
            None => format!("call_{index}"),
        };
        let mut call = ToolCall::new(
            fields.text("id").unwrap_or_else(made_up),
            fields.text("name").unwrap_or_default(),
            fields::arguments(fields.get("args")),
        );
        call.data = signature.map(signed);
        events.push_back(ChatEvent::ToolCallStart {
            index,
            id: call.id.clone(),
            name: call.name.clone(),
        });
        events.push_back(ChatEvent::ToolCallDelta {
            index,
            arguments: call.arguments.clone(),
        });
        events.push_back(ChatEvent::ToolCallEnd { index, call });
    }

    /// Ends the part that more text would continue.
    fn close(&mut self, events: &mut Events) {
        match std::mem::replace(&mut self.open, Open::Nothing) {
            Open::Nothing => {}
            Open::Text => events.push_back(ChatEvent::TextEnd { data: None }),
            Open::Thought => events.push_back(ChatEvent::ReasoningEnd { data: None }),
        }
    }

    /// Keeps a fact that says something.
    fn note(&mut self, name: &str, value: Option<Value>) {
        let says_something = |value: &Value| match value {
            Value::Null => false,
            Value::Array(items) => !items.is_empty(),
            _ => true,
        };
        if let Some(value) = value.filter(says_something) {
            self.metadata.insert(name.to_owned(), value);
        }
    }

    /// The answer is whole.
    pub(super) fn end(&mut self, events: &mut Events) {
        self.close(events);
        let reason = self.finish_reason.take();
        let finish = match reason.as_deref() {
            Some("STOP") | None if self.calls > 0 => Finish::ToolCalls,
            Some("STOP") => Finish::Stop,
            Some("MAX_TOKENS") => Finish::Length,
            Some(word) if is_filter(word) => {
                self.note("finish_reason", Some(word.into()));
                Finish::ContentFilter
            }
            Some(word) => Finish::Other(word.to_owned()),
            None => Finish::Other("unspecified".to_owned()),
        };
        let mut done = Done::new(finish);
        done.metadata = std::mem::take(&mut self.metadata);
        events.push_back(ChatEvent::Done(Box::new(done)));
    }
}

/// Whether the provider withheld the answer for what it says.
fn is_filter(reason: &str) -> bool {
    matches!(
        reason,
        "SAFETY"
            | "RECITATION"
            | "BLOCKLIST"
            | "PROHIBITED_CONTENT"
            | "SPII"
            | "IMAGE_SAFETY"
            | "IMAGE_PROHIBITED_CONTENT"
            | "IMAGE_RECITATION"
            | "MODEL_ARMOR"
            | "ESCALATION"
            | "PUP_LIMITED_DISABLED"
    )
}

fn signed(signature: &str) -> ProviderData {
    ProviderData::new(DIALECT, json!({ SIGNATURE: signature }))
}

fn opaque(kind: &str, value: Value) -> Part {
    Part::Opaque(OpaquePart {
        dialect: DIALECT.to_owned(),
        kind: kind.to_owned(),
        value,
    })
}

fn push_part(part: Part, events: &mut Events) {
    events.push_back(ChatEvent::Part { part: Box::new(part) });
}

/// An image or audio of the answer; `None` for what is neither, or is not base64.
fn media(inline: &Fields<'_>) -> Option<Part> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let media_type = inline.text("mimeType")?;
    let wrap = match media_type.split_once('/')?.0 {
        "image" => Part::Image,
        "audio" => Part::Audio,
        _ => return None,
    };
    let data = LENIENT.decode(inline.text("data")?).ok()?;
    Some(wrap(MediaPart::bytes(media_type, data)))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer<'a> {
    #[serde(borrow, default)]
    candidates: Option<Vec<Candidate<'a>>>,
    #[serde(default)]
    prompt_feedback: Option<PromptFeedback>,
    #[serde(default, deserialize_with = "json::or_none")]
    usage_metadata: Option<Counts>,
    #[serde(default)]
    model_version: Option<String>,
    #[serde(default)]
    response_id: Option<String>,
    #[serde(default)]
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PromptFeedback {
    #[serde(default)]
    block_reason: Option<String>,
    #[serde(default)]
    block_reason_message: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate<'a> {
    #[serde(default, deserialize_with = "json::or_none")]
    index: Option<u64>,
    #[serde(borrow, default)]
    content: Option<Content<'a>>,
    #[serde(default)]
    finish_reason: Option<String>,
    #[serde(default)]
    finish_message: Option<Value>,
    #[serde(default)]
    safety_ratings: Option<Value>,
    #[serde(default)]
    citation_metadata: Option<Value>,
    #[serde(default)]
    grounding_metadata: Option<Value>,
    #[serde(default)]
    url_context_metadata: Option<Value>,
    #[serde(default)]
    continuation_token: Option<Value>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow, default)]
    parts: Option<Vec<&'a RawValue>>,
}

/// Token counts; in a stream, of everything so far.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    #[serde(default, deserialize_with = "json::or_none")]
    prompt_token_count: Option<u64>,
    #[serde(default, deserialize_with = "json::or_none")]
    candidates_token_count: Option<u64>,
    #[serde(default, deserialize_with = "json::or_none")]
    thoughts_token_count: Option<u64>,
    #[serde(default, deserialize_with = "json::or_none")]
    cached_content_token_count: Option<u64>,
    #[serde(default, deserialize_with = "json::or_none")]
    tool_use_prompt_token_count: Option<u64>,
    #[serde(default)]
    service_tier: Option<Value>,
}

impl Counts {
    /// The usage; `None` if nothing was counted: gateways that do not know it send zeros, and no prompt has
    /// no token. The provider counts thoughts beside the answer; here they are part of the output.
    fn usage(&self) -> Option<Usage> {
        let thoughts = self.thoughts_token_count.unwrap_or(0);
        let usage = Usage {
            input_tokens: self.prompt_token_count.unwrap_or(0),
            cached_input_tokens: self.cached_content_token_count.unwrap_or(0),
            cache_write_tokens: 0,
            output_tokens: self.candidates_token_count.unwrap_or(0).saturating_add(thoughts),
            reasoning_tokens: thoughts,
        };
        (usage.total_tokens() > 0).then_some(usage)
    }
}
