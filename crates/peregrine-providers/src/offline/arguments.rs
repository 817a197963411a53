//! The arguments of a tool call, from the question and from what tools returned before.
//!
//! Invariant: a value stands in the question or in a result, or the schema fixes it; where a required one
//! cannot be found there is no call. Optional parameters are filled only where the question names them, or
//! where they are what the call is about (its path, its search words).

use peregrine_core::ToolResult;
use serde_json::{Map, Value};

use super::evidence::Evidence;
use super::quote::bare;
use super::results::{is_path_name, name_words};
use super::shape::{MAX_DEPTH, Shape, Type, json_number};
use super::text::{among, stem_of};
use super::units::Kind;
use super::values::{self, dates, emails, names, numbers, plain, quoted, urls};

/// How many results are searched for a value.
const MAX_RESULTS: usize = 8;
/// Larger results are texts, not values.
const MAX_RESULT_BYTES: usize = 64 << 10;

/// What a parameter is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The path of a file.
    Path,
    /// A web address.
    Url,
    /// A folder.
    Folder,
    /// Words to search for.
    Query,
    /// The question as it stands.
    Question,
    /// Words to search for, as a regular expression.
    Regex,
    /// A pattern of paths.
    Glob,
    /// A calculation.
    Expression,
    /// Anything else.
    Plain,
}

impl Purpose {
    /// By a parameter's name and description.
    pub(super) fn of(name: &str, shape: &Shape<'_>) -> Self {
        let words = name_words(name);
        let description = shape.text("description").to_lowercase();
        let has = |list: &[&str]| words.iter().any(|word| list.contains(&word.as_str()));
        let items = shape.get("items").map(|items| shape.child(items).kind());
        match (shape.kind(), items) {
            (Type::Text | Type::Any, _) | (Type::Array, Some(Type::Text | Type::Any)) => {}
            _ => return Self::Plain,
        }
        if description.contains("glob") || has(&["glob", "globs"]) {
            Self::Glob
        } else if has(&["regex", "regexp"])
            || (has(&["pattern"])
                && (description.contains("regex") || description.contains("regular expression")))
        {
            Self::Regex
        } else if has(&["question", "prompt"]) {
            Self::Question
        } else if has(&[
            "query", "q", "search", "keyword", "keywords", "term", "terms", "needle", "pattern", "phrase",
            "topic",
        ]) {
            Self::Query
        } else if has(&["url", "uri", "link", "href"]) {
            Self::Url
        } else if has(&["dir", "directory", "folder", "root"]) {
            Self::Folder
        } else if is_path_name(name) || (description.contains("path") && !description.contains("json")) {
            Self::Path
        } else if has(&["expression", "expr", "formula", "calculation"]) {
            Self::Expression
        } else {
            Self::Plain
        }
    }
}

/// What this call is about, beside the question.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct About<'a> {
    pub(super) path: Option<&'a str>,
    pub(super) folder: Option<&'a str>,
    /// The words to search for.
    pub(super) words: &'a [&'a str],
    /// It lists what there is; without a folder, from the root.
    pub(super) lists: bool,
}

/// Fills an object of arguments; the name of the parameter that could not be filled is the error.
pub(super) fn fill(shape: &Shape<'_>, about: About<'_>, evidence: &Evidence<'_>) -> Result<Value, String> {
    let mut filler = Filler {
        about,
        evidence,
        used: Vec::new(),
    };
    filler.object(shape, 0).map(Value::Object)
}

struct Filler<'a> {
    about: About<'a>,
    evidence: &'a Evidence<'a>,
    /// Values that a parameter has taken; two do not take the same.
    used: Vec<String>,
}

