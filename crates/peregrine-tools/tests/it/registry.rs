//! Sets of tools: names, order, lookup, and what may run.

use std::sync::Arc;

use peregrine_core::{JsonSchema, ToolCall, ToolSpec};
use peregrine_tools::schema::SchemaError;
use peregrine_tools::{
    Allowance, Effect, FnTool, Reason, Registry, RegistryError, Tool, ToolError, ToolErrorKind, ToolInfo,
    batches,
};
use serde_json::{Value, json};

fn tool(name: &str, effect: Effect) -> FnTool {
    let schema = JsonSchema::new(json!({"type": "object", "properties": {"key": {"type": "string"}}}));
    let info = ToolInfo::new(ToolSpec::new(name, "A tool.", schema)).with_effect(effect);
    FnTool::raw(info, async |_, arguments: Value| arguments)
}

fn registry(tools: &[(&str, Effect)]) -> Registry {
    let builder = tools.iter().fold(Registry::builder(), |builder, (name, effect)| {
        builder.with(tool(name, *effect))
    });
    builder.build().unwrap()
}

#[test]
fn names_are_checked() {
    for name in ["a", "A-Z_09", &"x".repeat(64)] {
        assert!(
            Registry::builder()
                .with(tool(name, Effect::ReadOnly))
                .build()
                .is_ok(),
            "{name}"
        );
    }
    for name in ["", "a b", "a.b", "größe", "a\n", &"x".repeat(65)] {
        let error = Registry::builder()
            .with(tool(name, Effect::ReadOnly))
            .build()
            .unwrap_err();
        assert_eq!(
            error,
            RegistryError::InvalidName {
                name: name.to_owned()
            }
        );
        assert!(!error.to_string().contains('\n'));
    }
    let twice = Registry::builder()
        .with(tool("a", Effect::ReadOnly))
        .with(tool("a", Effect::SideEffect))
        .build();
    assert_eq!(
        twice.unwrap_err(),
        RegistryError::DuplicateName { name: "a".to_owned() }
    );
}

#[test]
fn schemas_are_checked() {
    let with = |schema: Value| {
        let info = ToolInfo::new(ToolSpec::new("t", "", schema));
        Registry::builder()
            .with(FnTool::raw(info, async |_, _| ()))
            .build()
            .map(|_| ())
    };
    let schema = |source| {
        Err(RegistryError::Schema {
            tool: "t".to_owned(),
            source,
        })
    };
    assert_eq!(with(json!({"type": "object"})), Ok(()));
    for not_an_object in [
        json!({}),
        json!(true),
        json!({"type": "string"}),
        json!({"type": ["object", "null"]}),
    ] {
        assert_eq!(with(not_an_object), schema(SchemaError::NotAnObject));
    }
    let error = with(json!({"type": "object", "properties": {"a": {"nullable": true}}})).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot offer the tool `t`: cannot enforce the schema at `/properties/a`: `nullable` is not a keyword of JSON \
         Schema 2020-12; remove it, or call it `x-..` if it is a note"
    );
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn order_is_kept_and_specifications_are_made_once() {
    let both = registry(&[
        ("z", Effect::ReadOnly),
        ("a", Effect::Idempotent),
        ("m", Effect::SideEffect),
    ]);
    let specs = both.specs();
    assert!(Arc::ptr_eq(&specs, &both.specs()));
    assert_eq!(
        specs.iter().map(|spec| spec.name.as_str()).collect::<Vec<_>>(),
        ["z", "a", "m"]
    );
    assert_eq!(both.names().collect::<Vec<_>>(), ["z", "a", "m"]);
    assert_eq!(both.get("m").unwrap().info().effect(), Effect::SideEffect);
    assert!(both.get("M").is_none());

    let harmless = both.filter(|tool| tool.effect() == Effect::ReadOnly);
    assert_eq!(harmless.names().collect::<Vec<_>>(), ["z"]);
    assert!(harmless.get("m").is_none() && harmless.get("z").is_some());
    let other = registry(&[("b", Effect::ReadOnly)]);
    assert_eq!(
        other.merge(&both).unwrap().names().collect::<Vec<_>>(),
        ["b", "z", "a", "m"]
    );
    assert_eq!(
        both.merge(&harmless).unwrap_err(),
        RegistryError::DuplicateName { name: "z".to_owned() }
    );
    assert!(Registry::new().is_empty() && Registry::new().specs().is_empty());
}

#[test]
fn a_tool_can_be_shared() {
    let shared: Arc<dyn Tool> = Arc::new(tool("t", Effect::ReadOnly));
    let one = Registry::builder().with_shared(shared.clone()).build().unwrap();
    let two = Registry::builder().with(shared.clone()).build().unwrap();
    assert!(Arc::ptr_eq(one.get("t").unwrap(), &shared));
    assert_eq!(crate::call(&two, "{}").unwrap().text(), "{}");
}

#[test]
fn a_tool_that_is_not_there_is_told_with_those_that_are() {
    let error = registry(&[("b", Effect::ReadOnly), ("a", Effect::ReadOnly)])
        .validate(&ToolCall::new("1", "c\n", "{}"))
        .unwrap_err();
    assert_eq!(error.kind(), ToolErrorKind::NotFound);
    assert_eq!(
        error.for_model().unwrap(),
        "no tool is called `c\u{fffd}`; there are `b`, `a`"
    );
    let error = Registry::new()
        .validate(&ToolCall::new("1", "c", "{}"))
        .unwrap_err();
    assert_eq!(
        error.for_model().unwrap(),
        "no tool is called `c`; there are none"
    );
    assert!(!error.is_fatal() && !error.is_retryable());
}

