//! What models, guards and restored runs may do that nobody meant.

use std::time::Instant;

use peregrine_agent::{
    Agent, Approval, ApprovalRequest, Approver, Budget, BudgetLimits, Error, Guard, HookContext, Input,
    Limits, Resource, RunEvent, async_trait,
};
use peregrine_core::{
    ChatEvent, ChatModel, ChatRequest, ChatResponse, ChatStream, Cost, ErrorKind, Finish, ModelInfo, NanoUsd,
    Part, Price, PriceTable, ProviderError, ToolCall, Usage,
};
use peregrine_signatures::{Error as SignatureError, Signature};
use peregrine_tools::{Allowance, tool};

use crate::support::{Script, calls, results, text};

/// Echoes.
#[tool(effect = "read_only", danger = "safe")]
async fn echo(word: String) -> String {
    word
}

/// Takes everything away.
#[tool(effect = "side_effect", danger = "high")]
async fn wipe(path: Option<String>) -> String {
    format!("wiped {}", path.unwrap_or_else(|| "everything".to_owned()))
}

/// Keeps something.
#[tool(effect = "idempotent", danger = "low")]
async fn keep(what: String) -> usize {
    what.len()
}

/// Say where something is.
#[derive(Debug, PartialEq, Signature)]
struct Locate {
    #[input]
    thing: String,
    #[output]
    place: String,
}

struct Approves;

#[async_trait]
impl Approver for Approves {
    async fn decide(&self, _: &ApprovalRequest) -> Approval {
        Approval::Approved
    }
}

#[tokio::test]
async fn what_is_denied_by_name_cannot_be_approved() {
    let model = Script::of([calls(&[("wipe", "{}")]), text("Well.")]);
    let agent = Agent::new(model.clone())
        .with_tool(wipe())
        .with_allowance(Allowance::read_only().with_denied("wipe"))
        .with_approver(Approves);
    let output = agent.run("Go.").await.unwrap();
    let told = &results(&model.requests()[1])[0];
    assert!(told.contains("may not be called"), "{told}");
    assert!(!output.report.tool_calls[0].ok);
}

#[tokio::test]
async fn a_call_that_was_cut_off_does_not_run() {
    for finish in [Finish::Length, Finish::ContentFilter] {
        let cut = |arguments: &str| {
            let call = ToolCall::new("c", "wipe", arguments);
            ChatResponse::new(vec![Part::ToolCall(call)], finish.clone())
        };
        for arguments in ["", "{", r#"{"path": "/t"#] {
            let model = Script::of([cut(arguments), text("Well.")]);
            let agent = Agent::new(model.clone()).with_tool(wipe()).with_allowed("wipe");
            agent.run("Go.").await.unwrap();
            let told = &results(&model.requests()[1])[0];
            assert!(!told.contains("wiped"), "{finish:?} {arguments:?}: {told}");
        }
    }
}

