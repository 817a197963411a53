//! Recorded provider traffic, decoded by the real clients and compared row by row with what is expected.
//!
//! The recordings are no part of the repository: where the folder is absent the step is skipped. Rows are matched
//! by (name, i). A row that differs, is missing, comes twice or is not known is a failure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::args::Args;
use crate::command::{Cmd, cargo, root};
use crate::report::{Done, Outcome, Problem, say};

const PACKAGE: &str = "peregrine-providers";
const EXAMPLE: &str = "decode";
const EXAMPLE_FILES: [&str; 2] = [
    "crates/peregrine-providers/examples/decode.rs",
    "crates/peregrine-providers/examples/decode/main.rs",
];
const DEFAULT_FOLDER: &str = "../shared/wire";
/// What a row must agree in, besides `usage`, where the decoder may say more than is expected.
const FIELDS: [&str; 4] = ["ok", "text", "tool_calls", "finish"];
const SHOWN_ROWS: usize = 20;
const SHOWN_CHARACTERS: usize = 160;

#[derive(Debug)]
pub(crate) struct Options {
    folder: Option<String>,
    /// Use what `cargo xtask test` built instead of a release build of its own.
    dev: bool,
}

impl Options {
    pub(crate) fn from_args(mut args: Args) -> Result<Self, Problem> {
        let options = Self {
            folder: args.option("--dir")?,
            dev: args.flag("--dev"),
        };
        args.finish()?;
        Ok(options)
    }

    pub(crate) fn for_ci() -> Self {
        Self {
            folder: None,
            dev: true,
        }
    }
}

pub(crate) fn run(options: &Options) -> Outcome {
    let folder = match &options.folder {
        // Relative to where the person stands, while the child process starts in the root.
        Some(folder) => std::path::absolute(folder)
            .map_err(|error| Problem::CouldNotRun(format!("`--dir {folder}`: {error}")))?,
        None => root().join(DEFAULT_FOLDER),
    };
    let expected_path = folder.join("expected.jsonl");
    if !expected_path.exists() {
        let why = format!("there is no {}", expected_path.display());
        // A folder that somebody named must be there; the default one need not.
        let missing = options.folder.is_some();
        return if missing {
            Err(Problem::CouldNotRun(why))
        } else {
            Ok(Done::Skipped(why))
        };
    }
    if !EXAMPLE_FILES.iter().any(|file| root().join(file).exists()) {
        return Ok(Done::Skipped(format!("there is no {}", EXAMPLE_FILES[0])));
    }
    let expected = std::fs::read_to_string(&expected_path)
        .map_err(|error| Problem::CouldNotRun(format!("reading {}: {error}", expected_path.display())))?;
    let decoder = decoder(options.dev)?;
    let (actual, exited_well) = decoder
        .args([folder.join("recordings.jsonl")])
        .captured_even_if_failed()?;
    let comparison = compare(&expected, &actual);
    say!("{}", comparison.describe());
    if !exited_well {
        return Err(Problem::Failed(format!(
            "the decoder failed; {}",
            comparison.counts()
        )));
    }
    if comparison.is_clean() {
        Ok(Done::Noted(comparison.counts()))
    } else {
        Err(Problem::Failed(comparison.counts()))
    }
}

/// The command that decodes, without its argument.
fn decoder(dev: bool) -> Result<Cmd, Problem> {
    if !dev {
        let words = [
            "run",
            "--release",
            "--quiet",
            "--package",
            PACKAGE,
            "--example",
            EXAMPLE,
            "--",
        ];
        return Ok(cargo(words));
    }
    // `cargo run --package` would choose features for this package alone and build its dependencies once more;
    // the build of the whole workspace is already there.
    let words = ["build", "--workspace", "--all-features", "--example", EXAMPLE];
    let messages = cargo(words)
        .args(["--message-format", "json-render-diagnostics"])
        .captured()?;
    let program = messages.lines().filter_map(built_example).next_back();
    let program =
        program.ok_or_else(|| Problem::Failed(format!("cargo did not say where it put {EXAMPLE}")))?;
    Ok(Cmd::new(&program, &program.display().to_string()))
}

/// The path in a message of cargo that reports the example as built.
fn built_example(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let is_it = message["reason"] == "compiler-artifact" && message["target"]["name"] == EXAMPLE;
    is_it
        .then(|| message["executable"].as_str())
        .flatten()
        .map(|path| Path::new(path).to_path_buf())
}

