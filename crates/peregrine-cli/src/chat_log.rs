//! The journal of a chat: what was asked and what came of it, so that the conversation goes on after whatever ends the
//! process.
//!
//! Each question is a run of its own, with a journal of its own, until it is answered: then what is new in the conversation
//! is recorded here and the run is removed, so that a chat takes as much room as what was said. A question without an
//! answer at the end is one that was under way; its run goes on.
//!
//! Invariant: agents refuse records of this schema, so a chat is never taken for a run.

use std::collections::BTreeMap;

use peregrine::checkpoints::{Error, History, Journal, Kind, Record, RunKey, Span};
use peregrine::core::{Message, RunId};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::keep::Kept;
use crate::runs::store::Runs;

/// The version of its records. Those of agents have smaller numbers.
pub(crate) const SCHEMA: u32 = 2_001;

/// A chat that is kept.
#[derive(Debug)]
pub(crate) struct ChatLog {
    runs: Runs,
    journal: Journal,
    conversation: Conversation,
}

/// What was said, and what is under way.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Conversation {
    /// With what it began.
    pub(crate) labels: BTreeMap<String, String>,
    /// Oldest first, without instructions.
    pub(crate) messages: Vec<Message>,
    /// The question that has no answer yet.
    pub(crate) open: Option<Asked>,
    /// The run of the last one that has, which may still be there.
    over: Option<RunId>,
}

/// A question, and the run that answers it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    pub(crate) question: String,
    pub(crate) run: RunId,
}

/// A record.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "chat", rename_all = "snake_case")]
enum Said {
    /// It begins, or goes on with another model.
    Begun { labels: BTreeMap<String, String> },
    /// A question is asked.
    Asked { question: String, run: RunId },
    /// What is new in the conversation: the question, what tools said, the answer.
    Answered { messages: Vec<Message> },
    /// The question leaves no trace.
    Unanswered,
    /// Everything before is forgotten.
    Forgotten,
}

impl Conversation {
    fn take(&mut self, said: Said) {
        match said {
            Said::Begun { labels } => self.labels = labels,
            Said::Asked { question, run } => self.open = Some(Asked { question, run }),
            Said::Answered { messages } => {
                self.messages.extend(messages);
                self.over = self.open.take().map(|asked| asked.run);
            }
            Said::Unanswered => self.over = self.open.take().map(|asked| asked.run),
            Said::Forgotten => self.messages.clear(),
        }
    }

    fn of(history: &History) -> Result<Self, Error> {
        let mut conversation = Self::default();
        for record in &history.records {
            conversation.read(record)?;
        }
        Ok(conversation)
    }

    fn read(&mut self, record: &Record) -> Result<(), Error> {
        match (record.kind, record.schema) {
            (Kind::Snapshot, SCHEMA) => *self = record.decode()?,
            (_, SCHEMA) => self.take(record.decode()?),
            (_, found) => {
                return Err(Error::Unsupported {
                    what: "the schema of a chat",
                    found,
                    known: SCHEMA,
                });
            }
        }
        Ok(())
    }
}

/// Whether the records of a run are those of a chat.
///
/// # Errors
///
/// [`Failure`], with what the store says.
pub(crate) async fn is_chat(runs: &Runs, key: &RunKey) -> Result<bool, Failure> {
    let history = runs.checkpoints.load(key, Span::SINCE_SNAPSHOT).await?;
    Ok(history
        .records
        .first()
        .is_some_and(|record| record.schema == SCHEMA))
}

impl ChatLog {
    /// Begins a chat.
    ///
    /// # Errors
    ///
    /// [`Failure`], with what the store says.
    pub(crate) async fn begin(
        runs: Runs,
        id: RunId,
        labels: BTreeMap<String, String>,
        messages: Vec<Message>,
    ) -> Result<Self, Failure> {
        let journal = runs.checkpoints.create(&runs.key(id)).await?;
        let mut log = Self {
            runs,
            journal,
            conversation: Conversation::default(),
        };
        log.append(Said::Begun { labels }).await?;
        if !messages.is_empty() {
            log.append(Said::Answered { messages }).await?;
        }
        Ok(log)
    }

