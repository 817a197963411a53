//! Sending one request and reading the answer: limits on time and size, typed errors.
//!
//! Algorithm: one timer for each call. It is armed for the first byte, and armed again only when a read has
//! to wait, so an answer that is already there costs no timer operation.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body::Body as _;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy;
use peregrine_core::{
    Clock as _, Error, ErrorKind, HeaderView, ProtocolError, RawResponse, Result, Secret, SystemClock,
    TimeoutStage, TransportError,
};
use tokio::time::{Instant, Sleep};
use url::Url;

use super::client::is_connect_timeout;
use super::endpoint::Endpoint;
use super::entry::Ready;
use crate::wire::error::{ErrorBody, provider_error};
use crate::wire::structure::{SMALL_BODY_BYTES, Structure};

/// How much of an error's body is read.
const MAX_ERROR_BODY_BYTES: usize = 1 << 20;

/// An answer of which the head has come.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: BodyReader,
}

/// Posts `body` (or gets, without one) and waits for the head of a success.
///
/// `error_body` reads the body of an answer that is not one.
pub(super) async fn send(
    endpoint: &Endpoint,
    ready: &Ready,
    url: Uri,
    body: Option<Bytes>,
    error_body: impl Fn(&[u8]) -> ErrorBody + Send,
) -> Result<Answer> {
    let mut timer = CallTimer::start(endpoint);
    let method = if body.is_some() { Method::POST } else { Method::GET };
    let mut request = Request::new(Full::new(body.unwrap_or_default()));
    *request.method_mut() = method;
    *request.uri_mut() = url;
    *request.headers_mut() = ready.headers.clone();

    let answer = std::pin::pin!(ready.client.send(request));
    let answer = timer.wait(TimeoutStage::FirstByte, answer).await?;
    let answer = answer.map_err(|source| transport_error(source, endpoint))?;

    let (mut parts, body) = answer.into_parts();
    redact_headers(&mut parts.headers, ready.secret.as_ref());
    let status = parts.status.as_u16();
    let body = BodyReader {
        body,
        timer,
        received: 0,
        limit: endpoint.config().max_body_bytes,
    };
    if parts.status.is_success() {
        refuse_compression(&parts.headers, endpoint)?;
        return Ok(Answer {
            status,
            headers: parts.headers,
            body,
        });
    }
    if parts.status.is_redirection() {
        return Err(redirect_error(&parts.headers, endpoint));
    }
    let pieces = body.read_error_body().await;
    let raw = RawResponse::new(status, Headers(parts.headers), pieces);
    // Before anything is cut off or taken out of it, so that no half of a credential is left over.
    let mut parsed = error_body(&redact_bytes(raw.body(), ready.secret.as_ref()));
    for text in [
        Some(&mut parsed.message),
        parsed.code.as_mut(),
        parsed.class.as_mut(),
    ] {
        text.into_iter()
            .for_each(|text| redact(text, ready.secret.as_ref()));
    }
    Err(provider_error(endpoint.provider(), raw, parsed, SystemClock.unix()).into())
}

/// Gets the body at a path below the base URL.
pub(crate) async fn get(endpoint: &Endpoint, path: &str) -> Result<RawResponse> {
    let ready = endpoint.ready()?;
    let url = endpoint.url(path)?;
    send(endpoint, ready, url, None, ErrorBody::parse)
        .await?
        .collect(Structure::MAX_VALUES)
        .await
}

/// Asks for the head of the base URL, without the credential, so that there is a connection afterwards. What the server
/// says to it does not matter.
pub(super) async fn touch(endpoint: &Endpoint, ready: &Ready) -> Result<()> {
    let mut timer = CallTimer::start(endpoint);
    let mut request = Request::new(Full::default());
    *request.method_mut() = Method::HEAD;
    *request.uri_mut() = endpoint.url("")?;
    if let Some(agent) = ready.headers.get(http::header::USER_AGENT) {
        request
            .headers_mut()
            .insert(http::header::USER_AGENT, agent.clone());
    }
    let answer = std::pin::pin!(ready.client.send(request));
    match timer.wait(TimeoutStage::FirstByte, answer).await? {
        Ok(_) => Ok(()),
        Err(source) => Err(transport_error(source, endpoint)),
    }
}

/// Blots the credential out of a text that came from outside.
pub(super) fn redact(text: &mut String, secret: Option<&Secret>) {
    if let Some(secret) = secret
        && text.contains(secret.expose())
    {
        *text = secret.redact(text);
    }
}

/// As [`redact`], for bytes.
fn redact_bytes(bytes: Bytes, secret: Option<&Secret>) -> Bytes {
    match secret {
        Some(secret) if memchr::memmem::find(&bytes, secret.expose().as_bytes()).is_some() => {
            secret.redact(&String::from_utf8_lossy(&bytes)).into()
        }
        _ => bytes,
    }
}

