//! No secret reaches a journal: not the key of a provider, not its headers, not a key that a provider says back.

use peregrine_agent::{Agent, Input, More};
use peregrine_checkpoints::{Checkpoints, Options, SnapshotPolicy};
use peregrine_core::Secret;
use peregrine_providers::Connector;
use peregrine_testkit::server::{LlmServer, Reply};
use serde_json::json;
use tempfile::TempDir;

use super::support::{Ledger, id, ten_tools};
use crate::support::Script;

const KEY: &str = "sk-marker-7f3a9c-never-stored";
const HEADER: &str = "cookie-marker-52d1-never-stored";

/// All bytes of all files.
fn bytes(folder: &std::path::Path, out: &mut Vec<u8>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => bytes(&path, out),
            false => out.extend(std::fs::read(&path).unwrap()),
        }
    }
}

fn holds(bytes: &[u8], marker: &str) -> bool {
    bytes
        .windows(marker.len())
        .any(|window| window == marker.as_bytes())
}

#[tokio::test]
async fn keys_and_headers_are_in_no_file_of_a_journal() {
    let folder = TempDir::new().unwrap();
    let mut options = Options::default();
    options.compress_bytes = usize::MAX;
    options.snapshots = SnapshotPolicy::every_records(2);
    let uri = format!("dir:{}", folder.path().display());
    let checkpoints = Checkpoints::open(&uri, options).await.unwrap();
    for (place, spec) in [
        "openai/gpt-4o-mini",
        "openai-responses/gpt-4o-mini",
        "anthropic/claude-sonnet-4-5",
        "gemini/gemini-2.5-flash",
    ]
    .into_iter()
    .enumerate()
    {
        let server = LlmServer::start().await.unwrap();
        let model = Connector::new()
            .with_base_url(server.url())
            .with_api_key(Secret::new(KEY))
            .with_retry(None)
            .chat(spec)
            .unwrap();
        server.push_any(
            Reply::text("Let me see.")
                .with_tool_call("call_a", "tool_0", json!({}))
                .with_header("set-cookie", HEADER),
        );
        server.push_any(Reply::text("All is well.").with_header("set-cookie", HEADER));
        let ledger = Ledger::default();
        let agent = ten_tools(Script::of([]), &ledger, checkpoints.clone());
        // The same tools and store, another model.
        let agent = Agent::new(model)
            .with_tools(agent.tools().clone())
            .with_scope(super::support::scope())
            .with_checkpoints(checkpoints.clone());
        let run = id(u8::try_from(place).unwrap() + 1);
        let output = agent.run(Input::from("Go.").with_run_id(run)).await.unwrap();
        assert_eq!(output.text(), "All is well.");
        // A provider that says the key back.
        server.push_any(Reply::error(401, format!("Incorrect API key provided: {KEY}")));
        let refused = id(u8::try_from(place).unwrap() + 101);
        let error = agent
            .run(Input::from("Go.").with_run_id(refused))
            .await
            .unwrap_err();
        assert!(!error.to_string().contains(KEY));
        // Its journal gives the same error again.
        let again = agent
            .load(refused)
            .await
            .unwrap()
            .resume(More::default())
            .await
            .unwrap_err();
        assert_eq!(again.model_kind(), error.model_kind());
    }
    let mut all = Vec::new();
    bytes(folder.path(), &mut all);
    assert!(
        holds(&all, "All is well.") && holds(&all, "Incorrect API key provided"),
        "it is there to be read"
    );
    assert!(!holds(&all, KEY) && !holds(&all, HEADER));
}

#[tokio::test]
async fn debug_of_a_stored_run_shows_no_payload() {
    let agent = ten_tools(
        Script::of([crate::support::text("the-answer-marker")]),
        &Ledger::default(),
        super::support::memory(),
    );
    agent
        .run(Input::from("the-question-marker").with_run_id(id(1)))
        .await
        .unwrap();
    let stored = agent.load(id(1)).await.unwrap();
    let shown = format!("{stored:?}");
    assert!(!shown.contains("marker") && shown.contains("Over"), "{shown}");
}
