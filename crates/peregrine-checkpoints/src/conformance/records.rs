//! Records: what is appended is loaded, in order, once, as it was.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use peregrine_core::UnixTime;

use super::{Subject, fresh, numbers, run_of, run_with};
use crate::{Draft, Durability, Error, Kind, Part, Record, RunKey, SnapshotPolicy, Span};

/// Bytes that do not compress.
fn noise(len: usize, seed: u64) -> Bytes {
    let mut reader = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
    let mut bytes = vec![0; len];
    reader.fill(&mut bytes);
    bytes.into()
}

pub(super) async fn round_trip(subject: &dyn Subject) {
    let (checkpoints, scope) = fresh(subject).await;
    let key = run_of(&scope, 1);
    let payloads = [
        Bytes::new(),
        Bytes::from_static(b"\x00\xffPJ\x01\x00"),
        Bytes::from(vec![b'a'; 30_000]),
        noise(30_000, 1),
        Bytes::from(vec![b'b'; 200_000]),
        noise(200_000, 2),
    ];
    let kinds = [
        Kind::Event,
        Kind::Effect,
        Kind::EffectResult,
        Kind::Marker,
        Kind::Event,
        Kind::Event,
    ];
    let drafts: Vec<Draft> = payloads
        .iter()
        .zip(kinds)
        .enumerate()
        .map(|(place, (payload, kind))| {
            let draft = Draft::raw(kind, place as u32 * 1_000_000, payload.clone());
            draft
                .with_time(UnixTime(place as u64 * 5))
                .with_part(Bytes::from_static(b"small"))
                .with_part(noise(place * 3_000, 3))
        })
        .collect();
    let mut journal = checkpoints.create(&key).await.unwrap();
    assert_eq!(journal.append_draft(&drafts[0]).await.unwrap(), 0);
    assert_eq!(journal.append_all(&drafts[1..]).await.unwrap(), 1);
    assert_eq!(journal.append_all(&[]).await.unwrap(), 6);
    assert_eq!(journal.next_seq(), 6);

    let check = |records: &[Record]| {
        assert_eq!(records.len(), drafts.len());
        for (place, (record, draft)) in records.iter().zip(&drafts).enumerate() {
            assert_eq!(record.seq, place as u64);
            assert_eq!(
                (record.kind, record.schema, Some(record.at)),
                (draft.kind, draft.schema, draft.at)
            );
            assert!(
                record.payload == draft.payload,
                "the payload of record {place} is another one"
            );
            assert_eq!(record.parts.len(), 2);
            assert_eq!(record.parts[0], Part::Inline(Bytes::from_static(b"small")));
        }
    };
    // While it is being written, when it is finished, from another handle, and when it is resumed.
    check(&checkpoints.load(&key, Span::ALL).await.unwrap().records);
    journal.finish().await.unwrap();
    let other = crate::Checkpoints::new(subject.open().await, crate::Options::default());
    let history = other.load(&key, Span::ALL).await.unwrap();
    check(&history.records);
    assert_eq!((history.next_seq, history.tail, history.origin), (6, None, None));
    for (place, record) in history.records.iter().enumerate() {
        let content = match &record.parts[1] {
            Part::Inline(content) => content.clone(),
            Part::Stored(part) => other.part(&key, *part).await.unwrap(),
        };
        assert_eq!(matches!(record.parts[1], Part::Stored(_)), place * 3_000 >= 4_096);
        assert!(content == noise(place * 3_000, 3), "part of record {place}");
    }
    let (mut journal, history) = other.resume(&key).await.unwrap();
    check(&history.records);
    assert_eq!(journal.append(Kind::Event, 1, &7_u64).await.unwrap(), 6);
}

