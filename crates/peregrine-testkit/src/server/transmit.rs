//! Sending one answer, byte for byte as planned: latency, framing, and whatever goes wrong at which offset.
//!
//! Everything that happens at a place was turned into an offset in the body before (see `places`), so
//! sending is one pass: copy up to the next mark, flush, let the mark happen, go on. Without latency, marks
//! and drip a complete body leaves in one write.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::time::Instant;

use super::fault::{Cut, Framing};
use super::http::{Conn, Gone};

/// Bytes gathered before a generated body is written.
const GATHER: usize = 64 * 1024;

/// An answer that is ready to be sent.
pub(crate) struct Outgoing {
    /// Status line and headers, with the empty line.
    pub(crate) head: Bytes,
    pub(crate) framing: Framing,
    pub(crate) body: Body,
    /// What happens before the head.
    pub(crate) before_head: Vec<Mark>,
    /// What happens at offsets of the body, ascending.
    pub(crate) marks: VecDeque<(u64, Mark)>,
    pub(crate) drip: Option<Drip>,
    pub(crate) first_byte: Duration,
    pub(crate) per_piece: Duration,
    pub(crate) one_write: bool,
    /// Whether the connection must end after it.
    pub(crate) close: bool,
}

pub(crate) enum Body {
    Empty,
    Whole(Bytes),
    /// Each with whether it is a piece, which has a write of its own.
    Pieces(Vec<(bool, Bytes)>),
    Generated(Box<dyn Iterator<Item = Bytes> + Send>),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Mark {
    Pause(Duration),
    Cut(Cut),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Drip {
    pub(crate) bytes: usize,
    pub(crate) every: Duration,
    pub(crate) head: bool,
}

/// How sending ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Whole,
    /// A fault ended it; after `Cut::End` the connection can go on.
    Cut(Cut),
    Gone,
}

/// Sends an answer to a request that was whole at `received`.
pub(crate) async fn send(conn: &mut Conn, outgoing: Outgoing, received: Instant) -> Sent {
    match try_send(conn, outgoing, received).await {
        Ok(()) => Sent::Whole,
        Err(Stop::Cut(Cut::Stall)) => {
            conn.gone().await;
            Sent::Gone
        }
        Err(Stop::Cut(how)) => Sent::Cut(how),
        Err(Stop::Gone) => Sent::Gone,
    }
}

enum Stop {
    Gone,
    Cut(Cut),
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

async fn try_send(conn: &mut Conn, outgoing: Outgoing, received: Instant) -> Result<(), Stop> {
    let Outgoing {
        head,
        framing,
        body,
        before_head,
        marks,
        drip,
        first_byte,
        per_piece,
        one_write,
        close: _,
    } = outgoing;
    if !first_byte.is_zero() {
        wait(conn, received + first_byte).await?;
    }
    for mark in before_head {
        match mark {
            Mark::Pause(pause) => wait(conn, Instant::now() + pause).await?,
            Mark::Cut(how) => return Err(Stop::Cut(how)),
        }
    }
    let chunked = framing == Framing::Chunked && !matches!(body, Body::Empty);
    let mut sender = Sender {
        conn,
        chunked,
        marks,
        at: 0,
        out: BytesMut::with_capacity(head.len() + 1024),
        drip,
    };
    match drip {
        // Only the body drips: the head leaves at once.
        Some(drip) if !drip.head => sender.conn.write(&head).await?,
        _ => sender.out.put_slice(&head),
    }
    match sender.body(body, per_piece, one_write).await {
        Ok(()) => sender.finish().await,
        Err(Stop::Cut(Cut::End)) => {
            sender.marks.clear();
            sender.finish().await?;
            Err(Stop::Cut(Cut::End))
        }
        Err(stop) => Err(stop),
    }
}

/// Waits, unless the client goes away first.
async fn wait(conn: &mut Conn, until: Instant) -> Result<(), Stop> {
    tokio::select! {
        () = tokio::time::sleep_until(until) => Ok(()),
        () = conn.gone() => Err(Stop::Gone),
    }
}

struct Sender<'c> {
    conn: &'c mut Conn,
    chunked: bool,
    marks: VecDeque<(u64, Mark)>,
    /// Offset in the body.
    at: u64,
    /// What is not written yet.
    out: BytesMut,
    drip: Option<Drip>,
}

impl Sender<'_> {
    async fn body(&mut self, body: Body, per_piece: Duration, one_write: bool) -> Result<(), Stop> {
        match body {
            Body::Empty => Ok(()),
            Body::Whole(bytes) => self.part(bytes).await,
            Body::Pieces(parts) => {
                let mut due: Option<Instant> = None;
                for (piece, bytes) in parts {
                    if piece && !per_piece.is_zero() {
                        match &mut due {
                            None => due = Some(Instant::now()),
                            Some(due) => {
                                // Counted from the first piece, so that delays do not add up.
                                *due += per_piece;
                                self.flush().await?;
                                wait(self.conn, *due).await?;
                            }
                        }
                    }
                    self.part(bytes).await?;
                    if piece && !one_write {
                        self.flush().await?;
                        tokio::task::yield_now().await;
                    }
                }
                Ok(())
            }
            Body::Generated(parts) => {
                for (index, bytes) in parts.enumerate() {
                    self.part(bytes).await?;
                    if self.out.len() >= GATHER {
                        self.flush().await?;
                    }
                    if index % 16 == 15 {
                        tokio::task::yield_now().await;
                    }
                }
                Ok(())
            }
        }
    }

