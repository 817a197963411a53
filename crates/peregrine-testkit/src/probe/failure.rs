//! What a command can fail with.

use peregrine_agent::{Error as AgentError, RunError};
use peregrine_core::{ConfigError, Error};
use serde_json::{Value, json};

use crate::agent;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A model, its configuration, or the request.
    Model(Error),
    /// A run of an agent.
    Run(RunError),
    /// A run of an agent in a store.
    Stored(AgentError),
}

impl From<AgentError> for Failure {
    fn from(error: AgentError) -> Self {
        Self::Stored(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Model(error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Model(error.into())
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        Self::Run(error)
    }
}

impl Failure {
    /// The last line of a failure.
    pub(crate) fn line(&self) -> Value {
        let fields = match self {
            Self::Model(error) => model_fields(error),
            Self::Run(error) => run_fields(error),
            Self::Stored(error) => agent_fields(error),
        };
        json!({ "error": fields })
    }
}

fn run_fields(error: &RunError) -> Value {
    let mut fields = agent_fields(error.error());
    fields["run"] = agent::report(error.report());
    fields
}

fn agent_fields(error: &AgentError) -> Value {
    let mut fields = match error {
        AgentError::Model(error) => model_fields(error),
        AgentError::Checkpoints(error) => model_fields(&error.clone().into()),
        error => json!({
            "code": error.code(),
            "retryable": error.is_retryable(),
            "message": error.to_string(),
        }),
    };
    match error {
        AgentError::Limit(reached) => fields["limit"] = json!(reached),
        AgentError::InDoubt(calls) => fields["calls"] = json!(calls),
        AgentError::Diverged(divergence) => {
            fields["seq"] = divergence.seq.into();
            fields["recorded"] = divergence.recorded.as_str().into();
            fields["came"] = divergence.came.as_str().into();
        }
        _ => {}
    }
    fields
}

fn model_fields(error: &Error) -> Value {
    let mut fields = json!({
        "code": error.kind().code(),
        "retryable": error.is_retryable(),
        "message": error.to_string(),
    });
    if let Some(wait) = error.retry_after() {
        fields["retry_after_ms"] = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).into();
    }
    if let Some(status) = error.status() {
        fields["status"] = status.into();
    }
    if let Some(id) = error.request_id() {
        fields["request_id"] = id.into();
    }
    if let Error::Transport(transport) = error
        && let Some(stage) = transport.stage
    {
        fields["stage"] = json!(stage);
    }
    if let Error::Layer { source, .. } = error
        && let Some(error) = source.downcast_ref::<peregrine_checkpoints::Error>()
    {
        fields["cause"] = error.code().into();
        fields["retryable"] = error.is_retryable().into();
    }
    fields
}
