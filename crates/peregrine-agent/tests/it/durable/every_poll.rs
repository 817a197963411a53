//! Runs of each kind, interrupted at every await: they go on, and what comes of them is what would have come.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use peregrine_agent::durable::StoredRun;
use peregrine_agent::{
    Agent, Approval, ApprovalRequest, Approver, BestOfN, Dataflow, Error, Guard, HookContext, Input, Limits,
    Memory, MemoryContext, More, PlanAndExecute, Reflection, RunError, RunOutput, Strategy,
};
use peregrine_checkpoints::Checkpoints;
use peregrine_core::{
    ChatModel, ChatRequest, ChatResponse, Effect, ErrorKind, Message, ModelInfo, ProviderError, Role,
};
use peregrine_signatures::Signature;

use super::everywhere::{Plain, Watched, Way, everywhere};
use super::support::{Ledger, acting, id, poll_out, poll_times, scope, ten_tools, wait};
use crate::support::{Script, calls, results, text};

/// Answers by what the conversation says, so that it does not matter how often it is asked, and not at once.
#[derive(Clone)]
struct Slow(Script);

impl Slow {
    fn new(answer: impl Fn(&ChatRequest) -> ChatResponse + Send + Sync + 'static) -> Self {
        Self(Script::new(move |request, _| Ok(answer(request))))
    }
}

impl ChatModel for Slow {
    fn info(&self) -> &ModelInfo {
        self.0.info()
    }

    async fn complete(&self, request: &ChatRequest) -> peregrine_core::Result<ChatResponse> {
        wait(1).await;
        let answer = self.0.complete(request).await;
        wait(1).await;
        answer
    }
}

fn last(request: &ChatRequest) -> String {
    request.messages.last().unwrap().text()
}

