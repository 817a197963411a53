//! Arguments as models, and enemies, write them.

use peregrine_core::{ToolCall, ToolSpec};
use peregrine_tools::{FnTool, Registry, ToolErrorKind, ToolInfo};
use serde_json::{Value, json};

use crate::{call, only};

/// A tool that returns its arguments.
fn echo() -> Registry {
    let schema = json!({
        "type": "object",
        "properties": {"a": {"type": "number"}, "deep": true, "text": {"type": "string"}},
        "additionalProperties": false,
    });
    let info = ToolInfo::new(ToolSpec::new("echo", "Says it again.", schema));
    only(FnTool::raw(info, async |_, arguments: Value| arguments))
}

#[track_caller]
fn told(arguments: &str) -> String {
    let error = call(&echo(), arguments).unwrap_err();
    assert_eq!(error.kind(), ToolErrorKind::InvalidArguments);
    assert!(!error.is_fatal() && !error.is_retryable());
    error.for_model().unwrap()
}

#[test]
fn what_is_not_json_is_told_with_its_place() {
    for (arguments, expected) in [
        (
            r#"{"a": 1 "text": "x"}"#,
            r#"- the whole value: expected one JSON object, found text that is not JSON: expected `,` or `}`, at line 1, column 9 (it goes wrong right after "{\"a\": 1 ")"#,
        ),
        (
            "{\"a\": 1,\n \"text\": \"né\n\"}",
            r#"at line 3, column 0 (it goes wrong right after "{\"a\": 1,� \"text\": \"né�")"#,
        ),
        (
            r#"{"a": 1"#,
            r#"EOF while parsing an object, at line 1, column 7 (it goes wrong right after "{\"a\": ")"#,
        ),
        (
            r#"{"a": 1} and more"#,
            r#"trailing characters, at line 1, column 10 (it goes wrong right after "{\"a\": 1} ")"#,
        ),
        ("```json\n{}\n```", "expected value, at line 1, column 1"),
        ("{'a': 1}", "key must be a string, at line 1, column 2"),
        (r#"{"a": NaN}"#, "expected value, at line 1, column 7"),
        (r#"{"a": 1e999}"#, "number out of range"),
        (r#"{"text": "\ud800"}"#, "unexpected end of hex escape"),
    ] {
        let told = told(arguments);
        assert!(told.contains(expected), "{told}\n{expected}");
        assert!(told.len() < 400, "{told}");
    }
}

#[test]
fn what_is_json_but_no_object_is_refused() {
    for arguments in ["null", "[]", "\"{}\"", "1", "true"] {
        assert!(
            told(arguments).contains("- the whole value: expected an object, found "),
            "{arguments}"
        );
    }
    for nothing in ["", " \n", "{}"] {
        assert_eq!(call(&echo(), nothing).unwrap().text(), "{}");
    }
}

#[test]
fn deep_and_huge_arguments_are_told_so() {
    let deep = |levels: usize| format!(r#"{{"deep": {}{}}}"#, "[".repeat(levels), "]".repeat(levels));
    assert!(call(&echo(), &deep(100)).is_ok());
    for levels in [1_000, 400_000] {
        assert!(told(&deep(levels)).contains("recursion limit exceeded"));
    }
    let huge = format!(r#"{{"text": "{}"}}"#, "x".repeat(1 << 20));
    assert!(
        told(&huge).contains("expected at most 1048576 bytes of JSON, found 1048588 bytes"),
        "{}",
        told(&huge)
    );
    let just = format!(r#"{{"text": "{}"}}"#, "x".repeat((1 << 20) - 12));
    assert!(call(&echo(), &just).is_ok());
    let wide: String = (0..100_000).map(|n| format!(r#""{n}":0,"#)).collect();
    assert_eq!(
        told(&format!(r#"{{{wide}"a":1}}"#)).lines().count(),
        1 + 8,
        "problems are bounded"
    );

    let small = ToolInfo::new(ToolSpec::new("t", "", json!({"type": "object"}))).with_max_arguments_bytes(2);
    let registry = only(FnTool::raw(small, async |_, _| ()));
    assert!(call(&registry, "{}").is_ok() && call(&registry, "{ }").is_err());
}

#[test]
fn the_last_of_two_equal_keys_counts_and_is_what_everyone_sees() {
    let registry = echo();
    let valid = registry
        .validate(&ToolCall::new("1", "echo", r#"{"a": 1, "a": 2}"#))
        .unwrap();
    assert_eq!(valid.arguments(), &json!({"a": 2}));
}

#[test]
fn errors_and_debug_hold_no_arguments() {
    let registry = echo();
    let secret = "hunter2hunter2";
    for arguments in [
        format!(r#"{{"a": "{secret}"}}"#),
        format!(r#"{{"text": ["{secret}"]}}"#),
        format!(r#"{{"text": "{secret}" x"#),
        secret.to_owned(),
    ] {
        let error = call(&registry, &arguments).unwrap_err();
        assert!(
            !format!("{error} {error:?} {error:#?}").contains("hunter"),
            "{error:?}"
        );
    }
    let valid = registry
        .validate(&ToolCall::new("1", "echo", format!(r#"{{"text": "{secret}"}}"#)))
        .unwrap();
    assert!(!format!("{valid:?}").contains("hunter"));
}

/// Any text, taken as arguments, gives arguments that fit or an error that the model can read.
#[test]
fn seeded_fuzz_of_arguments() {
    let number = |name: &str, default: u64| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let (cases, seed) = (
        number("PEREGRINE_FUZZ_CASES", 500),
        number("PEREGRINE_FUZZ_SEED", 0),
    );
    let pieces = [
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"a\"",
        "\"text\"",
        "\"deep\"",
        "1",
        "-0.5",
        "1e5",
        "null",
        "\"é\\n\"",
        "\\",
        "\"",
        " ",
        "\n",
        "😀",
        "\u{0}",
    ];
    let registry = echo();
    for case in 0..cases {
        // A small generator (SplitMix64) is enough, and the same everywhere.
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(case);
        let mut next = |below: usize| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) % below as u64) as usize
        };
        let mut text = if next(2) == 0 {
            String::from("{\"a\": 1")
        } else {
            String::new()
        };
        for _ in 0..next(24) {
            text.push_str(pieces[next(pieces.len())]);
        }
        match registry.validate(&ToolCall::new("1", "echo", text.as_str())) {
            Ok(valid) => {
                let map = valid.arguments().as_object().unwrap();
                assert!(
                    map.get("a").is_none_or(Value::is_number),
                    "seed {seed}, case {case}: {text}"
                );
                assert!(
                    map.keys()
                        .all(|key| ["a", "text", "deep"].contains(&key.as_str())),
                    "seed {seed}, case {case}: {text}"
                );
            }
            Err(error) => {
                let told = error.for_model().unwrap_or_default();
                assert!(
                    !told.is_empty() && told.len() < 2_000,
                    "seed {seed}, case {case}: {text}"
                );
            }
        }
    }
}
