//! The journal of a run, as its driver keeps it.
//!
//! Algorithm. An event is encoded, and handled in memory: handling it has no effect outside. Its record and those of the
//! calls that it leads to are appended together, with one write, and only when that is acknowledged are the effects of
//! the event performed. What arrives meanwhile waits and shares the next write. So nothing is done that the journal does
//! not tell of, and a step costs one append.
//!
//! Invariants:
//!
//! - an effect that begins something is performed only after its announcement was acknowledged;
//! - what stops something is performed at once: stopping is safe, whether its record gets there or not;
//! - a run that cannot be journalled goes no further: it ends with the store's error, and its journal says what was done.
//!
//! Nothing is spawned here either: an append is polled with the driver, and dropped with it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use peregrine_checkpoints::{Draft, Durability, Error as StoreError, Journal, Kind};
use peregrine_core::{ChatModel as _, ChatResponse, Cost, Message, RunId, Scope, Usage};
use peregrine_interrupts::WaitForInterrupt;

use super::start::Start;
use super::{Driver, Sleep};
use crate::agent::Inner;
use crate::budget::{Budget, Estimate, Resource, Spent};
use crate::durable::digest::{Digest, Requests};
use crate::durable::fold::{StateRef, Unread, forget, settles, state_digest};
use crate::durable::open::{self, Opening};
use crate::durable::record::{Announced, Finished, Note, SCHEMA, STATE_FORM, SignatureId, begun};
use crate::error::{ConfigProblem, Error, RunError};
use crate::run::{CallId, Effect, End, Event, Interrupt, ToolOutcome};

/// How long a store is waited for after the run was told to stop.
const GRACE: Duration = Duration::from_secs(5);

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A run's journal, and what waits for it.
pub(super) struct Log {
    pub(super) stage: Stage,
    /// The records that are not handed to the journal yet.
    pub(super) drafts: Vec<Draft>,
    /// What is to be performed once those are acknowledged.
    pub(super) held: VecDeque<Effect>,
    /// What is to be performed once those are acknowledged that are being written.
    pub(super) writing: VecDeque<Effect>,
    /// The calls that were announced and have no result, with their idempotency keys.
    pub(super) announced: BTreeMap<CallId, String>,
    pub(super) requests: Requests,
    pub(super) signature: Option<SignatureId>,
    /// What the run's budget had spent when that was noted last.
    pub(super) spent: Option<Spent>,
    /// How many calls of tools returned.
    pub(super) returned: u64,
    /// The threads whose call to a model is lost, and may have been made.
    pub(super) lost: BTreeSet<u32>,
    pub(super) unread: Unread,
    /// The calls that were announced, and then were not begun because something stopped them.
    pub(super) stopped: Vec<CallId>,
    /// Whether the end is noted.
    pub(super) is_finished: bool,
    /// Whether the state cannot be written as a snapshot.
    pub(super) is_too_deep: bool,
    /// Whether the run was told to stop, so that the store is not waited for for ever.
    pub(super) is_stopping: bool,
    /// Fires when the run is to stop at once.
    pub(super) halt: Option<WaitForInterrupt>,
    /// Ends the wait for the store.
    pub(super) grace: Option<Sleep>,
}

pub(super) enum Stage {
    Opening(Opening),
    Idle(Box<Journal>),
    Writing(Work<(Box<Journal>, Result<(), StoreError>)>),
    Closing(Work<Result<(), StoreError>>),
    Closed,
}

