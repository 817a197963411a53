//! Answers of quoted sentences.
//!
//! Algorithm: the best units by BM25 are weighed again by what they are (a question is no answer, a heading
//! rarely one, a definition is a good one where a definition is asked for), equal texts are dropped, and what
//! comes close to the best is quoted, best first. Whether there is an answer at all is decided by how much of
//! the question the best unit covers. Instructions answer only what no other text does.

use std::cmp::Reverse;

use super::bm25::{Index, Source, Tier};
use super::evidence::{Evidence, shown_name};
use super::query::Query;
use super::quote::{Quote, Wish, bare, excerpt, is_noise, what_follows};
use super::results::Class;
use super::units::{Kind, shown};

/// From this share of the question on, a unit is an answer.
pub(super) const MATCH: f64 = 0.55;
/// From this share on, it is worth showing as the closest one.
const CLOSEST: f64 = 0.25;
/// From this share on, there is no need to look further.
pub(super) const STRONG: f64 = 0.7;
/// What scores less than this share of the best is not quoted beside it.
const BESIDE: f64 = 0.7;
/// How much of a tool's result is quoted where no word of it fits the question.
const MAX_RESULT_UNITS: usize = 8;
/// How many of BM25's best are weighed again.
const CANDIDATES: usize = 64;
/// How well the texts answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// Not at all.
    Nothing,
    /// Something comes close.
    Closest,
    /// Something fits.
    Match,
    /// Something fits so well that there is no need to look further.
    Strong,
}

/// What the texts say to a question, best first.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) fit: Fit,
    pub(super) quotes: Vec<Quote>,
    /// The files that there are, if that is what was asked.
    pub(super) listing: Vec<String>,
}

/// The quotes that answer the question, at most `limit`.
pub(super) fn answer(evidence: &Evidence<'_>, limit: usize) -> Answer {
    if evidence.asks_for_files() {
        let listing = evidence.listed.as_slice().to_vec();
        return Answer {
            fit: Fit::Strong,
            quotes: Vec::new(),
            listing,
        };
    }
    // The files that the question names, then all texts, then the instructions.
    let is_text = |source: &Source<'_>| source.tier < Tier::System && !is_superseded(evidence, source);
    let is_named = |source: &Source<'_>| {
        is_text(source) && source.name.as_deref().is_some_and(|name| evidence.is_named(name))
    };
    let is_instruction = |source: &Source<'_>| source.tier == Tier::System;
    let accepted: [&dyn Fn(&Source<'_>) -> bool; 3] = [&is_named, &is_text, &is_instruction];
    let mut quotes = Vec::new();
    for accept in accepted {
        let found = best(&evidence.index, &evidence.query, evidence.question, accept);
        if fit(&evidence.query, &found) > fit(&evidence.query, &quotes) {
            quotes = found;
        }
        if fit(&evidence.query, &quotes) >= Fit::Match {
            break;
        }
    }
    let mut fit = fit(&evidence.query, &quotes);
    if fit < Fit::Match
        && let Some(result) = result_of_this_turn(evidence)
    {
        (fit, quotes) = (Fit::Match, result);
    }
    let limit = match fit {
        Fit::Nothing => 0,
        Fit::Closest => 1,
        Fit::Match | Fit::Strong => limit,
    };
    let top = quotes.first().map_or(0.0, |quote| quote.score);
    quotes.retain(|quote| quote.score >= top * BESIDE);
    quotes.truncate(limit);
    let mut brought: Vec<usize> = Vec::new();
    quotes.retain(|quote| {
        let is_new = !brought.contains(&quote.unit);
        brought.extend(what_follows(&evidence.index, quote.unit));
        is_new
    });
    for quote in &mut quotes {
        quote.text = excerpt(&quote.text, &evidence.query);
        for unit in what_follows(&evidence.index, quote.unit) {
            let kind = evidence.index.units[unit].kind;
            quote
                .text
                .push_str(if kind == Kind::Item { "\n- " } else { "\n" });
            quote.text.push_str(&shown(kind, evidence.index.text(unit)));
        }
    }
    Answer {
        fit,
        quotes,
        listing: Vec::new(),
    }
}

/// The beginning of what the last tool of this turn returned, unless that tool finds texts: what was asked for is
/// the answer, even if it repeats no word of the question.
fn result_of_this_turn(evidence: &Evidence<'_>) -> Option<Vec<Quote>> {
    let index = &evidence.index;
    let source_of = |name: &str| {
        let is_result =
            |source: &Source<'_>| source.tier == Tier::Result && source.name.as_deref() == Some(name);
        index.sources.iter().rposition(is_result)
    };
    let results = evidence.results().filter(|call| call.is_current);
    let mut results = results.filter(|call| !matches!(call.class, Class::List | Class::Search));
    let (call, source) = results.find_map(|call| Some((call, source_of(call.name)?)))?;
    let units = (0..index.units.len()).filter(|unit| index.units[*unit].source as usize == source);
    let quotes = units.take(MAX_RESULT_UNITS).map(|unit| {
        let kind = index.units[unit].kind;
        Quote {
            text: shown(kind, index.text(unit)),
            source: call.name.to_owned(),
            kind,
            unit,
            coverage: 1.0,
            score: 1.0,
        }
    });
    Some(quotes.collect())
}

/// How well the files and results that tools gave answer the question, for deciding whether to look further.
pub(super) fn fit_of_results(evidence: &Evidence<'_>, snippets_count: bool) -> Fit {
    let read = |source: &Source<'_>| {
        matches!(source.tier, Tier::Document | Tier::Result | Tier::Spoken)
            || (snippets_count && source.tier == Tier::Snippet)
    };
    let quotes = best(&evidence.index, &evidence.query, evidence.question, &read);
    fit(&evidence.query, &quotes)
}

