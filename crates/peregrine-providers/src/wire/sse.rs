//! Server-sent events, decoded incrementally (WHATWG HTML, section 9.2.6).
//!
//! Algorithm: bytes are cut into lines (LF, CR or CRLF, wherever the chunks are cut); a line that is whole
//! within a chunk is read in place, only the rest of a chunk is kept. Invariant: any way of cutting the same
//! bytes gives the same frames. One deviation from the standard: an event that the end of the stream cuts
//! off behind a whole line is still handed on, because real servers leave the last blank line out.

use memchr::memchr2;
use peregrine_core::{ProtocolError, Result};

use super::Frame;

/// Cuts bytes into SSE frames.
///
/// # Examples
///
/// ```
/// use peregrine_providers::wire::sse::SseDecoder;
///
/// let mut decoder = SseDecoder::new(1024);
/// let mut seen = Vec::new();
/// for piece in ["da", "ta: {\"a\":", "1}\r", "\n\r\n"] {
///     decoder.push(piece.as_bytes(), &mut |frame| {
///         seen.push(frame.data.to_owned());
///         Ok(())
///     })?;
/// }
/// assert_eq!(seen, [r#"{"a":1}"#]);
/// # Ok::<(), peregrine_core::Error>(())
/// ```
#[derive(Debug)]
pub struct SseDecoder {
    max_event_bytes: usize,
    /// The start of a line whose end has not come.
    line: Vec<u8>,
    /// The last chunk ended in CR: an LF that follows belongs to it.
    after_cr: bool,
    /// No line has been read yet: a byte-order mark may stand before it.
    at_start: bool,
    event: Event,
}

#[derive(Debug, Default)]
struct Event {
    name: String,
    data: Vec<u8>,
    has_data: bool,
}

/// What is done with each frame.
pub type Sink<'a> = dyn FnMut(Frame<'_>) -> Result<()> + 'a;

impl SseDecoder {
    /// A decoder that refuses events (and lines) of more than `max_event_bytes`.
    pub fn new(max_event_bytes: usize) -> Self {
        Self {
            max_event_bytes,
            line: Vec::new(),
            after_cr: false,
            at_start: true,
            event: Event::default(),
        }
    }

    /// Takes the next bytes and hands each event that they complete to `sink`.
    ///
    /// # Errors
    ///
    /// The sink's error; a protocol error for data that is not UTF-8; `ResponseTooLarge` for an event over
    /// the limit. The decoder is of no use then.
    pub fn push(&mut self, mut bytes: &[u8], sink: &mut Sink<'_>) -> Result<()> {
        if self.after_cr && !bytes.is_empty() {
            self.after_cr = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(end) = memchr2(b'\n', b'\r', bytes) {
            let (line, rest) = bytes.split_at(end);
            if self.line.is_empty() {
                self.read_line(line, sink)?;
            } else {
                self.keep(line)?;
                let mut line = std::mem::take(&mut self.line);
                self.read_line(&line, sink)?;
                line.clear();
                self.line = line;
            }
            bytes = match rest {
                [b'\r', b'\n', rest @ ..] => rest,
                [b'\r'] => {
                    self.after_cr = true;
                    &[]
                }
                [_, rest @ ..] => rest,
                [] => &[],
            };
        }
        self.keep(bytes)
    }

    /// The bytes have ended: hands on the event that they cut off, if one of its lines is whole or a valid
    /// beginning.
    ///
    /// # Errors
    ///
    /// As for [`push`](Self::push).
    pub fn finish(&mut self, sink: &mut Sink<'_>) -> Result<()> {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.read_line(&line, sink)?;
        }
        self.dispatch(sink)
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<()> {
        self.check(self.line.len() + bytes.len())?;
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn check(&self, len: usize) -> Result<()> {
        if len > self.max_event_bytes {
            return Err(ProtocolError::too_large("an event of the stream", self.max_event_bytes).into());
        }
        Ok(())
    }

    fn read_line(&mut self, mut line: &[u8], sink: &mut Sink<'_>) -> Result<()> {
        if std::mem::take(&mut self.at_start) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            return self.dispatch(sink);
        }
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let (field, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                self.check(self.event.data.len() + value.len() + 1)?;
                if self.event.has_data {
                    self.event.data.push(b'\n');
                }
                self.event.has_data = true;
                self.event.data.extend_from_slice(value);
            }
            b"event" => {
                self.check(value.len())?;
                self.event.name = String::from_utf8_lossy(value).into_owned();
            }
            // Comments have an empty name; `id`, `retry` and unknown fields mean nothing to a POST.
            _ => {}
        }
        Ok(())
    }

    fn dispatch(&mut self, sink: &mut Sink<'_>) -> Result<()> {
        let Event { name, data, has_data } = &mut self.event;
        if !std::mem::take(has_data) {
            name.clear();
            return Ok(());
        }
        let data_text = std::str::from_utf8(data).map_err(|source| {
            ProtocolError::new("an event of the stream is not UTF-8").with_source(source)
        })?;
        let event = Some(name.as_str()).filter(|name| !name.is_empty());
        let result = sink(Frame {
            event,
            data: data_text,
        });
        name.clear();
        data.clear();
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peregrine_core::ErrorKind;

    fn frames(pieces: &[&[u8]]) -> Result<Vec<(Option<String>, String)>> {
        let mut decoder = SseDecoder::new(64);
        let mut frames = Vec::new();
        let mut sink = |frame: Frame<'_>| {
            frames.push((frame.event.map(str::to_owned), frame.data.to_owned()));
            Ok(())
        };
        for piece in pieces {
            decoder.push(piece, &mut sink)?;
        }
        decoder.finish(&mut sink)?;
        Ok(frames)
    }

    #[test]
    fn fields_comments_names_and_endings() {
        let text = "\u{feff}: hello\ndata: a\n\nevent: x\r\ndata:b\r\ndata:  c\r\n\r\nid: 1\rdata\r\rretry: 1\n\nevent: y\n\ndata: é";
        let expected = [(None, "a"), (Some("x"), "b\n c"), (None, ""), (None, "é")];
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, data)| (name.map(str::to_owned), (*data).to_owned()))
            .collect();
        assert_eq!(frames(&[text.as_bytes()]).unwrap(), expected);
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(frames(&bytes).unwrap(), expected, "cut into single bytes");
        for cut in 0..text.len() {
            let (one, two) = text.as_bytes().split_at(cut);
            assert_eq!(frames(&[one, two]).unwrap(), expected, "cut at {cut}");
        }
    }

    #[test]
    fn bounds_hold_for_lines_and_for_events() {
        let endless_line = [b'x'; 65];
        assert_eq!(
            frames(&[&endless_line]).unwrap_err().kind(),
            ErrorKind::ResponseTooLarge
        );
        let many_lines = "data: 0123456789\n".repeat(7);
        assert_eq!(
            frames(&[many_lines.as_bytes()]).unwrap_err().kind(),
            ErrorKind::ResponseTooLarge
        );
        let long_line = format!("data: {}\n\n", "x".repeat(70));
        assert_eq!(
            frames(&[long_line.as_bytes()]).unwrap_err().kind(),
            ErrorKind::ResponseTooLarge
        );
    }

    #[test]
    fn data_that_is_not_utf8_is_an_error() {
        assert_eq!(
            frames(&[b"data: \xff\n\n"]).unwrap_err().kind(),
            ErrorKind::Protocol
        );
    }
}
