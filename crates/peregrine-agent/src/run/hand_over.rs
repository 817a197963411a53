//! Runs that hand their answer over instead of cloning it, for drivers that do not look into them when they are over.
//!
//! Invariant: effects are the same either way, and so is the run that [`whole`](Run::whole) gives.

use std::sync::Arc;

use peregrine_core::{ChatResponse, Finish};

use crate::run::compose::Answered;
use crate::run::thread::{State, ThreadFailure};
use crate::run::{End, Run};

/// How much of an answer stays in a run that hands it out. No part of what the run is: nobody sees the difference.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Kept {
    /// All of it, wherever it stands.
    #[default]
    All,
    /// Nobody looks into the run after its end: it hands over what it would clone.
    Nothing,
    /// It did so: the answer of the main thread stands in its end only.
    Moved,
}

impl PartialEq for Kept {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Run {
    /// From here on an answer is handed over instead of cloned. For drivers that look into the run no more when it is over,
    /// and take it out through [`whole`](Self::whole) if it is not.
    pub(crate) fn hand_over(&mut self) {
        self.kept = Kept::Nothing;
    }

    /// The run as it would be had it cloned what it handed over; not for one that is over.
    pub(crate) fn whole(mut self) -> Self {
        self.put_back();
        self
    }

    pub(super) fn put_back(&mut self) {
        if let Kept::Moved = std::mem::replace(&mut self.kept, Kept::All)
            && let Some(End::Completed { response, value }) = &self.ending
            && let Some(main) = self.threads.first_mut()
        {
            main.state = State::Done {
                response: Arc::from(response.clone()),
                value: value.clone(),
            };
        }
    }

    /// What came of the main thread, if it is through. Moved out of it if it is not looked at any more.
    pub(super) fn take_outcome(&mut self) -> Option<Result<Answered, ThreadFailure>> {
        let main = self.threads.first_mut()?;
        if self.ending.is_some() || !matches!((self.kept, &main.state), (Kept::Nothing, State::Done { .. })) {
            return self.outcome(0);
        }
        match std::mem::replace(&mut main.state, State::Abandoned { call: None }) {
            State::Done { response, value } => {
                self.kept = Kept::Moved;
                Some(Ok((response, value)))
            }
            _ => None,
        }
    }

    /// The end for whoever drives the run; of an answer that is handed over nothing stays here but that it was there, and
    /// what was read from it.
    pub(super) fn final_end(&mut self) -> Option<End> {
        match (self.kept, &mut self.ending) {
            (Kept::Nothing | Kept::Moved, Some(End::Completed { response, value })) => {
                let nothing = Box::new(ChatResponse::new(Vec::new(), Finish::Stop));
                Some(End::Completed {
                    response: std::mem::replace(response, nothing),
                    value: value.clone(),
                })
            }
            (_, ending) => ending.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use peregrine_core::{Cost, ErrorKind, Message};

    use super::*;
    use crate::run::{CallId, Event, Failure, Interrupt, RunSpec};

    /// Both hear the same, and ask for the same.
    fn hear(runs: &mut [Run; 2], event: &Event) {
        let [one, other] = runs.each_mut().map(|run| run.handle(event.clone()).unwrap());
        assert_eq!(one, other, "after {event:?}");
    }

    fn until_it_is_saved() -> [Run; 2] {
        let spec = RunSpec {
            has_memory: true,
            ..RunSpec::default()
        };
        let mut runs = [Run::new(spec.clone()), Run::new(spec)];
        runs[0].hand_over();
        let input = vec![Message::user("What is the answer?")];
        hear(&mut runs, &Event::Started { input });
        hear(
            &mut runs,
            &Event::MemoryLoaded {
                outcome: Ok(Vec::new()),
            },
        );
        let answer = ChatResponse::text("Forty-two.").with_metadata("service_tier", "default");
        hear(
            &mut runs,
            &Event::ModelAnswered {
                call: CallId(0),
                outcome: Ok(Box::new(answer)),
                cost: Cost::Unpriced,
            },
        );
        assert!(matches!(runs[0].kept, Kept::Moved));
        runs
    }

    #[test]
    fn the_end_is_the_same() {
        let mut runs = until_it_is_saved();
        hear(&mut runs, &Event::MemorySaved { failure: None });
        assert!(runs[0].ended().is_some());
    }

    #[test]
    fn a_run_that_is_stopped_behind_its_answer_is_whole() {
        let mut runs = until_it_is_saved();
        let interrupt = Interrupt::immediate("now");
        hear(&mut runs, &Event::Interrupted { interrupt });
        let [run, expected] = runs;
        assert!(run.paused().is_some());
        assert_ne!(run, expected, "the answer was moved");
        let run = run.whole();
        assert_eq!(run, expected);
        assert_eq!(
            serde_json::to_string(&run).unwrap(),
            serde_json::to_string(&expected).unwrap()
        );
    }

    #[test]
    fn a_memory_that_fails_takes_nothing_away() {
        let mut runs = until_it_is_saved();
        let failure = Some(Failure::new(ErrorKind::Connection, "it is gone"));
        hear(&mut runs, &Event::MemorySaved { failure });
        let [run, expected] = runs;
        assert_eq!(run, expected);
    }
}
