//! A run in a store: looked at, settled, and gone on with.

use std::fmt;
use std::sync::Arc;

use peregrine_checkpoints::{
    Checkpoints, Draft, Durability, Error as StoreError, Kind, Origin, RunKey, Span,
};
use peregrine_core::{RunId, Scope, ToolCall, ToolResult};
use peregrine_interrupts::Scope as InterruptScope;
use peregrine_signatures::Signature;
use peregrine_tools::Cancellation;

use crate::agent::Agent;
use crate::budget::Budget;
use crate::driver::{Resuming, Start};
use crate::durable::fold::Folded;
use crate::durable::open::StoredStart;
use crate::durable::record::{Entry, SCHEMA, SignatureId};
use crate::error::{ConfigProblem, Error, RunError};
use crate::output::{RunOutput, TypedOutput};
use crate::run::{CallId, Event, Interrupt, More, Run, Stop, ToolOutcome};
use crate::stream::RunStream;

/// Names a run: by its id, in the agent's scope; or by its id and scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRef {
    run: RunId,
    scope: Option<Scope>,
}

impl From<RunId> for RunRef {
    fn from(run: RunId) -> Self {
        Self { run, scope: None }
    }
}

impl From<&RunId> for RunRef {
    fn from(run: &RunId) -> Self {
        Self::from(*run)
    }
}

impl From<RunKey> for RunRef {
    fn from(key: RunKey) -> Self {
        Self {
            run: key.run,
            scope: Some(key.scope),
        }
    }
}

impl From<&RunKey> for RunRef {
    fn from(key: &RunKey) -> Self {
        Self::from(key.clone())
    }
}

/// How far a stored run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RunStatus {
    /// Nothing was asked yet, or it was not recorded.
    New,
    /// It is under way, or its process ended in the middle of it.
    Open,
    /// Calls with side effects may or may not have been carried out.
    InDoubt,
    /// It was stopped, and can go on.
    Stopped,
    /// It is over.
    Over,
}

impl RunStatus {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Open => "open",
            Self::InDoubt => "in_doubt",
            Self::Stopped => "stopped",
            Self::Over => "over",
        }
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A call of which nobody knows whether it was carried out.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct InDoubt {
    /// Which call.
    pub call: CallId,
    /// What the model asked for.
    pub tool_call: Arc<ToolCall>,
    /// The key under which the tool was called, by which the world outside may know it.
    pub key: String,
}

/// What came of a call that was in doubt.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Resolution {
    /// It was carried out, or is as good as carried out; the model is told this.
    Returned(ToolResult),
    /// It was not carried out. It is made when the run goes on.
    NotCarriedOut,
}

impl From<ToolResult> for Resolution {
    fn from(result: ToolResult) -> Self {
        Self::Returned(result)
    }
}

impl From<&str> for Resolution {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl From<String> for Resolution {
    fn from(text: String) -> Self {
        // The run puts the call's own id and name in.
        Self::Returned(ToolResult::new(&ToolCall::new("", "", "{}"), text))
    }
}

/// A run as its journal had it when it was loaded. Nothing is held: others may work on it meanwhile, and going on with it
/// begins with what is there by then.
#[derive(Clone)]
pub struct StoredRun {
    pub(crate) agent: Agent,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) key: RunKey,
    pub(crate) folded: Folded,
    pub(crate) origin: Option<Origin>,
    resuming: Resuming,
    takes_over: bool,
}

impl fmt::Debug for StoredRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredRun")
            .field("key", &self.key)
            .field("status", &self.status())
            .field("records", &self.records())
            .finish_non_exhaustive()
    }
}

impl Agent {
    /// The store of its runs, and what a run is called there.
    pub(crate) fn stored_key(&self, run: RunRef) -> Result<(Checkpoints, RunKey), Error> {
        let Some(checkpoints) = self.checkpoints() else {
            return Err(Error::Config(ConfigProblem::NoCheckpoints));
        };
        let scope = run.scope.or_else(|| self.spec().template.scope.clone());
        let Some(scope) = scope else {
            return Err(Error::Config(ConfigProblem::NoScope));
        };
        let key = RunKey::new(scope, run.run);
        // What is in the store was to be kept.
        Ok(match checkpoints.options().durability {
            Durability::None => (checkpoints.with_durability(Durability::default()), key),
            _ => (checkpoints.clone(), key),
        })
    }

