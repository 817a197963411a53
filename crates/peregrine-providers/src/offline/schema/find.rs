//! Values for the fields of a schema.
//!
//! Each kind of value is looked for in the same places, best first: where a text says `field: value` or `field
//! is value`; in the units that speak of the field; in the quotes that answer the question. Within a scope (one
//! unit for one object of an array) only that unit is looked at.

use serde_json::Value;

use super::super::answer::{Answer, Fit, MATCH, best};
use super::super::bm25::{Source, Tier};
use super::super::evidence::Evidence;
use super::super::quote::{Quote, bare};
use super::super::shape::{Type, json_number};
use super::super::text::{among, for_each_token, stem_of};
use super::super::units::{Kind, shown};
use super::super::values::{Number, dates, emails, names, numbers, plain, urls};
use super::{Field, is_key_of, pairs_of};

/// A schema's searches look at so many tokens in all; what would need more is not found.
const MAX_TOKENS: usize = 50_000_000;
/// How many units that speak of a field are looked at.
const MAX_UNITS: usize = 12;
/// Small texts are looked at as a whole where no unit speaks of what is wanted.
const SMALL_UNITS: usize = 40;

const ANSWERS: &str = "answer answers summary quote quotes sentence sentences explanation reason reasoning \
    evidence response result excerpt passage text content justification";
const SOURCES: &str = "source sources file files path paths citation citations reference references document \
    documents";
const NAMES: &str = "name names person persons people author authors user users customer customers company \
    companies organization organizations city cities country countries place places location \
    locations product products who";

pub(super) struct Finder<'a> {
    evidence: &'a Evidence<'a>,
    answer: &'a Answer,
    searches_left: usize,
    /// The question is a text to take values from too: there is no other.
    question_is_text: bool,
    /// The only unit to look at.
    pub(super) scope: Option<usize>,
}

impl<'a> Finder<'a> {
    pub(super) fn new(evidence: &'a Evidence<'a>, answer: &'a Answer) -> Self {
        let has_text = evidence
            .index
            .sources
            .iter()
            .any(|source| source.tier < Tier::System);
        Self {
            evidence,
            answer,
            searches_left: (MAX_TOKENS / evidence.index.len().max(1)).min(1_000),
            question_is_text: !has_text,
            scope: None,
        }
    }

    fn accepts(&self, source: &Source<'_>) -> bool {
        source.tier < Tier::System || (self.question_is_text && source.tier == Tier::Question)
    }

    /// The units that speak of a field, best first, with how much of it they cover.
    fn units(&mut self, field: &Field<'_>) -> Vec<(usize, f64)> {
        if let Some(unit) = self.scope {
            return vec![(unit, 1.0)];
        }
        if self.searches_left == 0 {
            return Vec::new();
        }
        self.searches_left -= 1;
        let accepts = |source: &Source<'_>| self.accepts(source);
        let found = best(&self.evidence.index, &field.query(), "", &accepts);
        found
            .iter()
            .take(MAX_UNITS)
            .map(|quote| (quote.unit, quote.coverage))
            .collect()
    }

