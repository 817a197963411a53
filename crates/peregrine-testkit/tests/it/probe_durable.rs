//! The probe's kept runs: killed, gone on with, in doubt, replayed; and tools that somebody decides about.

use std::fs;
use std::io::{BufRead as _, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::probe::{lines, probe};

const REQUEST: &str = "{\"input\": \"Write it down.\"}\n";

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).into_os_string().into_string().unwrap()
    }

    fn stores(&self) -> Vec<String> {
        let mut stores = vec![format!("dir:{}", self.path("dir"))];
        if cfg!(feature = "sqlite") {
            stores.push(format!("sqlite:{}", self.path("runs.db")));
        }
        stores
    }

    fn script(&self, name: &str, answers: &[Value]) -> String {
        let lines: String = answers.iter().map(|answer| format!("{answer}\n")).collect();
        fs::write(self.path(name), lines).unwrap();
        self.path(name)
    }
}

fn writing(text: &str) -> Value {
    json!({"tool_calls": [{"id": "w", "name": "write_line", "arguments": {"text": text}}]})
}

fn start(arguments: &[&str]) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_peregrine-probe"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut &stdin, REQUEST.as_bytes()).unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

/// Reads lines until one is what is waited for.
fn until(lines: &mut Lines<BufReader<ChildStdout>>, is_it: impl Fn(&Value) -> bool) -> Value {
    loop {
        let line = lines.next().expect("it ended too early").unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        if is_it(&line) {
            return line;
        }
    }
}

fn last(output: &Output) -> Value {
    lines(output).pop().unwrap()
}

fn ok(arguments: &[&str], input: &str) -> Vec<Value> {
    let output = probe(arguments, input);
    assert!(output.status.success(), "{output:?}");
    lines(&output)
}

fn refused(arguments: &[&str]) -> Value {
    let output = probe(arguments, "");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    last(&output)["error"].clone()
}

#[test]
fn a_killed_run_goes_on_and_repeats_no_effect() {
    let folder = Folder::new();
    for (at, store) in folder.stores().iter().enumerate() {
        let effects = folder.path(&format!("effects{at}"));
        let endless = folder.script(
            "endless",
            &[writing("once"), json!({"text": "late", "delay_ms": 600_000})],
        );
        let prompt = folder.script("prompt", &[writing("once"), json!({"text": "Written."})]);
        let kept = ["--store", store, "--run", "r1"];
        let tools = ["--effects", &effects, "--allow", "write_line"];
        let agent = |script| [&["agent", "--script", script], &kept[..], &tools].concat();

        let (mut child, mut told) = start(&agent(&endless));
        let opened = until(&mut told, |line| line.get("opened").is_some());
        assert_eq!(opened["opened"]["agent"], Value::Null);
        until(&mut told, |line| line["type"] == "turn" && line["turn"] == 2);
        child.kill().unwrap();
        child.wait().unwrap();

        let resumed = ok(&[&["ckpt", "resume"], &kept[..]].concat(), "");
        assert_eq!(
            resumed[1]["agent"],
            json!({"status": "open", "steps": 2, "in_doubt": []})
        );
        // What was answered before is not asked again: the script goes on behind it. Nobody needs to say the request again.
        let done = ok(&agent(&prompt), "");
        assert_eq!(done[0]["opened"]["agent"]["status"], "open");
        let done = done.last().unwrap()["done"].clone();
        assert_eq!(
            (&done["text"], &done["run_id"]),
            (&json!("Written."), &opened["opened"]["run"])
        );
        assert_eq!(done["tool_calls"].as_array().unwrap().len(), 1);
        assert_eq!(fs::read_to_string(&effects).unwrap().lines().count(), 1);

        // It is over: the same again, without anybody being asked.
        let again = ok(&agent(&endless), "");
        assert_eq!(again.last().unwrap()["done"], done);
        let replayed = ok(&[&["ckpt", "replay"], &kept[..]].concat(), "");
        let (end, records) = replayed.split_last().unwrap();
        assert_eq!(
            (&end["done"]["text"], &end["done"]["over"]),
            (&json!("Written."), &json!(true))
        );
        assert_eq!(end["done"]["records"], records.len());
        assert!(
            records.iter().any(|record| record["what"] == "call_tool"),
            "{records:?}"
        );
        let part = ok(&[&["ckpt", "replay"], &kept[..], &["--upto", "4"]].concat(), "");
        let end = &part.last().unwrap()["done"];
        assert_eq!(
            (part.len(), &end["records"], &end["over"]),
            (5, &json!(4), &json!(false))
        );
    }
}

