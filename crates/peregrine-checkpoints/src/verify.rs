//! Reading everything of a run to see whether it is there and whole.

use std::collections::HashSet;

use crate::checkpoints::Checkpoints;
use crate::error::{Error, Result};
use crate::history::{History, Span, Tail};
use crate::record::{Origin, Part, Record, RunKey};

/// What a run has, and what of it cannot be read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Verification {
    /// Where it was forked from.
    pub origin: Option<Origin>,
    /// The first record it has.
    pub first: u64,
    /// The number behind the last record that can be read.
    pub next_seq: u64,
    /// How many different parts its records name.
    pub parts: usize,
    /// An end that was never finished; resuming cuts it.
    pub tail: Option<Tail>,
    /// What is wrong: the first damage, or a part that is missing or altered. `None` if all is well.
    pub damage: Option<Error>,
    /// A digest of all records that can be read, with the times, but without the ids of runs and parts: two journals
    /// that say the same at the same times have the same one.
    pub digest: [u8; 32],
}

impl Verification {
    /// Whether every record and part can be read. A tail that was never finished does not count against it.
    pub fn is_whole(&self) -> bool {
        self.damage.is_none()
    }
}

impl Record {
    /// A digest of the record, its time and inline parts included; parts that are kept elsewhere count by their length.
    pub fn digest(&self) -> [u8; 32] {
        let Self {
            seq,
            kind,
            schema,
            at,
            payload,
            parts,
        } = self;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seq.to_le_bytes());
        hasher.update(&[kind.code()]);
        hasher.update(&schema.to_le_bytes());
        hasher.update(&at.0.to_le_bytes());
        hasher.update(&(payload.len() as u64).to_le_bytes());
        hasher.update(payload);
        for part in parts {
            match part {
                Part::Inline(bytes) => {
                    hasher.update(&[0]);
                    hasher.update(&(bytes.len() as u64).to_le_bytes());
                    hasher.update(bytes);
                }
                Part::Stored(part) => {
                    hasher.update(&[1]);
                    hasher.update(&part.len.to_le_bytes());
                }
            }
        }
        *hasher.finalize().as_bytes()
    }
}

impl Checkpoints {
    /// Reads every record and part of a run, those it shares included, and says what is there and what is damaged.
    /// Changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Unavailable`] and [`Error::Io`], when it cannot be read at all. Damage is not an
    /// error of this call, but its answer.
    pub async fn verify(&self, key: &RunKey) -> Result<Verification> {
        self.verify_span(key, Span::ALL).await
    }

    /// As [`Checkpoints::verify`], but only for what comes before record `upto`.
    ///
    /// # Errors
    ///
    /// As for [`Checkpoints::verify`].
    pub async fn verify_upto(&self, key: &RunKey, upto: u64) -> Result<Verification> {
        self.verify_span(key, Span::ALL.upto(upto)).await
    }

    async fn verify_span(&self, key: &RunKey, span: Span) -> Result<Verification> {
        let mut damage = None;
        let history = match self.load(key, span).await {
            Ok(history) => Some(history),
            Err(
                error @ (Error::NotFound { .. }
                | Error::Unavailable { .. }
                | Error::Io { .. }
                | Error::TooLarge { what: "a load", .. }),
            ) => {
                return Err(error);
            }
            Err(Error::Damaged(found)) => {
                let before = Span::ALL.upto(found.seq);
                damage = Some(Error::Damaged(found));
                self.load(key, before).await.ok()
            }
            Err(error) => {
                damage = Some(error);
                None
            }
        };
        let mut verification = Verification {
            origin: None,
            first: 0,
            next_seq: 0,
            parts: 0,
            tail: None,
            damage,
            digest: [0; 32],
        };
        let Some(history) = history else {
            return Ok(verification);
        };
        let History {
            records,
            next_seq,
            origin,
            tail,
            ..
        } = history;
        verification.first = records.first().map_or(next_seq, |record| record.seq);
        (verification.next_seq, verification.origin, verification.tail) = (next_seq, origin, tail);
        let (mut hasher, mut seen) = (blake3::Hasher::new(), HashSet::new());
        for record in &records {
            hasher.update(&record.digest());
            for part in &record.parts {
                if let Part::Stored(part) = part
                    && seen.insert(part.id)
                    && let Err(error) = self.part(key, *part).await
                {
                    verification.damage.get_or_insert(error);
                }
            }
        }
        verification.parts = seen.len();
        verification.digest = *hasher.finalize().as_bytes();
        Ok(verification)
    }
}
