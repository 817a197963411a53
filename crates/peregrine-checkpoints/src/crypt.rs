//! Encryption of payloads and parts, with keys of the caller.
//!
//! XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha) over what was compressed before. Each record and part has a nonce of
//! 192 random bits: forks write different records under the same number, and a record that was cut off after a crash
//! is written again under its number, so a nonce that is counted could come twice; a random one of this length does
//! not. Scope, run, number and form are bound to the ciphertext as associated data, so that a record cannot be moved.
//!
//! The sealed form is the length of the key's id (1 byte), the id, the nonce (24 bytes), the ciphertext and its tag (16
//! bytes). Numbers, kinds of frames and lengths of compressed payloads can be seen by whoever can read the store.

#[cfg(feature = "encrypt")]
use std::collections::BTreeMap;
use std::fmt;
#[cfg(feature = "encrypt")]
use std::sync::Arc;

#[cfg(feature = "encrypt")]
use chacha20poly1305::aead::{Aead, Generate, KeyInit, Payload};
#[cfg(feature = "encrypt")]
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use crate::error::{Error, Result};
use crate::options::Options;
use crate::record::{PartId, RunKey};

const NONCE_BYTES: usize = 24;
#[cfg(feature = "encrypt")]
const MAX_KEY_ID_BYTES: usize = 64;

/// Keys by their ids. New records are sealed with the current one; old ones open with the one they name.
///
/// # Examples
///
/// ```
/// use peregrine_checkpoints::Keyring;
///
/// let keys = Keyring::new("2026-11", [7; 32])?.with_old("2025-03", [6; 32])?;
/// assert!(!format!("{keys:?}").contains('7'));
/// # Ok::<(), peregrine_checkpoints::Error>(())
/// ```
#[cfg(feature = "encrypt")]
#[derive(Clone)]
pub struct Keyring {
    current: String,
    keys: BTreeMap<String, Key>,
}

#[cfg(feature = "encrypt")]
#[derive(Clone)]
struct Key {
    cipher: XChaCha20Poly1305,
    /// For the names of parts, which would else tell who knows a content that it is there.
    naming: [u8; 32],
}

#[cfg(feature = "encrypt")]
impl Keyring {
    /// A keyring whose current key is `key`. The id is stored beside each record in clear.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the id is empty or longer than 64 bytes.
    pub fn new(id: impl Into<String>, key: [u8; 32]) -> Result<Self> {
        let current = id.into();
        let keys = BTreeMap::new();
        Self {
            current: current.clone(),
            keys,
        }
        .with_old(current, key)
    }

    /// Adds a key with which older records open.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the id is empty or longer than 64 bytes, or is there already.
    pub fn with_old(mut self, id: impl Into<String>, key: [u8; 32]) -> Result<Self> {
        let id = id.into();
        if id.is_empty() || id.len() > MAX_KEY_ID_BYTES {
            return Err(Error::config("the id of a key has 1 to 64 bytes"));
        }
        let naming = blake3::derive_key("peregrine journal names of parts 1", &key);
        let sealing = blake3::derive_key("peregrine journal sealing 1", &key);
        let key = Key {
            cipher: XChaCha20Poly1305::new(&sealing.into()),
            naming,
        };
        if self.keys.contains_key(&id) {
            return Err(Error::config(format!("the key `{id}` was given twice")));
        }
        self.keys.insert(id, key);
        Ok(self)
    }
}

#[cfg(feature = "encrypt")]
impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.keys.keys().collect();
        f.debug_struct("Keyring")
            .field("current", &self.current)
            .field("ids", &ids)
            .finish()
    }
}

/// Seals and opens for one run.
#[derive(Clone)]
pub(crate) struct Sealer {
    #[cfg(feature = "encrypt")]
    keys: Option<Arc<Keyring>>,
    #[cfg(feature = "encrypt")]
    scope: Vec<u8>,
    #[cfg(feature = "encrypt")]
    run: String,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("seals", &self.seals()).finish()
    }
}

/// Why something does not open.
pub(crate) enum Unopened {
    NoKey(String),
    #[cfg_attr(
        not(feature = "encrypt"),
        expect(dead_code, reason = "without keys nothing gets that far")
    )]
    Altered(String),
    Short,
}

impl Unopened {
    pub(crate) fn of(self, what: &str) -> Error {
        let what = what.to_owned();
        match self {
            Self::NoKey(key_id) => Error::MissingKey { key_id },
            Self::Altered(key_id) => Error::Sealed { what, key_id },
            Self::Short => Error::Sealed {
                what,
                key_id: String::new(),
            },
        }
    }
}

