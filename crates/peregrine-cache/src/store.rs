//! The one trait of all stores.
//!
//! [`conformance`](crate::conformance) is what it means, as code: each store of this crate runs it, and so can one of
//! yours. A store may lose an entry whenever it likes. It must never give out what was not put there, under another
//! key, after its time, or after it was removed.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{Entry, Key, Result, Tag, Value};

/// Keeps entries by key.
///
/// `now` is wall time in milliseconds; a store has no clock of its own.
#[async_trait]
pub trait Store<V: Value>: Send + Sync + fmt::Debug + 'static {
    /// Looks an entry up if that needs no waiting for another machine; [`Lookup::Ask`] if it does.
    ///
    /// # Errors
    ///
    /// What failed. A damaged entry is removed, and an error of kind `Corrupt`.
    fn get_now(&self, key: &Key, now: u64) -> Result<Lookup<V>>;

    /// Looks an entry up.
    ///
    /// # Errors
    ///
    /// As [`get_now`](Self::get_now).
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    async fn get(&self, key: &Key, now: u64) -> Result<Option<Entry<V>>>;

    /// Stores an entry, in the place of an older one. False if it did not: the entry is too large, or past its time.
    ///
    /// # Errors
    ///
    /// What failed. The older entry may be gone then.
    ///
    /// # Cancel safety
    ///
    /// The entry is stored or not.
    async fn put(&self, key: &Key, entry: &Entry<V>, now: u64) -> Result<bool>;

    /// Removes entries, and says how many. The cost is proportional to that number.
    ///
    /// # Errors
    ///
    /// What failed. Some may have been removed.
    ///
    /// # Cancel safety
    ///
    /// Some may have been removed; ask again.
    async fn remove(&self, what: &Selector) -> Result<u64>;

    /// What it holds and what happened to it, without asking another machine.
    fn status(&self) -> StoreStatus;
}

/// What a store found without waiting.
#[derive(Debug)]
pub enum Lookup<V> {
    /// An entry.
    Hit(Entry<V>),
    /// There is none.
    Miss,
    /// To know that, [`Store::get`] has to be asked.
    Ask,
}

/// Which entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Selector {
    /// The one of a key.
    Key(Key),
    /// All with a tag: a label, a model, a scope.
    Tag(Tag),
    /// All.
    All,
}

impl Selector {
    /// Whether an entry with this key and these tags is one of them.
    pub fn means(&self, key: &Key, tags: &[Tag]) -> bool {
        match self {
            Self::Key(one) => one == key,
            Self::Tag(tag) => tags.contains(tag),
            Self::All => true,
        }
    }
}

/// What a store holds and what happened to it since it was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStatus {
    /// What kind of store it is: `memory`, `disk`, `redis`, `tiers`, or a name of yours.
    pub name: &'static str,
    /// How many entries it holds, if it knows.
    pub entries: Option<u64>,
    /// How many bytes they take, if it knows.
    pub bytes: Option<u64>,
    /// How many entries it dropped for want of room.
    pub evictions: u64,
    /// How many entries it found damaged.
    pub corrupt: u64,
}

impl StoreStatus {
    /// The status of a store of which nothing else is known.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }
}

#[async_trait]
impl<V: Value, S: Store<V> + ?Sized> Store<V> for Arc<S> {
    fn get_now(&self, key: &Key, now: u64) -> Result<Lookup<V>> {
        (**self).get_now(key, now)
    }

    async fn get(&self, key: &Key, now: u64) -> Result<Option<Entry<V>>> {
        (**self).get(key, now).await
    }

    async fn put(&self, key: &Key, entry: &Entry<V>, now: u64) -> Result<bool> {
        (**self).put(key, entry, now).await
    }

    async fn remove(&self, what: &Selector) -> Result<u64> {
        (**self).remove(what).await
    }

    fn status(&self) -> StoreStatus {
        (**self).status()
    }
}
