//! The runner as the harness sees it: what it has, and result files of a real run.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use peregrine_harness::drive::{self, ABLATIONS, Effort, Lane, Runners, Session};
use peregrine_harness::environment::Environment;
use peregrine_harness::goals::GOALS;
use peregrine_harness::limits::LIMITS;
use peregrine_harness::protocol::Role;
use peregrine_harness::result::{SuiteResult, schema};
use peregrine_testkit::server::{Endpoint, LlmServer, Reply, Usage};
use serde_json::Value;

fn runners() -> Runners {
    Runners {
        time: PathBuf::from(env!("CARGO_BIN_EXE_peregrine-bench")),
        count: PathBuf::from(env!("CARGO_BIN_EXE_peregrine-bench-counts")),
    }
}

#[test]
fn every_benchmark_has_a_name_of_its_own_and_those_that_are_rated_exist() {
    let listing = drive::list(&runners().time, None, &mut |_| {}).unwrap();
    let names: Vec<&str> = listing.benchmarks.iter().map(|found| found.id.as_str()).collect();
    let different: BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!(names.len(), different.len());
    // What has no benchmark yet has none in its group.
    let is_measured = |name: &str| {
        let group = name.rsplit_once('/').map_or(name, |(group, _)| group).to_owned() + "/";
        names.iter().any(|known| known.starts_with(&group))
    };
    let rated = LIMITS.iter().flat_map(|limit| limit.benchmarks.iter().copied());
    let wanted: Vec<&str> = rated.chain(GOALS.iter().map(|goal| goal.benchmark)).collect();
    for name in wanted.iter().filter(|name| is_measured(name)) {
        assert!(different.contains(name), "there is no {name}");
    }
    assert!(
        wanted.iter().filter(|name| is_measured(name)).count() > 20,
        "most are there"
    );
    for found in &listing.benchmarks {
        let group = found.id.group();
        let beside = || {
            listing
                .benchmarks
                .iter()
                .filter(|other| other.id.group() == group)
        };
        assert!(
            beside().any(|other| other.role == Role::Ours),
            "{group} has nothing of ours"
        );
        if found.id.suite() == ABLATIONS {
            let ways: Vec<&str> = beside().map(|other| other.id.parts()[3]).collect();
            assert_eq!(ways, ["on", "off"], "{group}");
        }
    }
}

#[test]
fn files_of_a_real_run_are_what_the_schema_says() {
    let lane = Lane {
        runners: runners(),
        environment: Environment::of(Path::new(env!("CARGO_MANIFEST_DIR"))),
    };
    let session = Session {
        only: vec!["interrupts/detection/check".to_owned(), "tools".to_owned()],
        effort: Effort {
            rounds: 2,
            warmup: Duration::from_millis(1),
            measure: Duration::from_millis(10),
            ..Effort::quick()
        },
        allocations: true,
        instructions: false,
        hidden: false,
        ollama: None,
    };
    let mut said = Vec::new();
    let sides = drive::run(&[lane], &session, &mut |what| said.push(what.to_owned())).unwrap();
    assert!(
        said.iter()
            .any(|what| what.contains("interrupts/detection/check")),
        "{said:?}"
    );
    let folder = tempfile::tempdir().unwrap();
    let validator = jsonschema::validator_for(&schema()).unwrap();
    assert_eq!(sides[0].keys().collect::<Vec<_>>(), ["interrupts", "tools"]);
    for suite in sides[0].values() {
        assert!(suite.failures.is_empty(), "{:?}", suite.failures);
        let path = suite.write(folder.path()).unwrap();
        let value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let errors: Vec<String> = validator
            .iter_errors(&value)
            .map(|error| error.to_string())
            .collect();
        assert!(errors.is_empty(), "{}: {errors:?}", suite.suite_name);
        for field in [
            "cpu_model",
            "cores",
            "kernel",
            "governor",
            "rustc",
            "profile",
            "features",
            "commit",
            "dirty",
            "date",
        ] {
            assert!(value["environment"].get(field).is_some(), "{field}");
        }
        assert_eq!(
            value["environment"]["profile"], "dev",
            "as the runner says of itself"
        );
        let read = SuiteResult::read(&path).unwrap();
        for result in &read.benchmark_results {
            assert!(
                result.iterations > 0 && result.warmup_iterations > 0,
                "{}",
                result.name
            );
            assert_eq!(result.rounds.len(), 2, "{}", result.name);
            assert_eq!(result.latency_ms.p99.is_some(), result.latency_ms.count >= 1_000);
            let counted = result.counts.allocations_per_op.is_some();
            assert!(
                counted || result.implementation() == "cancellation_token",
                "{}",
                result.name
            );
        }
        let condensed = suite.condensed();
        assert!(validator.is_valid(&serde_json::to_value(&condensed).unwrap()));
    }
}

#[test]
fn what_nobody_knows_is_an_error_that_names_it() {
    let lane = Lane {
        runners: runners(),
        environment: Environment::default(),
    };
    let session = Session {
        only: vec!["executor".to_owned(), "no-such-suite".to_owned()],
        effort: Effort::quick(),
        allocations: false,
        instructions: false,
        hidden: false,
        ollama: None,
    };
    let error = drive::run(&[lane], &session, &mut |_| {}).unwrap_err().chain();
    assert!(error.contains("`no-such-suite`"), "{error}");
}

#[test]
fn the_execution_suite_runs_against_an_ollama_that_is_asked_for() {
    let server = LlmServer::builder()
        .with_models(["tiny:latest"])
        .start_blocking()
        .unwrap();
    // What was read grows with the history, as a model would count it.
    server.set_responder(|request| {
        if request.endpoint != Endpoint::OllamaChat {
            return Reply::standard();
        }
        let messages = request.json().and_then(|body| body["messages"].as_array());
        let read = 10 * messages.map_or(0, Vec::len) as u64;
        Reply::text("a fox").with_usage(Usage::new(read, 2))
    });
    let run = |words: &[&str]| {
        let output = Command::new(runners().time)
            .args(words)
            .env("OLLAMA_HOST", server.url())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, _, said) = run(&["list", "--ollama", "huge"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("has no model huge; it has: tiny:latest"), "{said}");
    assert!(!run(&["list"]).1.contains("ollama"), "only what was asked for");

    let (code, listed, said) = run(&["list", "--ollama", "tiny"]);
    assert_eq!(code, Some(0), "{said}");
    for op in ["single_shot", "multi_turn", "long_running"] {
        let group = format!("execution/{op}/ollama");
        assert!(listed.contains(&format!("{group}/peregrine")), "{listed}");
        let timed = ["run", "--group", &group, "--warmup-ms", "1", "--measure-ms", "1"];
        let (code, measured, said) = run(&[&timed[..], &["--ollama", "tiny"]].concat());
        assert_eq!(code, Some(0), "{group}: {said}");
        assert!(measured.contains(&format!("{group}/reqwest")), "{measured}");
    }
    let asked = server.last_request().unwrap();
    let body = asked.json().unwrap();
    assert_eq!(body["options"]["temperature"].as_f64(), Some(0.0), "{body}");
    assert_eq!(body["options"]["num_predict"], 16, "{body}");
}
