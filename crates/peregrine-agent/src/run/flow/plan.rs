//! Plans of calls of tools: as they are read from a planner, what is wrong with them, and what the executor is told of them.
//!
//! All of it is data in, data out. What a planner writes is hostile: it is bounded in steps, bytes and depth before anything
//! of it is looked at twice.

use std::collections::{BTreeMap, BTreeSet};

use peregrine_core::{Effect as ToolEffect, ToolResult, ToolSpec};
use peregrine_executor::{
    Action, ActionError, ActionInfo, ActionResult, Actions, BoxFuture, Effect, Executor, MAX_DEPTH, Plan,
    Resources, Step, StepCall, VirtualTimer,
};
use peregrine_tools::schema::Validator;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::forms::MAX_DATAFLOW_STEPS;
use crate::run::RunSpec;
use crate::run::compose::sorted;
use crate::run::strategy::Dataflow;

/// How large a plan may be, as JSON.
const MAX_PLAN_BYTES: usize = 1 << 20;
/// How much results may take that are put into the arguments of one step.
const MAX_ARGUMENT_BYTES: usize = 1 << 20;
/// How many problems a planner is told at a time.
const MAX_PROBLEMS: usize = 16;
/// The name, among actions, of a step in words; no tool has it.
const TASK: &str = "(task)";
/// The name, among actions, of a step that was done by an earlier plan.
const KEPT: &str = "(known)";
/// What steps with side effects write, so that they are done one after the other.
const WORLD: &str = "(world)";

/// A step, as a planner writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlannedStep {
    pub(super) id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tool: Option<String>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub(super) arguments: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) task: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) depends_on: Vec<String>,
}

/// A step that is done, and its result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(super) step: PlannedStep,
    pub(super) value: Value,
}

impl PlannedStep {
    /// What it does, in a line.
    pub(super) fn what(&self) -> String {
        match (&self.tool, &self.task) {
            (Some(tool), _) => format!("{tool}({})", Value::Object(self.arguments.clone())),
            (None, task) => task.clone().unwrap_or_default(),
        }
    }

    fn is_same_work(&self, other: &Self) -> bool {
        (&self.id, &self.tool, &self.arguments, &self.task)
            == (&other.id, &other.tool, &other.arguments, &other.task)
    }
}

/// The steps of an answer in the form of a plan, without those that are done already.
///
/// # Errors
///
/// What is wrong, for the planner.
pub(super) fn read(
    answer: &Map<String, Value>,
    kept: &[Kept],
    max_steps: u32,
    spec: &RunSpec,
) -> Result<Vec<PlannedStep>, Vec<String>> {
    let given = answer.get("steps").and_then(Value::as_array);
    let given = given.map(Vec::as_slice).unwrap_or_default();
    let max = (max_steps as usize).min(MAX_DATAFLOW_STEPS);
    if given.len() > max {
        return Err(vec![format!(
            "it has {} steps; at most {max} are allowed",
            given.len()
        )]);
    }
    if !is_within(answer, MAX_PLAN_BYTES) {
        return Err(vec![format!("it takes more than {} KiB", MAX_PLAN_BYTES >> 10)]);
    }
    let mut problems = Problems::default();
    let mut steps = Vec::with_capacity(given.len());
    for (place, step) in given.iter().enumerate() {
        match PlannedStep::deserialize(step) {
            Ok(step) => {
                if !kept.iter().any(|kept| kept.step.is_same_work(&step)) {
                    steps.push(step);
                }
            }
            Err(error) => problems.push(|| format!("step {place} cannot be read: {error}")),
        }
    }
    check(&steps, kept, spec, &mut problems);
    problems.into_result().map(|()| steps)
}

