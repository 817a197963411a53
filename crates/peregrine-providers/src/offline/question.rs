//! What is asked, told apart from what is said beside it.
//!
//! A user's message may be the question alone, or a text with a question behind (or before) it. The question
//! is what stands behind a label (`Question: ..`), else the last sentences that end in a question mark, else
//! the first paragraph of a short lead-in, else the whole message; the rest is text to answer from.

use super::units::{Syntax, for_each_unit};

/// A longer message without a question mark is a text, not a question.
const MAX_PLAIN_BYTES: usize = 400;

/// The question is not longer than this; what goes beyond is text.
const MAX_QUESTION_BYTES: usize = 2_000;

/// A message's question, and the rest of the message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Asked<'a> {
    /// The question, as it stands.
    pub(super) question: &'a str,
    /// What stands before and behind it.
    pub(super) rest: Vec<&'a str>,
}

/// Takes a message apart.
pub(super) fn asked(message: &str) -> Asked<'_> {
    let whole = |(start, end)| (start, start, end);
    let (before, start, end) = labelled(message)
        .or_else(|| last_question(message).map(whole))
        .unwrap_or_else(|| whole(lead_in(message)));
    let question = message[start..end].trim();
    let rest = [&message[..before], &message[end..]];
    let rest = rest
        .into_iter()
        .map(|text| without_label(text.trim()))
        .filter(|text| !text.is_empty());
    Asked {
        question,
        rest: rest.collect(),
    }
}

const LABELS: [&str; 5] = ["question", "query", "task", "q", "user question"];

/// A line `Question: ..`, or a heading `## Question` with what stands under it: where the label starts, and
/// where the question starts and ends.
fn labelled(message: &str) -> Option<(usize, usize, usize)> {
    let mut at = 0;
    for line in message.split_inclusive('\n') {
        let start = at;
        at += line.len();
        let is_mark = |c: char| matches!(c, '*' | '#' | '[' | ']' | '>' | ' ' | '\t');
        let bare = line.trim_start_matches(is_mark);
        let indent = line.len() - bare.len();
        let Some(label) = LABELS.iter().find(|label| {
            bare.get(..label.len())
                .is_some_and(|b| b.eq_ignore_ascii_case(label))
        }) else {
            continue;
        };
        let behind = bare[label.len()..].trim_start_matches(['*', ' ', ']', '#']);
        let marked = indent > 0 && line.trim_start().starts_with(['#', '[', '*']);
        let (text, line_is_label) = match behind.strip_prefix(':') {
            Some(text) => (
                text.trim_start_matches(['*', ' ', '\t']),
                text.trim_matches(['*', ' ', '\n', '\r']).is_empty(),
            ),
            None if marked && behind.trim().is_empty() => ("", true),
            None => continue,
        };
        let from = if line_is_label {
            at
        } else {
            start + line.len() - text.len()
        };
        let under = &message[from..];
        let lead = under.len() - under.trim_start().len();
        let len = under
            .trim_start()
            .find("\n\n")
            .unwrap_or(under.trim_start().len());
        let end = if line_is_label { from + lead + len } else { at };
        if !message[from..end].trim().is_empty() {
            return Some((start, from, cut(message, from, end)));
        }
    }
    None
}

/// The last run of sentences that end in a question mark.
fn last_question(message: &str) -> Option<(usize, usize)> {
    let mut found: Option<(usize, usize)> = None;
    let mut run_is_open = false;
    for_each_unit(message, Syntax::Prose, &mut |_, range| {
        let is_question = message[range.clone()]
            .trim_end_matches(['"', '\'', ')', '*', '”'])
            .ends_with(['?', '？', '؟']);
        match &mut found {
            Some((_, end)) if is_question && run_is_open => *end = range.end,
            _ if is_question => found = Some((range.start, range.end)),
            _ => {}
        }
        run_is_open = is_question;
    });
    found.map(|(start, end)| (start, cut(message, start, end)))
}

/// A message without any question mark.
fn lead_in(message: &str) -> (usize, usize) {
    let trimmed = message.trim_end().len();
    if trimmed <= MAX_PLAIN_BYTES && !message.trim().contains("\n\n") {
        return (0, trimmed);
    }
    let start = message.len() - message.trim_start().len();
    let paragraph = message[start..].find("\n\n").map_or(trimmed, |len| start + len);
    let line = message[start..].find('\n').map_or(trimmed, |len| start + len);
    let end = if paragraph - start <= MAX_PLAIN_BYTES {
        paragraph
    } else {
        line
    };
    (start, cut(message, start, end))
}

fn without_label(text: &str) -> &str {
    ["context:", "Context:", "Text:", "text:", "Document:", "document:"]
        .iter()
        .find_map(|label| text.strip_prefix(label))
        .unwrap_or(text)
        .trim()
}

/// No further than [`MAX_QUESTION_BYTES`] behind `start`.
fn cut(message: &str, start: usize, end: usize) -> usize {
    let mut end = end.min(start + MAX_QUESTION_BYTES);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(message: &str) -> (&str, Vec<&str>) {
        let asked = asked(message);
        (asked.question, asked.rest)
    }

    #[test]
    fn questions_are_told_from_texts() {
        let none: Vec<&str> = Vec::new();
        assert_eq!(split("What is the MSRV?"), ("What is the MSRV?", none.clone()));
        assert_eq!(
            split("Ada is 36. How old is she? Be brief."),
            ("How old is she?", vec!["Ada is 36.", "Be brief."])
        );
        assert_eq!(split("Who? Where?\nText."), ("Who? Where?", vec!["Text."]));
        assert_eq!(
            split("Summarise README.md"),
            ("Summarise README.md", none.clone())
        );
        assert_eq!(
            split("Question: who is Ada\nContext: Ada is a poet."),
            ("who is Ada", vec!["Ada is a poet."])
        );
        assert_eq!(
            split("Ada is?\n\n[[ ## question ## ]]\nWho is it\n\n[[ ## end"),
            ("Who is it", vec!["Ada is?", "[[ ## end"])
        );
        assert_eq!(
            split("## Question\nWho is it\n\nText."),
            ("Who is it", vec!["Text."])
        );
        assert_eq!(
            split("Extract the person:\n\nAda is 36."),
            ("Extract the person:", vec!["Ada is 36."])
        );
        assert_eq!(split(""), ("", none.clone()));
        assert_eq!(split("水は何ですか？"), ("水は何ですか？", none));
        let long = "word ".repeat(1000);
        let (question, rest) = split(&long);
        assert_eq!((question.len(), rest.len()), (1999, 1));
        assert!(question.len() <= MAX_QUESTION_BYTES);
    }
}
