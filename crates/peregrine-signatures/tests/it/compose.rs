//! Compositions: what is checked before, and what runs.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use peregrine_core::{ChatModel, ChatRequest, ChatResponse, ModelInfo, Usage};
use peregrine_signatures::{
    Composition, Error, Field, Fields, Signature as _, SignatureSpec, Stage, Type, parse,
};
use serde_json::{Value, json};

use crate::derive::TriageOutput;
use crate::model::{Script, run};

fn stage(text: &str) -> Stage {
    Stage::new(parse(text).unwrap())
}

fn fields(value: Value) -> Fields {
    match value {
        Value::Object(fields) => fields,
        other => panic!("{other}"),
    }
}

#[test]
fn a_sequence_feeds_outputs_to_inputs() {
    let pipeline = Composition::sequential(
        "report",
        [
            stage("article -> summary, length: int").with_name("summarise"),
            stage("text, language, length: float -> text")
                .with_name("translate")
                .with_input("text", "summary")
                .with_asked("language")
                .with_output("text", "translation"),
        ],
    )
    .unwrap();
    assert_eq!(
        pipeline.input_names().collect::<Vec<_>>(),
        ["article", "language"]
    );
    assert_eq!(pipeline.output_names().collect::<Vec<_>>(), ["translation"]);
    let model = Script::texts([r#"{"summary": "short", "length": 5}"#, r#"{"text": "kurz"}"#]);
    let inputs = fields(json!({"article": "long", "language": "de"}));
    let composed = run(pipeline.call(&model, &inputs)).unwrap();
    assert_eq!(composed.output, fields(json!({"translation": "kurz"})));
    assert_eq!(composed.usage, Some(Usage::new(20, 2)));
    let names: Vec<&str> = composed
        .predictions
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["summarise", "translate"]);
    let second = model.asked()[1].messages.get(1).unwrap().text();
    assert_eq!(
        second,
        "<text>\nshort\n</text>\n<language>\nde\n</language>\n<length>\n5\n</length>"
    );
}

#[test]
fn wires_are_checked_before_anything_runs() {
    let problem = |built: Result<Composition, Error>| built.unwrap_err().to_string();
    let two = |second: Stage| {
        let first = stage("a -> n: int, s: list[str], o: float?").with_name("first");
        problem(Composition::sequential("c", [first, second.with_name("second")]))
    };
    for (second, expected) in [
        (
            stage("x -> y"),
            "input `x` of `second` gets no value; wire it to one of: a, n, s, o",
        ),
        (
            stage("x -> y").with_input("x", "nn"),
            "`nn`, wired to input `x` of `second`, does not exist; there are: a, n, s, o",
        ),
        (
            stage("x -> y").with_input("z", "n"),
            "`second` has no input `z`; it has: x",
        ),
        (
            stage("x -> y").with_input("x", "n"),
            "`n` does not fit input `x` of `second`: not every integer is string",
        ),
        (
            stage("x: list[int] -> y").with_input("x", "s"),
            "`s` does not fit input `x` of `second`: in its items, not every string is integer",
        ),
        (
            stage("o: float -> y"),
            "`o` does not fit input `o` of `second`: not every null is number",
        ),
        (
            stage("a -> n"),
            "`first` and `second` both provide `n`; rename it with `with_output`",
        ),
        (
            stage("a -> a"),
            "`c` and `second` both provide `a`; rename it with `with_output`",
        ),
        (
            stage("a -> y").with_output("z", "q"),
            "`z`, wired to input `q` of `second`, does not exist; there are: y",
        ),
    ] {
        assert_eq!(two(second), expected);
    }
    assert_eq!(
        problem(Composition::parallel("p", [])),
        "a composition needs at least one step"
    );
    assert_eq!(
        problem(Composition::parallel(
            "p",
            [stage("a -> b"), stage("a: int -> c")]
        )),
        "`a` does not fit input `a` of `signature`: not every string is integer"
    );
    assert_eq!(
        problem(Composition::parallel(
            "p",
            [stage("a: image -> b"), stage("a -> c")]
        )),
        "`a` does not fit input `a` of `signature`: image is not string"
    );
}

#[test]
fn every_value_of_an_output_must_fit_the_input() {
    let fits = |from: Field, to: Field| {
        let one = SignatureSpec::new("one")
            .with_input(Field::new("a", Type::Text))
            .with_output(from);
        let two = SignatureSpec::new("two")
            .with_input(to)
            .with_output(Field::new("z", Type::Text));
        Composition::sequential(
            "c",
            [
                Stage::new(one.compile().unwrap()),
                Stage::new(two.compile().unwrap()),
            ],
        )
        .is_ok()
    };
    let x = |ty: Type| Field::new("x", ty);
    let object =
        |fields: &[(&str, Type)]| Type::object(fields.iter().map(|(name, ty)| Field::new(*name, ty.clone())));
    for (from, to, expected) in [
        (x(Type::Integer), x(Type::Number), true),
        (x(Type::Number), x(Type::Integer), false),
        (x(Type::of::<u8>()), x(Type::of::<u32>()), true),
        (x(Type::of::<u32>()), x(Type::of::<u8>()), false),
        (x(Type::of::<i64>()), x(Type::of::<u64>()), false),
        (x(Type::Integer).with_range(0..=9), x(Type::of::<u8>()), true),
        (
            x(Type::Integer).with_range(2..5),
            x(Type::Integer).with_range(1..=5),
            true,
        ),
        (
            x(Type::Integer).with_range(2..=5),
            x(Type::Integer).with_range(2..5),
            false,
        ),
        (
            x(Type::Text).with_length(1..=3),
            x(Type::Text).with_length(..=4),
            true,
        ),
        (x(Type::Text), x(Type::Text).with_length(..=4), false),
        (x(Type::Text), x(Type::optional(Type::Text)), true),
        (x(Type::optional(Type::Text)), x(Type::Text), false),
        (x(Type::one_of(["a", "b"])), x(Type::Text), true),
        (x(Type::one_of(["a"])), x(Type::one_of(["b", "a"])), true),
        (x(Type::one_of(["a", "c"])), x(Type::one_of(["b", "a"])), false),
        (x(Type::Text), x(Type::one_of(["a"])), false),
        (x(Type::Date), x(Type::Text), true),
        (x(Type::Text), x(Type::Date), false),
        (x(Type::list(Type::Integer)), x(Type::list(Type::Number)), true),
        (x(Type::of::<(u8, u8)>()), x(Type::list(Type::Number)), true),
        (x(Type::Any), x(Type::Text), false),
        (x(Type::Text), x(Type::Any), true),
        (
            x(object(&[("p", Type::Text), ("q", Type::Integer)])),
            x(object(&[("p", Type::Text)])),
            false,
        ),
        (
            x(object(&[("p", Type::Text)])),
            x(object(&[("p", Type::Text), ("q", Type::Integer)])),
            false,
        ),
        (
            x(object(&[("p", Type::Integer)])),
            x(object(&[("p", Type::Number)])),
            true,
        ),
        (
            x(object(&[("p", Type::Integer)])),
            x(Type::map(Type::Number)),
            true,
        ),
        (
            x(Type::map(Type::Number)),
            x(object(&[("p", Type::Integer)])),
            false,
        ),
        (x(Type::of::<TreeNode>()), x(Type::of::<TreeNode>()), true),
        (x(Type::of::<TreeNode>()), x(Type::of::<OtherTree>()), false),
    ] {
        assert_eq!(fits(from.clone(), to.clone()), expected, "{from:?} to {to:?}");
    }
}

#[derive(serde::Serialize, serde::Deserialize, peregrine_signatures::JsonSchema)]
#[schemars(crate = "peregrine_signatures::schemars")]
struct TreeNode {
    value: u8,
    children: Vec<TreeNode>,
}

#[derive(serde::Serialize, serde::Deserialize, peregrine_signatures::JsonSchema)]
#[schemars(crate = "peregrine_signatures::schemars")]
struct OtherTree {
    value: i8,
    children: Vec<OtherTree>,
}

#[test]
fn compositions_hold_compositions() {
    let review = Composition::parallel(
        "review",
        [
            stage("text -> tone").with_name("tone"),
            stage("text, rules: list[str] -> errors: list[str]").with_name("errors"),
        ],
    )
    .unwrap();
    let whole = Composition::sequential(
        "whole",
        [
            stage("topic -> draft").with_name("write"),
            Stage::composition(review)
                .with_input("text", "draft")
                .with_asked("rules"),
            stage("draft, tone, errors: list[str] -> final_text").with_name("mend"),
        ],
    )
    .unwrap();
    assert_eq!(whole.input_names().collect::<Vec<_>>(), ["topic", "rules"]);
    let model = Script::texts([
        r#"{"draft": "d"}"#,
        r#"{"tone": "t"}"#,
        r#"{"errors": ["e"]}"#,
        r#"{"final_text": "f"}"#,
    ]);
    let composed = run(whole.call(&model, &fields(json!({"topic": "x", "rules": ["r"]})))).unwrap();
    assert_eq!(composed.output, fields(json!({"final_text": "f"})));
    let names: Vec<&str> = composed
        .predictions
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["write", "tone", "errors", "mend"]);
    let mended = model.asked()[3].messages.get(1).unwrap().text();
    assert_eq!(
        mended,
        "<draft>\nd\n</draft>\n<tone>\nt\n</tone>\n<errors>\n[\"e\"]\n</errors>"
    );
}

