//! An LLM server on the loopback interface, in process: scripted answers in five wire formats, exact
//! latency, faults at every place, and counts of what it saw.
//!
//! Invariants: what is sent depends only on the request, its number and the script; everything the server
//! started ends with it; what a peer sends can neither make it panic nor exceed its limits.
//!
//! | wire format | paths (any prefix) |
//! |---|---|
//! | OpenAI Chat Completions | `/chat/completions`, `/embeddings`, `/models` |
//! | OpenAI Responses | `/responses`, `/responses/input_tokens` |
//! | Anthropic Messages | `/messages`, `/messages/count_tokens`, `/models` with `anthropic-version` |
//! | Google Gemini | `/models/{m}:generateContent`, `:streamGenerateContent`, `:embedContent`, `:batchEmbedContents`, `:countTokens`, `/v1beta/models` |
//! | Ollama | `/api/chat`, `/api/generate`, `/api/embed`, `/api/embeddings`, `/api/tags`, `/api/ps`, `/api/version`, `/api/show`, `/` |
//!
//! Without a script the server echoes: a conversation that ends with a tool result is answered
//! `tool said: {result}`; else the first tool offered (or the one demanded) is called with arguments made
//! from its schema; else a demanded schema is filled; else the text is `echo: {last user text}`. Usage is
//! estimated as a quarter of the characters unless it is scripted.
//!
//! # Examples
//! ```
//! use std::io::{Read, Write};
//! use peregrine_testkit::server::{At, Fault, LlmServer, Reply};
//!
//! let server = LlmServer::start_blocking()?;
//! server.push(Reply::text("Paris.").with_reasoning("France.", None));
//! server.push(Reply::text("never whole").with_fault(Fault::close(At::AfterPieces(1))));
//!
//! let ask = |stream: bool| -> std::io::Result<String> {
//!     let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}],"stream":{stream}}}"#);
//!     let mut socket = std::net::TcpStream::connect(server.addr())?;
//!     write!(
//!         socket,
//!         "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
//!         body.len(),
//!     )?;
//!     let mut answer = String::new();
//!     socket.read_to_string(&mut answer)?;
//!     Ok(answer)
//! };
//! assert!(ask(false)?.contains(r#""content":"Paris.""#));
//! let cut = ask(true)?;
//! assert!(cut.contains("never") && !cut.contains("whole") && !cut.contains("[DONE]"));
//! assert_eq!(server.requests().len(), 2);
//! # Ok::<(), std::io::Error>(())
//! ```

mod addr;
mod answer;
mod civil;
mod connection;
mod counters;
mod dialect;
mod echo;
mod embed;
mod fault;
mod generated;
mod http;
mod places;
mod recorded;
mod render;
mod reply;
mod script;
mod seen;
mod transmit;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

pub use addr::{Blackhole, RefusedAddr};
pub use answer::{Answer, Arguments, Finish, Pieces, ToolCall, Usage};
pub use counters::Counters;
pub use fault::{ApiError, At, ConnectionFault, Cut, Fault, Framing, LineEnding, StreamStyle, garbage};
pub use recorded::{Interaction, Recording, RecordingError, cut, seeded_cuts};
pub use reply::Reply;
pub use seen::{Dialect, Endpoint, SeenRequest};

use connection::Shared;
use counters::Ledger;
use http::Limits;
use render::Settings;
use script::{For, Responder, Script};

/// A server. Dropping it stops it: no connection is accepted any more, open ones are closed.
///
/// On a runtime of the caller's ([`LlmServer::start`]) the sockets close when that runtime next runs;
/// [`LlmServer::shutdown`] waits for it. On its own thread ([`LlmServer::start_blocking`]) everything is
/// closed when the drop returns.
///
/// A client that shares a runtime under a paused clock should not use it with latency: while its sockets
/// are awaited the clock may leap. Give the server its own thread there, or use real time.
#[derive(Debug)]
pub struct LlmServer {
    shared: Arc<Shared>,
    addr: SocketAddr,
    runner: Runner,
}

#[derive(Debug)]
enum Runner {
    Task(JoinHandle<()>),
    Thread(Option<thread::JoinHandle<()>>),
}

/// Starting and stopping.
impl LlmServer {
    /// A server with the usual settings on a free port of 127.0.0.1, on the runtime of the caller.
    ///
    /// # Errors
    /// When the system gives no port.
    pub async fn start() -> io::Result<Self> {
        Self::builder().start().await
    }