#[test]
fn ten_tools_of_all_kinds() {
    let model = || {
        Script::new(|request, _| {
            Ok(match results(request).len() {
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
    };
    let tally = everywhere(&Plain, |checkpoints, ledger| {
        ten_tools(model(), ledger, checkpoints)
    });
    assert!(tally.interruptions > 40 && tally.in_doubt >= 9, "{tally:?}");
}

/// An agent with tools of each kind, where the model takes its time.
fn agent(model: impl ChatModel, checkpoints: Checkpoints, ledger: &Ledger) -> Agent {
    let limits = Limits {
        max_steps: 100,
        ..Limits::default()
    };
    Agent::new(model)
        .with_scope(scope())
        .with_limits(limits)
        .with_tool(acting("look", Effect::ReadOnly, ledger))
        .with_tool(acting("put", Effect::Idempotent, ledger))
        .with_tool(acting("pay", Effect::SideEffect, ledger))
        .with_allowed("put")
        .with_allowed("pay")
        .with_checkpoints(checkpoints)
}

fn looping() -> Slow {
    Slow::new(|request| match results(request).len() {
        0 => calls(&[("look", "{}"), ("put", "{}")]),
        2 => calls(&[("pay", "{}"), ("nothing", "{}"), ("pay", "{}")]),
        _ => text("Done."),
    })
}

#[test]
fn a_watched_run() {
    let tally = everywhere(&Watched, |checkpoints, ledger| {
        agent(looping(), checkpoints, ledger)
    });
    assert!(tally.interruptions > 20 && tally.in_doubt >= 4, "{tally:?}");
}

#[test]
fn a_single_shot_and_a_run_without_tools() {
    for strategy in [Strategy::SingleShot, Strategy::ToolLoop] {
        let tally = everywhere(&Plain, |checkpoints, _| {
            Agent::new(Slow::new(|_| text("Hello.")))
                .with_scope(scope())
                .with_strategy(strategy.clone())
                .with_checkpoints(checkpoints)
        });
        assert!(tally.interruptions > 5, "{tally:?}");
    }
}

#[test]
fn a_plan() {
    let model = || {
        Slow::new(|request| {
            let told = last(request);
            if told.contains("<task>") {
                return text(r#"{"steps": ["Look.", "Pay."]}"#);
            }
            let results = results(request).len();
            if told.ends_with("Look.") {
                return calls(&[("look", "{}")]);
            }
            if told.ends_with("Pay.") {
                return calls(&[("pay", "{}"), ("put", "{}")]);
            }
            match results {
                0 => text("The plan is done."),
                1 => text("It looks well."),
                _ => text("It is paid."),
            }
        })
    };
    let tally = everywhere(&Plain, |checkpoints, ledger| {
        agent(model(), checkpoints, ledger).with_strategy(Strategy::PlanAndExecute(PlanAndExecute::new(4)))
    });
    assert!(tally.interruptions > 30 && tally.in_doubt >= 2, "{tally:?}");
}

#[test]
fn a_plan_of_calls() {
    let model = || {
        Slow::new(
            |request| match request.messages.get(0).unwrap().text().contains("Plan how") {
                true => text(
                    r#"{"steps": [
                    {"id": "a", "tool": "look"},
                    {"id": "b", "tool": "put", "depends_on": ["a"]},
                    {"id": "c", "tool": "pay", "depends_on": ["a"]},
                    {"id": "d", "tool": "pay", "depends_on": ["b", "c"]}
                ]}"#,
                ),
                false => text("The plan is done."),
            },
        )
    };
    let tally = everywhere(&Plain, |checkpoints, ledger| {
        let plans = PlanAndExecute::new(8).with_dataflow(Dataflow::default());
        agent(model(), checkpoints, ledger).with_strategy(Strategy::PlanAndExecute(plans))
    });
    assert!(tally.interruptions > 20 && tally.in_doubt >= 2, "{tally:?}");
}

#[test]
fn a_reflection() {
    let model = || {
        Slow::new(|request| match request.messages.get(0).unwrap().role {
            Role::System if last(request).contains("second") => text(r#"{"problems": [], "accept": true}"#),
            Role::System => text(r#"{"problems": ["try again"], "accept": false}"#),
            _ if last(request).contains("try again") => text("second"),
            _ if results(request).is_empty() => calls(&[("pay", "{}")]),
            _ => text("first"),
        })
    };
    let tally = everywhere(&Plain, |checkpoints, ledger| {
        agent(model(), checkpoints, ledger).with_strategy(Strategy::Reflection(Reflection::new(3)))
    });
    assert!(tally.interruptions > 20 && tally.in_doubt >= 2, "{tally:?}");
}

#[test]
fn a_vote() {
    let model = || {
        Slow::new(|request| match results(request).len() {
            0 => calls(&[("look", "{}")]),
            _ => text("Oslo"),
        })
    };
    let tally = everywhere(&Plain, |checkpoints, ledger| {
        agent(model(), checkpoints, ledger).with_strategy(Strategy::BestOfN(BestOfN::new(3)))
    });
    assert!(tally.interruptions > 10, "{tally:?}");
}

#[test]
fn fallbacks() {
    let down = || {
        Slow(Script::new(|_, _| {
            Err(ProviderError::new("test", 500, ErrorKind::Overloaded, "no").into())
        }))
    };
    let tally = everywhere(&Plain, |checkpoints, ledger| {
        agent(down(), checkpoints, ledger).with_fallback(looping())
    });
    assert!(tally.interruptions > 20 && tally.in_doubt >= 4, "{tally:?}");
}

/// A memory that takes its time, and keeps what a run tells it once.
#[derive(Clone, Default)]
struct Remembers(Ledger);

#[peregrine_agent::async_trait]
impl Memory for Remembers {
    async fn load(&self, _: &MemoryContext, _: &[Arc<Message>]) -> peregrine_core::Result<Vec<Arc<Message>>> {
        wait(1).await;
        Ok(vec![
            Message::user("I am Ada.").into(),
            Message::assistant("Hello Ada.").into(),
        ])
    }

    async fn save(&self, context: &MemoryContext, messages: &[Arc<Message>]) -> peregrine_core::Result<()> {
        wait(1).await;
        self.0.write(format!("{} {}", context.run, messages.len()));
        wait(1).await;
        Ok(())
    }
}

struct Careful;

#[peregrine_agent::async_trait]
impl Guard for Careful {
    fn name(&self) -> &str {
        "careful"
    }

    async fn before_run(&self, _: &HookContext, input: &mut Vec<Message>) -> Result<(), String> {
        wait(1).await;
        input.push(Message::user("Be careful."));
        Ok(())
    }

    async fn after_run(&self, _: &HookContext, response: &mut ChatResponse) -> Result<(), String> {
        wait(1).await;
        response.message = Message::assistant("It was done carefully.");
        Ok(())
    }
}

struct Yes;

#[peregrine_agent::async_trait]
impl Approver for Yes {
    async fn decide(&self, _: &ApprovalRequest) -> Approval {
        wait(2).await;
        Approval::Approved
    }
}

#[tokio::test]
async fn memory_guards_and_people() {
    let tally = everywhere(&Plain, |checkpoints, ledger| {
        Agent::new(looping())
            .with_scope(scope())
            .with_tool(acting("look", Effect::ReadOnly, ledger))
            .with_tool(acting("put", Effect::Idempotent, ledger))
            .with_tool(acting("pay", Effect::SideEffect, ledger))
            .with_approver(Yes)
            .with_guard(Careful)
            .with_memory(Remembers(ledger.clone()))
            .with_limits(Limits {
                max_steps: 100,
                ..Limits::default()
            })
            .with_checkpoints(checkpoints)
    });
    assert!(tally.interruptions > 40 && tally.in_doubt >= 4, "{tally:?}");
}

/// Say where something is.
#[derive(Signature)]
struct Locate {
    #[input]
    thing: String,
    #[output]
    place: String,
}

/// Say where something was.
#[derive(Signature)]
struct Trace {
    #[input]
    thing: String,
    #[output]
    place: String,
}

struct Typed;

impl Way for Typed {
    async fn begin(&self, agent: &Agent, input: Input) -> Result<RunOutput, RunError> {
        let typed = agent
            .run_as::<Locate>((&LocateInput::new("The Scream"), input))
            .await?;
        assert_eq!(typed.output.place, "Oslo");
        Ok(typed.run)
    }

    async fn resume(&self, stored: StoredRun) -> Result<RunOutput, RunError> {
        let typed = stored.resume_as::<Locate>(More::default()).await?;
        assert_eq!(typed.output.place, "Oslo");
        Ok(typed.run)
    }
}

fn locating() -> Slow {
    Slow::new(|request| match results(request).len() {
        0 => calls(&[("look", "{}"), ("pay", "{}")]),
        _ if request.messages.last().unwrap().role == Role::User => text(r#"{"place": "Oslo"}"#),
        _ => text("It does not say."),
    })
}

#[test]
fn a_typed_run_with_a_repair() {
    let tally = everywhere(&Typed, |checkpoints, ledger| {
        agent(locating(), checkpoints, ledger)
    });
    assert!(tally.interruptions > 15 && tally.in_doubt >= 2, "{tally:?}");
}

#[test]
fn a_typed_run_goes_on_only_with_its_signature() {
    let (_, checkpoints) = super::support::moody(0);
    let ledger = Ledger::default();
    let agent = agent(locating(), checkpoints, &ledger);
    let run = Typed.begin(&agent, Input::default().with_run_id(id(1)));
    assert!(poll_times(run, 3).is_none());
    let stored = poll_out(agent.load(id(1))).unwrap();
    assert_eq!(stored.signature().unwrap().name, "Locate");
    let refused = poll_out(stored.clone().resume_as::<Trace>(More::default())).unwrap_err();
    assert!(
        matches!(refused.error(), Error::Config(_)) && refused.to_string().contains("`Trace`"),
        "{refused}"
    );
    let refused = poll_out(stored.clone().resume(More::default())).unwrap_err();
    assert!(matches!(refused.error(), Error::Config(_)), "{refused}");
    assert_eq!(
        poll_out(stored.resume_as::<Locate>(More::default()))
            .unwrap()
            .output
            .place,
        "Oslo"
    );
    // And one without a form only without.
    let untyped = agent.run(Input::from("Go.").with_run_id(id(2)));
    assert!(poll_times(untyped, 3).is_none());
    let stored = poll_out(agent.load(id(2))).unwrap();
    let refused = poll_out(stored.resume_as::<Locate>(More::default())).unwrap_err();
    assert!(matches!(refused.error(), Error::Config(_)), "{refused}");
}

#[test]
fn hooks_that_have_seen_a_run_do_not_see_it_again() {
    struct Counts(Arc<AtomicUsize>);
    #[peregrine_agent::async_trait]
    impl Guard for Counts {
        fn name(&self) -> &str {
            "counts"
        }
        async fn before_run(&self, _: &HookContext, _: &mut Vec<Message>) -> Result<(), String> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
        async fn after_run(&self, _: &HookContext, response: &mut ChatResponse) -> Result<(), String> {
            self.0.fetch_add(100, Ordering::SeqCst);
            response.message = Message::assistant("changed");
            Ok(())
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _in_runtime = runtime.enter();
    let seen = Arc::new(AtomicUsize::new(0));
    let (_, checkpoints) = super::support::moody(0);
    let ledger = Ledger::default();
    let agent = agent(looping(), checkpoints, &ledger).with_guard(Counts(Arc::clone(&seen)));
    let output = poll_out(agent.run(Input::from("Go.").with_run_id(id(1)))).unwrap();
    assert_eq!(
        (output.text().as_str(), seen.load(Ordering::SeqCst)),
        ("changed", 101)
    );
    let again = poll_out(poll_out(agent.load(id(1))).unwrap().resume(More::default())).unwrap();
    assert_eq!((again, seen.load(Ordering::SeqCst)), (output.clone(), 101));
    let replayed = poll_out(agent.replay(id(1))).unwrap();
    assert_eq!(replayed.outcome.unwrap().unwrap(), output);
    assert_eq!(seen.load(Ordering::SeqCst), 101);
}
