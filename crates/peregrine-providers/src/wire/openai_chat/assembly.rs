//! From pieces to events.
//!
//! Algorithm: one state machine for both modes; a whole answer is an answer of one piece. So a whole answer and
//! a streamed one of the same content fold to the same response by construction. Text and reasoning are handed
//! on as they come; what is only known at the end (data of the reasoning, complete calls, metadata) comes then.

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use peregrine_core::{
    ChatEvent, Done, Error, Finish, MediaPart, Metadata, OpaquePart, Part, ProtocolError, ProviderData,
    Result, Timings, UnixTime, Usage,
};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::DIALECT;
use super::calls::Calls;
use super::reply::{Call, Choice, Content, ContentPiece, Piece, Reply, WireUsage};
use crate::wire::Events;
use crate::wire::error::ErrorBody;
use crate::wire::json::Text;

/// The finish of an answer for which the server gives no reason.
const NO_REASON: &str = "unspecified";

/// How many pieces of reasoning details one answer may hold.
const MAX_DETAILS: usize = 16_384;

/// An answer that is being put together.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    provider: String,
    id: Option<String>,
    model: Option<String>,
    /// Whether a reply with a list of choices has come: only then there is an answer.
    answered: bool,
    reasoned: bool,
    details: Vec<Map<String, Value>>,
    signature: Option<Value>,
    calls: Calls,
    audio: Option<Map<String, Value>>,
    audio_bytes: Vec<u8>,
    extra_content: Option<Value>,
    usage: Option<Usage>,
    timings: Option<Timings>,
    finish: Option<String>,
    /// Metadata; a text that is repeated in every piece of a stream is compared, not made again.
    facts: Vec<(&'static str, Value)>,
}

impl Assembly {
    pub(super) fn new(provider: &str) -> Self {
        Self {
            provider: provider.to_owned(),
            ..Self::default()
        }
    }

    /// Whether the server has given a word for why the answer ended.
    pub(super) fn has_reason(&self) -> bool {
        self.finish.is_some()
    }

    /// Whether an answer has begun.
    pub(super) fn has_answered(&self) -> bool {
        self.answered
    }

    /// Whether the server has said why the answer ended.
    fn is_finished(&self) -> bool {
        self.finish.as_deref().is_some_and(|word| word != "error")
    }