    /// Adds a part of the body, stopping at marks. In chunked framing it is one chunk, announced whole even
    /// if a mark cuts it; only an orderly end makes the chunk itself shorter.
    async fn part(&mut self, mut bytes: Bytes) -> Result<(), Stop> {
        self.marks_due().await?;
        if bytes.is_empty() {
            return Ok(());
        }
        if let Some(end) = self.orderly_end() {
            let left = end.saturating_sub(self.at);
            bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        }
        if self.chunked {
            self.out.put_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
        }
        while !bytes.is_empty() {
            let free = self
                .marks
                .front()
                .map_or(u64::MAX, |(at, _)| at.saturating_sub(self.at));
            let count = usize::try_from(free).unwrap_or(usize::MAX).min(bytes.len());
            self.out.put_slice(&bytes.split_to(count));
            self.at += count as u64;
            if !bytes.is_empty() {
                self.marks_due().await?;
            }
        }
        if self.chunked {
            self.out.put_slice(b"\r\n");
        }
        self.marks_due().await
    }

    /// Where the body ends in good order, if it is cut so.
    fn orderly_end(&self) -> Option<u64> {
        self.marks
            .iter()
            .find(|(_, mark)| matches!(mark, Mark::Cut(Cut::End)))
            .map(|(at, _)| *at)
    }

    /// Lets the marks happen that stand at this offset.
    async fn marks_due(&mut self) -> Result<(), Stop> {
        while let Some((_, mark)) = self.marks.pop_front_if(|(at, _)| *at <= self.at) {
            self.happen(mark).await?;
        }
        Ok(())
    }

    async fn happen(&mut self, mark: Mark) -> Result<(), Stop> {
        if let Mark::Cut(Cut::End) = mark {
            return Err(Stop::Cut(Cut::End));
        }
        self.flush().await?;
        match mark {
            Mark::Pause(pause) => wait(self.conn, Instant::now() + pause).await,
            Mark::Cut(how) => Err(Stop::Cut(how)),
        }
    }

    /// Ends the body: marks beyond its end happen at its end.
    async fn finish(&mut self) -> Result<(), Stop> {
        while let Some((_, mark)) = self.marks.pop_front() {
            match mark {
                // The end is where it would be anyway.
                Mark::Cut(Cut::End) => {}
                mark => self.happen(mark).await?,
            }
        }
        if self.chunked {
            self.out.put_slice(b"0\r\n\r\n");
        }
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), Stop> {
        let Some(drip) = self.drip else {
            self.conn.write(&self.out).await?;
            self.out.clear();
            return Ok(());
        };
        while !self.out.is_empty() {
            let count = drip.bytes.max(1).min(self.out.len());
            let bit = self.out.split_to(count);
            self.conn.write(&bit).await?;
            if drip.every.is_zero() {
                tokio::task::yield_now().await;
            } else {
                wait(self.conn, Instant::now() + drip.every).await?;
            }
        }
        Ok(())
    }
}
