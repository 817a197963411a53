//! A store and how it is used: what a program holds on to.

use std::sync::Arc;

use bytes::Bytes;
use peregrine_core::{RunId, Scope};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::history::{self, History, Sizes, Span};
use crate::journal::Journal;
use crate::options::{Durability, Options};
use crate::record::{Kind, Origin, PartRef, RunKey};
use crate::store::{Acquire, Begin, Intent, Persist, Range, RunInfo, RunWriter, Store};

/// The journals of one store, written and read with the same [`Options`]. Cheap to clone.
///
/// # Examples
///
/// ```
/// use peregrine_checkpoints::{Checkpoints, Kind, Options, RunKey};
/// use peregrine_core::{RunId, Scope};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let checkpoints = Checkpoints::open("memory:", Options::default()).await?;
/// let key = RunKey::new(Scope::new("acme", "ticket-17")?, RunId::from_parts(1_700_000_000_000, [1; 10]));
///
/// let mut journal = checkpoints.create(&key).await?;
/// journal.append(Kind::Event, 1, "the user asked").await?;
/// journal.append(Kind::Event, 1, "the model answered").await?;
/// journal.finish().await?;
///
/// let (journal, history) = checkpoints.resume(&key).await?;
/// assert_eq!(history.records[1].decode::<String>()?, "the model answered");
/// assert_eq!(journal.next_seq(), 2);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Checkpoints {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) options: Arc<Options>,
}

/// The payload of the marker with which a fork begins, under the schema version [`Forked::SCHEMA`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forked {
    /// The run that was forked.
    pub from: RunId,
    /// How many of its records are shared.
    pub at: u64,
}

impl Forked {
    /// The version of this payload.
    pub const SCHEMA: u32 = 1;
}

impl Checkpoints {
    /// The journals of a store that is open.
    pub fn new(store: Arc<dyn Store>, options: Options) -> Self {
        Self {
            store,
            options: Arc::new(options),
        }
    }

    /// Opens the store that `uri` names: `memory:`, `dir:PATH`, and with their features `sqlite:PATH` and
    /// `postgres://..`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a URI that names no store that is built in; what the store says.
    pub async fn open(uri: &str, options: Options) -> Result<Self> {
        let store = crate::uri::open(uri).await?;
        Ok(Self::new(store, options))
    }

    /// The options.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The same journals with other options, for runs that need them.
    #[must_use]
    pub fn with_options(&self, change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options::clone(&self.options);
        change(&mut options);
        Self {
            store: Arc::clone(&self.store),
            options: Arc::new(options),
        }
    }

    /// The same journals with another durability.
    #[must_use]
    pub fn with_durability(&self, durability: Durability) -> Self {
        self.with_options(|options| options.durability = durability)
    }

    /// Begins a run.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyExists`], and what the store says.
    pub async fn create(&self, key: &RunKey) -> Result<Journal> {
        let writer = self.acquire(key, Intent::Create(None), false).await?;
        self.journal(key, writer, 0, Sizes::default()).await
    }

    /// Goes on with a run: its journal, and what was recorded since the last snapshot, that included. A tail that was
    /// never finished has been cut; [`History::tail`] says so.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::Leased`] while somebody else has it; [`Error::Damaged`]; what the store says.
    pub async fn resume(&self, key: &RunKey) -> Result<(Journal, History)> {
        self.resume_with(key, false).await
    }

    /// As [`Checkpoints::resume`], but takes the lease from whoever has it. For when the holder is known to hang: it
    /// finds itself fenced off at its next append, but what it does outside the journal until then, it does.
    ///
    /// # Errors
    ///
    /// As for [`Checkpoints::resume`]; [`Error::Leased`] only while somebody else takes it over too.
    pub async fn take_over(&self, key: &RunKey) -> Result<(Journal, History)> {
        self.resume_with(key, true).await
    }

