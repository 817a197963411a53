//! Keys: a canonical, prefix-free encoding of what is asked, hashed to 256 bits.
//!
//! Every value is written as a byte for its type and then in a form that says where it ends (numbers in fixed width,
//! texts and lists behind their length), so no sequence of values is the beginning of another and no two different
//! sequences have the same bytes. Two keys are then equal only if what was written is equal, or if somebody found a
//! collision of BLAKE3. A key begins with a domain (what kind of thing it names) and a scope (whose): there is no way
//! to make one that forgets either.
//!
//! Small values are gathered in a buffer that is used again, and hashed at once; a long text is hashed where it is.

use std::cell::RefCell;
use std::fmt;

/// From here on a text is hashed where it stands instead of being copied first.
const LONG_BYTES: usize = 16 << 10;
/// How many buffers a thread keeps, and how large.
const MAX_BUFFERS: usize = 4;
const MAX_BUFFER_BYTES: usize = 64 << 10;

/// Which entry: 256 bits that stand for everything that can change the answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// A key of bytes that are a cryptographic digest already.
    pub const fn from_digest(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first eight bytes as a number: uniform, for tables.
    pub(crate) const fn head(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Display for Key {
    /// 64 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// Writes a key, value by value.
///
/// # Examples
///
/// ```
/// use peregrine_cache::KeyBuilder;
///
/// let mut key = KeyBuilder::new("geocoding", b"tenant-7");
/// key.text("Av. da Liberdade").count(1);
/// let key = key.finish();
///
/// let mut other = KeyBuilder::new("geocoding", b"tenant-8");
/// other.text("Av. da Liberdade").count(1);
/// assert_ne!(key, other.finish());
/// ```
#[must_use]
pub struct KeyBuilder {
    buffer: Vec<u8>,
    hasher: Option<Box<blake3::Hasher>>,
    written: usize,
}

impl KeyBuilder {
    /// Begins a key: what kind of thing it names, and whose it is.
    pub fn new(domain: &str, scope: &[u8]) -> Self {
        let mut key = Self::bare();
        key.text(domain).bytes(scope);
        key
    }

    /// Without domain and scope: for parts of a key that are hashed by themselves.
    pub(crate) fn bare() -> Self {
        Self {
            buffer: BUFFERS.take(),
            hasher: None,
            written: 0,
        }
    }

    /// Writes bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.sized(b'b', bytes)
    }

    /// Writes a text.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.sized(b't', text.as_bytes())
    }

    /// Writes a number without a sign.
    pub fn count(&mut self, number: u64) -> &mut Self {
        self.fixed(b'u', number.to_le_bytes())
    }

    /// Writes a number.
    pub fn integer(&mut self, number: i64) -> &mut Self {
        self.fixed(b'i', number.to_le_bytes())
    }

    /// Writes a floating-point number. Both zeros are one number, and so is everything that is none.
    pub fn float(&mut self, number: f64) -> &mut Self {
        let number = match number {
            0.0 => 0.0,
            _ if number.is_nan() => f64::NAN,
            _ => number,
        };
        self.fixed(b'f', number.to_bits().to_le_bytes())
    }

    /// Writes a truth.
    pub fn flag(&mut self, truth: bool) -> &mut Self {
        self.raw(&[if truth { b'y' } else { b'n' }])
    }

    /// Writes which of several things follows.
    pub fn variant(&mut self, which: u8) -> &mut Self {
        self.raw(&[b'v', which])
    }

    /// Writes that as many things follow.
    pub fn list(&mut self, len: usize) -> &mut Self {
        self.raw(b"l");
        self.length(len);
        self
    }

    /// Writes a value, or that there is none.
    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) -> &mut Self {
        match value {
            Some(value) => {
                self.raw(b"+");
                write(self, value);
                self
            }
            None => self.raw(b"-"),
        }
    }

    /// How many bytes were written.
    #[cfg(feature = "layer")]
    pub(crate) const fn written(&self) -> usize {
        self.written
    }

    /// Takes what was written so far as a digest, and begins anew.
    pub(crate) fn digest(&mut self) -> [u8; 32] {
        let digest = match self.hasher.take() {
            None => blake3::hash(&self.buffer),
            Some(mut hasher) => hasher.update(&self.buffer).finalize(),
        };
        self.buffer.clear();
        self.written = 0;
        digest.into()
    }

    /// Goes on with what another one has, which is empty then. What that was is to be told from what stands before.
    #[cfg(feature = "layer")]
    pub(crate) fn absorb(&mut self, other: &mut Self) {
        if other.hasher.is_some() {
            self.raw(b"d");
            let digest = other.digest();
            self.raw(&digest);
        } else {
            self.raw(b"w");
            self.length(other.buffer.len());
            self.raw(&other.buffer);
            other.buffer.clear();
            other.written = 0;
        }
    }

    /// The key.
    pub fn finish(mut self) -> Key {
        Key(self.digest())
    }

    fn sized(&mut self, kind: u8, bytes: &[u8]) -> &mut Self {
        self.raw(&[kind]);
        self.length(bytes.len());
        self.raw(bytes)
    }

    fn fixed(&mut self, kind: u8, bytes: [u8; 8]) -> &mut Self {
        self.raw(&[kind]);
        self.raw(&bytes)
    }

    /// LEB128: seven bits a byte, the last one without the high bit.
    fn length(&mut self, len: usize) {
        let mut rest = len as u64;
        while rest > 0x7f {
            self.raw(&[(rest as u8) | 0x80]);
            rest >>= 7;
        }
        self.raw(&[rest as u8]);
    }

    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.written += bytes.len();
        if bytes.len() < LONG_BYTES {
            self.buffer.extend_from_slice(bytes);
        } else {
            let hasher = self.hasher.get_or_insert_default();
            hasher.update(&self.buffer).update(bytes);
            self.buffer.clear();
        }
        self
    }
}

