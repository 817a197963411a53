//! What a break probably comes from. A guess is made only where the texts show it; everything else has no cause.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex_lite::Regex;
use serde_json::Value;

use super::Cause;
use super::json::unspaced;
use super::prompt::{Element, Prompt, Section};

/// How much around the byte is searched for dates and ids.
const AROUND: usize = 64;
/// How long a word must be to be an id, and how much of it must differ.
const ID_CHARS: usize = 8;
const ID_DIFFERS: usize = 6;

/// The cause of a difference in the elements at `place`, at their byte `at`.
pub(super) fn of(earlier: &Prompt<'_>, later: &Prompt<'_>, place: usize, at: usize) -> Option<Cause> {
    let (one, two) = (&earlier.elements[place], &later.elements[place]);
    if one.section == two.section
        && let Some(cause) = same_value(one.text(), two.text())
    {
        return Some(cause);
    }
    if one.section == Section::Tools || two.section == Section::Tools {
        return tools(earlier, later, one, two, at);
    }
    if one.section == Section::Messages && dropped(earlier, later, place) {
        return Some(Cause::Dropped);
    }
    in_text(one.text(), two.text(), at)
}

/// Whether two texts say the same in different ways.
fn same_value(one: &str, two: &str) -> Option<Cause> {
    if unspaced(one).eq(unspaced(two)) {
        return Some(Cause::Whitespace);
    }
    let values = [one, two].map(serde_json::from_str::<Value>);
    let [Ok(one), Ok(two)] = values else { return None };
    // Objects are equal whatever the order of their keys.
    if one != two {
        return None;
    }
    let [one, two] = [one, two].map(|value| value.to_string());
    Some(if one == two {
        Cause::Encoding
    } else {
        Cause::KeyOrder
    })
}

fn tools(
    earlier: &Prompt<'_>,
    later: &Prompt<'_>,
    one: &Element<'_>,
    two: &Element<'_>,
    at: usize,
) -> Option<Cause> {
    let (before, after) = (tool_names(earlier), tool_names(later));
    if before == after {
        // The same tools; one of them is described in another way.
        return in_text(one.text(), two.text(), at).or(Some(Cause::ToolsChanged));
    }
    let set = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
    Some(if before.len() == after.len() && set(&before) == set(&after) {
        Cause::ToolsReordered
    } else {
        Cause::ToolsChanged
    })
}

/// The names of the tools, in their order, in any dialect.
fn tool_names(prompt: &Prompt<'_>) -> Vec<String> {
    let name = |tool: &Value| {
        let named = tool.get("function").unwrap_or(tool);
        named
            .get("name")
            .or_else(|| named.get("type"))
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let mut names = Vec::new();
    for element in prompt
        .elements
        .iter()
        .take_while(|element| element.section == Section::Tools)
    {
        let Ok(tool) = serde_json::from_str::<Value>(element.text()) else {
            names.push(element.text().to_owned());
            continue;
        };
        let declared = tool
            .get("functionDeclarations")
            .or_else(|| tool.get("function_declarations"));
        match declared.and_then(Value::as_array) {
            Some(declared) => names.extend(declared.iter().filter_map(name)),
            None => names.push(name(&tool).unwrap_or_else(|| element.text().to_owned())),
        }
    }
    names
}

/// Whether what stands at this place now stood further behind before.
pub(super) fn dropped(earlier: &Prompt<'_>, later: &Prompt<'_>, place: usize) -> bool {
    let now = &later.elements[place];
    let next = later.elements.get(place + 1);
    (place + 1..earlier.elements.len()).any(|before| {
        let follows = match (earlier.elements.get(before + 1), next) {
            (Some(one), Some(two)) => one.is(two),
            _ => true,
        };
        follows && earlier.elements[before].is(now)
    })
}

/// Dates, times and ids at the byte where two texts part.
fn in_text(one: &str, two: &str, at: usize) -> Option<Cause> {
    static TIMES: LazyLock<Vec<Regex>> = LazyLock::new(|| {
        let month = "(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|\
             Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)";
        compile(&[
            r"\d{4}-\d{2}-\d{2}(?:(?:T| )\d{2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?)?(?: ?Z| ?[+-]\d{2}:?\d{2})?",
            r"\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?: ?[AaPp]\.?[Mm])?",
            r"\d{1,2}/\d{1,2}/\d{2,4}|\d{1,2}\.\d{1,2}\.\d{4}",
            r"\b(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day\b|\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)\b",
            &format!(r"\b{month}\.? \d{{1,2}}(?:st|nd|rd|th)?(?:,? \d{{4}})?"),
            &format!(r"\b\d{{1,2}}(?:st|nd|rd|th|\.)? {month}\.?(?:,? \d{{4}})?"),
            // Seconds or milliseconds since 1970, from 2001 to 2096.
            r"\b[1-3]\d{9}(?:\d{3})?\b",
        ])
    });
    static UUID: LazyLock<Vec<Regex>> =
        LazyLock::new(|| compile(&[r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"]));

    // Both have such a thing there, and at least one of them has it behind the byte too.
    let covered = |regexes: &[Regex]| {
        let [one, two] =
            [one, two].map(|text| regexes.iter().filter_map(|regex| covers(regex, text, at)).max());
        one.zip(two).is_some_and(|(one, two)| one || two)
    };
    if covered(&UUID) {
        return Some(Cause::RandomId);
    }
    if covered(&TIMES) {
        return Some(Cause::Timestamp);
    }
    let (one, two) = (word(one, at), word(two, at));
    (one.0.abs_diff(two.0) <= 2 && one.1 && two.1).then_some(Cause::RandomId)
}

fn compile(patterns: &[&str]) -> Vec<Regex> {
    patterns
        .iter()
        .filter_map(|pattern| Regex::new(pattern).ok())
        .collect()
}

/// Whether a match of the pattern around the byte goes beyond it; `None` if there is no such match.
fn covers(regex: &Regex, text: &str, at: usize) -> Option<bool> {
    let from = text.floor_char_boundary(at.saturating_sub(AROUND));
    let to = text.ceil_char_boundary(text.len().min(at + AROUND));
    let at = at - from;
    let mut around = regex
        .find_iter(&text[from..to])
        .filter(|found| found.start() <= at && at <= found.end());
    around.next().map(|found| at < found.end())
}

/// The length of the word around the byte, and whether it looks like an id from there on.
fn word(text: &str, at: usize) -> (usize, bool) {
    let in_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let bytes = text.as_bytes();
    let before = bytes[..at.min(bytes.len())]
        .iter()
        .rev()
        .take(AROUND)
        .take_while(|byte| in_word(byte))
        .count();
    let behind: Vec<u8> = bytes[at.min(bytes.len())..]
        .iter()
        .take(AROUND)
        .take_while(|byte| in_word(byte))
        .copied()
        .collect();
    let length = before + behind.len();
    let id = length >= ID_CHARS && behind.len() >= ID_DIFFERS && behind.iter().any(u8::is_ascii_digit);
    (length, id)
}