impl Log {
    /// The journal of a run that begins or goes on, if it is to have one.
    pub(super) fn of(
        inner: &Inner,
        start: &Start,
        id: RunId,
        scope: Option<&Scope>,
    ) -> Result<Option<Box<Self>>, ConfigProblem> {
        let Some(checkpoints) = &inner.checkpoints else {
            return Ok(None);
        };
        let key = || match scope {
            Some(scope) => Ok(peregrine_checkpoints::RunKey::new(scope.clone(), id)),
            None => Err(ConfigProblem::NoScope),
        };
        let opening = match start {
            Start::New(input) => {
                let durability = input.durability.unwrap_or(checkpoints.options().durability);
                if durability == Durability::None {
                    return Ok(None);
                }
                open::create(checkpoints.with_durability(durability), key()?)
            }
            Start::Resumed(resumption, more) => {
                if checkpoints.options().durability == Durability::None {
                    return Ok(None);
                }
                open::take_up(checkpoints.clone(), key()?, resumption.run.clone(), *more)
            }
            Start::Stored(stored, _) => open::resume((**stored).clone()),
            Start::Begun(..) | Start::Replayed(_) => return Ok(None),
        };
        Ok(Some(Box::new(Self {
            stage: Stage::Opening(opening),
            drafts: Vec::new(),
            held: VecDeque::new(),
            writing: VecDeque::new(),
            announced: BTreeMap::new(),
            requests: Requests::default(),
            signature: None,
            spent: None,
            returned: 0,
            lost: BTreeSet::new(),
            unread: Unread::default(),
            stopped: Vec::new(),
            is_finished: false,
            is_too_deep: false,
            is_stopping: false,
            halt: None,
            grace: None,
        })))
    }
}