/// Blots the credential out of headers that quote it: a request id is shown in errors.
fn redact_headers(headers: &mut HeaderMap, secret: Option<&Secret>) {
    let Some(secret) = secret.filter(|secret| !secret.expose().is_empty()) else {
        return;
    };
    let key = secret.expose().as_bytes();
    for value in headers.values_mut() {
        if value.len() >= key.len() && memchr::memmem::find(value.as_bytes(), key).is_some() {
            *value = HeaderValue::from_static("[redacted]");
        }
    }
}

impl Answer {
    /// Reads the whole body, of at most `max_values` JSON values.
    pub(super) async fn collect(self, max_values: usize) -> Result<RawResponse> {
        let Self {
            status,
            headers,
            mut body,
        } = self;
        let mut pieces = Pieces::default();
        while let Some(piece) = poll_fn(|cx| body.poll_next(cx)).await {
            pieces.push(piece?);
        }
        let pieces = pieces.take();
        if body.received > SMALL_BODY_BYTES {
            let mut structure = Structure::default();
            for piece in &pieces {
                structure.read(piece);
            }
            structure.check("the answer", max_values)?;
        }
        Ok(RawResponse::new(status, Headers(headers), pieces))
    }
}

/// A body that is kept in the pieces in which it came. Many small ones are joined, so that a body in chunks of a
/// byte costs little more than its bytes.
#[derive(Default)]
pub(super) struct Pieces {
    pieces: Vec<Bytes>,
    /// How many pieces at the end have not been looked at, and how many bytes they have.
    loose: usize,
    loose_bytes: usize,
}

impl Pieces {
    const LOOSE: usize = 256;
    const SMALL_BYTES: usize = 4096;

    pub(super) fn push(&mut self, piece: Bytes) {
        self.loose += 1;
        self.loose_bytes += piece.len();
        self.pieces.push(piece);
        if self.loose < Self::LOOSE {
            return;
        }
        if self.loose_bytes < Self::LOOSE * Self::SMALL_BYTES {
            let from = self.pieces.len() - self.loose;
            let joined = self.pieces[from..].concat();
            self.pieces.truncate(from);
            self.pieces.push(joined.into());
        }
        (self.loose, self.loose_bytes) = (0, 0);
    }

    pub(super) fn take(&mut self) -> Vec<Bytes> {
        std::mem::take(self).pieces
    }
}

/// The body of an answer, piece by piece, within the limits.
pub(super) struct BodyReader {
    body: Incoming,
    timer: CallTimer,
    received: usize,
    limit: usize,
}

impl BodyReader {
    /// The next piece; `None` at the end.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        loop {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some(error) = self.timer.progress() {
                        return Poll::Ready(Some(Err(error)));
                    }
                    let Ok(piece) = frame.into_data() else { continue };
                    self.received = self.received.saturating_add(piece.len());
                    if self.received > self.limit {
                        return Poll::Ready(Some(Err(
                            ProtocolError::too_large("the answer", self.limit).into()
                        )));
                    }
                    if !piece.is_empty() {
                        return Poll::Ready(Some(Ok(piece)));
                    }
                }
                Poll::Ready(Some(Err(source))) => return Poll::Ready(Some(Err(self.broken(source)))),
                Poll::Pending => {
                    return match self.timer.poll_expired(TimeoutStage::Idle, cx) {
                        Poll::Ready(error) => Poll::Ready(Some(Err(error))),
                        Poll::Pending => Poll::Pending,
                    };
                }
            }
        }
    }

    /// What an error's body says, as far as it comes and fits.
    async fn read_error_body(mut self) -> Vec<Bytes> {
        self.limit = MAX_ERROR_BODY_BYTES;
        let mut pieces = Pieces::default();
        while let Some(Ok(piece)) = poll_fn(|cx| self.poll_next(cx)).await {
            pieces.push(piece);
        }
        pieces.take()
    }

    fn broken(&self, source: hyper::Error) -> Error {
        let message = format!(
            "the connection to {} broke in the middle of the answer",
            self.timer.provider
        );
        TransportError::new(ErrorKind::Connection, message)
            .with_source(source)
            .into()
    }
}

/// The time limits of one call.
pub(super) struct CallTimer {
    provider: Arc<str>,
    sleep: Pin<Box<Sleep>>,
    /// What the sleep is armed for; `None` if it must be armed before it is polled.
    armed: bool,
    limits: [Duration; 3],
    total_deadline: Instant,
}

impl CallTimer {
    fn start(endpoint: &Endpoint) -> Self {
        let config = endpoint.config();
        let now = Instant::now();
        let total_deadline = deadline(now, config.total_timeout);
        let first = deadline(now, config.first_byte_timeout).min(total_deadline);
        Self {
            provider: endpoint.shared_provider(),
            sleep: Box::pin(tokio::time::sleep_until(first)),
            armed: true,
            limits: [
                config.first_byte_timeout,
                config.idle_timeout,
                config.total_timeout,
            ],
            total_deadline,
        }
    }

