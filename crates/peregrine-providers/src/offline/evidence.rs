//! A request read as a question and the texts to answer it from.
//!
//! Texts are, in the order of the conversation: documents, results of tools, what the user said in earlier
//! turns and beside the question, and instructions (which answer only what nothing else answers). What the
//! assistant said is no evidence. If there is more text than the bound, the longest texts are cut, and what is
//! left out is counted.
//! What cannot be read as text (images, audio, PDF) is an error: an answer that overlooks them would pretend.

use std::borrow::Cow;

use peregrine_core::{DocumentPart, Error, MediaSource, Message, Part, Result, Role, ToolCall, ToolResult};
use serde_json::Value;

use super::bm25::{Index, Source, Tier};
use super::query::Query;
use super::question::asked;
use super::quote::bare;
use super::results::{self, Class, Paths};
use super::text::{among, stem_of};
use super::units::Syntax;
use super::values::{has_extension, paths};

/// A longer message is a text to read; what it mentions is not meant for tools.
const MAX_SAID_BYTES: usize = 4_000;

/// All there is to answer from.
#[derive(Debug)]
pub(super) struct Evidence<'a> {
    pub(super) question: &'a str,
    /// The whole text that the question stands in, if it is short; else the question.
    pub(super) said: &'a str,
    pub(super) query: Query,
    pub(super) index: Index<'a>,
    /// The calls of the conversation, oldest first.
    pub(super) calls: Vec<PastCall<'a>>,
    /// Paths that results of tools name, in order; folders end in a slash.
    pub(super) listed: Paths,
    /// Paths that the user or the instructions name, in order; the question's own first.
    pub(super) mentioned: Vec<String>,
    /// How often tools were called since the user spoke last.
    pub(super) rounds: usize,
}

/// A call that was made before.
#[derive(Debug)]
pub(super) struct PastCall<'a> {
    pub(super) name: &'a str,
    pub(super) class: Class,
    pub(super) arguments: Value,
    /// What it named to be read.
    pub(super) path: Option<String>,
    pub(super) result: Option<&'a ToolResult>,
    /// It was made since the user spoke last.
    pub(super) is_current: bool,
}

impl<'a> Evidence<'a> {
    /// Reads the messages of a request, and at most `max_bytes` of text.
    pub(super) fn read(messages: &[&'a Message], max_bytes: usize) -> Result<Self> {
        let last_user = messages.iter().rposition(|message| {
            message.role == Role::User && message.parts.iter().any(|part| part.as_text().is_some())
        });
        let mut gathered = Gathered::default();
        for (place, message) in messages.iter().enumerate() {
            match message.role {
                Role::System => gathered.said(message, Tier::System)?,
                Role::User if Some(place) == last_user => gathered.ask(message)?,
                Role::User => gathered.said(message, Tier::Spoken)?,
                Role::Assistant => gathered.calls(message, last_user.is_none_or(|user| place > user)),
                _ => gathered.results(message)?,
            }
        }
        Ok(gathered.index(max_bytes))
    }

    /// Whether a tool has given the text at a path.
    pub(super) fn was_read(&self, path: &str) -> bool {
        let gave_text = |call: &PastCall<'_>| call.result.is_some_and(|result| !result.is_error);
        self.calls
            .iter()
            .any(|call| call.path.as_deref() == Some(path) && call.class != Class::List && gave_text(call))
    }

    /// Whether a tool was called with these arguments before.
    pub(super) fn was_called(&self, name: &str, arguments: &Value) -> bool {
        self.calls
            .iter()
            .any(|call| call.name == name && call.arguments == *arguments)
    }

    /// Whether the question names a file.
    pub(super) fn is_named(&self, path: &str) -> bool {
        let question = format!(" {} ", bare(self.question));
        let named = |named: &String| is_same_file(path, named) && self.question.contains(named.as_str());
        self.mentioned.iter().any(named)
            || (has_extension(path) && question.contains(&format!(" {} ", bare(file_name(path)))))
    }

    /// Whether the question is which files there are, and some were listed.
    pub(super) fn asks_for_files(&self) -> bool {
        self.is_about_files() && !self.listed.as_slice().is_empty()
    }

    /// Whether the question speaks of files and of nothing else.
    pub(super) fn is_about_files(&self) -> bool {
        is_about_files(&self.query)
    }

    /// Results that worked, newest first.
    pub(super) fn results(&self) -> impl Iterator<Item = &PastCall<'a>> {
        self.calls
            .iter()
            .rev()
            .filter(|call| call.result.is_some_and(|result| !result.is_error))
    }
}

