//! The probe's journals, as scripts use them: written, killed, verified, loaded, forked.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

fn command(arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peregrine-probe"));
    command.arg("ckpt").args(arguments).stdin(Stdio::null());
    command
}

fn ckpt(arguments: &[impl AsRef<OsStr>]) -> (Output, Vec<Value>) {
    let output = command(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let lines = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    (output, lines)
}

fn ok(arguments: &[impl AsRef<OsStr> + std::fmt::Debug]) -> Vec<Value> {
    let (output, lines) = ckpt(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    lines
}

fn refused(arguments: &[impl AsRef<OsStr> + std::fmt::Debug]) -> Value {
    let (output, lines) = ckpt(arguments);
    assert_eq!(output.status.code(), Some(3), "{arguments:?}: {output:?}");
    lines.last().unwrap()["error"].clone()
}

fn stores(folder: &TempDir) -> Vec<String> {
    let path = folder.path().display();
    let mut stores = vec![format!("dir:{path}/dir")];
    if cfg!(feature = "sqlite") {
        stores.push(format!("sqlite:{path}/runs.db"));
    }
    stores
}

#[test]
fn what_was_acknowledged_is_loaded() {
    let folder = TempDir::new().unwrap();
    for store in stores(&folder) {
        for durability in ["on-finish", "process-safe", "power-safe"] {
            let run = ["--store", &store, "--run", durability];
            let write = [
                &["write"],
                &run[..],
                &["--count", "7", "--size", "3000", "--durability", durability],
            ]
            .concat();
            let first = ok(&write);
            let second = ok(&[&write[..], &["--snapshot-every", "5"]].concat());
            let acks = |lines: &[Value]| {
                lines
                    .iter()
                    .filter(|line| line["ack"].is_u64())
                    .cloned()
                    .collect::<Vec<_>>()
            };
            let acknowledged = [acks(&first), acks(&second)].concat();
            assert_eq!(acknowledged.len(), 14);
            assert_eq!(
                (
                    &second[0]["opened"]["next"],
                    &second.last().unwrap()["done"]["next"]
                ),
                (&json!(7), &json!(14))
            );
            let loaded = ok(&[&["load"], &run[..]].concat());
            for (seq, (record, ack)) in loaded.iter().zip(&acknowledged).enumerate() {
                assert_eq!((&record["seq"], &record["bytes"]), (&json!(seq), &json!(3000)));
                assert_eq!((&record["seq"], &record["sha256"]), (&ack["ack"], &ack["sha256"]));
            }
            assert_eq!(loaded.last().unwrap()["done"]["records"], 14);
            let since = ok(&[&["load"], &run[..], &["--since-snapshot"]].concat());
            assert_eq!(
                (&since[0]["seq"], &since[0]["kind"], since.len()),
                (&json!(11), &json!("snapshot"), 4)
            );
            let some = ok(&[&["load"], &run[..], &["--from", "3", "--upto", "6"]].concat());
            assert_eq!((&some[0]["seq"], some.len()), (&json!(3), 4));
            let verified = &ok(&[&["verify"], &run[..]].concat())[0]["verify"];
            assert_eq!(
                (&verified["whole"], &verified["records"]),
                (&json!(true), &json!(14))
            );
        }
    }
}

#[test]
fn a_killed_writer_loses_nothing_that_it_printed() {
    let folder = TempDir::new().unwrap();
    for store in stores(&folder) {
        let run = ["--store", &store, "--run", "killed"];
        let mut acknowledged: Vec<Value> = Vec::new();
        for round in 0..6 {
            let mut child =
                command(&[&["write"], &run[..], &["--count", "1000000", "--size", "700"]].concat())
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let enough = acknowledged.len() + 5 + round * 20;
            while acknowledged.len() < enough {
                let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
                acknowledged.extend(line["ack"].is_u64().then_some(line));
            }
            // Meanwhile nobody else gets the run.
            let leased = refused(&[&["write"], &run[..]].concat());
            assert_eq!(
                (&leased["code"], &leased["cause"]),
                (&json!("refused"), &json!("leased"))
            );
            assert_eq!(leased["retryable"], true);
            child.kill().unwrap();
            child.wait().unwrap();
            // What it still printed before it died; the last line may be cut.
            let rest = lines
                .map_while(Result::ok)
                .filter_map(|line| serde_json::from_str::<Value>(&line).ok());
            acknowledged.extend(rest.filter(|line| line["ack"].is_u64()));
            let loaded = ok(&[&["load"], &run[..]].concat());
            assert!(loaded.len() > acknowledged.len());
            for (record, ack) in loaded.iter().zip(&acknowledged) {
                assert_eq!(
                    (&record["seq"], &record["sha256"]),
                    (&ack["ack"], &ack["sha256"]),
                    "{store}"
                );
            }
            // What it wrote without printing it is there too, and counts.
            let unprinted = loaded[acknowledged.len()..loaded.len() - 1].iter();
            acknowledged
                .extend(unprinted.map(|record| json!({"ack": record["seq"], "sha256": record["sha256"]})));
        }
    }
}

#[test]
fn forks_share_and_missing_runs_are_errors() {
    let folder = TempDir::new().unwrap();
    for store in stores(&folder) {
        let call = |words: &[&'static str], run: &'static str| {
            let run = ["--store", &store, "--run", run].map(str::to_owned);
            let words = words.iter().map(|word| (*word).to_owned());
            words.chain(run).collect::<Vec<_>>()
        };
        let run_ok = |words: &[&'static str], run| ok(&call(words, run));
        run_ok(&["write", "--count", "6"], "root");
        let forked = &run_ok(&["fork", "--upto", "4", "--as", "fork"], "root")[0]["done"];
        assert_eq!(
            (&forked["shared"], &forked["next"], &forked["origin"]["at"]),
            (&json!(4), &json!(5), &json!(4))
        );
        let (root, fork) = (run_ok(&["load"], "root"), run_ok(&["load"], "fork"));
        assert_eq!(root[..4], fork[..4]);
        assert_eq!((&fork[4]["kind"], fork.len()), (&json!("marker"), 6));
        let whole = &run_ok(&["fork"], "root")[0]["done"];
        assert_eq!(whole["shared"], 6);
        for (words, run, code, cause) in [
            (&["load"][..], "nobody", "not_found", "not_found"),
            (
                &["fork", "--upto", "99"],
                "root",
                "invalid_request",
                "out_of_range",
            ),
            (
                &["fork", "--upto", "1", "--as", "fork"],
                "root",
                "invalid_request",
                "already_exists",
            ),
            (
                &["verify", "--scope", "somebody/else"],
                "root",
                "not_found",
                "not_found",
            ),
        ] {
            let error = refused(&call(words, run));
            assert_eq!(
                (&error["code"], &error["cause"]),
                (&json!(code), &json!(cause)),
                "{words:?}"
            );
        }
    }
    let error = refused(&["load", "--store", "nothing:at-all", "--run", "r"]);
    assert_eq!(
        (&error["code"], &error["cause"]),
        (&json!("config"), &json!("config"))
    );
    assert_eq!(ckpt(&["load", "--store", "memory:"]).0.status.code(), Some(2));
}

fn segment(folder: &Path) -> PathBuf {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "seg") {
                return path;
            }
        }
    }
    panic!("there is no segment");
}

#[test]
fn damage_is_told_with_its_place_and_a_tail_is_cut() {
    let folder = TempDir::new().unwrap();
    let store = format!("dir:{}", folder.path().display());
    let run = ["--store", &store, "--run", "r"];
    ok(&[&["write"], &run[..], &["--count", "5", "--size", "100"]].concat());
    let path = segment(folder.path());
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 10]).unwrap();
    let verified = &ok(&[&["verify"], &run[..]].concat())[0]["verify"];
    assert_eq!(
        (&verified["records"], &verified["whole"]),
        (&json!(4), &json!(true))
    );
    assert!(verified["tail"]["offset"].as_u64().unwrap() > 400, "{verified}");
    let written = ok(&[&["write"], &run[..], &["--count", "1", "--size", "100"]].concat());
    assert_eq!(
        (&written[0]["opened"]["tail"]["offset"], &written[1]["ack"]),
        (&verified["tail"]["offset"], &json!(4))
    );

    let mut damaged = fs::read(&path).unwrap();
    let middle = damaged.len() - 350;
    damaged[middle] ^= 1;
    fs::write(&path, damaged).unwrap();
    let (output, lines) = ckpt(&[&["verify"], &run[..]].concat());
    assert_eq!(output.status.code(), Some(3));
    let found = &lines[0]["verify"]["damage"];
    assert_eq!(
        (&lines[0]["verify"]["whole"], &found["cause"]),
        (&json!(false), &json!("damaged"))
    );
    assert!(
        found["offset"].is_u64() && found["place"].as_str().unwrap().ends_with(".seg"),
        "{found}"
    );
    let error = &lines[1]["error"];
    assert_eq!(
        (&error["code"], &error["cause"]),
        (&json!("protocol"), &json!("damaged"))
    );
    let before = found["seq"].to_string();
    let verified = &ok(&[&["verify"], &run[..], &["--upto", &before]].concat())[0]["verify"];
    assert_eq!(
        (&verified["whole"], verified["records"].to_string()),
        (&json!(true), before)
    );
    // What comes before it is printed, then the error.
    let (output, lines) = ckpt(&[&["load"], &run[..]].concat());
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(lines.len() as u64 - 1, found["seq"].as_u64().unwrap());
}
