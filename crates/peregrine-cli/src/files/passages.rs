//! Cutting a text into passages: what a search ranks and shows.
//!
//! Prose (Markdown and the like) is wrapped by its authors, so that a sentence spans lines; its passage is the
//! paragraph, list item or table row. In everything else the passage is the line. A passage's place is the
//! number of its first line.

use std::path::Path;

use super::text::clip;

/// A passage is at most this long; longer ones are cut into several.
const MAX_LINES: usize = 12;
const MAX_BYTES: usize = 1_200;

/// A piece of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Passage<'t> {
    /// The number of its first line, from 1.
    pub(super) line: usize,
    /// Its text as it stands in the file, line breaks included.
    pub(super) text: &'t str,
    /// The heading above it.
    pub(super) heading: &'t str,
}

/// Calls `visit` with each passage of a file, in order.
pub(super) fn for_each<'t>(path: &str, text: &'t str, mut visit: impl FnMut(Passage<'t>)) {
    if is_prose(path) {
        prose(text, &mut visit);
    } else {
        for (line, text) in lines(text) {
            if !text.trim().is_empty() {
                visit(Passage {
                    line,
                    text: clip(text, MAX_BYTES),
                    heading: "",
                });
            }
        }
    }
}

/// Whether a file holds text for people rather than for programs.
pub(super) fn is_prose(path: &str) -> bool {
    let path = Path::new(path);
    match path.extension().and_then(|extension| extension.to_str()) {
        Some(extension) => ["md", "markdown", "txt", "rst", "adoc", "org", "text"]
            .iter()
            .any(|prose| extension.eq_ignore_ascii_case(prose)),
        // README, LICENSE-MIT, AUTHORS; not Makefile.
        None => path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| {
                name.len() > 2 && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-')
            }),
    }
}

fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(at, line)| (at + 1, line))
}

fn prose<'t>(text: &'t str, visit: &mut impl FnMut(Passage<'t>)) {
    let mut heading = "";
    let mut fenced = false;
    // The passage being collected: its first line, where it begins and ends in `text`, how many lines.
    let mut open: Option<(usize, usize, usize, usize)> = None;
    let mut flush = |open: &mut Option<(usize, usize, usize, usize)>, heading: &'t str| {
        if let Some((line, from, to, _)) = open.take() {
            visit(Passage {
                line,
                text: clip(&text[from..to], MAX_BYTES),
                heading,
            });
        }
    };
    for (number, line) in lines(text) {
        let from = line.as_ptr() as usize - text.as_ptr() as usize;
        let to = from + line.len();
        let trimmed = line.trim_start();
        let fence = trimmed.starts_with("```") || trimmed.starts_with("~~~");
        if fence {
            fenced = !fenced;
        }
        let alone = fenced || fence || is_heading(line) || trimmed.starts_with('|');
        if trimmed.is_empty() || fence {
            flush(&mut open, heading);
            continue;
        }
        let full = open.is_some_and(|(_, first, _, lines)| lines == MAX_LINES || to - first > MAX_BYTES);
        if alone || full || is_list_item(trimmed) {
            flush(&mut open, heading);
        }
        if !fenced && is_heading(line) {
            heading = line.trim_start_matches('#').trim();
        }
        open = match open {
            Some((first, start, _, lines)) => Some((first, start, to, lines + 1)),
            None => Some((number, from, to, 1)),
        };
        if alone {
            flush(&mut open, heading);
        }
    }
    flush(&mut open, heading);
}

fn is_heading(line: &str) -> bool {
    let marks = line.bytes().take_while(|byte| *byte == b'#').count();
    (1..=6).contains(&marks) && line[marks..].starts_with(' ')
}

fn is_list_item(trimmed: &str) -> bool {
    let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let numbered = (1..=3).contains(&digits) && trimmed[digits..].starts_with(". ");
    numbered || ["- ", "* ", "+ "].iter().any(|mark| trimmed.starts_with(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(path: &str, text: &str) -> Vec<(usize, String, String)> {
        let mut found = Vec::new();
        for_each(path, text, |passage| {
            found.push((passage.line, passage.text.to_owned(), passage.heading.to_owned()))
        });
        found
    }

    fn owned(expected: &[(usize, &str, &str)]) -> Vec<(usize, String, String)> {
        expected
            .iter()
            .map(|(line, text, heading)| (*line, (*text).to_owned(), (*heading).to_owned()))
            .collect()
    }

    #[test]
    fn prose_is_cut_into_paragraphs_items_and_rows_under_their_heading() {
        let text = "# Top\none\ntwo\n\n- item\n  more\n- next\n\n| a | b |\n| c | d |\n## Sub\nlast";
        assert_eq!(
            cut("x.md", text),
            owned(&[
                (1, "# Top", "Top"),
                (2, "one\ntwo", "Top"),
                (5, "- item\n  more", "Top"),
                (7, "- next", "Top"),
                (9, "| a | b |", "Top"),
                (10, "| c | d |", "Top"),
                (11, "## Sub", "Sub"),
                (12, "last", "Sub"),
            ])
        );
    }

    #[test]
    fn code_is_cut_into_lines_also_within_prose() {
        assert_eq!(cut("x.rs", "a\n\n  b"), owned(&[(1, "a", ""), (3, "  b", "")]));
        assert_eq!(
            cut("x.md", "```\n# no heading\nb\n```\nc"),
            owned(&[(2, "# no heading", ""), (3, "b", ""), (5, "c", "")])
        );
    }

    #[test]
    fn prose_is_told_by_the_name() {
        for prose in ["a/README", "LICENSE-MIT", "x.MD", "notes.txt"] {
            assert!(is_prose(prose), "{prose}");
        }
        for code in ["Makefile", "x.rs", "a.md/x", "A", "run"] {
            assert!(!is_prose(code), "{code}");
        }
    }

    #[test]
    fn passages_are_bounded() {
        let long = "word ".repeat(1_000);
        assert!(
            cut("x.txt", &long)
                .iter()
                .all(|(_, text, _)| text.len() <= MAX_BYTES)
        );
        let many = "word\n".repeat(40);
        assert_eq!(
            cut("x.txt", &many)
                .iter()
                .map(|(line, ..)| *line)
                .collect::<Vec<_>>(),
            [1, 13, 25, 37]
        );
    }
}