impl Drop for KeyBuilder {
    fn drop(&mut self) {
        BUFFERS.give(std::mem::take(&mut self.buffer));
    }
}

impl fmt::Debug for KeyBuilder {
    /// What was written may be a prompt, so only its size is told.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyBuilder")
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

struct Buffers;
static BUFFERS: Buffers = Buffers;
thread_local! {
    static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

impl Buffers {
    fn take(&self) -> Vec<u8> {
        // A thread that ends has no pool any more.
        POOL.try_with(|pool| pool.borrow_mut().pop())
            .ok()
            .flatten()
            .unwrap_or_default()
    }

    fn give(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() == 0 || buffer.capacity() > MAX_BUFFER_BYTES {
            return;
        }
        buffer.clear();
        let _ended = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.len() < MAX_BUFFERS {
                pool.push(buffer);
            }
        });
    }
}

/// What entries have in common and can be removed by: 128 bits of a digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag([u8; 16]);

impl Tag {
    /// A label of the user's.
    pub fn label(text: &str) -> Self {
        Self::of("label", |tag| {
            tag.text(text);
        })
    }

    /// All that a model answered.
    pub fn model(provider: &str, model: &str) -> Self {
        Self::of("model", |tag| {
            tag.text(provider).text(model);
        })
    }

    /// All that belongs to a scope: the same bytes with which keys begin.
    pub fn scope(scope: &[u8]) -> Self {
        Self::of("scope", |tag| {
            tag.bytes(scope);
        })
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    pub(crate) const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    fn of(kind: &str, write: impl FnOnce(&mut KeyBuilder)) -> Self {
        let mut tag = KeyBuilder::bare();
        tag.text(kind);
        write(&mut tag);
        let digest = tag.digest();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self(bytes)
    }
}

impl fmt::Display for Tag {
    /// 32 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tag({self})")
    }
}

/// A table keyed by digests, which need no hashing.
pub(crate) type DigestMap<K, T> = std::collections::HashMap<K, T, DigestHasher>;

/// Takes the first eight bytes of a digest as its hash.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DigestHasher;

impl std::hash::BuildHasher for DigestHasher {
    type Hasher = Head;

    fn build_hasher(&self) -> Head {
        Head(0)
    }
}

#[derive(Debug)]
pub(crate) struct Head(u64);

impl std::hash::Hasher for Head {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut head = [0; 8];
        let len = bytes.len().min(8);
        head[..len].copy_from_slice(&bytes[..len]);
        self.0 = self.0.rotate_left(5) ^ u64::from_le_bytes(head);
    }

    /// The length of the array, which is the same for all.
    fn write_usize(&mut self, _: usize) {}
}
