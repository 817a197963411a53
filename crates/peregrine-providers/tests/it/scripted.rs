//! A model that gives the answers it was told to give, in order.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use peregrine_core::{ChatEvent, ChatModel, ChatRequest, ChatResponse, ChatStream, Error, ModelInfo, Result};

/// What the model does at one call.
#[derive(Debug, Clone)]
pub(crate) enum Turn {
    Answer(ChatResponse),
    Fail(Error),
    /// These events, then the error.
    Break(Vec<ChatEvent>, Error),
}

#[derive(Debug, Clone)]
pub(crate) struct Scripted {
    info: ModelInfo,
    turns: Arc<Mutex<VecDeque<Turn>>>,
}

impl Scripted {
    pub(crate) fn new(turns: impl IntoIterator<Item = Turn>) -> Self {
        let turns = Arc::new(Mutex::new(turns.into_iter().collect()));
        Self {
            info: ModelInfo::new("test", "scripted"),
            turns,
        }
    }

    /// How many turns have not been asked for.
    pub(crate) fn left(&self) -> usize {
        self.turns.lock().unwrap().len()
    }

    fn next(&self) -> Turn {
        self.turns
            .lock()
            .unwrap()
            .pop_front()
            .expect("the script has a turn for every call")
    }
}

impl ChatModel for Scripted {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    async fn complete(&self, _: &ChatRequest) -> Result<ChatResponse> {
        match self.next() {
            Turn::Answer(response) => Ok(response),
            Turn::Fail(error) | Turn::Break(_, error) => Err(error),
        }
    }

    async fn stream(&self, _: &ChatRequest) -> Result<ChatStream> {
        match self.next() {
            Turn::Answer(response) => Ok(ChatStream::from_response(response)),
            Turn::Fail(error) => Err(error),
            Turn::Break(events, error) => {
                let items: Vec<_> = events.into_iter().map(Ok).chain([Err(error)]).collect();
                Ok(ChatStream::new(futures_util::stream::iter(items)))
            }
        }
    }
}
