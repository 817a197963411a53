//! Places in a value, and what is wrong there.
//!
//! Invariant: a [`Problem`] is bounded in size, and its `Display` and `Debug` never show text out of the value, which
//! may be secret; only [`Problem::for_model`] does, because the model wrote it.

use std::fmt;

/// The longest piece of a key, or of a value, that is repeated.
const MAX_EXCERPT_CHARS: usize = 40;
/// The longest path that is repeated whole.
const MAX_PATH_CHARS: usize = 256;

/// A place in a value, as a list from the end to the start.
#[derive(Debug, Clone, Copy)]
pub(super) enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl Path<'_> {
    /// How many steps lead there.
    pub(super) fn depth(&self) -> usize {
        let mut depth = 0;
        let mut path = self;
        while let Path::Key(parent, _) | Path::Index(parent, _) = path {
            depth += 1;
            path = parent;
        }
        depth
    }

    /// The JSON pointer (RFC 6901), with control characters replaced and cut at its start if it is very long.
    pub(super) fn pointer(&self) -> String {
        let mut steps = Vec::new();
        let mut path = self;
        loop {
            path = match path {
                Path::Root => break,
                Path::Key(parent, key) => {
                    steps.push(excerpt(key).replace('~', "~0").replace('/', "~1"));
                    parent
                }
                Path::Index(parent, index) => {
                    steps.push(index.to_string());
                    parent
                }
            };
        }
        let pointer: String = steps.iter().rev().flat_map(|step| ["/", step]).collect();
        match pointer.chars().count().checked_sub(MAX_PATH_CHARS) {
            None | Some(0) => pointer,
            Some(surplus) => std::iter::once('…')
                .chain(pointer.chars().skip(surplus))
                .collect(),
        }
    }
}

/// The start of a text, on one line.
pub(crate) fn excerpt(text: &str) -> String {
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut chars = text.chars();
    let mut start: String = chars.by_ref().take(MAX_EXCERPT_CHARS).map(visible).collect();
    if chars.next().is_some() {
        start.push('…');
    }
    start
}

/// One thing that does not fit a schema.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// Where: a JSON pointer into the value, empty for the whole value.
    pub path: String,
    /// What the schema expects there.
    pub expected: String,
    /// What stands there, by its type and size, or its value if it is a number or a boolean.
    pub found: String,
    /// More about what was found, with text out of the value.
    detail: Option<String>,
    pub(super) kind: Kind,
    pub(super) depth: usize,
}

/// What a choice between alternatives needs to know of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Type,
    Const,
    Other,
}

impl Problem {
    pub(crate) fn new(
        path: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self {
            path: path.into(),
            expected: expected.into(),
            found: found.into(),
            detail: None,
            kind: Kind::Other,
            depth: 0,
        }
    }

    pub(super) fn at(path: &Path<'_>, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            depth: path.depth(),
            ..Self::new(path.pointer(), expected, found)
        }
    }

    pub(super) fn of_kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    pub(crate) fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The problem with an excerpt of what was found, where that helps. For the model, which wrote it, and not for logs.
    pub fn for_model(&self) -> String {
        match &self.detail {
            Some(detail) => format!("{self} ({detail})"),
            None => self.to_string(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            expected,
            found,
            ..
        } = self;
        let path = if path.is_empty() { "the whole value" } else { path };
        write!(f, "{path}: expected {expected}, found {found}")
    }
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Problem")
            .field("path", &self.path)
            .field("expected", &self.expected)
            .field("found", &self.found)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_escaped_and_bounded() {
        let root = Path::Root;
        let key = Path::Key(&root, "a/b~c\n");
        let index = Path::Index(&key, 3);
        assert_eq!(index.pointer(), "/a~1b~0c\u{fffd}/3");
        assert_eq!(index.depth(), 2);
        let long = "k".repeat(1000);
        let one = Path::Key(&root, &long);
        assert_eq!(one.pointer().chars().count(), 1 + MAX_EXCERPT_CHARS + 1);
        let mut path = Path::Root;
        for _ in 0..1000 {
            path = Path::Key(Box::leak(Box::new(path)), "key");
        }
        assert_eq!(path.pointer().chars().count(), MAX_PATH_CHARS + 1);
    }

    #[test]
    fn only_the_model_sees_what_it_wrote() {
        let problem = Problem::new("/a", "a number", "string of 6 characters").with_detail("hunter");
        assert!(!format!("{problem} {problem:?}").contains("hunter"));
        assert!(problem.for_model().contains("hunter"));
    }
}