#[test]
fn an_allowance_fails_closed_and_deny_beats_allow() {
    let tools = registry(&[
        ("read", Effect::ReadOnly),
        ("put", Effect::Idempotent),
        ("send", Effect::SideEffect),
    ]);
    let reasons = |allowance: &Allowance| {
        let names = ["read", "put", "send", "missing"];
        names.map(|name| allowance.decide_name(&tools, name).reason)
    };
    let (put, send) = (
        Reason::HasEffects(Effect::Idempotent),
        Reason::HasEffects(Effect::SideEffect),
    );
    assert_eq!(
        reasons(&Allowance::read_only()),
        [Reason::ReadOnly, put, send, Reason::Unknown]
    );
    assert_eq!(reasons(&Allowance::default()), reasons(&Allowance::read_only()));
    assert_eq!(
        reasons(&Allowance::nothing()),
        [
            Reason::NotAllowed,
            Reason::NotAllowed,
            Reason::NotAllowed,
            Reason::Unknown
        ]
    );
    let mixed = Allowance::read_only()
        .with_denied("read")
        .with_allowed("read")
        .with_allowed("send")
        .with_allowed("missing")
        .with_denied("sned");
    assert_eq!(
        reasons(&mixed),
        [Reason::DeniedByName, put, Reason::AllowedByName, Reason::Unknown]
    );
    assert_eq!(
        mixed.unknown_names(&tools).collect::<Vec<_>>(),
        ["missing", "sned"]
    );
    for (reason, allowed) in [
        (Reason::ReadOnly, true),
        (Reason::AllowedByName, true),
        (Reason::DeniedByName, false),
        (put, false),
        (Reason::NotAllowed, false),
        (Reason::Unknown, false),
    ] {
        let mut decision = Allowance::default().decide_name(&tools, "read");
        decision.reason = reason;
        assert_eq!(decision.is_allowed(), allowed, "{reason}");
        match decision.into_result() {
            Ok(()) => assert!(allowed),
            Err(error) => assert!(!allowed && matches!(error, ToolError::Refused { .. })),
        }
    }
}

#[test]
fn batches_keep_order_and_effects_apart() {
    let tools = registry(&[
        ("r", Effect::ReadOnly),
        ("i", Effect::Idempotent),
        ("j", Effect::Idempotent),
        ("s", Effect::SideEffect),
    ]);
    // `i1` is a call of `i` with the key 1.
    let batches_of = |calls: &str| {
        let calls: Vec<_> = calls
            .split_whitespace()
            .map(|call| {
                let (name, key) = call.split_at(1);
                tools
                    .validate(&ToolCall::new(call, name, format!(r#"{{"key": "{key}"}}"#)))
                    .unwrap()
            })
            .collect();
        let batches = batches(&calls);
        assert_eq!(
            batches.iter().cloned().flatten().collect::<Vec<_>>(),
            (0..calls.len()).collect::<Vec<_>>()
        );
        batches.iter().map(|batch| batch.len()).collect::<Vec<_>>()
    };
    assert_eq!(batches_of(""), [0; 0]);
    assert_eq!(batches_of("r1 r1 r2"), [3]);
    assert_eq!(batches_of("s1 s2 s3"), [1, 1, 1]);
    assert_eq!(batches_of("i1 i2 j1 i1 i2"), [3, 2]);
    assert_eq!(batches_of("r1 i1 r1 s1 r1 r2"), [1, 1, 1, 1, 2]);
}

#[test]
fn digests_tell_tools_and_arguments_apart() {
    let tools = registry(&[("a", Effect::ReadOnly), ("b", Effect::ReadOnly)]);
    let digest = |id: &str, name: &str, arguments: &str| {
        tools
            .validate(&ToolCall::new(id, name, arguments))
            .unwrap()
            .digest()
    };
    let one = digest("1", "a", r#"{"key": "x", "n": 1}"#);
    assert_eq!(one, digest("2", "a", r#"{"n":1.0,"key":"\u0078"}"#));
    for other in [
        digest("1", "b", r#"{"key": "x", "n": 1}"#),
        digest("1", "a", r#"{"key": "x", "n": 2}"#),
        digest("1", "a", ""),
    ] {
        assert_ne!(one, other);
    }
    let text = one.to_string();
    assert_eq!((text.len(), text.parse()), (64, Ok(one)));
    assert_eq!(
        serde_json::from_str::<peregrine_tools::Digest>(&serde_json::to_string(&one).unwrap()).unwrap(),
        one
    );
    assert!("xyz".parse::<peregrine_tools::Digest>().is_err());

    let digest = |name: &str, description: &str| {
        ToolInfo::new(ToolSpec::new(name, description, JsonSchema::empty_object())).digest()
    };
    assert_ne!(digest("ab", "c"), digest("a", "bc"), "texts do not run together");
    let info = tools.get("a").unwrap().info();
    assert_ne!(info.digest(), info.clone().with_version("2").digest());
    assert_ne!(
        info.digest(),
        info.clone().with_effect(Effect::SideEffect).digest()
    );
    assert_eq!(info.digest(), info.clone().with_max_arguments_bytes(1).digest());
}
