//! Runs that go on: under the same id, within what they are part of, and only with an agent that fits them.

use std::sync::{Arc, Mutex};

use peregrine_agent::{
    Agent, Budget, BudgetLimits, Error, Input, Limits, More, OnLimit, Resumption, Run, RunError, Strategy,
};
use peregrine_core::{Effect, JsonSchema, Message, RunId, ToolSpec};
use peregrine_signatures::Signature;
use peregrine_tools::{Canceller, FnTool, Tool, ToolContext, ToolError, ToolInfo, tool};

use crate::support::{Script, calls, text};

/// Echoes.
#[tool(effect = "read_only", danger = "safe")]
async fn echo(word: String) -> String {
    word
}

/// Say where something is.
#[derive(Signature)]
struct Locate {
    #[input]
    thing: String,
    #[output]
    place: String,
}

/// Hangs when it is called for the first time, and keeps the keys it was called with.
fn put(keys: Arc<Mutex<Vec<String>>>) -> impl Tool {
    let info = ToolInfo::new(ToolSpec::new("put", "Puts.", JsonSchema::empty_object()));
    FnTool::raw(
        info.with_effect(Effect::Idempotent),
        move |context: ToolContext, _| {
            let mut keys = keys.lock().unwrap();
            keys.push(context.idempotency_key.to_string());
            let hangs = keys.len() == 1;
            async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
                Ok::<_, ToolError>("put")
            }
        },
    )
}

async fn cancelled(agent: &Agent, input: Input) -> RunError {
    let canceller = Canceller::new();
    let run = agent.run(input.with_cancellation(canceller.cancellation()));
    let stop = async {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        canceller.cancel();
    };
    futures_util::future::join(run, stop).await.0.unwrap_err()
}

fn through_bytes(run: &Run) -> Run {
    serde_json::from_slice(&serde_json::to_vec(run).unwrap()).unwrap()
}

#[tokio::test]
async fn an_idempotent_call_is_repeated_under_the_same_key() {
    let keys = Arc::<Mutex<Vec<String>>>::default();
    let agent = Agent::new(Script::of([calls(&[("put", "{}")]), text("Done.")]))
        .with_tool(put(Arc::clone(&keys)))
        .with_allowed("put");
    let error = cancelled(&agent, Input::from("Go.")).await;
    let run = through_bytes(error.run().unwrap());
    assert_eq!(run.id(), Some(error.report().run_id));
    let output = agent.resume(run, More::default()).await.unwrap();
    assert_eq!(output.report.run_id, error.report().run_id);
    let keys = keys.lock().unwrap();
    assert_eq!((keys.len(), &keys[0]), (2, &keys[1]));
}

fn pausing(model: Script) -> Agent {
    let limits = Limits {
        max_steps: 1,
        ..Limits::default()
    };
    Agent::new(model)
        .with_tool(echo())
        .with_limits(limits)
        .with_on_limit(OnLimit::Pause)
}

