//! References: what they depend on, what they become, what is wrong with them.

use peregrine_executor::{Executor, OnFailure, Plan, Problem, Step, VirtualTimer, builtin, escape};
use serde_json::{Value, json};

use crate::support::{executor, finish, plan, result, run, states};

/// What step `b` gets for its parameters, `step1` having given this.
fn substituted(step1: &Value, parameters: &Value) -> Value {
    let report = run(&json!([
        {"id": "step1", "action": "echo", "parameters": step1},
        {"id": "b", "action": "echo", "parameters": parameters},
    ]));
    assert!(report.is_success(), "{:?}", states(&report));
    result(&report, "b").clone()
}

#[test]
fn references_make_dependencies_wherever_they_stand() {
    let plan = plan(&json!([
        {"id": "last", "action": "x", "depends_on": ["explicit"], "parameters": {
            "whole": "$step1",
            "field": "$step2.field",
            "deep": {"list": [1, ["$step3.items[0].name"]]},
            "text": "first $step4, then ${step5.a}b and $step6['odd key'].",
            "again": "$step1.other",
            "literal": "$$step7 costs $$5",
        }},
        {"id": "explicit", "action": "x"}, {"id": "step1", "action": "x"}, {"id": "step2", "action": "x"},
        {"id": "step3", "action": "x"}, {"id": "step4", "action": "x"}, {"id": "step5", "action": "x"},
        {"id": "step6", "action": "x"}, {"id": "step7", "action": "x"},
    ]));
    let found: Vec<_> = plan.dependencies("last").collect();
    assert_eq!(
        found,
        ["explicit", "step1", "step2", "step3", "step4", "step5", "step6"]
    );
    let order: Vec<_> = plan.order().collect();
    assert_eq!(order.last(), Some(&"step7"));
    assert_eq!(order[7], "last");
}

#[test]
fn a_whole_parameter_keeps_its_type() {
    let step1 = json!({
        "text": "falcon", "number": 5, "float": 1.5, "yes": true, "no": false, "nothing": null,
        "items": [{"name": "a"}, {"name": "b"}], "object": {"x": {"y": 0}}, "odd key": 1, "": 2,
    });
    for (reference, expected) in [
        ("$step1.text", json!("falcon")),
        ("$step1.number", json!(5)),
        ("$step1.float", json!(1.5)),
        ("$step1.yes", json!(true)),
        ("$step1.no", json!(false)),
        ("$step1.nothing", json!(null)),
        ("$step1.items", json!([{"name": "a"}, {"name": "b"}])),
        ("$step1.items[1]", json!({"name": "b"})),
        ("$step1.items[0].name", json!("a")),
        ("$step1.object.x.y", json!(0)),
        ("$step1['odd key']", json!(1)),
        ("$step1[\"\"]", json!(2)),
        ("${step1.number}", json!(5)),
        ("$step1", step1.clone()),
    ] {
        assert_eq!(substituted(&step1, &json!(reference)), expected, "{reference}");
        let nested = json!({"a": [reference, {"b": reference}], "c": 1});
        assert_eq!(
            substituted(&step1, &nested),
            json!({"a": [expected, {"b": expected}], "c": 1})
        );
    }
}

