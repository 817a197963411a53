//! One quote: how good a unit is as an answer, and how it is shown.

use std::ops::Range;

use super::bm25::{Index, Source, Tier};
use super::query::Query;
use super::text::{Form, Weight, for_each_token, weight};
use super::units::Kind;
use super::values::{is_path, prior};

/// Longer units are shown in part.
const MAX_SHOWN_BYTES: usize = 320;
/// How many items a sentence that leads in a list brings with it.
const MAX_ITEMS: usize = 8;

/// A piece of a source.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Quote {
    /// The words, with white space collapsed; items of a list on lines of their own.
    pub(super) text: String,
    pub(super) source: String,
    pub(super) kind: Kind,
    pub(super) unit: usize,
    pub(super) coverage: f64,
    pub(super) score: f64,
}

impl Quote {
    /// The quote with its source; code in back-ticks.
    pub(super) fn to_text(&self) -> String {
        let Self {
            text, source, kind, ..
        } = self;
        if *kind == Kind::Line && !text.contains('`') {
            format!("`{text}` ({source})")
        } else {
            format!("\"{text}\" ({source})")
        }
    }
}

/// What a question wants an answer to look like.
pub(super) struct Wish {
    /// The question's words, bare: an echo of them is no answer.
    echo: String,
    definition: bool,
    number: bool,
}

impl Wish {
    pub(super) fn of(question: &str) -> Self {
        let echo = bare(question);
        let starts = |starts: &[&str]| starts.iter().any(|start| echo.starts_with(start));
        let holds = |words: &[&str]| words.iter().any(|word| echo.contains(word));
        Self {
            definition: starts(&[
                "what is ",
                "what are ",
                "what s ",
                "what does ",
                "define ",
                "who is ",
            ]),
            number: holds(&[
                "how many",
                "how much",
                "how old",
                "how long",
                "when ",
                "version",
                "what year",
            ]),
            echo,
        }
    }

    pub(super) fn factor(&self, query: &Query, kind: Kind, source: &Source<'_>, text: &str) -> f64 {
        let mut factor = match kind {
            Kind::Heading(_) => 0.4,
            Kind::HeaderRow => 0.3,
            Kind::Sentence | Kind::Item | Kind::Row | Kind::Line => 1.0,
        };
        if source.tier == Tier::Snippet {
            factor *= 0.9;
        }
        if text.len() > 150 && text.starts_with(['{', '[', '"']) {
            // A record of data says much and answers little.
            factor *= 0.4;
        }
        if source
            .name
            .as_deref()
            .is_some_and(|name| is_path(name) && prior(name) == 0)
        {
            factor *= 0.4;
        }
        if kind == Kind::Sentence && text.split_whitespace().count() < 3 {
            // "**One journal.**" is a heading in disguise.
            factor *= 0.6;
        }
        if is_link(text) {
            factor *= 0.2;
        }
        if self.definition && kind == Kind::Line {
            factor *= 0.6;
        }
        if text.ends_with(['?', '？']) {
            factor *= 0.3;
        }
        let words = self.echo.split(' ').count();
        if words >= 3 && bare(text).contains(&self.echo) {
            factor *= 0.05;
        }
        if self.number && text.bytes().any(|b| b.is_ascii_digit()) {
            factor *= 1.25;
        }
        if self.definition && defines(query, text) {
            factor *= 1.5;
        }
        if is_phrase(query, text) {
            factor *= 1.2;
        }
        factor
    }
}

/// Whether a text is little more than addresses: badges, link definitions.
fn is_link(text: &str) -> bool {
    if !text.contains("://") {
        return false;
    }
    let plain = text
        .split_whitespace()
        .filter(|word| !word.contains("://") && word.chars().any(char::is_alphabetic));
    plain.count() < 4
}

/// Whether most of a text is runs of letters that nobody reads: keys, hashes, base64.
pub(super) fn is_noise(text: &str) -> bool {
    let run = |word: &&str| word.len() > 40 && word.is_ascii() && !word.contains("://");
    let noise: usize = text.split_whitespace().filter(run).map(str::len).sum();
    noise * 5 > text.len() * 2
}

