//! How a journal is kept: what an acknowledgement promises, when snapshots are due, and bounds.

use std::sync::Arc;

use peregrine_core::{Clock, SystemClock};

#[cfg(feature = "encrypt")]
use crate::crypt::Keyring;

/// What it means that an append returned `Ok`.
///
/// | level | survives a panic and `kill -9` | survives a power cut | cost of an append |
/// |---|---|---|---|
/// | `None` | no | no | nothing is written |
/// | `OnFinish` | no | no, until [`Journal::finish`](crate::Journal::finish) returned | a copy into memory |
/// | `ProcessSafe` | yes | no | directory: one `write`; SQL: one transaction |
/// | `PowerSafe` | yes | yes | directory: one `fdatasync`, shared by all runs that wait at that time |
///
/// A power cut under `ProcessSafe` loses records at the end, or leaves damage that loading reports; it never makes
/// another record of one. SQLite writes `PowerSafe` with `synchronous = FULL`, else `NORMAL`. PostgreSQL always commits
/// synchronously, because its own crash would otherwise lose what was acknowledged; its power safety is that of the
/// server's `fsync` setting. In memory there is no survival at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Durability {
    /// Nothing is kept. The run is not in the store and cannot be resumed.
    None,
    /// Everything is written when the run finishes, or when [`Limits::max_buffered_bytes`] are waiting.
    OnFinish,
    /// An acknowledged record survives the end of this process, whatever ends it.
    #[default]
    ProcessSafe,
    /// An acknowledged record survives a power cut.
    PowerSafe,
}

/// When a snapshot is due. The journal only says so ([`Journal::snapshot_due`](crate::Journal::snapshot_due)); the
/// state comes from the caller.
///
/// A snapshot is due when `every_records` or `every_bytes` have been appended since the last one, and also `growth`
/// times the bytes of the last one. The growth keeps the sum of all snapshots in proportion to the journal, however
/// long the run gets: they form a geometric series, and loading reads at most `1 + growth` times the last state, plus
/// `every_bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotPolicy {
    /// Due after so many records; 0 is never.
    pub every_records: u64,
    /// Due after so many bytes, as they stand in the store; 0 is never.
    pub every_bytes: u64,
    /// Not before so many times the last snapshot; 0 does not wait.
    pub growth: u32,
}

impl Default for SnapshotPolicy {
    /// 5,000 records or 4 MiB, and four times the last snapshot. So much is loaded in a few milliseconds; a snapshot of
    /// less would cost more on the disk than it saves.
    fn default() -> Self {
        Self {
            every_records: 5_000,
            every_bytes: 4 << 20,
            growth: 4,
        }
    }
}

impl SnapshotPolicy {
    /// No snapshot is ever due.
    pub const NEVER: Self = Self {
        every_records: 0,
        every_bytes: 0,
        growth: 0,
    };

    /// A snapshot every so many records, whatever their size.
    pub const fn every_records(records: u64) -> Self {
        Self {
            every_records: records,
            every_bytes: 0,
            growth: 0,
        }
    }

    pub(crate) fn due(&self, records: u64, bytes: u64, last_snapshot: u64) -> bool {
        let Self {
            every_records,
            every_bytes,
            growth,
        } = *self;
        let reached = |count: u64, every: u64| every > 0 && count >= every;
        (reached(records, every_records) || reached(bytes, every_bytes))
            && bytes >= last_snapshot.saturating_mul(growth.into())
    }
}

/// Bounds on what is written and, as important, on what is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The largest record: payload and inline parts together, before compression, in bytes.
    pub max_record_bytes: usize,
    /// The largest part kept by content, before compression, in bytes.
    pub max_part_bytes: usize,
    /// The most parts in a record.
    pub max_parts: usize,
    /// How much one load may bring into memory, in bytes as they stand in the store.
    pub max_load_bytes: u64,
    /// How much may wait in memory under [`Durability::OnFinish`] before it is written all the same.
    pub max_buffered_bytes: usize,
    /// How many times a run may be forked from a fork.
    pub max_lineage: usize,
}

impl Limits {
    /// How deep a payload may nest.
    pub const DEFAULT_DEPTH: usize = 128;
}

impl Default for Limits {
    /// 64 MiB a record and a part, 1,024 parts, 1 GiB a load, 8 MiB of buffer, 256 forks of forks.
    fn default() -> Self {
        Self {
            max_record_bytes: 64 << 20,
            max_part_bytes: 64 << 20,
            max_parts: 1_024,
            max_load_bytes: 1 << 30,
            max_buffered_bytes: 8 << 20,
            max_lineage: 256,
        }
    }
}

/// How journals are kept. `Options::default()` serves most.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// When snapshots are due.
    pub snapshots: SnapshotPolicy,
    /// Bounds.
    pub limits: Limits,
    /// Bodies of at least so many bytes are compressed (zstd).
    pub compress_bytes: usize,
    /// Parts of at least so many bytes are kept once by content; smaller ones stand in the record.
    pub part_bytes: usize,
    /// Payloads of at least so many bytes are kept once by content.
    pub spill_bytes: usize,
    /// Where the times in records come from.
    pub clock: Arc<dyn Clock>,
    /// The keys, if payloads are encrypted.
    #[cfg(feature = "encrypt")]
    pub keys: Option<Arc<Keyring>>,
}

impl Default for Options {
    /// Process-safe; compressed from 8 KiB (below, compressing takes longer than writing); parts by content from 4 KiB, payloads from 64 KiB; the system's clock; no
    /// encryption.
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            snapshots: SnapshotPolicy::default(),
            limits: Limits::default(),
            compress_bytes: 8 << 10,
            part_bytes: 4 << 10,
            spill_bytes: 64 << 10,
            clock: Arc::new(SystemClock),
            #[cfg(feature = "encrypt")]
            keys: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_form_a_geometric_series() {
        let policy = SnapshotPolicy::default();
        let (mut total, mut since, mut last, mut snapshots, mut records) = (0_u64, 0, 0, 0, 0);
        for _ in 0..100_000 {
            (total, since, records) = (total + 1_000, since + 1_000, records + 1);
            if policy.due(records, since, last) {
                // A state as large as everything before it.
                (last, since, records) = (total, 0, 0);
                snapshots += last;
            }
        }
        assert!(
            snapshots > 0 && snapshots < total * 5 / 4,
            "{snapshots} of {total}"
        );
        assert!(!SnapshotPolicy::NEVER.due(u64::MAX, u64::MAX, 0));
        assert!(SnapshotPolicy::every_records(3).due(3, 0, 1_000));
        assert!(!SnapshotPolicy::every_records(3).due(2, 1 << 40, 0));
    }
}
