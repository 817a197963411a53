//! Changes to a run from outside of its events: what a fork does differently from the run it was forked from.
//!
//! Nothing is asked for here. A changed run is stopped and resumed, and asks for what it needs then.

use std::sync::Arc;

use peregrine_core::{Message, Messages, Part, Role, ToolResult};

use crate::durable::fork::Change;
use crate::run::compose::Stage;
use crate::run::effect::Form;
use crate::run::thread::{State, Thread};
use crate::run::turn::SlotState;
use crate::run::{Phase, Run};
use crate::window::WindowState;

impl Run {
    /// Makes a change, or says why it makes no sense here.
    pub(crate) fn amend(&mut self, change: Change) -> Result<(), String> {
        if self.phase == Phase::Over || self.ending.is_some() {
            return Err("the run has its end there already; share fewer of its records".to_owned());
        }
        match change {
            Change::Instructions { head } => self.instruct(head),
            Change::Models { models, first } => {
                Arc::make_mut(&mut self.spec).models = models;
                for thread in &mut self.threads {
                    let model = first.unwrap_or(thread.model);
                    thread.model = model.min(models.saturating_sub(1));
                }
            }
            Change::ToolResult { call_id, result } => return self.replace_result(&call_id, &result),
            Change::Limits { limits } => {
                Arc::make_mut(&mut self.spec).limits = limits;
                self.limits = limits;
            }
            Change::Input { input } => return self.replace_input(input),
        }
        Ok(())
    }

    fn instruct(&mut self, head: Vec<Message>) {
        let spec = Arc::make_mut(&mut self.spec);
        let mut new: Vec<Arc<Message>> = head.into_iter().map(Arc::new).collect();
        // What says the form of the answer stays.
        if spec.form == Form::Answer {
            new.extend(spec.head.last().cloned());
        }
        let old = std::mem::replace(&mut spec.head, new);
        let new = &spec.head;
        for thread in &mut self.threads {
            thread.replace_head(&old, new);
        }
        let (old, new) = (length(old.len()), length(new.len()));
        if self.before != u32::MAX && !self.threads.is_empty() {
            self.before = self.before.saturating_sub(old).saturating_add(new);
        }
    }

    fn replace_result(&mut self, call_id: &str, result: &ToolResult) -> Result<(), String> {
        for thread in &mut self.threads {
            if let Some(bytes) = thread.replace_result(call_id, result) {
                self.counts.tool_output_bytes = self.counts.tool_output_bytes.saturating_add(bytes);
                return Ok(());
            }
        }
        Err(format!(
            "there is no call `{call_id}` there whose result no model has seen yet; share the records up to its result"
        ))
    }

    fn replace_input(&mut self, input: Vec<Message>) -> Result<(), String> {
        if input.is_empty() {
            return Err("the input has no messages".to_owned());
        }
        if let Phase::New | Phase::Loading { .. } = self.phase {
            self.input = input.into_iter().map(Arc::new).collect();
            return Ok(());
        }
        if !self.threads.iter().all(Thread::is_unanswered) {
            return Err("a model has answered there already; share fewer of its records".to_owned());
        }
        let head = self.spec.head.len();
        let remembered: Vec<Arc<Message>> = match self.threads.first() {
            Some(main) => (head..self.before as usize)
                .filter_map(|place| main.messages.get(place).cloned().map(Arc::new))
                .collect(),
            None => Vec::new(),
        };
        self.input = input.into_iter().map(Arc::new).collect();
        self.threads.clear();
        self.stage = Stage::Single;
        self.counts.steps = 0;
        self.begin(remembered);
        Ok(())
    }
}

impl Thread {
    /// Whether no model has answered in it.
    fn is_unanswered(&self) -> bool {
        match self.state {
            State::NeedsModel | State::AwaitsModel { .. } => self.turns <= 1 && self.repairs == 0,
            State::Abandoned { call: None } => self.turns == 0,
            _ => false,
        }
    }

    fn replace_head(&mut self, old: &[Arc<Message>], new: &[Arc<Message>]) {
        let is_it = self.head as usize == old.len()
            && (0..old.len()).all(|place| self.messages.get(place) == Some(&*old[place]));
        if !is_it {
            return;
        }
        let rest =
            (old.len()..self.messages.len()).filter_map(|place| self.messages.get_shared(place).cloned());
        self.messages = new.iter().cloned().chain(rest).collect();
        self.head = length(new.len());
        // Its places are others now.
        self.window = WindowState::new();
    }

    /// Gives a call another result, or its first, unless a model has seen the one it had. The bytes of the result.
    fn replace_result(&mut self, call_id: &str, result: &ToolResult) -> Option<u64> {
        if let State::Tools(turn) = &mut self.state {
            let slot = turn.slots.iter_mut().find(|slot| slot.tool_call.id == call_id)?;
            let call = slot.call;
            slot.state = SlotState::Running;
            return Some(self.returned(call, result.clone()));
        }
        if !matches!(self.state, State::NeedsModel | State::AwaitsModel { .. }) {
            return None;
        }
        let unseen = self
            .messages
            .iter()
            .rev()
            .take_while(|message| message.role == Role::Tool);
        let first = self.messages.len() - unseen.count();
        let place = (first..self.messages.len()).find(|place| {
            let parts = self.messages.get(*place).map(|message| message.parts.as_slice());
            let mut results = parts.unwrap_or_default().iter();
            results.any(|part| matches!(part, Part::ToolResult(known) if known.call_id == call_id))
        })?;
        let mut changed = self.messages.get(place)?.clone();
        for part in &mut changed.parts {
            if let Part::ToolResult(known) = part
                && known.call_id == call_id
            {
                let mut result = result.clone();
                result.call_id.clone_from(&known.call_id);
                result.name.clone_from(&known.name);
                *known = result;
            }
        }
        let changed = Arc::new(changed);
        let messages: Messages = (0..self.messages.len())
            .filter_map(|at| match at == place {
                true => Some(Arc::clone(&changed)),
                false => self.messages.get_shared(at).cloned(),
            })
            .collect();
        self.messages = messages;
        Some(0)
    }
}

fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