type Key = (String, u64);

#[derive(Debug, Default, PartialEq)]
struct Comparison {
    expected: usize,
    agree: usize,
    /// What differs, by row, as `field: expected .., got ..`.
    differing: BTreeMap<Key, Vec<String>>,
    missing: Vec<Key>,
    unexpected: Vec<Key>,
    unreadable: Vec<String>,
}

fn compare(expected: &str, actual: &str) -> Comparison {
    let mut comparison = Comparison::default();
    let mut got: BTreeMap<Key, Value> = BTreeMap::new();
    for line in actual.lines().filter(|line| !line.trim().is_empty()) {
        match row(line) {
            Some((key, value)) => {
                if got.insert(key.clone(), value).is_some() {
                    comparison.unexpected.push(key);
                }
            }
            None => comparison.unreadable.push(format!("printed: {}", shorten(line))),
        }
    }
    for line in expected.lines().filter(|line| !line.trim().is_empty()) {
        let Some((key, expected)) = row(line) else {
            comparison.unreadable.push(format!("expected: {}", shorten(line)));
            continue;
        };
        match got.remove(&key) {
            // The command prints chat interactions; a row about embeddings counts only where it is printed.
            None if expected["api"] == "embeddings" => continue,
            None => comparison.missing.push(key),
            Some(actual) => {
                let differences = differences(&expected, &actual);
                if differences.is_empty() {
                    comparison.agree += 1;
                } else {
                    comparison.differing.insert(key, differences);
                }
            }
        }
        comparison.expected += 1;
    }
    // Embedding calls that went well have no row to compare with.
    let odd = got
        .into_iter()
        .filter(|(_, actual)| actual["api"] != "embeddings");
    comparison.unexpected.extend(odd.map(|(key, _)| key));
    comparison
}

fn row(line: &str) -> Option<(Key, Value)> {
    let value: Value = serde_json::from_str(line).ok()?;
    let key = (value["name"].as_str()?.to_owned(), value["i"].as_u64()?);
    Some((key, value))
}

fn differences(expected: &Value, actual: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut check = |field: &str, wanted: &Value, got: &Value| {
        if wanted != got {
            let (wanted, got) = (shorten(&wanted.to_string()), shorten(&got.to_string()));
            found.push(format!("{field}: expected {wanted}, got {got}"));
        }
    };
    // A stream that an error ends in the middle has no finish: the rows show what came before the error and still call
    // it ok, where a client must report the error.
    let is_cut = expected["stream"] == true && expected["finish"].is_null() && actual["error"].is_object();
    for field in FIELDS.into_iter().filter(|field| !(is_cut && *field == "ok")) {
        // A row about an error expects none of the fields of an answer.
        if let Some(wanted) = expected.get(field) {
            check(field, wanted, &actual[field]);
        }
    }
    match expected.get("usage") {
        Some(Value::Object(counts)) => {
            for (name, wanted) in counts {
                check(&format!("usage.{name}"), wanted, &actual["usage"][name]);
            }
        }
        Some(wanted) => check("usage", wanted, &actual["usage"]),
        None => {}
    }
    if expected["ok"] == false {
        check("error.status", &expected["status"], &actual["error"]["status"]);
    }
    found
}

impl Comparison {
    fn is_clean(&self) -> bool {
        let Self {
            expected,
            agree,
            differing,
            missing,
            unexpected,
            unreadable,
        } = self;
        let nothing_odd =
            differing.is_empty() && missing.is_empty() && unexpected.is_empty() && unreadable.is_empty();
        nothing_odd && *agree == *expected && *agree > 0
    }

    fn counts(&self) -> String {
        format!(
            "{} of {} rows agree, {} differ, {} missing, {} unexpected, {} unreadable",
            self.agree,
            self.expected,
            self.differing.len(),
            self.missing.len(),
            self.unexpected.len(),
            self.unreadable.len()
        )
    }

    fn describe(&self) -> String {
        let mut lines = Vec::new();
        for ((name, i), differences) in &self.differing {
            let mut line = format!("differs: {name} [{i}]");
            for difference in differences {
                let _ = write!(line, "\n    {difference}");
            }
            lines.push(line);
        }
        lines.extend(
            self.missing
                .iter()
                .map(|(name, i)| format!("missing: {name} [{i}]")),
        );
        lines.extend(
            self.unexpected
                .iter()
                .map(|(name, i)| format!("unexpected: {name} [{i}]")),
        );
        lines.extend(self.unreadable.iter().map(|line| format!("unreadable, {line}")));
        if lines.len() > SHOWN_ROWS {
            let more = lines.len() - SHOWN_ROWS;
            lines.truncate(SHOWN_ROWS);
            lines.push(format!("and {more} more"));
        }
        lines.push(self.counts());
        lines.join("\n")
    }
}

