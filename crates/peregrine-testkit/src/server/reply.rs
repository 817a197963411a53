//! A reply: what is sent (a scripted answer, an error, raw bytes, a generated body) and how (status,
//! headers, latency, framing, style, faults).
//!
//! A reply does not know the dialect; rendering joins it with a request. Cloning one is cheap enough for a
//! responder to do it a call.

use std::time::{Duration, SystemTime};

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value;

use super::answer::{Answer, Arguments, Finish, Pieces, ToolCall, Usage};
use super::civil;
use super::fault::{self, ApiError, Fault, Framing, StreamStyle};

/// What is sent, and how. Made by one of the constructors, refined by `with_*`.
#[derive(Clone, Debug)]
pub struct Reply {
    pub(crate) content: Content,
    pub(crate) status: Option<u16>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) content_type: Option<String>,
    pub(crate) first_byte_latency: Option<Duration>,
    pub(crate) per_piece_latency: Option<Duration>,
    pub(crate) framing: Option<Framing>,
    pub(crate) style: StreamStyle,
    pub(crate) one_write: bool,
    pub(crate) close: bool,
    pub(crate) faults: Vec<Fault>,
}

/// The kinds of content.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// The default of the endpoint: an echo, vectors, the list of models.
    Standard,
    Answer(Box<Answer>),
    Error(ApiError),
    Embeddings(Vec<Vec<f32>>),
    /// Head and body in one buffer, sent as it is.
    Prerendered(Bytes),
    Body(Bytes),
    Stream(Vec<Bytes>),
    Generated(Generated),
}

/// Bodies that are generated while they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Generated {
    Oversized { bytes: u64 },
    EndlessStream,
    EndlessLine,
    Bomb { bytes: u64, layers: u8 },
}

/// Constructors.
impl Reply {
    fn of(content: Content) -> Self {
        Self {
            content,
            status: None,
            headers: Vec::new(),
            content_type: None,
            first_byte_latency: None,
            per_piece_latency: None,
            framing: None,
            style: StreamStyle::default(),
            one_write: false,
            close: false,
            faults: Vec::new(),
        }
    }

    /// What the endpoint answers without a script: for responders that care about some requests only, and
    /// for faults on otherwise ordinary answers.
    pub fn standard() -> Self {
        Self::of(Content::Standard)
    }

