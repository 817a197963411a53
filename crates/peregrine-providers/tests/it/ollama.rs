//! Answers of Ollama's native API: whole, streamed, cut in every way, broken, and the calls beside chat.
//!
//! No native traffic was ever recorded for this project, so the bodies here are written by hand after the
//! documented shapes.

#![allow(
    clippy::result_large_err,
    reason = "what a stream gave before it failed is what is compared"
)]

use std::time::Duration;

use bytes::Bytes;
use peregrine_core::{
    Capabilities, ChatEvent, ChatResponse, EmbedRequest, Error, ErrorKind, Finish, Part, RawResponse,
    Timings, ToolCall, Usage,
};
use peregrine_providers::wire::ollama::{AdminRequest, KeepAlive, Ollama, OllamaEmbed};
use peregrine_providers::wire::{ChatCodec, EmbedCodec, Target};
use serde_json::json;

use crate::recordings::{self, Exchange};

fn raw(status: u16, body: &str) -> RawResponse {
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    RawResponse::new(status, headers, vec![Bytes::copy_from_slice(body.as_bytes())])
}

fn whole(body: &str) -> peregrine_core::Result<ChatResponse> {
    let capabilities = Capabilities::default();
    let target = Target {
        provider: "ollama",
        model: "m",
        capabilities: &capabilities,
    };
    Ollama::new().decode(&target, raw(200, body))
}

fn exchange(body: &str) -> Exchange {
    Exchange {
        name: "hand-made".to_owned(),
        provider: "ollama".to_owned(),
        path: "/api/chat".to_owned(),
        request: json!({"model": "m"}),
        status: 200,
        content_type: "application/x-ndjson".to_owned(),
        body: body.to_owned(),
        expected: json!({"stream": true}),
    }
}

fn streamed(body: &str) -> Result<ChatResponse, (ChatResponse, Error)> {
    recordings::decode(&Ollama::new(), &exchange(body), &[])
}

const END: &str = r#""done":true,"total_duration":5043500667,"load_duration":5025959,"prompt_eval_count":26,"prompt_eval_duration":325953000,"eval_count":290,"eval_duration":4709213000"#;

fn end() -> (Option<Usage>, Option<Timings>) {
    let timings = Timings {
        total: Some(Duration::from_nanos(5_043_500_667)),
        load: Some(Duration::from_nanos(5_025_959)),
        prompt: Some(Duration::from_nanos(325_953_000)),
        generation: Some(Duration::from_nanos(4_709_213_000)),
    };
    (Some(Usage::new(26, 290)), Some(timings))
}

