//! Which tool to call next, if any.
//!
//! Tools are of two sorts. Those that give texts (they list, search or read files, pages, notes) help with any
//! question that the texts at hand do not answer yet; the moves are tried in a fixed order: read what the
//! question names, call what the question asks for, search, read what was found, list, read what was listed.
//! All others are called only if the question speaks of them (BM25 over their names and descriptions), and
//! tools that change something only if it begins with their verb: "send .." but not "how do I send ..".
//!
//! Invariants: no call is made twice with the same arguments in one conversation; no argument is made up; the
//! number of rounds is bounded, and then the answer is given from what is there.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use peregrine_core::{Error, Result, ToolChoice, ToolSpec};
use serde_json::Value;

use super::answer::{Fit, fit_of_results};
use super::arguments::{About, Purpose, fill};
use super::bm25::{Index, Source, Tier};
use super::evidence::{Evidence, is_same_file};
use super::query::Query;
use super::quote::bare;
use super::results::{Class, name_words};
use super::shape::{Shape, Type};
use super::text::{among, for_each_token, stem_of};
use super::units::Syntax;
use super::values::prior;

/// From this share of the question on, a tool is what the question speaks of.
const SPEAKS_OF: f64 = 0.3;
/// From this share on, what it returned is the answer, whatever it says.
const ANSWERS: f64 = 0.5;
/// At most so many texts are read in one round.
const MAX_AT_ONCE: usize = 4;

/// A call to make.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    pub(super) name: String,
    pub(super) arguments: Value,
}

/// What a tool is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Lists,
    Searches,
    Reads,
    Does,
}

struct Tool<'a> {
    spec: &'a ToolSpec,
    shape: Shape<'a>,
    sort: Sort,
    /// How much of the question it covers, if the question speaks of it.
    spoken_of: f64,
}

/// The calls to make next; none if it is time to answer.
pub(super) fn next_calls(
    evidence: &Evidence<'_>,
    specs: &[ToolSpec],
    choice: &ToolChoice,
    parallel: bool,
    max_rounds: usize,
) -> Result<Vec<Call>> {
    if *choice == ToolChoice::None || specs.is_empty() {
        return match choice {
            ToolChoice::Required | ToolChoice::Tool(_) => Err(impossible("no tool is offered")),
            _ => Ok(Vec::new()),
        };
    }
    let tools = looked_at(specs, evidence);
    let planner = Planner {
        evidence,
        tools,
        at_once: if parallel { MAX_AT_ONCE } else { 1 },
    };
    match choice {
        ToolChoice::Tool(name) => {
            let tool = planner.tools.iter().find(|tool| tool.spec.name == *name);
            let tool = tool.ok_or_else(|| impossible(&format!("there is no tool {name:?}")))?;
            planner.forced(std::slice::from_ref(&tool))
        }
        ToolChoice::Required => {
            let calls = planner.moves(true);
            if !calls.is_empty() {
                return Ok(calls);
            }
            let mut tools: Vec<&Tool<'_>> = planner.tools.iter().collect();
            tools.sort_by_key(|tool| Reverse((tool.spoken_of * 1e6) as i64));
            planner.forced(&tools)
        }
        _ if evidence.rounds >= max_rounds => Ok(Vec::new()),
        _ => Ok(planner.moves(false)),
    }
}

fn impossible(why: &str) -> Error {
    Error::invalid_request(format!(
        "the offline model was told to call a tool and cannot: {why}; use the tool choice auto"
    ))
}

struct Planner<'a> {
    evidence: &'a Evidence<'a>,
    tools: Vec<Tool<'a>>,
    at_once: usize,
}

