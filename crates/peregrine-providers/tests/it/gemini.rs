//! Answers of Gemini: recorded ones, the same answer whole and streamed, and broken ones.

use peregrine_core::{
    ChatEvent, ChatRequest, ChatResponse, ErrorKind, Finish, MediaPart, Message, OpaquePart, Part,
    ProviderData, ReasoningPart, TextPart, ToolCall, UnixTime, Usage,
};
use peregrine_providers::wire::ChatCodec as _;
use peregrine_providers::wire::gemini::Gemini;
use serde_json::{Value, json};

use crate::support::{decode, encode, events, sse, stream};
use crate::{mangle, recordings};

#[test]
fn recorded_answers_are_read() {
    recordings::check("gemini", |_| Box::new(Gemini::new()));
}

/// The recorded whole answers that are successes.
fn recorded() -> Vec<(&'static str, Value)> {
    let exchanges = recordings::exchanges("gemini").unwrap_or_default();
    exchanges
        .into_iter()
        .filter(|exchange| !exchange.is_stream() && exchange.status < 400)
        .map(|exchange| {
            let body = serde_json::from_str(&exchange.body).expect("a recorded answer is JSON");
            (exchange.name.as_str(), body)
        })
        .collect()
}

#[test]
fn every_recorded_answer_is_the_same_when_streamed() {
    for (name, body) in recorded() {
        let whole = decode(&Gemini::new(), body.to_string()).expect(name);
        for pieces in [1, 3] {
            let streamed = stream(&Gemini::new(), as_stream(&body, pieces).as_bytes()).expect(name);
            assert_eq!(streamed, whole, "{name}");
        }
    }
}

