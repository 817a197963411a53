//! What the tests of plans of calls of tools share: planners by script, tools that keep what they are called with.

use std::sync::{Arc, Mutex};

use peregrine_agent::{Agent, Dataflow, PlanAndExecute, RunOutput, Strategy};
use peregrine_core::{ChatModel, ChatRequest, ChatResponse, Effect, JsonSchema, ToolSpec};
use peregrine_tools::{FnTool, ToolContext, ToolError, ToolInfo, ToolOutput};
use serde_json::{Value, json};

use crate::support::{Script, text};

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Asked {
    Planner,
    Triage,
    Task,
    Answer,
}

pub(crate) fn who(request: &ChatRequest) -> Asked {
    let head = request.messages.get(0).unwrap().text();
    if head.contains("Plan how a task is done") {
        Asked::Planner
    } else if head.contains("Say how a task is to be gone about") {
        Asked::Triage
    } else if last(request).contains("Do only this step now") {
        Asked::Task
    } else {
        Asked::Answer
    }
}

pub(crate) fn last(request: &ChatRequest) -> String {
    request.messages.last().unwrap().text()
}

pub(crate) fn plan(steps: &Value) -> ChatResponse {
    text(&json!({"steps": steps}).to_string())
}

/// Writes these plans, one after the other, and answers everything else with what it was told last.
pub(crate) fn planner(plans: impl IntoIterator<Item = Value>) -> Script {
    let plans: Vec<Value> = plans.into_iter().collect();
    let written = Mutex::new(0);
    Script::new(move |request, _| {
        Ok(match who(request) {
            Asked::Planner => {
                let mut written = written.lock().unwrap();
                *written += 1;
                plan(&plans[(*written - 1_usize).min(plans.len() - 1)])
            }
            Asked::Triage => text(r#"{"needs_plan": true, "model": 0}"#),
            Asked::Task | Asked::Answer => text(&last(request)),
        })
    })
}

/// What tools were called with.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<(String, Value)>>>);

impl Log {
    pub(crate) fn names(&self) -> Vec<String> {
        let calls = self.0.lock().unwrap();
        calls.iter().map(|(name, _)| name.clone()).collect()
    }

    pub(crate) fn of(&self, name: &str) -> Vec<Value> {
        let calls = self.0.lock().unwrap();
        let ours = calls.iter().filter(|(called, _)| called == name);
        ours.map(|(_, arguments)| arguments.clone()).collect()
    }

    /// A tool that notes what it is called with and gives what the function makes of that.
    pub(crate) fn tool(
        &self,
        name: &'static str,
        effect: Effect,
        parameters: Value,
        work: impl Fn(&Value) -> Result<ToolOutput, ToolError> + Send + Sync + 'static,
    ) -> FnTool {
        let log = self.clone();
        let spec = ToolSpec::new(name, "", JsonSchema::new(parameters));
        FnTool::raw(
            ToolInfo::new(spec).with_effect(effect),
            move |_: ToolContext, arguments: Value| {
                log.0.lock().unwrap().push((name.to_owned(), arguments.clone()));
                let output = work(&arguments);
                async move {
                    tokio::task::yield_now().await;
                    output
                }
            },
        )
    }

    /// A tool that takes anything.
    pub(crate) fn any(
        &self,
        name: &'static str,
        effect: Effect,
        work: impl Fn(&Value) -> Result<ToolOutput, ToolError> + Send + Sync + 'static,
    ) -> FnTool {
        self.tool(name, effect, json!({"type": "object"}), work)
    }
}

pub(crate) fn strategy(numbers: PlanAndExecute, dataflow: Dataflow) -> Strategy {
    Strategy::PlanAndExecute(numbers.with_dataflow(dataflow))
}

pub(crate) fn agent(model: impl ChatModel) -> Agent {
    Agent::new(model).with_strategy(strategy(PlanAndExecute::new(16), Dataflow::new()))
}

pub(crate) fn facts(output: &RunOutput) -> &Value {
    &output.response.metadata["plan"]
}

/// How many are under way, and the most there were.
#[derive(Clone, Default)]
pub(crate) struct Gauge(Arc<Mutex<(usize, usize)>>);

impl Gauge {
    pub(crate) fn enter(&self) {
        let mut counts = self.0.lock().unwrap();
        counts.0 += 1;
        counts.1 = counts.1.max(counts.0);
    }

    pub(crate) fn leave(&self) {
        self.0.lock().unwrap().0 -= 1;
    }

    /// How many are under way, and the most there were.
    pub(crate) fn counts(&self) -> (usize, usize) {
        *self.0.lock().unwrap()
    }
}
