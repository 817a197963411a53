//! Vectors by what was embedded: least recently used first out, bounded in entries and bytes.
//!
//! Keys are the whole content (model, length, purpose, options, text), not a hash of it: texts are smaller than their
//! vectors as a rule, and two texts never share a vector by accident.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use super::Vector;

/// What an entry costs beside its text and vector: links, table, counters. An estimate.
const ENTRY_BYTES: usize = 160;

/// Vectors that were made before. Clones share them, and one cache may serve the batchers of several models.
///
/// What is known of a model is its provider and name: if two servers give different vectors under the same ones, give each
/// of them a cache of its own.
///
/// What is in it depends on the texts alone, not on who asked. Where it must not be seen (by how long an answer takes)
/// whether somebody else embedded the same text, give each of them a cache of their own.
///
/// # Examples
///
/// ```
/// use peregrine_providers::EmbedCache;
///
/// let cache = EmbedCache::new(10_000, 64 << 20);
/// assert_eq!((cache.len(), cache.bytes()), (0, 0));
/// ```
#[derive(Clone)]
pub struct EmbedCache(Arc<Mutex<Kept>>);

struct Kept {
    vectors: LruCache<Arc<str>, Vector>,
    bytes: usize,
    max_entries: usize,
    max_bytes: usize,
}

impl EmbedCache {
    /// An empty cache of at most `max_entries` vectors and about `max_bytes` bytes.
    pub fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self(Arc::new(Mutex::new(Kept {
            vectors: LruCache::unbounded(),
            bytes: 0,
            max_entries,
            max_bytes,
        })))
    }

    /// How many vectors there are.
    pub fn len(&self) -> usize {
        self.kept().vectors.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// About how many bytes they take.
    pub fn bytes(&self) -> usize {
        self.kept().bytes
    }

    /// Forgets everything.
    pub fn clear(&self) {
        let mut kept = self.kept();
        kept.vectors.clear();
        kept.bytes = 0;
    }

    pub(super) fn get(&self, key: &str) -> Option<Vector> {
        self.kept().vectors.get(key).cloned()
    }

    pub(super) fn put(&self, key: &Arc<str>, vector: Vector) {
        let mut kept = self.kept();
        let size = size(key, &vector);
        if size > kept.max_bytes || kept.max_entries == 0 {
            return;
        }
        kept.bytes += size;
        if let Some((key, old)) = kept.vectors.push(Arc::clone(key), vector) {
            kept.bytes -= self::size(&key, &old);
        }
        while kept.bytes > kept.max_bytes || kept.vectors.len() > kept.max_entries {
            let Some((key, old)) = kept.vectors.pop_lru() else {
                break;
            };
            kept.bytes -= self::size(&key, &old);
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for EmbedCache {
    /// Counts, not texts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (entries, bytes) = {
            let kept = self.kept();
            (kept.vectors.len(), kept.bytes)
        };
        f.debug_struct("EmbedCache")
            .field("entries", &entries)
            .field("bytes", &bytes)
            .finish_non_exhaustive()
    }
}

fn size(key: &str, vector: &[f32]) -> usize {
    key.len() + size_of_val(vector) + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(length: usize) -> Vector {
        vec![0.0; length].into()
    }

    #[test]
    fn both_bounds_hold_and_the_least_recently_used_goes_first() {
        let cache = EmbedCache::new(2, 1 << 20);
        let [a, b, c]: [Arc<str>; 3] = ["a", "b", "c"].map(Arc::from);
        cache.put(&a, vector(4));
        cache.put(&b, vector(4));
        assert!(cache.get("a").is_some());
        cache.put(&c, vector(4));
        assert!(cache.get("b").is_none() && cache.get("a").is_some() && cache.get("c").is_some());
        let bytes = cache.bytes();
        cache.put(&a, vector(8));
        assert_eq!(
            (cache.len(), cache.bytes()),
            (2, bytes + 16),
            "a new vector for the same text"
        );
        cache.clear();
        assert_eq!((cache.is_empty(), cache.bytes()), (true, 0));

        let small = EmbedCache::new(100, 2 * (ENTRY_BYTES + 1 + 16));
        for key in [&a, &b, &c] {
            small.put(key, vector(4));
            assert!(small.bytes() <= 2 * (ENTRY_BYTES + 17));
        }
        assert_eq!((small.len(), small.get("a").is_some()), (2, false));
        small.put(&a, vector(1_000));
        assert_eq!(small.len(), 2, "what does not fit at all pushes nobody out");
    }
}
