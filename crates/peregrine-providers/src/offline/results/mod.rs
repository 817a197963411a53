//! What tools returned, read as texts with sources and as lists of paths.
//!
//! Tools write what they like: the text of a file, lines of `path:line: text`, lists of paths, JSON. The forms
//! are told apart by the tool's class and by what most lines look like; what fits no form is one text with
//! the tool's name. A result that only says that nothing was found is no text.

mod lines;

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::bm25::Tier;
use super::text::among;
use super::values::is_path;
use lines::{found_line, is_mostly_paths, is_notice, listed_path, without_line_numbers, without_number};

/// What a tool does with texts, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Names what there is.
    List,
    /// Finds texts.
    Search,
    /// Gives the text of one thing.
    Read,
    /// Anything else.
    Other,
}

impl Class {
    /// By the words of a name such as `search_files`.
    pub(super) fn of(name: &str) -> Self {
        let words: Vec<String> = name_words(name);
        let has = |list: &[&str]| words.iter().any(|word| list.contains(&word.as_str()));
        if has(&[
            "search", "find", "grep", "query", "lookup", "retrieve", "recall", "rg",
        ]) {
            Self::Search
        } else if has(&["list", "ls", "glob", "tree", "dir", "browse"]) {
            Self::List
        } else if has(&["read", "open", "cat", "view", "get", "fetch", "load", "show"]) {
            Self::Read
        } else {
            Self::Other
        }
    }
}

/// The lower-case words of a name in snake, kebab or camel case.
pub(super) fn name_words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut before = '_';
    for c in name.chars() {
        if !c.is_alphanumeric() {
            before = '_';
            continue;
        }
        if before == '_' || (c.is_uppercase() && before.is_lowercase()) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.extend(c.to_lowercase());
        }
        before = c;
    }
    words
}

/// A text that a tool returned.
#[derive(Debug, PartialEq)]
pub(super) struct Text<'a> {
    pub(super) name: Option<Cow<'a, str>>,
    pub(super) text: Cow<'a, str>,
    pub(super) tier: Tier,
}

/// What a result holds.
#[derive(Debug, Default)]
pub(super) struct Reading<'a> {
    pub(super) texts: Vec<Text<'a>>,
    /// The paths that it names; folders end in a slash.
    pub(super) paths: Paths,
}

/// Paths in the order in which they were named first, each once; a bounded number of them.
#[derive(Debug, Default)]
pub(super) struct Paths {
    list: Vec<String>,
    seen: BTreeSet<String>,
}

/// Further paths are not looked at.
const MAX_PATHS: usize = 4_096;

impl Paths {
    pub(super) fn push(&mut self, path: &str) {
        if self.list.len() < MAX_PATHS && self.seen.insert(path.to_owned()) {
            self.list.push(path.to_owned());
        }
    }

    pub(super) fn as_slice(&self) -> &[String] {
        &self.list
    }
}

/// Reads a result of a tool that was called with `arguments`.
pub(super) fn read<'a>(tool: &'a str, arguments: &Value, result: &'a str) -> Reading<'a> {
    let class = Class::of(tool);
    let mut reading = Reading::default();
    if result.trim_start().starts_with(['{', '['])
        && let Ok(value) = serde_json::from_str::<Value>(result)
    {
        reading.json(class, path_argument(arguments).as_deref(), tool, &value);
        return reading;
    }
    let known = path_argument(arguments).filter(|_| matches!(class, Class::Read | Class::Other));
    if let Some(path) = known {
        let text = without_line_numbers(result);
        reading.texts.push(Text {
            name: Some(Cow::Owned(path)),
            text,
            tier: Tier::Document,
        });
        return reading;
    }
    if matches!(class, Class::List | Class::Search) || is_mostly_paths(result) {
        reading.lines(class, tool, result);
    } else {
        reading.push(Some(Cow::Borrowed(tool)), Cow::Borrowed(result), Tier::Result);
    }
    reading
}

