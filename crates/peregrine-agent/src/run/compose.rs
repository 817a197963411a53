//! The strategies: which threads there are, and what the end of one of them means.
//!
//! Thread 0 is the main one: its conversation is the run's, and its answer is the run's answer, but for a vote, where the
//! winner's is.

use std::collections::BTreeMap;
use std::sync::Arc;

use peregrine_core::{ChatResponse, Message, Messages};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::forms;
use crate::run::effect::{Effect, Form};
use crate::run::flow::Flow;
use crate::run::strategy::{BestOfN, PlanAndExecute, Reflection, Strategy};
use crate::run::thread::{State, Thread, ThreadFailure, note};
use crate::run::{End, Run};

/// The most answers that one vote may have.
const MAX_CANDIDATES: u32 = 256;

/// How far the strategy has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// The main thread answers.
    Single,
    /// The main thread answers, or a judge looks at its answer.
    Reflecting { rounds: u32, judge: Option<u32> },
    /// All threads answer.
    Voting { min_answers: u32 },
    /// A planner writes a plan.
    Planning {
        planner: u32,
        plans: u32,
        known: Vec<Known>,
    },
    /// A plan of calls of tools.
    Flow(Box<Flow>),
    /// A step of a plan is done.
    Executing {
        worker: u32,
        steps: Vec<String>,
        plans: u32,
        known: Vec<Known>,
    },
}

/// What was found out by a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    step: String,
    result: String,
    failed: bool,
}

pub(super) type Answered = (Arc<ChatResponse>, Option<Map<String, Value>>);

impl Run {
    pub(super) fn begin_strategy(&mut self, messages: &Messages) {
        let spec = Arc::clone(&self.spec);
        let head = spec.head.len();
        let thread = |has_tools| Thread::new(messages.clone(), head, spec.form, has_tools);
        match &spec.strategy {
            Strategy::SingleShot => self.threads.push(thread(false)),
            Strategy::ToolLoop => self.threads.push(thread(true)),
            Strategy::Reflection(_) => {
                self.stage = Stage::Reflecting {
                    rounds: 0,
                    judge: None,
                };
                self.threads.push(thread(true));
            }
            Strategy::BestOfN(BestOfN { n, min_answers }) => {
                let n = (*n).clamp(1, MAX_CANDIDATES);
                self.stage = Stage::Voting {
                    min_answers: (*min_answers).clamp(1, n),
                };
                for seed in 0..n {
                    let mut candidate = thread(true);
                    candidate.seed = seed;
                    self.threads.push(candidate);
                }
            }
            Strategy::PlanAndExecute(numbers) => {
                // It has nothing to do before the results are there.
                let mut main = thread(false);
                main.state = State::Abandoned { call: None };
                self.threads.push(main);
                match numbers.dataflow {
                    Some(_) => self.begin_flow(),
                    None => self.plan(1, Vec::new()),
                }
            }
        }
    }

    /// Looks at the threads that are through, and does what follows from that.
    pub(super) fn go_on_with_strategy(&mut self, effects: &mut Vec<Effect>) {
        // Taken out, not cloned: it holds the plan.
        let stage = match std::mem::replace(&mut self.stage, Stage::Single) {
            Stage::Flow(flow) => return self.go_on_with_flow(flow, effects),
            other => {
                self.stage = other.clone();
                other
            }
        };
        let spec = Arc::clone(&self.spec);
        match (&spec.strategy, stage) {
            (Strategy::Reflection(numbers), Stage::Reflecting { rounds, judge }) => {
                self.reflect(numbers, rounds, judge);
            }
            (_, Stage::Voting { min_answers }) => self.vote(min_answers, effects),
            (
                _,
                Stage::Planning {
                    planner,
                    plans,
                    known,
                },
            ) => self.planned(planner, plans, known),
            (
                Strategy::PlanAndExecute(numbers),
                Stage::Executing {
                    worker,
                    steps,
                    plans,
                    known,
                },
            ) => {
                self.executed(numbers, worker, steps, plans, known);
            }
            _ => {
                if let Some(outcome) = self.take_outcome() {
                    self.conclude(outcome);
                }
            }
        }
    }

    /// What came of a thread, if it is through.
    pub(super) fn outcome(&self, thread: u32) -> Option<Result<Answered, ThreadFailure>> {
        match &self.threads.get(thread as usize)?.state {
            State::Done { response, value } => Some(Ok((Arc::clone(response), value.clone()))),
            State::Failed(failure) => Some(Err(failure.clone())),
            _ => None,
        }
    }

    pub(super) fn conclude(&mut self, outcome: Result<Answered, ThreadFailure>) {
        self.end(match outcome {
            Ok((response, value)) => End::Completed {
                response: Box::new(Arc::unwrap_or_clone(response)),
                value,
            },
            Err(ThreadFailure::Model(failure)) => End::ModelFailed { failure },
            Err(ThreadFailure::Rejected { problem, repairs }) => End::AnswerRejected { problem, repairs },
            Err(ThreadFailure::Declined { text }) => End::Declined { text },
        });
    }

