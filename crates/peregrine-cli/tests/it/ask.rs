//! `ask`: from files, from standard input, from a server; recorded and replayed.

use std::time::Duration;

use peregrine_testkit::server::{Finish, LlmServer, Reply, Usage};
use serde_json::json;

use crate::run::{World, newest};

#[test]
fn without_a_key_the_offline_model_answers_from_the_files_and_says_so() {
    let world = World::new();
    let ran = world
        .run(&["ask", "How fast does the peregrine dive?", "README.md", "docs"])
        .ok();
    assert!(
        ran.out.contains("320 km/h") && ran.out.contains("README.md"),
        "{ran:?}"
    );
    assert!(
        ran.err
            .starts_with("model: offline-bm25 (no key is set, and no Ollama answers)\n"),
        "{ran:?}"
    );
    assert!(ran.out.ends_with('\n') && !ran.out.ends_with("\n\n"), "{ran:?}");

    let other = world.run(&["ask", "Where do peregrines nest?", "."]).ok();
    assert!(
        other.out.contains("church towers") && other.out.contains("docs/nests.md"),
        "{other:?}"
    );
    let again = world.run(&["ask", "Where do peregrines nest?", "."]).ok();
    assert_eq!(other.out, again.out, "the same files give the same answer");
}

#[test]
fn an_unasked_offline_model_is_announced_even_when_quiet() {
    let world = World::new();
    let question = ["ask", "-q", "How fast does the peregrine dive?", "README.md"];
    assert!(world.run(&question).ok().err.contains("offline-bm25"));
    let asked_for = world.run(&[&question[..], &["--model", "offline"]].concat()).ok();
    assert_eq!(asked_for.err, "");
    let chosen = World::new().with_variable("PEREGRINE_MODEL", "offline");
    assert!(
        chosen
            .run(&["ask", "What do they hunt?", "docs"])
            .ok()
            .err
            .contains("PEREGRINE_MODEL")
    );
}

