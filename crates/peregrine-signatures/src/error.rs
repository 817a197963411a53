//! What goes wrong with signatures, told apart by type: the definition, the input, the model, the answer.
//!
//! Invariant: an error about an answer says where (a path), what was expected there and what stood there; texts of
//! the model appear as bounded excerpts.

use std::fmt;
use std::time::Duration;

use peregrine_core::ErrorKind;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The signature, or a composition of signatures, cannot be compiled as it stands.
    #[error(transparent)]
    Definition(Box<DefinitionError>),
    /// The input does not fit the signature. Nothing was sent.
    #[error(transparent)]
    Input(Box<InputError>),
    /// The call to the model failed.
    #[error(transparent)]
    Model(#[from] peregrine_core::Error),
    /// The model answered, and after all repairs the answer still does not fit.
    #[error(transparent)]
    Output(Box<OutputError>),
    /// The model or its provider declined to answer.
    #[error("the model declined to answer: {text}")]
    Refused {
        /// What it said.
        text: String,
    },
}

impl Error {
    /// The kind, in the vocabulary of calls to models.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Definition(_) => ErrorKind::Config,
            Self::Input(_) => ErrorKind::InvalidRequest,
            Self::Model(error) => error.kind(),
            Self::Output(error) if error.is_cut_off() => ErrorKind::Truncated,
            Self::Output(_) => ErrorKind::Protocol,
            Self::Refused { .. } => ErrorKind::ContentFilter,
        }
    }

    /// Whether the same call may succeed later. An answer that does not fit was repaired as often as allowed, so it
    /// is not retryable.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Model(error) => error.is_retryable(),
            _ => false,
        }
    }

    /// How long the provider asked to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Model(error) => error.retry_after(),
            _ => None,
        }
    }
}

impl From<DefinitionError> for Error {
    fn from(error: DefinitionError) -> Self {
        Self::Definition(Box::new(error))
    }
}

impl From<InputError> for Error {
    fn from(error: InputError) -> Self {
        Self::Input(Box::new(error))
    }
}

impl From<OutputError> for Error {
    fn from(error: OutputError) -> Self {
        Self::Output(Box::new(error))
    }
}

/// So that an agent can pass it on as the error of a call.
impl From<Error> for peregrine_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Model(error) => error,
            other => Self::layer(other.kind(), other),
        }
    }
}

/// Why a signature cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DefinitionError {
    /// The text of a run-time signature is malformed.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A signature without inputs or without outputs.
    #[error("signature `{signature}` has no {side}; it needs at least one")]
    NoFields {
        /// The signature.
        signature: String,
        /// `inputs` or `outputs`.
        side: &'static str,
    },
    /// A name that models or formats cannot take.
    #[error("`{name}` can not be a name here: {problem}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Two fields of one name.
    #[error("signature `{signature}` has two fields named `{field}`; rename one of them")]
    DuplicateField {
        /// The signature.
        signature: String,
        /// The name.
        field: String,
    },
    /// A constraint that does not fit the field's type, or that nothing can fulfil.
    #[error("{constraint} on field `{field}` does not work: {problem}")]
    Constraint {
        /// The field.
        field: String,
        /// The constraint, such as `range`.
        constraint: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A type that can stand only among the inputs.
    #[error("field `{field}` is {what}, which can be an input only")]
    InputOnly {
        /// The field.
        field: String,
        /// What it is.
        what: &'static str,
    },
    /// A JSON Schema that this crate cannot hold an answer to.
    #[error("the schema of field `{field}` can not be used: {problem} at `{place}`")]
    Schema {
        /// The field.
        field: String,
        /// A JSON pointer into its schema.
        place: String,
        /// What is wrong there, and what would help.
        problem: String,
    },
    /// A composition whose parts do not fit together.
    #[error(transparent)]
    Wiring(#[from] WiringError),
}

/// A run-time signature whose text is malformed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}, at character {} of `{text}`", self.column())]
#[non_exhaustive]
pub struct TextError {
    /// The text.
    pub text: String,
    /// Where in it, in bytes.
    pub at: usize,
    /// What is wrong there, and what would help.
    pub problem: String,
}

impl TextError {
    pub(crate) fn new(text: &str, at: usize, problem: impl Into<String>) -> Self {
        Self {
            text: excerpt(text, 400),
            at: at.min(text.len()),
            problem: problem.into(),
        }
    }

    /// Where in the text, in characters from 1.
    pub fn column(&self) -> usize {
        self.text
            .char_indices()
            .take_while(|(at, _)| *at < self.at)
            .count()
            + 1
    }

    /// Two lines for a terminal: the text, and a caret below the place.
    pub fn caret(&self) -> String {
        let line = self.text.replace(char::is_control, " ");
        format!("{line}\n{}^", " ".repeat(self.column() - 1))
    }
}

/// A composition whose parts do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WiringError {
    /// Nothing that stands before provides an input.
    #[error("input `{input}` of `{step}` gets no value; wire it to one of: {available}")]
    Unwired {
        /// The step.
        step: String,
        /// Its input.
        input: String,
        /// What could provide it.
        available: String,
    },
    /// A wire that starts at a field that does not exist.
    #[error("`{from}`, wired to input `{input}` of `{step}`, does not exist; there are: {available}")]
    UnknownSource {
        /// The step.
        step: String,
        /// Its input.
        input: String,
        /// The field that does not exist.
        from: String,
        /// What exists.
        available: String,
    },
    /// A wire that ends at an input that does not exist.
    #[error("`{step}` has no input `{input}`; it has: {available}")]
    UnknownInput {
        /// The step.
        step: String,
        /// The input that does not exist.
        input: String,
        /// What exists.
        available: String,
    },
    /// A wire between fields of which not every value fits.
    #[error("`{from}` does not fit input `{input}` of `{step}`: {problem}")]
    Type {
        /// The step.
        step: String,
        /// Its input.
        input: String,
        /// The field it is wired to.
        from: String,
        /// Why.
        problem: String,
    },
    /// Two steps that provide a field of one name.
    #[error("`{first}` and `{second}` both provide `{field}`; rename it with `with_output`")]
    Clash {
        /// The field.
        field: String,
        /// Who provides it first.
        first: String,
        /// Who provides it again.
        second: String,
    },
    /// A composition of nothing.
    #[error("a composition needs at least one step")]
    Empty,
}

