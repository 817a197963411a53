//! The timer of somebody who waits for a scope.
//!
//! Limits have no task of their own: each wait sleeps until the next moment at which a limit of its scope, or of one
//! above, is due, and sees to it then. A wait that is over at its first look never makes a timer. Invariant: nothing
//! polls in intervals.

use std::fmt;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use crate::Sleep;
use crate::bounds::{fire_due, next_due};
use crate::scope::ScopeNode;

/// How often one poll looks again, before it lets others have their turn: sleeps may end early.
const ROUNDS: usize = 16;

#[derive(Default)]
pub(crate) struct Alarm {
    /// Until when, and the sleep until then.
    set: Option<(Duration, Sleep)>,
}

impl Alarm {
    /// Does what is due, and has the task woken for what is due next.
    pub(crate) fn poll(&mut self, node: &Arc<ScopeNode>, cx: &mut Context<'_>) {
        if !node.is_bound() {
            return;
        }
        for _ in 0..ROUNDS {
            let Some(due) = next_due(node) else {
                self.set = None;
                return;
            };
            if self.set.as_ref().is_none_or(|(until, _)| *until != due) {
                let now = node.shared().now();
                if now >= due {
                    self.set = None;
                    fire_due(node, now);
                    continue;
                }
                self.set = Some((due, node.shared().sleep(due - now)));
            }
            if let Some((_, sleep)) = &mut self.set
                && sleep.as_mut().poll(cx).is_pending()
            {
                return;
            }
            self.set = None;
        }
        cx.waker().wake_by_ref();
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Alarm")
            .field(&self.set.as_ref().map(|(until, _)| until))
            .finish()
    }
}