/// Writing.
impl Driver {
    /// Goes on with the journal as far as it goes. Pending while nothing else may happen.
    pub(super) fn poll_journal(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(log) = self.log.as_deref_mut() else {
                return Poll::Ready(());
            };
            match &mut log.stage {
                Stage::Opening(opening) => match opening.as_mut().poll(cx) {
                    Poll::Ready(Ok(opened)) => self.opened(*opened),
                    Poll::Ready(Err(error)) => self.leave(error),
                    Poll::Pending => match self.poll_halt(cx) {
                        Some(error) => self.leave(error),
                        None => return Poll::Pending,
                    },
                },
                Stage::Idle(_) if log.drafts.is_empty() => return Poll::Ready(()),
                Stage::Idle(_) => self.write(),
                Stage::Writing(writing) => match writing.as_mut().poll(cx) {
                    Poll::Pending => match self.poll_grace(cx) {
                        Some(error) => self.leave(error),
                        None => return Poll::Ready(()),
                    },
                    Poll::Ready((journal, Ok(()))) => {
                        log.stage = Stage::Idle(journal);
                        self.todo.extend(log.writing.drain(..));
                    }
                    Poll::Ready((_, Err(error))) => self.leave(Error::Checkpoints(error)),
                },
                Stage::Closing(closing) => match closing.as_mut().poll(cx) {
                    Poll::Ready(Ok(())) => {
                        log.stage = Stage::Closed;
                        (self.is_over, self.stop) = (true, None);
                    }
                    Poll::Ready(Err(error)) => self.leave(Error::Checkpoints(error)),
                    Poll::Pending => {
                        // Whoever was told to stop already has a little time.
                        let stopped = match log.is_stopping {
                            true => self.poll_grace(cx),
                            false => self.poll_halt(cx),
                        };
                        match stopped {
                            Some(error) => self.leave(error),
                            None => return Poll::Pending,
                        }
                    }
                },
                Stage::Closed => return Poll::Ready(()),
            }
        }
    }

    /// Whether a store that does not answer was waited for long enough, after the run was told to stop.
    fn poll_grace(&mut self, cx: &mut Context<'_>) -> Option<Error> {
        if !self.log.as_deref()?.is_stopping {
            return None;
        }
        if self.log.as_deref()?.grace.is_none() {
            let grace = match self.sleep_below(GRACE) {
                Some(sleep) => sleep,
                None => self.inner.timer.as_ref()?.sleep(GRACE),
            };
            self.log.as_deref_mut()?.grace = Some(grace);
        }
        let log = self.log.as_deref_mut()?;
        if log.grace.as_mut()?.as_mut().poll(cx).is_pending() {
            return None;
        }
        let reason = "it was stopped, and the store did not answer";
        Some(Error::Interrupted(Interrupt::immediate(reason)))
    }

    /// Whether the run is told to stop, while there is nothing but the journal to wait for.
    fn poll_halt(&mut self, cx: &mut Context<'_>) -> Option<Error> {
        if let Some(cancelled) = &mut self.cancelled
            && Pin::new(cancelled).poll(cx).is_ready()
        {
            self.cancelled = None;
            return Some(Error::Interrupted(Interrupt::immediate("it was cancelled")));
        }
        if let Some((sleep, limit)) = &mut self.deadline
            && sleep.as_mut().poll(cx).is_ready()
        {
            let limit = limit.clone();
            self.deadline = None;
            return Some(Error::Limit(limit));
        }
        if let Some(log) = self.log.as_deref()
            && log.halt.is_none()
        {
            let halt = self.halt();
            self.log.as_deref_mut()?.halt = halt;
        }
        let halt = self.log.as_deref_mut()?.halt.as_mut()?;
        match Pin::new(halt).poll(cx) {
            Poll::Ready(_) => self.halted().map(Error::Interrupted),
            Poll::Pending => None,
        }
    }

    /// Lets the journal be, with what is acknowledged in it. Whatever the run came to in memory, it did not come to.
    fn leave(&mut self, error: Error) {
        if let Some(log) = &mut self.log {
            log.stage = Stage::Closed;
            log.drafts.clear();
            (log.held, log.writing) = (VecDeque::new(), VecDeque::new());
        }
        match self.result.take() {
            None => self.end(Err(error), false),
            Some(result) => {
                let report = match result {
                    Ok(output) => output.report,
                    Err(failed) => failed.report().clone(),
                };
                self.result = Some(Err(RunError::new(error, report)));
                (self.is_over, self.stop) = (true, None);
            }
        }
    }

    pub(super) fn has_unwritten(&self) -> bool {
        let log = self.log.as_deref();
        log.is_some_and(|log| matches!(log.stage, Stage::Idle(_)) && !log.drafts.is_empty())
    }

    /// Whether something will happen once the journal is written.
    pub(super) fn awaits_journal(&self) -> bool {
        let log = self.log.as_deref();
        log.is_some_and(|log| matches!(log.stage, Stage::Writing(_)))
    }

    /// Hands over all that waits, with what is due beside it.
    fn write(&mut self) {
        self.note_spent();
        let Some(log) = self.log.as_deref_mut() else {
            return;
        };
        let Stage::Idle(mut journal) = std::mem::replace(&mut log.stage, Stage::Closed) else {
            return;
        };
        if journal.snapshot_due() && !log.is_finished && !log.is_too_deep && self.run.has_begun() {
            forget(&mut log.announced, &self.run);
            let id = self.run.take_id();
            let state = StateRef {
                run: &self.run,
                signature: log.signature.as_ref(),
                called: self.called.iter().collect(),
                announced: log.announced.iter().collect(),
                spent: log.spent,
                unread: log.unread,
            };
            match state.draft() {
                Ok(draft) => log.drafts.push(draft),
                // It can be gone without: loading takes longer then.
                Err(_) => log.is_too_deep = true,
            }
            self.run.give_id(id);
        }
        let drafts = std::mem::take(&mut log.drafts);
        log.writing.append(&mut log.held);
        log.stage = Stage::Writing(Box::pin(async move {
            let outcome = journal.append_all(&drafts).await.map(|_| ());
            (journal, outcome)
        }));
    }

    /// Closes the journal behind a run that came to this; whether that takes time.
    pub(super) fn close_journal(&mut self, outcome: &Result<ChatResponse, Error>) -> bool {
        let is_open = |log: &Log| !matches!(log.stage, Stage::Closed | Stage::Opening(_));
        if !self.log.as_deref().is_some_and(is_open) {
            return false;
        }
        let is_completed = matches!(self.run.ended(), Some(End::Completed { .. }));
        match outcome {
            _ if self.run.ended().is_none() => {}
            Ok(response) => {
                let may_change = self.hooks.as_ref().is_some_and(super::BoundHooks::may_change);
                let response = may_change.then(|| Box::new(response.clone()));
                self.note_finished(response, None);
            }
            Err(Error::Vetoed(veto)) if is_completed => self.note_finished(None, Some(veto.clone())),
            Err(_) if is_completed => {}
            Err(_) => self.note_finished(None, None),
        }
        self.note_spent();
        let Some(log) = self.log.as_deref_mut() else {
            return false;
        };
        let drafts = std::mem::take(&mut log.drafts);
        (log.held, log.writing) = (VecDeque::new(), VecDeque::new());
        log.stage = match std::mem::replace(&mut log.stage, Stage::Closed) {
            Stage::Idle(journal) => Stage::Closing(Box::pin(close(journal, drafts))),
            Stage::Writing(writing) => Stage::Closing(Box::pin(async move {
                let (journal, outcome) = writing.await;
                outcome?;
                close(journal, drafts).await
            })),
            other => other,
        };
        true
    }
}