/// The argument that names what is read.
pub(super) fn path_argument(arguments: &Value) -> Option<String> {
    let arguments = arguments.as_object()?;
    let named = arguments
        .iter()
        .find(|(key, value)| is_path_name(key) && value.is_string());
    let (_, value) = named.or_else(|| {
        arguments
            .iter()
            .find(|(_, value)| value.as_str().is_some_and(is_path))
    })?;
    value.as_str().map(str::to_owned)
}

/// The folder that a listing was asked for, unless it is the root.
pub(super) fn folder_argument(tool: &str, arguments: &Value) -> Option<String> {
    if Class::of(tool) != Class::List {
        return None;
    }
    let is_folder = |name: &str| {
        name_words(name)
            .iter()
            .any(|word| among("dir directory folder root", word))
    };
    let arguments = arguments.as_object()?.iter();
    let mut folders = arguments.filter(|(name, _)| is_folder(name) || is_path_name(name));
    let folder = folders.find_map(|(_, value)| value.as_str())?;
    let folder = folder.trim_start_matches("./").trim_end_matches('/');
    (!matches!(folder, "" | ".")).then(|| folder.to_owned())
}

/// Whether a parameter's or field's name says that it holds a path.
pub(super) fn is_path_name(name: &str) -> bool {
    const WORDS: &str = "path paths file files filename filepath uri url document";
    name_words(name).iter().any(|word| among(WORDS, word))
}

impl<'a> Reading<'a> {
    fn push(&mut self, name: Option<Cow<'a, str>>, text: Cow<'a, str>, tier: Tier) {
        if !text.trim().is_empty() {
            self.texts.push(Text { name, text, tier });
        }
    }

    fn lines(&mut self, class: Class, tool: &'a str, result: &str) {
        let mut current: Option<String> = None;
        let mut open: Option<(Option<String>, String)> = None;
        for line in result.lines() {
            if line.trim().is_empty() || is_notice(line) {
                continue;
            }
            let (path, text) = if let Some((path, text)) = found_line(line) {
                self.paths.push(path);
                (Some(path.to_owned()), text)
            } else if let Some(path) = listed_path(line, class == Class::List) {
                self.paths.push(path);
                current = Some(path.to_owned());
                continue;
            } else {
                (current.clone(), without_number(line).unwrap_or(line))
            };
            match &mut open {
                Some((name, joined)) if *name == path => {
                    joined.push('\n');
                    joined.push_str(text);
                }
                _ => {
                    let before = open.replace((path, text.to_owned()));
                    self.snippet(class, tool, before);
                }
            }
        }
        self.snippet(class, tool, open);
    }

    fn snippet(&mut self, class: Class, tool: &'a str, snippet: Option<(Option<String>, String)>) {
        let Some((path, text)) = snippet else { return };
        let tier = match (&path, class) {
            (Some(_), _) => Tier::Snippet,
            (None, _) => Tier::Result,
        };
        let name = path.map_or(Cow::Borrowed(tool), Cow::Owned);
        self.push(Some(name), Cow::Owned(text), tier);
    }

    fn json(&mut self, class: Class, known: Option<&str>, tool: &'a str, value: &Value) {
        let known = known.filter(|_| class != Class::List && class != Class::Search);
        let mut facts = String::new();
        self.json_value(class, known, "", tool, value, &mut facts);
        let name = known.map_or(Cow::Borrowed(tool), |path| Cow::Owned(path.to_owned()));
        let tier = if known.is_some() {
            Tier::Document
        } else {
            Tier::Result
        };
        self.push(Some(name), Cow::Owned(facts), tier);
    }

    /// Walks a value: objects with a path and a text are texts of their own, everything else is `key: value`.
    fn json_value(
        &mut self,
        class: Class,
        known: Option<&str>,
        key: &str,
        tool: &'a str,
        value: &Value,
        facts: &mut String,
    ) {
        match value {
            Value::Null => {}
            Value::Object(fields) => self.json_object(class, known, key, tool, fields, facts),
            Value::Array(items) => {
                for item in items {
                    match item.as_str() {
                        Some(path) if is_path(path) || (class == Class::List && !path.contains(' ')) => {
                            self.paths.push(path)
                        }
                        _ => self.json_value(class, known, key, tool, item, facts),
                    }
                }
            }
            Value::String(text) if text.contains('\n') => self.json_text(class, known, key, tool, text),
            scalar => {
                if !facts.is_empty() {
                    facts.push('\n');
                }
                if !key.is_empty() {
                    facts.push_str(key);
                    facts.push_str(": ");
                }
                match scalar {
                    Value::String(text) => facts.push_str(text),
                    other => facts.push_str(&other.to_string()),
                }
            }
        }
    }

