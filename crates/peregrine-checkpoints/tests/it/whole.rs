//! What is done with whole runs: diff, verify, retention, export and import.

use std::time::Duration;

use peregrine_checkpoints::{Checkpoints, Draft, Error, Kind, MemoryStore, Options, Retention, RunKey, Span};
use peregrine_core::{RunId, Scope, UnixTime};
use peregrine_testkit::FakeClock;
use serde_json::{Value, json};
use std::sync::Arc;

fn memory() -> Checkpoints {
    Checkpoints::new(Arc::new(MemoryStore::new()), Options::default())
}

fn key(number: u8) -> RunKey {
    RunKey::new(
        Scope::tenant("t").unwrap(),
        RunId::from_parts(number.into(), [number; 10]),
    )
}

async fn run_of(checkpoints: &Checkpoints, key: &RunKey, events: &[Value]) {
    let mut journal = checkpoints.create(key).await.unwrap();
    for event in events {
        journal.append(Kind::Event, 1, event).await.unwrap();
    }
    journal.finish().await.unwrap();
}

#[tokio::test]
async fn a_diff_names_the_first_record_that_differs() {
    let checkpoints = memory();
    let same: Vec<Value> = (0..5).map(|n| json!({ "n": n })).collect();
    run_of(&checkpoints, &key(1), &same).await;
    run_of(&checkpoints, &key(2), &same).await;
    let diff = checkpoints.diff(&key(1), &key(2)).await.unwrap();
    assert!(diff.is_same() && diff.common == 5 && diff.shared == 0, "{diff:?}");
    let diff = checkpoints.diff(&key(1), &key(1)).await.unwrap();
    assert!(diff.is_same() && diff.common == 5 && diff.shared == 5, "{diff:?}");

    let mut other = same.clone();
    other[3] = json!({"n": "three"});
    run_of(&checkpoints, &key(3), &other).await;
    let diff = checkpoints.diff(&key(1), &key(3)).await.unwrap();
    assert_eq!((diff.common, diff.left_next, diff.right_next), (3, 5, 5));
    assert_eq!(diff.left.unwrap().decode::<Value>().unwrap(), same[3]);
    assert_eq!(diff.right.unwrap().decode::<Value>().unwrap(), other[3]);

    // One is the beginning of the other.
    run_of(&checkpoints, &key(4), &same[..2]).await;
    let diff = checkpoints.diff(&key(4), &key(1)).await.unwrap();
    assert_eq!((diff.common, diff.left, diff.right.unwrap().seq), (2, None, 2));

    // Of forks, what they share is not looked at.
    for (fork, at) in [(5, 4), (6, 2)] {
        checkpoints.fork(&key(1), at, key(fork).run).await.unwrap();
    }
    let diff = checkpoints.diff(&key(5), &key(6)).await.unwrap();
    assert_eq!((diff.shared, diff.common), (2, 2));
    assert_eq!(
        (diff.left.unwrap().kind, diff.right.unwrap().kind),
        (Kind::Event, Kind::Marker)
    );
    let diff = checkpoints.diff(&key(1), &key(5)).await.unwrap();
    assert_eq!((diff.shared, diff.common), (4, 4));
}

#[tokio::test]
async fn retention_keeps_the_newest() {
    let clock = Arc::new(FakeClock::new());
    let mut options = Options::default();
    options.clock = clock.clone();
    let checkpoints = Checkpoints::new(Arc::new(MemoryStore::new()), options);
    let scope = key(0).scope;
    for number in 1..=6 {
        clock.advance(Duration::from_secs(100));
        run_of(&checkpoints, &key(number), &[json!("x".repeat(1_000))]).await;
    }
    // A run is as old as its last record, not as its beginning.
    clock.advance(Duration::from_secs(50));
    let (mut busy, _) = checkpoints.resume(&key(1)).await.unwrap();
    busy.append(Kind::Event, 1, "still at it").await.unwrap();
    let prune = async |retention: Retention| {
        let pruned = checkpoints.prune(&scope, &retention).await.unwrap();
        assert_eq!(
            checkpoints.runs(&scope, None, 99).await.unwrap().len(),
            pruned.kept
        );
        pruned
    };
    assert_eq!(prune(Retention::default()).await.removed, []);
    let old = prune(Retention::default().with_max_age(Duration::from_secs(360))).await;
    assert_eq!(old.removed, [key(2).run]);
    let few = prune(Retention::default().with_max_runs(3)).await;
    assert_eq!((few.removed, few.busy), (vec![key(3).run, key(4).run], vec![]));
    checkpoints.fork(&key(5), 1, key(7).run).await.unwrap();
    clock.advance(Duration::from_secs(1));
    busy.append(Kind::Event, 1, "and now the newest").await.unwrap();
    let small = prune(Retention::default().with_max_bytes(2_000)).await;
    assert_eq!(small.removed, [key(5).run, key(6).run]);
    // What the fork shares is still there.
    let shared = checkpoints.load(&key(7), Span::ALL).await.unwrap();
    assert_eq!(shared.records[0].decode::<String>().unwrap().len(), 1_000);
    let all = prune(Retention::default().with_max_runs(0)).await;
    assert_eq!((all.busy, all.removed), (vec![key(1).run], vec![key(7).run]));
}