    pub(super) fn spawn(&mut self, thread: Thread) -> u32 {
        self.threads.push(thread);
        u32::try_from(self.threads.len() - 1).unwrap_or(u32::MAX)
    }

    /// A thread for a form of ours.
    pub(super) fn spawn_form(&mut self, form: Form, head: Option<&Arc<Message>>, asked: Message) -> u32 {
        let head: Vec<Arc<Message>> = head.cloned().into_iter().collect();
        let count = head.len();
        let messages = head.into_iter().chain([Arc::new(asked)]).collect();
        self.spawn(Thread::new(messages, count, form, false))
    }

    /// What the user asked for, as text.
    pub(super) fn task(&self) -> String {
        let last = self
            .input
            .iter()
            .rev()
            .find(|message| message.role == peregrine_core::Role::User);
        last.map(|message| message.text()).unwrap_or_default()
    }

    /// The tools and what they are for, a line each.
    pub(super) fn tools_in_short(&self) -> String {
        let tools = self.spec.template.tools.iter();
        let tools: Vec<String> = tools
            .map(|tool| format!("{}: {}", tool.name, tool.description))
            .collect();
        match tools.is_empty() {
            true => "(none)".to_owned(),
            false => tools.join("\n"),
        }
    }

    fn reflect(&mut self, numbers: &Reflection, rounds: u32, judge: Option<u32>) {
        let Some(draft) = self.outcome(0) else {
            return;
        };
        let Ok((mut response, value)) = draft else {
            return self.conclude(draft);
        };
        let Some(judge) = judge else {
            if rounds >= numbers.max_rounds {
                return self.unaccepted(response, value, rounds);
            }
            let answer = shown(&response, value.as_ref());
            let task = self.task();
            let asked = forms::ask(
                forms::critique(),
                &[("task", task.as_str()), ("answer", answer.as_str())],
            );
            let critic = self.spec.critic.clone();
            let judge = self.spawn_form(Form::Critique, critic.as_ref(), asked);
            self.stage = Stage::Reflecting {
                rounds: rounds + 1,
                judge: Some(judge),
            };
            return;
        };
        match self.outcome(judge) {
            None => {}
            // An answer that nobody could judge is not an accepted one.
            Some(Err(failure)) => self.conclude(Err(failure)),
            Some(Ok((_, judgement))) => {
                let problems = judgement.as_ref().map(forms::problems).unwrap_or_default();
                if problems.is_empty() {
                    note(
                        &mut response,
                        "reflection",
                        json!({"rounds": rounds, "accepted": true}),
                    );
                    return self.conclude(Ok((response, value)));
                }
                if rounds >= numbers.max_rounds {
                    return self.unaccepted(response, value, rounds);
                }
                self.stage = Stage::Reflecting { rounds, judge: None };
                let told = format!(
                    "Your answer was looked at. This is to be changed:\n- {}\nGive the whole answer again, improved.",
                    problems.join("\n- ")
                );
                if let Some(main) = self.threads.first_mut() {
                    main.continue_with(Message::user(told));
                }
            }
        }
    }

    /// The last answer stands, and says that nobody accepted it.
    fn unaccepted(
        &mut self,
        mut response: Arc<ChatResponse>,
        value: Option<Map<String, Value>>,
        rounds: u32,
    ) {
        note(
            &mut response,
            "reflection",
            json!({"rounds": rounds, "accepted": false}),
        );
        self.conclude(Ok((response, value)));
    }

    fn vote(&mut self, min_answers: u32, effects: &mut Vec<Effect>) {
        let total = self.threads.len();
        let mut ballots: Vec<(String, usize, usize)> = Vec::new();
        let (mut open, mut answered) = (0, 0);
        let mut first_failure = None;
        for (place, thread) in self.threads.iter().enumerate() {
            match &thread.state {
                State::Done { response, value } => {
                    answered += 1;
                    let key = ballot(response, value.as_ref());
                    match ballots.iter_mut().find(|(known, ..)| *known == key) {
                        Some((_, votes, _)) => *votes += 1,
                        None => ballots.push((key, 1, place)),
                    }
                }
                State::Failed(failure) => {
                    first_failure.get_or_insert(failure);
                }
                State::Abandoned { .. } => {}
                _ => open += 1,
            }
        }
        // Of equally frequent ones the first, which is that of the lowest thread.
        let best = ballots
            .iter()
            .reduce(|best, one| if one.1 > best.1 { one } else { best });
        let is_decided =
            best.is_some_and(|(_, votes, _)| *votes * 2 > total) && answered >= min_answers as usize;
        if open > 0 && !is_decided {
            // Too many have failed for the rest to be enough.
            if answered + open < min_answers as usize
                && let Some(failure) = first_failure.cloned()
            {
                self.conclude(Err(failure));
            }
            return;
        }
        let Some((_, votes, winner)) = best.filter(|_| answered >= min_answers as usize) else {
            if let Some(failure) = first_failure.cloned() {
                self.conclude(Err(failure));
            }
            return;
        };
        let (votes, winner) = (*votes, *winner);
        let calls = self
            .threads
            .iter_mut()
            .flat_map(Thread::abandon)
            .collect::<Vec<_>>();
        if !calls.is_empty() {
            effects.push(Effect::Cancel { calls });
        }
        let facts = json!({"candidates": total, "answers": answered, "votes": votes, "winner": winner});
        let outcome = self.outcome(u32::try_from(winner).unwrap_or(u32::MAX));
        // The winner's conversation is the run's.
        self.threads.swap(0, winner);
        if let Some(Ok((mut response, value))) = outcome {
            note(&mut response, "best_of_n", facts);
            self.conclude(Ok((response, value)));
        }
    }

