//! What is stored: a value, when it was made, and until when it may be used.
//!
//! Invariant: times are absolute, so an entry that moves to another tier, or is read by another process or after a
//! restart, expires when it would have expired where it was made. Wall time may jump: an entry that claims to be made
//! in the future (beyond [`SKEW_MS`]) is treated as expired, because nobody can tell how old it is.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::{Error, Result, Tag};

/// The time that never comes.
pub const NEVER: u64 = u64::MAX;

/// How far the clocks of two processes may differ, in milliseconds.
pub const SKEW_MS: u64 = 60_000;

/// A value that can be kept in any store.
pub trait Value: Send + Sync + Sized + 'static {
    /// How many bytes it takes in memory, roughly.
    fn weight(&self) -> usize;

    /// Its stored form.
    ///
    /// # Errors
    ///
    /// [`Error::Encode`] if it has none.
    fn encode(&self) -> Result<Vec<u8>>;

    /// Reads the stored form, which may be hostile.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if these bytes are none.
    fn decode(bytes: &[u8]) -> Result<Self>;
}

impl Value for Bytes {
    fn weight(&self) -> usize {
        self.len()
    }

    fn encode(&self) -> Result<Vec<u8>> {
        Ok(self.to_vec())
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        Ok(Self::copy_from_slice(bytes))
    }
}

impl Value for String {
    fn weight(&self) -> usize {
        self.len()
    }

    fn encode(&self) -> Result<Vec<u8>> {
        Ok(self.as_bytes().to_vec())
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        Self::from_utf8(bytes.to_vec()).map_err(|_| Error::corrupt("a text is not UTF-8"))
    }
}

/// A stored value with its times. Cheap to clone.
///
/// `Debug` shows the times, never the value: that is somebody's answer.
pub struct Entry<V> {
    /// The value.
    pub value: Arc<V>,
    /// When it was made, in milliseconds of Unix time.
    pub created: u64,
    /// Until when it is fresh (exclusive); [`NEVER`] if it does not expire.
    pub fresh_until: u64,
    /// Until when a store keeps it (exclusive): `fresh_until`, and the time in which it may be served stale.
    pub keep_until: u64,
    /// By what it can be removed beside its key.
    pub tags: Arc<[Tag]>,
}

impl<V> fmt::Debug for Entry<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("created", &self.created)
            .field("fresh_until", &self.fresh_until)
            .field("keep_until", &self.keep_until)
            .finish_non_exhaustive()
    }
}

impl<V> Clone for Entry<V> {
    fn clone(&self) -> Self {
        Self {
            value: self.value.clone(),
            tags: self.tags.clone(),
            ..*self
        }
    }
}

impl<V> Entry<V> {
    /// A value that is fresh for `ttl` from `now` on; forever with `None`.
    pub fn new(value: V, now: u64, ttl: Option<Duration>, tags: &[Tag]) -> Self {
        let until = ttl.map_or(NEVER, |ttl| after(now, ttl));
        Self {
            value: Arc::new(value),
            created: now,
            fresh_until: until,
            keep_until: until,
            tags: Arc::from(tags),
        }
    }

    /// Lets a store keep it for longer than it is fresh.
    #[must_use]
    pub fn kept_for(mut self, longer: Duration) -> Self {
        self.keep_until = after(self.fresh_until, longer);
        self
    }

    /// Whether a store may still give it out.
    pub const fn is_kept(&self, now: u64) -> bool {
        is_kept(self.created, self.keep_until, now)
    }

    /// Whether it is fresh.
    pub const fn is_fresh(&self, now: u64) -> bool {
        self.is_kept(now) && now < self.fresh_until
    }

    /// How old it is.
    pub const fn age(&self, now: u64) -> Duration {
        Duration::from_millis(now.saturating_sub(self.created))
    }
}

/// Whether what was made then and is kept until then may still be given out.
pub(crate) const fn is_kept(created: u64, keep_until: u64, now: u64) -> bool {
    (keep_until == NEVER || now < keep_until) && created <= now.saturating_add(SKEW_MS)
}

/// A point in time after another; [`NEVER`] stays.
pub(crate) fn after(from: u64, by: Duration) -> u64 {
    from.saturating_add(u64::try_from(by.as_millis()).unwrap_or(NEVER))
}
