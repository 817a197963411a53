//! The parser of references. One pass, no recursion, linear in the text.

use super::{MAX_ID_BYTES, MAX_PATH_LEN, MalformedReference, Reference, Segment};

/// A part of a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(String),
    Reference(Reference),
}

/// The parts of a text, no two texts beside each other, none of them empty.
pub(crate) fn parse(text: &str) -> Result<Vec<Piece>, MalformedReference> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut at = 0;
    while let Some(found) = text[at..].find('$') {
        literal.push_str(&text[at..at + found]);
        at += found;
        if text[at + 1..].starts_with('$') {
            literal.push('$');
            at += 2;
            continue;
        }
        let mut reader = Reader { text, at: at + 1 };
        let reference = reader
            .reference()
            .map_err(|problem| MalformedReference { at, problem })?;
        if !literal.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut literal)));
        }
        pieces.push(Piece::Reference(reference));
        at = reader.at;
    }
    literal.push_str(&text[at..]);
    if !literal.is_empty() {
        pieces.push(Piece::Text(literal));
    }
    Ok(pieces)
}

/// Whether a step may be called this.
pub(crate) fn is_id(text: &str) -> bool {
    is_name(text) && text.len() <= MAX_ID_BYTES
}

/// Whether this is a name as a whole.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && name_len(text) == text.len()
}

/// How many bytes at the beginning are a name.
fn name_len(text: &str) -> usize {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = text.as_bytes();
    let mut end = 0;
    for (index, &byte) in bytes.iter().enumerate() {
        match byte {
            _ if is_letter(byte) => end = index + 1,
            b'-' if end > 0 => {}
            _ => break,
        }
    }
    end
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn takes(&mut self, expected: char) -> bool {
        let is_there = self.rest().starts_with(expected);
        if is_there {
            self.at += expected.len_utf8();
        }
        is_there
    }

    fn name(&mut self) -> Option<&'a str> {
        let name = &self.rest()[..name_len(self.rest())];
        self.at += name.len();
        (!name.is_empty()).then_some(name)
    }

    /// What follows the dollar sign.
    fn reference(&mut self) -> Result<Reference, &'static str> {
        let in_braces = self.takes('{');
        let id = self.name().ok_or("a dollar sign without the id of a step")?;
        if id.len() > MAX_ID_BYTES {
            return Err("an id that is too long");
        }
        let mut path = Vec::new();
        loop {
            if self.rest().starts_with('.') && (in_braces || name_len(&self.rest()[1..]) > 0) {
                self.at += 1;
                let field = self.name().ok_or("a dot without the name of a field")?;
                path.push(Segment::Field(field.to_owned()));
            } else if self.takes('[') {
                path.push(self.subscript()?);
            } else {
                break;
            }
            if path.len() > MAX_PATH_LEN {
                return Err("a path that is too long");
            }
        }
        if in_braces && !self.takes('}') {
            return Err("a brace that is not closed behind the reference");
        }
        let step = id.to_owned();
        Ok(Reference { step, path })
    }

    /// What follows the bracket, the closing one included.
    fn subscript(&mut self) -> Result<Segment, &'static str> {
        let rest = self.rest();
        let (segment, length) = match rest.chars().next() {
            Some('0'..='9') => {
                let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
                let index: u32 = rest[..digits].parse().map_err(|_| "an index that is too large")?;
                let index = usize::try_from(index).map_err(|_| "an index that is too large")?;
                (Segment::Index(index), digits)
            }
            Some('\'') => {
                let length = rest[1..].find('\'').ok_or("a key without its closing quote")?;
                (Segment::Field(rest[1..=length].to_owned()), length + 2)
            }
            Some('"') => {
                let mut key = serde_json::Deserializer::from_str(rest).into_iter::<String>();
                let name = key.next().and_then(Result::ok);
                let name = name.ok_or("a key that is not a JSON string")?;
                (Segment::Field(name), key.byte_offset())
            }
            _ => return Err("a bracket without an index or a quoted key"),
        };
        self.at += length;
        if !self.takes(']') {
            return Err("a bracket that is not closed behind the index or the key");
        }
        Ok(segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        match parse(text) {
            Ok(pieces) => pieces
                .iter()
                .map(|piece| match piece {
                    Piece::Text(text) => format!("({text})"),
                    Piece::Reference(reference) => format!("<{reference}>"),
                })
                .collect(),
            Err(MalformedReference { at, problem }) => format!("{at}: {problem}"),
        }
    }

    #[test]
    fn references_are_found_wherever_they_stand() {
        for (text, expected) in [
            ("", ""),
            ("plain", "(plain)"),
            ("$step1", "<$step1>"),
            ("$step1.field", "<$step1.field>"),
            ("$step1.items[0].name", "<$step1.items[0].name>"),
            ("see $a.b, then $c", "(see )<$a.b>(, then )<$c>"),
            ("${a}b", "<$a>(b)"),
            ("${a.b[1]}[x]", "<$a.b[1]>([x])"),
            ("$a.", "<$a>(.)"),
            ("$a..b", "<$a>(..b)"),
            ("$a.b.", "<$a.b>(.)"),
            ("$low-$high", "<$low>(-)<$high>"),
            ("$step-1-", "<$step-1>(-)"),
            ("$a--b", "<$a--b>"),
            ("$1", "<$1>"),
            ("$a['odd key'].x", r#"<$a["odd key"].x>"#),
            (r#"$a["q\"é"]"#, r#"<$a["q\"é"]>"#),
            ("$a['b']", "<$a.b>"),
            ("$$", "($)"),
            ("$$a", "($a)"),
            ("$$$a", "($)<$a>"),
            ("it costs $$5.00", "(it costs $5.00)"),
            ("根据$a的结果", "(根据)<$a>(的结果)"),
            ("$a$b", "<$a><$b>"),
        ] {
            assert_eq!(written(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_malformed_is_said_with_its_place() {
        for (text, expected) in [
            ("$", "0: a dollar sign without the id of a step"),
            ("a $ b", "2: a dollar sign without the id of a step"),
            ("$-a", "0: a dollar sign without the id of a step"),
            ("$é", "0: a dollar sign without the id of a step"),
            ("${}", "0: a dollar sign without the id of a step"),
            ("$$$", "2: a dollar sign without the id of a step"),
            ("${a", "0: a brace that is not closed behind the reference"),
            ("${a b}", "0: a brace that is not closed behind the reference"),
            ("${a.}", "0: a dot without the name of a field"),
            ("x${a.b-}", "1: a brace that is not closed behind the reference"),
            ("$a[", "0: a bracket without an index or a quoted key"),
            ("$a[]", "0: a bracket without an index or a quoted key"),
            ("$a[x]", "0: a bracket without an index or a quoted key"),
            ("$a[-1]", "0: a bracket without an index or a quoted key"),
            (
                "$a[1",
                "0: a bracket that is not closed behind the index or the key",
            ),
            (
                "$a[1 ]",
                "0: a bracket that is not closed behind the index or the key",
            ),
            ("$a[99999999999]", "0: an index that is too large"),
            ("$a['b]", "0: a key without its closing quote"),
            (r#"$a["b]"#, "0: a key that is not a JSON string"),
            (
                r#"$a["b""#,
                "0: a bracket that is not closed behind the index or the key",
            ),
        ] {
            assert_eq!(written(text), expected, "{text}");
        }
        assert_eq!(
            written(&format!("${}", "a".repeat(129))),
            "0: an id that is too long"
        );
        assert_eq!(
            written(&format!("$a{}", ".b".repeat(65))),
            "0: a path that is too long"
        );
    }
}
