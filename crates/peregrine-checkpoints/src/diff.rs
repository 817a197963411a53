//! Where two runs part.

use peregrine_core::RunId;

use crate::checkpoints::Checkpoints;
use crate::error::Result;
use crate::history::{History, Span};
use crate::record::{Record, RunKey};

/// What two runs have in common, and where they part.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diff {
    /// So many records at the beginning say the same; times are not compared.
    pub common: u64,
    /// Of those, so many are shared by lineage and were not even looked at.
    pub shared: u64,
    /// The first record of the left run that the right one does not have.
    pub left: Option<Record>,
    /// The first record of the right run that the left one does not have.
    pub right: Option<Record>,
    /// The number of the next record of the left run.
    pub left_next: u64,
    /// The number of the next record of the right run.
    pub right_next: u64,
}

impl Diff {
    /// Whether the runs say the same from beginning to end.
    pub fn is_same(&self) -> bool {
        self.left.is_none() && self.right.is_none()
    }
}

impl Checkpoints {
    /// Compares two runs: the first record in which they differ, by everything but the time.
    ///
    /// What they share by being forks of one another is not loaded. Of runs that were trimmed, what both still have is
    /// compared.
    ///
    /// # Errors
    ///
    /// As for [`Checkpoints::load`].
    pub async fn diff(&self, left: &RunKey, right: &RunKey) -> Result<Diff> {
        let shared = if left.scope == right.scope {
            let (left, right) = (self.runs_of(left).await?, self.runs_of(right).await?);
            let both = left.iter().flat_map(|(run, upto)| {
                let same = right.iter().filter(move |(other, _)| other == run);
                same.map(|(_, other)| *upto.min(other))
            });
            both.max().unwrap_or(0)
        } else {
            0
        };
        let left = self.load(left, Span::from(shared)).await?;
        let right = self.load(right, Span::from(shared)).await?;
        Ok(compare(shared, left, right))
    }

    /// The runs that a run consists of, each with the number of its records before which it is part of it.
    async fn runs_of(&self, key: &RunKey) -> Result<Vec<(RunId, u64)>> {
        let mut upto = u64::MAX;
        let mut runs = vec![(key.run, upto)];
        for origin in self.lineage(key).await? {
            upto = upto.min(origin.at);
            runs.push((origin.run, upto));
        }
        Ok(runs)
    }
}

fn compare(shared: u64, left: History, right: History) -> Diff {
    let (left_next, right_next) = (left.next_seq, right.next_seq);
    let first = |history: &History| {
        history
            .records
            .first()
            .map_or(history.next_seq, |record| record.seq)
    };
    let begin = first(&left).max(first(&right));
    let from = |history: History| {
        history
            .records
            .into_iter()
            .skip_while(move |record| record.seq < begin)
    };
    let (mut left, mut right) = (from(left), from(right));
    let mut common = begin.min(left_next).min(right_next);
    loop {
        let (left, right) = (left.next(), right.next());
        match (&left, &right) {
            (Some(one), Some(other)) if one.says_the_same(other) => common = one.seq + 1,
            _ => {
                return Diff {
                    common,
                    shared: shared.min(left_next).min(right_next),
                    left,
                    right,
                    left_next,
                    right_next,
                };
            }
        }
    }
}