pub(super) async fn keys(subject: &dyn Subject) {
    let (checkpoints, scope) = fresh(subject).await;
    let (key, missing) = (run_of(&scope, 1), run_of(&scope, 2));
    run_with(&checkpoints, &key, 3).await;
    assert!(matches!(checkpoints.create(&key).await, Err(Error::AlreadyExists { run }) if run == key.run));
    for missing in [
        missing,
        run_of(&peregrine_core::Scope::tenant("somebody else").unwrap(), 1),
    ] {
        assert!(matches!(
            checkpoints.resume(&missing).await,
            Err(Error::NotFound { .. })
        ));
        assert!(matches!(
            checkpoints.load(&missing, Span::ALL).await,
            Err(Error::NotFound { .. })
        ));
        assert!(matches!(
            checkpoints.remove(&missing).await,
            Err(Error::NotFound { .. })
        ));
        assert!(matches!(
            checkpoints.lineage(&missing).await,
            Err(Error::NotFound { .. })
        ));
    }
    checkpoints.remove(&key).await.unwrap();
    assert!(matches!(
        checkpoints.load(&key, Span::ALL).await,
        Err(Error::NotFound { .. })
    ));
    // The id is free again, and nothing of the old run shows.
    run_with(&checkpoints, &key, 1).await;
    assert_eq!(
        numbers(&checkpoints.load(&key, Span::ALL).await.unwrap().records),
        [0]
    );
}

/// A snapshot is the first record of a run, and follows directly on a fork and on a take-over.
pub(super) async fn snapshots_first(subject: &dyn Subject) {
    let (checkpoints, scope) = fresh(subject).await;
    for (number, durability) in [(1, Durability::ProcessSafe), (2, Durability::PowerSafe)] {
        let checkpoints = checkpoints.with_durability(durability);
        let (key, child) = (run_of(&scope, number), run_of(&scope, 10 + number));
        let seqs = async |key: &RunKey, span: Span| {
            let history = checkpoints.load(key, span).await.unwrap();
            history
                .records
                .iter()
                .map(|record| record.seq)
                .collect::<Vec<_>>()
        };
        let mut journal = checkpoints.create(&key).await.unwrap();
        journal.snapshot(1, "first").await.unwrap();
        journal.append(Kind::Event, 1, &1_u64).await.unwrap();
        assert_eq!(seqs(&key, Span::SINCE_SNAPSHOT).await, [0, 1]);
        journal.snapshot(1, "second").await.unwrap();
        assert_eq!(seqs(&key, Span::SINCE_SNAPSHOT).await, [2]);
        assert_eq!(seqs(&key, Span::ALL).await, [0, 1, 2]);
        journal.finish().await.unwrap();

        let (mut fork, _) = checkpoints.fork(&key, 2, child.run).await.unwrap();
        fork.snapshot(1, "of the fork").await.unwrap();
        fork.append(Kind::Event, 1, &3_u64).await.unwrap();
        fork.finish().await.unwrap();
        // Record 2 says that it is a fork.
        assert_eq!(seqs(&child, Span::SINCE_SNAPSHOT).await, [3, 4]);
        assert_eq!(seqs(&child, Span::ALL).await, [0, 1, 2, 3, 4]);

        let (mut taken, _) = checkpoints.take_over(&key).await.unwrap();
        taken.snapshot(1, "of a successor").await.unwrap();
        let history = checkpoints.load(&key, Span::SINCE_SNAPSHOT).await.unwrap();
        assert_eq!(history.records.len(), 1);
        assert_eq!(history.records[0].decode::<String>().unwrap(), "of a successor");
        taken.finish().await.unwrap();
    }
}

