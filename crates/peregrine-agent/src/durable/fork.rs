//! Forks: a run that goes on from a record of another, differently.
//!
//! A fork shares the records before it with the run it was forked from; the store copies none of them. Its own journal
//! begins with what is changed. What those records say was done was done, and is not done again: a call with side effects
//! that was begun before and has its result behind it is in doubt in the fork, unless the fork says what it returned.

use peregrine_checkpoints::{Error as StoreError, Span};
use peregrine_core::{Message, RunId, ToolCall, ToolResult};
use serde::{Deserialize, Serialize};

use crate::agent::Agent;
use crate::driver::new_run_id;
use crate::durable::fold::Folded;
use crate::durable::record::Note;
use crate::durable::stored::{RunRef, StoredRun};
use crate::error::{ConfigProblem, Error};
use crate::input::Input;
use crate::run::Limits;

/// What a fork does differently, as it is journalled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Change {
    /// The model is told this before everything else.
    Instructions {
        /// System messages.
        head: Vec<Message>,
    },
    /// There are so many models.
    Models {
        /// How many.
        models: u32,
        /// Which is asked next, with those behind it as its fallbacks; `None` is the one that was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        first: Option<u32>,
    },
    /// A tool returned this.
    ToolResult {
        /// The model's id of the call.
        call_id: String,
        /// What it returned.
        result: ToolResult,
    },
    /// Other bounds.
    Limits {
        /// The bounds.
        limits: Limits,
    },
    /// Something else was asked.
    Input {
        /// The messages, oldest first.
        input: Vec<Message>,
    },
}

/// A fork to be made: from where, and what is different.
///
/// # Examples
///
/// ```
/// use peregrine_agent::durable::Fork;
///
/// let fork = Fork::at(7).with_instructions("Be brief.").with_tool_result("call-1", "4.5 degrees");
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Fork {
    at: Option<u64>,
    run_id: Option<RunId>,
    model: Option<u32>,
    changes: Vec<Change>,
}

impl Fork {
    /// Shares the records before this one.
    pub fn at(seq: u64) -> Self {
        Self {
            at: Some(seq),
            run_id: None,
            model: None,
            changes: Vec::new(),
        }
    }

    /// Shares all records that there are.
    pub fn whole() -> Self {
        Self {
            at: None,
            ..Self::at(0)
        }
    }

    fn with(mut self, change: Change) -> Self {
        self.changes.push(change);
        self
    }

    /// The id of the fork; made up if there is none.
    pub fn with_run_id(mut self, id: RunId) -> Self {
        self.run_id = Some(id);
        self
    }

    /// Tells the model this instead of the agent's instructions.
    pub fn with_instructions(self, text: impl Into<String>) -> Self {
        let head = vec![Message::system(text)];
        self.with(Change::Instructions { head })
    }

    /// Asks this one of the agent's models next: 0 is its first choice. Another model altogether comes with another agent
    /// that makes the fork.
    pub fn with_model(mut self, place: u32) -> Self {
        self.model = Some(place);
        self
    }

    /// Gives a call of a tool, by the model's id, another result, or its first. A model must not have seen the result that
    /// it had: that is, share the records up to its result, or up to its announcement.
    pub fn with_tool_result(self, call_id: impl Into<String>, result: impl Into<String>) -> Self {
        let call_id = call_id.into();
        let result = ToolResult::new(&ToolCall::new(call_id.as_str(), "", "{}"), result.into());
        self.with(Change::ToolResult { call_id, result })
    }

    /// As [`with_tool_result`](Self::with_tool_result), with a result of any content.
    pub fn with_tool_outcome(self, result: ToolResult) -> Self {
        let call_id = result.call_id.clone();
        self.with(Change::ToolResult { call_id, result })
    }

    /// Sets the bounds that the run keeps itself. Those of tokens and money are its agent's.
    pub fn with_limits(self, limits: Limits) -> Self {
        self.with(Change::Limits { limits })
    }

    /// Asks something else, where no model has answered yet.
    pub fn with_input(self, input: impl Into<Input>) -> Self {
        let input = input.into().messages;
        self.with(Change::Input { input })
    }
}

impl Agent {
    /// Forks a run: a new one, with an id of its own, that has the first records of the other, and goes on from there
    /// with what the [`Fork`] changes. The other one may be at work meanwhile. Nothing runs before the fork is
    /// [resumed](StoredRun::resume).
    ///
    /// Calls of idempotent tools that the shared records announce keep their keys. What the shared records used counts
    /// against the fork's budget.
    ///
    /// # Errors
    ///
    /// [`ConfigProblem::Fork`] if a change makes no sense there; [`Error::Checkpoints`], among others if the run has no
    /// such record or the fork's id is taken.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the fork may be there already, without its changes: remove it, or take another id.
    pub async fn fork(&self, run: impl Into<RunRef>, fork: Fork) -> Result<StoredRun, Error> {
        let Fork {
            at,
            run_id,
            model,
            mut changes,
        } = fork;
        let problem = |problem: String| Error::Config(ConfigProblem::Fork { problem });
        let (checkpoints, key) = self.stored_key(run.into())?;
        let span = at.map_or(Span::SINCE_SNAPSHOT, |at| Span::SINCE_SNAPSHOT.upto(at));
        let (mut folded, _) = Folded::load(&checkpoints, &key, span).await?;
        let at = at.unwrap_or(folded.next_seq);
        let models = u32::try_from(self.models()).unwrap_or(u32::MAX);
        if let Some(first) = model.filter(|first| *first >= models) {
            return Err(problem(format!(
                "the agent has {models} models, and none is number {first}"
            )));
        }
        if model.is_some() || (folded.spec().models != models && folded.run.ended().is_none()) {
            changes.push(Change::Models { models, first: model });
        }
        // Records that are not there are the store's to tell.
        if folded.next_seq == at {
            if !folded.has_rules {
                return Err(problem("it would share nothing; run it anew".to_owned()));
            }
            for change in &changes {
                folded.amend(change.clone()).map_err(problem)?;
            }
            if !folded.run.has_begun() && folded.input.is_none() {
                let what = "what was asked is not among the records that it would share; share one more, or give it an input";
                return Err(problem(what.to_owned()));
            }
        }
        let id = run_id.unwrap_or_else(new_run_id);
        let (mut journal, _) = checkpoints.fork(&key, at, id).await?;
        let key = key.sibling(id);
        if !changes.is_empty() {
            let note = Note::Amended { changes };
            let appended = match note.draft() {
                Ok(draft) => journal.append_draft(&draft).await.map(|_| ()),
                Err(error) => Err(error),
            };
            if let Err(error) = appended {
                drop(journal);
                // A fork without its changes is none that was asked for.
                let _removed: Result<(), StoreError> = checkpoints.remove(&key).await;
                return Err(error.into());
            }
        }
        journal.finish().await?;
        self.load(key).await
    }
}

impl Folded {
    /// Makes a change, or says why it makes no sense here.
    pub(crate) fn amend(&mut self, change: Change) -> Result<(), String> {
        match change {
            Change::Input { input } if !self.run.has_begun() && !input.is_empty() => {
                self.input = Some(input);
                Ok(())
            }
            change => self.run.amend(change),
        }
    }
}