fn looping() -> Script {
    Script::new(|_, _| Ok(calls(&[("echo", r#"{"word": "a"}"#)])))
}

const MORE: More = More {
    steps: 1,
    tool_calls: 0,
    tool_output_bytes: 0,
};

#[tokio::test]
async fn a_run_that_goes_on_draws_on_what_it_is_part_of_and_can_be_cancelled() {
    let budget = Budget::named("request", BudgetLimits::default().with_tool_calls(0));
    let agent = pausing(Script::of([
        calls(&[("echo", r#"{"word": "a"}"#)]),
        text("Done."),
    ]));
    let run = agent.run("Go.").await.unwrap_err().into_run().unwrap();
    let resumption = Resumption::from(run.clone()).with_budget(budget);
    let error = agent.resume(resumption, MORE).await.unwrap_err();
    assert!(
        matches!(error.error(), Error::Limit(limit) if limit.budget == "request"),
        "{error}"
    );
    let canceller = Canceller::new();
    canceller.cancel();
    let resumption = Resumption::from(run).with_cancellation(canceller.cancellation());
    let error = agent.resume(resumption, MORE).await.unwrap_err();
    assert!(matches!(error.error(), Error::Interrupted(_)), "{error}");
}

#[tokio::test]
async fn an_agent_that_does_not_fit_a_run_gives_it_back() {
    let agent = pausing(looping());
    let untyped = agent.run("Go.").await.unwrap_err().into_run().unwrap();
    let typed = agent
        .run_as::<Locate>(&LocateInput::new("The Scream"))
        .await
        .unwrap_err()
        .into_run()
        .unwrap();
    let refused = |error: RunError| {
        assert!(matches!(error.error(), Error::Config(_)), "{error}");
        assert!(error.run().is_some(), "the run is not lost: {error}");
    };
    refused(agent.resume(typed.clone(), MORE).await.unwrap_err());
    refused(
        agent
            .resume_as::<Locate>(untyped.clone(), MORE)
            .await
            .unwrap_err(),
    );
    let over = {
        let mut run = untyped.clone();
        let veto = peregrine_agent::run::Veto::new("test", "over");
        run.handle(peregrine_agent::run::Event::Resumed { more: MORE })
            .unwrap();
        run.handle(peregrine_agent::run::Event::Vetoed { call: None, veto })
            .unwrap();
        run
    };
    assert!(over.ended().is_some());
    refused(agent.resume(over, MORE).await.unwrap_err());
    // A second model, or a memory, that the agent does not have any more.
    let wide = pausing(looping()).with_fallback(looping());
    let run = wide.run("Go.").await.unwrap_err().into_run().unwrap();
    refused(agent.resume(run, MORE).await.unwrap_err());
    let remembers = agent.clone().with_memory(peregrine_agent::TurnMemory::new(2));
    let run = remembers.run("Go.").await.unwrap_err().into_run().unwrap();
    refused(agent.resume(run, MORE).await.unwrap_err());
    // With fewer tools it goes on: the model is told.
    let model = Script::of([text("Well.")]);
    let bare = Agent::new(model.clone());
    let more = More { steps: 3, ..MORE };
    assert_eq!(bare.resume(untyped, more).await.unwrap().text(), "Well.");
    let told = crate::support::results(&model.requests()[0]);
    assert!(told[0].contains("echo"), "{told:?}");
}

#[tokio::test]
async fn what_was_called_before_a_run_was_stopped_is_reported_with_the_rest() {
    let agent = pausing(Script::of([
        calls(&[("echo", r#"{"word": "a"}"#)]),
        calls(&[("echo", r#"{"word": "b"}"#), ("nothing", "{}")]),
        text("Done."),
    ]));
    let mut run = agent.run("Go.").await.unwrap_err().into_run().unwrap();
    run = agent.resume(run, MORE).await.unwrap_err().into_run().unwrap();
    let output = agent.resume(through_bytes(&run), MORE).await.unwrap();
    let called: Vec<(&str, bool)> = output
        .report
        .tool_calls
        .iter()
        .map(|call| (call.name.as_str(), call.ok))
        .collect();
    assert_eq!(called, [("echo", true), ("echo", true), ("nothing", false)]);
}

#[tokio::test]
async fn runs_draw_on_a_shared_budget_and_on_the_budget_they_are_part_of() {
    let team = Budget::named("team", BudgetLimits::default().with_tool_calls(10));
    let request = team.child_named("request", BudgetLimits::default().with_tool_calls(1));
    let agent = Agent::new(looping())
        .with_tool(echo())
        .with_shared_budget(team.clone());
    let error = agent
        .run(Input::from("Go.").with_budget(request.clone()))
        .await
        .unwrap_err();
    assert!(
        matches!(error.error(), Error::Limit(limit) if limit.budget == "request"),
        "{error}"
    );
    assert_eq!(
        (team.status().spent.tool_calls, request.status().spent.tool_calls),
        (1, 1)
    );
    // The other way around.
    let agent = Agent::new(looping())
        .with_tool(echo())
        .with_shared_budget(request);
    let error = agent
        .run(Input::from("Go.").with_budget(team.clone()))
        .await
        .unwrap_err();
    assert!(
        matches!(error.error(), Error::Limit(limit) if limit.budget == "request"),
        "{error}"
    );
    assert_eq!(team.status().spent.tool_calls, 1);
    // Two that have nothing to do with each other: said, not dropped.
    let other = Budget::named("other", BudgetLimits::default().with_tool_calls(1));
    let model = looping();
    let agent = Agent::new(model.clone())
        .with_tool(echo())
        .with_shared_budget(team);
    let error = agent
        .run(Input::from("Go.").with_budget(other))
        .await
        .unwrap_err();
    assert!(matches!(error.error(), Error::Config(_)), "{error}");
    assert!(
        error.to_string().contains("team") && error.to_string().contains("other"),
        "{error}"
    );
    assert!(model.requests().is_empty());
}

/// Runs another agent.
#[tokio::test]
async fn an_agent_below_an_agent_draws_on_the_same_budget() {
    let request = Budget::named(
        "request",
        BudgetLimits::default().with_tokens(100_000).with_tool_calls(3),
    );
    let below = Agent::new(looping()).with_tool(echo());
    let info = ToolInfo::new(ToolSpec::new("ask", "Asks.", JsonSchema::empty_object()))
        .with_effect(Effect::ReadOnly);
    let part = request.clone();
    let ask = FnTool::raw(info, move |context: ToolContext, _| {
        let input = Input::from("Help.")
            .with_budget(part.clone())
            .with_cancellation(context.cancellation);
        let below = below.clone();
        async move {
            match below.run(input).await {
                Ok(output) => Ok(output.text()),
                Err(error) => Ok::<_, ToolError>(format!(
                    "{} after {}",
                    error.code(),
                    error.report().tool_calls.len()
                )),
            }
        }
    });
    let model = Script::of([calls(&[("ask", "{}")]), text("Done.")]);
    let agent = Agent::new(model.clone()).with_tool(ask);
    agent
        .run(Input::new([Message::user("Go.")]).with_budget(request.clone()))
        .await
        .unwrap();
    assert_eq!(crate::support::results(&model.requests()[1]), ["limit after 2"]);
    let status = request.status();
    assert_eq!((status.spent.tool_calls, status.in_flight), (3, 0));
}

#[test]
fn ids_and_strategies_are_part_of_what_is_kept() {
    let id = RunId::from_parts(7, [7; 10]);
    let mut spec = peregrine_agent::run::RunSpec::default();
    spec.strategy = Strategy::SingleShot;
    let run = Run::new(spec).with_id(id);
    assert_eq!(through_bytes(&run), run);
    assert_eq!(through_bytes(&run).id(), Some(id));
}
