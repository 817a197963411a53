//! Joining a reply with a request: the head, and the body in parts with the faults at their places.
//!
//! This is a function of its inputs; nothing is sent here. A request that the real service would refuse for
//! its form is refused in the dialect's shape, whatever answer was scripted.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::Value;

use super::answer::Answer;
use super::dialect::frames::Role;
use super::dialect::{Context, View, Wire, anthropic, gemini, ollama, openai_misc, wire};
use super::fault::{ApiError, Cut, Fault, Framing};
use super::generated::Repeat;
use super::http::{Head, find};
use super::places::{MARKER, around_marker, change, marks, offset};
use super::reply::{Content, Generated, Reply, reason};
use super::seen::{Dialect, Endpoint, SeenRequest};
use super::transmit::{Body, Drip, Outgoing};
use super::{echo, embed};

/// What rendering needs to know of the server.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) models: Vec<String>,
    pub(crate) embedding_dimensions: usize,
    pub(crate) reasoning_field: String,
    pub(crate) first_byte_latency: Duration,
    pub(crate) per_piece_latency: Duration,
}

/// A response without its framing.
struct Rendered {
    status: u16,
    content_type: String,
    encoding: Option<String>,
    payload: Payload,
}

pub(crate) enum Payload {
    Whole(Bytes),
    Frames(Vec<(Role, Bytes)>),
    Repeat { repeat: Repeat, stream: bool },
    Gzip { repeat: Repeat, layers: u8 },
}

