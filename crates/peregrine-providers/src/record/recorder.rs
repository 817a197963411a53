//! The layer that records.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_core::Stream;
use peregrine_core::{
    ChatEvent, ChatModel, ChatRequest, ChatResponse, ChatStream, ConfigError, Error, ErrorKind, Middleware,
    Result,
};

use super::{Answer, Exchange, VERSION, key, name};

/// Writes every completed exchange of a model to a file, one line each, in one write. Failed calls and streams
/// that were cut off are not recorded.
///
/// # Examples
///
/// ```no_run
/// use peregrine_core::{ChatModel, ModelHandle};
/// use peregrine_providers::Record;
///
/// # fn demo(model: ModelHandle) -> Result<(), peregrine_core::Error> {
/// let recorded = model.layered(Record::append_to("exchanges.jsonl")?).into_handle();
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Record(Arc<Recording>);

#[derive(Debug)]
struct Recording {
    path: PathBuf,
    file: Mutex<File>,
}

impl Record {
    /// Appends to a file, which is made if it does not exist (readable by its owner alone).
    ///
    /// # Errors
    ///
    /// [`Config`](ErrorKind::Config) if the file cannot be opened.
    pub fn append_to(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path).map_err(|source| {
            ConfigError::new(format!(
                "could not open the recording {}: {source}",
                path.display()
            ))
        })?;
        Ok(Self(Arc::new(Recording {
            path,
            file: Mutex::new(file),
        })))
    }

    fn write(&self, exchange: &Exchange) -> Result<()> {
        let mut line =
            serde_json::to_vec(exchange).map_err(|source| Error::layer(ErrorKind::Internal, source))?;
        line.push(b'\n');
        let mut file = self.0.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&line).map_err(|source| {
            let message = format!(
                "could not write to the recording {}: {source}",
                self.0.path.display()
            );
            Error::layer(ErrorKind::Internal, std::io::Error::new(source.kind(), message))
        })
    }
}

fn exchange(model: &impl ChatModel, request: &ChatRequest, answer: Answer) -> Exchange {
    Exchange {
        version: VERSION,
        model: name(model.info()),
        request: key(request),
        answer,
    }
}

impl Middleware for Record {
    async fn complete<M: ChatModel>(&self, inner: &M, request: &ChatRequest) -> Result<ChatResponse> {
        let response = inner.complete(request).await?;
        self.write(&exchange(
            inner,
            request,
            Answer::Response(Box::new(response.clone())),
        ))?;
        Ok(response)
    }

    async fn stream<M: ChatModel>(&self, inner: &M, request: &ChatRequest) -> Result<ChatStream> {
        let stream = inner.stream(request).await?;
        let exchange = exchange(inner, request, Answer::Events(Vec::new()));
        Ok(ChatStream::new(Recorded {
            stream,
            record: self.clone(),
            exchange,
        }))
    }
}

/// A stream that is recorded once it is complete.
struct Recorded {
    stream: ChatStream,
    record: Record,
    exchange: Exchange,
}

impl Stream for Recorded {
    type Item = Result<ChatEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let next = std::task::ready!(Pin::new(&mut this.stream).poll_next(cx));
        if let (Some(Ok(event)), Answer::Events(events)) = (&next, &mut this.exchange.answer) {
            events.push(event.clone());
            if matches!(event, ChatEvent::Done(_))
                && let Err(error) = this.record.write(&this.exchange)
            {
                return Poll::Ready(Some(Err(error)));
            }
        }
        Poll::Ready(next)
    }
}
