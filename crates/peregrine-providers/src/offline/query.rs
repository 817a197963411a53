//! What is looked for: the telling words of a question, hashed, with what they weigh.
//!
//! A word of three to six letters may stand for as many words with these initials, and the other way round:
//! `MSRV` finds "minimum supported Rust version", and that finds `MSRV`.

use std::cmp::Reverse;
use std::ops::Range;

use super::text::{self, Form, Weight, for_each_token};

/// Further words of a question are not looked at.
const MAX_TERMS: usize = 48;

/// What is looked for.
#[derive(Debug, Default)]
pub(super) struct Query {
    pub(super) terms: Vec<Term>,
    /// An acronym of consecutive words, and which terms they are.
    spelled: Vec<(u64, Range<usize>)>,
    /// A bit for the low bits of each hash, to pass over most tokens at once.
    mask: u64,
}

#[derive(Debug)]
pub(super) struct Term {
    hash: u64,
    pub(super) weight: f64,
    stem: String,
    /// As it was written.
    word: String,
    /// Its letters, if it may stand for words with these initials.
    pub(super) acronym: Option<Vec<u8>>,
}

impl Query {
    /// The words of a question; the later texts of `parts` weigh what is said beside them.
    pub(super) fn new(parts: &[(&str, f64)]) -> Self {
        let mut query = Self::default();
        for (part, part_weight) in parts {
            let before = query.terms.len();
            for_each_token(part, &mut |token| {
                let weight = match (token.form, text::weight(token.raw)) {
                    (Form::Piece, _) | (_, Weight::Stop) => return,
                    (_, Weight::Soft) => 0.3,
                    (_, Weight::Content) => 1.0,
                };
                query.add(&token, weight * part_weight);
            });
            query.spell(before);
        }
        query
    }

    fn add(&mut self, token: &text::Token<'_>, weight: f64) {
        let hash = text::hash(token.stem.as_bytes());
        if self.terms.len() == MAX_TERMS || self.terms.iter().any(|term| term.hash == hash) {
            return;
        }
        let letters =
            (3..=6).contains(&token.raw.len()) && token.raw.bytes().all(|b| b.is_ascii_alphabetic());
        self.terms.push(Term {
            hash,
            weight,
            stem: token.stem.to_owned(),
            word: token.raw.to_owned(),
            acronym: letters.then(|| token.raw.to_ascii_lowercase().into_bytes()),
        });
        self.mask |= 1 << (hash & 63);
    }

    /// "minimum supported Rust version" may stand as MSRV in the text.
    fn spell(&mut self, from: usize) {
        for start in from..self.terms.len() {
            for end in start + 3..=self.terms.len().min(start + 6) {
                let initials: Vec<u8> = self.terms[start..end]
                    .iter()
                    .filter_map(|term| term.word.bytes().next())
                    .collect();
                if initials.iter().all(u8::is_ascii_alphabetic) {
                    let hash = acronym_hash(&String::from_utf8_lossy(&initials));
                    self.spelled.push((hash, start..end));
                    self.mask |= 1 << (hash & 63);
                }
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether a normalised word is looked for.
    pub(super) fn has(&self, stem: &str) -> bool {
        self.terms.iter().any(|term| term.stem == stem)
    }

    /// Which term a normalised word is.
    pub(super) fn place_of(&self, stem: &str) -> Option<usize> {
        self.terms.iter().position(|term| term.stem == stem)
    }

    /// The words as they were written, those that say most first.
    pub(super) fn words(&self) -> Vec<&str> {
        let mut words: Vec<&Term> = self.terms.iter().collect();
        words.sort_by_key(|term| Reverse((term.weight * 10.0) as u64));
        words.into_iter().map(|term| term.word.as_str()).collect()
    }

    /// The words that are more than filling, in the order of the question.
    pub(super) fn content_words(&self) -> impl Iterator<Item = &str> {
        self.terms
            .iter()
            .filter(|term| term.weight >= 0.5)
            .map(|term| term.word.as_str())
    }

    /// Adds up how often each term stands in these tokens.
    pub(super) fn count(&self, tokens: &[u64], weight: f64, counts: &mut [f64]) {
        for token in tokens {
            if self.mask >> (token & 63) & 1 == 0 {
                continue;
            }
            if let Some(place) = self.terms.iter().position(|term| term.hash == *token) {
                counts[place] += weight;
            }
            for (_, place) in self.spelled.iter().filter(|(hash, _)| hash == token) {
                for count in &mut counts[place.clone()] {
                    *count = count.max(weight);
                }
            }
        }
    }
}

pub(super) fn is_acronym(token: &text::Token<'_>) -> bool {
    token.form == Form::Word
        && (3..=6).contains(&token.raw.len())
        && token.raw.bytes().all(|b| b.is_ascii_uppercase())
}

/// Apart from the hash of the word: `ART` may be spelled out by a question, `art` may not.
pub(super) fn acronym_hash(word: &str) -> u64 {
    text::hash(word.to_ascii_uppercase().as_bytes()).rotate_left(1)
}
