//! The offline embedding model: lengths, neighbours, determinism.

use peregrine_core::{EmbedPurpose, EmbedRequest, EmbedResponse, EmbeddingModel, ErrorKind, Result, Usage};
use peregrine_providers::offline::OfflineEmbedder;

fn embed(request: &EmbedRequest) -> Result<EmbedResponse> {
    futures_util::FutureExt::now_or_never(OfflineEmbedder::new().embed(request)).expect("it never waits")
}

fn similarity(one: &[f32], two: &[f32]) -> f32 {
    one.iter().zip(two).map(|(one, two)| one * two).sum()
}

#[test]
fn every_text_has_a_vector_of_length_one() {
    let texts = [
        "",
        " ",
        "a",
        "the of and",
        "Grüße, 東京!",
        "\0\u{1}",
        "!!!",
        &"x".repeat(10_000),
        &"word ".repeat(10_000),
    ];
    for dimensions in [None, Some(1), Some(2), Some(3), Some(256), Some(4096)] {
        let mut request = EmbedRequest::new(texts);
        request.dimensions = dimensions;
        let response = embed(&request).unwrap();
        assert_eq!(response.embeddings.len(), texts.len());
        assert_eq!(
            response.embeddings.dimensions(),
            dimensions.unwrap_or(256) as usize
        );
        for vector in response.embeddings.iter() {
            assert!((similarity(vector, vector) - 1.0).abs() < 1e-4);
        }
    }
    assert_eq!(embed(&EmbedRequest::default()).unwrap().embeddings.len(), 0);
}

#[test]
fn texts_with_the_same_words_are_near() {
    let texts = [
        "How are retries limited?",
        "The retry budget limits how often a call is retried.",
        "A retry happens after a failure",
        "Cats sleep all day in the sun.",
        "The weather in Paris is fine.",
        "how ARE Retries limited",
    ];
    let vectors = embed(&EmbedRequest::new(texts)).unwrap().embeddings;
    let near = |one: usize, two: usize| similarity(vectors.get(one).unwrap(), vectors.get(two).unwrap());
    assert!(near(0, 5) > 0.99, "case and marks do not matter: {}", near(0, 5));
    for related in [1, 2] {
        for other in [3, 4] {
            assert!(near(0, related) > near(0, other) + 0.1, "{related} {other}");
        }
    }
    assert!(near(3, 4).abs() < 0.3, "{}", near(3, 4));
}

#[test]
fn it_is_deterministic_and_says_what_it_is() {
    let model = OfflineEmbedder::new();
    assert_eq!(model.info().to_string(), "offline/offline-lexical");
    let request = EmbedRequest::new(["retries are limited"]).with_purpose(EmbedPurpose::Query);
    let one = embed(&request).unwrap();
    assert_eq!(one.embeddings, embed(&request).unwrap().embeddings);
    assert_eq!(
        (one.model.as_str(), one.usage),
        ("offline-lexical", Some(Usage::new(5, 0)))
    );
    // The same on every machine: a change of these numbers makes stored vectors worthless.
    let small = embed(&EmbedRequest::new(["retries are limited"]).with_dimensions(4)).unwrap();
    let rounded: Vec<i32> = small
        .embeddings
        .values()
        .iter()
        .map(|value| (value * 1000.0).round() as i32)
        .collect();
    assert_eq!(rounded, [147, 442, -883, -59]);
}

#[test]
fn what_it_cannot_do_is_refused() {
    for dimensions in [0, 4097] {
        let error = embed(&EmbedRequest::new(["x"]).with_dimensions(dimensions)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    }
    let mut request = EmbedRequest::new(["x"]);
    request.provider_options.insert("offline", "truncate", true);
    assert_eq!(embed(&request).unwrap_err().kind(), ErrorKind::InvalidRequest);
}
