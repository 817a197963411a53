//! The forms in which strategies ask models for plans and judgements: signatures, compiled once.

use std::sync::{Arc, LazyLock};

use peregrine_core::{JsonSchema, Message};
use peregrine_signatures::{Compiled, Field, Fields, SignatureSpec, Type};
use serde_json::{Map, Value, json};

/// The most steps that a plan of instructions may have.
pub const MAX_PLAN_STEPS: usize = 64;
/// The most steps that a plan of calls of tools may have.
pub const MAX_DATAFLOW_STEPS: usize = 256;

/// The signature of plans: `task, tools, known -> steps`.
pub fn plan() -> &'static Arc<Compiled> {
    static PLAN: LazyLock<Arc<Compiled>> = LazyLock::new(|| {
        SignatureSpec::new("plan")
            .with_instruction(
                "Split a task into steps that are done one after the other. Each step is carried out by someone who sees \
                 the task, that step and the results of the steps before it, and who can call the tools. Do not answer \
                 the task. Use as few steps as will do.",
            )
            .with_input(Field::new("task", Type::Text).with_description("what is to be done"))
            .with_input(Field::new("tools", Type::Text).with_description("what can be called"))
            .with_input(Field::new("known", Type::Text).with_description("what earlier attempts found out"))
            .with_output(
                Field::new("steps", Type::list(Type::Text))
                    .with_description("each step as an instruction")
                    .with_length(1..=MAX_PLAN_STEPS),
            )
            .compile()
            .expect("the signature is a constant")
    });
    &PLAN
}

/// The signature of plans of calls of tools: `task, tools, known -> steps`.
pub fn dataflow() -> &'static Arc<Compiled> {
    static DATAFLOW: LazyLock<Arc<Compiled>> = LazyLock::new(|| {
        let step = JsonSchema::new(json!({
            "type": "object",
            "properties": {
                "id": {
                    "type": "string",
                    "description": "a short name, of letters, digits and _; other steps refer to it",
                },
                "tool": {"type": ["string", "null"], "description": "the tool that it calls"},
                "arguments": {"type": "object", "description": "its arguments; `$id` and `$id.field` stand for results"},
                "task": {"type": ["string", "null"], "description": "instead of a tool: what to do, in words"},
                "depends_on": {
                    "type": "array",
                    "items": {"type": "string"},
                    "description": "ids of steps that must be done before, besides those that it refers to",
                },
            },
            "required": ["id"],
            "additionalProperties": false,
        }));
        SignatureSpec::new("dataflow")
            .with_instruction(
                "Plan how a task is done, as steps that call tools. Each step has an `id` and calls one `tool` with \
                 `arguments`. Anywhere in the arguments, `$id` stands for the result of the step with that id, and \
                 `$id.field` or `$id.items[0].name` for something in it; a dollar sign itself is written `$$`. A step starts \
                 when the steps that it refers to, and those in its `depends_on`, are done. Steps that do not wait for each \
                 other run at the same time. Where no tool will do (to judge, to sum up, to write), a step has a `task` in \
                 words instead of a tool, with references like those in arguments. What is known already may be referred to \
                 by its id and is not done again. Do not answer the task: somebody else will, from the results of the steps. \
                 Use as few steps as will do, and none if there is nothing to find out or to do.",
            )
            .with_input(Field::new("task", Type::Text).with_description("what is to be done"))
            .with_input(Field::new("tools", Type::Text).with_description("what can be called"))
            .with_input(Field::new("known", Type::Text).with_description("what earlier plans found out"))
            .with_output(
                Field::new("steps", Type::list(Type::Schema(step))).with_length(0..=MAX_DATAFLOW_STEPS),
            )
            .compile()
            .expect("the signature is a constant")
    });
    &DATAFLOW
}

