//! A step of a plan, as data: what to do, with what, after what, and what a failure means.

mod wire;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A step of a plan.
///
/// Reads and writes as JSON: `{"id", "action", "parameters"?, "depends_on"?, "resources"?, "timeout"?, "retries"?,
/// "on_failure"?, "checks"?, "estimate"?}`. Absent and `null` are the same, a key that is not known is an error.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use peregrine_executor::{OnFailure, Retries, Step};
/// use serde_json::json;
///
/// let built = Step::new("page", "fetch")
///     .with_parameters(json!({"url": "$search.hits[0].url"}))
///     .with_timeout(Duration::from_secs(5))
///     .with_retries(Retries::new(2))
///     .with_on_failure(OnFailure::Optional);
/// let read: Step = serde_json::from_value(json!({
///     "id": "page", "action": "fetch", "parameters": {"url": "$search.hits[0].url"},
///     "timeout": "5s", "retries": 2, "on_failure": "optional",
/// }))?;
/// assert_eq!(built, read);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Step {
    /// What references and `depends_on` call it: ASCII letters, digits, `_` and inner `-`, at most 128 bytes.
    pub id: String,
    /// The name of what it does.
    pub action: String,
    /// What it does it with. References in it are dependencies.
    #[serde(default = "wire::no_parameters", deserialize_with = "wire::parameters")]
    pub parameters: Value,
    /// Steps that have to succeed before, besides those that the parameters refer to.
    #[serde(
        default,
        deserialize_with = "wire::or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub depends_on: Vec<String>,
    /// What it reads and writes besides results.
    #[serde(
        default,
        deserialize_with = "wire::resources",
        skip_serializing_if = "Resources::is_empty"
    )]
    pub resources: Resources,
    /// How long one attempt may take. In JSON a whole number of milliseconds, or a text such as `"1.5s"`.
    #[serde(default, with = "wire::duration", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// When it is tried again. In JSON a number, or an object; see [`Retries`].
    #[serde(
        default,
        deserialize_with = "wire::retries",
        skip_serializing_if = "Retries::is_none"
    )]
    pub retries: Retries,
    /// What it means for the others if it fails.
    #[serde(
        default,
        deserialize_with = "wire::or_default",
        skip_serializing_if = "OnFailure::is_default"
    )]
    pub on_failure: OnFailure,
    /// What is verified beside the plan once it has succeeded.
    #[serde(
        default,
        deserialize_with = "wire::or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub checks: Vec<Check>,
    /// How long it is thought to take, which decides what runs first where there is a choice. Written as `timeout` is;
    /// without it the action is asked.
    #[serde(default, with = "wire::duration", skip_serializing_if = "Option::is_none")]
    pub estimate: Option<Duration>,
}

impl Step {
    /// A step without parameters, dependencies or anything else.
    pub fn new(id: impl Into<String>, action: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            action: action.into(),
            parameters: wire::no_parameters(),
            depends_on: Vec::new(),
            resources: Resources::default(),
            timeout: None,
            retries: Retries::default(),
            on_failure: OnFailure::default(),
            checks: Vec::new(),
            estimate: None,
        }
    }

    /// What it does it with.
    pub fn with_parameters(mut self, parameters: Value) -> Self {
        self.parameters = parameters;
        self
    }

    /// One more step that has to succeed before.
    pub fn after(mut self, id: impl Into<String>) -> Self {
        self.depends_on.push(id.into());
        self
    }

    /// One more thing that it reads.
    pub fn reading(mut self, resource: impl Into<String>) -> Self {
        self.resources.read.push(resource.into());
        self
    }

    /// One more thing that it writes.
    pub fn writing(mut self, resource: impl Into<String>) -> Self {
        self.resources.write.push(resource.into());
        self
    }

    /// How long one attempt may take.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// When it is tried again.
    pub fn with_retries(mut self, retries: Retries) -> Self {
        self.retries = retries;
        self
    }

    /// What it means for the others if it fails.
    pub fn with_on_failure(mut self, on_failure: OnFailure) -> Self {
        self.on_failure = on_failure;
        self
    }

    /// One more thing that is verified once it has succeeded.
    pub fn with_check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    /// How long it is thought to take.
    pub fn with_estimate(mut self, estimate: Duration) -> Self {
        self.estimate = Some(estimate);
        self
    }
}

/// What a step reads and writes besides results: names that mean something to the author of the plan.
///
/// Steps that write a resource run alone among all that name it, steps that only read it run side by side, and all of
/// them in the order of the plan. In JSON `{"read": [..], "write": [..]}`, or a list of what is written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// What it reads.
    #[serde(
        default,
        deserialize_with = "wire::or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub read: Vec<String>,
    /// What it writes.
    #[serde(
        default,
        deserialize_with = "wire::or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub write: Vec<String>,
}

impl Resources {
    fn is_empty(&self) -> bool {
        self.read.is_empty() && self.write.is_empty()
    }
}

