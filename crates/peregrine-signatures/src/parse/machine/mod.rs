//! The incremental parser: a machine that is pushed text in any pieces and builds values as it goes.
//!
//! Algorithm: one state, one stack of open objects and lists; each byte is looked at once and each value built once,
//! so the work is linear in the text, however it is cut. With a shape, every value is resolved against it at its
//! first character, so that a misfit ends the parse there: wrong types, unknown and duplicate keys, choices that no
//! longer can match, lists and texts that grew too long. Unions that leave several objects or lists possible are
//! checked when the value is complete.
//!
//! The machine seeks its object in the text around it, and reads JSON tolerantly (see the module above). An object is
//! committed to at its first colon; braces in prose before that are passed over. What is not JSON after that is an
//! error: there is no way back, because what was read was told to the caller.

mod escape;
mod outer;
mod value;

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;

use super::fields::FieldEvent;
use super::{MAX_DEPTH, Reading, too_long};
use crate::error::{FOUND_EXCERPT, Violation, ViolationKind, excerpt};
use crate::inputs::Fields;
use crate::shape::{Kind, NodeId, Shape, Start, found_text};

const THINK_OPEN: &[u8] = b"<think";
const THINK_CLOSE: &[u8] = b"</think";

pub(super) struct Machine {
    /// What the object must fit; without it, all objects in the text are collected.
    shape: Option<Arc<Shape>>,
    reading: Reading,
    state: State,
    /// Where to go on after a comment.
    resume: State,
    stack: Vec<Frame>,
    token: Token,
    /// The field of the outermost object that is being read.
    field: Option<Arc<str>>,
    committed: bool,
    /// What the outermost object is that is being read.
    outer: Outer,
    found: Vec<Fields>,
    /// What is wrong with the first object that was passed over because none of its fields was asked for.
    passed: Option<Violation>,
    seen_bytes: usize,
    tolerated: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the beginning; a reasoning block may come. How many bytes of its tag have been seen.
    Start(usize),
    /// In a reasoning block. How many bytes of its closing tag have been seen.
    Thinking(usize),
    /// Before, between or behind objects.
    Seek,
    Value(Close),
    Key(Close),
    BareKey,
    Colon,
    CommaOrClose,
    Text(Escape),
    Number,
    Word,
    /// After a `/` that must begin a comment.
    Slash,
    LineComment,
    BlockComment {
        star: bool,
    },
}

/// Whether the closing bracket may stand instead of the next element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Close {
    No,
    Empty,
    AfterComma,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    None,
    Backslash,
    /// `\u`, with the first half of a surrogate pair if there is one.
    Unicode {
        high: Option<u16>,
        digits: u8,
        value: u16,
    },
    /// The second half of a surrogate pair must follow.
    LowBackslash {
        high: u16,
    },
    LowU {
        high: u16,
    },
}

/// What an outermost object is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outer {
    /// The answer.
    Answer,
    /// It stands behind prose and may be part of it: its first key will tell.
    Undecided,
    /// It began with this key, which nobody asked for: it is passed over, unless a field follows that was asked for.
    Passed(String),
    /// It stands behind the answer.
    Later,
}

/// What a value must fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Free,
    Node(NodeId),
    /// To be checked when it is complete.
    Deferred(NodeId),
    /// Nobody asked for it; it is read and dropped.
    Skip,
    /// `null` for a field that may be absent.
    Absent,
}

enum Frame {
    Object {
        rule: Rule,
        map: Fields,
        /// Keys whose values are not kept; a second value is a misfit all the same.
        dropped: HashSet<String>,
        key: String,
        /// Where among the fields the next one probably stands.
        next: usize,
        value_rule: Rule,
        value_optional: bool,
    },
    List {
        rule: Rule,
        items: Vec<Value>,
    },
}

/// The text, number or word being read.
#[derive(Default)]
struct Token {
    text: String,
    quote: u8,
    is_key: bool,
    rule: Option<Rule>,
    /// For texts that are told piece by piece: how many bytes were told.
    told: Option<usize>,
    /// For texts of bounded length: bytes and characters counted.
    counted: (usize, usize),
}

/// What went wrong, and whether there may be a way on.
enum Fail {
    /// Not JSON. Before an object is committed to, it was no object.
    Syntax(&'static str),
    Misfit(Violation),
}

impl From<Violation> for Fail {
    fn from(problem: Violation) -> Self {
        Self::Misfit(problem)
    }
}

impl Machine {
    /// Reads one object that must fit a shape.
    pub(super) fn fitting(shape: Arc<Shape>, reading: Reading) -> Self {
        Self {
            shape: Some(shape),
            ..Self::collecting(reading)
        }
    }

