//! Hooks: what they see, what they may change, and that they fail closed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use peregrine_agent::{Agent, Error, Guard, HookContext, Observer, async_trait};
use peregrine_core::{ChatRequest, ChatResponse, Message, ToolCall, ToolResult};
use peregrine_tools::tool;

use crate::support::{Script, calls, results, text};

/// Echoes.
#[tool(effect = "read_only", danger = "safe")]
async fn echo(word: String) -> String {
    word
}

fn agent(model: &Script) -> Agent {
    Agent::new(model.clone())
        .with_tool(echo())
        .with_timer(Arc::new(peregrine_providers::TokioClock))
}

fn script() -> Script {
    Script::of([calls(&[("echo", r#"{"word": "a"}"#)]), text("Done.")])
}

type Log = Arc<Mutex<Vec<String>>>;

struct Watches(Log);

impl Watches {
    fn note(&self, context: &HookContext, what: &str) {
        self.0.lock().unwrap().push(format!("{} {what}", context.turn));
    }
}

#[async_trait]
impl Observer for Watches {
    async fn before_run(&self, context: &HookContext, input: &[Message]) {
        self.note(context, &format!("before run {}", input.len()));
    }
    async fn after_run(&self, context: &HookContext, response: &ChatResponse) {
        self.note(context, &format!("after run {}", response.message.text()));
    }
    async fn before_turn(&self, context: &HookContext) {
        self.note(context, "before turn");
    }
    async fn after_turn(&self, context: &HookContext) {
        self.note(context, "after turn");
    }
    async fn before_model(&self, context: &HookContext, request: &ChatRequest) {
        self.note(context, &format!("before model {}", request.messages.len()));
    }
    async fn after_model(&self, context: &HookContext, _: &ChatResponse) {
        self.note(context, "after model");
    }
    async fn before_tool(&self, context: &HookContext, call: &ToolCall) {
        self.note(context, &format!("before {}", call.name));
    }
    async fn after_tool(&self, context: &HookContext, _: &ToolCall, result: &ToolResult) {
        self.note(context, &format!("after tool {}", result.text()));
    }
}

#[tokio::test]
async fn observers_see_everything_in_order() {
    for streamed in [false, true] {
        let log = Log::default();
        let agent = agent(&script()).with_observer(Watches(Arc::clone(&log)));
        let output = match streamed {
            true => agent.run_stream("Go.").collect().await.unwrap(),
            false => agent.run("Go.").await.unwrap(),
        };
        assert_eq!(output.report.observer_failures, 0);
        let expected = [
            "0 before run 1",
            "1 before turn",
            "1 before model 1",
            "1 after model",
            "1 before echo",
            "1 after tool a",
            "1 after turn",
            "2 before turn",
            "2 before model 3",
            "2 after model",
            "2 after turn",
            "2 after run Done.",
        ];
        assert_eq!(*log.lock().unwrap(), expected);
    }
}

/// Changes everything that can be changed.
struct Changes;

#[async_trait]
impl Guard for Changes {
    fn name(&self) -> &str {
        "changes"
    }
    async fn before_run(&self, _: &HookContext, input: &mut Vec<Message>) -> Result<(), String> {
        input.push(Message::user("and be kind"));
        Ok(())
    }
    async fn before_model(&self, _: &HookContext, request: &mut ChatRequest) -> Result<(), String> {
        request.sampling.temperature = Some(0.0);
        Ok(())
    }
    async fn after_model(&self, _: &HookContext, response: &mut ChatResponse) -> Result<(), String> {
        response.metadata.insert("seen".to_owned(), true.into());
        Ok(())
    }
    async fn before_tool(&self, _: &HookContext, call: &mut ToolCall) -> Result<(), String> {
        call.arguments = r#"{"word": "b"}"#.to_owned();
        Ok(())
    }
    async fn after_tool(&self, _: &HookContext, _: &ToolCall, result: &mut ToolResult) -> Result<(), String> {
        *result = ToolResult {
            content: vec![peregrine_core::Part::text(format!("<{}>", result.text()))],
            call_id: "another".to_owned(),
            ..result.clone()
        };
        Ok(())
    }
    async fn after_run(&self, _: &HookContext, response: &mut ChatResponse) -> Result<(), String> {
        response.metadata.insert("approved".to_owned(), true.into());
        Ok(())
    }
}

#[tokio::test]
async fn guards_may_change_what_passes() {
    let model = script();
    let output = agent(&model).with_guard(Changes).run("Go.").await.unwrap();
    let asked = model.requests();
    assert_eq!(
        (asked[0].messages.len(), asked[0].sampling.temperature),
        (2, Some(0.0))
    );
    assert_eq!(results(&asked[1]), ["<b>"]);
    let ids: Vec<&ToolResult> = asked[1]
        .messages
        .iter()
        .flat_map(|message| &message.parts)
        .filter_map(|part| match part {
            peregrine_core::Part::ToolResult(result) => Some(result),
            _ => None,
        })
        .collect();
    assert_eq!(ids[0].call_id, "call-0", "a result belongs to its call");
    assert_eq!(
        (
            &output.response.metadata["seen"],
            &output.response.metadata["approved"]
        ),
        (&true.into(), &true.into())
    );
}

/// Refuses at one place, panics at another, or takes too long.
struct Stops(&'static str, &'static str);

impl Stops {
    async fn at(&self, place: &str) -> Result<(), String> {
        if place != self.0 {
            return Ok(());
        }
        match self.1 {
            "refuse" => Err("because".to_owned()),
            "panic" => panic!("a guard may be broken"),
            _ => std::future::pending().await,
        }
    }
}

#[async_trait]
impl Guard for Stops {
    fn name(&self) -> &str {
        "stops"
    }
    fn timeout(&self) -> Duration {
        Duration::from_millis(20)
    }
    async fn before_run(&self, _: &HookContext, _: &mut Vec<Message>) -> Result<(), String> {
        self.at("before_run").await
    }
    async fn before_turn(&self, _: &HookContext) -> Result<(), String> {
        self.at("before_turn").await
    }
    async fn before_model(&self, _: &HookContext, _: &mut ChatRequest) -> Result<(), String> {
        self.at("before_model").await
    }
    async fn after_model(&self, _: &HookContext, _: &mut ChatResponse) -> Result<(), String> {
        self.at("after_model").await
    }
    async fn before_tool(&self, _: &HookContext, _: &mut ToolCall) -> Result<(), String> {
        self.at("before_tool").await
    }
    async fn after_tool(&self, _: &HookContext, _: &ToolCall, _: &mut ToolResult) -> Result<(), String> {
        self.at("after_tool").await
    }
    async fn after_turn(&self, _: &HookContext) -> Result<(), String> {
        self.at("after_turn").await
    }
    async fn after_run(&self, _: &HookContext, _: &mut ChatResponse) -> Result<(), String> {
        self.at("after_run").await
    }
}

#[tokio::test(start_paused = true)]
async fn a_guard_that_refuses_or_fails_ends_the_run() {
    for (place, asked) in [
        ("before_run", 0),
        ("before_turn", 0),
        ("before_model", 0),
        ("after_model", 1),
        ("after_turn", 1),
        ("after_run", 2),
    ] {
        for how in ["refuse", "panic", "hang"] {
            for streamed in [false, true] {
                let model = script();
                let agent = agent(&model).with_guard(Stops(place, how));
                let outcome = match streamed {
                    true => agent.run_stream("Go.").collect().await,
                    false => agent.run("Go.").await,
                };
                let error = outcome.unwrap_err();
                let Error::Vetoed(veto) = error.error() else {
                    panic!("{place}, {how}: {error}")
                };
                assert_eq!(
                    (veto.by.as_str(), model.requests().len()),
                    ("stops", asked),
                    "{place}, {how}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_a_guard_refuses_is_told_to_the_model() {
    for place in ["before_tool", "after_tool"] {
        for how in ["refuse", "panic", "hang"] {
            let model = script();
            let output = agent(&model)
                .with_guard(Stops(place, how))
                .run("Go.")
                .await
                .unwrap();
            let told = &results(&model.requests()[1])[0];
            assert!(
                told.contains("may not be called") && told.contains("stops"),
                "{told}"
            );
            assert!(!output.report.tool_calls[0].ok);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_fails_is_counted_and_passed_over() {
    struct Bad(&'static str);
    #[async_trait]
    impl Observer for Bad {
        fn timeout(&self) -> Duration {
            Duration::from_millis(20)
        }
        async fn before_model(&self, _: &HookContext, _: &ChatRequest) {
            match self.0 {
                "panic" => panic!("an observer may be broken"),
                _ => std::future::pending().await,
            }
        }
    }
    for how in ["panic", "hang"] {
        let output = agent(&script()).with_observer(Bad(how)).run("Go.").await.unwrap();
        assert_eq!(
            (output.text().as_str(), output.report.observer_failures),
            ("Done.", 2)
        );
    }
}
