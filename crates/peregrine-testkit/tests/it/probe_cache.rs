//! The probe's `cache`: how each request was served, in each backend, in one process and in several.

use std::time::Duration;

use peregrine_testkit::server::{LlmServer, Reply};
use peregrine_testkit::service;
use serde_json::{Value, json};

use crate::probe::{lines, probe};

fn asks(texts: &[&str]) -> String {
    let ask =
        |text: &&str| json!({"model": "m", "messages": [{"role": "user", "content": text}]}).to_string();
    texts.iter().map(ask).collect::<Vec<_>>().join("\n")
}

fn cache(server: &LlmServer, backend: &str, more: &[&str], texts: &[&str]) -> Vec<Value> {
    let url = server.url();
    let mut arguments = vec!["cache", "--backend", backend, "--scope", "t", "--base-url", &url];
    arguments.extend(more);
    let output = probe(&arguments, &asks(texts));
    assert!(output.status.success(), "{output:?}");
    lines(&output)
}

fn served(lines: &[Value]) -> Vec<&str> {
    lines
        .iter()
        .map(|line| line["served"].as_str().unwrap())
        .collect()
}

#[test]
fn each_line_says_how_it_was_served_and_equal_answers_have_one_digest() {
    let server = LlmServer::start_blocking().unwrap();
    for stream in [&[][..], &["--stream"][..]] {
        let lines = cache(&server, "memory", stream, &["a", "b", "a"]);
        assert_eq!(served(&lines), ["miss", "miss", "hit"]);
        assert_eq!(lines[0]["digest"], lines[2]["digest"]);
        assert_ne!(lines[0]["digest"], lines[1]["digest"]);
        assert_eq!(lines[2]["usage"]["input"], 0);
        assert!(lines[0]["usage"]["input"].as_u64().unwrap() > 0);
    }
    let lines = cache(&server, "memory", &["--mode", "off", "--stats"], &["a", "a"]);
    assert_eq!(served(&lines[..2]), ["bypass", "bypass"]);
    assert_eq!(lines[2]["done"]["bypassed"], 2);
}

#[test]
fn equal_requests_at_the_same_time_are_one_call() {
    let server = LlmServer::start_blocking().unwrap();
    server.set_reply(Reply::text("slow").with_first_byte_latency(Duration::from_millis(300)));
    let lines = cache(&server, "memory", &["--concurrency", "50"], &["a"; 50]);
    let served = served(&lines);
    assert_eq!(
        served.iter().filter(|how| **how == "miss").count(),
        1,
        "{served:?}"
    );
    assert!(
        served
            .iter()
            .all(|how| ["miss", "coalesced", "hit"].contains(how))
    );
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn answers_outlive_the_process_on_disk_and_in_redis() {
    let server = LlmServer::start_blocking().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let disk = format!("disk:{}", dir.path().display());
    let unique = format!("{} {:?}", std::process::id(), std::time::SystemTime::now());
    let first = cache(&server, &disk, &[], &[&unique]);
    let second = cache(&server, &disk, &[], &[&unique]);
    assert_eq!((served(&first), served(&second)), (vec!["miss"], vec!["hit"]));
    assert_eq!(first[0]["digest"], second[0]["digest"]);
    let Some(redis) = service::redis() else { return };
    let redis = format!("redis:{redis}");
    let ttl = ["--ttl-ms", "60000"];
    let first = cache(&server, &redis, &ttl, &[&unique]);
    let second = cache(&server, &redis, &ttl, &[&unique]);
    assert_eq!((served(&first), served(&second)), (vec!["miss"], vec!["hit"]));
}

#[test]
fn a_backend_that_cannot_be_reached_is_done_without() {
    let server = LlmServer::start_blocking().unwrap();
    let lines = cache(&server, "redis:redis://127.0.0.1:1", &[], &["a", "a"]);
    assert_eq!(served(&lines), ["miss", "miss"]);
    let output = probe(
        &["cache", "--backend", "tape:x", "--base-url", "http://127.0.0.1:1"],
        &asks(&["a"]),
    );
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}
