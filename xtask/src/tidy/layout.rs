//! Rules about which files there are.

use super::{File, Finding};

const WORKSPACE_README: (&str, usize) = ("README.md", 150);
const CRATE_README_LINES: usize = 60;
const CHANGELOG: &str = "CHANGELOG.md";

pub(super) fn readmes(files: &[File], findings: &mut Vec<Finding>) {
    let (path, most_lines) = WORKSPACE_README;
    readme(files, path.to_owned(), most_lines, findings);
    for folder in crates(files) {
        readme(
            files,
            format!("crates/{folder}/README.md"),
            CRATE_README_LINES,
            findings,
        );
    }
}

fn readme(files: &[File], path: String, most_lines: usize, findings: &mut Vec<Finding>) {
    let text = files
        .iter()
        .find(|file| file.path == path)
        .and_then(|file| file.text.as_deref());
    let lines = text.unwrap_or_default().lines().count();
    let message = match lines {
        0 => "is missing or empty".to_owned(),
        lines if lines > most_lines => format!("{lines} lines; at most {most_lines}"),
        _ => return,
    };
    findings.push(Finding {
        path,
        line: 0,
        message,
    });
}

pub(super) fn changelog(files: &[File], findings: &mut Vec<Finding>) {
    if !files.iter().any(|file| file.path == CHANGELOG) {
        findings.push(Finding {
            path: CHANGELOG.to_owned(),
            line: 0,
            message: "is missing".to_owned(),
        });
    }
}

/// Every file directly under `tests/`, and every folder with a `main.rs`, is a program to link of its own.
pub(super) fn one_integration_binary(files: &[File], findings: &mut Vec<Finding>) {
    for file in files.iter().filter(|file| file.path.ends_with(".rs")) {
        let parts: Vec<&str> = file.path.split('/').collect();
        let binary = match parts[..] {
            ["crates", _, "tests", ref rest @ ..] | [_, "tests", ref rest @ ..] => match rest {
                [name] => name,
                [folder, "main.rs"] if *folder != "it" => folder,
                _ => continue,
            },
            _ => continue,
        };
        let message = format!("`{binary}` is a test binary of its own; the only one is tests/it/main.rs");
        findings.push(file.finding(0, message));
    }
}

/// CI does nothing that cannot be done by hand with the same word.
pub(super) fn workflows_call_the_verbs(files: &[File], findings: &mut Vec<Finding>) {
    for file in files
        .iter()
        .filter(|file| file.path.starts_with(".github/workflows/"))
    {
        for (index, line) in file.text.as_deref().unwrap_or_default().lines().enumerate() {
            let command = line.split('#').next().unwrap_or_default();
            let mut words = command.split_whitespace();
            while words.any(|word| word == "cargo") {
                if words.next() != Some("xtask") {
                    findings.push(file.finding(index + 1, "a workflow calls cargo only as `cargo xtask`"));
                }
            }
        }
    }
}

/// The folders in `crates/` that hold a package.
fn crates(files: &[File]) -> impl Iterator<Item = &str> {
    files
        .iter()
        .filter_map(|file| file.path.strip_prefix("crates/")?.strip_suffix("/Cargo.toml"))
}

#[cfg(test)]
mod tests {
    use yaml_rust2::YamlLoader;

    use super::super::found;
    use super::*;

    #[test]
    fn readmes_are_there_and_short() {
        let long = |lines: usize| "x\n".repeat(lines);
        let check = |root: usize, of_crate: usize| {
            let (root, of_crate) = (long(root), long(of_crate));
            let files = [
                ("README.md", root.as_str()),
                ("crates/a/Cargo.toml", ""),
                ("crates/a/README.md", &of_crate),
            ];
            found(readmes, &files)
        };
        assert!(check(150, 60).is_empty());
        assert_eq!(check(151, 60), ["README.md: 151 lines; at most 150"]);
        assert_eq!(check(1, 61), ["crates/a/README.md: 61 lines; at most 60"]);
        assert_eq!(check(1, 0), ["crates/a/README.md: is missing or empty"]);
        assert_eq!(found(readmes, &[("crates/a/Cargo.toml", "")]).len(), 2);
    }

