//! The driver: performs what a run asks for, and tells it what came of that.
//!
//! All I/O of an agent is here and below. Nothing is spawned: what is under way lives in the driver and is polled with it, so
//! dropping the driver stops everything, and `next` is cancel safe.

mod begin;
mod budgets;
pub(crate) mod check;
mod end;
mod few;
#[cfg(feature = "checkpoints")]
mod journal;
mod model;
mod near;
mod ops;
mod start;
mod stop;
#[cfg(feature = "checkpoints")]
mod taken_up;
mod tool;
#[cfg(not(feature = "checkpoints"))]
mod unjournalled;

use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use peregrine_core::{Error as ModelError, ErrorKind, RunId, Scope, ToolCall, ToolResult};
use peregrine_signatures::{Compiled, Error as SignatureError, Signature};
use peregrine_tools::Cancelled;

use crate::agent::Inner;
use crate::budget::{Budget, LimitReached};
use crate::error::{Error, RunError};
use crate::event::RunEvent;
use crate::hooks::BoundHooks;
use crate::output::{CalledTool, RunOutput, RunReport, TypedOutput};
use crate::run::{
    Approval, CallId, Effect, End, Event, Failure, Interrupt, Run, Stop, ToolOutcome, ToolTask,
};
use budgets::Sizes;
pub(crate) use end::typed;
use few::Few;
#[cfg(feature = "checkpoints")]
use journal::Log;
use near::Near;
use ops::{Done, MAX_OPS, Ops, Outcome, Read, Told};
#[cfg(feature = "checkpoints")]
pub(crate) use start::{Resuming, new_run_id};
pub(crate) use start::{Setup, Start, run_id};
use stop::{News, Stop as Stopping};
#[cfg(not(feature = "checkpoints"))]
use unjournalled::Log;

/// A run, and all that is under way for it.
pub(crate) struct Driver {
    inner: Arc<Inner>,
    /// The form of the answer, if it has one.
    signature: Option<Arc<Compiled>>,
    run: Run,
    run_id: RunId,
    scope: Option<Scope>,
    streaming: bool,
    todo: VecDeque<Effect>,
    ops: Ops,
    out: VecDeque<RunEvent>,
    budget: Option<Budget>,
    sizes: Sizes,
    deadline: Option<(Sleep, LimitReached)>,
    near: Near,
    cancelled: Option<Cancelled>,
    stop: Option<Box<Stopping>>,
    hooks: Option<BoundHooks>,
    /// What was read of the answers that wait to be checked, by thread.
    reads: BTreeMap<u32, Read>,
    /// The tools that are under way.
    tools: Few<CallId, ToolTask>,
    /// The tools that returned, for the report. The lower id was asked for before.
    called: BTreeMap<CallId, CalledTool>,
    /// Which model a thread asked last, and how that failed if it did.
    asked: BTreeMap<u32, (u32, Option<String>)>,
    /// The latest turn of each thread.
    turns: Few<u32, u32>,
    /// The turns that are not over: their tools are under way.
    open: Few<u32, u32>,
    report: RunReport,
    /// The latest error of each thread's models, whole.
    model_errors: BTreeMap<u32, ModelError>,
    /// The latest error of each thread's answers, whole, with the text by which the run knows it.
    signature_errors: BTreeMap<u32, (String, SignatureError)>,
    result: Option<Result<RunOutput, RunError>>,
    is_over: bool,
    /// The journal of a durable run.
    log: Option<Box<Log>>,
}

type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Why the driver woke.
enum Wake {
    Told(u32, Told),
    Late(LimitReached),
    Cancelled,
    Stop(News),
    /// There is nothing to wait for.
    Stuck,
}

impl Driver {
    /// Runs to the end. Once.
    pub(crate) async fn finish(&mut self) -> Result<RunOutput, RunError> {
        while self.next().await.is_some() {}
        self.result()
    }

    /// Runs to the end, once, and makes the answer a type.
    pub(crate) async fn finish_as<S: Signature>(&mut self) -> Result<TypedOutput<S::Output>, RunError> {
        while self.next().await.is_some() {}
        let value = match self.run.ended() {
            Some(End::Completed { value, .. }) => value.clone().unwrap_or_default(),
            _ => serde_json::Map::new(),
        };
        let run = self.result()?;
        typed::<S>(value, run)
    }

    /// How the run ended, after its last event.
    pub(crate) fn take_result(&mut self) -> Option<Result<RunOutput, RunError>> {
        self.result.take()
    }

