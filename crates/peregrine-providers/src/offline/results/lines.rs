//! One line of a tool's result: a path, a line that was found in a file, a numbered line, or a notice.

use std::borrow::Cow;

use super::super::values::{has_extension, is_path};

/// `path:12: text`, `path:12:5: text`, `path: text`, `path:12`.
pub(super) fn found_line(line: &str) -> Option<(&str, &str)> {
    let (path, rest) = line.split_once(':')?;
    let path = bare(path);
    if !is_path(path) {
        return None;
    }
    let mut text = rest;
    for _ in 0..2 {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            break;
        }
        match text[digits..].chars().next() {
            None => text = "",
            Some(':' | '-' | '|') => text = &text[digits + 1..],
            Some(_) => break,
        }
    }
    Some((path, text.trim()))
}

/// A line that is only a path, with what listings put around it.
pub(super) fn listed_path(line: &str, lenient: bool) -> Option<&str> {
    let line = bare(line.trim_start_matches(['│', '├', '└', '─', ' ', '\t']));
    let line = ["\t", " (", "  "]
        .iter()
        .fold(line, |line, end| line.split(end).next().unwrap_or(line))
        .trim_end();
    let is_folder = |path: &str| path.ends_with('/') && path.len() > 1 && !path.contains(' ');
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        // The long form of `ls`.
        [mode, _, _, _, .., last]
            if words.len() > 5 && mode.starts_with(['-', 'd', 'l']) && is_path(last) =>
        {
            return Some(last);
        }
        [first, ref others @ ..] if is_path(first) && others.iter().all(|word| is_number(word)) => {
            return Some(first);
        }
        _ => {}
    }
    let is_bare = || {
        words.len() == 1
            && line
                .chars()
                .all(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-'))
    };
    let is_name = is_path(line) || is_folder(line) || (has_extension(line) && !line.contains(": "));
    (is_name || (lenient && is_bare())).then_some(line)
}

fn is_number(word: &str) -> bool {
    word.bytes().all(|b| b.is_ascii_digit())
}

fn bare(text: &str) -> &str {
    let text = text.trim();
    let text = text
        .strip_prefix("- ")
        .or_else(|| text.strip_prefix("* "))
        .unwrap_or(text);
    text.trim_matches(|c: char| matches!(c, '"' | '\'' | '`' | '*' | ' '))
}

pub(super) fn is_mostly_paths(result: &str) -> bool {
    let lines = || result.lines().filter(|line| !line.trim().is_empty()).take(100);
    let paths = lines().filter(|line| found_line(line).is_some() || listed_path(line, false).is_some());
    paths.count() * 2 > lines().count()
}

/// A line by which a tool says how much, or that nothing, was found.
pub(super) fn is_notice(line: &str) -> bool {
    const STARTS: [&str; 10] = [
        "no ",
        "nothing",
        "none",
        "found ",
        "showing",
        "results",
        "matches",
        "search",
        "could not find",
        "files ",
    ];
    const NOUNS: [&str; 8] = [
        "match", "result", "hit", "found", "file", "entries", "lines", "nothing",
    ];
    let line = line.trim();
    if line.len() > 160 {
        return false;
    }
    let lower = line.to_lowercase();
    let starts = lower.starts_with(|c: char| c.is_ascii_digit() || c == '(' || c == '[')
        || STARTS.iter().any(|start| lower.starts_with(start));
    let counts = NOUNS.iter().any(|noun| lower.contains(noun));
    starts && counts && found_line(line).is_none() && without_number(line).is_none()
}

/// `  12: text` and its relatives.
pub(super) fn without_number(line: &str) -> Option<&str> {
    numbered(line).map(|(_, text)| text)
}

fn numbered(line: &str) -> Option<(u64, &str)> {
    let rest = line.trim_start();
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let number = rest[..digits].parse().ok()?;
    let behind = &rest[digits..];
    let text = [": ", "\t", " | ", "| ", "|", "→", ":"]
        .iter()
        .find_map(|mark| behind.strip_prefix(mark));
    match text {
        Some(text) => Some((number, text)),
        None => behind.is_empty().then_some((number, "")),
    }
}

/// The text without the line numbers that a tool put before every line, if it did.
pub(super) fn without_line_numbers(text: &str) -> Cow<'_, str> {
    let mut last = None;
    let mut checked = 0;
    for line in text.lines().filter(|line| !line.trim().is_empty()).take(40) {
        let Some((number, _)) = numbered(line) else {
            return Cow::Borrowed(text);
        };
        if last.is_some_and(|last| number <= last) {
            return Cow::Borrowed(text);
        }
        last = Some(number);
        checked += 1;
    }
    if checked < 2 {
        return Cow::Borrowed(text);
    }
    let lines: Vec<&str> = text
        .lines()
        .map(|line| without_number(line).unwrap_or(line))
        .collect();
    Cow::Owned(lines.join("\n"))
}
