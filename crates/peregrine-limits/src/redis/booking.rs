//! What was booked, and how it ends. Dropped at any point it leaves nothing behind.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::learned::Note;
use super::{Shared, signed};
use crate::admission::{Admission, Outcome};
use crate::config::nanos;
use crate::error::Quantity;
use crate::signals::Signals;
use crate::sync::lock;

/// What was booked: a place in flight, tokens, and when.
pub(crate) struct Booking {
    shared: Arc<Shared>,
    tokens: u64,
    at: u64,
    used: [bool; 2],
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It counts as in flight; nothing is known to be booked.
    Counted,
    Booked,
    Over,
}

impl Booking {
    /// Counts as in flight from now on.
    pub(super) fn new(shared: &Arc<Shared>, tokens: u64) -> Self {
        shared.in_flight.fetch_add(1, Ordering::SeqCst);
        Self {
            shared: shared.clone(),
            tokens,
            at: 0,
            used: [false; 2],
            stage: Stage::Counted,
        }
    }

    pub(super) fn withdraw(mut self) {
        self.stage = Stage::Over;
        self.shared.in_flight.fetch_sub(1, Ordering::SeqCst);
    }

    pub(super) fn booked(&mut self, at: u64, used: [bool; 2]) {
        (self.at, self.used, self.stage) = (at, used, Stage::Booked);
        let amounts = [1, self.tokens];
        lock(&self.shared.notes).push(Note::Granted { at, amounts });
    }

    pub(crate) fn tokens(&self) -> u64 {
        self.tokens
    }

    pub(crate) fn hear(&self, signals: &Signals) {
        let shared = &self.shared;
        for quantity in Quantity::ALL {
            if let Some(limit) = signals
                .window(quantity)
                .and_then(|window| window.limit)
                .filter(|limit| *limit > 0)
            {
                lock(&shared.notes).push(Note::Announced { quantity, limit });
            }
            let remaining = signals.window(quantity).and_then(|window| window.remaining);
            if let Some(remaining) = remaining {
                // The latest account counts.
                let told = &mut lock(&shared.told_left)[quantity as usize];
                if told.is_none_or(|(_, at)| at <= self.at) {
                    *told = Some((remaining, self.at));
                }
                if remaining == 0 {
                    shared.tell_now.notify_one();
                }
            }
        }
        if let Some(wait) = signals.retry_after {
            shared.ask_to_wait(nanos(wait.min(shared.limits.max_pause)));
        }
    }

    pub(crate) fn finish(mut self, outcome: Outcome, signals: &Signals) {
        self.end(outcome, signals);
    }

    fn end(&mut self, outcome: Outcome, signals: &Signals) {
        self.stage = Stage::Over;
        let Self {
            shared,
            tokens,
            at,
            used,
            stage: _,
        } = &*self;
        let (at, tokens, used) = (*at, *tokens, *used);
        shared.in_flight.fetch_sub(1, Ordering::SeqCst);
        let note = |note| lock(&shared.notes).push(note);
        let give = match outcome {
            Outcome::Used(really) => {
                let owed = shared.limits.most_owed(Quantity::Tokens).unwrap_or(u64::MAX);
                let really = really.min(owed.max(tokens));
                let more = really as f64 - tokens as f64;
                note(Note::Corrected {
                    at,
                    more: [0.0, more],
                });
                note(Note::Succeeded {
                    at,
                    used,
                    tokens: really,
                });
                [0, signed(tokens).saturating_sub(signed(really))]
            }
            Outcome::Rejected => {
                let now = shared.server_now();
                let amounts = [1, tokens];
                let culprit = shared.culprit(signals);
                note(Note::Rejected {
                    at,
                    now,
                    amounts,
                    culprit,
                });
                if shared.limits.learning.is_none() && signals.retry_after.is_none() {
                    shared.ask_to_wait(Admission::pause_after(1, &shared.limits));
                }
                shared.tell_now.notify_one();
                [0, signed(tokens)]
            }
            Outcome::NotSent => {
                let more = [-1.0, -(tokens as f64)];
                note(Note::Corrected { at, more });
                [1, signed(tokens)]
            }
            Outcome::Declined => {
                let more = [0.0, -(tokens as f64)];
                note(Note::Corrected { at, more });
                [0, signed(tokens)]
            }
            Outcome::Unknown => [0, 0],
        };
        self.hear(signals);
        self.shared.give_back(give);
    }
}

impl Drop for Booking {
    /// Never handed out: dropped while it waited.
    fn drop(&mut self) {
        match self.stage {
            Stage::Over => {}
            // Whether it was booked nobody knows: then it counts as used.
            Stage::Counted => {
                self.shared.in_flight.fetch_sub(1, Ordering::SeqCst);
                self.shared.give_back([0, 0]);
            }
            Stage::Booked => self.end(Outcome::NotSent, &Signals::default()),
        }
    }
}
