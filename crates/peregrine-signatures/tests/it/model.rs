//! A model that answers from a script and keeps what it was asked.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use futures_util::stream;
use peregrine_core::{
    Capabilities, ChatEvent, ChatModel, ChatRequest, ChatResponse, ChatStream, Error, Finish, ModelInfo,
    Part, ToolCall, Usage,
};
use peregrine_signatures::{Compiled, Contract, Error as SignatureError, Plan, Reading, Reply};

/// Answers in order; asked more often, it fails. Streams in pieces of a few characters.
pub(crate) struct Script {
    info: ModelInfo,
    answers: Mutex<VecDeque<ChatResponse>>,
    pub(crate) asked: Mutex<Vec<ChatRequest>>,
    /// How many events its streams have given.
    pub(crate) streamed: Arc<AtomicUsize>,
}

impl Script {
    pub(crate) fn new(answers: impl IntoIterator<Item = ChatResponse>) -> Self {
        Self {
            info: ModelInfo::new("test", "script"),
            answers: Mutex::new(answers.into_iter().collect()),
            asked: Mutex::new(Vec::new()),
            streamed: Arc::new(AtomicUsize::new(0)),
        }
    }

    pub(crate) fn texts<'t>(answers: impl IntoIterator<Item = &'t str>) -> Self {
        Self::new(
            answers
                .into_iter()
                .map(|text| ChatResponse::text(text).with_usage(Usage::new(10, 1))),
        )
    }

    pub(crate) fn with(mut self, set: impl FnOnce(&mut Capabilities)) -> Self {
        let mut capabilities = Capabilities::default();
        set(&mut capabilities);
        self.info = self.info.with_capabilities(capabilities);
        self
    }

    pub(crate) fn asked(&self) -> Vec<ChatRequest> {
        self.asked.lock().unwrap().clone()
    }

    fn answer(&self, request: &ChatRequest) -> peregrine_core::Result<ChatResponse> {
        self.asked.lock().unwrap().push(request.clone());
        let answer = self.answers.lock().unwrap().pop_front();
        answer.ok_or_else(|| Error::invalid_request("the script is at its end"))
    }
}

impl ChatModel for Script {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    async fn complete(&self, request: &ChatRequest) -> peregrine_core::Result<ChatResponse> {
        self.answer(request)
    }

    async fn stream(&self, request: &ChatRequest) -> peregrine_core::Result<ChatStream> {
        let events: Vec<ChatEvent> = self
            .answer(request)?
            .into_events()
            .into_iter()
            .flat_map(cut)
            .collect();
        let streamed = self.streamed.clone();
        let events = events.into_iter().map(move |event| {
            streamed.fetch_add(1, Ordering::Relaxed);
            Ok(event)
        });
        Ok(ChatStream::new(stream::iter(events)))
    }
}

/// Cuts texts and arguments into pieces of five characters.
fn cut(event: ChatEvent) -> Vec<ChatEvent> {
    let pieces = |text: &str| -> Vec<String> {
        text.chars()
            .collect::<Vec<_>>()
            .chunks(5)
            .map(|piece| piece.iter().collect())
            .collect()
    };
    match event {
        ChatEvent::TextDelta { text } => pieces(&text)
            .into_iter()
            .map(|text| ChatEvent::TextDelta { text })
            .collect(),
        ChatEvent::ToolCallDelta { index, arguments } => pieces(&arguments)
            .into_iter()
            .map(|arguments| ChatEvent::ToolCallDelta { index, arguments })
            .collect(),
        other => vec![other],
    }
}

/// Reads a whole response.
pub(crate) fn read(
    signature: &Arc<Compiled>,
    response: &ChatResponse,
    reading: Reading,
) -> Result<Reply, SignatureError> {
    let contract = Contract::new(signature.clone(), Plan::Prompt);
    contract.with_reading(reading).read(response)
}

/// A response that calls tools.
pub(crate) fn calls<'a>(calls: impl IntoIterator<Item = (&'a str, &'a str)>) -> ChatResponse {
    let parts = calls
        .into_iter()
        .enumerate()
        .map(|(n, (name, arguments))| Part::ToolCall(ToolCall::new(format!("call-{n}"), name, arguments)));
    ChatResponse::new(parts.collect(), Finish::ToolCalls)
}

/// Runs a future that never waits for anything but itself.
pub(crate) fn run<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}
