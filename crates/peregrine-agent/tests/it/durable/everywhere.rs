//! Interrupts a run at every await, goes on with it, and compares what comes of it with the run that was not interrupted.

use std::collections::BTreeMap;

use peregrine_agent::durable::{Resolution, StoredRun};
use peregrine_agent::{Agent, Error, Input, More, RunError, RunOutput};
use peregrine_checkpoints::{Checkpoints, SnapshotPolicy};

use super::support::{Ledger, id, moody, poll_out, poll_times};

/// How a run is begun, and gone on with: typed or not, watched or not.
pub(crate) trait Way {
    fn begin(&self, agent: &Agent, input: Input) -> impl Future<Output = Result<RunOutput, RunError>>;

    fn resume(&self, stored: StoredRun) -> impl Future<Output = Result<RunOutput, RunError>>;
}

pub(crate) struct Plain;

impl Way for Plain {
    async fn begin(&self, agent: &Agent, input: Input) -> Result<RunOutput, RunError> {
        agent.run(input).await
    }

    async fn resume(&self, stored: StoredRun) -> Result<RunOutput, RunError> {
        stored.resume(More::default()).await
    }
}

pub(crate) struct Watched;

impl Way for Watched {
    async fn begin(&self, agent: &Agent, input: Input) -> Result<RunOutput, RunError> {
        agent.run_stream(input).collect().await
    }

    async fn resume(&self, stored: StoredRun) -> Result<RunOutput, RunError> {
        stored.resume_stream(More::default()).collect().await
    }
}

/// What there is to tell of all interruptions.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) interruptions: usize,
    pub(crate) in_doubt: usize,
}

/// The agent is made anew for each interruption, with a ledger of its own. Each time the run comes to the same
/// conversation and answer, its side effects are carried out once, and its replay is the run to the byte.
pub(crate) fn everywhere(way: &impl Way, make: impl Fn(Checkpoints, &Ledger) -> Agent) -> Tally {
    let input = || Input::from("Do it all.").with_run_id(id(1));
    let expected = {
        let (_, checkpoints) = moody(1);
        let ledger = Ledger::default();
        let agent = make(checkpoints, &ledger);
        let output = poll_out(way.begin(&agent, input())).unwrap();
        (output, sorted(&ledger))
    };
    let mut tally = Tally::default();
    for polls in 1.. {
        let (_, checkpoints) = moody(1);
        // Half of them with snapshots.
        let every = polls as u64 % 8;
        let checkpoints = checkpoints.with_options(|options| {
            options.snapshots = match every {
                1..=4 => SnapshotPolicy::every_records(every),
                _ => SnapshotPolicy::NEVER,
            };
        });
        let ledger = Ledger::default();
        let agent = make(checkpoints, &ledger);
        if let Some(output) = poll_times(way.begin(&agent, input()), polls) {
            assert_eq!(output.unwrap(), expected.0);
            return tally;
        }
        tally.interruptions += 1;
        // Interrupted again, so many polls later.
        let again = poll_out(agent.load(id(1))).ok();
        if let Some(stored) = again {
            let _ = poll_times(way.resume(stored), polls % 13);
        }
        let output = to_the_end(way, &agent, &input, &ledger, &mut tally);
        let output = output.unwrap_or_else(|error| panic!("after {polls} polls: {error}"));
        assert_eq!(
            output.messages(),
            expected.0.messages(),
            "the conversation after {polls} polls"
        );
        assert_eq!(output.response, expected.0.response, "after {polls} polls");
        assert_eq!(output.report.tool_calls, expected.0.report.tool_calls);
        let mut once = sorted(&ledger);
        once.dedup();
        assert_eq!(once.len(), expected.1.len(), "after {polls} polls: {once:?}");
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        for line in ledger.lines() {
            *times.entry(line).or_default() += 1;
        }
        for (line, times) in times {
            assert!(
                times == 1 || !line.contains("pay"),
                "{line}: {times} times after {polls} polls"
            );
        }
        let replayed =
            poll_out(agent.replay(id(1))).unwrap_or_else(|error| panic!("after {polls} polls: {error}"));
        assert_eq!(
            serde_json::to_string(&replayed.outcome.unwrap().unwrap()).unwrap(),
            serde_json::to_string(&output).unwrap(),
            "after {polls} polls"
        );
    }
    unreachable!("it ends at some time");
}

/// What was done, whatever the numbers of the calls.
fn sorted(ledger: &Ledger) -> Vec<String> {
    let mut lines = ledger.lines();
    lines.sort();
    lines
}

fn to_the_end(
    way: &impl Way,
    agent: &Agent,
    input: &impl Fn() -> Input,
    ledger: &Ledger,
    tally: &mut Tally,
) -> Result<RunOutput, RunError> {
    for _ in 0..6 {
        let stored = match poll_out(agent.load(id(1))) {
            Ok(stored) => stored,
            // Nothing was acknowledged.
            Err(Error::Checkpoints(_)) => return poll_out(way.begin(agent, input())),
            Err(error) => panic!("{error}"),
        };
        match poll_out(way.resume(stored)) {
            Err(error) if matches!(error.error(), Error::InDoubt(_)) => {
                let mut stored = poll_out(agent.load(id(1))).unwrap();
                for doubt in stored.in_doubt() {
                    tally.in_doubt += 1;
                    // Whoever settles it looks whether it was done.
                    let was_done = ledger.lines().iter().any(|line| line.ends_with(&doubt.key));
                    let resolution = match was_done {
                        true => format!("{} is done", doubt.tool_call.name).into(),
                        false => Resolution::NotCarriedOut,
                    };
                    poll_out(stored.resolve(doubt.call, resolution)).unwrap();
                }
            }
            Err(error) if matches!(error.error(), Error::Config(_)) => {
                return poll_out(way.begin(agent, input()));
            }
            outcome => return outcome,
        }
    }
    panic!("it does not come to an end");
}