/// Writes the rest, and gives the lease back.
async fn close(mut journal: Box<Journal>, drafts: Vec<Draft>) -> Result<(), StoreError> {
    if !drafts.is_empty() {
        journal.append_all(&drafts).await?;
    }
    journal.flush().await?;
    // All is acknowledged; a lease that cannot be given back now is given back as if the process had ended.
    let _given_back = journal.finish().await;
    Ok(())
}

/// What is recorded.
impl Driver {
    /// Journals an event, and what follows from it.
    pub(super) fn record(&mut self, event: Event) {
        if self.result.is_some() {
            return;
        }
        let draft = match Draft::new(Kind::Event, SCHEMA, &event) {
            Ok(draft) => draft,
            Err(error) => return self.leave(Error::Checkpoints(error)),
        };
        let stops = match &event {
            Event::Interrupted { .. } => true,
            Event::LimitReached { limit, .. } => limit.resource == Resource::WallTime,
            _ => false,
        };
        let settled = settles(&event);
        let returned = matches!(
            event,
            Event::ToolReturned {
                outcome: ToolOutcome::Returned(_),
                ..
            }
        );
        self.draft(Ok(draft));
        // An event that nobody waits for is counted by the run, so it is journalled too.
        if let Ok(effects) = self.run.handle(event) {
            if let Some(log) = &mut self.log {
                settled.iter().for_each(|call| drop(log.announced.remove(call)));
                log.returned += u64::from(returned);
            }
            effects.into_iter().for_each(|effect| self.announce(effect));
        }
        self.note_stopped();
        if let Some(log) = self.log.as_deref_mut().filter(|_| stops) {
            log.is_stopping = true;
        }
        // Nobody looks at the answer before it is given, so that its end can stand beside its last event.
        if self.hooks.is_none() && self.run.ended().is_some() {
            self.note_finished(None, None);
        }
    }

    pub(super) fn draft(&mut self, draft: Result<Draft, StoreError>) {
        match (draft, &mut self.log) {
            (Ok(draft), Some(log)) => log.drafts.push(draft),
            (Err(error), _) => self.leave(Error::Checkpoints(error)),
            (_, None) => {}
        }
    }

    /// Announces what an effect begins, and holds it back until that is acknowledged.
    fn announce(&mut self, effect: Effect) {
        if let Effect::Cancel { calls } = &effect {
            return self.cancel(calls);
        }
        if let Effect::RejectTool { task, .. } = &effect {
            // A snapshot may be written before it is told.
            self.called(task, false);
        }
        let Some(log) = self.log.as_deref_mut() else {
            return;
        };
        let announced = match &effect {
            Effect::CallModel(asked) => {
                log.announced.insert(asked.call, String::new());
                Some(Announced::model(asked, &mut log.requests))
            }
            Effect::CallTool(task) => {
                let known = log.announced.get(&task.call).filter(|key| !key.is_empty());
                let key = known
                    .cloned()
                    .unwrap_or_else(|| format!("{}/{}", self.run_id, task.call));
                log.announced.insert(task.call, key.clone());
                Some(Announced::tool(self.run.spec(), task, key))
            }
            Effect::AskPerson(task) => {
                log.announced.insert(task.call, String::new());
                Some(Announced::approval(task))
            }
            Effect::LoadMemory => Some(Announced::LoadMemory),
            Effect::SaveMemory { messages } => Some(Announced::SaveMemory {
                messages: Digest::of_messages(messages),
            }),
            _ => None,
        };
        log.held.push_back(effect);
        if let Some(announced) = announced {
            self.draft(Draft::new(Kind::Effect, SCHEMA, &announced));
        }
    }

