//! Opening the journal of a run that begins or goes on.

use std::future::Future;
use std::pin::Pin;

use peregrine_checkpoints::{Checkpoints, Error as StoreError, History, Journal, RunKey};

use crate::durable::fold::Folded;
use crate::error::{ConfigProblem, Error};
use crate::run::{More, Run};

/// A journal that is being opened.
pub(crate) type Opening = Pin<Box<dyn Future<Output = Result<Box<Opened>, Error>> + Send>>;

/// An open journal, and what it says.
pub(crate) struct Opened {
    pub(crate) journal: Journal,
    /// The run, if it goes on.
    pub(crate) stored: Option<Stored>,
}

pub(crate) struct Stored {
    pub(crate) folded: Folded,
    pub(crate) more: More,
    /// Whether the journal has nothing of it yet.
    pub(crate) is_new: bool,
}

/// What is to go on.
#[derive(Debug, Clone)]
pub(crate) struct StoredStart {
    pub(crate) checkpoints: Checkpoints,
    pub(crate) key: RunKey,
    pub(crate) more: More,
    /// Whether the lease is taken from whoever has it.
    pub(crate) takes_over: bool,
}

/// The journal of a new run. One that is there, and in which nothing was ever asked, is as good as none: whoever began it
/// was never told that it had begun.
pub(crate) fn create(checkpoints: Checkpoints, key: RunKey) -> Opening {
    Box::pin(async move {
        let journal = match checkpoints.create(&key).await {
            Ok(journal) => journal,
            Err(StoreError::AlreadyExists { run }) => {
                // Without the lease: somebody may be at work on it.
                let history = checkpoints
                    .load(&key, peregrine_checkpoints::Span::SINCE_SNAPSHOT)
                    .await?;
                if !is_bare(&checkpoints, &key, &history).await? {
                    return Err(StoreError::AlreadyExists { run }.into());
                }
                let (journal, history) = checkpoints.resume(&key).await?;
                if !is_bare(&checkpoints, &key, &history).await? {
                    return Err(StoreError::AlreadyExists { run }.into());
                }
                journal
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Box::new(Opened {
            journal,
            stored: None,
        }))
    })
}

async fn is_bare(checkpoints: &Checkpoints, key: &RunKey, history: &History) -> Result<bool, StoreError> {
    if history.records.len() > 2 {
        return Ok(false);
    }
    let folded = Folded::of(checkpoints, key, history).await?;
    Ok(!folded.run.has_begun() && folded.input.is_none())
}

/// The journal of a run that goes on.
pub(crate) fn resume(start: StoredStart) -> Opening {
    Box::pin(async move {
        let StoredStart {
            checkpoints,
            key,
            more,
            takes_over,
        } = start;
        let (journal, history) = match takes_over {
            true => checkpoints.take_over(&key).await?,
            false => checkpoints.resume(&key).await?,
        };
        let folded = Folded::of(&checkpoints, &key, &history).await?;
        let stored = Stored {
            folded,
            more,
            is_new: false,
        };
        Ok(Box::new(Opened {
            journal,
            stored: Some(stored),
        }))
    })
}

/// The journal of a run that was stopped and is at hand. If it has none, it gets one.
pub(crate) fn take_up(checkpoints: Checkpoints, key: RunKey, run: Run, more: More) -> Opening {
    Box::pin(async move {
        let (journal, folded, is_new) = match checkpoints.resume(&key).await {
            Ok((journal, history)) => {
                let folded = Folded::of(&checkpoints, &key, &history).await?;
                if folded.run.counts() != run.counts() {
                    let problem =
                        "its journal is not where it was stopped; go on with what is there (`Agent::load`)";
                    return Err(Error::Config(ConfigProblem::Resume {
                        problem: problem.to_owned(),
                    }));
                }
                (journal, folded, false)
            }
            Err(StoreError::NotFound { .. }) => {
                let journal = checkpoints.create(&key).await?;
                (journal, Folded::adopt(run), true)
            }
            Err(error) => return Err(error.into()),
        };
        let stored = Stored { folded, more, is_new };
        Ok(Box::new(Opened {
            journal,
            stored: Some(stored),
        }))
    })
}