    /// Goes on with a chat.
    ///
    /// # Errors
    ///
    /// [`Failure`], with what the store says; also that somebody else goes on with it.
    pub(crate) async fn resume(runs: Runs, key: &RunKey) -> Result<Self, Failure> {
        let (journal, history) = runs.checkpoints.resume(key).await?;
        let conversation = Conversation::of(&history)?;
        let mut log = Self {
            runs,
            journal,
            conversation,
        };
        log.clear_up().await;
        Ok(log)
    }

    /// What was said.
    pub(crate) fn conversation(&self) -> &Conversation {
        &self.conversation
    }

    /// The chat's id.
    pub(crate) fn id(&self) -> RunId {
        self.journal.key().run
    }

    /// Where it is.
    pub(crate) fn runs(&self) -> &Runs {
        &self.runs
    }

    /// The run that answers a question.
    pub(crate) fn kept(&self, run: RunId) -> Kept {
        Kept::begin(&self.runs, run, BTreeMap::new())
    }

    /// Says that a question is asked.
    ///
    /// # Errors
    ///
    /// [`Failure`], with what the store says.
    pub(crate) async fn asked(&mut self, question: &str, run: RunId) -> Result<(), Failure> {
        let question = question.to_owned();
        self.append(Said::Asked { question, run }).await
    }

    /// Says what is new in the conversation.
    ///
    /// # Errors
    ///
    /// [`Failure`], with what the store says.
    pub(crate) async fn answered(&mut self, messages: Vec<Message>) -> Result<(), Failure> {
        self.append(Said::Answered { messages }).await?;
        self.clear_up().await;
        if self.journal.snapshot_due() {
            self.journal.snapshot(SCHEMA, &self.conversation).await?;
        }
        Ok(())
    }

    /// Says that the question leaves no trace.
    ///
    /// # Errors
    ///
    /// [`Failure`], with what the store says.
    pub(crate) async fn unanswered(&mut self) -> Result<(), Failure> {
        self.append(Said::Unanswered).await?;
        self.clear_up().await;
        Ok(())
    }

    /// Says that everything before is forgotten.
    ///
    /// # Errors
    ///
    /// [`Failure`], with what the store says.
    pub(crate) async fn forgotten(&mut self) -> Result<(), Failure> {
        self.append(Said::Forgotten).await
    }

    /// Says with what it goes on.
    ///
    /// # Errors
    ///
    /// [`Failure`], with what the store says.
    pub(crate) async fn goes_on_with(&mut self, labels: BTreeMap<String, String>) -> Result<(), Failure> {
        self.append(Said::Begun { labels }).await
    }

    /// Writes what waits.
    ///
    /// # Errors
    ///
    /// [`Failure`], with what the store says.
    pub(crate) async fn finish(self) -> Result<(), Failure> {
        Ok(self.journal.finish().await?)
    }

    async fn append(&mut self, said: Said) -> Result<(), Failure> {
        self.journal.append(Kind::Event, SCHEMA, &said).await?;
        self.conversation.take(said);
        Ok(())
    }

    /// Removes the run of a question that is over. One that stays is tried again when the chat goes on, and harms nobody.
    async fn clear_up(&mut self) {
        if let Some(run) = self.conversation.over.take() {
            let _ = self.runs.checkpoints.remove(&self.runs.key(run)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_without_an_answer_is_open_and_leaves_no_trace() {
        let run = RunId::from_parts(1, [1; 10]);
        let asked = |question: &str| Said::Asked {
            question: question.to_owned(),
            run,
        };
        let turn = |text: &str| Said::Answered {
            messages: vec![Message::user(text), Message::assistant(text)],
        };
        let mut conversation = Conversation::default();
        for said in [
            asked("one"),
            turn("one"),
            asked("two"),
            Said::Unanswered,
            asked("three"),
        ] {
            conversation.take(said);
        }
        assert_eq!(conversation.messages.len(), 2);
        let open = conversation.open.clone().map(|asked| asked.question);
        assert_eq!((open.as_deref(), conversation.over), (Some("three"), Some(run)));
        conversation.take(turn("three"));
        assert_eq!((conversation.messages.len(), &conversation.open), (4, &None));
        conversation.take(Said::Forgotten);
        assert!(conversation.messages.is_empty());
    }
}
