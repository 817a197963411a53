//! A look at what was asked, beside the planner: it may end it, or choose who answers; it never holds anything up.

use std::sync::Arc;

use peregrine_agent::{Dataflow, Error, PlanAndExecute, Strategy, Triage};
use peregrine_core::{ChatModel, ChatRequest, ChatResponse, Effect, ErrorKind, ModelInfo, ProviderError};
use peregrine_tools::ToolOutput;
use serde_json::json;
use tokio::sync::Barrier;

use crate::plans::{Asked, Log, agent, facts, plan, planner, strategy, who};
use crate::support::{Script, text};

fn with_triage(triage: Triage) -> Strategy {
    strategy(PlanAndExecute::new(8), Dataflow::new().with_triage(triage))
}

/// A planner that never answers, beside a triage that does once both are asked.
#[tokio::test]
async fn a_triage_runs_beside_the_planner_and_may_end_it() {
    struct Both {
        inner: Script,
        both: Barrier,
    }
    impl ChatModel for Both {
        fn info(&self) -> &ModelInfo {
            self.inner.info()
        }
        async fn complete(&self, request: &ChatRequest) -> peregrine_core::Result<ChatResponse> {
            match who(request) {
                Asked::Planner => {
                    self.both.wait().await;
                    std::future::pending().await
                }
                Asked::Triage => {
                    self.both.wait().await;
                    Ok(text(r#"{"needs_plan": false, "model": 0}"#))
                }
                _ => self.inner.complete(request).await,
            }
        }
    }
    let model = Both {
        inner: Script::of([text("Hello.")]),
        both: Barrier::new(2),
    };
    let log = Log::default();
    let look = log.any("look", Effect::ReadOnly, |_| Ok(ToolOutput::from("blue")));
    let output = agent(model)
        .with_strategy(with_triage(Triage::new()))
        .with_tool(look)
        .run("Hi!")
        .await
        .unwrap();
    assert_eq!((output.text().as_str(), output.report.steps), ("Hello.", 3));
    assert_eq!(
        facts(&output),
        &json!({"plans": 1, "steps": 0, "failed": 0, "triage": "needs_none", "model": 0})
    );
    assert_eq!(output.messages().len(), 2);
}

#[tokio::test]
async fn a_triage_chooses_who_answers_and_the_first_choice_stands_in() {
    let down = || ProviderError::new("test", 500, ErrorKind::Overloaded, "down").into();
    for (chosen, is_down, expected, fact) in [
        (1, false, "strong", 1),
        (0, false, "quick", 0),
        (7, false, "quick", 0),
        (1, true, "quick", 0),
    ] {
        let say = move |request: &ChatRequest, name: &str| match who(request) {
            Asked::Planner => plan(&json!([])),
            Asked::Triage => text(&json!({"needs_plan": true, "model": chosen}).to_string()),
            _ => text(name),
        };
        let quick = Script::new(move |request, _| match who(request) {
            Asked::Triage => panic!("the other one is asked"),
            // The triage is read first.
            _ => Ok(say(request, "quick")),
        });
        let strong = Script::new(move |request, _| match (who(request), is_down) {
            (Asked::Answer, true) => Err(down()),
            _ => Ok(say(request, "strong")),
        });
        // The planner waits until the triage has been read.
        struct After(Script, Arc<tokio::sync::Notify>, bool);
        impl ChatModel for After {
            fn info(&self) -> &ModelInfo {
                self.0.info()
            }
            async fn complete(&self, request: &ChatRequest) -> peregrine_core::Result<ChatResponse> {
                match (who(request), self.2) {
                    (Asked::Planner, _) => {
                        self.1.notified().await;
                        for _ in 0..3 {
                            tokio::task::yield_now().await;
                        }
                    }
                    (Asked::Triage, _) => self.1.notify_one(),
                    _ => {}
                }
                self.0.complete(request).await
            }
        }
        let notify = Arc::new(tokio::sync::Notify::new());
        let triage = Triage::new()
            .with_asked(1)
            .with_model("small talk")
            .with_model("hard questions");
        let output = agent(After(quick, Arc::clone(&notify), false))
            .with_fallback(After(strong, notify, true))
            .with_strategy(with_triage(triage))
            .run("Why?")
            .await
            .unwrap();
        assert_eq!(output.text(), expected, "{chosen}, {is_down}");
        assert_eq!(
            (&facts(&output)["model"], &facts(&output)["triage"]),
            (&json!(fact), &json!("needs_plan"))
        );
    }
}

#[tokio::test]
async fn a_triage_that_fails_or_is_late_changes_nothing() {
    let log = Log::default();
    let look = || log.any("look", Effect::ReadOnly, |_| Ok(ToolOutput::from("blue")));
    let steps = || json!([{"id": "a", "tool": "look"}]);
    let broken = Script::new(move |request, _| match who(request) {
        Asked::Planner => Ok(plan(&steps())),
        Asked::Triage => Err(ProviderError::new("test", 500, ErrorKind::InvalidRequest, "no").into()),
        _ => Ok(text("blue")),
    });
    let output = agent(broken)
        .with_strategy(with_triage(Triage::new()))
        .with_tool(look())
        .run("?")
        .await
        .unwrap();
    assert_eq!(
        (&facts(&output)["triage"], &facts(&output)["steps"]),
        (&json!("failed"), &json!(1))
    );

    #[derive(Clone)]
    struct Never(Script);
    impl ChatModel for Never {
        fn info(&self) -> &ModelInfo {
            self.0.info()
        }
        async fn complete(&self, request: &ChatRequest) -> peregrine_core::Result<ChatResponse> {
            if who(request) == Asked::Triage {
                std::future::pending::<()>().await;
            }
            self.0.complete(request).await
        }
    }
    let late = Never(planner([steps()]));
    let output = agent(late)
        .with_strategy(with_triage(Triage::new()))
        .with_tool(look())
        .run("?")
        .await
        .unwrap();
    assert_eq!(
        (&facts(&output)["triage"], &facts(&output)["steps"]),
        (&json!("late"), &json!(1))
    );
    assert_eq!(log.names(), ["look", "look"]);

    // One that asks or describes a model that there is not is an error before anything is asked.
    for triage in [
        Triage::new().with_asked(1),
        Triage::new().with_model("a").with_model("b"),
    ] {
        let agent = agent(planner([steps()])).with_strategy(with_triage(triage));
        assert!(matches!(
            agent.run("?").await.unwrap_err().error(),
            Error::Config(_)
        ));
    }
}