    /// Collects all objects.
    pub(super) fn collecting(mut reading: Reading) -> Self {
        reading.max_depth = reading.max_depth.min(MAX_DEPTH);
        Self {
            shape: None,
            reading,
            state: State::Start(0),
            resume: State::Seek,
            stack: Vec::new(),
            token: Token::default(),
            field: None,
            committed: false,
            outer: Outer::Answer,
            found: Vec::new(),
            passed: None,
            seen_bytes: 0,
            tolerated: false,
        }
    }

    /// Whether anything was not exact JSON so far.
    pub(super) fn is_tolerant(&self) -> bool {
        self.tolerated
    }

    /// Takes the next piece.
    pub(super) fn push(&mut self, piece: &str, events: &mut Vec<FieldEvent>) -> Result<(), Violation> {
        if self.seen_bytes + piece.len() > self.reading.max_bytes {
            return Err(too_long(self.reading.max_bytes));
        }
        let mut at = 0;
        while at < piece.len() {
            match self.step(piece, &mut at, events) {
                Ok(()) => {}
                // It was a brace in prose. The byte that told so is looked at again, and skipped or a brace itself.
                Err(Fail::Syntax(_)) if !self.committed => {
                    self.stack.clear();
                    self.tolerated = true;
                    self.state = State::Seek;
                }
                Err(Fail::Syntax(expected)) => return Err(self.syntax(expected, &piece[at..])),
                Err(Fail::Misfit(problem)) => return Err(problem),
            }
        }
        self.seen_bytes += piece.len();
        self.tell_text(events)
    }

    /// The objects, once the text is at its end; none if there are none.
    pub(super) fn finish(&mut self, shape: &Shape) -> Result<Vec<Fields>, Violation> {
        if let Some(answer) = self.all_but_its_bracket(shape) {
            return Ok(vec![answer]);
        }
        let is_open = self.committed && !self.stack.is_empty();
        let may_be_open =
            self.found.is_empty() && (!self.stack.is_empty() || matches!(self.state, State::Thinking(_)));
        if is_open || may_be_open {
            let cut_off = Violation::new(ViolationKind::CutOff, "the rest of the answer", "its end");
            return Err(self.at_path(cut_off));
        }
        match (self.found.is_empty(), self.passed.take()) {
            (true, Some(problem)) => Err(problem),
            _ => Ok(std::mem::take(&mut self.found)),
        }
    }

    /// Looks at one byte, or at a run of bytes of one meaning, and moves `at` behind it. A byte that ends a number or
    /// a word is left for the next step.
    fn step(&mut self, piece: &str, at: &mut usize, events: &mut Vec<FieldEvent>) -> Result<(), Fail> {
        let bytes = piece.as_bytes();
        let byte = bytes[*at];
        match self.state {
            State::Start(seen) => {
                if byte == THINK_OPEN[seen] {
                    self.state = match seen + 1 == THINK_OPEN.len() {
                        true => State::Thinking(0),
                        false => State::Start(seen + 1),
                    };
                } else if seen > 0 || !is_space(byte) {
                    self.tolerated |= seen > 0;
                    self.state = State::Seek;
                    return Ok(());
                }
            }
            State::Thinking(seen) => {
                self.tolerated = true;
                self.state = match byte {
                    _ if byte != THINK_CLOSE[seen] => State::Thinking(usize::from(byte == THINK_CLOSE[0])),
                    _ if seen + 1 == THINK_CLOSE.len() => State::Seek,
                    _ => State::Thinking(seen + 1),
                };
            }
            State::Seek => {
                let prose = &bytes[*at..];
                let skipped = prose.iter().position(|byte| *byte == b'{').unwrap_or(prose.len());
                self.tolerated |= !prose[..skipped].iter().all(|byte| is_space(*byte));
                *at += skipped;
                if skipped == prose.len() {
                    return Ok(());
                }
                self.committed = false;
                let rule = self.begin_outer();
                self.open_object(rule);
            }
            State::Text(escape) => return self.text_step(piece, at, escape, events),
            State::Value(_) | State::Key(_) | State::Colon | State::CommaOrClose if is_space(byte) => {}
            State::Value(_) | State::Key(_) | State::Colon | State::CommaOrClose
                if matches!(byte, b'/' | b'#') =>
            {
                self.tolerated = true;
                self.resume = self.state;
                self.state = if byte == b'/' {
                    State::Slash
                } else {
                    State::LineComment
                };
            }
            State::Value(close) => return self.value_step(byte, close, at, events),
            State::Key(close) => match byte {
                b'"' | b'\'' => self.begin_text(byte, true, None),
                b'}' if close != Close::No => return self.close_step(byte, at, events),
                b'_' | b'$' | b'a'..=b'z' | b'A'..=b'Z' => {
                    self.tolerated = true;
                    self.token.text.clear();
                    self.state = State::BareKey;
                    return Ok(());
                }
                _ => return Err(Fail::Syntax("a key in quotes")),
            },
            State::BareKey => match byte {
                b'_' | b'$' | b'-' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => {
                    self.token.text.push(char::from(byte))
                }
                _ => {
                    self.key_read();
                    return Ok(());
                }
            },
            State::Colon => match byte {
                b':' => self.commit_key()?,
                _ => return Err(Fail::Syntax("`:`")),
            },
            State::CommaOrClose => match (byte, self.stack.last()) {
                (b',', Some(Frame::Object { .. })) => self.state = State::Key(Close::AfterComma),
                (b',', Some(Frame::List { .. })) => self.state = State::Value(Close::AfterComma),
                (b'}' | b']', _) => return self.close_step(byte, at, events),
                _ => return Err(Fail::Syntax("`,` or the closing bracket")),
            },
            State::Number => match byte {
                b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E' => self.token.text.push(char::from(byte)),
                _ => return self.end_number(events),
            },
            State::Word => match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => self.token.text.push(char::from(byte)),
                _ => return self.end_word(events),
            },
            State::Slash => {
                self.state = match byte {
                    b'/' => State::LineComment,
                    b'*' => State::BlockComment { star: false },
                    _ => return Err(Fail::Syntax("a comment behind `/`")),
                };
            }
            State::LineComment => {
                if byte == b'\n' {
                    self.state = self.resume;
                }
            }
            State::BlockComment { star } => {
                self.state = match byte {
                    b'/' if star => self.resume,
                    _ => State::BlockComment { star: byte == b'*' },
                };
            }
        }
        *at += 1;
        Ok(())
    }

