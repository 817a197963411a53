//! `prompt lint`: recordings that the command made itself, request bodies, and what is neither.

use peregrine_testkit::server::{LlmServer, Reply};
use serde_json::{Value, json};

use crate::run::World;

fn body(system: &str, turns: usize) -> Value {
    let mut messages = vec![json!({"role": "system", "content": system})];
    for turn in 0..turns {
        messages.push(json!({"role": "user", "content": format!("question {turn}")}));
        messages.push(json!({"role": "assistant", "content": format!("answer {turn}")}));
    }
    messages.push(json!({"role": "user", "content": format!("question {turns}")}));
    json!({"model": "m", "messages": messages})
}

#[test]
fn stable_bodies_end_well() {
    let world = World::new();
    world.write(
        "bodies.jsonl",
        format!("{}\n{}\n{}\n", body("s", 0), body("s", 1), body("s", 2)),
    );
    let ran = world.run(&["prompt", "lint", "bodies.jsonl"]).ok();
    assert_eq!(
        ran.out,
        "3 requests in 1 conversation, 2 compared with the one before: every prompt begins with the one before\n"
    );
    let found = world
        .run(&["prompt", "lint", "--json", "bodies.jsonl"])
        .ok()
        .json();
    assert_eq!((&found["stable"], &found["breaks"]), (&json!(true), &json!([])));
    let alone = world
        .run_with_input(&["prompt", "lint", "-"], body("s", 0).to_string())
        .ok();
    assert!(alone.out.contains("nothing to compare"), "{alone:?}");
}

#[test]
fn a_break_has_its_own_status_and_is_named() {
    let world = World::new();
    let (one, two) = (body("It is 10:00:00.", 0), body("It is 10:00:07.", 1));
    let input = format!("{one}\n\n{}\n", serde_json::to_string_pretty(&two).unwrap());
    // Pretty-printed, the elements are other bytes; the same text once on one line.
    let ran = world.run_with_input(&["prompt", "lint", "-"], format!("\n{one}\n\n{two}\n"));
    assert_eq!((ran.code, ran.err.as_str()), (Some(3), ""), "{ran:?}");
    let rendered = "{\"role\":\"system\",\"content\":\"It is 10:00:0";
    for words in [
        &format!(
            "messages[0].content differs from byte {} of the prompt on (a date or a time)",
            rendered.len()
        ),
        "before: line 2: ..",
        "after:  line 4: ..",
        "10:00:07",
        "help:   give the time in the newest message",
        "2 requests in 1 conversation, 1 compared with the one before: 1 break, ",
    ] {
        assert!(ran.out.contains(words), "{words} in {}", ran.out);
    }
    let ran = world.run_with_input(&["prompt", "lint", "-", "--json"], format!("\n{one}\n\n{two}\n"));
    assert_eq!(ran.code, Some(3));
    let found = ran.json();
    let broken = &found["breaks"][0];
    assert_eq!((&found["stable"], &found["compared"]), (&json!(false), &json!(1)));
    assert_eq!((&broken["before"], &broken["after"]), (&json!(0), &json!(1)));
    assert_eq!(
        (&broken["before_line"], &broken["after_line"]),
        (&json!(2), &json!(4))
    );
    assert_eq!(
        (&broken["cause"], &broken["offset"]),
        (&json!("timestamp"), &json!(rendered.len()))
    );
    assert!(broken["advice"].as_str().unwrap().contains("newest message"));
    assert!(broken["lost_tokens"].as_u64().unwrap() > 10);

    let ran = world.run_with_input(&["prompt", "lint", "-", "--json"], input);
    assert_eq!(
        (ran.code, &ran.json()["breaks"][0]["after_line"]),
        (Some(3), &json!(3))
    );
    assert_eq!(ran.json()["breaks"][0]["before_line"], 1);
}

#[test]
fn what_the_command_recorded_can_be_linted() {
    let world = World::new();
    let server = LlmServer::start_blocking().unwrap();
    server.push_all([
        Reply::tool_call("call-1", "search_files", json!({"query": "dive"})),
        Reply::text("At 320 km/h."),
    ]);
    world
        .run_against(
            &server,
            &[
                "ask",
                "How fast does it dive?",
                "README.md",
                "--record",
                "rec.jsonl",
            ],
        )
        .ok();
    let ran = world.run(&["prompt", "lint", "rec.jsonl", "--json"]).ok();
    let found = ran.json();
    assert_eq!(
        (&found["requests"], &found["compared"]),
        (&json!(2), &json!(1)),
        "{ran:?}"
    );

    // The same question with other instructions: a break in the recorded form.
    server.push_all([Reply::text("Fast.")]);
    let again = [
        "ask",
        "How fast does it dive?",
        "README.md",
        "--record",
        "rec.jsonl",
        "--system",
        "Be brief.",
    ];
    world.run_against(&server, &again).ok();
    let ran = world.run(&["prompt", "lint", "rec.jsonl", "--json"]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    let found = ran.json();
    assert_eq!(
        found["breaks"][0]["field"], "messages[0].parts[0].text",
        "{ran:?}"
    );
    assert_eq!(found["breaks"][0]["after_line"], 3);
}

#[test]
fn what_is_neither_is_named_with_its_line() {
    let world = World::new();
    let good = body("s", 0);
    let recorded = json!({"version": 1, "model": "m", "request": {"messages": []}, "answer": {"events": []}});
    let newer = json!({"version": 2, "model": "m", "request": {"messages": []}, "answer": {"events": []}});
    for (input, words) in [
        (String::new(), "there is no request in -"),
        (" \n\n".to_owned(), "there is no request in -"),
        ("hello".to_owned(), "line 1 is no JSON"),
        (format!("{good}\n{{\"messages\""), "line 2 is no JSON"),
        (format!("{good}\n\n7"), "line 3 is no request body"),
        (
            format!("{good}\n{{}}"),
            "line 2 is neither of a recording nor a request body",
        ),
        (format!("{good}\n{recorded}"), "line 2 is neither"),
        (format!("{recorded}\n{good}"), "line 2 is no line of a recording"),
        (
            format!("{recorded}\n{newer}"),
            "line 2 is no line of a recording: its version is 2, this build reads 1",
        ),
    ] {
        let ran = world.run_with_input(&["prompt", "lint", "-"], &input);
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{input}: {ran:?}");
        assert!(ran.err.contains(words), "{words} in {ran:?}");
        let ran = world.run_with_input(&["prompt", "lint", "--json", "-"], &input);
        assert!(
            ran.json()["error"]["message"].as_str().unwrap().contains(words),
            "{ran:?}"
        );
        assert_eq!(
            (ran.code, &ran.json()["error"]["code"]),
            (Some(1), &json!("invalid_request"))
        );
    }
    let ran = world.run_with_input(&["prompt", "lint", "-"], b"{\"messages\":[\"\xff\"]}");
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let ran = world.run(&["prompt", "lint", "nowhere", "--json"]);
    assert_eq!(
        (ran.code, &ran.json()["error"]["code"]),
        (Some(1), &json!("not_found"))
    );
    assert!(ran.err.contains("could not open nowhere"), "{ran:?}");
    for wrong in [&["prompt"][..], &["prompt", "lint"], &["prompt", "fly"]] {
        assert_eq!(world.run(wrong).code, Some(2));
    }
}
