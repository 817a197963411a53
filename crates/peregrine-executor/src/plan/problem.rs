//! What is wrong with a plan: everything that was found, before anything runs.

use std::fmt;

use crate::reference::{MAX_ID_BYTES, MalformedReference};

/// How many problems are kept. A plan made by a machine has the same one a thousand times.
pub(crate) const MAX_PROBLEMS: usize = 64;
/// How many names are listed where one was not found.
const MAX_NAMES: usize = 32;

/// Why a plan cannot run. Nothing of it has run, unless it was given step by step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanError {
    problems: Vec<Problem>,
    /// How many there are beyond those.
    more: usize,
}

impl PlanError {
    pub(crate) fn one(problem: Problem) -> Self {
        let problems = vec![problem];
        Self { problems, more: 0 }
    }

    /// The steps of a plan cannot be read on, for a reason of their source.
    pub fn unreadable(reason: impl Into<String>) -> Self {
        Self::one(Problem::Source(reason.into()))
    }

    /// What is wrong, at most 64 of it, in the order of the plan.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// How many problems there are besides those.
    pub fn more(&self) -> usize {
        self.more
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the plan cannot run: ")?;
        for (index, problem) in self.problems.iter().enumerate() {
            let between = if index == 0 { "" } else { "; " };
            write!(formatter, "{between}{problem}")?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(formatter, "; and {more} more"),
        }
    }
}

impl std::error::Error for PlanError {}

/// One thing that is wrong with a plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The text is not JSON, or not that of a plan.
    #[error("{step}: {message}", step = Where(.step))]
    Syntax {
        /// The id of the step, or its place in the list; nothing where it is not about a step.
        step: Option<String>,
        /// What is wrong.
        message: String,
    },
    /// An id that cannot be referred to.
    #[error(
        "step {place} has the id `{id}`; an id is of ASCII letters, digits, `_` and inner `-`, at most {MAX_ID_BYTES} bytes"
    )]
    InvalidId {
        /// The place of the step, from 0.
        place: usize,
        /// The id, at most 64 bytes of it.
        id: String,
    },
    /// Two steps have the same id.
    #[error("the id `{id}` is given twice, to steps {first} and {second}")]
    DuplicateId {
        /// The id.
        id: String,
        /// The places of the two, from 0.
        first: usize,
        /// The second.
        second: usize,
    },
    /// A step depends on one that is not there.
    #[error("step `{step}` depends on `{unknown}` in {place}, and no step{only_before} is called that{hint}",
        only_before = if *.only_before { " before it" } else { "" }, hint = Hint(.suggestion))]
    UnknownStep {
        /// The step.
        step: String,
        /// What it names.
        unknown: String,
        /// Where: `depends_on`, or the JSON pointer of a parameter.
        place: String,
        /// Whether only steps that came before count, because the plan was given step by step.
        only_before: bool,
        /// A step that may have been meant.
        suggestion: Option<String>,
    },
    /// A parameter has a dollar sign that is no reference.
    #[error("step `{step}`, {place}: {error}")]
    MalformedReference {
        /// The step.
        step: String,
        /// The JSON pointer of the parameter.
        place: String,
        /// What is wrong.
        error: MalformedReference,
    },
    /// A reference points at what the step before can never give.
    #[error("step `{step}` refers to `{reference}`: {message}")]
    DanglingField {
        /// The step.
        step: String,
        /// The reference.
        reference: String,
        /// What there is instead.
        message: String,
    },
    /// Steps wait for each other: each depends on the next one, and the last on the first.
    #[error("these steps wait for each other: {}", Cycle(.0))]
    Cycle(Vec<String>),
    /// There is no such action.
    #[error("step `{step}` asks for the action `{action}`, which there is not; there are {}", Names(.known))]
    UnknownAction {
        /// The step.
        step: String,
        /// The action.
        action: String,
        /// Those there are, at most 32.
        known: Vec<String>,
    },
    /// Parameters nest too deep.
    #[error("the parameters of step `{step}` nest more than {max_depth} deep")]
    TooDeep {
        /// The step.
        step: String,
        /// How deep they may.
        max_depth: usize,
    },
    /// The plan is too large.
    #[error("the plan has more than {max} {what}")]
    TooLarge {
        /// What there are too many of.
        what: &'static str,
        /// How many there may be.
        max: usize,
    },
    /// What is known from before is about another step of the same name.
    #[error("step `{step}` is not the step whose record is to be resumed: its action or parameters differ")]
    ChangedStep {
        /// The step.
        step: String,
    },
    /// The source of the steps failed.
    #[error("the steps could not be read on: {0}")]
    Source(String),
}

