//! A small HTTP client that hides nothing: it gives what arrived, whole or not, and how the connection ended.

use std::io;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How reading an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The message was whole.
    Whole,
    /// The connection closed where the framing says the body ends (no length was announced).
    Eof,
    /// The connection closed before the message was whole.
    Truncated,
    /// The connection was reset.
    Reset,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) version: u8,
    pub(crate) headers: Vec<(String, String)>,
    /// The body, with chunked transfer coding removed.
    pub(crate) body: Vec<u8>,
    pub(crate) end: End,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// Events as `(name, data)`, read as the specification says.
    pub(crate) fn events(&self) -> Vec<(String, String)> {
        events(self.text())
    }

    /// The JSON of every event.
    pub(crate) fn event_json(&self) -> Vec<Value> {
        self.events()
            .iter()
            .filter(|(_, data)| data != "[DONE]")
            .map(|(_, data)| serde_json::from_str(data).unwrap_or_else(|e| panic!("{e}: {data}")))
            .collect()
    }

    /// The JSON of every line.
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.text()
            .lines()
            .filter(|l| !l.is_empty())
            .map(|l| serde_json::from_str(l).unwrap())
            .collect()
    }
}

pub(crate) fn events(text: &str) -> Vec<(String, String)> {
    let text = text
        .strip_prefix('\u{feff}')
        .unwrap_or(text)
        .replace("\r\n", "\n")
        .replace('\r', "\n");
    let mut events = Vec::new();
    let (mut name, mut data): (String, Vec<String>) = (String::new(), Vec::new());
    for line in text.split('\n').chain([""]) {
        if line.is_empty() {
            if !data.is_empty() {
                events.push((std::mem::take(&mut name), data.join("\n")));
            }
            data.clear();
            name.clear();
        } else if let Some(value) = line.strip_prefix("data:") {
            data.push(value.strip_prefix(' ').unwrap_or(value).to_owned());
        } else if let Some(value) = line.strip_prefix("event:") {
            name = value.trim().to_owned();
        }
    }
    events
}

pub(crate) struct Client {
    pub(crate) socket: TcpStream,
    inbound: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        Self {
            socket: TcpStream::connect(addr).await.unwrap(),
            inbound: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) {
        let mut text = format!("{method} {target} HTTP/1.1\r\nhost: test\r\n");
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            text.push_str(&format!(
                "content-type: application/json\r\ncontent-length: {}\r\n",
                body.len()
            ));
        }
        text.push_str("\r\n");
        text.push_str(body);
        self.socket.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads until at least one byte more has arrived; the number of bytes, 0 at the end. Fails the test
    /// when that takes too long.
    pub(crate) async fn more(&mut self) -> io::Result<usize> {
        crate::soon(self.socket.read_buf(&mut self.inbound)).await
    }

    /// What arrived and was not taken as an answer.
    pub(crate) fn arrived(&self) -> &[u8] {
        &self.inbound
    }

    /// Reads until the text arrived.
    pub(crate) async fn until(&mut self, text: &str) {
        while !text.is_empty() && !self.inbound.windows(text.len()).any(|w| w == text.as_bytes()) {
            let count = self.more().await.unwrap();
            assert!(
                count > 0,
                "ended before {text:?}: {:?}",
                String::from_utf8_lossy(&self.inbound)
            );
        }
    }

    /// Reads one answer.
    pub(crate) async fn answer(&mut self) -> io::Result<Answer> {
        let mut closed = None;
        loop {
            if let Some(answer) = parse(&mut self.inbound, closed) {
                return Ok(answer);
            }
            if let Some(end) = closed {
                let kind = if end == End::Reset {
                    io::ErrorKind::ConnectionReset
                } else {
                    io::ErrorKind::UnexpectedEof
                };
                return Err(kind.into());
            }
            match self.more().await {
                Ok(0) => closed = Some(End::Eof),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => closed = Some(End::Reset),
                Err(error) => return Err(error),
            }
        }
    }
}

/// One answer from the front of the buffer, if it is whole or nothing more will come.
fn parse(inbound: &mut Vec<u8>, closed: Option<End>) -> Option<Answer> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(start)) = response.parse(inbound) else {
        return None;
    };
    let mut answer = Answer {
        status: response.code.unwrap(),
        version: response.version.unwrap(),
        headers: response
            .headers
            .iter()
            .map(|h| {
                (
                    h.name.to_ascii_lowercase(),
                    String::from_utf8_lossy(h.value).into_owned(),
                )
            })
            .collect(),
        body: Vec::new(),
        end: End::Whole,
    };
    let rest = &inbound[start..];
    let broken = match closed {
        Some(End::Reset) => End::Reset,
        _ => End::Truncated,
    };
    let used = if answer.header("transfer-encoding") == Some("chunked") {
        match dechunk(rest, &mut answer.body) {
            Some(used) => used,
            None => {
                closed?;
                answer.end = broken;
                rest.len()
            }
        }
    } else if let Some(length) = answer.header("content-length") {
        let length: usize = length.parse().unwrap();
        if rest.len() < length {
            closed?;
            answer.end = broken;
        }
        let used = rest.len().min(length);
        answer.body.extend_from_slice(&rest[..used]);
        used
    } else {
        answer.end = closed?;
        answer.body.extend_from_slice(rest);
        rest.len()
    };
    inbound.drain(..start + used);
    Some(answer)
}

/// The bytes used, if the last chunk was there; what is there of a body otherwise.
fn dechunk(mut rest: &[u8], body: &mut Vec<u8>) -> Option<usize> {
    let whole = rest.len();
    loop {
        let Ok(httparse::Status::Complete((start, size))) = httparse::parse_chunk_size(rest) else {
            return None;
        };
        let size = size as usize;
        rest = &rest[start..];
        if size == 0 {
            return (rest.len() >= 2).then(|| whole - rest.len() + 2);
        }
        body.extend_from_slice(&rest[..size.min(rest.len())]);
        rest = rest.get(size + 2..)?;
    }
}

/// One request on a connection of its own.
pub(crate) async fn call(
    addr: SocketAddr,
    target: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> io::Result<Answer> {
    let mut client = Client::connect(addr).await;
    client.send("POST", target, headers, &body.to_string()).await;
    client.answer().await
}

pub(crate) async fn get(addr: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Answer {
    let mut client = Client::connect(addr).await;
    client.send("GET", target, headers, "").await;
    client.answer().await.unwrap()
}
