//! Result files: as the schema says, read back as written, and refused where they do not add up.

use std::fs;
use std::path::Path;

use peregrine_harness::error::Error;
use peregrine_harness::protocol::Role;
use peregrine_harness::result::{Counts, SuiteResult, read_all, schema};
use serde_json::{Value, json};

use crate::support::{allocations, result, rounds, suite};

fn example() -> SuiteResult {
    let mut ours = result("s/op/1/ours", Role::Ours, rounds(100.0), allocations(20.0));
    ours.figures.insert("ratio".to_owned(), 2.5);
    suite(vec![
        ours,
        result("s/op/1/floor", Role::Floor, rounds(90.0), Counts::default()),
    ])
}

#[test]
fn the_published_schema_is_the_one_of_the_program() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schema/results-v1.json");
    let published: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(
        published,
        schema(),
        "write it with `cargo run -p peregrine-harness -- schema > benches/schema/results-v1.json`; what old readers \
         would not understand needs a new version"
    );
}

#[test]
fn a_file_is_what_the_schema_says_and_has_the_base_shape() {
    let value = serde_json::to_value(example()).unwrap();
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let errors: Vec<String> = validator
        .iter_errors(&value)
        .map(|error| error.to_string())
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
    let mut wrong = value.clone();
    wrong["benchmark_results"][0]["latency_ms"]["p50"] = json!("fast");
    assert!(!validator.is_valid(&wrong));

    let first = &value["benchmark_results"][0];
    for path in [
        "/suite_name",
        "/environment",
        "/benchmark_results/0/name",
        "/benchmark_results/0/iterations",
        "/benchmark_results/0/warmup_iterations",
        "/benchmark_results/0/latency_ms/p50",
        "/benchmark_results/0/latency_ms/p95",
        "/benchmark_results/0/latency_ms/p99",
        "/benchmark_results/0/latency_ms/mean",
        "/benchmark_results/0/latency_ms/stddev",
        "/benchmark_results/0/latency_ms/min",
        "/benchmark_results/0/latency_ms/max",
        "/benchmark_results/0/latency_ms/count",
        "/benchmark_results/0/throughput_ops_per_sec",
        "/benchmark_results/0/resources/cpu_mean",
        "/benchmark_results/0/resources/cpu_peak",
        "/benchmark_results/0/resources/memory_mean_mb",
        "/benchmark_results/0/resources/memory_peak_mb",
        "/benchmark_results/0/resources/threads_mean",
        "/benchmark_results/0/resources/threads_peak",
        "/benchmark_results/0/confidence_interval/lower",
        "/benchmark_results/0/confidence_interval/upper",
        "/benchmark_results/0/confidence_interval/confidence",
        "/benchmark_results/0/outliers_removed",
    ] {
        assert!(value.pointer(path).is_some(), "{path}");
    }
    assert!(first["throughput_ops_per_sec"].is_null(), "never 1 / mean");
    assert_eq!(first["latency_ms"]["count"], 1_010);
    assert!(first["latency_ms"]["p99"].is_f64());
}

#[test]
fn files_are_read_back_as_they_were_written() {
    let folder = tempfile::tempdir().unwrap();
    let written = example();
    let path = written.write(folder.path()).unwrap();
    assert_eq!(path.file_name().unwrap(), "s.json");
    let read = SuiteResult::read(&path).unwrap();
    // The mean may differ in its last digit, which reading decimal numbers costs.
    assert_eq!(
        read.benchmark_results[0].rounds[0].samples,
        written.benchmark_results[0].rounds[0].samples
    );
    assert_eq!(read.environment, written.environment);
    assert_eq!(read_all(folder.path()).unwrap().len(), 1);
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "nothing unfinished is left"
    );
}

#[test]
fn what_is_no_result_file_is_refused_with_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.json");
    let refused = |text: &str| {
        fs::write(&path, text).unwrap();
        match SuiteResult::read(&path).unwrap_err() {
            Error::Format { path: named, message } => {
                assert_eq!(named, path);
                message
            }
            other => panic!("{other:?}"),
        }
    };
    assert!(refused("{}").contains("schema_version"));
    assert!(refused(r#"{"schema_version": 9}"#).contains("version 9"));
    assert!(refused(r#"{"schema_version": 1}"#).contains("suite_name"));
    assert!(refused("[1, 2").contains("EOF"));
    let mut value = serde_json::to_value(example()).unwrap();
    value["benchmark_results"][0]["rounds"][0]["samples"][0][1] = json!(7_000_000);
    assert!(refused(&value.to_string()).contains("do not add up"));
    value["benchmark_results"][0]["rounds"][0]["samples"][0][1] = json!(u64::MAX);
    value["benchmark_results"][0]["rounds"][0]["samples"][1][1] = json!(u64::MAX);
    assert!(refused(&value.to_string()).contains("do not add up"));

    fs::remove_file(&path).unwrap();
    assert!(matches!(read_all(folder.path()), Err(Error::NothingThere { .. })));
    assert!(matches!(SuiteResult::read(&path), Err(Error::Read { .. })));
    let one = example();
    one.write(folder.path()).unwrap();
    fs::copy(folder.path().join("s.json"), folder.path().join("t.json")).unwrap();
    assert!(
        matches!(read_all(folder.path()), Err(Error::Format { .. })),
        "one suite twice"
    );
}
