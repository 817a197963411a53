//! Agents and their tools: what runs, beside what, in which order, and what the model hears of it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use peregrine_agent::run::Approval;
use peregrine_agent::{Agent, ApprovalRequest, Approver, Error, RunEvent, async_trait};
use peregrine_core::{ChatRequest, Effect, JsonSchema, ToolSpec};
use peregrine_tools::{
    Allowance, FnTool, Registry, Tool, ToolContext, ToolError, ToolInfo, ToolOutput, schemars, tool,
};
use serde_json::Value;

use crate::support::{Script, calls, results, text};

/// Adds two numbers.
#[tool(effect = "read_only", danger = "safe")]
async fn add(a: i64, b: i64) -> i64 {
    a + b
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Nothing {}

/// Writes down that it was called, waits, and writes down that it is done.
struct Noted {
    info: ToolInfo,
    log: Arc<Mutex<Vec<String>>>,
}

impl Noted {
    fn new(name: &str, effect: Effect, log: &Arc<Mutex<Vec<String>>>) -> Self {
        let schema = serde_json::json!({"type": "object", "properties": {"ms": {"type": "integer"}}});
        Self {
            info: ToolInfo::new(ToolSpec::new(name, "", JsonSchema::new(schema))).with_effect(effect),
            log: Arc::clone(log),
        }
    }
}

#[async_trait]
impl Tool for Noted {
    fn info(&self) -> &ToolInfo {
        &self.info
    }

    async fn call(&self, _: ToolContext, arguments: Value) -> Result<ToolOutput, ToolError> {
        let ms = arguments["ms"].as_u64().unwrap_or(0);
        self.log
            .lock()
            .unwrap()
            .push(format!("+{}{ms}", self.info.name()));
        tokio::time::sleep(Duration::from_millis(ms)).await;
        self.log
            .lock()
            .unwrap()
            .push(format!("-{}{ms}", self.info.name()));
        Ok(ToolOutput::from(format!("{}{ms}", self.info.name())))
    }
}

#[tokio::test]
async fn the_results_of_tools_reach_the_model_and_the_answer_comes_back() {
    let model = Script::of([calls(&[("add", r#"{"a": 40, "b": 2}"#)]), text("It is 42.")]);
    let agent = Agent::new(model.clone())
        .with_instructions("Count.")
        .with_tool(add());
    let output = agent.run("How much is 40 + 2?").await.unwrap();
    assert_eq!(output.text(), "It is 42.");
    assert_eq!(results(&model.requests()[1]), ["42"]);
    assert_eq!(
        (output.report.steps, output.usage().unwrap().total_tokens()),
        (2, 30)
    );
    let called = &output.report.tool_calls[0];
    assert_eq!((called.name.as_str(), called.ok), ("add", true));
    let roles: Vec<&str> = output
        .messages()
        .iter()
        .map(|message| message.role.as_str())
        .collect();
    assert_eq!(roles, ["system", "user", "assistant", "tool", "assistant"]);
    assert_eq!(model.requests()[0].tools.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn effects_decide_what_runs_side_by_side_and_the_model_s_order_stays() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let asked = [
        ("read", r#"{"ms": 30}"#),
        ("read", r#"{"ms": 10}"#),
        ("put", r#"{"ms": 20}"#),
        ("put", r#"{"ms": 5}"#),
        ("put", r#"{"ms": 20}"#),
        ("send", r#"{"ms": 1}"#),
        ("send", r#"{"ms": 1}"#),
        ("read", r#"{"ms": 2}"#),
    ];
    let model = Script::of([calls(&asked), text("Done.")]);
    let tools = Registry::builder()
        .with(Noted::new("read", Effect::ReadOnly, &log))
        .with(Noted::new("put", Effect::Idempotent, &log))
        .with(Noted::new("send", Effect::SideEffect, &log));
    let agent = Agent::new(model.clone())
        .with_tools(tools)
        .with_allowed("put")
        .with_allowed("send");
    let output = agent.run("Go.").await.unwrap();
    assert_eq!(
        *log.lock().unwrap(),
        [
            "+read30", "+read10", "-read10", "-read30", // side by side
            "+put20", "+put5", "-put5", "-put20", // different idempotent calls, side by side
            "+put20", "-put20", // the same again, behind the first
            "+send1", "-send1", "+send1", "-send1", // side effects, one by one
            "+read2", "-read2",
        ]
    );
    let expected = [
        "read30", "read10", "put20", "put5", "put20", "send1", "send1", "read2",
    ];
    assert_eq!(results(&model.requests()[1]), expected);
    let reported = output.report.tool_calls.iter();
    let reported: Vec<_> = reported
        .map(|call| (call.name.as_str(), call.arguments.as_str()))
        .collect();
    assert_eq!(reported, asked, "whatever the order in which they returned");
}

#[tokio::test]
async fn what_the_model_gets_wrong_it_is_told() {
    let asked = [
        ("ad", "{}"),
        ("add", r#"{"a": 1}"#),
        ("add", "not json"),
        ("add", r#"{"a": 1, "b": 2}"#),
    ];
    let model = Script::of([calls(&asked), text("Sorry.")]);
    let agent = Agent::new(model.clone()).with_tool(add());
    let mut events = agent.run_stream("Go.");
    let mut ended = Vec::new();
    let mut output = None;
    while let Some(event) = events.next().await {
        match event.unwrap() {
            RunEvent::ToolEnd { result, .. } => ended.push((result.name.clone(), result.is_error)),
            RunEvent::Finished(finished) => output = Some(finished),
            _ => {}
        }
    }
    let told = results(&model.requests()[1]);
    assert!(
        told[0].contains("no tool is called `ad`") && told[0].contains("`add`"),
        "{told:?}"
    );
    assert!(told[1].contains('b') && told[2].contains("JSON"), "{told:?}");
    assert_eq!(told[3], "3");
    assert_eq!(
        ended.len(),
        4,
        "the tool that does not exist is told of too: {ended:?}"
    );
    let ok: Vec<bool> = output
        .unwrap()
        .report
        .tool_calls
        .iter()
        .map(|call| call.ok)
        .collect();
    assert_eq!(ok, [false, false, false, true]);
}

#[tokio::test]
async fn only_read_only_tools_run_unless_others_are_allowed_by_name() {
    let count = Arc::new(AtomicU32::new(0));
    let send = || {
        let count = Arc::clone(&count);
        FnTool::new("send", "Sends.", move |_, _: Nothing| {
            count.fetch_add(1, Ordering::SeqCst);
            async { Ok::<_, ToolError>("sent") }
        })
    };
    let model = || Script::of([calls(&[("send", "{}")]), text("Hm.")]);

    let refused = model();
    Agent::new(refused.clone())
        .with_tool(send())
        .run("Go.")
        .await
        .unwrap();
    assert!(results(&refused.requests()[1])[0].contains("may not be called"));
    assert_eq!(count.load(Ordering::SeqCst), 0);

    Agent::new(model())
        .with_tool(send())
        .with_allowed("send")
        .run("Go.")
        .await
        .unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 1);

    let denied = Allowance::read_only().with_allowed("send").with_denied("send");
    Agent::new(model())
        .with_tool(send())
        .with_allowance(denied)
        .run("Go.")
        .await
        .unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 1, "deny beats allow");

    let misspelt = Agent::new(model()).with_tool(send()).with_allowed("sent");
    let error = misspelt.run("Go.").await.unwrap_err();
    assert!(matches!(error.error(), Error::Config(_)), "{error}");
}

struct Boss(bool, Mutex<Vec<String>>);

#[async_trait]
impl Approver for Boss {
    async fn decide(&self, request: &ApprovalRequest) -> Approval {
        self.1.lock().unwrap().push(request.call.arguments.clone());
        match self.0 {
            true => Approval::Approved,
            false => Approval::Denied {
                reason: "not today".to_owned(),
            },
        }
    }
}

#[tokio::test]
async fn a_person_is_asked_about_what_is_not_allowed() {
    for (yes, expected) in [
        (true, "send0"),
        (false, "the tool `send` may not be called: not today"),
    ] {
        let log = Arc::new(Mutex::new(Vec::new()));
        let model = Script::of([calls(&[("send", r#"{"ms": 0}"#), ("read", "{}")]), text("Done.")]);
        let boss = Arc::new(Boss(yes, Mutex::default()));
        let tools = Registry::builder()
            .with(Noted::new("send", Effect::SideEffect, &log))
            .with(Noted::new("read", Effect::ReadOnly, &log));
        struct Shared(Arc<Boss>);
        #[async_trait]
        impl Approver for Shared {
            async fn decide(&self, request: &ApprovalRequest) -> Approval {
                self.0.decide(request).await
            }
        }
        let agent = Agent::new(model.clone())
            .with_tools(tools)
            .with_approver(Shared(Arc::clone(&boss)));
        let output = agent.run("Go.").await.unwrap();
        assert_eq!(results(&model.requests()[1]), [expected, "read0"]);
        assert_eq!(
            *boss.1.lock().unwrap(),
            [r#"{"ms": 0}"#],
            "read-only tools need nobody"
        );
        assert_eq!(output.report.tool_calls.len(), 2);
    }
}

#[tokio::test]
async fn a_fatal_error_of_a_tool_ends_the_run_and_keeps_what_was_done() {
    let boom = FnTool::new("boom", "", |_, _: Nothing| async {
        Err::<String, _>(ToolError::fatal("the disk is on fire"))
    })
    .with_effect(Effect::ReadOnly);
    let agent = Agent::new(Script::of([calls(&[("boom", "{}")]), text("?")])).with_tool(boom);
    let error = agent.run("Go.").await.unwrap_err();
    assert!(
        matches!(error.error(), Error::Tool { tool, .. } if tool == "boom"),
        "{error}"
    );
    assert_eq!((error.report().steps, error.report().messages.len()), (1, 2));
    assert!(error.run().is_none(), "it is over");
}

#[tokio::test]
async fn a_call_that_nobody_answers_is_cancelled_with_the_run() {
    struct Waits(ToolInfo, Arc<AtomicU32>);
    #[async_trait]
    impl Tool for Waits {
        fn info(&self) -> &ToolInfo {
            &self.0
        }
        async fn call(&self, context: ToolContext, _: Value) -> Result<ToolOutput, ToolError> {
            let seen = Arc::clone(&self.1);
            tokio::spawn(async move {
                context.cancellation.cancelled().await;
                seen.fetch_add(1, Ordering::SeqCst);
            });
            std::future::pending().await
        }
    }
    let seen = Arc::new(AtomicU32::new(0));
    let info =
        ToolInfo::new(ToolSpec::new("wait", "", JsonSchema::empty_object())).with_effect(Effect::ReadOnly);
    let agent = Agent::new(Script::of([calls(&[("wait", "{}")])])).with_tool(Waits(info, Arc::clone(&seen)));
    let run = tokio::time::timeout(Duration::from_millis(20), agent.run("Go.")).await;
    assert!(run.is_err());
    while seen.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn no_tools_means_no_tools_in_the_request() {
    let model = Script::of([text("Hi.")]);
    Agent::new(model.clone()).run("Hi!").await.unwrap();
    let asked: &ChatRequest = &model.requests()[0];
    assert!(asked.tools.is_empty());
}
