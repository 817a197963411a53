//! What steps do: the trait, what an action says about itself, and the set of those there are.

mod call;
mod error;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use serde_json::Value;

pub(crate) use call::RunContext;
pub use call::StepCall;
pub use error::ActionError;

/// A boxed future, as the object-safe traits of this crate return it.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What an attempt of an action gives.
pub type ActionResult = Result<Value, ActionError>;

/// What a step can do.
///
/// # Cancel safety
///
/// The future is dropped when its step times out or the plan is cancelled. It must leave nothing running.
pub trait Action: Send + Sync {
    /// Does it, once. Called again for each attempt.
    fn call(&self, call: StepCall) -> BoxFuture<ActionResult>;

    /// How long it will take with these parameters (references in them are still references); `None` if that is not
    /// known.
    fn estimate(&self, parameters: &Value) -> Option<Duration> {
        let _unknown = parameters;
        None
    }
}

/// What an action does to the world. What is not declared is a side effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[non_exhaustive]
pub enum Effect {
    /// It changes nothing.
    ReadOnly,
    /// It changes something, and doing it twice with the same idempotency key is doing it once.
    Idempotent,
    /// It changes something each time. It is never repeated unless it says itself that it may be.
    #[default]
    SideEffect,
}

/// What an action says about itself.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct ActionInfo {
    /// What it does to the world.
    pub effect: Effect,
    /// Whether it asks a model, of which fewer may run at the same time.
    pub is_model_call: bool,
    /// What its results look like.
    pub output: Output,
}

impl ActionInfo {
    /// An action with this effect, which asks no model and whose results are not described.
    pub fn new(effect: Effect) -> Self {
        Self {
            effect,
            ..Self::default()
        }
    }

    /// It asks a model.
    pub fn with_model_call(mut self) -> Self {
        self.is_model_call = true;
        self
    }

    /// What its results look like.
    pub fn with_output(mut self, output: Output) -> Self {
        self.output = output;
        self
    }
}

/// What is known about the results of an action before it runs. References that cannot point at anything are errors of
/// the plan.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub enum Output {
    /// Nothing.
    #[default]
    Unknown,
    /// A JSON Schema, of which `type`, `properties`, `additionalProperties`, `items`, `prefixItems`, `anyOf`, `oneOf` and
    /// `$ref`s to `#/$defs/..` are read; what it says otherwise forbids nothing. Stricter than JSON Schema in one point: an object with
    /// `properties` has no others, unless `additionalProperties` is there and is not `false`.
    Schema(Value),
    /// The parameters, given back.
    Parameters,
}

/// The actions there are, by name.
///
/// # Examples
///
/// ```
/// use peregrine_executor::{ActionError, ActionInfo, Actions, Effect};
/// use serde_json::json;
///
/// let actions = Actions::new().with_fn("add", ActionInfo::new(Effect::ReadOnly), async |call| {
///     let (a, b): (i64, i64) = call.parse_parameters()?;
///     a.checked_add(b).map(|sum| json!(sum)).ok_or_else(|| ActionError::new("the sum is too large"))
/// });
/// assert!(actions.contains("add"));
/// ```
#[derive(Default)]
pub struct Actions {
    names: HashMap<String, usize>,
    entries: Vec<Entry>,
}

struct Entry {
    name: String,
    info: ActionInfo,
    action: Box<dyn Action>,
}

impl Actions {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more. Replaces one of the same name.
    pub fn with(mut self, name: impl Into<String>, info: ActionInfo, action: impl Action + 'static) -> Self {
        let name = name.into();
        let entry = Entry {
            name: name.clone(),
            info,
            action: Box::new(action),
        };
        match self.names.get(&name) {
            Some(&at) => self.entries[at] = entry,
            None => {
                self.names.insert(name, self.entries.len());
                self.entries.push(entry);
            }
        }
        self
    }

    /// One more, from a function. Replaces one of the same name.
    pub fn with_fn<F, R>(self, name: impl Into<String>, info: ActionInfo, function: F) -> Self
    where
        F: Fn(StepCall) -> R + Send + Sync + 'static,
        R: Future<Output = ActionResult> + Send + 'static,
    {
        self.with(name, info, FnAction(function))
    }

    /// Whether there is one of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// The names, in the order in which they were added.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.name.as_str())
    }

    /// What an action says about itself.
    pub fn info(&self, name: &str) -> Option<&ActionInfo> {
        self.find(name).map(|at| self.info_at(at))
    }

    pub(crate) fn find(&self, name: &str) -> Option<u32> {
        u32::try_from(*self.names.get(name)?).ok()
    }

    pub(crate) fn info_at(&self, at: u32) -> &ActionInfo {
        &self.entries[at as usize].info
    }

    pub(crate) fn at(&self, at: u32) -> &dyn Action {
        &*self.entries[at as usize].action
    }
}

impl fmt::Debug for Actions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.names()).finish()
    }
}

struct FnAction<F>(F);

impl<F, R> Action for FnAction<F>
where
    F: Fn(StepCall) -> R + Send + Sync,
    R: Future<Output = ActionResult> + Send + 'static,
{
    fn call(&self, call: StepCall) -> BoxFuture<ActionResult> {
        Box::pin((self.0)(call))
    }
}
