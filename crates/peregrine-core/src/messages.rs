//! A conversation's messages: append-only in spirit, shared between requests, cheap to clone.
//!
//! Algorithm: copy-on-write around one `Arc`. Cloning is one reference count; pushing while nobody else
//! holds a clone appends in place; pushing while somebody does copies the list of pointers once, so the
//! other side never changes. Beside the list stands a small memo of encoded prefixes: a codec that has
//! encoded the first n messages finds those bytes again at the next turn and encodes only what is new.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Message;

/// How many codecs' prefixes one conversation remembers.
const MAX_PREFIXES: usize = 2;

/// The messages of a conversation, oldest first.
///
/// # Examples
///
/// ```
/// use peregrine_core::{Message, Messages};
///
/// let mut turns = Messages::from(vec![Message::user("hello")]);
/// let earlier = turns.clone();
/// turns.push(Message::assistant("hi"));
/// assert_eq!((earlier.len(), turns.len()), (1, 2));
/// ```
///
/// # Performance
///
/// `clone` is O(1); `push` is O(1) amortised while no other clone is alive, else O(n) pointer copies once.
#[derive(Clone, Default)]
pub struct Messages(Arc<Log>);

#[derive(Default)]
struct Log {
    items: Vec<Arc<Message>>,
    /// Invariant: an entry's bytes encode the first `count` of `items`, and `items` only ever grows.
    prefixes: Mutex<Vec<Prefix>>,
}

#[derive(Clone)]
struct Prefix {
    key: u64,
    count: usize,
    body: Bytes,
    range: Range<usize>,
}

impl Messages {
    /// No messages.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.items.is_empty()
    }

    /// The messages, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Message> + ExactSizeIterator {
        self.0.items.iter().map(AsRef::as_ref)
    }

    /// The message at a place.
    pub fn get(&self, index: usize) -> Option<&Message> {
        self.0.items.get(index).map(AsRef::as_ref)
    }

    /// The message at a place, shared: for another list that holds the same message without a copy.
    pub fn get_shared(&self, index: usize) -> Option<&Arc<Message>> {
        self.0.items.get(index)
    }

    /// The newest message.
    pub fn last(&self) -> Option<&Message> {
        self.0.items.last().map(AsRef::as_ref)
    }

    /// Appends a message.
    pub fn push(&mut self, message: impl Into<Arc<Message>>) {
        Arc::make_mut(&mut self.0).items.push(message.into());
    }

    /// Keeps the first `len` messages.
    pub fn truncate(&mut self, len: usize) {
        if len < self.len() {
            let log = Arc::make_mut(&mut self.0);
            log.items.truncate(len);
            log.prefixes
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner)
                .retain(|p| p.count <= len);
        }
    }

    /// Whether any encoding of its messages is remembered.
    pub fn has_encoding(&self) -> bool {
        let prefixes = self.0.prefixes.lock().unwrap_or_else(PoisonError::into_inner);
        !prefixes.is_empty()
    }

    /// The longest remembered encoding under `key`: how many messages it covers, and the bytes.
    ///
    /// For codecs. `key` must stand for everything beside the messages that the bytes depend on.
    pub fn encoded_prefix(&self, key: u64) -> Option<(usize, Bytes)> {
        let prefixes = self.0.prefixes.lock().unwrap_or_else(PoisonError::into_inner);
        prefixes
            .iter()
            .find(|prefix| prefix.key == key)
            .map(|prefix| (prefix.count, prefix.body.slice(prefix.range.clone())))
    }

    /// As [`encoded_prefix`](Self::encoded_prefix), if it covers more than `beyond` messages: how many, and the whole body
    /// that holds their encoding, with the place where it stands there.
    ///
    /// A body that nobody else holds is given away and forgotten, so that its buffer can be written on instead of copied;
    /// whoever takes it remembers what becomes of it.
    pub fn take_body(&self, key: u64, beyond: usize) -> Option<(usize, Bytes, Range<usize>)> {
        let mut prefixes = self.0.prefixes.lock().unwrap_or_else(PoisonError::into_inner);
        let place = prefixes
            .iter()
            .position(|prefix| prefix.key == key && prefix.count > beyond)?;
        let Prefix {
            count, body, range, ..
        } = match prefixes.get(place) {
            Some(prefix) if !prefix.body.is_unique() => prefix.clone(),
            _ => prefixes.remove(place),
        };
        Some((count, body, range))
    }

    /// Remembers that `bytes` encode the first `count` messages under `key`. A count beyond the end is
    /// ignored.
    pub fn remember_prefix(&self, key: u64, count: usize, bytes: Bytes) {
        let range = 0..bytes.len();
        self.remember_body(key, count, bytes, range);
    }

    /// Remembers that the bytes of `body` in `range` encode the first `count` messages under `key`. A count or a range
    /// beyond the end is ignored.
    pub fn remember_body(&self, key: u64, count: usize, body: Bytes, range: Range<usize>) {
        if count > self.len() || range.start > range.end || range.end > body.len() {
            return;
        }
        let mut prefixes = self.0.prefixes.lock().unwrap_or_else(PoisonError::into_inner);
        prefixes.retain(|prefix| prefix.key != key);
        if prefixes.len() == MAX_PREFIXES {
            prefixes.remove(0);
        }
        prefixes.push(Prefix {
            key,
            count,
            body,
            range,
        });
    }
}