    /// Looks at a run in the store. It is not held: whether somebody works on it shows when it is to go on.
    ///
    /// # Errors
    ///
    /// [`Error::Checkpoints`] if it is not there or cannot be read; [`Error::Config`] without a store or a scope.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any time.
    pub async fn load(&self, run: impl Into<RunRef>) -> Result<StoredRun, Error> {
        let (checkpoints, key) = self.stored_key(run.into())?;
        let (folded, history) = Folded::load(&checkpoints, &key, Span::SINCE_SNAPSHOT).await?;
        Ok(StoredRun {
            agent: self.clone(),
            checkpoints,
            key,
            folded,
            origin: history.origin,
            resuming: Resuming::default(),
            takes_over: false,
        })
    }

    /// The records of a run, as far as the store still has them.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub async fn history(&self, run: impl Into<RunRef>) -> Result<Vec<Entry>, Error> {
        let (checkpoints, key) = self.stored_key(run.into())?;
        let history = checkpoints.load(&key, Span::ALL).await?;
        let entries: Result<Vec<Entry>, StoreError> = history.records.iter().map(Entry::read).collect();
        Ok(entries?)
    }
}

impl StoredRun {
    /// The run and whose it is.
    pub fn key(&self) -> &RunKey {
        &self.key
    }

    /// The run, as it was: its conversation, its rules, what it used. While its process lives, that has more.
    pub fn run(&self) -> &Run {
        &self.folded.run
    }

    /// How many records its journal has.
    pub fn records(&self) -> u64 {
        self.folded.next_seq
    }

    /// Where it was forked from.
    pub fn origin(&self) -> Option<Origin> {
        self.origin
    }

    /// The signature with which it began, if it is typed.
    pub fn signature(&self) -> Option<&SignatureId> {
        self.folded.signature.as_ref()
    }

    /// How far it has come.
    pub fn status(&self) -> RunStatus {
        let run = &self.folded.run;
        match run.paused() {
            _ if run.ended().is_some() => RunStatus::Over,
            _ if !run.has_begun() && self.folded.input.is_none() => RunStatus::New,
            _ if !self.in_doubt().is_empty() => RunStatus::InDoubt,
            // The last call was settled.
            Some(Stop::InDoubt { .. }) => RunStatus::Stopped,
            Some(_) => RunStatus::Stopped,
            None => RunStatus::Open,
        }
    }

    /// The calls of which nobody knows whether they were carried out, if the process that made them ended. Each is settled
    /// by [`resolve`](Self::resolve).
    pub fn in_doubt(&self) -> Vec<InDoubt> {
        let never_begun = self.folded.never_begun();
        let tasks = self.folded.run.in_doubt().into_iter();
        tasks
            .filter(|task| !never_begun.contains(&task.call))
            .map(|task| InDoubt {
                call: task.call,
                key: match self.folded.announced.get(&task.call) {
                    Some(key) if !key.is_empty() => key.clone(),
                    _ => format!("{}/{}", self.key.run, task.call),
                },
                tool_call: task.tool_call,
            })
            .collect()
    }

    /// Draws on a budget when it goes on, besides the agent's own limits.
    #[must_use]
    pub fn with_budget(mut self, budget: Budget) -> Self {
        self.resuming.budget = Some(budget);
        self
    }

    /// Stops it when this is cancelled.
    #[must_use]
    pub fn with_cancellation(mut self, cancellation: Cancellation) -> Self {
        self.resuming.cancellation = cancellation;
        self
    }

    /// Runs below a scope; see [`Input::with_interrupts`](crate::Input::with_interrupts).
    #[must_use]
    pub fn with_interrupts(mut self, scope: &InterruptScope) -> Self {
        self.resuming.interrupts = Some(scope.clone());
        self
    }

    /// Takes it from whoever works on it, who is known to hang: they find out at their next record, and what they do
    /// outside until then, they do.
    #[must_use]
    pub fn with_take_over(mut self) -> Self {
        self.takes_over = true;
        self
    }

