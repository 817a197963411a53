//! `chat` over a pipe: one line, one question, one conversation.

use peregrine_testkit::server::{LlmServer, Reply};

use crate::run::{Ran, World, against, newest};

fn chat(world: &World, server: &LlmServer, input: &str) -> Ran {
    world.run_with_input(&against(server, &["chat"]), input)
}

/// The texts of the newest request's messages.
fn heard(server: &LlmServer) -> Vec<String> {
    let request = newest(server);
    let messages = request["messages"].as_array().unwrap().clone();
    messages
        .iter()
        .map(|message| message["content"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn a_conversation_keeps_what_was_said() {
    let world = World::new();
    let server = LlmServer::start_blocking().unwrap();
    server.push_all([Reply::text("Hello Ada."), Reply::text("Ada.")]);
    let ran = chat(&world, &server, "I am Ada.\n\nWho am I?").ok();
    assert_eq!(ran.out, "Hello Ada.\nAda.\n");
    assert_eq!(heard(&server), ["I am Ada.", "Hello Ada.", "Who am I?"]);
    assert!(
        !ran.out.contains('>') && !ran.err.contains('>'),
        "no prompts on a pipe: {ran:?}"
    );
}

#[test]
fn what_the_tools_said_is_kept_and_the_instructions_are_said_once() {
    let world = World::new();
    let server = LlmServer::start_blocking().unwrap();
    server.push_all([
        Reply::tool_call("a", "read_file", serde_json::json!({"path": "docs/food.md"})),
        Reply::text("Pigeons."),
        Reply::text("Ducks too."),
    ]);
    let input = "What do they hunt?\nAnd else?\n";
    let ran = world
        .run_with_input(&against(&server, &["chat", "docs"]), input)
        .ok();
    assert_eq!(ran.out, "Pigeons.\nDucks too.\n");
    let request = newest(&server);
    let messages = request["messages"].as_array().unwrap().iter();
    let roles: Vec<_> = messages
        .map(|message| message["role"].as_str().unwrap())
        .collect();
    assert_eq!(
        roles,
        ["system", "user", "assistant", "tool", "assistant", "user"]
    );
    assert!(heard(&server)[3].contains("pigeons and ducks"), "{request}");
}

#[test]
fn commands_reset_and_leave() {
    let world = World::new();
    let server = LlmServer::start_blocking().unwrap();
    let input = "one\n/reset\ntwo\n/help\n/nonsense\n/model other\nthree\n/exit\nnever asked\n";
    let ran = chat(&world, &server, input).ok();
    assert_eq!(ran.out, "echo: one\necho: two\necho: three\n");
    assert_eq!(server.requests().len(), 3);
    assert_eq!(heard(&server), ["two", "echo: two", "three"]);
    assert_eq!(newest(&server)["model"], "other");
    assert!(
        ran.err.contains("/reset") && ran.err.contains("no command /nonsense"),
        "{ran:?}"
    );
}

#[test]
fn a_failed_question_leaves_no_trace_and_the_status_tells() {
    let world = World::new();
    let server = LlmServer::start_blocking().unwrap();
    server.push_all([
        Reply::text("first"),
        Reply::error(400, "not like this"),
        Reply::text("third"),
    ]);
    let ran = chat(&world, &server, "one\ntwo\nthree\n");
    assert_eq!(ran.out, "first\nthird\n");
    assert!(ran.err.contains("not like this"), "{ran:?}");
    assert_eq!(ran.code, Some(1));
    assert_eq!(heard(&server), ["one", "first", "three"]);
}

#[test]
fn files_are_answered_from_and_long_lines_are_refused() {
    let world = World::new();
    let ran = world
        .run_with_input(
            &["chat", "docs"],
            "Where do peregrines nest?\nWhat do they hunt?\n",
        )
        .ok();
    assert!(
        ran.out.contains("church towers") && ran.out.contains("pigeons"),
        "{ran:?}"
    );
    let long = format!("{}\nWhat do they hunt?\n", "x".repeat(300 << 10));
    let ran = world.run_with_input(&["chat", "docs"], long);
    assert!(
        ran.out.contains("pigeons") && ran.err.contains("256 KiB"),
        "{ran:?}"
    );
    assert_eq!(ran.code, Some(1));
}