/// The answer to a request, ready to be sent.
pub(crate) fn outgoing(reply: &Reply, request: &SeenRequest, http: &Head, settings: &Settings) -> Outgoing {
    let first_byte = reply.first_byte_latency.unwrap_or(settings.first_byte_latency);
    let per_piece = reply.per_piece_latency.unwrap_or(settings.per_piece_latency);
    let drip = reply.faults.iter().find_map(|fault| match fault {
        Fault::Drip { bytes, every, head } => Some(Drip {
            bytes: *bytes,
            every: *every,
            head: *head,
        }),
        _ => None,
    });
    let (head, framing, payload, close) = match &reply.content {
        Content::Prerendered(bytes) => {
            let split = find(bytes, b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
            let mut payload = Payload::Whole(bytes.slice(split..));
            change(&mut payload, &reply.faults, request);
            (
                bytes.slice(..split),
                Framing::ContentLength,
                payload,
                reply.close || !http.keep_alive,
            )
        }
        _ => {
            let mut rendered = rendered(reply, request, settings);
            change(&mut rendered.payload, &reply.faults, request);
            let (head, framing, close) = head(reply, &rendered, request, http);
            (head, framing, rendered.payload, close)
        }
    };
    let (before_head, marks) = marks(&reply.faults, &payload);
    let body = match payload {
        _ if http.is_head_method => Body::Empty,
        Payload::Whole(bytes) => Body::Whole(bytes),
        Payload::Frames(frames) => Body::Pieces(
            frames
                .into_iter()
                .map(|(role, bytes)| (role == Role::Piece, bytes))
                .collect(),
        ),
        Payload::Repeat { repeat, .. } => Body::Generated(Box::new(repeat.parts())),
        Payload::Gzip { repeat, layers } => Body::Generated(repeat.gzip(layers)),
    };
    let one_write = reply.one_write;
    Outgoing {
        head,
        framing,
        body,
        before_head,
        marks,
        drip,
        first_byte,
        per_piece,
        one_write,
        close,
    }
}

/// Status, content type and body by the kind of content.
fn rendered(reply: &Reply, request: &SeenRequest, settings: &Settings) -> Rendered {
    let wire = wire(request.endpoint.dialect());
    let made = match &reply.content {
        Content::Standard => standard(reply, request, settings),
        Content::Answer(answer) if request.endpoint.is_generation() => wire
            .read(request)
            .map(|view| answered(answer, &view, reply, request, settings)),
        Content::Answer(_) => Err(misplaced("a scripted answer", request)),
        Content::Embeddings(vectors) if request.endpoint.is_embedding() => vectors_asked(request, settings)
            .map(|asked| Rendered::json(wire, &vectors_body(request, &asked, vectors))),
        Content::Embeddings(_) => Err(misplaced("vectors", request)),
        Content::Error(error) => Err(error.clone()),
        Content::Generated(generated) => Ok(generated_body(*generated, reply, request, settings)),
        Content::Body(bytes) => Ok(Rendered::whole("application/octet-stream", bytes.clone())),
        Content::Stream(pieces) => {
            let frames = pieces.iter().map(|bytes| (Role::Piece, bytes.clone())).collect();
            Ok(Rendered::new("application/octet-stream", Payload::Frames(frames)))
        }
        // Handled by the caller; sent as a body here if that ever changes.
        Content::Prerendered(bytes) => Ok(Rendered::whole("application/octet-stream", bytes.clone())),
    };
    let mut rendered = made.unwrap_or_else(|error| {
        let body = Rendered::json(wire, &wire.error_body(&error, &request_id(request)));
        Rendered {
            status: error.status,
            ..body
        }
    });
    if let Some(status) = reply.status {
        rendered.status = status;
    }
    if let Some(content_type) = &reply.content_type {
        rendered.content_type.clone_from(content_type);
    }
    rendered
}

impl Rendered {
    fn new(content_type: &str, payload: Payload) -> Self {
        Self {
            status: 200,
            content_type: content_type.to_owned(),
            encoding: None,
            payload,
        }
    }

    fn whole(content_type: &str, bytes: impl Into<Bytes>) -> Self {
        Self::new(content_type, Payload::Whole(bytes.into()))
    }

    fn json(wire: &dyn Wire, body: &Value) -> Self {
        Self::whole(wire.json_type(), body.to_string())
    }
}

fn misplaced(what: &str, request: &SeenRequest) -> ApiError {
    ApiError::new(
        500,
        format!(
            "the script gives {what} to {} {}, which cannot carry it",
            request.method, request.path
        ),
    )
}

pub(crate) fn request_id(request: &SeenRequest) -> String {
    format!("req_{:024}", request.seq)
}

/// What an endpoint answers without a script.
fn standard(reply: &Reply, request: &SeenRequest, settings: &Settings) -> Result<Rendered, ApiError> {
    let endpoint = request.endpoint;
    let wire = wire(endpoint.dialect());
    if endpoint.is_generation() {
        let view = wire.read(request)?;
        return Ok(answered(&echo::answer(&view), &view, reply, request, settings));
    }
    if endpoint.is_embedding() {
        let asked = vectors_asked(request, settings)?;
        let vectors: Vec<_> = asked
            .inputs
            .iter()
            .map(|text| embed::vector(text, asked.dimensions))
            .collect();
        return Ok(Rendered::json(wire, &vectors_body(request, &asked, &vectors)));
    }
    let body = match endpoint {
        Endpoint::OpenAiModels => openai_misc::models(&request.path, &settings.models)?,
        Endpoint::OpenAiInputTokens => openai_misc::input_tokens(&wire.read(request)?),
        Endpoint::AnthropicModels => anthropic::models(&request.path, &settings.models)?,
        Endpoint::AnthropicCountTokens => anthropic::count_tokens(&wire.read(request)?),
        Endpoint::GeminiModels => gemini::models(&request.path, &settings.models)?,
        Endpoint::GeminiCountTokens => gemini::count_tokens(&wire.read(request)?),
        Endpoint::OllamaRoot => return Ok(Rendered::whole("text/plain; charset=utf-8", "Ollama is running")),
        Endpoint::OllamaTags | Endpoint::OllamaPs | Endpoint::OllamaVersion | Endpoint::OllamaShow => {
            ollama::about(request, &settings.models)?
        }
        _ => {
            return Err(ApiError::new(
                404,
                format!("no route for {} {}", request.method, request.path),
            ));
        }
    };
    Ok(Rendered::json(wire, &body))
}

/// What an embedding request asks for.
struct Asked {
    model: String,
    inputs: Vec<String>,
    dimensions: usize,
}

fn vectors_asked(request: &SeenRequest, settings: &Settings) -> Result<Asked, ApiError> {
    let (model, inputs, dimensions) = match request.endpoint.dialect() {
        Dialect::Gemini => {
            let (inputs, dimensions) = gemini::read_embeddings(request)?;
            (request.model().unwrap_or("").to_owned(), inputs, dimensions)
        }
        Dialect::Ollama => ollama::read_embeddings(request)?,
        _ => {
            let asked = openai_misc::read_embeddings(request)?;
            (asked.model, asked.inputs, asked.dimensions)
        }
    };
    Ok(Asked {
        model,
        inputs,
        dimensions: dimensions.unwrap_or(settings.embedding_dimensions),
    })
}

fn vectors_body(request: &SeenRequest, asked: &Asked, vectors: &[Vec<f32>]) -> Value {
    let chars: u64 = asked.inputs.iter().map(|text| text.chars().count() as u64).sum();
    let tokens = echo::tokens(chars).max(1);
    match request.endpoint.dialect() {
        Dialect::Gemini => gemini::embeddings(request.endpoint, vectors),
        Dialect::Ollama => ollama::embeddings(request.endpoint, &asked.model, vectors, tokens),
        _ => openai_misc::embeddings(request, &asked.model, vectors, tokens),
    }
}

/// A scripted answer as the request wants it.
fn answered(
    answer: &Answer,
    view: &View,
    reply: &Reply,
    request: &SeenRequest,
    settings: &Settings,
) -> Rendered {
    let wire = wire(request.endpoint.dialect());
    let marked;
    let answer = if reply
        .faults
        .iter()
        .any(|fault| matches!(fault, Fault::InvalidUtf8))
    {
        marked = with_marker(answer);
        &marked
    } else {
        answer
    };
    let null = Value::Null;
    let context = Context {
        seq: request.seq,
        endpoint: request.endpoint,
        body: request.json().unwrap_or(&null),
        query_alt: request.query_param("alt"),
        model: answer.model.clone().unwrap_or_else(|| view.model.clone()),
        include_usage: view.include_usage,
        usage: answer.usage.unwrap_or_else(|| echo::usage(view, answer)),
        reasoning_field: &settings.reasoning_field,
    };
    if view.stream {
        let encoding = wire.encoding(&context);
        let frames = encoding.encode(&wire.stream(answer, &context), &reply.style);
        Rendered::new(encoding.content_type(), Payload::Frames(frames))
    } else {
        Rendered::json(wire, &wire.complete(answer, &context))
    }
}

/// The answer with the marker before its text.
fn with_marker(answer: &Answer) -> Answer {
    let mut answer = answer.clone();
    answer.text = Some(format!("{MARKER}{}", answer.text.as_deref().unwrap_or("")));
    match answer.text_pieces.as_mut().and_then(|pieces| pieces.first_mut()) {
        Some(first) => first.insert_str(0, MARKER),
        None => answer.text_pieces = None,
    }
    answer
}

/// A body that is generated: the answer to the request with the marker as its text, and filler for the
/// marker.
fn generated_body(kind: Generated, reply: &Reply, request: &SeenRequest, settings: &Settings) -> Rendered {
    let wire = wire(request.endpoint.dialect());
    let view = wire
        .read(request)
        .ok()
        .filter(|_| request.endpoint.is_generation());
    let answer = with_marker(&Answer::default());
    let template = match view {
        Some(view) => answered(&answer, &view, reply, request, settings),
        None => Rendered::whole("application/json", format!("{{\"text\":\"{MARKER}\"}}")),
    };
    let total = match kind {
        Generated::Oversized { bytes } | Generated::Bomb { bytes, .. } => Some(bytes),
        Generated::EndlessStream | Generated::EndlessLine => None,
    };
    let (repeat, stream) = match template.payload {
        Payload::Frames(frames) => (repeated_frames(&frames, kind, total), true),
        Payload::Whole(bytes) => {
            let (prefix, suffix) = around_marker(&bytes);
            (Repeat::filler(prefix, suffix, total), false)
        }
        // The template is one of the two.
        Payload::Repeat { repeat, stream } => (repeat, stream),
        Payload::Gzip { repeat, .. } => (repeat, false),
    };
    match kind {
        Generated::Bomb { layers, .. } => Rendered {
            encoding: Some(vec!["gzip"; usize::from(layers)].join(", ")),
            ..Rendered::new(&template.content_type, Payload::Gzip { repeat, layers })
        },
        _ => Rendered::new(&template.content_type, Payload::Repeat { repeat, stream }),
    }
}

fn repeated_frames(frames: &[(Role, Bytes)], kind: Generated, total: Option<u64>) -> Repeat {
    let marked = frames
        .iter()
        .position(|(_, bytes)| find(bytes, MARKER.as_bytes()).is_some())
        .unwrap_or(0);
    let join = |frames: &[(Role, Bytes)]| -> Bytes {
        let mut all = BytesMut::new();
        for (_, bytes) in frames {
            let (prefix, suffix) = around_marker(bytes);
            all.extend_from_slice(prefix);
            all.extend_from_slice(suffix);
        }
        all.freeze()
    };
    let frame = frames.get(marked).map_or(&b""[..], |(_, bytes)| bytes);
    let (prefix, suffix) = around_marker(frame);
    let before = join(frames.get(..marked).unwrap_or_default());
    if kind == Generated::EndlessLine {
        return Repeat::filler(&[&before[..], prefix].concat(), b"", None);
    }
    let frame = [prefix, b"a", suffix].concat();
    Repeat::frames(
        before,
        &frame,
        join(frames.get(marked + 1..).unwrap_or_default()),
        total,
    )
}

/// Status line and headers, the framing, and whether the connection ends.
fn head(reply: &Reply, rendered: &Rendered, request: &SeenRequest, http: &Head) -> (Bytes, Framing, bool) {
    let known = match &rendered.payload {
        Payload::Whole(body) => Some(body.len() as u64),
        Payload::Frames(frames) => Some(frames.iter().map(|(_, bytes)| bytes.len() as u64).sum()),
        Payload::Repeat { repeat, .. } => repeat.len(),
        Payload::Gzip { .. } => None,
    };
    let usual = match &rendered.payload {
        Payload::Whole(_) => Framing::ContentLength,
        Payload::Repeat { stream: false, .. } if known.is_some() => Framing::ContentLength,
        _ => Framing::Chunked,
    };
    let mut framing = reply.framing.unwrap_or(usual);
    if framing == Framing::Chunked && http.http10 {
        framing = Framing::UntilClose;
    }
    let own_length = reply
        .headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let close = reply.close
        || own_length
        || !http.keep_alive
        || matches!(framing, Framing::UntilClose | Framing::Http10);

    let version = if framing == Framing::Http10 { "1.0" } else { "1.1" };
    let mut out = format!(
        "HTTP/{version} {} {}\r\n",
        rendered.status,
        reason(rendered.status)
    );
    let mut put = |name: &str, value: &str| {
        for part in [name, ": ", value, "\r\n"] {
            out.push_str(part);
        }
    };
    put("content-type", &rendered.content_type);
    if let Some(name) = wire(request.endpoint.dialect()).request_id_header() {
        put(name, &request_id(request));
    }
    if let Some(encoding) = &rendered.encoding {
        put("content-encoding", encoding);
    }
    for (name, value) in &reply.headers {
        put(name, value);
    }
    match framing {
        Framing::ContentLength if !own_length => {
            // An orderly end is announced as if it were the true one.
            let end = reply.faults.iter().find_map(|fault| match fault {
                Fault::Cut { at, how } => Some((*at, *how)),
                _ => None,
            });
            let cut = match end {
                Some((at, Cut::End)) => offset(&rendered.payload, at),
                _ => None,
            };
            let length = known.unwrap_or(i64::MAX as u64);
            put(
                "content-length",
                &cut.map_or(length, |cut| cut.min(length)).to_string(),
            );
        }
        Framing::Chunked => put("transfer-encoding", "chunked"),
        _ => {}
    }
    if close {
        put("connection", "close");
    }
    out.push_str("\r\n");
    (out.into_bytes().into(), framing, close)
}
