//! What can go wrong, as data: places in an answer, what happens there, and the framing and stream styles
//! that are legal but unusual.
//!
//! A fault says *where* ([`At`]) and *what* ([`Cut`]). The transmitter turns every place into an offset in
//! the body before the first byte is sent, so that a fault hits the same byte every time.

use std::time::Duration;

use bytes::Bytes;

/// A place in an answer.
///
/// A *piece* is a frame of a stream that carries content (text, reasoning, refusal, tool arguments); frames
/// that only open or close something are not counted. In a complete (not streamed) body the places that
/// name pieces or markers all mean the middle of the body; in a generated one that has no end, 64 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum At {
    /// Before the status line.
    BeforeHead,
    /// After the head, before the first byte of the body.
    AfterHead,
    /// After this many bytes of the body (before transfer coding). Beyond the end means at the end.
    AfterBytes(u64),
    /// After this many pieces of the stream. Beyond the last piece means right after it.
    AfterPieces(usize),
    /// Before the frame that says why the model stopped.
    BeforeFinish,
    /// Before the last frame that ends the stream in its dialect (`[DONE]`, `response.completed`,
    /// `message_stop`, the frame with `finishReason`, the line with `done: true`).
    BeforeEndMarker,
}

/// How an answer is cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cut {
    /// The connection is reset (RST).
    Reset,
    /// The connection is closed cleanly (FIN), whatever the framing promised: a chunked body lacks its last
    /// chunk, a body with `content-length` is shorter than announced.
    Close,
    /// Nothing more is sent; the connection stays open until the client leaves or the server is dropped.
    Stall,
    /// The HTTP message ends in good order: only the body is shorter than it should be.
    End,
}

/// Something that goes wrong, or is unusual, while an answer is sent.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// The answer stops at a place. Only the first one in an answer takes effect.
    Cut {
        /// Where it stops.
        at: At,
        /// How it stops.
        how: Cut,
    },
    /// The answer waits at a place for a time, then goes on.
    Pause {
        /// Where it waits.
        at: At,
        /// How long it waits.
        pause: Duration,
    },
    /// Bytes that do not belong there are put into the body. Works on scripted and on raw answers, not on
    /// generated bodies (oversized, endless, bombs).
    Insert {
        /// Where they are put.
        at: At,
        /// The bytes.
        bytes: Bytes,
    },
    /// An error event in the dialect's form appears in the stream; what would follow is left out, and the
    /// HTTP message ends in good order. An answer that is not streamed becomes the error body instead, with
    /// the status unchanged.
    ErrorEvent {
        /// Where it appears.
        at: At,
        /// The error.
        error: ApiError,
    },
    /// The bytes on the wire leave in bits of this size, this far apart. A zero interval only splits the
    /// writes.
    Drip {
        /// Bytes a write, at least 1.
        bytes: usize,
        /// Time between two writes.
        every: Duration,
        /// Whether the head drips too, or only what follows it.
        head: bool,
    },
    /// The first piece of text begins with bytes that are not UTF-8 (`FF FE FD`).
    InvalidUtf8,
}

impl Fault {
    /// The connection is reset at a place.
    pub fn reset(at: At) -> Self {
        Self::Cut { at, how: Cut::Reset }
    }

    /// The connection is closed at a place, without the end of the HTTP message.
    pub fn close(at: At) -> Self {
        Self::Cut { at, how: Cut::Close }
    }

    /// Nothing more is sent from a place on.
    pub fn stall(at: At) -> Self {
        Self::Cut { at, how: Cut::Stall }
    }

    /// The body ends early, and the HTTP message pretends that all is well.
    pub fn end(at: At) -> Self {
        Self::Cut { at, how: Cut::End }
    }

    /// The answer waits at a place, then goes on.
    pub fn pause(at: At, pause: Duration) -> Self {
        Self::Pause { at, pause }
    }

    /// The body drips: `bytes` bytes, then a wait of `every`.
    pub fn drip(bytes: usize, every: Duration) -> Self {
        Self::Drip {
            bytes,
            every,
            head: false,
        }
    }

    /// As [`Fault::drip`], with the status line and headers dripping too.
    pub fn drip_all(bytes: usize, every: Duration) -> Self {
        Self::Drip {
            bytes,
            every,
            head: true,
        }
    }

    /// `count` bytes from a seeded generator stand in the body. Equal seeds give equal bytes.
    pub fn garbage(at: At, seed: u64, count: usize) -> Self {
        Self::Insert {
            at,
            bytes: garbage(seed, count),
        }
    }

