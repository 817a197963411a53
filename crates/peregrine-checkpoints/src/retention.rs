//! Which runs stay: by age, number and bytes.

use std::time::Duration;

use peregrine_core::{RunId, Scope, UnixTime};

use crate::checkpoints::Checkpoints;
use crate::error::{Error, Result};
use crate::record::RunKey;

/// So many runs are listed at once.
const PAGE: usize = 1_000;

/// Which runs of a scope are kept: those that no limit excludes. Without a limit, all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Retention {
    /// Runs whose last record is older go.
    pub max_age: Option<Duration>,
    /// Only the runs that were written last stay, so many of them.
    pub max_runs: Option<usize>,
    /// The runs that were written last stay, as many as have so many bytes together.
    pub max_bytes: Option<u64>,
}

impl Retention {
    /// Keeps runs for so long after their last record.
    #[must_use]
    pub fn with_max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// Keeps so many runs.
    #[must_use]
    pub fn with_max_runs(mut self, runs: usize) -> Self {
        self.max_runs = Some(runs);
        self
    }

    /// Keeps so many bytes.
    #[must_use]
    pub fn with_max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }
}

/// What pruning did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Pruned {
    /// The runs that are gone.
    pub removed: Vec<RunId>,
    /// Runs that should have gone, but are being written.
    pub busy: Vec<RunId>,
    /// How many runs are left, those that are busy included.
    pub kept: usize,
}

impl Checkpoints {
    /// Removes the runs of a scope that `retention` does not keep. What kept forks share with them stays. A run that is
    /// being written is not removed.
    ///
    /// Deciding takes the same time for each run, however long it is.
    ///
    /// # Errors
    ///
    /// What the store says. Some of the runs may be gone, the oldest first.
    ///
    /// # Cancel safety
    ///
    /// Each run is gone or there; call it again.
    pub async fn prune(&self, scope: &Scope, retention: &Retention) -> Result<Pruned> {
        let Retention {
            max_age,
            max_runs,
            max_bytes,
        } = *retention;
        let mut runs: Vec<(UnixTime, RunId, u64)> = Vec::new();
        loop {
            let after = runs.last().map(|(_, run, _)| *run);
            let page = self.runs(scope, after, PAGE).await?;
            runs.extend(page.iter().map(|info| (info.updated, info.run, info.bytes)));
            if page.len() < PAGE {
                break;
            }
        }
        runs.sort_unstable_by(|one, other| other.cmp(one));
        let age = max_age.map_or(u64::MAX, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let oldest = self.options.clock.unix().0.saturating_sub(age);
        let (mut bytes, mut stay) = (0_u64, 0);
        for (place, (updated, _, size)) in runs.iter().enumerate() {
            bytes = bytes.saturating_add(*size);
            let excluded = updated.0 < oldest
                || max_runs.is_some_and(|most| place >= most)
                || max_bytes.is_some_and(|most| bytes > most);
            if excluded {
                break;
            }
            stay = place + 1;
        }
        let mut pruned = Pruned {
            kept: stay,
            ..Pruned::default()
        };
        for (_, run, _) in runs[stay..].iter().rev() {
            match self.remove(&RunKey::new(scope.clone(), *run)).await {
                Ok(()) => pruned.removed.push(*run),
                Err(Error::Leased { .. }) => {
                    pruned.busy.push(*run);
                    pruned.kept += 1;
                }
                // Somebody else removed it.
                Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pruned)
    }
}
