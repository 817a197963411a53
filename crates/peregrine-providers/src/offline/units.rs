//! Text cut into the pieces that can be quoted: sentences, headings, list items, table rows, lines of code.
//!
//! Algorithm: one pass over the lines with the state of a small Markdown reader (fence, paragraph, list item,
//! table); paragraphs are cut at the ends of sentences. Invariant: units come in text order, do not overlap,
//! are not blank and have at most [`MAX_UNIT_BYTES`] bytes; any text at all gives units, binary text included.

use std::ops::Range;

/// Longer units are cut, at a space where there is one.
pub(super) const MAX_UNIT_BYTES: usize = 500;

/// A line that is shorter than this was not broken by the margin, so its end is the end of a unit.
const MARGIN_CHARS: usize = 45;

/// What a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A sentence of running text.
    Sentence,
    /// A heading, with its level from 1.
    Heading(u8),
    /// A list item.
    Item,
    /// The first row of a table.
    HeaderRow,
    /// Another row of a table.
    Row,
    /// A line of code or of another kind of list.
    Line,
}

/// How a text is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    /// Markdown, or anything that people read.
    Prose,
    /// Program text and the like: every line is a unit, comments are prose.
    Code,
}

impl Syntax {
    /// By a file's name.
    pub(super) fn of(name: &str) -> Self {
        const PROSE: &str = "md markdown txt rst adoc org html htm tex";
        match name.rsplit_once('.') {
            Some((_, extension)) if extension.len() <= 5 && !extension.contains(['/', ' ']) => {
                if PROSE
                    .split(' ')
                    .any(|prose| extension.eq_ignore_ascii_case(prose))
                {
                    Self::Prose
                } else {
                    Self::Code
                }
            }
            _ => Self::Prose,
        }
    }
}

/// Calls `visit` with every unit of a text.
pub(super) fn for_each_unit(text: &str, syntax: Syntax, visit: &mut dyn FnMut(Kind, Range<usize>)) {
    let mut reader = Reader {
        text,
        visit,
        open: None,
        in_comment: false,
        fence: None,
        header: None,
    };
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let range = at..at + line.len();
        at = range.end;
        match syntax {
            Syntax::Prose => reader.prose_line(range),
            Syntax::Code => reader.code_line(range),
        }
    }
    reader.close();
}

/// The text of a unit for showing: markers off, white space collapsed.
pub(super) fn shown(kind: Kind, unit: &str) -> String {
    let mut shown = String::with_capacity(unit.len());
    for (place, line) in unit.lines().enumerate() {
        let line = line.trim_start().trim_start_matches("> ");
        // A heading and an item have marks of their own, which look like those of comments.
        let mut line = match kind {
            Kind::Heading(_) | Kind::Item if line.starts_with(['#', '*', '-']) => line,
            _ => comment_text(line).unwrap_or(line),
        };
        line = match kind {
            Kind::Heading(_) => line.trim_matches(['#', ' ']),
            Kind::Item if place == 0 => &line[item_marker(line).unwrap_or(0)..],
            Kind::Row | Kind::HeaderRow => line.trim().trim_matches('|'),
            _ => line,
        };
        for word in line.split_whitespace() {
            if !shown.is_empty() {
                shown.push(' ');
            }
            shown.push_str(word);
        }
    }
    shown
}

struct Reader<'a> {
    text: &'a str,
    visit: &'a mut dyn FnMut(Kind, Range<usize>),
    /// The paragraph or list item that has begun.
    open: Option<(Kind, Range<usize>)>,
    /// What is open is a comment, whose lines may break anywhere.
    in_comment: bool,
    fence: Option<&'static str>,
    /// A table row that is the header if a rule follows.
    header: Option<Range<usize>>,
}

