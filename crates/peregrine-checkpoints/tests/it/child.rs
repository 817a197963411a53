//! Processes that can be killed: this test program again, with one test in it that acts on the environment.
//!
//! Protocol: a line on standard output for each thing that happened, after it happened: `READY`, `ACK seq digest`,
//! `ERROR code message`, `GOT token`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use peregrine_checkpoints::{
    Checkpoints, Draft, Durability, Error, Journal, Kind, Options, RunKey, SnapshotPolicy,
};
use peregrine_core::{RunId, Scope};

const ROLE: &str = "PEREGRINE_TEST_CHILD_ROLE";
const URI: &str = "PEREGRINE_TEST_CHILD_URI";
const RUN: &str = "PEREGRINE_TEST_CHILD_RUN";
const SEED: &str = "PEREGRINE_TEST_CHILD_SEED";

/// SplitMix64 (Steele, Lea and Flood, 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// Half of it compresses.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..len / 2).map(|_| self.next() as u8).collect();
        bytes.resize(len, b'-');
        bytes
    }
}

pub(crate) fn key(run: u64) -> RunKey {
    RunKey::new(
        Scope::new("kill", "test").unwrap(),
        RunId::from_parts(run, [1; 10]),
    )
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// Starts this program as a child in a role.
pub(crate) fn spawn(role: &str, uri: &str, run: u64, seed: u64) -> (Child, BufReader<ChildStdout>) {
    spawn_with(
        Command::new(std::env::current_exe().unwrap()),
        role,
        uri,
        run,
        seed,
    )
}

pub(crate) fn spawn_with(
    mut command: Command,
    role: &str,
    uri: &str,
    run: u64,
    seed: u64,
) -> (Child, BufReader<ChildStdout>) {
    let mut child = command
        .args(["--exact", "child::acts", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(URI, uri)
        .env(RUN, run.to_string())
        .env(SEED, seed.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    (child, output)
}

/// The words of the next line of the protocol; `None` when the child is gone.
pub(crate) fn line(output: &mut BufReader<ChildStdout>) -> Option<Vec<String>> {
    loop {
        let mut line = String::new();
        if output.read_line(&mut line).unwrap() == 0 || !line.ends_with('\n') {
            return None;
        }
        // The test harness talks too.
        let line = line.trim_end().rsplit(" ... ").next().unwrap_or_default();
        if ["READY", "ACK ", "ERROR ", "GOT "]
            .iter()
            .any(|word| line.starts_with(word))
        {
            return Some(line.split(' ').map(str::to_owned).collect());
        }
    }
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // Whoever closed the pipe kills this process next.
    let _closed = out
        .write_all(format!("{text}\n").as_bytes())
        .and_then(|()| out.flush());
}

/// Does nothing as a test; as a child, what its environment says.
#[test]
fn acts() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let outcome = runtime.block_on(act(&role));
    if let Err(error) = outcome {
        say(&format!("ERROR {} {error}", error.code()));
    }
}

async fn act(role: &str) -> Result<(), Error> {
    let variable = |name: &str| std::env::var(name).unwrap();
    let mut random = Random(variable(SEED).parse().unwrap());
    let mut options = Options::default();
    options.snapshots = SnapshotPolicy::every_records(40);
    if role.contains("power") {
        options.durability = Durability::PowerSafe;
    }
    let checkpoints = Checkpoints::open(&variable(URI), options).await?;
    let (mut journal, _) = checkpoints
        .resume_or_create(&key(variable(RUN).parse().unwrap()))
        .await?;
    if role == "hold" {
        say(&format!("GOT {}", journal.lease().unwrap().token));
        // Until the parent closes the pipe.
        tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()))
            .await
            .unwrap()
            .unwrap();
        return Ok(());
    }
    say("READY");
    let few = role.contains("few");
    for _ in 0..if few { 200 } else { u64::MAX } {
        if let Err(error) = append(&mut journal, &mut random, few).await {
            say(&format!("ERROR {} {error}", error.code()));
            // What is not acknowledged is tried no more, but the journal goes on when it can.
            tokio::time::sleep(Duration::from_millis(2)).await;
            journal.settle().await?;
        }
    }
    journal.finish().await
}

async fn append(journal: &mut Journal, random: &mut Random, few: bool) -> Result<(), Error> {
    let payload = |random: &mut Random| {
        let len = match random.below(20) {
            0 => 10_000 + random.below(20_000),
            1..=4 => 1_000 + random.below(4_000),
            _ => random.below(700),
        };
        random.bytes(usize::try_from(len).unwrap())
    };
    let kind = if journal.snapshot_due() {
        Kind::Snapshot
    } else {
        Kind::Event
    };
    let mut drafts = vec![Draft::raw(kind, 1, payload(random))];
    if random.below(4) == 0 {
        drafts.push(Draft::raw(Kind::Effect, 1, payload(random)));
    }
    if !few && random.below(30) == 0 {
        drafts[0] = drafts[0].clone().with_part(vec![random.below(5) as u8; 9_000]);
    }
    let first = journal.append_all(&drafts).await?;
    for (seq, draft) in (first..).zip(&drafts) {
        say(&format!("ACK {seq} {}", digest(&draft.payload)));
    }
    Ok(())
}

/// A number that no other test of this process has.
#[cfg(feature = "postgres")]
pub(crate) fn unique() -> u64 {
    static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}
