//! `runs fork` and `runs replay`: other ways that a run could have gone, and the way that it went.

use peregrine_testkit::server::{LlmServer, Reply};
use serde_json::{Value, json};

use crate::kept::{Kept, in_every_store, lines};
use crate::run::{newest, wait};

/// A run that reads a file and is answered. Gives its id.
fn answered(kept: &Kept, server: &LlmServer) -> String {
    server.push(Reply::tool_call(
        "c1",
        "read_file",
        json!({"path": "docs/food.md"}),
    ));
    server.push(Reply::text("Pigeons."));
    let ran = wait(kept.start(
        server,
        &["ask", "What do they hunt?", "docs", "--durable", "--json"],
    ))
    .ok();
    ran.json()["run"].as_str().unwrap().to_owned()
}

/// The number of the first record that says this.
fn record(kept: &Kept, run: &str, what: &str) -> String {
    let shown = kept.run(&["runs", "show", run, "--json"]).ok();
    let found = lines(&shown).into_iter().find(|line| line["what"] == what);
    found.unwrap_or_else(|| panic!("{what} in {shown:?}"))["seq"].to_string()
}

fn texts(request: &Value) -> Vec<String> {
    let messages = request["messages"].as_array().unwrap();
    let texts = messages
        .iter()
        .map(|message| message["content"].as_str().unwrap_or_default());
    texts.map(str::to_owned).collect()
}

#[test]
fn a_run_is_replayed_without_a_provider() {
    in_every_store(|kept| {
        let server = LlmServer::start_blocking().unwrap();
        let run = answered(kept, &server);
        drop(server);
        let replayed = kept.run(&["runs", "replay", &run]).ok();
        assert_eq!(replayed.out, "Pigeons.\n");
        let replayed = kept.run(&["runs", "replay", &run, "--json"]).ok().json();
        assert_eq!(
            (&replayed["answer"], &replayed["over"]),
            (&json!("Pigeons."), &json!(true))
        );
        assert!(
            replayed["calls"].as_u64() == Some(3) && replayed["failed"].is_null(),
            "{replayed}"
        );

        // Somebody changes what was recorded of a call.
        let exported = kept.run(&["runs", "export", &run]).ok().out;
        let altered: String = exported
            .lines()
            .map(|line| {
                let mut line: Value = serde_json::from_str(line).unwrap();
                if line["payload"]["name"] == "read_file" && line["payload"]["announce"] == "tool" {
                    line["payload"]["name"] = json!("list_files");
                }
                format!("{line}\n")
            })
            .collect();
        assert_ne!(altered, exported);
        let copy = kept
            .run_with_input(&["runs", "import", "-", "--as", "new"], altered)
            .ok()
            .out;
        let parted = kept.run(&["runs", "replay", copy.trim(), "--json"]);
        let at = record(kept, &run, "call_tool read_file");
        assert!(
            parted.code == Some(1) && parted.err.contains(&format!("at record {at}")),
            "{parted:?}"
        );
        assert_eq!(parted.json()["error"]["code"], "protocol");
    });
}

#[test]
fn a_fork_goes_on_differently_and_repeats_nothing() {
    in_every_store(|kept| {
        let server = LlmServer::start_blocking().unwrap();
        let run = answered(kept, &server);
        let at = record(kept, &run, "tool_returned");
        let set = [
            "--set",
            "result.c1=They hunt bats.",
            "--set",
            "system=Be brief.",
            "--set",
            "model=openai/other",
        ];
        let forked = kept
            .run(&[&["runs", "fork", &run, "--at", &at, "--json"], &set[..]].concat())
            .ok()
            .json();
        assert_eq!(
            (&forked["from"], &forked["status"]),
            (&json!(run), &json!("open"))
        );
        assert_eq!(forked["at"].to_string(), at);
        let fork = forked["run"].as_str().unwrap();
        server.set_reply(Reply::text("Bats."));
        let resumed = kept.run(&["runs", "resume", fork, "--json"]).ok().json();
        assert_eq!(
            (&resumed["answer"], &resumed["model"]),
            (&json!("Bats."), &json!("openai/other"))
        );
        assert_eq!(
            server.requests().len(),
            3,
            "what was done before is not done again"
        );
        let asked = newest(&server);
        let said = texts(&asked);
        assert_eq!(
            (said[0].as_str(), said[3].as_str()),
            ("Be brief.", "They hunt bats.")
        );
        assert_eq!(asked["model"], "other");

        let diff = kept.run(&["runs", "diff", &run, fork, "--json"]);
        assert_eq!((diff.code, diff.json()["shared"].to_string()), (Some(3), at));
        let happened = diff.json()["differences"].clone();
        let what = |side: &str| {
            let pairs = happened.as_array().unwrap().iter();
            let told = pairs.filter_map(|pair| pair[side]["what"].as_str().map(str::to_owned));
            told.collect::<Vec<_>>()
        };
        assert_eq!(what("left"), ["tool_returned", "model_answered"], "{happened}");
        assert!(what("right").contains(&"amended".to_owned()), "{happened}");
        let told = kept.run(&["runs", "diff", &run, fork]);
        assert!(told.out.contains("happened differently"), "{told:?}");
        assert_eq!(kept.run(&["runs", "replay", fork]).ok().out, "Bats.\n");
        assert_eq!(kept.run(&["runs", "replay", &run]).ok().out, "Pigeons.\n");
        // A fork of the fork is asked with what that was.
        let again = kept
            .run(&["runs", "fork", fork, "--at", &record(kept, fork, "amended")])
            .ok()
            .out;
        drop(kept.run(&["runs", "resume", again.trim()]).ok());
        assert_eq!(newest(&server)["model"], "other");

        let gone = kept.run(&["runs", "prune", "--keep", "0", "--json"]).ok().json();
        assert_eq!(gone["removed"].as_array().unwrap().len(), 3, "{gone}");
        let beside = kept
            .run(&["runs", "list", "--scope", "local/~command", "--json"])
            .ok()
            .json();
        assert_eq!(beside["runs"], json!([]), "nothing is left beside them");
    });
}