    /// Takes a reply; `text` is what it was read from.
    pub(super) fn read(&mut self, reply: Reply<'_>, text: &str, events: &mut Events) -> Result<()> {
        let Reply {
            id,
            model,
            object,
            choices,
            usage,
            x_groq,
            error,
            time_info,
            timings,
            system_fingerprint,
            service_tier,
            provider,
        } = reply;
        if object.get() == Some("error") {
            return Err(self.error(text));
        }
        let first = choices.map(|choices| {
            self.answered = true;
            choices
                .into_iter()
                .find(|choice| choice.index.0.unwrap_or(0) == 0)
        });
        let mut error = error;
        if let Some(Some(choice)) = &first {
            error = error.or(choice.error);
        }
        if let Some(error) = error.filter(|error| !matches!(error.get(), "{}" | "\"\"" | "false")) {
            let beside_finish =
                matches!(&first, Some(Some(c)) if c.finish_reason.get().is_some_and(|word| word != "error"));
            if !self.is_finished() && !beside_finish {
                return Err(self.error(&format!(r#"{{"error":{}}}"#, error.get())));
            }
            self.fact("error", Some(error));
        }
        self.start(&id, &model, events);
        self.fact("system_fingerprint", system_fingerprint);
        self.fact("service_tier", service_tier);
        self.fact("provider", provider);
        if let Some(Some(choice)) = first {
            self.choice(choice, events)?;
        }
        if let Some(usage) = usage.or(x_groq.and_then(|groq| groq.usage)) {
            self.usage(&usage, events);
        }
        if let Some(times) = time_info {
            self.time(times.total_time, times.prompt_time, times.completion_time);
        }
        if let Some(times) = timings {
            let seconds = |ms: Option<f64>| ms.map(|ms| ms / 1000.0);
            self.time(None, seconds(times.prompt_ms), seconds(times.predicted_ms));
        }
        Ok(())
    }

    /// The error that a body or frame holds.
    pub(super) fn error(&self, text: &str) -> Error {
        ErrorBody::parse(text.as_bytes())
            .into_error(&self.provider, 200, None, UnixTime(0))
            .into()
    }

    fn start(&mut self, id: &Text<'_>, model: &Text<'_>, events: &mut Events) {
        let id = id.get().filter(|_| self.id.is_none()).map(str::to_owned);
        let model = model.get().filter(|_| self.model.is_none()).map(str::to_owned);
        if id.is_some() || model.is_some() {
            self.id = self.id.take().or_else(|| id.clone());
            self.model = self.model.take().or_else(|| model.clone());
            events.push_back(ChatEvent::Start { id, model });
        }
    }

    fn fact(&mut self, name: &'static str, value: Option<&RawValue>) {
        let Some(value) = value.map(RawValue::get) else {
            return;
        };
        match self.facts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) if is_plain_text(value, known) => {}
            Some((_, known)) => *known = fact_value(value),
            None => self.facts.push((name, fact_value(value))),
        }
    }

    fn usage(&mut self, wire: &WireUsage<'_>, events: &mut Events) {
        self.time(wire.total_time, wire.prompt_time, wire.completion_time);
        self.fact("cost", wire.cost);
        let Some(usage) = wire.usage() else { return };
        if let Some(total) = wire.total_tokens.0.filter(|total| *total != usage.total_tokens()) {
            let total = RawValue::from_string(total.to_string()).ok();
            self.fact("total_tokens", total.as_deref());
        }
        if self.usage != Some(usage) {
            self.usage = Some(usage);
            events.push_back(ChatEvent::Usage { usage });
        }
    }

    fn time(&mut self, total: Option<f64>, prompt: Option<f64>, generation: Option<f64>) {
        let duration =
            |seconds: Option<f64>| seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let times = Timings {
            total: duration(total),
            load: None,
            prompt: duration(prompt),
            generation: duration(generation),
        };
        if times != Timings::default() {
            self.timings = Some(times);
        }
    }

    fn choice(&mut self, choice: Choice<'_>, events: &mut Events) -> Result<()> {
        let Choice {
            index: _,
            message,
            delta,
            finish_reason,
            native_finish_reason,
            error: _,
        } = choice;
        for piece in message.map(|message| *message).into_iter().chain(delta) {
            self.piece(piece, events)?;
        }
        self.finish = finish_reason.into_string().or_else(|| self.finish.take());
        self.fact("native_finish_reason", native_finish_reason);
        Ok(())
    }

    fn piece(&mut self, piece: Piece<'_>, events: &mut Events) -> Result<()> {
        let Piece {
            content,
            refusal,
            reasoning_content,
            reasoning,
            reasoning_details,
            tool_calls,
            function_call,
            images,
            audio,
            extra_content,
        } = piece;
        let told = reasoning_content
            .into_string()
            .or_else(|| reasoning.into_string());
        self.reasoning(told, reasoning_details.unwrap_or_default(), events)?;
        match content {
            Content::Text(text) => push_text(text, events),
            Content::Pieces(pieces) => pieces
                .into_iter()
                .for_each(|piece| self.content_piece(piece, events)),
            Content::None => {}
        }
        if let Some(text) = refusal.into_string() {
            events.push_back(ChatEvent::RefusalDelta { text });
        }
        for url in images
            .into_iter()
            .flatten()
            .filter_map(|image| image.image_url?.url.into_string())
        {
            let part = Box::new(Part::Image(image(url)));
            events.push_back(ChatEvent::Part { part });
        }
        for call in tool_calls.into_iter().flatten() {
            self.calls.piece(call, self.id.as_deref(), events)?;
        }
        if function_call.is_some() {
            let call = Call {
                function: function_call,
                ..Call::default()
            };
            self.calls.piece(call, self.id.as_deref(), events)?;
        }
        self.audio(audio);
        if let Some(extra) = extra_content.and_then(|extra| serde_json::from_str(extra.get()).ok()) {
            self.extra_content = Some(extra);
        }
        Ok(())
    }

    fn reasoning(
        &mut self,
        told: Option<String>,
        details: Vec<&RawValue>,
        events: &mut Events,
    ) -> Result<()> {
        let details: Vec<Map<String, Value>> = details
            .into_iter()
            .filter_map(|detail| serde_json::from_str(detail.get()).ok())
            .collect();
        let text = told.unwrap_or_else(|| {
            let texts = details
                .iter()
                .filter_map(|d| d.get("text").or_else(|| d.get("summary"))?.as_str());
            texts.collect()
        });
        if text.is_empty() && (details.is_empty() || self.reasoned) {
            // Details without text open the part, so that it stands where they stood.
        } else {
            self.reasoned = true;
            events.push_back(ChatEvent::ReasoningDelta { text });
        }
        // Only the first of a piece can continue what came before; the others of the same piece are others.
        let mut details = details.into_iter();
        if let Some(first) = details.next() {
            merge_detail(&mut self.details, first);
        }
        self.details.extend(details);
        if self.details.len() > MAX_DETAILS {
            let message = format!("the answer holds more than {MAX_DETAILS} pieces of reasoning details");
            return Err(ProtocolError::new(message).into());
        }
        Ok(())
    }

    fn content_piece(&mut self, raw: &RawValue, events: &mut Events) {
        let Ok(piece) = serde_json::from_str::<ContentPiece<'_>>(raw.get()) else {
            return;
        };
        match (piece.kind.get(), piece.thinking) {
            (Some("text"), _) => push_text(Cow::Owned(piece.text.into_string().unwrap_or_default()), events),
            (Some("thinking"), Some(thoughts)) => {
                let text: String = thoughts
                    .into_iter()
                    .filter_map(|thought| thought.text.into_string())
                    .collect();
                self.reasoned = true;
                events.push_back(ChatEvent::ReasoningDelta { text });
                if let Some(signature) = piece.signature.and_then(|s| serde_json::from_str(s.get()).ok()) {
                    self.signature = Some(signature);
                }
            }
            (Some(kind), _) => {
                let value = serde_json::from_str(raw.get()).unwrap_or_default();
                let part = OpaquePart {
                    dialect: DIALECT.to_owned(),
                    kind: kind.to_owned(),
                    value,
                };
                events.push_back(ChatEvent::Part {
                    part: Box::new(Part::Opaque(part)),
                });
            }
            (None, _) => {}
        }
    }

