//! A run of ten tools, interrupted at every await: it goes on, and the conversation is that of the run that was not.

use std::collections::BTreeMap;

use peregrine_agent::{Error, Input, More};

use super::support::{Ledger, id, moody, poll_out, poll_times, ten_tools};
use crate::support::{Script, calls, text};

/// Asks for ten tools in four turns, by what the conversation says, so that it does not matter how often it is asked.
fn model() -> Script {
    Script::new(|request, _| {
        let results = crate::support::results(request).len();
        Ok(match results {
            0 => calls(&[("tool_0", "{}"), ("tool_3", "{}"), ("tool_2", "{}")]),
            3 => calls(&[("tool_1", "{}"), ("tool_4", "{}")]),
            5 => calls(&[
                ("tool_5", "{}"),
                ("tool_6", "{}"),
                ("tool_7", "{}"),
                ("tool_8", "{}"),
            ]),
            9 => calls(&[("tool_9", "{}")]),
            _ => text("All is done."),
        })
    })
}

#[test]
fn a_run_that_is_interrupted_at_any_await_goes_on_as_if_it_had_not_been() {
    let input = || Input::from("Do it all.").with_run_id(id(1));
    let expected = {
        let (_, checkpoints) = moody(1);
        let ledger = Ledger::default();
        let output = poll_out(ten_tools(model(), &ledger, checkpoints).run(input())).unwrap();
        assert_eq!(ledger.lines().len(), 10);
        output
    };
    let (mut in_doubt, mut whole) = (0, 0);
    for polls in 1.. {
        let (_, checkpoints) = moody(1);
        let ledger = Ledger::default();
        let agent = ten_tools(model(), &ledger, checkpoints);
        if let Some(output) = poll_times(agent.run(input()), polls) {
            assert_eq!(output.unwrap(), expected);
            break;
        }
        let mut rounds = 0;
        let output = loop {
            rounds += 1;
            assert!(rounds < 5);
            let stored = match poll_out(agent.load(id(1))) {
                Ok(stored) => stored,
                // Nothing was acknowledged.
                Err(Error::Checkpoints(_)) => break poll_out(agent.run(input())).unwrap(),
                Err(error) => panic!("after {polls} polls: {error}"),
            };
            let mut settled = stored.clone();
            match poll_out(stored.resume(More::default())) {
                Ok(output) => break output,
                Err(error) => match error.error() {
                    Error::InDoubt(calls) => {
                        in_doubt += 1;
                        let [call] = calls[..] else { panic!("{calls:?}") };
                        settled = poll_out(agent.load(id(1))).unwrap_or(settled);
                        let doubt = settled.in_doubt().remove(0);
                        // Whoever settles it looks whether it was done.
                        let name = &doubt.tool_call.name;
                        let was_done = ledger.lines().iter().any(|line| line.ends_with(&doubt.key));
                        let resolution = match was_done {
                            true => format!("{name} is done").into(),
                            false => peregrine_agent::durable::Resolution::NotCarriedOut,
                        };
                        poll_out(settled.resolve(call, resolution)).unwrap();
                    }
                    Error::Config(_) => break poll_out(agent.run(input())).unwrap(),
                    _ => panic!("after {polls} polls: {error}"),
                },
            }
        };
        assert_eq!(
            output.messages(),
            expected.messages(),
            "the conversation after {polls} polls"
        );
        assert_eq!(output.response, expected.response);
        assert_eq!(
            output.report.tool_calls, expected.report.tool_calls,
            "after {polls} polls"
        );
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        for line in ledger.lines() {
            *times.entry(line).or_default() += 1;
        }
        for (line, times) in &times {
            let number: usize = line[5..6].parse().unwrap();
            if super::support::effect(number) == peregrine_core::Effect::SideEffect {
                assert_eq!(*times, 1, "{line} after {polls} polls");
            }
        }
        // Each call was made under one key, and none was lost.
        assert_eq!(times.len(), 10, "after {polls} polls: {times:?}");
        whole += 1;
    }
    assert!(
        whole > 40 && in_doubt >= 9,
        "{whole} interruptions, {in_doubt} in doubt"
    );
}
