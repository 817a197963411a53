//! How a driver ends: the run's end as an error or an output, with the report of what was done.

use futures_util::stream;
use peregrine_core::{ChatResponse, Error as ModelError};
use peregrine_signatures::{Error as SignatureError, OutputReader, Outputs as _, Signature};

use super::ops::Done;
use super::stop::Below;
use super::{Driver, internal};
use crate::error::{Error, RunError};
use crate::output::{AbandonedKind, RunOutput, RunReport, TypedOutput};
use crate::run::{End, Failure};

impl Driver {
    pub(super) fn finish_run(&mut self, end: End) {
        let error = match end {
            End::Completed { response, .. } => return self.completed(*response),
            End::ModelFailed { failure } => {
                match (self.signature_error(&failure.message), self.model_error(&failure)) {
                    (Some(error), _) => Error::Signature(error),
                    (None, Some(error)) => Error::Model(error),
                    (None, None) => Error::Model(ModelError::layer(failure.kind, failure)),
                }
            }
            End::ToolFailed { tool, message } => Error::Tool { tool, message },
            End::AnswerRejected { problem, repairs } => match self.signature_error(&problem) {
                Some(SignatureError::Output(mut error)) => {
                    error.repairs = repairs;
                    Error::Signature(SignatureError::Output(error))
                }
                _ => Error::Rejected { problem, repairs },
            },
            End::Declined { text } => match self.signature_error(&text) {
                Some(error) => Error::Signature(error),
                None => Error::Declined { text },
            },
            End::Limit { limit } => Error::Limit(limit),
            End::WindowTooSmall { too_small } => Error::WindowTooSmall(too_small),
            End::Vetoed { veto } => Error::Vetoed(veto),
            End::MemoryFailed { failure, .. } => Error::Memory(failure),
        };
        self.end(Err(error), false);
    }

    /// The error, whole, that the run knows by this text. Threads have errors of their own, of which one ends the run.
    fn signature_error(&mut self, known_by: &str) -> Option<SignatureError> {
        let place = self
            .signature_errors
            .iter()
            .find_map(|(place, (text, _))| (text == known_by).then_some(*place));
        self.signature_errors.remove(&place?).map(|(_, error)| error)
    }

    fn model_error(&mut self, failure: &Failure) -> Option<ModelError> {
        let place = self
            .model_errors
            .iter()
            .find_map(|(place, error)| (Failure::from(error) == *failure).then_some(*place));
        self.model_errors.remove(&place?)
    }

    fn completed(&mut self, mut response: ChatResponse) {
        let Some(hooks) = &self.hooks else {
            return self.complete(response);
        };
        let hooks = hooks.at(0, self.turns.get(&0).copied().unwrap_or_default());
        let after = async move {
            let outcome = hooks.after_run(&mut response).await;
            Done::after_run(outcome.map(|()| response))
        };
        let below = Below::other(AbandonedKind::Hook, true);
        self.ops.push(None, 0, Box::pin(stream::once(after)), below);
    }

    pub(super) fn complete(&mut self, response: ChatResponse) {
        self.end(Ok(response), false);
    }

    pub(super) fn end(&mut self, outcome: Result<ChatResponse, Error>, can_go_on: bool) {
        self.ops.clear();
        self.todo.clear();
        self.is_over = !self.close_journal(&outcome);
        if self.is_over {
            self.stop = None;
        }
        let mut report = std::mem::replace(&mut self.report, RunReport::new(self.run_id));
        let counts = self.run.counts();
        report.messages = self.run.messages();
        report
            .tool_calls
            .extend(std::mem::take(&mut self.called).into_values());
        report.steps = counts.steps;
        report.usage = report.usage.zip(counts.usage).map(|(sum, usage)| sum + usage);
        report.cost = report.cost + counts.cost;
        if let Some(hooks) = &self.hooks {
            report.observer_failures = hooks.failed();
        }
        self.result = Some(match outcome {
            Ok(response) => Ok(RunOutput { response, report }),
            Err(error) => {
                let run = (can_go_on && self.run.paused().is_some()).then(|| self.run.clone().whole());
                Err(RunError::new(error, report).with_run(run))
            }
        });
    }
}

/// The answer of a run as a type.
pub(crate) fn typed<S: Signature>(
    value: serde_json::Map<String, serde_json::Value>,
    run: RunOutput,
) -> Result<TypedOutput<S::Output>, RunError> {
    match S::Output::read(OutputReader::new(value)) {
        Ok(output) => Ok(TypedOutput { output, run }),
        // It was read before with the same result.
        Err(problem) => Err(RunError::new(internal(&problem.to_string()), run.report)),
    }
}
