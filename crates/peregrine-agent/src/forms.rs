//! The forms in which strategies ask models for plans and judgements: signatures, compiled once.

use std::sync::{Arc, LazyLock};

use peregrine_core::Message;
use peregrine_signatures::{Compiled, Field, Fields, SignatureSpec, Type};
use serde_json::{Map, Value};

/// The most steps that any plan may have.
pub const MAX_PLAN_STEPS: usize = 64;

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
    }

    #[test]
    fn an_answer_that_is_not_accepted_always_has_a_problem() {
        let judged = |text: &str| problems(serde_json::from_str::<Value>(text).unwrap().as_object().unwrap());
        assert!(judged(r#"{"problems": ["a"], "accept": true}"#).is_empty());
        assert_eq!(judged(r#"{"problems": ["a"], "accept": false}"#), ["a"]);
        assert_eq!(judged(r#"{"problems": [], "accept": false}"#).len(), 1);
    }
}
