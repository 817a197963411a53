//! The timer that agents use unless they are given one: tokio's.

use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::time::Duration;

use peregrine_core::{Clock, Monotonic, SystemClock, Timer, UnixTime};
use tokio::time::Instant;

/// Time as tokio tells it, which a paused runtime can advance. Sleeping needs a tokio runtime with its time driver on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TokioTimer;

impl Clock for TokioTimer {
    fn now(&self) -> Monotonic {
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        Monotonic::new(ORIGIN.get_or_init(Instant::now).elapsed())
    }

    fn unix(&self) -> UnixTime {
        SystemClock.unix()
    }
}

impl Timer for TokioTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(duration))
    }
}
