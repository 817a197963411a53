//! `ask --durable` and `runs resume`: a run goes on after whatever ended it, and repeats nothing that was done.

use std::process::Child;
use std::time::{Duration, Instant};

use peregrine::agent::durable::RunStatus;
use peregrine::checkpoints::Checkpoints;
use peregrine::core::{
    ChatModel, ChatRequest, ChatResponse, Effect, Finish, ModelInfo, Part, Scope, ToolCall, ToolSpec,
};
use peregrine::tools::{Tool, ToolContext, ToolError, ToolInfo, ToolOutput, async_trait};
use peregrine::{Agent, Input};
use peregrine_testkit::server::{LlmServer, Reply};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::kept::{Kept, in_every_store, key, lines, until_free};
use crate::run::wait;
use crate::signals::interrupt_twice;

fn late() -> Reply {
    Reply::text("late").with_first_byte_latency(Duration::from_secs(600))
}

/// Waits until the server has heard so many questions.
pub(crate) fn until_heard(server: &LlmServer, questions: usize, child: &mut Child) {
    let started = Instant::now();
    while server.requests().len() < questions {
        assert_eq!(child.try_wait().unwrap(), None, "it ended too early");
        if started.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("it does not ask {questions} times");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Starts a question that reads a file and then waits for an answer that does not come; kills it there.
fn killed(kept: &Kept, server: &LlmServer, more: &[&str]) -> String {
    server.push(Reply::tool_call(
        "a",
        "read_file",
        json!({"path": "docs/food.md"}),
    ));
    server.set_reply(late());
    let question = [
        "ask",
        "What do they hunt?",
        "docs",
        "--durable",
        "--json",
        "--stream",
    ];
    let mut child = kept.start(server, &[&question, more].concat());
    until_heard(server, 2, &mut child);
    // SIGKILL.
    child.kill().unwrap();
    let ran = wait(child);
    assert_eq!(ran.code, None, "{ran:?}");
    lines(&ran)[0]["run"].as_str().unwrap().to_owned()
}

/// What was asked, however the answer was to come.
fn body(server: &LlmServer, at: usize) -> Value {
    let mut body = server.requests()[at].json().unwrap().clone();
    let fields = body.as_object_mut().unwrap();
    fields.remove("stream");
    fields.remove("stream_options");
    body
}

#[test]
fn a_run_that_was_killed_goes_on_and_repeats_nothing() {
    in_every_store(|kept| {
        let server = LlmServer::start_blocking().unwrap();
        let run = killed(kept, &server, &[]);
        let listed = kept.run(&["runs", "list", "--json"]).ok().json();
        assert_eq!(
            (&listed["runs"][0]["run"], &listed["runs"][0]["state"]),
            (&json!(run), &json!("interrupted"))
        );
        let shown = kept.run(&["runs", "show", "last"]).ok();
        assert!(
            shown.out.contains("call_tool read_file") && shown.out.contains("begun"),
            "{shown:?}"
        );

        server.set_reply(Reply::text("Pigeons."));
        let resumed = kept.run(&["runs", "resume", &run, "--json"]).ok().json();
        assert_eq!(resumed["answer"], "Pigeons.");
        assert_eq!(
            (&resumed["run"], &resumed["model"]),
            (&json!(run), &json!("openai/test-model"))
        );
        let calls = resumed["tool_calls"].as_array().unwrap();
        assert_eq!((calls.len(), &calls[0]["name"]), (1, &json!("read_file")));
        // The call that was cut off was made again, word for word; nothing before it was.
        assert_eq!(server.requests().len(), 3);
        assert_eq!(body(&server, 1), body(&server, 2));
        assert!(
            body(&server, 2)["messages"][3]["content"]
                .as_str()
                .unwrap()
                .contains("pigeons")
        );

        // It is over, and gives its answer without asking anybody.
        drop(server);
        for again in [&["runs", "resume", "last"][..], &["ask", "--resume", &run]] {
            assert_eq!(kept.run(again).ok().out, "Pigeons.\n");
        }
        let listed = kept.run(&["runs", "list", "--json"]).ok().json();
        assert_eq!(listed["runs"][0]["state"], "over");
        kept.run(&["runs", "verify"]).ok();
    });
}

#[test]
fn every_level_of_durability_is_taken_and_an_unknown_one_refused() {
    let kept = Kept::in_dir();
    let server = LlmServer::start_blocking().unwrap();
    server.set_reply(Reply::text("Yes."));
    for (level, kept_runs) in [
        ("none", 0),
        ("on-finish", 1),
        ("process-safe", 2),
        ("power-safe", 3),
    ] {
        let ran = wait(kept.start(
            &server,
            &["ask", "Well?", "--json", &format!("--durable={level}")],
        ))
        .ok();
        assert_eq!(ran.json()["run"].is_string(), level != "none", "{ran:?}");
        let listed = if kept_runs == 0 {
            0
        } else {
            let listed = kept.run(&["runs", "list", "--json"]).ok().json();
            listed["runs"].as_array().unwrap().len()
        };
        assert_eq!(listed, kept_runs, "{level}");
    }
    let ran = wait(kept.start(&server, &["ask", "Well?", "--durable"])).ok();
    assert!(
        ran.err.contains("run: ") && ran.err.contains("of local, kept in"),
        "{ran:?}"
    );
    let unknown = wait(kept.start(&server, &["ask", "Well?", "--durable=forever"]));
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
    let without = wait(kept.start(&server, &["ask", "Well?", "--json"])).ok();
    assert!(without.json()["run"].is_null());
}

#[test]
fn what_a_journal_says_of_files_counts_only_with_this_users_seal() {
    let kept = Kept::in_dir();
    let server = LlmServer::start_blocking().unwrap();
    let run = killed(&kept, &server, &[]);
    server.set_reply(Reply::text("Pigeons."));
    let (other, [flag, dir]) = kept.for_somebody_else();
    let refused = other.run(&[
        "runs", "resume", &run, &flag, &dir, "--json", "--model", "offline",
    ]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("give them again: docs (in "), "{refused:?}");
    assert_eq!(refused.json()["error"]["code"], "invalid_request");
    let elsewhere = other.run(&["runs", "resume", &run, "docs", &flag, &dir]);
    let told = format!("give it again: --base-url {}", server.url());
    assert!(
        elsewhere.code == Some(1) && elsewhere.err.contains(&told),
        "{elsewhere:?}"
    );
    assert_eq!(server.requests().len(), 2, "nobody was asked");
    // Said by this user, now.
    let resume = [
        "runs",
        "resume",
        &run,
        "docs",
        &flag,
        &dir,
        "--base-url",
        &server.url(),
        "--model",
        "test-model",
    ];
    assert_eq!(other.run(&resume).ok().out, "Pigeons.\n");
}

#[test]
fn a_run_that_somebody_works_on_is_theirs() {
    let kept = Kept::in_dir();
    let server = LlmServer::start_blocking().unwrap();
    server.set_reply(late());
    let mut child = kept.start(&server, &["ask", "Slow?", "--durable"]);
    until_heard(&server, 1, &mut child);
    let refused = kept.run(&["runs", "resume", "last", "--json"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let error = &refused.json()["error"];
    assert_eq!(
        (&error["cause"], &error["retryable"]),
        (&json!("leased"), &json!(true))
    );
    assert!(
        refused.err.contains(&child.id().to_string()),
        "it says who: {refused:?}"
    );
    assert_eq!(server.requests().len(), 1);
    child.kill().unwrap();
    drop(wait(child));
    server.set_reply(Reply::text("At last."));
    assert_eq!(kept.run(&["runs", "resume", "last"]).ok().out, "At last.\n");
}

#[test]
fn an_interrupted_run_says_how_it_goes_on() {
    let kept = Kept::in_dir();
    let server = LlmServer::start_blocking().unwrap();
    server.set_reply(late());
    let mut child = kept.start(&server, &["ask", "Slow?", "--durable"]);
    until_heard(&server, 1, &mut child);
    let ran = interrupt_twice(child, Signal::INT);
    assert!(
        ran.code == Some(130) && ran.err.contains("peregrine runs resume "),
        "{ran:?}"
    );
    server.set_reply(Reply::text("At last."));
    // The question again, or none, is the same.
    let again = wait(kept.start(&server, &["ask", "Slow?", "--resume", "last"])).ok();
    assert_eq!(again.out, "At last.\n");
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_bound_stops_a_kept_run_and_more_of_it_lets_it_go_on() {
    let kept = Kept::in_dir();
    let server = LlmServer::start_blocking().unwrap();
    server.push(Reply::tool_call("a", "list_files", json!({})));
    server.set_reply(Reply::text("Two files."));
    let ran = wait(kept.start(
        &server,
        &["ask", "How many?", "docs", "--durable", "--max-steps", "1"],
    ));
    assert!(
        ran.code == Some(1) && ran.err.contains("raise --max-steps"),
        "{ran:?}"
    );
    assert!(ran.err.contains("peregrine runs resume "), "{ran:?}");
    let other = kept.run(&["runs", "resume", "last", "--system", "Be brief."]);
    assert!(
        other.code == Some(1) && other.err.contains("--system cannot be changed"),
        "{other:?}"
    );
    let still = kept.run(&["runs", "resume", "last", "--max-steps", "1"]);
    assert_eq!((still.code, server.requests().len()), (Some(1), 1), "{still:?}");
    let ran = kept.run(&["runs", "resume", "last", "--max-steps", "2"]).ok();
    assert_eq!((ran.out.as_str(), server.requests().len()), ("Two files.\n", 2));
}

#[test]
fn another_question_follows_an_answered_run() {
    let kept = Kept::in_dir();
    let server = LlmServer::start_blocking().unwrap();
    server.push_all([Reply::text("Pigeons."), Reply::text("Ducks.")]);
    drop(wait(kept.start(&server, &["ask", "What do they hunt?", "docs", "--durable"])).ok());
    let first = kept.run(&["runs", "list", "--json"]).ok().json()["runs"][0]["run"].clone();
    // The files and the server are those of before.
    let followed = kept
        .run(&["ask", "What else?", "--resume", "last", "--json"])
        .ok()
        .json();
    assert_eq!(followed["answer"], "Ducks.");
    assert_ne!(followed["run"], first);
    let messages = body(&server, 1)["messages"].clone();
    let said: Vec<_> = messages
        .as_array()
        .unwrap()
        .iter()
        .skip(1)
        .map(|message| message["content"].clone())
        .collect();
    assert_eq!(
        said,
        ["What do they hunt?", "Pigeons.", "What else?"].map(Value::from)
    );
    assert!(body(&server, 1)["tools"].as_array().unwrap().len() == 3);

    server.set_reply(late());
    let mut child = kept.start(&server, &["ask", "Slow?", "--durable"]);
    until_heard(&server, 3, &mut child);
    child.kill().unwrap();
    drop(wait(child));
    let early = kept.run(&["ask", "Another one?", "--resume", "last", "--json"]);
    assert!(
        early.code == Some(1) && early.err.contains("the run is not over"),
        "{early:?}"
    );
    assert_eq!(early.json()["error"]["code"], "invalid_request");
    let none = kept.run(&["ask", "--resume", "01HF7YAT000W3GE1R70W3GE1R7"]);
    assert!(
        none.code == Some(1) && none.err.contains("there is no run"),
        "{none:?}"
    );
}

/// Asks for one payment, then says that it is done.
struct Payer(ModelInfo);

impl ChatModel for Payer {
    fn info(&self) -> &ModelInfo {
        &self.0
    }

    async fn complete(&self, _: &ChatRequest) -> peregrine::Result<ChatResponse> {
        let call = ToolCall::new("c1", "pay", json!({"amount": 7}).to_string());
        Ok(ChatResponse::new(vec![Part::ToolCall(call)], Finish::ToolCalls))
    }
}

/// A payment that never ends.
struct Pay(ToolInfo);

#[async_trait]
impl Tool for Pay {
    fn info(&self) -> &ToolInfo {
        &self.0
    }

    async fn call(&self, _: ToolContext, _: Value) -> Result<ToolOutput, ToolError> {
        std::future::pending().await
    }
}

/// A run of another program, whose payment was under way when it ended.
async fn paying(checkpoints: Checkpoints) {
    let spec = ToolSpec::new("pay", "Pays.", json!({"type": "object"}));
    let pay = Pay(ToolInfo::new(spec).with_effect(Effect::SideEffect));
    let scope = Scope::tenant("local").unwrap();
    let agent = Agent::new(Payer(ModelInfo::new("example", "payer")))
        .with_tool(pay)
        .with_allowed("pay")
        .with_scope(scope.clone())
        .with_checkpoints(checkpoints.clone());
    let id = key(1).run;
    let mut run = Box::pin(agent.run(Input::from("Pay.").with_run_id(id)));
    let soon = || tokio::time::sleep(Duration::from_millis(5));
    loop {
        tokio::select! {
            _ = &mut run => panic!("the payment never ends"),
            () = soon() => {}
        }
        let loaded = agent.load(id).await;
        if loaded.is_ok_and(|stored| stored.status() == RunStatus::InDoubt) {
            break;
        }
    }
    drop(run);
    // A lease in a database is given back by a task.
    until_free(&checkpoints, &key(1)).await;
}

#[test]
fn a_call_in_doubt_is_named_and_settled() {
    in_every_store(|kept| {
        kept.with(paying);
        let run = key(1).run.to_string();
        let listed = kept.run(&["runs", "list", "--json"]).ok().json();
        assert_eq!(listed["runs"][0]["state"], "in_doubt");
        let refused = kept.run(&["runs", "resume", &run, "--json"]);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        for told in [
            "pay {\"amount\":7}",
            "under the key",
            "--resolve",
            "--not-carried-out",
        ] {
            assert!(refused.err.contains(told), "{told}: {refused:?}");
        }
        let call = refused
            .err
            .split("call ")
            .nth(1)
            .unwrap()
            .split(',')
            .next()
            .unwrap()
            .to_owned();
        let wrong = kept.run(&["runs", "resume", &run, "--resolve", "777=paid"]);
        assert!(
            wrong.code == Some(1) && wrong.err.contains("not in doubt"),
            "{wrong:?}"
        );
        // The run is another program's, which goes on with it; that the call is settled is kept.
        let settled = kept.run(&[
            "runs",
            "resume",
            &run,
            "--resolve",
            &format!("{call}=paid, receipt 17"),
        ]);
        assert!(
            settled.code == Some(1) && settled.err.contains("tools that are not of this command"),
            "{settled:?}"
        );
        let listed = kept.run(&["runs", "list", "--json"]).ok().json();
        assert_eq!(listed["runs"][0]["state"], "stopped");
        let shown = kept.run(&["runs", "show", &run, "--json", "--full"]).ok();
        assert!(shown.out.contains("paid, receipt 17"), "{shown:?}");
    });
}