    /// A scripted answer.
    pub fn answer(answer: Answer) -> Self {
        Self::of(Content::Answer(Box::new(answer)))
    }

    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::answer(Answer {
            text: Some(text.into()),
            ..Answer::default()
        })
    }

    /// A text with prescribed pieces; put together they are the text of the complete body.
    pub fn text_pieces<S: Into<String>>(pieces: impl IntoIterator<Item = S>) -> Self {
        let pieces: Vec<String> = pieces.into_iter().map(Into::into).collect();
        Self::answer(Answer {
            text: Some(pieces.concat()),
            text_pieces: Some(pieces),
            ..Answer::default()
        })
    }

    /// One tool call and no text. More are added with [`Reply::with_tool_call`].
    pub fn tool_call(id: impl Into<String>, name: impl Into<String>, arguments: Value) -> Self {
        Self::answer(Answer {
            tool_calls: vec![ToolCall::new(id, name, arguments)],
            ..Answer::default()
        })
    }

    /// A refusal. See [`Reply::with_refusal`].
    pub fn refusal(text: impl Into<String>) -> Self {
        Self::answer(Answer {
            refusal: Some(text.into()),
            ..Answer::default()
        })
    }

    /// An error in the dialect's shape, with this status. `Reply::error(..).with_status(200)` is an error
    /// body that pretends to be an answer.
    pub fn error(status: u16, message: impl Into<String>) -> Self {
        Self::api_error(ApiError::new(status, message))
    }

    /// As [`Reply::error`], with every field of the error in the caller's hands.
    pub fn api_error(error: ApiError) -> Self {
        Self::of(Content::Error(error))
    }

    /// Vectors, one an input, for an embedding endpoint.
    pub fn embeddings(vectors: impl IntoIterator<Item = Vec<f32>>) -> Self {
        Self::of(Content::Embeddings(vectors.into_iter().collect()))
    }

    /// A complete response rendered now and sent as it is, in one write: the floor for benchmarks.
    /// `content-length` is added unless it is among the headers.
    ///
    /// # Performance
    /// With [`Builder::with_recorded_requests`]`(0)`, [`LlmServer::set_reply`] and no latency or fault, a
    /// request costs one read and one write and no allocation for the answer.
    ///
    /// [`Builder::with_recorded_requests`]: super::Builder::with_recorded_requests
    /// [`LlmServer::set_reply`]: super::LlmServer::set_reply
    pub fn raw(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Self {
        let body: Bytes = body.into();
        let mut out = BytesMut::with_capacity(256 + body.len());
        out.put_slice(format!("HTTP/1.1 {status} {}\r\n", reason(status)).as_bytes());
        for (name, value) in headers {
            out.put_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        if !headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        {
            out.put_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
        }
        out.put_slice(b"\r\n");
        out.put_slice(&body);
        Self::of(Content::Prerendered(out.freeze()))
    }

    /// A complete body with this status and content type, whatever was asked: for recorded answers.
    pub fn raw_body(status: u16, content_type: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self {
            status: Some(status),
            content_type: Some(content_type.into()),
            ..Self::of(Content::Body(body.into()))
        }
    }

    /// A recorded stream, cut where the caller wants it. Each piece is a write of its own, and counts as a
    /// piece for latency and faults.
    ///
    /// # Performance
    /// Nothing is rendered for it. A scripted answer is rendered anew for each request, which costs some
    /// microseconds a piece; take this one where that would hide what is measured.
    pub fn raw_stream(content_type: impl Into<String>, pieces: Vec<Bytes>) -> Self {
        Self {
            content_type: Some(content_type.into()),
            ..Self::of(Content::Stream(pieces))
        }
    }

    /// A redirect (301, 302, 303, 307, 308) to a URL. Set as the standing reply with the server's own URL it
    /// is a loop.
    pub fn redirect(status: u16, location: impl Into<String>) -> Self {
        Self::raw_body(status, "text/plain; charset=utf-8", Bytes::new()).with_header("location", location)
    }

    /// 200 with `count` seeded random bytes that claim to be JSON.
    pub fn garbage(seed: u64, count: usize) -> Self {
        Self::raw_body(200, "application/json", fault::garbage(seed, count))
    }

    /// An otherwise valid answer whose body has this many bytes (a stream: at least this many). Generated
    /// while it is sent; 1 GiB costs no memory.
    pub fn oversized(bytes: u64) -> Self {
        Self::of(Content::Generated(Generated::Oversized { bytes }))
    }

    /// A stream of valid events that never ends (asked for a complete body: a text that never ends).
    pub fn endless_stream() -> Self {
        Self::of(Content::Generated(Generated::EndlessStream))
    }

    /// A stream whose first piece is a line that never ends.
    pub fn endless_line() -> Self {
        Self::of(Content::Generated(Generated::EndlessLine))
    }

    /// As [`Reply::oversized`], sent with `content-encoding: gzip`: about 1/1000 on the wire. Sent so even
    /// to a client that did not offer to accept it, since a hostile server would.
    pub fn bomb(bytes: u64) -> Self {
        Self::bomb_layers(bytes, 1)
    }

    /// A bomb within a bomb: compressed `layers` times (at least once), with as many `gzip` in
    /// `content-encoding`.
    pub fn bomb_layers(bytes: u64, layers: u8) -> Self {
        Self::of(Content::Generated(Generated::Bomb {
            bytes,
            layers: layers.max(1),
        }))
    }
}

/// Refining a scripted answer.
///
/// # Panics
/// Each of these panics on a reply that is not a scripted answer (raw, error, generated): the call would
/// otherwise be lost without a word.
impl Reply {
    /// Sets the text.
    pub fn with_text(self, text: impl Into<String>) -> Self {
        self.edit(|answer| answer.text = Some(text.into()))
    }

    /// Sets the reasoning before the text, and its signature.
    pub fn with_reasoning(self, text: impl Into<String>, signature: Option<&str>) -> Self {
        self.edit(|answer| answer.reasoning = Some((text.into(), signature.map(str::to_owned))))
    }

    /// Adds a tool call; several are parallel calls. An empty id means one made up by the server.
    pub fn with_tool_call(self, id: impl Into<String>, name: impl Into<String>, arguments: Value) -> Self {
        self.edit(|answer| answer.tool_calls.push(ToolCall::new(id, name, arguments)))
    }

    /// Adds a tool call whose arguments are this text, which need not be JSON.
    pub fn with_tool_call_text(
        self,
        id: impl Into<String>,
        name: impl Into<String>,
        arguments: impl Into<String>,
    ) -> Self {
        let (id, name, arguments) = (id.into(), name.into(), Arguments::Text(arguments.into()));
        self.edit(|answer| answer.tool_calls.push(ToolCall { id, name, arguments }))
    }

    /// Sets a refusal. OpenAI has a field for it; Anthropic and Gemini put it beside the stop reason
    /// (`stop_details.explanation`, `finishMessage`); Ollama has no such thing and sends it as text.
    pub fn with_refusal(self, text: impl Into<String>) -> Self {
        self.edit(|answer| answer.refusal = Some(text.into()))
    }

    /// Sets why the model stopped.
    pub fn with_finish(self, finish: Finish) -> Self {
        self.edit(|answer| answer.finish = Some(finish))
    }

    /// Sets the tokens used.
    pub fn with_usage(self, usage: Usage) -> Self {
        self.edit(|answer| answer.usage = Some(usage))
    }

    /// Sets the model that the answer names.
    pub fn with_model(self, model: impl Into<String>) -> Self {
        self.edit(|answer| answer.model = Some(model.into()))
    }

    /// Cuts each part of the answer into this many pieces when streamed.
    pub fn with_pieces(self, count: usize) -> Self {
        self.edit(|answer| answer.pieces = Some(Pieces::Count(count)))
    }

    /// Cuts each part of the answer every so many characters when streamed.
    pub fn with_chars_per_piece(self, chars: usize) -> Self {
        self.edit(|answer| answer.pieces = Some(Pieces::Chars(chars)))
    }

    fn edit(mut self, change: impl FnOnce(&mut Answer)) -> Self {
        match &mut self.content {
            Content::Answer(answer) => change(answer),
            other => panic!("only a scripted answer can be refined so; this reply is {other:?}"),
        }
        self
    }
}

/// How it is sent. Status, headers, framing and style have no effect on [`Reply::raw`], which is sent as it
/// is; latency, faults and the closing of the connection do.
impl Reply {
    /// Sets the HTTP status, and nothing else.
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// Adds a header. One named `content-length` replaces the true one.
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the content type.
    pub fn with_content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// Adds `retry-after` with this text: `"2"`, `"1.5"`, or something absurd.
    pub fn with_retry_after(self, value: impl Into<String>) -> Self {
        self.with_header("retry-after", value)
    }

    /// Adds `retry-after` as an HTTP date.
    pub fn with_retry_after_date(self, date: SystemTime) -> Self {
        self.with_header("retry-after", civil::http_date(date))
    }

    /// Adds `retry-after-ms` with this text.
    pub fn with_retry_after_ms(self, value: impl Into<String>) -> Self {
        self.with_header("retry-after-ms", value)
    }

    /// Waits before the head is sent, counted from when the request was complete. Zero means no timer.
    pub fn with_first_byte_latency(mut self, latency: Duration) -> Self {
        self.first_byte_latency = Some(latency);
        self
    }

    /// Waits between two pieces of a stream: piece `k` (from 0) leaves at `first byte + k * latency`. Zero
    /// means no timer.
    pub fn with_per_piece_latency(mut self, latency: Duration) -> Self {
        self.per_piece_latency = Some(latency);
        self
    }

    /// Sets how the end of the body is told.
    pub fn with_framing(mut self, framing: Framing) -> Self {
        self.framing = Some(framing);
        self
    }

    /// Sets how a stream is written.
    pub fn with_style(mut self, style: StreamStyle) -> Self {
        self.style = style;
        self
    }

    /// Sends a stream in one write instead of one a piece.
    pub fn with_one_write(mut self) -> Self {
        self.one_write = true;
        self
    }

    /// Says `connection: close` and closes after the answer.
    pub fn with_connection_close(mut self) -> Self {
        self.close = true;
        self
    }

    /// Adds a fault.
    pub fn with_fault(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// The bytes to send, when nothing has to be decided or waited for.
    pub(crate) fn as_floor(&self) -> Option<&Bytes> {
        match &self.content {
            Content::Prerendered(bytes)
                if self.first_byte_latency.is_none_or(|l| l.is_zero())
                    && !self.close
                    && self.faults.is_empty() =>
            {
                Some(bytes)
            }
            _ => None,
        }
    }
}

/// The reason phrase of a status; empty for one that has none here.
pub(crate) fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        529 => "Overloaded",
        _ => "",
    }
}
