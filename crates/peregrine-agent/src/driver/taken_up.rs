//! How a driver takes up a run from its journal.
//!
//! What the journal says is folded to the state of the run. A run that nobody stopped was interrupted, which it is told;
//! what was announced and has no result is lost, and the run itself knows what follows from that.

use super::Driver;
use super::journal::Stage;
use super::start::unfit;
use crate::durable::fold::Folded;
use crate::durable::open::Opened;
use crate::durable::record::{Finished, SignatureId};
use crate::error::{ConfigProblem, Error};
use crate::run::{End, Event, Interrupt, More};

/// Going on.
impl Driver {
    pub(super) fn opened(&mut self, opened: Opened) {
        let Opened { journal, stored } = opened;
        if let Some(log) = &mut self.log {
            log.stage = Stage::Idle(Box::new(journal));
        }
        if let Some(mut stored) = stored {
            if stored.is_new {
                // Its first record: nobody journalled what was before.
                let state = stored.folded.snapshot_draft();
                self.draft(state);
            }
            self.go_on(stored.folded, stored.more);
        }
    }

    fn go_on(&mut self, folded: Folded, more: More) {
        let resume = |problem: String| Err(Error::Config(ConfigProblem::Resume { problem }));
        if !folded.has_rules {
            let problem = "nothing of it was recorded; run it anew, under the same id if you like".to_owned();
            return self.end(resume(problem), false);
        }
        let problem = match (&folded.signature, self.signature.as_deref().map(SignatureId::of)) {
            (Some(recorded), Some(given)) if *recorded != given => Some(format!(
                "it was begun with the signature `{}`, and `{}` is another one, or was changed since",
                recorded.name, given.name
            )),
            _ => None,
        };
        let is_over = folded.run.ended().is_some();
        let is_typed = self.signature.is_some();
        let problem = problem.or_else(|| match is_over && !is_typed {
            true => None,
            false => unfit(&folded.run, &self.inner, is_typed),
        });
        let never_begun = folded.never_begun();
        let Folded {
            run,
            signature,
            input,
            has_rules: _,
            called,
            announced,
            spent,
            unread,
            finished,
            next_seq: _,
        } = folded;
        self.run = run;
        self.called = called;
        (self.report.usage, self.report.cost) = (unread.usage, unread.cost);
        if let Some(log) = &mut self.log {
            log.announced = announced;
            log.is_finished = finished.is_some();
            (log.signature, log.spent, log.unread) = (signature, spent, unread);
            log.returned = spent.unwrap_or_default().tool_calls;
            let awaited = self.run.awaits_models();
            let lost = awaited.filter(|(_, call)| !never_begun.contains(call));
            log.lost = lost.map(|(thread, _)| thread).collect();
        }
        if let Some(problem) = problem {
            return self.end(resume(problem), true);
        }
        if let (Some(budget), Some(spent)) = (&self.budget, spent) {
            budget.carry(spent);
        }
        if is_over {
            return self.give_again(finished);
        }
        if !self.run.has_begun() {
            return match input {
                Some(input) => self.begin(input),
                None => self.end(
                    resume("what was asked was not recorded; run it anew under the same id".to_owned()),
                    false,
                ),
            };
        }
        self.take_turns();
        if self.run.paused().is_none() {
            let interrupt = Interrupt::of_end();
            self.record(Event::Interrupted { interrupt });
            if let Some(log) = &mut self.log {
                // It is not stopped here, but taken up.
                log.held.clear();
                log.is_stopping = false;
            }
        }
        if !never_begun.is_empty() {
            self.record(Event::NotBegun { calls: never_begun });
        }
        self.resume(more);
    }

    /// A run that was folded to its end.
    pub(super) fn replayed(&mut self, folded: Folded) {
        self.hooks = None;
        (self.run, self.called) = (folded.run, folded.called);
        (self.report.usage, self.report.cost) = (folded.unread.usage, folded.unread.cost);
        self.give_again(folded.finished);
    }

    /// A run that is over has the outcome that it had.
    fn give_again(&mut self, finished: Option<Finished>) {
        let Some(end) = self.run.ended().cloned() else {
            return;
        };
        let Some(finished) = finished else {
            // Its hooks have not seen it to the end.
            return self.finish_run(end);
        };
        let Finished {
            state: _,
            form: _,
            overshoot,
            observer_failures,
            abandoned,
            response,
            veto,
        } = finished;
        self.hooks = None;
        self.report.overshoot = overshoot;
        self.report.observer_failures = observer_failures;
        self.report.abandoned = abandoned;
        match (end, veto) {
            (_, Some(veto)) => self.end(Err(Error::Vetoed(veto)), false),
            (End::Completed { response: answer, .. }, None) => self.complete(*response.unwrap_or(answer)),
            (end, None) => self.finish_run(end),
        }
    }
}
