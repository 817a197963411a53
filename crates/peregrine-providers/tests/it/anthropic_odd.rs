//! Answers of the Messages API that are unusual, cut off, or errors.

use peregrine_core::{ChatEvent, ErrorKind, Finish, Part, Usage};
use peregrine_providers::wire::anthropic::Anthropic;
use serde_json::{Value, json};

use crate::anthropic::{call, opaque};
use crate::support::{decode, events, sse, stream};

const START: &str = r#"{"type":"message_start","message":{"id":"m","model":"x","usage":{"input_tokens":4,"output_tokens":1}}}"#;
const STOP: &str = r#"{"type":"message_stop"}"#;

#[test]
fn whole_answers_are_read_leniently() {
    let read = |body: Value| decode(&Anthropic::new(), body.to_string()).unwrap();
    let odd = read(
        json!({"content": [{"type": "tool_use", "name": "f"}, {"type": "tool_use", "name": "g", "id": null,
        "input": "{ \"a\": 1 }"}, {"type": "later", "x": [1]}], "stop_reason": null, "usage": null, "new": {}}),
    );
    assert_eq!(odd.finish, Finish::ToolCalls);
    assert_eq!(
        (odd.usage, odd.model.as_str(), odd.id.as_deref()),
        (None, "", None)
    );
    assert_eq!(
        odd.message.parts,
        [
            Part::ToolCall(call("call_0", "f", "{}")),
            Part::ToolCall(call("call_1", "g", r#"{"a":1}"#)),
            opaque(json!({"type": "later", "x": [1]})),
        ]
    );
    let text = read(json!({"id": "m", "content": "plain", "stop_reason": "end_turn",
        "usage": {"input_tokens": "many", "output_tokens": 3}}));
    assert_eq!(
        (text.message.text().as_str(), text.usage),
        ("plain", Some(Usage::new(0, 3)))
    );
    let call_without_id =
        read(json!({"id": "m", "content": [{"type": "tool_use", "name": "f"}], "stop_reason": "tool_use"}));
    assert_eq!(
        call_without_id.tool_calls().next().map(|call| call.id.as_str()),
        Some("m_call_0")
    );
    assert_eq!(
        read(json!({"content": null, "stop_reason": "end_turn"}))
            .message
            .parts,
        []
    );
    assert_eq!(
        read(json!({"content": [{"type": "text", "text": "x"}]})).finish,
        Finish::Other("unspecified".into())
    );
}

#[test]
fn errors_in_a_success_and_answers_that_are_none() {
    let fail = |body: &str| decode(&Anthropic::new(), body.to_owned()).unwrap_err();
    let overloaded =
        fail(r#"{"type":"error","error":{"type":"overloaded_error","message":"busy"},"request_id":"r"}"#);
    assert_eq!(
        (overloaded.kind(), overloaded.status()),
        (ErrorKind::Overloaded, Some(200))
    );
    assert!(overloaded.is_retryable() && overloaded.raw().is_some());
    for not_an_answer in [
        "{}",
        "[]",
        "null",
        "",
        "<html>",
        r#"{"content":7,"stop_reason":"end_turn"}"#,
    ] {
        let error = fail(not_an_answer);
        assert_eq!(error.kind(), ErrorKind::Protocol, "{not_an_answer}");
        assert!(error.raw().is_some(), "{not_an_answer}");
    }
}

#[test]
fn the_cause_of_an_error_is_read_from_its_details() {
    use peregrine_providers::wire::ChatCodec as _;
    let error = |status: u16, kind: &str, details: Value| {
        let body = json!({"type": "error", "error": {"type": kind, "message": "m", "details": details}});
        Anthropic::new()
            .error_body(body.to_string().as_bytes())
            .into_error("anthropic", status, None, peregrine_core::UnixTime(0))
    };
    let spent = error(
        429,
        "rate_limit_error",
        json!({"error_code": "enforced_spend_limit_reached"}),
    );
    assert_eq!((spent.kind, spent.retryable), (ErrorKind::QuotaExceeded, false));
    assert_eq!(spent.code.as_deref(), Some("enforced_spend_limit_reached"));
    let ramp = error(
        429,
        "rate_limit_error",
        json!({"error_code": "ramp_limit_exceeded"}),
    );
    assert_eq!((ramp.kind, ramp.retryable), (ErrorKind::RateLimited, true));
    let plain = error(404, "not_found_error", json!(null));
    assert_eq!(
        (plain.kind, plain.code.as_deref()),
        (ErrorKind::NotFound, Some("not_found_error"))
    );
}

#[test]
fn streams_are_read_leniently() {
    let read = |frames: &[&str]| stream(&Anthropic::new(), sse(frames).as_bytes()).unwrap();
    // As llama.cpp streams: no input, no id, a gateway's last word; blocks that are never closed or opened.
    let odd = read(&[
        START,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","name":"f"}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{ \"a\""}}"#,
        r#"{"type":"tomorrow","x":1}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"tomorrow_delta","x":1}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":": 1}"}}"#,
        r#"{"type":"content_block_delta","index":5,"delta":{"type":"text_delta","text":"t"}}"#,
        r#"{"type":"content_block_delta","index":5,"delta":{"type":"text_delta","text":null}}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":9,"input_tokens":null}}"#,
        STOP,
        "[DONE]",
    ]);
    assert_eq!(
        odd.message.parts,
        [
            Part::ToolCall(call("m_call_0", "f", r#"{"a":1}"#)),
            Part::text("t")
        ]
    );
    assert_eq!(
        (odd.finish, odd.usage),
        (Finish::ToolCalls, Some(Usage::new(4, 9)))
    );
    // Input that came with the block, and blocks without an index.
    let whole_input = read(&[
        START,
        r#"{"type":"content_block_start","content_block":{"type":"tool_use","id":"i","name":"f","input":{"a": 1}}}"#,
        r#"{"type":"content_block_stop"}"#,
        r#"{"type":"content_block_start","content_block":{"type":"text","text":"x"}}"#,
        r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"y"}}"#,
        r#"{"type":"content_block_stop"}"#,
        STOP,
    ]);
    assert_eq!(
        whole_input.message.parts,
        [Part::ToolCall(call("i", "f", r#"{"a":1}"#)), Part::text("xy")]
    );
    // A block of tomorrow grows by pieces of tomorrow.
    let compaction = read(&[
        START,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"compaction","content":null}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"compaction_delta","content":"sum"}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"compaction_delta","content":"mary","encrypted_content":"e"}}"#,
        r#"{"type":"content_block_stop","index":0}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"compaction"}}"#,
        STOP,
    ]);
    assert_eq!(
        compaction.message.parts,
        [opaque(
            json!({"type": "compaction", "content": "summary", "encrypted_content": "e"})
        )]
    );
}

