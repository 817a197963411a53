//! Agents over real sockets, in every dialect: what a run promises holds when the model is a server.

use std::future::Future;
use std::time::Duration;

use peregrine_agent::{
    Agent, BudgetLimits, Dataflow, Error, Input, PlanAndExecute, Resource, RunEvent, RunOutput, RunStream,
    Strategy, Triage, Unstreamed,
};
use peregrine_core::{ChatModel as _, ErrorKind, ModelHandle, Secret};
use peregrine_providers::Connector;
use peregrine_signatures::{ANSWER_TOOL, Signature};
use peregrine_testkit::server::{At, Fault, LlmServer, Reply, SeenRequest, Usage};
use peregrine_tools::{Canceller, tool};
use serde_json::json;

/// A model of each dialect.
const MODELS: [&str; 5] = [
    "openai/gpt-4o-mini",
    "openai-responses/gpt-4o-mini",
    "anthropic/claude-sonnet-4-5",
    "gemini/gemini-2.5-flash",
    "ollama/llama3.2:1b",
];

/// A server, and a model that is asked there, once for each call.
async fn place(spec: &str) -> (LlmServer, ModelHandle) {
    let server = LlmServer::start().await.unwrap();
    let model = Connector::new()
        .with_base_url(server.url())
        .with_api_key(Secret::new("sk-loopback"))
        .with_retry(None)
        .chat(spec)
        .unwrap();
    (server, model)
}

/// Long enough for anything that should happen.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .expect("it takes too long")
}

/// Waits until the server has seen the client of its only open request leave.
async fn until_closed(server: &LlmServer, spec: &str) {
    let seen = soon(server.wait_until(|seen| seen.cancelled == 1 && seen.open == 0)).await;
    assert_eq!((seen.completed, seen.in_flight), (0, 0), "{spec}");
}

/// Looks things up.
#[tool(effect = "read_only", danger = "safe")]
async fn look_up(name: String) -> String {
    tokio::task::yield_now().await;
    format!("{name} is in Oslo")
}

fn two_calls() -> Reply {
    Reply::text("Let me see.")
        .with_tool_call("call_a", "look_up", json!({"name": "The Scream"}))
        .with_tool_call("call_b", "look_up", json!({"name": "The Fram"}))
        .with_usage(Usage::new(100, 20))
}

#[tokio::test]
async fn a_tool_loop_is_the_same_in_every_dialect() {
    for spec in MODELS {
        let (server, model) = place(spec).await;
        let ask = |agent: Agent| async move { soon(agent.run("Where are they?")).await.unwrap() };
        let watch =
            |agent: Agent| async move { soon(agent.run_stream("Where are they?").collect()).await.unwrap() };
        let agent = |model: ModelHandle| {
            Agent::new(model)
                .with_instructions("Be brief.")
                .with_tool(look_up())
        };
        let script = || {
            server.push(two_calls());
            server.push(
                Reply::text("Both are in Oslo.")
                    .with_pieces(4)
                    .with_usage(Usage::new(150, 5)),
            );
        };
        let check = |output: RunOutput, streamed: bool| {
            let how = format!("{spec}, streamed: {streamed}");
            assert_eq!(output.text(), "Both are in Oslo.", "{how}");
            let used = output.usage().unwrap();
            assert_eq!((used.input_tokens, used.output_tokens), (250, 25), "{how}");
            assert_eq!(output.report.steps, 2, "{how}");
            let calls = output.report.tool_calls.iter();
            let calls: Vec<_> = calls
                .map(|call| (call.arguments.contains("Scream"), call.ok))
                .collect();
            assert_eq!(calls, [(true, true), (false, true)], "{how}");
            let asked = server.requests();
            let [.., first, second] = asked.as_slice() else {
                panic!("{how}: two requests")
            };
            assert_eq!(
                (first.is_stream(), second.is_stream()),
                (streamed, streamed),
                "{how}"
            );
            let body = String::from_utf8_lossy(&second.body).into_owned();
            let places = [
                "Be brief.",
                "Where are they?",
                "The Scream is in Oslo",
                "The Fram is in Oslo",
            ];
            let found: Vec<_> = places.iter().map(|text| body.find(text)).collect();
            assert!(found.iter().all(Option::is_some), "{how}: {body}");
            assert!(found[2] < found[3], "{how}: results in the order of the calls");
        };
        script();
        check(ask(agent(model.clone())).await, false);
        script();
        check(watch(agent(model.clone())).await, true);
        script();
        check(watch(agent(model.layered(Unstreamed).into_handle())).await, false);
        assert_eq!(
            server.counters().connections,
            1,
            "{spec}: turns share a connection"
        );
    }
}