    /// What was asked for and not begun yet is not begun any more.
    pub(super) fn unhold(&mut self, calls: &[CallId]) {
        let is_resting = self.is_resting();
        let Some(log) = self.log.as_deref_mut() else {
            return;
        };
        let stopped = &mut log.stopped;
        if !is_resting {
            stopped.extend(calls.iter().filter(|call| self.ops.is_untouched(**call)));
        }
        for waiting in [&mut log.held, &mut log.writing, &mut self.todo] {
            waiting.retain(|effect| match super::begins(effect) {
                Some(call) if calls.contains(&call) => {
                    stopped.push(call);
                    false
                }
                _ => true,
            });
        }
    }

    /// Nothing is begun any more.
    pub(super) fn unhold_all(&mut self) {
        let Some(log) = self.log.as_deref_mut() else {
            return;
        };
        let stopped = &mut log.stopped;
        for waiting in [&mut log.held, &mut log.writing, &mut self.todo] {
            waiting.retain(|effect| {
                stopped.extend(super::begins(effect));
                !super::stop::begins_something(effect)
            });
        }
    }

    /// Says of what was announced and not begun that it was not, so that it is not in doubt.
    fn note_stopped(&mut self) {
        let begun = self.run.begun();
        let Some(log) = self.log.as_deref_mut() else {
            return;
        };
        let mut calls = std::mem::take(&mut log.stopped);
        calls.retain(|call| begun.contains(call));
        if !calls.is_empty() {
            self.record(Event::NotBegun { calls });
        }
    }

    /// The key under which a tool is called, the same each time.
    pub(super) fn key_of(&self, call: CallId) -> String {
        let log = self.log.as_deref();
        match log.and_then(|log| log.announced.get(&call)) {
            Some(key) if !key.is_empty() => key.clone(),
            _ => format!("{}/{call}", self.run_id),
        }
    }

    pub(super) fn note_begun(&mut self, input: &[Message]) {
        let Some(log) = &mut self.log else {
            return;
        };
        log.signature = self.signature.as_deref().map(SignatureId::of);
        let models = self.inner.models.iter().map(|model| model.info().to_string());
        let input = self.hooks.is_some().then(|| input.to_vec());
        let draft = begun(self.run.spec(), log.signature.clone(), models.collect(), input);
        self.draft(draft);
    }

    pub(super) fn note_unread(&mut self, usage: Option<Usage>, cost: Cost) {
        if let Some(log) = &mut self.log {
            log.unread.add(usage, cost);
            self.draft(Note::Unread { usage, cost }.draft());
        }
    }

    /// Notes what the budget has spent, if that is more than when it was noted last.
    fn note_spent(&mut self) {
        let Some(budget) = &self.budget else {
            return;
        };
        let amounts = budget.status().spent;
        let Some(log) = &mut self.log else {
            return;
        };
        let spent = Spent {
            tokens: amounts.tokens,
            cost: Cost::Priced(amounts.cost),
            // A call that is made again is the same call.
            tool_calls: log.returned,
        };
        if log.spent.unwrap_or_default() != spent {
            log.spent = Some(spent);
            self.draft(Note::Spent { spent }.draft());
        }
    }

    /// A call to a model that is lost is charged as the one that is made in its place is expected to be.
    pub(super) fn charge_lost(&mut self, thread: u32, budget: &Budget, estimate: &Estimate) {
        if let Some(log) = &mut self.log
            && log.lost.remove(&thread)
        {
            budget.carry(Spent::tokens(estimate.tokens).with_cost(estimate.cost));
        }
    }

    fn note_finished(&mut self, response: Option<Box<ChatResponse>>, veto: Option<crate::run::Veto>) {
        match &mut self.log {
            Some(log) if !log.is_finished => log.is_finished = true,
            _ => return,
        }
        let failures = self.hooks.as_ref().map(super::BoundHooks::failed);
        let finished = Finished {
            state: state_digest(&mut self.run),
            form: STATE_FORM,
            overshoot: self.report.overshoot.clone(),
            observer_failures: failures.unwrap_or_default(),
            abandoned: self.report.abandoned.clone(),
            response,
            veto,
        };
        self.draft(Note::Finished(finished).draft());
    }
}
