//! What the server saw, counted, and a way to wait for it without polling.
//!
//! All counts live behind one lock that is held for a few instructions; every change wakes those who wait.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::seen::SeenRequest;

/// The counts at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Requests that arrived whole.
    pub requests: u64,
    /// Requests that were refused while they were read: malformed, or over a limit. They have no reply.
    pub rejected: u64,
    /// Requests that are being answered now.
    pub in_flight: u64,
    /// The most that were in flight at once.
    pub in_flight_max: u64,
    /// Answers handed to the kernel to the last byte (what a client then did with them is not known).
    pub completed: u64,
    /// Answers that a fault of the script cut short.
    pub cut: u64,
    /// Requests whose client went away before the answer was complete.
    pub cancelled: u64,
    /// Connections accepted.
    pub connections: u64,
    /// Connections open now.
    pub open: u64,
    /// The most that were open at once.
    pub open_max: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Completed,
    Cut,
    Cancelled,
}

#[derive(Debug, Default)]
struct Kept {
    requests: VecDeque<Arc<SeenRequest>>,
    bytes: usize,
}

/// The counts and the requests that are kept.
#[derive(Debug)]
pub(crate) struct Ledger {
    counters: Mutex<Counters>,
    kept: Mutex<Kept>,
    max_requests: usize,
    max_bytes: usize,
    seq: AtomicU64,
    changed: Notify,
}

impl Ledger {
    pub(crate) fn new(max_requests: usize, max_bytes: usize) -> Self {
        Self {
            counters: Mutex::default(),
            kept: Mutex::default(),
            max_requests,
            max_bytes,
            seq: AtomicU64::new(0),
            changed: Notify::new(),
        }
    }

    pub(crate) fn snapshot(&self) -> Counters {
        *self.lock()
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut self.lock());
        self.changed.notify_waiters();
    }

    /// The number of the next request.
    pub(crate) fn next_seq(&self) -> u64 {
        self.seq.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Counts a whole request. It is kept before this, so that who waits for the count finds it.
    pub(crate) fn begin(self: &Arc<Self>) -> InFlight {
        self.update(|c| {
            c.requests += 1;
            c.in_flight += 1;
            c.in_flight_max = c.in_flight_max.max(c.in_flight);
        });
        InFlight {
            ledger: Arc::clone(self),
            outcome: None,
        }
    }

    pub(crate) fn connection(self: &Arc<Self>) -> (u64, Open) {
        let mut id = 0;
        self.update(|c| {
            c.connections += 1;
            c.open += 1;
            c.open_max = c.open_max.max(c.open);
            id = c.connections;
        });
        (
            id,
            Open {
                ledger: Arc::clone(self),
            },
        )
    }

    pub(crate) fn keeps_requests(&self) -> bool {
        self.max_requests > 0
    }

    /// Keeps a request, and lets the oldest go when there are too many or they are too big.
    pub(crate) fn keep(&self, request: &Arc<SeenRequest>) {
        if !self.keeps_requests() {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += request.memory_bytes();
        kept.requests.push_back(Arc::clone(request));
        while kept.requests.len() > self.max_requests
            || (kept.bytes > self.max_bytes && kept.requests.len() > 1)
        {
            let Some(oldest) = kept.requests.pop_front() else {
                break;
            };
            kept.bytes = kept.bytes.saturating_sub(oldest.memory_bytes());
        }
    }

    pub(crate) fn requests(&self) -> Vec<Arc<SeenRequest>> {
        self.kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .requests
            .iter()
            .cloned()
            .collect()
    }

    pub(crate) fn last_request(&self) -> Option<Arc<SeenRequest>> {
        self.kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .requests
            .back()
            .cloned()
    }

    /// Waits until the counts are as wanted, and gives them.
    pub(crate) async fn wait_until(&self, mut wanted: impl FnMut(&Counters) -> bool) -> Counters {
        loop {
            let mut changed = pin!(self.changed.notified());
            // Registered before the look, so that a change between the look and the wait is not lost.
            changed.as_mut().enable();
            let now = self.snapshot();
            if wanted(&now) {
                return now;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is being answered; counts its end when dropped.
#[derive(Debug)]
pub(crate) struct InFlight {
    ledger: Arc<Ledger>,
    outcome: Option<Outcome>,
}

impl InFlight {
    pub(crate) fn ended(mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let outcome = self.outcome;
        self.ledger.update(|c| {
            c.in_flight -= 1;
            match outcome {
                Some(Outcome::Completed) => c.completed += 1,
                Some(Outcome::Cut) => c.cut += 1,
                Some(Outcome::Cancelled) => c.cancelled += 1,
                // The server was stopped in the middle of the answer.
                None => {}
            }
        });
    }
}

/// An open connection; counts its end when dropped.
#[derive(Debug)]
pub(crate) struct Open {
    ledger: Arc<Ledger>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.ledger.update(|c| c.open -= 1);
    }
}