/// Whether a value takes at most so many bytes as JSON; looks at no more than that.
fn is_within(value: &impl Serialize, bytes: usize) -> bool {
    struct Left(usize);
    impl std::io::Write for Left {
        fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
            match self.0.checked_sub(buffer.len()) {
                Some(left) => self.0 = left,
                None => return Err(std::io::ErrorKind::StorageFull.into()),
            }
            Ok(buffer.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    serde_json::to_writer(Left(bytes), value).is_ok()
}

fn check(steps: &[PlannedStep], kept: &[Kept], spec: &RunSpec, problems: &mut Problems) {
    let mut validators: BTreeMap<&str, Option<Validator>> = BTreeMap::new();
    for step in steps {
        let PlannedStep {
            id,
            tool,
            arguments,
            task,
            depends_on: _,
        } = step;
        if kept.iter().any(|kept| kept.step.id == *id) {
            problems.push(|| {
                format!(
                    "the id `{id}` is that of a step that is done; refer to its result, or use another id"
                )
            });
        }
        match (tool, task) {
            (Some(tool), None) => {
                let Some(found) = tool_spec(spec, tool) else {
                    problems.push(|| unknown_tool(id, tool, spec));
                    continue;
                };
                let validator = validators
                    .entry(&found.name)
                    .or_insert_with(|| Validator::new(found.parameters.value()).ok());
                if let Some(validator) = validator {
                    check_arguments(id, arguments, validator, problems);
                }
            }
            (None, Some(_)) if arguments.is_empty() => {}
            (None, Some(_)) => {
                problems.push(|| format!("step `{id}` is a task, and a task has no arguments"))
            }
            (Some(_), Some(_)) => {
                problems.push(|| format!("step `{id}` has a tool and a task; a step has one of them"));
            }
            (None, None) => problems.push(|| format!("step `{id}` has neither a tool nor a task")),
        }
    }
    // References, ids, cycles. Tools that there are not were told above.
    if let Err(error) = compile(steps, kept, spec) {
        for problem in error.problems() {
            problems.push(|| problem.to_string());
        }
    }
}

fn unknown_tool(id: &str, tool: &str, spec: &RunSpec) -> String {
    let tool: String = tool.chars().take(64).collect();
    let known = spec.template.tools.iter().take(32);
    let known: Vec<&str> = known.map(|tool| tool.name.as_str()).collect();
    format!(
        "step `{id}` calls `{tool}`, which there is not; there are {}",
        match known.is_empty() {
            true => "none".to_owned(),
            false => known.join(", "),
        }
    )
}

/// The tool of this name, if it may be called at all.
fn tool_spec<'s>(spec: &'s RunSpec, name: &str) -> Option<&'s ToolSpec> {
    let found = spec.template.tools.iter().find(|tool| tool.name == name)?;
    spec.tools.contains_key(name).then_some(found)
}

/// Compares arguments with their schema, but for what references will stand for.
fn check_arguments(id: &str, arguments: &Map<String, Value>, validator: &Validator, problems: &mut Problems) {
    let value = Value::Object(arguments.clone());
    let Err(wrong) = validator.check(&value) else {
        return;
    };
    let mut unknown = Vec::new();
    references(&value, &mut String::new(), &mut unknown);
    for problem in wrong {
        // A long path is cut at its start.
        let concerns = |place: &String| is_below(place, &problem.path) || is_below(&problem.path, place);
        if problem.path.starts_with('…') || unknown.iter().any(concerns) {
            continue;
        }
        problems.push(|| format!("the arguments of step `{id}` do not fit: {}", problem.for_model()));
    }
}

