//! `ask --cache` and `cache stats | clear`: on disk, and in a real Redis.

use std::time::Duration;

use peregrine_testkit::server::{LlmServer, Reply, Usage};
use peregrine_testkit::service;
use serde_json::{Value, json};

use crate::run::{Ran, World};

/// A world with a cache of its own, and a server that counts.
fn world() -> (World, LlmServer) {
    let world = World::new().with_variable("PEREGRINE_CACHE_DIR", "answers");
    (world, LlmServer::start_blocking().unwrap())
}

fn ask(world: &World, server: &LlmServer, more: &[&str]) -> Ran {
    let arguments = [&["ask", "How fast?", "--cache"], more].concat();
    world.run_against(server, &arguments).ok()
}

fn stats(world: &World) -> Value {
    world.run(&["cache", "stats", "--json"]).ok().json()
}

fn removed(world: &World, what: &[&str]) -> Value {
    let arguments = [&["cache", "clear", "--json"], what].concat();
    world.run(&arguments).ok().json()["removed"].clone()
}

#[test]
fn an_equal_question_is_answered_without_a_call() {
    let (world, server) = world();
    server.push(Reply::text("320 km/h").with_usage(Usage::new(100, 10)));
    let first = ask(&world, &server, &[]);
    assert_eq!((first.out.as_str(), server.requests().len()), ("320 km/h\n", 1));
    assert!(!first.err.contains("cache"), "{first:?}");

    let again = ask(&world, &server, &[]);
    assert_eq!((again.out.as_str(), server.requests().len()), ("320 km/h\n", 1));
    assert!(again.err.contains("cache: 1 of 1 answer\n"), "{again:?}");

    let told = ask(&world, &server, &["--json"]).json();
    assert_eq!(told["answer"], "320 km/h");
    assert_eq!(told["usage"]["input_tokens"], 0, "nothing was used: {told}");
    let cache = &told["cache"];
    assert_eq!(
        (&cache["hits"], &cache["misses"], &cache["tokens_saved"]),
        (&json!(1), &json!(0), &json!(110))
    );
    assert_eq!(cache["nano_usd_saved"], Value::Null, "the price is not known");

    // What was whole is a stream too.
    let streamed = ask(&world, &server, &["--stream"]);
    assert_eq!(
        (streamed.out.as_str(), server.requests().len()),
        ("320 km/h\n", 1)
    );

    // Who does not ask for the cache does not get it.
    server.push(Reply::text("faster"));
    assert_eq!(
        world.run_against(&server, &["ask", "How fast?"]).ok().out,
        "faster\n"
    );
}

#[test]
fn whatever_can_change_the_answer_asks_anew() {
    let (world, server) = world();
    let other = LlmServer::start_blocking().unwrap();
    server.push_all(["one", "two", "three"].map(Reply::text));
    other.push(Reply::text("four"));
    assert_eq!(ask(&world, &server, &[]).out, "one\n");
    assert_eq!(ask(&world, &server, &["--temperature", "0"]).out, "two\n");
    assert_eq!(ask(&world, &server, &["--system", "Be brief."]).out, "three\n");
    assert_eq!(ask(&world, &other, &[]).out, "four\n", "another address");
    assert_eq!(ask(&world, &server, &[]).out, "one\n");
    assert_eq!((server.requests().len(), other.requests().len()), (3, 1));
}

#[test]
fn tools_run_and_what_they_found_is_part_of_the_question() {
    let (world, server) = world();
    let scripted = |answer: &str| {
        server.push(Reply::tool_call("a", "read_file", json!({"path": "README.md"})));
        server.push(Reply::text(answer));
    };
    let read = |expected: &str, requests: usize| {
        let ran = ask(&world, &server, &["README.md"]);
        assert_eq!(
            (ran.out.as_str(), server.requests().len()),
            (expected, requests),
            "{ran:?}"
        );
    };
    scripted("320");
    read("320\n", 2);
    read("320\n", 2);
    world.write("README.md", "# Falcons\n\nIt was measured again: 389 km/h.\n");
    server.push(Reply::text("389"));
    // The first step is known; the file says something else since.
    read("389\n", 3);
}

