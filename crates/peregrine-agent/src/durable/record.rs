//! What the records of an agent's journal say.
//!
//! | kind | payload | when |
//! |---|---|---|
//! | [`Kind::Marker`] | [`Note`]: begun (its rules beside it, as a part), spent, amended, finished, .. | |
//! | [`Kind::Event`] | an [`Event`], as the run took it | with what follows from it, in one append |
//! | [`Kind::Effect`] | an [`Announced`] call | before the call is made |
//! | [`Kind::Snapshot`] | the state, run and all | when the journal says that one is due |
//!
//! Payloads are MessagePack with names. A reader refuses schema versions that it does not know.

use peregrine_checkpoints::{Draft, Error as StoreError, Forked, Kind, Record};
use peregrine_core::{ChatResponse, Cost, Effect as ToolEffect, Message, ToolCall, UnixTime, Usage};
use peregrine_signatures::Compiled;
use serde::{Deserialize, Serialize};

use crate::budget::{Overshoot, Spent};
use crate::durable::Digest;
use crate::durable::digest::Requests;
use crate::durable::fork::Change;
use crate::output::Abandoned;
use crate::run::{CallId, Event, Form, ModelCall, RunSpec, ToolTask, Veto};

/// The version of events, effects and snapshots.
pub(crate) const SCHEMA: u32 = 1;
/// The form in which states are digested. It is raised whenever a run is serialised differently than before: then the
/// replay of an older journal in `tests/golden` parts from it at its end.
pub(crate) const STATE_FORM: u32 = 1;
/// The version of notes. Markers share their numbers with those of the checkpoints crate, which begin at 1.
pub(crate) const NOTE_SCHEMA: u32 = 101;

/// A call that is about to be made. An announcement of a call that has no result yet is all that tells, after a crash,
/// that the call may have been made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "announce", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Announced {
    /// A call to a model.
    Model {
        /// Which call.
        call: CallId,
        /// The thread of conversation it belongs to.
        thread: u32,
        /// The turn of that thread.
        turn: u32,
        /// Which of the agent's models.
        model: u32,
        /// The form of the answer.
        form: Form,
        /// Of the request, before form and guards add theirs.
        request: Digest,
    },
    /// A call of a tool.
    Tool {
        /// Which call.
        call: CallId,
        /// The thread of conversation it belongs to.
        thread: u32,
        /// The model's id of the call.
        call_id: String,
        /// The tool.
        name: String,
        /// Of the arguments, as the model wrote them.
        arguments: Digest,
        /// What the tool is declared to do to the world.
        effect: ToolEffect,
        /// Whether a person approved the call.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        approved: bool,
        /// The idempotency key under which it is called, each time.
        key: String,
    },
    /// A question to a person, whether a tool may be called.
    Approval {
        /// Which call.
        call: CallId,
        /// The thread of conversation it belongs to.
        thread: u32,
        /// The model's id of the call.
        call_id: String,
        /// The tool.
        name: String,
        /// Of the arguments, as the model wrote them.
        arguments: Digest,
    },
    /// The memory is asked.
    LoadMemory,
    /// The memory is told.
    SaveMemory {
        /// Of what it is told.
        messages: Digest,
    },
}

impl Announced {
    pub(crate) fn model(asked: &ModelCall, requests: &mut Requests) -> Self {
        Self::Model {
            call: asked.call,
            thread: asked.thread,
            turn: asked.turn,
            model: asked.model,
            form: asked.form,
            request: requests.digest(asked),
        }
    }

    pub(crate) fn tool(spec: &RunSpec, task: &ToolTask, key: String) -> Self {
        let ToolCall {
            id, name, arguments, ..
        } = &*task.tool_call;
        Self::Tool {
            call: task.call,
            thread: task.thread,
            call_id: id.clone(),
            name: name.clone(),
            arguments: Digest::of_text(arguments),
            effect: spec
                .tools
                .get(name)
                .map_or(ToolEffect::SideEffect, |rule| rule.effect),
            approved: task.approved,
            key,
        }
    }

    pub(crate) fn approval(task: &ToolTask) -> Self {
        let call = &task.tool_call;
        Self::Approval {
            call: task.call,
            thread: task.thread,
            call_id: call.id.clone(),
            name: call.name.clone(),
            arguments: Digest::of_text(&call.arguments),
        }
    }

    /// Which call, if it is one that the run numbers.
    pub fn call(&self) -> Option<CallId> {
        match self {
            Self::Model { call, .. } | Self::Tool { call, .. } | Self::Approval { call, .. } => Some(*call),
            Self::LoadMemory | Self::SaveMemory { .. } => None,
        }
    }
}

/// The signature of a typed run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SignatureId {
    /// Its name.
    pub name: String,
    /// Its digest: that of everything a model is told of it.
    pub digest: String,
}

impl SignatureId {
    pub(crate) fn of(signature: &Compiled) -> Self {
        Self {
            name: signature.name().to_owned(),
            digest: signature.digest().to_string(),
        }
    }
}

