//! Rules about `.rs` files.

use super::lexer::code_only;
use super::{File, Finding};

const REASON_ABOVE_LINES: usize = 600;
const NEVER_ABOVE_LINES: usize = 1_000;
const REASON: &str = "//! Long because ";
const REASON_WITHIN_LINES: usize = 20;
const UNFINISHED: [&str; 3] = ["todo", "unimplemented", "dbg"];

fn sources(files: &[File]) -> impl Iterator<Item = (&File, &str)> {
    files.iter().filter_map(|file| Some((file, file.text_if(".rs")?)))
}

pub(super) fn opens_with_a_doc_line(files: &[File], findings: &mut Vec<Finding>) {
    for (file, text) in sources(files) {
        let says = text.lines().next().and_then(|line| line.strip_prefix("//!"));
        if says.is_none_or(|words| words.trim().is_empty()) {
            findings.push(file.finding(1, "opens without a `//!` line that says what the file is"));
        }
    }
}

pub(super) fn is_not_too_long(files: &[File], findings: &mut Vec<Finding>) {
    for (file, text) in sources(files) {
        let lines = text.lines().count();
        let has_reason = text.lines().take(REASON_WITHIN_LINES).any(|line| {
            line.strip_prefix(REASON)
                .is_some_and(|reason| !reason.trim().is_empty())
        });
        if lines > NEVER_ABOVE_LINES {
            let message = format!("{lines} lines; above {NEVER_ABOVE_LINES} a file is split");
            findings.push(file.finding(0, message));
        } else if lines > REASON_ABOVE_LINES && !has_reason {
            let message = format!(
                "{lines} lines; above {REASON_ABOVE_LINES} a file says `{REASON}..` in its first \
                 {REASON_WITHIN_LINES} lines, or is split"
            );
            findings.push(file.finding(0, message));
        }
    }
}

pub(super) fn has_no_unfinished_code(files: &[File], findings: &mut Vec<Finding>) {
    for (file, text) in sources(files) {
        for (number, line) in numbered(&code_only(text)) {
            for name in UNFINISHED {
                if calls_macro(line, name) {
                    findings.push(file.finding(number, format!("`{name}!` is not for committed code")));
                }
            }
        }
    }
}

pub(super) fn ignores_no_test(files: &[File], findings: &mut Vec<Finding>) {
    for (file, text) in sources(files) {
        let code = code_only(text);
        for (start, _) in code.match_indices("#[") {
            // To the bracket that closes the attribute, which may stand lines below.
            let attribute = &code[start..];
            let mut depth = 0_usize;
            let end = attribute.find(|letter| {
                depth = depth.saturating_add_signed(isize::from(letter == '[') - isize::from(letter == ']'));
                letter == ']' && depth == 0
            });
            let attribute = &attribute[..end.unwrap_or(attribute.len())];
            let mut words = attribute.split(|letter: char| !(letter.is_alphanumeric() || letter == '_'));
            let mut words = words.by_ref().filter(|word| !word.is_empty());
            let ignored = match words.next() {
                Some("ignore") => true,
                Some("cfg_attr") => words.any(|word| word == "ignore"),
                _ => false,
            };
            if ignored {
                let line = code[..start].matches('\n').count() + 1;
                findings.push(file.finding(line, "a test is not ignored: it runs, or it goes"));
            }
        }
    }
}

/// Whether `name!` stands there as a word of its own.
fn calls_macro(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + name.len()..].trim_start();
        let starts_a_word = !before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
        starts_a_word && after.starts_with('!') && !after.starts_with("!=")
    })
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

#[cfg(test)]
mod tests {
    use super::super::found;
    use super::*;

    #[test]
    fn a_file_opens_with_a_doc_line() {
        let check = |text| found(opens_with_a_doc_line, &[("a.rs", text)]).len();
        assert_eq!(check("//! What it is.\n"), 0);
        assert_eq!(check("// What it is.\n"), 1);
        assert_eq!(check("\n//! What it is.\n"), 1);
        assert_eq!(check("//!\nuse a;\n"), 1);
        assert_eq!(check(""), 1);
        assert!(found(opens_with_a_doc_line, &[("a.md", "text")]).is_empty());
    }

    #[test]
    fn a_long_file_has_a_reason_and_a_very_long_one_is_split() {
        let file = |top: &str, lines: usize| format!("{top}\n{}", "x\n".repeat(lines - 1));
        let check = |text: String| found(is_not_too_long, &[("a.rs", &text)]).len();
        assert_eq!(check(file("//! A.", 600)), 0);
        assert_eq!(check(file("//! A.", 601)), 1);
        assert_eq!(
            check(file("//! A.\n//! Long because the table is one thing.", 1_000)),
            1,
            "1,001 lines"
        );
        assert_eq!(
            check(file("//! A.\n//! Long because the table is one thing.", 900)),
            0
        );
        assert_eq!(check(file("//! A.\n//! Long because ", 900)), 1);
        let late = "x\n".repeat(30) + &file("//! Long because it is.", 700);
        assert_eq!(check(late), 1);
        assert_eq!(check(file("//! Long because it is.", 1_001)), 1);
    }

    #[test]
    fn unfinished_code_is_found_in_code_only() {
        let check = |text| found(has_no_unfinished_code, &[("a.rs", text)]);
        assert_eq!(
            check("a\n    todo!()\n"),
            ["a.rs:2: `todo!` is not for committed code"]
        );
        assert_eq!(check("std::unimplemented ! {}").len(), 1);
        assert_eq!(check("let x = dbg!(y);").len(), 1);
        assert!(check("// todo!()\nlet a = \"dbg!()\"; my_todo!(); if todo != 1 {}").is_empty());
    }

    #[test]
    fn an_ignored_test_is_found() {
        let check = |text| found(ignores_no_test, &[("a.rs", text)]).len();
        assert_eq!(check("#[test]\n#[ignore]\nfn a() {}"), 1);
        assert_eq!(check("#[ignore = \"slow\"]"), 1);
        assert_eq!(check("#[cfg_attr(\n    not(unix),\n    ignore\n)]"), 1);
        assert_eq!(check("#[cfg_attr(feature = \"a\", derive(X))] fn ignore() {}"), 0);
        assert_eq!(
            check("// #[ignore]\nlet ignore = [1]; #[expect(x, reason = \"#[ignore]\")]"),
            0
        );
    }
}