fn is_about_files(query: &Query) -> bool {
    const FILES: &str = "fil folder doc document";
    let words: Vec<String> = query.words().into_iter().map(stem_of).collect();
    words.iter().any(|word| among(FILES, word))
        && words
            .iter()
            .all(|word| among(FILES, word) || among("list show nam find giv tell exist available", word))
}

/// The last part of a path.
pub(super) fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether a path is the one that somebody named, perhaps without its folders.
pub(super) fn is_same_file(path: &str, named: &str) -> bool {
    let (path, named) = (path.trim_start_matches("./"), named.trim_start_matches("./"));
    path == named
        || path
            .strip_suffix(named)
            .is_some_and(|folders| folders.ends_with('/'))
}

/// The name by which a source is quoted.
pub(super) fn shown_name<'s>(source: &'s Source<'_>) -> &'s str {
    match (&source.name, source.tier) {
        (Some(name), _) if !name.is_empty() => name,
        (_, Tier::System) => "the instructions",
        (_, Tier::Spoken) => "the conversation",
        (_, Tier::Question) => "the question",
        _ => "the text",
    }
}

#[derive(Default)]
struct Gathered<'a> {
    sources: Vec<Source<'a>>,
    question: &'a str,
    said: &'a str,
    /// The question before, for one that has no words of its own ("and where?").
    question_before: &'a str,
    calls: Vec<PastCall<'a>>,
    ids: Vec<&'a str>,
    listed: Paths,
    mentioned: Vec<String>,
    rounds: usize,
    documents: usize,
}

impl<'a> Gathered<'a> {
    fn said(&mut self, message: &'a Message, tier: Tier) -> Result<()> {
        for part in &message.parts {
            match part {
                Part::Text(text) => {
                    self.mention(&text.text);
                    if tier == Tier::Spoken {
                        self.question_before = asked(&text.text).question;
                    }
                    self.text(None, Cow::Borrowed(text.text.as_str()), tier);
                }
                other => self.attachment(other)?,
            }
        }
        Ok(())
    }

    fn ask(&mut self, message: &'a Message) -> Result<()> {
        // The question is in the last text; texts before it are there to answer from.
        let last_text = message.parts.iter().rposition(|part| part.as_text().is_some());
        self.rounds = 0;
        for (place, part) in message.parts.iter().enumerate() {
            match part {
                Part::Text(text) if Some(place) == last_text => {
                    let asked = asked(&text.text);
                    self.question = asked.question;
                    self.said = if text.text.len() <= MAX_SAID_BYTES {
                        &text.text
                    } else {
                        asked.question
                    };
                    for rest in asked.rest {
                        self.mention(rest);
                        self.text(None, Cow::Borrowed(rest), Tier::Spoken);
                    }
                    self.text(None, Cow::Borrowed(asked.question), Tier::Question);
                }
                Part::Text(text) => self.text(None, Cow::Borrowed(text.text.as_str()), Tier::Spoken),
                other => self.attachment(other)?,
            }
        }
        Ok(())
    }

    fn calls(&mut self, message: &'a Message, is_current: bool) {
        let before = self.calls.len();
        for call in message.tool_calls() {
            let ToolCall {
                id,
                name,
                arguments: _,
                data: _,
            } = call;
            let arguments = call.parse_arguments().unwrap_or(Value::Null);
            let path = results::path_argument(&arguments);
            self.ids.push(id);
            self.calls.push(PastCall {
                name,
                class: Class::of(name),
                arguments,
                path,
                result: None,
                is_current,
            });
        }
        if is_current && self.calls.len() > before {
            self.rounds += 1;
        }
    }

    fn results(&mut self, message: &'a Message) -> Result<()> {
        for part in &message.parts {
            let Part::ToolResult(result) = part else { continue };
            // The newest call of that id: ids need not be unique in a conversation.
            let place = self.ids.iter().rposition(|id| *id == result.call_id);
            let arguments = match place {
                Some(place) => {
                    self.calls[place].result = Some(result);
                    self.calls[place].arguments.clone()
                }
                None => Value::Null,
            };
            let name = place.map_or(result.name.as_str(), |place| self.calls[place].name);
            if result.is_error {
                continue;
            }
            for part in &result.content {
                match part {
                    Part::Text(text) => self.result(name, &arguments, &text.text),
                    other => self.attachment(other)?,
                }
            }
        }
        Ok(())
    }