    fn plan(&mut self, plans: u32, known: Vec<Known>) {
        let (task, tools, found) = (self.task(), self.tools_in_short(), told(&known));
        let inputs = [("task", task.as_str()), ("tools", &tools), ("known", &found)];
        let asked = forms::ask(forms::plan(), &inputs);
        let head = self.spec.planner.clone();
        let planner = self.spawn_form(Form::Plan, head.as_ref(), asked);
        self.stage = Stage::Planning {
            planner,
            plans,
            known,
        };
    }

    fn planned(&mut self, planner: u32, plans: u32, known: Vec<Known>) {
        match self.outcome(planner) {
            None => {}
            Some(Err(failure)) => self.conclude(Err(failure)),
            Some(Ok((_, value))) => {
                let mut steps = value.as_ref().map(forms::steps).unwrap_or_default();
                if let Strategy::PlanAndExecute(PlanAndExecute { max_plan_steps, .. }) = &self.spec.strategy {
                    let most = *max_plan_steps as usize;
                    if steps.len() > most {
                        return self.end(End::AnswerRejected {
                            problem: format!(
                                "the plan has {} steps; at most {most} are allowed",
                                steps.len()
                            ),
                            repairs: 0,
                        });
                    }
                }
                steps.reverse();
                self.work(steps, plans, known);
            }
        }
    }

    /// The next step; they stand in reverse order. Without any left, the main thread answers.
    fn work(&mut self, mut steps: Vec<String>, plans: u32, known: Vec<Known>) {
        let found = told(&known);
        let Some(step) = steps.last() else {
            steps.clear();
            self.stage = Stage::Single;
            if let Some(main) = self.threads.first_mut() {
                let told =
                    format!("This was found out by steps that are done:\n{found}\n\nNow do what was asked.");
                main.continue_with(Message::user(told));
            }
            return;
        };
        let told = format!(
            "The task above is done in steps. This was found out so far:\n{found}\n\nDo only this step now, and say what came \
             of it: {step}"
        );
        let Some(main) = self.threads.first() else {
            return;
        };
        let mut messages = main.messages.clone();
        messages.push(Message::user(told));
        let worker = Thread::new(messages, self.spec.head.len(), Form::Text, true);
        let worker = self.spawn(worker);
        self.stage = Stage::Executing {
            worker,
            steps,
            plans,
            known,
        };
    }

    fn executed(
        &mut self,
        numbers: &PlanAndExecute,
        worker: u32,
        mut steps: Vec<String>,
        plans: u32,
        mut known: Vec<Known>,
    ) {
        let Some(outcome) = self.outcome(worker) else {
            return;
        };
        let step = steps.pop().unwrap_or_default();
        match outcome {
            Ok((response, value)) => {
                known.push(Known {
                    step,
                    result: shown(&response, value.as_ref()),
                    failed: false,
                });
                self.work(steps, plans, known);
            }
            Err(failure) if plans > numbers.max_replans => self.conclude(Err(failure)),
            Err(failure) => {
                known.push(Known {
                    step,
                    result: failure.text(),
                    failed: true,
                });
                self.plan(plans.saturating_add(1), known);
            }
        }
    }
}

/// What was found out, for a prompt.
fn told(known: &[Known]) -> String {
    let lines = known.iter().map(|known| {
        let word = if known.failed { "failed" } else { "done" };
        format!("- {} ({word}): {}", known.step, known.result)
    });
    match lines.collect::<Vec<_>>() {
        none if none.is_empty() => "(nothing yet)".to_owned(),
        lines => lines.join("\n"),
    }
}

/// An answer as text for somebody else to read.
pub(super) fn shown(response: &ChatResponse, value: Option<&Map<String, Value>>) -> String {
    match value {
        Some(value) => Value::Object(value.clone()).to_string(),
        None => response.message.text(),
    }
}

/// What makes two answers the same.
fn ballot(response: &ChatResponse, value: Option<&Map<String, Value>>) -> String {
    match value {
        Some(value) => sorted(&Value::Object(value.clone())).to_string(),
        None => response.message.text().trim().to_owned(),
    }
}

/// The same value with the keys of its objects in order. As deep as the value, which parsers bound.
pub(crate) fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        Value::Object(fields) => {
            let ordered: BTreeMap<&String, &Value> = fields.iter().collect();
            Value::Object(
                ordered
                    .into_iter()
                    .map(|(key, value)| (key.clone(), sorted(value)))
                    .collect(),
            )
        }
        other => other.clone(),
    }
}
