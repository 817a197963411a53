//! `kill -9` at random moments: no acknowledged record is ever missing, no journal is unreadable.
//!
//! `PEREGRINE_KILLS` says how often (500 for directories by default, half of them process-safe and half power-safe).

use std::collections::BTreeMap;
use std::time::Duration;

use peregrine_checkpoints::{Checkpoints, Options, RunKey, Span};
use tempfile::TempDir;

use crate::child::{self, Random};

/// How long a child appends at most.
pub(crate) const BURST: Duration = Duration::from_millis(15);
/// So many times the same run is killed before another one begins.
const KILLS_A_RUN: u64 = 10;

pub(crate) fn kills(usual: u64) -> u64 {
    let given = std::env::var("PEREGRINE_KILLS").ok();
    given.map_or(usual, |given| given.parse().unwrap())
}

#[derive(Debug, Default)]
struct Tally {
    acknowledged: u64,
    tails: u64,
    records: u64,
}

/// Kills children in a role; the journals are checked after each death.
pub(crate) async fn kill_loop(role: &str, uri: &str, kills: u64, seed: u64, longest: Duration) {
    let checkpoints = Checkpoints::open(uri, Options::default()).await.unwrap();
    let mut random = Random(seed);
    let mut tally = Tally::default();
    let mut acknowledged = BTreeMap::new();
    for kill in 0..kills {
        let run = kill / KILLS_A_RUN;
        if kill % KILLS_A_RUN == 0 {
            acknowledged.clear();
        }
        let (mut process, mut output) = child::spawn(role, uri, run, random.next());
        let (ready, begun) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let mut lines = Vec::new();
            while let Some(line) = child::line(&mut output) {
                lines.push(line);
                let _killed_before = ready.send(());
            }
            lines
        });
        // Some die before they have begun, most in the middle of appending.
        if random.below(8) != 0 {
            begun.recv().unwrap();
        }
        let longest = u64::try_from(longest.as_micros()).unwrap();
        std::thread::sleep(Duration::from_micros(random.below(longest)));
        process.kill().unwrap();
        process.wait().unwrap();
        for words in reader.join().unwrap() {
            match &words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["READY"] => {}
                ["ACK", seq, digest] => {
                    let seq: u64 = seq.parse().unwrap();
                    let before = acknowledged.insert(seq, (*digest).to_owned());
                    assert_eq!(before, None, "record {seq} was acknowledged twice");
                    tally.acknowledged += 1;
                }
                other => panic!("kill {kill}: {other:?}"),
            }
        }
        check(&checkpoints, &child::key(run), &acknowledged, kill, &mut tally).await;
    }
    println!("{role}: {kills} kills, {tally:?}");
    assert!(
        tally.acknowledged > kills / 2,
        "the children did nothing: {tally:?}"
    );
}

async fn check(
    checkpoints: &Checkpoints,
    key: &RunKey,
    acknowledged: &BTreeMap<u64, String>,
    kill: u64,
    tally: &mut Tally,
) {
    let history = match checkpoints.load(key, Span::ALL).await {
        Ok(history) => history,
        Err(peregrine_checkpoints::Error::NotFound { .. }) if acknowledged.is_empty() => return,
        Err(error) => panic!("kill {kill}: {error}"),
    };
    assert_eq!(history.records.first().map_or(0, |record| record.seq), 0);
    for (seq, digest) in acknowledged {
        let record = history.records.get(usize::try_from(*seq).unwrap());
        let record =
            record.unwrap_or_else(|| panic!("kill {kill}: the acknowledged record {seq} is missing"));
        assert_eq!(
            (record.seq, &child::digest(&record.payload)),
            (*seq, digest),
            "kill {kill}"
        );
    }
    let verification = checkpoints.verify(key).await.unwrap();
    assert!(verification.is_whole(), "kill {kill}: {verification:?}");
    tally.tails += u64::from(history.tail.is_some());
    tally.records = tally.records.max(history.records.len() as u64);
}

#[tokio::test]
async fn a_killed_process_loses_nothing_that_was_acknowledged() {
    let folder = TempDir::new().unwrap();
    let uri = format!("dir:{}", folder.path().display());
    kill_loop("append", &uri, kills(500) / 2, 1, BURST).await;
}

#[tokio::test]
async fn a_killed_process_loses_nothing_that_was_made_power_safe() {
    let folder = TempDir::new().unwrap();
    let uri = format!("dir:{}", folder.path().display());
    kill_loop("append-power", &uri, kills(500).div_ceil(2), 2, BURST).await;
}

/// Several processes resume one run: exactly one gets it, at any time.
pub(crate) fn contend(uri: &str) {
    for round in 0..5 {
        let mut children: Vec<_> = (0..6).map(|_| child::spawn("hold", uri, 9, 0)).collect();
        let answers: Vec<_> = children
            .iter_mut()
            .map(|(_, output)| child::line(output).unwrap())
            .collect();
        let got = answers.iter().filter(|words| words[0] == "GOT").count();
        let others = answers
            .iter()
            .filter(|words| words[0] == "ERROR")
            .all(|words| words[1] == "leased");
        assert!(got == 1 && others, "round {round}: {answers:?}");
        for (process, _) in &mut children {
            // Half of the rounds the holder dies, the others it is told to end.
            if round % 2 == 0 {
                process.kill().unwrap();
            }
            drop(process.stdin.take());
            process.wait().unwrap();
        }
    }
}

#[test]
fn of_two_processes_that_resume_a_run_one_proceeds() {
    let folder = TempDir::new().unwrap();
    contend(&format!("dir:{}", folder.path().display()));
}
