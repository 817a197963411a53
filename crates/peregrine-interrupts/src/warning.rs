//! Warnings: a limit is near.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use futures_core::Stream;

use crate::scope::{Scope, ScopeNode, info};
use crate::tree::{Listened, Mode, Place};
use crate::{ScopeInfo, Source, WaitForInterrupt};

/// A limit of which a good part is used; each limit warns once.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Warning {
    /// Which limit: [`Source::TimeLimit`] or [`Source::Budget`].
    pub source: Source,
    /// Whose limit: the scope that was asked for warnings, or one above.
    pub scope: ScopeInfo,
    /// Which part of it is used; above 1 where one step used up the whole rest and more.
    pub fraction: f64,
    /// When, on the monotonic clock: since the tree's root scope was made.
    pub after: Duration,
    /// When, as people count it.
    pub at: SystemTime,
}

impl Warning {
    pub(crate) fn new(node: &ScopeNode, source: Source, fraction: f64) -> Self {
        Self {
            source,
            scope: info(node),
            fraction,
            after: node.shared().now(),
            at: node.shared().wall(),
        }
    }
}

/// ``80 % of the time limit of 60s of run `run-1` used``
impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} % of the ", self.fraction * 100.0)?;
        match &self.source {
            Source::TimeLimit { limit } => write!(f, "time limit of {limit:?}")?,
            Source::Budget { unit, limit, .. } => write!(f, "budget of {limit} {unit}")?,
            other => f.write_str(other.as_str())?,
        }
        write!(f, " of {} used", self.scope)
    }
}

/// The warnings of the limits that bind a scope, those from before included: what [`Scope::warnings`] returns.
///
/// A stream, with [`next`](Self::next) and [`try_next`](Self::try_next) for whoever has no use for the trait. It ends
/// when no warning can come any more: every limit has warned, or the scope is interrupted. While it is waited for it
/// keeps the limits, as every wait does. It keeps the scope.
///
/// # Examples
///
/// ```
/// use peregrine_interrupts::{Budget, Limits, ManualTimer, Scope, Unit};
///
/// let limits = Limits::new().with_budget(Budget::new(Unit::MODEL_CALLS, 10));
/// let run = Scope::root_with("run-1", ManualTimer::new(), limits);
/// let mut warnings = run.warnings();
/// run.charge(&Unit::MODEL_CALLS, 7);
/// assert!(warnings.try_next().is_none());
/// run.charge(&Unit::MODEL_CALLS, 1);
/// let warning = warnings.try_next().unwrap();
/// assert_eq!(warning.to_string(), "80 % of the budget of 10 model calls of run `run-1` used");
/// assert!(warnings.try_next().is_none());
/// ```
#[must_use = "streams do nothing unless they are polled"]
pub struct Warnings {
    sources: Vec<Cursor>,
    wait: WaitForInterrupt,
}

/// How far one scope's warnings were read.
struct Cursor {
    node: Arc<ScopeNode>,
    read: usize,
    place: Option<Place>,
}

impl Warnings {
    pub(crate) fn new(node: &Arc<ScopeNode>) -> Self {
        let cursor = |node: &Arc<ScopeNode>| Cursor {
            node: node.clone(),
            read: 0,
            place: None,
        };
        Self {
            sources: node.binding().map(cursor).collect(),
            wait: WaitForInterrupt::new(node, Mode::Graceful),
        }
    }

    /// The next warning; `None` when there will be no more.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no warning.
    pub async fn next(&mut self) -> Option<Warning> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    /// The next warning if it is there already. It looks at no clock: a time limit warns where somebody waits.
    pub fn try_next(&mut self) -> Option<Warning> {
        self.sources.iter_mut().find_map(|cursor| cursor.read(None).0)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Warning>> {
        // Before the lists are looked at: what is due is on them then.
        let is_over = self.wait.poll_over(cx).is_ready();
        let mut is_complete = true;
        for cursor in &mut self.sources {
            let (warning, complete) = cursor.read(Some(cx.waker()));
            if warning.is_some() {
                return Poll::Ready(warning);
            }
            is_complete &= complete;
        }
        if is_over || is_complete {
            Poll::Ready(None)
        } else {
            Poll::Pending
        }
    }
}

impl Cursor {
    /// The next warning, or whether there will be none; else `waker` is left where the next one comes.
    fn read(&mut self, waker: Option<&Waker>) -> (Option<Warning>, bool) {
        let Some(bounds) = &self.node.data().bounds else {
            return (None, true);
        };
        let mut spare = waker.filter(|_| self.place.is_none()).cloned();
        loop {
            let mut posted = bounds.posted();
            if let Some(warning) = posted.warnings.get(self.read) {
                self.read += 1;
                let warning = Some(warning.clone());
                drop(posted);
                return (warning, false);
            }
            let is_complete = self.read == bounds.warners();
            let Some(waker) = waker.filter(|_| !is_complete) else {
                return (None, is_complete);
            };
            let listened = posted
                .listeners
                .listen(&mut self.place, Mode::Graceful, waker, &mut spare);
            drop(posted);
            match listened {
                Listened::Done(before) => {
                    drop(before);
                    return (None, false);
                }
                Listened::NeedsSpare => spare = Some(waker.clone()),
            }
        }
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        if let (Some(place), Some(bounds)) = (self.place.take(), &self.node.data().bounds) {
            let left = bounds.posted().listeners.remove(place);
            drop(left);
        }
    }
}

impl Stream for Warnings {
    type Item = Warning;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Warning>> {
        self.get_mut().poll(cx)
    }
}

impl fmt::Debug for Warnings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scope: Scope = self.wait.scope();
        f.debug_struct("Warnings")
            .field("scope", &scope)
            .finish_non_exhaustive()
    }
}
