//! Single flight: many callers, one call, which lives as long as one of them does.
//!
//! The call is a future without an owner. Everybody who waits for it holds a [`Party`]; whoever of them is polled while
//! the call has something to do takes it out of its place, polls it without holding any lock, and puts it back. So a
//! leader that is cancelled hands nothing over and restarts nothing: the others go on polling the same call. Only when
//! the last party leaves is the call dropped, and with that cancelled. Nothing is spawned.
//!
//! The wakes of the call go to everybody who waits, since any of them may be a future that nobody polls at the moment
//! (in a `select!`, behind a slow loop); the first to be polled does the work, and a flag tells the others that there is
//! none left. What a call gives before its end (the events of a stream) stands in a log that each party reads at its own
//! pace, from the beginning.
//!
//! Invariants, each of them explored by a loom model in `tests/it/model.rs`:
//! - a wake is never lost: while the call is in its place and woken, somebody who waits was woken after it;
//! - every party gets every item in order and then the end, the same for all;
//! - the call is dropped as soon as it ended or nobody is left, and never under a lock;
//! - no lock is held across an await, nor while anything foreign runs (the call, wakers, destructors).

mod board;
mod group;

pub(crate) use board::Ending;
#[allow(unused_imports, reason = "streams are shared by the layer only")]
pub(crate) use board::{Emitter, Read};
pub(crate) use group::{Group, Party};
