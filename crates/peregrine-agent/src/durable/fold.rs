//! A journal folded: the state of its run, and what else its records say.
//!
//! Invariant: folding the records of a journal gives the state that whoever wrote them had, to the byte. So everything that
//! reaches a run is journalled, also events that it did not wait for.

use std::collections::BTreeMap;
use std::sync::Arc;

use peregrine_checkpoints::{
    Checkpoints, Draft, Error as StoreError, History, Kind, Part, Record, RunKey, Span,
};
use peregrine_core::{Cost, Message, NanoUsd, Usage};
use serde::{Deserialize, Serialize};

use crate::budget::Spent;
use crate::durable::Digest;
use crate::durable::record::{Announced, Entry, Finished, Note, SCHEMA, SignatureId, What, rules};
use crate::output::CalledTool;
use crate::run::{Approval, CallId, Effect, Event, Run, RunSpec, ToolOutcome};

/// What a journal says, up to some record.
#[derive(Debug, Clone)]
pub(crate) struct Folded {
    pub(crate) run: Run,
    pub(crate) signature: Option<SignatureId>,
    /// What was asked, while the run has not begun.
    pub(crate) input: Option<Vec<Message>>,
    /// Whether there was a record at which a fold can begin.
    pub(crate) has_rules: bool,
    pub(crate) called: BTreeMap<CallId, CalledTool>,
    /// The calls that were announced and have no result yet, with their idempotency keys.
    pub(crate) announced: BTreeMap<CallId, String>,
    pub(crate) spent: Option<Spent>,
    pub(crate) unread: Unread,
    pub(crate) finished: Option<Finished>,
    pub(crate) next_seq: u64,
}

/// What answers used that the run did not get to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unread {
    pub(crate) usage: Option<Usage>,
    pub(crate) cost: Cost,
}

impl Default for Unread {
    fn default() -> Self {
        Self {
            usage: Some(Usage::default()),
            cost: Cost::Priced(NanoUsd(0)),
        }
    }
}

impl Unread {
    pub(crate) fn add(&mut self, usage: Option<Usage>, cost: Cost) {
        self.usage = self.usage.zip(usage).map(|(sum, usage)| sum + usage);
        self.cost = self.cost + cost;
    }
}

/// The payload of a snapshot.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    run: Run,
    signature: Option<SignatureId>,
    called: Vec<(CallId, CalledTool)>,
    announced: Vec<(CallId, String)>,
    spent: Option<Spent>,
    unread: Unread,
}

/// The same to be written. The run has no id in it: a fork shares the record under another one.
#[derive(Serialize)]
pub(crate) struct StateRef<'a> {
    pub(crate) run: &'a Run,
    pub(crate) signature: Option<&'a SignatureId>,
    pub(crate) called: Vec<(&'a CallId, &'a CalledTool)>,
    pub(crate) announced: Vec<(&'a CallId, &'a String)>,
    pub(crate) spent: Option<Spent>,
    pub(crate) unread: Unread,
}

impl StateRef<'_> {
    pub(crate) fn draft(&self) -> Result<Draft, StoreError> {
        Draft::new(Kind::Snapshot, SCHEMA, self)
    }
}

/// The digest of a run's state. Its id is no part of it.
pub(crate) fn state_digest(run: &mut Run) -> Digest {
    let id = run.take_id();
    let digest = Digest::of_json(run);
    run.give_id(id);
    digest
}

impl Folded {
    pub(crate) fn new() -> Self {
        Self {
            run: Run::new(RunSpec::default()),
            signature: None,
            input: None,
            has_rules: false,
            called: BTreeMap::new(),
            announced: BTreeMap::new(),
            spent: None,
            unread: Unread::default(),
            finished: None,
            next_seq: 0,
        }
    }

    /// Folds records, the first of which begins a run or is a snapshot. There may be none.
    pub(crate) async fn of(
        checkpoints: &Checkpoints,
        key: &RunKey,
        history: &History,
    ) -> Result<Self, StoreError> {
        let mut folded = Self::new();
        for record in &history.records {
            let rules = read_rules(checkpoints, key, record).await?;
            folded.take(record, rules)?;
        }
        folded.next_seq = history.next_seq;
        let id = Some(key.run);
        folded.run.give_id(id);
        Ok(folded)
    }

    /// Loads what resuming needs, and folds it.
    pub(crate) async fn load(
        checkpoints: &Checkpoints,
        key: &RunKey,
        span: Span,
    ) -> Result<(Self, History), StoreError> {
        let history = checkpoints.load(key, span).await?;
        let folded = Self::of(checkpoints, key, &history).await?;
        Ok((folded, history))
    }

    /// Takes a record. What the run asks for because of it.
    pub(crate) fn take(
        &mut self,
        record: &Record,
        rules: Option<RunSpec>,
    ) -> Result<Vec<Effect>, StoreError> {
        if record.kind == Kind::Snapshot && record.schema == SCHEMA {
            self.restore(record)?;
            return Ok(Vec::new());
        }
        let entry = Entry::read(record)?;
        Ok(self.entry(entry.what, rules))
    }