/// How a run ended, as far as its events do not say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Finished {
    /// Of the run's last state.
    pub state: Digest,
    /// The form in which the state was digested: a later version that writes states differently does not compare it.
    pub form: u32,
    /// By how much budgets were exceeded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overshoot: Vec<Overshoot>,
    /// How often observers failed.
    #[serde(default)]
    pub observer_failures: u32,
    /// What was told to stop and did not end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub abandoned: Vec<Abandoned>,
    /// What guards made of the answer, if they may change it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<Box<ChatResponse>>,
    /// The guard that withheld the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub veto: Option<Veto>,
}

/// A note on a run: what its events do not say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "note", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Note {
    /// The run begins. Its rules ([`RunSpec`]) stand beside it, as the record's only part, in JSON.
    Begun {
        /// Of a typed run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signature: Option<SignatureId>,
        /// The agent's models, by name.
        models: Vec<String>,
        /// What is asked, where hooks look at it first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        input: Option<Vec<Message>>,
    },
    /// What the run's own budget has spent.
    Spent {
        /// In all, since the run began.
        spent: Spent,
    },
    /// What an answer used that a guard refused, so that the run did not get to see it.
    Unread {
        /// Its tokens.
        usage: Option<Usage>,
        /// Its cost.
        cost: Cost,
    },
    /// The run was changed here, as a fork.
    Amended {
        /// What was changed, in order.
        changes: Vec<Change>,
    },
    /// The run is over.
    Finished(Finished),
}

impl Note {
    pub(crate) fn draft(&self) -> Result<Draft, StoreError> {
        Draft::new(Kind::Marker, NOTE_SCHEMA, self)
    }
}

/// The draft of the first record of a run.
pub(crate) fn begun(
    spec: &RunSpec,
    signature: Option<SignatureId>,
    models: Vec<String>,
    input: Option<Vec<Message>>,
) -> Result<Draft, StoreError> {
    let note = Note::Begun {
        signature,
        models,
        input,
    };
    let rules =
        serde_json::to_vec(spec).map_err(|error| StoreError::config(format!("the rules: {error}")))?;
    Ok(note.draft()?.with_part(rules))
}

/// The rules that stand beside [`Note::Begun`].
pub(crate) fn rules(seq: u64, part: &[u8]) -> Result<RunSpec, StoreError> {
    serde_json::from_slice(part).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        StoreError::config(format!(
            "the rules in record {seq} cannot be read (line {line}, column {column}); they may be of a later version"
        ))
    })
}

/// A record, read.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Entry {
    /// Its number.
    pub seq: u64,
    /// When it was appended, by the writer's clock.
    pub at: UnixTime,
    /// What it says.
    pub what: What,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum What {
    /// Something happened to the run.
    Event(Event),
    /// A call is about to be made.
    Effect(Announced),
    /// A note on the run.
    Note(Note),
    /// The run was forked here from another.
    Forked(Forked),
    /// The whole state; so many bytes.
    Snapshot {
        /// Its size.
        bytes: usize,
    },
}

impl What {
    /// The word for it in listings.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Event(event) => event.name(),
            Self::Effect(Announced::Model { .. }) => "call_model",
            Self::Effect(Announced::Tool { .. }) => "call_tool",
            Self::Effect(Announced::Approval { .. }) => "ask_person",
            Self::Effect(Announced::LoadMemory) => "load_memory",
            Self::Effect(Announced::SaveMemory { .. }) => "save_memory",
            Self::Note(Note::Begun { .. }) => "begun",
            Self::Note(Note::Spent { .. }) => "spent",
            Self::Note(Note::Unread { .. }) => "unread",
            Self::Note(Note::Amended { .. }) => "amended",
            Self::Note(Note::Finished(_)) => "finished",
            Self::Forked(_) => "forked",
            Self::Snapshot { .. } => "snapshot",
        }
    }
}

impl Entry {
    /// Reads a record of an agent's journal.
    ///
    /// # Errors
    ///
    /// [`StoreError::Decode`] for what is no such record, [`StoreError::Unsupported`] for a later version.
    pub fn read(record: &Record) -> Result<Self, StoreError> {
        let what = match (record.kind, record.schema) {
            (Kind::Event, SCHEMA) => What::Event(record.decode()?),
            (Kind::Effect, SCHEMA) => What::Effect(record.decode()?),
            (Kind::Snapshot, SCHEMA) => What::Snapshot {
                bytes: record.payload.len(),
            },
            (Kind::Marker, Forked::SCHEMA) => What::Forked(record.decode()?),
            (Kind::Marker, NOTE_SCHEMA) => What::Note(record.decode()?),
            (kind, found) => {
                return Err(StoreError::Unsupported {
                    what: match kind {
                        Kind::Marker => "the schema of a note",
                        Kind::Event | Kind::Effect | Kind::Snapshot => "the schema of a record",
                        _ => "the kind of a record, with schema",
                    },
                    found,
                    known: match kind {
                        Kind::Marker => NOTE_SCHEMA,
                        _ => SCHEMA,
                    },
                });
            }
        };
        Ok(Self {
            seq: record.seq,
            at: record.at,
            what,
        })
    }
}
