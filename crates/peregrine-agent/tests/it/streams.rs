//! Streams: the events in order, the same result as a run, and nothing lost by dropping futures.

use futures_util::FutureExt as _;
use peregrine_agent::{Agent, Input, RunEvent, Unstreamed};
use peregrine_core::{
    ChatModel, ChatRequest, ChatResponse, ChatStream, ErrorKind, ModelInfo, ProviderError, RunId,
};
use peregrine_tools::tool;

use crate::support::{Script, calls, text};

/// Says a word twice.
#[tool(effect = "read_only", danger = "safe")]
async fn twice(word: String) -> String {
    tokio::task::yield_now().await;
    format!("{word}{word}")
}

fn script() -> Script {
    Script::of([
        calls(&[("twice", r#"{"word": "a"}"#), ("twice", r#"{"word": "b"}"#)]),
        text("aa and bb"),
    ])
}

#[tokio::test]
async fn events_come_in_order_and_collecting_gives_what_running_gives() {
    let input = || Input::from("Go.").with_run_id(RunId::from_parts(1, [1; 10]));
    let agent = Agent::new(script()).with_tool(twice());
    let mut events = agent.run_stream(input());
    let mut seen = Vec::new();
    while let Some(event) = events.next().await {
        seen.push(match event.unwrap() {
            RunEvent::Turn { turn, model, .. } => format!("turn {turn} {model}"),
            RunEvent::Text { text, .. } => text,
            RunEvent::ToolStart { name, arguments, .. } => format!("+{name} {arguments}"),
            RunEvent::ToolEnd { call_id, result, .. } => format!("-{call_id} {}", result.text()),
            RunEvent::Finished(output) => format!("finished {}", output.report.steps),
            other => format!("{other:?}"),
        });
    }
    let expected = [
        "turn 1 test/script",
        r#"+twice {"word": "a"}"#,
        r#"+twice {"word": "b"}"#,
        "-call-0 aa",
        "-call-1 bb",
        "turn 2 test/script",
        "aa and bb",
        "finished 2",
    ];
    assert_eq!(seen, expected);
    assert!(events.next().await.is_none());

    let collected = Agent::new(script())
        .with_tool(twice())
        .run_stream(input())
        .collect()
        .await
        .unwrap();
    let run = Agent::new(script())
        .with_tool(twice())
        .run(input())
        .await
        .unwrap();
    assert_eq!(collected, run);
}

#[tokio::test]
async fn text_is_only_the_text() {
    let mut pieces = Agent::new(script()).with_tool(twice()).run_stream("Go.").text();
    let mut all = String::new();
    while let Some(piece) = pieces.next().await {
        all.push_str(&piece.unwrap());
    }
    assert_eq!(all, "aa and bb");
}

#[tokio::test]
async fn an_error_is_the_last_item() {
    let model = Script::new(|_, _| Err(ProviderError::new("test", 500, ErrorKind::Server, "no").into()));
    let mut events = Agent::new(model).run_stream("Go.");
    assert!(matches!(events.next().await, Some(Ok(RunEvent::Turn { .. }))));
    assert!(events.next().await.unwrap().is_err());
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn dropping_the_next_event_loses_none() {
    let agent = Agent::new(script()).with_tool(twice());
    let mut events = agent.run_stream("Go.");
    let mut seen = 0;
    let mut polls = 0;
    loop {
        polls += 1;
        match events.next().now_or_never() {
            None => tokio::task::yield_now().await,
            Some(None) => break,
            Some(Some(event)) => {
                event.unwrap();
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 8);
    assert!(polls > 9, "some futures were dropped while they waited");
}

#[tokio::test]
async fn nothing_happens_before_it_is_polled() {
    let model = Script::of([text("x")]);
    drop(Agent::new(model.clone()).run_stream("Go."));
    assert!(model.requests().is_empty());
}

/// Answers whole; its streams are broken.
struct Whole(ModelInfo);

impl ChatModel for Whole {
    fn info(&self) -> &ModelInfo {
        &self.0
    }

    async fn complete(&self, _: &ChatRequest) -> peregrine_core::Result<ChatResponse> {
        Ok(text("two words"))
    }

    async fn stream(&self, _: &ChatRequest) -> peregrine_core::Result<ChatStream> {
        Err(ProviderError::new("test", 500, ErrorKind::Server, "no streams today").into())
    }
}

#[tokio::test]
async fn a_run_can_be_watched_without_streams() {
    let model = || Whole(ModelInfo::new("test", "whole"));
    assert!(Agent::new(model()).run_stream("Go.").collect().await.is_err());
    let mut events = Agent::new(model().layered(Unstreamed)).run_stream("Go.");
    let mut texts = Vec::new();
    let mut answer = None;
    while let Some(event) = events.next().await {
        match event.unwrap() {
            RunEvent::Text { text, .. } => texts.push(text),
            RunEvent::Finished(output) => answer = Some(output.text()),
            _ => {}
        }
    }
    assert_eq!(texts, ["two words"], "in one piece");
    assert_eq!(answer.as_deref(), Some("two words"));
}