    /// The quotes that answer the question; within a scope there is only the unit.
    fn quotes(&self) -> &'a [Quote] {
        if self.scope.is_none() && self.answer.fit >= Fit::Match {
            &self.answer.quotes
        } else {
            &[]
        }
    }

    /// The unit that answers the question, or the scope; without a question a small text's only unit.
    fn answering(&self) -> Option<usize> {
        let only = || {
            let index = &self.evidence.index;
            let mut accepted = (0..index.units.len()).filter(|unit| self.accepts(index.source_of(*unit)));
            accepted.next().filter(|_| accepted.next().is_none())
        };
        self.scope
            .or_else(|| self.quotes().first().map(|quote| quote.unit))
            .or_else(only)
    }

    fn shown(&self, unit: usize) -> String {
        shown(
            self.evidence.index.units[unit].kind,
            self.evidence.index.text(unit),
        )
    }

    /// What a text gives under the field's own name: `field: value`.
    fn pair(&self, units: &[(usize, f64)], field: &Field<'_>) -> Option<String> {
        let stems = field.stems();
        units.iter().find_map(|(unit, _)| {
            let pairs = pairs_of(self.evidence, *unit);
            pairs
                .iter()
                .find(|pair| is_key_of(pair.key, &stems))
                .map(|pair| pair.value.to_owned())
        })
    }

    pub(super) fn text(&mut self, field: &Field<'_>) -> Option<String> {
        let fits = |text: &String| field.shape.admits_len(text) && !text.is_empty();
        let units = self.units(field);
        let format = field.shape.text("format");
        if !format.is_empty() {
            let answering = self.answering().into_iter();
            let mut places = units.iter().map(|(unit, _)| *unit).chain(answering);
            return places
                .find_map(|unit| of_format(format, self.evidence.index.text(unit)))
                .filter(fits);
        }
        if let Some(value) = self.pair(&units, field).filter(fits) {
            return Some(value);
        }
        if field.is_called("question query") {
            return Some(self.evidence.question.to_owned()).filter(fits);
        }
        if field.is_called(SOURCES) {
            return self
                .quotes()
                .first()
                .map(|quote| quote.source.clone())
                .filter(fits);
        }
        let stems = field.stems();
        let said = units
            .iter()
            .find_map(|(unit, _)| said_of(&stems, &self.shown(*unit)));
        if let Some(said) = said.filter(fits) {
            return Some(said);
        }
        if field.is_called(NAMES) {
            let places = self
                .answering()
                .into_iter()
                .chain(units.iter().map(|(unit, _)| *unit));
            let name = places
                .into_iter()
                .find_map(|unit| names(&self.shown(unit)).first().map(|name| (*name).to_owned()));
            return name.filter(fits);
        }
        if field.is_called(ANSWERS) {
            let scoped = self.scope.map(|unit| self.shown(unit));
            return scoped
                .or_else(|| self.quotes().first().map(|quote| quote.text.clone()))
                .filter(fits);
        }
        if self.scope.is_some() {
            return None;
        }
        let speaks = units
            .iter()
            .find(|(unit, coverage)| *coverage >= MATCH && self.is_statement(*unit));
        speaks.map(|(unit, _)| self.shown(*unit)).filter(fits)
    }

    fn is_statement(&self, unit: usize) -> bool {
        let kind = self.evidence.index.units[unit].kind;
        !matches!(kind, Kind::Heading(_) | Kind::HeaderRow) && !self.evidence.index.text(unit).ends_with('?')
    }

    pub(super) fn number(&mut self, field: &Field<'_>) -> Option<Value> {
        let units = self.units(field);
        let admits = |number: &Number| field.shape.admits(number.value) && whole(field, number);
        if let Some(pair) = self.pair(&units, field) {
            let found = numbers(&pair).into_iter().find(admits);
            return found.and_then(|number| to_json(field, &number));
        }
        let stems = field.stems();
        let near = units
            .iter()
            .find_map(|(unit, _)| nearest(&stems, &self.shown(*unit), &admits));
        let only = || {
            let all: Vec<Number> = numbers(&self.shown(self.answering()?))
                .into_iter()
                .filter(admits)
                .collect();
            <[Number; 1]>::try_from(all).ok().map(|[only]| only)
        };
        near.or_else(only).and_then(|number| to_json(field, &number))
    }

    pub(super) fn flag(&mut self, field: &Field<'_>) -> Option<bool> {
        let units = self.units(field);
        if let Some(pair) = self.pair(&units, field) {
            let word = bare(&pair);
            match word.split(' ').next() {
                Some("true" | "yes" | "on" | "enabled") => return Some(true),
                Some("false" | "no" | "off" | "disabled" | "none") => return Some(false),
                _ => {}
            }
        }
        let stems = field.stems();
        units.iter().find_map(|(unit, _)| {
            let text = self.shown(*unit);
            (self.is_statement(*unit) && position(&stems, &text).is_some()).then(|| !is_negated(&text))
        })
    }

    /// The first allowed value that the texts mention where they speak of the field or answer the question.
    pub(super) fn listed(&mut self, field: &Field<'_>, values: &[Value]) -> Option<Value> {
        if let [only] = values {
            return Some(only.clone());
        }
        self.all_listed(field, values).into_iter().next()
    }

    pub(super) fn all_listed(&mut self, field: &Field<'_>, values: &[Value]) -> Vec<Value> {
        let units = self.units(field);
        let texts = self
            .pair(&units, field)
            .into_iter()
            .chain(self.texts_in_order(&units));
        for text in texts {
            let stems = stemmed(&text);
            let mut found: Vec<(usize, &Value)> = values
                .iter()
                .filter_map(|value| {
                    let wanted = match value {
                        Value::String(word) => stemmed(word),
                        other => other.to_string(),
                    };
                    let at = format!(" {stems} ").find(&format!(" {wanted} "))?;
                    (!wanted.is_empty()).then_some((at, value))
                })
                .collect();
            if !found.is_empty() {
                found.sort_by_key(|(at, _)| *at);
                return found.into_iter().map(|(_, value)| value.clone()).collect();
            }
        }
        Vec::new()
    }

    /// The texts of units and quotes, then those of a small text as a whole, then the question.
    fn texts_in_order(&self, units: &[(usize, f64)]) -> Vec<String> {
        let mut texts: Vec<String> = units.iter().map(|(unit, _)| self.shown(*unit)).collect();
        texts.extend(self.quotes().iter().map(|quote| quote.text.clone()));
        if self.scope.is_none() {
            texts.extend(self.small_text().into_iter().map(|unit| self.shown(unit)));
            texts.push(self.evidence.question.to_owned());
        }
        texts
    }

    /// All units, if there are few.
    fn small_text(&self) -> Vec<usize> {
        let index = &self.evidence.index;
        let accepted = (0..index.units.len()).filter(|unit| self.accepts(index.source_of(*unit)));
        let units: Vec<usize> = accepted.take(SMALL_UNITS + 1).collect();
        if units.len() > SMALL_UNITS {
            Vec::new()
        } else {
            units
        }
    }

    pub(super) fn all_numbers(&mut self, field: &Field<'_>) -> Vec<Value> {
        let units = self.units(field);
        let texts = self.pair(&units, field).into_iter();
        let texts = texts
            .chain(self.answering().map(|unit| self.shown(unit)))
            .chain(units.iter().map(|(unit, _)| self.shown(*unit)));
        for text in texts {
            let found: Vec<Value> = numbers(&text)
                .iter()
                .filter(|number| field.shape.admits(number.value) && whole(field, number))
                .filter_map(|number| to_json(field, number))
                .collect();
            if !found.is_empty() {
                return found;
            }
        }
        Vec::new()
    }

    pub(super) fn all_texts(&mut self, field: &Field<'_>) -> Vec<String> {
        let units = self.units(field);
        let fits = |text: &String| field.shape.admits_len(text) && !text.is_empty();
        let format = field.shape.text("format");
        if !format.is_empty() {
            let places = units.iter().map(|(unit, _)| *unit).chain(self.small_text());
            return places
                .filter_map(|unit| of_format(format, self.evidence.index.text(unit)))
                .filter(fits)
                .collect();
        }
        if let Some(pair) = self.pair(&units, field) {
            return parts_of(&pair).filter(fits).collect();
        }
        if field.is_called(SOURCES) {
            return self
                .answer
                .sources()
                .into_iter()
                .map(str::to_owned)
                .filter(fits)
                .collect();
        }
        let led_in = units.iter().find_map(|(unit, coverage)| {
            let items = self.items_below(*unit);
            (*coverage >= MATCH && !items.is_empty()).then_some(items)
        });
        if let Some(items) = led_in {
            return items.into_iter().filter(fits).collect();
        }
        if field.is_called(NAMES) {
            let mut places: Vec<usize> = units.iter().map(|(unit, _)| *unit).collect();
            places.extend(self.quotes().iter().map(|quote| quote.unit));
            if places.is_empty() {
                places = self.small_text();
            }
            places.sort_unstable();
            let texts: Vec<String> = places.into_iter().map(|unit| self.shown(unit)).collect();
            return texts
                .iter()
                .flat_map(|text| names(text))
                .map(str::to_owned)
                .filter(fits)
                .collect();
        }
        self.quotes()
            .iter()
            .map(|quote| quote.text.clone())
            .filter(fits)
            .collect()
    }

    /// The list items under a heading, or behind a sentence that leads them in.
    fn items_below(&self, unit: usize) -> Vec<String> {
        let index = &self.evidence.index;
        let kind = index.units[unit].kind;
        let leads = index.text(unit).trim_end().ends_with(':') || matches!(kind, Kind::Heading(_));
        let same = |next: &usize| index.units[*next].source == index.units[unit].source;
        (unit + 1..index.units.len())
            .take_while(|next| leads && same(next) && index.units[*next].kind == Kind::Item)
            .map(|next| self.shown(next))
            .collect()
    }

    /// The units that may give an object with fields of these names: table rows with such columns, else what
    /// speaks of the field or the question, else all of a small text.
    pub(super) fn units_for(&mut self, field: &Field<'_>, names: &[Vec<String>]) -> Vec<usize> {
        if self.scope.is_some() {
            return Vec::new();
        }
        let index = &self.evidence.index;
        let rows: Vec<usize> = (0..index.units.len())
            .filter(|unit| index.units[*unit].kind == Kind::Row && self.accepts(index.source_of(*unit)))
            .filter(|unit| {
                let header = index.header_of(*unit).unwrap_or_default();
                let columns: Vec<&str> = super::super::values::cells(header).collect();
                let known = names
                    .iter()
                    .filter(|name| columns.iter().any(|column| is_key_of(column, name)));
                known.count() * 2 > names.len()
            })
            .collect();
        if !rows.is_empty() {
            return rows;
        }
        let mut units: Vec<usize> = self
            .units(field)
            .into_iter()
            .filter(|(_, coverage)| *coverage >= MATCH)
            .map(|(unit, _)| unit)
            .collect();
        units.extend(self.quotes().iter().map(|quote| quote.unit));
        let items: Vec<usize> = units
            .iter()
            .flat_map(|unit| unit + 1..=unit + self.items_below(*unit).len())
            .collect();
        if !items.is_empty() {
            return items;
        }
        let small = self.small_text();
        if small.is_empty() {
            units.sort_unstable();
            units.dedup();
            return units;
        }
        small
    }
}