#[tokio::test]
async fn an_export_is_imported_as_the_same_records() {
    let checkpoints = memory();
    let mut journal = checkpoints.create(&key(1)).await.unwrap();
    let values = [
        json!(null),
        json!({"b": 1, "a": [1.5, -3, 1e300, 0.1, 5e-324, u64::MAX, i64::MIN], "c": {"ä": "\u{0}\"\\"}}),
        json!("x".repeat(200_000)),
    ];
    for value in &values {
        journal.append(Kind::Event, 7, value).await.unwrap();
    }
    // What JSON cannot say, or not say so that the same bytes come back.
    let raw: [&[u8]; 5] = [
        b"",
        b"\xc1",
        b"\xca\x3f\x80\x00\x00",
        b"\x81\x01\x02",
        b"\xcd\x00\x01",
    ];
    for bytes in raw {
        journal
            .append_draft(&Draft::raw(Kind::EffectResult, 1, bytes))
            .await
            .unwrap();
    }
    let part = vec![5_u8; 10_000];
    for _ in 0..2 {
        let draft = Draft::raw(Kind::Effect, 1, "\u{1}")
            .with_part(part.clone())
            .with_part("little");
        journal.append_draft(&draft).await.unwrap();
    }
    journal.finish().await.unwrap();
    checkpoints
        .fork(&key(1), 9, key(2).run)
        .await
        .unwrap()
        .0
        .finish()
        .await
        .unwrap();

    let mut text = Vec::new();
    assert_eq!(checkpoints.export(&key(2), &mut text).await.unwrap(), 10);
    let lines: Vec<Value> = String::from_utf8(text.clone())
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[2]["payload"], values[1]);
    assert_eq!(lines[1]["payload"], Value::Null);
    assert!(
        lines[4..9].iter().all(|line| line["payload_base64"].is_string()),
        "{:?}",
        &lines[4..9]
    );
    assert_eq!(lines[0]["origin"]["at"], 9);

    let elsewhere = memory();
    elsewhere
        .import(&key(3), &mut &text[..])
        .await
        .unwrap()
        .finish()
        .await
        .unwrap();
    let (before, after) = (
        checkpoints.load(&key(2), Span::ALL).await.unwrap(),
        elsewhere.load(&key(3), Span::ALL).await.unwrap(),
    );
    assert_eq!(before.records, after.records);
    assert_eq!(
        checkpoints.verify(&key(2)).await.unwrap().digest,
        elsewhere.verify(&key(3)).await.unwrap().digest
    );
    let mut again = Vec::new();
    elsewhere.export(&key(3), &mut again).await.unwrap();
    assert_eq!(
        text.split(|b| *b == b'\n').skip(1).collect::<Vec<_>>(),
        again.split(|b| *b == b'\n').skip(1).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn what_is_no_export_is_refused_with_its_line() {
    let checkpoints = memory();
    run_of(&checkpoints, &key(1), &[json!(1), json!(2), json!(3)]).await;
    let mut text = Vec::new();
    checkpoints.export(&key(1), &mut text).await.unwrap();
    let text = String::from_utf8(text).unwrap();
    let damaged = [
        ("", "line 1"),
        ("{}", "line 1"),
        (&text.replace("\"seq\":1", "\"seq\":7"), "line 3"),
        (&text.replace("\"schema\":1", "\"schema\":-1"), "line 2"),
        (
            &text.replace("\"payload\":2", "\"payload\":2,\"extra\":3"),
            "line 3",
        ),
        (&text.replace(",\"payload\":3", ""), "line 4"),
        (
            &text.replace("\"payload\":3", "\"payload_base64\":\"*\""),
            "line 4",
        ),
        (
            &text.replace("\"payload\":3", "\"payload\":3,\"parts\":[{\"id\":\"x\"}]"),
            "line 4",
        ),
        (text.rsplitn(3, '\n').last().unwrap(), "promised"),
    ];
    for (text, expected) in damaged {
        let refused = checkpoints
            .import(&key(2), &mut text.as_bytes())
            .await
            .unwrap_err();
        assert!(refused.to_string().contains(expected), "{refused} for {text}");
        assert!(matches!(
            checkpoints.load(&key(2), Span::ALL).await,
            Err(Error::NotFound { .. })
        ));
    }
    let later = text.replace("\"peregrine_journal\":1", "\"peregrine_journal\":2");
    let refused = checkpoints
        .import(&key(2), &mut later.as_bytes())
        .await
        .unwrap_err();
    assert!(
        matches!(refused, Error::Unsupported { found: 2, .. }),
        "{refused}"
    );
}

#[tokio::test]
async fn times_come_from_the_clock_or_the_draft() {
    let clock = Arc::new(FakeClock::new());
    let mut options = Options::default();
    options.clock = clock.clone();
    let checkpoints = Checkpoints::new(Arc::new(MemoryStore::new()), options);
    let mut journal = checkpoints.create(&key(1)).await.unwrap();
    journal.append(Kind::Event, 1, &1).await.unwrap();
    let begun = peregrine_core::Clock::unix(&*clock);
    clock.advance(Duration::from_millis(1_234));
    journal.append(Kind::Event, 1, &2).await.unwrap();
    journal
        .append_draft(&Draft::new(Kind::Event, 1, &3).unwrap().with_time(UnixTime(9)))
        .await
        .unwrap();
    let records = checkpoints.load(&key(1), Span::ALL).await.unwrap().records;
    let times: Vec<u64> = records.iter().map(|record| record.at.0).collect();
    assert_eq!(times, [begun.0, begun.0 + 1_234, 9]);
}
