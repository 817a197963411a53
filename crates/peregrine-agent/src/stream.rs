//! A run that tells what happens.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use peregrine_core::{Error as ModelError, ErrorKind, RunId};
use peregrine_signatures::Signature;

use crate::driver::{Driver, typed};
use crate::error::RunError;
use crate::event::RunEvent;
use crate::output::{RunOutput, RunReport, TypedOutput};
use crate::run::Failure;

/// The events of a run, in order, the last of which is [`RunEvent::Finished`] or an error.
///
/// Nothing happens unless it is polled; dropping it stops everything that is under way.
///
/// # Examples
///
/// ```
/// use peregrine_agent::{Agent, RunEvent};
/// # use peregrine_core::{ChatModel, ChatRequest, ChatResponse, ModelInfo};
/// # struct Clerk(ModelInfo);
/// # impl ChatModel for Clerk {
/// #     fn info(&self) -> &ModelInfo { &self.0 }
/// #     async fn complete(&self, _: &ChatRequest) -> peregrine_core::Result<ChatResponse> {
/// #         Ok(ChatResponse::text("Good morning."))
/// #     }
/// # }
/// # futures_util::FutureExt::now_or_never(async {
/// # let agent = Agent::new(Clerk(ModelInfo::new("example", "clerk")));
/// let mut events = agent.run_stream("Greet me.");
/// while let Some(event) = events.next().await {
///     match event? {
///         RunEvent::Text { text, .. } => print!("{text}"),
///         RunEvent::Finished(output) => println!("\n{} steps", output.report.steps),
///         _ => {}
///     }
/// }
/// # Ok::<(), peregrine_agent::RunError>(())
/// # }).unwrap().unwrap();
/// ```
pub struct RunStream(State);

enum State {
    Failed(Option<RunError>),
    Running(Box<Driver>),
    Ended(Option<serde_json::Map<String, serde_json::Value>>),
}

impl RunStream {
    pub(crate) fn new(driver: Result<Box<Driver>, RunError>) -> Self {
        Self(match driver {
            Ok(driver) => State::Running(driver),
            Err(error) => State::Failed(Some(error)),
        })
    }

    /// The next event; `None` after the last.
    ///
    /// # Errors
    ///
    /// [`RunError`], as the last item.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no event.
    pub async fn next(&mut self) -> Option<Result<RunEvent, RunError>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Reads to the end, and gives what [`Agent::run`](crate::Agent::run) gives.
    ///
    /// # Errors
    ///
    /// [`RunError`], also if the last event was read before.
    pub async fn collect(mut self) -> Result<RunOutput, RunError> {
        self.output().await
    }

    /// Reads to the end, and gives what [`Agent::run_as`](crate::Agent::run_as) gives.
    ///
    /// # Errors
    ///
    /// As [`collect`](Self::collect); also for a run that was not begun with this signature.
    pub async fn collect_as<S: Signature>(mut self) -> Result<TypedOutput<S::Output>, RunError> {
        let output = self.output().await?;
        match self.0 {
            State::Ended(value) => typed::<S>(value.unwrap_or_default(), output),
            _ => typed::<S>(serde_json::Map::new(), output),
        }
    }

    async fn output(&mut self) -> Result<RunOutput, RunError> {
        while let Some(event) = self.next().await {
            if let RunEvent::Finished(output) = event? {
                return Ok(*output);
            }
        }
        let failure = Failure::new(ErrorKind::Internal, "the last event of the run was read before");
        let report = RunReport::new(RunId::from_parts(0, [0; 10]));
        Err(RunError::new(
            ModelError::layer(ErrorKind::Internal, failure),
            report,
        ))
    }

    /// Only the texts, as they come. An error is the last item.
    ///
    /// Of the main thread, and of every turn: what a model says before it calls a tool is text too.
    pub fn text(self) -> TextStream {
        TextStream(self)
    }
}

impl Stream for RunStream {
    type Item = Result<RunEvent, RunError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let driver = match &mut self.0 {
            State::Failed(error) => return Poll::Ready(error.take().map(Err)),
            State::Ended(_) => return Poll::Ready(None),
            State::Running(driver) => driver,
        };
        if let Some(event) = ready!(driver.poll_next(cx)) {
            return Poll::Ready(Some(Ok(event)));
        }
        let (result, value) = (driver.take_result(), driver.value().cloned());
        self.0 = State::Ended(value);
        Poll::Ready(result.map(|result| result.map(|output| RunEvent::Finished(Box::new(output)))))
    }
}

impl fmt::Debug for RunStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RunStream")
    }
}

/// The texts of a run, as they come. Made by [`RunStream::text`].
#[derive(Debug)]
pub struct TextStream(RunStream);

impl TextStream {
    /// The next piece; `None` after the last.
    ///
    /// # Errors
    ///
    /// [`RunError`], as the last item.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<String, RunError>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for TextStream {
    type Item = Result<String, RunError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match Pin::new(&mut self.0).poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Ok(RunEvent::Text { thread: 0, text }))) => {
                    return Poll::Ready(Some(Ok(text)));
                }
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
            }
        }
    }
}
