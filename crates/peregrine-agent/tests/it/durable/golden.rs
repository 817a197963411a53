//! Journals of runs of earlier versions, as files, which must load for ever: go on, fork and replay.
//!
//! `tests/golden/v1` was written once by the version of that form, with `PEREGRINE_GOLDEN_WRITE=FOLDER`; it is never
//! written again. A change of the form adds a folder.

use std::io::BufReader;
use std::path::{Path, PathBuf};

use peregrine_agent::durable::{Fork, RunStatus};
use peregrine_agent::{Agent, Input, More};
use peregrine_checkpoints::{Checkpoints, RunKey, SnapshotPolicy};

use super::support::{Ledger, id, memory, poll_out, poll_times, scope, ten_tools};
use crate::support::{Script, calls, results, text};

fn agent(checkpoints: Checkpoints, ledger: &Ledger) -> Agent {
    let model = Script::new(|request, _| {
        Ok(match results(request).len() {
            0 => calls(&[("tool_0", "{}"), ("tool_2", r#"{}"#), ("tool_8", "{}")]),
            3 => calls(&[("nothing", "{}"), ("tool_1", "{}")]),
            _ => text(&format!("It is done: {}.", results(request).join(", "))),
        })
    });
    ten_tools(model, ledger, checkpoints)
}

fn key(number: u8) -> RunKey {
    RunKey::new(scope(), id(number))
}

/// One run that is over, and one whose process ended while an idempotent tool was under way, behind a snapshot.
fn write(folder: &Path) {
    let ledger = Ledger::default();
    let checkpoints = memory().with_options(|options| options.snapshots = SnapshotPolicy::every_records(12));
    let agent = agent(checkpoints.clone(), &ledger);
    poll_out(agent.run(Input::from("Do it.").with_run_id(id(1)))).unwrap();
    let ledger = Ledger::default();
    let agent = self::agent(checkpoints.clone(), &ledger);
    for polls in 1.. {
        let stopped = agent.run(Input::from("Do it.").with_run_id(id(2)));
        assert!(poll_times(stopped, polls).is_none());
        if ledger
            .lines()
            .last()
            .is_some_and(|line| line.starts_with("tool_1"))
        {
            break;
        }
        poll_out(checkpoints.remove(&key(2))).unwrap();
    }
    for (number, name) in [(1, "over"), (2, "open")] {
        let mut text = Vec::new();
        poll_out(checkpoints.export(&key(number), &mut text)).unwrap();
        std::fs::write(folder.join(format!("{name}.jsonl")), text).unwrap();
    }
}

#[test]
fn runs_of_earlier_versions_go_on() {
    if let Ok(folder) = std::env::var("PEREGRINE_GOLDEN_WRITE") {
        return write(Path::new(&folder));
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let versions: Vec<PathBuf> = std::fs::read_dir(golden)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(!versions.is_empty());
    let expected = "It is done: tool_0 is done, tool_2 is done, tool_8 is done, no tool is called `nothing`";
    for version in versions {
        let (checkpoints, ledger) = (memory(), Ledger::default());
        for (number, name) in [(1, "over"), (2, "open")] {
            let file = std::fs::File::open(version.join(format!("{name}.jsonl"))).unwrap();
            let journal = poll_out(checkpoints.import(&key(number), &mut BufReader::new(file))).unwrap();
            poll_out(journal.finish()).unwrap();
        }
        let agent = agent(checkpoints, &ledger);
        let over = poll_out(agent.load(id(1))).unwrap();
        assert_eq!(over.status(), RunStatus::Over);
        let replayed = poll_out(agent.replay(id(1))).unwrap();
        let output = poll_out(over.resume(More::default())).unwrap();
        assert_eq!(replayed.outcome.unwrap().unwrap(), output);
        assert!(output.text().starts_with(expected), "{}", output.text());
        assert_eq!(output.report.tool_calls.len(), 5);
        assert!(ledger.lines().is_empty(), "nothing is done again");
        // What was under way is done again, under the key that it had.
        let open = poll_out(agent.load(id(2))).unwrap();
        assert_eq!(open.status(), RunStatus::Open);
        assert_eq!(
            poll_out(open.resume(More::default())).unwrap().messages(),
            output.messages()
        );
        assert_eq!(ledger.lines(), [format!("tool_1 {}/6", id(2))]);
        poll_out(agent.replay(id(2))).unwrap();
        let fork = poll_out(agent.fork(id(1), Fork::at(9))).unwrap();
        assert_eq!(
            poll_out(fork.resume(More::default())).unwrap().messages(),
            output.messages()
        );
    }
}