impl Reader<'_> {
    fn prose_line(&mut self, range: Range<usize>) {
        let line = &self.text[range.clone()];
        self.markdown(range, line.trim());
    }

    /// A line of prose; `line` is its text, without the marks of a comment.
    fn markdown(&mut self, range: Range<usize>, line: &str) {
        if let Some(fence) = self.fence {
            if line.starts_with(fence) {
                self.fence = None;
            } else {
                self.whole(Kind::Line, range);
            }
            return;
        }
        if let Some(fence) = ["```", "~~~"].into_iter().find(|fence| line.starts_with(fence)) {
            self.close();
            self.fence = Some(fence);
            return;
        }
        if line.is_empty() {
            return self.close();
        }
        if line.starts_with('|') {
            return self.row(range, line);
        }
        self.end_table();
        let level = line.bytes().take_while(|b| *b == b'#').count();
        if (1..=6).contains(&level) && line[level..].starts_with([' ', '\t']) {
            self.close();
            return self.whole(Kind::Heading(u8::try_from(level).unwrap_or(6)), range);
        }
        if is_rule(line) {
            return self.underline(line);
        }
        if item_marker(line).is_some() {
            self.close();
            self.open = Some((Kind::Item, range));
            return;
        }
        self.continue_with(range);
    }

    fn code_line(&mut self, range: Range<usize>) {
        let text = self.text;
        match comment_text(&text[range.clone()]) {
            Some(comment) => {
                self.markdown(range, comment.trim());
                self.in_comment = true;
            }
            None => {
                self.close();
                self.fence = None;
                self.whole(Kind::Line, range);
            }
        }
    }

    fn row(&mut self, range: Range<usize>, line: &str) {
        if self.header.is_none() {
            self.close();
        }
        if line.bytes().all(|b| matches!(b, b'|' | b'-' | b':' | b' ')) {
            if let Some(header) = self.header.take() {
                self.whole(Kind::HeaderRow, header);
            }
            return;
        }
        if let Some(row) = self.header.replace(range) {
            self.whole(Kind::Row, row);
        }
    }

    fn end_table(&mut self) {
        if let Some(row) = self.header.take() {
            self.whole(Kind::Row, row);
        }
    }

    /// `===` or `---`: the line before it is a heading if it is a paragraph of its own, else it is a rule.
    fn underline(&mut self, line: &str) {
        match self.open.take() {
            Some((Kind::Sentence, range)) if !self.text[range.clone()].trim().contains('\n') => {
                self.whole(Kind::Heading(if line.starts_with('=') { 1 } else { 2 }), range);
            }
            open => {
                self.open = open;
                self.close();
            }
        }
    }

    /// Another line of the paragraph or item, or the first one of a paragraph.
    fn continue_with(&mut self, range: Range<usize>) {
        match &mut self.open {
            Some((_, open)) if open.end == range.start => open.end = range.end,
            _ => {
                self.close();
                self.open = Some((Kind::Sentence, range));
            }
        }
    }

    fn close(&mut self) {
        self.end_table();
        match self.open.take() {
            Some((Kind::Item, range)) if range.len() <= MAX_UNIT_BYTES / 2 => self.whole(Kind::Item, range),
            Some((kind, range)) => self.sentences(kind, range),
            None => {}
        }
        self.in_comment = false;
    }

    /// One unit, cut only if it is too long.
    fn whole(&mut self, kind: Kind, range: Range<usize>) {
        let text = self.text;
        let mut range = trimmed(text, range);
        while range.len() > MAX_UNIT_BYTES {
            let mut end = range.start + MAX_UNIT_BYTES;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            let cut = text[range.start..end]
                .rfind(char::is_whitespace)
                .filter(|cut| *cut > MAX_UNIT_BYTES / 2);
            let end = cut.map_or(end, |cut| range.start + cut);
            let piece = trimmed(text, range.start..end);
            if !piece.is_empty() {
                (self.visit)(kind, piece);
            }
            range = trimmed(text, end..range.end);
        }
        if !range.is_empty() {
            (self.visit)(kind, range);
        }
    }

    fn sentences(&mut self, kind: Kind, range: Range<usize>) {
        let text = self.text;
        let mut start = range.start;
        let mut rest = text[range.clone()].char_indices().peekable();
        while let Some((offset, c)) = rest.next() {
            let at = range.start + offset;
            let behind = at + c.len_utf8();
            let ends = match c {
                '。' | '！' | '？' | '।' | '؟' | '۔' => true,
                '.' | '!' | '?' | '…' => {
                    let closers = text[behind..range.end]
                        .trim_start_matches(['"', '\'', ')', ']', '”', '’', '*', '_', '`']);
                    let next = closers.chars().next();
                    let end = range.end - closers.len();
                    if next.is_none_or(char::is_whitespace) && ends_sentence(&text[start..at], c, closers) {
                        self.whole(kind, start..end);
                        start = end;
                        while rest.next_if(|(offset, _)| range.start + offset < end).is_some() {}
                    }
                    false
                }
                '\n' => !self.in_comment && ends_line(&text[start..at], &text[behind..range.end]),
                _ => false,
            };
            if ends {
                self.whole(kind, start..behind);
                start = behind;
            }
        }
        self.whole(kind, start..range.end);
    }
}

fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let piece = &text[range.clone()];
    let start = range.end - piece.trim_start().len();
    let end = range.start + piece.trim_end().len();
    start.min(end)..end
}

/// Whether a mark behind `before` ends a sentence that `after` does not continue.
fn ends_sentence(before: &str, mark: char, after: &str) -> bool {
    const ABBREVIATIONS: &str = "e.g i.e etc vs cf dr mr mrs ms prof no fig al approx st z.b bzw ca sec vol";
    if mark != '.' {
        // `//!` is no exclamation.
        return !before.ends_with("//");
    }
    let last = before
        .rsplit(|c: char| c.is_whitespace() || c == '(')
        .next()
        .unwrap_or_default();
    let is_initial = last.len() == 1 && last.bytes().all(|b| b.is_ascii_uppercase());
    let next_is_lower = after.trim_start().starts_with(|c: char| c.is_lowercase());
    let is_abbreviation = ABBREVIATIONS
        .split(' ')
        .any(|word| last.eq_ignore_ascii_case(word))
        && last != "no";
    // "1." begins an item of a list, it does not end one.
    let is_number = !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()) && before.trim() == last;
    !(is_initial || next_is_lower || is_abbreviation || is_number)
}

/// Whether the end of a line is the end of a unit: the line leads in what follows, or was too short to have
/// been broken by the margin, or is no running text.
fn ends_line(before: &str, after: &str) -> bool {
    let line = before.rsplit('\n').next().unwrap_or(before).trim();
    if line.ends_with([':', '{', '}', ';']) || line.starts_with(['[', '{', '}']) || is_setting(line) {
        return true;
    }
    let is_short = line.chars().count() < MARGIN_CHARS;
    let is_pair = line.split_once(": ").is_some_and(|(key, _)| !key.contains(' '));
    let goes_on = after
        .trim_start_matches(['>', ' ', '\t'])
        .starts_with(|c: char| c.is_lowercase());
    is_short && (is_pair || !goes_on)
}

/// `key = value` and `KEY=value`.
fn is_setting(line: &str) -> bool {
    line.split_once('=').is_some_and(|(key, _)| {
        let key = key.trim();
        !key.is_empty()
            && key
                .chars()
                .all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '"'))
    })
}

fn is_rule(line: &str) -> bool {
    let bytes = line.as_bytes();
    bytes.len() >= 3 && matches!(bytes[0], b'=' | b'-' | b'*' | b'_') && bytes.iter().all(|b| *b == bytes[0])
}

/// The length of a list item's marker, with the space behind it.
fn item_marker(line: &str) -> Option<usize> {
    let indent = line.len() - line.trim_start().len();
    let rest = &line[indent..];
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let marker = match rest.as_bytes() {
        [b'-' | b'*' | b'+', b' ' | b'\t', ..] => 1,
        bytes if (1..=4).contains(&digits) && matches!(bytes.get(digits), Some(b'.' | b')')) => digits + 1,
        _ => return None,
    };
    rest[marker..]
        .starts_with([' ', '\t'])
        .then_some(indent + marker + 1)
}