/// Whether one place in a value is the other, or in it.
fn is_below(place: &str, above: &str) -> bool {
    place
        .strip_prefix(above)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The places of texts that may refer to something. As deep as the value, which parsers bound.
fn references(value: &Value, path: &mut String, found: &mut Vec<String>) {
    let length = path.len();
    match value {
        Value::String(text) if text.contains('$') => found.push(path.clone()),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                path.push_str(&format!("/{index}"));
                references(item, path, found);
                path.truncate(length);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                path.push('/');
                path.push_str(&name.replace('~', "~0").replace('/', "~1"));
                references(field, path, found);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

/// The plan as the executor reads it: what is known first, then the steps.
///
/// # Errors
///
/// Ids, references and dependencies that make no sense.
pub(super) fn compile(
    steps: &[PlannedStep],
    kept: &[Kept],
    spec: &RunSpec,
) -> Result<Plan, peregrine_executor::PlanError> {
    let known = kept.iter().map(|kept| Step::new(kept.step.id.as_str(), KEPT));
    let ours = steps.iter().map(|step| {
        let (action, parameters) = match (&step.tool, &step.task) {
            (Some(tool), _) => (tool.as_str(), Value::Object(step.arguments.clone())),
            (None, task) => (TASK, Value::from(task.clone().unwrap_or_default())),
        };
        let mut made = Step::new(step.id.as_str(), action).with_parameters(parameters);
        made.depends_on.clone_from(&step.depends_on);
        made.resources = resources(step, spec);
        made
    });
    Plan::new(known.chain(ours).collect::<Vec<_>>())
}

/// What keeps calls apart that may not run side by side: those with side effects, and idempotent ones that are or may become
/// the same, because the same twice would be done twice at the same time.
fn resources(step: &PlannedStep, spec: &RunSpec) -> Resources {
    let mut resources = Resources::default();
    let rule = step.tool.as_ref().and_then(|tool| spec.tools.get_key_value(tool));
    match rule.map(|(name, rule)| (name, rule.effect)) {
        None | Some((_, ToolEffect::ReadOnly)) => {}
        Some((_, ToolEffect::SideEffect)) => resources.write.push(WORLD.to_owned()),
        Some((name, ToolEffect::Idempotent)) => {
            let arguments = Value::Object(step.arguments.clone());
            let mut unknown = Vec::new();
            references(&arguments, &mut String::new(), &mut unknown);
            if unknown.is_empty() {
                resources.read.push(name.clone());
                resources.write.push(format!("{name} {}", sorted(&arguments)));
            } else {
                resources.write.push(name.clone());
            }
        }
    }
    resources
}

/// An executor that knows the tools of a run, and performs nothing.
pub(super) fn executor(spec: &RunSpec, numbers: &Dataflow) -> Executor {
    let reads = || ActionInfo::new(Effect::ReadOnly);
    let mut actions = Actions::new()
        .with(TASK, reads().with_model_call(), Elsewhere)
        .with(KEPT, reads(), Elsewhere);
    for (name, rule) in &spec.tools {
        let effect = match rule.effect {
            ToolEffect::ReadOnly => Effect::ReadOnly,
            ToolEffect::Idempotent => Effect::Idempotent,
            ToolEffect::SideEffect => Effect::SideEffect,
        };
        actions = actions.with(name.as_str(), ActionInfo::new(effect), Elsewhere);
    }
    // A run has no time, and its steps no time limits or retries.
    Executor::new(actions, VirtualTimer::new())
        .with_max_parallel(numbers.max_parallel as usize)
        .with_max_model_calls(numbers.max_model_calls as usize)
        .with_max_parameter_bytes(MAX_ARGUMENT_BYTES)
        // The run bounds them itself.
        .with_max_result_bytes(usize::MAX)
}

/// The action of every step: the run has it performed, and tells what came of it.
struct Elsewhere;

impl Action for Elsewhere {
    fn call(&self, _: StepCall) -> BoxFuture<ActionResult> {
        let error = ActionError::new("steps of an agent's plan are performed by the agent's run");
        Box::pin(std::future::ready(Err(error)))
    }
}

/// What a result is to those who refer to it: JSON where it is that, with its types, else its text.
pub(super) fn value_of(result: &ToolResult) -> Value {
    let text = result.text();
    match serde_json::from_str::<Value>(&text) {
        // A number that would not be the same again, such as a long identifier, is text.
        Ok(Value::Number(number)) if number.to_string() != text => Value::String(text),
        // What nests deeper may not be put into arguments.
        Ok(value) if nests_within(&value, MAX_DEPTH) => value,
        _ => Value::String(text),
    }
}

fn nests_within(value: &Value, depth: usize) -> bool {
    let below = |value| depth > 0 && nests_within(value, depth - 1);
    match value {
        Value::Array(items) => depth > 0 && items.iter().all(below),
        Value::Object(fields) => depth > 0 && fields.values().all(below),
        _ => true,
    }
}

/// Arguments with results put in, with numbers and the like as text where the tool takes nothing but text: what a tool
/// returned as text may look like a number.
pub(super) fn fitted(arguments: Value, tool: &str, spec: &RunSpec) -> Value {
    let mut arguments = arguments;
    let schema = tool_spec(spec, tool).map(|tool| tool.parameters.value());
    let properties = schema.and_then(|schema| schema.get("properties")?.as_object());
    if let (Value::Object(arguments), Some(properties)) = (&mut arguments, properties) {
        for (name, argument) in arguments {
            let takes_text = || {
                properties
                    .get(name)?
                    .get("type")?
                    .as_str()
                    .map(|name| name == "string")
            };
            if matches!(argument, Value::Number(_) | Value::Bool(_)) && takes_text() == Some(true) {
                *argument = Value::String(argument.to_string());
            }
        }
    }
    arguments
}

/// What a planner is told of the tools: what each does to the world, and the schema of its arguments.
pub(super) fn catalogue(spec: &RunSpec) -> String {
    let offered = spec.template.tools.iter();
    let tools: Vec<String> = offered
        .filter_map(|tool| {
            let does = match spec.tools.get(&tool.name)?.effect {
                ToolEffect::ReadOnly => "changes nothing",
                ToolEffect::Idempotent => "changes something, once or more is the same",
                ToolEffect::SideEffect => "changes something each time",
            };
            let ToolSpec {
                name,
                description,
                parameters,
                ..
            } = tool;
            Some(format!(
                "{name} ({does}): {description}\n  arguments: {}",
                parameters.as_str()
            ))
        })
        .collect();
    match tools.is_empty() {
        true => "(none)".to_owned(),
        false => tools.join("\n"),
    }
}

/// Problems for a planner, each once, up to a bound.
#[derive(Default)]
struct Problems {
    known: BTreeSet<String>,
    told: Vec<String>,
    more: usize,
}

impl Problems {
    fn push(&mut self, problem: impl FnOnce() -> String) {
        if self.told.len() >= MAX_PROBLEMS {
            self.more += 1;
            return;
        }
        let problem = problem();
        if self.known.insert(problem.clone()) {
            self.told.push(problem);
        }
    }

    fn into_result(mut self) -> Result<(), Vec<String>> {
        if self.told.is_empty() {
            return Ok(());
        }
        if self.more > 0 {
            self.told.push(format!("and {} more", self.more));
        }
        Err(self.told)
    }
}
