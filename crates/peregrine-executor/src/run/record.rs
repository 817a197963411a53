//! What became of a step: what is reported, journalled and resumed.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ActionError, CheckPolicy, Unresolved};

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StepState {
    /// It has not started.
    Pending,
    /// It has started and not ended, or waits for its next attempt.
    Running,
    /// It has a result.
    Succeeded,
    /// It has none, and it is its own fault.
    Failed,
    /// It did not start, because of what it depends on.
    Skipped,
    /// It did not start or did not end, because the run was cancelled.
    Cancelled,
}

impl StepState {
    /// Whether it stays so.
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Pending | Self::Running)
    }

    /// Its name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Why a step did not succeed, or a check did not pass. `Display` says it in a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cause {
    /// The action failed.
    #[error("{message}")]
    Error {
        /// What it says.
        message: String,
        /// Whether it says that another attempt may succeed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retryable: Option<bool>,
        /// How long it asks to wait before that.
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            with = "optional_micros",
            rename = "retry_after_us"
        )]
        retry_after: Option<Duration>,
    },
    /// The action panicked.
    #[error("the action panicked: {message}")]
    Panic {
        /// With this message, at most 1 KiB of it.
        message: String,
    },
    /// The attempt took longer than it may.
    #[error("it took longer than {limit:?}")]
    Timeout {
        /// How long it may take.
        #[serde(with = "micros", rename = "limit_us")]
        limit: Duration,
    },
    /// A reference in its parameters has no value.
    #[error("{message}")]
    Reference {
        /// Which one, and what was found instead.
        message: String,
    },
    /// The result is too large, or nests too deep.
    #[error("{message}")]
    Result {
        /// What is wrong with it.
        message: String,
    },
    /// A step that it depends on did not succeed.
    #[error("`{step}`, which it depends on, did not succeed{because}", because = Because(.step, .root))]
    Dependency {
        /// The step that it depends on; of several, the first in the plan.
        step: Arc<str>,
        /// The step with which it began.
        root: Arc<str>,
    },
    /// A check of a step that it depends on failed.
    #[error("the check `{check}` of `{step}`, which it depends on, did not pass")]
    CheckFailed {
        /// The step.
        step: Arc<str>,
        /// The action of the check.
        check: String,
    },
    /// The verdict of a check: it did not pass.
    #[error("{message}")]
    Verdict {
        /// Why not.
        message: String,
    },
    /// The run was cancelled from outside.
    #[error("the run was cancelled")]
    Cancelled,
    /// A step whose failure aborts the plan failed.
    #[error("the plan was aborted, because `{step}` failed")]
    Aborted {
        /// That step.
        step: Arc<str>,
    },
    /// The source of the steps failed, and the rest is unknown.
    #[error("the plan could not be read to its end")]
    Unreadable,
    /// The engine that keeps the steps failed.
    #[error("the engine failed: {message}")]
    Engine {
        /// What it says.
        message: String,
    },
    /// An earlier attempt had begun and its end is not known. It has side effects, so it is not repeated.
    #[error("an earlier attempt had begun and its end is not known; it has side effects and is not repeated")]
    InDoubt,
}

impl Cause {
    /// The name of its kind, as in JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Error { .. } => "error",
            Self::Panic { .. } => "panic",
            Self::Timeout { .. } => "timeout",
            Self::Reference { .. } => "reference",
            Self::Result { .. } => "result",
            Self::Dependency { .. } => "dependency",
            Self::CheckFailed { .. } => "check_failed",
            Self::Verdict { .. } => "verdict",
            Self::Cancelled => "cancelled",
            Self::Aborted { .. } => "aborted",
            Self::Unreadable => "unreadable",
            Self::Engine { .. } => "engine",
            Self::InDoubt => "in_doubt",
        }
    }

    /// The id of the other step with which it began, where it did.
    pub fn root(&self) -> Option<&str> {
        match self {
            Self::Dependency { root, .. } => Some(root),
            Self::CheckFailed { step, .. } | Self::Aborted { step } => Some(step),
            _ => None,
        }
    }
}

impl From<ActionError> for Cause {
    fn from(error: ActionError) -> Self {
        Self::Error {
            message: error.message().to_owned(),
            retryable: error.retryable(),
            retry_after: error.retry_after(),
        }
    }
}

impl From<Unresolved> for Cause {
    fn from(unresolved: Unresolved) -> Self {
        let message = unresolved.to_string();
        Self::Reference { message }
    }
}

struct Because<'a>(&'a str, &'a str);

