//! Several at the same time: readers and a writer, forks and removals.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use peregrine_checkpoints::{Checkpoints, Draft, Error, Kind, Options, Part, Retention, RunKey, Span};
use peregrine_core::RunId;
use tempfile::TempDir;

use crate::damage::{key, open};

/// Runs `work` over and over on a thread of its own while `meanwhile` runs.
async fn beside<T>(work: impl AsyncFn() + Send + 'static, meanwhile: impl Future<Output = T>) -> T {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let mut rounds = 0;
        while !stopped.load(Ordering::Relaxed) {
            runtime.block_on(work());
            rounds += 1;
        }
        rounds
    });
    let outcome = meanwhile.await;
    stop.store(true, Ordering::Relaxed);
    assert!(thread.join().unwrap() > 3, "there was nothing beside");
    outcome
}

#[tokio::test]
async fn readers_see_a_prefix_while_a_writer_appends_snapshots_and_trims() {
    let folder = TempDir::new().unwrap();
    let checkpoints = open(folder.path()).await;
    let mut journal = checkpoints.create(&key()).await.unwrap();
    let reader = open(folder.path()).await;
    let read = async move || {
        let all = reader.load(&key(), Span::ALL).await.unwrap();
        for (place, record) in all.records.iter().enumerate() {
            assert_eq!(record.seq, all.records[0].seq + place as u64);
            assert_eq!(record.decode::<(u64, String)>().unwrap().0, record.seq);
        }
        let since = reader.load(&key(), Span::SINCE_SNAPSHOT).await.unwrap();
        assert!(since.next_seq >= all.next_seq);
    };
    beside(read, async {
        for event in 0..6_000_u64 {
            let kind = if event % 50 == 49 {
                Kind::Snapshot
            } else {
                Kind::Event
            };
            journal
                .append(kind, 1, &(event, "x".repeat((event % 700) as usize)))
                .await
                .unwrap();
            if event % 400 == 399 {
                journal.trim(event - 200).await.unwrap();
            }
        }
    })
    .await;
}

fn rounds() -> u64 {
    let given = std::env::var("PEREGRINE_RACES").ok();
    given.map_or(300, |given| given.parse().unwrap())
}

/// While one forks, another removes what is forked: each fork either has everything it shares, or was refused.
#[tokio::test]
async fn forks_and_removals_race() {
    let folder = TempDir::new().unwrap();
    let checkpoints = open(folder.path()).await;
    let remover = open(folder.path()).await;
    let root = |round: u64| key().sibling(RunId::from_parts(round, [0; 10]));
    let fork = |round: u64| key().sibling(RunId::from_parts(round, [1; 10]));
    let part = vec![3_u8; 8_000];
    let (mut forked, mut refused) = (0, 0);
    for round in 0..rounds() {
        let mut journal = checkpoints.create(&root(round)).await.unwrap();
        for _ in 0..3 {
            journal
                .append_draft(&Draft::raw(Kind::Event, 1, "x").with_part(part.clone()))
                .await
                .unwrap();
        }
        journal.finish().await.unwrap();
        let remover = remover.clone();
        let gone = root(round);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(remover.remove(&gone))
        });
        match checkpoints.fork(&root(round), 2, fork(round).run).await {
            Ok((journal, _)) => {
                journal.finish().await.unwrap();
                forked += 1;
            }
            Err(Error::NotFound { .. }) => refused += 1,
            Err(error) => panic!("round {round}: {error}"),
        }
        thread.join().unwrap().unwrap();
        match checkpoints.verify(&fork(round)).await {
            Ok(verification) => assert!(
                verification.is_whole() && verification.next_seq == 3,
                "{verification:?}"
            ),
            Err(error) => assert!(matches!(error, Error::NotFound { .. }), "{error}"),
        }
        assert!(matches!(
            checkpoints.load(&root(round), Span::ALL).await,
            Err(Error::NotFound { .. })
        ));
    }
    println!("{forked} forked, {refused} refused");
    let nothing = Retention::default().with_max_runs(0);
    checkpoints.prune(&key().scope, &nothing).await.unwrap();
    // With the last fork, the last part is gone from the pool.
    let mut left = Vec::new();
    let mut folders = vec![folder.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| name != "recovery.lock") {
                left.push(path);
            }
        }
    }
    assert!(left.is_empty(), "{} files, such as {:?}", left.len(), left[0]);
}

/// A part is in the pool as long as a run has it, and those that come later share it.
#[cfg(unix)]
#[tokio::test]
async fn parts_are_shared_by_later_runs_too() {
    use std::os::unix::fs::MetadataExt as _;
    let folder = TempDir::new().unwrap();
    let checkpoints = open(folder.path()).await;
    let run = |number: u8| key().sibling(RunId::from_parts(number.into(), [number; 10]));
    let create = async |number: u8| {
        let mut journal = checkpoints.create(&run(number)).await.unwrap();
        let draft = Draft::raw(Kind::Event, 1, "x").with_part(vec![7; 9_000]);
        journal.append_draft(&draft).await.unwrap();
        journal.finish().await.unwrap();
    };
    for number in [1, 2] {
        create(number).await;
    }
    checkpoints.remove(&run(1)).await.unwrap();
    create(3).await;
    let mut files = Vec::new();
    let mut folders = vec![folder.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| name.len() == 64) {
                files.push(std::fs::metadata(path).unwrap());
            }
        }
    }
    // One name in the pool, and one for each of the two runs.
    let inodes: Vec<_> = files.iter().map(|file| (file.ino(), file.nlink())).collect();
    assert_eq!(inodes, vec![(inodes[0].0, 3); 3]);
}

/// Runs that come and go share a part; whoever has it can always read it.
#[tokio::test]
async fn parts_are_there_as_long_as_somebody_names_them() {
    let folder = TempDir::new().unwrap();
    let part = vec![5_u8; 9_000];
    let come_and_go = |checkpoints: Checkpoints, run: RunKey, part: Vec<u8>| async move {
        let mut journal = checkpoints.create(&run).await.unwrap();
        journal
            .append_draft(&Draft::raw(Kind::Event, 1, "x").with_part(part.clone()))
            .await
            .unwrap();
        journal.finish().await.unwrap();
        let history = checkpoints.load(&run, Span::ALL).await.unwrap();
        let Part::Stored(reference) = history.records[0].parts[0] else {
            panic!("the part stands in the record");
        };
        assert!(checkpoints.part(&run, reference).await.unwrap() == part);
        checkpoints.remove(&run).await.unwrap();
    };
    let other = open(folder.path()).await;
    let beside_part = part.clone();
    let work = async move || {
        come_and_go(
            other.clone(),
            key().sibling(RunId::from_parts(2, [2; 10])),
            beside_part.clone(),
        )
        .await
    };
    let checkpoints = Checkpoints::open(&format!("dir:{}", folder.path().display()), Options::default())
        .await
        .unwrap();
    beside(work, async {
        for round in 0..400 {
            come_and_go(
                checkpoints.clone(),
                key().sibling(RunId::from_parts(100 + round, [3; 10])),
                part.clone(),
            )
            .await;
        }
    })
    .await;
}