/// The same answer, whole and streamed.
fn pairs() -> Vec<(&'static str, String, String, ChatResponse)> {
    let (usage, timings) = end();
    let answer = |parts, finish| {
        let mut answer = ChatResponse::new(parts, finish).with_model("llama3.2");
        answer.usage = usage;
        answer.timings = timings;
        answer.with_metadata("created_at", "2023-12-12T14:13:43.416799Z")
    };
    let line = |message: &str, rest: &str| {
        format!(
            r#"{{"model":"llama3.2","created_at":"2023-12-12T14:13:43.416799Z","message":{message},{rest}}}"#
        )
    };
    let more = |message: &str| {
        // The lines of a stream have times of their own; the last one counts.
        line(message, r#""done":false"#).replace("43.416799", "40.000001") + "\n"
    };
    let thought = |text: &str| {
        Part::Reasoning(peregrine_core::ReasoningPart {
            text: text.to_owned(),
            data: None,
        })
    };
    let stop = format!(r#""done_reason":"stop",{END}"#);
    let empty = r#"{"role":"assistant","content":""}"#;
    let tokyo = r#"{"function":{"name":"get_weather","arguments":{"city": "Tokyo"}}}"#;
    let paris = r#"{"id":"call_x","function":{"index":1,"name":"get_weather","arguments":{"city":"Paris","days":[1, 2]}}}"#;
    let calls = || {
        vec![
            Part::ToolCall(ToolCall::new(
                "call_20231212141343416799_0",
                "get_weather",
                r#"{"city":"Tokyo"}"#,
            )),
            Part::ToolCall(ToolCall::new(
                "call_x",
                "get_weather",
                r#"{"city":"Paris","days":[1,2]}"#,
            )),
        ]
    };
    vec![
        (
            "text",
            line(r#"{"role":"assistant","content":"Hello! ünï"}"#, &stop),
            more(r#"{"role":"assistant","content":"Hel","images":null}"#)
                + &more(r#"{"role":"assistant","content":"lo! ünï"}"#)
                + &line(empty, &stop),
            answer(vec![Part::text("Hello! ünï")], Finish::Stop),
        ),
        (
            "reasoning and text",
            line(
                r#"{"role":"assistant","content":"42","thinking":"6 times 7"}"#,
                &stop,
            ),
            more(r#"{"role":"assistant","content":"","thinking":"6 times"}"#)
                + &more(r#"{"role":"assistant","content":"","thinking":" 7"}"#)
                + &more(r#"{"role":"assistant","content":"42"}"#)
                + &line(empty, &stop),
            answer(vec![thought("6 times 7"), Part::text("42")], Finish::Stop),
        ),
        (
            "two calls, text behind the first",
            line(
                &format!(r#"{{"role":"assistant","content":"Asking.","tool_calls":[{tokyo},{paris}]}}"#),
                &stop,
            ),
            more(&format!(
                r#"{{"role":"assistant","content":"","tool_calls":[{tokyo}]}}"#
            )) + &more(r#"{"role":"assistant","content":"Asking."}"#)
                + &more(&format!(
                    r#"{{"role":"assistant","content":"","tool_calls":[{paris}]}}"#
                ))
                + &line(empty, &stop),
            answer([vec![Part::text("Asking.")], calls()].concat(), Finish::ToolCalls),
        ),
        (
            "calls on the last line",
            line(
                &format!(r#"{{"content":null,"tool_calls":[{tokyo},{paris}]}}"#),
                &stop,
            ),
            line(
                &format!(r#"{{"content":null,"tool_calls":[{tokyo},{paris}]}}"#),
                &stop,
            ),
            answer(calls(), Finish::ToolCalls),
        ),
        (
            "length",
            line(
                r#"{"role":"assistant","content":"One, two"}"#,
                &format!(r#""done_reason":"length",{END}"#),
            ),
            more(r#"{"role":"assistant","content":"One, two"}"#)
                + "\n\n"
                + &line(empty, &format!(r#""done_reason":"length",{END}"#)),
            answer(vec![Part::text("One, two")], Finish::Length),
        ),
        (
            "JSON, and a server that gives no reason",
            line(r#"{"role":"assistant","content":"{\"a\":1}"}"#, END),
            more(r#"{"role":"assistant","content":"{\"a\""}"#)
                + &more(r#"{"role":"assistant","content":":1}"}"#)
                + &line(empty, END),
            answer(vec![Part::text("{\"a\":1}")], Finish::Stop),
        ),
    ]
}

#[test]
fn whole_and_streamed_answers_are_the_same() {
    for (name, whole_body, stream_body, expected) in pairs() {
        assert_eq!(whole(&whole_body).unwrap(), expected, "{name}, whole");
        assert_eq!(streamed(&stream_body).unwrap(), expected, "{name}, streamed");
    }
}

#[test]
fn every_cut_of_a_stream_gives_the_same_events() {
    for (name, _, body, _) in pairs() {
        let exchange = exchange(&body);
        let (events, error) = recordings::events(&Ollama::new(), &exchange, &[]);
        assert!(error.is_none(), "{name}");
        for cut in 0..=body.len() {
            let (found, _) = recordings::events(&Ollama::new(), &exchange, &[cut]);
            assert_eq!(found, events, "{name} cut at {cut}");
        }
        let bytes: Vec<usize> = (0..body.len()).collect();
        assert_eq!(
            recordings::events(&Ollama::new(), &exchange, &bytes).0,
            events,
            "{name}"
        );
    }
}

#[test]
fn text_goes_on_as_it_comes_and_calls_come_at_the_end() {
    let (_, _, body, _) = pairs().swap_remove(2);
    let (events, _) = recordings::events(&Ollama::new(), &exchange(&body), &[]);
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| match event {
            ChatEvent::Start { .. } => "start",
            ChatEvent::TextDelta { .. } => "text",
            ChatEvent::ToolCallStart { .. } => "call",
            ChatEvent::ToolCallDelta { .. } => "arguments",
            ChatEvent::ToolCallEnd { .. } => "call end",
            ChatEvent::Usage { .. } => "usage",
            ChatEvent::Done(_) => "done",
            _ => "other",
        })
        .collect();
    let call = ["call", "arguments", "call end"];
    assert_eq!(
        kinds,
        [&["start", "text"][..], &call, &call, &["usage", "done"]].concat()
    );
}

#[test]
fn loading_and_unloading_are_said() {
    let load = r#"{"model":"m","created_at":"t","message":{"role":"assistant","content":""},"done_reason":"load","done":true}"#;
    let answer = whole(load).unwrap();
    assert_eq!(answer.finish, Finish::Other("load".to_owned()));
    assert_eq!(
        (answer.usage, answer.timings, answer.message.parts.len()),
        (None, None, 0)
    );
    let unload = load.replace("\"load\"", "\"unload\"");
    assert_eq!(
        streamed(&unload).unwrap().finish,
        Finish::Other("unload".to_owned())
    );
}

#[test]
fn counts_are_read_leniently() {
    let usage = |fields: &str| {
        let body = format!(r#"{{"message":{{"content":"x"}},"done":true{fields}}}"#);
        let answer = whole(&body).unwrap();
        assert_eq!(answer, streamed(&body).unwrap());
        answer.usage
    };
    assert_eq!(usage(""), None);
    assert_eq!(
        usage(r#","eval_count":5"#),
        Some(Usage::new(0, 5)),
        "the prompt was cached"
    );
    assert_eq!(usage(r#","prompt_eval_count":7"#), Some(Usage::new(7, 0)));
    assert_eq!(
        usage(r#","prompt_eval_count":0,"eval_count":0"#),
        Some(Usage::new(0, 0))
    );
    assert_eq!(
        usage(r#","prompt_eval_count":null,"eval_count":"many","total_duration":-3"#),
        None
    );
}

#[test]
fn calls_are_read_leniently() {
    let call = |call: &str| -> peregrine_core::Result<Vec<ToolCall>> {
        let body = format!(r#"{{"message":{{"tool_calls":[{call}]}},"done":true}}"#);
        let answer = whole(&body)?;
        assert_eq!(answer, streamed(&body).map_err(|(_, error)| error)?);
        Ok(answer.tool_calls().cloned().collect())
    };
    let expected = |arguments: &str| vec![ToolCall::new("call_0", "f", arguments)];
    assert_eq!(call(r#"{"function":{"name":"f"}}"#).unwrap(), expected("{}"));
    assert_eq!(
        call(r#"{"function":{"name":"f","arguments":null}}"#).unwrap(),
        expected("{}")
    );
    assert_eq!(
        call(r#"{"id":"","function":{"name":"f","arguments":""}}"#).unwrap(),
        expected("{}")
    );
    assert_eq!(
        call(r#"{"function":{"name":"f","arguments":"{\"a\": 1}"}}"#).unwrap(),
        expected("{\"a\": 1}"),
        "text is taken as the model wrote it"
    );
    assert_eq!(
        call(r#"{"type":"function","function":{"name":"f","arguments":{"b": 1.0, "a": "x y"}}}"#).unwrap(),
        expected(r#"{"b":1.0,"a":"x y"}"#)
    );
    assert_eq!(
        call(r#"{"function":{"arguments":{}}}"#).unwrap_err().kind(),
        ErrorKind::Protocol
    );
    let none = r#"{"message":{"content":"x","tool_calls":null},"done":true}"#;
    assert_eq!(whole(none).unwrap().finish, Finish::Stop);
}

#[test]
fn errors_come_as_status_as_body_and_as_line() {
    let codec = Ollama::new();
    let error = |status: u16, body: &str| {
        Error::from(codec.error_body(body.as_bytes()).into_error(
            "ollama",
            status,
            None,
            peregrine_core::UnixTime(0),
        ))
    };
    let missing = error(404, r#"{"error":"model 'x' not found"}"#);
    assert_eq!(
        missing.to_string(),
        "ollama answered 404 (not_found): model 'x' not found"
    );
    assert!(!missing.is_retryable());
    let busy = error(
        503,
        r#"{"error":"server busy, please try again.  maximum pending requests exceeded"}"#,
    );
    assert_eq!((busy.kind(), busy.is_retryable()), (ErrorKind::Overloaded, true));

    let body = r#"{"error":"llama runner process has terminated"}"#;
    let in_body = whole(body).unwrap_err();
    assert_eq!(
        in_body.to_string(),
        "ollama answered 200 (server): llama runner process has terminated"
    );
    assert_eq!(
        in_body.raw().map(RawResponse::body).as_deref(),
        Some(body.as_bytes())
    );

    let stream = format!(
        "{}\n{body}\n",
        r#"{"model":"m","message":{"content":"Half"},"done":false}"#
    );
    let (partial, in_line) = streamed(&stream).unwrap_err();
    assert_eq!(partial.message.text(), "Half");
    assert_eq!(in_line.to_string(), in_body.to_string());
    assert_eq!(
        streamed(body).unwrap_err().1.kind(),
        ErrorKind::Server,
        "as the first line"
    );
}

#[test]
fn half_an_answer_is_no_answer() {
    let half = "{\"model\":\"m\",\"message\":{\"content\":\"Half\"},\"done\":false}\n";
    assert_eq!(streamed(half).unwrap_err().1.kind(), ErrorKind::Truncated);
    assert_eq!(streamed("").unwrap_err().1.kind(), ErrorKind::Truncated);
    assert_eq!(
        streamed("{\"status\":\"pulling\"}\n").unwrap_err().1.kind(),
        ErrorKind::Truncated
    );
    assert_eq!(
        streamed("{\"model\":\"m\",\"mess").unwrap_err().1.kind(),
        ErrorKind::Protocol
    );
    let error = whole(half).unwrap_err();
    assert_eq!(
        (error.kind(), error.raw().is_some()),
        (ErrorKind::Truncated, true)
    );
    for body in ["", "null", "[]", "<html>", "{\"message\":3,\"done\":true}"] {
        let error = whole(body).unwrap_err();
        assert_eq!(
            (error.kind(), error.raw().is_some()),
            (ErrorKind::Protocol, true),
            "{body}"
        );
    }
    let (_, _, body, expected) = pairs().swap_remove(0);
    assert_eq!(
        streamed(&(body + "\n{\"message\":{\"content\":\"late\"}}\n")).unwrap(),
        expected
    );
}

#[test]
fn no_bytes_make_it_panic() {
    let mut seed = 7_u64;
    let mut random = move |below: usize| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % below.max(1)
    };
    let words = [
        "null", "[]", "{}", "\"x\"", "-1", "1e400", "true", "[[[[", "\\ud800",
    ];
    let mut answers = 0;
    for (_, whole_body, stream_body, _) in pairs() {
        for body in [whole_body, stream_body] {
            for round in 0..400 {
                let mut bytes = body.clone().into_bytes();
                match round % 3 {
                    0 => bytes.truncate(random(bytes.len())),
                    1 => {
                        for _ in 0..=random(4) {
                            let at = random(bytes.len());
                            bytes[at] = u8::try_from(random(256)).unwrap();
                        }
                    }
                    _ => {
                        let from = random(bytes.len());
                        let to = (from + random(12)).min(bytes.len());
                        bytes.splice(from..to, words[random(words.len())].bytes());
                    }
                }
                let text = String::from_utf8_lossy(&bytes).into_owned();
                answers += usize::from(whole(&text).is_ok());
                answers += usize::from(streamed(&text).is_ok());
                let _ = Ollama::new().error_body(&bytes);
            }
        }
    }
    assert!(answers > 100, "some mutations leave an answer: {answers}");
}

#[test]
fn embeddings_are_asked_for_and_read() {
    let inputs = vec!["a".to_owned(), "\"b\"".to_owned()];
    let request = EmbedRequest::new(inputs.clone());
    let encode = |codec: &OllamaEmbed, request: &EmbedRequest| -> peregrine_core::Result<String> {
        let mut out = Vec::new();
        codec.encode("all-minilm", &inputs, request, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    };
    let codec = OllamaEmbed::new();
    assert_eq!(
        (codec.dialect(), codec.path("all-minilm").as_str()),
        ("ollama", "/api/embed")
    );
    assert_eq!(
        encode(&codec, &request).unwrap(),
        r#"{"model":"all-minilm","input":["a","\"b\""]}"#
    );
    let full = OllamaEmbed::new()
        .with_keep_alive(KeepAlive::UNLOAD)
        .with_truncate(false);
    let mut request = request.with_dimensions(8);
    assert_eq!(
        encode(&full, &request).unwrap(),
        r#"{"model":"all-minilm","dimensions":8,"keep_alive":0,"truncate":false,"input":["a","\"b\""]}"#
    );
    for (field, value) in [
        ("truncate", json!(true)),
        ("options", json!({"num_ctx": 64})),
        ("keep_alive", json!("1m")),
        ("dimensions", json!(4)),
        ("model", json!("n")),
    ] {
        request.provider_options.insert("ollama", field, value);
    }
    assert_eq!(
        encode(&full, &request).unwrap(),
        r#"{"model":"n","dimensions":4,"keep_alive":"1m","truncate":true,"options":{"num_ctx":64},"input":["a","\"b\""]}"#
    );
    request.provider_options.insert("ollama", "input", "x");
    assert_eq!(
        encode(&full, &request).unwrap_err().kind(),
        ErrorKind::InvalidRequest
    );

    let body = r#"{"model":"all-minilm","embeddings":[[0.1,-0.2,3],[0.3,0.25,1e-3]],"total_duration":14143917,"load_duration":1019500,"prompt_eval_count":8}"#;
    let batch = codec.decode("ollama", &raw(200, body), 2).unwrap();
    assert_eq!((batch.embeddings.len(), batch.embeddings.dimensions()), (2, 3));
    assert_eq!(batch.embeddings.get(1), Some(&[0.3_f32, 0.25, 1e-3][..]));
    assert_eq!(
        (batch.model.as_deref(), batch.usage),
        (Some("all-minilm"), Some(Usage::new(8, 0)))
    );
    let bare = codec
        .decode("ollama", &raw(200, r#"{"embeddings":[[1]]}"#), 1)
        .unwrap();
    assert_eq!((bare.model, bare.usage), (None, None));
    for wrong in [
        r#"{"embeddings":[[1]]}"#,
        r#"{"embeddings":[[1],[1,2]]}"#,
        r#"{"embeddings":[[],[]]}"#,
        r#"{"embeddings":[[1e39],[1]]}"#,
        r#"{"embeddings":null}"#,
        "[]",
        "",
    ] {
        let error = codec.decode("ollama", &raw(200, wrong), 2).unwrap_err();
        assert_eq!(
            (error.kind(), error.raw().is_some()),
            (ErrorKind::Protocol, true),
            "{wrong}"
        );
    }
    let error = codec
        .decode("ollama", &raw(200, r#"{"error":"no such model"}"#), 2)
        .unwrap_err();
    assert_eq!((error.kind(), error.raw().is_some()), (ErrorKind::Server, true));
}

#[test]
fn a_server_tells_what_it_has() {
    let show = AdminRequest::show("llava");
    assert_eq!((show.method, show.path), ("POST", "/api/show"));
    assert_eq!(show.body.as_deref(), Some(&br#"{"model":"llava"}"#[..]));
    assert_eq!(
        (AdminRequest::tags().method, AdminRequest::tags().path),
        ("GET", "/api/tags")
    );
    assert_eq!(
        (AdminRequest::ps().path, AdminRequest::ps().body),
        ("/api/ps", None)
    );

    let tags = r#"{"models":[{"name":"llama3.2:latest","model":"llama3.2:latest","modified_at":"2025-05-04T17:37:44.706015396-07:00","size":2019393189,"digest":"a80c","details":{"parent_model":"","format":"gguf","family":"llama","families":["llama"],"parameter_size":"3.2B","quantization_level":"Q4_K_M"}},{"name":"x","details":null,"capabilities":["completion"]}]}"#;
    let models = AdminRequest::read_tags(&raw(200, tags)).unwrap();
    assert_eq!(
        (models[0].name.as_str(), models[0].size_bytes),
        ("llama3.2:latest", 2_019_393_189)
    );
    assert_eq!(models[0].details.parameter_size, "3.2B");
    assert_eq!(models[1].capabilities, ["completion"]);
    assert_eq!(
        AdminRequest::read_tags(&raw(200, r#"{"models":null}"#)).unwrap(),
        []
    );

    let ps = r#"{"models":[{"name":"mistral:latest","size":5137025024,"digest":"2ae6","details":{"family":"llama"},"expires_at":"2024-06-04T14:38:31.83753-07:00","size_vram":5137025023,"context_length":4096}]}"#;
    let running = AdminRequest::read_ps(&raw(200, ps)).unwrap().swap_remove(0);
    assert_eq!(
        (running.size_bytes, running.size_vram_bytes),
        (5_137_025_024, 5_137_025_023)
    );
    assert_eq!(running.context_tokens, Some(4096));
    assert_eq!(
        running.expires_at.as_deref(),
        Some("2024-06-04T14:38:31.83753-07:00")
    );

    let show = r#"{"modelfile":"FROM x","parameters":"num_ctx 4096","template":"{{ .Prompt }}","details":{"family":"llama"},"model_info":{"general.architecture":"llama","llama.context_length":8192},"capabilities":["completion","vision","tools","thinking"]}"#;
    let description = AdminRequest::read_show(&raw(200, show)).unwrap();
    assert_eq!(description.context_tokens(), Some(8192));
    let capabilities = description.to_capabilities();
    assert!(capabilities.images && capabilities.tools && capabilities.reasoning && capabilities.streaming);
    assert!(!capabilities.audio && !capabilities.tool_choice);
    let old = AdminRequest::read_show(&raw(200, r#"{"details":{}}"#)).unwrap();
    assert!(old.to_capabilities().streaming && !old.to_capabilities().tools);
    let embedder = AdminRequest::read_show(&raw(200, r#"{"capabilities":["embedding"]}"#)).unwrap();
    assert!(!embedder.to_capabilities().streaming);

    assert_eq!(
        AdminRequest::read_version(&raw(200, r#"{"version":"0.5.1"}"#)).unwrap(),
        "0.5.1"
    );
    let kind = |status, body: &str| AdminRequest::read_version(&raw(status, body)).unwrap_err().kind();
    assert_eq!(kind(200, "{}"), ErrorKind::Protocol);
    assert_eq!(kind(200, "Ollama is running"), ErrorKind::Protocol);
    assert_eq!(kind(200, r#"{"error":"x"}"#), ErrorKind::Server);
    assert_eq!(
        kind(404, r#"{"error":"model 'x' not found"}"#),
        ErrorKind::NotFound
    );
    assert_eq!(kind(502, "<html>bad gateway</html>"), ErrorKind::Server);
}