/// Whether a term of the query is followed by what makes it a definition: `is`, `:`, `=` ..
fn defines(query: &Query, text: &str) -> bool {
    const MARKS: [&str; 12] = [
        "is ",
        "are ",
        "was ",
        "means ",
        "=",
        ":",
        "|",
        "—",
        "–",
        "- ",
        "\" =",
        "stands for ",
    ];
    let mut found = false;
    for_each_token(text, &mut |token| {
        if found
            || token.form == Form::Piece
            || weight(token.raw) != Weight::Content
            || !query.has(token.stem)
        {
            return;
        }
        let behind = text[token.start + token.raw.len()..].trim_start_matches([')', ' ', '*', '`', '"']);
        found = MARKS.iter().any(|mark| behind.starts_with(mark));
    });
    found
}

/// Whether two words of the question stand side by side, in its order.
fn is_phrase(query: &Query, text: &str) -> bool {
    let words: Vec<&str> = query.content_words().collect();
    let mut before: Option<usize> = None;
    let mut found = false;
    for_each_token(text, &mut |token| {
        if found || token.form == Form::Piece || weight(token.raw) == Weight::Stop {
            return;
        }
        let place = query.place_of(token.stem);
        found =
            words.len() > 1 && matches!((before, place), (Some(before), Some(place)) if place == before + 1);
        before = place;
    });
    found
}

/// A long text's clauses that speak most of the query; `..` stands for what is left out.
pub(super) fn excerpt(text: &str, query: &Query) -> String {
    if text.len() <= MAX_SHOWN_BYTES {
        return text.to_owned();
    }
    let mut starts = vec![0];
    for mark in ["; ", " | ", ", ", ". "] {
        starts.extend(text.match_indices(mark).map(|(at, _)| at + mark.len()));
    }
    // A clause may be too long, or there may be none: words will do.
    starts.extend(
        text.match_indices(' ')
            .map(|(at, _)| at + 1)
            .filter(|at| at % 8 == 0),
    );
    starts.sort_unstable();
    starts.dedup();
    let mut terms: Vec<usize> = Vec::new();
    for_each_token(text, &mut |token| {
        if token.form != Form::Piece && weight(token.raw) == Weight::Content && query.has(token.stem) {
            terms.push(token.start);
        }
    });
    let mut best = (0, 0, text.len());
    for (place, start) in starts.iter().enumerate() {
        let ends = starts[place + 1..].iter().copied().chain([text.len()]);
        let Some(end) = ends.take_while(|end| end - start <= MAX_SHOWN_BYTES).last() else {
            continue;
        };
        let speaks = terms.iter().filter(|at| (*start..end).contains(at)).count();
        if speaks > best.0 || best.2 - best.1 > MAX_SHOWN_BYTES {
            best = (speaks, *start, end);
        }
    }
    let (_, start, end) = best;
    if end - start > MAX_SHOWN_BYTES {
        return text.to_owned();
    }
    let before = if start > 0 { ".. " } else { "" };
    let after = if end < text.len() { " .." } else { "" };
    format!(
        "{before}{}{after}",
        text[start..end].trim_end_matches([' ', ',', ';', '|'])
    )
}

/// The list that a sentence leads in, or the first lines under a heading.
pub(super) fn what_follows(index: &Index<'_>, unit: usize) -> Range<usize> {
    let leads = index.text(unit).trim_end().ends_with([':', '：']);
    let (most, belongs): (usize, fn(Kind) -> bool) = match index.units[unit].kind {
        Kind::Heading(_) => (2, |kind| !matches!(kind, Kind::Heading(_))),
        _ if leads => (MAX_ITEMS, |kind| {
            matches!(kind, Kind::Item | Kind::Line | Kind::Row | Kind::HeaderRow)
        }),
        _ => (0, |_| false),
    };
    let source = index.units[unit].source;
    let follow = index.units[unit + 1..].iter().take(most);
    let count = follow
        .take_while(|next| next.source == source && belongs(next.kind))
        .count();
    unit + 1..unit + 1 + count
}

/// Lower-case words and nothing else.
pub(super) fn bare(text: &str) -> String {
    let mut bare = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_alphanumeric() {
            bare.extend(c.to_lowercase());
        } else if !bare.is_empty() && !bare.ends_with(' ') {
            bare.push(' ');
        }
    }
    bare.truncate(bare.trim_end().len());
    bare
}
