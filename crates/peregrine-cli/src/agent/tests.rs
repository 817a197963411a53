//! The loop against scripted models and tools: order, bounds, errors, cancellation.

use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use peregrine::core::{
    Clock, ErrorKind, Finish, JsonSchema, ModelInfo, Monotonic, Part, ProviderError, Result as ModelResult,
    Role, UnixTime,
};
use peregrine::providers::TokioClock;
use tokio::sync::Barrier;

use super::*;

/// Answers with these, one after the other, and keeps what it was asked.
struct Script {
    info: ModelInfo,
    answers: Mutex<Vec<ModelResult<ChatResponse>>>,
    asked: Arc<Mutex<Vec<ChatRequest>>>,
}

impl peregrine::ChatModel for Script {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    async fn complete(&self, request: &ChatRequest) -> ModelResult<ChatResponse> {
        self.asked.lock().unwrap().push(request.clone());
        let mut answers = self.answers.lock().unwrap();
        // The last answer is given again and again.
        if answers.len() > 1 {
            answers.remove(0)
        } else {
            answers[0].clone()
        }
    }
}

fn calls(calls: &[(&str, &str)]) -> ChatResponse {
    let call = |(at, (name, arguments)): (usize, &(&str, &str))| {
        Part::ToolCall(ToolCall::new(format!("c{at}"), *name, *arguments))
    };
    let parts = calls.iter().enumerate().map(call).collect();
    ChatResponse::new(parts, Finish::ToolCalls).with_usage(Usage::new(10, 1))
}

/// `say` gives its text back; `meet` waits until as many calls run as the barrier wants; `never` does not end.
struct Tools {
    barrier: Barrier,
    running: Arc<AtomicUsize>,
}

struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Toolbox for Tools {
    fn specs(&self) -> Arc<[ToolSpec]> {
        ["say", "meet", "never"]
            .into_iter()
            .map(|name| ToolSpec::new(name, "", JsonSchema::empty_object()))
            .collect()
    }

    fn call<'a>(&'a self, name: &'a str, arguments: Value) -> BoxFuture<'a, ToolOutput> {
        self.running.fetch_add(1, Ordering::Relaxed);
        let running = Running(Arc::clone(&self.running));
        Box::pin(async move {
            let _running = running;
            match name {
                "meet" => {
                    self.barrier.wait().await;
                }
                "never" => std::future::pending().await,
                _ => {}
            }
            arguments["text"]
                .as_str()
                .map(str::to_owned)
                .ok_or_else(|| "a text is missing".to_owned())
        })
    }
}

struct Run {
    agent: Agent,
    asked: Arc<Mutex<Vec<ChatRequest>>>,
    running: Arc<AtomicUsize>,
    messages: Messages,
    progress: Progress,
}

fn run(answers: Vec<ModelResult<ChatResponse>>) -> Run {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let running = Arc::new(AtomicUsize::new(0));
    let info = ModelInfo::new("test", "script");
    let model = Script {
        info,
        answers: Mutex::new(answers),
        asked: Arc::clone(&asked),
    };
    let tools = Tools {
        barrier: Barrier::new(3),
        running: Arc::clone(&running),
    };
    let agent = Agent {
        model: ModelHandle::new(model),
        tools: Arc::new(tools),
        limits: Limits::default(),
        sampling: Sampling::default(),
        streaming: false,
        timer: Arc::new(TokioClock),
    };
    let messages = Messages::from(vec![Message::user("q")]);
    Run {
        agent,
        asked,
        running,
        messages,
        progress: Progress::default(),
    }
}

impl Run {
    async fn go(&mut self) -> Result<ChatResponse, RunError> {
        self.agent
            .run(&mut self.messages, &mut self.progress, &mut |_| {
                ControlFlow::Continue(())
            })
            .await
    }

    fn results(&self) -> Vec<(String, bool)> {
        let results = self
            .messages
            .iter()
            .filter(|message| message.role == Role::Tool)
            .flat_map(|message| &message.parts);
        results
            .filter_map(|part| match part {
                Part::ToolResult(result) => Some((result.text(), result.is_error)),
                _ => None,
            })
            .collect()
    }
}

