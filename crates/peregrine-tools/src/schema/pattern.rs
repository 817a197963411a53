//! Regular expressions of JSON Schema, which are those of ECMA-262, on an engine that is linear in the text.
//!
//! Algorithm: the expression is rewritten, piece by piece, into what means the same to the engine. Whatever has no
//! equal there (look-around, backreferences, `\p{..}`) or is not ECMA-262 is refused when the schema is compiled, so
//! that no expression quietly means something else. Matching is linear in the text: there is no expression, however
//! hostile, that backtracks.

use std::fmt;
use std::iter::Peekable;
use std::str::Chars;

use regex_lite::Regex;

/// The white space of ECMA-262, as the inside of a class.
const SPACE: &str =
    r"\t\n\x0B\x0C\r \x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}\x{FEFF}";

/// A compiled expression, and the text that it was.
#[derive(Clone)]
pub(super) struct Pattern {
    source: String,
    regex: Regex,
}

impl Pattern {
    /// Compiles an expression.
    ///
    /// # Errors
    ///
    /// What of it cannot be enforced.
    pub(super) fn new(source: &str) -> Result<Self, String> {
        let rewritten = Rewriter {
            rest: source.chars().peekable(),
            output: String::with_capacity(source.len() + 16),
        };
        let regex = Regex::new(&rewritten.run()?).map_err(|error| error.to_string())?;
        Ok(Self {
            source: source.to_owned(),
            regex,
        })
    }

    /// The expression as its author wrote it.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// Whether it matches anywhere in a text.
    pub(super) fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.source, f)
    }
}

struct Rewriter<'a> {
    rest: Peekable<Chars<'a>>,
    output: String,
}

