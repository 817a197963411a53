//! Any bytes as what a store has: for the seeded fuzz tests and the endless fuzz targets.
//!
//! What is read passes or is an error; it is never a panic, and never takes more memory than the limits say.

use std::sync::Arc;

use bytes::Bytes;
use peregrine_checkpoints::store::{Acquire, Chunk, Range, RunWriter, Stored};
use peregrine_checkpoints::{
    Checkpoints, Error, History, MemoryStore, Options, Part, PartId, Result, RunInfo, RunKey, Span, Store,
    async_trait,
};
use peregrine_core::{RunId, Scope};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Small limits, so that what gets around them shows.
const MAX_BYTES: usize = 1 << 20;

pub(crate) fn key() -> RunKey {
    RunKey::new(Scope::tenant("fuzz").unwrap(), RunId::from_parts(1, [1; 10]))
}

/// A store that has one run, of these frames, and these bytes as every part.
#[derive(Debug)]
struct Given {
    frames: Bytes,
    part: Bytes,
    may_be_torn: bool,
}

#[async_trait]
impl Store for Given {
    async fn acquire(&self, key: &RunKey, _: Acquire) -> Result<Box<dyn RunWriter>> {
        Err(Error::NotFound { run: key.run })
    }

    async fn read(&self, _: &RunKey, _: &Range) -> Result<Stored> {
        let chunk = Chunk::new(0, self.frames.clone(), "bytes").at(0, self.may_be_torn);
        Ok(Stored::new(None, 0, vec![chunk]))
    }

    async fn part(&self, _: &RunKey, _: &PartId, _: u64) -> Result<Bytes> {
        Ok(self.part.clone())
    }

    async fn runs(&self, _: &Scope, _: Option<RunId>, _: usize) -> Result<Vec<RunInfo>> {
        Ok(vec![])
    }

    async fn remove(&self, _: &RunKey) -> Result<()> {
        Ok(())
    }
}

fn options() -> Options {
    let mut options = Options::default();
    options.limits.max_record_bytes = MAX_BYTES;
    options.limits.max_part_bytes = MAX_BYTES;
    options.limits.max_load_bytes = 4 * MAX_BYTES as u64;
    #[cfg(feature = "encrypt")]
    {
        let keys = peregrine_checkpoints::Keyring::new("k", [1; 32]).unwrap();
        options.keys = Some(Arc::new(keys));
    }
    options
}

/// Runs what does not wait.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("a store in memory does not wait"),
    }
}

/// Bytes as the frames of a run.
pub(crate) fn frames(bytes: &[u8]) -> Option<History> {
    let mut loaded = None;
    for may_be_torn in [false, true] {
        let given = Given {
            frames: Bytes::copy_from_slice(bytes),
            part: Bytes::copy_from_slice(bytes),
            may_be_torn,
        };
        let checkpoints = Checkpoints::new(Arc::new(given), options());
        if let Ok(history) = now(checkpoints.load(&key(), Span::ALL)) {
            let total: usize = history.records.iter().map(|record| record.payload.len()).sum();
            assert!(total <= 4 * MAX_BYTES, "{total} bytes were loaded");
            for record in &history.records {
                drop(record.decode::<serde_json::Value>());
                for part in &record.parts {
                    if let Part::Stored(part) = part {
                        drop(now(checkpoints.part(&key(), *part)));
                    }
                }
            }
            loaded = Some(history);
        }
        drop(now(checkpoints.verify(&key())));
        drop(now(checkpoints.export(&key(), &mut std::io::sink())));
    }
    loaded
}

/// Bytes as the body of a frame whose checks are right: the first byte is its flags.
pub(crate) fn body(bytes: &[u8]) {
    if let Some((flags, body)) = bytes.split_first() {
        frames(&frame(0, *flags, body));
    }
}

/// A frame as `frame.rs` says it is made.
pub(crate) fn frame(seq: u64, flags: u8, body: &[u8]) -> Vec<u8> {
    let key = key();
    let mut salt = blake3::Hasher::new();
    salt.update(b"peregrine journal salt 1");
    salt.update(&key.scope.key());
    salt.update(key.run.to_string().as_bytes());
    let salt = u64::from_le_bytes(salt.finalize().as_bytes()[..8].try_into().unwrap());
    let mut frame = b"PJ\x01".to_vec();
    frame.push(flags);
    frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
    frame.extend_from_slice(&seq.to_le_bytes());
    let head = xxh3_64_with_seed(&frame, salt);
    frame.extend_from_slice(&(head as u32).to_le_bytes());
    frame.extend_from_slice(body);
    frame.extend_from_slice(&xxh3_64_with_seed(body, head).to_le_bytes());
    frame
}

/// Bytes as an export.
pub(crate) fn import(bytes: &[u8]) {
    let checkpoints = Checkpoints::new(Arc::new(MemoryStore::new()), options());
    let imported = now(checkpoints.import(&key(), &mut &*bytes));
    let there = now(checkpoints.load(&key(), Span::ALL));
    assert_eq!(
        imported.is_ok(),
        there.is_ok(),
        "an import is there as a whole or not at all"
    );
}