/// Whether an integer is wanted and this is one.
fn whole(field: &Field<'_>, number: &Number) -> bool {
    field.shape.kind() != Type::Integer || number.value.fract() == 0.0
}

fn to_json(field: &Field<'_>, number: &Number) -> Option<Value> {
    json_number(
        number.value,
        field.shape.kind() == Type::Integer || number.is_whole,
    )
}

/// The first value of a format in a text. Formats that are not known are not found.
fn of_format(format: &str, text: &str) -> Option<String> {
    let found = match format {
        "email" => emails(text).next(),
        "uri" | "url" => urls(text).next(),
        "date" => dates(text).next(),
        "date-time" => text
            .split_whitespace()
            .map(plain)
            .map(|word| word.trim_end_matches('.'))
            .find(|word| {
                dates(word).next().is_some()
                    && word.len() >= 20
                    && word.as_bytes()[10] == b'T'
                    && word.ends_with('Z')
            }),
        _ => None,
    };
    found.map(str::to_owned)
}

/// Where the last word of a field's name ends in a text.
fn position(stems: &[String], text: &str) -> Option<usize> {
    let mut end = None;
    let mut next = 0;
    for_each_token(text, &mut |token| {
        if end.is_none() && stems.get(next).is_some_and(|stem| stem == token.stem) {
            next += 1;
            if next == stems.len() {
                end = Some(token.start + token.raw.len());
            }
        }
    });
    end
}

