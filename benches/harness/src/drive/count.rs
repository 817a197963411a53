//! What does not drift: allocations, from a build that counts them, and instructions, from callgrind.
//!
//! Instructions of one operation are the difference between two processes, one with twice the operations of the other,
//! divided: what a process does before and after cancels out, and the program need not know that it is watched.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::{Runners, Session, process};
use crate::error::{Error, Result};
use crate::protocol::{Id, Line};
use crate::result::Counts;

const VALGRIND: &str = "valgrind";

/// Whether instructions can be counted here.
pub fn has_callgrind() -> bool {
    let version = Command::new(VALGRIND)
        .arg("--version")
        .stdin(Stdio::null())
        .output();
    version.is_ok_and(|output| output.status.success())
}

/// Allocations and bytes of those of a group that are counted.
pub(super) fn allocations(
    runners: &Runners,
    group: &str,
    ids: &[Id],
    session: &Session,
) -> Result<BTreeMap<Id, Counts>> {
    let mut command = Command::new(&runners.count);
    command.args(["count", "--group", group]);
    let (lines, _) = process::watch(command, session.effort.limit, false)?;
    let mut counts = BTreeMap::new();
    for line in lines {
        if let Line::Counted(counted) = line
            && ids.contains(&counted.id)
            && counted.iterations > 0
        {
            let each = |all: u64| Some(all as f64 / counted.iterations as f64);
            let found = Counts {
                allocations_per_op: each(counted.allocations),
                bytes_per_op: each(counted.bytes),
                instructions_per_op: None,
            };
            counts.insert(counted.id, found);
        }
    }
    Ok(counts)
}

/// Instructions of an operation of each, in their order; as many at a time as there are processors, because what else runs
/// does not change them.
pub(super) fn instructions(jobs: &[(&Path, Id)], say: &mut (dyn FnMut(&str) + Send)) -> Vec<Result<f64>> {
    let workers = thread::available_parallelism().map_or(1, |count| count.get().min(jobs.len()));
    let (next, say) = (AtomicUsize::new(0), Mutex::new(say));
    let mut found: Vec<(usize, Result<f64>)> = thread::scope(|scope| {
        let work = || {
            let mut found = Vec::new();
            loop {
                let place = next.fetch_add(1, Ordering::Relaxed);
                let Some((runner, id)) = jobs.get(place) else {
                    break found;
                };
                if let Ok(mut say) = say.lock() {
                    say(&format!(
                        "counting instructions, {} of {}: {id}",
                        place + 1,
                        jobs.len()
                    ));
                }
                found.push((place, of_one(runner, id)));
            }
        };
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let ended = threads.into_iter().map(|thread| thread.join());
        ended
            .flat_map(|found| found.expect("counting does not panic"))
            .collect()
    });
    found.sort_by_key(|(place, _)| *place);
    found.into_iter().map(|(_, found)| found).collect()
}

/// What two processes that do the same differ in: hash seeds, addresses.
const RESTLESS: u64 = 1_000;
/// By how much of the difference that may falsify it.
const PRECISION: u64 = 1_000;
/// The most times that the operations are repeated for it.
const MOST_TIMES: u64 = 2_000;

fn of_one(runner: &Path, id: &Id) -> Result<f64> {
    // What the first operations do once is behind both.
    let (iterations, once) = collected(runner, id, 1)?;
    let (_, twice) = collected(runner, id, 2)?;
    let difference = twice.saturating_sub(once);
    let wanted = RESTLESS * PRECISION;
    if difference >= wanted {
        return Ok(difference as f64 / iterations as f64);
    }
    // So little work disappears among what differs anyway: more of it.
    let more = (wanted / difference.max(1)).clamp(1, MOST_TIMES);
    let (_, many) = collected(runner, id, 1 + more)?;
    Ok(many.saturating_sub(once) as f64 / (iterations * more) as f64)
}

/// Operations that `times` 1 stands for, and the instructions of the whole process.
fn collected(runner: &Path, id: &Id, times: u64) -> Result<(u64, u64)> {
    let program = format!("valgrind --tool=callgrind .. instructions --id {id}");
    let output = Command::new(VALGRIND)
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(runner)
        .args(["instructions", "--id", id.as_str(), "--times", &times.to_string()])
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Start {
            program: VALGRIND.to_owned(),
            source,
        })?;
    let (said, complained) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    let failed = |message: String| Error::Program {
        program: program.clone(),
        message,
    };
    if !output.status.success() {
        let last: Vec<&str> = complained.lines().rev().take(5).collect();
        return Err(failed(last.into_iter().rev().collect::<Vec<_>>().join("; ")));
    }
    let iterations = said.lines().find_map(|line| match serde_json::from_str(line) {
        Ok(Line::Counted(counted)) => Some(counted.iterations),
        _ => None,
    });
    let iterations = iterations.filter(|iterations| *iterations > 0);
    let iterations = iterations.ok_or_else(|| failed("it did not say how often it ran".to_owned()))?;
    let collected = complained.lines().find_map(total);
    let collected = collected.ok_or_else(|| failed("callgrind did not say what it collected".to_owned()))?;
    Ok((iterations / times, collected))
}

/// The figure in callgrind's line `==1234== Collected : 567890`.
fn total(line: &str) -> Option<u64> {
    line.split_once("Collected :")?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callgrinds_total_is_found() {
        assert_eq!(total("==77== Collected : 1234567"), Some(1_234_567));
        assert_eq!(total("==77== Events    : Ir"), None);
    }
}
