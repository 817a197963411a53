//! One connection: HTTP/1.1 requests read from it, bytes written to it.
//!
//! A request is read whole, within limits on its head and body, before anything is answered. Whatever the
//! peer sends, the result is a request, an orderly end, or a refusal with a status; never a panic, and never
//! more memory than the limits.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::counters::Ledger;

/// Most headers of a request.
const MAX_HEADERS: usize = 128;
/// Bytes kept of what a client sends before its last request was answered.
const MAX_AHEAD: usize = 256 * 1024;

/// Limits on what is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) head_bytes: usize,
    pub(crate) body_bytes: usize,
}

/// A request that cannot be read further: the answer is this status, then the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) message: &'static str,
}

const fn refused(status: u16, message: &'static str) -> Refused {
    Refused { status, message }
}

/// What the head says about the message, without its strings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    bytes: usize,
    content_length: Option<u64>,
    chunked: bool,
    expects_continue: bool,
    pub(crate) keep_alive: bool,
    pub(crate) http10: bool,
    pub(crate) is_head_method: bool,
}

/// What reading came to.
#[derive(Debug)]
pub(crate) enum Read {
    /// A request is whole. Its strings are still in the buffer: see [`Conn::take`].
    Request(Head, Bytes),
    /// The peer ended the connection between requests.
    Ended,
    /// The peer ended the connection within a request.
    Broken,
    Refused(Refused),
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) stream: TcpStream,
    inbound: BytesMut,
    pub(crate) ledger: Arc<Ledger>,
}

/// A method, a target and headers with their strings.
pub(crate) type Parts = (String, String, Vec<(String, Bytes)>);

impl Conn {
    pub(crate) fn new(stream: TcpStream, ledger: Arc<Ledger>) -> Self {
        Self {
            stream,
            inbound: BytesMut::with_capacity(16 * 1024),
            ledger,
        }
    }

    /// Reads the next request whole. The head stays at the front of the buffer until [`Conn::take`] or
    /// [`Conn::skip`].
    pub(crate) async fn read(&mut self, limits: Limits) -> Read {
        let head = loop {
            match parse(&self.inbound, limits.head_bytes) {
                Ok(Some(head)) => break head,
                Ok(None) => {}
                Err(refused) => return Read::Refused(refused),
            }
            match self.more().await {
                Ok(0) if self.inbound.is_empty() => return Read::Ended,
                Ok(0) => return Read::Broken,
                Ok(_) => {}
                Err(_) => return Read::Broken,
            }
        };
        if head
            .content_length
            .is_some_and(|length| length > limits.body_bytes as u64)
        {
            return Read::Refused(refused(413, "the request body is over the limit of this server"));
        }
        if head.expects_continue && self.inbound.len() == head.bytes && self.go_on().await.is_err() {
            return Read::Broken;
        }
        if head.chunked {
            return self.chunked(head, limits.body_bytes).await;
        }
        // Within the limit, which is a usize.
        let length = head.content_length.unwrap_or(0) as usize;
        while self.inbound.len() - head.bytes < length {
            match self.more().await {
                Ok(0) | Err(_) => return Read::Broken,
                Ok(_) => {}
            }
        }
        // The body is split off from behind the head, and what follows it is put back.
        let mut rest = self.inbound.split_off(head.bytes);
        let body = rest.split_to(length);
        self.inbound.unsplit(rest);
        Read::Request(head, body.freeze())
    }

    async fn chunked(&mut self, head: Head, limit: usize) -> Read {
        let mut raw = self.inbound.split_off(head.bytes);
        let mut body = BytesMut::new();
        loop {
            match chunk(&mut raw, &mut body, limit) {
                Ok(true) => break,
                Ok(false) => {}
                Err(refused) => return Read::Refused(refused),
            }
            // What is read now goes behind the head; it is moved over at once.
            match self.more().await {
                Ok(0) | Err(_) => return Read::Broken,
                Ok(_) => raw.unsplit(self.inbound.split_off(head.bytes)),
            }
        }
        self.inbound.unsplit(raw);
        Read::Request(head, body.freeze())
    }

    /// Takes the head out of the buffer, with its strings.
    pub(crate) fn take(&mut self, head: Head) -> Parts {
        let bytes = self.inbound.split_to(head.bytes).freeze();
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        // The same bytes were parsed before; an empty request is what is left if that ever changes.
        let _ = request.parse(&bytes);
        let method = request.method.unwrap_or("").to_owned();
        let target = request.path.unwrap_or("").to_owned();
        let headers = request
            .headers
            .iter()
            .map(|header| (header.name.to_ascii_lowercase(), bytes.slice_ref(header.value)))
            .collect();
        (method, target, headers)
    }