    /// Takes what a record says.
    pub(crate) fn entry(&mut self, what: What, rules: Option<RunSpec>) -> Vec<Effect> {
        match what {
            What::Event(event) => return self.event(event),
            What::Effect(announced) => {
                if let Some(call) = announced.call() {
                    let key = match announced {
                        Announced::Tool { key, .. } => key,
                        _ => String::new(),
                    };
                    self.announced.insert(call, key);
                }
            }
            What::Note(Note::Begun { signature, input, .. }) => {
                self.run = Run::new(rules.unwrap_or_default());
                (self.signature, self.input, self.has_rules) = (signature, input, true);
            }
            What::Note(Note::Spent { spent }) => self.spent = Some(spent),
            What::Note(Note::Unread { usage, cost }) => self.unread.add(usage, cost),
            What::Note(Note::Amended { changes }) => {
                for change in changes {
                    // It could be made when it was journalled, so it can be made now.
                    let _ = self.amend(change);
                }
            }
            What::Note(Note::Finished(finished)) => self.finished = Some(finished),
            What::Forked(_) | What::Snapshot { .. } => {}
        }
        Vec::new()
    }

    /// Begins with a snapshot.
    pub(crate) fn restore(&mut self, record: &Record) -> Result<(), StoreError> {
        let State {
            run,
            signature,
            called,
            announced,
            spent,
            unread,
        } = record.decode::<State>()?;
        *self = Self {
            run,
            signature,
            has_rules: true,
            called: called.into_iter().collect(),
            announced: announced.into_iter().collect(),
            spent,
            unread,
            ..Self::new()
        };
        Ok(())
    }

    fn event(&mut self, event: Event) -> Vec<Effect> {
        let settled = settles(&event);
        let called = match &event {
            Event::ToolReturned { call, outcome } => {
                let ok = matches!(outcome, ToolOutcome::Returned(result) if !result.is_error);
                Some((*call, ok))
            }
            Event::ApprovalDecided {
                call,
                approval: Approval::Denied { .. },
            } => Some((*call, false)),
            _ => None,
        };
        let called = called.and_then(|(call, ok)| {
            let tool_call = self.run.tool_call(call)?;
            Some((call, CalledTool::of(tool_call, ok)))
        });
        let Ok(effects) = self.run.handle(event) else {
            return Vec::new();
        };
        self.called.extend(called);
        for call in settled {
            self.announced.remove(&call);
        }
        for effect in &effects {
            if let Effect::RejectTool { task, .. } = effect {
                self.called
                    .insert(task.call, CalledTool::of(&task.tool_call, false));
            }
        }
        if self.run.has_begun() {
            self.input = None;
        }
        effects
    }

    /// The calls that the run takes for begun and that were never announced, so that they were not begun.
    pub(crate) fn never_begun(&self) -> Vec<CallId> {
        let begun = self.run.begun().into_iter();
        begun.filter(|call| !self.announced.contains_key(call)).collect()
    }

    /// The payload of a snapshot that is taken here.
    pub(crate) fn snapshot_draft(&mut self) -> Result<Draft, StoreError> {
        forget(&mut self.announced, &self.run);
        let id = self.run.take_id();
        let state = StateRef {
            run: &self.run,
            signature: self.signature.as_ref(),
            called: self.called.iter().collect(),
            announced: self.announced.iter().collect(),
            spent: self.spent,
            unread: self.unread,
        };
        let draft = state.draft();
        self.run.give_id(id);
        draft
    }
}

/// Forgets of the announced calls those that the run does not wait for any more.
pub(crate) fn forget(announced: &mut BTreeMap<CallId, String>, run: &Run) {
    let begun = run.begun();
    announced.retain(|call, _| begun.contains(call) || run.tool_call(*call).is_some());
}

/// The calls of which an event says that nothing is under way for them any more.
pub(crate) fn settles(event: &Event) -> Vec<CallId> {
    match event {
        Event::ModelAnswered { call, .. }
        | Event::ApprovalDecided { call, .. }
        | Event::LimitReached { call: Some(call), .. }
        | Event::Vetoed { call: Some(call), .. }
        | Event::ToolReturned {
            call,
            outcome: ToolOutcome::Returned(_),
        } => vec![*call],
        Event::NotBegun { calls } => calls.clone(),
        _ => Vec::new(),
    }
}

/// The rules beside a record, if it has some.
pub(crate) async fn read_rules(
    checkpoints: &Checkpoints,
    key: &RunKey,
    record: &Record,
) -> Result<Option<RunSpec>, StoreError> {
    if record.kind != Kind::Marker || record.schema != crate::durable::record::NOTE_SCHEMA {
        return Ok(None);
    }
    match record.parts.first() {
        None => Ok(None),
        Some(Part::Inline(bytes)) => rules(record.seq, bytes).map(Some),
        Some(Part::Stored(part)) => {
            let bytes = checkpoints.part(key, *part).await?;
            rules(record.seq, &bytes).map(Some)
        }
        Some(_) => Err(StoreError::config("a part of a kind that is newer than this")),
    }
}

impl Folded {
    /// A run that was stopped and has no journal.
    pub(crate) fn adopt(run: Run) -> Self {
        let id = run.id();
        let mut folded = Self::new();
        let called = run.tool_results().into_iter();
        folded.called = (0..)
            .map(CallId)
            .zip(called.map(|(call, ok)| CalledTool::of(&call, ok)))
            .collect();
        let key = |call: &CallId| id.map_or_else(String::new, |id| format!("{id}/{call}"));
        let begun = run.begun().into_iter();
        folded.announced = begun.map(|call| (call, key(&call))).collect();
        let counts = run.counts();
        folded.spent = Some(Spent {
            tokens: counts.usage.map_or(0, |usage| usage.total_tokens()),
            cost: Cost::Priced(counts.cost.amount().unwrap_or_default()),
            tool_calls: u64::from(counts.tool_calls),
        });
        (folded.run, folded.has_rules) = (run, true);
        folded
    }

    pub(crate) fn spec(&self) -> &Arc<RunSpec> {
        self.run.spec()
    }
}
