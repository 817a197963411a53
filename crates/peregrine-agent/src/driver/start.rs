//! How a driver begins: with a new run, with one that was stopped, or with one that was begun elsewhere.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use futures_util::stream;
use peregrine_core::{Clock as _, Message, RunId, SystemClock};
use peregrine_signatures::Compiled;
use peregrine_tools::Cancellation;

use super::budgets::Sizes;
use super::few::Few;
use super::near::Near;
use super::ops::{Done, Ops};
use super::stop::{Below, Stop};
use super::{Driver, Log, nothing_asked};
use crate::agent::Inner;
use crate::error::{ConfigProblem, Error, RunError};
use crate::hooks::{BoundHooks, HookContext};
use crate::input::{Input, Resumption};
use crate::output::{AbandonedKind, CalledTool, RunReport};
use crate::run::{Effect, Event, Form, More, Run, RunSpec};

/// What a driver begins with.
pub(crate) struct Setup {
    pub(crate) inner: Arc<Inner>,
    pub(crate) spec: Arc<RunSpec>,
    pub(crate) signature: Option<Arc<Compiled>>,
    pub(crate) streaming: bool,
    pub(crate) start: Start,
}

/// How a run begins.
pub(crate) enum Start {
    New(Input),
    /// It was stopped, and goes on.
    Resumed(Box<Resumption>, More),
    /// It is in a store, and goes on.
    #[cfg(feature = "checkpoints")]
    Stored(Box<crate::durable::open::StoredStart>, Resuming),
    /// It is over, and its outcome is wanted once more.
    #[cfg(feature = "checkpoints")]
    Replayed(Box<crate::durable::fold::Folded>),
    /// It was begun elsewhere, and this is what it asks for next.
    Begun(Box<Run>, RunId, Vec<Effect>),
}

impl Start {
    /// The error of a run that cannot even begin.
    pub(crate) fn failed(&self, error: impl Into<Error>) -> RunError {
        let mut report = RunReport::new(match self {
            Self::New(input) => run_id(input),
            Self::Begun(_, id, _) => *id,
            #[cfg(feature = "checkpoints")]
            Self::Stored(stored, _) => stored.key.run,
            #[cfg(feature = "checkpoints")]
            Self::Replayed(folded) => folded.run.id().unwrap_or_else(new_run_id),
            Self::Resumed(resumption, _) => resumption.run.id().unwrap_or_else(new_run_id),
        });
        match self {
            #[cfg(feature = "checkpoints")]
            Self::Stored(..) | Self::Replayed(_) => RunError::new(error, report),
            Self::New(_) | Self::Begun(..) => RunError::new(error, report),
            Self::Resumed(resumption, _) => {
                let run = &resumption.run;
                let counts = run.counts();
                report.messages = run.messages();
                (report.steps, report.usage, report.cost) = (counts.steps, counts.usage, counts.cost);
                report.tool_calls = called_before(run);
                RunError::new(error, report).with_run(Some(run.clone()))
            }
        }
    }
}

pub(crate) fn run_id(input: &Input) -> RunId {
    input.run_id.unwrap_or_else(new_run_id)
}

pub(crate) fn new_run_id() -> RunId {
    let mut random = [0; 10];
    fastrand::fill(&mut random);
    RunId::from_parts(SystemClock.unix().0, random)
}

impl Driver {
    /// Where it stays: it is large, and would be moved several times before it is polled.
    pub(crate) fn new(setup: Setup) -> Result<Box<Self>, RunError> {
        let Setup {
            inner,
            mut spec,
            signature,
            streaming,
            start,
        } = setup;
        if let Err(error) = inner.check() {
            return Err(start.failed(error));
        }
        let (id, scope, parent, cancellation, interrupts) = match &start {
            Start::New(input) => {
                if input.messages.is_empty() {
                    return Err(start.failed(nothing_asked()));
                }
                if input.scope.is_some() && input.scope != spec.template.scope {
                    Arc::make_mut(&mut spec).template.scope.clone_from(&input.scope);
                }
                (
                    run_id(input),
                    spec.template.scope.clone(),
                    input.budget.clone(),
                    input.cancellation.clone(),
                    input.interrupts.clone(),
                )
            }
            Start::Resumed(resumption, _) => {
                let Resumption {
                    run,
                    budget,
                    cancellation,
                    interrupts,
                } = &**resumption;
                if let Some(problem) = misfit(run, &inner, signature.is_some()) {
                    return Err(start.failed(Error::Config(ConfigProblem::Resume { problem })));
                }
                (
                    run.id().unwrap_or_else(new_run_id),
                    run.spec().template.scope.clone(),
                    budget.clone(),
                    cancellation.clone(),
                    interrupts.clone(),
                )
            }
            #[cfg(feature = "checkpoints")]
            Start::Stored(stored, resuming) => (
                stored.key.run,
                Some(stored.key.scope.clone()),
                resuming.budget.clone(),
                resuming.cancellation.clone(),
                resuming.interrupts.clone(),
            ),
            #[cfg(feature = "checkpoints")]
            Start::Replayed(folded) => (
                folded.run.id().unwrap_or_else(new_run_id),
                folded.run.spec().template.scope.clone(),
                None,
                Cancellation::never(),
                None,
            ),
            Start::Begun(run, id, _) => (
                *id,
                run.spec().template.scope.clone(),
                None,
                Cancellation::never(),
                None,
            ),
        };
        let log = match Log::of(&inner, &start, id, scope.as_ref()) {
            Ok(log) => log,
            Err(problem) => return Err(start.failed(Error::Config(problem))),
        };
        let budget = match inner.budget_of_run(parent) {
            Ok(budget) => budget,
            Err(problem) => return Err(start.failed(Error::Config(problem))),
        };
        let mut deadline = None;
        if let (Some(budget), Some(timer)) = (&budget, &inner.timer) {
            let now = timer.now();
            budget.start(now);
            deadline = budget
                .remaining_time(now)
                .map(|(remaining, limit)| (timer.sleep(remaining), limit));
        } else if let Some(budget) = &budget {
            let now = SystemClock.now();
            budget.start(now);
            if budget.remaining_time(now).is_some() {
                let what = "the limit on time of a budget".to_owned();
                return Err(start.failed(Error::Config(ConfigProblem::NoTimer { what })));
            }
        }
        let hooks = (!inner.hooks.is_empty())
            .then_some(())
            .and(inner.timer.clone())
            .map(|timer| BoundHooks {
                hooks: inner.hooks.clone(),
                context: HookContext {
                    run: id,
                    scope: scope.clone(),
                    thread: 0,
                    turn: 0,
                },
                timer,
                failures: Arc::new(AtomicU32::new(0)),
            });
        let grace = inner.grace;
        let mut run = Run::new(spec).with_id(id);
        if log.is_none() {
            run.hand_over();
        }
        let mut driver = Box::new(Self {
            run,
            inner,
            signature,
            run_id: id,
            scope,
            streaming,
            todo: VecDeque::new(),
            ops: Ops::default(),
            out: VecDeque::new(),
            budget,
            sizes: Sizes::default(),
            deadline,
            near: Near::default(),
            cancelled: (!cancellation.can_never_fire()).then(|| cancellation.cancelled()),
            stop: interrupts.map(|above| Box::new(Stop::new(&above, id.to_string(), grace, streaming))),
            hooks,
            reads: BTreeMap::new(),
            tools: Few::default(),
            called: BTreeMap::new(),
            asked: BTreeMap::new(),
            turns: Few::default(),
            open: Few::default(),
            report: RunReport::new(id),
            model_errors: BTreeMap::new(),
            signature_errors: BTreeMap::new(),
            result: None,
            is_over: false,
            log,
        });
        driver.watch_time();
        driver.start_now_or_late(start);
        Ok(driver)
    }

