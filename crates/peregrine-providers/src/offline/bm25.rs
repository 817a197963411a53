//! Okapi BM25 over the units of a prompt's texts.
//!
//! The ranking function is that of Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and
//! Beyond" (2009), with its weighted fields (BM25F): a unit's own words count whole, the words of the headings
//! above it and of its source's name count in part. Beside the score stands the coverage: which share of what
//! the question asks for (by the weight of its rare words) the unit speaks of. The score ranks, the coverage
//! decides whether a unit is an answer at all.
//!
//! Algorithm: the texts are cut and hashed once into one array of tokens; a search is two linear passes over
//! it (frequencies, scores) and needs memory for the query alone. Ties are broken by place, so the order is
//! total and the same everywhere.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::query::{Query, acronym_hash, is_acronym};
use super::text::{self, Form, Weight, for_each_token};
use super::units::{Kind, Syntax, for_each_unit};

const K1: f64 = 1.2;
const B: f64 = 0.2;
/// What a word of the nearest heading counts; each level above it counts half of that.
const HEADING_WEIGHT: f64 = 0.6;
/// What a word of the source's name counts.
const NAME_WEIGHT: f64 = 0.3;
/// More units than this are not looked at.
const MAX_UNITS: usize = 250_000;
const NONE: u32 = u32::MAX;

/// A text with a name.
#[derive(Debug)]
pub(super) struct Source<'a> {
    /// What it is called: a title, a path, the name of a tool.
    pub(super) name: Option<Cow<'a, str>>,
    pub(super) text: Cow<'a, str>,
    pub(super) tier: Tier,
    pub(super) syntax: Syntax,
}

/// Where a text comes from, and so how far it is to be trusted as an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tier {
    /// A document, or a file that a tool read.
    Document,
    /// The result of a tool that is no document.
    Result,
    /// A line that a search found.
    Snippet,
    /// What the user said beyond the question.
    Spoken,
    /// Instructions.
    System,
    /// The question itself.
    Question,
}

/// A unit of a source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unit {
    pub(super) source: u32,
    pub(super) kind: Kind,
    start: u32,
    end: u32,
    first_token: u32,
    end_token: u32,
    /// The heading above it, or the heading above that, as a place among the units.
    heading: u32,
    /// The header of the table that it is a row of.
    header: u32,
}

/// The units of all texts.
#[derive(Debug, Default)]
pub(super) struct Index<'a> {
    pub(super) sources: Vec<Source<'a>>,
    pub(super) units: Vec<Unit>,
    tokens: Vec<u64>,
    /// The first letter of each token that is a word, for acronyms; else 0.
    initials: Vec<u8>,
    names: Vec<Vec<u64>>,
    /// How much text was left out because there was too much.
    pub(super) unread_bytes: usize,
}

/// A unit that speaks of what is looked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Hit {
    pub(super) unit: usize,
    pub(super) score: f64,
    /// From 0 to 1.
    pub(super) coverage: f64,
}

impl<'a> Index<'a> {
    /// Adds the first `max_bytes` of a text; the rest is left out and counted.
    pub(super) fn add(&mut self, mut source: Source<'a>, max_bytes: usize) {
        let len = source.text.len();
        if len > max_bytes {
            let mut end = max_bytes;
            while !source.text.is_char_boundary(end) {
                end -= 1;
            }
            self.unread_bytes += len - end;
            match &mut source.text {
                Cow::Borrowed(text) => *text = &text[..end],
                Cow::Owned(text) => text.truncate(end),
            }
        }
        if source.text.trim().is_empty() {
            return;
        }
        self.cut(&source);
        let mut name = Vec::new();
        for_each_token(source.name.as_deref().unwrap_or_default(), &mut |token| {
            if text::weight(token.raw) != Weight::Stop {
                name.push(text::hash(token.stem.as_bytes()));
            }
        });
        self.names.push(name);
        self.sources.push(source);
    }