/// `the MSRV is Rust 1.95` and `the capital of France is Paris`: what is said of the field.
fn said_of(stems: &[String], text: &str) -> Option<String> {
    const VERBS: [&str; 8] = [
        " is ",
        " are ",
        " was ",
        " were ",
        " means ",
        ": ",
        " = ",
        " stands for ",
    ];
    let behind = &text[position(stems, text)?..];
    let (at, verb) = VERBS
        .iter()
        .filter_map(|verb| Some((behind.find(verb)?, *verb)))
        .min()?;
    if behind[..at].split_whitespace().count() > 4 || behind[..at].contains([',', ';', '.']) {
        return None;
    }
    let value = &behind[at + verb.len()..];
    let end = value
        .find([',', ';', '('])
        .into_iter()
        .chain(value.find(". "))
        .min()
        .unwrap_or(value.len());
    let value = plain(value[..end].trim_end_matches(['.', '!']));
    let is_clause = value.split_whitespace().count() > 8;
    let starts_other = ["not ", "a ", "an ", "the "]
        .iter()
        .any(|start| value.starts_with(start))
        && is_clause;
    (!value.is_empty() && !is_clause && !starts_other).then(|| value.to_owned())
}

/// The number nearest to the field's name.
fn nearest(stems: &[String], text: &str, admits: &dyn Fn(&Number) -> bool) -> Option<Number> {
    let at = position(stems, text)?;
    let distance = |number: &Number| number.start.abs_diff(at);
    numbers(text)
        .into_iter()
        .filter(admits)
        .min_by_key(|number| (distance(number), number.start))
}

fn is_negated(text: &str) -> bool {
    const WORDS: &str = "not no never without cannot neither nor none disabled off t nicht kein lacks";
    bare(text).split(' ').any(|word| among(WORDS, word))
}

/// `a, b and c` in its parts.
fn parts_of(list: &str) -> impl Iterator<Item = String> + '_ {
    list.trim_matches(['[', ']'])
        .split([',', ';'])
        .flat_map(|part| part.split(" and "))
        .map(|part| plain(part.trim().trim_start_matches("and ").trim_end_matches('.')).to_owned())
}

fn stemmed(text: &str) -> String {
    let stems: Vec<String> = bare(text).split(' ').map(stem_of).collect();
    stems.join(" ")
}
