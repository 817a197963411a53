//! Tools under a scope: what they are told, how long they have, what is said of them, and agents inside of them.

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use peregrine_agent::run::{InterruptMode, InterruptSource};
use peregrine_agent::{AbandonedKind, Agent, Error, Input, More, Resumption, Run, RunEvent, ToolScope as _};
use peregrine_core::{ChatModel, ChatRequest, ChatResponse, Effect, JsonSchema, ModelInfo, ToolSpec};
use peregrine_interrupts::{
    Budget, Interrupt, Kind, Limits, Mode, Scope, TimeLimit, TokioTimer, Unit, handler,
};
use peregrine_tools::{FnTool, Tool, ToolContext, ToolError, ToolInfo};

use crate::stop::{Slow, interrupted_at, root, through_bytes, worker};
use crate::support::{Script, calls, text};

/// A tool that does what it is told, with its context.
fn tool<F>(effect: Effect, body: impl Fn(ToolContext) -> F + Send + Sync + 'static) -> impl Tool
where
    F: Future<Output = Result<&'static str, ToolError>> + Send + 'static,
{
    let spec = ToolSpec::new("work", "Works.", JsonSchema::empty_object());
    FnTool::raw(
        ToolInfo::new(spec).with_effect(effect),
        move |context: ToolContext, _| body(context),
    )
}

fn calls_work() -> Script {
    Script::of([calls(&[("work", "{}")]), text("Done."), text("Done.")])
}

async fn stop_after(scope: &Scope, after: Duration, mode: Mode) {
    tokio::time::sleep(after).await;
    scope.interrupt(mode);
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_stuck_tool_is_abandoned_when_the_graceful_stop_has_taken_too_long() {
    let agent = Agent::new(calls_work()).with_tool(tool(Effect::ReadOnly, |_| pending()));
    let scope = Scope::root_with("test", TokioTimer::new(), Limits::new().with_grace(5 * SECOND));
    let began = tokio::time::Instant::now();
    let mut events = agent.run_stream(Input::from("Go.").with_interrupts(&scope));
    let mut told = Vec::new();
    let run = async {
        loop {
            match events.next().await.unwrap() {
                Ok(event) => told.push(event),
                Err(error) => return error,
            }
        }
    };
    let (error, ()) = tokio::join!(run, stop_after(&scope, SECOND, Mode::Graceful));
    assert_eq!(began.elapsed(), 6 * SECOND);
    let Error::Interrupted(interrupt) = error.error() else {
        panic!("{error}")
    };
    assert_eq!(
        (interrupt.mode, interrupt.by, interrupt.escalated_by),
        (
            InterruptMode::Immediate,
            InterruptSource::User,
            Some(InterruptSource::Grace)
        )
    );
    let [abandoned] = error.report().abandoned.as_slice() else {
        panic!()
    };
    assert_eq!(
        (abandoned.kind, abandoned.name.as_deref()),
        (AbandonedKind::Tool, Some("work"))
    );
    assert_eq!(
        (abandoned.call_id.as_deref(), abandoned.waited),
        (Some("call-0"), 5 * SECOND)
    );
    let interrupts = told.iter().filter_map(|event| match event {
        RunEvent::Interrupted { interrupt } => Some(interrupt.mode),
        _ => None,
    });
    assert_eq!(
        interrupts.collect::<Vec<_>>(),
        [InterruptMode::Graceful, InterruptMode::Immediate]
    );
    assert!(
        matches!(told.last(), Some(RunEvent::Abandoned { thread: 0, .. })),
        "{told:?}"
    );
    assert!(error.run().is_some(), "a read is made again");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_listen_and_can_be_repeated_is_dropped_at_once() {
    let agent = Agent::new(calls_work()).with_tool(tool(Effect::ReadOnly, |_| pending()));
    let scope = Scope::root("test", TokioTimer::new());
    let began = tokio::time::Instant::now();
    let run = agent.run(Input::from("Go.").with_interrupts(&scope));
    let (outcome, ()) = tokio::join!(run, stop_after(&scope, SECOND, Mode::Immediate));
    assert_eq!(began.elapsed(), SECOND);
    assert_eq!(outcome.unwrap_err().report().abandoned[0].waited, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_listens_may_tidy_up_within_the_grace_period() {
    for by_scope in [false, true] {
        for (takes, in_time) in [(SECOND, true), (20 * SECOND, false)] {
            let tidied = Arc::<AtomicUsize>::default();
            let seen = Arc::clone(&tidied);
            let listens = tool(Effect::ReadOnly, move |context| {
                let seen = Arc::clone(&seen);
                async move {
                    match context.interrupts().filter(|_| by_scope) {
                        Some(scope) => drop(scope.cancelled().await),
                        None => context.cancellation.cancelled().await,
                    }
                    tokio::time::sleep(takes).await;
                    seen.fetch_add(1, Ordering::SeqCst);
                    Err(ToolError::Cancelled)
                }
            });
            let agent = Agent::new(calls_work()).with_tool(listens).with_grace(3 * SECOND);
            let scope = Scope::root("test", TokioTimer::new());
            let began = tokio::time::Instant::now();
            let run = agent.run(Input::from("Go.").with_interrupts(&scope));
            let (outcome, ()) = tokio::join!(run, stop_after(&scope, SECOND, Mode::Immediate));
            let error = outcome.unwrap_err();
            assert!(matches!(error.error(), Error::Interrupted(_)), "{error}");
            let expected = if in_time { 2 * SECOND } else { 4 * SECOND };
            assert_eq!(began.elapsed(), expected, "by scope: {by_scope}");
            assert_eq!(tidied.load(Ordering::SeqCst), usize::from(in_time));
            assert_eq!(error.report().abandoned.is_empty(), in_time);
            assert!(error.run().is_some());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_side_effect_that_ends_in_time_is_known_and_one_that_does_not_is_in_doubt() {
    for (takes, in_time) in [(2 * SECOND, true), (60 * SECOND, false)] {
        let called = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&called);
        let send = tool(Effect::SideEffect, move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            async move {
                tokio::time::sleep(takes).await;
                Ok("sent")
            }
        });
        let agent = Agent::new(calls_work()).with_tool(send).with_allowed("work");
        let scope = Scope::root("test", TokioTimer::new());
        let run = agent.run(Input::from("Go.").with_interrupts(&scope));
        let (outcome, ()) = tokio::join!(run, stop_after(&scope, SECOND, Mode::Immediate));
        let error = outcome.unwrap_err();
        assert!(matches!(error.error(), Error::Interrupted(_)), "{error}");
        assert_eq!(error.report().abandoned.len(), usize::from(!in_time));
        let run = through_bytes(error.run().unwrap());
        let resumed = agent.resume(run, More::default()).await;
        assert_eq!(called.load(Ordering::SeqCst), 1, "never a second time");
        match in_time {
            true => assert_eq!(resumed.unwrap().text(), "Done."),
            false => assert!(matches!(resumed.unwrap_err().error(), Error::InDoubt(_))),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_grace_everything_is_dropped_at_once() {
    let send = tool(Effect::SideEffect, |_| pending());
    let agent = Agent::new(calls_work())
        .with_tool(send)
        .with_allowed("work")
        .with_grace(Duration::ZERO);
    let scope = Scope::root("test", TokioTimer::new());
    let began = tokio::time::Instant::now();
    let run = agent.run(Input::from("Go.").with_interrupts(&scope));
    let (outcome, ()) = tokio::join!(run, stop_after(&scope, SECOND, Mode::Immediate));
    assert_eq!(outcome.unwrap_err().report().abandoned.len(), 1);
    assert_eq!(began.elapsed(), SECOND);
}

#[tokio::test]
async fn the_reason_says_what_it_was() {
    let agent = || worker(Effect::ReadOnly, &Arc::default()).0;
    let limited = |limits: Limits| Scope::root_with("test", TokioTimer::new(), limits);
    let cases = [
        (
            Budget::new(Unit::TOKENS, 40),
            "budget used up: 45 of 40 tokens",
            3,
            2,
        ),
        (
            Budget::new(Unit::MODEL_CALLS, 2),
            "budget used up: 2 of 2 model calls",
            2,
            1,
        ),
        (
            Budget::new(Unit::TOOL_CALLS, 3),
            "budget used up: 3 of 3 tool calls",
            3,
            3,
        ),
    ];
    for (budget, says, steps, tools) in cases {
        let scope = limited(Limits::new().with_budget(budget));
        let error = agent()
            .run(Input::from("Go.").with_interrupts(&scope))
            .await
            .unwrap_err();
        let Error::Interrupted(interrupt) = error.error() else {
            panic!("{error}")
        };
        assert_eq!(interrupt.by, InterruptSource::Budget);
        assert!(interrupt.reason.contains(says), "{}", interrupt.reason);
        assert_eq!(
            (error.report().steps, error.report().tool_calls.len()),
            (steps, tools),
            "{says}"
        );
    }

    let time = TimeLimit::new(Duration::ZERO).with_mode(Mode::Immediate);
    let scope = limited(Limits::new().with_time(time));
    let error = agent()
        .run(Input::from("Go.").with_interrupts(&scope))
        .await
        .unwrap_err();
    let Error::Interrupted(interrupt) = error.error() else {
        panic!("{error}")
    };
    assert_eq!(
        (interrupt.by, error.report().steps),
        (InterruptSource::TimeLimit, 0)
    );

    let scope = root();
    let full = handler("disk", async {
        Interrupt::new(Mode::Graceful).with_detail("it is full")
    });
    let agent = agent();
    let run = agent.run(Input::from("Go.").with_interrupts(&scope));
    let error = scope.watch().with(full).run(run).await.unwrap_err();
    let Error::Interrupted(interrupt) = error.error() else {
        panic!("{error}")
    };
    assert_eq!(interrupt.by, InterruptSource::Handler);
    assert_eq!(
        interrupt.reason,
        "graceful interrupt of run `test`: handler `disk` fired: it is full"
    );
}

#[tokio::test(start_paused = true)]
async fn a_time_limit_of_the_scope_stops_a_model_that_never_answers() {
    struct Never(ModelInfo);
    impl ChatModel for Never {
        fn info(&self) -> &ModelInfo {
            &self.0
        }
        async fn complete(&self, _: &ChatRequest) -> peregrine_core::Result<ChatResponse> {
            pending().await
        }
    }
    let agent = Agent::new(Never(ModelInfo::new("test", "never")));
    let limits = Limits::new().with_time(10 * SECOND).with_grace(5 * SECOND);
    let scope = Scope::root_with("test", TokioTimer::new(), limits);
    let began = tokio::time::Instant::now();
    let error = agent
        .run(Input::from("Go.").with_interrupts(&scope))
        .await
        .unwrap_err();
    assert_eq!(began.elapsed(), 15 * SECOND);
    let Error::Interrupted(interrupt) = error.error() else {
        panic!("{error}")
    };
    assert_eq!(
        (interrupt.by, interrupt.escalated_by),
        (InterruptSource::TimeLimit, Some(InterruptSource::Grace))
    );
    assert!(error.report().abandoned.is_empty(), "a model is asked again");
}

#[tokio::test(start_paused = true)]
async fn limits_that_are_near_are_told_of() {
    let near = async |agent: &Agent, scope: &Scope| {
        let mut events = agent.run_stream(Input::from("Go.").with_interrupts(scope));
        let mut near = Vec::new();
        while let Some(Ok(event)) = events.next().await {
            if let RunEvent::LimitNear {
                limit,
                source,
                fraction,
            } = event
            {
                assert!(fraction >= 0.8);
                near.push((source, limit));
            }
        }
        near
    };
    let (agent, _) = worker(Effect::ReadOnly, &Arc::default());
    let limits = Limits::new().with_budget(Budget::new(Unit::TOOL_CALLS, 10));
    let scope = Scope::root_with("test", TokioTimer::new(), limits);
    assert_eq!(
        near(&agent, &scope).await,
        [(
            InterruptSource::Budget,
            "80 % of the budget of 10 tool calls of run `test` used".to_owned()
        )]
    );

    let own = peregrine_agent::BudgetLimits::default()
        .with_tool_calls(12)
        .with_tokens(1_000);
    let told = near(&agent.clone().with_budget(own), &root()).await;
    let [(InterruptSource::Budget, limit)] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert!(
        limit.starts_with("83 % of the budget") && limit.ends_with("of 12 tool_calls used"),
        "{limit}"
    );

    let stuck = Agent::new(calls_work())
        .with_tool(tool(Effect::ReadOnly, |_| pending()))
        .with_timer(Arc::new(peregrine_providers::TokioClock))
        .with_budget(peregrine_agent::BudgetLimits::default().with_wall_time(10 * SECOND));
    let began = tokio::time::Instant::now();
    let mut events = stuck.run_stream("Go.");
    let told = loop {
        if let RunEvent::LimitNear { limit, source, .. } = events.next().await.unwrap().unwrap() {
            break (source, limit, began.elapsed().as_secs());
        }
    };
    assert_eq!(
        told,
        (
            InterruptSource::TimeLimit,
            "80 % of the time limit of 10s used".to_owned(),
            8
        )
    );
}

/// An agent whose tool is an agent, which works.
fn nested(called: &Arc<AtomicUsize>) -> Agent {
    let inner = worker(Effect::SideEffect, called).0;
    let kept = Arc::<Mutex<Option<Run>>>::default();
    let delegate = tool(Effect::Idempotent, move |context| {
        let (inner, kept) = (inner.clone(), Arc::clone(&kept));
        async move {
            let before = kept.lock().unwrap().take();
            let outcome = match before {
                None => inner.run(Input::from("Go.").within(&context)).await,
                Some(run) => {
                    let run = Resumption::from(run).within(&context);
                    inner.resume(run, More::default()).await
                }
            };
            match outcome {
                Ok(_) => Ok("all done"),
                Err(error) => {
                    *kept.lock().unwrap() = error.run().cloned();
                    Err(error.into())
                }
            }
        }
    });
    Agent::new(Slow(Script::new(|request, _| {
        Ok(match crate::support::results(request).len() {
            0 => calls(&[("work", "{}")]),
            _ => text("They are through."),
        })
    })))
    .with_tool(delegate)
    .with_allowed("work")
}

#[tokio::test]
async fn an_agent_inside_a_tool_stops_with_the_one_outside_and_both_go_on() {
    for mode in [Mode::Graceful, Mode::Immediate] {
        let mut within = 0;
        for place in 0..40 {
            let called = Arc::default();
            let agent = nested(&called);
            let scope = root();
            let run = agent.run(Input::from("Start.").with_interrupts(&scope));
            let (outcome, in_time) = interrupted_at(run, &scope, &[(place, mode)]).await;
            let output = match outcome {
                Ok(output) => output,
                Err(error) => {
                    let Error::Interrupted(interrupt) = error.error() else {
                        panic!("{error}")
                    };
                    assert_eq!(interrupt.by, InterruptSource::User, "{place}: {interrupt}");
                    assert!(
                        error.report().abandoned.is_empty(),
                        "{place}: the inner one came to rest"
                    );
                    assert_eq!(scope.tree_len(), 1, "{place}");
                    within += usize::from(called.load(Ordering::SeqCst) > 0);
                    let run = through_bytes(error.run().unwrap());
                    match agent.resume(run, More::default()).await {
                        Ok(output) => output,
                        // The inner one was in the middle of a side effect, and is not made to repeat it.
                        Err(error) => {
                            assert_eq!(mode, Mode::Immediate, "{place}: {error}");
                            continue;
                        }
                    }
                }
            };
            assert_eq!(output.text(), "They are through.", "{place}");
            assert_eq!(called.load(Ordering::SeqCst), 10, "{place}, {mode:?}");
            if !in_time {
                break;
            }
        }
        assert!(within >= 5, "{within}");
    }
}

#[tokio::test]
async fn what_a_tool_left_running_ends_with_the_run() {
    let left = Arc::<Mutex<Vec<Scope>>>::default();
    let keep = Arc::clone(&left);
    let leaves = tool(Effect::ReadOnly, move |context| {
        let scope = context.interrupts().unwrap();
        keep.lock().unwrap().push(scope.child(Kind::Other, "left"));
        async { Ok("left") }
    });
    let seen = Arc::clone(&left);
    let model = Script::new(move |_, place| match place {
        0 => Ok(calls(&[("work", "{}")])),
        _ => {
            assert!(!seen.lock().unwrap()[0].is_interrupted(), "the run goes on");
            Ok(text("Done."))
        }
    });
    let scope = root();
    let agent = Agent::new(model).with_tool(leaves);
    agent
        .run(Input::from("Go.").with_interrupts(&scope))
        .await
        .unwrap();
    let left = left.lock().unwrap().pop().unwrap();
    assert_eq!(left.interrupted().unwrap().reason().source.as_str(), "dropped");
    assert!(!scope.is_interrupted());
}

#[tokio::test(start_paused = true)]
async fn what_a_tool_started_is_told_when_the_tool_takes_too_long_or_panics() {
    for panics in [false, true] {
        let started = Arc::<Mutex<Vec<Scope>>>::default();
        let keep = Arc::clone(&started);
        let spec = ToolSpec::new("work", "Works.", JsonSchema::empty_object());
        let info = ToolInfo::new(spec)
            .with_effect(Effect::ReadOnly)
            .with_timeout(SECOND);
        let stuck = FnTool::raw(info, move |context: ToolContext, _| {
            keep.lock().unwrap().push(context.interrupts().unwrap().clone());
            async move {
                assert!(!panics, "as it should");
                pending::<Result<&str, ToolError>>().await
            }
        });
        let agent = Agent::new(calls_work())
            .with_tool(stuck)
            .with_timer(Arc::new(peregrine_providers::TokioClock));
        let scope = Scope::root("test", TokioTimer::new());
        agent
            .run(Input::from("Go.").with_interrupts(&scope))
            .await
            .unwrap();
        let scope = started.lock().unwrap().pop().unwrap();
        let source = scope.interrupted().unwrap().reason().source.as_str();
        assert_eq!(source, if panics { "dropped" } else { "time_limit" });
    }
}