    /// Takes the head out of the buffer unread.
    pub(crate) fn skip(&mut self, head: Head) {
        self.inbound.advance(head.bytes);
    }

    async fn more(&mut self) -> io::Result<usize> {
        more(&mut self.stream, &mut self.inbound, &self.ledger).await
    }

    async fn go_on(&mut self) -> Result<(), Gone> {
        self.write(b"HTTP/1.1 100 Continue\r\n\r\n").await
    }

    /// Closes the connection so that the client can read the answer although its request was not read to
    /// the end: the sending side is closed, then a bounded amount is read and thrown away.
    pub(crate) async fn linger(mut self) {
        if self.stream.shutdown().await.is_err() {
            return;
        }
        let drain = async {
            for _ in 0..256 {
                self.inbound.clear();
                if !matches!(self.more().await, Ok(1..)) {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(500), drain).await;
    }

    /// Throws away what arrives until the client leaves.
    pub(crate) async fn ignore(mut self) {
        while matches!(self.more().await, Ok(1..)) {
            self.inbound.clear();
        }
    }

    /// Resets the connection instead of closing it.
    pub(crate) fn reset(self) {
        // If the option cannot be set, the connection is closed in the usual way.
        let _ = self.stream.set_zero_linger();
    }

    /// Returns when the client has gone. What it sends meanwhile is kept for the next request, within a
    /// bound; beyond it the client must wait, and its going is seen only when something is written.
    ///
    /// A client that only closed its sending side counts as gone.
    ///
    /// # Cancel safety
    /// Nothing is lost when this is dropped.
    pub(crate) async fn gone(&mut self) {
        gone(&mut self.stream, &mut self.inbound, &self.ledger).await;
    }

    /// Writes everything, unless the client goes away first.
    pub(crate) async fn write(&mut self, mut bytes: &[u8]) -> Result<(), Gone> {
        let Self {
            stream,
            inbound,
            ledger,
        } = self;
        let (mut from, to) = stream.split();
        while !bytes.is_empty() {
            match to.try_write(bytes) {
                Ok(count) => {
                    ledger.update(|c| c.bytes_sent += count as u64);
                    bytes = &bytes[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::select! {
                        ready = to.writable() => ready.map_err(|_| Gone)?,
                        () = gone(&mut from, inbound, ledger) => return Err(Gone),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Gone),
            }
        }
        Ok(())
    }
}

/// The client went away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

/// Reads something. This goes through the polled form because it learns from a short read that there is no
/// more, and spares the system call that would say so.
async fn more(
    from: &mut (impl AsyncRead + Unpin),
    inbound: &mut BytesMut,
    ledger: &Ledger,
) -> io::Result<usize> {
    inbound.reserve(8 * 1024);
    let count = from.read_buf(inbound).await?;
    ledger.update(|c| c.bytes_received += count as u64);
    Ok(count)
}

async fn gone(from: &mut (impl AsyncRead + Unpin), inbound: &mut BytesMut, ledger: &Ledger) {
    loop {
        if inbound.len() >= MAX_AHEAD {
            return std::future::pending().await;
        }
        match more(from, inbound, ledger).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// The head, if it is whole.
fn parse(bytes: &[u8], limit: usize) -> Result<Option<Head>, Refused> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let bytes_of_head = match request.parse(bytes) {
        Ok(httparse::Status::Complete(count)) => count,
        Ok(httparse::Status::Partial) if bytes.len() > limit => {
            return Err(refused(431, "the request head is over the limit of this server"));
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(refused(431, "the request has too many headers")),
        Err(_) => return Err(refused(400, "the request head is not HTTP/1.1")),
    };
    if bytes_of_head > limit {
        return Err(refused(431, "the request head is over the limit of this server"));
    }
    let http10 = request.version == Some(0);
    let mut head = Head {
        bytes: bytes_of_head,
        content_length: None,
        chunked: false,
        expects_continue: false,
        keep_alive: !http10,
        http10,
        is_head_method: request.method == Some("HEAD"),
    };
    for header in request.headers.iter() {
        let value = header.value.trim_ascii();
        if header.name.eq_ignore_ascii_case("content-length") {
            let length = std::str::from_utf8(value)
                .ok()
                .filter(|v| v.bytes().all(|b| b.is_ascii_digit()));
            let length = length.and_then(|v| v.parse::<u64>().ok());
            match (length, head.content_length) {
                (None, _) => return Err(refused(400, "content-length is not a number")),
                (Some(new), Some(old)) if new != old => {
                    return Err(refused(400, "content-length contradicts itself"));
                }
                (Some(new), _) => head.content_length = Some(new),
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(refused(
                    501,
                    "the only transfer-encoding of this server is chunked",
                ));
            }
            head.chunked = true;
        } else if header.name.eq_ignore_ascii_case("connection") {
            for word in value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                if word.eq_ignore_ascii_case(b"close") {
                    head.keep_alive = false;
                } else if word.eq_ignore_ascii_case(b"keep-alive") {
                    head.keep_alive = true;
                }
            }
        } else if header.name.eq_ignore_ascii_case("expect") {
            head.expects_continue = value.eq_ignore_ascii_case(b"100-continue") && !http10;
        }
    }
    if head.chunked && head.content_length.is_some() {
        return Err(refused(
            400,
            "a request has either a content-length or a transfer-encoding",
        ));
    }
    Ok(Some(head))
}

/// Moves whole chunks from `raw` to `body`; true after the last chunk and its trailers.
fn chunk(raw: &mut BytesMut, body: &mut BytesMut, limit: usize) -> Result<bool, Refused> {
    loop {
        let (start, size) = match httparse::parse_chunk_size(raw) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) if raw.len() > 1024 => {
                return Err(refused(400, "a chunk has no size"));
            }
            Ok(httparse::Status::Partial) => return Ok(false),
            Err(_) => return Err(refused(400, "a chunk has no size")),
        };
        if size == 0 {
            return trailers(raw, start);
        }
        let over = refused(413, "the request body is over the limit of this server");
        let size = usize::try_from(size).map_err(|_| over)?;
        if size > limit.saturating_sub(body.len()) {
            return Err(over);
        }
        // Within the limit, so that this cannot overflow.
        if raw.len() < start + size + 2 {
            return Ok(false);
        }
        raw.advance(start);
        body.extend_from_slice(&raw[..size]);
        raw.advance(size);
        if !raw.starts_with(b"\r\n") {
            return Err(refused(400, "a chunk does not end where it should"));
        }
        raw.advance(2);
    }
}

/// Skips the trailers after the last chunk, up to the empty line.
fn trailers(raw: &mut BytesMut, start: usize) -> Result<bool, Refused> {
    let rest = &raw[start..];
    let end = if rest.starts_with(b"\r\n") {
        Some(2)
    } else {
        find(rest, b"\r\n\r\n").map(|at| at + 4)
    };
    match end {
        Some(end) => {
            raw.advance(start + end);
            Ok(true)
        }
        None if rest.len() > 16 * 1024 => Err(refused(431, "the trailers of a request are too long")),
        None => Ok(false),
    }
}

/// Where the needle begins.
pub(crate) fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Option<Head>, Refused> {
        parse(text.as_bytes(), 1024)
    }

    #[test]
    fn heads_that_could_be_smuggled_are_refused() {
        let status = |text: &str| head(text).unwrap_err().status;
        assert_eq!(
            status("POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n"),
            400
        );
        assert_eq!(status("POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n"), 400);
        assert_eq!(
            status("POST / HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n"),
            400
        );
        assert_eq!(
            status("POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n"),
            400
        );
        assert_eq!(
            status("POST / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n"),
            501
        );
        assert_eq!(status("\x16\x03\x01 hello"), 400);
        assert_eq!(status(&format!("GET / HTTP/1.1\r\na: {}", "x".repeat(2000))), 431);
        assert_eq!(
            status(&format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(129))),
            431
        );
    }

    #[test]
    fn the_connection_header_decides_over_the_version() {
        let alive = |text: &str| head(text).unwrap().unwrap().keep_alive;
        assert!(alive("GET / HTTP/1.1\r\n\r\n"));
        assert!(!alive("GET / HTTP/1.1\r\nConnection: TE, close\r\n\r\n"));
        assert!(!alive("GET / HTTP/1.0\r\n\r\n"));
        assert!(alive("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"));
        assert!(head("GET / HTTP/1.1\r\n").unwrap().is_none());
    }

    #[test]
    fn chunks_are_joined_wherever_they_are_split() {
        let wire = b"4;ext=1\r\nWiki\r\n5\r\npedia\r\n0\r\nTrailer: x\r\n\r\nGET";
        for cut in 0..wire.len() - 3 {
            let (mut raw, mut body) = (BytesMut::from(&wire[..cut]), BytesMut::new());
            assert_eq!(chunk(&mut raw, &mut body, 100), Ok(false), "{cut}");
            raw.extend_from_slice(&wire[cut..]);
            assert_eq!(chunk(&mut raw, &mut body, 100), Ok(true), "{cut}");
            assert_eq!((&body[..], &raw[..]), (&b"Wikipedia"[..], &b"GET"[..]), "{cut}");
        }
        let mut huge = BytesMut::from(&b"ffffffffffffffff\r\n"[..]);
        assert_eq!(
            chunk(&mut huge, &mut BytesMut::new(), 100).unwrap_err().status,
            413
        );
    }
}