impl Rewriter<'_> {
    fn run(mut self) -> Result<String, String> {
        while let Some(c) = self.rest.next() {
            match c {
                '\\' => self.escape(false)?,
                '[' => self.class()?,
                '.' => self.output.push_str(r"[^\n\r\x{2028}\x{2029}]"),
                '(' => self.group()?,
                '{' => self.repetition()?,
                '*' | '+' | '?' => {
                    self.output.push(c);
                    self.end_of_repetition()?;
                }
                '^' | '$' | '|' | ')' => self.output.push(c),
                _ => self.literal(c),
            }
        }
        Ok(self.output)
    }

    fn ahead(&mut self, c: char) -> bool {
        self.rest.peek() == Some(&c)
    }

    fn second_ahead(&self) -> Option<char> {
        self.rest.clone().nth(1)
    }

    fn literal(&mut self, c: char) {
        if c.is_ascii_punctuation() {
            // Not a meta character of ours, but perhaps one of the engine.
            self.output
                .push_str(&regex_lite::escape(c.encode_utf8(&mut [0; 4])));
        } else {
            self.output.push(c);
        }
    }

    /// Behind a `\`.
    fn escape(&mut self, in_class: bool) -> Result<(), String> {
        let Some(c) = self.rest.next() else {
            return Err("it ends in a backslash".to_owned());
        };
        match c {
            'd' | 'D' | 'w' | 'W' => {
                self.output.push('\\');
                self.output.push(c);
            }
            's' if in_class => {
                if self.ahead('-') && self.second_ahead() != Some(']') {
                    return Err("a range cannot begin with a class".to_owned());
                }
                self.output.push_str(SPACE);
            }
            's' => self.output.extend(["[", SPACE, "]"]),
            'S' if !in_class => self.output.extend(["[^", SPACE, "]"]),
            'b' if in_class => self.code(8),
            'b' | 'B' if !in_class => {
                if matches!(self.rest.peek(), Some('{' | '*' | '+' | '?')) {
                    return Err("a word boundary cannot be repeated".to_owned());
                }
                self.output.push('\\');
                self.output.push(c);
            }
            't' | 'n' | 'v' | 'f' | 'r' => {
                self.output.push('\\');
                self.output.push(c);
            }
            '0' if !matches!(self.rest.peek(), Some('0'..='9')) => self.code(0),
            '0'..='9' | 'k' => return Err("backreferences are not supported".to_owned()),
            'p' | 'P' => return Err(r"`\p{..}` is not supported; list the characters instead".to_owned()),
            'c' => match self.rest.next() {
                Some(letter @ ('a'..='z' | 'A'..='Z')) => self.code(u32::from(letter) % 32),
                _ => return Err(r"`\c` must be followed by a letter".to_owned()),
            },
            'x' => {
                let code = self.hex(2)?;
                self.code(code);
            }
            'u' => {
                let code = self.unicode()?;
                self.code(code);
            }
            _ if c.is_ascii_alphanumeric() => return Err(format!(r"`\{c}` means nothing in ECMA-262")),
            _ => self.literal(c),
        }
        Ok(())
    }

    fn code(&mut self, code: u32) {
        self.output.push_str(&format!(r"\x{{{code:X}}}"));
    }

    fn hex(&mut self, digits: usize) -> Result<u32, String> {
        let mut code = 0;
        for _ in 0..digits {
            let digit = self.rest.next().and_then(|c| c.to_digit(16));
            code = code * 16 + digit.ok_or(r"`\x` and `\u` must be followed by hexadecimal digits")?;
        }
        Ok(code)
    }

    /// Behind `\u`: four digits, or some in braces.
    fn unicode(&mut self) -> Result<u32, String> {
        let code = if self.rest.next_if_eq(&'{').is_some() {
            let mut code: u32 = 0;
            loop {
                match self.rest.next() {
                    Some('}') => break code,
                    Some(c) => {
                        let digit = c.to_digit(16).ok_or(r"`\u{..}` must hold hexadecimal digits")?;
                        code = code.saturating_mul(16).saturating_add(digit);
                    }
                    None => return Err(r"`\u{` has no end".to_owned()),
                }
            }
        } else {
            self.hex(4)?
        };
        match char::from_u32(code) {
            Some(_) => Ok(code),
            None => Err(format!(
                r"`\u{{{code:X}}}` is not a character; write pairs as one `\u{{..}}`"
            )),
        }
    }

    /// Behind a `[`.
    fn class(&mut self) -> Result<(), String> {
        self.output.push('[');
        if self.rest.next_if_eq(&'^').is_some() {
            self.output.push('^');
        }
        if self.ahead(']') {
            return Err("an empty class is not supported".to_owned());
        }
        let mut first = true;
        loop {
            match self.rest.next() {
                None => return Err("a class has no end".to_owned()),
                Some(']') => break,
                Some('\\') if self.ahead('S') => {
                    return Err(r"`\S` in a class is not supported".to_owned());
                }
                Some('\\') => self.escape(true)?,
                // At an edge it is itself, else it makes a range.
                Some('-') if first || self.ahead(']') => self.output.push_str(r"\-"),
                Some('-') if self.ahead('\\') && self.second_ahead() == Some('s') => {
                    return Err("a range cannot end with a class".to_owned());
                }
                Some('-') => self.output.push('-'),
                Some(c) => self.literal(c),
            }
            first = false;
        }
        self.output.push(']');
        Ok(())
    }

    /// Behind a `(`.
    fn group(&mut self) -> Result<(), String> {
        self.output.push('(');
        if self.rest.next_if_eq(&'?').is_none() {
            return Ok(());
        }
        let unsupported = || Err("look-around and flags are not supported".to_owned());
        match self.rest.next() {
            Some(':') => self.output.push_str("?:"),
            Some('<') if !matches!(self.rest.peek(), Some('=' | '!')) => {
                // The name is of no use here, and need not be one that the engine takes.
                self.output.push_str("?:");
                loop {
                    match self.rest.next() {
                        Some('>') => break,
                        Some(c) if c.is_alphanumeric() || c == '_' || c == '$' => {}
                        _ => return Err("the name of a group is malformed".to_owned()),
                    }
                }
            }
            _ => return unsupported(),
        }
        Ok(())
    }

    /// Behind a `{`: it must be `{n}`, `{n,}` or `{n,m}`.
    fn repetition(&mut self) -> Result<(), String> {
        let mut inside = String::new();
        loop {
            match self.rest.next() {
                Some('}') => break,
                Some(c @ ('0'..='9' | ',')) => inside.push(c),
                _ => return Err(r"a literal `{` must be written `\{`".to_owned()),
            }
        }
        let (least, most) = inside.split_once(',').unwrap_or((&inside, ""));
        if least.is_empty() || most.contains(',') {
            return Err("a repetition must be `{n}`, `{n,}` or `{n,m}`".to_owned());
        }
        self.output.extend(["{", &inside, "}"]);
        self.end_of_repetition()
    }

    /// Behind a repetition there may be one `?`, but no other repetition.
    fn end_of_repetition(&mut self) -> Result<(), String> {
        if self.rest.next_if_eq(&'?').is_some() {
            self.output.push('?');
        }
        match self.rest.peek() {
            Some('*' | '+' | '?' | '{') => Err("a repetition is repeated".to_owned()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(text)
    }

    #[test]
    fn means_what_ecma_262_means() {
        assert!(matches("b+", "abc"), "not anchored");
        assert!(!matches("^b", "abc") && !matches("b$", "ab\n"));
        assert!(matches(r"^\d{3}-\d{4}$", "555-1234") && !matches(r"^\d$", "٣"));
        assert!(matches(r"^\s\S$", "\u{a0}x") && matches(r"^[\s,]+$", " ,\u{3000}"));
        assert!(matches("^.$", "é") && !matches("^.$", "\r") && !matches("^.$", "\u{2028}"));
        assert!(matches("^[[&&~~]+$", "[&~"), "no sets within sets");
        assert!(matches("^[-a]$", "-") && matches("^[a-]$", "-") && matches("^[a-c]$", "b"));
        assert!(matches(r"^[+\--]$", "-") && matches(r"^\/\-\#\}]$", "/-#}]"));
        assert!(matches(r"^\u0041\x42\u{1F600}\cJ\0$", "AB😀\n\0"));
        assert!(matches("^(?<year>[0-9]{4})$", "2026") && matches("^a{2,}?b$", "aaab"));
        assert!(matches(r"^[\b]$", "\u{8}") && matches(r"\bfoo\b", "a foo b"));
        assert!(matches("a#b c", "a#b c"), "no comments, no ignored space");
    }

    #[test]
    fn what_has_no_equal_is_refused() {
        for pattern in [
            "(?=a)",
            "(?!a)",
            "(?<=a)b",
            "(?i)a",
            r"(a)\1",
            r"\p{L}",
            r"\A",
            r"\z",
            r"\<",
            "[]",
            "[^]",
            r"[\S]",
            "a{,3}",
            "{",
            "a**",
            "a+++",
            "(",
            ")",
            "[a",
            r"\",
            r"\x4",
            r"\ud83d",
            r"\u{110000}",
            r"\u{",
            "(?<a",
            r"\b+",
            "[z-a]",
            r"\_x",
            r"[\s-z]",
            r"[\0-\s]",
        ] {
            match Pattern::new(pattern) {
                Err(why) => assert!(!why.is_empty()),
                Ok(compiled) => assert!(
                    [r"\<", r"\_x"].contains(&pattern),
                    "{pattern} became {:?}",
                    compiled.regex
                ),
            }
        }
        assert!(matches(r"\<", "<"), "an escaped sign is itself");
    }

    #[test]
    fn hostile_expressions_are_linear() {
        let text = "a".repeat(20_000);
        assert!(!matches("^(a+)+$", &format!("{text}b")));
        assert!(
            Pattern::new(&"(a{1000}){1000}".repeat(100)).is_err(),
            "too large to compile"
        );
    }
}
