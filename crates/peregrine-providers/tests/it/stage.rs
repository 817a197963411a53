//! A model whose calls are answered by hand, and which notices calls that are dropped.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use peregrine_core::{
    ChatModel, ChatRequest, ChatResponse, ChatStream, Error, ErrorKind, ModelInfo, ProviderError, Result,
};
use tokio::sync::oneshot;

/// Clones are the same model.
#[derive(Debug, Clone)]
pub(crate) struct Stage(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    info: ModelInfo,
    calls: Mutex<Vec<Option<oneshot::Sender<Result<ChatResponse>>>>>,
    cancelled: AtomicUsize,
}

impl Stage {
    pub(crate) fn new(name: &str) -> Self {
        Self(Arc::new(Inner {
            info: ModelInfo::new("test", name),
            calls: Mutex::default(),
            cancelled: AtomicUsize::new(0),
        }))
    }

    /// How often it was called.
    pub(crate) fn calls(&self) -> usize {
        self.0.calls.lock().unwrap().len()
    }

    /// How many calls were dropped before they had an answer.
    pub(crate) fn cancelled(&self) -> usize {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// Ends a call, by its number from 0.
    pub(crate) fn end(&self, call: usize, result: Result<ChatResponse>) {
        let sender = self.0.calls.lock().unwrap()[call].take().expect("ended twice");
        // Nobody may be listening any more.
        let _ = sender.send(result);
    }

    pub(crate) fn answer(&self, call: usize, text: &str) {
        self.end(call, Ok(ChatResponse::text(text)));
    }

    async fn call(&self) -> Result<ChatResponse> {
        let (sender, receiver) = oneshot::channel();
        self.0.calls.lock().unwrap().push(Some(sender));
        let mut dropped = CountDrop(Some(self));
        let result = receiver.await.expect("the stage is there");
        dropped.0 = None;
        result
    }
}

struct CountDrop<'a>(Option<&'a Stage>);

impl Drop for CountDrop<'_> {
    fn drop(&mut self) {
        if let Some(stage) = self.0 {
            stage.0.cancelled.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl ChatModel for Stage {
    fn info(&self) -> &ModelInfo {
        &self.0.info
    }

    async fn complete(&self, _: &ChatRequest) -> Result<ChatResponse> {
        self.call().await
    }

    async fn stream(&self, _: &ChatRequest) -> Result<ChatStream> {
        self.call().await.map(ChatStream::from_response)
    }
}

/// Polls once, without anybody to wake.
pub(crate) fn poll<F: Future + ?Sized>(future: &mut Pin<&mut F>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// What comes of a future that needs nobody to wake it.
pub(crate) fn now<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    match poll(&mut future) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it is not ready"),
    }
}

/// A provider's error of a kind.
pub(crate) fn failure(kind: ErrorKind) -> Error {
    ProviderError::new("test", 500, kind, "no").into()
}
