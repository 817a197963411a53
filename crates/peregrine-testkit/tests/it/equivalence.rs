//! The same script means the same as a complete body and as a stream, in every dialect and every cutting.

use peregrine_testkit::server::{Dialect, Finish, Reply, Usage};
use serde_json::{Value, json};

use crate::client::call;
use crate::decode::{self, DIALECTS, Decoded};
use crate::server;

fn scripts() -> Vec<Reply> {
    let usage = Usage::new(100, 40).with_reasoning(15).with_cache(30, 20);
    vec![
        Reply::text("Hello, wide world — 🦅!\n\n"),
        Reply::text(""),
        Reply::text_pieces(["one", "", " two", "\nthree"]),
        Reply::text("The answer.")
            .with_reasoning("Let me think of it.", Some("c2lnbmF0dXJl"))
            .with_usage(usage),
        Reply::tool_call(
            "id-1",
            "get_weather",
            json!({"city": "Málaga", "days": [1, 2.5, null], "deep": {"a": {}}}),
        ),
        Reply::text("I will look.")
            .with_reasoning("Two calls.", None)
            .with_tool_call("id-1", "first", json!({}))
            .with_tool_call("", "second", json!({"x": "\"quoted\" and \\ and \u{1}"})),
        Reply::text("It stops he").with_finish(Finish::Length),
        Reply::text("before ").with_finish(Finish::StopSequence("END".into())),
        Reply::refusal("I can not help with that."),
        Reply::text("").with_finish(Finish::ContentFilter),
        Reply::text("odd")
            .with_finish(Finish::Other("pause_turn".into()))
            .with_model("another-model"),
    ]
}

fn cuttings(reply: &Reply) -> Vec<Reply> {
    vec![
        reply.clone(),
        reply.clone().with_pieces(1),
        reply.clone().with_pieces(7),
        reply.clone().with_chars_per_piece(1),
    ]
}

#[tokio::test]
async fn complete_and_stream_mean_the_same() {
    for dialect in DIALECTS {
        for (number, script) in scripts().iter().enumerate() {
            for reply in cuttings(script) {
                // A server each, so that ids made from the request's number are equal.
                let (one, two) = (server().await, server().await);
                one.push(reply.clone());
                two.push(reply);
                let (target, headers, body) = decode::request(dialect, false);
                let complete = call(one.addr(), &target, &headers, &body).await.unwrap();
                let (target, headers, body) = decode::request(dialect, true);
                let stream = call(two.addr(), &target, &headers, &body).await.unwrap();
                assert_eq!((complete.status, stream.status), (200, 200));
                let (complete, stream) = (
                    decode::complete(dialect, &complete),
                    decode::stream(dialect, &stream),
                );
                assert_eq!(complete, stream, "{dialect:?} script {number}");
            }
        }
    }
}

async fn decoded(dialect: Dialect, reply: Reply) -> Decoded {
    let server = server().await;
    server.push(reply);
    let (target, headers, body) = decode::request(dialect, true);
    decode::stream(
        dialect,
        &call(server.addr(), &target, &headers, &body).await.unwrap(),
    )
}

#[tokio::test]
async fn what_is_scripted_arrives_in_every_dialect() {
    let arguments = json!({"city": "Paris", "n": 3});
    let reply = Reply::text("Look:")
        .with_reasoning("Hm.", Some("sig"))
        .with_tool_call("a", "weather", arguments.clone())
        .with_tool_call("b", "time", json!({}));
    for dialect in DIALECTS {
        let d = decoded(dialect, reply.clone()).await;
        assert_eq!(
            (d.text.as_str(), d.reasoning.as_str(), d.model.as_str()),
            ("Look:", "Hm.", "m"),
            "{dialect:?}"
        );
        let as_text = matches!(dialect, Dialect::OpenAiChat | Dialect::OpenAiResponses);
        let arguments = if as_text {
            json!(arguments.to_string())
        } else {
            arguments.clone()
        };
        let empty = if as_text { json!("{}") } else { json!({}) };
        let expected: Vec<(String, String, Value)> = vec![
            ("a".into(), "weather".into(), arguments),
            ("b".into(), "time".into(), empty),
        ];
        assert_eq!(d.calls, expected, "{dialect:?}");
        let signed = !matches!(dialect, Dialect::OpenAiChat | Dialect::Ollama);
        assert_eq!(d.signature, if signed { "sig" } else { "" }, "{dialect:?}");
    }
}