/// The text of a line that is a comment in one of the usual languages.
fn comment_text(line: &str) -> Option<&str> {
    let line = line.trim();
    ["//!", "///", "//", "#:", "# ", "-- ", "/**", "/*", "* ", ";;"]
        .iter()
        .find_map(|marker| line.strip_prefix(marker))
        .or_else(|| matches!(line, "#" | "*" | "*/").then_some(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(text: &str, syntax: Syntax) -> Vec<(Kind, String)> {
        let mut units = Vec::new();
        let mut end = 0;
        for_each_unit(text, syntax, &mut |kind, range| {
            assert!(range.start >= end && range.len() <= MAX_UNIT_BYTES, "{range:?}");
            assert!(!text[range.clone()].trim().is_empty());
            end = range.end;
            units.push((kind, shown(kind, &text[range])));
        });
        units
    }

    fn texts(text: &str) -> Vec<String> {
        units(text, Syntax::Prose)
            .into_iter()
            .map(|(_, text)| text)
            .collect()
    }

    #[test]
    fn markdown_is_cut_into_what_can_be_quoted() {
        let text = "\
# Title #\n\nOne sentence that is wrapped at the margin of the\npage, e.g. here. Another one! (A third.) Version 1.95 is\nit.\n\
Needs:\n- an *item*\n  that goes on\n2. two\n\n| a | b |\n|---|:-:|\n| 1 | 2 |\n\nUnder\n-----\n> quoted\n> text.\n\
```sh\ncargo test --all\n```\nend";
        let expected = [
            (Kind::Heading(1), "Title"),
            (
                Kind::Sentence,
                "One sentence that is wrapped at the margin of the page, e.g. here.",
            ),
            (Kind::Sentence, "Another one!"),
            (Kind::Sentence, "(A third.)"),
            (Kind::Sentence, "Version 1.95 is it."),
            (Kind::Sentence, "Needs:"),
            (Kind::Item, "an *item* that goes on"),
            (Kind::Item, "two"),
            (Kind::HeaderRow, "a | b"),
            (Kind::Row, "1 | 2"),
            (Kind::Heading(2), "Under"),
            (Kind::Sentence, "quoted text."),
            (Kind::Line, "cargo test --all"),
            (Kind::Sentence, "end"),
        ];
        let expected: Vec<_> = expected
            .iter()
            .map(|(kind, text)| (*kind, (*text).to_owned()))
            .collect();
        assert_eq!(units(text, Syntax::Prose), expected);
    }

    #[test]
    fn code_is_lines_and_comments_are_prose() {
        let text =
            "//! Says what\n//! it is. And more.\nfn main() {}\n\n# Comment here.\nrust-version = \"1.95\"\n";
        let expected = [
            (Kind::Sentence, "Says what it is."),
            (Kind::Sentence, "And more."),
            (Kind::Line, "fn main() {}"),
            (Kind::Sentence, "Comment here."),
            (Kind::Line, "rust-version = \"1.95\""),
        ];
        let expected: Vec<_> = expected
            .iter()
            .map(|(kind, text)| (*kind, (*text).to_owned()))
            .collect();
        assert_eq!(units(text, Syntax::of("x.rs")), expected);
        assert_eq!(Syntax::of("README.md"), Syntax::Prose);
        assert_eq!(Syntax::of("a.b/LICENSE"), Syntax::Prose);
    }

    #[test]
    fn sentences_of_many_kinds() {
        assert_eq!(
            texts("Dr. J. Smith came. He left at 5 p.m. sharp."),
            ["Dr. J. Smith came.", "He left at 5 p.m. sharp."]
        );
        assert_eq!(texts("これは。それは？はい"), ["これは。", "それは？", "はい"]);
        assert_eq!(texts("He said \"yes.\" Then no"), ["He said \"yes.\"", "Then no"]);
        assert_eq!(texts("name: x\nage: 3\n"), ["name: x", "age: 3"]);
        assert_eq!(texts("A=1\nB=2"), ["A=1", "B=2"]);
        assert_eq!(texts(" \n\t\r\n"), Vec::<String>::new());
    }

    #[test]
    fn any_text_gives_units_of_bounded_size() {
        for text in [
            "x".repeat(5000),
            "word ".repeat(2000),
            "é".repeat(3000),
            "。".repeat(900),
            "!".repeat(900),
            "- ".repeat(2000),
            "| ".repeat(900),
            "\u{0}\u{1}\u{7f}\n".repeat(50),
            "#".repeat(3000),
            "```\n".repeat(7),
        ] {
            let found = units(&text, Syntax::Prose);
            assert!(found.len() <= text.len());
            units(&text, Syntax::Code);
        }
        assert!(units(&"x".repeat(5000), Syntax::Prose).len() >= 6);
    }
}
