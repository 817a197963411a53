//! Stopping runs through a scope: gracefully and immediately, at every place, and what goes on from there.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use futures_util::FutureExt as _;
use peregrine_agent::run::{InterruptMode, InterruptSource};
use peregrine_agent::{Agent, Error, Input, More, Resumption, Run, RunError, RunOutput};
use peregrine_core::{ChatModel, ChatRequest, ChatResponse, ChatStream, Effect, ModelInfo, ToolSpec};
use peregrine_interrupts::{ManualTimer, Mode, Scope};
use peregrine_tools::{FnTool, Tool, ToolContext, ToolError, ToolInfo};

use crate::support::{Script, calls, text};

/// A model that waits a moment before it answers.
pub(crate) struct Slow(pub(crate) Script);

impl ChatModel for Slow {
    fn info(&self) -> &ModelInfo {
        self.0.info()
    }

    async fn complete(&self, request: &ChatRequest) -> peregrine_core::Result<ChatResponse> {
        let answer = self.0.complete(request).await;
        tokio::task::yield_now().await;
        answer
    }

    async fn stream(&self, request: &ChatRequest) -> peregrine_core::Result<ChatStream> {
        let answer = self.0.stream(request).await;
        tokio::task::yield_now().await;
        answer
    }
}

/// Ten calls of `work`, one a turn, then an answer; by the conversation, so that a repeated question has the same answer.
fn ten() -> Script {
    Script::new(|request, _| {
        let done = crate::support::results(request).len();
        Ok(match done {
            0..10 => calls(&[("work", &format!(r#"{{"n": {done}}}"#))]),
            _ => text("All ten are done."),
        })
    })
}

/// Waits a moment, counts its calls, and says what it was called with.
fn work(effect: Effect, called: &Arc<AtomicUsize>) -> impl Tool + use<> {
    let schema =
        serde_json::json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    let info = ToolInfo::new(ToolSpec::new("work", "Works.", schema)).with_effect(effect);
    let called = Arc::clone(called);
    FnTool::raw(info, move |_: ToolContext, arguments: serde_json::Value| {
        let called = Arc::clone(&called);
        async move {
            tokio::task::yield_now().await;
            called.fetch_add(1, Ordering::SeqCst);
            Ok::<_, ToolError>(format!("did {}", arguments["n"]))
        }
    })
}

pub(crate) fn worker(effect: Effect, called: &Arc<AtomicUsize>) -> (Agent, Script) {
    let script = ten();
    let agent = Agent::new(Slow(script.clone()))
        .with_tool(work(effect, called))
        .with_allowed("work")
        .with_limits(peregrine_agent::Limits {
            max_steps: 64,
            ..Default::default()
        });
    (agent, script)
}

pub(crate) fn root() -> Scope {
    Scope::root("test", ManualTimer::new())
}

pub(crate) fn through_bytes(run: &Run) -> Run {
    serde_json::from_slice(&serde_json::to_vec(run).unwrap()).unwrap()
}

/// Polls a run, and interrupts it after so many polls; whether each of the interrupts came before its end.
pub(crate) async fn interrupted_at(
    run: impl Future<Output = Result<RunOutput, RunError>>,
    scope: &Scope,
    at: &[(usize, Mode)],
) -> (Result<RunOutput, RunError>, bool) {
    let mut run = std::pin::pin!(run);
    for polls in 0.. {
        for (place, mode) in at {
            if *place == polls {
                scope.interrupt(*mode);
            }
        }
        if let Poll::Ready(outcome) = poll_fn(|cx| Poll::Ready(run.as_mut().poll(cx))).await {
            let all = at.iter().all(|(place, _)| *place <= polls);
            return (outcome, all);
        }
        tokio::task::yield_now().await;
    }
    unreachable!()
}

#[tokio::test]
async fn a_graceful_stop_at_every_event_goes_on_to_the_same_conversation() {
    let called = Arc::default();
    let (agent, _) = worker(Effect::SideEffect, &called);
    let whole = agent.run("Go.").await.unwrap();
    assert_eq!(called.load(Ordering::SeqCst), 10);
    let mut stopped = 0;
    for streamed in [false, true] {
        for place in 0.. {
            let called = Arc::default();
            let (agent, script) = worker(Effect::SideEffect, &called);
            let scope = root();
            let input = Input::from("Go.").with_interrupts(&scope);
            let run = match streamed {
                false => agent.run(input).boxed(),
                true => agent.run_stream(input).collect().boxed(),
            };
            let (outcome, in_time) = interrupted_at(run, &scope, &[(place, Mode::Graceful)]).await;
            let output = match outcome {
                Ok(output) => output,
                Err(error) => {
                    stopped += 1;
                    let Error::Interrupted(interrupt) = error.error() else {
                        panic!("{place}: {error}")
                    };
                    assert_eq!(interrupt.mode, InterruptMode::Graceful);
                    assert_eq!(interrupt.by, InterruptSource::User);
                    assert!(error.report().abandoned.is_empty(), "{place}");
                    assert!(place > 0 || script.requests().is_empty(), "nothing was begun");
                    let run = through_bytes(error.run().unwrap());
                    agent.resume(run, More::default()).await.unwrap()
                }
            };
            assert_eq!(
                output.messages(),
                whole.messages(),
                "{place}, streamed: {streamed}"
            );
            assert_eq!(
                called.load(Ordering::SeqCst),
                10,
                "{place}: nothing is done twice"
            );
            assert_eq!(script.requests().len(), 11, "{place}: nothing is asked twice");
            assert_eq!(output.report.steps, 11, "{place}");
            if !in_time {
                assert!(place >= 20, "it waits at every step: {place}");
                break;
            }
            assert_eq!(scope.tree_len(), 1, "{place}: no scope is left");
        }
    }
    assert!(stopped >= 40, "{stopped}");
}

#[tokio::test]
async fn a_run_stopped_again_and_again_makes_progress_each_time() {
    let called = Arc::default();
    let (agent, script) = worker(Effect::SideEffect, &called);
    let scope = root();
    let input = Input::from("Go.").with_interrupts(&scope);
    let (mut outcome, _) = interrupted_at(agent.run(input), &scope, &[(1, Mode::Graceful)]).await;
    let mut stops = 0;
    while let Err(error) = outcome {
        stops += 1;
        let scope = root();
        let run = Resumption::from(error.into_run().unwrap()).with_interrupts(&scope);
        (outcome, _) =
            interrupted_at(agent.resume(run, More::default()), &scope, &[(1, Mode::Graceful)]).await;
    }
    assert!(stops >= 10, "{stops}");
    assert_eq!(script.requests().len(), 11);
    assert_eq!(called.load(Ordering::SeqCst), 10);
}

#[tokio::test]
async fn an_immediate_stop_anywhere_and_an_escalation_anywhere_go_on_to_the_same_conversation() {
    let called = Arc::default();
    let whole = worker(Effect::Idempotent, &called).0.run("Go.").await.unwrap();
    let mut escalated = 0;
    for first in 0..24 {
        for later in [None, Some(0), Some(1), Some(2)] {
            let (agent, _) = worker(Effect::Idempotent, &Arc::default());
            let scope = root();
            let run = agent.run(Input::from("Go.").with_interrupts(&scope));
            let at = match later {
                None => vec![(first, Mode::Immediate)],
                Some(later) => vec![(first, Mode::Graceful), (first + later, Mode::Immediate)],
            };
            let (outcome, _) = interrupted_at(run, &scope, &at).await;
            let Err(error) = outcome else { continue };
            let Error::Interrupted(interrupt) = error.error() else {
                panic!("{at:?}: {error}")
            };
            if later.is_none() {
                assert_eq!(
                    (interrupt.mode, interrupt.escalated_by),
                    (InterruptMode::Immediate, None)
                );
            } else if interrupt.mode == InterruptMode::Immediate {
                escalated += 1;
                assert_eq!(interrupt.escalated_by, Some(InterruptSource::User), "{at:?}");
            }
            assert_eq!(scope.tree_len(), 1, "{at:?}: no scope is left");
            let run = through_bytes(error.run().unwrap());
            let output = agent.resume(run, More::default()).await.unwrap();
            assert_eq!(output.messages(), whole.messages(), "{at:?}");
        }
    }
    assert!(escalated >= 20, "{escalated}");
}