    /// As [`LlmServer::start`], on a thread of its own with its own single-threaded runtime: for benchmarks,
    /// and for callers that are not asynchronous.
    ///
    /// # Errors
    /// When the system gives no port or no thread.
    pub fn start_blocking() -> io::Result<Self> {
        Self::builder().start_blocking()
    }

    /// Settings to start from.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Stops the server and waits until its tasks have ended and its sockets are closed.
    pub async fn shutdown(mut self) {
        self.shared.stop.notify_one();
        match &mut self.runner {
            Runner::Task(task) => {
                // An error means that the task has ended already.
                let _ = task.await;
            }
            Runner::Thread(thread) => join(thread),
        }
    }

    /// The address it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The address as a base URL, without a slash at the end: `http://127.0.0.1:40123`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

/// The script.
impl LlmServer {
    /// Queues a reply for the next request to an endpoint that generates ([`Endpoint::is_generation`]).
    /// Queued replies go before the standing one, in order, one request each.
    pub fn push(&self, reply: Reply) {
        self.shared.script.push(For::Generation, reply);
    }

    /// Queues replies, in order.
    pub fn push_all(&self, replies: impl IntoIterator<Item = Reply>) {
        for reply in replies {
            self.push(reply);
        }
    }

    /// Queues a reply for the next request to one endpoint.
    pub fn push_at(&self, endpoint: Endpoint, reply: Reply) {
        self.shared.script.push(For::Endpoint(endpoint), reply);
    }

    /// Queues a reply for the next request, whatever it is.
    pub fn push_any(&self, reply: Reply) {
        self.shared.script.push(For::Any, reply);
    }

    /// How many queued replies have not been used.
    pub fn queued(&self) -> usize {
        self.shared.script.queued()
    }

    /// Sets the standing reply: every request gets it, unless a queued one fits.
    pub fn set_reply(&self, reply: Reply) {
        self.shared
            .script
            .set_responder(Responder::Fixed(Arc::new(reply)));
    }

    /// Sets a function that makes the reply to every request, unless a queued one fits. It runs on the
    /// server's task and must not block; if it panics, the connection is closed.
    pub fn set_responder(&self, responder: impl Fn(&SeenRequest) -> Reply + Send + Sync + 'static) {
        self.shared
            .script
            .set_responder(Responder::Call(Arc::new(responder)));
    }

    /// Makes the server echo again.
    pub fn reset_responder(&self) {
        self.shared.script.set_responder(Responder::Standard);
    }

    /// Queues a fault for the next connection.
    pub fn push_connection_fault(&self, fault: ConnectionFault) {
        self.shared.script.push_connection_fault(fault);
    }

    /// Sets a fault for every further connection, or none. Open connections go on.
    pub fn set_connection_fault(&self, fault: Option<ConnectionFault>) {
        self.shared.script.set_connection_fault(fault);
    }
}

/// What it saw.
impl LlmServer {
    /// The counts now.
    pub fn counters(&self) -> Counters {
        self.shared.ledger.snapshot()
    }

    /// The requests that are kept, oldest first. How many are kept is bounded:
    /// [`Builder::with_recorded_requests`].
    pub fn requests(&self) -> Vec<Arc<SeenRequest>> {
        self.shared.ledger.requests()
    }

    /// The newest request that is kept.
    pub fn last_request(&self) -> Option<Arc<SeenRequest>> {
        self.shared.ledger.last_request()
    }

    /// Waits until the counts are as wanted, and gives them. It waits for ever if they never are: put a
    /// timeout around it.
    ///
    /// # Cancel safety
    /// Nothing is lost when it is dropped.
    pub async fn wait_until(&self, wanted: impl FnMut(&Counters) -> bool) -> Counters {
        self.shared.ledger.wait_until(wanted).await
    }
}

impl Drop for LlmServer {
    fn drop(&mut self) {
        match &mut self.runner {
            Runner::Task(task) => task.abort(),
            Runner::Thread(thread) => {
                self.shared.stop.notify_one();
                join(thread);
            }
        }
    }
}

fn join(thread: &mut Option<thread::JoinHandle<()>>) {
    if let Some(thread) = thread.take() {
        // A panic of the server's thread was reported when it happened.
        let _ = thread.join();
    }
}

/// Settings of a server.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is started"]
pub struct Builder {
    addr: SocketAddr,
    settings: Settings,
    limits: Limits,
    recorded_requests: usize,
    recorded_bytes: usize,
    max_connections: usize,
    api_key: Option<String>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            settings: Settings {
                models: vec!["test-model".to_owned()],
                embedding_dimensions: 32,
                reasoning_field: "reasoning_content".to_owned(),
                first_byte_latency: Duration::ZERO,
                per_piece_latency: Duration::ZERO,
            },
            limits: Limits {
                head_bytes: 64 * 1024,
                body_bytes: 64 * 1024 * 1024,
            },
            recorded_requests: 1024,
            recorded_bytes: 64 * 1024 * 1024,
            max_connections: 8192,
            api_key: None,
        }
    }
}

