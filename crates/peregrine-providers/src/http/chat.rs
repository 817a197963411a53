//! A chat model over HTTP: a codec, an endpoint, and what can be prepared once.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::Uri;
use peregrine_core::{
    ChatModel, ChatRequest, ChatResponse, ChatStream, Error, ModelInfo, ProtocolError, Result,
};

use super::endpoint::Endpoint;
use super::entry::Ready;
use super::exchange::{redact, send};
use super::streaming::HttpStream;
use crate::wire::structure::Structure;
use crate::wire::{ChatCodec, Mode, Target};

/// A chat model that a codec speaks to over HTTP.
///
/// URLs and headers are prepared once; a call encodes its body, sends it and decodes the answer, with
/// nothing in between. Put [`Retry`](crate::Retry) around it for retries; [`connect`](crate::connect) does.
pub struct RemoteModel {
    info: ModelInfo,
    codec: Arc<dyn ChatCodec>,
    endpoint: Arc<Endpoint>,
    urls: [Uri; 2],
    /// The size of the last body: the capacity of the next.
    body_bytes: AtomicUsize,
}

impl RemoteModel {
    /// A model of `endpoint`, in the words of `codec`.
    ///
    /// # Errors
    ///
    /// [`Config`](peregrine_core::ErrorKind::Config) if the model's name makes no URL.
    pub fn new(info: ModelInfo, codec: Arc<dyn ChatCodec>, endpoint: Arc<Endpoint>) -> Result<Self> {
        let target = target(&info);
        let urls = [
            endpoint.url(&codec.path(&target, Mode::Complete))?,
            endpoint.url(&codec.path(&target, Mode::Stream))?,
        ];
        Ok(Self {
            info,
            codec,
            endpoint,
            urls,
            body_bytes: AtomicUsize::new(512),
        })
    }

    /// The endpoint that it shares with its siblings.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    fn encode(&self, request: &ChatRequest, mode: Mode) -> Result<Bytes> {
        let mut out = Vec::with_capacity(match request.messages.has_encoding() {
            // Most of it is there already, often in a buffer that is taken over.
            true => 0,
            false => self.body_bytes.load(Ordering::Relaxed),
        });
        let prefix = self.codec.encode(&target(&self.info), request, mode, &mut out)?;
        self.body_bytes
            .store(out.len() + out.len() / 8, Ordering::Relaxed);
        let body = Bytes::from(out);
        if let Some(prefix) = prefix {
            request
                .messages
                .remember_body(prefix.key, prefix.count, body.clone(), prefix.range);
        }
        Ok(body)
    }

    async fn post(
        &self,
        ready: &Ready,
        request: &ChatRequest,
        mode: Mode,
    ) -> Result<super::exchange::Answer> {
        let body = self.encode(request, mode)?;
        let url = self.urls[usize::from(mode == Mode::Stream)].clone();
        send(&self.endpoint, ready, url, Some(body), |body| {
            self.codec.error_body(body)
        })
        .await
    }
}

impl ChatModel for RemoteModel {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    async fn complete(&self, request: &ChatRequest) -> Result<ChatResponse> {
        let ready = self.endpoint.ready()?;
        let answer = self.post(ready, request, Mode::Complete).await?;
        let raw = answer.collect(Structure::MAX_VALUES).await?;
        self.codec
            .decode(&target(&self.info), raw)
            .map_err(|error| without_secret(error, ready))
    }

    async fn stream(&self, request: &ChatRequest) -> Result<ChatStream> {
        let ready = self.endpoint.ready()?;
        let answer = self.post(ready, request, Mode::Stream).await?;
        let codec = Arc::clone(&self.codec);
        let secret = ready.secret.clone();
        let stream = HttpStream::new(answer, codec, self.info.clone(), self.endpoint.config(), secret);
        Ok(ChatStream::new(stream))
    }
}

impl fmt::Debug for RemoteModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteModel")
            .field("info", &self.info)
            .field("dialect", &self.codec.dialect())
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

pub(super) fn target(info: &ModelInfo) -> Target<'_> {
    Target {
        provider: info.provider(),
        model: info.model(),
        capabilities: info.capabilities(),
    }
}

fn without_secret(error: Error, ready: &Ready) -> Error {
    redact_error(error, ready.secret.as_ref())
}

/// Blots the credential out of an error that quotes a provider.
pub(super) fn redact_error(error: Error, secret: Option<&peregrine_core::Secret>) -> Error {
    let Some(secret) = secret else { return error };
    match error {
        Error::Provider(provider)
            if provider.message.contains(secret.expose())
                || provider
                    .code
                    .as_ref()
                    .is_some_and(|code| code.contains(secret.expose())) =>
        {
            let mut blotted = (*provider).clone();
            redact(&mut blotted.message, Some(secret));
            blotted
                .code
                .iter_mut()
                .for_each(|code| redact(code, Some(secret)));
            blotted.into()
        }
        Error::Protocol(protocol) if protocol.message.contains(secret.expose()) => {
            let mut blotted = ProtocolError::new(secret.redact(&protocol.message));
            blotted.kind = protocol.kind;
            blotted.raw.clone_from(&protocol.raw);
            blotted.into()
        }
        other => other,
    }
}
