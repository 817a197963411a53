//! What does not drift: allocations, from a build that counts them, and instructions, from callgrind.
//!
//! Instructions of one operation are the difference between two processes, one with twice the operations of the other,
//! divided: what a process does before and after cancels out, and the program need not know that it is watched.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

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

pub(super) fn count(
    runners: &Runners,
    group: &str,
    ids: &[Id],
    session: &Session,
) -> Result<BTreeMap<Id, Counts>> {
    let mut counts: BTreeMap<Id, Counts> = BTreeMap::new();
    if session.allocations {
        let mut command = Command::new(&runners.count);
        command.args(["count", "--group", group]);
        let (lines, _) = process::watch(command, session.effort.limit, false)?;
        for line in lines {
            if let Line::Counted(counted) = line
                && ids.contains(&counted.id)
                && counted.iterations > 0
            {
                let each = |all: u64| Some(all as f64 / counted.iterations as f64);
                let counts = counts.entry(counted.id).or_default();
                counts.allocations_per_op = each(counted.allocations);
                counts.bytes_per_op = each(counted.bytes);
            }
        }
    }
    if session.instructions {
        for id in ids {
            let counts = counts.entry(id.clone()).or_default();
            counts.instructions_per_op = Some(instructions(&runners.time, id)?);
        }
    }
    Ok(counts)
}

fn instructions(runner: &Path, id: &Id) -> Result<f64> {
    // What the first operations do once is behind both.
    let (iterations, once) = collected(runner, id, 1)?;
    let (_, twice) = collected(runner, id, 2)?;
    Ok(twice.saturating_sub(once) as f64 / iterations as f64)
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
