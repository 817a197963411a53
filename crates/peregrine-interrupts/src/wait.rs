//! Waiting for an interrupt: by itself, beside a future, beside a stream.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use pin_project_lite::pin_project;

use crate::alarm::Alarm;
use crate::bounds::has_grace;
use crate::scope::{ScopeNode, Scopes};
use crate::tree::Wait;
use crate::{Interrupted, Mode, Scope};

/// Ends when its scope is interrupted, with the reasons: what [`Scope::graceful`] and [`Scope::cancelled`] return.
///
/// While it is polled it also keeps the limits that bind the scope: it sleeps until the next warning, limit or grace
/// period is due and sees to it. It keeps the scope.
///
/// # Cancel safety
///
/// Dropping it takes it off the scope's list and leaves nothing behind. It can be polled after it has ended, and gives
/// the reasons as they are then.
#[must_use = "futures do nothing unless they are awaited"]
pub struct WaitForInterrupt {
    wait: Wait<Scopes>,
    alarm: Alarm,
}

impl WaitForInterrupt {
    pub(crate) fn new(node: &Arc<ScopeNode>, mode: Mode) -> Self {
        // A graceful interrupt starts the grace period, which has to be slept through.
        let wake_at = if has_grace(node) { Mode::Graceful } else { mode };
        Self {
            wait: Wait::new(node.clone(), mode, wake_at),
            alarm: Alarm::default(),
        }
    }

    /// What it waits for.
    pub fn scope(&self) -> Scope {
        Scope(self.wait.node().clone())
    }

    pub(crate) fn node(&self) -> &Arc<ScopeNode> {
        self.wait.node()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.wait.is_over()
    }

    /// Like `poll`, for whoever does not want the reasons.
    pub(crate) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // First the list, then the alarm: a graceful interrupt in between wakes us and sets the alarm anew.
        if self.wait.poll(cx).is_pending() {
            self.alarm.poll(self.wait.node(), cx);
            if !self.wait.is_over() {
                return Poll::Pending;
            }
        }
        self.alarm = Alarm::default();
        Poll::Ready(())
    }

    pub(crate) fn reasons(&self) -> Interrupted {
        self.scope().reasons()
    }
}

impl Future for WaitForInterrupt {
    type Output = Interrupted;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Interrupted> {
        self.poll_over(cx).map(|()| self.reasons())
    }
}

impl fmt::Debug for WaitForInterrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitForInterrupt")
            .field("scope", &self.scope())
            .field("alarm", &self.alarm)
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// A future that an interrupt ends: what [`Scope::run_until_graceful`] and [`Scope::run_until_stopped`] return.
    ///
    /// At its first poll it looks for an interrupt and begins nothing if there is one. From then on the future comes
    /// first at each poll, so that a result which is there is handed out, interrupted or not. The future is dropped as
    /// soon as this one ends, not when this one is dropped.
    ///
    /// # Panics
    ///
    /// If it is polled after it has ended.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless they are awaited"]
    pub struct RunUntil<F> {
        #[pin]
        future: Option<F>,
        begun: bool,
        wait: WaitForInterrupt,
    }
}

impl<F> RunUntil<F> {
    pub(crate) fn new(wait: WaitForInterrupt, future: F) -> Self {
        Self {
            future: Some(future),
            begun: false,
            wait,
        }
    }
}

impl<F: Future> Future for RunUntil<F> {
    type Output = Result<F::Output, Interrupted>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if *this.begun || !this.wait.is_over() {
            *this.begun = true;
            let future = this.future.as_mut().as_pin_mut();
            let future = future.expect("a future is not polled after it has ended");
            if let Poll::Ready(output) = future.poll(cx) {
                this.future.set(None);
                return Poll::Ready(Ok(output));
            }
            if this.wait.poll_over(cx).is_pending() {
                return Poll::Pending;
            }
        }
        this.future.set(None);
        Poll::Ready(Err(this.wait.reasons()))
    }
}

pin_project! {
    /// A stream that an interrupt ends: what [`Scope::stream_until_graceful`] and [`Scope::stream_until_stopped`] return.
    ///
    /// Items come as `Ok`. An interrupt is the last item, as `Err`, so that a stream which was cut off cannot be taken for
    /// one that ended. The interrupt comes before items that are there already: a stream that is always ready can be
    /// stopped. The stream inside is dropped with the last item.
    #[derive(Debug)]
    #[must_use = "streams do nothing unless they are polled"]
    pub struct StreamUntil<S> {
        #[pin]
        stream: Option<S>,
        wait: WaitForInterrupt,
    }
}

impl<S> StreamUntil<S> {
    pub(crate) fn new(wait: WaitForInterrupt, stream: S) -> Self {
        Self {
            stream: Some(stream),
            wait,
        }
    }
}

impl<S: Stream> Stream for StreamUntil<S> {
    type Item = Result<S::Item, Interrupted>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.project();
        let Some(stream) = this.stream.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        if !this.wait.is_over() {
            match stream.poll_next(cx) {
                Poll::Ready(Some(item)) => return Poll::Ready(Some(Ok(item))),
                Poll::Ready(None) => {
                    this.stream.set(None);
                    return Poll::Ready(None);
                }
                Poll::Pending => {}
            }
            if this.wait.poll_over(cx).is_pending() {
                return Poll::Pending;
            }
        }
        this.stream.set(None);
        Poll::Ready(Some(Err(this.wait.reasons())))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let most = self.stream.as_ref().map_or((0, Some(0)), S::size_hint).1;
        (0, most.and_then(|most| most.checked_add(1)))
    }
}
