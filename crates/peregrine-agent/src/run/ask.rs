//! The second half of handling an event: asking for whatever the state needs and is not asked for yet.

use std::sync::Arc;

use peregrine_core::{ChatRequest, Message, Messages};
use peregrine_signatures::ANSWER_TOOL;

use crate::budget::{LimitReached, Resource};
use crate::run::thread::{Need, State, Thread};
use crate::run::turn::SlotState;
use crate::run::{CallId, Effect, End, ModelCall, Phase, Run, ToolTask};

impl Run {
    /// Asks for everything that is needed and not asked for yet.
    pub(super) fn ask(&mut self, effects: &mut Vec<Effect>) {
        // One that is told to stop before it begins takes its input first: with that it can go on.
        if self.paused.is_some() || (self.phase == Phase::New && self.ending.is_none()) {
            return;
        }
        if self.stopping.is_none() && self.ending.is_none() {
            match &mut self.phase {
                Phase::Loading { asked } => {
                    if !std::mem::replace(asked, true) {
                        effects.push(Effect::LoadMemory);
                    }
                    return;
                }
                Phase::Working => self.ask_threads(effects),
                Phase::New | Phase::Saving { .. } | Phase::Over => {}
            }
        }
        if self.stopping.is_some() && self.ending.is_none() && self.phase == Phase::Working {
            self.finish_threads(effects);
        }
        // Whoever does not wait for the memory either stops, and tells it when the run goes on.
        let leaves_memory = self.is_cut_short && self.is_saving() && self.stopping.is_some();
        if self.ending.is_some() && !leaves_memory {
            self.ask_to_end(effects);
        } else if self.stopping.is_some() {
            self.ask_to_stop(effects);
        }
    }

    /// The strategy and its threads, until all of them wait for something.
    fn ask_threads(&mut self, effects: &mut Vec<Effect>) {
        loop {
            self.go_on_with_strategy(effects);
            if self.stopping.is_some() || self.ending.is_some() {
                return;
            }
            for place in 0..self.threads.len() {
                if let Err(end) = self.ask_thread(place, effects) {
                    self.end(end);
                }
                if self.stopping.is_some() || self.ending.is_some() {
                    return;
                }
            }
            // A tool that does not exist has its result at once, and then the thread needs its next step.
            let nothing = self.threads.iter().all(|thread| thread.needs() == Need::Nothing);
            if nothing {
                return;
            }
        }
    }

    /// While the run stops: what needs nobody outside is done, so that an answer that is there still ends the run.
    fn finish_threads(&mut self, effects: &mut Vec<Effect>) {
        if self.is_cut_short {
            return;
        }
        self.go_on_with_strategy(effects);
        for place in 0..self.threads.len() {
            let needs = self.threads.get(place).map(Thread::needs);
            if self.ending.is_none() && matches!(needs, Some(Need::Check(_))) {
                // A check reaches no bound.
                let _ = self.ask_thread(place, effects);
            }
        }
    }