#[tokio::test]
async fn thousands_of_calls_in_one_answer_are_bounded() {
    let many: Vec<(&str, &str)> = (0..4_096).map(|_| ("keep", r#"{"what": "a"}"#)).collect();
    let agent = Agent::new(Script::of([calls(&many)]))
        .with_tool(keep())
        .with_allowed("keep");
    let error = agent.run("Go.").await.unwrap_err();
    assert!(matches!(error.error(), Error::Limit(limit) if limit.resource == Resource::ToolCalls));
    assert!(error.report().tool_calls.is_empty());
    // Where so many are allowed, they cost what they are, not its square.
    let limits = Limits {
        max_tool_calls: 10_000,
        ..Limits::default()
    };
    let distinct: Vec<String> = (0..4_096)
        .map(|place| format!(r#"{{"what": "{place}"}}"#))
        .collect();
    let many: Vec<(&str, &str)> = distinct.iter().map(|call| ("keep", call.as_str())).collect();
    let model = Script::of([calls(&many), text("Done.")]);
    let began = Instant::now();
    let agent = Agent::new(model)
        .with_tool(keep())
        .with_allowed("keep")
        .with_limits(limits);
    let output = agent.run("Go.").await.unwrap();
    assert_eq!(output.report.tool_calls.len(), 4_096);
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
}

#[tokio::test]
async fn large_arguments_are_compared_once() {
    let big = "x".repeat(1 << 20);
    let all: Vec<String> = (0..48)
        .map(|place| format!(r#"{{"what": "{big}{place}"}}"#))
        .collect();
    let many: Vec<(&str, &str)> = all.iter().map(|call| ("keep", call.as_str())).collect();
    let began = Instant::now();
    let agent = Agent::new(Script::of([calls(&many), text("Done.")]))
        .with_tool(keep())
        .with_allowed("keep");
    assert_eq!(agent.run("Go.").await.unwrap().report.tool_calls.len(), 48);
    assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
}

#[tokio::test]
async fn calls_with_the_same_id_each_get_their_result() {
    let part = |word: &str| Part::ToolCall(ToolCall::new("same", "echo", format!(r#"{{"word": "{word}"}}"#)));
    let twice = ChatResponse::new(vec![part("a"), part("b")], Finish::ToolCalls);
    let model = Script::of([twice, text("Done.")]);
    let output = Agent::new(model.clone())
        .with_tool(echo())
        .run("Go.")
        .await
        .unwrap();
    assert_eq!(results(&model.requests()[1]), ["a", "b"]);
    let ids: std::collections::BTreeSet<&str> = output
        .messages()
        .iter()
        .flat_map(|message| message.tool_calls())
        .map(|call| call.id.as_str())
        .collect();
    assert_eq!(
        ids.len(),
        2,
        "providers refuse conversations in which two calls share an id"
    );
}

#[tokio::test]
async fn an_empty_answer_is_an_answer() {
    for streamed in [false, true] {
        let empty = ChatResponse::new(Vec::new(), Finish::Stop);
        let agent = Agent::new(Script::of([empty])).with_direct_path(false);
        let output = match streamed {
            true => agent.run_stream("Go.").collect().await.unwrap(),
            false => agent.run("Go.").await.unwrap(),
        };
        assert_eq!((output.text().as_str(), output.report.steps), ("", 1));
    }
}

#[tokio::test]
async fn the_last_failure_is_the_one_that_is_reported() {
    // The first answer does not fit; then the model is away.
    for direct in [false, true] {
        for streamed in [false, true] {
            let model = Script::new(|_, place| match place {
                0 => Ok(text("no JSON at all")),
                _ => Err(ProviderError::new("test", 529, ErrorKind::Overloaded, "away").into()),
            });
            let agent = Agent::new(model).with_direct_path(direct);
            let input = LocateInput::new("The Scream");
            let error = match streamed {
                true => agent
                    .run_stream_as::<Locate>(&input)
                    .collect_as::<Locate>()
                    .await
                    .unwrap_err(),
                false => agent.run_as::<Locate>(&input).await.unwrap_err(),
            };
            assert_eq!(error.model_kind(), Some(ErrorKind::Overloaded), "{error}");
            assert!(matches!(error.error(), Error::Model(_)), "{error}");
        }
    }
}

/// Refuses what a model answered, or puts another answer in its place.
struct Censors(Option<&'static str>);

#[async_trait]
impl Guard for Censors {
    fn name(&self) -> &str {
        "censors"
    }
    async fn after_model(&self, _: &HookContext, response: &mut ChatResponse) -> Result<(), String> {
        match self.0 {
            None => Err("no".to_owned()),
            Some(other) => {
                response.message.parts = vec![Part::text(other)];
                Ok(())
            }
        }
    }
}

#[tokio::test]
async fn an_answer_that_a_guard_refuses_was_paid_for() {
    for streamed in [false, true] {
        let budget = Budget::new(BudgetLimits::default().with_tokens(10_000));
        let price = Price::per_million(NanoUsd(1_000_000_000), NanoUsd(2_000_000_000));
        let agent = Agent::new(Script::of([text("Secret.")]))
            .with_prices(PriceTable::new().with("test", "script", price))
            .with_timer(std::sync::Arc::new(peregrine_providers::TokioClock))
            .with_guard(Censors(None));
        let input = Input::from("Go.").with_budget(budget.clone());
        let error = match streamed {
            true => agent.run_stream(input).collect().await.unwrap_err(),
            false => agent.run(input).await.unwrap_err(),
        };
        let report = error.report();
        assert_eq!(
            (report.steps, report.usage),
            (1, Some(Usage::new(10, 5))),
            "{error}"
        );
        assert_eq!(report.cost, Cost::Priced(NanoUsd(20_000)));
        assert_eq!(budget.status().spent.tokens, 15);
    }
}

#[tokio::test]
async fn what_a_guard_makes_of_an_answer_is_what_is_read() {
    for streamed in [false, true] {
        let agent = Agent::new(Script::of([text(r#"{"place": "Bergen"}"#)]))
            .with_timer(std::sync::Arc::new(peregrine_providers::TokioClock))
            .with_guard(Censors(Some(r#"{"place": "Oslo"}"#)));
        let input = LocateInput::new("The Scream");
        let typed = match streamed {
            true => agent.run_stream_as::<Locate>(&input).collect_as::<Locate>().await,
            false => agent.run_as::<Locate>(&input).await,
        };
        assert_eq!(typed.unwrap().output.place, "Oslo");
    }
}

/// Adds to every request.
struct Verbose;

#[async_trait]
impl Guard for Verbose {
    fn name(&self) -> &str {
        "verbose"
    }
    async fn before_model(&self, _: &HookContext, request: &mut ChatRequest) -> Result<(), String> {
        request
            .messages
            .push(peregrine_core::Message::user("word ".repeat(5_000)));
        Ok(())
    }
}

#[tokio::test]
async fn what_a_guard_adds_to_a_request_is_reserved_too() {
    let model = Script::of([text("Done.")]);
    let agent = Agent::new(model.clone())
        .with_timer(std::sync::Arc::new(peregrine_providers::TokioClock))
        .with_guard(Verbose)
        .with_budget(BudgetLimits::default().with_tokens(2_000));
    let error = agent.run("Go.").await.unwrap_err();
    assert!(
        matches!(error.error(), Error::Limit(limit) if limit.resource == Resource::Tokens),
        "{error}"
    );
    assert!(model.requests().is_empty());
}

#[tokio::test]
async fn an_answer_that_was_ended_early_is_charged() {
    let budget = Budget::new(BudgetLimits::default().with_tokens(100_000));
    let wrong = ChatResponse::text(r#"{"place": 7, "more": "and more"}"#);
    let model = Script::of([wrong, text(r#"{"place": "Oslo"}"#)]);
    let agent = Agent::new(model);
    let input = Input::default().with_budget(budget.clone());
    let inputs = LocateInput::new("The Scream");
    let mut events = agent.run_stream_as::<Locate>((&inputs, input));
    let mut rejected = 0;
    while let Some(event) = events.next().await {
        match event.unwrap() {
            RunEvent::Rejected { .. } => {
                rejected += 1;
                break;
            }
            _ => continue,
        }
    }
    let typed = events.collect_as::<Locate>().await.unwrap();
    assert_eq!((rejected, typed.output.place.as_str()), (1, "Oslo"));
    let status = budget.status();
    assert!(status.spent.tokens > 15 && status.in_flight == 0, "{status:?}");
    assert_eq!(
        typed.run.report.usage, None,
        "one of the answers did not say what it used"
    );
}

#[tokio::test]
async fn errors_do_not_hold_what_was_said() {
    let model = Script::of([calls(&[("echo", r#"{"wrong": "hunter2"}"#)])]);
    let agent = Agent::new(model).with_tool(echo());
    let error = agent.run("The password is hunter2.").await.unwrap_err();
    for shown in [format!("{error}"), format!("{error:?}"), format!("{agent:?}")] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[tokio::test]
async fn a_rejected_answer_is_still_an_error_of_the_signature() {
    let agent = Agent::new(Script::new(|_, _| Ok(text("never JSON"))));
    let error = agent.run_as::<Locate>(&LocateInput::new("it")).await.unwrap_err();
    let Error::Signature(SignatureError::Output(output)) = error.error() else {
        panic!("{error}")
    };
    assert_eq!(output.repairs, 2);
}

/// Breaks off after these events.
struct Breaks(Vec<ChatEvent>, ModelInfo);

impl ChatModel for Breaks {
    fn info(&self) -> &ModelInfo {
        &self.1
    }

    async fn complete(&self, _: &ChatRequest) -> peregrine_core::Result<ChatResponse> {
        Err(ProviderError::new("test", 529, ErrorKind::Overloaded, "away").into())
    }

    async fn stream(&self, _: &ChatRequest) -> peregrine_core::Result<ChatStream> {
        Ok(ChatStream::new(futures_util::stream::iter(
            self.0.clone().into_iter().map(Ok),
        )))
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_charged_and_a_refusal_of_the_provider_is_not() {
    let come = vec![ChatEvent::TextDelta {
        text: "Once".to_owned(),
    }];
    for (events, streamed, is_charged) in [
        (come, true, true),
        (Vec::new(), true, true),
        (Vec::new(), false, false),
    ] {
        let budget = Budget::new(BudgetLimits::default().with_tokens(10_000));
        let agent = Agent::new(Breaks(events, ModelInfo::new("test", "breaks")));
        let input = Input::from("Go.").with_budget(budget.clone());
        let error = match streamed {
            true => agent.run_stream(input).collect().await.unwrap_err(),
            false => agent.run(input).await.unwrap_err(),
        };
        let kind = if streamed {
            ErrorKind::Truncated
        } else {
            ErrorKind::Overloaded
        };
        assert_eq!(error.model_kind(), Some(kind), "{error}");
        let status = budget.status();
        assert_eq!(
            (status.spent.tokens > 0, status.in_flight),
            (is_charged, 0),
            "{status:?}"
        );
    }
}
