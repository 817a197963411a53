//! The flat events of a streamed answer.
//!
//! Invariant: folding the events of an answer ([`Fold`](crate::Fold)) gives the same
//! [`ChatResponse`] as asking for it whole, and [`ChatResponse::into_events`] is a right inverse of the fold.

use serde::{Deserialize, Serialize};

use crate::{
    ChatResponse, Finish, Metadata, Part, ProviderData, RawResponse, Role, Timings, ToolCall, Usage,
};

/// One event of a streamed answer.
///
/// A text (or reasoning) part is open from its first delta until its `End`; further deltas go to the open
/// part even if other kinds come in between. Codecs of providers without part boundaries send no `TextEnd`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChatEvent {
    /// The answer began; what is known of it so far.
    Start {
        /// The provider's id of the answer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// The model that answers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
    },
    /// More text.
    TextDelta {
        /// The new piece.
        text: String,
    },
    /// The open text part is complete.
    TextEnd {
        /// Data that goes back to the provider with the part.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        data: Option<ProviderData>,
    },
    /// More reasoning.
    ReasoningDelta {
        /// The new piece.
        text: String,
    },
    /// The open reasoning part is complete.
    ReasoningEnd {
        /// Data that goes back to the provider with the part.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        data: Option<ProviderData>,
    },
    /// More of the text with which the model declines.
    RefusalDelta {
        /// The new piece.
        text: String,
    },
    /// The model began to ask for a tool.
    ToolCallStart {
        /// Which of this answer's calls it is, from 0.
        index: u32,
        /// The call's id.
        id: String,
        /// The tool's name.
        name: String,
    },
    /// More of a call's arguments.
    ToolCallDelta {
        /// Which call.
        index: u32,
        /// The new piece of JSON text.
        arguments: String,
    },
    /// A call is complete. `call` is authoritative: it holds the arguments as the fold keeps them.
    ToolCallEnd {
        /// Which call.
        index: u32,
        /// The whole call.
        call: ToolCall,
    },
    /// A part that came whole: an image, or a piece only its provider understands.
    Part {
        /// The part.
        part: Box<Part>,
    },
    /// The usage so far. A later one replaces it.
    Usage {
        /// The usage.
        usage: Usage,
    },
    /// The answer is complete. Always the last event, and the only proof that the answer is whole.
    Done(Box<Done>),
}

/// How an answer ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Done {
    /// Why it ended.
    pub finish: Finish,
    /// The server's own times, where it reports them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timings: Option<Timings>,
    /// Other facts.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
    /// What the provider really sent. Not stored, not compared.
    #[serde(skip)]
    pub raw: Option<RawResponse>,
}

impl Done {
    /// An end without further facts.
    pub fn new(finish: Finish) -> Self {
        Self {
            finish,
            timings: None,
            metadata: Metadata::new(),
            raw: None,
        }
    }
}

impl PartialEq for Done {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            finish,
            timings,
            metadata,
            raw: _,
        } = self;
        *finish == other.finish && *timings == other.timings && *metadata == other.metadata
    }
}

impl ChatResponse {
    /// The events of this answer, as if it had been streamed: for caches, offline models and servers that
    /// answer a streaming request whole. Their fold equals this response.
    pub fn into_events(self) -> Vec<ChatEvent> {
        let Self {
            id,
            model,
            message,
            finish,
            usage,
            timings,
            metadata,
            raw,
        } = self;
        let mut events = Vec::with_capacity(message.parts.len() * 2 + 3);
        debug_assert_eq!(message.role, Role::Assistant, "an answer is the assistant's");
        events.push(ChatEvent::Start {
            id,
            model: Some(model).filter(|name| !name.is_empty()),
        });
        let mut calls = 0;
        for part in message.parts {
            push_part(part, &mut calls, &mut events);
        }
        events.extend(usage.map(|usage| ChatEvent::Usage { usage }));
        events.push(ChatEvent::Done(Box::new(Done {
            finish,
            timings,
            metadata,
            raw,
        })));
        events
    }
}

fn push_part(part: Part, calls: &mut u32, events: &mut Vec<ChatEvent>) {
    match part {
        Part::Text(part) => {
            events.push(ChatEvent::TextDelta { text: part.text });
            events.push(ChatEvent::TextEnd { data: part.data });
        }
        Part::Reasoning(part) => {
            events.push(ChatEvent::ReasoningDelta { text: part.text });
            events.push(ChatEvent::ReasoningEnd { data: part.data });
        }
        Part::ToolCall(call) => {
            let index = *calls;
            *calls += 1;
            events.push(ChatEvent::ToolCallStart {
                index,
                id: call.id.clone(),
                name: call.name.clone(),
            });
            events.push(ChatEvent::ToolCallDelta {
                index,
                arguments: call.arguments.clone(),
            });
            events.push(ChatEvent::ToolCallEnd { index, call });
        }
        whole => events.push(ChatEvent::Part {
            part: Box::new(whole),
        }),
    }
}