impl Planner<'_> {
    /// The first move that is still open. `must` leaves out the question whether there is an answer already.
    fn moves(&self, must: bool) -> Vec<Call> {
        let reads: Vec<&Tool<'_>> = self.sort(Sort::Reads).collect();
        let can_read = !reads.is_empty();
        let candidates = self.candidates();
        let read = |wanted: &dyn Fn(&Candidate) -> bool| {
            let paths = candidates
                .iter()
                .filter(|candidate| wanted(candidate))
                .map(|candidate| candidate.path.as_str());
            self.read(&reads, paths)
        };
        let named = read(&|candidate| candidate.is_named);
        if !named.is_empty() {
            return named;
        }
        if self.evidence.is_about_files() {
            let listed = self.list();
            if !listed.is_empty() || (!must && self.evidence.asks_for_files()) {
                return listed;
            }
        }
        let fit = fit_of_results(self.evidence, !can_read);
        let answered = self.answered();
        if !must && (answered >= ANSWERS || (answered > 0.0 && fit >= Fit::Match)) {
            return Vec::new();
        }
        let asked_for = self.asked_for();
        if !asked_for.is_empty() {
            return asked_for;
        }
        if !must && (fit == Fit::Strong || (answered > 0.0 && fit >= Fit::Closest)) {
            return Vec::new();
        }
        let is_read = |candidate: &Candidate| candidate.is_named && self.evidence.was_read(&candidate.path);
        if !must && candidates.iter().any(is_read) {
            return Vec::new();
        }
        let found = read(&|candidate| candidate.found > 0 && candidate.prior > 0);
        if !found.is_empty() {
            return found;
        }
        if !must && fit == Fit::Match {
            return Vec::new();
        }
        if self.evidence.query.is_empty() {
            // A greeting: there is nothing to look for.
            return Vec::new();
        }
        let words = search_words(&self.evidence.query);
        let (together, alone) = words.split_at(words.len().min(1));
        let moves: [&dyn Fn() -> Vec<Call>; 5] = [
            &|| self.search(together),
            &|| self.search(alone),
            &|| self.list(),
            &|| read(&|candidate| candidate.found > 0 || candidate.similar > 0),
            &|| read(&|candidate| candidate.prior > 0),
        ];
        moves
            .iter()
            .map(|attempt| attempt())
            .find(|calls| !calls.is_empty())
            .unwrap_or_default()
    }

    fn sort(&self, sort: Sort) -> impl Iterator<Item = &Tool<'_>> + Clone {
        self.tools.iter().filter(move |tool| tool.sort == sort)
    }

    /// A call of a tool with what it is about, unless it cannot be filled or was made before.
    fn call(&self, tool: &Tool<'_>, about: About<'_>) -> Option<Call> {
        let arguments = fill(&tool.shape, about, self.evidence).ok()?;
        let is_new = !self.evidence.was_called(&tool.spec.name, &arguments);
        is_new.then(|| Call {
            name: tool.spec.name.clone(),
            arguments,
        })
    }

    fn read<'t, 'p>(&self, tools: &[&'t Tool<'t>], paths: impl Iterator<Item = &'p str>) -> Vec<Call> {
        let mut calls = Vec::new();
        for path in paths {
            // A text that one tool has given need not come from another one too.
            let about = About {
                path: Some(path),
                ..About::default()
            };
            if !self.evidence.was_read(path)
                && let Some(call) = tools.iter().find_map(|tool| self.call(tool, about))
                && !calls.contains(&call)
            {
                calls.push(call);
            }
            if calls.len() == self.at_once {
                break;
            }
        }
        calls
    }

    fn search(&self, words: &[Vec<&str>]) -> Vec<Call> {
        let calls = words.iter().filter_map(|words| {
            let about = About {
                words,
                ..About::default()
            };
            self.sort(Sort::Searches).find_map(|tool| self.call(tool, about))
        });
        calls.take(self.at_once).collect()
    }

    /// The root first, then the folders that were listed.
    fn list(&self) -> Vec<Call> {
        let root = self.sort(Sort::Lists).find_map(|tool| {
            let was_called = self.evidence.calls.iter().any(|call| call.name == tool.spec.name);
            if was_called {
                None
            } else {
                let about = About {
                    lists: true,
                    ..About::default()
                };
                self.call(tool, about)
            }
        });
        if let Some(root) = root {
            return vec![root];
        }
        let folders = self
            .evidence
            .listed
            .as_slice()
            .iter()
            .filter(|path| path.ends_with('/'));
        let mut calls: Vec<Call> = folders
            .filter_map(|folder| {
                let about = About {
                    folder: Some(folder.trim_end_matches('/')),
                    ..About::default()
                };
                let call = self.sort(Sort::Lists).find_map(|tool| self.call(tool, about))?;
                // A tool without a parameter for the folder would list the root again.
                call.arguments
                    .as_object()
                    .is_some_and(|arguments| !arguments.is_empty())
                    .then_some(call)
            })
            .take(self.at_once)
            .collect();
        calls.dedup();
        calls
    }

    /// The tool that the question speaks of most, and that was not called for it yet.
    fn asked_for(&self) -> Vec<Call> {
        let words: Vec<&str> = self.evidence.query.content_words().collect();
        let about = About {
            words: &words,
            path: self.first_path(),
            folder: None,
            lists: false,
        };
        let mut tools: Vec<&Tool<'_>> = self
            .sort(Sort::Does)
            .filter(|tool| tool.spoken_of > 0.0)
            .collect();
        tools.sort_by_key(|tool| Reverse((tool.spoken_of * 1e6) as i64));
        let is_open = |tool: &&&Tool<'_>| {
            let current =
                |call: &&super::evidence::PastCall<'_>| call.is_current && call.name == tool.spec.name;
            self.evidence.calls.iter().find(current).is_none()
        };
        tools
            .iter()
            .filter(is_open)
            .find_map(|tool| self.call(tool, about))
            .into_iter()
            .collect()
    }

    fn first_path(&self) -> Option<&str> {
        self.evidence.mentioned.first().map(String::as_str)
    }

    /// How much of the question the tools cover that have answered in this turn.
    fn answered(&self) -> f64 {
        let current = self.evidence.results().filter(|call| call.is_current);
        let tools = current.filter_map(|call| self.sort(Sort::Does).find(|tool| tool.spec.name == call.name));
        tools.map(|tool| tool.spoken_of).fold(0.0, f64::max)
    }

    /// Any call that can be filled and was not made yet.
    fn forced(&self, tools: &[&Tool<'_>]) -> Result<Vec<Call>> {
        let words = search_words(&self.evidence.query);
        let candidates = self.candidates();
        let paths = candidates
            .iter()
            .map(|candidate| Some(candidate.path.as_str()))
            .chain([None]);
        let mut why = "every call that can be filled from the question was made before".to_owned();
        for tool in tools {
            for path in paths.clone() {
                for words in words.iter().map(Vec::as_slice).chain([&[][..]]) {
                    let about = About {
                        path,
                        words,
                        folder: None,
                        lists: tool.sort == Sort::Lists,
                    };
                    match fill(&tool.shape, about, self.evidence) {
                        Ok(arguments) if !self.evidence.was_called(&tool.spec.name, &arguments) => {
                            return Ok(vec![Call {
                                name: tool.spec.name.clone(),
                                arguments,
                            }]);
                        }
                        Ok(_) => {}
                        Err(parameter) => {
                            why = format!(
                                "nothing said so far gives the argument {parameter:?} of {:?}",
                                tool.spec.name
                            );
                        }
                    }
                }
            }
        }
        Err(impossible(&why))
    }

    /// The files that may be read, best first.
    fn candidates(&self) -> Vec<Candidate> {
        let evidence = self.evidence;
        let mut found: BTreeMap<&str, i64> = BTreeMap::new();
        let snippets = |source: &Source<'_>| source.tier == Tier::Snippet;
        for hit in evidence.index.search(&evidence.query, &snippets, 256) {
            if let Some(name) = evidence.index.source_of(hit.unit).name.as_deref() {
                let best = found.entry(name).or_default();
                *best = (*best).max((hit.score * 1e6) as i64);
            }
        }
        let listed = evidence.listed.as_slice();
        let extra = evidence
            .mentioned
            .iter()
            .filter(|path| !listed.iter().any(|known| is_same_file(known, path)));
        let all = listed.iter().chain(extra).filter(|path| !path.ends_with('/'));
        let mut candidates: Vec<Candidate> = all
            .enumerate()
            .map(|(place, path)| Candidate {
                is_named: evidence.is_named(path),
                found: found
                    .get(path.as_str())
                    .map_or(0, |score| score * i64::from(1 + prior(path))),
                similar: similarity(&evidence.query, path),
                prior: prior(path),
                place,
                path: path.clone(),
            })
            .collect();
        candidates.sort_by_key(|c| (Reverse((c.is_named, c.found, c.similar, c.prior)), c.place));
        candidates
    }
}

