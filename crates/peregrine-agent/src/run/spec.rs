//! What a run is to do and may do, as data. The same for every run of an agent, and kept with each of them.

use std::collections::BTreeMap;
use std::sync::Arc;

pub use peregrine_core::FallbackOn;
use peregrine_core::{ChatRequest, Effect, Message};
use serde::{Deserialize, Serialize};

use crate::run::Form;
use crate::run::strategy::Strategy;
use crate::window::Window;

/// The rules of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RunSpec {
    /// What the model is told before everything else: system messages.
    #[serde(default)]
    pub head: Vec<Arc<Message>>,
    /// Everything of a request but its messages: tools, sampling, scope, metadata.
    #[serde(default)]
    pub template: ChatRequest,
    /// The tools in the template, and how each may be called. What is not here cannot be called.
    #[serde(default)]
    pub tools: BTreeMap<String, ToolRule>,
    /// How many models there are: the first choice and its fallbacks.
    pub models: u32,
    /// After which failures the next model is asked.
    #[serde(default)]
    pub fallback_on: FallbackOn,
    /// How an answer is arrived at.
    #[serde(default)]
    pub strategy: Strategy,
    /// The form of the answer: [`Form::Text`] or [`Form::Answer`].
    pub form: Form,
    /// What planners are told instead of the head; needed by [`Strategy::PlanAndExecute`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planner: Option<Arc<Message>>,
    /// What a [triage](crate::Triage) is told instead of the head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub triage: Option<Arc<Message>>,
    /// What judges are told instead of the head; needed by [`Strategy::Reflection`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub critic: Option<Arc<Message>>,
    /// How much of the conversation is sent.
    #[serde(default)]
    pub window: Window,
    /// The bounds that the run keeps itself.
    #[serde(default)]
    pub limits: Limits,
    /// What happens at a bound.
    #[serde(default)]
    pub on_limit: OnLimit,
    /// Whether a memory is asked before, and told after.
    #[serde(default)]
    pub has_memory: bool,
}

impl Default for RunSpec {
    /// One model, no tools, an answer of text.
    fn default() -> Self {
        Self {
            head: Vec::new(),
            template: ChatRequest::default(),
            tools: BTreeMap::new(),
            models: 1,
            fallback_on: FallbackOn::default(),
            strategy: Strategy::default(),
            form: Form::Text,
            planner: None,
            triage: None,
            critic: None,
            window: Window::default(),
            limits: Limits::default(),
            on_limit: OnLimit::default(),
            has_memory: false,
        }
    }
}

impl RunSpec {
    /// Whether a run without tools is one call and its repairs.
    pub(crate) fn is_direct(&self) -> bool {
        let Self {
            head: _,
            template: _,
            tools,
            models,
            fallback_on: _,
            strategy,
            form: _,
            planner: _,
            triage: _,
            critic: _,
            window,
            limits,
            on_limit: _,
            has_memory,
        } = self;
        tools.is_empty()
            && *models == 1
            && matches!(strategy, Strategy::SingleShot | Strategy::ToolLoop)
            && *window == Window::All
            && limits.max_steps > limits.max_repairs
            && !has_memory
    }
}

/// How a tool may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolRule {
    /// What calling it does to the world.
    pub effect: Effect,
    /// Whether a person is asked first.
    #[serde(default)]
    pub ask: bool,
}

/// The bounds that a run keeps itself. Tokens, money and time are a [`Budget`](crate::Budget)'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// How often models are asked, in all.
    pub max_steps: u32,
    /// How often tools are called, in all.
    pub max_tool_calls: u32,
    /// How many bytes the results of tools have together.
    pub max_tool_output_bytes: u64,
    /// How often a model is asked again because its answer has not the form that was asked for, in each thread.
    pub max_repairs: u32,
}

impl Default for Limits {
    /// 16 steps, 64 tool calls, 512 KiB of results, 2 repairs.
    fn default() -> Self {
        Self {
            max_steps: 16,
            max_tool_calls: 64,
            max_tool_output_bytes: 512 << 10,
            max_repairs: 2,
        }
    }
}

/// What happens when a limit is reached. What was done is kept either way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnLimit {
    /// The run ends.
    #[default]
    End,
    /// The run stops, and goes on when it is told to.
    Pause,
}
