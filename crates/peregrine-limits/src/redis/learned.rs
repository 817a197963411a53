//! What was learned, shared: the same learners as in one process, kept in Redis and changed by replaying what happened.
//!
//! Each process notes what its learners would have been told, in the time of the server. Now and then, and at once after
//! a 429, it reads the shared learners, tells them all of it, and stores them if nobody else did meanwhile (optimistic
//! locking by a version); else it reads again. So there is one knee and one measure for all processes.

use crate::config::Limits;
use crate::error::Quantity;
use crate::learn::Learner;

/// More than this is not noted: a process that cannot reach the server forgets.
const MAX_NOTES: usize = 20_000;

#[derive(Debug, Clone, Copy)]
pub(super) enum Note {
    Granted {
        at: u64,
        amounts: [u64; 2],
    },
    Corrected {
        at: u64,
        more: [f64; 2],
    },
    Succeeded {
        at: u64,
        used: [bool; 2],
        tokens: u64,
    },
    Rejected {
        at: u64,
        now: u64,
        amounts: [u64; 2],
        /// Which limit it is about, if the provider says so.
        culprit: Option<Quantity>,
    },
    Announced {
        quantity: Quantity,
        limit: u64,
    },
}

/// What has not been told yet.
#[derive(Debug, Default)]
pub(super) struct Notes(Vec<Note>);

impl Notes {
    pub(super) fn push(&mut self, note: Note) {
        if self.0.len() < MAX_NOTES {
            self.0.push(note);
        }
    }

    pub(super) fn take(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.0)
    }
}

/// What a replay came to.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Told {
    /// How many 429s in a row there were with the last one, if there was one that counts.
    pub(super) in_a_row: Option<u32>,
    pub(super) empty: [bool; 2],
}

/// The learners of both quantities.
#[derive(Debug)]
pub(super) struct Learned {
    pub(super) learners: [Option<Learner>; 2],
    mean_tokens: f64,
}

impl Learned {
    /// As stored, or new.
    pub(super) fn read(limits: &Limits, stored: [Option<String>; 2], now: u64) -> Self {
        let [one, two] = stored;
        let learner = |quantity, stored: Option<String>| {
            let learning = limits.learning.as_ref()?;
            let mut learner = Learner::new(limits, learning, quantity, now)?;
            if let Some(stored) = stored {
                learner.restore(&stored, now);
            }
            Some(learner)
        };
        Self {
            learners: [learner(Quantity::Requests, one), learner(Quantity::Tokens, two)],
            mean_tokens: 1.0,
        }
    }

    pub(super) fn tell(&mut self, notes: &[Note], mean_tokens: &mut f64) -> Told {
        let mut told = Told::default();
        for note in notes {
            self.mean_tokens = mean_tokens.max(1.0);
            let mut note = *note;
            if let Note::Rejected { now, culprit, .. } = &mut note {
                *culprit = culprit.or_else(|| self.most_used(*now));
            }
            self.tell_one(&note, &mut told);
            if let Note::Succeeded { tokens, .. } = note {
                *mean_tokens += (tokens as f64 - *mean_tokens) / 64.0;
            }
        }
        told
    }

    /// The limit of which most was used in the last minute.
    fn most_used(&mut self, now: u64) -> Option<Quantity> {
        let used = |learner: &mut Option<Learner>| learner.as_mut().map(|learner| learner.in_use(now));
        match self.learners.each_mut().map(used) {
            [Some(requests), Some(tokens)] if requests > tokens => Some(Quantity::Requests),
            [_, Some(_)] => Some(Quantity::Tokens),
            [Some(_), None] => Some(Quantity::Requests),
            [None, None] => None,
        }
    }

    fn tell_one(&mut self, note: &Note, told: &mut Told) {
        for quantity in Quantity::ALL {
            let place = quantity as usize;
            let Some(learner) = &mut self.learners[place] else {
                continue;
            };
            match *note {
                Note::Granted { at, amounts } => learner.granted(at, amounts[place]),
                Note::Corrected { at, more } => learner.corrected(at, more[place]),
                Note::Succeeded { at, used, .. } => {
                    let size = [1.0, self.mean_tokens][place];
                    let per_minute = learner.rate_milli() as f64 / 1_000.0 / size;
                    learner.succeeded(at, per_minute, used[place]);
                }
                Note::Rejected {
                    at,
                    now,
                    amounts,
                    culprit,
                } if culprit == Some(quantity) => {
                    if let Some(in_a_row) = learner.rejected(at, amounts[place], now) {
                        told.in_a_row = Some(in_a_row);
                        told.empty[place] = true;
                    }
                }
                Note::Rejected { at, amounts, .. } => learner.corrected(at, -(amounts[place] as f64)),
                Note::Announced {
                    quantity: about,
                    limit,
                } if about == quantity => {
                    learner.announced(limit);
                }
                Note::Announced { .. } => {}
            }
        }
    }
}