    /// Waits for `future`, at most until the timer ends.
    async fn wait<T>(
        &mut self,
        stage: TimeoutStage,
        mut future: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T> {
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => self.poll_expired(stage, cx).map(Err),
        })
        .await
    }

    /// Something came: the next wait begins anew, unless the whole call has taken too long. An answer that never
    /// pauses is never waited for, so this is where its time ends.
    fn progress(&mut self) -> Option<Error> {
        self.armed = false;
        let late = Instant::now() >= self.total_deadline;
        late.then(|| TransportError::timeout(TimeoutStage::Total, self.limits[2], &self.provider).into())
    }

    fn poll_expired(&mut self, stage: TimeoutStage, cx: &mut Context<'_>) -> Poll<Error> {
        if !self.armed {
            self.armed = true;
            let idle = deadline(Instant::now(), self.limits[1]).min(self.total_deadline);
            self.sleep.as_mut().reset(idle);
        }
        std::task::ready!(self.sleep.as_mut().poll(cx));
        let [first_byte, idle, total] = self.limits;
        let (stage, limit) = match stage {
            _ if self.sleep.deadline() >= self.total_deadline => (TimeoutStage::Total, total),
            TimeoutStage::FirstByte => (TimeoutStage::FirstByte, first_byte),
            stage => (stage, idle),
        };
        Poll::Ready(TransportError::timeout(stage, limit, &self.provider).into())
    }
}

/// `after` from `now`, or far in the future where that is no time.
fn deadline(now: Instant, after: Duration) -> Instant {
    const A_YEAR: Duration = Duration::from_secs(365 * 86_400);
    now.checked_add(after.min(A_YEAR)).unwrap_or(now)
}

/// Response headers, seen through the core's eyes.
pub(super) struct Headers(pub(super) HeaderMap);

impl HeaderView for Headers {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.to_str().ok()
    }

    fn for_each(&self, visit: &mut dyn FnMut(&str, &[u8])) {
        for (name, value) in &self.0 {
            visit(name.as_str(), value.as_bytes());
        }
    }
}

fn transport_error(source: legacy::Error, endpoint: &Endpoint) -> Error {
    let provider = endpoint.provider();
    if is_connect_timeout(&source) {
        return TransportError::timeout(TimeoutStage::Connect, endpoint.config().connect_timeout, provider)
            .with_source(source)
            .into();
    }
    let base_url = endpoint.base_url();
    let (kind, message) = if source.is_connect() {
        (
            ErrorKind::Connect,
            format!("could not connect to {provider} at {base_url}; is it running and reachable?"),
        )
    } else {
        (
            ErrorKind::Connection,
            format!("the connection to {provider} at {base_url} broke before the answer"),
        )
    };
    TransportError::new(kind, message).with_source(source).into()
}

/// No compression is asked for, so that no answer can grow behind the limits; a server that compresses all
/// the same is told apart from one that sends garbage.
fn refuse_compression(headers: &HeaderMap, endpoint: &Endpoint) -> Result<()> {
    let encoding = headers
        .get(http::header::CONTENT_ENCODING)
        .and_then(|value| value.to_str().ok());
    match encoding.map(str::trim) {
        None | Some("" | "identity") => Ok(()),
        Some(encoding) => {
            let shown: String = encoding.chars().take(32).collect();
            let message = format!(
                "{} sent the answer compressed ({shown:?}) although nobody asked",
                endpoint.provider()
            );
            Err(ProtocolError::new(message).into())
        }
    }
}

fn redirect_error(headers: &HeaderMap, endpoint: &Endpoint) -> Error {
    let provider = endpoint.provider();
    let location = headers
        .get(http::header::LOCATION)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let origin = Url::parse(endpoint.base_url())
        .and_then(|base| base.join(location))
        .map(|url| url.origin());
    let target = match origin {
        Ok(origin) if origin.is_tuple() => origin.ascii_serialization(),
        _ => "an address that is none".to_owned(),
    };
    let message = format!(
        "{provider} redirects from {} to {target}; nothing was sent there, change the base URL if you trust it",
        endpoint.base_url()
    );
    TransportError::new(ErrorKind::Redirect, message).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_small_pieces_are_joined_and_large_ones_stay() {
        let mut pieces = Pieces::default();
        for n in 0..10_000_u32 {
            pieces.push(Bytes::copy_from_slice(&[n as u8]));
        }
        let small = pieces.take();
        assert!(
            small.len() < 10_000 / Pieces::LOOSE + Pieces::LOOSE,
            "{}",
            small.len()
        );
        let expected: Vec<u8> = (0..10_000_u32).map(|n| n as u8).collect();
        assert_eq!(small.concat(), expected);
        let large = Bytes::from(vec![7; Pieces::SMALL_BYTES]);
        (0..600).for_each(|_| pieces.push(large.clone()));
        assert_eq!(pieces.take().len(), 600);
    }
}