#[test]
fn answers_that_are_too_old_are_not_taken() {
    let (world, server) = world();
    server.push_all(["old", "new"].map(Reply::text));
    assert_eq!(ask(&world, &server, &[]).out, "old\n");
    std::thread::sleep(Duration::from_millis(1_100));
    let young = world
        .run_against(&server, &["ask", "How fast?", "--cache=1s"])
        .ok();
    assert_eq!(young.out, "new\n");
    let any = world
        .run_against(&server, &["ask", "How fast?", "--cache=never"])
        .ok();
    assert_eq!((any.out.as_str(), server.requests().len()), ("new\n", 2));
}

#[test]
fn errors_are_not_kept() {
    let (world, server) = world();
    server.push(Reply::error(400, "not today"));
    let failed = world.run_against(&server, &["ask", "How fast?", "--cache"]);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    server.push(Reply::text("320"));
    assert_eq!(ask(&world, &server, &[]).out, "320\n");
    assert_eq!(stats(&world)["entries"], 1);
}

#[test]
fn answers_are_counted_and_removed_by_what_they_have_in_common() {
    let (world, server) = world();
    server.push_all((0..5).map(|n| Reply::text(n.to_string())));
    for (n, more) in [
        &["--cache-tag", "falcons"][..],
        &["--cache-tag", "falcons", "--cache-tag", "birds", "--system", "a"],
        &["--cache-tag", "birds", "--system", "b"],
        &["--system", "c"],
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(ask(&world, &server, more).out, format!("{n}\n"));
    }
    let all = stats(&world);
    assert_eq!(all["entries"], 4, "{all}");
    assert!(all["bytes"].as_u64().unwrap() > 400, "{all}");
    assert!(all["store"].as_str().unwrap().ends_with("answers"), "{all}");
    assert_eq!(
        (&all["totals"]["misses"], &all["totals"]["hits"]),
        (&json!(4), &json!(0))
    );
    let text = world.run(&["cache", "stats"]).ok();
    assert!(
        text.out.contains("4 answers") && text.out.contains("0 of 4 calls"),
        "{text:?}"
    );
    assert_eq!(removed(&world, &["--tag", "falcons", "--dry-run"]), 2);

    assert_eq!(removed(&world, &["--tag", "falcons"]), 2);
    assert_eq!(removed(&world, &["--tag", "falcons"]), 0);
    assert_eq!(removed(&world, &["--model", "openai/other"]), 0);
    assert_eq!(stats(&world)["entries"], 2);
    assert_eq!(ask(&world, &server, &["--system", "c"]).out, "3\n");
    assert_eq!(ask(&world, &server, &[]).out, "4\n", "removed, so asked anew");
    assert_eq!(removed(&world, &["--model", "openai/test-model"]), 3);
    assert_eq!(stats(&world)["entries"], 0);
    assert_eq!(removed(&world, &["--yes"]), 0);
    let totals = &stats(&world)["totals"];
    assert_eq!(
        (&totals["misses"], &totals["hits"]),
        (&json!(5), &json!(1)),
        "{totals}"
    );
}

