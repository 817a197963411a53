//! What a driver does for each effect that takes time: it makes an operation of it.

use std::sync::Arc;

use futures_util::stream;
use peregrine_core::{
    ChatModel as _, ChatResponse, Cost, Effect as ToolEffect, ErrorKind, Message, Messages,
};
use peregrine_interrupts::{Kind, Unit};
use peregrine_signatures::Contract;
use peregrine_tools::{Canceller, Reason};

use super::Driver;
use super::check::check;
use super::model::{self, ModelOp};
use super::ops::Done;
use super::stop::Below;
use super::tool::{AskOp, ToolOp};
use crate::event::RunEvent;
use crate::forms;
use crate::interrupts::ToolInterrupts;
use crate::memory::MemoryContext;
use crate::output::AbandonedKind;
use crate::run::{CallId, Event, Failure, Form, ModelCall, ToolTask, Verdict};

impl Driver {
    fn contract(&self, form: Form, model: u32, has_tools: bool) -> Option<Contract> {
        let signature = match form {
            Form::Text => return None,
            Form::Answer => Arc::clone(self.signature.as_ref()?),
            Form::Plan => Arc::clone(forms::plan()),
            Form::Critique => Arc::clone(forms::critique()),
        };
        let model = self.inner.models.get(model as usize)?;
        Some(Contract::for_model(
            signature,
            model.info().capabilities(),
            has_tools,
        ))
    }

    pub(super) fn call_model(&mut self, asked: ModelCall) {
        let ModelCall {
            call,
            thread,
            turn,
            model,
            form,
            mut request,
            head,
            is_cut,
        } = asked;
        let Some(handle) = self.inner.models.get(model as usize).cloned() else {
            let failure = Failure::new(
                ErrorKind::Config,
                "the run asks for a model that the agent does not have",
            );
            return self.feed(Event::ModelAnswered {
                call,
                outcome: Err(failure),
                cost: Cost::Unpriced,
            });
        };
        self.turns.insert(thread, turn);
        let ends = self.open.insert(thread, turn).filter(|open| *open < turn);
        self.tell_of_model(thread, turn, model);
        let has_tools = !request.tools.is_empty();
        let contract = self.contract(form, model, has_tools);
        if let Some(contract) = &contract {
            if model > 0 {
                say_the_form(&mut request.messages, head, contract);
            }
            request = match contract.apply(request) {
                Ok(request) => request,
                Err(error) => {
                    let failure = Failure::new(ErrorKind::Config, error.to_string());
                    self.signature_errors
                        .insert(thread, (failure.message.clone(), error));
                    return self.feed(Event::ModelAnswered {
                        call,
                        outcome: Err(failure),
                        cost: Cost::Unpriced,
                    });
                }
            };
        }
        let budget = self.budget.clone().map(|budget| {
            let estimate = self.sizes.estimate(
                thread,
                is_cut,
                &request,
                handle.info(),
                self.inner.prices.as_deref(),
            );
            (budget, estimate)
        });
        self.charge(&Unit::MODEL_CALLS, 1);
        let below = Below::model(self.scope_below(Kind::ModelCall, || handle.info().to_string().into()));
        let op = ModelOp {
            call,
            thread,
            model: handle,
            request,
            contract: contract.filter(|_| self.streaming),
            hooks: self.hooks.as_ref().map(|hooks| hooks.at(thread, turn)),
            ends,
            budget,
            prices: self.inner.prices.clone(),
        };
        let operation = match self.streaming {
            true => op.stream(),
            false => op.complete(),
        };
        self.ops.push(Some(call), thread, operation, below);
    }

    fn tell_of_model(&mut self, thread: u32, turn: u32, model: u32) {
        if !self.streaming {
            return;
        }
        let name = |place: u32| match self.inner.models.get(place as usize) {
            Some(model) => model.info().to_string(),
            None => String::new(),
        };
        if let Some((before, problem)) = self.asked.insert(thread, (model, None))
            && before != model
        {
            self.out.push_back(RunEvent::Fallback {
                thread,
                failed: name(before),
                problem: problem.unwrap_or_default(),
            });
        }
        self.out.push_back(RunEvent::Turn {
            thread,
            turn,
            model: name(model),
        });
    }

    pub(super) fn check(&mut self, call: CallId, thread: u32, form: Form, response: &ChatResponse) {
        let model = self.run.model_of(thread);
        let has_tools = self.run.has_tools(thread);
        let read = self.reads.remove(&thread);
        let Some(contract) = self.contract(form, model, has_tools) else {
            // A typed run that goes on as an untyped one.
            let text = "the run needs its signature; go on with it by `resume_as`".to_owned();
            return self.feed(Event::AnswerChecked {
                call,
                verdict: Verdict::Declined { text },
            });
        };
        let checked = check(&contract, response, read);
        if let Some((known_by, error)) = known_by(&checked.verdict).zip(checked.error) {
            self.signature_errors.insert(thread, (known_by.to_owned(), error));
        }
        if self.streaming && form == Form::Answer {
            let told = checked.told.into_iter().map(|told| model::field(thread, told));
            self.out.extend(told);
        }
        self.feed(Event::AnswerChecked {
            call,
            verdict: checked.verdict,
        });
    }

