//! Frames of a stream and their bytes: server-sent events, newline-delimited JSON, and Gemini's JSON array.
//!
//! A frame knows its role, so that latency and faults can speak of pieces and end markers in every dialect.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::Value;

use crate::server::fault::{LineEnding, StreamStyle};

/// What a frame is in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Opens or closes something.
    Structure,
    /// Carries content.
    Piece,
    /// Says why the model stopped, before the end marker.
    Finish,
    /// The end marker.
    End,
}

#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) role: Role,
    /// The event name, for dialects that name events.
    pub(crate) event: Option<Cow<'static, str>>,
    pub(crate) data: Data,
}

#[derive(Clone, Debug)]
pub(crate) enum Data {
    Json(Value),
    /// `[DONE]`
    Text(&'static str),
}

impl Frame {
    pub(crate) fn new(role: Role, data: Value) -> Self {
        Self {
            role,
            event: None,
            data: Data::Json(data),
        }
    }

    pub(crate) fn piece(data: Value) -> Self {
        Self::new(Role::Piece, data)
    }

    pub(crate) fn end(data: Value) -> Self {
        Self::new(Role::End, data)
    }

    pub(crate) fn named(mut self, event: impl Into<Cow<'static, str>>) -> Self {
        self.event = Some(event.into());
        self
    }
}

/// How frames become bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Server-sent events, with the line end the real service uses.
    Sse {
        line_ending: LineEnding,
        content_type: &'static str,
    },
    /// One JSON value a line.
    Ndjson,
    /// The frames are the elements of one JSON array.
    JsonArray,
}

impl Encoding {
    pub(crate) const fn sse() -> Self {
        Self::Sse {
            line_ending: LineEnding::Lf,
            content_type: "text/event-stream; charset=utf-8",
        }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Sse { content_type, .. } => content_type,
            Self::Ndjson => "application/x-ndjson",
            Self::JsonArray => "application/json; charset=UTF-8",
        }
    }

    /// The bytes of each frame, in order.
    pub(crate) fn encode(self, frames: &[Frame], style: &StreamStyle) -> Vec<(Role, Bytes)> {
        let last = frames.len().saturating_sub(1);
        let mut encoded: Vec<(Role, Bytes)> = Vec::with_capacity(frames.len());
        for (index, frame) in frames.iter().enumerate() {
            let mut out = String::new();
            if index == 0 && style.bom {
                out.push('\u{feff}');
            }
            match self {
                Self::Sse { line_ending, .. } => {
                    event(&mut out, frame, style, line_ending, index == last);
                }
                Self::Ndjson => line(&mut out, frame, style, index == last),
                Self::JsonArray => {
                    out.push_str(if index == 0 { "[" } else { ",\r\n" });
                    data(&mut out, frame);
                    if index == last {
                        out.push_str("\n]\n");
                    }
                }
            }
            encoded.push((frame.role, out.into_bytes().into()));
        }
        encoded
    }

    /// The bytes of a frame that ends a stream before its time, after other frames or as the first one.
    pub(crate) fn encode_within(self, frame: &Frame, first: bool) -> Vec<(Role, Bytes)> {
        let encoded = self.encode(std::slice::from_ref(frame), &StreamStyle::default());
        match self {
            Self::JsonArray if !first => encoded
                .into_iter()
                .map(|(role, bytes)| {
                    (
                        role,
                        [b",\r\n", bytes.strip_prefix(b"[").unwrap_or(&bytes)]
                            .concat()
                            .into(),
                    )
                })
                .collect(),
            _ => encoded,
        }
    }
}

fn data(out: &mut String, frame: &Frame) {
    match &frame.data {
        Data::Json(value) => out.push_str(&value.to_string()),
        Data::Text(text) => out.push_str(text),
    }
}

fn event(out: &mut String, frame: &Frame, style: &StreamStyle, usual: LineEnding, last: bool) {
    let end = match style.line_ending.unwrap_or(usual) {
        LineEnding::Lf => "\n",
        LineEnding::CrLf => "\r\n",
        LineEnding::Cr => "\r",
    };
    let colon = if style.no_space { ":" } else { ": " };
    if style.comments {
        out.push_str(&format!(": keep-alive{end}{end}"));
    }
    if style.pings {
        out.push_str(&format!(
            "event{colon}ping{end}data{colon}{{\"type\": \"ping\"}}{end}{end}"
        ));
    }
    if let Some(name) = &frame.event {
        out.push_str(&format!("event{colon}{name}{end}"));
    }
    let mut text = String::new();
    match &frame.data {
        Data::Json(value) if style.multi_line_data => text = format!("{value:#}"),
        _ => data(&mut text, frame),
    }
    let mut lines = text.split('\n').peekable();
    while let Some(line) = lines.next() {
        out.push_str(&format!("data{colon}{line}"));
        if lines.peek().is_some() {
            out.push_str(end);
        }
    }
    if !(last && style.no_final_blank_line) {
        out.push_str(end);
        out.push_str(end);
    }
}

fn line(out: &mut String, frame: &Frame, style: &StreamStyle, last: bool) {
    let end = if style.line_ending == Some(LineEnding::CrLf) {
        "\r\n"
    } else {
        "\n"
    };
    if style.comments {
        out.push_str(end);
    }
    data(out, frame);
    if !(last && style.no_final_blank_line) {
        out.push_str(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(encoding: Encoding, frames: &[Frame], style: &StreamStyle) -> String {
        let bytes: Vec<u8> = encoding
            .encode(frames, style)
            .into_iter()
            .flat_map(|(_, b)| b.to_vec())
            .collect();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn each_style_changes_what_it_says_and_nothing_else() {
        let frames = [
            Frame::piece(json!({"a": 1})).named("x"),
            Frame::end(json!({"b": [2]})),
        ];
        let sse = Encoding::sse();
        let plain = StreamStyle::new();
        assert_eq!(
            text(sse, &frames, &plain),
            "event: x\ndata: {\"a\":1}\n\ndata: {\"b\":[2]}\n\n"
        );
        let crlf = plain
            .clone()
            .with_line_ending(LineEnding::CrLf)
            .without_final_blank_line()
            .with_bom();
        assert_eq!(
            text(sse, &frames, &crlf),
            "\u{feff}event: x\r\ndata: {\"a\":1}\r\n\r\ndata: {\"b\":[2]}"
        );
        let noisy = plain.clone().with_comments().with_pings().without_space();
        assert_eq!(
            text(sse, &frames[1..], &noisy),
            ": keep-alive\n\nevent:ping\ndata:{\"type\": \"ping\"}\n\ndata:{\"b\":[2]}\n\n"
        );
        let multi = plain.clone().with_multi_line_data();
        assert_eq!(
            text(sse, &frames[..1], &multi),
            "event: x\ndata: {\ndata:   \"a\": 1\ndata: }\n\n"
        );
        assert_eq!(
            text(Encoding::Ndjson, &frames, &plain),
            "{\"a\":1}\n{\"b\":[2]}\n"
        );
        let array = text(Encoding::JsonArray, &frames, &plain);
        assert_eq!(
            serde_json::from_str::<Value>(&array).unwrap(),
            json!([{"a": 1}, {"b": [2]}])
        );
    }
}
