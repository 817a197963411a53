//! Requests to Gemini, byte for byte.

use std::time::Duration;

use bytes::Bytes;
use peregrine_core::{
    Capabilities, ChatRequest, DocumentPart, Effort, JsonSchema, MediaPart, Message, OpaquePart, Part,
    PromptCache, ProviderData, ReasoningConfig, ReasoningPart, ResponseFormat, Role, Sampling, TextPart,
    ToolCall, ToolChoice, ToolResult, ToolSpec,
};
use peregrine_providers::wire::gemini::Gemini;
use peregrine_providers::wire::{ChatCodec as _, Mode};
use serde_json::{Value, json};

use crate::support::{check_prefixes, encode, encode_for, target};

const OLD: &str = "gemini-2.5-flash";
const NEW: &str = "gemini-3-pro";

fn body(request: &ChatRequest) -> String {
    encode(&Gemini::new(), OLD, request).expect("it can be said")
}

fn refused(request: &ChatRequest) -> String {
    encode(&Gemini::new(), OLD, request).expect_err("it cannot be said")
}

/// What stands before the contents.
fn settings(request: &ChatRequest) -> String {
    settings_of(&body(request))
}

fn settings_of(body: &str) -> String {
    let rest = body.strip_suffix(r#""contents":[{"role":"user","parts":[{"text":"q"}]}]}"#);
    rest.expect("the tail")
        .trim_start_matches('{')
        .trim_end_matches(',')
        .to_owned()
}

/// The `contents` of a request of these messages to this model.
fn contents(model: &str, messages: impl IntoIterator<Item = Message>) -> String {
    let body = encode(&Gemini::new(), model, &ChatRequest::new(messages)).expect("it can be said");
    let contents = body
        .strip_prefix(r#"{"contents":["#)
        .and_then(|rest| rest.strip_suffix("]}"));
    contents.expect("only contents").to_owned()
}

fn ask() -> ChatRequest {
    ChatRequest::user("q")
}

fn tools() -> [ToolSpec; 2] {
    let schema = JsonSchema::parse(r#"{ "type":"object", "properties":{"b":{"type":["string","null"]}} }"#);
    [
        ToolSpec::new("f", "Does.", schema.expect("a schema")),
        ToolSpec::new("g", "", JsonSchema::empty_object()),
    ]
}

#[test]
fn a_conversation_with_a_tool_loop() {
    let request = ChatRequest::new([
        Message::system("Be brief."),
        Message::user("Weather?"),
        Message::assistant("I look.")
            .with_part(Part::ToolCall(ToolCall::new("t1", "f", r#"{"b":"x", "n":1.50}"#)))
            .with_part(Part::ToolCall(ToolCall::new("", "g", "{\"cut\":"))),
        Message::user("Hurry."),
        Message::tool(ToolResult::new(&ToolCall::new("t1", "f", ""), "sunny")),
        Message::tool(ToolResult::error(&ToolCall::new("", "g", ""), "{\"no\":1}")),
        Message::assistant("Sunny."),
        Message::system("Be long."),
        Message::tool(ToolResult::new(
            &ToolCall::new("t3", "f", ""),
            " {\"a\": [1.50]}\n",
        )),
    ])
    .with_tools(tools());
    let expected = concat!(
        r#"{"systemInstruction":{"parts":[{"text":"Be brief."},{"text":"Be long."}]},"#,
        r#""tools":[{"functionDeclarations":[{"name":"f","description":"Does.","parametersJsonSchema":{ "type":"object", "properties":{"b":{"type":["string","null"]}} }},"#,
        r#"{"name":"g","parametersJsonSchema":{"type":"object","properties":{}}}]}],"contents":["#,
        r#"{"role":"user","parts":[{"text":"Weather?"}]},"#,
        r#"{"role":"model","parts":[{"text":"I look."},{"functionCall":{"id":"t1","name":"f","args":{"b":"x", "n":1.50}}},"#,
        r#"{"functionCall":{"name":"g","args":{"invalid_arguments":"{\"cut\":"}}}]},"#,
        r#"{"role":"user","parts":[{"functionResponse":{"id":"t1","name":"f","response":{"result":"sunny"}}},"#,
        r#"{"functionResponse":{"name":"g","response":{"error":"{\"no\":1}"}}},{"text":"Hurry."}]},"#,
        r#"{"role":"model","parts":[{"text":"Sunny."}]},"#,
        r#"{"role":"user","parts":[{"functionResponse":{"id":"t3","name":"f","response":{"a": [1.50]}}}]}]}"#
    );
    assert_eq!(body(&request), expected);
    let capabilities = Capabilities::default();
    let target = target(OLD, &capabilities);
    let (streamed, _) = encode_for(&Gemini::new(), &target, &request, Mode::Stream).unwrap();
    assert_eq!(streamed, expected, "streaming is said in the path");
    assert_eq!(
        Gemini::new().path(&target, Mode::Stream),
        "/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
    );
}

#[test]
fn media() {
    let bytes = || Bytes::from_static(b"\x00\xffPNG");
    let parts = vec![
        Part::Image(MediaPart::bytes("image/png", bytes())),
        Part::Image(MediaPart::url("https://i").with_media_type("image/jpeg")),
        Part::Audio(MediaPart::file("https://files/1")),
        Part::Document(DocumentPart::bytes("application/pdf", bytes()).with_title("T\"")),
        Part::Document(DocumentPart::url("https://d")),
        Part::Document(DocumentPart::text("Notes", "é")),
    ];
    assert_eq!(
        contents(OLD, [Message::new(Role::User, parts)]),
        concat!(
            r#"{"role":"user","parts":[{"inlineData":{"mimeType":"image/png","data":"AP9QTkc="}},"#,
            r#"{"fileData":{"fileUri":"https://i","mimeType":"image/jpeg"}},{"fileData":{"fileUri":"https://files/1"}},"#,
            r#"{"text":"Document: T\""},{"inlineData":{"mimeType":"application/pdf","data":"AP9QTkc="}},"#,
            r#"{"fileData":{"fileUri":"https://d"}},"#,
            r#"{"text":"Document: Notes"},{"inlineData":{"mimeType":"text/plain","data":"w6k="}}]}"#
        )
    );
    let mut untyped = MediaPart::bytes("", bytes());
    untyped.media_type = None;
    assert!(
        refused(&ChatRequest::new([Message::new(
            Role::User,
            vec![Part::Image(untyped)]
        )]))
        .contains("media type")
    );
}

#[test]
fn results_with_media_before_and_from_gemini_3_on() {
    let mut result = ToolResult::new(&ToolCall::new("t", "f", ""), "");
    result.content = vec![
        Part::Image(MediaPart::bytes("image/png", &b"\x00"[..])),
        Part::text("seen"),
        Part::Document(DocumentPart::text("N", "x")),
    ];
    let messages = || [Message::tool(result.clone()), Message::user("And?")];
    assert_eq!(
        contents(OLD, messages()),
        concat!(
            r#"{"role":"user","parts":[{"functionResponse":{"id":"t","name":"f","response":{"result":"seen"}}},"#,
            r#"{"inlineData":{"mimeType":"image/png","data":"AA=="}},{"text":"Document: N"},"#,
            r#"{"inlineData":{"mimeType":"text/plain","data":"eA=="}},{"text":"And?"}]}"#
        )
    );
    assert_eq!(
        contents(NEW, messages()),
        concat!(
            r#"{"role":"user","parts":[{"functionResponse":{"id":"t","name":"f","response":{"result":"seen"},"#,
            r#""parts":[{"inlineData":{"mimeType":"image/png","data":"AA=="}},"#,
            r#"{"inlineData":{"mimeType":"text/plain","data":"eA==","displayName":"N"}}]}},{"text":"And?"}]}"#
        )
    );
    result.name.clear();
    assert!(refused(&ChatRequest::new([Message::tool(result.clone())])).contains("name"));
    result.name.push('f');
    result.content = vec![Part::Reasoning(ReasoningPart::default())];
    assert!(refused(&ChatRequest::new([Message::tool(result)])).contains("result of f"));
}

fn opaque(dialect: &str, kind: &str, value: Value) -> Part {
    Part::Opaque(OpaquePart {
        dialect: dialect.into(),
        kind: kind.into(),
        value,
    })
}

#[test]
fn what_the_provider_said_goes_back_to_it_alone() {
    let from = |dialect: &str| {
        let signed =
            |signature: &str| Some(ProviderData::new(dialect, json!({"thoughtSignature": signature})));
        let mut call = ToolCall::new("i", "f", "{}");
        call.data = signed("s3");
        Message::new(
            Role::Assistant,
            vec![
                Part::Reasoning(ReasoningPart {
                    text: "unsigned".into(),
                    data: None,
                }),
                Part::Reasoning(ReasoningPart {
                    text: "hm".into(),
                    data: signed("s1"),
                }),
                opaque(
                    dialect,
                    "executableCode",
                    json!({"executableCode": {"code": "1"}}),
                ),
                Part::text(""),
                Part::Text(TextPart {
                    text: String::new(),
                    data: signed("s2"),
                }),
                Part::Refusal(TextPart {
                    text: "No.".into(),
                    data: None,
                }),
                Part::Image(MediaPart::bytes("image/png", &b"\x00"[..])),
                opaque(
                    dialect,
                    "thoughtSignature",
                    json!({"text": "", "thoughtSignature": "m"}),
                ),
                opaque(
                    dialect,
                    "thoughtSignature",
                    json!({"text": "", "thoughtSignature": "alone"}),
                ),
                Part::ToolCall(call),
                Part::ToolCall(ToolCall::new("j", "f", "{}")),
            ],
        )
    };
    assert_eq!(
        contents(NEW, [from("gemini")]),
        concat!(
            r#"{"role":"model","parts":[{"text":"hm","thought":true,"thoughtSignature":"s1"},{"executableCode":{"code":"1"}},"#,
            r#"{"text":"","thoughtSignature":"s2"},{"text":"No."},"#,
            r#"{"inlineData":{"mimeType":"image/png","data":"AA=="},"thoughtSignature":"m"},{"text":"","thoughtSignature":"alone"},"#,
            r#"{"functionCall":{"id":"i","name":"f","args":{}},"thoughtSignature":"s3"},"#,
            r#"{"functionCall":{"id":"j","name":"f","args":{}}}]}"#
        )
    );
    let foreign = |skip: &str| {
        format!(
            concat!(
                r#"{{"role":"model","parts":[{{"text":"No."}},{{"inlineData":{{"mimeType":"image/png","data":"AA=="}}}},"#,
                r#"{{"functionCall":{{"id":"i","name":"f","args":{{}}}}{skip}}},"#,
                r#"{{"functionCall":{{"id":"j","name":"f","args":{{}}}}}}]}}"#
            ),
            skip = skip
        )
    };
    assert_eq!(contents(OLD, [from("anthropic")]), foreign(""));
    assert_eq!(
        contents(NEW, [from("anthropic")]),
        foreign(r#","thoughtSignature":"c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I=""#)
    );
}

#[test]
fn tool_choices() {
    let offer = |choice, strict| {
        let mut tool = ToolSpec::new("f", "", JsonSchema::empty_object());
        tool.strict = strict;
        settings(&ask().with_tools([tool]).with_tool_choice(choice))
            .replace(
                r#""tools":[{"functionDeclarations":[{"name":"f","parametersJsonSchema":{"type":"object","properties":{}}}]}]"#,
                "",
            )
            .trim_start_matches(',')
            .to_owned()
    };
    let mode = |mode: &str| format!(r#""toolConfig":{{"functionCallingConfig":{{"mode":{mode}}}}}"#);
    assert_eq!(offer(ToolChoice::Auto, None), "");
    assert_eq!(offer(ToolChoice::Auto, Some(true)), mode(r#""VALIDATED""#));
    assert_eq!(offer(ToolChoice::None, Some(true)), mode(r#""NONE""#));
    assert_eq!(offer(ToolChoice::Required, None), mode(r#""ANY""#));
    assert_eq!(
        offer(ToolChoice::Tool("f".into()), None),
        mode(r#""ANY","allowedFunctionNames":["f"]"#)
    );
    assert_eq!(settings(&ask().with_tool_choice(ToolChoice::None)), "");
    assert!(refused(&ask().with_tool_choice(ToolChoice::Required)).contains("tool_choice"));
    let mut request = ask().with_tools(tools());
    request.parallel_tool_calls = Some(false);
    assert!(refused(&request).contains("parallel_tool_calls"));
    request.parallel_tool_calls = Some(true);
    assert_eq!(settings(&request), settings(&ask().with_tools(tools())));
}

#[test]
fn sampling() {
    let sampling = Sampling {
        temperature: Some(0.0),
        top_p: Some(0.5),
        top_k: Some(0),
        max_tokens: Some(0),
        seed: Some(0),
        stop: vec!["END".into(), String::new()],
        presence_penalty: Some(0.0),
        frequency_penalty: Some(-0.5),
    };
    assert_eq!(
        settings(&ask().with_sampling(sampling)),
        concat!(
            r#""generationConfig":{"temperature":0.0,"topP":0.5,"topK":0,"maxOutputTokens":0,"seed":0,"#,
            r#""presencePenalty":0.0,"frequencyPenalty":-0.5,"stopSequences":["END",""]}"#
        )
    );
    assert!(refused(&ask().with_temperature(f64::NAN)).contains("temperature"));
}

#[test]
fn forms_of_the_answer() {
    let schema = JsonSchema::parse(
        r#"{ "type":"object","properties":{"n":{"type":["integer","null"],"minimum":1}} }"#,
    );
    let schema = schema.unwrap();
    let format = ResponseFormat::schema("answer", schema.clone());
    assert_eq!(
        settings(&ask().with_response_format(ResponseFormat::Json)),
        r#""generationConfig":{"responseMimeType":"application/json"}"#
    );
    assert_eq!(
        settings(&ask().with_response_format(format.clone())),
        concat!(
            r#""generationConfig":{"responseMimeType":"application/json","responseJsonSchema":"#,
            r#"{ "type":"object","properties":{"n":{"type":["integer","null"],"minimum":1}} }}"#
        )
    );
    let open_api = Gemini::new().with_openapi_schemas();
    let request = ask()
        .with_tools([ToolSpec::new("f", "", schema)])
        .with_response_format(format);
    assert_eq!(
        settings_of(&encode(&open_api, OLD, &request).unwrap()),
        concat!(
            r#""tools":[{"functionDeclarations":[{"name":"f","parameters":{"type":"object","properties":"#,
            r#"{"n":{"type":"integer","nullable":true,"minimum":1}}}}]}],"#,
            r#""generationConfig":{"responseMimeType":"application/json","responseSchema":{"type":"object","properties":"#,
            r#"{"n":{"type":"integer","nullable":true,"minimum":1}}}}"#
        )
    );
}

#[test]
fn reasoning() {
    let thinks = |effort, budget_tokens, visible| {
        let config = ReasoningConfig {
            effort,
            budget_tokens,
            visible,
        };
        encode(&Gemini::new(), OLD, &ask().with_reasoning(config)).map(|body| settings_of(&body))
    };
    let said = |fields: &str| Ok(format!(r#""generationConfig":{{"thinkingConfig":{{{fields}}}}}"#));
    assert_eq!(thinks(None, None, None), Ok(String::new()));
    assert_eq!(
        thinks(Some(Effort::None), None, None),
        said(r#""thinkingBudget":0"#)
    );
    assert_eq!(
        thinks(None, Some(0), Some(false)),
        said(r#""thinkingBudget":0,"includeThoughts":false"#)
    );
    assert_eq!(
        thinks(None, Some(512), Some(true)),
        said(r#""thinkingBudget":512,"includeThoughts":true"#)
    );
    for (effort, word) in [
        (Effort::Minimal, "MINIMAL"),
        (Effort::Low, "LOW"),
        (Effort::Medium, "MEDIUM"),
        (Effort::High, "HIGH"),
        (Effort::XHigh, "XHIGH"),
    ] {
        assert_eq!(
            thinks(Some(effort), None, None),
            said(&format!(r#""thinkingLevel":"{word}""#))
        );
    }
    assert!(
        thinks(Some(Effort::Max), None, None)
            .unwrap_err()
            .contains("effort max")
    );
    assert!(
        thinks(Some(Effort::None), Some(5), None)
            .unwrap_err()
            .contains("contradict")
    );
}

#[test]
fn prompt_cache_and_provider_options() {
    let cache = |key: Option<&str>, ttl, automatic| PromptCache {
        key: key.map(str::to_owned),
        ttl,
        automatic,
    };
    let marked = ChatRequest::new([Message::user("q").with_cache_breakpoint()]);
    assert_eq!(settings(&marked.with_prompt_cache(cache(None, None, true))), "");
    // Hints that it has no word for change no answer, and are passed over.
    let hour = Some(Duration::from_secs(3600));
    assert_eq!(
        settings(&ask().with_prompt_cache(cache(Some("k"), hour, false))),
        ""
    );

    let request = ask()
        .with_temperature(1.0)
        .with_tools(tools())
        .with_provider_option("gemini", "tools", json!([{"googleSearch": {}}]))
        .with_provider_option("gemini", "cachedContent", "cachedContents/1")
        .with_provider_option("openai", "user", "u");
    assert_eq!(
        settings(&request),
        concat!(
            r#""generationConfig":{"temperature":1.0},"tools":[{"googleSearch":{}}],"#,
            r#""cachedContent":"cachedContents/1""#
        )
    );
    let contents = ask().with_provider_option("gemini", "contents", json!([1]));
    assert_eq!(body(&contents), r#"{"contents":[1]}"#);
}

#[test]
fn misplaced_parts_are_refused() {
    for (role, part) in [
        (Role::User, Part::ToolCall(ToolCall::new("i", "n", "{}"))),
        (Role::User, Part::Reasoning(ReasoningPart::default())),
        (Role::System, Part::Image(MediaPart::url("u"))),
        (Role::Assistant, Part::Document(DocumentPart::url("u"))),
        (
            Role::Assistant,
            Part::ToolResult(ToolResult::new(&ToolCall::new("i", "n", "{}"), "r")),
        ),
    ] {
        let error = refused(&ChatRequest::new([Message::new(role, vec![part])]));
        assert!(
            error.contains("part 0") && error.contains(role.as_str()),
            "{error}"
        );
    }
}

#[test]
fn each_turn_begins_with_the_bytes_of_the_one_before() {
    let call = |id: &str| Message::assistant("c").with_part(Part::ToolCall(ToolCall::new(id, "f", "{}")));
    let result = |id: &str| Message::tool(ToolResult::new(&ToolCall::new(id, "f", ""), "r"));
    let script = [
        Message::system("s"),
        Message::user("a"),
        call("1"),
        result("1"),
        Message::new(Role::Assistant, vec![Part::Reasoning(ReasoningPart::default())]),
        call("2"),
        result("2"),
        Message::assistant("t"),
        Message::user("b"),
        Message::assistant("u"),
        Message::user("c"),
    ];
    let base = ChatRequest::default().with_tools(tools()).with_temperature(0.5);
    let used = check_prefixes(&Gemini::new(), NEW, &base, &script, |index| index > 0);
    assert!(used >= 8, "{used}");
}

#[test]
fn a_prefix_for_an_older_model_is_not_used_for_a_newer_one() {
    let request = ChatRequest::new([
        Message::user("a"),
        Message::new(
            Role::Assistant,
            vec![Part::ToolCall(ToolCall::new("i", "f", "{}"))],
        ),
        Message::tool(ToolResult::new(&ToolCall::new("i", "f", ""), "r")),
    ]);
    let capabilities = Capabilities::default();
    let codec = Gemini::new();
    let (body, prefix) = encode_for(&codec, &target(OLD, &capabilities), &request, Mode::Complete).unwrap();
    let prefix = prefix.unwrap();
    assert_eq!(prefix.count, 2);
    let bytes = Bytes::copy_from_slice(&body.as_bytes()[prefix.range]);
    request.messages.remember_prefix(prefix.key, prefix.count, bytes);
    let (newer, _) = encode_for(&codec, &target(NEW, &capabilities), &request, Mode::Complete).unwrap();
    assert!(newer.contains("thoughtSignature"), "{newer}");
}