#[test]
fn within_a_text_texts_are_put_in_as_they_are_and_the_rest_as_json() {
    let step1 =
        json!({"text": "a \"b\"", "number": 5, "none": null, "list": [1, "x"], "object": {"k": true}});
    for (text, expected) in [
        ("<$step1.text>", r#"<a "b">"#),
        ("$step1.number apples", "5 apples"),
        ("${step1.number}th", "5th"),
        ("$step1.number.", "5."),
        ("$step1.number-$step1.number", "5-5"),
        ("is $step1.none", "is null"),
        ("$step1.list!", r#"[1,"x"]!"#),
        (" $step1.object", r#" {"k":true}"#),
        ("it costs $$5, or $$step1", "it costs $5, or $step1"),
        ("$$", "$"),
    ] {
        assert_eq!(substituted(&step1, &json!(text)), json!(expected), "{text}");
    }
}

#[test]
fn what_is_put_in_is_not_read_again_and_keys_are_not_read_at_all() {
    let step1 = json!({"evil": "$$secret and ${"});
    assert!(
        Plan::from_json(&json!([{"id": "step1", "action": "echo", "parameters": step1}]).to_string())
            .is_err()
    );
    // A result may hold anything: here by an escape, in life by what a model or a page says.
    let step1 = json!({"evil": "$$b $${x} $$", "$step1": {"$b": 1}});
    let seen = substituted(
        &step1,
        &json!({"$step1": "$step1.evil", "in text": "-$step1.evil-", "$b": 0}),
    );
    assert_eq!(
        seen,
        json!({"$step1": "$b ${x} $", "in text": "-$b ${x} $-", "$b": 0})
    );
    let seen = substituted(&step1, &json!("$step1['$step1']['$b']"));
    assert_eq!(seen, json!(1));
}

#[test]
fn an_escaped_text_comes_out_as_it_was() {
    for text in ["", "$", "$$", "costs $5", "$step1.x ${", "a$b$$c$", "ü$ü"] {
        assert_eq!(substituted(&json!(1), &json!(escape(text))), json!(text));
    }
}

#[test]
fn malformed_references_are_told_with_their_place_before_anything_runs() {
    let error = Plan::from_json(
        &json!([
            {"id": "a", "action": "echo", "parameters": {"x": ["fine", "a $ b"], "k/y~": "${a"}},
            {"id": "b", "action": "echo", "parameters": "$a[x]", "checks": [{"action": "check", "parameters": {"v": "$"}}]},
            {"id": "c", "action": "echo", "parameters": {"home": "$HOME", "typing": "$B", "dash": "$a-x", "self": "$c"},
                "depends_on": ["$a", "nobody"]},
        ])
        .to_string(),
    )
    .unwrap_err();
    let problems: Vec<String> = error.problems().iter().map(ToString::to_string).collect();
    let hint = "a reference is `$step`, `$step.field` or `${step[0]}`, a dollar sign is `$$`";
    assert_eq!(
        problems,
        [
            format!("step `a`, its parameters at `/x/1`: a dollar sign without the id of a step at byte 2; {hint}"),
            format!("step `a`, its parameters at `/k~1y~0`: a brace that is not closed behind the reference at byte 0; {hint}"),
            format!("step `b`, its parameters: a bracket without an index or a quoted key at byte 0; {hint}"),
            format!("step `b`, the parameters of a check at `/v`: a dollar sign without the id of a step at byte 0; {hint}"),
            "step `c` depends on `$a` in `depends_on`, and no step is called that; is `a` meant?".to_owned(),
            "step `c` depends on `nobody` in `depends_on`, and no step is called that".to_owned(),
            "step `c` depends on `HOME` in its parameters at `/home`, and no step is called that".to_owned(),
            "step `c` depends on `B` in its parameters at `/typing`, and no step is called that; is `b` meant?".to_owned(),
            "step `c` depends on `a-x` in its parameters at `/dash`, and no step is called that; is `a` meant?".to_owned(),
            "these steps wait for each other: c -> c".to_owned(),
        ]
    );
}

#[test]
fn a_reference_that_finds_nothing_fails_its_step_and_says_what_there_is() {
    for (reference, expected) in [
        (
            "$a.missing",
            "`$a.missing` is nothing: there is no field `missing`; there are items, text",
        ),
        (
            "$a.items[1]",
            "`$a.items[1]` is nothing: the list has 1 elements, none at 1",
        ),
        ("$a.items.x", "`$a.items.x` is nothing: a list has no field `x`"),
        (
            "see $a.text[0]",
            "`$a.text[0]` is nothing: a text has no element 0",
        ),
        ("$a[0]", "`$a[0]` is nothing: an object has no element 0"),
        ("$a.text.b.c", "`$a.text.b.c` is nothing: a text has no field `b`"),
    ] {
        let plan = plan(&json!([{"id": "a", "action": "give"},
            {"id": "b", "action": "take", "parameters": [reference], "retries": 5},
            {"id": "c", "action": "take", "depends_on": ["b"]}]));
        let actions = peregrine_executor::Actions::new()
            .with_fn("give", peregrine_executor::ActionInfo::default(), async |_| {
                Ok(json!({"items": [1], "text": "x"}))
            })
            .with_fn("take", peregrine_executor::ActionInfo::default(), async |call| {
                Ok(call.into_parameters())
            });
        let report = finish(
            Executor::new(actions, VirtualTimer::new())
                .run(&plan)
                .into_future(),
        )
        .unwrap();
        assert_eq!(
            states(&report),
            [
                "a: succeeded",
                &*format!("b: failed: {expected}"),
                "c: skipped: `b`, which it depends on, did not succeed"
            ]
        );
        assert_eq!(report.steps[1].attempts, 0);
    }
}

#[test]
fn fields_that_an_action_never_gives_are_errors_before_anything_runs() {
    let info = |schema: Value| {
        let output = peregrine_executor::Output::Schema(schema);
        peregrine_executor::ActionInfo::default().with_output(output)
    };
    let person = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "tags": {"type": "array", "items": {"type": "object", "properties": {"id": {"type": "integer"}}}},
            "pair": {"type": "array", "prefixItems": [{"type": "string"}], "items": false},
            "any": {},
            "open": {"type": "object", "properties": {"a": {}}, "additionalProperties": {"type": "string"}},
            "maybe": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/inner"}]},
            "self": {"$ref": "#/$defs/loop"},
        },
        "$defs": {
            "inner": {"type": "object", "properties": {"x": {"type": ["string", "null"]}}},
            "loop": {"$ref": "#/$defs/loop"},
        },
    });
    let actions = builtin::actions()
        .with_fn("person", info(person), async |_| Ok(json!({})))
        .with_fn("model", peregrine_executor::ActionInfo::default(), async |_| {
            Ok(json!({}))
        });
    let executor = Executor::new(actions, VirtualTimer::new());
    let check = |reference: &str| {
        let plan = plan(&json!([
            {"id": "p", "action": "person"},
            {"id": "m", "action": "model"},
            {"id": "m2", "action": "model", "on_failure": {"fallback": {"z": 1}}},
            {"id": "e", "action": "echo", "parameters": {"list": [{"a": 1}], "p": "$p", "t": "at $m", "m": "$m.x"}},
            {"id": "e2", "action": "echo", "parameters": "$e"},
            {"id": "user", "action": "echo", "parameters": [reference]},
        ]));
        executor.check(&plan).err().map(|error| match error.problems() {
            [Problem::DanglingField { step, message, .. }] if step == "user" => message.clone(),
            other => panic!("{other:?}"),
        })
    };
    for good in [
        "$p.name",
        "$p.tags[7].id",
        "$p.pair[0]",
        "$p.any.thing[0].x",
        "$p.open.more",
        "$p.maybe.x",
        "$p.self.x.y",
        "$m.whatever[3]",
        "$m2.z",
        "$e.list[0].a",
        "$e.p.name",
        "$e2.p.tags[0].id",
        "$e.m.any",
        "$e",
        "$e2.t",
    ] {
        assert_eq!(check(good), None, "{good}");
    }
    for (bad, expected) in [
        (
            "$p.age",
            "there is no field `age`; there are name, tags, pair, any, open, maybe, self",
        ),
        ("$p[0]", "object has no element 0"),
        ("$p.name.first", "string has no field `first`"),
        ("$p.tags.id", "array has no field `id`"),
        ("$p.tags[0].name", "there is no field `name`; there are id"),
        ("$p.pair[1]", "the list has no element 1"),
        ("$p.open.more.x", "string has no field `x`"),
        ("$p.maybe.y", "null has no field `y`"),
        ("$p.maybe.x.z", "null has no field `x`"),
        ("$e.list[1]", "the list has 1 elements, none at 1"),
        ("$e.list[0].b", "there is no field `b`; there are a"),
        (
            "$e.nothing",
            "there is no field `nothing`; there are list, p, t, m",
        ),
        (
            "$e.p.age",
            "there is no field `age`; there are name, tags, pair, any, open, maybe, self",
        ),
        (
            "$e2.p.age",
            "there is no field `age`; there are name, tags, pair, any, open, maybe, self",
        ),
        ("$e2.t.x", "a text has no `.x`"),
    ] {
        assert_eq!(check(bad).as_deref(), Some(expected), "{bad}");
    }
}