    pub(super) fn start(&mut self, start: Start) {
        match start {
            Start::New(input) => {
                self.note_begun(&input.messages);
                self.begin(input.messages);
            }
            #[cfg(feature = "checkpoints")]
            Start::Stored(..) => {}
            #[cfg(feature = "checkpoints")]
            Start::Replayed(folded) => self.replayed(*folded),
            // Its journal says where it is.
            Start::Resumed(..) if self.log.is_some() => {}
            Start::Resumed(resumption, more) => {
                self.run = resumption.run.with_id(self.run_id);
                self.report.tool_calls = called_before(&self.run);
                self.take_turns();
                self.resume(more);
            }
            Start::Begun(run, id, effects) => {
                self.run = run.with_id(id);
                self.todo.extend(effects);
            }
        }
    }
}

impl Driver {
    /// Gives the run its input, after the hooks.
    pub(super) fn begin(&mut self, mut input: Vec<Message>) {
        let Some(hooks) = self.hooks.clone() else {
            self.hear();
            return self.feed(Event::Started { input });
        };
        let begun = async move {
            Done::of(match hooks.before_run(&mut input).await {
                Ok(()) => Event::Started { input },
                Err(veto) => Event::Vetoed { call: None, veto },
            })
        };
        let below = Below::other(AbandonedKind::Hook, false);
        self.ops.push(None, 0, Box::pin(stream::once(begun)), below);
    }

    /// Takes up the turns of a run that goes on.
    pub(super) fn take_turns(&mut self) {
        for (thread, turn, is_open) in self.run.turns() {
            self.turns.insert(thread, turn);
            if is_open {
                self.open.insert(thread, turn);
            }
        }
    }
}

/// What a run that goes on from a store is part of.
#[cfg(feature = "checkpoints")]
#[derive(Debug, Clone, Default)]
pub(crate) struct Resuming {
    pub(crate) budget: Option<crate::budget::Budget>,
    pub(crate) cancellation: Cancellation,
    pub(crate) interrupts: Option<peregrine_interrupts::Scope>,
}

/// Why a stopped run cannot go on with this agent, if it cannot.
fn misfit(run: &Run, inner: &Inner, is_typed: bool) -> Option<String> {
    if run.ended().is_some() {
        return Some("it is over".to_owned());
    }
    if run.paused().is_none() {
        return Some("it was not stopped".to_owned());
    }
    unfit(run, inner, is_typed)
}

/// Why the rules of a run do not fit this agent, if they do not.
pub(super) fn unfit(run: &Run, inner: &Inner, is_typed: bool) -> Option<String> {
    let spec = run.spec();
    match (spec.form == Form::Answer, is_typed) {
        (true, false) => return Some("its answer has a form; go on with it by `resume_as`".to_owned()),
        (false, true) => return Some("its answer has no form; go on with it by `resume`".to_owned()),
        _ => {}
    }
    if spec.models as usize > inner.models.len() {
        let (needs, has) = (spec.models, inner.models.len());
        return Some(format!("it may ask {needs} models, and the agent has {has}"));
    }
    if spec.has_memory && inner.memory.is_none() {
        return Some("it is to be remembered, and the agent has no memory (`with_memory`)".to_owned());
    }
    None
}

/// What a stopped run had called, for the report of the whole.
fn called_before(run: &Run) -> Vec<CalledTool> {
    let called = run.tool_results().into_iter();
    called.map(|(call, ok)| CalledTool::of(&call, ok)).collect()
}
