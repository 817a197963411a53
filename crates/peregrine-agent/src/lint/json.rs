//! Looking into JSON text without parsing it: where a byte stands, and the text without cache hints.
//!
//! The text has been through a parser, so it is well-formed; should it not be, the answers are wrong but nothing else
//! happens. Everything is one pass, and the depth of the text costs memory, not stack.

use std::borrow::Cow;

/// Names of members that only say where a provider is to cache, and what their values contain.
const HINTS: [(&str, &str); 3] = [
    ("\"cache_control\"", "\"ephemeral\""),
    ("\"prompt_cache_breakpoint\"", "\"explicit\""),
    ("\"cache_breakpoint\"", "true"),
];
/// The longest value of a hint.
const MAX_HINT_BYTES: usize = 200;
/// How a text as a list of one block begins.
const ONE_BLOCK: [&str; 2] = [r#"[{"type":"text","text":""#, r#"[{"type":"input_text","text":""#];
/// How much of a path is shown.
const MAX_PATH_STEPS: usize = 16;
const MAX_NAME_CHARS: usize = 60;

/// The text without hints for caching and, in what is `wire` format, with text in a list of one block as the text alone.
pub(super) fn normalised(text: &str, wire: bool) -> Cow<'_, str> {
    let blocks = if wire { &ONE_BLOCK[..] } else { &[] };
    let hinted = HINTS.iter().any(|(name, _)| text.contains(name));
    if !hinted && !blocks.iter().any(|block| text.contains(block)) {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    // Where the part begins that is not copied yet.
    let (mut from, mut at) = (0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                let end = string_end(bytes, at);
                let Some(after) = hint_end(text, at, end) else {
                    at = end;
                    continue;
                };
                out.push_str(&text[from..at]);
                from = after;
                if out.ends_with(',') {
                    out.pop();
                } else if bytes.get(after) == Some(&b',') {
                    from = after + 1;
                }
                at = from;
            }
            b'[' => {
                let Some(block) = blocks.iter().find(|block| text[at..].starts_with(**block)) else {
                    at += 1;
                    continue;
                };
                let start = at + block.len() - 1;
                let end = string_end(bytes, start);
                let mut close = end;
                // A hint may stand behind the text.
                if bytes.get(close) == Some(&b',') && bytes.get(close + 1) == Some(&b'"') {
                    let name_end = string_end(bytes, close + 1);
                    close = hint_end(text, close + 1, name_end).unwrap_or(close);
                }
                if bytes.get(close..).is_some_and(|rest| rest.starts_with(b"}]")) {
                    out.push_str(&text[from..at]);
                    out.push_str(&text[start..end]);
                    from = close + 2;
                    at = from;
                } else {
                    at += 1;
                }
            }
            _ => at += 1,
        }
    }
    out.push_str(&text[from..]);
    Cow::Owned(out)
}

