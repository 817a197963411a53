//! The operating system's clock with tokio's timers, which a paused runtime can advance.

use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::time::Duration;

use peregrine_core::{Clock, Monotonic, SystemClock, Timer, UnixTime};

/// Time as tokio tells it. Needs a tokio runtime where it sleeps.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokioClock;

impl Clock for TokioClock {
    fn now(&self) -> Monotonic {
        static ORIGIN: OnceLock<tokio::time::Instant> = OnceLock::new();
        Monotonic::new(ORIGIN.get_or_init(tokio::time::Instant::now).elapsed())
    }

    fn unix(&self) -> UnixTime {
        SystemClock.unix()
    }
}

impl Timer for TokioClock {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(duration))
    }
}