#[test]
fn inputs_of_the_whole_are_checked() {
    let whole = Composition::sequential("whole", [stage("topic, n: int -> draft")]).unwrap();
    let model = Script::texts([]);
    let problem = |inputs: Value| run(whole.call(&model, &fields(inputs))).unwrap_err().to_string();
    assert_eq!(
        problem(json!({"topic": "x"})),
        "input `n` of `whole` can not be used: it is missing"
    );
    assert_eq!(
        problem(json!({"topic": "x", "n": 1, "m": 1})),
        "input `m` of `whole` can not be used: there is no such input, only topic, n"
    );
    assert_eq!(
        problem(json!({"topic": "x", "n": "1"})),
        "input `n` of `signature` can not be used: `n`: expected integer, found \"1\""
    );
    assert!(model.asked().is_empty());
}

#[test]
fn outputs_of_the_whole_are_typed_as_those_of_a_signature() {
    use crate::derive::Triage;
    use peregrine_signatures::Signature;
    let compiled = Triage::compiled().unwrap();
    let whole = Composition::sequential("whole", [Stage::new(compiled.clone())]).unwrap();
    let model = Script::texts([r#"{"urgency": 3, "queue": "billing", "tags": ["x"]}"#]);
    let inputs = compiled.fields(&crate::derive::TriageInput::new("t")).unwrap();
    let output: TriageOutput = run(whole.call(&model, &inputs)).unwrap().into_output().unwrap();
    assert_eq!(output.urgency, 3);
}

/// Answers each call only when it is polled again after as many others have begun.
struct Crowd {
    info: ModelInfo,
    waiting: Arc<AtomicUsize>,
    together: usize,
}

impl ChatModel for Crowd {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    async fn complete(&self, request: &ChatRequest) -> peregrine_core::Result<ChatResponse> {
        struct Gather<'a>(&'a Crowd, bool);
        impl Future for Gather<'_> {
            type Output = ();
            fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
                if !std::mem::replace(&mut self.1, true) {
                    self.0.waiting.fetch_add(1, Ordering::Relaxed);
                }
                match self.0.waiting.load(Ordering::Relaxed) >= self.0.together {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            }
        }
        Gather(self, false).await;
        let system = request.messages.get(0).unwrap().text();
        let output = system
            .split("Answer with:\n- `")
            .nth(1)
            .unwrap()
            .split('`')
            .next()
            .unwrap()
            .to_owned();
        Ok(ChatResponse::text(json!({output: "done"}).to_string()))
    }
}

