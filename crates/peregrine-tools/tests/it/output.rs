//! What tools return: conversion, size and truncation.

use peregrine_core::{DocumentPart, MediaPart, Part, ToolCall};
use peregrine_tools::{OutputPart, ToolError, ToolErrorKind, ToolOutput};
use serde_json::json;

#[test]
fn parts_become_parts_of_a_message() {
    let output = ToolOutput::from("text")
        .with_part(OutputPart::Json(json!({"b": [1.5], "a": null})))
        .with_image(MediaPart::url("https://example.org/a.png"))
        .with_part(OutputPart::Document(DocumentPart::text("t", "body")));
    let result = output.into_result(&ToolCall::new("c1", "draw", "{}"));
    assert_eq!(
        (result.call_id.as_str(), result.name.as_str(), result.is_error),
        ("c1", "draw", false)
    );
    assert_eq!(result.content[0], Part::text("text"));
    assert_eq!(result.content[1], Part::text(r#"{"b":[1.5],"a":null}"#));
    assert!(matches!(result.content[2..], [Part::Image(_), Part::Document(_)]));
    assert!(
        ToolOutput::from(())
            .into_result(&ToolCall::new("c1", "draw", "{}"))
            .content
            .is_empty()
    );
}

#[test]
fn what_is_too_large_is_cut_and_says_so() {
    let mut output = ToolOutput::from("ééé").with_text("abc");
    assert_eq!(output.size_bytes(), 9);
    output.truncate(9);
    assert!(!output.truncated);
    output.truncate(5);
    assert_eq!(output.text(), "éé\n[truncated: 4 of 9 bytes shown]");
    assert!(output.truncated);

    let image = || MediaPart::bytes("image/png", vec![0; 100]);
    let mut output = ToolOutput::from(image())
        .with_part(OutputPart::Json(json!([1, 2, 3])))
        .with_image(image());
    output.truncate(4);
    assert_eq!(output.text(), "[1,2\n[truncated: 4 of 207 bytes shown]");
    assert_eq!(output.parts.len(), 2);
    let mut output = ToolOutput::from("a").with_image(image());
    output.truncate(0);
    assert_eq!(output.text(), "[truncated: 0 of 101 bytes shown]");
}

#[test]
fn an_output_survives_being_stored() {
    let output = ToolOutput::from("a")
        .with_part(OutputPart::Json(json!({"x": 1})))
        .with_image(MediaPart::bytes("image/png", &b"p"[..]));
    let text = serde_json::to_string(&output).unwrap();
    assert!(
        text.starts_with(
            r#"{"parts":[{"type":"text","value":"a"},{"type":"json","value":{"x":1}},{"type":"image""#
        ),
        "{text}"
    );
    assert_eq!(serde_json::from_str::<ToolOutput>(&text).unwrap(), output);
}

#[test]
fn what_has_no_form_in_json_is_fatal() {
    let error = ToolOutput::json(&std::collections::BTreeMap::from([((1, 2), 3)])).unwrap_err();
    assert!(error.is_fatal(), "{error}");
}

#[test]
fn errors_say_who_is_told() {
    let io = || std::io::Error::other("the disk is gone");
    let fatal = ToolError::fatal("cannot write").with_source(io());
    assert_eq!(
        std::error::Error::source(&fatal).unwrap().to_string(),
        "the disk is gone"
    );
    let call = ToolCall::new("c", "t", "{}");
    assert!(fatal.to_result(&call).is_none() && ToolError::Cancelled.to_result(&call).is_none());
    let result = ToolError::model(io()).to_result(&call).unwrap();
    assert_eq!(
        (result.is_error, result.text().as_str()),
        (true, "the disk is gone")
    );
    assert!(ToolError::temporary("later").is_retryable() && !ToolError::model("no").is_retryable());
    assert_eq!(
        serde_json::to_value(ToolErrorKind::InvalidArguments).unwrap(),
        ToolErrorKind::InvalidArguments.code()
    );
    assert!(size_of::<ToolError>() <= 64, "{}", size_of::<ToolError>());
}
