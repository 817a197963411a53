//! Limits at work: what is used, what is due, and the warnings given so far.
//!
//! Nothing here waits. Whoever waits for a scope asks when something is due next ([`next_due`]), sleeps until then and
//! has it done ([`fire_due`]), so a limit needs no task of its own; budgets fire where they are charged. Each limit warns
//! once: a flag that is swapped.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::scope::{ScopeNode, info, raise};
use crate::sync::lock;
use crate::tree::{Listeners, Mode, tell};
use crate::{Budget, BudgetUse, Interrupt, Limits, Source, TimeLimit, Unit, Warning};

/// The limits of one scope.
pub(crate) struct Bounds {
    began: Duration,
    time: Option<Clocked>,
    tallies: Vec<Tally>,
    grace: Option<Duration>,
    posted: Mutex<Posted>,
}

/// Moments are counted from when the tree began.
struct Clocked {
    of: TimeLimit,
    warning: Option<Duration>,
    end: Duration,
    warned: AtomicBool,
}

struct Tally {
    of: Budget,
    warning: Option<u64>,
    used: AtomicU64,
    warned: AtomicBool,
}

/// Warnings so far, at most one for each limit, and who waits for the next.
#[derive(Default)]
pub(crate) struct Posted {
    pub(crate) warnings: Vec<Warning>,
    pub(crate) listeners: Listeners,
}

impl Bounds {
    /// `None` if there is no limit among them.
    pub(crate) fn new(limits: Limits, now: Duration) -> Option<Box<Self>> {
        if limits.is_empty() {
            return None;
        }
        let Limits { time, budgets, grace } = limits;
        let time = time.map(|of| {
            let moment = |after: Duration| now.saturating_add(after.saturating_sub(of.used));
            Clocked {
                of,
                warning: of.warning_after().map(moment),
                end: moment(of.limit),
                warned: AtomicBool::new(false),
            }
        });
        let tallies = budgets.into_iter().map(|of| Tally {
            warning: of.warning_after(),
            used: AtomicU64::new(of.used),
            warned: AtomicBool::new(false),
            of,
        });
        Some(Box::new(Self {
            began: now,
            time,
            tallies: tallies.collect(),
            grace,
            posted: Mutex::default(),
        }))
    }

    pub(crate) fn posted(&self) -> MutexGuard<'_, Posted> {
        lock(&self.posted)
    }

    /// How many of the limits warn, each of them once.
    pub(crate) fn warners(&self) -> usize {
        let time = self.time.iter().filter(|time| time.warning.is_some());
        let tallies = self.tallies.iter().filter(|tally| tally.warning.is_some());
        time.count() + tallies.count()
    }

    /// Posts a warning, and then tells who waits.
    fn warn(&self, warning: Warning) {
        let mut due = Vec::new();
        {
            let mut posted = self.posted();
            posted.warnings.push(warning);
            posted.listeners.take_due(Mode::Immediate, &mut due);
        }
        tell(due);
    }
}

/// The scopes whose limits bind this one, nearest first.
fn binding(node: &Arc<ScopeNode>) -> impl Iterator<Item = (&Arc<ScopeNode>, &Bounds)> {
    node.binding()
        .filter_map(|node| Some((node, node.data().bounds.as_deref()?)))
}

/// Whether a graceful interrupt makes something due that was not due before.
pub(crate) fn has_grace(node: &Arc<ScopeNode>) -> bool {
    binding(node).any(|(_, bounds)| bounds.grace.is_some())
}

/// When the next limit, warning or grace period of this scope, or of one above it, is due. Moments that are past count:
/// they are due now.
pub(crate) fn next_due(node: &Arc<ScopeNode>) -> Option<Duration> {
    binding(node)
        .flat_map(|(node, bounds)| {
            [
                warning_due(node, bounds),
                end_due(node, bounds),
                grace_due(node, bounds),
            ]
        })
        .flatten()
        .min()
}

fn warning_due(node: &ScopeNode, bounds: &Bounds) -> Option<Duration> {
    let time = bounds.time.as_ref()?;
    let open = node.mode().is_none() && !time.warned.load(Ordering::Acquire);
    time.warning.filter(|_| open)
}

fn end_due(node: &ScopeNode, bounds: &Bounds) -> Option<Duration> {
    let time = bounds.time.as_ref()?;
    (!node.has_reached(time.of.mode)).then_some(time.end)
}

