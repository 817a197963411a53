//! Forks: they share, they pin, and they go away.

use super::{Subject, fresh, numbers, run_of, run_with};
use crate::{Checkpoints, Draft, Error, Forked, Kind, Part, RunKey, Span};

async fn events(checkpoints: &Checkpoints, key: &RunKey) -> Vec<u64> {
    numbers(&checkpoints.load(key, Span::ALL).await.unwrap().records)
}

pub(super) async fn sharing(subject: &dyn Subject) {
    let (checkpoints, scope) = fresh(subject).await;
    let [root, first, second, third, empty] = [1, 2, 3, 4, 5].map(|number| run_of(&scope, number));
    let mut journal = checkpoints.create(&root).await.unwrap();
    for event in 0..10_u64 {
        journal.append(Kind::Event, 1, &event).await.unwrap();
    }
    // While the root is being written.
    let (mut fork, shared) = checkpoints.fork(&root, 6, first.run).await.unwrap();
    assert_eq!(numbers(&shared.records), (0..6).collect::<Vec<_>>());
    for event in 100..104_u64 {
        fork.append(Kind::Event, 1, &event).await.unwrap();
    }
    journal.append(Kind::Event, 1, &10_u64).await.unwrap();
    assert_eq!(events(&checkpoints, &root).await, (0..11).collect::<Vec<_>>());
    assert_eq!(
        events(&checkpoints, &first).await,
        [0, 1, 2, 3, 4, 5, 100, 101, 102, 103]
    );
    let history = checkpoints.load(&first, Span::ALL).await.unwrap();
    let marker: Forked = history.records[6].decode().unwrap();
    assert_eq!(
        (history.records[6].kind, marker.from, marker.at),
        (Kind::Marker, root.run, 6)
    );
    assert_eq!(
        history
            .records
            .iter()
            .map(|record| record.seq)
            .collect::<Vec<_>>(),
        (0..11).collect::<Vec<_>>()
    );
    let bytes = checkpoints.runs(&scope, None, 9).await.unwrap()[1].bytes;
    assert!(bytes < 1_500, "the fork copied what it shares: {bytes} bytes");

    // Of a fork: beyond its origin, within what it shares, and exactly at it.
    checkpoints.fork(&first, 9, second.run).await.unwrap();
    assert_eq!(events(&checkpoints, &second).await, [0, 1, 2, 3, 4, 5, 100, 101]);
    checkpoints.fork(&second, 3, third.run).await.unwrap();
    assert_eq!(events(&checkpoints, &third).await, [0, 1, 2]);
    let lineage = async |key: &RunKey| {
        let lineage = checkpoints.lineage(key).await.unwrap();
        lineage
            .iter()
            .map(|origin| (origin.run, origin.at))
            .collect::<Vec<_>>()
    };
    assert_eq!(lineage(&second).await, [(first.run, 9), (root.run, 6)]);
    assert_eq!(lineage(&third).await, [(root.run, 3)]);
    checkpoints.fork(&first, 0, empty.run).await.unwrap();
    assert_eq!(events(&checkpoints, &empty).await, [0_u64; 0]);

    // Spans reach across, and a snapshot in the fork ends the search.
    let some = checkpoints.load(&second, Span::from(4).upto(8)).await.unwrap();
    assert_eq!(numbers(&some.records), [4, 5, 100]);
    let (mut fork, history) = {
        drop(fork);
        super::when_free(|| checkpoints.resume(&first)).await
    };
    assert_eq!(numbers(&history.records).len(), 10);
    fork.snapshot(1, "state").await.unwrap();
    fork.append(Kind::Event, 1, &104_u64).await.unwrap();
    fork.finish().await.unwrap();
    let since = checkpoints.load(&first, Span::SINCE_SNAPSHOT).await.unwrap();
    assert_eq!(
        (since.records.len(), since.records[0].seq, since.next_seq),
        (2, 11, 13)
    );
}

pub(super) async fn out_of_range(subject: &dyn Subject) {
    let (checkpoints, scope) = fresh(subject).await;
    let [root, fork, missing] = [1, 2, 3].map(|number| run_of(&scope, number));
    run_with(&checkpoints, &root, 5).await;
    let wrong = checkpoints.fork(&root, 6, fork.run).await;
    assert!(
        matches!(
            wrong,
            Err(Error::OutOfRange {
                asked: 6,
                next: 5,
                ..
            })
        ),
        "{wrong:?}"
    );
    assert!(matches!(
        checkpoints.fork(&missing, 0, fork.run).await,
        Err(Error::NotFound { .. })
    ));
    assert!(matches!(
        checkpoints.load(&fork, Span::ALL).await,
        Err(Error::NotFound { .. })
    ));
    checkpoints.fork(&root, 5, fork.run).await.unwrap();
    assert!(matches!(
        checkpoints.fork(&root, 5, fork.run).await,
        Err(Error::AlreadyExists { .. })
    ));
}