    fn value_step(
        &mut self,
        byte: u8,
        close: Close,
        at: &mut usize,
        events: &mut Vec<FieldEvent>,
    ) -> Result<(), Fail> {
        match byte {
            b']' if close != Close::No => return self.close_step(byte, at, events),
            b'{' => {
                let rule = self.begin(Start::Object)?;
                self.deepen()?;
                self.open_object(rule);
            }
            b'[' => {
                let rule = self.begin(Start::List)?;
                self.deepen()?;
                self.stack.push(Frame::List {
                    rule,
                    items: Vec::new(),
                });
                self.state = State::Value(Close::Empty);
            }
            b'"' | b'\'' => {
                let rule = self.begin(Start::Text)?;
                self.begin_text(byte, false, Some(rule));
            }
            b'-' | b'0'..=b'9' => self.begin_token(Start::Number, State::Number, byte)?,
            b't' | b'f' | b'T' | b'F' => self.begin_token(Start::Bool, State::Word, byte)?,
            b'n' => self.begin_token(Start::Null, State::Word, byte)?,
            // `None`, or `NaN`, which is no value: only its end tells.
            b'N' => {
                self.token.text.clear();
                self.token.text.push('N');
                self.token.rule = None;
                self.state = State::Word;
            }
            _ => return Err(Fail::Syntax("a value")),
        }
        *at += 1;
        Ok(())
    }

    fn close_step(&mut self, byte: u8, at: &mut usize, events: &mut Vec<FieldEvent>) -> Result<(), Fail> {
        let fits = match self.stack.last() {
            Some(Frame::Object { .. }) => byte == b'}',
            Some(Frame::List { .. }) => byte == b']',
            None => false,
        };
        if !fits {
            return Err(Fail::Syntax("the other closing bracket"));
        }
        if !self.committed {
            // `{}` in prose: no answer has no fields.
            return Err(Fail::Syntax("a field"));
        }
        self.tolerated |= matches!(
            self.state,
            State::Key(Close::AfterComma) | State::Value(Close::AfterComma)
        );
        *at += 1;
        match self.stack.pop() {
            Some(Frame::Object { rule, map, .. }) => {
                self.check_closed(rule, |checker, id, kind| {
                    if let Kind::Object(object) = kind {
                        checker.close_object(id, object, &map);
                    }
                })?;
                self.complete(Value::Object(map), rule, false, events)
            }
            Some(Frame::List { rule, items }) => {
                self.check_closed(rule, |checker, id, kind| match kind {
                    Kind::List(list) => checker.close_list(id, list, &items),
                    Kind::Tuple(nodes) => checker.close_tuple(id, nodes.len(), items.len()),
                    _ => {}
                })?;
                self.complete(Value::Array(items), rule, false, events)
            }
            None => unreachable!("looked at above"),
        }
    }