#[tokio::test]
async fn calls_of_one_turn_run_side_by_side_and_keep_their_order() {
    // The barrier opens only when all three run at once.
    let turn = calls(&[
        ("meet", r#"{"text":"one"}"#),
        ("meet", r#"{"text":"two"}"#),
        ("meet", r#"{"text":"three"}"#),
    ]);
    let mut run = run(vec![
        Ok(turn),
        Ok(ChatResponse::text("done").with_usage(Usage::new(20, 2))),
    ]);
    let response = run.go().await.unwrap();
    assert_eq!(response.message.text(), "done");
    let texts: Vec<_> = run.results().into_iter().map(|(text, _)| text).collect();
    assert_eq!(texts, ["one", "two", "three"]);
    assert_eq!(run.progress.steps, 2);
    assert_eq!(run.progress.usage(), Some(Usage::new(30, 3)));
    assert_eq!(run.messages.len(), 6, "question, calls, three results, answer");
    let asked = run.asked.lock().unwrap();
    assert_eq!(asked[1].messages.len(), 5);
    assert_eq!(asked[1].tools.len(), 3);
}

#[tokio::test]
async fn bad_calls_become_error_results_for_the_model() {
    let turn = calls(&[
        ("delete_everything", "{}"),
        ("say", "{\"text\": \"cut"),
        ("say", "[1]"),
        ("say", r#"{"text": 7}"#),
        ("say", ""),
        ("say", r#"{"text":"fine"}"#),
    ]);
    let mut run = run(vec![Ok(turn), Ok(ChatResponse::text("done"))]);
    run.go().await.unwrap();
    let results = run.results();
    let failed: Vec<_> = results.iter().map(|(_, failed)| *failed).collect();
    assert_eq!(failed, [true, true, true, true, true, false]);
    assert!(
        results[0].0.contains("delete_everything") && results[0].0.contains("say, meet, never"),
        "{results:?}"
    );
    assert!(
        results[1].0.contains("not JSON") && results[2].0.contains("object"),
        "{results:?}"
    );
    let ok: Vec<_> = run.progress.tool_calls.iter().map(|call| call.ok).collect();
    assert_eq!(ok, [false, false, false, false, false, true]);
    assert_eq!(
        run.progress.usage(),
        None,
        "the last answer did not say what it used"
    );
}

#[tokio::test]
async fn every_bound_ends_the_run_and_is_named() {
    let endless = || vec![Ok(calls(&[("say", r#"{"text":"0123456789"}"#)]))];

    let mut steps = run(endless());
    steps.agent.limits.max_steps = 3;
    assert!(matches!(steps.go().await, Err(RunError::Limit(Limit::Steps(3)))));
    assert_eq!(steps.asked.lock().unwrap().len(), 3);
    assert_eq!(
        steps.progress.tool_calls.len(),
        2,
        "the last calls would be heard by nobody"
    );

    let mut tool_calls = run(endless());
    tool_calls.agent.limits.max_tool_calls = 2;
    assert!(matches!(
        tool_calls.go().await,
        Err(RunError::Limit(Limit::ToolCalls(2)))
    ));
    assert_eq!(tool_calls.progress.tool_calls.len(), 2);

    let mut output = run(endless());
    output.agent.limits.max_tool_output_bytes = 25;
    assert!(matches!(
        output.go().await,
        Err(RunError::Limit(Limit::ToolOutput(25)))
    ));
    assert_eq!(output.results().len(), 2, "the third result does not fit");
}

/// A timer that rings at once.
#[derive(Debug)]
struct RingsAtOnce;

impl Clock for RingsAtOnce {
    fn now(&self) -> Monotonic {
        Monotonic::new(Duration::ZERO)
    }
    fn unix(&self) -> UnixTime {
        UnixTime(0)
    }
}

impl Timer for RingsAtOnce {
    fn sleep(&self, _: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::ready(()))
    }
}

#[tokio::test]
async fn time_is_a_bound_and_ends_the_tools_too() {
    let mut run = run(vec![Ok(calls(&[("never", "{}"), ("never", "{}")]))]);
    run.agent.timer = Arc::new(RingsAtOnce);
    run.agent.limits.wall_time = Duration::from_secs(7);
    let error = run.go().await.unwrap_err();
    assert!(matches!(error, RunError::Limit(Limit::WallTime(limit)) if limit.as_secs() == 7));
    assert_eq!(run.running.load(Ordering::Relaxed), 0, "no tool runs on");
    assert_eq!(run.progress.steps, 1);
}

#[tokio::test]
async fn an_error_of_the_model_is_the_runs_error() {
    let overloaded = ProviderError::new("test", 529, ErrorKind::Overloaded, "busy");
    let mut run = run(vec![
        Ok(calls(&[("say", r#"{"text":"a"}"#)])),
        Err(overloaded.into()),
    ]);
    let RunError::Model(error) = run.go().await.unwrap_err() else {
        panic!("a model's error")
    };
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert_eq!((run.progress.steps, run.progress.tool_calls.len()), (2, 1));
}

#[tokio::test]
async fn a_stream_gives_the_same_answer_as_a_whole_one_and_can_be_broken_off() {
    let script = || {
        vec![
            Ok(calls(&[("say", r#"{"text":"a"}"#)])),
            Ok(ChatResponse::text("done")),
        ]
    };
    let (mut whole, mut streamed, mut broken) = (run(script()), run(script()), run(script()));
    streamed.agent.streaming = true;
    broken.agent.streaming = true;
    assert_eq!(whole.go().await.unwrap(), streamed.go().await.unwrap());
    assert_eq!(whole.messages, streamed.messages);

    let mut seen = String::new();
    let mut look = |event: Event<'_>| match event {
        Event::Chat(ChatEvent::TextDelta { text }) => {
            seen.push_str(text);
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    };
    let ended = broken
        .agent
        .run(&mut broken.messages, &mut broken.progress, &mut look)
        .await;
    assert!(matches!(ended, Err(RunError::Stopped)));
    assert_eq!(seen, "done");
}
