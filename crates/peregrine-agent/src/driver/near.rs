//! Warnings before the limits of a run's own budget: each is told once, to whoever watches.
//!
//! What is used is looked at when something was; time is slept through. The scopes above a run warn by themselves
//! (`stop`).

use std::task::{Context, Poll};

use super::{Driver, Sleep};
use crate::budget::{Budget, LimitReached, Resource};
use crate::event::RunEvent;
use crate::run::InterruptSource;

/// The part of a limit at which it is told of: that of the interrupt scopes.
const NEAR: f64 = peregrine_interrupts::DEFAULT_WARNING_AT;

/// What was told, and when time is to be told.
#[derive(Default)]
pub(super) struct Near {
    told: Vec<Resource>,
    time: Option<Sleep>,
}

impl Driver {
    /// Begins to look at the time, if there is a limit on it and anybody to tell.
    pub(super) fn watch_time(&mut self) {
        let Some((budget, timer)) = self.budget.as_ref().zip(self.inner.timer.as_ref()) else {
            return;
        };
        if let Some((remaining, limit)) = budget.remaining_time(timer.now()).filter(|_| self.streaming) {
            let rest = limit_of(&limit).mul_f64(1.0 - NEAR);
            self.near.time = Some(timer.sleep(remaining.saturating_sub(rest)));
        }
    }

    /// The warning about time, when it is due.
    pub(super) fn poll_near(&mut self, cx: &mut Context<'_>) -> Option<RunEvent> {
        let is_due = self.near.time.as_mut()?.as_mut().poll(cx) == Poll::Ready(());
        if !is_due {
            return None;
        }
        self.near.time = None;
        self.look_at_time();
        self.out.pop_back()
    }

    #[allow(
        clippy::cast_precision_loss,
        reason = "a part of a limit, which need not be exact to the last of 2^53"
    )]
    pub(super) fn look_at_budget(&mut self) {
        let Some(budget) = self.budget.as_ref().filter(|_| self.streaming) else {
            return;
        };
        let status = budget.status();
        let used = [
            (Resource::Tokens, status.limits.tokens, status.spent.tokens),
            (
                Resource::Cost,
                status.limits.cost.map(|cost| cost.0),
                status.spent.cost.0,
            ),
            (
                Resource::ToolCalls,
                status.limits.tool_calls,
                status.spent.tool_calls,
            ),
        ];
        let name = status.name;
        for (resource, limit, used) in used {
            if let Some(limit) = limit.filter(|limit| *limit > 0) {
                let what = format!("of the budget `{name}` of {limit} {}", resource.as_str());
                self.tell_if_near(resource, used as f64 / limit as f64, &what);
            }
        }
        self.look_at_time();
    }

    fn look_at_time(&mut self) {
        let timer = self.inner.timer.as_ref();
        let left = |(budget, now): (&Budget, _)| budget.remaining_time(now);
        let now = timer.map(|timer| timer.now());
        let Some((remaining, limit)) = self.budget.as_ref().zip(now).and_then(left) else {
            return;
        };
        let whole = limit_of(&limit);
        if !whole.is_zero() {
            let used = 1.0 - remaining.as_secs_f64() / whole.as_secs_f64();
            self.tell_if_near(
                Resource::WallTime,
                used,
                &format!("of the time limit of {whole:?}"),
            );
        }
    }

    fn tell_if_near(&mut self, resource: Resource, fraction: f64, what: &str) {
        if fraction < NEAR || self.near.told.contains(&resource) {
            return;
        }
        self.near.told.push(resource);
        let by = match resource {
            Resource::WallTime => InterruptSource::TimeLimit,
            _ => InterruptSource::Budget,
        };
        self.tell(|| RunEvent::LimitNear {
            limit: format!("{:.0} % {what} used", fraction * 100.0),
            source: by,
            fraction,
        });
    }
}

fn limit_of(limit: &LimitReached) -> std::time::Duration {
    std::time::Duration::from_millis(limit.limit)
}
