//! Two runs compared: how far they are the same, and what happened differently from there.

use peregrine_checkpoints::{Record, Span};

use crate::agent::Agent;
use crate::durable::record::{Entry, Note, What};
use crate::durable::stored::RunRef;
use crate::error::Error;
use crate::run::Event;

/// Where two runs part, and what happened in each of them from there.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RunDiff {
    /// So many records at the beginning say the same.
    pub common: u64,
    /// Of those, so many are shared, because one run is a fork of the other, or both are of a third.
    pub shared: u64,
    /// How many records the left run has.
    pub left_records: u64,
    /// How many records the right run has.
    pub right_records: u64,
    /// What happened differently, in order. Events are compared place by place by what was said and done: ids, times and
    /// use of a provider are not.
    pub differences: Vec<Difference>,
}

/// One thing that happened differently.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Difference {
    /// In the left run, if anything.
    pub left: Option<Entry>,
    /// In the right run, if anything.
    pub right: Option<Entry>,
}

impl RunDiff {
    /// Whether the same was said and done in both.
    pub fn is_same(&self) -> bool {
        self.differences.is_empty()
    }
}

impl Agent {
    /// Compares two runs.
    ///
    /// # Errors
    ///
    /// [`Error::Checkpoints`] if one of them is not there or cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any time.
    pub async fn diff(&self, left: impl Into<RunRef>, right: impl Into<RunRef>) -> Result<RunDiff, Error> {
        let (checkpoints, left) = self.stored_key(left.into())?;
        let (_, right) = self.stored_key(right.into())?;
        let diff = checkpoints.diff(&left, &right).await?;
        let lefts = checkpoints.load(&left, Span::from(diff.common)).await?;
        let rights = checkpoints.load(&right, Span::from(diff.common)).await?;
        let differences = pair(&happened(&lefts.records)?, &happened(&rights.records)?);
        Ok(RunDiff {
            common: diff.common,
            shared: diff.shared,
            left_records: diff.left_next,
            right_records: diff.right_next,
            differences,
        })
    }
}

/// What happened, and by which rules; announcements, snapshots and the like follow from those.
fn happened(records: &[Record]) -> Result<Vec<(&Record, Entry)>, Error> {
    let mut happened = Vec::new();
    for record in records {
        let entry = Entry::read(record)?;
        if let What::Event(_) | What::Note(Note::Begun { .. } | Note::Amended { .. }) = entry.what {
            happened.push((record, entry));
        }
    }
    Ok(happened)
}

fn pair(left: &[(&Record, Entry)], right: &[(&Record, Entry)]) -> Vec<Difference> {
    let (mut lefts, mut rights) = (left.iter().peekable(), right.iter().peekable());
    let mut differences = Vec::new();
    loop {
        let (left, right) = match (lefts.peek(), rights.peek()) {
            (None, None) => return differences,
            (Some(one), Some(other)) if one.0.says_the_same(other.0) || same(&one.1, &other.1) => {
                lefts.next();
                rights.next();
                continue;
            }
            // What only one of them went through has no counterpart.
            (Some(one), Some(_)) if is_aside(&one.1) => (lefts.next(), None),
            (Some(_), Some(other)) if is_aside(&other.1) => (None, rights.next()),
            _ => (lefts.next(), rights.next()),
        };
        differences.push(Difference {
            left: left.map(|(_, entry)| entry.clone()),
            right: right.map(|(_, entry)| entry.clone()),
        });
    }
}

fn is_aside(entry: &Entry) -> bool {
    matches!(
        entry.what,
        What::Note(Note::Amended { .. })
            | What::Event(Event::Interrupted { .. } | Event::NotBegun { .. } | Event::Resumed { .. })
    )
}

/// Whether the same was said and done. Calls are numbered differently in a run that was interrupted.
fn same(left: &Entry, right: &Entry) -> bool {
    let (What::Event(left), What::Event(right)) = (&left.what, &right.what) else {
        // Rules stand beside their note, which were compared with the records.
        return false;
    };
    match (left, right) {
        (Event::ModelAnswered { outcome: left, .. }, Event::ModelAnswered { outcome: right, .. }) => {
            match (left, right) {
                (Ok(left), Ok(right)) => left.message == right.message && left.finish == right.finish,
                (left, right) => left == right,
            }
        }
        (Event::ToolReturned { outcome: left, .. }, Event::ToolReturned { outcome: right, .. }) => {
            left == right
        }
        (Event::AnswerChecked { verdict: left, .. }, Event::AnswerChecked { verdict: right, .. }) => {
            left == right
        }
        (Event::ApprovalDecided { approval: left, .. }, Event::ApprovalDecided { approval: right, .. }) => {
            left == right
        }
        (left, right) => left == right,
    }
}