#[test]
fn every_recorded_answer_goes_back_word_for_word() {
    for (name, body) in recorded() {
        let whole = decode(&Gemini::new(), body.to_string()).expect(name);
        let request = ChatRequest::new([Message::user("q"), whole.message]);
        let sent = encode(&Gemini::new(), "gemini-2.5-flash", &request).expect(name);
        let mut sent: Value = serde_json::from_str(&sent).expect("a body is JSON");
        let parts = body["candidates"][0]["content"]["parts"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        // An unsigned thought means nothing to the provider.
        let expected: Vec<Value> = parts
            .into_iter()
            .filter(|part| part["thought"] != true || part.get("thoughtSignature").is_some())
            .collect();
        let Some(turn) = sent["contents"].get_mut(1) else {
            assert!(expected.is_empty(), "{name}");
            continue;
        };
        for (part, expected) in turn["parts"]
            .as_array_mut()
            .expect("parts")
            .iter_mut()
            .zip(&expected)
        {
            // Where the provider gave no id, one was made up.
            if let Some(call) = part["functionCall"].as_object_mut()
                && expected["functionCall"].get("id").is_none()
            {
                call.remove("id");
            }
            if let Some(fields) = part.as_object_mut() {
                fields.retain(|_, value| !value.is_null());
            }
        }
        assert_eq!(turn["parts"], Value::Array(expected), "{name}");
    }
}

/// A whole answer as the provider would stream it: texts cut into `pieces`, the signature on the last one,
/// the reason to finish in the last event, and usage that grows.
fn as_stream(body: &Value, pieces: usize) -> String {
    let mut chunks: Vec<Value> = Vec::new();
    for part in body["candidates"][0]["content"]["parts"]
        .as_array()
        .into_iter()
        .flatten()
    {
        match part["text"].as_str() {
            Some(text) if pieces > 1 => {
                let step = text.chars().count() / pieces + 1;
                let chars: Vec<char> = text.chars().collect();
                for piece in chars.chunks(step) {
                    let mut piece = json!({"text": piece.iter().collect::<String>()});
                    if part["thought"] == true {
                        piece["thought"] = json!(true);
                    }
                    chunks.push(piece);
                }
                if part.get("thoughtSignature").is_some() {
                    let mut last = part.clone();
                    last["text"] = json!("");
                    chunks.push(last);
                }
            }
            _ => chunks.push(part.clone()),
        }
    }
    let mut frames: Vec<Value> = chunks
        .into_iter()
        .map(|part| {
            json!({"candidates": [{"content": {"parts": [part], "role": "model"}, "index": 0}],
                "usageMetadata": {"promptTokenCount": 1}, "modelVersion": body["modelVersion"],
                "responseId": body["responseId"]})
        })
        .collect();
    let mut last = body.clone();
    if let Some(candidate) = last.pointer_mut("/candidates/0") {
        candidate["content"] = json!({"parts": [{"text": ""}], "role": "model"});
    }
    frames.push(last);
    sse(frames.iter().map(Value::to_string))
}

fn message(parts: &Value, reason: &str) -> Value {
    json!({"candidates": [{"content": {"parts": parts, "role": "model"}, "finishReason": reason, "index": 0}],
        "usageMetadata": {"promptTokenCount": 10, "cachedContentTokenCount": 4, "candidatesTokenCount": 5,
                          "thoughtsTokenCount": 2, "totalTokenCount": 17},
        "modelVersion": "gemini-x", "responseId": "r1"})
}

fn answer(parts: Vec<Part>, finish: Finish) -> ChatResponse {
    let mut answer = ChatResponse::new(parts, finish).with_model("gemini-x");
    answer.id = Some("r1".to_owned());
    answer.usage = Some(Usage {
        input_tokens: 10,
        cached_input_tokens: 4,
        cache_write_tokens: 0,
        output_tokens: 7,
        reasoning_tokens: 2,
    });
    answer
}

fn signed(signature: &str) -> Option<ProviderData> {
    Some(ProviderData::new(
        "gemini",
        json!({"thoughtSignature": signature}),
    ))
}

fn opaque(kind: &str, value: Value) -> Part {
    Part::Opaque(OpaquePart {
        dialect: "gemini".into(),
        kind: kind.into(),
        value,
    })
}

fn call(id: &str, arguments: &str, signature: Option<ProviderData>) -> Part {
    let mut call = ToolCall::new(id, "f", arguments);
    call.data = signature;
    Part::ToolCall(call)
}

/// Checks both forms of an answer.
fn check_pair(body: &Value, expected: &ChatResponse) {
    assert_eq!(
        decode(&Gemini::new(), body.to_string()).expect("an answer"),
        *expected,
        "whole"
    );
    for pieces in [1, 4] {
        let streamed = stream(&Gemini::new(), as_stream(body, pieces).as_bytes()).expect("an answer");
        assert_eq!(streamed, *expected, "streamed in {pieces}");
    }
}

#[test]
fn text_thoughts_calls_and_opaque_parts_whole_and_streamed() {
    check_pair(
        &message(&json!([{"text": "{\"a\": \"é\"}"}]), "STOP"),
        &answer(vec![Part::text("{\"a\": \"é\"}")], Finish::Stop),
    );
    let thought = |text: &str, data| {
        Part::Reasoning(ReasoningPart {
            text: text.into(),
            data,
        })
    };
    let text = |text: &str, data| {
        Part::Text(TextPart {
            text: text.into(),
            data,
        })
    };
    check_pair(
        &message(
            &json!([{"text": "I think", "thought": true}, {"text": "So", "thoughtSignature": "s1"},
                {"text": "and so", "thought": true, "thoughtSignature": "s2"}, {"text": "on."},
                {"text": "", "thoughtSignature": "s3"}]),
            "STOP",
        ),
        &answer(
            vec![
                thought("I think", None),
                text("So", signed("s1")),
                thought("and so", signed("s2")),
                text("on.", signed("s3")),
            ],
            Finish::Stop,
        ),
    );
    check_pair(
        &message(
            &json!([{"text": "Two."},
                {"functionCall": {"name": "f", "args": {"a": [1.5, "x y"]}}, "thoughtSignature": "s"},
                {"functionCall": {"name": "f", "args": {}, "id": "i"}},
                {"functionCall": {"name": "f"}}]),
            "STOP",
        ),
        &answer(
            vec![
                Part::text("Two."),
                call("r1_call_0", r#"{"a":[1.5,"x y"]}"#, signed("s")),
                call("i", "{}", None),
                call("r1_call_2", "{}", None),
            ],
            Finish::ToolCalls,
        ),
    );
    let code = json!({"executableCode": {"code": "1+1", "language": "PYTHON"}});
    let tool = json!({"toolCall": {"id": "t", "toolType": "GOOGLE_SEARCH"}, "thoughtSignature": "s"});
    let sketch = json!({"inlineData": {"mimeType": "image/png", "data": "AP8="}, "thought": true});
    let unknown = json!({"thoughtSignature": "alone"});
    check_pair(
        &message(
            &json!([code, {"text": "a"}, tool, sketch, {"inlineData": {"mimeType": "image/png", "data": "AP8"}},
                {"inlineData": {"mimeType": "audio/wav", "data": "AA=="}, "thoughtSignature": "m"},
                {"text": "b"}, {"inlineData": {"mimeType": "video/mp4", "data": "AA=="}}, unknown]),
            "STOP",
        ),
        &answer(
            vec![
                opaque("executableCode", code),
                Part::text("a"),
                opaque("toolCall", tool),
                opaque("inlineData", sketch),
                Part::Image(MediaPart::bytes("image/png", &b"\x00\xff"[..])),
                Part::Audio(MediaPart::bytes("audio/wav", &b"\x00"[..])),
                opaque("thoughtSignature", json!({"text": "", "thoughtSignature": "m"})),
                Part::text("b"),
                opaque(
                    "inlineData",
                    json!({"inlineData": {"mimeType": "video/mp4", "data": "AA=="}}),
                ),
                opaque("thoughtSignature", unknown),
            ],
            Finish::Stop,
        ),
    );
}

#[test]
fn every_finish_reason_whole_and_streamed() {
    let says = || vec![Part::text("x")];
    let text = || json!([{"text": "x"}]);
    check_pair(&message(&text(), "MAX_TOKENS"), &answer(says(), Finish::Length));
    for word in [
        "SAFETY",
        "RECITATION",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "IMAGE_SAFETY",
    ] {
        check_pair(
            &message(&text(), word),
            &answer(says(), Finish::ContentFilter).with_metadata("finish_reason", word),
        );
    }
    for word in [
        "OTHER",
        "LANGUAGE",
        "UNEXPECTED_TOOL_CALL",
        "MISSING_THOUGHT_SIGNATURE",
        "TOMORROW",
    ] {
        check_pair(
            &message(&text(), word),
            &answer(says(), Finish::Other(word.into())),
        );
    }
    let calls = json!([{"functionCall": {"name": "f", "id": "i"}}]);
    check_pair(
        &message(&calls, "MAX_TOKENS"),
        &answer(vec![call("i", "{}", None)], Finish::Length),
    );
    let mut malformed = message(&json!([]), "MALFORMED_FUNCTION_CALL");
    malformed["candidates"][0]["finishMessage"] = json!("bad call");
    malformed["candidates"][0]["groundingMetadata"] = json!({"webSearchQueries": ["q"]});
    malformed["usageMetadata"]["serviceTier"] = json!("standard");
    malformed["usageMetadata"]["toolUsePromptTokenCount"] = json!(289);
    check_pair(
        &malformed,
        &answer(vec![], Finish::Other("MALFORMED_FUNCTION_CALL".into()))
            .with_metadata("finish_message", "bad call")
            .with_metadata("grounding_metadata", json!({"webSearchQueries": ["q"]}))
            .with_metadata("service_tier", "standard")
            .with_metadata("tool_use_prompt_tokens", 289),
    );
}

#[test]
fn answers_are_read_leniently() {
    let read = |body: Value| decode(&Gemini::new(), body.to_string()).unwrap();
    let odd = read(json!({"candidates": [
        {"index": 1, "content": {"parts": [{"text": "second"}]}, "finishReason": "STOP"},
        {"content": {"parts": [{"functionCall": {"name": "f", "args": "{ \"a\": 1 }", "new": 1}, "new": {}}], "new": 1},
         "new": null}], "usageMetadata": null, "new": []}));
    assert_eq!(odd.message.parts, [call("call_0", r#"{"a":1}"#, None)]);
    assert_eq!((odd.finish, odd.usage, odd.id), (Finish::ToolCalls, None, None));
    let empty = read(json!({"candidates": [{"content": null}], "usageMetadata": {"promptTokenCount": "x"}}));
    assert_eq!(empty.message.parts, []);
    assert_eq!(
        (empty.finish, empty.usage),
        (Finish::Other("unspecified".into()), None)
    );
    let nulls =
        read(json!({"candidates": [{"content": {"parts": null, "role": null}, "finishReason": "STOP"}]}));
    assert_eq!(nulls.finish, Finish::Stop);
}

#[test]
fn a_blocked_prompt_is_an_error_of_the_filter_in_both_forms() {
    let body = json!({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
        "usageMetadata": {"promptTokenCount": 3}, "modelVersion": "m"});
    let whole = decode(&Gemini::new(), body.to_string()).unwrap_err();
    let (_, streamed) = events(&Gemini::new(), sse([body.to_string()]).as_bytes());
    let streamed = streamed.unwrap_err();
    for error in [&whole, &streamed] {
        assert_eq!(
            (error.kind(), error.is_retryable()),
            (ErrorKind::ContentFilter, false)
        );
        assert!(error.to_string().contains("PROHIBITED_CONTENT"), "{error}");
    }
    assert!(whole.raw().is_some());
    // A feedback beside an answer blocks nothing.
    let mut fine = message(&json!([{"text": "x"}]), "STOP");
    fine["promptFeedback"] = json!({"safetyRatings": [], "blockReason": null});
    check_pair(&fine, &answer(vec![Part::text("x")], Finish::Stop));
}

#[test]
fn errors_in_a_success_and_answers_that_are_none() {
    let fail = |body: &str| decode(&Gemini::new(), body.to_owned()).unwrap_err();
    let exhausted = r#"{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED","details":[{"@type":"t.RetryInfo","retryDelay":"34s"}]}}"#;
    for body in [exhausted.to_owned(), format!("[{exhausted}]")] {
        let error = fail(&body);
        assert_eq!(
            (error.kind(), error.is_retryable()),
            (ErrorKind::RateLimited, true),
            "{body}"
        );
        assert_eq!(error.retry_after().map(|wait| wait.as_secs()), Some(34), "{body}");
        assert!(error.raw().is_some());
        let (_, ended) = events(&Gemini::new(), sse([&body]).as_bytes());
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::RateLimited, "{body}");
    }
    for not_an_answer in [
        "{}",
        r#"{"candidates":[]}"#,
        "[]",
        "[{}]",
        "7",
        "",
        "<html>",
        r#"{"candidates":{}}"#,
    ] {
        let error = fail(not_an_answer);
        assert_eq!(error.kind(), ErrorKind::Protocol, "{not_an_answer}");
        assert!(error.raw().is_some(), "{not_an_answer}");
    }
}

#[test]
fn a_wrong_key_is_told_apart_from_a_wrong_request() {
    let body = json!({"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT",
        "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]}});
    for body in [body.clone(), json!([body])] {
        let error = Gemini::new().error_body(body.to_string().as_bytes()).into_error(
            "gemini",
            400,
            None,
            UnixTime(0),
        );
        assert_eq!((error.kind, error.retryable), (ErrorKind::Authentication, false));
        assert_eq!(error.message, "API key not valid.");
    }
    let other = br#"{"error":{"code":400,"message":"m","status":"INVALID_ARGUMENT"}}"#;
    let error = Gemini::new()
        .error_body(other)
        .into_error("gemini", 400, None, UnixTime(0));
    assert_eq!(error.kind, ErrorKind::InvalidRequest);
}

#[test]
fn streams_end_in_errors_where_they_must() {
    let fail = |frames: &[&str]| {
        let (seen, ended) = events(&Gemini::new(), sse(frames).as_bytes());
        assert!(!seen.iter().any(|event| matches!(event, ChatEvent::Done(_))));
        ended.unwrap_err()
    };
    let piece = r#"{"candidates":[{"content":{"parts":[{"text":"x"}]}}]}"#;
    assert_eq!(fail(&[]).kind(), ErrorKind::Truncated);
    assert_eq!(fail(&[piece, piece]).kind(), ErrorKind::Truncated);
    assert_eq!(fail(&[piece, "{"]).kind(), ErrorKind::Protocol);
    let boom = r#"{"error":{"code":503,"message":"overloaded","status":"UNAVAILABLE"}}"#;
    assert_eq!(fail(&[piece, boom]).kind(), ErrorKind::Overloaded);
}

#[test]
fn what_follows_the_finish_reason_still_counts() {
    let text = sse([
        r#"{"candidates":[{"content":{"parts":[{"text":"x"}]},"finishReason":"STOP"}]}"#,
        r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f"}}]}}],"responseId":"late"}"#,
        r#"{"candidates":[],"usageMetadata":{"promptTokenCount":1,"candidatesTokenCount":2},"modelVersion":"m"}"#,
        "[DONE]",
    ]);
    let answer = stream(&Gemini::new(), text.as_bytes()).unwrap();
    assert_eq!(
        answer.message.parts,
        [Part::text("x"), call("late_call_0", "{}", None)]
    );
    assert_eq!(
        (answer.finish, answer.usage),
        (Finish::ToolCalls, Some(Usage::new(1, 2)))
    );
    assert_eq!((answer.id.as_deref(), answer.model.as_str()), (Some("late"), "m"));
}

#[test]
fn broken_bytes_never_panic() {
    let made = message(
        &json!([{"text": "é", "thought": true}, {"text": "b", "thoughtSignature": "s"},
            {"functionCall": {"name": "f", "args": {"a": [1]}}},
            {"inlineData": {"mimeType": "image/png", "data": "AAAA"}, "thoughtSignature": "t"},
            {"executableCode": {"code": "1"}}]),
        "STOP",
    );
    mangle::survive(&Gemini::new(), &made.to_string(), false, 1, 3000);
    mangle::survive(&Gemini::new(), &as_stream(&made, 3), true, 2, 3000);
    for (seed, exchange) in (3..).zip(recordings::exchanges("gemini").unwrap_or_default()) {
        let rounds = 200_000 / exchange.body.len().clamp(2_000, 40_000);
        mangle::survive(&Gemini::new(), &exchange.body, exchange.is_stream(), seed, rounds);
    }
}
