//! Rust source with its comments and literals blanked, so that a rule about code does not trip over a text.
//!
//! A single pass over the bytes: line comments, nested block comments, strings with escapes, raw strings with any
//! number of `#`, and characters (told from lifetimes by the closing quote). Line breaks stay where they are.

/// The same text with every byte inside a comment, a string or a character replaced by a space.
pub(super) fn code_only(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = skipped(bytes, at);
        for byte in &mut code[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    // Only whole tokens were replaced, by ASCII, so what is left is as valid as it was.
    String::from_utf8_lossy(&code).into_owned()
}

/// Where the comment or literal that starts at `at` ends; `at` itself where none starts.
fn skipped(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        return at + position(rest, b"\n").unwrap_or(rest.len());
    }
    if rest.starts_with(b"/*") {
        return block_comment(bytes, at);
    }
    match rest[0] {
        b'"' => string(bytes, at),
        b'\'' => character(bytes, at),
        // The prefixes of raw strings; within an identifier they are just letters.
        b'r' | b'b' | b'c' if at == 0 || !is_word(bytes[at - 1]) => raw_string(bytes, at),
        _ => at,
    }
}

fn block_comment(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

fn string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn character(bytes: &[u8], start: usize) -> usize {
    let rest = &bytes[start + 1..];
    if rest.first() == Some(&b'\\') {
        // The escaped byte may itself be a quote.
        return rest
            .get(2..)
            .and_then(|rest| position(rest, b"'"))
            .map_or(start, |found| start + found + 4);
    }
    // One character of up to four bytes and a quote; everything else is a lifetime or a label.
    let width = rest
        .iter()
        .skip(1)
        .take_while(|byte| (0x80..0xc0).contains(*byte))
        .count()
        + 1;
    if rest.get(width) == Some(&b'\'') {
        start + width + 2
    } else {
        start
    }
}

/// `r"`, `r#"`, `br##"`, `cr"`: ends at a quote followed by as many `#`. Anything else is not a raw string.
fn raw_string(bytes: &[u8], start: usize) -> usize {
    let rest = &bytes[start..];
    let prefix = usize::from(matches!(rest[0], b'b' | b'c'));
    if rest.get(prefix) != Some(&b'r') {
        return start;
    }
    let after_r = &rest[prefix + 1..];
    let hashes = after_r.iter().take_while(|byte| **byte == b'#').count();
    if after_r.get(hashes) != Some(&b'"') {
        return start;
    }
    let body = start + prefix + 1 + hashes + 1;
    let end: Vec<u8> = std::iter::once(b'"')
        .chain(std::iter::repeat_n(b'#', hashes))
        .collect();
    position(&bytes[body..], &end).map_or(bytes.len(), |found| body + found + end.len())
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of the source, with runs of spaces made one.
    fn left(source: &str) -> String {
        let code = code_only(source);
        assert_eq!(
            code.matches('\n').count(),
            source.matches('\n').count(),
            "line numbers moved"
        );
        code.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_and_literals_go_and_code_stays() {
        assert_eq!(left("a // b\nc"), "a c");
        assert_eq!(left("a /* b /* c */ d\n */ e"), "a e");
        assert_eq!(left(r#"f("a \" b", g)"#), "f( , g)");
        assert_eq!(left("f(r\"a\\\", g)"), "f( , g)");
        assert_eq!(left("f(r##\"a \"# b\"##, br#\"x\"#, cr\"y\", g)"), "f( , , , g)");
        assert_eq!(
            left("f(b\"x\", c\"y\", b'z', 'ä', '\\'', '\\u{1F600}', '\"', g)"),
            "f(b , c , b , , , , , g)"
        );
    }

    #[test]
    fn lifetimes_raw_identifiers_and_an_open_end_do_no_harm() {
        assert_eq!(
            left("fn f<'a>(x: &'a str) -> &'static str {}"),
            "fn f<'a>(x: &'a str) -> &'static str {}"
        );
        assert_eq!(left("r#type + for_r\"x\""), "r#type + for_r");
        assert_eq!(
            left("'outer: loop { break 'outer }"),
            "'outer: loop { break 'outer }"
        );
        for open in ["\"a", "r#\"a", "/* a", "'", "'\\", "b", "\"\\", "r#", "'\\'"] {
            code_only(open);
        }
    }
}