#[test]
fn a_derived_stage_is_repaired_until_its_types_take_the_answer() {
    let stage = Stage::new(crate::contract::Count::compiled().unwrap().clone());
    let counting = Composition::sequential("counting", [stage]).unwrap();
    let model = Script::texts([r#"{"pairs": 3}"#, r#"{"pairs": 4}"#]);
    let composed = run(counting.call(&model, &fields(json!({"text": "x"})))).unwrap();
    assert_eq!(composed.predictions[0].1.repairs, 1);
    assert_eq!(composed.output, fields(json!({"pairs": 4})));
}

#[test]
fn stages_side_by_side_run_at_the_same_time_and_keep_their_order() {
    let outputs = ["c", "a", "b"];
    let stages = outputs.map(|output| stage(&format!("x -> {output}")).with_name(output));
    let parallel = Composition::parallel("p", stages).unwrap();
    let model = Crowd {
        info: ModelInfo::new("test", "crowd"),
        waiting: Arc::default(),
        together: 3,
    };
    // One after the other would wait for ever.
    let composed = run(parallel.call(&model, &fields(json!({"x": "y"})))).unwrap();
    let names: Vec<&String> = composed.output.keys().collect();
    assert_eq!(names, outputs.iter().collect::<Vec<_>>());
}

#[test]
fn the_first_failure_ends_stages_side_by_side() {
    let parallel = Composition::parallel("p", [stage("x -> a"), stage("x -> b")]).unwrap();
    let model = Script::texts([r#"{"a": "1"}"#]);
    assert!(matches!(
        run(parallel.call(&model, &fields(json!({"x": "y"})))),
        Err(Error::Model(_))
    ));
}
