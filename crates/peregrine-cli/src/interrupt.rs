//! Ctrl-C and SIGTERM: the scope that a command runs under, which listens to both.
//!
//! Whatever waits outside of a run ends with the first signal. A run finishes its step then, unless it is told to stop at
//! once, and stops with the second; a third ends the process, whatever it does. While a command listens, none is lost.

use peregrine::interrupts::{Scope, Signal, Source, TokioTimer};

use crate::failure::Failure;

/// Listens for signals.
#[derive(Debug)]
pub(crate) struct Interrupts {
    scope: Scope,
    _listening: Listening,
}

impl Interrupts {
    /// Begins to listen.
    ///
    /// # Errors
    ///
    /// That it cannot.
    pub(crate) fn new() -> Result<Self, Failure> {
        let scope = Scope::root("peregrine", TokioTimer::new());
        Ok(Self {
            _listening: listen(&scope)?,
            scope,
        })
    }

    /// What is run below this ends with a signal.
    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Waits for a signal, and listens for the next one.
    pub(crate) async fn next(&mut self) -> Failure {
        self.scope.graceful().await;
        let interrupted = self.failure();
        self.renew().err().unwrap_or(interrupted)
    }

    /// Listens for the next signal, if there was one that something has ended with.
    ///
    /// # Errors
    ///
    /// That it cannot.
    pub(crate) fn renew(&mut self) -> Result<(), Failure> {
        if self.scope.is_interrupted() {
            // The new one listens before the old one ceases to.
            *self = Self::new()?;
        }
        Ok(())
    }

    /// What a command fails with that was interrupted.
    pub(crate) fn failure(&self) -> Failure {
        let source = self.scope.interrupted().map(|why| why.reason().source.clone());
        Failure::Interrupted(match source {
            Some(Source::Signal(signal)) => Some(signal),
            _ => None,
        })
    }

    /// Waits for something, or for a signal, whichever comes first.
    pub(crate) async fn or<T, E: Into<Failure>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        match self.scope.run_until_graceful(work).await {
            Ok(ended) => ended.map_err(Into::into),
            Err(_) => Err(self.failure()),
        }
    }
}

/// Whether a signal asks to leave, not only to stop what is being done.
pub(crate) fn leaves(failure: &Failure) -> bool {
    matches!(failure, Failure::Interrupted(Some(signal)) if *signal != Signal::Interrupt)
}

#[cfg(unix)]
type Listening = peregrine::interrupts::signal::Subscription;

#[cfg(unix)]
fn listen(scope: &Scope) -> Result<Listening, Failure> {
    peregrine::interrupts::signal::subscribe(scope).map_err(|error| Failure::internal(&error.to_string()))
}

/// A task that ends with its owner.
#[cfg(not(unix))]
type Listening = tokio::task::JoinSet<()>;

#[cfg(not(unix))]
fn listen(scope: &Scope) -> Result<Listening, Failure> {
    let handle = scope.handle();
    let mut listening = Listening::new();
    listening.spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            if !handle.stop(None) {
                std::process::exit(130);
            }
        }
    });
    Ok(listening)
}
