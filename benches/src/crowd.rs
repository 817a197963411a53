//! Many agents at the same time in a process of their own, so that what it uses is theirs: processor time and memory.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use futures_util::future::join_all;
use peregrine_agent::Agent;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::bench::runtime;
use crate::hand::Hand;
use crate::serve::{QUESTION, SYSTEM, TEXT};
use crate::suites::connect;

/// How often all of them make a call after the first, which makes the connections.
const WAVES: usize = 2;

/// What a process used.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Used {
    /// Processor time for a call, of the process, in user space and in the kernel.
    pub(crate) call: Duration,
    /// Calls that it is the mean of.
    pub(crate) calls: u64,
    /// The most that was resident at any time, where this can be read.
    pub(crate) peak_bytes: Option<u64>,
}

/// Runs a process of so many, by name.
pub(crate) fn run(who: &str, url: &str, agents: usize) -> Used {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "crowd",
            "--who",
            who,
            "--url",
            url,
            "--agents",
            &agents.to_string(),
        ])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The process.
pub(crate) fn main(who: &str, url: &str, agents: usize) {
    let used = match who {
        "peregrine" => {
            let all = vec![Agent::new(connect(url)).with_instructions(SYSTEM); agents];
            waves(&all, &async |agent: &Agent| {
                agent.run(QUESTION).await.unwrap().text()
            })
        }
        "reqwest" => {
            let all = vec![Hand::new(url); agents];
            waves(&all, &async |hand: &Hand| hand.ask(SYSTEM, QUESTION).await)
        }
        other => panic!("nobody is called {other}"),
    };
    let text = serde_json::to_vec(&used).expect("numbers are JSON");
    std::io::stdout().write_all(&text).unwrap();
}

fn waves<T>(all: &[T], ask: &impl AsyncFn(&T) -> String) -> Used {
    let runtime = runtime();
    let wave = || {
        let answers = runtime.block_on(join_all(all.iter().map(async |one| ask(one).await)));
        assert!(answers.iter().all(|text| text == TEXT));
    };
    wave();
    let begun = processor_time();
    (0..WAVES).for_each(|_| wave());
    let calls = (all.len() * WAVES) as u32;
    Used {
        call: processor_time().saturating_sub(begun) / calls,
        calls: u64::from(calls),
        peak_bytes: peak_bytes("self"),
    }
}

/// What this process used of the processor.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// The most memory of a process, by its number.
pub(crate) fn peak_bytes(process: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1_024)
}
