//! What only databases can do wrong: connections that break, leases that end, rows that somebody changed.

use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "sqlite")]
use peregrine_checkpoints::SqliteStore;
use peregrine_checkpoints::{Checkpoints, Error, Kind, Options, Span, Store};
#[cfg(feature = "postgres")]
use peregrine_checkpoints::{Durability, PostgresStore};

use crate::damage::key;
#[cfg(feature = "postgres")]
use crate::{child::Random, cut::Relay, stores::Schema};

fn checkpoints(store: impl Store + 'static) -> Checkpoints {
    Checkpoints::new(Arc::new(store), Options::default())
}

/// A lease is renewed as long as its store is there, and ends soon after; `forget` makes the rows look as if their
/// holder were on another machine.
async fn leases_end<S: Store + 'static>(
    open: impl AsyncFn() -> S,
    opened: impl Future<Output = S> + Send + 'static,
    lease: Duration,
    forget: impl AsyncFn(),
) {
    // Where it runs can be stopped, as a process can.
    let holder = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let held = holder.spawn(async move { checkpoints(opened.await).create(&key()).await.unwrap() });
    let mut held = held.await.unwrap();
    let other = checkpoints(open().await);
    forget().await;
    tokio::time::sleep(lease * 4).await;
    let refused = other.resume(&key()).await;
    assert!(
        matches!(refused, Err(Error::Leased { .. })),
        "it was not renewed: {refused:?}"
    );
    assert_eq!(held.append(Kind::Event, 1, "in time").await.unwrap(), 0);
    holder.shutdown_background();
    let resumed = async {
        loop {
            match other.resume(&key()).await {
                Err(Error::Leased { .. }) => tokio::time::sleep(lease / 10).await,
                resumed => return resumed.unwrap(),
            }
        }
    };
    let (mut journal, _) = tokio::time::timeout(lease * 40, resumed)
        .await
        .expect("the lease never ended");
    assert_eq!(journal.append(Kind::Event, 1, "on").await.unwrap(), 1);
    assert!(held.append(Kind::Event, 1, "too late").await.is_err());
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use super::*;
    use sqlx::{Connection as _, SqliteConnection};
    use tempfile::TempDir;

    async fn execute(folder: &TempDir, statement: &str) -> Vec<sqlx::sqlite::SqliteRow> {
        let url = format!("sqlite:{}", folder.path().join("runs.db").display());
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        let rows = sqlx::query(sqlx::AssertSqlSafe(statement))
            .fetch_all(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
        rows
    }

    async fn open(folder: &TempDir) -> Checkpoints {
        checkpoints(SqliteStore::open(folder.path().join("runs.db")).await.unwrap())
    }

    #[tokio::test]
    async fn it_is_recent_and_writes_ahead() {
        use sqlx::Row as _;
        let version = SqliteStore::version().await.unwrap();
        let numbers: Vec<u32> = version.split('.').map(|number| number.parse().unwrap()).collect();
        assert!(numbers >= vec![3, 51, 3], "{version}");
        let folder = TempDir::new().unwrap();
        open(&folder).await;
        let mode: String = execute(&folder, "PRAGMA journal_mode").await[0].get(0);
        assert_eq!(mode, "wal");
    }

    #[tokio::test]
    async fn a_uri_opens_it_and_processes_share_it() {
        let folder = TempDir::new().unwrap();
        let uri = format!("sqlite:{}", folder.path().join("a b?%c.db").display());
        let one = Checkpoints::open(&uri, Options::default()).await.unwrap();
        let other = Checkpoints::open(&uri, Options::default()).await.unwrap();
        let mut journal = one.create(&key()).await.unwrap();
        journal.append(Kind::Event, 1, "one").await.unwrap();
        assert_eq!(other.load(&key(), Span::ALL).await.unwrap().records.len(), 1);
        assert!(folder.path().join("a b?%c.db").exists());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn leases_are_renewed_and_end() {
        let folder = TempDir::new().unwrap();
        let lease = Duration::from_millis(1_500);
        let path = folder.path().join("runs.db");
        let of_holder = path.clone();
        let opened = async move { SqliteStore::open_with(of_holder, lease).await.unwrap() };
        let open = async || SqliteStore::open_with(&path, lease).await.unwrap();
        let elsewhere = "UPDATE peregrine_runs SET owner = json_set(owner, '$.boot', 'another')";
        leases_end(open, opened, lease, async || {
            drop(execute(&folder, elsewhere).await)
        })
        .await;
    }

    #[tokio::test]
    async fn a_changed_row_is_damage() {
        let folder = TempDir::new().unwrap();
        let store = open(&folder).await;
        let mut journal = store.create(&key()).await.unwrap();
        for event in 0..4_u64 {
            journal.append(Kind::Event, 1, &event).await.unwrap();
        }
        journal.finish().await.unwrap();
        execute(&folder, "CREATE TABLE kept AS SELECT * FROM peregrine_records").await;
        let damages = [
            "UPDATE peregrine_records SET frame = CAST(substr(frame, 1, 30) || x'00' || substr(frame, 32) AS BLOB)
                WHERE seq = 2",
            "UPDATE peregrine_records SET frame = substr(frame, 1, 30) || x'00ff' || substr(frame, 32) WHERE seq = 2",
            "UPDATE peregrine_records SET frame = 'text' WHERE seq = 2",
            "UPDATE peregrine_records SET frame = substr(frame, 1, length(frame) - 1) WHERE seq = 2",
            "DELETE FROM peregrine_records WHERE seq = 2",
            "UPDATE peregrine_records SET frame = (SELECT frame FROM kept WHERE seq = 1) WHERE seq = 2",
            "UPDATE peregrine_records SET frame = x'' WHERE seq = 2",
        ];
        for damage in damages {
            execute(&folder, damage).await;
            let loaded = store.load(&key(), Span::ALL).await;
            assert!(
                matches!(&loaded, Err(Error::Damaged(damage)) if damage.seq == 2),
                "{damage}: {loaded:?}"
            );
            let verification = store.verify(&key()).await.unwrap();
            assert!(!verification.is_whole());
            execute(&folder, "DELETE FROM peregrine_records").await;
            execute(&folder, "INSERT INTO peregrine_records SELECT * FROM kept").await;
        }
        assert!(store.verify(&key()).await.unwrap().is_whole());
    }

    #[tokio::test]
    async fn tables_of_a_later_version_are_left_alone() {
        let folder = TempDir::new().unwrap();
        open(&folder).await;
        execute(&folder, "UPDATE peregrine_format SET version = 2").await;
        let refused = SqliteStore::open(folder.path().join("runs.db")).await;
        assert!(
            matches!(
                refused,
                Err(Error::Unsupported {
                    found: 2,
                    known: 1,
                    ..
                })
            ),
            "{refused:?}"
        );
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_or_cannot_be_made_is_an_error() {
        let folder = TempDir::new().unwrap();
        std::fs::write(
            folder.path().join("runs.db"),
            "this is no database, but it is long enough to be read",
        )
        .unwrap();
        let refused = SqliteStore::open(folder.path().join("runs.db")).await;
        assert!(matches!(refused, Err(Error::Io { .. })), "{refused:?}");
        let refused = SqliteStore::open(folder.path().join("no/such/folder/runs.db")).await;
        assert!(matches!(refused, Err(Error::Io { .. })), "{refused:?}");
    }

    #[tokio::test]
    async fn a_full_disk_is_an_error_and_the_run_goes_on_when_there_is_room() {
        let Some(small) = crate::full::Small::mount() else {
            return;
        };
        let ballast = std::fs::File::create(small.path().join("ballast")).unwrap();
        std::io::Write::write_all(&mut &ballast, &[0; 100_000]).unwrap();
        let store = checkpoints(SqliteStore::open(small.path().join("runs.db")).await.unwrap());
        let mut journal = store.create(&key()).await.unwrap();
        let mut acknowledged = 0_u64;
        let refused = loop {
            match journal
                .append(Kind::Event, 1, &(acknowledged, "x".repeat(1_000)))
                .await
            {
                Ok(seq) => {
                    assert_eq!(seq, acknowledged);
                    acknowledged += 1;
                }
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, Error::Full { .. }), "{refused:?}");
        ballast.set_len(0).unwrap();
        assert_eq!(journal.settle().await.unwrap(), acknowledged);
        let last = journal
            .append(Kind::Event, 1, &(acknowledged, "there is room"))
            .await
            .unwrap();
        journal.finish().await.unwrap();
        let records = store.load(&key(), Span::ALL).await.unwrap().records;
        assert_eq!((records.len() as u64, last), (acknowledged + 1, acknowledged));
        for record in &records {
            assert_eq!(record.decode::<(u64, String)>().unwrap().0, record.seq);
        }
    }

    #[tokio::test]
    async fn a_killed_process_loses_nothing_that_was_acknowledged() {
        for (role, seed) in [("append", 3), ("append-power", 4)] {
            let folder = TempDir::new().unwrap();
            let uri = format!("sqlite:{}", folder.path().join("runs.db").display());
            crate::kill::kill_loop(role, &uri, crate::kill::kills(80) / 2, seed, crate::kill::BURST).await;
        }
    }

    #[test]
    fn of_two_processes_that_resume_a_run_one_proceeds() {
        let folder = TempDir::new().unwrap();
        crate::kill::contend(&format!("sqlite:{}", folder.path().join("runs.db").display()));
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn connections_that_break_lose_nothing_that_was_acknowledged() {
        let Some(server) = peregrine_testkit::service::postgres() else {
            return;
        };
        let schema = Schema::new(server).await;
        let relay = Relay::to(schema.address(), 12, 6).await;
        let store = checkpoints(PostgresStore::connect(&schema.url_through(&relay)).await.unwrap());
        let mut journal = store.create(&key()).await.unwrap();
        relay.set_cutting(true);
        let (mut random, mut expected, mut failures) = (Random(6), Vec::new(), 0);
        for _ in 0..10_000 {
            if failures >= 8 && expected.len() >= 40 {
                break;
            }
            let event = random.next();
            let before = loop {
                match journal.settle().await {
                    Ok(next) => break next,
                    Err(error) => {
                        assert!(error.is_retryable(), "{error:?}");
                        failures += 1;
                    }
                }
            };
            assert_eq!(before, expected.len() as u64, "a record came or went");
            let appended = {
                let mut append = Box::pin(journal.append(Kind::Event, 1, &event));
                // Some are cancelled at some point.
                let limit = Duration::from_micros(random.below(3_000));
                if random.below(3) == 0 {
                    tokio::time::timeout(limit, append.as_mut()).await.ok()
                } else {
                    Some(append.await)
                }
            };
            match appended {
                Some(Ok(seq)) => {
                    assert_eq!(seq, before);
                    expected.push(event);
                    continue;
                }
                Some(Err(error)) => {
                    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
                    failures += 1;
                }
                None => {}
            }
            // Whether it is there can only be asked.
            let after = loop {
                match journal.settle().await {
                    Ok(next) => break next,
                    Err(error) => assert!(error.is_retryable(), "{error:?}"),
                }
            };
            assert!(after == before || after == before + 1);
            if after > before {
                expected.push(event);
            }
        }
        relay.set_cutting(false);
        let (cuts, records) = (relay.cuts(), expected.len());
        assert!(
            failures >= 8 && records >= 40,
            "{failures} failures, {cuts} connections cut, {records} records",
        );
        println!("{failures} failures, {cuts} connections cut, {records} records");
        let store = checkpoints(PostgresStore::connect(&schema.url()).await.unwrap());
        let records = store.load(&key(), Span::ALL).await.unwrap().records;
        let stored: Vec<u64> = records.iter().map(|record| record.decode().unwrap()).collect();
        assert_eq!(stored, expected);
        drop((journal, store));
        schema.drop().await;
    }

    #[tokio::test]
    async fn a_cancelled_call_leaves_no_transaction_open() {
        use sqlx::Row as _;
        let Some(server) = peregrine_testkit::service::postgres() else {
            return;
        };
        let schema = Schema::new(server).await;
        let store = checkpoints(PostgresStore::connect(&schema.url()).await.unwrap());
        let store = store.with_durability(Durability::PowerSafe);
        for round in 0..120_u8 {
            let run = key().sibling(peregrine_core::RunId::from_parts(round.into(), [round; 10]));
            let work = async {
                let mut journal = store.create(&run).await?;
                journal
                    .append_draft(
                        &peregrine_checkpoints::Draft::raw(Kind::Event, 1, "x").with_part(vec![round; 5_000]),
                    )
                    .await?;
                journal.snapshot(1, "state").await?;
                journal.trim(u64::MAX).await?;
                journal.finish().await?;
                store.remove(&run).await
            };
            // Dropped at every stage.
            let limit = Duration::from_micros(u64::from(round) * 150);
            if let Ok(ended) = tokio::time::timeout(limit, work).await {
                ended.unwrap();
            }
        }
        // What was under way comes to its end by itself.
        let stuck = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' AND application_name = '{}'",
            schema.name()
        );
        let mut open: i64 = -1;
        for _ in 0..200 {
            open = schema.execute(&stuck).await[0].get(0);
            if open == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(open, 0);
        // And the pool serves as before.
        let mut journal = store
            .create(&key().sibling(peregrine_core::RunId::from_parts(999, [9; 10])))
            .await
            .unwrap();
        assert_eq!(journal.append(Kind::Event, 1, "x").await.unwrap(), 0);
        journal.finish().await.unwrap();
        schema.drop().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn leases_are_renewed_and_end() {
        let Some(server) = peregrine_testkit::service::postgres() else {
            return;
        };
        let schema = Schema::new(server).await;
        let lease = Duration::from_millis(1_500);
        let url = schema.url();
        let opened = async move { PostgresStore::connect_with(&url, lease).await.unwrap() };
        let open = async || PostgresStore::connect_with(&schema.url(), lease).await.unwrap();
        let elsewhere = format!(
            "UPDATE {}.peregrine_runs SET owner = jsonb_set(owner::jsonb, '{{boot}}', '\"another\"')::text",
            schema.name()
        );
        leases_end(open, opened, lease, async || {
            drop(schema.execute(&elsewhere).await)
        })
        .await;
        schema.drop().await;
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_an_error_without_the_password() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let url = format!("postgres://somebody:very-secret@127.0.0.1:{port}/runs");
        let refused = Checkpoints::open(&url, Options::default()).await.unwrap_err();
        assert!(matches!(refused, Error::Unavailable { .. }), "{refused:?}");
        assert!(!format!("{refused} {refused:?}").contains("very-secret"));
        let refused = Checkpoints::open("postgres://some body:very-secret@[::/x", Options::default())
            .await
            .unwrap_err();
        assert!(matches!(refused, Error::Config { .. }), "{refused:?}");
        assert!(!format!("{refused} {refused:?}").contains("very-secret"));
    }

    #[tokio::test]
    async fn a_killed_process_loses_nothing_that_was_acknowledged() {
        let Some(server) = peregrine_testkit::service::postgres() else {
            return;
        };
        let schema = Schema::new(server).await;
        crate::kill::kill_loop(
            "append",
            &schema.url(),
            crate::kill::kills(40),
            5,
            Duration::from_millis(80),
        )
        .await;
        schema.drop().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn of_two_processes_that_resume_a_run_one_proceeds() {
        let Some(server) = peregrine_testkit::service::postgres() else {
            return;
        };
        let schema = Schema::new(server).await;
        let url = schema.url();
        tokio::task::spawn_blocking(move || crate::kill::contend(&url))
            .await
            .unwrap();
        schema.drop().await;
    }
}

#[tokio::test]
async fn a_uri_that_names_no_store_is_an_error() {
    for uri in [
        "",
        "memory",
        "memory:x",
        "dir:",
        "file:x",
        "mysql://user:very-secret@host/db",
    ] {
        let opened = Checkpoints::open(uri, Options::default()).await;
        if uri == "memory" {
            opened.unwrap();
            continue;
        }
        let refused = opened.unwrap_err();
        assert!(matches!(refused, Error::Config { .. }), "{uri}: {refused:?}");
        assert!(!refused.to_string().contains("very-secret"));
    }
}