impl Problem {
    /// The name of its kind, for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Syntax { .. } => "syntax",
            Self::InvalidId { .. } => "invalid_id",
            Self::DuplicateId { .. } => "duplicate_id",
            Self::UnknownStep { .. } => "unknown_step",
            Self::MalformedReference { .. } => "malformed_reference",
            Self::DanglingField { .. } => "dangling_field",
            Self::Cycle(_) => "cycle",
            Self::UnknownAction { .. } => "unknown_action",
            Self::TooDeep { .. } => "too_deep",
            Self::TooLarge { .. } => "too_large",
            Self::ChangedStep { .. } => "changed_step",
            Self::Source(_) => "source",
        }
    }

    /// The id of the step that it is about, where it is about one that has an id.
    pub fn step(&self) -> Option<&str> {
        match self {
            // With its quotes, or a number where it has no id.
            Self::Syntax { step, .. } => step.as_deref()?.strip_prefix('`')?.strip_suffix('`'),
            Self::DuplicateId { id: step, .. }
            | Self::UnknownStep { step, .. }
            | Self::MalformedReference { step, .. }
            | Self::DanglingField { step, .. }
            | Self::UnknownAction { step, .. }
            | Self::TooDeep { step, .. }
            | Self::ChangedStep { step } => Some(step),
            Self::Cycle(steps) => steps.first().map(String::as_str),
            Self::InvalidId { .. } | Self::TooLarge { .. } | Self::Source(_) => None,
        }
    }

    /// The place in the plan of the step that it is about, from 0, where that is how it is told.
    pub fn place(&self) -> Option<usize> {
        match self {
            Self::Syntax { step, .. } => step.as_deref()?.parse().ok(),
            Self::InvalidId { place, .. } | Self::DuplicateId { second: place, .. } => Some(*place),
            _ => None,
        }
    }
}

/// Collects problems up to the bound.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    kept: Vec<Problem>,
    more: usize,
}

impl Problems {
    /// Past the bound, `problem` is not even called.
    pub(crate) fn push(&mut self, problem: impl FnOnce() -> Problem) {
        if self.kept.len() < MAX_PROBLEMS {
            self.kept.push(problem());
        } else {
            self.more += 1;
        }
    }

    pub(crate) fn into_result(self) -> Result<(), PlanError> {
        let Self { kept: problems, more } = self;
        if problems.is_empty() {
            Ok(())
        } else {
            Err(PlanError { problems, more })
        }
    }
}

pub(crate) fn known_names<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    names.take(MAX_NAMES).map(str::to_owned).collect()
}

struct Where<'a>(&'a Option<String>);

impl fmt::Display for Where<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(step) => write!(formatter, "step {step}"),
            None => formatter.write_str("the text"),
        }
    }
}

struct Hint<'a>(&'a Option<String>);

impl fmt::Display for Hint<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(formatter, "; is `{name}` meant?"),
            None => Ok(()),
        }
    }
}

struct Names<'a>(&'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => formatter.write_str("none"),
            names => formatter.write_str(&names.join(", ")),
        }
    }
}

struct Cycle<'a>(&'a [String]);

impl fmt::Display for Cycle<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A cycle of a thousand steps is told by its ends.
        let names = self.0;
        let shown = names.len().min(MAX_NAMES);
        for name in &names[..shown] {
            write!(formatter, "{name} -> ")?;
        }
        if shown < names.len() {
            write!(formatter, "(and {} more) -> ", names.len() - shown)?;
        }
        formatter.write_str(names.first().map_or("", String::as_str))
    }
}
