//! Bounds of runs: each names itself, keeps what was done, and lets a run that pauses go on.

use std::sync::Arc;
use std::time::Duration;

use peregrine_agent::run::Stop;
use peregrine_agent::{
    Agent, Budget, BudgetLimits, Error, Input, Limits, More, OnLimit, Resource, Run, RunError, Window,
};
use peregrine_core::{Cost, Message, NanoUsd, Price, PriceTable, Sampling, Usage};
use peregrine_tools::{Canceller, tool};

use crate::support::{Script, calls, text};

/// Gives a text of some length.
#[tool(effect = "read_only", danger = "safe")]
async fn fill(bytes: usize) -> String {
    "x".repeat(bytes)
}

/// Never ends.
#[tool(effect = "read_only", danger = "safe")]
async fn hang() -> String {
    std::future::pending().await
}

/// Has side effects, and never ends.
#[tool(effect = "side_effect", danger = "high")]
async fn launch() -> String {
    std::future::pending().await
}

fn limit(error: &RunError) -> (Resource, u64) {
    match error.error() {
        Error::Limit(limit) => (limit.resource, limit.limit),
        other => panic!("{other}"),
    }
}

fn looping() -> Script {
    Script::new(|_, _| Ok(calls(&[("fill", r#"{"bytes": 100}"#)])))
}

fn bounded(change: impl FnOnce(&mut Limits)) -> Agent {
    let mut limits = Limits::default();
    change(&mut limits);
    Agent::new(looping()).with_tool(fill()).with_limits(limits)
}

#[tokio::test]
async fn every_bound_ends_the_run_and_says_which() {
    let steps = bounded(|limits| limits.max_steps = 3)
        .run("Go.")
        .await
        .unwrap_err();
    assert_eq!(
        (
            limit(&steps),
            steps.report().steps,
            steps.report().tool_calls.len()
        ),
        ((Resource::Steps, 3), 3, 2)
    );
    let tools = bounded(|limits| limits.max_tool_calls = 2)
        .run("Go.")
        .await
        .unwrap_err();
    assert_eq!(
        (limit(&tools), tools.report().tool_calls.len()),
        ((Resource::ToolCalls, 2), 2)
    );
    let output = bounded(|limits| limits.max_tool_output_bytes = 250)
        .run("Go.")
        .await
        .unwrap_err();
    assert_eq!(
        (limit(&output), output.report().tool_calls.len()),
        ((Resource::ToolOutput, 250), 3)
    );
    for error in [steps, tools, output] {
        assert!(error.run().is_none() && !error.report().messages.is_empty());
    }
}

#[tokio::test]
async fn tokens_and_money_are_reserved_before_and_settled_after() {
    let agent = |limits: BudgetLimits| {
        let price = Price::per_million(NanoUsd(1_000_000_000), NanoUsd(2_000_000_000));
        let sampling = Sampling {
            max_tokens: Some(5),
            ..Sampling::default()
        };
        Agent::new(looping())
            .with_tool(fill())
            .with_prices(PriceTable::new().with("test", "script", price))
            .with_sampling(sampling)
            .with_budget(limits)
    };
    let tokens = agent(BudgetLimits::default().with_tokens(200))
        .run("Go.")
        .await
        .unwrap_err();
    assert_eq!(limit(&tokens).0, Resource::Tokens);
    assert!(tokens.report().steps > 0 && tokens.report().usage.unwrap().total_tokens() <= 200);
    assert!(tokens.report().overshoot.is_empty());

    // 10 tokens in and 5 out cost 20,000 nano-dollars.
    let money = agent(BudgetLimits::default().with_cost(NanoUsd(500_000)))
        .run("Go.")
        .await
        .unwrap_err();
    assert_eq!(limit(&money).0, Resource::Cost);
    let Cost::Priced(spent) = money.report().cost else {
        panic!("it has a price")
    };
    assert!(spent.0 > 0 && spent.0 <= 500_000, "{spent}");

    let calls = agent(BudgetLimits::default().with_tool_calls(2))
        .run("Go.")
        .await
        .unwrap_err();
    assert_eq!(
        (limit(&calls), calls.report().tool_calls.len()),
        ((Resource::ToolCalls, 2), 2)
    );
}

#[tokio::test]
async fn money_without_prices_is_an_error_before_anything_is_asked() {
    let model = looping();
    let agent = Agent::new(model.clone()).with_budget(BudgetLimits::default().with_cost(NanoUsd(1)));
    let error = agent.run("Go.").await.unwrap_err();
    assert!(matches!(error.error(), Error::Config(_)), "{error}");
    assert!(model.requests().is_empty());
}

#[tokio::test]
async fn what_a_call_exceeds_its_estimate_by_is_reported() {
    let model =
        Script::new(|_, _| Ok(peregrine_core::ChatResponse::text("long").with_usage(Usage::new(100, 5_000))));
    let agent = Agent::new(model).with_budget(BudgetLimits::default().with_tokens(1_000));
    let output = agent.run("Go.").await.unwrap();
    let over = &output.report.overshoot[0];
    assert_eq!((over.resource, over.by()), (Resource::Tokens, 4_100));
}

#[tokio::test]
async fn runs_draw_on_the_budget_of_what_they_are_part_of() {
    let parent = Budget::named("request", BudgetLimits::default().with_tool_calls(3));
    let model = || {
        Script::of([
            calls(&[("fill", r#"{"bytes": 1}"#), ("fill", r#"{"bytes": 2}"#)]),
            text("Done."),
        ])
    };
    let agent = |model| Agent::new(model).with_tool(fill());
    let input = || Input::from("Go.").with_budget(parent.clone());
    agent(model()).run(input()).await.unwrap();
    assert_eq!(parent.status().spent.tool_calls, 2);
    let error = agent(model()).run(input()).await.unwrap_err();
    let Error::Limit(reached) = error.error() else {
        panic!("{error}")
    };
    assert_eq!(
        (reached.budget.as_str(), parent.status().spent.tool_calls),
        ("request", 3)
    );
}

#[tokio::test(start_paused = true)]
async fn time_runs_out_and_what_was_done_is_kept() {
    let model = Script::of([calls(&[("fill", r#"{"bytes": 1}"#)]), calls(&[("hang", "{}")])]);
    let agent = Agent::new(model)
        .with_tool(fill())
        .with_tool(hang())
        .with_timer(Arc::new(peregrine_testkit_clock()))
        .with_budget(BudgetLimits::default().with_wall_time(Duration::from_secs(5)));
    let error = agent.run("Go.").await.unwrap_err();
    assert_eq!(limit(&error), (Resource::WallTime, 5_000));
    assert_eq!((error.report().steps, error.report().tool_calls.len()), (2, 1));
}

/// Tokio's time, which this test has paused.
fn peregrine_testkit_clock() -> impl peregrine_core::Timer + 'static {
    peregrine_providers::TokioClock
}

#[tokio::test]
async fn a_limit_on_time_needs_a_timer() {
    if cfg!(feature = "tokio") {
        return;
    }
    let limits = BudgetLimits::default().with_wall_time(Duration::from_secs(5));
    let own = Agent::new(looping())
        .with_budget(limits)
        .run("Go.")
        .await
        .unwrap_err();
    let parent = Input::from("Go.").with_budget(Budget::new(limits));
    let inherited = Agent::new(looping()).run(parent).await.unwrap_err();
    for error in [own, inherited] {
        assert!(
            matches!(error.error(), Error::Config(_)) && error.to_string().contains("timer"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_run_that_pauses_at_a_bound_goes_on_where_it_stopped() {
    let limits = Limits {
        max_steps: 2,
        ..Limits::default()
    };
    let model = Script::of([
        calls(&[("fill", r#"{"bytes": 1}"#)]),
        calls(&[("fill", r#"{"bytes": 2}"#)]),
        text("Done."),
    ]);
    let agent = Agent::new(model.clone())
        .with_tool(fill())
        .with_limits(limits)
        .with_on_limit(OnLimit::Pause);
    let error = agent.run("Go.").await.unwrap_err();
    assert_eq!(limit(&error), (Resource::Steps, 2));
    // Through bytes, as another process would.
    let run: Run = serde_json::from_str(&serde_json::to_string(error.run().unwrap()).unwrap()).unwrap();
    assert!(matches!(run.paused(), Some(Stop::Limit { .. })));
    let still = agent.resume(run.clone(), More::default()).await.unwrap_err();
    assert_eq!(limit(&still), (Resource::Steps, 2), "nothing was added");
    let more = More {
        steps: 1,
        ..More::default()
    };
    let output = agent.resume(run, more).await.unwrap();
    assert_eq!(
        (
            output.text().as_str(),
            output.report.steps,
            model.requests().len()
        ),
        ("Done.", 3, 3)
    );
    assert_eq!(output.messages().len(), 6);
}

#[tokio::test]
async fn a_cancelled_run_keeps_what_was_done_and_can_go_on() {
    let model = Script::of([
        calls(&[("fill", r#"{"bytes": 1}"#)]),
        calls(&[("hang", "{}")]),
        text("Well."),
    ]);
    let agent = Agent::new(model).with_tool(fill()).with_tool(hang());
    let canceller = Canceller::new();
    let input = Input::from("Go.").with_cancellation(canceller.cancellation());
    let run = agent.run(input);
    let stop = async {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        canceller.cancel();
    };
    let (outcome, ()) = futures_util::future::join(run, stop).await;
    let error = outcome.unwrap_err();
    assert!(matches!(error.error(), Error::Interrupted(_)), "{error}");
    assert_eq!((error.report().steps, error.report().tool_calls.len()), (2, 1));
    assert!(error.into_run().unwrap().paused().is_some());
}

#[tokio::test]
async fn a_side_effect_that_was_under_way_is_in_doubt_and_not_repeated() {
    let model = Script::of([calls(&[("launch", "{}")]), text("Launched.")]);
    let agent = Agent::new(model).with_tool(launch()).with_allowed("launch");
    let canceller = Canceller::new();
    let input = Input::from("Go.").with_cancellation(canceller.cancellation());
    let run = agent.run(input);
    let stop = async {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        canceller.cancel();
    };
    let (outcome, ()) = futures_util::future::join(run, stop).await;
    let run = outcome.unwrap_err().into_run().unwrap();
    let error = agent.resume(run, More::default()).await.unwrap_err();
    let Error::InDoubt(calls) = error.error() else {
        panic!("{error}")
    };
    let call = calls[0];
    // Somebody looked, and it had been launched.
    let mut run = error.into_run().unwrap();
    let result = peregrine_core::ToolResult {
        call_id: "call-0".to_owned(),
        name: "launch".to_owned(),
        content: vec![peregrine_core::Part::text("launched")],
        is_error: false,
    };
    let settled = peregrine_agent::run::Event::ToolReturned {
        call,
        outcome: peregrine_agent::run::ToolOutcome::Returned(result),
    };
    assert!(run.handle(settled).unwrap().is_empty());
    assert_eq!(
        agent.resume(run, More::default()).await.unwrap().text(),
        "Launched."
    );
}

#[tokio::test]
async fn a_window_bounds_what_is_sent_and_one_that_is_too_small_is_an_error() {
    let model = Script::new(|_, _| Ok(text("ok")));
    let agent = Agent::new(model.clone())
        .with_instructions("Be brief.")
        .with_window(Window::last_turns(2));
    let history = (0..10).flat_map(|turn| [Message::user(format!("q{turn}")), Message::assistant("a")]);
    let output = agent.run(Input::new(history).with_user("now")).await.unwrap();
    let asked: Vec<String> = model.requests()[0]
        .messages
        .iter()
        .map(|message| message.text())
        .collect();
    assert_eq!(asked, ["Be brief.", "q9", "a", "now"]);
    assert_eq!(
        output.messages().len(),
        23,
        "nothing is lost, it is only not sent"
    );

    let error = Agent::new(model)
        .with_window(Window::tokens(3))
        .run("a long question".repeat(10))
        .await
        .unwrap_err();
    assert!(matches!(error.error(), Error::WindowTooSmall(_)), "{error}");
}