/// The end of the member whose name is `start..end`, if it is a hint.
fn hint_end(text: &str, start: usize, end: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let name = text.get(start..end)?;
    let (_, needle) = HINTS.iter().find(|(hint, _)| *hint == name)?;
    let colon = skip_space(bytes, end);
    if bytes.get(colon) != Some(&b':') {
        return None;
    }
    let value = skip_space(bytes, colon + 1);
    let limit = bytes.len().min(value + MAX_HINT_BYTES);
    let mut depth = 0_usize;
    let mut at = value;
    while at < limit {
        match bytes[at] {
            b'"' => {
                at = string_end(&bytes[..limit], at);
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' | b',' if depth == 0 => break,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    let whole = bytes
        .get(at)
        .is_some_and(|byte| matches!(byte, b'}' | b']' | b','));
    let found = text.get(value..at)?.trim_end();
    let fits = match *needle {
        "true" => found == "true",
        needle => found.starts_with('{') && found.contains(needle),
    };
    (whole && fits).then_some(at)
}

/// The JSON path of the value that the byte at `offset` belongs to, such as `.content[1].text`. A byte of a name, or
/// between values, belongs to the object or list around it.
pub(super) fn path_at(text: &str, offset: usize) -> String {
    enum Frame {
        /// The range of the current member's name, with its quotes.
        Object(Option<(usize, usize)>),
        Array(usize),
    }
    let bytes = text.as_bytes();
    let mut stack: Vec<Frame> = Vec::new();
    let mut at = 0;
    while at < bytes.len() && at < offset {
        match bytes[at] {
            b'{' => stack.push(Frame::Object(None)),
            b'[' => stack.push(Frame::Array(0)),
            b'}' | b']' => drop(stack.pop()),
            b',' => match stack.last_mut() {
                Some(Frame::Object(name)) => *name = None,
                Some(Frame::Array(index)) => *index += 1,
                None => {}
            },
            b'"' => {
                let end = string_end(bytes, at);
                if offset < end {
                    break;
                }
                if let Some(Frame::Object(name @ None)) = stack.last_mut() {
                    *name = Some((at, end));
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    let mut path = String::new();
    for (step, frame) in stack.iter().enumerate() {
        if step == MAX_PATH_STEPS {
            path.push_str("..");
            break;
        }
        match frame {
            Frame::Object(None) => {}
            Frame::Object(Some((start, end))) => {
                push_name(&mut path, text.get(*start..*end).unwrap_or_default())
            }
            Frame::Array(index) => path.push_str(&format!("[{index}]")),
        }
    }
    path
}

/// Adds a member's name: as `.name` where it looks like one, else in brackets.
fn push_name(path: &mut String, quoted: &str) {
    let name = quoted.trim_matches('"');
    let plain = !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '$'));
    let short: String = name.chars().take(MAX_NAME_CHARS).collect();
    let dots = if short.len() < name.len() { ".." } else { "" };
    if plain {
        path.push_str(&format!(".{short}{dots}"));
    } else {
        path.push_str(&format!("[\"{short}{dots}\"]"));
    }
}

/// The bytes without white space, escaped or not.
pub(super) fn unspaced(text: &str) -> impl Iterator<Item = u8> + '_ {
    let mut bytes = text.bytes().peekable();
    std::iter::from_fn(move || {
        loop {
            let byte = bytes.next()?;
            if byte == b'\\' && bytes.next_if(|next| matches!(next, b'n' | b'r' | b't')).is_some() {
                continue;
            }
            if !byte.is_ascii_whitespace() {
                return Some(byte);
            }
        }
    })
}

/// The place behind the string that begins at `start`.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hints_and_blocks_of_one_text_make_no_difference() {
        let same = [
            r#"{"role":"user","content":"hi, \"you\""}"#,
            r#"{"role":"user","content":[{"type":"text","text":"hi, \"you\""}]}"#,
            r#"{"role":"user","content":[{"type":"input_text","text":"hi, \"you\""}]}"#,
            r#"{"role":"user","content":[{"type":"text","text":"hi, \"you\"","cache_control":{"type":"ephemeral","ttl":"1h"}}]}"#,
            r#"{"role":"user","content":[{"type":"text","text":"hi, \"you\"","prompt_cache_breakpoint":{"mode":"explicit"}}]}"#,
            r#"{"cache_control": {"type": "ephemeral"},"role":"user","content":"hi, \"you\""}"#,
            r#"{"role":"user","content":"hi, \"you\"","cache_breakpoint":true}"#,
            r#"{"role":"user","cache_breakpoint":true,"content":"hi, \"you\""}"#,
        ];
        for text in same {
            assert_eq!(normalised(text, true), same[0], "{text}");
        }
        assert_eq!(normalised(same[1], false), same[1], "it is not from the wire");
        let others = [
            r#"{"content":"say \"cache_control\":{\"type\":\"ephemeral\"}"}"#,
            r#"{"properties":{"cache_control":{"type":"string"}}}"#,
            r#"{"cache_breakpoint":false}"#,
            r#"{"x":["cache_control"]}"#,
            r#"[{"type":"text","text":"a"},{"type":"text","text":"b"}]"#,
            r#"[{"type":"text","text":"a","citations":[]}]"#,
        ];
        for text in others {
            assert_eq!(normalised(text, true), text);
        }
    }

    #[test]
    fn paths_name_the_value_that_a_byte_belongs_to() {
        let text = r#"{"a":"x","b c":[1,{"d":[true,"y"]}],"e":{}}"#;
        let cases = [
            ("x", ".a"),
            ("1", r#"["b c"][0]"#),
            ("true", r#"["b c"][1].d[0]"#),
            ("y", r#"["b c"][1].d[1]"#),
            ("}}", ".e"),
            ("\"b c", ""),
            ("d\":", r#"["b c"][1]"#),
        ];
        for (needle, path) in cases {
            assert_eq!(path_at(text, text.find(needle).unwrap()), path, "{needle}");
        }
        assert_eq!(path_at("\"text\"", 3), "");
        let deep = "[".repeat(100_000);
        assert!(path_at(&deep, deep.len()).len() < 100);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in r#"(\PC|["\\\[\]{},:]|cache_control|"cache_breakpoint":true){0,40}"#, at in 0_usize..60) {
            let _ = (normalised(&text, true), path_at(&text, at));
            let block = format!(r#"[{{"type":"text","text":"{text}"#);
            let _ = (normalised(&block, true), path_at(&block, at));
        }
    }
}
