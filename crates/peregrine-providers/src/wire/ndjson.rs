//! Newline-delimited JSON, decoded incrementally.
//!
//! Invariant: any way of cutting the same bytes gives the same frames. Blank lines are passed over; the last
//! line needs no line end.

use memchr::memchr;
use peregrine_core::{ProtocolError, Result};

use super::Frame;
use super::sse::Sink;

/// Cuts bytes into lines.
#[derive(Debug)]
pub struct NdjsonDecoder {
    max_line_bytes: usize,
    line: Vec<u8>,
}

impl NdjsonDecoder {
    /// A decoder that refuses lines of more than `max_line_bytes`.
    pub fn new(max_line_bytes: usize) -> Self {
        Self {
            max_line_bytes,
            line: Vec::new(),
        }
    }

    /// Takes the next bytes and hands each line that they complete to `sink`.
    ///
    /// # Errors
    ///
    /// The sink's error; a protocol error for a line that is not UTF-8; `ResponseTooLarge` for a line over
    /// the limit.
    pub fn push(&mut self, mut bytes: &[u8], sink: &mut Sink<'_>) -> Result<()> {
        while let Some(end) = memchr(b'\n', bytes) {
            let (line, rest) = bytes.split_at(end);
            if self.line.is_empty() {
                self.check(line.len())?;
                hand_on(line, sink)?;
            } else {
                self.keep(line)?;
                let mut line = std::mem::take(&mut self.line);
                hand_on(&line, sink)?;
                line.clear();
                self.line = line;
            }
            bytes = &rest[1..];
        }
        self.keep(bytes)
    }

    /// The bytes have ended: hands on a last line without line end.
    ///
    /// # Errors
    ///
    /// As for [`push`](Self::push).
    pub fn finish(&mut self, sink: &mut Sink<'_>) -> Result<()> {
        let line = std::mem::take(&mut self.line);
        hand_on(&line, sink)
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<()> {
        self.check(self.line.len() + bytes.len())?;
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn check(&self, len: usize) -> Result<()> {
        if len > self.max_line_bytes {
            return Err(ProtocolError::too_large("a line of the stream", self.max_line_bytes).into());
        }
        Ok(())
    }
}

fn hand_on(line: &[u8], sink: &mut Sink<'_>) -> Result<()> {
    let line = line.trim_ascii();
    if line.is_empty() {
        return Ok(());
    }
    let data = std::str::from_utf8(line)
        .map_err(|source| ProtocolError::new("a line of the stream is not UTF-8").with_source(source))?;
    sink(Frame { event: None, data })
}

#[cfg(test)]
mod tests {
    use super::*;
    use peregrine_core::ErrorKind;

    fn lines(pieces: &[&[u8]]) -> Result<Vec<String>> {
        let mut decoder = NdjsonDecoder::new(8);
        let mut lines = Vec::new();
        let mut sink = |frame: Frame<'_>| {
            lines.push(frame.data.to_owned());
            Ok(())
        };
        for piece in pieces {
            decoder.push(piece, &mut sink)?;
        }
        decoder.finish(&mut sink)?;
        Ok(lines)
    }

    #[test]
    fn any_cut_gives_the_same_lines() {
        let text = "{}\r\n\n  \n\"é\"\n[1]".as_bytes();
        for cut in 0..=text.len() {
            let (one, two) = text.split_at(cut);
            assert_eq!(
                lines(&[one, two]).unwrap(),
                ["{}", "\"é\"", "[1]"],
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn lines_are_bounded_and_must_be_utf8() {
        assert_eq!(
            lines(&[b"123456789"]).unwrap_err().kind(),
            ErrorKind::ResponseTooLarge
        );
        assert_eq!(
            lines(&[b"12345", b"6789\n"]).unwrap_err().kind(),
            ErrorKind::ResponseTooLarge
        );
        assert_eq!(
            lines(&[b"123456789\n"]).unwrap_err().kind(),
            ErrorKind::ResponseTooLarge
        );
        assert_eq!(lines(&[b"\xff\n"]).unwrap_err().kind(), ErrorKind::Protocol);
    }
}