#[test]
fn what_the_user_passes_reaches_the_wire() {
    let world = World::new();
    let server = LlmServer::start_blocking().unwrap();
    server.push(Reply::text("42"));
    let arguments = [
        "ask",
        "What?",
        "README.md",
        "--temperature",
        "0",
        "--max-tokens",
        "7",
        "--system",
        "Speak like a falconer.",
    ];
    let ran = world.run_against(&server, &arguments).ok();
    assert_eq!(ran.out, "42\n");
    assert_eq!(ran.err, "model: openai/test-model (asked for by name)\n");
    let request = newest(&server);
    assert_eq!(request["temperature"].as_f64(), Some(0.0));
    let max = request
        .get("max_completion_tokens")
        .or_else(|| request.get("max_tokens"));
    assert_eq!(max, Some(&json!(7)));
    assert_eq!(request["model"], "test-model");
    let system = request["messages"][0]["content"].to_string();
    assert!(
        system.contains("README.md") && system.contains("Speak like a falconer."),
        "{system}"
    );
    let tools: Vec<_> = request["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| &tool["function"]["name"])
        .collect();
    assert_eq!(tools, ["search_files", "read_file", "list_files"]);
}

#[test]
fn a_tool_loop_searches_and_reads_and_answers() {
    let world = World::new();
    let server = LlmServer::start_blocking().unwrap();
    server.push(
        Reply::tool_call("a", "search_files", json!({"query": "nest cliffs"}))
            .with_tool_call("b", "read_file", json!({"path": "docs/food.md"}))
            .with_tool_call("c", "list_files", json!({})),
    );
    server.push(Reply::text("On cliffs."));
    let ran = world
        .run_against(&server, &["ask", "-v", "Where do they nest?", "docs"])
        .ok();
    assert_eq!(ran.out, "On cliffs.\n");
    assert!(
        ran.err.contains("tool: search_files") && ran.err.contains("2 steps, 3 tool calls"),
        "{ran:?}"
    );
    let messages = newest(&server)["messages"].clone();
    let results: Vec<_> = messages
        .as_array()
        .unwrap()
        .iter()
        .filter(|message| message["role"] == "tool")
        .collect();
    let ids: Vec<_> = results
        .iter()
        .map(|result| result["tool_call_id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["a", "b", "c"], "results come in the order of the calls");
    let contents: Vec<_> = results
        .iter()
        .map(|result| result["content"].to_string())
        .collect();
    assert!(
        contents[0].contains("docs/nests.md:3: Peregrines nest on cliffs"),
        "{contents:?}"
    );
    assert!(
        contents[1].contains("docs/food.md, lines 1 to 3 of 3"),
        "{contents:?}"
    );
    assert!(
        contents[2].contains("docs/food.md (") && !contents[2].contains("README"),
        "{contents:?}"
    );
}

#[test]
fn an_answer_is_streamed_only_if_that_was_asked_for() {
    let world = World::new();
    let server = LlmServer::start_blocking().unwrap();
    for (more, streamed) in [
        (&[][..], false),
        (&["--json"], false),
        (&["--stream"], true),
        (&["--json", "--stream"], true),
    ] {
        server.push(Reply::tool_call("a", "list_files", json!({})));
        server.push(Reply::text_pieces(["On ", "cliffs."]));
        let arguments = [&["ask", "Where do they nest?", "docs"], more].concat();
        let ran = world.run_against(&server, &arguments).ok();
        assert!(ran.out.contains("On cliffs.") || streamed, "{more:?}: {ran:?}");
        let requests = server.requests();
        let asked = requests.iter().rev().take(2).map(|request| request.is_stream());
        assert_eq!(asked.collect::<Vec<_>>(), [streamed, streamed], "{more:?}");
    }
}

#[test]
fn standard_input_is_the_document_when_no_path_is_given() {
    let world = World::new();
    let document = "The kestrel hovers. The peregrine stoops at great speed. Owls hunt at night.";
    let ran = world
        .run_with_input(&["ask", "When do owls hunt?"], document)
        .ok();
    assert!(ran.out.contains("Owls hunt at night"), "{ran:?}");

    let big = world.run_with_input(&["ask", "What?"], "x".repeat(2 << 20));
    assert_eq!(big.code, Some(1));
    assert!(big.err.contains("more than 1 MiB"), "{big:?}");
    let binary = world.run_with_input(&["ask", "What?"], b"a\0b");
    assert!(binary.err.contains("binary"), "{binary:?}");

    let server = LlmServer::start_blocking().unwrap();
    server.push(Reply::text("no document"));
    world.run_against(&server, &["ask", "What?"]).ok();
    let request = newest(&server);
    assert_eq!(
        request["messages"].as_array().unwrap().len(),
        1,
        "nothing is made up: {request}"
    );
    assert!(request.get("tools").is_none());
}

#[test]
fn a_run_that_meets_its_bound_says_so_and_fails() {
    let world = World::new();
    let server = LlmServer::start_blocking().unwrap();
    server.set_reply(Reply::tool_call("a", "list_files", json!({})));
    let ran = world.run_against(&server, &["ask", "Loop?", "docs", "--max-steps", "3"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    assert!(
        ran.err.contains("after 3 steps") && ran.err.contains("--max-steps"),
        "{ran:?}"
    );
    assert_eq!(server.requests().len(), 3);

    world.write("docs/long.md", "a line of a long file\n".repeat(4_000));
    let read = json!({"path": "docs/long.md", "max_lines": 1_000});
    let many = |count: usize| {
        (0..count).fold(Reply::text(""), |reply, at| {
            reply.with_tool_call(at.to_string(), "read_file", read.clone())
        })
    };
    for (calls, message) in [
        (65, "more than 64 tool calls; ask more narrowly"),
        (60, "more than 512 KiB; ask more narrowly or give fewer paths"),
    ] {
        let server = LlmServer::start_blocking().unwrap();
        server.set_reply(many(calls));
        let ran = world.run_against(&server, &["ask", "Much?", "docs"]);
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
        assert!(ran.err.contains(message), "{ran:?}");
        assert_eq!(server.requests().len(), 1);
    }

    let slow = LlmServer::start_blocking().unwrap();
    slow.set_reply(Reply::text("late").with_first_byte_latency(Duration::from_secs(600)));
    let ran = world.run_against(&slow, &["ask", "Slow?", "--timeout", "0.3"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    assert!(
        ran.err.contains("no answer within 0.3 s; raise --timeout"),
        "{ran:?}"
    );
}

#[test]
fn no_answer_is_a_failure_and_half_an_answer_is_marked() {
    let world = World::new();
    let server = LlmServer::start_blocking().unwrap();
    server.push(Reply::refusal("I would rather not."));
    let refused = world.run_against(&server, &["ask", "Do it?"]);
    assert_eq!((refused.code, refused.out.as_str()), (Some(1), ""));
    assert!(
        refused.err.contains("declined") && refused.err.contains("I would rather not."),
        "{refused:?}"
    );

    server.push(Reply::text("The first half").with_finish(Finish::Length));
    let cut = world.run_against(&server, &["ask", "Tell me all?"]).ok();
    assert_eq!(cut.out, "The first half\n");
    assert!(
        cut.err.contains("cut off") && cut.err.contains("--max-tokens"),
        "{cut:?}"
    );
}

#[test]
fn the_only_model_at_an_address_needs_no_name() {
    let world = World::new();
    let one = LlmServer::start_blocking().unwrap();
    one.push(Reply::text("hello").with_usage(Usage::new(3, 1)));
    let ran = world
        .run(&["ask", "Who is there?", "--base-url", &one.url()])
        .ok();
    assert_eq!(ran.out, "hello\n");
    assert!(
        ran.err.contains("openai/test-model") && ran.err.contains("the only model"),
        "{ran:?}"
    );

    let two = LlmServer::builder()
        .with_models(["small", "large"])
        .start_blocking()
        .unwrap();
    let ran = world.run(&["ask", "Who is there?", "--base-url", &two.url()]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.err.contains("--model") && ran.err.contains("large, small"),
        "{ran:?}"
    );
    two.push(Reply::text("small one"));
    let named = world
        .run(&[
            "ask",
            "Who is there?",
            "--base-url",
            &two.url(),
            "--model",
            "small",
        ])
        .ok();
    assert_eq!(
        named.out, "small one\n",
        "a name without a provider is a compatible server's"
    );
}

#[test]
fn an_exchange_is_recorded_and_replayed_without_the_server() {
    let world = World::new();
    let server = LlmServer::start_blocking().unwrap();
    server.push(Reply::tool_call("a", "search_files", json!({"query": "pigeons"})));
    server.push(Reply::text("Pigeons and ducks."));
    let ask =
        |more: &[&str]| world.run_against(&server, &[&["ask", "What do they hunt?", "docs"], more].concat());
    ask(&["--record", "tape.jsonl"]).ok();
    assert_eq!(server.requests().len(), 2);
    let replayed = ask(&["--replay", "tape.jsonl"]).ok();
    assert_eq!(replayed.out, "Pigeons and ducks.\n");
    assert!(
        replayed.err.contains("answers come from tape.jsonl"),
        "{replayed:?}"
    );
    assert_eq!(server.requests().len(), 2, "the server was not asked again");
    let other = world.run_against(
        &server,
        &[
            "ask",
            "What do they eat?",
            "docs",
            "--replay",
            "tape.jsonl",
            "--json",
        ],
    );
    assert_eq!(other.code, Some(1));
    assert_eq!(other.json()["error"]["code"], "no_recording");
}

#[test]
fn no_key_reaches_any_output() {
    let key = "sk-test-4f0c9b7a11";
    let world = World::new().with_variable("OPENAI_API_KEY", key);
    let server = LlmServer::start_blocking().unwrap();
    server.set_reply(Reply::error(401, format!("Incorrect API key provided: {key}.")));
    for more in [&[][..], &["--json"], &["-v", "--stream"]] {
        let ran = world.run_against(&server, &[&["ask", "Hello?"], more].concat());
        assert_eq!(ran.code, Some(1));
        assert!(!format!("{ran:?}").contains(key), "{ran:?}");
        assert!(
            ran.err.contains("401") && ran.err.contains("check the key"),
            "{ran:?}"
        );
    }
}
