//! Forks, replays and comparisons.

use std::sync::Arc;

use peregrine_agent::durable::{Fork, RunStatus, StoredRun, What};
use peregrine_agent::run::Event;
use peregrine_agent::{Agent, Error, Input, Limits, More};
use peregrine_checkpoints::{Checkpoints, Error as StoreError, Kind, MemoryStore, Options, SnapshotPolicy};
use peregrine_core::{ChatRequest, Effect, Role};

use super::support::{Ledger, acting, id, memory, poll_out, poll_times, scope, ten_tools};
use crate::support::{Script, calls, results, text};

/// Says how many results it has seen and what it was told first and last.
fn model() -> Script {
    Script::new(|request, _| {
        Ok(match results(request).len() {
            0 => calls(&[("tool_0", "{}"), ("tool_2", "{}")]),
            2 => calls(&[("tool_1", "{}")]),
            _ => text(&summary(request)),
        })
    })
}

fn summary(request: &ChatRequest) -> String {
    let system = request
        .messages
        .iter()
        .find(|message| message.role == Role::System);
    let user = request.messages.iter().find(|message| message.role == Role::User);
    format!(
        "{} {} {}",
        system.unwrap().text(),
        user.unwrap().text(),
        results(request).join(", ")
    )
}

fn agent(model: Script, ledger: &Ledger, checkpoints: Checkpoints) -> Agent {
    ten_tools(model, ledger, checkpoints)
}

/// Small snapshots, so that forks and replays begin in the middle too.
fn snapshots() -> Checkpoints {
    let mut options = Options::default();
    options.snapshots = SnapshotPolicy::every_records(3);
    Checkpoints::new(Arc::new(MemoryStore::new()), options)
}

fn position(agent: &Agent, is_it: impl Fn(&Event) -> bool) -> u64 {
    let entries = poll_out(agent.history(id(1))).unwrap();
    let found = entries
        .iter()
        .find(|entry| matches!(&entry.what, What::Event(event) if is_it(event)));
    found.unwrap().seq
}

fn returned(agent: &Agent, nth: usize) -> u64 {
    let entries = poll_out(agent.history(id(1))).unwrap();
    let found = entries
        .iter()
        .filter(|entry| matches!(entry.what, What::Event(Event::ToolReturned { .. })))
        .nth(nth);
    found.unwrap().seq
}

fn go_on(stored: StoredRun) -> String {
    poll_out(stored.resume(More::default())).unwrap().text()
}

#[test]
fn a_fork_goes_on_differently_and_runs_only_the_rest() {
    for checkpoints in [memory(), snapshots()] {
        let (model, ledger) = (model(), Ledger::default());
        let agent = agent(model.clone(), &ledger, checkpoints);
        let run = poll_out(agent.run(Input::from("Go.").with_run_id(id(1)))).unwrap();
        assert_eq!(
            run.text(),
            "Act. Go. tool_0 is done, tool_2 is done, tool_1 is done"
        );
        let (asked, done) = (model.requests().len(), ledger.lines().len());
        let before = poll_out(agent.history(id(1))).unwrap();

        // Another result of the last tool: one more question, and no tool.
        let at = returned(&agent, 2) + 1;
        let fork = Fork::at(at)
            .with_run_id(id(2))
            .with_tool_result("call-0", "tool_1 failed");
        let fork = poll_out(agent.fork(id(1), fork)).unwrap();
        assert_eq!((fork.key().run, fork.origin().unwrap().at), (id(2), at));
        assert_eq!(
            go_on(fork),
            "Act. Go. tool_0 is done, tool_2 is done, tool_1 failed"
        );
        assert_eq!((model.requests().len(), ledger.lines().len()), (asked + 1, done));

        // Another prompt, bounds and model from the same place.
        let other = Script::new(|request, _| Ok(text(&format!("Other: {}", summary(request)))));
        let agent_2 = ten_tools(other, &ledger, agent.checkpoints().unwrap().clone());
        let limits = Limits {
            max_steps: 20,
            ..Limits::default()
        };
        let fork = Fork::at(at).with_instructions("Be brief.").with_limits(limits);
        let fork = poll_out(agent_2.fork(id(1), fork)).unwrap();
        assert_eq!(fork.run().limits().max_steps, 20);
        assert!(go_on(fork).starts_with("Other: Be brief. Go. tool_0 is done"));
        assert_eq!(ledger.lines().len(), done);

        // Another question, from the beginning.
        let at = position(&agent, |event| matches!(event, Event::Started { .. })) + 1;
        let fork = poll_out(agent.fork(id(1), Fork::at(at).with_input("Stay."))).unwrap();
        assert_eq!(
            go_on(fork),
            "Act. Stay. tool_0 is done, tool_2 is done, tool_1 is done"
        );

        // The whole of it: the outcome that it had.
        let fork = poll_out(agent.fork(id(1), Fork::whole())).unwrap();
        assert_eq!(fork.status(), RunStatus::Over);
        assert_eq!(
            poll_out(fork.resume(More::default())).unwrap().response,
            run.response
        );

        assert_eq!(
            poll_out(agent.history(id(1))).unwrap(),
            before,
            "the run is as it was"
        );
    }
}

