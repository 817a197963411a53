//! Hooks, memories and people: an interrupt of the scope ends their waits too, and says which of them did not end.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use peregrine_agent::{
    AbandonedKind, Agent, Approval, ApprovalRequest, Approver, Error, Guard, HookContext, Input, Memory,
    MemoryContext, More, RunError, RunOutput, async_trait,
};
use peregrine_core::{
    ChatRequest, ChatResponse, Effect, JsonSchema, Message, ToolCall, ToolResult, ToolSpec,
};
use peregrine_interrupts::{Limits, Mode, Scope, TokioTimer};
use peregrine_tools::{FnTool, ToolContext, ToolError, ToolInfo};

use crate::support::{Script, calls, text};

const SECOND: Duration = Duration::from_secs(1);

/// Takes a while at one place of a run, and no time elsewhere.
#[derive(Clone)]
struct Takes {
    place: &'static str,
    /// `None`: for ever.
    time: Option<Duration>,
}

impl Takes {
    async fn at(&self, place: &str) {
        match self.time {
            _ if place != self.place => {}
            Some(time) => tokio::time::sleep(time).await,
            None => pending().await,
        }
    }
}

#[async_trait]
impl Memory for Takes {
    async fn load(&self, _: &MemoryContext, _: &[Arc<Message>]) -> peregrine_core::Result<Vec<Arc<Message>>> {
        self.at("load").await;
        Ok(Vec::new())
    }

    async fn save(&self, _: &MemoryContext, _: &[Arc<Message>]) -> peregrine_core::Result<()> {
        self.at("save").await;
        Ok(())
    }
}

#[async_trait]
impl Approver for Takes {
    async fn decide(&self, _: &ApprovalRequest) -> Approval {
        self.at("approve").await;
        Approval::Approved
    }
}

#[async_trait]
impl Guard for Takes {
    fn name(&self) -> &str {
        "takes"
    }
    fn timeout(&self) -> Duration {
        3_600 * SECOND
    }
    async fn before_run(&self, _: &HookContext, _: &mut Vec<Message>) -> Result<(), String> {
        self.at("before_run").await;
        Ok(())
    }
    async fn before_model(&self, _: &HookContext, _: &mut ChatRequest) -> Result<(), String> {
        self.at("before_model").await;
        Ok(())
    }
    async fn after_tool(&self, _: &HookContext, _: &ToolCall, _: &mut ToolResult) -> Result<(), String> {
        self.at("after_tool").await;
        Ok(())
    }
    async fn after_run(&self, _: &HookContext, _: &mut ChatResponse) -> Result<(), String> {
        self.at("after_run").await;
        Ok(())
    }
}

fn agent(place: &'static str, time: Option<Duration>) -> Agent {
    let takes = Takes { place, time };
    let spec = ToolSpec::new("send", "Sends.", JsonSchema::empty_object());
    let info = ToolInfo::new(spec).with_effect(Effect::SideEffect);
    let send = FnTool::raw(info, |_: ToolContext, _| async { Ok::<_, ToolError>("sent") });
    Agent::new(Script::new(|request, _| {
        Ok(match crate::support::results(request).len() {
            0 => calls(&[("send", "{}")]),
            _ => text("Done."),
        })
    }))
    .with_tool(send)
    .with_memory(takes.clone())
    .with_approver(takes.clone())
    .with_guard(takes)
    .with_timer(Arc::new(peregrine_providers::TokioClock))
}

/// Runs, and interrupts after a second. What came of it, and after how many seconds.
async fn stopped(agent: &Agent, scope: &Scope, mode: Mode) -> (Result<RunOutput, RunError>, u64) {
    let began = tokio::time::Instant::now();
    let stop = async {
        tokio::time::sleep(SECOND).await;
        scope.interrupt(mode);
    };
    let run = agent.run(Input::from("Go.").with_interrupts(scope));
    let (outcome, ()) = tokio::join!(run, stop);
    (outcome, began.elapsed().as_secs())
}

/// A place; how long after an immediate interrupt the run ends; what is abandoned there; and whether it can go on.
const PLACES: [(&str, u64, Option<AbandonedKind>, bool); 7] = [
    ("before_run", 0, Some(AbandonedKind::Hook), false),
    ("load", 0, Some(AbandonedKind::Memory), true),
    ("before_model", 0, None, true),
    ("approve", 0, Some(AbandonedKind::Approver), true),
    // Inside of a call with a side effect.
    ("after_tool", 2, Some(AbandonedKind::Tool), true),
    ("save", 2, Some(AbandonedKind::Memory), true),
    ("after_run", 2, Some(AbandonedKind::Hook), false),
];