pub(super) async fn spans_and_snapshots(subject: &dyn Subject) {
    let (checkpoints, scope) = fresh(subject).await;
    let checkpoints =
        checkpoints.with_options(|options| options.snapshots = SnapshotPolicy::every_records(10));
    let key = run_of(&scope, 1);
    let mut journal = checkpoints.create(&key).await.unwrap();
    for event in 0..35_u64 {
        journal.append(Kind::Event, 1, &event).await.unwrap();
        if journal.snapshot_due() {
            journal
                .snapshot(1, &format!("state after {event}"))
                .await
                .unwrap();
        }
    }
    // Snapshots are records 10, 21 and 32.
    assert_eq!(journal.next_seq(), 38);
    let seqs = async |span: Span| {
        let history = checkpoints.load(&key, span).await.unwrap();
        let seqs: Vec<u64> = history.records.iter().map(|record| record.seq).collect();
        assert_eq!(
            seqs.last().map_or(history.next_seq, |last| last + 1),
            history.next_seq
        );
        seqs
    };
    assert_eq!(seqs(Span::ALL).await, (0..38).collect::<Vec<_>>());
    assert_eq!(seqs(Span::SINCE_SNAPSHOT).await, (32..38).collect::<Vec<_>>());
    assert_eq!(seqs(Span::SINCE_SNAPSHOT.upto(33)).await, [32]);
    assert_eq!(
        seqs(Span::SINCE_SNAPSHOT.upto(32)).await,
        (21..32).collect::<Vec<_>>()
    );
    assert_eq!(
        seqs(Span::SINCE_SNAPSHOT.upto(10)).await,
        (0..10).collect::<Vec<_>>()
    );
    assert_eq!(seqs(Span::ALL.upto(0)).await, [0_u64; 0]);
    assert_eq!(seqs(Span::from(5).upto(23)).await, (5..23).collect::<Vec<_>>());
    assert_eq!(seqs(Span::from(37)).await, [37]);
    assert_eq!(seqs(Span::from(38)).await, [0_u64; 0]);
    assert_eq!(checkpoints.load(&key, Span::from(99)).await.unwrap().next_seq, 38);
    journal.finish().await.unwrap();
    // A snapshot that is appended among others begins a segment all the same.
    let (mut journal, history) = checkpoints.resume(&key).await.unwrap();
    assert_eq!(history.records[0].decode::<String>().unwrap(), "state after 29");
    let drafts = [Kind::Event, Kind::Snapshot, Kind::Event].map(|kind| Draft::new(kind, 1, &1_u64).unwrap());
    assert_eq!(journal.append_all(&drafts).await.unwrap(), 38);
    assert_eq!(seqs(Span::SINCE_SNAPSHOT).await, [39, 40]);
    assert_eq!(seqs(Span::from(37)).await, [37, 38, 39, 40]);
}

pub(super) async fn parts_once(subject: &dyn Subject) {
    let (checkpoints, scope) = fresh(subject).await;
    let (key, other) = (run_of(&scope, 1), run_of(&scope, 2));
    let part = noise(100_000, 5);
    let draft = Draft::raw(Kind::Event, 1, "with a part").with_part(part.clone());
    let mut journal = checkpoints.create(&key).await.unwrap();
    for _ in 0..20 {
        journal.append_draft(&draft).await.unwrap();
    }
    let info = checkpoints.runs(&scope, None, 9).await.unwrap();
    assert!(
        info[0].bytes < 10_000,
        "the records hold the part: {} bytes",
        info[0].bytes
    );
    // A later segment, and another run, have it too, and keep it when the first one goes.
    journal.snapshot(1, "state").await.unwrap();
    journal.append_draft(&draft).await.unwrap();
    let mut second = checkpoints.create(&other).await.unwrap();
    second.append_draft(&draft).await.unwrap();
    second.finish().await.unwrap();
    journal.trim(u64::MAX).await.unwrap();
    let kept = checkpoints.load(&key, Span::ALL).await.unwrap();
    assert_eq!(
        kept.records.iter().map(|record| record.seq).collect::<Vec<_>>(),
        [20, 21]
    );
    let Part::Stored(reference) = kept.records[1].parts[0] else {
        panic!("the part stands in the record");
    };
    assert!(checkpoints.part(&key, reference).await.unwrap() == part);
    journal.finish().await.unwrap();
    checkpoints.remove(&key).await.unwrap();
    assert!(checkpoints.part(&other, reference).await.unwrap() == part);
    checkpoints.remove(&other).await.unwrap();
    assert!(matches!(
        checkpoints.part(&other, reference).await,
        Err(Error::NotFound { .. })
    ));
}

