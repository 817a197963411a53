//! The engine of one process: every claim is granted, nothing outlives the process.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde_json::Value;

use super::{Answer, AttemptKey, Claim, Engine, EngineError, Lease};
use crate::sync::lock;
use crate::{Cause, Timer};

/// How many signals of all names may wait for somebody to ask for them.
const MAX_SIGNALS: usize = 1024;

/// The engine of one process. A run is driven by one owner, so there is nobody to claim a step from: each claim is
/// granted, without a heartbeat. Clones are the same engine.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use peregrine_executor::{Engine, LocalEngine, VirtualTimer};
/// use serde_json::json;
///
/// let engine = LocalEngine::new(Arc::new(VirtualTimer::new()));
/// engine.send_signal("run-1", "approved", json!({"by": "anna"}))?;
/// # let answer = futures_util::FutureExt::now_or_never(
/// engine.signal("run-1", "approved")
/// # ).unwrap()?;
/// # assert_eq!(answer["by"], "anna");
/// # Ok::<(), peregrine_executor::EngineError>(())
/// ```
#[derive(Debug, Clone)]
pub struct LocalEngine {
    timer: Arc<dyn Timer>,
    signals: Arc<Mutex<Signals>>,
}

#[derive(Debug, Default)]
struct Signals {
    /// By run and name; no list is empty.
    waiting: HashMap<(String, String), VecDeque<Value>>,
    count: usize,
    /// Those who wait, by a number of their own. All of them look again when a signal comes: there are few.
    asking: BTreeMap<u64, Waker>,
    asked: u64,
}

impl LocalEngine {
    /// An engine without signals.
    pub fn new(timer: Arc<dyn Timer>) -> Self {
        let signals = Arc::default();
        Self { timer, signals }
    }

    /// Sends a signal to a run. It waits there until a step asks for it.
    ///
    /// # Errors
    ///
    /// 1,024 signals wait already.
    pub fn send_signal(&self, run_id: &str, name: &str, value: Value) -> Result<(), EngineError> {
        let asking = {
            let mut signals = lock(&self.signals);
            if signals.count >= MAX_SIGNALS {
                return Err(EngineError::new(format!(
                    "the signal `{name}` cannot be kept: {MAX_SIGNALS} wait already"
                )));
            }
            signals.count += 1;
            let key = (run_id.to_owned(), name.to_owned());
            signals.waiting.entry(key).or_default().push_back(value);
            std::mem::take(&mut signals.asking)
        };
        asking.into_values().for_each(Waker::wake);
        Ok(())
    }
}

impl Engine for LocalEngine {
    fn claim(&self, attempt: &AttemptKey<'_>) -> Answer<Claim> {
        Answer::now(Ok(Claim::Granted(Lease {
            token: attempt.attempt.into(),
            heartbeat_every: None,
        })))
    }

    fn heartbeat(&self, _: &Lease) -> Answer<()> {
        Answer::now(Ok(()))
    }

    fn complete(&self, _: &Lease, _: &Result<Value, Cause>) -> Answer<()> {
        Answer::now(Ok(()))
    }

    fn signal(&self, run_id: &str, name: &str) -> Answer<Value> {
        let signals = Arc::clone(&self.signals);
        let key = (run_id.to_owned(), name.to_owned());
        Answer::later(Asking {
            signals,
            key,
            number: None,
        })
    }

    fn timer(&self, _: &str, _: &str, duration: Duration) -> Answer<()> {
        let sleep = self.timer.sleep_until(self.timer.now().saturating_add(duration));
        Answer::later(async move {
            sleep.await;
            Ok(())
        })
    }
}

/// Somebody who waits for a signal.
struct Asking {
    signals: Arc<Mutex<Signals>>,
    key: (String, String),
    number: Option<u64>,
}

impl Future for Asking {
    type Output = Result<Value, EngineError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { signals, key, number } = &mut *self;
        // Dropped after the lock.
        let _replaced;
        let mut signals = lock(signals);
        if let Some(list) = signals.waiting.get_mut(key) {
            let value = list.pop_front();
            if list.is_empty() {
                signals.waiting.remove(key);
            }
            if let Some(value) = value {
                signals.count -= 1;
                return Poll::Ready(Ok(value));
            }
        }
        signals.asked += 1;
        let number = *number.get_or_insert(signals.asked);
        _replaced = signals.asking.insert(number, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let _removed = lock(&self.signals).asking.remove(&number);
        }
    }
}