/// The signature of a look at what was asked: `task, tools, models -> needs_plan, model`.
pub fn triage() -> &'static Arc<Compiled> {
    static TRIAGE: LazyLock<Arc<Compiled>> = LazyLock::new(|| {
        SignatureSpec::new("triage")
            .with_instruction(
                "Say how a task is to be gone about. Do not do it. It needs a plan if tools have to be called for it; it \
                 does not if it can be answered well from what is said and from what everybody knows.",
            )
            .with_input(Field::new("task", Type::Text).with_description("what was asked"))
            .with_input(Field::new("tools", Type::Text).with_description("what can be called"))
            .with_input(Field::new("models", Type::Text).with_description("who can answer, by number"))
            .with_output(Field::new("needs_plan", Type::Boolean).with_description("whether tools have to be called"))
            .with_output(
                Field::new("model", Type::Integer)
                    .with_range(0..)
                    .with_description("the number of the one who is to answer; 0 if it does not matter"),
            )
            .compile()
            .expect("the signature is a constant")
    });
    &TRIAGE
}

/// The signature of judgements: `task, answer -> problems, accept`.
pub fn critique() -> &'static Arc<Compiled> {
    static CRITIQUE: LazyLock<Arc<Compiled>> = LazyLock::new(|| {
        SignatureSpec::new("critique")
            .with_instruction(
                "Judge an answer to a task. Look for what is wrong, missing or not supported. Accept it if nothing needs \
                 to be changed.",
            )
            .with_input(Field::new("task", Type::Text).with_description("what was asked"))
            .with_input(Field::new("answer", Type::Text).with_description("the answer to be judged"))
            .with_output(
                Field::new("problems", Type::list(Type::Text))
                    .with_description("what is to be changed, one thing each; empty if nothing is"),
            )
            .with_output(Field::new("accept", Type::Boolean).with_description("whether the answer can stand as it is"))
            .compile()
            .expect("the signature is a constant")
    });
    &CRITIQUE
}

/// The user's message of a form whose inputs are all text.
pub(crate) fn ask(signature: &Compiled, inputs: &[(&str, &str)]) -> Message {
    let fields: Fields = inputs
        .iter()
        .map(|(name, text)| ((*name).to_owned(), Value::from(*text)))
        .collect();
    signature
        .user(&fields)
        .expect("the inputs are those of the signature")
}

/// The steps of a plan that was read.
pub(crate) fn steps(value: &Map<String, Value>) -> Vec<String> {
    texts(value, "steps")
}

/// What a judgement that was read asks to be changed; empty if the answer can stand.
pub(crate) fn problems(value: &Map<String, Value>) -> Vec<String> {
    match value.get("accept").and_then(Value::as_bool) {
        Some(true) => Vec::new(),
        _ => match texts(value, "problems") {
            none if none.is_empty() => vec!["it was not accepted; the reason was not given".to_owned()],
            problems => problems,
        },
    }
}

fn texts(value: &Map<String, Value>, name: &str) -> Vec<String> {
    let items = value.get(name).and_then(Value::as_array);
    items
        .into_iter()
        .flatten()
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_compile_and_take_their_inputs() {
        let asked = ask(plan(), &[("task", "a"), ("tools", "b"), ("known", "c")]);
        assert!(asked.text().contains("<task>"), "{}", asked.text());
        ask(critique(), &[("task", "a"), ("answer", "b")]);
        ask(dataflow(), &[("task", "a"), ("tools", "b"), ("known", "c")]);
        ask(triage(), &[("task", "a"), ("tools", "b"), ("models", "c")]);
    }

    #[test]
    fn an_answer_that_is_not_accepted_always_has_a_problem() {
        let judged = |text: &str| problems(serde_json::from_str::<Value>(text).unwrap().as_object().unwrap());
        assert!(judged(r#"{"problems": ["a"], "accept": true}"#).is_empty());
        assert_eq!(judged(r#"{"problems": ["a"], "accept": false}"#), ["a"]);
        assert_eq!(judged(r#"{"problems": [], "accept": false}"#).len(), 1);
    }
}
