//! A streamed answer.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec;

use futures_core::Stream;

use crate::{ChatEvent, ChatResponse, Fold, Result};

/// The events of one answer, as they arrive. Dropping it cancels the call.
///
/// After an error the stream ends. A stream that ends without [`ChatEvent::Done`] was cut off; providers
/// report that as an error themselves, and [`collect`](Self::collect) checks it again.
pub struct ChatStream(Pin<Box<dyn Stream<Item = Result<ChatEvent>> + Send>>);

impl ChatStream {
    /// Wraps a stream of events.
    pub fn new(events: impl Stream<Item = Result<ChatEvent>> + Send + 'static) -> Self {
        Self(Box::pin(events))
    }

    /// The stream of an answer that is already whole.
    pub fn from_response(response: ChatResponse) -> Self {
        Self::from_events(response.into_events())
    }

    /// The stream of events that are already there.
    pub fn from_events(events: Vec<ChatEvent>) -> Self {
        Self::new(Ready(events.into_iter()))
    }

    /// The next event; `None` at the end.
    ///
    /// # Errors
    ///
    /// What went wrong while the answer was on its way. The stream ends after it.
    ///
    /// # Cancel safety
    ///
    /// No event is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Result<ChatEvent>> {
        poll_fn(|cx| self.0.as_mut().poll_next(cx)).await
    }

    /// Waits for the whole answer.
    ///
    /// # Errors
    ///
    /// The first error of the stream, or [`ErrorKind::Truncated`](crate::ErrorKind::Truncated) if it ended
    /// without its end event.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the call.
    pub async fn collect(mut self) -> Result<ChatResponse> {
        let mut fold = Fold::new();
        while let Some(event) = self.next().await {
            fold.push(event?)?;
        }
        fold.finish()
    }
}

impl Stream for ChatStream {
    type Item = Result<ChatEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for ChatStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChatStream")
    }
}

struct Ready(vec::IntoIter<ChatEvent>);

impl Stream for Ready {
    type Item = Result<ChatEvent>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.next().map(Ok))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}
