//! Streams up to their first content: what may still be taken back, and what may not.
//!
//! Invariant: nothing of a stream is handed on before its first content, so that whoever holds a [`Begun`] may
//! still drop it and begin another one. Events that only announce an answer are held back until then.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use peregrine_core::{ChatEvent, ChatModel, ChatRequest, ChatStream, Metadata, Result, Usage};

/// How many events may announce an answer; a stream that only announces is handed on then.
const MAX_HELD: usize = 64;

/// A stream whose first content has come, with the events before it.
pub(crate) struct Begun {
    held: VecDeque<ChatEvent>,
    rest: ChatStream,
}

/// Begins a stream and reads it up to its first content.
pub(crate) async fn begin<M: ChatModel>(model: &M, request: &ChatRequest) -> Result<Begun> {
    begin_noting(model, request, |_| {}).await
}

/// As [`begin`]; the usage that is announced on the way is told to `note`, even if the future is dropped later.
pub(crate) async fn begin_noting<M: ChatModel>(
    model: &M,
    request: &ChatRequest,
    mut note: impl FnMut(Usage) + Send,
) -> Result<Begun> {
    let mut rest = model.stream(request).await?;
    let mut held = VecDeque::new();
    while held.len() < MAX_HELD {
        let Some(event) = rest.next().await.transpose()? else {
            break;
        };
        if let ChatEvent::Usage { usage } = &event {
            note(*usage);
        }
        let announces = matches!(event, ChatEvent::Start { .. } | ChatEvent::Usage { .. });
        held.push_back(event);
        if !announces {
            break;
        }
    }
    Ok(Begun { held, rest })
}

impl Begun {
    /// The stream, as it is.
    pub(crate) fn into_stream(self) -> ChatStream {
        ChatStream::new(self)
    }

    /// The stream, with facts added to the metadata of its end.
    pub(crate) fn noting(self, note: impl FnOnce(&mut Metadata) + Send + Unpin + 'static) -> ChatStream {
        self.adjusted(Usage::default(), note)
    }

    /// As [`noting`](Self::noting), with `more` added to the usage that it reports.
    pub(crate) fn adjusted(
        self,
        more: Usage,
        note: impl FnOnce(&mut Metadata) + Send + Unpin + 'static,
    ) -> ChatStream {
        ChatStream::new(Adjusted {
            begun: self,
            more,
            note: Some(note),
        })
    }
}

impl Stream for Begun {
    type Item = Result<ChatEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.held.pop_front() {
            Some(event) => Poll::Ready(Some(Ok(event))),
            None => Pin::new(&mut self.rest).poll_next(cx),
        }
    }
}

struct Adjusted<F> {
    begun: Begun,
    more: Usage,
    note: Option<F>,
}

impl<F: FnOnce(&mut Metadata) + Unpin> Stream for Adjusted<F> {
    type Item = Result<ChatEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut next = ready!(Pin::new(&mut self.begun).poll_next(cx));
        match &mut next {
            Some(Ok(ChatEvent::Usage { usage })) => *usage += self.more,
            Some(Ok(ChatEvent::Done(done))) => {
                if let Some(note) = self.note.take() {
                    note(&mut done.metadata);
                }
            }
            _ => {}
        }
        Poll::Ready(next)
    }
}
