//! An answer handed on word by word.
//!
//! Invariant: the fold of the events is the answer itself.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use peregrine_core::{ChatEvent, ChatResponse, ChatStream, Result};

/// The answer's events, its texts cut behind each word.
pub(super) fn by_words(response: ChatResponse) -> ChatStream {
    ChatStream::new(ByWords {
        events: response.into_events().into(),
        words: VecDeque::new(),
    })
}

struct ByWords {
    events: VecDeque<ChatEvent>,
    words: VecDeque<String>,
}

impl Stream for ByWords {
    type Item = Result<ChatEvent>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(text) = self.words.pop_front() {
            return Poll::Ready(Some(Ok(ChatEvent::TextDelta { text })));
        }
        Poll::Ready(match self.events.pop_front() {
            Some(ChatEvent::TextDelta { text }) => {
                self.words = text
                    .split_inclusive(char::is_whitespace)
                    .map(str::to_owned)
                    .collect();
                let text = self.words.pop_front().unwrap_or_default();
                Some(Ok(ChatEvent::TextDelta { text }))
            }
            event => event.map(Ok),
        })
    }
}