    fn start(&self, more: More) -> Start {
        let stored = StoredStart {
            checkpoints: self.checkpoints.clone(),
            key: self.key.clone(),
            more,
            takes_over: self.takes_over,
        };
        Start::Stored(Box::new(stored), self.resuming.clone())
    }

    /// Goes on with it, after its own bounds are raised. A run that is over gives the outcome that it had.
    ///
    /// Its rules are those with which it began; models, tools, hooks and budgets are those of the agent that loaded it.
    ///
    /// # Errors
    ///
    /// As [`Agent::run`](crate::Agent::run). [`Error::InDoubt`] until calls in doubt are [settled](Self::resolve);
    /// [`Error::Checkpoints`] while somebody else works on it; [`ConfigProblem::Resume`] if it does not fit this agent.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops everything that is under way, and the run can go on again.
    pub async fn resume(self, more: More) -> Result<RunOutput, RunError> {
        self.agent.driver(self.start(more), false)?.finish().await
    }

    /// Goes on with it, and tells what happens.
    pub fn resume_stream(self, more: More) -> RunStream {
        RunStream::new(self.agent.driver(self.start(more), true))
    }

    /// Goes on with a typed run.
    ///
    /// # Errors
    ///
    /// As [`resume`](Self::resume); [`ConfigProblem::Resume`] also for another signature than the one it began with.
    ///
    /// # Cancel safety
    ///
    /// As [`resume`](Self::resume).
    pub async fn resume_as<S: Signature>(self, more: More) -> Result<TypedOutput<S::Output>, RunError> {
        let mut driver = self.agent.resuming_as::<S>(self.start(more), false)?;
        driver.finish_as::<S>().await
    }

    /// Goes on with a typed run, and tells what happens. The answer is read with
    /// [`RunStream::collect_as`](crate::RunStream::collect_as).
    pub fn resume_stream_as<S: Signature>(self, more: More) -> RunStream {
        RunStream::new(self.agent.resuming_as::<S>(self.start(more), true))
    }

    /// Says what came of a call that is in doubt. That is journalled; [`resume`](Self::resume) goes on behind it.
    ///
    /// # Errors
    ///
    /// [`ConfigProblem::Resume`] for a call that is not in doubt; [`Error::Checkpoints`], also while somebody works on the
    /// run.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it may or may not have been journalled; [`Agent::load`] tells.
    pub async fn resolve(&mut self, call: CallId, resolution: impl Into<Resolution>) -> Result<(), Error> {
        let resolution = resolution.into();
        let (mut journal, history) = match self.takes_over {
            true => self.checkpoints.take_over(&self.key).await?,
            false => self.checkpoints.resume(&self.key).await?,
        };
        self.folded = Folded::of(&self.checkpoints, &self.key, &history).await?;
        let doubts = self.in_doubt();
        let Some(doubt) = doubts.iter().find(|doubt| doubt.call == call) else {
            let problem = format!("the call {call} is not in doubt");
            return Err(Error::Config(ConfigProblem::Resume { problem }));
        };
        let mut folded = self.folded.clone();
        let mut drafts = Vec::new();
        let mut take = |event: Event| -> Result<(), StoreError> {
            drafts.push(Draft::new(Kind::Event, SCHEMA, &event)?);
            folded.entry(crate::durable::What::Event(event), None);
            Ok(())
        };
        if self.folded.run.paused().is_none() {
            let interrupt = Interrupt::of_end();
            take(Event::Interrupted { interrupt })?;
        }
        take(match resolution {
            Resolution::Returned(mut result) => {
                result.call_id.clone_from(&doubt.tool_call.id);
                result.name.clone_from(&doubt.tool_call.name);
                Event::ToolReturned {
                    call,
                    outcome: ToolOutcome::Returned(result),
                }
            }
            Resolution::NotCarriedOut => Event::NotBegun { calls: vec![call] },
        })?;
        journal.append_all(&drafts).await?;
        folded.next_seq = journal.next_seq();
        self.folded = folded;
        journal.finish().await?;
        Ok(())
    }
}