impl Clone for Log {
    fn clone(&self) -> Self {
        let prefixes = self
            .prefixes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        Self {
            items: self.items.clone(),
            prefixes: Mutex::new(prefixes),
        }
    }
}

impl From<Vec<Message>> for Messages {
    fn from(messages: Vec<Message>) -> Self {
        messages.into_iter().collect()
    }
}

impl FromIterator<Message> for Messages {
    fn from_iter<I: IntoIterator<Item = Message>>(messages: I) -> Self {
        let items = messages.into_iter().map(Arc::new).collect();
        Self(Arc::new(Log {
            items,
            prefixes: Mutex::default(),
        }))
    }
}

impl FromIterator<Arc<Message>> for Messages {
    fn from_iter<I: IntoIterator<Item = Arc<Message>>>(messages: I) -> Self {
        Self(Arc::new(Log {
            items: messages.into_iter().collect(),
            prefixes: Mutex::default(),
        }))
    }
}

impl Extend<Message> for Messages {
    fn extend<I: IntoIterator<Item = Message>>(&mut self, messages: I) {
        Arc::make_mut(&mut self.0)
            .items
            .extend(messages.into_iter().map(Arc::new));
    }
}

impl PartialEq for Messages {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.items == other.0.items
    }
}

impl std::fmt::Debug for Messages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Serialize for Messages {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Messages {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<Message>::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_never_shows_in_an_earlier_clone_and_prefixes_stay_true() {
        let mut ours = Messages::from(vec![Message::user("a")]);
        ours.remember_prefix(7, 1, Bytes::from_static(b"a"));
        let mut theirs = ours.clone();
        ours.push(Message::user("b"));
        theirs.push(Message::user("c"));
        ours.remember_prefix(7, 2, Bytes::from_static(b"ab"));
        assert_eq!(theirs.encoded_prefix(7), Some((1, Bytes::from_static(b"a"))));
        assert_eq!(ours.encoded_prefix(7), Some((2, Bytes::from_static(b"ab"))));
        ours.truncate(1);
        assert_eq!(
            ours.encoded_prefix(7),
            None,
            "a longer prefix is forgotten when the list is cut"
        );
        assert_eq!(theirs.len(), 2);
    }

    #[test]
    fn a_body_that_nobody_else_holds_is_given_away() {
        let messages = Messages::from(vec![Message::user("a"), Message::user("b")]);
        let body = || Bytes::from(b"{[ab]}".to_vec());
        messages.remember_body(7, 2, body(), 2..4);
        assert_eq!(messages.encoded_prefix(7), Some((2, Bytes::from_static(b"ab"))));
        assert_eq!(messages.take_body(7, 2), None, "it covers no more than that");
        assert_eq!(messages.take_body(7, 0), Some((2, body(), 2..4)));
        assert_eq!(messages.encoded_prefix(7), None, "it was given away");

        let held = body();
        messages.remember_body(7, 2, held.clone(), 2..4);
        assert_eq!(messages.take_body(7, 0), Some((2, held.clone(), 2..4)));
        assert!(
            messages.encoded_prefix(7).is_some(),
            "somebody holds it, so it stays"
        );
        messages.remember_body(8, 2, held, 2..40);
        assert_eq!(messages.encoded_prefix(8), None, "a range beyond the end is none");
    }

    #[test]
    fn the_memo_is_bounded() {
        let messages = Messages::from(vec![Message::user("a")]);
        for key in 0..10 {
            messages.remember_prefix(key, 1, Bytes::new());
        }
        assert_eq!(
            (0..10)
                .filter(|key| messages.encoded_prefix(*key).is_some())
                .count(),
            MAX_PREFIXES
        );
        messages.remember_prefix(11, 5, Bytes::new());
        assert_eq!(messages.encoded_prefix(11), None);
    }
}
