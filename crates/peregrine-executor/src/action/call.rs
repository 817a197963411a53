//! One attempt of a step, as its action sees it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{ActionError, Actions};
use crate::engine::{Answer, Engine};
use crate::timer::{Sleep, Timer};

/// What all steps of one run share.
#[derive(Debug)]
pub(crate) struct RunContext {
    pub(crate) run_id: String,
    pub(crate) actions: Arc<Actions>,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) timer: Arc<dyn Timer>,
}

impl RunContext {
    pub(crate) fn sleep(&self, duration: Duration) -> Sleep {
        self.timer.sleep_until(self.timer.now().saturating_add(duration))
    }
}

/// One attempt of a step: its parameters, with the results of others put in, and what it may ask for.
pub struct StepCall {
    context: Arc<RunContext>,
    id: Arc<str>,
    check: Option<u32>,
    attempt: u32,
    parameters: Value,
}

impl StepCall {
    pub(crate) fn new(
        context: Arc<RunContext>,
        id: Arc<str>,
        check: Option<u32>,
        attempt: u32,
        parameters: Value,
    ) -> Self {
        Self {
            context,
            id,
            check,
            attempt,
            parameters,
        }
    }

    /// The id of the step; of the step that is checked, in a check.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Which check of the step it is, from 0; none for the step itself.
    pub fn check(&self) -> Option<u32> {
        self.check
    }

    /// The id of the run.
    pub fn run_id(&self) -> &str {
        &self.context.run_id
    }

    /// Which attempt it is, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The parameters.
    pub fn parameters(&self) -> &Value {
        &self.parameters
    }

    /// The parameters, taken out.
    pub fn into_parameters(self) -> Value {
        self.parameters
    }

    /// The parameters as a type.
    ///
    /// # Errors
    ///
    /// They do not fit, which no retry changes.
    pub fn parse_parameters<T: DeserializeOwned>(&self) -> Result<T, ActionError> {
        T::deserialize(&self.parameters).map_err(|error| {
            ActionError::new(format!("the parameters do not fit: {error}")).with_retryable(false)
        })
    }

    /// The same for every attempt of this step, or of this check, in this run, also after it was resumed, and for
    /// nothing else.
    pub fn idempotency_key(&self) -> String {
        format!("{}/{}", self.context.run_id, self.name())
    }

    /// The step, or the check of it, within its run.
    fn name(&self) -> String {
        match self.check {
            None => self.id.to_string(),
            Some(check) => format!("{}/check-{check}", self.id),
        }
    }

    /// Waits, in the time of the plan, which may be virtual.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future forgets the timer.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        self.context.sleep(duration)
    }

    /// Waits by a timer of the engine. With a durable engine it goes on where the process does not. `name` tells the
    /// timers of one step apart.
    pub fn durable_sleep(&self, name: &str, duration: Duration) -> Answer<()> {
        let name = format!("{}/{name}", self.name());
        self.context.engine.timer(&self.context.run_id, &name, duration)
    }

    /// Waits for a signal to this run, such as an approval, and gives what was sent with it.
    ///
    /// # Cancel safety
    ///
    /// A signal that comes after the future was dropped waits for the next who asks.
    pub fn signal(&self, name: &str) -> Answer<Value> {
        self.context.engine.signal(&self.context.run_id, name)
    }
}

impl fmt::Debug for StepCall {
    /// Without the parameters, which may be secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("StepCall")
            .field("run_id", &self.context.run_id)
            .field("id", &self.id)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}