/// What it means for the plan and for the dependants of a step if it does not succeed. In JSON `"fail"`, `"abort"`,
/// `"optional"`, `"continue"`, or `{"fallback": VALUE}`; `"continue"` is a fallback of `null`.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub enum OnFailure {
    /// The plan fails. What depends on the step is skipped, the rest is done.
    #[default]
    Fail,
    /// The plan fails, and everything that has not ended is cancelled.
    Abort,
    /// The plan can succeed without it. What depends on it is skipped.
    Optional,
    /// The plan can succeed without it, and what depends on it runs, with this in place of its result.
    Fallback(Value),
}

impl OnFailure {
    fn is_default(&self) -> bool {
        *self == Self::Fail
    }

    /// Whether the plan can only succeed if the step does.
    pub fn is_required(&self) -> bool {
        matches!(self, Self::Fail | Self::Abort)
    }
}

/// When a failed attempt is followed by another.
///
/// Waits grow by doubling, and are shortened by up to a half so that many do not come back at once; by how much is fixed by
/// the step and the attempt, not by chance. They are never shorter than what an error asks for; one that asks for more
/// than `max_wait` ends the step. While a step waits it takes no place among those that run.
///
/// What has side effects is tried again only after an error that the action itself calls retryable
/// ([`ActionError::with_retryable`](crate::ActionError::with_retryable)): after a time-out or a panic nobody knows how far
/// it came.
///
/// In JSON a number, or `{"max", "wait"?, "max_wait"?, "panics"?}`, the waits written as a step's `timeout` is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Retries {
    /// How many more attempts there are after the first one.
    pub max: u32,
    /// The wait before the second attempt.
    #[serde(default = "wire::usual_wait", with = "wire::plain_duration")]
    pub wait: Duration,
    /// The longest wait.
    #[serde(default = "wire::usual_max_wait", with = "wire::plain_duration")]
    pub max_wait: Duration,
    /// Whether a panic is tried again too. Errors and time-outs are.
    #[serde(default)]
    pub panics: bool,
}

impl Default for Retries {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Retries {
    /// This many, the first after 100 ms, none after more than 30 s, not after panics.
    pub const fn new(max: u32) -> Self {
        Self {
            max,
            wait: wire::usual_wait(),
            max_wait: wire::usual_max_wait(),
            panics: false,
        }
    }

    /// The wait before the second attempt; never more than the longest wait.
    pub const fn with_wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// The longest wait.
    pub const fn with_max_wait(mut self, max_wait: Duration) -> Self {
        self.max_wait = max_wait;
        self
    }

    /// Whether a panic is tried again too.
    pub const fn with_panics(mut self, panics: bool) -> Self {
        self.panics = panics;
        self
    }

    fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// The wait after the attempt of this number, from 1, for a step whose id hashes to `seed`.
    pub(crate) fn wait_after(&self, attempt: u32, seed: u64) -> Duration {
        let doubled = 2_u32.saturating_pow(attempt.saturating_sub(1));
        let wait = self.wait.saturating_mul(doubled).min(self.max_wait);
        // SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014), one step.
        let mut mixed = seed.wrapping_add(u64::from(attempt).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let share = u32::try_from((mixed ^ (mixed >> 31)) & 0xff).unwrap_or(0);
        wait - wait / 512 * share
    }
}

/// Something that is verified beside the plan once its step has succeeded.
///
/// A check is an action like any other. Its parameters may refer to its step and to others; what a gate refers to is
/// thereby needed by whatever depends on the step. It passes if the action
/// gives `true`, or an object whose `passed` is `true` (and perhaps a `reason`); `false` is a failed check, and so is
/// everything else: another value, an error, a panic, a time-out.
///
/// In JSON `{"action", "parameters"?, "policy"?, "timeout"?}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Check {
    /// The name of what it does.
    pub action: String,
    /// What it does it with.
    #[serde(default = "wire::no_parameters", deserialize_with = "wire::parameters")]
    pub parameters: Value,
    /// What waits for it.
    #[serde(default, deserialize_with = "wire::or_default")]
    pub policy: CheckPolicy,
    /// How long it may take.
    #[serde(default, with = "wire::duration", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
}

impl Check {
    /// An advisory check without parameters.
    pub fn new(action: impl Into<String>) -> Self {
        Self {
            action: action.into(),
            parameters: wire::no_parameters(),
            policy: CheckPolicy::default(),
            timeout: None,
        }
    }

    /// What it does it with.
    pub fn with_parameters(mut self, parameters: Value) -> Self {
        self.parameters = parameters;
        self
    }

    /// What waits for it.
    pub fn with_policy(mut self, policy: CheckPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// How long it may take.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

/// What waits for a check, and what its failure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CheckPolicy {
    /// Nothing waits; the verdict is reported.
    #[default]
    Advisory,
    /// What depends on the step waits, and is skipped if the check fails. A required step is then not good enough for
    /// the plan to succeed.
    Gate,
    /// As `Gate`, but of what depends on the step, directly or through others, only steps with effects wait: those whose
    /// action is not [`Effect::ReadOnly`](crate::Effect::ReadOnly).
    GateEffects,
}

impl CheckPolicy {
    /// Whether the plan can only succeed if the check passes.
    pub fn is_gate(self) -> bool {
        !matches!(self, Self::Advisory)
    }
}