#[test]
fn names_of_events_may_stand_only_in_the_frame() {
    let text = format!(
        "event: message_start\ndata: {}\n\nevent: message_stop\ndata: {{}}\n\n",
        r#"{"message":{"id":"m"}}"#
    );
    let answer = stream(&Anthropic::new(), text.as_bytes()).unwrap();
    assert_eq!(answer.id.as_deref(), Some("m"));
}

#[test]
fn streams_end_in_errors_where_they_must() {
    let fail = |frames: &[&str]| {
        let (seen, ended) = events(&Anthropic::new(), sse(frames).as_bytes());
        assert!(!seen.iter().any(|event| matches!(event, ChatEvent::Done(_))));
        ended.unwrap_err()
    };
    let begin = r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":"x"}}"#;
    let end = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":2}}"#;
    assert_eq!(fail(&[]).kind(), ErrorKind::Truncated);
    assert_eq!(fail(&[START, begin]).kind(), ErrorKind::Truncated);
    assert_eq!(
        fail(&[START, begin, end]).kind(),
        ErrorKind::Truncated,
        "a reason is not the end"
    );
    let overloaded = fail(&[
        START,
        begin,
        r#"{"type":"error","error":{"type":"overloaded_error","message":"busy"}}"#,
    ]);
    assert_eq!(
        (overloaded.kind(), overloaded.is_retryable()),
        (ErrorKind::Overloaded, true)
    );
    let foreign = fail(&[
        START,
        r#"{"error":{"code":500,"message":"boom","type":"server_error"}}"#,
    ]);
    assert_eq!(foreign.kind(), ErrorKind::Server);
    assert_eq!(fail(&[START, "{\"type\":"]).kind(), ErrorKind::Protocol);
    let orphan =
        r#"{"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":"{"}}"#;
    assert_eq!(fail(&[START, orphan]).kind(), ErrorKind::Protocol);
}

#[test]
fn a_block_behind_the_last_index_there_is_does_not_overflow() {
    let block = |index: Option<u64>| {
        json!({"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": "x"}})
            .to_string()
    };
    let (first, second) = (block(Some(u64::MAX)), block(None));
    let response = stream(&Anthropic::new(), sse([START, &first, &second, STOP]).as_bytes()).unwrap();
    assert_eq!(response.message.text(), "xx");
}