/// The units that speak of a query, weighed, best first, without equal texts.
pub(super) fn best(
    index: &Index<'_>,
    query: &Query,
    question: &str,
    accept: &dyn Fn(&Source<'_>) -> bool,
) -> Vec<Quote> {
    let wish = Wish::of(question);
    let mut quotes: Vec<Quote> = Vec::new();
    for hit in index.search(query, accept, CANDIDATES) {
        let (kind, source) = (index.units[hit.unit].kind, index.source_of(hit.unit));
        let text = shown(kind, index.text(hit.unit));
        if text.is_empty() || is_noise(&text) {
            continue;
        }
        let score = hit.score * (0.4 + 0.6 * hit.coverage) * wish.factor(query, kind, source, &text);
        let source = shown_name(source).to_owned();
        quotes.push(Quote {
            text,
            source,
            kind,
            unit: hit.unit,
            coverage: hit.coverage,
            score,
        });
    }
    quotes.sort_by_key(|quote| (Reverse((quote.score * 1e6).round() as i64), quote.unit));
    let mut seen: Vec<String> = Vec::new();
    quotes.retain(|quote| {
        let bare = bare(&quote.text);
        let is_new = !seen
            .iter()
            .any(|known| known.contains(&bare) && bare.len() * 10 >= known.len() * 8);
        seen.push(bare);
        is_new
    });
    quotes
}

fn fit(query: &Query, quotes: &[Quote]) -> Fit {
    // The best by score decides, not the one that covers most: it is what would be quoted.
    // Filling words alone must all be there, and more than fit by chance.
    let has_content = query.content_words().next().is_some();
    let trust = if has_content { 1.0 } else { 0.5 };
    match quotes.first().map(|quote| quote.coverage * trust) {
        Some(coverage) if coverage >= STRONG => Fit::Strong,
        Some(coverage) if coverage >= MATCH => Fit::Match,
        Some(coverage) if coverage >= CLOSEST => Fit::Closest,
        _ => Fit::Nothing,
    }
}

/// A line that a search found in a file that was read since: the file itself is quoted.
fn is_superseded(evidence: &Evidence<'_>, source: &Source<'_>) -> bool {
    source.tier == Tier::Snippet && source.name.as_deref().is_some_and(|name| evidence.was_read(name))
}

impl Answer {
    /// The answer as text.
    pub(super) fn to_text(&self, evidence: &Evidence<'_>) -> String {
        if !self.listing.is_empty() {
            return self.listing.join("\n");
        }
        let quotes: Vec<String> = self.quotes.iter().map(Quote::to_text).collect();
        match self.fit {
            Fit::Match | Fit::Strong => quotes.join("\n"),
            Fit::Closest => format!(
                "No sentence answers this directly. The closest one: {}",
                quotes.join("\n")
            ),
            Fit::Nothing => nothing(evidence),
        }
    }

    /// The names of the sources that are quoted, each once.
    pub(super) fn sources(&self) -> Vec<&str> {
        let mut sources: Vec<&str> = self.listing.iter().map(String::as_str).collect();
        for quote in &self.quotes {
            if !sources.contains(&quote.source.as_str()) {
                sources.push(&quote.source);
            }
        }
        sources
    }
}

/// Says that nothing was found, and where was looked.
fn nothing(evidence: &Evidence<'_>) -> String {
    let mut names: Vec<&str> = Vec::new();
    for source in evidence
        .index
        .sources
        .iter()
        .filter(|source| source.tier < Tier::System)
    {
        let name = shown_name(source);
        if !names.contains(&name) && names.len() <= 5 {
            names.push(name);
        }
    }
    if names.is_empty() && evidence.calls.is_empty() {
        return "There is nothing to answer from. This is the offline model: it quotes the documents, files and \
                tool results that it is given, and makes nothing up. Give it text, or use another model."
            .to_owned();
    }
    if names.is_empty() {
        return "The tools gave no text that answers this, and the offline model makes nothing up."
            .to_owned();
    }
    let more = if names.len() > 5 { ", .." } else { "" };
    names.truncate(5);
    let mut text = format!(
        "I found no sentence that answers this in what I was given ({}{more}).",
        names.join(", ")
    );
    if evidence.index.unread_bytes > 0 {
        text.push_str(&format!(
            " {} bytes of text were too much to look at.",
            evidence.index.unread_bytes
        ));
    }
    text
}
