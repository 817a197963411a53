//! A streamed answer over HTTP: bytes to frames to events.
//!
//! Invariants: events are handed on in order and as soon as their bytes are there; after `Done` or an error
//! there is nothing more, though what is left of the body is read for a moment, so that the connection can be
//! used again; a body that ends without the dialect's end marker ends in an error. A server that
//! answers a streaming request with one JSON body is read as such.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use http::HeaderMap;
use peregrine_core::{ChatEvent, Error, ModelInfo, RawResponse, Result, Secret};

use tokio::time::Sleep;

use super::HttpConfig;
use super::chat::{redact_error, target};
use super::exchange::{Answer, BodyReader, Headers, Pieces};
use crate::wire::ndjson::NdjsonDecoder;
use crate::wire::sse::SseDecoder;
use crate::wire::structure::{SMALL_BODY_BYTES, Structure, kept_values};
use crate::wire::{ChatCodec, EventDecoder, Events, Frame, Framing};

/// How long the end of a body is waited for once the answer is whole.
const DRAIN: Duration = Duration::from_millis(50);

/// See the module.
pub(super) struct HttpStream {
    body: Option<BodyReader>,
    framer: Framer,
    decoder: Box<dyn EventDecoder>,
    ready: Events,
    /// The end event, which waits for the events before it.
    done: Option<ChatEvent>,
    /// The end event was handed on: what is left of the body is read, so that the connection can be used again.
    draining: Option<Pin<Box<Sleep>>>,
    failed: Option<Error>,
    codec: Arc<dyn ChatCodec>,
    info: ModelInfo,
    status: u16,
    headers: Option<HeaderMap>,
    kept: Pieces,
    /// How many values the events hold that stay in the answer.
    values: usize,
    keep: bool,
    secret: Option<Secret>,
}

enum Framer {
    /// Nothing but white space has come.
    Unknown(Framing, usize),
    Sse(SseDecoder),
    Ndjson(NdjsonDecoder),
    /// One JSON body, although a stream was asked for.
    Whole(Pieces),
}

impl HttpStream {
    pub(super) fn new(
        answer: Answer,
        codec: Arc<dyn ChatCodec>,
        info: ModelInfo,
        config: &HttpConfig,
        secret: Option<Secret>,
    ) -> Self {
        let decoder = codec.decoder(&target(&info));
        Self {
            body: Some(answer.body),
            framer: Framer::Unknown(codec.framing(), config.max_event_bytes),
            decoder,
            ready: VecDeque::new(),
            done: None,
            draining: None,
            failed: None,
            codec,
            info,
            status: answer.status,
            headers: Some(answer.headers),
            kept: Pieces::default(),
            values: 0,
            keep: config.keep_stream_body,
            secret,
        }
    }

