//! Ctrl-C, as something to wait for. From the first [`Interrupts::new`] on, Ctrl-C no longer ends the process.

use std::io;

use crate::failure::Failure;

/// Listens for Ctrl-C. None is lost between two waits.
#[derive(Debug)]
pub(crate) struct Interrupts {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
    #[cfg(windows)]
    signal: tokio::signal::windows::CtrlC,
}

impl Interrupts {
    /// Begins to listen.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            signal: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?,
            #[cfg(windows)]
            signal: tokio::signal::windows::ctrl_c()?,
        })
    }

    /// Waits for the next Ctrl-C.
    pub(crate) async fn next(&mut self) {
        if self.signal.recv().await.is_none() {
            // No more signals will come: wait for ever.
            std::future::pending().await
        }
    }

    /// Waits for something, or for Ctrl-C, whichever comes first.
    pub(crate) async fn or<T, E: Into<Failure>>(
        &mut self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            ended = work => ended.map_err(Into::into),
            () = self.next() => Err(Failure::Interrupted),
        }
    }
}