#[test]
fn a_run_can_be_forked_at_every_record_and_replayed_from_each_fork() {
    for checkpoints in [memory(), snapshots()] {
        let (model, ledger) = (model(), Ledger::default());
        let agent = agent(model, &ledger, checkpoints);
        let run = poll_out(agent.run(Input::from("Go.").with_run_id(id(1)))).unwrap();
        let entries = poll_out(agent.history(id(1))).unwrap();
        let mut in_doubt = 0;
        for at in 0..=entries.len() as u64 {
            let number = u8::try_from(at).unwrap() + 2;
            let fork = poll_out(agent.fork(id(1), Fork::at(at).with_run_id(id(number))));
            // The first record says by which rules; the second what is asked.
            if at < 2 {
                assert!(matches!(fork, Err(Error::Config(_))), "{at}: {fork:?}");
                continue;
            }
            let mut fork = fork.unwrap();
            let outcome = poll_out(fork.clone().resume(More::default()));
            let output = match outcome {
                Ok(output) => output,
                // The call was announced in what is shared, and its result is not.
                Err(error) => {
                    assert!(matches!(error.error(), Error::InDoubt(_)), "{at}: {error}");
                    in_doubt += 1;
                    let doubt = poll_out(agent.load(id(number))).unwrap().in_doubt().remove(0);
                    let done = format!("{} is done", doubt.tool_call.name);
                    poll_out(fork.resolve(doubt.call, done)).unwrap();
                    poll_out(fork.resume(More::default())).unwrap()
                }
            };
            assert_eq!(output.messages(), run.messages(), "at {at}");
            let replayed = poll_out(agent.replay(id(number))).unwrap();
            let again = replayed.outcome.unwrap().unwrap();
            assert_eq!(
                serde_json::to_string(&again).unwrap(),
                serde_json::to_string(&output).unwrap(),
                "at {at}"
            );
            let diff = poll_out(agent.diff(id(1), id(number))).unwrap();
            assert_eq!(diff.shared, at);
            let different = diff
                .differences
                .iter()
                .filter(|difference| difference.left.is_some());
            assert_eq!(different.count(), 0, "{:?}", diff.differences);
        }
        assert_eq!(
            in_doubt, 1,
            "between the announcement of the side effect and its result"
        );
    }
}