    fn cut(&mut self, source: &Source<'a>) {
        let number = small(self.sources.len());
        let mut heading = NONE;
        let mut header = NONE;
        let mut unread = 0;
        for_each_unit(&source.text, source.syntax, &mut |kind, range| {
            if self.units.len() == MAX_UNITS {
                unread += range.len();
                return;
            }
            let place = small(self.units.len());
            let first_token = small(self.tokens.len());
            for_each_token(&source.text[range.clone()], &mut |token| {
                if text::weight(token.raw) == Weight::Stop {
                    return;
                }
                self.tokens.push(text::hash(token.stem.as_bytes()));
                let initial = token.raw.bytes().next().filter(|_| token.form == Form::Word);
                self.initials.push(initial.map_or(0, |b| b.to_ascii_lowercase()));
                if is_acronym(&token) {
                    self.tokens.push(acronym_hash(token.raw));
                    self.initials.push(0);
                }
            });
            let above = match kind {
                // The nearest heading of a higher level.
                Kind::Heading(level) => {
                    while let Some(unit) = self.units.get(heading as usize) {
                        if matches!(unit.kind, Kind::Heading(above) if above < level) {
                            break;
                        }
                        heading = unit.heading;
                    }
                    std::mem::replace(&mut heading, place)
                }
                _ => heading,
            };
            header = match kind {
                Kind::HeaderRow => place,
                Kind::Row => header,
                _ => NONE,
            };
            self.units.push(Unit {
                source: number,
                kind,
                start: small(range.start),
                end: small(range.end),
                first_token,
                end_token: small(self.tokens.len()),
                heading: above,
                header: if kind == Kind::Row { header } else { NONE },
            });
        });
        self.unread_bytes += unread;
    }

    /// How many tokens a search looks at.
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The text of a unit, as it stands.
    pub(super) fn text(&self, unit: usize) -> &str {
        let Unit {
            source, start, end, ..
        } = self.units[unit];
        &self.sources[source as usize].text[start as usize..end as usize]
    }

    pub(super) fn source_of(&self, unit: usize) -> &Source<'a> {
        &self.sources[self.units[unit].source as usize]
    }

    /// The header row above a table row.
    pub(super) fn header_of(&self, unit: usize) -> Option<&str> {
        let header = self.units[unit].header as usize;
        (header < self.units.len()).then(|| self.text(header))
    }

    /// The units that speak of the query, best first, at most `limit`.
    pub(super) fn search(
        &self,
        query: &Query,
        accept: &dyn Fn(&Source<'_>) -> bool,
        limit: usize,
    ) -> Vec<Hit> {
        if query.is_empty() || self.units.is_empty() {
            return Vec::new();
        }
        let accepted: Vec<bool> = self.sources.iter().map(accept).collect();
        let terms = query.terms.len();
        let mut counts = vec![0.0; terms];
        let (mut with_term, mut units, mut tokens) = (vec![0.0; terms], 0.0, 0.0);
        for unit in self.units.iter().filter(|unit| accepted[unit.source as usize]) {
            counts.fill(0.0);
            self.count_own(query, unit, &mut counts);
            for (with_term, count) in with_term.iter_mut().zip(&counts) {
                *with_term += if *count > 0.0 { 1.0 } else { 0.0 };
            }
            units += 1.0;
            tokens += f64::from(unit.end_token - unit.first_token);
        }
        let mean_len = f64::max(tokens / f64::max(units, 1.0), 1.0);
        let rarity = |with: f64| f64::ln(1.0 + (units - with + 0.5) / (with + 0.5));
        let idf: Vec<f64> = with_term.iter().map(|with| rarity(*with)).collect();
        // A word that stands nowhere counts as the rarest, and the more so the more text there is: in much text
        // it is a strong sign that the answer is not here.
        let unseen = rarity(1.0) * (1.0 + units / (units + 50.0));
        let asked = |term: usize| {
            let rarity = if with_term[term] > 0.0 { idf[term] } else { unseen };
            query.terms[term].weight * rarity.sqrt()
        };
        let asked_in_all: f64 = (0..terms).map(asked).sum();

        let mut best = Best::new(limit);
        let mut above = Above::new(terms);
        for (place, unit) in self.units.iter().enumerate() {
            if !accepted[unit.source as usize] {
                continue;
            }
            counts.fill(0.0);
            self.count_own(query, unit, &mut counts);
            above.update(self, query, unit);
            let len = f64::from(unit.end_token - unit.first_token);
            let damp = K1 * (1.0 - B + B * len / mean_len);
            let (mut score, mut covered) = (0.0, 0.0);
            for term in 0..terms {
                let count = counts[term] + f64::min(above.counts[term], 1.0);
                if count > 0.0 {
                    score += query.terms[term].weight * idf[term] * count * (K1 + 1.0) / (count + damp);
                    covered += asked(term) * f64::min(count / 0.6, 1.0);
                }
            }
            // A source's name alone makes none of its units an answer.
            let speaks =
                counts.iter().any(|count| *count > 0.0) || above.counts.iter().any(|count| *count > 0.5);
            if speaks && score > 0.0 {
                best.offer(Hit {
                    unit: place,
                    score,
                    coverage: covered / asked_in_all,
                });
            }
        }
        best.into_sorted()
    }

    /// The unit's own words, and words of it whose initials spell a term.
    fn count_own(&self, query: &Query, unit: &Unit, counts: &mut [f64]) {
        let range = unit.first_token as usize..unit.end_token as usize;
        query.count(&self.tokens[range.clone()], 1.0, counts);
        let initials = &self.initials[range];
        for (term, count) in query.terms.iter().zip(counts) {
            if *count == 0.0
                && let Some(acronym) = &term.acronym
                && initials.len() >= acronym.len()
                && memchr::memmem::find(initials, acronym).is_some()
            {
                *count = 1.0;
            }
        }
    }
}

