//! The calls of tools of one answer: what became of each, and which of them may run side by side.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use peregrine_core::{Effect as ToolEffect, Finish, Message, Part, ToolCall, ToolResult};
use serde::{Deserialize, Serialize};

use crate::run::CallId;
use crate::run::compose::sorted;

/// The tools that one answer calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ToolTurn {
    pub(crate) slots: Vec<Slot>,
    /// Those that may run now.
    pub(crate) batch: Range<u32>,
    /// Whether they were counted against the run's bounds.
    pub(crate) is_admitted: bool,
    /// Whether more may come: it is over when whoever opened it says so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_open: bool,
}

/// One call of a tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Slot {
    pub(crate) call: CallId,
    pub(crate) tool_call: Arc<ToolCall>,
    pub(crate) effect: ToolEffect,
    /// Whether a person allowed it.
    pub(crate) is_approved: bool,
    pub(crate) state: SlotState,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SlotState {
    /// A person is to be asked first.
    NeedsApproval,
    AwaitsApproval,
    Ready,
    Running,
    /// It was begun and gave no result.
    Unknown,
    Done(ToolResult),
}

impl ToolTurn {
    /// A turn to which calls are added one by one, each counted when it is.
    pub(crate) fn open() -> Self {
        Self {
            slots: Vec::new(),
            batch: 0..0,
            is_admitted: true,
            is_open: true,
        }
    }

    /// The slots of the batch that may run now.
    pub(crate) fn current(&self) -> &[Slot] {
        self.slots
            .get(self.batch.start as usize..self.batch.end as usize)
            .unwrap_or_default()
    }

    pub(crate) fn current_mut(&mut self) -> &mut [Slot] {
        self.slots
            .get_mut(self.batch.start as usize..self.batch.end as usize)
            .unwrap_or_default()
    }
}

impl Slot {
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.state, SlotState::Done(_))
    }

    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.state, SlotState::Ready | SlotState::NeedsApproval)
    }

    /// The same for arguments that mean the same.
    fn comparable_arguments(&self) -> String {
        match self.tool_call.parse_arguments() {
            Ok(arguments) => sorted(&arguments).to_string(),
            Err(_) => self.tool_call.arguments.clone(),
        }
    }
}

/// Calls that may run side by side: the rule of [`peregrine_tools::batches`], by the declared effects. Each call is looked
/// at once, however many there are and however long their arguments.
#[derive(Default)]
pub(crate) struct Batch {
    effect: Option<ToolEffect>,
    /// Of idempotent calls: the same twice would be done twice at the same time.
    calls: BTreeSet<(String, String)>,
}

impl Batch {
    /// Takes a call in, if it may run beside those before it.
    pub(crate) fn takes(&mut self, slot: &Slot) -> bool {
        let joins = match self.effect {
            None => true,
            Some(ToolEffect::SideEffect) => false,
            Some(effect) => effect == slot.effect,
        };
        if !joins {
            return false;
        }
        self.effect = Some(slot.effect);
        slot.effect != ToolEffect::Idempotent
            || self
                .calls
                .insert((slot.tool_call.name.clone(), slot.comparable_arguments()))
    }
}

/// Whether an answer ended where the arguments of its last call should be. Then the call says nothing, which is not the
/// same as that it is to be made without arguments.
pub(crate) fn is_cut_off(finish: &Finish, last: &ToolCall) -> bool {
    matches!(finish, Finish::Length | Finish::ContentFilter) && last.arguments.trim().is_empty()
}

/// Gives each call of an answer an id of its own: providers refuse conversations in which two calls share one.
pub(crate) fn tell_apart(message: &mut Message) {
    if message.tool_calls().nth(1).is_none() {
        return;
    }
    let mut known: BTreeSet<String> = BTreeSet::new();
    for part in &mut message.parts {
        let Part::ToolCall(call) = part else { continue };
        let mut number = known.len();
        while !known.insert(call.id.clone()) {
            number += 1;
            call.id = format!("{}-{number}", call.id);
        }
    }
}
