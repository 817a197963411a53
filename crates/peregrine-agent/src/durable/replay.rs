//! Replay: a recorded run once more, from its events alone. No model is asked, no tool is called, nothing is written.
//!
//! The events are fed into a fresh run, and what it asks for is compared with what was announced: which call, of what, with
//! which request, by digest. Snapshots and the end are compared by the bytes of the state. So a run whose replay does not
//! diverge is the recorded one to the byte.

use std::collections::VecDeque;
use std::sync::Arc;

use peregrine_checkpoints::{Kind, Record, Span};

use crate::agent::Agent;
use crate::driver::Start;
use crate::durable::digest::{Digest, Requests};
use crate::durable::fold::{Folded, read_rules, state_digest};
use crate::durable::record::{Announced, Entry, Note, SCHEMA, STATE_FORM, What};
use crate::durable::stored::RunRef;
use crate::error::{Error, RunError};
use crate::output::RunOutput;
use crate::run::{Effect, Event, Form, Run, RunSpec};

/// A replay came to something else than what is recorded: the first record that says so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the replay parts from the journal at record {seq}: recorded is {recorded}, the replay comes to {came}"
)]
#[non_exhaustive]
pub struct Divergence {
    /// The record.
    pub seq: u64,
    /// What it says.
    pub recorded: String,
    /// What the replay came to.
    pub came: String,
}

/// A run that was replayed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Replayed {
    /// The run in its last state.
    pub run: Run,
    /// How it ended, if it has: to the byte what [`Agent::run`] gave.
    pub outcome: Option<Result<RunOutput, RunError>>,
    /// How many records were gone through.
    pub records: u64,
    /// How many announced calls were compared.
    pub calls: u64,
}

impl Agent {
    /// Replays a run by the rules with which it was recorded.
    ///
    /// # Errors
    ///
    /// [`Error::Diverged`], which names the first record; [`Error::Checkpoints`] if it is not there or cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any time.
    pub async fn replay(&self, run: impl Into<RunRef>) -> Result<Replayed, Error> {
        self.replay_by(run.into(), false).await
    }

    /// Replays a run by the rules of this agent: the first record at which it would ask for something else, with these
    /// instructions, tools, bounds and this strategy, is the divergence. What would be answered, nobody knows; the form of
    /// a typed run is taken from its journal.
    ///
    /// # Errors
    ///
    /// As [`replay`](Self::replay).
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any time.
    pub async fn replay_with_own_rules(&self, run: impl Into<RunRef>) -> Result<Replayed, Error> {
        self.replay_by(run.into(), true).await
    }

    async fn replay_by(&self, run: RunRef, by_own_rules: bool) -> Result<Replayed, Error> {
        let (checkpoints, key) = self.stored_key(run)?;
        let history = checkpoints.load(&key, Span::ALL).await?;
        let mut player = Player {
            folded: Folded::new(),
            recorded: by_own_rules.then(Folded::new),
            requests: Requests::default(),
            expected: VecDeque::new(),
            calls: 0,
        };
        for record in &history.records {
            let rules = read_rules(&checkpoints, &key, record).await?;
            let own = match (&rules, by_own_rules) {
                (Some(rules), true) => Some(self.own_rules(rules)),
                _ => None,
            };
            player.take(record, rules, own)?;
        }
        let Player {
            mut folded, calls, ..
        } = player;
        folded.run.give_id(Some(key.run));
        let run = folded.run.clone();
        let outcome = match run.ended() {
            Some(_) => Some(match self.driver(Start::Replayed(Box::new(folded)), false) {
                Ok(mut driver) => driver.finish().await,
                Err(error) => Err(error),
            }),
            None => None,
        };
        Ok(Replayed {
            run,
            outcome,
            records: history.records.len() as u64,
            calls,
        })
    }

    /// This agent's rules for a run that was recorded with others.
    fn own_rules(&self, recorded: &RunSpec) -> RunSpec {
        let mut own = Arc::unwrap_or_clone(self.ready_rules());
        own.template.scope.clone_from(&recorded.template.scope);
        if recorded.form == Form::Answer {
            own.form = Form::Answer;
            own.head.extend(recorded.head.last().cloned());
        }
        own
    }
}

struct Player {
    folded: Folded,
    /// The run by the recorded rules, beside one by others.
    recorded: Option<Folded>,
    requests: Requests,
    /// What must be announced next.
    expected: VecDeque<Announced>,
    calls: u64,
}

