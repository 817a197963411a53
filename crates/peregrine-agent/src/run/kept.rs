//! What those need to know of a run who keep it: what was under way when nobody works on it any more.

use std::sync::Arc;

use peregrine_core::Effect as ToolEffect;
#[cfg(feature = "checkpoints")]
use peregrine_core::{RunId, ToolCall};

use crate::run::thread::{State, Thread};
use crate::run::turn::SlotState;
use crate::run::{CallId, Event, Run, Stray, ToolTask};
#[cfg(feature = "checkpoints")]
use crate::run::{Interrupt, InterruptSource};

impl Run {
    /// Calls that were asked for were never begun.
    pub(super) fn not_begun(&mut self, calls: Vec<CallId>) -> Result<(), Stray> {
        let mut any = false;
        for call in &calls {
            any |= self.not_made(*call) || self.threads.iter_mut().any(|thread| thread.never_ran(*call));
        }
        match any {
            true => Ok(()),
            false => Err(Stray {
                event: Box::new(Event::NotBegun { calls }),
                reason: super::NOT_ASKED,
            }),
        }
    }

    /// The calls to models and of tools that are taken for begun.
    #[cfg(feature = "checkpoints")]
    pub(crate) fn begun(&self) -> Vec<CallId> {
        self.threads.iter().flat_map(Thread::begun).collect()
    }

    /// The threads that wait for a model, and their calls.
    #[cfg(feature = "checkpoints")]
    pub(crate) fn awaits_models(&self) -> impl Iterator<Item = (u32, CallId)> {
        (0..)
            .zip(&self.threads)
            .filter_map(|(place, thread)| match thread.state {
                State::AwaitsModel { call } => Some((place, call)),
                _ => None,
            })
    }

    /// What a model asked for by a call of a tool, while the turn lasts.
    #[cfg(feature = "checkpoints")]
    pub(crate) fn tool_call(&self, call: CallId) -> Option<&ToolCall> {
        self.threads.iter().find_map(|thread| thread.tool_call(call))
    }

    /// The calls of tools with side effects that were begun and have no result: while nobody works on the run, nobody
    /// knows whether they were carried out.
    pub fn in_doubt(&self) -> Vec<ToolTask> {
        (0..)
            .zip(&self.threads)
            .flat_map(|(place, thread)| thread.in_doubt(place))
            .collect()
    }

    #[cfg(feature = "checkpoints")]
    pub(crate) fn take_id(&mut self) -> Option<RunId> {
        self.id.take()
    }

    #[cfg(feature = "checkpoints")]
    pub(crate) fn give_id(&mut self, id: Option<RunId>) {
        self.id = id;
    }
}

#[cfg(feature = "checkpoints")]
impl Interrupt {
    /// That of a run whose process ended in the middle of it.
    pub(crate) fn of_end() -> Self {
        Self::immediate("the process that worked on it ended").with_source(InterruptSource::Other)
    }
}

impl Thread {
    /// The calls to models and of tools that are taken for begun.
    #[cfg(feature = "checkpoints")]
    pub(crate) fn begun(&self) -> impl Iterator<Item = CallId> {
        let (single, slots) = match &self.state {
            State::AwaitsModel { call } => (Some(*call), &[][..]),
            State::Tools(turn) => (None, turn.slots.as_slice()),
            _ => (None, &[][..]),
        };
        let running = slots.iter().filter(|slot| slot.state == SlotState::Running);
        single.into_iter().chain(running.map(|slot| slot.call))
    }

    /// What the model asked for by a call of this turn.
    #[cfg(feature = "checkpoints")]
    pub(crate) fn tool_call(&self, call: CallId) -> Option<&ToolCall> {
        match &self.state {
            State::Tools(turn) => {
                let slot = turn.slots.iter().find(|slot| slot.call == call);
                slot.map(|slot| &*slot.tool_call)
            }
            _ => None,
        }
    }

    /// The calls with side effects that were begun and have no result.
    pub(crate) fn in_doubt(&self, place: u32) -> impl Iterator<Item = ToolTask> {
        let slots = match &self.state {
            State::Tools(turn) => turn.slots.as_slice(),
            _ => &[],
        };
        let doubtful = slots.iter().filter(|slot| {
            slot.effect == ToolEffect::SideEffect
                && matches!(slot.state, SlotState::Running | SlotState::Unknown)
        });
        doubtful.map(move |slot| ToolTask {
            call: slot.call,
            thread: place,
            tool_call: Arc::clone(&slot.tool_call),
            approved: slot.is_approved,
        })
    }
}