fn grace_due(node: &ScopeNode, bounds: &Bounds) -> Option<Duration> {
    let period = bounds.grace?;
    if node.mode() != Some(Mode::Graceful) {
        return None;
    }
    // A scope that is made to finish a step under an interrupt has its whole period.
    let since = node.reasons()?.first.after.max(bounds.began);
    Some(since.saturating_add(period))
}

/// Does all that is due: gives warnings, interrupts. What it does is not due again, so this can be called by many.
pub(crate) fn fire_due(node: &Arc<ScopeNode>, now: Duration) {
    binding(node).for_each(|(node, bounds)| fire(node, bounds, now));
}

fn fire(node: &Arc<ScopeNode>, bounds: &Bounds, now: Duration) {
    let is_due = |moment: Option<Duration>| moment.is_some_and(|moment| moment <= now);
    if let Some(time) = &bounds.time {
        let limit = time.of.limit;
        let source = || Source::TimeLimit { limit };
        if is_due(warning_due(node, bounds)) && !time.warned.swap(true, Ordering::AcqRel) {
            let used = now.saturating_sub(bounds.began).saturating_add(time.of.used);
            let fraction = used.as_secs_f64() / limit.as_secs_f64();
            bounds.warn(Warning::new(node, source(), fraction));
        }
        if is_due(end_due(node, bounds)) {
            raise(node, Interrupt::new(time.of.mode).with_source(source()));
        }
    }
    if let Some(period) = bounds.grace.filter(|_| is_due(grace_due(node, bounds))) {
        let source = Source::Grace { period };
        raise(node, Interrupt::new(Mode::Immediate).with_source(source));
    }
}

/// What a scope with limits does when it is made: some may be used up already.
pub(crate) fn begin(node: &Arc<ScopeNode>) {
    let Some(bounds) = &node.data().bounds else {
        return;
    };
    for tally in &bounds.tallies {
        weigh(node, bounds, tally, tally.of.used);
    }
    fire(node, bounds, node.shared().now());
}

/// Adds to every budget of this unit that binds the scope.
pub(crate) fn charge(node: &Arc<ScopeNode>, unit: &Unit, amount: u64) {
    for (node, bounds) in binding(node) {
        for tally in bounds.tallies.iter().filter(|tally| tally.of.unit == *unit) {
            let add = |used: u64| Some(used.saturating_add(amount));
            let before = tally.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
            let used = before.unwrap_or_else(|used| used).saturating_add(amount);
            weigh(node, bounds, tally, used);
        }
    }
}

/// Warns and interrupts if so much used calls for it.
#[allow(clippy::cast_precision_loss, reason = "a fraction for people to read")]
fn weigh(node: &Arc<ScopeNode>, bounds: &Bounds, tally: &Tally, used: u64) {
    let Budget {
        unit, limit, mode, ..
    } = &tally.of;
    let (limit, mode) = (*limit, *mode);
    let source = || Source::Budget {
        unit: unit.clone(),
        used,
        limit,
    };
    let warns = tally.warning.is_some_and(|warning| used >= warning) && node.mode().is_none();
    if warns && !tally.warned.swap(true, Ordering::AcqRel) {
        bounds.warn(Warning::new(node, source(), used as f64 / limit as f64));
    }
    if used >= limit {
        raise(node, Interrupt::new(mode).with_source(source()));
    }
}

/// What is left of the scarcest budget of this unit.
pub(crate) fn remaining(node: &Arc<ScopeNode>, unit: &Unit) -> Option<u64> {
    let tallies = binding(node).flat_map(|(_, bounds)| &bounds.tallies);
    let tallies = tallies.filter(|tally| tally.of.unit == *unit);
    tallies
        .map(|tally| tally.of.limit.saturating_sub(tally.used.load(Ordering::Acquire)))
        .min()
}

/// All budgets that bind the scope, nearest first.
pub(crate) fn uses(node: &Arc<ScopeNode>) -> Vec<BudgetUse> {
    let each = binding(node).flat_map(|(node, bounds)| bounds.tallies.iter().map(move |tally| (node, tally)));
    each.map(|(node, tally)| BudgetUse {
        scope: info(node),
        unit: tally.of.unit.clone(),
        used: tally.used.load(Ordering::Acquire),
        limit: tally.of.limit,
    })
    .collect()
}

/// How long the nearest time limit leaves.
pub(crate) fn time_left(node: &Arc<ScopeNode>) -> Option<Duration> {
    let end = binding(node)
        .filter_map(|(_, bounds)| Some(bounds.time.as_ref()?.end))
        .min()?;
    Some(end.saturating_sub(node.shared().now()))
}