    /// Takes the next bytes. Events that stand before an error are handed on before it.
    fn take(&mut self, piece: Bytes) {
        if let Framer::Unknown(framing, limit) = self.framer {
            self.framer = match (framing, piece.trim_ascii_start().first()) {
                (_, None) => return self.remember(piece),
                (Framing::Ndjson, _) => Framer::Ndjson(NdjsonDecoder::new(limit)),
                (_, Some(b'{' | b'[')) => Framer::Whole(Pieces::default()),
                _ => Framer::Sse(SseDecoder::new(limit)),
            };
        }
        let Self {
            framer,
            decoder,
            ready,
            values,
            ..
        } = self;
        let mut sink = |frame: Frame<'_>| {
            // What follows the end event belongs to nobody.
            if matches!(ready.back(), Some(ChatEvent::Done(_))) {
                return Ok(());
            }
            decode(decoder, frame, ready, values)
        };
        let result = match framer {
            Framer::Sse(frames) => frames.push(&piece, &mut sink),
            Framer::Ndjson(lines) => lines.push(&piece, &mut sink),
            Framer::Whole(pieces) => {
                pieces.push(piece.clone());
                Ok(())
            }
            Framer::Unknown(..) => Ok(()),
        };
        self.remember(piece);
        self.settle(result);
    }

    /// The bytes have ended.
    fn end(&mut self) {
        let Self {
            framer,
            decoder,
            ready,
            values,
            ..
        } = self;
        let mut sink = |frame: Frame<'_>| {
            if matches!(ready.back(), Some(ChatEvent::Done(_))) {
                return Ok(());
            }
            decode(decoder, frame, ready, values)
        };
        let result = match framer {
            Framer::Whole(pieces) => {
                let pieces = pieces.take();
                return self.end_whole(pieces);
            }
            Framer::Sse(frames) => frames.finish(&mut sink),
            Framer::Ndjson(lines) => lines.finish(&mut sink),
            Framer::Unknown(..) => Ok(()),
        };
        let result = result.and_then(|()| {
            if matches!(ready.back(), Some(ChatEvent::Done(_))) {
                Ok(())
            } else {
                decoder.end(ready)
            }
        });
        self.settle(result);
        if self.done.is_none() && self.failed.is_none() {
            self.failed = Some(Error::truncated("the stream ended without its end marker"));
        }
    }

    fn end_whole(&mut self, pieces: Vec<Bytes>) {
        let mut structure = Structure::default();
        pieces.iter().for_each(|piece| structure.read(piece));
        if let Err(error) = structure.check("the answer", Structure::MAX_VALUES) {
            self.failed = Some(error);
            return;
        }
        let raw = RawResponse::new(
            self.status,
            Headers(self.headers.take().unwrap_or_default()),
            pieces,
        );
        match self.codec.decode(&target(&self.info), raw) {
            Ok(response) => {
                self.ready.extend(response.into_events());
                self.done = self.ready.pop_back();
            }
            Err(error) => self.failed = Some(error),
        }
    }

    fn settle(&mut self, result: Result<()>) {
        // What follows the end event cannot spoil it, whether it came in the same piece or a later one.
        if matches!(self.ready.back(), Some(ChatEvent::Done(_))) {
            self.done = self.ready.pop_back();
        } else if let Err(error) = result {
            self.failed = Some(error);
        }
    }

    fn remember(&mut self, piece: Bytes) {
        if self.keep && !matches!(self.framer, Framer::Whole(_)) {
            self.kept.push(piece);
        }
    }

    /// The end event, with what the provider really sent.
    fn finished(&mut self) -> Option<ChatEvent> {
        let mut event = self.done.take()?;
        self.draining = self.body.is_some().then(|| Box::pin(tokio::time::sleep(DRAIN)));
        if let ChatEvent::Done(done) = &mut event
            && let Some(headers) = self.headers.take()
        {
            done.raw = Some(RawResponse::new(self.status, Headers(headers), self.kept.take()));
        }
        Some(event)
    }

    /// Reads on to the end of the body, for a short time at most.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let (Some(body), Some(grace)) = (&mut self.body, &mut self.draining) {
            match body.poll_next(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Pending if grace.as_mut().poll(cx).is_pending() => return Poll::Pending,
                Poll::Pending | Poll::Ready(_) => self.body = None,
            }
        }
        Poll::Ready(())
    }

    fn fail(&mut self, error: Error) -> Result<ChatEvent> {
        self.body = None;
        Err(redact_error(error, self.secret.as_ref()))
    }
}

/// Makes the events of a frame, within the bounds of one answer.
fn decode(
    decoder: &mut Box<dyn EventDecoder>,
    frame: Frame<'_>,
    events: &mut Events,
    values: &mut usize,
) -> Result<()> {
    if frame.data.len() > SMALL_BODY_BYTES {
        let mut structure = Structure::default();
        structure.read(frame.data.as_bytes());
        structure.check("an event of the stream", Structure::MAX_VALUES)?;
    }
    let known = events.len();
    decoder.frame(frame, events)?;
    *values = events
        .range(known..)
        .map(kept_values)
        .fold(*values, usize::saturating_add);
    if *values > Structure::MAX_CONTAINERS {
        return Err(Structure::too_many("the answer", Structure::MAX_CONTAINERS));
    }
    Ok(())
}

impl Stream for HttpStream {
    type Item = Result<ChatEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(event) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if let Some(error) = this.failed.take() {
                return Poll::Ready(Some(this.fail(error)));
            }
            if this.done.is_some() {
                return Poll::Ready(this.finished().map(Ok));
            }
            if this.draining.is_some() {
                return this.poll_drain(cx).map(|()| None);
            }
            let Some(body) = &mut this.body else {
                return Poll::Ready(None);
            };
            match body.poll_next(cx) {
                Poll::Ready(Some(Ok(piece))) => this.take(piece),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(this.fail(error))),
                Poll::Ready(None) => {
                    this.end();
                    this.body = None;
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