    /// What was read from the answer, if the run has one in a form.
    pub(crate) fn value(&self) -> Option<&serde_json::Map<String, serde_json::Value>> {
        match self.run.ended() {
            Some(End::Completed { value, .. }) => value.as_ref(),
            _ => None,
        }
    }

    fn result(&mut self) -> Result<RunOutput, RunError> {
        match self.result.take() {
            Some(result) => result,
            // `next` only ends with a result.
            None => Err(RunError::new(
                internal("the run ended without a result"),
                std::mem::replace(&mut self.report, RunReport::new(self.run_id)),
            )),
        }
    }

    /// The next event; `None` at the end, when there is a result.
    pub(crate) async fn next(&mut self) -> Option<RunEvent> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<RunEvent>> {
        self.start_late();
        loop {
            if let Some(event) = self.out.pop_front() {
                return Poll::Ready(Some(event));
            }
            if self.is_over {
                return Poll::Ready(None);
            }
            ready!(self.poll_journal(cx));
            self.perform();
            if self.result.is_some() || !self.out.is_empty() || self.has_unwritten() {
                continue;
            }
            match ready!(self.poll_wake(cx)) {
                Wake::Told(_, Told::Event(event)) => self.out.push_back(event),
                Wake::Told(thread, Told::Done(done)) => self.take(thread, *done),
                Wake::Late(limit) => match self.next_deadline() {
                    // Somebody gave it more.
                    Some((remaining, deadline)) if !remaining.is_zero() => self.deadline = Some(deadline),
                    _ if self.is_between_hooks() => self.end(Err(Error::Limit(limit)), false),
                    _ => {
                        self.deadline = None;
                        self.feed(Event::LimitReached { call: None, limit });
                    }
                },
                Wake::Cancelled => {
                    self.cancelled = None;
                    let interrupt = Interrupt::immediate("it was cancelled");
                    match self.is_between_hooks() {
                        true => self.end(Err(Error::Interrupted(interrupt)), false),
                        false => self.feed(Event::Interrupted { interrupt }),
                    }
                }
                Wake::Stop(news) => self.take_news(news),
                Wake::Stuck => self.end(Err(internal("the run waits for nothing").into()), true),
            }
        }
    }

    /// Whether hooks look at the input, which the run does not have yet, or at its answer, after which it is over. It takes
    /// no event then, and there is nothing of it that could go on.
    fn is_between_hooks(&self) -> bool {
        !self.run.has_begun() || self.run.ended().is_some()
    }

    fn next_deadline(&self) -> Option<(Duration, (Sleep, LimitReached))> {
        let (budget, timer) = self.budget.as_ref().zip(self.inner.timer.as_ref())?;
        let (remaining, limit) = budget.remaining_time(timer.now())?;
        Some((remaining, (timer.sleep(remaining), limit)))
    }

