//! Recorded traffic as replies: one JSON object a line, `{"name", "interactions": [{"provider", "method",
//! "path", "request", "status", "headers", "body"}]}`, where `body` is the response body as text.
//!
//! A recorded stream can be cut anywhere; every cut must give a client the same events.

use std::fmt;

use bytes::Bytes;
use serde_json::Value;

use super::fault::garbage;
use super::reply::Reply;

/// One recorded conversation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Recording {
    /// Its name.
    pub name: String,
    /// Its requests and responses, in order.
    pub interactions: Vec<Interaction>,
}

/// One recorded request with its response.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Interaction {
    /// The service.
    pub provider: String,
    /// The HTTP method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The JSON body that was sent; `null` when there was none.
    pub request: Value,
    /// The HTTP status of the response.
    pub status: u16,
    /// The headers of the response that were kept.
    pub headers: Vec<(String, String)>,
    /// The body of the response.
    pub body: Bytes,
}

/// A line that is not a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordingError {
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for RecordingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the line is not a recording: {}", self.message)
    }
}

impl std::error::Error for RecordingError {}

impl Recording {
    /// Reads one line.
    ///
    /// # Errors
    /// When the line is not JSON or a field is missing; the message names it.
    pub fn parse(line: &str) -> Result<Self, RecordingError> {
        let value: Value = serde_json::from_str(line).map_err(|error| RecordingError {
            message: error.to_string(),
        })?;
        let interactions = value
            .get("interactions")
            .and_then(Value::as_array)
            .ok_or_else(|| no("interactions"))?;
        Ok(Self {
            name: text(&value, "name")?,
            interactions: interactions
                .iter()
                .map(Interaction::read)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl Interaction {
    fn read(value: &Value) -> Result<Self, RecordingError> {
        let status = value
            .get("status")
            .and_then(Value::as_u64)
            .and_then(|status| u16::try_from(status).ok());
        let headers = value.get("headers").and_then(Value::as_object);
        Ok(Self {
            provider: text(value, "provider")?,
            method: text(value, "method")?,
            path: text(value, "path")?,
            request: value.get("request").cloned().unwrap_or(Value::Null),
            status: status.ok_or_else(|| no("status"))?,
            headers: headers
                .into_iter()
                .flatten()
                .filter_map(|(name, value)| Some((name.to_ascii_lowercase(), value.as_str()?.to_owned())))
                .collect(),
            body: text(value, "body")?.into(),
        })
    }

    /// The content type of the response; JSON if none was kept.
    pub fn content_type(&self) -> &str {
        let found = self.headers.iter().find(|(name, _)| name == "content-type");
        found.map_or("application/json", |(_, value)| value)
    }

    /// Whether the response is a stream.
    pub fn is_stream(&self) -> bool {
        let content_type = self.content_type();
        content_type.starts_with("text/event-stream") || content_type.contains("ndjson")
    }

    /// The response as a reply in one body.
    pub fn reply(&self) -> Reply {
        self.dressed(Reply::raw_body(
            self.status,
            self.content_type(),
            self.body.clone(),
        ))
    }

    /// The response as a stream, cut before these offsets. Offsets beyond the body are ignored.
    pub fn reply_cut(&self, cuts: &[usize]) -> Reply {
        let pieces = cut(&self.body, cuts);
        self.dressed(Reply::raw_stream(self.content_type(), pieces).with_status(self.status))
    }

    fn dressed(&self, reply: Reply) -> Reply {
        let known = [
            "content-type",
            "content-length",
            "content-encoding",
            "transfer-encoding",
            "connection",
        ];
        let headers = self
            .headers
            .iter()
            .filter(|(name, _)| !known.contains(&name.as_str()));
        headers.fold(reply, |reply, (name, value)| reply.with_header(name, value))
    }
}

/// A body cut before each of these offsets, which may come in any order. No piece is empty.
pub fn cut(body: &Bytes, cuts: &[usize]) -> Vec<Bytes> {
    let mut cuts: Vec<usize> = cuts
        .iter()
        .copied()
        .filter(|at| *at > 0 && *at < body.len())
        .collect();
    cuts.sort_unstable();
    cuts.dedup();
    cuts.push(body.len());
    let mut start = 0;
    let mut pieces = Vec::with_capacity(cuts.len());
    for at in cuts {
        if at > start {
            pieces.push(body.slice(start..at));
        }
        start = at;
    }
    pieces
}

/// `count` offsets within a body of this length, from a seed: the same for the same seed.
pub fn seeded_cuts(seed: u64, count: usize, length: usize) -> Vec<usize> {
    let numbers = garbage(seed, count.saturating_mul(8));
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |n, byte| (n << 8) | u64::from(*byte));
    // Less than the length, which is a usize.
    numbers
        .chunks(8)
        .map(|bytes| (number(bytes) % length.max(1) as u64) as usize)
        .collect()
}

fn text(value: &Value, field: &str) -> Result<String, RecordingError> {
    value
        .get(field)
        .and_then(Value::as_str)
        .map(str::to_owned)
        .ok_or_else(|| no(field))
}

fn no(field: &str) -> RecordingError {
    RecordingError {
        message: format!("the field '{field}' is missing or of the wrong type"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_give_the_body_back() {
        let body = Bytes::from_static(b"0123456789");
        assert_eq!(cut(&body, &[]), ["0123456789"]);
        assert_eq!(cut(&body, &[3, 3, 99, 0, 7]), ["012", "3456", "789"]);
        assert!(cut(&Bytes::new(), &[1]).is_empty());
        for seed in 0..20 {
            let cuts = seeded_cuts(seed, 5, body.len());
            assert_eq!(cut(&body, &cuts).concat(), body);
            assert_eq!(cuts, seeded_cuts(seed, 5, body.len()));
        }
    }

    #[test]
    fn a_line_that_lacks_something_says_what() {
        let error =
            Recording::parse(r#"{"name": "n", "interactions": [{"provider": "p", "method": "GET"}]}"#);
        assert!(error.unwrap_err().to_string().contains("'path'"));
        assert!(Recording::parse("[").is_err());
    }
}
