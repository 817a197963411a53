//! The direct path: from the input to the model and back, with nothing in between.
//!
//! Taken when nothing that a run can do is needed. It gives what the run would give, which the tests hold it to; what it
//! saves is the run. Anything but an answer that can stand (a call of a tool that was not offered, a form that does not
//! fit) needs the run after all, which begins with that answer.

use std::sync::Arc;

use peregrine_core::{ChatModel as _, ChatRequest, ChatResponse, Cost, Error as ModelError, Message};
use peregrine_signatures::{Compiled, Contract, Signature};

use crate::agent::Inner;
use crate::driver::check::check;
use crate::driver::{Driver, Setup, Start, nothing_asked, run_id, typed};
use crate::error::{Error, RunError};
use crate::input::Input;
use crate::output::{RunOutput, RunReport, TypedOutput};
use crate::run::thread::settled;
use crate::run::{CallId, Event, Run, RunSpec, Verdict};

pub(crate) async fn run(inner: &Arc<Inner>, input: Input) -> Result<RunOutput, RunError> {
    let mut call = Call::new(inner, None, input)?;
    let response = call.ask().await?;
    if response.tool_calls().next().is_none() {
        let message = response.message.clone();
        return Ok(call.output(response, message));
    }
    let spec = Arc::clone(&inner.spec);
    call.hand_over(response, spec, None)?.finish().await
}

pub(crate) async fn run_as<S: Signature>(
    inner: &Arc<Inner>,
    contract: Contract,
    input: Input,
) -> Result<TypedOutput<S::Output>, RunError> {
    let mut call = Call::new(inner, Some(contract.system()), input)?;
    let messages = std::mem::take(&mut call.request.messages);
    let applied = contract.apply(std::mem::take(&mut call.request));
    let problem = match applied {
        Ok(request) => {
            call.request = request;
            None
        }
        Err(error) => Some(error),
    };
    call.request.messages = messages;
    if let Some(error) = problem {
        return Err(call.fail(error));
    }
    let mut response = call.ask().await?;
    if let Verdict::Accepted { value, metadata } = check(&contract, &response, None).verdict {
        let message = settled(&response);
        response.metadata.extend(metadata);
        return typed::<S>(value, call.output(response, message));
    }
    let spec = inner.ready_spec(Some(&contract));
    let signature = Arc::clone(contract.signature());
    call.hand_over(response, spec, Some(signature))?
        .finish_as::<S>()
        .await
}

/// The one call, and what there is to report of it.
struct Call<'i> {
    inner: &'i Arc<Inner>,
    /// The request, and then the conversation that it begins.
    request: ChatRequest,
    input: Input,
    report: RunReport,
}

impl<'i> Call<'i> {
    fn new(inner: &'i Arc<Inner>, form: Option<&Arc<Message>>, input: Input) -> Result<Self, RunError> {
        let report = RunReport::new(run_id(&input));
        if input.messages.is_empty() {
            return Err(RunError::new(nothing_asked(), report));
        }
        let head = inner.spec.head.iter().chain(form).cloned();
        let asked = input.messages.iter().cloned().map(Arc::new);
        let mut request = ChatRequest {
            messages: head.chain(asked).collect(),
            ..inner.spec.template.clone()
        };
        if input.scope.is_some() {
            request.scope.clone_from(&input.scope);
        }
        Ok(Self {
            inner,
            request,
            input,
            report,
        })
    }

    async fn ask(&mut self) -> Result<ChatResponse, RunError> {
        self.report.steps += 1;
        match self.inner.models[0].complete(&self.request).await {
            Ok(response) => {
                self.report.usage = response.usage;
                self.report.cost = self.cost(&response);
                Ok(response)
            }
            Err(error) => Err(self.fail(error)),
        }
    }

    fn cost(&self, response: &ChatResponse) -> Cost {
        let info = self.inner.models[0].info();
        match &self.inner.prices {
            None => Cost::Unpriced,
            Some(prices) => prices.cost(info.provider(), info.model(), response.usage.as_ref()),
        }
    }

    fn fail(&mut self, error: impl Into<Error>) -> RunError {
        let id = self.report.run_id;
        let mut report = std::mem::replace(&mut self.report, RunReport::new(id));
        report.messages = self.request.messages.clone();
        RunError::new(error, report)
    }

    fn output(mut self, response: ChatResponse, message: Message) -> RunOutput {
        self.request.messages.push(message);
        self.report.messages = self.request.messages;
        RunOutput {
            response,
            report: self.report,
        }
    }

    /// A run that has had this answer.
    fn hand_over(
        mut self,
        response: ChatResponse,
        mut spec: Arc<RunSpec>,
        signature: Option<Arc<Compiled>>,
    ) -> Result<Box<Driver>, RunError> {
        if self.input.scope.is_some() {
            Arc::make_mut(&mut spec)
                .template
                .scope
                .clone_from(&self.input.scope);
        }
        let mut run = Box::new(Run::new(Arc::clone(&spec)));
        let input = std::mem::take(&mut self.input.messages);
        let answered = Event::ModelAnswered {
            // The first thing that a run asks for.
            call: CallId(0),
            outcome: Ok(Box::new(response)),
            cost: self.report.cost,
        };
        let effects = run
            .handle(Event::Started { input })
            .and_then(|_| run.handle(answered));
        match effects {
            Ok(effects) => Driver::new(Setup {
                inner: Arc::clone(self.inner),
                spec,
                signature,
                streaming: false,
                start: Start::Begun(run, self.report.run_id, effects),
            }),
            Err(stray) => {
                let error = ModelError::layer(peregrine_core::ErrorKind::Internal, stray);
                Err(self.fail(error))
            }
        }
    }
}
