//! Stopping a scope from outside.

use std::fmt;
use std::sync::{Arc, Weak};

use crate::scope::{ScopeNode, info, raise, raise_further};
use crate::{Interrupt, Mode};

/// Interrupts a scope, and can do nothing else: for a stop button, a server's endpoint, a supervisor.
///
/// It does not keep the scope. Cheap to clone.
///
/// # Examples
///
/// ```
/// use peregrine_interrupts::{ManualTimer, Mode, Scope};
///
/// let run = Scope::root("run-1", ManualTimer::new());
/// let button = run.handle();
/// assert!(button.stop(None));
/// assert_eq!(run.mode(), Some(Mode::Graceful));
/// assert!(button.stop(Some("again, because nothing happens")));
/// assert_eq!(run.mode(), Some(Mode::Immediate));
/// assert!(!button.stop(None));
///
/// drop(run);
/// assert!(!button.is_alive());
/// ```
#[derive(Clone)]
pub struct Handle(Weak<ScopeNode>);

impl Handle {
    pub(crate) fn new(node: &Arc<ScopeNode>) -> Self {
        Self(Arc::downgrade(node))
    }

    pub(crate) fn node(&self) -> Option<Arc<ScopeNode>> {
        self.0.upgrade()
    }

    /// The first time gracefully, the second time immediately. Returns whether that changed anything.
    pub fn stop(&self, detail: Option<&str>) -> bool {
        self.node().is_some_and(|node| {
            raise_further(&node, |mode| match detail {
                Some(detail) => Interrupt::new(mode).with_detail(detail),
                None => Interrupt::new(mode),
            })
        })
    }

    /// As [`Scope::interrupt`](crate::Scope::interrupt); false as well if the scope is gone.
    pub fn interrupt(&self, interrupt: impl Into<Interrupt>) -> bool {
        self.node().is_some_and(|node| raise(&node, interrupt.into()))
    }

    /// Whether the scope is still there.
    pub fn is_alive(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// Which interrupt there is; `None` as well if the scope is gone.
    pub fn mode(&self) -> Option<Mode> {
        self.node()?.mode()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle")
            .field(&self.node().map(|node| info(&node)))
            .finish()
    }
}