/// An input that does not fit its signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("input `{field}` of `{signature}` can not be used: {problem}")]
#[non_exhaustive]
pub struct InputError {
    /// The signature.
    pub signature: String,
    /// The field.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

/// An answer that does not fit its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutputError {
    /// The signature.
    pub signature: String,
    /// What does not fit, in the order of the answer; at least one, at most eight.
    pub problems: Vec<Violation>,
    /// The answer, or its beginning and end if it is long.
    pub text: String,
    /// How many repairs were tried.
    pub repairs: u32,
}

/// How much of an answer an error keeps, in characters.
const ANSWER_EXCERPT: usize = 1_000;

impl OutputError {
    pub(crate) fn new(signature: &str, problems: Vec<Violation>, text: &str) -> Self {
        debug_assert!(!problems.is_empty(), "an error has a reason");
        Self {
            signature: signature.to_owned(),
            problems,
            text: excerpt(text, ANSWER_EXCERPT),
            repairs: 0,
        }
    }

    /// Whether the answer ended before its end.
    pub fn is_cut_off(&self) -> bool {
        self.problems
            .iter()
            .any(|problem| problem.kind == ViolationKind::CutOff)
    }
}

impl fmt::Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            signature,
            problems,
            repairs,
            ..
        } = self;
        write!(f, "the answer does not fit `{signature}`")?;
        if *repairs > 0 {
            write!(f, " after {repairs} repairs")?;
        }
        f.write_str(": ")?;
        for (place, problem) in problems.iter().enumerate() {
            let separator = if place == 0 { "" } else { "; " };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for OutputError {}

/// One thing in an answer that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: expected {expected}, found {found}", self.place())]
#[non_exhaustive]
pub struct Violation {
    /// Where: `field`, `list[2].name`; empty for the answer as a whole.
    pub path: String,
    /// What kind of misfit it is.
    pub kind: ViolationKind,
    /// What was expected there.
    pub expected: String,
    /// What stood there: a bounded excerpt.
    pub found: String,
}

/// The kinds of misfit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ViolationKind {
    /// There is no answer in the text.
    NoAnswer,
    /// The text is not JSON, not even tolerantly read.
    Syntax,
    /// The answer ended before its end.
    CutOff,
    /// There are several different answers.
    Ambiguous,
    /// A value of another type.
    Type,
    /// A number outside its range.
    Range,
    /// A text, list or map of a length that is not allowed.
    Length,
    /// A text that does not match its pattern or format.
    Pattern,
    /// A value that is none of those allowed.
    Choice,
    /// A field that is not there.
    Missing,
    /// A field that nobody asked for.
    Unknown,
    /// A field that is there twice, or an element of a set that is.
    Duplicate,
    /// More nesting, or more text, than allowed.
    TooLarge,
    /// The field's own type, or the caller, refused the value.
    Refused,
}

impl Violation {
    pub(crate) fn new(kind: ViolationKind, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            path: String::new(),
            kind,
            expected: expected.into(),
            found: found.into(),
        }
    }

    /// A caller's own reason not to take a value, to be told to the model: what was expected, what was found.
    pub fn refused(path: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            ..Self::new(ViolationKind::Refused, expected, found)
        }
    }

    /// Puts a key before the path.
    pub(crate) fn within_key(&mut self, key: &str) {
        let is_short = (1..=FOUND_EXCERPT).contains(&key.len());
        let plain = is_short && key.chars().all(|c| c.is_alphanumeric() || c == '_');
        let key = if plain {
            key.to_owned()
        } else {
            format!("[{}]", serde_json::Value::from(excerpt(key, FOUND_EXCERPT)))
        };
        self.prefix(&key);
    }

    /// Puts the place in a list before the path.
    pub(crate) fn within_index(&mut self, index: usize) {
        self.prefix(&format!("[{index}]"));
    }

    fn prefix(&mut self, segment: &str) {
        let dot = if self.path.is_empty() || self.path.starts_with('[') {
            ""
        } else {
            "."
        };
        self.path = format!("{segment}{dot}{}", self.path);
    }

    fn place(&self) -> String {
        match self.path.as_str() {
            "" => "the answer".to_owned(),
            path => format!("`{path}`"),
        }
    }
}

/// How much of a value a violation shows, in characters.
pub(crate) const FOUND_EXCERPT: usize = 80;

/// A text, or its beginning and end if it has more than `max` characters.
pub(crate) fn excerpt(text: &str, max: usize) -> String {
    // Bytes bound characters, so short texts are not counted.
    if text.len() <= max || text.chars().nth(max).is_none() {
        return text.to_owned();
    }
    let tail = max / 4;
    let head: String = text.chars().take(max - tail).collect();
    let tail_start = text
        .char_indices()
        .rev()
        .nth(tail.saturating_sub(1))
        .map_or(text.len(), |(at, _)| at);
    format!("{head} [..] {}", &text[tail_start..])
}