    /// A text within JSON: the file that was read, lines that were found, or a result of its own.
    fn json_text(&mut self, class: Class, known: Option<&str>, key: &str, tool: &'a str, text: &str) {
        if matches!(class, Class::List | Class::Search) {
            return self.lines(class, tool, text);
        }
        let tier = if known.is_some() {
            Tier::Document
        } else {
            Tier::Result
        };
        let name = known.or(Some(key).filter(|key| !key.is_empty())).unwrap_or(tool);
        self.push(
            Some(Cow::Owned(name.to_owned())),
            Cow::Owned(text.to_owned()),
            tier,
        );
    }

    fn json_object(
        &mut self,
        class: Class,
        known: Option<&str>,
        key: &str,
        tool: &'a str,
        fields: &Map<String, Value>,
        facts: &mut String,
    ) {
        const TEXTS: &str = "content text body snippet excerpt line_text match page_content preview";
        let own_path = fields.iter().find_map(|(name, value)| {
            let value = value.as_str()?;
            let named = is_path_name(name) || matches!(name.as_str(), "title" | "source" | "name");
            (named && (is_path(value) || (class != Class::Other && is_path_name(name)))).then_some(value)
        });
        let text = TEXTS
            .split(' ')
            .find_map(|name| Some((name, fields.get(name)?.as_str()?)));
        match (own_path.or(known), text) {
            (Some(path), Some((_, text))) => {
                self.paths.push(path);
                let tier = if class == Class::Search {
                    Tier::Snippet
                } else {
                    Tier::Document
                };
                self.push(
                    Some(Cow::Owned(path.to_owned())),
                    Cow::Owned(text.to_owned()),
                    tier,
                );
            }
            (Some(path), None) if matches!(class, Class::List | Class::Search) => {
                let is_folder = fields
                    .values()
                    .any(|value| matches!(value.as_str(), Some("dir" | "directory" | "folder")));
                let slash = if is_folder && !path.ends_with('/') {
                    "/"
                } else {
                    ""
                };
                self.paths.push(&format!("{path}{slash}"));
            }
            _ => {
                if let Some((name, text)) = text {
                    self.json_text(class, None, name, tool, text);
                }
                for (name, value) in fields
                    .iter()
                    .filter(|(name, _)| text.is_none_or(|(taken, _)| taken != *name))
                {
                    let key = if key.is_empty() {
                        name.clone()
                    } else {
                        format!("{key}.{name}")
                    };
                    self.json_value(class, known, &key, tool, value, facts);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read_as<'a>(
        tool: &'a str,
        arguments: &Value,
        result: &'a str,
    ) -> (Vec<(String, String, Tier)>, Vec<String>) {
        let reading = read(tool, arguments, result);
        let texts = reading.texts.into_iter();
        let texts = texts.map(|t| {
            (
                t.name.unwrap_or_default().into_owned(),
                t.text.into_owned(),
                t.tier,
            )
        });
        (texts.collect(), reading.paths.list)
    }

    fn text(name: &str, text: &str, tier: Tier) -> (String, String, Tier) {
        (name.to_owned(), text.to_owned(), tier)
    }

    #[test]
    fn names_say_what_tools_do() {
        for (name, class) in [
            ("list_files", Class::List),
            ("searchFiles", Class::Search),
            ("fs.read", Class::Read),
            ("get_weather", Class::Read),
            ("send_email", Class::Other),
            ("find-and-list", Class::Search),
        ] {
            assert_eq!(Class::of(name), class, "{name}");
        }
    }

    #[test]
    fn files_that_were_read_have_their_path() {
        let path = json!({"path": "a.md", "offset": 0});
        assert_eq!(
            read_as("read_file", &path, "# A\nText: b.md\n"),
            (vec![text("a.md", "# A\nText: b.md\n", Tier::Document)], vec![])
        );
        let numbered = "  1: # A\n  2: \n  3: Text.\n";
        assert_eq!(
            read_as("read_file", &path, numbered).0,
            [text("a.md", "# A\n\nText.", Tier::Document)]
        );
        let object = r##"{"path":"a.md","content":"# A\nText.","lines":2}"##;
        assert_eq!(
            read_as("read_file", &path, object).0[0],
            text("a.md", "# A\nText.", Tier::Document)
        );
    }

    #[test]
    fn searches_give_snippets_with_their_paths() {
        let lines = "2 matches for \"msrv\":\nREADME.md:12: The MSRV is 1.95.\nREADME.md:14:3: More.\ndocs/a.md\n  7: Third.\n";
        let (texts, paths) = read_as("search_files", &json!({"query": "msrv"}), lines);
        assert_eq!(
            texts,
            [
                text("README.md", "The MSRV is 1.95.\nMore.", Tier::Snippet),
                text("docs/a.md", "Third.", Tier::Snippet)
            ]
        );
        assert_eq!(paths, ["README.md", "docs/a.md"]);
        for nothing in ["no matches for \"msrv\"", "No files found.", "0 results", ""] {
            assert_eq!(
                read_as("search_files", &json!({}), nothing),
                (vec![], vec![]),
                "{nothing}"
            );
        }
        let objects =
            r#"{"matches":[{"path":"a.md","line":3,"text":"One."},{"file":"b/c","snippet":"Two."}]}"#;
        let (texts, paths) = read_as("grep", &json!({}), objects);
        assert_eq!(
            texts,
            [
                text("a.md", "One.", Tier::Snippet),
                text("b/c", "Two.", Tier::Snippet)
            ]
        );
        assert_eq!(paths, ["a.md", "b/c"]);
        let passages = "The capital of France is Paris.\nIt lies on the Seine.";
        assert_eq!(
            read_as("search_wiki", &json!({}), passages).0,
            [text("search_wiki", passages, Tier::Result)]
        );
    }

    #[test]
    fn lists_give_paths() {
        let (texts, paths) = read_as(
            "list_files",
            &json!({}),
            "- README.md (1.2 KB)\ndocs/\nLICENSE\nsrc/a b.rs\n3 files\n",
        );
        assert_eq!(
            (texts.len(), paths),
            (
                0,
                vec![
                    "README.md".into(),
                    "docs/".into(),
                    "LICENSE".into(),
                    "src/a b.rs".into()
                ]
            )
        );
        let long = "-rw-r--r-- 1 root root 123 Nov 21 README.md";
        assert_eq!(read_as("ls", &json!({}), long).1, ["README.md"]);
        assert_eq!(
            read_as("list_files", &json!({}), r#"["a.md","Makefile"]"#).1,
            ["a.md", "Makefile"]
        );
        let objects = r#"{"entries":[{"path":"docs","type":"dir"},{"path":"a.md","size":3}]}"#;
        assert_eq!(read_as("list_dir", &json!({}), objects).1, ["docs/", "a.md"]);
        assert_eq!(
            read_as("workspace", &json!({}), "a.md\nb.md\n").1,
            ["a.md", "b.md"]
        );
    }

    #[test]
    fn other_results_are_facts() {
        let weather = r#"{"city":"Paris","now":{"temperature":21,"sky":"clear"},"alerts":[]}"#;
        assert_eq!(
            read_as("get_weather", &json!({"city": "Paris"}), weather).0,
            [text(
                "get_weather",
                "city: Paris\nnow.temperature: 21\nnow.sky: clear",
                Tier::Result
            )]
        );
        assert_eq!(
            read_as("get_weather", &json!({}), "21 C, clear").0,
            [text("get_weather", "21 C, clear", Tier::Result)]
        );
    }
}