/// Say where something is.
#[derive(Signature)]
struct Locate {
    #[input]
    thing: String,
    /// the name of the place
    #[output]
    place: String,
    #[output(range = 0.0..=1.0)]
    confidence: f64,
}

/// Looks things up first, and then answers as the request demands it: by a call of the tool for it, or in JSON.
fn answer(seen: &SeenRequest, place: &serde_json::Value) -> Reply {
    let answer = json!({"place": place, "confidence": 0.5});
    let body = String::from_utf8_lossy(&seen.body);
    match body.contains("The Scream is in Oslo") {
        false => Reply::tool_call("call_a", "look_up", json!({"name": "The Scream"})),
        true if body.contains(ANSWER_TOOL) => Reply::tool_call("call_b", ANSWER_TOOL, answer),
        true => Reply::text(answer.to_string()).with_chars_per_piece(5),
    }
}

#[tokio::test]
async fn typed_answers_come_in_the_form_of_each_dialect() {
    for spec in MODELS {
        let (server, model) = place(spec).await;
        let agent = Agent::new(model).with_tool(look_up());
        server.set_responder(|seen| answer(seen, &json!("Oslo")));
        let typed = soon(agent.run_as::<Locate>(&LocateInput::new("The Scream")))
            .await
            .unwrap();
        let whole = (
            typed.output.place,
            typed.output.confidence,
            typed.run.report.steps,
        );
        assert_eq!(whole, ("Oslo".to_owned(), 0.5, 2), "{spec}");

        let mut events = agent.run_stream_as::<Locate>(&LocateInput::new("The Scream"));
        let mut completed = Vec::new();
        while let Some(event) = soon(events.next()).await {
            if let RunEvent::FieldCompleted { path, value, .. } = event.unwrap() {
                completed.push((path.to_string(), value));
            }
        }
        let expected = [
            ("place".to_owned(), json!("Oslo")),
            ("confidence".to_owned(), json!(0.5)),
        ];
        assert_eq!(completed, expected, "{spec}");

        // What does not fit is no answer, however often it is given.
        server.set_responder(|seen| answer(seen, &json!(["Oslo", "Bergen"])));
        let error = soon(agent.run_as::<Locate>(&LocateInput::new("The Scream")))
            .await
            .unwrap_err();
        assert_eq!(
            (error.code(), error.report().tool_calls.len()),
            ("answer_rejected", 1),
            "{spec}"
        );
    }
}