    fn poll_wake(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        if let Poll::Ready(wake) = self.poll_stop(cx) {
            return Poll::Ready(wake);
        }
        if let Some(event) = self.poll_near(cx) {
            return Poll::Ready(Wake::Told(0, Told::Event(event)));
        }
        if let Some(cancelled) = &mut self.cancelled
            && Pin::new(cancelled).poll(cx).is_ready()
        {
            return Poll::Ready(Wake::Cancelled);
        }
        if let Some((sleep, limit)) = &mut self.deadline
            && sleep.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Wake::Late(limit.clone()));
        }
        if self.ops.len() == 0 {
            if self.awaits_journal() {
                return Poll::Pending;
            }
            return Poll::Ready(Wake::Stuck);
        }
        self.ops
            .poll_next(cx)
            .map(|(thread, told)| Wake::Told(thread, told))
    }

    fn tell(&mut self, event: impl FnOnce() -> RunEvent) {
        if self.streaming {
            self.out.push_back(event());
        }
    }

    /// Takes what came of an operation.
    fn take(&mut self, thread: u32, done: Done) {
        let Done {
            outcome,
            error,
            read,
            overshoot,
            unread,
        } = done;
        self.report.overshoot.extend(overshoot);
        if let Some(error) = error {
            self.model_errors.insert(thread, error);
        }
        if let Some((usage, cost)) = unread {
            self.note_unread(usage, cost);
            self.charge_answer(usage, cost);
            self.report.usage = self.report.usage.zip(usage).map(|(sum, usage)| sum + usage);
            self.report.cost = self.report.cost + cost;
        }
        if let Some(read) = read {
            self.reads.insert(thread, read);
        }
        self.look_at_budget();
        match outcome {
            Outcome::AfterRun(Ok(response)) => self.complete(response),
            Outcome::AfterRun(Err(veto)) => self.end(Err(Error::Vetoed(veto)), false),
            Outcome::Event(event) => {
                self.watch(thread, &event);
                self.hear();
                self.feed(event);
            }
        }
    }

    /// Notes what an event says for the report, and for whoever watches.
    fn watch(&mut self, thread: u32, event: &Event) {
        match event {
            Event::ModelAnswered {
                outcome: Ok(response),
                cost,
                ..
            } => {
                self.charge_answer(response.usage, *cost);
                if model::ends_turn(response) {
                    self.open.remove(&thread);
                }
            }
            Event::ModelAnswered {
                outcome: Err(failure),
                ..
            } => {
                if let Some((_, problem)) = self.asked.get_mut(&thread) {
                    *problem = Some(failure.message.clone());
                }
            }
            Event::ToolReturned { call, outcome } => {
                let Some(task) = self.tools.remove(call) else {
                    return;
                };
                let ok = match outcome {
                    ToolOutcome::Returned(result) => {
                        self.tool_ended(thread, &task.tool_call, result);
                        !result.is_error
                    }
                    _ => false,
                };
                self.called(&task, ok);
            }
            Event::ApprovalDecided {
                call,
                approval: Approval::Denied { reason },
            } => {
                let Some(task) = self.tools.remove(call) else {
                    return;
                };
                let result = ToolResult::error(&task.tool_call, reason.as_str());
                self.tool_ended(thread, &task.tool_call, &result);
                self.called(&task, false);
            }
            _ => {}
        }
    }

    fn tool_ended(&mut self, thread: u32, call: &ToolCall, result: &ToolResult) {
        self.tell(|| RunEvent::ToolEnd {
            thread,
            call_id: call.id.clone(),
            result: result.clone(),
        });
    }

    fn called(&mut self, task: &ToolTask, ok: bool) {
        self.called.insert(task.call, CalledTool::of(&task.tool_call, ok));
    }

    fn feed(&mut self, event: Event) {
        if self.log.is_some() {
            return self.record(event);
        }
        // An event that nobody waits for comes of something that was cancelled just now.
        if let Ok(effects) = self.run.handle(event) {
            self.todo.extend(effects);
        }
    }

    /// Does what can be done at once, and begins what takes time.
    fn perform(&mut self) {
        while let Some(effect) = self.todo.pop_front() {
            let takes_time = matches!(
                effect,
                Effect::CallModel(_) | Effect::CallTool(_) | Effect::AskPerson(_)
            );
            if takes_time && self.ops.len() >= MAX_OPS {
                self.todo.push_front(effect);
                return;
            }
            match effect {
                Effect::CallModel(call) => self.call_model(*call),
                Effect::CheckAnswer {
                    call,
                    thread,
                    form,
                    response,
                } => self.check(call, thread, form, &response),
                Effect::CallTool(task) => self.call_tool(task),
                Effect::RejectTool { task, result } => {
                    self.tool_started(&task);
                    self.tool_ended(task.thread, &task.tool_call, &result);
                    self.called(&task, false);
                }
                Effect::AskPerson(task) => self.ask_person(task),
                Effect::LoadMemory => self.load_memory(),
                Effect::SaveMemory { messages } => self.save_memory(messages),
                Effect::Cancel { calls } => self.cancel(&calls),
                Effect::Pause { stop } => {
                    let error = match stop {
                        Stop::Interrupted { interrupt } => Error::Interrupted(interrupt),
                        Stop::Limit { limit } => Error::Limit(limit),
                        Stop::InDoubt { calls } => Error::InDoubt(calls),
                    };
                    self.stand_still(error, true);
                }
                Effect::Finish { end } => self.finish_run(end),
            }
            if self.is_over {
                return;
            }
        }
    }

    fn cancel(&mut self, calls: &[CallId]) {
        self.unhold(calls);
        if !self.is_resting() {
            for call in calls {
                self.ops.cancel(*call);
                self.tools.remove(call);
            }
        }
        // What was asked for and not begun yet.
        self.todo
            .retain(|effect| begins(effect).is_none_or(|call| !calls.contains(&call)));
    }
}

/// The call that an effect begins.
fn begins(effect: &Effect) -> Option<CallId> {
    match effect {
        Effect::CallModel(call) => Some(call.call),
        Effect::CallTool(task) | Effect::AskPerson(task) => Some(task.call),
        _ => None,
    }
}

pub(crate) fn nothing_asked() -> Error {
    Error::Model(ModelError::invalid_request(
        "the input has no messages; there is nothing to ask",
    ))
}

fn internal(problem: &str) -> ModelError {
    ModelError::layer(ErrorKind::Internal, Failure::new(ErrorKind::Internal, problem))
}