#[test]
fn a_fork_that_makes_no_sense_is_refused_and_leaves_nothing() {
    let (model, ledger) = (model(), Ledger::default());
    let agent = agent(model, &ledger, memory());
    poll_out(agent.run(Input::from("Go.").with_run_id(id(1)))).unwrap();
    let last = poll_out(agent.load(id(1))).unwrap().records();
    let seen = position(&agent, |event| matches!(event, Event::ModelAnswered { .. })) + 1;
    for fork in [
        Fork::at(0),
        Fork::at(1),
        Fork::whole().with_instructions("Be brief."),
        Fork::at(seen).with_input("Stay."),
        Fork::at(seen).with_input(Input::default()),
        Fork::at(seen).with_tool_result("call-7", "x"),
        Fork::at(last - 2).with_tool_result("call-7", "x"),
        Fork::at(seen).with_model(1),
    ] {
        let refused = poll_out(agent.fork(id(1), fork.clone().with_run_id(id(2)))).unwrap_err();
        assert!(matches!(refused, Error::Config(_)), "{fork:?}: {refused}");
        let missing = poll_out(agent.load(id(2))).unwrap_err();
        assert!(
            matches!(missing, Error::Checkpoints(StoreError::NotFound { .. })),
            "{missing}"
        );
    }
    let beyond = poll_out(agent.fork(id(1), Fork::at(last + 1))).unwrap_err();
    assert!(
        matches!(beyond, Error::Checkpoints(StoreError::OutOfRange { .. })),
        "{beyond}"
    );
    let taken = poll_out(agent.fork(id(1), Fork::at(last).with_run_id(id(1)))).unwrap_err();
    assert!(
        matches!(taken, Error::Checkpoints(StoreError::AlreadyExists { .. })),
        "{taken}"
    );
}

#[test]
fn an_idempotent_call_keeps_its_key_in_a_fork() {
    let ledger = Ledger::default();
    let agent = Agent::new(Script::new(|request, _| {
        Ok(match results(request).len() {
            0 => calls(&[("put", "{}")]),
            _ => text("Done."),
        })
    }))
    .with_scope(scope())
    .with_tool(acting("put", Effect::Idempotent, &ledger))
    .with_allowed("put")
    .with_checkpoints(memory());
    assert!(poll_times(agent.run(Input::from("Go.").with_run_id(id(1))), 2).is_none());
    let fork = poll_out(agent.fork(id(1), Fork::whole())).unwrap();
    assert_eq!(go_on(fork), "Done.");
    assert_eq!(go_on(poll_out(agent.load(id(1))).unwrap()), "Done.");
    let lines = ledger.lines();
    assert!(
        lines.len() == 3 && lines.iter().all(|line| *line == lines[0]),
        "{lines:?}"
    );
}