#[test]
fn looking_makes_nothing_and_a_wrong_place_is_said() {
    let home = World::new();
    let world = World::new().with_variable("HOME", home.path().to_str().unwrap());
    let none = world.run(&["cache", "stats", "--json"]).ok().json();
    assert_eq!((&none["entries"], &none["bytes"]), (&json!(0), &json!(0)));
    assert_eq!(removed(&world, &[]), 0);
    assert!(!home.path().join(".cache").exists());

    for verb in ["stats", "clear"] {
        let ran = world.run(&["cache", verb, "--cache-dir", "nowhere"]);
        assert_eq!(ran.code, Some(1));
        assert!(ran.err.contains("there is no cache at nowhere"), "{ran:?}");
    }
    let server = LlmServer::start_blocking().unwrap();
    let ran = world.run_against(&server, &["ask", "What?", "--cache", "--cache-dir", "README.md"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.err.contains("the directory of the cache cannot be made"),
        "{ran:?}"
    );
    assert!(server.requests().is_empty());

    let home_less = World::new().run(&["cache", "stats"]);
    assert!(home_less.err.contains("--cache-dir"), "{home_less:?}");
    for bad in [
        &["ask", "What?", "--cache=soon"][..],
        &["ask", "What?", "--cache", "--replay", "x"],
        &["ask", "What?", "--cache-tag", "x"],
        &["cache", "clear", "--tag", "x", "--model", "a/b"],
        &["cache", "clear", "--model", "a"],
        &["cache"],
    ] {
        assert_eq!(world.run(bad).code, Some(2), "{bad:?}");
    }
}

#[test]
fn a_cache_that_is_damaged_costs_the_cache_and_not_the_answer() {
    let (world, server) = world();
    server.push_all(["one", "two"].map(Reply::text));
    assert_eq!(ask(&world, &server, &[]).out, "one\n");
    let folder = world.path().join("answers/v1");
    let mut damaged = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        if let Some(byte) = bytes.len().checked_sub(20).and_then(|at| bytes.get_mut(at)) {
            *byte ^= 0xff;
            damaged += 1;
        }
        std::fs::write(&path, bytes).unwrap();
    }
    assert!(damaged > 0);
    assert_eq!(ask(&world, &server, &[]).out, "two\n");
    assert_eq!(ask(&world, &server, &[]).out, "two\n");
}

#[test]
fn redis_is_shared_cleared_by_tag_and_may_be_away() {
    let (world, server) = world();
    server.push_all(["one", "two", "three"].map(Reply::text));
    let away = [
        "ask",
        "How fast?",
        "--cache",
        "--cache-url",
        "redis://:hunter2@127.0.0.1:1",
    ];
    let ran = world.run_against(&server, &away).ok();
    assert_eq!(ran.out, "one\n", "the answer comes without the cache");
    assert!(ran.err.contains("without the cache: the redis cache"), "{ran:?}");
    assert!(!format!("{ran:?}").contains("hunter2"), "{ran:?}");
    let cleared = world.run(&["cache", "clear", "--cache-url", "redis://:hunter2@127.0.0.1:1"]);
    assert_eq!(
        cleared.code,
        Some(1),
        "nothing was removed, so this is no success"
    );
    assert!(!format!("{cleared:?}").contains("hunter2"), "{cleared:?}");

    let Some(url) = service::redis() else { return };
    let prefix = format!("peregrine-test:cli:{}:", std::process::id());
    let place = ["--cache-url", url.as_str(), "--cache-prefix", prefix.as_str()];
    let ask = |more: &[&str]| {
        let arguments = [&["ask", "How fast?", "--cache"], &place[..], more].concat();
        world.run_against(&server, &arguments).ok().out
    };
    assert_eq!(ask(&["--cache-tag", "falcons"]), "two\n");
    assert_eq!(ask(&[]), "two\n");
    let stats = world
        .run(&[&["cache", "stats", "--json"], &place[..]].concat())
        .ok()
        .json();
    assert_eq!(
        (&stats["store"], &stats["entries"]),
        (&json!("Redis"), &json!(1)),
        "{stats}"
    );
    assert_eq!(
        (&stats["totals"]["hits"], &stats["totals"]["misses"]),
        (&json!(1), &json!(1))
    );
    let clear = |what: &[&str]| {
        let arguments = [&["cache", "clear", "--json"], &place[..], what].concat();
        world.run(&arguments).ok().json()["removed"].clone()
    };
    assert_eq!(clear(&["--tag", "falcons"]), 1);
    assert_eq!(ask(&[]), "three\n");
    assert_eq!(clear(&[]), 1);
}
