//! Leases: one writer at a time, and none that was replaced.

use peregrine_core::UnixTime;

use super::{Subject, fresh, numbers, run_of, run_with, when_free};
use crate::store::{Acquire, Batch, Persist};
use crate::{Checkpoints, Error, Kind, Options, Span};

pub(super) async fn one_writer(subject: &dyn Subject) {
    let (checkpoints, scope) = fresh(subject).await;
    let other = Checkpoints::new(subject.open().await, Options::default());
    let key = run_of(&scope, 1);
    run_with(&checkpoints, &key, 1).await;
    let mut writers = Vec::new();
    for attempt in 0..16 {
        let from = if attempt % 2 == 0 { &checkpoints } else { &other };
        match from.resume(&key).await {
            Ok((journal, _)) => writers.push(journal),
            Err(Error::Leased { run, .. }) => assert_eq!(run, key.run),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(writers.len(), 1);
    assert!(matches!(
        checkpoints.remove(&key).await,
        Err(Error::Leased { .. })
    ));
    let mut journal = writers.remove(0);
    let token = journal.lease().unwrap().token;
    journal.append(Kind::Event, 1, &1_u64).await.unwrap();
    // Given back by finishing, at once; by dropping, soon.
    journal.finish().await.unwrap();
    let (journal, _) = other.resume(&key).await.unwrap();
    assert!(journal.lease().unwrap().token > token);
    drop(journal);
    let (journal, history) = when_free(|| checkpoints.resume(&key)).await;
    assert!(journal.lease().unwrap().token > token + 1);
    assert_eq!(numbers(&history.records), [0, 1]);
}

pub(super) async fn takeover(subject: &dyn Subject) {
    let (checkpoints, scope) = fresh(subject).await;
    let other = Checkpoints::new(subject.open().await, Options::default());
    let key = run_of(&scope, 1);
    let mut old = checkpoints.create(&key).await.unwrap();
    old.append(Kind::Event, 1, &0_u64).await.unwrap();
    let (mut new, history) = other.take_over(&key).await.unwrap();
    assert_eq!(numbers(&history.records), [0]);
    assert!(new.lease().unwrap().token > old.lease().unwrap().token);
    // Before the new one has written anything, and after.
    for event in 1..3_u64 {
        for _ in 0..2 {
            let refused = old.append(Kind::Event, 1, &666_u64).await;
            assert!(matches!(refused, Err(Error::Fenced { .. })), "{refused:?}");
        }
        new.append(Kind::Event, 1, &event).await.unwrap();
    }
    assert!(matches!(
        old.snapshot(1, "state").await,
        Err(Error::Fenced { .. })
    ));
    assert!(matches!(old.trim(u64::MAX).await, Err(Error::Fenced { .. })));
    // The old one's end does not take the lease from the new one.
    drop(old);
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert!(matches!(
        checkpoints.resume(&key).await,
        Err(Error::Leased { .. })
    ));
    new.append(Kind::Event, 1, &3_u64).await.unwrap();
    new.finish().await.unwrap();
    let history = checkpoints.load(&key, Span::ALL).await.unwrap();
    assert_eq!(numbers(&history.records), [0, 1, 2, 3]);
    assert_eq!(history.tail, None);
    let (mut journal, history) = checkpoints.resume(&key).await.unwrap();
    assert_eq!(numbers(&history.records), [0, 1, 2, 3]);
    assert_eq!(journal.append(Kind::Event, 1, &4_u64).await.unwrap(), 4);
}

pub(super) async fn order(subject: &dyn Subject) {
    let (checkpoints, scope) = fresh(subject).await;
    let key = run_of(&scope, 1);
    let at = UnixTime(1);
    let mut writer = checkpoints
        .store()
        .acquire(&key, Acquire::create(None, Persist::Process, at))
        .await
        .unwrap();
    assert_eq!(writer.settle().await.unwrap(), 0);
    // A batch that does not begin with the next record is refused, and changes nothing.
    let frames = [0; 64];
    for wrong in [1, 7, u64::MAX - 1] {
        assert!(
            writer
                .append(&Batch::new(wrong, &frames, &[64], at))
                .await
                .is_err()
        );
    }
    assert_eq!(writer.settle().await.unwrap(), 0);
    writer.release().await.unwrap();
    assert_eq!(checkpoints.load(&key, Span::ALL).await.unwrap().records, []);
}
