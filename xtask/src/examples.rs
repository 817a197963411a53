//! The facade's examples, run as a reader would, without keys: each must succeed, and print what is written beside it.
//!
//! What `NAME.rs` prints stands in `output/NAME.txt`; an example whose output depends on the machine has no such file and
//! need only succeed and print something. `--fix` writes the files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::args::Args;
use crate::command::{Cmd, cargo, root};
use crate::report::{Done, Outcome, Problem, say};

const FOLDER: &str = "crates/peregrine/examples";
const PACKAGE: &str = "crates/peregrine/";
/// Variables that would let an example reach a provider.
const KEYS: &[&str] = &[
    "OPENAI_API_KEY",
    "ANTHROPIC_API_KEY",
    "GEMINI_API_KEY",
    "GOOGLE_API_KEY",
    "OLLAMA_HOST",
];

pub(crate) fn run(mut args: Args) -> Outcome {
    let fix = args.flag("--fix");
    args.finish()?;
    // The features and the profile of the other steps, so that nothing is compiled twice.
    let built = cargo(["build", "--workspace", "--all-features", "--examples"])
        .args(["--message-format", "json-render-diagnostics"])
        .captured()?;
    let programs: BTreeMap<String, PathBuf> = built.lines().filter_map(example).collect();
    let mut wrong = Vec::new();
    for name in names()? {
        let Some(program) = programs.get(&name) else {
            wrong.push(format!("{name}: cargo did not build it"));
            continue;
        };
        let mut command = Cmd::new(program, &format!("{FOLDER}/{name}"));
        for key in KEYS {
            command = command.env_remove(key);
        }
        let (printed, ok) = command.captured_even_if_failed()?;
        let expected = root().join(FOLDER).join("output").join(format!("{name}.txt"));
        if fix && ok && expected.exists() {
            write(&expected, &printed)?;
        }
        wrong.extend(judge(
            &name,
            ok,
            &printed,
            std::fs::read_to_string(&expected).ok().as_deref(),
        ));
    }
    for line in &wrong {
        say!("{line}");
    }
    match wrong.len() {
        0 => Ok(Done::Ok),
        count => Err(Problem::Failed(format!("{count} examples"))),
    }
}

fn write(path: &Path, text: &str) -> Result<(), Problem> {
    std::fs::write(path, text)
        .map_err(|error| Problem::CouldNotRun(format!("could not write {}: {error}", path.display())))
}

fn names() -> Result<Vec<String>, Problem> {
    let folder = root().join(FOLDER);
    let unreadable = |error| Problem::CouldNotRun(format!("could not read {}: {error}", folder.display()));
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "rs")
            && let Some(name) = path.file_stem().and_then(|stem| stem.to_str())
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The name and path in a message of cargo that reports an example of the facade as built.
fn example(message: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let target = &message["target"];
    let is_ours = target["src_path"].as_str()?.replace('\\', "/").contains(PACKAGE);
    if message["reason"] != "compiler-artifact" || target["kind"][0] != "example" || !is_ours {
        return None;
    }
    let path = message["executable"].as_str()?;
    Some((target["name"].as_str()?.to_owned(), PathBuf::from(path)))
}

fn judge(name: &str, ok: bool, printed: &str, expected: Option<&str>) -> Option<String> {
    match expected {
        _ if !ok => Some(format!("{name}: it failed")),
        _ if printed.trim().is_empty() => Some(format!("{name}: it printed nothing")),
        Some(expected) if expected != printed => Some(format!(
            "{name}: it printed something else than output/{name}.txt says (`cargo xtask examples --fix` writes it):\n{printed}"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_is_held_to_its_output() {
        assert_eq!(judge("a", true, "x\n", Some("x\n")), None);
        assert_eq!(judge("a", true, "x\n", None), None);
        for (ok, printed, expected) in [
            (false, "x\n", Some("x\n")),
            (true, "\n", None),
            (true, "y\n", Some("x\n")),
        ] {
            assert!(judge("a", ok, printed, expected).is_some(), "{printed:?}");
        }
    }

    #[test]
    fn only_examples_of_the_facade_count() {
        let message = r#"{"reason":"compiler-artifact","target":{"kind":["example"],"name":"hello",
            "src_path":"/w/crates/peregrine/examples/hello.rs"},"executable":"t/hello"}"#;
        assert_eq!(
            example(message),
            Some(("hello".to_owned(), PathBuf::from("t/hello")))
        );
        assert_eq!(
            example(&message.replace("crates/peregrine/", "crates/peregrine-core/")),
            None
        );
        assert_eq!(
            example(&message.replace("compiler-artifact", "build-finished")),
            None
        );
    }
}
