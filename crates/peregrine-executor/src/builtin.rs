//! Actions that do nothing to the world: to try plans by hand, in tests and in simulations.
//!
//! Each waits for `ms` milliseconds first, if its parameters are an object with that. `sleep` and `echo` then give their
//! parameters back, `fail` fails and `panic` panics, with `message` if there is one. `fail` succeeds from the attempt
//! after `times` on, if there is that, and says that it is `retryable` or not, if there is that. `check` gives a verdict:
//! `passed`, else whether `value` is neither `null` nor `false`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{Action, ActionError, ActionInfo, ActionResult, Actions, BoxFuture, Effect, Output, StepCall};

/// `sleep`, `echo`, `fail`, `panic` and `check`.
///
/// # Examples
///
/// ```
/// let actions = peregrine_executor::builtin::actions();
/// assert_eq!(actions.names().collect::<Vec<_>>(), ["sleep", "echo", "fail", "panic", "check"]);
/// ```
pub fn actions() -> Actions {
    let info = || ActionInfo::new(Effect::ReadOnly);
    let gives_back = || info().with_output(Output::Parameters);
    Actions::new()
        .with("sleep", gives_back(), Builtin::Sleep)
        .with("echo", gives_back(), Builtin::Echo)
        .with("fail", info(), Builtin::Fail)
        .with("panic", info(), Builtin::Panic)
        .with("check", info(), Builtin::Check)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Builtin {
    Sleep,
    Echo,
    Fail,
    Panic,
    Check,
}

impl Action for Builtin {
    fn call(&self, call: StepCall) -> BoxFuture<ActionResult> {
        let this = *self;
        Box::pin(async move {
            match wait(call.parameters())? {
                Some(wait) => call.sleep(wait).await,
                None if this == Self::Sleep => {
                    let message = "sleep needs `ms`, a whole number of milliseconds";
                    return Err(ActionError::new(message).with_retryable(false));
                }
                None => {}
            }
            this.end(call)
        })
    }

    fn estimate(&self, parameters: &Value) -> Option<Duration> {
        match parameters.get("ms") {
            None => Some(Duration::ZERO),
            // A reference, perhaps.
            Some(_) => wait(parameters).ok().flatten(),
        }
    }
}

impl Builtin {
    fn end(self, call: StepCall) -> ActionResult {
        let parameters = call.parameters();
        let message = |otherwise: &str| {
            let given = parameters.get("message").and_then(Value::as_str);
            given.unwrap_or(otherwise).to_owned()
        };
        match self {
            Self::Sleep | Self::Echo => Ok(call.into_parameters()),
            Self::Fail => {
                let times = parameters.get("times").and_then(Value::as_u64);
                if times.is_some_and(|times| u64::from(call.attempt()) > times) {
                    return Ok(call.into_parameters());
                }
                let error = ActionError::new(message("it was asked to fail"));
                Err(match parameters.get("retryable").and_then(Value::as_bool) {
                    Some(retryable) => error.with_retryable(retryable),
                    None => error,
                })
            }
            // Without the panic hook: nobody wants to read on standard error what was asked for.
            Self::Panic => std::panic::resume_unwind(Box::new(message("it was asked to panic"))),
            Self::Check => {
                let value = || {
                    !matches!(
                        parameters.get("value"),
                        None | Some(Value::Null | Value::Bool(false))
                    )
                };
                let passed = parameters.get("passed").and_then(Value::as_bool);
                let reason = parameters.get("message").cloned().unwrap_or_default();
                Ok(json!({"passed": passed.unwrap_or_else(value), "reason": reason}))
            }
        }
    }
}

fn wait(parameters: &Value) -> Result<Option<Duration>, ActionError> {
    match parameters.get("ms") {
        None | Some(Value::Null) => Ok(None),
        Some(given) => match given.as_u64() {
            Some(milliseconds) => Ok(Some(Duration::from_millis(milliseconds))),
            None => Err(
                ActionError::new("`ms` is not a whole number of milliseconds, 0 or more")
                    .with_retryable(false),
            ),
        },
    }
}