#[cfg(unix)]
#[test]
fn an_effect_in_doubt_stops_the_run_until_it_is_settled() {
    let folder = Folder::new();
    // A pipe that nobody empties: a long line is announced, begun, and does not come to its end.
    let pipe = folder.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let open = fs::File::options().read(true).write(true).open(&pipe).unwrap();
    let script = folder.script(
        "script",
        &[writing(&"x".repeat(200_000)), json!({"text": "Written."})],
    );
    let store = &folder.stores()[0];
    let kept = ["--store", store, "--run", "r1"];
    let agent = |effects| {
        [
            &["agent", "--script", &script],
            &kept[..],
            &["--allow", "write_line", "--effects", effects],
        ]
        .concat()
    };
    let pipe_agent = agent(&pipe);
    let (mut child, mut told) = start(&pipe_agent);
    until(&mut told, |line| line["type"] == "tool_start");
    // Announced is what counts: it is in the journal before the tool is called.
    let load = [&["ckpt", "load"], &kept[..]].concat();
    let effects = || {
        ok(&load, "")
            .iter()
            .filter(|record| record["kind"] == "effect")
            .count()
    };
    // The call to the model, then that of the tool.
    while effects() < 2 {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    drop(open);

    let effects = folder.path("effects");
    let file_agent = agent(&effects);
    let error = refused(&file_agent);
    assert_eq!(
        (&error["code"], &error["retryable"]),
        (&json!("in_doubt"), &json!(false))
    );
    let resume = [&["ckpt", "resume"], &kept[..]].concat();
    let doubts = ok(&resume, "")[1]["agent"]["in_doubt"].clone();
    assert_eq!(
        (&doubts[0]["name"], &doubts[0]["call_id"]),
        (&json!("write_line"), &json!("w"))
    );
    assert_eq!(error["calls"], json!([doubts[0]["call"]]));
    let wrong = refused(&[&resume[..], &["--resolve", "777=x"]].concat());
    assert_eq!(wrong["code"], "config");
    let settle = format!("{}=half of it", doubts[0]["call"]);
    let settled = ok(&[&resume[..], &["--resolve", &settle]].concat(), "");
    assert_eq!(settled[1]["agent"]["in_doubt"], json!([]));
    let done = ok(&file_agent, "");
    assert_eq!(done.last().unwrap()["done"]["text"], "Written.");
    assert_eq!(fs::read_to_string(&effects).unwrap(), "", "it is not done again");
}

#[test]
fn what_is_no_run_of_an_agent_is_resumed_but_not_replayed() {
    let folder = Folder::new();
    let store = &folder.stores()[0];
    let kept = ["--store", store, "--run", "r1"];
    ok(&[&["ckpt", "write"], &kept[..], &["--count", "3"]].concat(), "");
    let resumed = ok(&[&["ckpt", "resume"], &kept[..]].concat(), "");
    assert_eq!(
        (&resumed[0]["opened"]["next"], &resumed[1]["agent"]),
        (&json!(3), &Value::Null)
    );
    assert_eq!(resumed.len(), 2 + 3 + 1);
    assert_eq!(resumed[5]["done"]["records"], 3);
    let error = refused(&[&["ckpt", "replay"], &kept[..]].concat());
    assert_eq!(error["cause"], "decode", "{error}");
    let missing = refused(&["ckpt", "resume", "--store", store, "--run", "r2"]);
    assert_eq!(missing["cause"], "not_found");
}

#[test]
fn tools_are_decided_about_on_standard_input() {
    let folder = Folder::new();
    let call = |id: &str| json!({"id": id, "name": "write_line", "arguments": {"text": id}});
    let calls = json!({"tool_calls": [call("a"), call("b"), call("c")]});
    let script = folder.script("script", &[calls, json!({"text": "Done."})]);
    let effects = folder.path("effects");
    let agent = [
        "agent",
        "--script",
        &script,
        "--effects",
        &effects,
        "--approve",
        "stdin",
    ];
    // One by its name, before it is asked about; one in its turn; for the third there is nobody any more.
    let decisions =
        "{\"call_id\": \"b\", \"approve\": true}\n\n{\"approve\": false, \"reason\": \"not today\"}\n";
    let told = ok(&agent, &format!("{REQUEST}{decisions}"));
    let asked: Vec<_> = told.iter().filter_map(|line| line.get("approval")).collect();
    assert_eq!(asked.len(), 3, "{told:?}");
    assert_eq!(
        (&asked[0]["arguments"]["text"], &asked[0]["effect"]),
        (&json!("a"), &json!("side_effect"))
    );
    let written = fs::read_to_string(&effects).unwrap();
    assert!(
        written.lines().count() == 1 && written.contains("\"text\":\"b\""),
        "{written}"
    );
    let results: String = told
        .iter()
        .filter(|line| line["type"] == "tool_end")
        .map(Value::to_string)
        .collect();
    assert!(
        results.contains("not today") && results.contains("standard input is at its end"),
        "{results}"
    );
    let done = &told.last().unwrap()["done"];
    let ok_of = |at: usize| done["tool_calls"][at]["ok"].clone();
    assert_eq!(
        [ok_of(0), ok_of(1), ok_of(2)],
        [json!(false), json!(true), json!(false)]
    );

    let nobody = ok(&["agent", "--script", &script, "--effects", &effects], REQUEST);
    assert!(nobody.iter().all(|line| line.get("approval").is_none()));
    assert_eq!(fs::read_to_string(&effects).unwrap(), written);
}
