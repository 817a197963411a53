//! One JSON object of `/api/chat`: a line of a stream, or the whole body.
//!
//! Both modes have the same object, so both read it here and end their answers here.

use std::time::Duration;

use peregrine_core::{
    Done, Finish, Metadata, ProtocolError, ProviderError, Result, Timings, ToolCall, UnixTime, Usage,
};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::wire::error::ErrorBody;
use crate::wire::json;

/// How many calls one answer may hold.
const MAX_CALLS: usize = 1024;

#[derive(Deserialize)]
pub(super) struct Chunk<'a> {
    #[serde(default)]
    pub(super) model: Option<String>,
    #[serde(default)]
    created_at: Option<String>,
    #[serde(default)]
    remote_model: Option<String>,
    #[serde(default)]
    remote_host: Option<String>,
    #[serde(default, borrow)]
    pub(super) message: Option<ChunkMessage<'a>>,
    #[serde(default)]
    pub(super) done: Option<bool>,
    #[serde(default)]
    done_reason: Option<String>,
    #[serde(default, deserialize_with = "count")]
    total_duration: Option<u64>,
    #[serde(default, deserialize_with = "count")]
    load_duration: Option<u64>,
    #[serde(default, deserialize_with = "count")]
    prompt_eval_count: Option<u64>,
    #[serde(default, deserialize_with = "count")]
    prompt_eval_duration: Option<u64>,
    #[serde(default, deserialize_with = "count")]
    eval_count: Option<u64>,
    #[serde(default, deserialize_with = "count")]
    eval_duration: Option<u64>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
pub(super) struct ChunkMessage<'a> {
    #[serde(default)]
    pub(super) content: Option<String>,
    #[serde(default)]
    pub(super) thinking: Option<String>,
    #[serde(default, borrow)]
    pub(super) tool_calls: Option<Vec<ChunkCall<'a>>>,
}

#[derive(Deserialize)]
pub(super) struct ChunkCall<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(default, borrow)]
    function: Option<ChunkFunction<'a>>,
}

#[derive(Deserialize)]
struct ChunkFunction<'a> {
    #[serde(default)]
    name: Option<String>,
    #[serde(default, borrow)]
    arguments: Option<&'a RawValue>,
}

/// A call without its final id, which only the end of the answer gives.
#[derive(Debug)]
pub(super) struct PendingCall {
    id: Option<String>,
    name: String,
    arguments: String,
}

impl<'a> Chunk<'a> {
    /// Reads the object.
    pub(super) fn parse(json: &'a [u8]) -> serde_json::Result<Self> {
        // Serde would take an array for a struct, field by field.
        if json.trim_ascii_start().starts_with(b"[") {
            return Err(serde::de::Error::custom("an array where an object is expected"));
        }
        serde_json::from_slice(json)
    }

    /// The error that the object is, if it is one.
    pub(super) fn take_error(&mut self, provider: &str) -> Option<ProviderError> {
        let error = self.error.take()?;
        let body = ErrorBody::from_value(&serde_json::json!({"error": error}));
        Some(body.into_error(provider, 200, None, UnixTime(0)))
    }

    /// What the object with `done: true` says about the whole answer.
    pub(super) fn end(&self, has_calls: bool) -> (Done, Option<Usage>) {
        let mut done = Done::new(self.finish(has_calls));
        let time = |nanos: Option<u64>| nanos.map(Duration::from_nanos);
        let timings = Timings {
            total: time(self.total_duration),
            load: time(self.load_duration),
            prompt: time(self.prompt_eval_duration),
            generation: time(self.eval_duration),
        };
        done.timings = Some(timings).filter(|timings| *timings != Timings::default());
        done.metadata = self.metadata();
        // The server leaves a count of 0 out; it counts nothing at all where it only loads or unloads.
        let usage = match (self.prompt_eval_count, self.eval_count) {
            (None, None) => None,
            (prompt, output) => Some(Usage::new(prompt.unwrap_or(0), output.unwrap_or(0))),
        };
        (done, usage)
    }

    fn finish(&self, has_calls: bool) -> Finish {
        match self.done_reason.as_deref() {
            Some("stop" | "") | None if has_calls => Finish::ToolCalls,
            Some("stop" | "") | None => Finish::Stop,
            Some("length") => Finish::Length,
            Some(other) => Finish::Other(other.to_owned()),
        }
    }

    fn metadata(&self) -> Metadata {
        let facts = [
            ("created_at", &self.created_at),
            ("remote_host", &self.remote_host),
            ("remote_model", &self.remote_model),
        ];
        facts
            .into_iter()
            .filter_map(|(name, fact)| Some((name.to_owned(), Value::from(fact.clone()?))))
            .collect()
    }

    /// The calls of the answer, with ids. `self` is the object that ended it.
    pub(super) fn calls(&self, pending: Vec<PendingCall>) -> impl Iterator<Item = ToolCall> {
        let digits: String = self
            .created_at
            .iter()
            .flat_map(|time| time.chars().filter(char::is_ascii_digit))
            .take(32)
            .collect();
        let prefix = if digits.is_empty() {
            String::new()
        } else {
            digits + "_"
        };
        pending.into_iter().enumerate().map(move |(n, call)| {
            let id = call.id.unwrap_or_else(|| format!("call_{prefix}{n}"));
            ToolCall::new(id, call.name, call.arguments)
        })
    }
}

impl ChunkMessage<'_> {
    /// Moves the calls into `pending`.
    pub(super) fn take_calls(&mut self, pending: &mut Vec<PendingCall>) -> Result<(), ProtocolError> {
        for call in self.tool_calls.take().unwrap_or_default() {
            if pending.len() == MAX_CALLS {
                let message = format!("the answer holds more than {MAX_CALLS} tool calls");
                return Err(ProtocolError::new(message));
            }
            let ChunkCall { id, function } = call;
            let (name, arguments) = function.map_or((None, None), |f| (f.name, f.arguments));
            let name = name
                .filter(|name| !name.is_empty())
                .ok_or_else(|| ProtocolError::new("the answer holds a tool call without a name"))?;
            pending.push(PendingCall {
                id: id.filter(|id| !id.is_empty()),
                name,
                arguments: arguments.map_or_else(|| "{}".to_owned(), arguments_text),
            });
        }
        Ok(())
    }
}

/// An object comes compacted; text is taken as the JSON text that some servers send instead.
fn arguments_text(raw: &RawValue) -> String {
    match serde_json::from_str::<String>(raw.get()) {
        Ok(text) if text.trim().is_empty() => "{}".to_owned(),
        Ok(text) => text,
        Err(_) => json::compact(raw.get()),
    }
}

/// A whole number of at least 0. Anything else is no count, which is no reason to lose the answer.
fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(value.as_u64())
}