impl Filler<'_> {
    fn object(&mut self, shape: &Shape<'_>, depth: usize) -> Result<Map<String, Value>, String> {
        let mut arguments = Map::new();
        for (name, property) in shape.properties() {
            let required = shape.is_required(name);
            match self.value(name, &property, required, depth) {
                Some(value) => {
                    arguments.insert(name.to_owned(), value);
                }
                None if !required => {}
                None => match property.get("default") {
                    Some(default) => {
                        arguments.insert(name.to_owned(), default.clone());
                    }
                    None if property.nullable => {
                        arguments.insert(name.to_owned(), Value::Null);
                    }
                    None => return Err(name.to_owned()),
                },
            }
        }
        Ok(arguments)
    }

    fn value(&mut self, name: &str, shape: &Shape<'_>, required: bool, depth: usize) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        if let Some(values) = shape.values() {
            return self.listed(name, shape, values, required);
        }
        match shape.kind() {
            Type::Object => {
                if !required {
                    return None;
                }
                self.object(shape, depth + 1).ok().map(Value::Object)
            }
            Type::Array => self.array(name, shape, required, depth),
            Type::Number | Type::Integer => self.number(name, shape, required),
            Type::Bool => self.flag(name),
            Type::Null => Some(Value::Null).filter(|_| required),
            Type::Text | Type::Any => {
                let text = self.text(name, shape, required)?;
                shape.admits_len(&text).then(|| Value::from(text))
            }
        }
    }

    fn array(&mut self, name: &str, shape: &Shape<'_>, required: bool, depth: usize) -> Option<Value> {
        let item = shape.child(shape.get("items")?);
        if let Some(values) = item.values() {
            let found: Vec<Value> = values
                .iter()
                .filter(|value| self.is_said(value))
                .cloned()
                .collect();
            return Some(Value::Array(found)).filter(|found| found != &Value::Array(Vec::new()));
        }
        if matches!(item.kind(), Type::Number | Type::Integer) {
            let whole = item.kind() == Type::Integer;
            let found: Vec<Value> = numbers(self.evidence.said)
                .iter()
                .filter(|number| item.admits(number.value))
                .filter_map(|number| json_number(number.value, whole || number.is_whole))
                .collect();
            return (!found.is_empty()).then_some(Value::Array(found));
        }
        if Purpose::of(name, shape) == Purpose::Query {
            let words: Vec<Value> = self.about.words.iter().map(|word| Value::from(*word)).collect();
            return (!words.is_empty()).then_some(Value::Array(words));
        }
        if Purpose::of(name, shape) == Purpose::Plain {
            let found: Vec<Value> = quoted(self.evidence.said).into_iter().map(Value::from).collect();
            return (required && !found.is_empty()).then_some(Value::Array(found));
        }
        self.value(name, &item, required, depth + 1)
            .map(|value| Value::Array(vec![value]))
    }

    /// One of the listed values, if it is said; the only one there is, if there must be one.
    fn listed(&self, name: &str, shape: &Shape<'_>, values: &[Value], required: bool) -> Option<Value> {
        let explicit = self.explicit(name);
        let named = values.iter().find(|value| {
            let text = value.as_str().map(bare);
            text.is_some() && explicit.as_deref().map(bare) == text
        });
        let said = || values.iter().find(|value| self.is_said(value));
        let only = || values.first().filter(|_| required && values.len() == 1);
        named
            .or_else(said)
            .or_else(only)
            .or_else(|| shape.get("default").filter(|_| required))
            .cloned()
    }

    fn is_said(&self, value: &Value) -> bool {
        let text = match value {
            Value::String(text) => bare(text),
            other => other.to_string(),
        };
        let question = bare(self.evidence.said);
        let stems = |text: &str| text.split(' ').map(stem_of).collect::<Vec<_>>().join(" ");
        !text.is_empty() && format!(" {} ", stems(&question)).contains(&format!(" {} ", stems(&text)))
    }

    fn number(&mut self, name: &str, shape: &Shape<'_>, required: bool) -> Option<Value> {
        let whole = shape.kind() == Type::Integer;
        let explicit = self
            .explicit(name)
            .and_then(|text| numbers(&text).first().copied());
        let question = numbers(self.evidence.said);
        let unused = || {
            question
                .iter()
                .copied()
                .find(|number| !self.used.contains(&format!("{}", number.value)))
        };
        let known = || self.known(name).and_then(|text| numbers(&text).first().copied());
        let found = explicit.or_else(|| if required { unused().or_else(known) } else { None })?;
        if !shape.admits(found.value) {
            return None;
        }
        self.used.push(format!("{}", found.value));
        json_number(found.value, whole || found.is_whole)
    }

    fn flag(&self, name: &str) -> Option<Value> {
        let explicit = self.explicit(name)?.to_lowercase();
        match explicit.split_whitespace().next()? {
            "true" | "yes" | "on" => Some(Value::Bool(true)),
            "false" | "no" | "off" => Some(Value::Bool(false)),
            _ => None,
        }
    }

    fn text(&mut self, name: &str, shape: &Shape<'_>, required: bool) -> Option<String> {
        let (question, said) = (self.evidence.question, self.evidence.said);
        match Purpose::of(name, shape) {
            Purpose::Path => {
                let root = Some(".").filter(|_| required && self.about.lists);
                return self.about.path.or(self.about.folder).or(root).map(str::to_owned);
            }
            Purpose::Folder => return self.about.folder.or(required.then_some(".")).map(str::to_owned),
            Purpose::Glob => return required.then(|| "**/*".to_owned()),
            Purpose::Question => return Some(question.to_owned()).filter(|question| !question.is_empty()),
            Purpose::Query => return Some(self.about.words.join(" ")).filter(|words| !words.is_empty()),
            Purpose::Regex => return Some(self.about.words.join("|")).filter(|words| !words.is_empty()),
            Purpose::Url => {
                let url = urls(said)
                    .next()
                    .or(self.about.path.filter(|path| path.contains("://")));
                return url.map(str::to_owned);
            }
            Purpose::Expression => return calculation(said).map(str::to_owned),
            Purpose::Plain => {}
        }
        if let Some(explicit) = self.explicit(name) {
            return Some(explicit);
        }
        if !required {
            return None;
        }
        let by_format = match shape.text("format") {
            "email" => Some(emails(said).next()),
            "date" | "date-time" => Some(dates(said).next()),
            "uri" | "url" => Some(urls(said).next()),
            _ => None,
        };
        if let Some(found) = by_format {
            return found.map(str::to_owned);
        }
        let words = name_words(name);
        let is_address = words
            .iter()
            .any(|word| matches!(word.as_str(), "to" | "email" | "mail" | "recipient" | "address"));
        let email = emails(said).next().filter(|_| is_address).map(str::to_owned);
        let candidates = email
            .into_iter()
            .chain(quoted(said).into_iter().map(str::to_owned))
            .chain(self.known(name))
            .chain(names(question).into_iter().map(str::to_owned))
            .chain(behind_preposition(question).map(str::to_owned));
        let found = candidates
            .filter(|text| !text.is_empty())
            .find(|text| !self.used.contains(text))?;
        self.used.push(found.clone());
        Some(found)
    }

    /// `name: value` or `name value` in the question.
    fn explicit(&self, name: &str) -> Option<String> {
        let question = self.evidence.said;
        let lower = question.to_ascii_lowercase();
        let spoken = name_words(name).join(" ");
        for form in [name.to_ascii_lowercase(), spoken] {
            for mark in [": ", "=", " = "] {
                if let Some(at) = lower.find(&format!("{form}{mark}")) {
                    let rest = &question[at + form.len() + mark.len()..];
                    let value = rest.split([',', ';', '\n']).next().unwrap_or(rest);
                    let value = value.trim_end_matches(['?', '.', '!']);
                    return Some(plain(value).to_owned()).filter(|value| !value.is_empty());
                }
            }
        }
        None
    }

    /// The value that a tool returned under this name, newest first.
    fn known(&self, name: &str) -> Option<String> {
        let wanted: Vec<String> = name_words(name).iter().map(|word| stem_of(word)).collect();
        for call in self.evidence.results().take(MAX_RESULTS) {
            let text = call.result.map(ToolResult::text).unwrap_or_default();
            if text.len() > MAX_RESULT_BYTES {
                continue;
            }
            let reading = super::results::read(call.name, &call.arguments, &text);
            for line in reading.texts.iter().flat_map(|found| found.text.lines()) {
                let pairs = values::pairs(Kind::Line, line, None);
                let fits = |key: &str| {
                    let last = key.rsplit('.').next().unwrap_or(key);
                    let words: Vec<String> = name_words(last).iter().map(|word| stem_of(word)).collect();
                    // `id` under a user fits `user_id`.
                    !words.is_empty() && (words == wanted || wanted.ends_with(&words))
                };
                if let Some(pair) = pairs.iter().find(|pair| fits(pair.key)) {
                    return Some(pair.value.to_owned());
                }
            }
        }
        None
    }
}

