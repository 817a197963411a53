//! How an answer is arrived at. Each strategy is bounded, besides by its own numbers, by the run's
//! [`Limits`](super::Limits) and budget.
//!
//! - ReAct: Yao et al., "ReAct: Synergizing Reasoning and Acting in Language Models", 2022.
//! - Plan-and-execute: Wang et al., "Plan-and-Solve Prompting", 2023. As a graph of calls: Kim et al., "An LLM Compiler for
//!   Parallel Function Calling", 2023; with references instead of observations: Xu et al., "ReWOO", 2023.
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
    /// A plan is written, its steps are done, and an answer is made of their results. The steps are instructions, done one
    /// after the other, each in a tool loop of its own; or calls of tools that refer to each other's results, done side by
    /// side ([`Dataflow`]).
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
    /// Makes plans of calls of tools; without it they are instructions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataflow: Option<Dataflow>,
}

impl Default for PlanAndExecute {
    /// 8 steps, 1 new plan, instructions.
    fn default() -> Self {
        Self {
            max_plan_steps: 8,
            max_replans: 1,
            dataflow: None,
        }
    }
}

/// Plans of calls of tools, for [`PlanAndExecute`]: which steps there are is decided once, and no model is asked between
/// them.
///
/// The planner writes steps `{id, tool, arguments, depends_on}`, checked before anything runs: ids, references, cycles,
/// tools, and arguments as far as they are known. What is wrong is told to it. `$id.field` in the arguments stands for
/// something in the result of another step, with its JSON type; what a step refers to is what it waits for. Steps that do not
/// wait for each other run side by side, but those with side effects one after the other, in the order of the plan as far as
/// what they refer to allows it, and idempotent calls that may be the same not at the same time. A step may also be a `task` in words, which a model does
/// in a tool loop of its own.
///
/// Each call is one of the run's like any other: rules, approvals, guards, budgets, bounds and journals see it as they see a
/// call that a model makes in a conversation, with the arguments that it really has. Its id is that of the step.
///
/// A step that fails takes those along that need it; the others are done. Then a new plan is made, which may refer to the
/// results that there are, or, without one left, the run fails as the step did. A plan without steps is an answer at once.
/// The text of results is used, images and documents in them are not. What was done is in the response's metadata under
/// `plan`.
///
/// # Examples
///
/// ```
/// use peregrine_agent::{Agent, Dataflow, PlanAndExecute, Strategy};
/// # use peregrine_core::{ChatModel, ChatRequest, ChatResponse, ModelInfo};
/// use peregrine_tools::tool;
///
/// /// Tells how warm it is somewhere, in degrees Celsius.
/// #[tool(effect = "read_only", danger = "safe")]
/// async fn temperature(city: String) -> f64 {
///     if city == "Oslo" { 4.5 } else { 20.0 }
/// }
///
/// /// Subtracts.
/// #[tool(effect = "read_only", danger = "safe")]
/// async fn difference(a: f64, b: f64) -> f64 {
///     a - b
/// }
///
/// # struct Clerk(ModelInfo);
/// # impl ChatModel for Clerk {
/// #     fn info(&self) -> &ModelInfo { &self.0 }
/// #     async fn complete(&self, request: &ChatRequest) -> peregrine_core::Result<ChatResponse> {
/// #         Ok(ChatResponse::text(match request.messages.get(0).unwrap().text().contains("Plan how") {
/// #             true => PLAN,
/// #             false => "Rome is 15.5 degrees warmer.",
/// #         }))
/// #     }
/// # }
/// // What the model writes:
/// const PLAN: &str = r#"{"steps": [
///     {"id": "oslo", "tool": "temperature", "arguments": {"city": "Oslo"}},
///     {"id": "rome", "tool": "temperature", "arguments": {"city": "Rome"}},
///     {"id": "diff", "tool": "difference", "arguments": {"a": "$rome", "b": "$oslo"}}
/// ]}"#;
///
/// # futures_util::FutureExt::now_or_never(async {
/// # let model = Clerk(ModelInfo::new("example", "clerk"));
/// let agent = Agent::new(model)
///     .with_tool(temperature())
///     .with_tool(difference())
///     .with_strategy(Strategy::PlanAndExecute(PlanAndExecute::new(8).with_dataflow(Dataflow::new())));
/// let output = agent.run("How much warmer is Rome than Oslo?").await?;
/// assert_eq!(output.text(), "Rome is 15.5 degrees warmer.");
/// assert_eq!(output.report.steps, 2); // the plan, and the answer
/// assert_eq!(output.report.tool_calls[2].arguments, r#"{"a":20.0,"b":4.5}"#);
/// # Ok::<(), peregrine_agent::RunError>(())
/// # }).unwrap().unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Dataflow {
    /// How often the planner is asked again because its plan cannot run, for each plan.
    pub max_plan_repairs: u32,
    /// How many steps are under way at the same time.
    pub max_parallel: u32,
    /// How many of these are tasks, which ask models.
    pub max_model_calls: u32,
    /// Looks at what was asked while the plan is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub triage: Option<Triage>,
}