    fn ask_thread(&mut self, place: usize, effects: &mut Vec<Effect>) -> Result<(), End> {
        let Some(thread) = self.threads.get_mut(place) else {
            return Ok(());
        };
        let number = u32::try_from(place).unwrap_or(u32::MAX);
        match thread.needs() {
            Need::Nothing => {}
            Need::Model => {
                if self.counts.steps >= self.limits.max_steps {
                    let steps = u64::from(self.limits.max_steps);
                    self.reach(self.bound(Resource::Steps, steps, u64::from(self.counts.steps), 1));
                    return Ok(());
                }
                let view = thread
                    .window
                    .apply(&self.spec.window, &thread.messages)
                    .map_err(|too_small| End::WindowTooSmall { too_small })?;
                let call = CallId(self.next_call);
                self.next_call = self.next_call.saturating_add(1);
                self.counts.steps += 1;
                thread.turns = thread.turns.saturating_add(1);
                thread.state = State::AwaitsModel { call };
                effects.push(Effect::CallModel(Box::new(ModelCall {
                    call,
                    thread: number,
                    turn: thread.turns,
                    model: thread.model,
                    form: thread.form,
                    request: request(&self.spec.template, view.messages, thread),
                    head: thread.head,
                    is_cut: view.cut.is_some(),
                })));
            }
            Need::Check(response) => {
                let call = CallId(self.next_call);
                self.next_call = self.next_call.saturating_add(1);
                thread.state = State::AwaitsCheck {
                    call,
                    response: Arc::clone(&response),
                };
                effects.push(Effect::CheckAnswer {
                    call,
                    thread: number,
                    form: thread.form,
                    response,
                });
            }
            Need::Tools => {
                if let Some(limit) = self.admit_tools(place) {
                    self.reach(limit);
                    return Ok(());
                }
                self.begin_tools(place, effects);
                if let Some(Thread {
                    state: State::Tools(turn),
                    ..
                }) = self.threads.get_mut(place)
                {
                    for slot in turn.current_mut() {
                        let task = ToolTask {
                            call: slot.call,
                            thread: number,
                            tool_call: Arc::clone(&slot.tool_call),
                            approved: slot.is_approved,
                        };
                        match slot.state {
                            SlotState::Ready => {
                                slot.state = SlotState::Running;
                                effects.push(Effect::CallTool(task));
                            }
                            SlotState::NeedsApproval => {
                                slot.state = SlotState::AwaitsApproval;
                                effects.push(Effect::AskPerson(task));
                            }
                            _ => {}
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Counts the tools of an answer, all at once and before the first of them runs; the bound that they would break.
    fn admit_tools(&mut self, place: usize) -> Option<LimitReached> {
        let State::Tools(turn) = &self.threads.get(place)?.state else {
            return None;
        };
        if turn.is_admitted {
            return None;
        }
        let calls = u32::try_from(turn.slots.len()).unwrap_or(u32::MAX);
        if self.counts.steps >= self.limits.max_steps {
            // Nobody would hear of the results.
            let steps = u64::from(self.limits.max_steps);
            return Some(self.bound(Resource::Steps, steps, u64::from(self.counts.steps), 1));
        }
        let sum = self.counts.tool_calls.saturating_add(calls);
        if sum > self.limits.max_tool_calls {
            let limit = u64::from(self.limits.max_tool_calls);
            let used = u64::from(self.counts.tool_calls);
            return Some(self.bound(Resource::ToolCalls, limit, used, u64::from(calls)));
        }
        self.counts.tool_calls = sum;
        None
    }

    /// Tells what of a turn's tools has its result already, and finds the first that may run.
    fn begin_tools(&mut self, place: usize, effects: &mut Vec<Effect>) {
        let Some(thread) = self.threads.get_mut(place) else {
            return;
        };
        if let State::Tools(turn) = &mut thread.state
            && !turn.is_admitted
        {
            turn.is_admitted = true;
            for slot in &turn.slots {
                if let SlotState::Done(result) = &slot.state
                    && slot.tool_call.name != ANSWER_TOOL
                {
                    effects.push(Effect::RejectTool {
                        task: ToolTask {
                            call: slot.call,
                            thread: u32::try_from(place).unwrap_or(u32::MAX),
                            tool_call: Arc::clone(&slot.tool_call),
                            approved: false,
                        },
                        result: result.clone(),
                    });
                }
            }
            thread.go_on_with_tools();
        }
    }

    fn ask_to_end(&mut self, effects: &mut Vec<Effect>) {
        let calls: Vec<CallId> = self.threads.iter_mut().flat_map(Thread::abandon).collect();
        if !calls.is_empty() {
            effects.push(Effect::Cancel { calls });
        }
        if let Phase::Saving { asked: true } = self.phase {
            return;
        }
        let is_completed = matches!(self.ending, Some(End::Completed { .. }));
        if is_completed && self.spec.has_memory && self.before != u32::MAX {
            let messages = self.new_messages();
            self.phase = Phase::Saving { asked: true };
            effects.push(Effect::SaveMemory { messages });
            return;
        }
        if let Some(end) = self.final_end() {
            self.phase = Phase::Over;
            effects.push(Effect::Finish { end });
        }
    }

    fn ask_to_stop(&mut self, effects: &mut Vec<Effect>) {
        // Nobody waits for a person here: they are asked again when the run goes on.
        let is_busy = self.threads.iter().any(Thread::is_busy)
            || matches!(
                self.phase,
                Phase::Loading { asked: true } | Phase::Saving { asked: true }
            );
        if is_busy && !self.is_cut_short {
            return;
        }
        if let Some(stop) = self.stopping.take() {
            let asked: Vec<CallId> = self.threads.iter().flat_map(Thread::outstanding).collect();
            if !self.is_cut_short && !asked.is_empty() {
                effects.push(Effect::Cancel { calls: asked });
            }
            self.paused = Some(stop.clone());
            effects.push(Effect::Pause { stop });
        }
    }

    fn new_messages(&self) -> Vec<Arc<Message>> {
        let Some(main) = self.threads.first() else {
            return Vec::new();
        };
        (self.before as usize..main.messages.len())
            .filter_map(|place| main.messages.get_shared(place).cloned())
            .collect()
    }
}

fn request(template: &ChatRequest, messages: Messages, thread: &Thread) -> ChatRequest {
    let mut request = ChatRequest {
        messages,
        ..template.clone()
    };
    if !thread.has_tools {
        request.tools = Arc::from([]);
        request.tool_choice = peregrine_core::ToolChoice::Auto;
    }
    if let Some(seed) = &mut request.sampling.seed {
        *seed = seed.wrapping_add(thread.seed.into());
    }
    request
}