pub(super) async fn removal(subject: &dyn Subject) {
    let (checkpoints, scope) = fresh(subject).await;
    let [root, first, second, late] = [1, 2, 3, 4].map(|number| run_of(&scope, number));
    let part = vec![7_u8; 50_000];
    let mut journal = checkpoints.create(&root).await.unwrap();
    journal
        .append_draft(&Draft::raw(Kind::Marker, 1, "").with_part(part.clone()))
        .await
        .unwrap();
    for event in 1..8_u64 {
        journal.append(Kind::Event, 1, &event).await.unwrap();
    }
    journal.finish().await.unwrap();
    for (parent, at, fork) in [(&root, 5, &first), (&first, 6, &second)] {
        let (journal, _) = checkpoints.fork(parent, at, fork.run).await.unwrap();
        journal.finish().await.unwrap();
    }
    checkpoints.remove(&root).await.unwrap();
    checkpoints.remove(&first).await.unwrap();
    for gone in [&root, &first] {
        assert!(matches!(
            checkpoints.load(gone, Span::ALL).await,
            Err(Error::NotFound { .. })
        ));
        assert!(matches!(
            checkpoints.resume(gone).await,
            Err(Error::NotFound { .. })
        ));
        assert!(matches!(
            checkpoints.fork(gone, 1, late.run).await,
            Err(Error::NotFound { .. })
        ));
        assert!(matches!(
            checkpoints.create(gone).await,
            Err(Error::AlreadyExists { .. })
        ));
    }
    assert_eq!(checkpoints.runs(&scope, None, 9).await.unwrap().len(), 1);
    // All that the last one shares is there, its part too, and can be forked on.
    let history = checkpoints.load(&second, Span::ALL).await.unwrap();
    assert_eq!(numbers(&history.records), [1, 2, 3, 4]);
    let Part::Stored(reference) = history.records[0].parts[0] else {
        panic!("the part stands in the record");
    };
    assert!(checkpoints.part(&second, reference).await.unwrap() == part);
    let (journal, _) = checkpoints.fork(&second, 3, late.run).await.unwrap();
    journal.finish().await.unwrap();
    checkpoints.remove(&second).await.unwrap();
    assert_eq!(events(&checkpoints, &late).await, [1, 2]);
    // With the last fork everything goes, and the ids are free.
    checkpoints.remove(&late).await.unwrap();
    assert_eq!(checkpoints.runs(&scope, None, 9).await.unwrap(), []);
    assert!(matches!(
        checkpoints.part(&late, reference).await,
        Err(Error::NotFound { .. })
    ));
    run_with(&checkpoints, &root, 1).await;
    run_with(&checkpoints, &first, 1).await;
}

pub(super) async fn trimming(subject: &dyn Subject) {
    let (checkpoints, scope) = fresh(subject).await;
    let [root, fork] = [1, 2].map(|number| run_of(&scope, number));
    let mut journal = checkpoints.create(&root).await.unwrap();
    for event in 0..10_u64 {
        journal.append(Kind::Event, 1, &event).await.unwrap();
    }
    journal.snapshot(1, "state").await.unwrap();
    let (mut child, _) = checkpoints.fork(&root, 4, fork.run).await.unwrap();
    // The fork needs record 0, so it stays.
    assert_eq!(journal.trim(u64::MAX).await.unwrap(), 0);
    assert_eq!(events(&checkpoints, &fork).await, [0, 1, 2, 3]);
    // A fork with a snapshot of its own needs nothing else any more.
    child.snapshot(1, "state").await.unwrap();
    assert_eq!(child.trim(u64::MAX).await.unwrap(), 5);
    assert_eq!(checkpoints.lineage(&fork).await.unwrap(), []);
    let history = checkpoints.load(&fork, Span::ALL).await.unwrap();
    assert_eq!(
        history
            .records
            .iter()
            .map(|record| record.seq)
            .collect::<Vec<_>>(),
        [5]
    );
    assert_eq!(journal.trim(u64::MAX).await.unwrap(), 10);
    journal.finish().await.unwrap();
    checkpoints.remove(&root).await.unwrap();
    child.append(Kind::Event, 1, &1_u64).await.unwrap();
    child.finish().await.unwrap();
    run_with(&checkpoints, &root, 1).await;
}