pub(super) async fn durabilities(subject: &dyn Subject) {
    let (checkpoints, scope) = fresh(subject).await;
    let key = |number| run_of(&scope, number);
    let none = checkpoints.with_durability(Durability::None);
    let mut journal = none.create(&key(1)).await.unwrap();
    assert_eq!(journal.append(Kind::Event, 1, &0_u64).await.unwrap(), 0);
    assert_eq!(journal.append(Kind::Event, 1, &1_u64).await.unwrap(), 1);
    journal.finish().await.unwrap();
    assert!(matches!(
        checkpoints.load(&key(1), Span::ALL).await,
        Err(Error::NotFound { .. })
    ));

    let on_finish = checkpoints.with_durability(Durability::OnFinish);
    let mut journal = on_finish.create(&key(2)).await.unwrap();
    for event in 0..5_u64 {
        journal.append(Kind::Event, 1, &event).await.unwrap();
        if event == 2 {
            journal.snapshot(1, "state").await.unwrap();
        }
    }
    assert_eq!(
        numbers(&checkpoints.load(&key(2), Span::ALL).await.unwrap().records),
        [0_u64; 0]
    );
    journal.finish().await.unwrap();
    assert_eq!(
        numbers(&checkpoints.load(&key(2), Span::ALL).await.unwrap().records),
        [0, 1, 2, 3, 4]
    );
    assert_eq!(
        numbers(
            &checkpoints
                .load(&key(2), Span::SINCE_SNAPSHOT)
                .await
                .unwrap()
                .records
        ),
        [3, 4]
    );
    // What waits is bounded: too much of it is written early.
    let few = on_finish.with_options(|options| options.limits.max_buffered_bytes = 1_000);
    let (mut journal, _) = few.resume(&key(2)).await.unwrap();
    for event in 5..100_u64 {
        journal.append(Kind::Event, 1, &event).await.unwrap();
    }
    assert!(numbers(&checkpoints.load(&key(2), Span::ALL).await.unwrap().records).len() > 50);

    let power = checkpoints.with_durability(Durability::PowerSafe);
    let mut journal = power.create(&key(3)).await.unwrap();
    for event in 0..5_u64 {
        journal.append(Kind::Event, 1, &event).await.unwrap();
        if event == 2 {
            journal.snapshot(1, "state").await.unwrap();
        }
    }
    journal
        .append_draft(&Draft::raw(Kind::Marker, 1, noise(70_000, 8)).with_part(noise(9_000, 9)))
        .await
        .unwrap();
    assert_eq!(
        numbers(&checkpoints.load(&key(3), Span::ALL).await.unwrap().records),
        [0, 1, 2, 3, 4]
    );
    journal.finish().await.unwrap();
    let (mut journal, _) = power.resume(&key(3)).await.unwrap();
    assert_eq!(journal.append(Kind::Event, 1, &5_u64).await.unwrap(), 7);
}

pub(super) async fn dropped_appends(subject: &dyn Subject) {
    let (checkpoints, scope) = fresh(subject).await;
    for (number, durability) in [
        (1, Durability::ProcessSafe),
        (2, Durability::PowerSafe),
        (3, Durability::OnFinish),
    ] {
        let key = run_of(&scope, number);
        let mut journal = checkpoints
            .with_durability(durability)
            .create(&key)
            .await
            .unwrap();
        let mut expected = Vec::new();
        for event in 0..60_u64 {
            let before = journal.settle().await.unwrap();
            assert_eq!(before, expected.len() as u64);
            let polls = event % 4;
            let appended = {
                let mut append = pin!(journal.append(Kind::Event, 1, &event));
                let mut left = polls;
                poll_fn(|context| match append.as_mut().poll(context) {
                    Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
                    Poll::Pending if left == 0 && polls != 3 => Poll::Ready(None),
                    Poll::Pending => {
                        left = left.saturating_sub(1);
                        Poll::Pending
                    }
                })
                .await
            };
            if let Some(outcome) = appended {
                assert_eq!(outcome.unwrap(), before);
                expected.push(event);
            } else if journal.settle().await.unwrap() == before + 1 {
                expected.push(event);
            }
        }
        journal.finish().await.unwrap();
        let stored = checkpoints.load(&key, Span::ALL).await.unwrap();
        assert_eq!(numbers(&stored.records), expected, "{durability:?}");
        assert!(expected.len() >= 15, "{durability:?}");
    }
}

