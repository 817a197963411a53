//! Places in a body: what a fault's [`At`] means as an offset, and the faults that change the body itself.
//!
//! Faults that change the body are applied first, in the order in which they were given; then every cut and
//! pause becomes a mark at an offset of what came out.

use std::collections::VecDeque;

use bytes::Bytes;
use serde_json::Value;

use super::answer::Usage;
use super::dialect::frames::Role;
use super::dialect::{Context, wire};
use super::fault::{ApiError, At, Cut, Fault};
use super::http::find;
use super::render::{Payload, request_id};
use super::seen::SeenRequest;
use super::transmit::Mark;

/// A character of the private use area that marks where rendered text begins.
pub(crate) const MARKER: &str = "\u{e000}";
/// What [`Fault::InvalidUtf8`] puts there.
const INVALID: &[u8] = &[0xFF, 0xFE, 0xFD];

/// Applies the faults that change the body, in the order in which they were given.
pub(crate) fn change(payload: &mut Payload, faults: &[Fault], request: &SeenRequest) {
    for fault in faults {
        match fault {
            Fault::Insert { at, bytes } => insert(payload, *at, bytes),
            Fault::ErrorEvent { at, error } => error_event(payload, *at, error, request),
            Fault::InvalidUtf8 => invalid_utf8(payload),
            Fault::Cut { .. } | Fault::Pause { .. } | Fault::Drip { .. } => {}
        }
    }
}

fn insert(payload: &mut Payload, at: At, bytes: &Bytes) {
    let offset = offset(payload, at).unwrap_or(0);
    match payload {
        Payload::Whole(body) => {
            let at = usize::try_from(offset).unwrap_or(usize::MAX).min(body.len());
            *body = [&body[..at], bytes, &body[at..]].concat().into();
        }
        Payload::Frames(frames) => {
            let index = split(frames, offset);
            frames.insert(index, (Role::Structure, bytes.clone()));
        }
        // Bytes are of no consequence among filler.
        Payload::Repeat { .. } | Payload::Gzip { .. } => {}
    }
}

fn error_event(payload: &mut Payload, at: At, error: &ApiError, request: &SeenRequest) {
    let wire = wire(request.endpoint.dialect());
    let offset = offset(payload, at).unwrap_or(0);
    if let Payload::Frames(frames) = payload {
        let index = split(frames, offset);
        frames.truncate(index);
        let null = Value::Null;
        let context = Context {
            seq: request.seq,
            endpoint: request.endpoint,
            body: request.json().unwrap_or(&null),
            query_alt: request.query_param("alt"),
            model: String::new(),
            include_usage: false,
            usage: Usage::default(),
            reasoning_field: "",
        };
        let frame = wire.error_frame(error, &request_id(request));
        let encoding = wire.encoding(&context);
        frames.extend(encoding.encode_within(&frame, index == 0));
    } else {
        *payload = Payload::Whole(wire.error_body(error, &request_id(request)).to_string().into());
    }
}

fn invalid_utf8(payload: &mut Payload) {
    let replace = |bytes: &Bytes| -> Option<Bytes> {
        find(bytes, MARKER.as_bytes()).map(|_| {
            let (prefix, suffix) = around_marker(bytes);
            [prefix, INVALID, suffix].concat().into()
        })
    };
    match payload {
        Payload::Whole(body) => match replace(body) {
            Some(replaced) => *body = replaced,
            None => insert(payload, At::AfterPieces(0), &Bytes::from_static(INVALID)),
        },
        Payload::Frames(frames) => {
            let mut found = false;
            for (_, bytes) in frames.iter_mut() {
                if let Some(replaced) = replace(bytes) {
                    (*bytes, found) = (replaced, true);
                }
            }
            if !found {
                insert(payload, At::AfterPieces(0), &Bytes::from_static(INVALID));
            }
        }
        Payload::Repeat { .. } | Payload::Gzip { .. } => {}
    }
}

/// Splits the frame that an offset falls into, and gives the index of what begins there.
fn split(frames: &mut Vec<(Role, Bytes)>, offset: u64) -> usize {
    let mut start = 0_u64;
    for index in 0..frames.len() {
        let Some((_, bytes)) = frames.get_mut(index) else {
            break;
        };
        let end = start + bytes.len() as u64;
        if offset <= start {
            return index;
        }
        if offset < end {
            // Less than the length of the frame.
            let rest = bytes.split_off((offset - start) as usize);
            frames.insert(index + 1, (Role::Structure, rest));
            return index + 1;
        }
        start = end;
    }
    frames.len()
}

/// The offset in the body that a place stands for; `None` before the head.
pub(crate) fn offset(payload: &Payload, at: At) -> Option<u64> {
    match (at, payload) {
        (At::BeforeHead, _) => None,
        (At::AfterHead, _) => Some(0),
        (At::AfterBytes(bytes), _) => Some(bytes),
        (_, Payload::Whole(body)) => Some(body.len() as u64 / 2),
        (_, Payload::Repeat { repeat, .. } | Payload::Gzip { repeat, .. }) => {
            Some(repeat.len().map_or(64 * 1024, |length| length / 2))
        }
        (place, Payload::Frames(frames)) => Some(offset_in_frames(frames, place)),
    }
}

fn offset_in_frames(frames: &[(Role, Bytes)], place: At) -> u64 {
    let start_of = |index: usize| -> u64 {
        frames
            .iter()
            .take(index)
            .map(|(_, bytes)| bytes.len() as u64)
            .sum()
    };
    let last = frames.len().saturating_sub(1);
    let ending = |also_finish: bool| {
        let ends = |(role, _): &(Role, Bytes)| *role == Role::End || (also_finish && *role == Role::Finish);
        frames.iter().position(ends).unwrap_or(last)
    };
    let mut pieces = frames
        .iter()
        .enumerate()
        .filter(|(_, (role, _))| *role == Role::Piece)
        .map(|(index, _)| index);
    match place {
        At::AfterPieces(0) => start_of(pieces.next().unwrap_or_else(|| ending(true))),
        At::AfterPieces(count) => match pieces.clone().nth(count - 1).or_else(|| pieces.next_back()) {
            Some(index) => start_of(index + 1),
            None => start_of(ending(true)),
        },
        At::BeforeFinish => start_of(ending(true)),
        _ => start_of(ending(false)),
    }
}

/// What happens before the head, and at which offsets of the body.
pub(crate) fn marks(faults: &[Fault], payload: &Payload) -> (Vec<Mark>, VecDeque<(u64, Mark)>) {
    let (mut before, mut marks) = (Vec::new(), Vec::new());
    let mut is_cut = false;
    for fault in faults {
        let (at, mark) = match fault {
            Fault::Cut { at, how } if !is_cut => (*at, Mark::Cut(*how)),
            Fault::Pause { at, pause } => (*at, Mark::Pause(*pause)),
            _ => continue,
        };
        is_cut |= matches!(mark, Mark::Cut(_));
        match offset(payload, at) {
            // Nothing can end in good order before it began.
            None if matches!(mark, Mark::Cut(Cut::End)) => before.push(Mark::Cut(Cut::Close)),
            None => before.push(mark),
            Some(offset) => marks.push((offset, mark)),
        }
    }
    marks.sort_by_key(|(offset, _)| *offset);
    (before, marks.into())
}

/// What stands before and after the marker; all before, if there is none.
pub(crate) fn around_marker(bytes: &[u8]) -> (&[u8], &[u8]) {
    match find(bytes, MARKER.as_bytes()) {
        Some(at) => (&bytes[..at], &bytes[at + MARKER.len()..]),
        None => (bytes, b""),
    }
}