/// The id of the key and what is sealed with it.
fn split(sealed: &[u8]) -> Result<(String, &[u8; NONCE_BYTES], &[u8]), Unopened> {
    let (id_len, rest) = sealed.split_first().ok_or(Unopened::Short)?;
    let (id, rest) = rest
        .split_at_checked(usize::from(*id_len))
        .ok_or(Unopened::Short)?;
    let (nonce, ciphertext) = rest.split_first_chunk().ok_or(Unopened::Short)?;
    Ok((String::from_utf8_lossy(id).into_owned(), nonce, ciphertext))
}

#[cfg(not(feature = "encrypt"))]
impl Sealer {
    pub(crate) fn new(_: &RunKey, _: &Options) -> Self {
        Self {}
    }

    pub(crate) fn seals(&self) -> bool {
        false
    }

    pub(crate) fn seal_tail(&self, _: &mut Vec<u8>, _: usize, _: &[u8]) -> Result<()> {
        Ok(())
    }

    pub(crate) fn open(&self, sealed: &[u8], _: &[u8]) -> Result<Vec<u8>, Unopened> {
        let (key_id, _, _) = split(sealed)?;
        Err(Unopened::NoKey(key_id))
    }

    pub(crate) fn part_id(&self, content: &[u8]) -> PartId {
        PartId(*blake3::hash(content).as_bytes())
    }

    pub(crate) fn is_named(&self, content: &[u8], id: PartId) -> bool {
        *blake3::hash(content).as_bytes() == id.0
    }
}

#[cfg(feature = "encrypt")]
impl Sealer {
    pub(crate) fn new(key: &RunKey, options: &Options) -> Self {
        Self {
            keys: options.keys.clone(),
            scope: key.scope.key(),
            run: key.run.to_string(),
        }
    }

    pub(crate) fn seals(&self) -> bool {
        self.keys.is_some()
    }

    fn current(&self) -> Option<(&str, &Key)> {
        let keys = self.keys.as_deref()?;
        Some((&keys.current, keys.keys.get(&keys.current)?))
    }

    /// Parts are shared by the runs of a scope, so only records are bound to theirs.
    fn context(&self, of_what: &[u8]) -> Vec<u8> {
        let mut context = b"peregrine 1 ".to_vec();
        context.extend_from_slice(&self.scope);
        if of_what.starts_with(b"record") {
            context.extend_from_slice(self.run.as_bytes());
        }
        context.extend_from_slice(of_what);
        context
    }

    /// Seals what stands behind `start`.
    pub(crate) fn seal_tail(&self, out: &mut Vec<u8>, start: usize, of_what: &[u8]) -> Result<()> {
        let Some((id, key)) = self.current() else {
            return Ok(());
        };
        let failed = |why: &str| Error::Encode {
            source: Arc::from(Box::from(why)),
        };
        let nonce = XNonce::try_generate().map_err(|_| failed("there is no randomness for a nonce"))?;
        let message = Payload {
            msg: &out[start..],
            aad: &self.context(of_what),
        };
        let sealed = key.cipher.encrypt(&nonce, message);
        let sealed = sealed.map_err(|_| failed("it is too long to be encrypted"))?;
        out.truncate(start);
        // At most 64 bytes, which the keyring checked.
        out.push(id.len() as u8);
        out.extend_from_slice(id.as_bytes());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        Ok(())
    }

    pub(crate) fn open(&self, sealed: &[u8], of_what: &[u8]) -> Result<Vec<u8>, Unopened> {
        let (id, nonce, ciphertext) = split(sealed)?;
        let key = self.keys.as_ref().and_then(|keys| keys.keys.get(&id));
        let key = key.ok_or_else(|| Unopened::NoKey(id.clone()))?;
        let message = Payload {
            msg: ciphertext,
            aad: &self.context(of_what),
        };
        let opened = key.cipher.decrypt(&XNonce::from(*nonce), message);
        opened.map_err(|_| Unopened::Altered(id))
    }

    /// Keyed, so that the name does not tell the content.
    pub(crate) fn part_id(&self, content: &[u8]) -> PartId {
        match self.current() {
            Some((_, key)) => PartId(*blake3::keyed_hash(&key.naming, content).as_bytes()),
            None => PartId(*blake3::hash(content).as_bytes()),
        }
    }

    /// Whether `content` has this name under any of the keys, or under none.
    pub(crate) fn is_named(&self, content: &[u8], id: PartId) -> bool {
        let keys = self.keys.iter().flat_map(|keys| keys.keys.values());
        let mut names = keys.map(|key| blake3::keyed_hash(&key.naming, content));
        names.any(|name| *name.as_bytes() == id.0) || *blake3::hash(content).as_bytes() == id.0
    }
}
