//! Ranked search: which passages of the given files best match a question.
//!
//! Algorithm: BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009; k1 = 1.2, b = 0.75)
//! with each passage as a document. A term in the heading above a passage counts half an occurrence. The score is
//! weighed by how much of the question the passage covers, counting rare terms more: passages are short, and one
//! that holds two of the question's words says more than one that holds one of them twice. Lengths are compared
//! within prose and within code, where a passage is a line; shortness is no merit (`mod money;` says little about
//! money), and prose, which is written to be read, weighs a little more. One walk reads the
//! files, within bounds, and counts; the passages that match are scored at the end. Equal scores keep the order
//! of files and lines, so the same files give the same answer.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::Bounds;
use super::passages;
use super::roots::{Roots, open_regular};
use super::terms;
use super::text::{self, Content};
use super::walk::{Missed, walk};

const K1: f32 = 1.2;
const B: f32 = 0.75;
/// How much more than code prose weighs.
const PROSE: f32 = 1.25;
/// A question has at most this many terms.
const MAX_TERMS: usize = 24;
/// At most this many matching passages are kept for scoring.
const MAX_MATCHES: usize = 50_000;

/// What a search found.
#[derive(Debug, Default)]
pub(super) struct Hits {
    /// The best passages, best first.
    pub(super) best: Vec<Hit>,
    /// How many passages match.
    pub(super) matching: usize,
    /// How many files were searched.
    pub(super) files: usize,
    /// What was passed over.
    pub(super) missed: Missed,
}

/// A passage that matches.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Hit {
    /// The file.
    pub(super) path: Arc<str>,
    /// The passage's first line.
    pub(super) line: usize,
    /// The passage on one line.
    pub(super) text: String,
}

/// Searches the given files for a question; gives the best `max_hits` passages.
pub(super) fn search(
    roots: &Roots,
    bounds: &Bounds,
    stop: &AtomicBool,
    question: &str,
    max_hits: usize,
) -> Hits {
    let mut search = Search::new(terms::of_question(question, MAX_TERMS));
    let mut read_bytes = 0_u64;
    let missed = walk(roots, bounds, stop, &mut |found| {
        if read_bytes >= bounds.max_searched_bytes {
            let mib = bounds.max_searched_bytes >> 20;
            return ControlFlow::Break(format!("the first {mib} MiB were searched, the rest was not"));
        }
        if let Ok(file) = open_regular(found.dir, found.name)
            && let Ok(Content::Text { text, .. }) = text::read(file, bounds.max_file_bytes)
        {
            read_bytes += text.len() as u64;
            search.files += 1;
            search.read(found.path, text);
        }
        ControlFlow::Continue(())
    });
    search.finish(max_hits, missed)
}

struct Search {
    terms: Vec<String>,
    /// In how many passages each term occurs.
    spread: Vec<u32>,
    /// Of code and of prose: how many passages there are, and how many terms they have.
    seen: [Seen; 2],
    files: usize,
    matches: Vec<Match>,
    matching: usize,
}

#[derive(Default)]
struct Seen {
    passages: u32,
    terms: u64,
}

impl Seen {
    fn average(&self) -> f32 {
        (self.terms as f32 / self.passages.max(1) as f32).max(1.0)
    }
}

struct Match {
    path: Arc<str>,
    /// The file's text, shared by its matches.
    text: Arc<str>,
    line: usize,
    from: usize,
    to: usize,
    prose: bool,
    /// How many terms the passage has.
    len: u32,
    /// Which of the question's terms occur, and how often.
    counts: Vec<(u8, f32)>,
}

impl Search {
    fn new(terms: Vec<String>) -> Self {
        Self {
            spread: vec![0; terms.len()],
            terms,
            seen: Default::default(),
            files: 0,
            matches: Vec::new(),
            matching: 0,
        }
    }

    fn read(&mut self, path: &str, text: String) {
        let (path, text): (Arc<str>, Arc<str>) = (Arc::from(path), Arc::from(text));
        let prose = passages::is_prose(&path);
        let mut buffer = String::new();
        let mut counts = vec![0_f32; self.terms.len()];
        passages::for_each(&path, &text, |passage| {
            counts.fill(0.0);
            let mut len = 0_u32;
            terms::for_each(passage.text, &mut buffer, |term| {
                len += 1;
                count(&self.terms, &mut counts, term, 1.0);
            });
            let seen = &mut self.seen[usize::from(prose)];
            seen.passages += 1;
            seen.terms += u64::from(len);
            if counts.iter().all(|count| *count == 0.0) {
                return;
            }
            terms::for_each(passage.heading, &mut buffer, |term| {
                count(&self.terms, &mut counts, term, 0.5)
            });
            for (spread, count) in self.spread.iter_mut().zip(&counts) {
                *spread += u32::from(*count > 0.0);
            }
            self.matching += 1;
            if self.matches.len() < MAX_MATCHES {
                let from = passage.text.as_ptr() as usize - text.as_ptr() as usize;
                let present = counts.iter().enumerate().filter(|(_, count)| **count > 0.0);
                self.matches.push(Match {
                    path: Arc::clone(&path),
                    text: Arc::clone(&text),
                    line: passage.line,
                    from,
                    to: from + passage.text.len(),
                    prose,
                    len,
                    counts: present
                        .map(|(term, count)| (u8::try_from(term).unwrap_or(u8::MAX), *count))
                        .collect(),
                });
            }
        });
    }

    fn finish(self, max_hits: usize, mut missed: Missed) -> Hits {
        if self.matching > self.matches.len() {
            missed
                .cut_short
                .get_or_insert_with(|| format!("only the first {MAX_MATCHES} matches were ranked"));
        }
        let averages = self.seen.each_ref().map(Seen::average);
        let passages: f32 = self.seen.iter().map(|seen| seen.passages as f32).sum();
        let rarity = |term: u8| {
            let spread = self.spread.get(usize::from(term)).copied().unwrap_or(0) as f32;
            (1.0 + (passages - spread + 0.5) / (spread + 0.5)).ln()
        };
        let whole: f32 = (0_u8..).take(self.terms.len()).map(rarity).sum();
        let score = |found: &Match| -> f32 {
            let length = (found.len as f32 / averages[usize::from(found.prose)]).max(1.0);
            let norm = K1 * (1.0 - B + B * length);
            let covered: f32 = found.counts.iter().map(|(term, _)| rarity(*term)).sum();
            let bm25: f32 = found
                .counts
                .iter()
                .map(|(term, count)| rarity(*term) * count * (K1 + 1.0) / (count + norm))
                .sum();
            bm25 * covered / whole * if found.prose { PROSE } else { 1.0 }
        };
        let mut ranked: Vec<(f32, &Match)> = self.matches.iter().map(|found| (score(found), found)).collect();
        // Stable: equal scores stay in the order of the walk.
        ranked.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let best = ranked.into_iter().take(max_hits).map(|(_, found)| Hit {
            path: Arc::clone(&found.path),
            line: found.line,
            text: one_line(&found.text[found.from..found.to]),
        });
        Hits {
            best: best.collect(),
            matching: self.matching,
            files: self.files,
            missed,
        }
    }
}

fn count(asked: &[String], counts: &mut [f32], term: &str, weight: f32) {
    if let Some(place) = asked.iter().position(|asked| asked == term) {
        counts[place] += weight;
    }
}

/// The passage with its line breaks and indents as single spaces.
fn one_line(text: &str) -> String {
    text.split_whitespace()
        .fold(String::with_capacity(text.len()), |mut line, word| {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
            line
        })
}
