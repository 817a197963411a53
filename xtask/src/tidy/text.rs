//! Rules about any text file.

use super::{File, Finding};

/// What people write and a formatter does not reach. Data (snapshots, recordings, lock files) stays as it is.
const WRITTEN: [&str; 8] = [".rs", ".toml", ".md", ".yml", ".yaml", ".sh", ".py", ".ci/run"];
/// Written as one word each, they would be found here.
const MACHINE_FOLDERS: [&str; 5] = [
    concat!("/", "work/"),
    concat!("/", "root/"),
    concat!("/", "home/"),
    concat!("/", "Users/"),
    concat!("C:", "\\"),
];
/// On the line of a path that a test really means, such as one a policy must refuse.
const PATH_IS_MEANT: &str = "tidy:allow(machine-path)";

pub(super) fn is_clean(files: &[File], findings: &mut Vec<Finding>) {
    for file in files {
        let Some(text) = WRITTEN.iter().find_map(|ending| file.text_if(ending)) else {
            continue;
        };
        let is_rust = file.path.ends_with(".rs");
        for (index, line) in text.split('\n').enumerate() {
            if line.ends_with([' ', '\t', '\r']) {
                findings.push(file.finding(index + 1, "white space at the end of the line"));
            }
            if is_rust && line.contains('\t') {
                findings.push(file.finding(index + 1, "a tab; in a literal it is written `\\t`"));
            }
        }
        if !text.is_empty() && (!text.ends_with('\n') || text.ends_with("\n\n")) {
            findings.push(file.finding(0, "ends without exactly one line break"));
        }
    }
}

pub(super) fn names_no_path_of_a_machine(files: &[File], findings: &mut Vec<Finding>) {
    for file in files {
        for (index, line) in file.text.as_deref().unwrap_or_default().lines().enumerate() {
            if line.contains(PATH_IS_MEANT) {
                continue;
            }
            for folder in MACHINE_FOLDERS {
                if starts_a_path(line, folder) {
                    let message =
                        format!("`{folder}` is a path of one machine; if it is meant: {PATH_IS_MEANT}");
                    findings.push(file.finding(index + 1, message));
                }
            }
        }
    }
}

/// Whether the path begins there, and is not the middle of a URL or of another path.
fn starts_a_path(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|letter| letter.is_alphanumeric() || "_-.~}*".contains(letter))
    })
}

/// An example that is not compiled is not known to work.
pub(super) fn examples_are_not_ignored(files: &[File], findings: &mut Vec<Finding>) {
    for file in files {
        let is_rust = file.path.ends_with(".rs");
        let Some(text) = file.text_if(".rs").or_else(|| file.text_if(".md")) else {
            continue;
        };
        for (index, line) in text.lines().enumerate() {
            let line = line.trim_start();
            let doc = ["///", "//!"].iter().find_map(|mark| line.strip_prefix(mark));
            let Some(line) = (if is_rust { doc } else { Some(line) }) else {
                continue;
            };
            let line = line.trim_start();
            let info = ["```", "~~~"].iter().find_map(|fence| line.strip_prefix(fence));
            let Some(info) = info else { continue };
            let ignored = info
                .split([',', ' '])
                .any(|word| word == "ignore" || word.starts_with("ignore-"));
            if ignored {
                findings.push(file.finding(
                    index + 1,
                    "an example is compiled: `no_run` or `text`, not `ignore`",
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::found;
    use super::*;

    #[test]
    fn white_space_is_clean() {
        let check = |path, text| found(is_clean, &[(path, text)]);
        assert!(check("a.rs", "//! A.\n    b\n").is_empty());
        assert_eq!(
            check("a.rs", "a \n"),
            ["a.rs:1: white space at the end of the line"]
        );
        assert_eq!(check("a.toml", "a\r\n").len(), 1);
        assert_eq!(check("a.rs", "a\n\tb\n").len(), 1);
        assert!(check("a.md", "a\n\tb\n").is_empty());
        assert_eq!(check(".ci/run", "a").len(), 1);
        assert_eq!(check("a.yml", "a\n\n").len(), 1);
        assert!(check("a.rs", "").is_empty());
        assert!(
            check("tests/data/stream.sse", "data: a \r\n\r\n").is_empty(),
            "data is left alone"
        );
    }

    #[test]
    fn a_path_of_a_machine_is_found() {
        let home = concat!("/", "home/me/x");
        let check = |line: String| found(names_no_path_of_a_machine, &[("a.txt", &line)]).len();
        assert_eq!(check(home.to_owned()), 1);
        assert_eq!(check(format!("see `{home}`")), 1);
        assert_eq!(check(format!("file://{home}")), 1);
        assert_eq!(check(concat!("(/", "root/a)").to_owned()), 1);
        assert_eq!(check(concat!("x=/", "work/a").to_owned()), 1);
        assert_eq!(check(concat!("C:", "\\x").to_owned()), 1);
        assert_eq!(check(format!("https://example.com{home}")), 0);
        assert_eq!(check(format!("{{base}}{home} ~{home} ..{home}")), 0);
        assert_eq!(check(format!("deny(\"{home}\") // tidy:allow(machine-path)")), 0);
    }

    #[test]
    fn an_ignored_example_is_found() {
        let check = |path, text| found(examples_are_not_ignored, &[(path, text)]).len();
        assert_eq!(check("a.rs", "/// ```ignore\n/// x\n/// ```"), 1);
        assert_eq!(check("a.rs", "    //! ```rust,ignore"), 1);
        assert_eq!(check("a.rs", "/// ```ignore-windows"), 1);
        assert_eq!(check("a.md", "```rust ignore"), 1);
        assert_eq!(
            check(
                "a.rs",
                "/// ```no_run\n/// ignore\n/// ```\nlet a = \"```ignore\";"
            ),
            0
        );
        assert_eq!(check("a.md", "```console\nignore\n```"), 0);
    }
}