    /// Goes on with a run, or begins it if it is not there.
    ///
    /// # Errors
    ///
    /// As for [`Checkpoints::resume`].
    pub async fn resume_or_create(&self, key: &RunKey) -> Result<(Journal, Option<History>)> {
        match self.resume(key).await {
            Ok((journal, history)) => Ok((journal, Some(history))),
            Err(Error::NotFound { .. }) => match self.create(key).await {
                Ok(journal) => Ok((journal, None)),
                // Somebody was faster.
                Err(Error::AlreadyExists { .. }) => {
                    let (journal, history) = self.resume(key).await?;
                    Ok((journal, Some(history)))
                }
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    async fn resume_with(&self, key: &RunKey, takeover: bool) -> Result<(Journal, History)> {
        let writer = self.acquire(key, Intent::Resume, takeover).await?;
        // Under the lease, so that nothing is missed; the tail it cut is gone by now, so the writer tells.
        let mut history = self.load(key, Span::SINCE_SNAPSHOT).await?;
        if let Some(writer) = &writer {
            history.tail = history.tail.or_else(|| writer.cut());
        }
        let journal = self.journal(key, writer, history.next_seq, history.sizes).await?;
        Ok((journal, history))
    }

    /// Begins a run that shares the first `at` records of another, without copying them: a fork. Returns its journal,
    /// which begins with a marker ([`Forked`]), and what it shares since the last snapshot.
    ///
    /// The other run may be at work meanwhile. Its shared records stay as long as the fork does.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::OutOfRange`] if the run has no such record; [`Error::AlreadyExists`];
    /// [`Error::TooDeep`] for a fork of too many forks.
    pub async fn fork(&self, parent: &RunKey, at: u64, fork: RunId) -> Result<(Journal, History)> {
        let owner = self.owner(parent, at).await?;
        let shared = Span::SINCE_SNAPSHOT.upto(at);
        let mut history = self.load_of(parent, shared).await?;
        let first = history
            .records
            .first()
            .map_or(history.next_seq, |record| record.seq);
        if history.next_seq != at || (at > 0 && history.records.is_empty()) {
            return Err(Error::OutOfRange {
                run: parent.run,
                asked: at,
                first,
                next: history.next_seq,
            });
        }
        let key = parent.sibling(fork);
        let origin = Origin { run: owner.run, at };
        let writer = self.acquire(&key, Intent::Create(Some(origin)), false).await?;
        history.origin = Some(origin);
        history.tail = None;
        if let Some(writer) = writer {
            // Before the pin was there, somebody may have trimmed or removed what it pins.
            let still_there = self.load_of(&key, Span::from(at.saturating_sub(1))).await;
            if let Err(error) = still_there {
                writer.release().await?;
                self.store.remove(&key).await?;
                return Err(error);
            }
            let mut journal = self.journal(&key, Some(writer), at, history.sizes).await?;
            let marker = Forked { from: parent.run, at };
            journal.append(Kind::Marker, Forked::SCHEMA, &marker).await?;
            return Ok((journal, history));
        }
        Ok((self.journal(&key, None, at, history.sizes).await?, history))
    }

    /// The run whose own record `at - 1` is: `run`, or one it was forked from.
    async fn owner(&self, run: &RunKey, at: u64) -> Result<RunKey> {
        let lineage = self.lineage(run).await?;
        let owner = lineage.iter().take_while(|origin| at <= origin.at).last();
        Ok(owner.map_or_else(|| run.clone(), |origin| run.sibling(origin.run)))
    }

    /// Where a run was forked from, where that was forked from, and so on. Ends early at a run whose first records
    /// were trimmed, for it needs no others.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::TooDeep`].
    pub async fn lineage(&self, key: &RunKey) -> Result<Vec<Origin>> {
        let mut lineage: Vec<Origin> = Vec::new();
        let mut key = key.clone();
        loop {
            let nothing = Range::new(Begin::Nothing, None).with_ancestors(!lineage.is_empty());
            let stored = self.store.read(&key, &nothing).await?;
            match stored.origin.filter(|origin| origin.at == stored.first) {
                None => return Ok(lineage),
                Some(_) if lineage.len() == self.options.limits.max_lineage => {
                    return Err(Error::TooDeep {
                        what: "the lineage",
                        limit: self.options.limits.max_lineage,
                    });
                }
                Some(origin) => {
                    key = key.sibling(origin.run);
                    lineage.push(origin);
                }
            }
        }
    }

    /// Loads records, without a lease. A writer may be at work; a record that it is just writing shows as
    /// [`History::tail`].
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::Damaged`], which names the place; [`Error::Unsupported`] for a later version;
    /// [`Error::TooLarge`], [`Error::MissingKey`], [`Error::Sealed`]; what the store says.
    pub async fn load(&self, key: &RunKey, span: Span) -> Result<History> {
        self.load_of(key, span).await
    }

    async fn load_of(&self, key: &RunKey, span: Span) -> Result<History> {
        history::load(&self.store, &self.options, key, span).await
    }

    /// The content of a part that a record of this run names.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::Damaged`] if it is not what was stored; [`Error::TooLarge`].
    pub async fn part(&self, key: &RunKey, part: PartRef) -> Result<Bytes> {
        history::fetch(&self.store, &self.options, key, part).await
    }

    /// The runs of a scope, oldest first; at most `limit`, behind `after`.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub async fn runs(&self, scope: &Scope, after: Option<RunId>, limit: usize) -> Result<Vec<RunInfo>> {
        self.store.runs(scope, after, limit).await
    }

    /// Removes a run. What kept forks share with it stays until they are gone.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::Leased`].
    pub async fn remove(&self, key: &RunKey) -> Result<()> {
        self.store.remove(key).await
    }

    async fn acquire(
        &self,
        key: &RunKey,
        intent: Intent,
        takeover: bool,
    ) -> Result<Option<Box<dyn RunWriter>>> {
        let persist = match self.options.durability {
            Durability::None => return Ok(None),
            Durability::OnFinish | Durability::ProcessSafe => Persist::Process,
            Durability::PowerSafe => Persist::Power,
        };
        let how = Acquire {
            intent,
            persist,
            takeover,
            at: self.options.clock.unix(),
        };
        self.store.acquire(key, how).await.map(Some)
    }

    async fn journal(
        &self,
        key: &RunKey,
        writer: Option<Box<dyn RunWriter>>,
        next: u64,
        sizes: Sizes,
    ) -> Result<Journal> {
        let mut writer = writer;
        let stored = match &mut writer {
            Some(writer) => writer.settle().await?,
            None => next,
        };
        if stored != next {
            return Err(Error::damaged(
                key.run,
                "the journal",
                0,
                next,
                "the store counts other records than it has",
            ));
        }
        Ok(Journal::new(key.clone(), &self.options, writer, next, sizes))
    }
}