impl Default for Dataflow {
    /// 2 repairs, 5 steps, 3 of them tasks, no triage.
    fn default() -> Self {
        Self {
            max_plan_repairs: 2,
            max_parallel: 5,
            max_model_calls: 3,
            triage: None,
        }
    }
}

/// A look at what was asked, beside the planner: whether it needs a plan at all, and which of the agent's models should
/// answer.
///
/// It costs one more call and no time, if it is quicker than the planner, which it is meant to be. If it says that no plan is
/// needed before there is one, the planner is stopped and the answer is given without tools. It is advice: the plan does not
/// wait for it, and if it fails or comes too late, everything is as without it. The metadata under `plan` says what it said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Triage {
    /// Which of the agent's models is asked: 0 is the first choice, the others are its fallbacks.
    pub asked: u32,
    /// What each of the agent's models is good for, the first choice first, to choose one for the answer. If the chosen one
    /// fails, and the fallbacks behind it, the first choice is asked. Without any, the first choice answers.
    pub models: Vec<String>,
}

impl Triage {
    /// The first choice is asked, and answers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Which of the agent's models is asked.
    #[must_use]
    pub fn with_asked(mut self, asked: u32) -> Self {
        self.asked = asked;
        self
    }

    /// What the next of the agent's models is good for.
    #[must_use]
    pub fn with_model(mut self, good_for: impl Into<String>) -> Self {
        self.models.push(good_for.into());
        self
    }
}

impl Dataflow {
    /// The default numbers.
    pub fn new() -> Self {
        Self::default()
    }

    /// How often the planner is asked again because its plan cannot run.
    #[must_use]
    pub fn with_max_plan_repairs(mut self, max_plan_repairs: u32) -> Self {
        self.max_plan_repairs = max_plan_repairs;
        self
    }

    /// How many steps are under way at the same time; 0 counts as 1.
    #[must_use]
    pub fn with_max_parallel(mut self, max_parallel: u32) -> Self {
        self.max_parallel = max_parallel;
        self
    }

    /// How many of these are tasks; 0 counts as 1.
    #[must_use]
    pub fn with_max_model_calls(mut self, max_model_calls: u32) -> Self {
        self.max_model_calls = max_model_calls;
        self
    }

    /// Looks at what was asked while the plan is written.
    #[must_use]
    pub fn with_triage(mut self, triage: Triage) -> Self {
        self.triage = Some(triage);
        self
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

    pub(crate) fn triage(&self) -> Option<&Triage> {
        self.dataflow.as_ref()?.triage.as_ref()
    }

    /// Makes plans of calls of tools that run side by side.
    #[must_use]
    pub fn with_dataflow(mut self, dataflow: Dataflow) -> Self {
        self.dataflow = Some(dataflow);
        self
    }
}

impl Reflection {
    /// At most so many judgements.
    pub fn new(max_rounds: u32) -> Self {
        Self { max_rounds }
    }
}