/// A file that may be read.
struct Candidate {
    path: String,
    /// The question names it.
    is_named: bool,
    /// How well the lines fit that a search found in it.
    found: i64,
    /// How many words of the question its path has.
    similar: usize,
    /// What is to be expected of a file of this kind.
    prior: u8,
    place: usize,
}

fn similarity(query: &Query, path: &str) -> usize {
    let mut count = 0;
    for_each_token(path, &mut |token| count += usize::from(query.has(token.stem)));
    count
}

/// What to search for, in this order: all telling words, then each of the most telling ones alone.
fn search_words(query: &Query) -> Vec<Vec<&str>> {
    let content: Vec<&str> = query.content_words().take(8).collect();
    let all = if content.is_empty() {
        query.words().into_iter().take(8).collect()
    } else {
        content
    };
    if all.is_empty() {
        return Vec::new();
    }
    let mut single = all.clone();
    let telling = |word: &&str| {
        let marked = word
            .chars()
            .skip(1)
            .any(|c| c.is_uppercase() || c.is_ascii_digit());
        Reverse((marked, word.chars().count()))
    };
    single.retain(|word| word.chars().count() > 2 || !word.is_ascii());
    single.sort_by_key(telling);
    let single = single.into_iter().take(3).map(|word| vec![word]);
    let mut words = vec![all];
    if words[0].len() > 1 {
        words.extend(single);
    }
    words
}