/// The word or words behind the last preposition: "in Paris", "for berlin".
fn behind_preposition(question: &str) -> Option<&str> {
    const PREPOSITIONS: &str = "in for of at from to about near named";
    let mut found = None;
    let mut at = 0;
    for piece in question.split_inclusive(char::is_whitespace) {
        at += piece.len();
        if among(PREPOSITIONS, piece.trim()) {
            found = Some(at);
        }
    }
    let rest = question[found?..].trim_end_matches(['?', '.', '!', ' ']);
    let rest = ["the ", "a ", "an ", "my "]
        .iter()
        .fold(rest, |rest, article| rest.strip_prefix(article).unwrap_or(rest));
    (rest.split_whitespace().count() <= 4 && !rest.is_empty()).then_some(rest)
}

/// The longest piece of a question that calculates: `12 * (3 + 4)`.
fn calculation(question: &str) -> Option<&str> {
    let is_part = |c: char| {
        c.is_ascii_digit() || matches!(c, '+' | '-' | '*' | '/' | '(' | ')' | '.' | '^' | '%' | ' ')
    };
    question
        .split(|c| !is_part(c))
        .map(|piece| piece.trim_matches(|c| matches!(c, ' ' | '.')))
        .filter(|piece| {
            piece.contains(|c: char| c.is_ascii_digit())
                && piece
                    .trim_start_matches('-')
                    .contains(['+', '-', '*', '/', '^', '%'])
        })
        .max_by_key(|piece| piece.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use peregrine_core::{Message, Part, Role, ToolCall};
    use serde_json::json;

    fn filled(messages: &[Message], parameters: &Value) -> Result<Value, String> {
        let messages: Vec<&Message> = messages.iter().collect();
        let evidence = Evidence::read(&messages, 1 << 20).unwrap();
        let words: Vec<&str> = evidence.query.content_words().collect();
        let about = About {
            path: Some("a.md"),
            words: &words,
            ..About::default()
        };
        fill(&Shape::root(parameters), about, &evidence)
    }

    /// Questions, the properties of a tool that are all required, and its arguments or what is missing.
    fn check(cases: &[(&str, Value, Result<Value, &str>)]) {
        for (question, properties, expected) in cases {
            let required: Vec<&String> = properties.as_object().unwrap().keys().collect();
            let parameters = json!({"type": "object", "properties": properties, "required": required});
            let found = filled(&[Message::user(*question)], &parameters);
            assert_eq!(found, expected.clone().map_err(str::to_owned), "{question}");
        }
    }

    #[test]
    fn values_come_from_the_question() {
        let city = json!({"city": {"type": "string"}});
        let unit = json!({"unit": {"enum": ["celsius", "fahrenheit"]}});
        let two = json!({"a": {"type": "number"}, "b": {"type": "integer", "maximum": 9}});
        let mail = json!({"to": {"type": "string"}, "body": {"type": "string"}});
        let deep = json!({"where": {"type": "object", "properties": city, "required": ["city"]}});
        check(&[
            (
                "What is the weather in New York?",
                city.clone(),
                Ok(json!({"city": "New York"})),
            ),
            ("weather for berlin?", city.clone(), Ok(json!({"city": "berlin"}))),
            (
                "Weather? city: Rome, please",
                city.clone(),
                Ok(json!({"city": "Rome"})),
            ),
            ("What is the weather?", city, Err("city")),
            ("In Celsius?", unit.clone(), Ok(json!({"unit": "celsius"}))),
            ("How warm?", unit, Err("unit")),
            ("Add 2.5 and 3", two.clone(), Ok(json!({"a": 2.5, "b": 3}))),
            ("Add 2 and 30", two.clone(), Err("b")),
            ("Add 2", two, Err("b")),
            (
                "Send \"hi there\" to bob@example.org",
                mail,
                Ok(json!({"to": "bob@example.org", "body": "hi there"})),
            ),
            (
                "What is 12 * (3 + 4)?",
                json!({"expression": {"type": "string"}}),
                Ok(json!({"expression": "12 * (3 + 4)"})),
            ),
            (
                "tags \"a\" and \"b\"",
                json!({"tags": {"type": "array", "items": {"type": "string"}}}),
                Ok(json!({"tags": ["a", "b"]})),
            ),
            ("Weather in Oslo?", deep, Ok(json!({"where": {"city": "Oslo"}}))),
        ]);
    }

    #[test]
    fn paths_and_search_words_are_what_the_call_is_about() {
        let question = "How are retries limited?";
        let text = |name: &str| json!({name: {"type": "string"}});
        let described = |name: &str, about: &str| json!({name: {"type": "string", "description": about}});
        check(&[
            (question, text("path"), Ok(json!({"path": "a.md"}))),
            (question, text("query"), Ok(json!({"query": "retries limited"}))),
            (question, text("question"), Ok(json!({"question": question}))),
            (
                question,
                described("pattern", "a regular expression"),
                Ok(json!({"pattern": "retries|limited"})),
            ),
            (
                question,
                described("pattern", "a glob such as *.rs"),
                Ok(json!({"pattern": "**/*"})),
            ),
            (question, text("directory"), Ok(json!({"directory": "."}))),
        ]);
        let optional =
            json!({"properties": {"query": {"type": "string"}, "limit": {"type": "integer"}, "note": {}}});
        let found = filled(&[Message::user(question)], &optional);
        assert_eq!(found, Ok(json!({"query": "retries limited"})));
    }

    #[test]
    fn values_come_from_earlier_results() {
        let call = ToolCall::new("1", "get_user", "{\"name\":\"ada\"}");
        let user = "{\"user\":{\"id\":\"u-17\",\"mail\":\"a@b.c\"},\"age\":36}";
        let messages = [
            Message::user("Which orders does Ada have?"),
            Message::new(Role::Assistant, vec![Part::ToolCall(call.clone())]),
            Message::tool(ToolResult::new(&call, user)),
        ];
        let orders = json!({
            "properties": {"user_id": {"type": "string"}, "age": {"type": "integer"}},
            "required": ["user_id", "age"]
        });
        assert_eq!(
            filled(&messages, &orders),
            Ok(json!({"user_id": "u-17", "age": 36}))
        );
    }
}
