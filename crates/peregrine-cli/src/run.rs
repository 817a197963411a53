//! One run of the agent: what it is made of, and how it is followed to its end.
//!
//! The loop itself is `peregrine::Agent`'s. Here is what the command adds: its bounds, what is shown while the run goes
//! on, and Ctrl-C, which stops the run so that what was done until then is still told.

use std::time::Duration;

use futures_util::StreamExt as _;
use peregrine::agent::run::InterruptMode;
use peregrine::agent::{RunReport, Unstreamed};
use peregrine::core::{Middleware, Result as ModelResult};
use peregrine::interrupts::{Kind, Mode};
use peregrine::tools::Registry;
use peregrine::{
    Agent, BudgetLimits, ChatEvent, ChatModel, ChatRequest, ChatResponse, ChatStream, Input, Limits,
    RunError, RunEvent, RunOutput, Sampling,
};
use tokio::sync::mpsc;

use crate::args::RunArgs;
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::model::Chosen;
use crate::output::Verbosity;
use crate::view::View;

/// How many of the model's own events wait at most until they are shown.
const WATCHED_EVENTS: usize = 64;

/// An agent, and how its answers are asked for.
pub(crate) struct Runner {
    agent: Agent,
    watched: mpsc::Receiver<ChatEvent>,
}

/// How answers are asked for, and what is heard of them on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asking {
    /// Whole.
    Whole,
    /// Piece by piece.
    Streamed,
    /// Piece by piece, and each event of the model is shown as it is.
    Watched,
}

/// What the first signal does to a run; the second stops it at once in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FirstSignal {
    /// Lets it finish its step.
    Finishes,
    /// Stops it at once.
    Stops,
}

/// A run without an answer.
#[derive(Debug)]
pub(crate) struct Unanswered {
    /// Why.
    pub(crate) failure: Failure,
    /// What was done until then; `None` if the run was dropped because nobody reads the output.
    pub(crate) report: Option<RunReport>,
}

impl From<Failure> for Unanswered {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            report: None,
        }
    }
}

impl From<RunError> for Unanswered {
    fn from(error: RunError) -> Self {
        let report = Some(error.report().clone());
        Self {
            failure: error.into_error().into(),
            report,
        }
    }
}

impl Runner {
    /// The agent that the command line describes. `left` is how much of its time there still is.
    pub(crate) fn new(
        chosen: &Chosen,
        tools: &Registry,
        system: Option<String>,
        run: &RunArgs,
        left: Duration,
        asking: Asking,
    ) -> Self {
        let (sender, watched) = mpsc::channel(WATCHED_EVENTS);
        let model = chosen.model.clone();
        let agent = match asking {
            Asking::Whole => Agent::new(model.layered(Unstreamed)),
            Asking::Streamed => Agent::new(model),
            Asking::Watched => Agent::new(model.layered(Watch(sender))),
        };
        let mut agent = agent
            .with_tools(tools)
            .with_limits(Limits {
                max_steps: run.max_steps,
                ..Limits::default()
            })
            .with_budget(BudgetLimits::default().with_wall_time(left))
            .with_sampling(Sampling {
                temperature: run.temperature,
                max_tokens: run.max_tokens,
                ..Sampling::default()
            });
        if let Some(text) = system {
            agent = agent.with_instructions(text);
        }
        if let Some(prices) = chosen.prices() {
            agent = agent.with_prices(prices);
        }
        Self { agent, watched }
    }

    /// Runs until there is an answer, and shows what happens.
    ///
    /// # Errors
    ///
    /// [`Unanswered`]; with what was done until then, unless nobody reads the output.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the call to the model and the tools.
    pub(crate) async fn run(
        mut self,
        input: Input,
        view: &mut View<'_>,
        interrupts: &Interrupts,
        first: FirstSignal,
    ) -> Result<RunOutput, Unanswered> {
        let scope = interrupts.scope().child(Kind::Other, "answer");
        let at_once = scope.handle();
        let _hook = (first == FirstSignal::Stops).then(|| {
            interrupts.scope().on(Mode::Graceful, move || {
                at_once.interrupt(Mode::Immediate);
            })
        });
        let mut events = self.agent.run_stream(input.with_interrupts(&scope));
        loop {
            tokio::select! {
                biased;
                Some(event) = self.watched.recv() => view.model_event(&event)?,
                event = events.next() => {
                    self.show_watched(view)?;
                    match event {
                        Some(Ok(RunEvent::Finished(output))) => return Ok(*output),
                        Some(Ok(RunEvent::Interrupted { interrupt })) => {
                            if interrupt.mode == InterruptMode::Graceful && first == FirstSignal::Finishes {
                                let note = "this step is finished, then it stops; Ctrl-C again stops at once";
                                view.console.note(Verbosity::Quiet, note);
                            }
                        }
                        Some(Ok(event)) => view.event(&event)?,
                        Some(Err(error)) => {
                            let mut unanswered = Unanswered::from(error);
                            if let Failure::Interrupted(_) = unanswered.failure {
                                unanswered.failure = interrupts.failure();
                            }
                            return Err(unanswered);
                        }
                        // The last event is one of the others.
                        None => return Err(Failure::internal("the run ended without an end").into()),
                    }
                }
            }
        }
    }

    /// Shows what the model said before the event that is shown next.
    fn show_watched(&mut self, view: &mut View<'_>) -> Result<(), Failure> {
        while let Ok(event) = self.watched.try_recv() {
            view.model_event(&event)?;
        }
        Ok(())
    }
}

/// Tells of each event of a stream. Who is told may be slower than the model, which waits then.
#[derive(Debug)]
struct Watch(mpsc::Sender<ChatEvent>);

impl Middleware for Watch {
    async fn complete<M: ChatModel>(&self, inner: &M, request: &ChatRequest) -> ModelResult<ChatResponse> {
        inner.complete(request).await
    }

    async fn stream<M: ChatModel>(&self, inner: &M, request: &ChatRequest) -> ModelResult<ChatStream> {
        let events = inner.stream(request).await?;
        let watcher = self.0.clone();
        Ok(ChatStream::new(events.then(move |event| {
            let watcher = watcher.clone();
            async move {
                if let Ok(event) = &event {
                    // Nobody watches any more: the run is being dropped.
                    let _ = watcher.send(event.clone()).await;
                }
                event
            }
        })))
    }
}