#[test]
fn substitution_is_bounded_in_bytes_and_in_depth() {
    // Each step doubles what came before: 40 of them would be a terabyte.
    let mut steps = vec![json!({"id": "s0", "action": "echo", "parameters": "0123456789"})];
    for n in 1..40 {
        let before = format!("$s{}", n - 1);
        let parameters = if n % 2 == 0 {
            json!([before, before])
        } else {
            json!({"a": before, "b": before})
        };
        steps.push(json!({"id": format!("s{n}"), "action": "echo", "parameters": parameters}));
    }
    let executor = executor().with_max_parameter_bytes(100_000);
    let report = finish(executor.run(&plan(&json!(steps))).into_future()).unwrap();
    let failed = report.steps.iter().find(|record| record.cause.is_some()).unwrap();
    let message = failed.cause.as_ref().unwrap().to_string();
    assert!(
        message.starts_with("the parameters would take more than 100000 bytes with `$s"),
        "{message}"
    );
    assert_eq!(failed.cause.as_ref().unwrap().kind(), "reference");
    // Texts grow as well.
    let texts = (1..40).map(
        |n| json!({"id": format!("s{n}"), "action": "echo", "parameters": format!("$s{0} $s{0}", n - 1)}),
    );
    let texts: Vec<Value> = std::iter::once(steps[0].clone()).chain(texts).collect();
    let report = finish(executor.run(&plan(&json!(texts))).into_future()).unwrap();
    assert!(report.steps.iter().any(|record| {
        record
            .cause
            .as_ref()
            .is_some_and(|cause| cause.kind() == "reference")
    }));

    // Each step wraps what came before: a value that deep could not even be dropped.
    let chain = (0..100_000).map(|n| {
        let parameters = if n == 0 {
            json!(0)
        } else {
            json!([format!("$s{}", n - 1)])
        };
        Step::new(format!("s{n}"), "echo")
            .with_parameters(parameters)
            .with_on_failure(OnFailure::Fail)
    });
    let chain = Plan::new(chain).unwrap();
    let report = finish(executor.run(&chain).into_future()).unwrap();
    let cause = report.steps[101].cause.as_ref().unwrap().to_string();
    assert_eq!(
        cause,
        "the parameters would nest more than 100 deep with `$s100` put in"
    );
    assert_eq!(
        report.steps[99_999].cause.as_ref().unwrap().to_string(),
        "`s99998`, which it depends on, did not succeed, because of `s101`"
    );
}