fn shorten(text: &str) -> String {
    let mut characters = text.chars();
    let mut short: String = characters.by_ref().take(SHOWN_CHARACTERS).collect();
    if characters.next().is_some() {
        short.push_str("..");
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"{"name": "a", "i": 0, "api": "anthropic", "status": 200, "ok": true, "text": "Two",
        "tool_calls": [{"name": "f", "arguments": {"x": 1, "y": [2]}}], "finish": "stop",
        "usage": {"input": 3, "output": 4}}"#;
    const ERROR: &str = r#"{"name": "e", "i": 1, "api": "openai-chat", "status": 404, "ok": false}"#;
    const EMBEDDING: &str = r#"{"name": "m", "i": 0, "api": "embeddings", "status": 404, "ok": false}"#;

    fn line(text: &str) -> String {
        text.replace('\n', " ") + "\n"
    }

    #[test]
    fn equal_rows_agree_whatever_the_order_of_rows_and_keys() {
        let expected = line(ANSWER) + &line(ERROR) + &line(EMBEDDING);
        let error = r#"{"error": {"status": 404, "kind": "not_found"}, "ok": false, "i": 1, "name": "e"}"#;
        let answer = ANSWER.replace(r#"{"x": 1, "y": [2]}"#, r#"{"y": [2], "x": 1}"#);
        let answer = answer.replace(r#""output": 4"#, r#""output": 4, "reasoning": 2"#);
        let comparison = compare(&expected, &(line(error) + &line(&answer)));
        assert!(comparison.is_clean(), "{}", comparison.describe());
        assert_eq!((comparison.expected, comparison.agree), (2, 2));
    }

    #[test]
    fn every_field_is_compared() {
        for (from, to) in [
            ("\"Two\"", "\"Tw\""),
            ("\"ok\": true", "\"ok\": false"),
            ("\"x\": 1", "\"x\": 2"),
            ("\"f\"", "\"g\""),
            ("\"stop\"", "\"length\""),
            ("\"stop\"", "null"),
            ("\"input\": 3", "\"input\": 0"),
            ("\"output\": 4", "\"out\": 4"),
            ("\"usage\": {\"input\": 3, \"output\": 4}", "\"usage\": null"),
        ] {
            let actual = ANSWER.replace(from, to);
            assert_ne!(actual, ANSWER, "{from} is not in the row");
            let comparison = compare(&line(ANSWER), &line(&actual));
            assert_eq!(
                comparison.differing.len(),
                1,
                "{from} became {to} and was not seen"
            );
            assert!(!comparison.is_clean());
        }
        let wrong_status = ERROR.replace("\"status\": 404", "\"error\": {\"status\": 500}");
        assert_eq!(compare(&line(ERROR), &line(&wrong_status)).differing.len(), 1);
    }

    #[test]
    fn missing_unexpected_doubled_and_unreadable_rows_are_seen() {
        assert_eq!(compare(&line(ANSWER), "").missing, [("a".to_owned(), 0)]);
        assert_eq!(compare("", &line(ANSWER)).unexpected, [("a".to_owned(), 0)]);
        assert_eq!(
            compare(&line(ANSWER), &(line(ANSWER) + &line(ANSWER)))
                .unexpected
                .len(),
            1
        );
        assert_eq!(
            compare(&line(ANSWER), &(line(ANSWER) + "oops\n")).unreadable,
            ["printed: oops"]
        );
        assert_eq!(compare("{}\n", "").unreadable.len(), 1);
        assert!(!compare("", "").is_clean(), "nothing compared is nothing proved");
    }

    #[test]
    fn the_built_example_is_found_in_the_messages_of_cargo() {
        let message = r#"{"reason":"compiler-artifact","target":{"name":"decode"},"executable":"t/decode"}"#;
        assert_eq!(built_example(message).as_deref(), Some(Path::new("t/decode")));
        assert_eq!(built_example(&message.replace("\"decode\"", "\"other\"")), None);
        assert_eq!(built_example("not json"), None);
    }
}
