//! The turn of a call, for the same layer further inside.
//!
//! A call that has its turn is polled with the turn at hand, on the thread that polls it. The same layer further inside
//! (see [`RateLimit`](super::RateLimit)) finds it there and uses it up; the next attempt of the same call finds nothing left.
//! What is spawned inside is another call as far as anybody can tell.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use crate::{Limiter, Permit};

/// A permit, and the tokens of the prompt that it was asked for.
pub(super) struct Right {
    pub(super) permit: Permit,
    pub(super) prompt: u64,
}

/// The turn of a call, used up or not, and those around it of other limiters.
pub(super) struct Turn {
    limiter: Limiter,
    right: Mutex<Option<Right>>,
    around: Option<Arc<Turn>>,
}

thread_local! {
    static AT_HAND: RefCell<Option<Arc<Turn>>> = const { RefCell::new(None) };
}

impl Turn {
    /// Within the turns that are at hand.
    pub(super) fn new(limiter: &Limiter, right: Right) -> Arc<Self> {
        Arc::new(Self {
            limiter: limiter.clone(),
            right: Mutex::new(Some(right)),
            around: at_hand(),
        })
    }

    /// What is left of it.
    pub(super) fn take(&self) -> Option<Right> {
        self.right.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Polls `future` with this turn at hand.
    pub(super) async fn during<F: Future>(self: &Arc<Self>, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|cx| {
            let _restored = Restored(exchange(Some(self.clone())));
            future.as_mut().poll(cx)
        })
        .await
    }
}

/// The turn that the call at hand has with this limiter, if it is not used up.
pub(super) fn take(limiter: &Limiter) -> Option<Right> {
    let mut next = at_hand();
    while let Some(turn) = next {
        if turn.limiter.is(limiter) {
            return turn.take();
        }
        next = turn.around.clone();
    }
    None
}

fn at_hand() -> Option<Arc<Turn>> {
    AT_HAND.try_with(|turn| turn.borrow().clone()).ok().flatten()
}

fn exchange(turn: Option<Arc<Turn>>) -> Option<Arc<Turn>> {
    AT_HAND.try_with(|known| known.replace(turn)).ok().flatten()
}

/// Puts back what was at hand before, also when a poll panics.
struct Restored(Option<Arc<Turn>>);

impl Drop for Restored {
    fn drop(&mut self) {
        drop(exchange(self.0.take()));
    }
}
