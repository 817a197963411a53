//! Durable runs below a scope of interrupts: stopped gracefully or at once, at every await, they go on by their id.

use peregrine_agent::durable::{Resolution, RunStatus};
use peregrine_agent::{Error, Input, More};
use peregrine_core::Effect;
use peregrine_interrupts::{ManualTimer, Mode, Scope};

use super::support::{Ledger, effect, id, moody, poll_out, poll_times, ten_tools};
use crate::support::{Script, calls, results, text};

fn model() -> Script {
    Script::new(|request, _| {
        Ok(match results(request).len() {
            0 => calls(&[("tool_0", "{}"), ("tool_3", "{}"), ("tool_2", "{}")]),
            3 => calls(&[("tool_1", "{}"), ("tool_8", "{}")]),
            _ => text("All is done."),
        })
    })
}

#[test]
fn a_run_that_is_stopped_through_its_scope_at_any_await_goes_on_by_its_id() {
    let input = || Input::from("Do it all.").with_run_id(id(1));
    let expected = {
        let (_, checkpoints) = moody(1);
        poll_out(ten_tools(model(), &Ledger::default(), checkpoints).run(input())).unwrap()
    };
    for mode in [Mode::Graceful, Mode::Immediate] {
        let (mut stopped, mut in_doubt) = (0, 0);
        for polls in 0.. {
            let (_, checkpoints) = moody(1);
            let ledger = Ledger::default();
            let agent = ten_tools(model(), &ledger, checkpoints);
            let server = Scope::root("server", ManualTimer::new());
            let mut run = Box::pin(agent.run(input().with_interrupts(&server)));
            if let Some(outcome) = poll_times(run.as_mut(), polls) {
                assert_eq!(outcome.unwrap().messages(), expected.messages());
                break;
            }
            server.interrupt(mode);
            match poll_out(run) {
                // The step that finished was the last one.
                Ok(output) => assert_eq!(output.messages(), expected.messages()),
                Err(error) => {
                    assert!(
                        matches!(error.error(), Error::Interrupted(_)),
                        "{mode:?} after {polls}: {error}"
                    );
                    stopped += 1;
                }
            }
            let output = match poll_out(agent.load(id(1))) {
                Ok(mut stored) if stored.status() != RunStatus::New => {
                    for doubt in stored.in_doubt() {
                        in_doubt += 1;
                        let was_done = ledger.lines().iter().any(|line| line.ends_with(&doubt.key));
                        let resolution = match was_done {
                            true => Resolution::from(format!("{} is done", doubt.tool_call.name)),
                            false => Resolution::NotCarriedOut,
                        };
                        poll_out(stored.resolve(doubt.call, resolution)).unwrap();
                    }
                    let later = Scope::root("server", ManualTimer::new());
                    let resumed = poll_out(stored.with_interrupts(&later).resume(More::default()));
                    resumed.unwrap_or_else(|error| panic!("{mode:?} after {polls}: {error}"))
                }
                _ => poll_out(agent.run(input())).unwrap(),
            };
            assert_eq!(output.messages(), expected.messages(), "{mode:?} after {polls}");
            let mut side_effects: Vec<String> = ledger
                .lines()
                .into_iter()
                .filter(|line| effect(line[5..6].parse().unwrap()) == Effect::SideEffect)
                .collect();
            assert_eq!(side_effects.len(), 2, "{mode:?} after {polls}: {side_effects:?}");
            side_effects.dedup();
            assert_eq!(side_effects.len(), 2);
            let replayed = poll_out(agent.replay(id(1)))
                .unwrap_or_else(|error| panic!("{mode:?} after {polls}: {error}"));
            assert_eq!(
                serde_json::to_string(&replayed.outcome.unwrap().unwrap()).unwrap(),
                serde_json::to_string(&output).unwrap()
            );
        }
        assert!(stopped > 20, "{mode:?}: {stopped}");
        // What has side effects is given the time to end, so that its outcome is known.
        assert_eq!(in_doubt, 0, "{mode:?}");
    }
}

#[test]
fn a_run_below_a_scope_that_is_stopped_already_does_not_go_on() {
    let (_, checkpoints) = moody(1);
    let ledger = Ledger::default();
    let agent = ten_tools(model(), &ledger, checkpoints);
    assert!(poll_times(agent.run(Input::from("Go.").with_run_id(id(1))), 12).is_none());
    let done = ledger.lines().len();
    for mode in [Mode::Graceful, Mode::Immediate] {
        let server = Scope::root("server", ManualTimer::new());
        server.interrupt(mode);
        let stored = poll_out(agent.load(id(1))).unwrap();
        let error = poll_out(stored.with_interrupts(&server).resume(More::default())).unwrap_err();
        assert!(matches!(error.error(), Error::Interrupted(_)), "{error}");
        assert_eq!(ledger.lines().len(), done);
    }
    let stored = poll_out(agent.load(id(1))).unwrap();
    assert!(
        poll_out(stored.resume(More::default())).is_ok()
            || !poll_out(agent.load(id(1))).unwrap().in_doubt().is_empty()
    );
}
