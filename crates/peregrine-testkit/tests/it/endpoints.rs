//! Embeddings, lists of models, counts, refusals of malformed requests, keys, and the default echo.

use peregrine_testkit::server::{Dialect, Endpoint, LlmServer, Reply};
use serde_json::{Value, json};

use crate::client::{call, get};
use crate::decode::{self, DIALECTS};
use crate::server;

#[tokio::test]
async fn embeddings_are_the_same_vectors_in_every_dialect() {
    let server = server().await;
    let at = server.addr();
    let inputs = json!(["alpha", "beta"]);
    let body = json!({"model": "e", "input": inputs});
    let openai = call(at, "/v1/embeddings", &[], &body).await.unwrap().json();
    let vectors: Vec<Value> = openai["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["embedding"].clone())
        .collect();
    assert_eq!(openai["object"], "list");
    assert_eq!(openai["data"][1]["index"], 1);
    assert_eq!(vectors[0].as_array().unwrap().len(), 32);
    assert_ne!(vectors[0], vectors[1]);

    let body = json!({"model": "e", "input": inputs, "encoding_format": "base64"});
    let coded = call(at, "/v1/embeddings", &[], &body).await.unwrap().json();
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(coded["data"][0]["embedding"].as_str().unwrap())
        .unwrap();
    let floats: Vec<f32> = bytes
        .chunks(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    // Numbers in text are read as doubles; a float is one of them.
    let as_floats: Vec<f32> = vectors[0]
        .as_array()
        .unwrap()
        .iter()
        .map(|x| x.as_f64().unwrap() as f32)
        .collect();
    assert_eq!(floats, as_floats);

    let entry = |text: &str| json!({"model": "models/e", "content": {"parts": [{"text": text}]}});
    let body = json!({"requests": [entry("alpha"), entry("beta")]});
    let gemini = call(at, "/v1beta/models/e:batchEmbedContents", &[], &body)
        .await
        .unwrap()
        .json();
    assert_eq!(
        gemini,
        json!({"embeddings": [{"values": vectors[0]}, {"values": vectors[1]}]})
    );
    let one = call(at, "/v1beta/models/e:embedContent", &[], &entry("beta"))
        .await
        .unwrap()
        .json();
    assert_eq!(one, json!({"embedding": {"values": vectors[1]}}));

    let ollama = call(at, "/api/embed", &[], &json!({"model": "e", "input": inputs}))
        .await
        .unwrap()
        .json();
    assert_eq!(ollama["embeddings"], json!(vectors));
    assert!(ollama["prompt_eval_count"].is_u64());
    let older = call(
        at,
        "/api/embeddings",
        &[],
        &json!({"model": "e", "prompt": "beta"}),
    )
    .await
    .unwrap()
    .json();
    assert_eq!(older, json!({"embedding": vectors[1]}));
}

#[tokio::test]
async fn dimensions_are_honoured_and_bounded_and_vectors_can_be_scripted() {
    let server = server().await;
    let at = server.addr();
    let ask = async |dimensions: Value| {
        call(
            at,
            "/v1/embeddings",
            &[],
            &json!({"model": "e", "input": "x", "dimensions": dimensions}),
        )
        .await
        .unwrap()
    };
    assert_eq!(
        ask(json!(7)).await.json()["data"][0]["embedding"]
            .as_array()
            .unwrap()
            .len(),
        7
    );
    for bad in [json!(0), json!(1_000_000_000_u64), json!(-1), json!("7")] {
        assert_eq!(ask(bad).await.status, 400);
    }
    server.push_at(Endpoint::OpenAiEmbeddings, Reply::embeddings([vec![0.5, -0.25]]));
    assert_eq!(
        ask(Value::Null).await.json()["data"][0]["embedding"],
        json!([0.5, -0.25])
    );
}

#[tokio::test]
async fn models_are_listed_in_each_shape() {
    let server = LlmServer::builder()
        .with_models(["a", "b"])
        .start()
        .await
        .unwrap();
    let at = server.addr();
    let openai = get(at, "/v1/models", &[]).await.json();
    assert_eq!(
        (&openai["object"], &openai["data"][1]["id"]),
        (&json!("list"), &json!("b"))
    );
    let anthropic = get(at, "/v1/models", &[("anthropic-version", "2023-06-01")])
        .await
        .json();
    assert_eq!(
        (&anthropic["has_more"], &anthropic["data"][0]["type"]),
        (&json!(false), &json!("model"))
    );
    let gemini = get(at, "/v1beta/models", &[]).await.json();
    assert_eq!(gemini["models"][0]["name"], "models/a");
    assert_eq!(get(at, "/v1/models/b", &[]).await.json()["id"], "b");
    assert_eq!(get(at, "/v1/models/c", &[]).await.status, 404);
    assert_eq!(
        get(at, "/v1beta/models/c", &[]).await.json()["error"]["status"],
        "NOT_FOUND"
    );

    let tags = get(at, "/api/tags", &[]).await.json();
    assert_eq!(tags["models"][1]["model"], "b");
    assert_eq!(tags["models"][0]["digest"].as_str().unwrap().len(), 64);
    assert_eq!(
        get(at, "/api/ps", &[]).await.json()["models"][0]["context_length"],
        4096
    );
    assert!(get(at, "/api/version", &[]).await.json()["version"].is_string());
    assert_eq!(get(at, "/", &[]).await.text(), "Ollama is running");
    let show = call(at, "/api/show", &[], &json!({"model": "a"}))
        .await
        .unwrap()
        .json();
    assert_eq!(show["capabilities"], json!(["completion", "tools"]));
    assert_eq!(
        call(at, "/api/show", &[], &json!({"model": "c"}))
            .await
            .unwrap()
            .status,
        404
    );
}

#[tokio::test]
async fn tokens_are_counted_the_same_everywhere() {
    let server = server().await;
    let at = server.addr();
    let text = "x".repeat(40);
    let version = [("anthropic-version", "2023-06-01")];
    let body = json!({"model": "m", "messages": [{"role": "user", "content": text}]});
    let anthropic = call(at, "/v1/messages/count_tokens", &version, &body)
        .await
        .unwrap()
        .json();
    assert_eq!(anthropic, json!({"input_tokens": 10}));
    let body = json!({"contents": [{"parts": [{"text": text}]}]});
    let gemini = call(at, "/v1beta/models/m:countTokens", &[], &body)
        .await
        .unwrap();
    assert_eq!(gemini.json()["totalTokens"], 10);
    let body = json!({"model": "m", "input": text});
    let responses = call(at, "/v1/responses/input_tokens", &[], &body).await.unwrap();
    assert_eq!(
        responses.json(),
        json!({"object": "response.input_tokens", "input_tokens": 10})
    );
}

#[tokio::test]
async fn malformed_requests_are_refused_in_the_shape_of_the_dialect() {
    let server = server().await;
    let at = server.addr();
    let messages = json!([{"role": "user", "content": "x"}]);
    let version = [("anthropic-version", "2023-06-01")];
    type Case<'c> = (&'c str, &'c [(&'c str, &'c str)], Value, &'c str);
    let cases: [Case<'_>; 9] = [
        (
            "/v1/chat/completions",
            &[],
            json!({"messages": messages}),
            "/error/message",
        ),
        (
            "/v1/chat/completions",
            &[],
            json!({"model": "m", "messages": []}),
            "/error/message",
        ),
        ("/v1/chat/completions", &[], json!([1]), "/error/message"),
        ("/v1/responses", &[], json!({"model": "m"}), "/error/message"),
        (
            "/v1/messages",
            &version,
            json!({"model": "m", "messages": messages}),
            "/error/message",
        ),
        (
            "/v1/messages",
            &[],
            json!({"model": "m", "messages": messages, "max_tokens": 5}),
            "/error/message",
        ),
        (
            "/v1beta/models/m:generateContent",
            &[],
            json!({"contents": []}),
            "/error/status",
        ),
        ("/api/chat", &[], json!({"messages": messages}), "/error"),
        ("/api/embed", &[], json!({"model": "m"}), "/error"),
    ];
    for (path, headers, body, pointer) in cases {
        let answer = call(at, path, headers, &body).await.unwrap();
        assert_eq!(answer.status, 400, "{path} {body}");
        assert!(
            answer.json().pointer(pointer).is_some_and(Value::is_string),
            "{path}: {}",
            answer.text()
        );
    }
    let missing = call(at, "/v1/nothing", &[], &json!({})).await.unwrap();
    assert_eq!(
        (missing.status, missing.json()["error"]["message"].as_str()),
        (404, Some("no route for POST /v1/nothing"))
    );
    assert_eq!(get(at, "/v1/chat/completions", &[]).await.status, 404);
}

#[tokio::test]
async fn a_demanded_key_is_checked_before_the_script() {
    let server = LlmServer::builder().with_api_key("secret").start().await.unwrap();
    server.push(Reply::text("in"));
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
    let path = "/v1/chat/completions";
    let wrong = call(server.addr(), path, &[("authorization", "Bearer other")], &body)
        .await
        .unwrap();
    assert_eq!(
        (wrong.status, wrong.json()["error"]["code"].as_str()),
        (401, Some("invalid_api_key"))
    );
    assert_eq!(call(server.addr(), path, &[], &body).await.unwrap().status, 401);
    let right = call(server.addr(), path, &[("authorization", "Bearer secret")], &body)
        .await
        .unwrap();
    assert_eq!(right.json()["choices"][0]["message"]["content"], "in");
    for header in ["x-api-key", "x-goog-api-key", "api-key"] {
        assert_eq!(
            call(server.addr(), path, &[(header, "secret")], &body)
                .await
                .unwrap()
                .status,
            200
        );
    }
    assert_eq!(get(server.addr(), "/api/tags", &[]).await.status, 200);
}

#[tokio::test]
async fn errors_have_the_shape_of_the_dialect() {
    let server = server().await;
    for (dialect, pointer, word) in [
        (Dialect::OpenAiChat, "/error/code", "rate_limit_exceeded"),
        (Dialect::OpenAiResponses, "/error/code", "rate_limit_exceeded"),
        (Dialect::Anthropic, "/error/type", "rate_limit_error"),
        (Dialect::Gemini, "/error/status", "RESOURCE_EXHAUSTED"),
        (Dialect::Ollama, "/error", "slow down"),
    ] {
        for stream in [false, true] {
            server.push(Reply::error(429, "slow down").with_retry_after("2"));
            let (target, headers, body) = decode::request(dialect, stream);
            let answer = call(server.addr(), &target, &headers, &body).await.unwrap();
            assert_eq!((answer.status, answer.header("retry-after")), (429, Some("2")));
            assert_eq!(
                answer.json().pointer(pointer).and_then(Value::as_str),
                Some(word),
                "{dialect:?}"
            );
        }
        server.push(Reply::error(429, "slow down").with_status(200));
        let (target, headers, body) = decode::request(dialect, false);
        let answer = call(server.addr(), &target, &headers, &body).await.unwrap();
        assert_eq!((answer.status, answer.json().get("error").is_some()), (200, true));
    }
}

#[tokio::test]
async fn a_script_for_the_wrong_endpoint_says_so() {
    let server = server().await;
    server.push_any(Reply::text("x"));
    let answer = get(server.addr(), "/v1/models", &[]).await;
    assert_eq!(answer.status, 500);
    assert!(
        answer
            .text()
            .contains("the script gives a scripted answer to GET /v1/models")
    );
}

/// A conversation with a tool, in each dialect: the first answer calls it, the second one has its result.
#[tokio::test]
async fn the_echo_goes_through_a_tool_loop_in_every_dialect() {
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    for dialect in DIALECTS {
        let server = server().await;
        let (target, headers, mut body) = decode::request(dialect, false);
        let plain = call(server.addr(), &target, &headers, &body).await.unwrap();
        assert_eq!(decode::complete(dialect, &plain).text, "echo: hello there");

        let function = json!({"name": "weather", "description": "d", "parameters": schema});
        body["tools"] = match dialect {
            Dialect::OpenAiResponses => {
                json!([{"type": "function", "name": "weather", "parameters": schema}])
            }
            Dialect::Anthropic => json!([{"name": "weather", "input_schema": schema}]),
            Dialect::Gemini => json!([{"functionDeclarations": [function]}]),
            _ => json!([{"type": "function", "function": function}]),
        };
        let called = call(server.addr(), &target, &headers, &body).await.unwrap();
        let called = decode::complete(dialect, &called);
        let (id, name, arguments) = called.calls.first().cloned().unwrap();
        let arguments = match &arguments {
            Value::String(text) => serde_json::from_str(text).unwrap(),
            value => value.clone(),
        };
        assert_eq!(
            (name.as_str(), &arguments),
            ("weather", &json!({"city": "hello there"})),
            "{dialect:?}"
        );

        let result = match dialect {
            Dialect::OpenAiResponses => {
                json!([{"role": "user", "content": "hello"}, {"type": "function_call_output", "call_id": id, "output": "sunny"}])
            }
            Dialect::Anthropic => {
                let block = json!({"type": "tool_result", "tool_use_id": id, "content": [{"type": "text", "text": "sunny"}]});
                json!([{"role": "user", "content": [block]}])
            }
            Dialect::Gemini => {
                let part = json!({"functionResponse": {"name": "weather", "response": {"result": "sunny"}}});
                json!([{"role": "user", "parts": [part]}])
            }
            _ => {
                json!([{"role": "user", "content": "hello"}, {"role": "tool", "tool_call_id": id, "content": "sunny"}])
            }
        };
        let field = match dialect {
            Dialect::OpenAiResponses => "input",
            Dialect::Gemini => "contents",
            _ => "messages",
        };
        body[field] = result;
        let done = call(server.addr(), &target, &headers, &body).await.unwrap();
        assert_eq!(
            decode::complete(dialect, &done).text,
            "tool said: sunny",
            "{dialect:?}"
        );
        let last = server.last_request().unwrap();
        assert_eq!(last.tool_result().as_deref(), Some("sunny"));
    }
}

#[tokio::test]
async fn a_demanded_schema_is_filled_in_every_dialect() {
    let schema = json!({
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
    });
    let server = server().await;
    for dialect in DIALECTS {
        let (target, headers, mut body) = decode::request(dialect, true);
        let (field, value) = match dialect {
            Dialect::OpenAiChat => (
                "response_format",
                json!({"type": "json_schema", "json_schema": {"name": "p", "schema": schema}}),
            ),
            Dialect::OpenAiResponses => (
                "text",
                json!({"format": {"type": "json_schema", "name": "p", "schema": schema}}),
            ),
            Dialect::Anthropic => (
                "output_config",
                json!({"format": {"type": "json_schema", "schema": schema}}),
            ),
            Dialect::Gemini => (
                "generationConfig",
                json!({"responseMimeType": "application/json", "responseJsonSchema": schema}),
            ),
            _ => ("format", schema.clone()),
        };
        body[field] = value;
        let answer = call(server.addr(), &target, &headers, &body).await.unwrap();
        let text = decode::stream(dialect, &answer).text;
        assert_eq!(
            serde_json::from_str::<Value>(&text).unwrap(),
            json!({"name": "hello there", "age": 1}),
            "{dialect:?}"
        );
    }
}

#[tokio::test]
async fn an_empty_ollama_prompt_loads_or_unloads_the_model() {
    let server = server().await;
    let body = json!({"model": "m", "messages": []});
    let loaded = call(server.addr(), "/api/chat", &[], &body)
        .await
        .unwrap()
        .lines();
    assert_eq!((loaded.len(), &loaded[0]["done_reason"]), (1, &json!("load")));
    let body = json!({"model": "m", "keep_alive": 0, "stream": false});
    let unloaded = call(server.addr(), "/api/generate", &[], &body)
        .await
        .unwrap()
        .json();
    assert_eq!(
        (&unloaded["done_reason"], &unloaded["response"]),
        (&json!("unload"), &json!(""))
    );
}
