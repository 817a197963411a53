//! The real clients against real servers: llama.cpp on tiny generated models, and LiteLLM in front of it.
//!
//! `tests/peers/run.sh` starts the servers and says where they are; without it these tests are listed as not
//! run. The models are generated: one says a fixed text, one calls the tool it is offered and then says
//! "Done.", one writes random bytes, which a schema holds to valid JSON.

use peregrine_core::{
    ChatEvent, ChatModel as _, ChatRequest, EmbedRequest, EmbeddingModel as _, Finish, Message, ModelHandle,
    ResponseFormat, Secret, ToolResult, ToolSpec,
};
use peregrine_providers::Connector;
use peregrine_testkit::service;
use serde_json::{Value, json};

fn model(spec: &str, url: &str) -> ModelHandle {
    let key = std::env::var("PEREGRINE_TEST_PEER_LITELLM_KEY").unwrap_or_else(|_| "sk-none".to_owned());
    // The server closes connections when it likes; a call that meets that moment is tried again, as everywhere.
    Connector::new()
        .with_base_url(url)
        .with_api_key(Secret::new(key))
        .chat(spec)
        .unwrap()
}

/// Whole and streamed, the model says its text.
async fn says(model: &ModelHandle, text: &str) {
    let request = ChatRequest::user("say it").with_max_tokens(40);
    let whole = model.complete(&request).await.unwrap();
    assert_eq!(
        (whole.message.text().as_str(), &whole.finish),
        (text, &Finish::Stop),
        "{whole:?}"
    );
    assert!(
        whole.usage.is_some_and(|usage| usage.output_tokens > 0),
        "{whole:?}"
    );

    let mut stream = model.stream(&request).await.unwrap();
    let (mut streamed, mut pieces, mut done) = (String::new(), 0, false);
    while let Some(event) = stream.next().await {
        match event.unwrap() {
            ChatEvent::TextDelta { text } => {
                pieces += 1;
                streamed.push_str(&text);
            }
            ChatEvent::Done(end) => {
                assert_eq!(end.finish, Finish::Stop);
                assert!(end.raw.is_some_and(|raw| raw.body_len() > 0));
                done = true;
            }
            _ => {}
        }
    }
    assert!(done && pieces > 1, "{pieces} pieces");
    assert_eq!(streamed, text);
}

/// The model calls the tool, sees the result and says "Done."; streamed calls are the same calls.
async fn runs_a_tool_loop(model: &ModelHandle) {
    let parameters = json!({
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
        "additionalProperties": false
    });
    let mut request = ChatRequest::user("add two numbers")
        .with_tools([ToolSpec::new("add", "adds two numbers", parameters)])
        .with_max_tokens(400);
    let streamed = model.stream(&request).await.unwrap().collect().await.unwrap();
    assert_eq!(streamed.finish, Finish::ToolCalls, "{streamed:?}");
    let answer = model.complete(&request).await.unwrap();
    assert_eq!(answer.finish, Finish::ToolCalls, "{answer:?}");
    let call = answer.tool_calls().next().expect("a call").clone();
    assert_eq!(call.name, "add");
    let arguments = call.parse_arguments().unwrap();
    assert!(arguments["a"].is_i64() && arguments["b"].is_i64(), "{arguments}");

    request.messages.push(answer.message.clone());
    request.messages.push(Message::tool(ToolResult::new(&call, "3")));
    let last = model.complete(&request).await.unwrap();
    assert_eq!(
        (last.message.text().as_str(), &last.finish),
        ("Done.", &Finish::Stop),
        "{last:?}"
    );
    let last = model.stream(&request).await.unwrap().collect().await.unwrap();
    assert_eq!(last.message.text(), "Done.");
}

/// A model of random bytes is held to a schema.
async fn keeps_a_schema(model: &ModelHandle) {
    let schema = json!({
        "type": "object",
        "properties": {"mood": {"type": "string", "enum": ["calm", "wild"]}, "sure": {"type": "boolean"}},
        "required": ["mood", "sure"],
        "additionalProperties": false
    });
    let request = ChatRequest::user("how are you")
        .with_response_format(ResponseFormat::schema("mood", schema))
        .with_max_tokens(200);
    let check = |text: &str| {
        let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert!(
            ["calm", "wild"].contains(&value["mood"].as_str().unwrap()),
            "{value}"
        );
        assert!(value["sure"].is_boolean(), "{value}");
    };
    check(&model.complete(&request).await.unwrap().message.text());
    check(
        &model
            .stream(&request)
            .await
            .unwrap()
            .collect()
            .await
            .unwrap()
            .message
            .text(),
    );
}

#[tokio::test]
async fn llama_speaks_openai_chat() {
    let (Some(text), Some(tool), Some(random)) = (
        service::peer("llama_text"),
        service::peer("llama_tool"),
        service::peer("llama_random"),
    ) else {
        return;
    };
    says(&model("llama-cpp/any", &text), "The quick").await;
    runs_a_tool_loop(&model("llama-cpp/any", &tool)).await;
    keeps_a_schema(&model("llama-cpp/any", &random)).await;
}

#[tokio::test]
async fn llama_speaks_openai_responses() {
    let (Some(text), Some(tool), Some(random)) = (
        service::peer("llama_text"),
        service::peer("llama_tool"),
        service::peer("llama_random"),
    ) else {
        return;
    };
    says(&model("llama-cpp-responses/any", &text), "The quick").await;
    runs_a_tool_loop(&model("llama-cpp-responses/any", &tool)).await;
    keeps_a_schema(&model("llama-cpp-responses/any", &random)).await;
}

#[tokio::test]
async fn llama_speaks_anthropic() {
    let (Some(text), Some(tool)) = (service::peer("llama_text"), service::peer("llama_tool")) else {
        return;
    };
    says(&model("anthropic/any", &text), "The quick").await;
    runs_a_tool_loop(&model("anthropic/any", &tool)).await;
}

#[tokio::test]
async fn llama_embeds() {
    let Some(url) = service::peer("llama_embed") else {
        return;
    };
    let embedder = Connector::new()
        .with_base_url(url)
        .embedder("llama-cpp/any")
        .unwrap();
    let response = embedder
        .embed(&EmbedRequest::new(["one", "two", "one"]))
        .await
        .unwrap();
    assert_eq!(response.embeddings.len(), 3);
    assert!(response.embeddings.dimensions() > 1);
    // The server computes in parallel, so equal texts have equal vectors but for the last bits.
    let vector = |place| response.embeddings.get(place).unwrap();
    let apart = |one: usize, two: usize| {
        let pairs = vector(one).iter().zip(vector(two));
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0_f32, f32::max)
    };
    assert!(
        apart(0, 2) < 1e-4 && apart(0, 1) > 1e-2,
        "{} {}",
        apart(0, 2),
        apart(0, 1)
    );
}

#[tokio::test]
async fn litellm_speaks_gemini() {
    let Some(url) = service::peer("litellm") else {
        return;
    };
    says(&model("gemini/text", &url), "The quick").await;
    runs_a_tool_loop(&model("gemini/tool", &url)).await;
}