/// Sorts the tools, and weighs how much the question speaks of each.
fn looked_at<'a>(specs: &'a [ToolSpec], evidence: &Evidence<'_>) -> Vec<Tool<'a>> {
    let mut index = Index::default();
    for spec in specs {
        let shape = Shape::root(spec.parameters.value());
        let mut text = format!("{0} {0} {1}", name_words(&spec.name).join(" "), spec.description);
        for (name, property) in shape.properties() {
            text.push(' ');
            text.push_str(&name_words(name).join(" "));
            text.push(' ');
            text.push_str(property.text("description"));
            for value in property.values().into_iter().flatten().filter_map(Value::as_str) {
                text.push(' ');
                text.push_str(value);
            }
        }
        // One line is one unit; the end of a long description says little.
        let mut line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut end = line.len().min(super::units::MAX_UNIT_BYTES);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
        let len = line.len();
        let source = Source {
            name: Some(spec.name.clone().into()),
            text: line.into(),
            tier: Tier::Document,
            syntax: Syntax::Code,
        };
        index.add(source, len);
    }
    let mut covers: BTreeMap<&str, f64> = BTreeMap::new();
    for hit in index.search(&evidence.query, &|_| true, specs.len().max(1)) {
        if let Some(name) = index.source_of(hit.unit).name.as_deref() {
            covers.insert(name, hit.coverage);
        }
    }
    let sorted = specs.iter().map(|spec| {
        let shape = Shape::root(spec.parameters.value());
        let words = name_words(&spec.name);
        let verb = words.iter().find(|word| among(CHANGES, word));
        let sort = if verb.is_some() {
            Sort::Does
        } else {
            sort_of(spec, &shape, &words)
        };
        let in_name = words.iter().any(|word| {
            !among(VERBS, word)
                && evidence
                    .query
                    .content_words()
                    .any(|asked| stem_of(asked) == stem_of(word))
        });
        let coverage = covers.get(spec.name.as_str()).copied().unwrap_or(0.0);
        let is_ordered = verb.is_none_or(|verb| first_verb(evidence.question) == stem_of(verb));
        let spoken_of = if is_ordered && (in_name || coverage >= SPEAKS_OF || verb.is_some()) {
            coverage.max(0.01)
        } else {
            0.0
        };
        Tool {
            spec,
            shape,
            sort,
            spoken_of,
        }
    });
    sorted.collect()
}

/// Verbs of tools that change something.
const CHANGES: &str = "add append apply approve book buy call cancel close commit create delete deploy drop edit \
    exec execute insert install kill merge move order overwrite patch pay post publish push put \
    remove rename reset restart run schedule send set start stop update write";

/// Words in the names of tools that say nothing about what they are for.
const VERBS: &str = "get list read search find fetch show lookup query file files tool do info";

/// The verb with which an order begins.
fn first_verb(question: &str) -> String {
    const POLITE: &str = "please can could would will you i want need to now then";
    let bare = bare(question);
    let first = bare
        .split(' ')
        .find(|word| !among(POLITE, word))
        .unwrap_or_default();
    stem_of(first)
}

/// Whether a tool gives texts, and how.
fn sort_of(spec: &ToolSpec, shape: &Shape<'_>, words: &[String]) -> Sort {
    const TEXTS: &str = "file document doc text note page knowledge memory folder directory path content wiki web \
    internet repository code source workspace passage article";
    let mut about_texts = words.len() == 1;
    for_each_token(
        &format!("{} {}", words.join(" "), spec.description),
        &mut |token| {
            about_texts |= TEXTS.split(' ').any(|word| stem_of(word) == token.stem);
        },
    );
    let purposes: Vec<(Purpose, bool)> = shape
        .properties()
        .filter(|(_, property)| matches!(property.kind(), Type::Text | Type::Any | Type::Array))
        .map(|(name, property)| (Purpose::of(name, &property), shape.is_required(name)))
        .collect();
    let takes = |wanted: &[Purpose]| purposes.iter().any(|(purpose, _)| wanted.contains(purpose));
    let places = [Purpose::Folder, Purpose::Path, Purpose::Glob];
    let needs_only_places = shape
        .properties()
        .filter(|(name, _)| shape.is_required(name))
        .all(|(name, property)| places.contains(&Purpose::of(name, &property)));
    match Class::of(&spec.name) {
        Class::Search if about_texts && takes(&[Purpose::Query, Purpose::Question, Purpose::Regex]) => {
            Sort::Searches
        }
        Class::List if about_texts && needs_only_places => Sort::Lists,
        // `find_files(glob)` lists.
        Class::Search if about_texts && needs_only_places => Sort::Lists,
        Class::Read | Class::Other if about_texts && takes(&[Purpose::Path, Purpose::Url]) => Sort::Reads,
        _ => Sort::Does,
    }
}