    fn begin_text(&mut self, quote: u8, is_key: bool, rule: Option<Rule>) {
        self.tolerated |= quote == b'\'';
        let told = rule.filter(|rule| self.is_told(*rule)).map(|_| 0);
        let mut text = std::mem::take(&mut self.token.text);
        text.clear();
        self.token = Token {
            text,
            quote,
            is_key,
            rule,
            told,
            counted: (0, 0),
        };
        self.state = State::Text(Escape::None);
    }

    fn begin_token(&mut self, start: Start, state: State, byte: u8) -> Result<(), Fail> {
        let rule = self.begin(start)?;
        self.token.text.clear();
        self.token.text.push(char::from(byte));
        self.token.rule = Some(rule);
        self.state = state;
        Ok(())
    }

    fn end_text(&mut self, events: &mut Vec<FieldEvent>) -> Result<(), Fail> {
        if self.token.is_key {
            self.key_read();
            return Ok(());
        }
        self.tell_text(events)?;
        let rule = self.token.rule.take().unwrap_or(Rule::Free);
        let text = std::mem::take(&mut self.token.text);
        self.complete(Value::String(text), rule, true, events)
    }

    fn end_number(&mut self, events: &mut Vec<FieldEvent>) -> Result<(), Fail> {
        let number = serde_json::from_str::<serde_json::Number>(&self.token.text);
        let number = number.map_err(|_| {
            // A number of JSON all the same, if only its size is the matter.
            match self.token.text.parse::<f64>() {
                Ok(float) if float.is_infinite() => {
                    self.no_value(ViolationKind::Range, "a number of 64 bits")
                }
                _ => self.no_value(ViolationKind::Syntax, "a JSON number"),
            }
        })?;
        let rule = self.token.rule.take().unwrap_or(Rule::Free);
        self.complete(Value::Number(number), rule, true, events)
    }

    fn end_word(&mut self, events: &mut Vec<FieldEvent>) -> Result<(), Fail> {
        let value = match self.token.text.as_str() {
            "true" | "True" => Value::Bool(true),
            "false" | "False" => Value::Bool(false),
            "null" | "None" => Value::Null,
            _ => {
                return Err(self
                    .no_value(ViolationKind::Syntax, "`true`, `false` or `null`")
                    .into());
            }
        };
        self.tolerated |= self.token.text.starts_with(|c: char| c.is_ascii_uppercase());
        let rule = match self.token.rule.take() {
            Some(rule) => rule,
            None => self.begin(Start::of(&value))?,
        };
        self.complete(value, rule, true, events)
    }

    /// What is wrong with a token that has come to its end.
    fn no_value(&self, kind: ViolationKind, expected: &str) -> Violation {
        let found = format!("`{}`", excerpt(&self.token.text, FOUND_EXCERPT));
        self.at_path(Violation::new(kind, expected, found))
    }

    fn key_read(&mut self) {
        if let Some(Frame::Object { key, .. }) = self.stack.last_mut() {
            std::mem::swap(key, &mut self.token.text);
        }
        self.state = State::Colon;
    }

    fn syntax(&self, expected: &'static str, rest: &str) -> Violation {
        let found = match rest.chars().next() {
            Some(c) => format!(
                "{} in {}",
                Value::from(c.to_string()),
                found_text(&excerpt(rest, FOUND_EXCERPT / 2))
            ),
            None => "the end".to_owned(),
        };
        self.at_path(Violation::new(ViolationKind::Syntax, expected, found))
    }

    /// Puts the path of the value that is being read before a problem's own.
    fn at_path(&self, mut problem: Violation) -> Violation {
        for (place, frame) in self.stack.iter().enumerate().rev() {
            match frame {
                // Between fields it is the object itself that has the problem.
                Frame::Object { .. } if place + 1 == self.stack.len() && self.is_between() => {}
                Frame::Object { key, .. } => problem.within_key(key),
                Frame::List { items, .. } => problem.within_index(items.len()),
            }
        }
        problem
    }

    fn is_between(&self) -> bool {
        let state = match self.state {
            State::Slash | State::LineComment | State::BlockComment { .. } => self.resume,
            state => state,
        };
        matches!(state, State::Key(_) | State::BareKey | State::CommaOrClose)
            || (matches!(state, State::Text(_)) && self.token.is_key)
    }

    /// Puts the path of the object that is being read before the problem of one of its keys.
    fn within_outer(&self, mut problem: Violation) -> Violation {
        for frame in self.stack.iter().rev().skip(1) {
            match frame {
                Frame::Object { key, .. } => problem.within_key(key),
                Frame::List { items, .. } => problem.within_index(items.len()),
            }
        }
        problem
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}