    pub(super) fn tool_started(&mut self, task: &ToolTask) {
        self.tell(|| RunEvent::ToolStart {
            thread: task.thread,
            call_id: task.tool_call.id.clone(),
            name: task.tool_call.name.clone(),
            arguments: task.tool_call.arguments.clone(),
        });
    }

    pub(super) fn call_tool(&mut self, task: ToolTask) {
        self.tool_started(&task);
        let canceller = Canceller::new();
        let (call, thread) = (task.call, task.thread);
        let decision = self
            .inner
            .allowance
            .decide_name(&self.inner.registry, &task.tool_call.name);
        let turn = self.turns.get(&thread).copied().unwrap_or_default();
        self.tools.insert(call, task.clone());
        self.charge(&Unit::TOOL_CALLS, 1);
        let interrupts = self
            .scope_below(Kind::Tool, || task.tool_call.name.clone().into())
            .map(ToolInterrupts::new);
        let tool = self.inner.registry.get(&task.tool_call.name);
        let has_effect = tool.is_some_and(|tool| tool.info().effect() == ToolEffect::SideEffect);
        let below = Below::tool(canceller.clone(), interrupts.as_ref(), has_effect);
        let is_denied = decision.reason == Reason::DeniedByName;
        let op = ToolOp {
            is_denied,
            // Found out by the registry, which knows what there is.
            allowed: match self.inner.registry.get(&task.tool_call.name) {
                Some(_) => decision.into_result(),
                None => Ok(()),
            },
            task,
            registry: self.inner.registry.clone(),
            hooks: self.hooks.as_ref().map(|hooks| hooks.at(thread, turn)),
            budget: self.budget.clone(),
            timer: self.inner.timer.clone(),
            run: self.run_id,
            scope: self.scope.clone(),
            interrupts,
            canceller,
        };
        self.ops.push(Some(call), thread, op.call(), below);
    }

    pub(super) fn ask_person(&mut self, task: ToolTask) {
        let (call, thread) = (task.call, task.thread);
        self.tell(|| RunEvent::ApprovalAsked {
            thread,
            call_id: task.tool_call.id.clone(),
            name: task.tool_call.name.clone(),
        });
        self.tools.insert(call, task.clone());
        let op = AskOp {
            task,
            registry: self.inner.registry.clone(),
            approver: self.inner.approver.clone(),
            run: self.run_id,
            scope: self.scope.clone(),
        };
        let below = Below::other(AbandonedKind::Approver, false);
        self.ops.push(Some(call), thread, op.ask(), below);
    }

    fn memory_context(&self) -> MemoryContext {
        MemoryContext {
            run: self.run_id,
            scope: self.scope.clone(),
        }
    }

    pub(super) fn load_memory(&mut self) {
        let (context, memory) = (self.memory_context(), self.inner.memory.clone());
        let input = self.run.input().to_vec();
        let loaded = async move {
            let outcome = match memory {
                Some(memory) => memory
                    .load(&context, &input)
                    .await
                    .map_err(|error| Failure::from(&error)),
                None => Err(Failure::new(
                    ErrorKind::Config,
                    "the run needs a memory that the agent does not have",
                )),
            };
            Done::of(Event::MemoryLoaded { outcome })
        };
        let below = Below::other(AbandonedKind::Memory, false);
        self.ops.push(None, 0, Box::pin(stream::once(loaded)), below);
    }

    pub(super) fn save_memory(&mut self, messages: Vec<Arc<Message>>) {
        let (context, memory) = (self.memory_context(), self.inner.memory.clone());
        let saved = async move {
            let failure = match memory {
                Some(memory) => memory
                    .save(&context, &messages)
                    .await
                    .err()
                    .map(|error| Failure::from(&error)),
                None => Some(Failure::new(
                    ErrorKind::Config,
                    "the run needs a memory that the agent does not have",
                )),
            };
            Done::of(Event::MemorySaved { failure })
        };
        let below = Below::other(AbandonedKind::Memory, true);
        self.ops.push(None, 0, Box::pin(stream::once(saved)), below);
    }
}

/// The text by which a run knows an answer that was turned down.
fn known_by(verdict: &Verdict) -> Option<&str> {
    match verdict {
        Verdict::Rejected { problem, .. } => Some(problem),
        Verdict::Declined { text } => Some(text),
        Verdict::Accepted { .. } => None,
    }
}

/// A model that is held to the form in another way than the first must be told so in another way.
fn say_the_form(messages: &mut Messages, head: u32, contract: &Contract) {
    let place = (head as usize).saturating_sub(1);
    if messages
        .get(place)
        .is_none_or(|message| *message == **contract.system())
    {
        return;
    }
    let said = messages
        .iter()
        .enumerate()
        .map(|(at, message)| match at == place {
            true => (**contract.system()).clone(),
            false => message.clone(),
        });
    *messages = said.collect();
}