    fn result(&mut self, name: &'a str, arguments: &Value, text: &'a str) {
        let reading = results::read(name, arguments, text);
        // What a folder holds may be named without the folder.
        let folder = results::folder_argument(name, arguments);
        for path in reading.paths.as_slice() {
            match &folder {
                Some(folder) if !path.trim_start_matches("./").starts_with(folder) => {
                    self.listed.push(&format!("{folder}/{path}"));
                }
                _ => self.listed.push(path),
            }
        }
        for found in reading.texts {
            let syntax = found.name.as_deref().map_or(Syntax::Prose, Syntax::of);
            self.sources.push(Source {
                name: found.name,
                text: found.text,
                tier: found.tier,
                syntax,
            });
        }
    }

    fn attachment(&mut self, part: &'a Part) -> Result<()> {
        match part {
            Part::Document(document) => self.document(document),
            Part::Image(_) => Err(unreadable("an image")),
            Part::Audio(_) => Err(unreadable("audio")),
            _ => Ok(()),
        }
    }

    fn document(&mut self, document: &'a DocumentPart) -> Result<()> {
        self.documents += 1;
        let DocumentPart {
            source,
            media_type,
            title,
        } = document;
        let text = match source {
            MediaSource::Text { text } => Cow::Borrowed(text.as_str()),
            MediaSource::Bytes { data }
                if media_type
                    .as_deref()
                    .is_some_and(|kind| kind.starts_with("text/")) =>
            {
                String::from_utf8_lossy(data)
            }
            _ => return Err(unreadable("a document that is not plain text")),
        };
        let name = match title.as_deref().filter(|title| !title.is_empty()) {
            Some(title) => Cow::Borrowed(title),
            None => Cow::Owned(format!("document {}", self.documents)),
        };
        self.text(Some(name), text, Tier::Document);
        Ok(())
    }

    fn text(&mut self, name: Option<Cow<'a, str>>, text: Cow<'a, str>, tier: Tier) {
        let syntax = name.as_deref().map_or(Syntax::Prose, Syntax::of);
        self.sources.push(Source {
            name,
            text,
            tier,
            syntax,
        });
    }

    fn mention(&mut self, text: &str) {
        for path in paths(text).take(32) {
            if text.len() <= MAX_SAID_BYTES && !self.mentioned.iter().any(|known| known == path) {
                self.mentioned.push(path.to_owned());
            }
        }
    }

    fn index(self, max_bytes: usize) -> Evidence<'a> {
        let mut mentioned: Vec<String> = paths(self.question).map(str::to_owned).collect();
        mentioned.extend(
            self.mentioned
                .into_iter()
                .filter(|path| !paths(self.question).any(|known| known == path)),
        );
        let mut index = Index::default();
        let lens: Vec<usize> = self.sources.iter().map(|source| source.text.len()).collect();
        let most = fair_share(&lens, max_bytes);
        for source in self.sources {
            index.add(source, most);
        }
        // The names of files say where to look, not what for.
        let mut words = self.question.to_owned();
        for path in paths(self.question) {
            words = words.replacen(path, " ", 1);
        }
        let mut query = Query::new(&[(&words, 1.0)]);
        if query.content_words().next().is_none() && !is_about_files(&query) {
            query = Query::new(&[(&words, 1.0), (self.question_before, 1.0)]);
        }
        Evidence {
            question: self.question,
            said: self.said,
            query,
            index,
            calls: self.calls,
            listed: self.listed,
            mentioned,
            rounds: self.rounds,
        }
    }
}

/// The length to which the longest texts are cut, so that all together have at most `max_bytes`.
fn fair_share(lens: &[usize], max_bytes: usize) -> usize {
    let mut sorted = lens.to_vec();
    sorted.sort_unstable();
    let mut room = max_bytes;
    for (place, len) in sorted.iter().enumerate() {
        let share = room / (sorted.len() - place);
        if *len > share {
            return share;
        }
        room -= len;
    }
    max_bytes
}

fn unreadable(what: &str) -> Error {
    Error::invalid_request(format!(
        "the offline model reads text and cannot look at {what}; send its text, or use another model"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_texts_are_cut() {
        for (lens, max_bytes, expected) in [
            (&[10, 20, 30][..], 60, 60),
            (&[10, 20, 30], 59, 29),
            (&[10, 1000, 1000], 110, 50),
            (&[5, 5], 4, 2),
            (&[], 4, 4),
            (&[0, 9], 3, 3),
        ] {
            assert_eq!(fair_share(lens, max_bytes), expected, "{lens:?} in {max_bytes}");
        }
    }
}
