//! A hostile model: whatever it asks for, the files beside the given ones stay closed.

use peregrine_testkit::server::{LlmServer, Reply};
use serde_json::json;

use crate::run::{World, newest};

#[test]
fn a_model_cannot_read_beside_the_given_paths() {
    let world = World::new();
    world.write("secret.txt", "the code is 4711");
    world.write("docs/.hidden.md", "the code is 4711");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("../secret.txt", world.path().join("docs/link.md")).unwrap();
        std::os::unix::fs::symlink(world.path(), world.path().join("docs/up")).unwrap();
    }
    let absolute = world.path().join("secret.txt").display().to_string();
    let paths = [
        "secret.txt",
        "../secret.txt",
        "docs/../secret.txt",
        "docs/link.md",
        "docs/up/secret.txt",
        "docs/.hidden.md",
        "/etc/passwd",
        "/proc/self/environ",
        absolute.as_str(),
    ];
    let server = LlmServer::start_blocking().unwrap();
    let mut hostile = Reply::tool_call("search", "search_files", json!({"query": "the code is 4711"}));
    for (at, path) in paths.iter().enumerate() {
        hostile = hostile.with_tool_call(format!("read-{at}"), "read_file", json!({"path": path}));
    }
    server.push(hostile.with_tool_call("write", "write_file", json!({"path": "docs/x", "text": "y"})));
    server.push(Reply::text("nothing found"));
    let ran = world
        .run_against(
            &server,
            &["ask", "--json", "What is the code?", "docs", "README.md"],
        )
        .ok();
    let calls = ran.json()["tool_calls"].clone();
    let calls = calls.as_array().unwrap();
    assert_eq!(calls.len(), paths.len() + 2);
    for call in &calls[1..] {
        assert_eq!(call["ok"], false, "{call}");
    }
    let request = newest(&server);
    let results = request["messages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|message| message["role"] == "tool");
    let results: Vec<_> = results.map(|message| message["content"].to_string()).collect();
    assert_eq!(results.len(), calls.len(), "every call has its result");
    let leaks = |result: &String| result.contains("the code is 4711") || result.contains("root:");
    assert!(!results.iter().any(leaks), "{results:#?}");
    assert!(!world.path().join("docs/x").exists());
}