/// The texts of a run until so many came.
async fn texts(events: &mut RunStream, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.len() < count {
        match soon(events.next()).await.expect("more events").unwrap() {
            RunEvent::Text { text, .. } => texts.push(text),
            RunEvent::Turn { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    texts
}

#[tokio::test]
async fn pieces_are_told_before_the_rest_is_sent_and_dropping_the_run_closes_the_connection() {
    for spec in MODELS {
        let (server, model) = place(spec).await;
        server.push(Reply::text_pieces(["one ", "two ", "three"]).with_fault(Fault::stall(At::BeforeFinish)));
        let mut events = Agent::new(model).with_tool(look_up()).run_stream("Count.");
        // The server never says more than this: only the events themselves can have brought it.
        let heard = match spec.starts_with("gemini") {
            // Its last piece says why it finished.
            true => texts(&mut events, 2).await,
            false => texts(&mut events, 3).await,
        };
        assert!("one two three".starts_with(&heard.concat()), "{spec}: {heard:?}");
        assert_eq!(server.counters().in_flight, 1, "{spec}");
        drop(events);
        until_closed(&server, spec).await;
    }
}

#[tokio::test]
async fn whatever_ends_a_run_early_closes_its_connection() {
    for spec in MODELS {
        // Dropped.
        let (server, model) = place(spec).await;
        let silent = || Reply::text("never").with_fault(Fault::stall(At::BeforeHead));
        server.push(silent());
        let agent = Agent::new(model).with_tool(look_up());
        tokio::select! {
            ended = agent.run("Wait.") => panic!("{spec}: {ended:?}"),
            _ = soon(server.wait_until(|seen| seen.in_flight == 1)) => {}
        }
        until_closed(&server, spec).await;

        // Cancelled, in the second turn: what was done before is kept.
        let (server, model) = place(spec).await;
        server.push(two_calls());
        server.push(silent());
        let agent = Agent::new(model).with_tool(look_up());
        let canceller = Canceller::new();
        let input = Input::from("Wait.").with_cancellation(canceller.cancellation());
        let (ended, _) = tokio::join!(soon(agent.run(input)), async {
            soon(server.wait_until(|seen| seen.requests == 2)).await;
            canceller.cancel();
        });
        let error = ended.unwrap_err();
        assert!(matches!(error.error(), Error::Interrupted(_)), "{spec}: {error}");
        assert_eq!(
            (error.report().steps, error.report().tool_calls.len()),
            (2, 2),
            "{spec}"
        );
        assert_eq!(
            error.report().messages.len(),
            4,
            "{spec}: the question, the calls, their results"
        );
        soon(server.wait_until(|seen| seen.cancelled == 1 && seen.open == 0)).await;

        // Out of time.
        let (server, model) = place(spec).await;
        server.push(silent());
        let agent = Agent::new(model)
            .with_timer(std::sync::Arc::new(peregrine_providers::TokioClock))
            .with_budget(BudgetLimits::default().with_wall_time(Duration::from_millis(50)));
        let error = soon(agent.run("Wait.")).await.unwrap_err();
        assert!(
            matches!(error.error(), Error::Limit(limit) if limit.resource == Resource::WallTime),
            "{spec}: {error}"
        );
        until_closed(&server, spec).await;
    }
}

#[tokio::test]
async fn a_truncated_answer_is_an_error_and_not_an_answer() {
    let cuts = [
        Fault::end(At::BeforeEndMarker),
        Fault::end(At::AfterPieces(1)),
        Fault::close(At::AfterPieces(2)),
        Fault::reset(At::AfterPieces(2)),
    ];
    for spec in MODELS {
        for cut in &cuts {
            let (server, model) = place(spec).await;
            server.push(two_calls());
            server.push(Reply::text_pieces(["It ", "is ", "not ", "true."]).with_fault(cut.clone()));
            let agent = Agent::new(model).with_tool(look_up());
            let mut events = agent.run_stream("Go.");
            let mut ended = None;
            while let Some(event) = soon(events.next()).await {
                match event {
                    Ok(RunEvent::Finished(output)) => panic!("{spec}, {cut:?}: {output:?}"),
                    Ok(_) => {}
                    Err(error) => ended = Some(error),
                }
            }
            let error = ended.expect("an error is the last item");
            let kind = error.model_kind().unwrap();
            assert!(
                matches!(kind, ErrorKind::Truncated | ErrorKind::Connection),
                "{spec}, {cut:?}: {kind:?}"
            );
            let report = error.report();
            assert_eq!((report.steps, report.tool_calls.len()), (2, 2), "{spec}, {cut:?}");
            let last = report.messages.iter().last().unwrap().text();
            assert!(
                !last.contains("It is"),
                "{spec}, {cut:?}: half an answer was kept"
            );
        }

        // The first half of a number is a number too.
        let (server, model) = place(spec).await;
        server.set_responder(|seen| {
            let cut = Fault::end(At::BeforeFinish);
            match seen.tool_result() {
                None => answer(seen, &json!("Oslo")),
                Some(_) => answer(seen, &json!("Oslo")).with_fault(cut),
            }
        });
        let agent = Agent::new(model).with_tool(look_up());
        let events = agent.run_stream_as::<Locate>(&LocateInput::new("The Scream"));
        let error = soon(events.collect_as::<Locate>()).await.unwrap_err();
        assert_eq!(error.model_kind(), Some(ErrorKind::Truncated), "{spec}: {error}");

        // The same cut in an answer that comes whole.
        let (server, model) = place(spec).await;
        server.push(Reply::text("It is not true.").with_fault(Fault::close(At::AfterBytes(40))));
        let error = soon(Agent::new(model).run("Go.")).await.unwrap_err();
        assert!(error.model_kind().is_some(), "{spec}: {error}");
    }
}

/// Writes a plan of which one step refers to two others, and answers from their results; looks at what was asked as well.
fn plans(seen: &SeenRequest) -> Reply {
    let body = String::from_utf8_lossy(&seen.body);
    let formed = |answer: serde_json::Value| match body.contains(ANSWER_TOOL) {
        true => Reply::tool_call("call_p", ANSWER_TOOL, answer),
        false => Reply::text(answer.to_string()).with_chars_per_piece(7),
    };
    if body.contains("Say how a task is to be gone about") {
        return formed(json!({"needs_plan": true, "model": 0}));
    }
    if body.contains("Plan how a task is done") {
        return formed(json!({"steps": [
            {"id": "scream", "tool": "look_up", "arguments": {"name": "The Scream"}},
            {"id": "fram", "tool": "look_up", "arguments": {"name": "The Fram"}},
            {"id": "both", "tool": "look_up", "arguments": {"name": "$scream and $fram"}, "depends_on": ["fram"]},
        ]}));
    }
    let found = body.contains("The Scream is in Oslo and The Fram is in Oslo is in Oslo");
    Reply::text(format!("found: {found}"))
}

#[tokio::test]
async fn a_plan_of_calls_is_written_and_done_in_every_dialect() {
    for spec in MODELS {
        let (server, model) = place(spec).await;
        server.set_responder(plans);
        let triage = Dataflow::new().with_triage(Triage::new());
        for (dataflow, requests) in [(Dataflow::new(), 2), (triage, 3)] {
            let numbers = PlanAndExecute::new(8).with_dataflow(dataflow);
            let agent = Agent::new(model.clone())
                .with_tool(look_up())
                .with_strategy(Strategy::PlanAndExecute(numbers));
            let before = server.requests().len();
            let output = soon(agent.run("Where are they?")).await.unwrap();
            let streamed = soon(agent.run_stream("Where are they?").collect()).await.unwrap();
            for output in [output, streamed] {
                assert_eq!(output.text(), "found: true", "{spec}");
                assert_eq!(output.response.metadata["plan"]["steps"], 3, "{spec}");
                let called = output.report.tool_calls.iter();
                let called: Vec<_> = called.map(|call| (call.call_id.as_str(), call.ok)).collect();
                assert_eq!(
                    called,
                    [("scream", true), ("fram", true), ("both", true)],
                    "{spec}"
                );
            }
            // A look that comes too late is dropped, perhaps before it reached the server.
            let asked = server.requests().len() - before;
            assert!((4..=2 * requests).contains(&asked), "{spec}: {asked}");
        }
    }
}
