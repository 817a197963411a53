//! A bounded number of seeded cases through every decoder, on the stable toolchain.
//!
//! `PEREGRINE_FUZZ_CASES` and `PEREGRINE_FUZZ_SEED` set how many and which; the same seed gives the same cases. The
//! endless forms are `cargo fuzz` targets. Whole files that are damaged on a disk are in `damage.rs`.

use std::sync::Arc;

use peregrine_checkpoints::{Checkpoints, Draft, Kind, MemoryStore, Options};
use serde_json::json;

use crate::child::Random;
use crate::decoding;

/// Calls `check` with each case, which `make` makes of its own random numbers.
fn cases(usual: u64, make: impl Fn(&mut Random) -> Vec<u8>, check: impl Fn(&[u8])) {
    let setting = |name: &str, usual: u64| {
        std::env::var(name)
            .ok()
            .and_then(|value| value.parse().ok())
            .unwrap_or(usual)
    };
    let (cases, seed) = (
        setting("PEREGRINE_FUZZ_CASES", usual),
        setting("PEREGRINE_FUZZ_SEED", 0),
    );
    for case in 0..cases {
        let case_seed = seed.wrapping_add(case);
        let bytes = make(&mut Random(case_seed));
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&bytes)));
        assert!(
            checked.is_ok(),
            "failed with PEREGRINE_FUZZ_SEED={case_seed} PEREGRINE_FUZZ_CASES=1"
        );
    }
}

pub(crate) fn mangle(random: &mut Random, original: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = original.to_vec();
    let place = |random: &mut Random, bytes: &[u8]| random.below(bytes.len() as u64 + 1) as usize;
    for _ in 0..random.below(5) {
        let at = place(random, &bytes);
        let to = (at + random.below(60) as usize).min(bytes.len());
        match random.below(7) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..to)),
            2 => {
                let again = bytes[at..to].to_vec();
                bytes.splice(at..at, again);
            }
            3 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            4 => {
                let from = place(random, other);
                bytes.splice(at..to, other[from..].iter().copied());
            }
            5 => bytes[at..to].fill(0),
            _ => bytes.splice(at..at, random.bytes(30)).for_each(drop),
        }
    }
    bytes
}

/// Bodies of every form, as `codec.rs` says they are made.
fn bodies() -> Vec<(u8, Vec<u8>)> {
    let envelope = |payload: &[u8], parts: &[(&[u8], u64, &[u8])]| {
        let mut body = vec![0x95, 0, 1, 0xce, 1, 2, 3, 4, 0xc4, payload.len() as u8];
        body.extend_from_slice(payload);
        body.push(0x90 + parts.len() as u8);
        for (id, len, inline) in parts {
            body.extend_from_slice(&[0x93, 0xc4, id.len() as u8]);
            body.extend_from_slice(id);
            body.extend_from_slice(&[0xcf]);
            body.extend_from_slice(&len.to_be_bytes());
            body.extend_from_slice(&[0xc4, inline.len() as u8]);
            body.extend_from_slice(inline);
        }
        body
    };
    let plain = envelope(
        b"\x81\xa1a\x93\x01\x02\xc0",
        &[(&[], 3, b"abc"), (&[7; 32], 9, b"")],
    );
    let mut compressed = (plain.len() as u32).to_le_bytes().to_vec();
    compressed.extend_from_slice(&zstd::bulk::compress(&plain, 1).unwrap());
    let spilled = envelope(&[[3; 32].as_slice(), &[5; 8]].concat(), &[]);
    let sealed = [&[1, b'k'][..], &[9; 60]].concat();
    vec![(0, plain), (1, compressed), (8, spilled), (2, sealed)]
}

#[test]
fn the_bodies_to_be_mangled_are_good() {
    let bodies = bodies();
    for (flags, body) in &bodies[..2] {
        let history = decoding::frames(&decoding::frame(0, *flags, body)).unwrap();
        assert_eq!(
            history.records[0].decode::<serde_json::Value>().unwrap(),
            json!({"a": [1, 2, null]})
        );
        assert_eq!(history.records[0].parts.len(), 2);
    }
}

#[test]
fn seeded_fuzz_bodies() {
    let bodies = bodies();
    let make = |random: &mut Random| {
        let (flags, body) = &bodies[random.below(bodies.len() as u64) as usize];
        let (_, other) = &bodies[random.below(bodies.len() as u64) as usize];
        let flags = if random.below(8) == 0 {
            random.next() as u8
        } else {
            *flags
        };
        [&[flags][..], &mangle(random, body, other)].concat()
    };
    cases(3_000, make, decoding::body);
}

#[test]
fn seeded_fuzz_frames() {
    let frames: Vec<u8> = bodies()
        .iter()
        .enumerate()
        .flat_map(|(seq, (flags, body))| decoding::frame(seq as u64, *flags, body))
        .collect();
    cases(
        2_000,
        |random| mangle(random, &frames, &frames),
        |bytes| drop(decoding::frames(bytes)),
    );
}

#[test]
fn seeded_fuzz_exports() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let text = runtime.block_on(async {
        let checkpoints = Checkpoints::new(Arc::new(MemoryStore::new()), Options::default());
        let mut journal = checkpoints.create(&decoding::key()).await.unwrap();
        journal
            .append(Kind::Event, 1, &json!({"a": [1.5, "x"]}))
            .await
            .unwrap();
        let part = vec![1; 5_000];
        journal
            .append_draft(
                &Draft::raw(Kind::Effect, 1, b"\xc1\x00".to_vec())
                    .with_part(part)
                    .with_part("b"),
            )
            .await
            .unwrap();
        let mut text = Vec::new();
        checkpoints.export(&decoding::key(), &mut text).await.unwrap();
        text
    });
    decoding::import(&text);
    cases(1_000, |random| mangle(random, &text, &text), decoding::import);
}

/// A few bytes that say they are many.
#[test]
fn bombs_do_not_go_off() {
    let huge = zstd::bulk::compress(&vec![0; 64 << 20], 3).unwrap();
    let mut bomb = (64_u32 << 20).to_le_bytes().to_vec();
    bomb.extend_from_slice(&huge);
    assert!(decoding::frames(&decoding::frame(0, 1, &bomb)).is_none());
    // One that lies about its length.
    bomb[..4].copy_from_slice(&1_000_u32.to_le_bytes());
    assert!(decoding::frames(&decoding::frame(0, 1, &bomb)).is_none());
    // Many, each within the limit of a record, together beyond that of a load.
    let payload = vec![0; 1_000_000];
    let mut body = vec![0x95, 0, 1, 0, 0xc6];
    body.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    body.extend_from_slice(&payload);
    body.push(0x90);
    let mut compressed = (body.len() as u32).to_le_bytes().to_vec();
    compressed.extend_from_slice(&zstd::bulk::compress(&body, 1).unwrap());
    let some = |count| -> Vec<u8> {
        (0..count)
            .flat_map(|seq| decoding::frame(seq, 1, &compressed))
            .collect()
    };
    assert_eq!(decoding::frames(&some(4)).unwrap().records.len(), 4);
    assert!(decoding::frames(&some(5)).is_none());
    // A list of parts without an end, and one that nests.
    let mut parts = vec![0x95, 0, 1, 0, 0xc4, 0, 0xdd, 0, 1, 0x11, 0x70];
    parts.extend([0x93, 0xc4, 0, 0, 0xc4, 0].repeat(70_000));
    assert!(decoding::frames(&decoding::frame(0, 0, &parts)).is_none());
    assert!(decoding::frames(&decoding::frame(0, 0, &[0x91; 100_000])).is_none());
}