/// What the headings above a unit and its source's name say; the same for many units in a row.
struct Above {
    source: u32,
    heading: u32,
    counts: Vec<f64>,
}

impl Above {
    fn new(terms: usize) -> Self {
        Self {
            source: NONE,
            heading: NONE,
            counts: vec![0.0; terms],
        }
    }

    fn update(&mut self, index: &Index<'_>, query: &Query, unit: &Unit) {
        if (self.source, self.heading) == (unit.source, unit.heading) {
            return;
        }
        (self.source, self.heading) = (unit.source, unit.heading);
        self.counts.fill(0.0);
        query.count(&index.names[unit.source as usize], NAME_WEIGHT, &mut self.counts);
        let mut weight = HEADING_WEIGHT;
        let mut heading = unit.heading;
        while let Some(above) = index.units.get(heading as usize).filter(|_| weight > 0.1) {
            query.count(
                &index.tokens[above.first_token as usize..above.end_token as usize],
                weight,
                &mut self.counts,
            );
            weight /= 2.0;
            heading = above.heading;
        }
    }
}

/// The best hits so far. Scores are compared in millionths, so that the last bits of a machine's logarithm
/// cannot change the order.
struct Best {
    limit: usize,
    heap: BinaryHeap<Reverse<(i64, Reverse<usize>, u64)>>,
}

impl Best {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            heap: BinaryHeap::new(),
        }
    }

    fn offer(&mut self, hit: Hit) {
        let rank = (hit.score * 1e6).round() as i64;
        self.heap
            .push(Reverse((rank, Reverse(hit.unit), hit.coverage.to_bits())));
        if self.heap.len() > self.limit {
            self.heap.pop();
        }
    }

    fn into_sorted(self) -> Vec<Hit> {
        let hits = self.heap.into_sorted_vec().into_iter();
        hits.map(|Reverse((rank, Reverse(unit), coverage))| Hit {
            unit,
            score: rank as f64 / 1e6,
            coverage: f64::from_bits(coverage),
        })
        .collect()
    }
}