    #[test]
    fn there_is_a_changelog() {
        assert_eq!(
            found(changelog, &[("README.md", "")]),
            ["CHANGELOG.md: is missing"]
        );
        assert!(found(changelog, &[("CHANGELOG.md", "")]).is_empty());
    }

    #[test]
    fn a_crate_has_one_integration_binary() {
        let check = |path| found(one_integration_binary, &[(path, "")]).len();
        assert_eq!(check("crates/a/tests/it/main.rs"), 0);
        assert_eq!(check("crates/a/tests/it/wire.rs"), 0);
        assert_eq!(check("crates/a/tests/it/wire/main.rs"), 0);
        assert_eq!(check("crates/a/tests/wire.rs"), 1);
        assert_eq!(check("crates/a/tests/wire/main.rs"), 1);
        assert_eq!(check("xtask/tests/wire.rs"), 1);
        assert_eq!(check("crates/a/src/tests.rs"), 0);
        assert_eq!(check("crates/a/src/tests/x.rs"), 0);
    }

    #[test]
    fn workflows_only_call_the_verbs() {
        let check = |line| found(workflows_call_the_verbs, &[(".github/workflows/ci.yml", line)]).len();
        assert_eq!(check("- run: cargo xtask ci"), 0);
        assert_eq!(check("- run: cargo test # all"), 1);
        assert_eq!(check("  cargo xtask lint && cargo clippy"), 1);
        assert_eq!(check("# cargo test"), 0);
        assert!(found(workflows_call_the_verbs, &[("a.yml", "cargo test")]).is_empty());
    }

    /// What a workflow may not do by itself it cannot be talked into by a pull request.
    #[test]
    fn workflows_are_yaml_pin_their_actions_and_may_only_read() {
        let folder = crate::command::root().join(".github/workflows");
        let paths: Vec<_> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!(paths.len() >= 2, "{paths:?}");
        for path in paths {
            let text = std::fs::read_to_string(&path).unwrap();
            let parsed = YamlLoader::load_from_str(&text)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let workflow = &parsed[0];
            let here = path.display();
            assert_eq!(
                workflow["permissions"]["contents"].as_str(),
                Some("read"),
                "{here}"
            );
            assert_eq!(workflow["permissions"].as_hash().unwrap().len(), 1, "{here}");
            let jobs = workflow["jobs"]
                .as_hash()
                .unwrap_or_else(|| panic!("{here} has no jobs"));
            for (name, job) in jobs {
                let name = name.as_str().unwrap();
                assert!(
                    job["timeout-minutes"].as_i64().is_some(),
                    "{here}: {name} may run forever"
                );
                let steps = job["steps"]
                    .as_vec()
                    .unwrap_or_else(|| panic!("{here}: {name} has no steps"));
                let checks_out = steps.iter().any(|step| {
                    step["uses"]
                        .as_str()
                        .is_some_and(|uses| uses.contains("checkout"))
                });
                // Who may write runs nothing of the request.
                let writes = job["permissions"].as_hash();
                assert!(writes.is_none_or(|_| !checks_out), "{here}: {name}");
                for step in steps {
                    let (uses, run) = (step["uses"].as_str(), step["run"].as_str());
                    assert!(
                        uses.is_some() != run.is_some(),
                        "{here}: a step of {name} does one thing"
                    );
                    if let Some(uses) = uses {
                        let (action, version) = uses
                            .split_once('@')
                            .unwrap_or_else(|| panic!("{here}: {uses} is not pinned"));
                        assert!(
                            action.starts_with("actions/") && version.starts_with('v'),
                            "{here}: {uses}"
                        );
                    }
                    // What others can name is passed in variables, never pasted into a script.
                    let pasted = run
                        .is_some_and(|run| run.contains("github.event") || run.contains("github.head_ref"));
                    assert!(!pasted, "{here}: {name}");
                }
            }
        }
    }
}