#[test]
fn a_replay_that_parts_from_the_journal_names_the_first_record() {
    let checkpoints = memory();
    let (model, ledger) = (model(), Ledger::default());
    let agent = agent(model.clone(), &ledger, checkpoints.clone());
    let run = poll_out(agent.run(Input::from("Go.").with_run_id(id(1)))).unwrap();
    let asked = model.requests().len();
    let replayed = poll_out(agent.replay(id(1))).unwrap();
    assert_eq!((replayed.records, replayed.calls), (15, 6));
    assert_eq!(
        serde_json::to_vec(&replayed.outcome.unwrap().unwrap()).unwrap(),
        serde_json::to_vec(&run).unwrap()
    );
    poll_out(agent.replay_with_own_rules(id(1))).unwrap();

    // Another prompt would have asked something else, at once.
    let brief = Agent::new(model.clone())
        .with_scope(scope())
        .with_instructions("Be brief.")
        .with_checkpoints(checkpoints.clone());
    let error = poll_out(brief.replay_with_own_rules(id(1))).unwrap_err();
    let Error::Diverged(divergence) = &error else {
        panic!("{error}")
    };
    assert_eq!((divergence.seq, error.code()), (2, "diverged"));
    // A bound that the run would have reached: the first call that would not have been made.
    let limits = Limits {
        max_steps: 2,
        ..Limits::default()
    };
    let bounded = agent.clone().with_limits(limits);
    let error = poll_out(bounded.replay_with_own_rules(id(1))).unwrap_err();
    let Error::Diverged(divergence) = &error else {
        panic!("{error}")
    };
    let entries = poll_out(agent.history(id(1))).unwrap();
    let at = entries[usize::try_from(divergence.seq).unwrap()].what.name();
    assert_eq!((divergence.seq, at), (10, "call_tool"), "{divergence}");

    // A journal in which a record is another one: each of them is found.
    // Where it first makes a difference: a result when the model is shown it, an answer in the last state.
    let found_at = [0, 2, 2, 4, 4, 8, 6, 8, 8, 10, 10, 12, 12, 14, 14];
    for changed in 1..15_u64 {
        let key = peregrine_checkpoints::RunKey::new(scope(), id(u8::try_from(changed).unwrap() + 10));
        let history = poll_out(checkpoints.load(
            &peregrine_checkpoints::RunKey::new(scope(), id(1)),
            peregrine_checkpoints::Span::ALL,
        ))
        .unwrap();
        let mut journal = poll_out(checkpoints.create(&key)).unwrap();
        for record in &history.records {
            let mut payload = record.payload.to_vec();
            if record.seq == changed {
                let (from, to): (&[u8], &[u8]) = match record.kind {
                    Kind::Event if find(&payload, b"is done").is_some() => (b"is done", b"is gone"),
                    Kind::Event if find(&payload, b"Go.").is_some() => (b"Go.", b"Ho."),
                    Kind::Event if find(&payload, b"tool_0").is_some() => (b"tool_0", b"fool_0"),
                    Kind::Event => (b"tool_1", b"fool_1"),
                    _ => (b"", b""),
                };
                match find(&payload, from) {
                    Some(place) if !from.is_empty() => payload[place..place + to.len()].copy_from_slice(to),
                    // Of an announcement or the end: a digit of a digest.
                    _ => {
                        let place = payload.len() - 3;
                        let digest = find(&payload, b"request")
                            .or_else(|| find(&payload, b"arguments"))
                            .or_else(|| find(&payload, b"state"));
                        let place = digest.map_or(place, |at| at + 20);
                        payload[place] = if payload[place] == b'0' { b'1' } else { b'0' };
                    }
                }
            }
            let mut draft = peregrine_checkpoints::Draft::raw(record.kind, record.schema, payload);
            for part in &record.parts {
                let peregrine_checkpoints::Part::Inline(bytes) = part else {
                    panic!()
                };
                draft = draft.with_part(bytes.clone());
            }
            poll_out(journal.append_draft(&draft)).unwrap();
        }
        poll_out(journal.finish()).unwrap();
        let error = poll_out(agent.replay(key)).unwrap_err();
        let Error::Diverged(divergence) = &error else {
            panic!("{changed}: {error}")
        };
        assert_eq!(
            divergence.seq,
            found_at[usize::try_from(changed).unwrap()],
            "{changed}: {divergence}"
        );
    }
    assert_eq!(model.requests().len(), asked, "no model was asked");
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    (!what.is_empty())
        .then(|| bytes.windows(what.len()).position(|window| window == what))
        .flatten()
}

#[test]
fn two_runs_are_compared_by_what_was_said_and_done() {
    let (model, ledger) = (model(), Ledger::default());
    let agent = agent(model, &ledger, memory());
    for (number, asked) in [(1, "Go."), (2, "Go."), (3, "Stay.")] {
        poll_out(agent.run(Input::from(asked).with_run_id(id(number)))).unwrap();
    }
    let same = poll_out(agent.diff(id(1), id(2))).unwrap();
    assert!(same.is_same(), "{same:?}");
    assert_eq!(same.common, 4, "but for the keys of calls");
    let other = poll_out(agent.diff(id(1), id(3))).unwrap();
    let names: Vec<&str> = other
        .differences
        .iter()
        .map(|difference| difference.left.as_ref().unwrap().what.name())
        .collect();
    assert_eq!((other.common, names), (1, vec!["started", "model_answered"]));
    // A fork: what it shares is not even looked at.
    let at = returned(&agent, 2) + 1;
    let fork = Fork::at(at).with_run_id(id(4)).with_tool_result("call-0", "no");
    go_on(poll_out(agent.fork(id(1), fork)).unwrap());
    let diff = poll_out(agent.diff(id(1), id(4))).unwrap();
    let names: Vec<(Option<&str>, Option<&str>)> = diff
        .differences
        .iter()
        .map(|difference| {
            let name = |entry: &Option<peregrine_agent::durable::Entry>| {
                entry.as_ref().map(|entry| entry.what.name())
            };
            (name(&difference.left), name(&difference.right))
        })
        .collect();
    assert_eq!((diff.shared, diff.common), (at, at));
    assert_eq!(
        names,
        [
            (None, Some("amended")),
            (None, Some("interrupted")),
            (None, Some("not_begun")),
            (None, Some("resumed")),
            (Some("model_answered"), Some("model_answered")),
        ]
    );
}