pub(super) async fn limits(subject: &dyn Subject) {
    let (checkpoints, scope) = fresh(subject).await;
    let key = run_of(&scope, 1);
    let small = checkpoints.with_options(|options| {
        options.limits.max_record_bytes = 10_000;
        options.limits.max_part_bytes = 50_000;
        options.spill_bytes = usize::MAX;
    });
    let mut journal = small.create(&key).await.unwrap();
    journal.append(Kind::Event, 1, &0_u64).await.unwrap();
    let large = Draft::raw(Kind::Event, 1, noise(100_000, 1));
    assert!(matches!(
        journal.append_draft(&large).await,
        Err(Error::TooLarge { .. })
    ));
    let large_part = Draft::raw(Kind::Event, 1, "").with_part(noise(50_001, 1));
    assert!(matches!(
        journal.append_draft(&large_part).await,
        Err(Error::TooLarge { .. })
    ));
    // One that cannot be encoded takes the others of its batch back with it.
    let good = Draft::new(Kind::Event, 1, &9_u64).unwrap();
    assert!(journal.append_all(&[good, large]).await.is_err());
    assert_eq!(journal.append(Kind::Event, 1, &1_u64).await.unwrap(), 1);
    journal.finish().await.unwrap();
    let little = checkpoints.with_options(|options| options.limits.max_load_bytes = 60);
    assert!(matches!(
        little.load(&key, Span::ALL).await,
        Err(Error::TooLarge { .. })
    ));
    assert_eq!(
        numbers(&checkpoints.load(&key, Span::ALL).await.unwrap().records),
        [0, 1]
    );
}

pub(super) async fn listing(subject: &dyn Subject) {
    let (checkpoints, scope) = fresh(subject).await;
    assert_eq!(checkpoints.runs(&scope, None, 10).await.unwrap(), []);
    for number in [3, 1, 2] {
        run_with(&checkpoints, &run_of(&scope, number), u64::from(number) * 10).await;
    }
    let (fork, _) = checkpoints
        .fork(&run_of(&scope, 2), 15, run_of(&scope, 4).run)
        .await
        .unwrap();
    let infos = checkpoints.runs(&scope, None, 10).await.unwrap();
    let ids = |numbers: &[u8]| {
        numbers
            .iter()
            .map(|number| run_of(&scope, *number).run)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        infos.iter().map(|info| info.run).collect::<Vec<_>>(),
        ids(&[1, 2, 3, 4])
    );
    assert!(
        infos[0].bytes < infos[1].bytes && infos[1].bytes < infos[2].bytes,
        "{infos:?}"
    );
    assert_eq!(
        infos[3].origin.map(|origin| (origin.run, origin.at)),
        Some((run_of(&scope, 2).run, 15))
    );
    assert!(
        infos[0].holder.is_none() && infos[3].holder.is_some(),
        "{infos:?}"
    );
    assert!(
        infos.iter().all(|info| info.updated.0 > 1_700_000_000_000),
        "{infos:?}"
    );
    let some = checkpoints
        .runs(&scope, Some(run_of(&scope, 1).run), 2)
        .await
        .unwrap();
    assert_eq!(some.iter().map(|info| info.run).collect::<Vec<_>>(), ids(&[2, 3]));
    drop(fork);
}

pub(super) async fn trimming(subject: &dyn Subject) {
    let (checkpoints, scope) = fresh(subject).await;
    let key = run_of(&scope, 1);
    let mut journal = checkpoints.create(&key).await.unwrap();
    for event in 0..30_u64 {
        if event % 10 == 5 {
            journal.snapshot(1, "state").await.unwrap();
        }
        journal.append(Kind::Event, 1, &event).await.unwrap();
    }
    // Snapshots are records 5, 16 and 27.
    assert_eq!(journal.trim(4).await.unwrap(), 0);
    assert_eq!(journal.trim(5).await.unwrap(), 5);
    assert_eq!(journal.trim(26).await.unwrap(), 16);
    assert_eq!(journal.trim(u64::MAX).await.unwrap(), 27);
    assert_eq!(journal.trim(u64::MAX).await.unwrap(), 27);
    assert_eq!(journal.append(Kind::Event, 1, &30_u64).await.unwrap(), 33);
    journal.finish().await.unwrap();
    let left = checkpoints.load(&key, Span::ALL).await.unwrap();
    assert_eq!(numbers(&left.records), (25..31).collect::<Vec<_>>());
    assert_eq!(left.records[0].kind, Kind::Snapshot);
    let early = checkpoints.fork(&key, 20, run_of(&scope, 2).run).await;
    assert!(matches!(early, Err(Error::OutOfRange { .. })), "{early:?}");
    checkpoints.fork(&key, 30, run_of(&scope, 2).run).await.unwrap();
}
