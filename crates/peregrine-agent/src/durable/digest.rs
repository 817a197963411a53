//! Digests: what stands in a journal for what was asked, without saying it again.
//!
//! Algorithm: BLAKE3 over the JSON of what is digested, each piece behind its length. A request's messages are hashed in
//! their order and before everything else of it, so that the digest of a turn goes on from that of the turn before and
//! costs what is new in it. The digest depends on the request alone, not on how it was come by.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use peregrine_core::{ChatRequest, Message, Messages, ToolSpec};
use serde::{Deserialize, Serialize};

use crate::run::ModelCall;

/// 256 bits that stand for a request, for arguments or for a state (BLAKE3). Written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn of_text(text: &str) -> Self {
        Self(*blake3::hash(text.as_bytes()).as_bytes())
    }

    /// Of a value's JSON. A value that has none has the digest of nothing, which no JSON has.
    pub(crate) fn of_json(value: &impl Serialize) -> Self {
        let json = serde_json::to_vec(value).unwrap_or_default();
        Self(*blake3::hash(&json).as_bytes())
    }

    pub(crate) fn of_messages(messages: &[Arc<Message>]) -> Self {
        let mut hasher = blake3::Hasher::new();
        let mut scratch = Vec::new();
        messages
            .iter()
            .for_each(|message| absorb(&mut hasher, &mut scratch, &**message));
        Self(*hasher.finalize().as_bytes())
    }
}

impl TryFrom<String> for Digest {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        match blake3::Hash::from_hex(text) {
            Ok(hash) => Ok(Self(*hash.as_bytes())),
            Err(_) => Err("not a digest: 64 hexadecimal digits are expected"),
        }
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        blake3::Hash::from_bytes(digest.0).to_hex().to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn absorb(hasher: &mut blake3::Hasher, scratch: &mut Vec<u8>, value: &impl Serialize) {
    scratch.clear();
    if serde_json::to_writer(&mut *scratch, value).is_err() {
        scratch.clear();
    }
    hasher.update(&(scratch.len() as u64).to_le_bytes());
    hasher.update(scratch);
}

/// Digests of requests, thread by thread.
#[derive(Default)]
pub(crate) struct Requests {
    threads: BTreeMap<u32, Thread>,
    scratch: Vec<u8>,
}

struct Thread {
    /// Of the first `count` messages.
    hasher: blake3::Hasher,
    count: usize,
    /// Of the settings, and what they were digested for.
    settings: Option<(Arc<[ToolSpec]>, Option<i64>, Digest)>,
}

impl Requests {
    /// The digest of what a model is asked: all of the request but labels and scope, which are not sent.
    pub(crate) fn digest(&mut self, asked: &ModelCall) -> Digest {
        let thread = self.threads.entry(asked.thread).or_insert_with(|| Thread {
            hasher: blake3::Hasher::new(),
            count: 0,
            settings: None,
        });
        let messages = &asked.request.messages;
        if asked.is_cut || thread.count > messages.len() {
            (thread.hasher, thread.count) = (blake3::Hasher::new(), 0);
        }
        for message in messages.iter().skip(thread.count) {
            absorb(&mut thread.hasher, &mut self.scratch, message);
        }
        thread.count = messages.len();
        let settings = thread.settings(&asked.request);
        let mut hasher = thread.hasher.clone();
        // No message is so long.
        hasher.update(&u64::MAX.to_le_bytes());
        hasher.update(settings.as_bytes());
        Digest(*hasher.finalize().as_bytes())
    }
}

impl Thread {
    fn settings(&mut self, request: &ChatRequest) -> Digest {
        let seed = request.sampling.seed;
        if let Some((tools, known, digest)) = &self.settings
            && Arc::ptr_eq(tools, &request.tools)
            && *known == seed
        {
            return *digest;
        }
        let settings = ChatRequest {
            messages: Messages::new(),
            scope: None,
            metadata: BTreeMap::new(),
            ..request.clone()
        };
        let digest = Digest::of_json(&settings);
        self.settings = Some((Arc::clone(&request.tools), seed, digest));
        digest
    }
}
