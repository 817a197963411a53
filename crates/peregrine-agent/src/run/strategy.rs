//! How an answer is arrived at. Each strategy is bounded, besides by its own numbers, by the run's
//! [`Limits`](super::Limits) and budget.
//!
//! - ReAct: Yao et al., "ReAct: Synergizing Reasoning and Acting in Language Models", 2022.
//! - Plan-and-execute: Wang et al., "Plan-and-Solve Prompting", 2023.
//! - Reflection: Madaan et al., "Self-Refine: Iterative Refinement with Self-Feedback", 2023.
//! - Best of n: Wang et al., "Self-Consistency Improves Chain of Thought Reasoning in Language Models", 2022.

use serde::{Deserialize, Serialize};

/// How an answer is arrived at.
///
/// Fallback over models goes with each of them: [`Agent::with_fallback`](crate::Agent::with_fallback).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Strategy {
    /// One call. No tools are offered.
    SingleShot,
    /// The model calls tools, sees their results, and goes on until it answers (ReAct).
    #[default]
    ToolLoop,
    /// A plan is written, its steps are done one after the other, each in a tool loop of its own, and an answer is made of
    /// their results.
    PlanAndExecute(PlanAndExecute),
    /// An answer is judged, and made anew with what was found wrong.
    Reflection(Reflection),
    /// Several answers are made side by side, and the most frequent one wins.
    BestOfN(BestOfN),
}

/// The numbers of [`Strategy::PlanAndExecute`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PlanAndExecute {
    /// The most steps that a plan may have.
    pub max_plan_steps: u32,
    /// How often a new plan is made after a step failed.
    pub max_replans: u32,
}

impl Default for PlanAndExecute {
    /// 8 steps, 1 new plan.
    fn default() -> Self {
        Self {
            max_plan_steps: 8,
            max_replans: 1,
        }
    }
}

/// The numbers of [`Strategy::Reflection`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Reflection {
    /// How often an answer is judged. The last one stands, whether it was accepted or not; the response's metadata says.
    pub max_rounds: u32,
}

impl Default for Reflection {
    /// 2 rounds.
    fn default() -> Self {
        Self { max_rounds: 2 }
    }
}

/// The numbers of [`Strategy::BestOfN`].
///
/// Answers are the same if they are the same text but for white space at the ends, or, where a form was asked for, the
/// same JSON. Among equally frequent answers that of the lowest number wins. If a seed is set, candidate `i` has seed
/// `+ i`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct BestOfN {
    /// How many answers are made.
    pub n: u32,
    /// How many of them must succeed; the others may fail.
    pub min_answers: u32,
}

impl BestOfN {
    /// `n` answers, more than half of which must succeed.
    pub fn new(n: u32) -> Self {
        Self {
            n,
            min_answers: n / 2 + 1,
        }
    }
}

impl PlanAndExecute {
    /// The default numbers, with at most so many steps.
    pub fn new(max_plan_steps: u32) -> Self {
        Self {
            max_plan_steps,
            ..Self::default()
        }
    }

    /// How often a new plan is made after a step failed.
    #[must_use]
    pub fn with_max_replans(mut self, max_replans: u32) -> Self {
        self.max_replans = max_replans;
        self
    }
}

impl Reflection {
    /// At most so many judgements.
    pub fn new(max_rounds: u32) -> Self {
        Self { max_rounds }
    }
}