#[tokio::test(start_paused = true)]
async fn no_wait_outlasts_an_immediate_interrupt_by_more_than_the_grace_period() {
    for (place, takes, abandoned, can_go_on) in PLACES {
        let agent = agent(place, None);
        let scope = Scope::root("test", TokioTimer::new());
        let (outcome, took) = stopped(&agent, &scope, Mode::Immediate).await;
        let error = outcome.unwrap_err();
        assert!(matches!(error.error(), Error::Interrupted(_)), "{place}: {error}");
        assert_eq!(took, 1 + takes, "{place}");
        let kinds: Vec<_> = error
            .report()
            .abandoned
            .iter()
            .map(|one| (one.kind, one.waited))
            .collect();
        let expected: Vec<_> = abandoned
            .map(|kind| (kind, takes as u32 * SECOND))
            .into_iter()
            .collect();
        assert_eq!(kinds, expected, "{place}");
        assert_eq!(error.run().is_some(), can_go_on, "{place}");
        assert_eq!(scope.tree_len(), 1, "{place}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_graceful_interrupt_lets_every_place_finish_and_the_run_goes_on() {
    for (place, ..) in PLACES {
        let scope = Scope::root("test", TokioTimer::new());
        let slow = agent(place, Some(5 * SECOND));
        let (outcome, took) = stopped(&slow, &scope, Mode::Graceful).await;
        match outcome {
            Ok(output) => {
                assert!(
                    ["save", "after_run"].contains(&place),
                    "{place}: the answer is there"
                );
                assert_eq!((output.text().as_str(), took), ("Done.", 5), "{place}");
            }
            Err(error) => {
                // Nobody waits for a person: they are asked again.
                assert_eq!(took, if place == "approve" { 1 } else { 5 }, "{place}");
                assert!(error.report().abandoned.is_empty(), "{place}");
                let run = error.into_run().unwrap();
                let output = agent("none", None).resume(run, More::default()).await.unwrap();
                assert_eq!(output.text(), "Done.", "{place}");
                assert_eq!(output.report.tool_calls.len(), 1, "{place}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_takes_too_long_for_a_graceful_stop_is_stopped_immediately() {
    for (place, takes, abandoned, _) in PLACES {
        if place == "approve" {
            continue;
        }
        let scope = Scope::root_with("test", TokioTimer::new(), Limits::new().with_grace(10 * SECOND));
        let (outcome, took) = stopped(&agent(place, None), &scope, Mode::Graceful).await;
        let error = outcome.unwrap_err();
        assert!(matches!(error.error(), Error::Interrupted(_)), "{place}: {error}");
        assert_eq!(took, 11 + takes, "{place}");
        let kinds: Vec<_> = error.report().abandoned.iter().map(|one| one.kind).collect();
        assert_eq!(kinds, abandoned.into_iter().collect::<Vec<_>>(), "{place}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_ends_within_the_grace_period_counts() {
    for (place, outcome_is_known) in [("save", true), ("after_run", true), ("after_tool", true)] {
        let scope = Scope::root("test", TokioTimer::new());
        let slow = agent(place, Some(2 * SECOND));
        let (outcome, took) = stopped(&slow, &scope, Mode::Immediate).await;
        assert_eq!(took, 2, "{place}");
        let output = match outcome {
            Ok(output) => {
                assert_eq!(place, "after_run", "the answer passed its hooks");
                output
            }
            Err(error) => {
                assert!(error.report().abandoned.is_empty(), "{place}");
                let run = error.into_run().unwrap();
                agent("none", None).resume(run, More::default()).await.unwrap()
            }
        };
        assert_eq!(output.text() == "Done.", outcome_is_known, "{place}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_may_not_begin_can_go_on_later_with_what_its_guards_let_pass() {
    let scope = Scope::root("test", TokioTimer::new());
    scope.interrupt(Mode::Graceful);
    let agent = agent("none", None);
    let error = agent
        .run(Input::from("Go.").with_interrupts(&scope))
        .await
        .unwrap_err();
    assert_eq!(error.report().steps, 0);
    let run = error.into_run().unwrap();
    let again = peregrine_agent::Resumption::from(run).with_interrupts(&scope);
    let error = agent.resume(again, More::default()).await.unwrap_err();
    assert!(matches!(error.error(), Error::Interrupted(_)), "{error}");
    let output = agent
        .resume(error.into_run().unwrap(), More::default())
        .await
        .unwrap();
    assert_eq!(output.text(), "Done.");
}
