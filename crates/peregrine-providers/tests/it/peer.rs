//! What the codecs' tests share: encoding to text, reading streams, and breaking recorded bytes.

use bytes::Bytes;
use peregrine_core::{Capabilities, ChatRequest, ChatResponse, Error, Fold, RawResponse, Result};
use peregrine_providers::wire::sse::SseDecoder;
use peregrine_providers::wire::{ChatCodec, EncodedPrefix, Events, Mode, Target};

/// A codec, and whom it speaks to.
pub(crate) struct Peer<C> {
    pub(crate) codec: C,
    pub(crate) provider: &'static str,
    pub(crate) capabilities: Capabilities,
}

impl<C: ChatCodec> Peer<C> {
    pub(crate) fn new(codec: C, provider: &'static str) -> Self {
        Self {
            codec,
            provider,
            capabilities: Capabilities::default(),
        }
    }

    pub(crate) fn with_capabilities(mut self, set: impl FnOnce(&mut Capabilities)) -> Self {
        set(&mut self.capabilities);
        self
    }

    fn target(&self) -> Target<'_> {
        Target {
            provider: self.provider,
            model: "m",
            capabilities: &self.capabilities,
        }
    }

    /// The body of a call, and where its messages stand.
    pub(crate) fn encode(
        &self,
        request: &ChatRequest,
        mode: Mode,
    ) -> Result<(String, Option<EncodedPrefix>)> {
        let mut out = b"before".to_vec();
        let prefix = self.codec.encode(&self.target(), request, mode, &mut out);
        if prefix.is_err() {
            assert_eq!(out, b"before", "a request that fails leaves nothing behind");
        }
        let prefix = prefix?;
        let body = out
            .strip_prefix(b"before")
            .expect("the body is appended")
            .to_vec();
        let parsed = serde_json::from_slice::<serde_json::Value>(&body);
        let body = String::from_utf8(body).expect("a body is UTF-8");
        assert!(parsed.is_ok(), "not JSON: {body}");
        let shift = |at: usize| at - b"before".len();
        let prefix = prefix.map(|p| EncodedPrefix {
            range: shift(p.range.start)..shift(p.range.end),
            ..p
        });
        Ok((body, prefix))
    }

    /// The body of a call for a whole answer.
    pub(crate) fn body(&self, request: &ChatRequest) -> String {
        self.encode(request, Mode::Complete)
            .expect("the request can be said")
            .0
    }

    /// What the codec says of a request that cannot be said.
    pub(crate) fn refusal(&self, request: &ChatRequest, mode: Mode) -> String {
        let error = self
            .encode(request, mode)
            .expect_err("the request cannot be said");
        assert_eq!(error.kind(), peregrine_core::ErrorKind::InvalidRequest, "{error}");
        error.to_string()
    }

    /// The answer of a whole body.
    pub(crate) fn whole(&self, body: &str) -> Result<ChatResponse> {
        let raw = RawResponse::new(200, Vec::new(), vec![Bytes::from(body.to_owned())]);
        self.codec.decode(&self.target(), raw)
    }

    /// The answer of a stream of these frames.
    pub(crate) fn streamed(&self, frames: &[&str]) -> Result<ChatResponse> {
        let text: String = frames.iter().map(|frame| format!("data: {frame}\n\n")).collect();
        let mut events = Events::new();
        self.read_stream(text.as_bytes(), &mut events)?;
        let mut fold = Fold::new();
        for event in events {
            fold.push(event)?;
        }
        fold.finish()
    }

    /// Feeds a stream to the decoder.
    pub(crate) fn read_stream(&self, bytes: &[u8], events: &mut Events) -> Result<()> {
        let mut decoder = self.codec.decoder(&self.target());
        let mut frames = SseDecoder::new(1 << 22);
        frames.push(bytes, &mut |frame| decoder.frame(frame, events))?;
        frames.finish(&mut |frame| decoder.frame(frame, events))?;
        decoder.end(events)
    }

    /// Feeds many broken forms of a recorded body to the codec: it may answer or fail, but must not panic, and
    /// events that it makes must fold.
    pub(crate) fn survive(&self, body: &str, is_stream: bool, seed: u64) {
        let mut random = Random(seed | 1);
        for _ in 0..40 {
            let bytes = random.broken(body.as_bytes());
            if is_stream {
                let mut events = Events::new();
                let ended = self.read_stream(&bytes, &mut events);
                let mut fold = Fold::new();
                let folded = events.into_iter().try_for_each(|event| fold.push(event));
                folded.expect("a decoder's events are in order");
                assert_eq!(
                    ended.is_ok(),
                    fold.is_done(),
                    "it ends well if and only if it is done"
                );
            } else {
                let raw = RawResponse::new(200, Vec::new(), vec![Bytes::from(bytes)]);
                if let Err(error) = self.codec.decode(&self.target(), raw) {
                    assert!(error.raw().is_some(), "an error keeps what was sent: {error}");
                }
            }
        }
    }
}

/// The error of a result, and its message.
pub(crate) fn error_of<T: std::fmt::Debug>(result: Result<T>) -> Error {
    result.expect_err("an error")
}

/// A small generator: the same seed gives the same numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % bound.max(1)
    }

    /// Truncated, flipped, or with values of other types.
    fn broken(&mut self, body: &[u8]) -> Vec<u8> {
        let mut bytes = body.to_vec();
        match self.below(4) {
            0 => bytes.truncate(self.below(body.len())),
            1 => {
                for _ in 0..=self.below(8) {
                    let at = self.below(bytes.len());
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << self.below(8);
                    }
                }
            }
            _ => {
                const VALUES: [&str; 9] = [
                    "null",
                    "{}",
                    "[]",
                    "7",
                    "-1.5e300",
                    "\"x\"",
                    "true",
                    "[[{}]]",
                    "{\"a\":[null]}",
                ];
                for _ in 0..=self.below(3) {
                    let value = VALUES[self.below(VALUES.len())];
                    self.swap_value(&mut bytes, value);
                }
            }
        }
        bytes
    }

    /// Puts another value behind some colon.
    fn swap_value(&mut self, bytes: &mut Vec<u8>, value: &str) {
        let start = self.below(bytes.len());
        let Some(colon) = bytes[start..]
            .windows(2)
            .position(|pair| pair == b"\":")
            .map(|at| start + at + 2)
        else {
            return;
        };
        let mut values =
            serde_json::Deserializer::from_slice(&bytes[colon..]).into_iter::<serde_json::Value>();
        if values.next().is_some_and(|value| value.is_ok()) {
            let end = colon + values.byte_offset();
            bytes.splice(colon..end, value.bytes());
        }
    }
}
