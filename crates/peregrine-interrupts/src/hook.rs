//! What happens by itself at an interrupt, and what interrupts by itself.

use std::fmt;
use std::sync::{Arc, Weak};

use crate::scope::ScopeNode;
use crate::tree::Place;
use crate::{Interrupt, Mode, Scope, Source};

/// Takes back a hook of [`Scope::on`] when it is dropped. It does not keep the scope; a hook of a scope that is gone
/// never runs.
#[must_use = "dropping this takes the hook back"]
pub struct Hook(Option<(Weak<ScopeNode>, Place)>);

impl Hook {
    pub(crate) fn new(node: &Arc<ScopeNode>, mode: Mode, hook: Box<dyn FnOnce() + Send>) -> Self {
        match node.hook(mode, hook) {
            Ok(place) => Self(Some((Arc::downgrade(node), place))),
            Err(hook) => {
                hook();
                Self(None)
            }
        }
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        if let Some((node, place)) = self.0.take()
            && let Some(node) = node.upgrade()
        {
            node.forget(place);
        }
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook").finish_non_exhaustive()
    }
}

/// Interrupts its scope immediately when it is dropped, with [`Source::Dropped`]; see [`Scope::cancel_on_drop`].
#[derive(Debug)]
#[must_use = "dropping this interrupts"]
pub struct CancelOnDrop(Option<Scope>);

impl CancelOnDrop {
    pub(crate) fn new(scope: Scope) -> Self {
        Self(Some(scope))
    }

    /// Lets the scope go on.
    pub fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(scope) = self.0.take() {
            scope.interrupt(Interrupt::new(Mode::Immediate).with_source(Source::Dropped));
        }
    }
}
