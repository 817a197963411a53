//! `kill -9` at random moments, with tools that write to a ledger outside: no side effect happens twice, and none is lost
//! unless the run says that it is in doubt.
//!
//! `PEREGRINE_KILLS` says how often (500 for directories by default, 30 for databases).

use std::collections::BTreeMap;
use std::time::Duration;

use peregrine_agent::More;
use peregrine_checkpoints::{Checkpoints, Options};
use tempfile::TempDir;

use super::child::{self, TURNS};

fn kills(usual: u64) -> u64 {
    let given = std::env::var("PEREGRINE_KILLS").ok();
    given.map_or(usual, |given| given.parse().unwrap())
}

#[derive(Debug, Default)]
struct Tally {
    kills: u64,
    runs: u64,
    found_done: u64,
    found_not_done: u64,
}

/// Kills children until that happened so often; each run is finished and checked.
async fn kill_loop(uri: &str, kills: u64, seed: u64, longest: Duration) {
    let folder = TempDir::new().unwrap();
    let ledger = folder.path().join("ledger").display().to_string();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut tally = Tally::default();
    while tally.kills < kills {
        let run = tally.runs;
        loop {
            // At the end each run gets the time that it needs. Else half of the processes are killed in a tool, the others at
            // any moment, some before they have begun.
            let may_end = tally.kills >= kills;
            let pause = (!may_end && random.bool()).then(|| random.u64(..14));
            let (mut process, mut output) = child::spawn(uri, &ledger, run, random.u64(..), pause);
            let (ready, begun) = std::sync::mpsc::channel();
            let reader = std::thread::spawn(move || {
                let mut said = Vec::new();
                while let Some(line) = child::line(&mut output) {
                    let _killed_before = ready.send(line.clone());
                    said.push(line);
                }
                said
            });
            if !may_end {
                if pause.is_some() {
                    // Until it pauses, or is done.
                    while begun.recv().is_ok_and(|line| line != "PAUSED") {}
                } else if random.u64(..8) != 0 {
                    let _gone = begun.recv();
                }
                let longest = u64::try_from(longest.as_micros()).unwrap();
                std::thread::sleep(Duration::from_micros(random.u64(..longest)));
                process.kill().unwrap();
                tally.kills += 1;
            }
            process.wait().unwrap();
            let mut is_over = false;
            for line in reader.join().unwrap() {
                match line.as_str() {
                    "READY" | "PAUSED" => {}
                    "DOUBT done" => tally.found_done += 1,
                    "DOUBT not" => tally.found_not_done += 1,
                    "DONE All is done." => is_over = true,
                    other => panic!("kill {}: {other}", tally.kills),
                }
            }
            if is_over {
                break;
            }
            assert!(!may_end, "the run {run} does not end");
        }
        tally.runs += 1;
        check(uri, &ledger, run).await;
    }
    println!("{uri}: {tally:?}");
    assert!(
        tally.runs > 0 && tally.found_done + tally.found_not_done > 0,
        "{tally:?}"
    );
}

async fn check(uri: &str, ledger: &str, run: u64) {
    let checkpoints = Checkpoints::open(uri, Options::default()).await.unwrap();
    let agent = child::agent(checkpoints, ledger);
    let id = child::id(run);
    let mut times: BTreeMap<String, u64> = BTreeMap::new();
    for line in child::lines(ledger) {
        let (name, key) = line.split_once(' ').unwrap();
        if key.starts_with(&id.to_string()) {
            *times.entry(format!("{name} {key}")).or_default() += 1;
        }
    }
    for name in ["look", "put", "pay"] {
        let calls: Vec<(&String, &u64)> = times.iter().filter(|(line, _)| line.starts_with(name)).collect();
        assert_eq!(calls.len(), TURNS, "run {run}: {times:?}");
        if name == "pay" {
            assert!(
                calls.iter().all(|(_, times)| **times == 1),
                "run {run}: {times:?}"
            );
        }
    }
    // It is over: the same again, and nothing is done.
    let before = child::lines(ledger).len();
    let output = loop {
        match agent.load(id).await.unwrap().resume(More::default()).await {
            Ok(output) => break output,
            // The process that finished it was killed before it gave the lease back.
            Err(error) if error.code() == "leased" => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => panic!("run {run}: {error}"),
        }
    };
    assert_eq!(output.report.tool_calls.len(), 3 * TURNS);
    assert_eq!(output.messages().len(), 2 + 4 * TURNS);
    let replayed = agent
        .replay(id)
        .await
        .unwrap_or_else(|error| panic!("run {run}: {error}"));
    assert_eq!(
        serde_json::to_string(&replayed.outcome.unwrap().unwrap()).unwrap(),
        serde_json::to_string(&output).unwrap()
    );
    assert_eq!(child::lines(ledger).len(), before);
}

#[tokio::test]
async fn no_side_effect_happens_twice_or_is_lost_in_a_directory() {
    let folder = TempDir::new().unwrap();
    let uri = format!("dir:{}", folder.path().display());
    kill_loop(&uri, kills(500), 1, Duration::from_millis(25)).await;
}

#[tokio::test]
async fn no_side_effect_happens_twice_or_is_lost_in_sqlite() {
    let folder = TempDir::new().unwrap();
    let uri = format!("sqlite:{}", folder.path().join("runs.db").display());
    kill_loop(&uri, kills(30), 2, Duration::from_millis(40)).await;
}

#[tokio::test]
async fn no_side_effect_happens_twice_or_is_lost_in_postgres() {
    use sqlx::Connection as _;
    let Some(server) = peregrine_testkit::service::postgres() else {
        return;
    };
    let name = format!("peregrine_agent_kill_{}", std::process::id());
    let mut connection = sqlx::PgConnection::connect(&server).await.unwrap();
    let mut execute = async |statement: String| {
        let statement = sqlx::query(sqlx::AssertSqlSafe(statement));
        statement.execute(&mut connection).await.unwrap();
    };
    execute(format!("CREATE SCHEMA {name}")).await;
    let sign = if server.contains('?') { '&' } else { '?' };
    let uri = format!("{server}{sign}options[search_path]={name}&application_name={name}");
    kill_loop(&uri, kills(30), 3, Duration::from_millis(80)).await;
    execute(format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{name}'"
    ))
    .await;
    execute(format!("DROP SCHEMA {name} CASCADE")).await;
}