#[tokio::test]
async fn reasons_to_stop_have_the_words_of_each_service() {
    let cases = [
        (Finish::Stop, ["stop", "completed ", "end_turn:", "STOP", "stop"]),
        (
            Finish::Length,
            [
                "length",
                "incomplete max_output_tokens",
                "max_tokens:",
                "MAX_TOKENS",
                "length",
            ],
        ),
        (
            Finish::ToolCalls,
            ["tool_calls", "completed ", "tool_use:", "STOP", "stop"],
        ),
        (
            Finish::ContentFilter,
            [
                "content_filter",
                "incomplete content_filter",
                "refusal:",
                "SAFETY",
                "stop",
            ],
        ),
        (
            Finish::StopSequence("###".into()),
            ["stop", "completed ", "stop_sequence:###", "STOP", "stop"],
        ),
        (
            Finish::Other("odd".into()),
            ["odd", "incomplete odd", "odd:", "odd", "odd"],
        ),
    ];
    for (finish, words) in cases {
        for (dialect, word) in DIALECTS.into_iter().zip(words) {
            let d = decoded(dialect, Reply::text("x").with_finish(finish.clone())).await;
            assert_eq!(d.finish, word, "{dialect:?} {finish:?}");
        }
    }
}

#[tokio::test]
async fn a_refusal_is_where_each_service_puts_it() {
    for dialect in DIALECTS {
        let d = decoded(dialect, Reply::refusal("No, sorry.")).await;
        let (text, refusal, finish) = match dialect {
            Dialect::OpenAiChat => ("", "No, sorry.", "stop"),
            Dialect::OpenAiResponses => ("", "No, sorry.", "completed "),
            Dialect::Anthropic => ("", "No, sorry.", "refusal:"),
            Dialect::Gemini => ("", "No, sorry.", "SAFETY"),
            _ => ("No, sorry.", "", "stop"),
        };
        assert_eq!(
            (d.text.as_str(), d.refusal.as_str(), d.finish.as_str()),
            (text, refusal, finish),
            "{dialect:?}"
        );
    }
}

#[tokio::test]
async fn usage_is_counted_as_each_service_counts() {
    let usage = Usage::new(100, 40).with_reasoning(15).with_cache(30, 20);
    let reply = Reply::text("x").with_usage(usage);
    let of = async |dialect| decoded(dialect, reply.clone()).await.usage;
    let chat = of(Dialect::OpenAiChat).await;
    assert_eq!(
        (
            &chat["prompt_tokens"],
            &chat["completion_tokens"],
            &chat["total_tokens"]
        ),
        (&json!(100), &json!(40), &json!(140))
    );
    assert_eq!(chat["prompt_tokens_details"]["cached_tokens"], 30);
    assert_eq!(chat["completion_tokens_details"]["reasoning_tokens"], 15);
    let responses = of(Dialect::OpenAiResponses).await;
    assert_eq!(
        (&responses["input_tokens"], &responses["output_tokens"]),
        (&json!(100), &json!(40))
    );
    assert_eq!(responses["output_tokens_details"]["reasoning_tokens"], 15);
    assert_eq!(of(Dialect::Anthropic).await, json!([50, 40, 30, 20]));
    let gemini = of(Dialect::Gemini).await;
    assert_eq!(
        (&gemini["promptTokenCount"], &gemini["candidatesTokenCount"]),
        (&json!(100), &json!(25))
    );
    assert_eq!(
        (&gemini["thoughtsTokenCount"], &gemini["totalTokenCount"]),
        (&json!(15), &json!(140))
    );
    assert_eq!(gemini["cachedContentTokenCount"], 30);
    let ollama = of(Dialect::Ollama).await;
    assert_eq!((&ollama[0], &ollama[1]), (&json!(100), &json!(40)));
}
