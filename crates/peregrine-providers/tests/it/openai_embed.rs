//! Embeddings: exact requests, both forms of vectors, and answers that do not fit.

use bytes::Bytes;
use peregrine_core::{EmbedPurpose, EmbedRequest, ErrorKind, RawResponse, Result, Usage};
use peregrine_providers::wire::openai_embed::OpenAiEmbed;
use peregrine_providers::wire::{EmbedBatch, EmbedCodec};
use serde_json::Value;

use crate::peer::error_of;

fn read(body: &str, count: usize) -> Result<EmbedBatch> {
    let raw = RawResponse::new(200, Vec::new(), vec![Bytes::from(body.to_owned())]);
    OpenAiEmbed::new().decode("openai", &raw, count)
}

#[test]
fn requests() {
    let body = |codec: &OpenAiEmbed, request: &EmbedRequest| {
        let mut out = Vec::new();
        codec
            .encode("m", &request.inputs[..2], request, &mut out)
            .map(|()| String::from_utf8(out).unwrap())
    };
    let request = EmbedRequest::new(["a\n", "é", "c"])
        .with_dimensions(0)
        .with_purpose(EmbedPurpose::Query);
    assert_eq!(
        body(&OpenAiEmbed::new(), &request).unwrap(),
        r#"{"model":"m","encoding_format":"base64","dimensions":0,"input":["a\n","é"]}"#
    );
    assert_eq!(
        body(&OpenAiEmbed::mistral(), &request).unwrap(),
        r#"{"model":"m","output_dimension":0,"input":["a\n","é"]}"#
    );
    let none = OpenAiEmbed::new().with_dimensions_field(None).with_base64(false);
    assert_eq!(error_of(body(&none, &request)).kind(), ErrorKind::InvalidRequest);
    let mut plain = EmbedRequest::new(["a", "b"]);
    assert_eq!(body(&none, &plain).unwrap(), r#"{"model":"m","input":["a","b"]}"#);
    plain
        .provider_options
        .insert("openai-embeddings", "encoding_format", "float");
    assert_eq!(
        body(&OpenAiEmbed::new(), &plain).unwrap(),
        r#"{"model":"m","encoding_format":"float","input":["a","b"]}"#
    );
    assert_eq!(
        (
            OpenAiEmbed::new().max_batch(),
            OpenAiEmbed::new().with_max_batch(0).max_batch()
        ),
        (2048, 1)
    );
    assert_eq!(OpenAiEmbed::new().path("m"), "/embeddings");
}

#[test]
fn vectors_come_in_both_forms_and_any_order() {
    // 1.0, -2.5 in little-endian f32.
    let batch = read(
        r#"{"object":"list","model":"m-1","data":[{"index":1,"embedding":"AACAPwAAIMA="},{"index":0,"embedding":[0.5,1]}],"usage":{"prompt_tokens":3,"total_tokens":3}}"#,
        2,
    )
    .unwrap();
    assert_eq!(batch.embeddings.values(), [0.5, 1.0, 1.0, -2.5]);
    assert_eq!(batch.embeddings.dimensions(), 2);
    assert_eq!(
        (batch.model.as_deref(), batch.usage),
        (Some("m-1"), Some(Usage::new(3, 0)))
    );
    let bare = read(r#"{"data":[{"embedding":[1.0]},{"embedding":[2.0]}]}"#, 2).unwrap();
    assert_eq!(
        (bare.embeddings.values(), bare.usage),
        ([1.0, 2.0].as_slice(), None)
    );
}

#[test]
fn answers_that_do_not_fit_are_errors() {
    for (body, count) in [
        (r#"{"data":[{"embedding":[1.0]}]}"#, 2),
        (r#"{"data":[{"embedding":[1.0]},{"embedding":[1.0]}]}"#, 1),
        (
            r#"{"data":[{"index":0,"embedding":[1.0]},{"index":0,"embedding":[1.0]}]}"#,
            2,
        ),
        (r#"{"data":[{"index":9,"embedding":[1.0]}]}"#, 1),
        (r#"{"data":[{"embedding":[1.0]},{"embedding":[1.0,2.0]}]}"#, 2),
        (r#"{"data":[{"embedding":[]}]}"#, 1),
        (r#"{"data":[{"embedding":null}]}"#, 1),
        (r#"{"data":[{"embedding":"AAAA"}]}"#, 1),
        (r#"{"data":[{"embedding":"not base64"}]}"#, 1),
        (r#"{"data":[{"embedding":"AADAfw=="}]}"#, 1),
        (r#"{"data":[{"embedding":[1e300]}]}"#, 1),
        (r#"{"data":null}"#, 0),
        ("[]", 0),
        ("", 0),
    ] {
        let error = error_of(read(body, count));
        assert!(
            error.kind() == ErrorKind::Protocol && error.raw().is_some(),
            "{body}: {error}"
        );
    }
    let error = error_of(read(
        r#"{"error":{"message":"m","code":"rate_limit_exceeded"}}"#,
        1,
    ));
    assert_eq!(error.kind(), ErrorKind::RateLimited);
}

#[test]
fn recorded_embeddings_are_read() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../../shared/wire/recordings.jsonl"
    );
    let recorded = std::fs::read_to_string(path).unwrap_or_default();
    for line in recorded.lines().filter(|line| line.contains("/v1/embeddings")) {
        let recording: Value = serde_json::from_str(line).expect("JSON lines");
        let all = recording["interactions"].as_array().expect("a list");
        for it in all
            .iter()
            .filter(|it| it["path"] == "/v1/embeddings" && it["status"] == 200)
        {
            let inputs = it["request"]["input"].as_array().map_or(1, Vec::len);
            let batch = read(it["body"].as_str().expect("a body"), inputs).expect("recorded vectors");
            assert_eq!(
                (batch.embeddings.len(), batch.embeddings.dimensions()),
                (inputs, 1536)
            );
            assert!(batch.usage.is_some_and(|usage| usage.input_tokens > 0));
            let first = batch.embeddings.get(0).expect("a vector");
            let length: f32 = first.iter().map(|x| x * x).sum();
            assert!(
                (length - 1.0).abs() < 0.01,
                "OpenAI's vectors have length 1: {length}"
            );
        }
    }
}