impl Player {
    fn take(&mut self, record: &Record, rules: Option<RunSpec>, own: Option<RunSpec>) -> Result<(), Error> {
        let seq = record.seq;
        if record.kind == Kind::Snapshot && record.schema == SCHEMA {
            return self.snapshot(record);
        }
        let entry = Entry::read(record)?;
        match &entry.what {
            What::Effect(found) => {
                self.announced(seq, found)?;
            }
            // Whoever was interrupted before the announcement begins with one of these.
            What::Event(Event::Interrupted { .. } | Event::NotBegun { .. } | Event::Resumed { .. })
            | What::Forked(_) => {
                self.expected.clear();
            }
            What::Event(event) => self.nothing_expected(seq, event.name())?,
            What::Note(Note::Finished(finished)) => {
                self.nothing_expected(seq, "the end")?;
                let state = state_digest(&mut self.folded.run);
                let is_comparable = self.recorded.is_none() && finished.form == STATE_FORM;
                if is_comparable && state != finished.state {
                    return Err(diverged(
                        seq,
                        format!("the end in the state {}", finished.state),
                        format!("the state {state}"),
                    ));
                }
                if self.folded.run.ended().is_none() {
                    return Err(diverged(
                        seq,
                        "the end".to_owned(),
                        "a run that goes on".to_owned(),
                    ));
                }
            }
            What::Note(Note::Amended { .. }) => self.requests = Requests::default(),
            _ => {}
        }
        let name = entry.what.name();
        let before = self.strays();
        if let Some(recorded) = &mut self.recorded {
            recorded.entry(entry.what.clone(), rules.clone());
        }
        let effects = self.folded.entry(entry.what, own.or(rules));
        if let (Some((ours, theirs)), Some((ours_then, theirs_then))) = (before, self.strays())
            && ours_then > ours
            && theirs_then == theirs
        {
            let came = "a run that does not wait for it".to_owned();
            return Err(diverged(seq, format!("the event `{name}`"), came));
        }
        let announced = effects
            .iter()
            .filter_map(|effect| announce(effect, &self.folded, &mut self.requests));
        self.expected.extend(announced);
        Ok(())
    }

    /// How many events nobody waited for, by either rules.
    fn strays(&self) -> Option<(u64, u64)> {
        let recorded = self.recorded.as_ref()?;
        Some((self.folded.run.counts().strays, recorded.run.counts().strays))
    }

    fn announced(&mut self, seq: u64, found: &Announced) -> Result<(), Error> {
        self.calls += 1;
        let expected = self.expected.pop_front().map(|expected| match (expected, found) {
            // Its key was made of the id of the run that announced it first.
            (
                Announced::Tool {
                    call,
                    thread,
                    call_id,
                    name,
                    arguments,
                    effect,
                    approved,
                    key,
                },
                Announced::Tool { key: theirs, .. },
            ) => Announced::Tool {
                call,
                thread,
                call_id,
                name,
                arguments,
                effect,
                approved,
                key: if key.is_empty() { theirs.clone() } else { key },
            },
            (expected, _) => expected,
        });
        match expected {
            Some(expected) if expected == *found => Ok(()),
            Some(expected) => Err(diverged(seq, told(found), told(&expected))),
            None => Err(diverged(
                seq,
                told(found),
                "nothing that is to be done".to_owned(),
            )),
        }
    }

    fn nothing_expected(&self, seq: u64, found: &str) -> Result<(), Error> {
        match self.expected.front() {
            None => Ok(()),
            Some(expected) => Err(diverged(seq, format!("`{found}`"), told(expected))),
        }
    }

    fn snapshot(&mut self, record: &Record) -> Result<(), Error> {
        if !self.folded.has_rules {
            // The records before it were trimmed.
            self.folded.restore(record)?;
            if let Some(recorded) = &mut self.recorded {
                recorded.restore(record)?;
            }
            return Ok(());
        }
        let state = self.folded.snapshot_draft()?.payload;
        if self.recorded.is_some() || state == record.payload {
            return Ok(());
        }
        // As this version writes it.
        let mut recorded = Folded::new();
        recorded.restore(record)?;
        let recorded = recorded.snapshot_draft()?.payload;
        if state != recorded {
            let place = state
                .iter()
                .zip(&recorded)
                .take_while(|(one, other)| one == other);
            let (came, recorded) = (state.len(), recorded.len());
            return Err(diverged(
                record.seq,
                format!("a snapshot of {recorded} bytes"),
                format!("a state of {came} bytes that differs at byte {}", place.count()),
            ));
        }
        Ok(())
    }
}

/// What must be announced for an effect. A call that was not announced before has no key yet.
fn announce(effect: &Effect, folded: &Folded, requests: &mut Requests) -> Option<Announced> {
    Some(match effect {
        Effect::CallModel(asked) => Announced::model(asked, requests),
        Effect::CallTool(task) => {
            let key = folded.announced.get(&task.call).cloned().unwrap_or_default();
            Announced::tool(folded.spec(), task, key)
        }
        Effect::AskPerson(task) => Announced::approval(task),
        Effect::LoadMemory => Announced::LoadMemory,
        Effect::SaveMemory { messages } => Announced::SaveMemory {
            messages: Digest::of_messages(messages),
        },
        _ => return None,
    })
}

fn diverged(seq: u64, recorded: String, came: String) -> Error {
    Error::Diverged(Box::new(Divergence { seq, recorded, came }))
}

/// An announcement as text. It holds names and digests, and no payload.
fn told(announced: &Announced) -> String {
    serde_json::to_string(announced).unwrap_or_else(|_| "an announcement".to_owned())
}
