//! Runs that are journalled, loaded, resumed, settled, refused.

use peregrine_agent::durable::{Announced, Note, RunStatus, What};
use peregrine_agent::{Agent, Error, Input, More};
use peregrine_checkpoints::{Durability, Error as StoreError};
use peregrine_core::Effect;

use super::support::{Ledger, acting, id, memory, poll_out, poll_times, scope, ten_tools};
use crate::support::{Script, calls, text};

fn names(entries: &[peregrine_agent::durable::Entry]) -> Vec<&'static str> {
    entries.iter().map(|entry| entry.what.name()).collect()
}

#[test]
fn a_journal_tells_what_a_run_did() {
    let checkpoints = memory();
    let model = Script::of([calls(&[("tool_0", "{}"), ("tool_2", "{}")]), text("Done.")]);
    let ledger = Ledger::default();
    let agent = ten_tools(model.clone(), &ledger, checkpoints);
    let output = poll_out(agent.run(Input::from("Go.").with_run_id(id(1)))).unwrap();
    let entries = poll_out(agent.history(id(1))).unwrap();
    assert_eq!(
        names(&entries),
        [
            "begun",
            "started",
            "call_model",
            "model_answered",
            "call_tool",
            "tool_returned",
            "call_tool",
            "tool_returned",
            "call_model",
            "model_answered",
            "finished"
        ]
    );
    let What::Effect(Announced::Tool {
        key, name, effect, ..
    }) = &entries[6].what
    else {
        panic!("{:?}", entries[6]);
    };
    assert_eq!((name.as_str(), *effect), ("tool_2", Effect::SideEffect));
    assert_eq!(ledger.lines()[1], format!("tool_2 {key}"));
    let What::Note(Note::Begun { models, .. }) = &entries[0].what else {
        panic!("{:?}", entries[0]);
    };
    assert_eq!(models, &["test/script"]);
    // It is over, so going on with it asks nobody and gives the same.
    let stored = poll_out(agent.load(id(1))).unwrap();
    assert_eq!((stored.status(), stored.records()), (RunStatus::Over, 11));
    let again = poll_out(stored.resume(More::default())).unwrap();
    assert_eq!(
        serde_json::to_string(&again).unwrap(),
        serde_json::to_string(&output).unwrap()
    );
    assert_eq!((model.requests().len(), ledger.lines().len()), (2, 2));
    assert_eq!(poll_out(agent.history(id(1))).unwrap(), entries);
    // Nor does it begin anew.
    let error = poll_out(agent.run(Input::from("Go.").with_run_id(id(1)))).unwrap_err();
    assert!(
        matches!(
            error.error(),
            Error::Checkpoints(StoreError::AlreadyExists { .. })
        ),
        "{error}"
    );
    assert_eq!((error.code(), model.requests().len()), ("already_exists", 2));
}

#[test]
fn without_durability_there_is_no_journal() {
    let checkpoints = memory();
    let agent = Agent::new(Script::of([text("Hello.")]))
        .with_scope(scope())
        .with_checkpoints(checkpoints);
    let input = Input::from("Go.")
        .with_run_id(id(1))
        .with_durability(Durability::None);
    poll_out(agent.run(input)).unwrap();
    let missing = poll_out(agent.load(id(1))).unwrap_err();
    assert!(
        matches!(missing, Error::Checkpoints(StoreError::NotFound { .. })),
        "{missing}"
    );
}

#[test]
fn a_side_effect_that_was_under_way_is_in_doubt_until_it_is_settled() {
    for is_settled in [true, false] {
        let ledger = Ledger::default();
        let agent = Agent::new(Script::of([calls(&[("pay", "{}")]), text("Paid.")]))
            .with_scope(scope())
            .with_tool(acting("pay", Effect::SideEffect, &ledger))
            .with_allowed("pay")
            .with_checkpoints(memory());
        let run = agent.run(Input::from("Pay.").with_run_id(id(1)));
        assert!(poll_times(run, 2).is_none());
        assert_eq!(ledger.lines().len(), 1);
        let mut stored = poll_out(agent.load(id(1))).unwrap();
        assert_eq!(stored.status(), RunStatus::InDoubt);
        let [doubt] = &stored.in_doubt()[..] else { panic!() };
        assert_eq!(ledger.lines(), [format!("pay {}", doubt.key)]);
        let error = poll_out(stored.clone().resume(More::default())).unwrap_err();
        assert!(
            matches!(error.error(), Error::InDoubt(calls) if calls == &[doubt.call]),
            "{error}"
        );
        assert_eq!(ledger.lines().len(), 1, "it is not made again");
        match is_settled {
            true => poll_out(stored.resolve(doubt.call, "It was paid.")).unwrap(),
            false => {
                let not = peregrine_agent::durable::Resolution::NotCarriedOut;
                poll_out(stored.resolve(doubt.call, not)).unwrap();
            }
        }
        assert_eq!(
            (stored.status(), stored.in_doubt().len()),
            (RunStatus::Stopped, 0)
        );
        let twice = poll_out(stored.resolve(doubt.call, "It was paid.")).unwrap_err();
        assert!(matches!(twice, Error::Config(_)), "{twice}");
        let output = poll_out(stored.resume(More::default())).unwrap();
        assert_eq!(output.text(), "Paid.");
        assert_eq!(ledger.lines().len(), if is_settled { 1 } else { 2 });
        assert_eq!(output.report.tool_calls.len(), 1);
        assert!(output.report.tool_calls[0].ok);
    }
}

#[test]
fn of_two_that_resume_a_run_one_gets_it() {
    let ledger = Ledger::default();
    let agent = ten_tools(
        Script::of([calls(&[("tool_0", "{}")]), text("Done.")]),
        &ledger,
        memory(),
    );
    let mut run = Box::pin(agent.run(Input::from("Go.").with_run_id(id(1))));
    assert!(poll_times(run.as_mut(), 1).is_none());
    let stored = poll_out(agent.load(id(1))).unwrap();
    let error = poll_out(stored.clone().resume(More::default())).unwrap_err();
    assert!(
        matches!(error.error(), Error::Checkpoints(StoreError::Leased { .. })) && error.is_retryable(),
        "{error}"
    );
    // Whoever takes it over fences the other one off.
    let output = poll_out(stored.with_take_over().resume(More::default())).unwrap();
    assert_eq!(output.text(), "Done.");
    let error = poll_out(run).unwrap_err();
    assert!(
        matches!(error.error(), Error::Checkpoints(StoreError::Fenced { .. })),
        "{error}"
    );
}