#[test]
fn another_question_and_other_bounds_are_taken() {
    let kept = Kept::in_dir();
    let server = LlmServer::start_blocking().unwrap();
    let run = answered(&kept, &server);
    let at = record(&kept, &run, "model_answered");
    let set = [
        "--set",
        "prompt=Where do they nest?",
        "--set",
        "max_steps=1",
        "--set",
        "budget={\"tool_calls\": 1}",
    ];
    let fork = kept
        .run(&[&["runs", "fork", &run, "--at", &at], &set[..]].concat())
        .ok()
        .out;
    server.push(Reply::tool_call("c2", "list_files", json!({})));
    let resumed = kept.run(&["runs", "resume", fork.trim(), "--max-steps", "1"]);
    assert!(
        resumed.code == Some(1) && resumed.err.contains("after 1 steps"),
        "{resumed:?}"
    );
    assert!(texts(&newest(&server)).contains(&"Where do they nest?".to_owned()));
    let budget = ["--set", "prompt=Again?", "--set", "budget=1"];
    let fork = kept
        .run(&[&["runs", "fork", &run, "--at", &at], &budget[..]].concat())
        .ok()
        .out;
    let resumed = kept.run(&["runs", "resume", fork.trim(), "--json"]);
    assert!(
        resumed.code == Some(1) && resumed.err.contains("tokens"),
        "{resumed:?}"
    );
}

#[test]
fn a_fork_that_makes_no_sense_is_refused_and_leaves_nothing() {
    let kept = Kept::in_dir();
    let server = LlmServer::start_blocking().unwrap();
    let run = answered(&kept, &server);
    for (more, code, told) in [
        (&["--set", "steps=3"][..], 2, "steps is not known"),
        (&["--at", "999"], 1, "was asked for, it has"),
        (
            &["--set", "system=Be brief."],
            1,
            "the run has its end there already",
        ),
        (&["--at", "0"], 1, "it would share nothing"),
        (&["--at", "5", "--set", "result.zz=x"], 1, "there is no call `zz`"),
    ] {
        let refused = kept.run(&[&["runs", "fork", &run], more].concat());
        assert_eq!(refused.code, Some(code), "{refused:?}");
        assert!(refused.err.contains(told), "{told}: {refused:?}");
    }
    let listed = kept.run(&["runs", "list", "--json"]).ok().json();
    assert_eq!(listed["runs"].as_array().unwrap().len(), 1);
}

#[test]
fn what_somebody_else_asked_is_forked_but_not_with_their_files() {
    let kept = Kept::in_dir();
    let server = LlmServer::start_blocking().unwrap();
    let run = answered(&kept, &server);
    let at = record(&kept, &run, "model_answered");
    let (other, [flag, dir]) = kept.for_somebody_else();
    let fork = [
        "runs",
        "fork",
        &run,
        "--at",
        &at,
        "--set",
        "model=offline",
        &flag,
        &dir,
    ];
    let fork = other.run(&fork).ok().out;
    let resumed = other.run(&["runs", "resume", fork.trim(), &flag, &dir]);
    assert!(
        resumed.code == Some(1) && resumed.err.contains("give them again"),
        "{resumed:?}"
    );
    let at_url = [
        "runs",
        "fork",
        &run,
        "--at",
        &at,
        "--set",
        "base_url=http://localhost:1",
        &flag,
        &dir,
    ];
    let refused = other.run(&at_url);
    assert!(
        refused.code == Some(1) && refused.err.contains("set the model too"),
        "{refused:?}"
    );
}
