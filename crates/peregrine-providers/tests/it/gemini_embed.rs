//! Embeddings of Gemini: recorded ones, requests byte for byte, and answers that are none.

use bytes::Bytes;
use peregrine_core::{EmbedPurpose, EmbedRequest, ErrorKind, RawResponse, Usage};
use peregrine_providers::wire::EmbedCodec as _;
use peregrine_providers::wire::gemini_embed::GeminiEmbed;
use serde_json::{Value, json};

use crate::recordings;

fn raw(status: u16, body: impl Into<Bytes>) -> RawResponse {
    let headers: Vec<(String, String)> = Vec::new();
    RawResponse::new(status, headers, vec![body.into()])
}

#[test]
fn recorded_embeddings_are_read() {
    let Some(interactions) = recordings::interactions("gemini", ":batchEmbedContents") else {
        println!("no recordings beside the project: nothing checked");
        return;
    };
    assert!(!interactions.is_empty());
    for it in interactions {
        let body = it["body"].as_str().unwrap_or_default();
        if it["status"] != 200 {
            let error = GeminiEmbed::new().error_body(body.as_bytes());
            let status = u16::try_from(it["status"].as_u64().unwrap()).unwrap();
            let error = error.into_error("gemini", status, None, peregrine_core::UnixTime(0));
            assert_eq!(error.kind, ErrorKind::NotFound);
            continue;
        }
        let requests = it["request"]["requests"].as_array().expect("requests");
        let batch = GeminiEmbed::new()
            .decode("gemini", &raw(200, body.to_owned()), requests.len())
            .expect("a recorded success");
        assert_eq!(batch.embeddings.len(), requests.len());
        let dimensions = requests[0]["outputDimensionality"].as_u64().unwrap_or(3072);
        assert_eq!(batch.embeddings.dimensions() as u64, dimensions);
        let recorded: Value = serde_json::from_str(body).unwrap();
        let first = recorded["embeddings"][0]["values"][0].as_f64().unwrap();
        assert!((f64::from(batch.embeddings.get(0).unwrap()[0]) - first).abs() < 1e-7);
        let tokens = recorded["usageMetadata"]["promptTokenCount"].as_u64();
        assert_eq!(batch.usage.map(|usage| usage.input_tokens), tokens);
    }
}

fn encode(model: &str, request: &EmbedRequest) -> String {
    let mut out = Vec::new();
    GeminiEmbed::new()
        .encode(model, &request.inputs[1..], request, &mut out)
        .expect("it can be said");
    String::from_utf8(out).expect("a body is UTF-8")
}

#[test]
fn requests() {
    let plain = EmbedRequest::new(["skipped", "a\"b", ""]);
    assert_eq!(
        encode("gemini-embedding-001", &plain),
        concat!(
            r#"{"requests":[{"model":"models/gemini-embedding-001","content":{"parts":[{"text":"a\"b"}]}},"#,
            r#"{"model":"models/gemini-embedding-001","content":{"parts":[{"text":""}]}}]}"#
        )
    );
    let mut full = EmbedRequest::new(["skipped", "a"])
        .with_dimensions(768)
        .with_purpose(EmbedPurpose::Query);
    full.provider_options.insert("gemini", "x", 1);
    full.provider_options.insert("openai", "y", 1);
    assert_eq!(
        encode("models/e", &full),
        concat!(
            r#"{"x":1,"requests":[{"model":"models/e","content":{"parts":[{"text":"a"}]},"#,
            r#""taskType":"RETRIEVAL_QUERY","outputDimensionality":768}]}"#
        )
    );
    for (purpose, word) in [
        (EmbedPurpose::Document, "RETRIEVAL_DOCUMENT"),
        (EmbedPurpose::Similarity, "SEMANTIC_SIMILARITY"),
        (EmbedPurpose::Classification, "CLASSIFICATION"),
        (EmbedPurpose::Clustering, "CLUSTERING"),
    ] {
        let body = encode("e", &EmbedRequest::new(["", "a"]).with_purpose(purpose));
        assert!(body.contains(&format!(r#""taskType":"{word}""#)), "{body}");
    }
    assert_eq!(GeminiEmbed::new().path("e"), "/models/e:batchEmbedContents");
    assert_eq!(GeminiEmbed::new().max_batch(), 100);
}

#[test]
fn answers_that_are_none() {
    let read = |body: &str, count| GeminiEmbed::new().decode("gemini", &raw(200, body.to_owned()), count);
    let two = r#"{"embeddings":[{"values":[1,2.5]},{"values":[-3e-1,4],"new":1}],"usageMetadata":{"promptTokenCount":7}}"#;
    let batch = read(two, 2).unwrap();
    assert_eq!(batch.embeddings.values(), [1.0, 2.5, -0.3, 4.0]);
    assert_eq!(batch.usage, Some(Usage::new(7, 0)));
    assert!(read(r#"{"embeddings":[]}"#, 0).unwrap().embeddings.is_empty());
    for (body, count) in [
        (two, 1),
        (two, 3),
        ("{}", 1),
        ("[]", 1),
        ("", 1),
        (r#"{"embeddings":[{"values":[1]},{"values":[1,2]}]}"#, 2),
        (r#"{"embeddings":[{"values":[]}]}"#, 1),
        (r#"{"embeddings":[{}]}"#, 1),
        (r#"{"embeddings":[{"values":[1e300]}]}"#, 1),
        (r#"{"embeddings":[{"values":["x"]}]}"#, 1),
    ] {
        let error = read(body, count).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{body}");
        assert!(error.raw().is_some(), "{body}");
    }
    let error = json!({"error": {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED"}});
    assert_eq!(
        read(&error.to_string(), 1).unwrap_err().kind(),
        ErrorKind::RateLimited
    );
}