    /// Audio comes in pieces: the bytes of each are base64 with an end of its own, the transcript is text, and
    /// of the rest the last counts.
    fn audio(&mut self, raw: Option<&RawValue>) {
        let Some(piece) = raw.and_then(|raw| serde_json::from_str::<Map<String, Value>>(raw.get()).ok())
        else {
            return;
        };
        let audio = self.audio.get_or_insert_default();
        for (name, value) in piece {
            match (name.as_str(), audio.get_mut(&name), &value) {
                ("transcript", Some(Value::String(all)), Value::String(more)) => all.push_str(more),
                ("data", _, Value::String(more)) => match STANDARD.decode(more) {
                    Ok(bytes) => self.audio_bytes.extend(bytes),
                    Err(_) => drop(audio.insert(name, value)),
                },
                (_, _, Value::Null) => {}
                _ => drop(audio.insert(name, value)),
            }
        }
    }

    /// The answer is complete.
    pub(super) fn finish(&mut self, events: &mut Events) -> Result<()> {
        if !self.answered {
            return Err(ProtocolError::new("the answer holds no `choices`").into());
        }
        if self.reasoned {
            let mut data = Map::new();
            if !self.details.is_empty() {
                let details = std::mem::take(&mut self.details);
                data.insert(
                    "reasoning_details".to_owned(),
                    details.into_iter().map(Value::Object).collect(),
                );
            }
            data.extend(
                self.signature
                    .take()
                    .map(|signature| ("signature".to_owned(), signature)),
            );
            let data = Some(ProviderData::new(DIALECT, Value::Object(data)));
            events.push_back(ChatEvent::ReasoningEnd { data });
        }
        let finish = finish_of(self.finish.take(), !self.calls.is_empty());
        self.calls.finish(self.id.as_deref(), events);
        if let Some(audio) = self.audio.as_mut().filter(|_| !self.audio_bytes.is_empty()) {
            audio.insert("data".to_owned(), STANDARD.encode(&self.audio_bytes).into());
        }
        let fields = [
            ("audio", self.audio.take().map(Value::Object)),
            ("extra_content", self.extra_content.take()),
        ];
        for (kind, value) in fields
            .into_iter()
            .filter_map(|(kind, value)| Some((kind, value?)))
        {
            let part = OpaquePart {
                dialect: DIALECT.to_owned(),
                kind: kind.to_owned(),
                value,
            };
            events.push_back(ChatEvent::Part {
                part: Box::new(Part::Opaque(part)),
            });
        }
        // One by one: there are a few, and collecting them would sort a list first.
        let mut metadata = Metadata::new();
        for (name, value) in std::mem::take(&mut self.facts) {
            metadata.insert(name.to_owned(), value);
        }
        let mut done = Done::new(finish);
        done.timings = self.timings.take();
        done.metadata = metadata;
        events.push_back(ChatEvent::Done(Box::new(done)));
        Ok(())
    }
}

