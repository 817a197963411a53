//! Models, handles, layers and streams; and the table that pins what can be shared between threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use peregrine_core::{
    Capabilities, ChatEvent, ChatModel, ChatRequest, ChatResponse, ChatStream, EmbeddingHandle, Error,
    ErrorKind, Layer, Message, Messages, Middleware, ModelHandle, ModelInfo, PriceTable, Result, Scope,
};

struct Echo(ModelInfo);

impl ChatModel for Echo {
    fn info(&self) -> &ModelInfo {
        &self.0
    }

    async fn complete(&self, request: &ChatRequest) -> Result<ChatResponse> {
        match request.messages.last() {
            Some(message) => Ok(ChatResponse::text(message.text()).with_model("echo")),
            None => Err(Error::invalid_request("there is nothing to echo")),
        }
    }
}

fn echo() -> Echo {
    Echo(ModelInfo::new("test", "echo").with_capabilities(Capabilities::default()))
}

struct Count(Arc<AtomicU32>);

impl Middleware for Count {
    async fn complete<M: ChatModel>(&self, inner: &M, request: &ChatRequest) -> Result<ChatResponse> {
        self.0.fetch_add(1, Ordering::Relaxed);
        inner.complete(request).await
    }

    async fn stream<M: ChatModel>(&self, inner: &M, request: &ChatRequest) -> Result<ChatStream> {
        self.0.fetch_add(10, Ordering::Relaxed);
        inner.stream(request).await
    }
}

/// A layer that is more than a middleware: it owns the model.
struct Twice;
struct TwiceModel<M>(M);

impl<M: ChatModel> Layer<M> for Twice {
    type Model = TwiceModel<M>;
    fn layer(self, inner: M) -> TwiceModel<M> {
        TwiceModel(inner)
    }
}

impl<M: ChatModel> ChatModel for TwiceModel<M> {
    fn info(&self) -> &ModelInfo {
        self.0.info()
    }

    async fn complete(&self, request: &ChatRequest) -> Result<ChatResponse> {
        self.0.complete(request).await?;
        self.0.complete(request).await
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(done) = future.as_mut().poll(&mut context) {
            return done;
        }
    }
}

#[test]
fn a_stack_of_layers_is_a_model_and_its_stream_folds_to_its_answer() {
    let calls = Arc::new(AtomicU32::new(0));
    let model = echo()
        .layered(Count(Arc::clone(&calls)))
        .layered(Twice)
        .into_handle()
        .into_handle();
    let request = ChatRequest::user("hello");
    let whole = block_on(model.complete(&request)).unwrap();
    let folded = block_on(async { model.stream(&request).await?.collect().await }).unwrap();
    assert_eq!(whole, folded);
    assert_eq!(whole.message.text(), "hello");
    assert_eq!(calls.load(Ordering::Relaxed), 4, "two calls for each question");
    assert_eq!(model.info().to_string(), "test/echo");
    let none = block_on(model.complete(&ChatRequest::default())).unwrap_err();
    assert_eq!(none.kind(), ErrorKind::InvalidRequest);
}

#[test]
fn a_stream_ends_with_done() {
    let events: Vec<_> = block_on(async {
        let stream = echo().stream(&ChatRequest::user("x")).await.unwrap();
        futures_util::StreamExt::collect::<Vec<_>>(stream).await
    });
    assert!(
        matches!(events.last(), Some(Ok(ChatEvent::Done(_)))),
        "{events:?}"
    );
}

#[test]
fn a_request_clone_shares_its_messages() {
    let mut request = ChatRequest::new([Message::user("a")]);
    let sent = request.clone();
    request.messages.push(Message::assistant("b"));
    assert_eq!((sent.messages.len(), request.messages.len()), (1, 2));
}

#[test]
fn what_crosses_threads_is_send_and_sync() {
    fn shareable<T: Send + Sync + Clone + 'static>() {}
    fn sendable<T: Send + 'static>() {}
    shareable::<ModelHandle>();
    shareable::<EmbeddingHandle>();
    shareable::<ChatRequest>();
    shareable::<ChatResponse>();
    shareable::<ChatEvent>();
    shareable::<Messages>();
    shareable::<PriceTable>();
    shareable::<Scope>();
    sendable::<ChatStream>();
}