impl Builder {
    /// The port to listen on; 0, the default, is a free one.
    pub fn with_port(mut self, port: u16) -> Self {
        self.addr.set_port(port);
        self
    }

    /// The models that the lists name, and the only ones that `GET /models/{id}` and `/api/show` know.
    /// Answers are given for any model.
    pub fn with_models<S: Into<String>>(mut self, models: impl IntoIterator<Item = S>) -> Self {
        self.settings.models = models.into_iter().map(Into::into).collect();
        self
    }

    /// Dimensions of vectors when a request does not ask for a number. 32 by default.
    pub fn with_embedding_dimensions(mut self, dimensions: usize) -> Self {
        self.settings.embedding_dimensions = dimensions;
        self
    }

    /// The field that carries reasoning in Chat Completions: `reasoning_content` by default (DeepSeek,
    /// llama.cpp), `reasoning` elsewhere (OpenRouter, Groq, newer vLLM).
    pub fn with_reasoning_field(mut self, field: impl Into<String>) -> Self {
        self.settings.reasoning_field = field.into();
        self
    }

    /// First-byte latency of replies that set none: see [`Reply::with_first_byte_latency`].
    pub fn with_first_byte_latency(mut self, latency: Duration) -> Self {
        self.settings.first_byte_latency = latency;
        self
    }

    /// Per-piece latency of replies that set none: see [`Reply::with_per_piece_latency`].
    pub fn with_per_piece_latency(mut self, latency: Duration) -> Self {
        self.settings.per_piece_latency = latency;
        self
    }

    /// Refuses requests without this key (`authorization: Bearer`, `x-api-key`, `x-goog-api-key`, `api-key`,
    /// or `?key=`) with 401, before any script. Ollama's endpoints take no key.
    pub fn with_api_key(mut self, key: impl Into<String>) -> Self {
        self.api_key = Some(key.into());
        self
    }

    /// Requests that are kept for [`LlmServer::requests`]: 1,024 by default, and never more than 64 MiB
    /// beside the newest one. 0 keeps none.
    pub fn with_recorded_requests(mut self, count: usize) -> Self {
        self.recorded_requests = count;
        self
    }

    /// Bytes of a request body beyond which it is refused with 413: 64 MiB by default.
    pub fn with_max_body_bytes(mut self, bytes: usize) -> Self {
        self.limits.body_bytes = bytes;
        self
    }

    /// Connections at once; further ones wait to be accepted. 8,192 by default.
    pub fn with_max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections.max(1);
        self
    }

    /// Starts on the runtime of the caller, which needs I/O, and time if there is latency.
    ///
    /// # Errors
    /// When the port is taken or the system gives none.
    pub async fn start(self) -> io::Result<LlmServer> {
        let listener = TcpListener::bind(self.addr).await?;
        let addr = listener.local_addr()?;
        let shared = self.shared();
        let task = tokio::spawn(connection::run(listener, Arc::clone(&shared)));
        Ok(LlmServer {
            shared,
            addr,
            runner: Runner::Task(task),
        })
    }

    /// Starts on a thread of its own with its own single-threaded runtime.
    ///
    /// # Errors
    /// When the port is taken, or the system gives no port or thread.
    pub fn start_blocking(self) -> io::Result<LlmServer> {
        let listener = std::net::TcpListener::bind(self.addr)?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        let shared = self.shared();
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let run = connection::run(listener, Arc::clone(&shared));
        let thread = thread::Builder::new()
            .name("llm-server".to_owned())
            .spawn(move || runtime.block_on(run))?;
        Ok(LlmServer {
            shared,
            addr,
            runner: Runner::Thread(Some(thread)),
        })
    }

    fn shared(self) -> Arc<Shared> {
        Arc::new(Shared {
            script: Script::default(),
            ledger: Arc::new(Ledger::new(self.recorded_requests, self.recorded_bytes)),
            settings: self.settings,
            limits: self.limits,
            max_connections: self.max_connections,
            api_key: self.api_key,
            stop: Notify::new(),
        })
    }
}