    /// Bytes of the caller's choice stand in the body.
    pub fn insert(at: At, bytes: impl Into<Bytes>) -> Self {
        Self::Insert {
            at,
            bytes: bytes.into(),
        }
    }

    /// An error event in the dialect's form ends the stream.
    pub fn error_event(at: At, error: ApiError) -> Self {
        Self::ErrorEvent { at, error }
    }
}

/// `count` deterministic bytes (SplitMix64), the same for the same seed.
pub fn garbage(seed: u64, count: usize) -> Bytes {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(count.next_multiple_of(8));
    while bytes.len() < count {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bytes.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    bytes.truncate(count);
    bytes.into()
}

/// What happens to a connection right after it was accepted, before anything is read from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionFault {
    /// Reset at once.
    Reset,
    /// Closed at once.
    Close,
    /// Kept open; nothing is ever read or written.
    Ignore,
}

/// An error as a service reports it; each dialect gives it its own shape.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ApiError {
    /// The HTTP status it comes with, and the number in Gemini's body.
    pub status: u16,
    /// The text for people.
    pub message: String,
    /// The dialect's `type` (Gemini: `status`); chosen from the HTTP status when absent.
    pub kind: Option<String>,
    /// OpenAI's `code`; chosen from the HTTP status when absent.
    pub code: Option<String>,
    /// OpenAI's `param`.
    pub param: Option<String>,
    /// Gemini's `RetryInfo.retryDelay`.
    pub retry_delay: Option<Duration>,
}

impl ApiError {
    /// An error with this HTTP status and message.
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            kind: None,
            code: None,
            param: None,
            retry_delay: None,
        }
    }

    /// Sets the `type` (Gemini: the `status` word).
    pub fn with_kind(mut self, kind: impl Into<String>) -> Self {
        self.kind = Some(kind.into());
        self
    }

    /// Sets OpenAI's `code`, for example `insufficient_quota`.
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// Sets OpenAI's `param`.
    pub fn with_param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Sets the delay that Gemini reports in `details`.
    pub fn with_retry_delay(mut self, delay: Duration) -> Self {
        self.retry_delay = Some(delay);
        self
    }
}

/// How the end of a body is told to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Framing {
    /// `content-length`.
    ContentLength,
    /// `transfer-encoding: chunked`.
    Chunked,
    /// `connection: close` and no length: the end of the connection is the end of the body.
    UntilClose,
    /// As `UntilClose`, with an `HTTP/1.0` status line.
    Http10,
}

/// Line ends of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LineEnding {
    /// `\n`
    Lf,
    /// `\r\n`
    CrLf,
    /// `\r`, legal in server-sent events alone.
    Cr,
}

/// How a stream is written. Every style is legal or met in the wild; a client must read the same from each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamStyle {
    /// Line ends; `None` means what the real service sends (Gemini: CRLF, the others: LF).
    pub line_ending: Option<LineEnding>,
    /// A comment line before every event (`: keep-alive`). Newline-delimited JSON has an empty line instead.
    pub comments: bool,
    /// An `event: ping` before every event. Server-sent events only.
    pub pings: bool,
    /// A byte order mark before the first event.
    pub bom: bool,
    /// The last event has no line end after it: no blank line, and no end of the line either.
    pub no_final_blank_line: bool,
    /// No space after the colon of a field (`data:{..}`).
    pub no_space: bool,
    /// Each event's JSON spread over several `data:` lines.
    pub multi_line_data: bool,
}

impl StreamStyle {
    /// The style of the real service.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the line ends.
    pub fn with_line_ending(mut self, line_ending: LineEnding) -> Self {
        self.line_ending = Some(line_ending);
        self
    }

    /// Puts a comment before every event.
    pub fn with_comments(mut self) -> Self {
        self.comments = true;
        self
    }

    /// Puts an `event: ping` before every event.
    pub fn with_pings(mut self) -> Self {
        self.pings = true;
        self
    }

    /// Starts with a byte order mark.
    pub fn with_bom(mut self) -> Self {
        self.bom = true;
        self
    }

    /// Leaves out the line end and blank line after the last event.
    pub fn without_final_blank_line(mut self) -> Self {
        self.no_final_blank_line = true;
        self
    }

    /// Leaves out the space after colons.
    pub fn without_space(mut self) -> Self {
        self.no_space = true;
        self
    }

    /// Spreads each event's JSON over several `data:` lines.
    pub fn with_multi_line_data(mut self) -> Self {
        self.multi_line_data = true;
        self
    }
}
