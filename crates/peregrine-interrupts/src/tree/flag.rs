//! The flag of one node: a level that only rises, why it rose, and who wants to know.
//!
//! Invariant: the level is stored only under the lock, with the reasons that belong to it already in place. So whoever
//! loads a level and then takes the lock finds the reason, and whoever finds the level low under the lock and joins the
//! list will be told.

use std::task::Waker;

use super::{Listened, Listener, Listeners, Mode, Place};
use crate::sync::{AtomicU8, Mutex, MutexGuard, Ordering, lock};

/// Why a flag was raised: first, and again if it was raised further.
#[derive(Debug, Clone)]
pub(crate) struct Reasons<R> {
    pub(crate) first: R,
    pub(crate) escalation: Option<R>,
}

pub(crate) struct Flag<R> {
    level: AtomicU8,
    state: Mutex<State<R>>,
}

struct State<R> {
    reasons: Option<Reasons<R>>,
    listeners: Listeners,
}

impl<R: Clone> Flag<R> {
    pub(super) fn new() -> Self {
        let state = State {
            reasons: None,
            listeners: Listeners::default(),
        };
        Self {
            level: AtomicU8::new(0),
            state: Mutex::new(state),
        }
    }

    /// One load.
    #[inline]
    pub(super) fn mode(&self) -> Option<Mode> {
        Mode::of_level(self.level.load(Ordering::Acquire))
    }

    #[inline]
    pub(super) fn has_reached(&self, mode: Mode) -> bool {
        self.level.load(Ordering::Acquire) >= mode.level()
    }

    fn state(&self) -> MutexGuard<'_, State<R>> {
        lock(&self.state)
    }

    pub(super) fn reasons(&self) -> Option<Reasons<R>> {
        self.mode()?;
        self.state().reasons.clone()
    }

    /// What a node that joins the tree takes over from its parent. The caller holds the tree's lock, so that the
    /// parent's level stands still, and nobody else knows this flag yet.
    pub(super) fn inherit(&self, parent: &Self) {
        if parent.mode().is_none() {
            return;
        }
        let (level, reasons) = {
            let of_parent = parent.state();
            (parent.level.load(Ordering::Relaxed), of_parent.reasons.clone())
        };
        self.state().reasons = reasons;
        self.level.store(level, Ordering::Release);
    }

    /// Raises the level to `mode`, and hands out who has to be told once no lock is held. Returns whether it rose. The
    /// caller holds the tree's lock.
    pub(super) fn raise(&self, mode: Mode, reason: &R, due: &mut Vec<Listener>) -> bool {
        if self.has_reached(mode) {
            return false;
        }
        let mut state = self.state();
        match &mut state.reasons {
            Some(reasons) => reasons.escalation = Some(reason.clone()),
            none => {
                *none = Some(Reasons {
                    first: reason.clone(),
                    escalation: None,
                });
            }
        }
        self.level.store(mode.level(), Ordering::Release);
        state.listeners.take_due(mode, due);
        true
    }

    /// Leaves a waker, to be woken at the latest when `mode` is reached, and at `wake_at` if that is less. Returns
    /// whether `mode` is reached already; then nothing was left.
    pub(super) fn listen(&self, mode: Mode, wake_at: Mode, place: &mut Option<Place>, waker: &Waker) -> bool {
        if self.has_reached(mode) {
            return true;
        }
        let mut spare = place.is_none().then(|| waker.clone());
        loop {
            let mut state = self.state();
            if self.has_reached(mode) {
                return true;
            }
            // Who is past the lesser mode has only the greater left to wait for.
            let at = if self.has_reached(wake_at) { mode } else { wake_at };
            let listened = state.listeners.listen(place, at, waker, &mut spare);
            drop(state);
            match listened {
                Listened::Done(before) => {
                    drop(before);
                    return false;
                }
                Listened::NeedsSpare => spare = Some(waker.clone()),
            }
        }
    }

    /// Leaves a hook, or gives it back if `mode` is reached already.
    pub(super) fn hook(
        &self,
        mode: Mode,
        hook: Box<dyn FnOnce() + Send>,
    ) -> Result<Place, Box<dyn FnOnce() + Send>> {
        let mut state = self.state();
        if self.has_reached(mode) {
            return Err(hook);
        }
        Ok(state.listeners.add(mode, Listener::Hook(hook)))
    }

    pub(super) fn forget(&self, place: Place) {
        let left = self.state().listeners.remove(place);
        drop(left);
    }

    /// Everyone who is still waiting; the flag goes.
    pub(super) fn close(&self) -> Vec<Listener> {
        self.state().listeners.take_all()
    }

    #[cfg(test)]
    #[allow(dead_code, reason = "the model tests count with it")]
    pub(super) fn listeners(&self) -> usize {
        self.state().listeners.len()
    }
}