impl std::fmt::Display for Because<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(step, root) = self;
        if step == root {
            return Ok(());
        }
        write!(formatter, ", because of `{root}`")
    }
}

/// What became of a step. Serialisable: kept and given back, a plan goes on where it was.
///
/// Times count from the start of the run. In JSON they are whole microseconds, under names that end in `_us`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StepRecord {
    /// The id of the step.
    pub id: Arc<str>,
    /// Of its id, action and parameters: records are not taken for those of another step of the same name.
    #[serde(with = "hex")]
    pub fingerprint: u64,
    /// How far it is.
    pub state: StepState,
    /// How many attempts there were, those before the run was resumed included.
    pub attempts: u32,
    /// What it gave, if it succeeded.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "some_value"
    )]
    pub result: Option<Value>,
    /// Why it did not succeed, if it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// When all that it depends on had ended.
    #[serde(with = "micros", rename = "ready_us")]
    pub ready_at: Duration,
    /// When its first attempt began, if one did.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "optional_micros",
        rename = "started_us"
    )]
    pub started_at: Option<Duration>,
    /// When it came to its state.
    #[serde(with = "micros", rename = "ended_us")]
    pub ended_at: Duration,
    /// How long its attempts took, without the waits between them.
    #[serde(with = "micros", rename = "busy_us")]
    pub busy: Duration,
    /// Whether all this comes from an earlier run, and nothing of it happened in this one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reused: bool,
    /// What became of its checks, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckRecord>,
}

impl StepRecord {
    pub(crate) fn new(id: Arc<str>, fingerprint: u64, checks: Vec<CheckRecord>) -> Self {
        Self {
            id,
            fingerprint,
            state: StepState::Pending,
            attempts: 0,
            result: None,
            cause: None,
            ready_at: Duration::ZERO,
            started_at: None,
            ended_at: Duration::ZERO,
            busy: Duration::ZERO,
            reused: false,
            checks,
        }
    }

    /// How long it waited for a place among those that run, once it could have started.
    pub fn queued(&self) -> Duration {
        self.started_at
            .map_or(Duration::ZERO, |at| at.saturating_sub(self.ready_at))
    }

    /// From its first attempt to its end, waits between attempts included; zero if it did not start in this run.
    pub fn duration(&self) -> Duration {
        self.started_at
            .map_or(Duration::ZERO, |at| self.ended_at.saturating_sub(at))
    }
}

/// What became of a check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CheckRecord {
    /// The name of its action.
    pub action: String,
    /// What waited for it.
    pub policy: CheckPolicy,
    /// Of its step's id, its action and its parameters.
    #[serde(with = "hex")]
    pub fingerprint: u64,
    /// `Succeeded` if it passed; `Skipped` if there was nothing to check, because its step, or one that it refers to, did
    /// not succeed.
    pub state: StepState,
    /// Why it did not pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// What it says about its verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it began, if it did.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "optional_micros",
        rename = "started_us"
    )]
    pub started_at: Option<Duration>,
    /// When it ended.
    #[serde(with = "micros", rename = "ended_us")]
    pub ended_at: Duration,
}

impl CheckRecord {
    pub(crate) fn new(action: String, policy: CheckPolicy, fingerprint: u64) -> Self {
        Self {
            action,
            policy,
            fingerprint,
            state: StepState::Pending,
            cause: None,
            reason: None,
            started_at: None,
            ended_at: Duration::ZERO,
        }
    }

    /// Whether it passed.
    pub fn passed(&self) -> bool {
        self.state == StepState::Succeeded
    }

    /// How long it took.
    pub fn duration(&self) -> Duration {
        self.started_at
            .map_or(Duration::ZERO, |at| self.ended_at.saturating_sub(at))
    }
}

/// A result of `null` is a result.
fn some_value<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

mod micros {
    use super::{Deserialize, Duration, Serialize};

    pub(super) fn serialize<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        u64::try_from(time.as_micros())
            .unwrap_or(u64::MAX)
            .serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_micros)
    }
}

mod optional_micros {
    use super::{Deserialize, Duration, micros};

    #[expect(clippy::ref_option, reason = "serde passes the field by reference")]
    pub(super) fn serialize<S: serde::Serializer>(
        time: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => micros::serialize(time, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_micros))
    }
}

/// As text, because many readers of JSON have no whole numbers of 64 bits.
mod hex {
    use serde::de::Error as _;

    use super::{Deserialize, Serialize};

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes the field by reference"
    )]
    pub(super) fn serialize<S: serde::Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        format!("{number:016x}").serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}