/// Texts are bounded far below 4 GiB.
fn small(place: usize) -> u32 {
    u32::try_from(place).expect("the bound on text keeps places within 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(texts: &[(&'static str, &'static str)]) -> Index<'static> {
        let mut index = Index::default();
        for (name, text) in texts {
            let source = Source {
                name: Some(Cow::Borrowed(*name)),
                text: Cow::Borrowed(*text),
                tier: Tier::Document,
                syntax: Syntax::of(name),
            };
            index.add(source, usize::MAX);
        }
        index
    }

    fn found<'i>(index: &'i Index<'_>, question: &str) -> Vec<(&'i str, f64)> {
        let hits = index.search(&Query::new(&[(question, 1.0)]), &|_| true, 10);
        hits.iter()
            .map(|hit| (index.text(hit.unit), hit.coverage))
            .collect()
    }

    #[test]
    fn scores_are_those_of_the_formula() {
        // Content words only: six, three and one of them in the three units.
        let index = index(&[("a", "Red fox red hill red barn.\n\nBlue fox river.\n\nMoon.")]);
        let hits = index.search(&Query::new(&[("red fox", 1.0)]), &|_| true, 10);
        let idf = |with: f64| (1.0 + (3.0 - with + 0.5) / (with + 0.5)).ln();
        let part = |idf: f64, count: f64, len: f64| {
            let mean = 10.0 / 3.0;
            idf * count * 2.2 / (count + 1.2 * (0.8 + 0.2 * len / mean))
        };
        let expected = [
            part(idf(1.0), 3.0, 6.0) + part(idf(2.0), 1.0, 6.0),
            part(idf(2.0), 1.0, 3.0),
        ];
        assert_eq!(hits.len(), 2);
        for (hit, expected) in hits.iter().zip(expected) {
            assert!(
                (hit.score - expected).abs() < 1e-5,
                "{} is not {expected}",
                hit.score
            );
        }
        assert!((hits[0].coverage - 1.0).abs() < 1e-9 && hits[1].coverage < 0.5);
    }

    #[test]
    fn headings_names_and_acronyms_count() {
        let index = index(&[
            (
                "guide.md",
                "# Falcon\n\n## Limits\n\nFour by default.\n\n## Other\n\nNothing.",
            ),
            (
                "b.md",
                "The minimum supported Rust version is 1.95.\n\nThe MSRV rises once a year.",
            ),
        ]);
        assert_eq!(
            found(&index, "limits")[1].0,
            "Four by default.",
            "under the heading"
        );
        assert!(found(&index, "guide").is_empty(), "a name alone is no answer");
        assert!(found(&index, "guide limits")[0].1 > found(&index, "banana limits")[0].1);
        let spelled: Vec<&str> = found(&index, "MSRV").iter().map(|(text, _)| *text).collect();
        assert_eq!(
            spelled,
            [
                "The minimum supported Rust version is 1.95.",
                "The MSRV rises once a year."
            ]
        );
        let short = found(&index, "minimum supported rust version");
        assert!(
            short
                .iter()
                .any(|(text, coverage)| text.starts_with("The MSRV") && *coverage > 0.99),
            "{short:?}"
        );
    }

    #[test]
    fn ties_go_by_place_and_limits_hold() {
        let index = index(&[("a", "One fox.\n\nTwo fox.\n\nSix fox."), ("b", "Ten fox.")]);
        let texts: Vec<&str> = found(&index, "fox").iter().map(|(text, _)| *text).collect();
        assert_eq!(texts, ["One fox.", "Two fox.", "Six fox.", "Ten fox."]);
        let query = Query::new(&[("fox", 1.0)]);
        assert_eq!(index.search(&query, &|_| true, 2).len(), 2);
        assert_eq!(
            index
                .search(&query, &|source| source.name.as_deref() == Some("b"), 9)
                .len(),
            1
        );
        assert!(
            index
                .search(&Query::new(&[("the of", 1.0)]), &|_| true, 9)
                .is_empty()
        );
        assert!(Index::default().search(&query, &|_| true, 9).is_empty());
    }

    #[test]
    fn what_is_cut_off_is_counted() {
        let mut index = Index::default();
        let text = "é".repeat(10);
        let source = Source {
            name: None,
            text: Cow::Owned(text),
            tier: Tier::Document,
            syntax: Syntax::Prose,
        };
        index.add(source, 7);
        assert_eq!((index.sources[0].text.len(), index.unread_bytes), (6, 14));
        let lines: &'static str = Box::leak("a1\n\n".repeat(MAX_UNITS + 5).into_boxed_str());
        let index = self::index(&[("a", lines)]);
        assert_eq!((index.units.len(), index.unread_bytes), (MAX_UNITS, 10));
    }
}