/// The text within a JSON string that needs no unescaping.
fn plain_text(json: &str) -> Option<&str> {
    json.strip_prefix('"')?
        .strip_suffix('"')
        .filter(|text| !text.contains('\\'))
}

/// Whether `value` is this JSON string.
fn is_plain_text(json: &str, value: &Value) -> bool {
    plain_text(json).is_some_and(|text| value.as_str() == Some(text))
}

fn fact_value(json: &str) -> Value {
    match plain_text(json) {
        Some(text) => Value::String(text.to_owned()),
        None => serde_json::from_str(json).unwrap_or(Value::Null),
    }
}

fn finish_of(word: Option<String>, calls: bool) -> Finish {
    let Some(word) = word else {
        return if calls {
            Finish::ToolCalls
        } else {
            Finish::Other(NO_REASON.to_owned())
        };
    };
    match word.as_str() {
        "stop" | "tool_calls" | "function_call" | "eos" | "end_turn" if calls => Finish::ToolCalls,
        // Without a call there is nothing to wait for.
        "stop" | "tool_calls" | "function_call" | "eos" | "end_turn" => Finish::Stop,
        "length" | "max_tokens" | "model_length" => Finish::Length,
        "content_filter" | "sensitive" => Finish::ContentFilter,
        _ => Finish::Other(word),
    }
}

fn push_text(text: Cow<'_, str>, events: &mut Events) {
    if !text.is_empty() {
        events.push_back(ChatEvent::TextDelta {
            text: text.into_owned(),
        });
    }
}

/// Puts a piece of OpenRouter's `reasoning_details` to the piece that it continues: the last one, if type and
/// index agree. Texts are joined, other fields replaced unless they are null.
fn merge_detail(details: &mut Vec<Map<String, Value>>, detail: Map<String, Value>) {
    let continues = |last: &&mut Map<String, Value>| {
        last.get("type") == detail.get("type") && last.get("index") == detail.get("index") && {
            let id = |detail: &Map<String, Value>| detail.get("id").filter(|id| !id.is_null()).cloned();
            id(last).is_none() || id(&detail).is_none() || id(last) == id(&detail)
        }
    };
    let Some(last) = details.last_mut().filter(continues) else {
        details.push(detail);
        return;
    };
    for (name, value) in detail {
        match (name.as_str(), last.get_mut(&name), &value) {
            ("text" | "summary" | "data", Some(Value::String(all)), Value::String(more)) => {
                all.push_str(more)
            }
            (_, Some(known), Value::Null) if !known.is_null() => {}
            _ => drop(last.insert(name, value)),
        }
    }
}

/// An image by its address, or by its bytes where the address holds them.
fn image(url: String) -> MediaPart {
    let parsed = url.strip_prefix("data:").and_then(|rest| {
        let (media_type, data) = rest.split_once(";base64,")?;
        Some(MediaPart::bytes(media_type, STANDARD.decode(data).ok()?))
    });
    parsed.unwrap_or_else(|| MediaPart::url(url))
}
