//! The offline model: quotes, limits, determinism, hostile input.

use bytes::Bytes;
use futures_util::StreamExt;
use peregrine_core::{
    ChatEvent, ChatModel, ChatRequest, ChatResponse, DocumentPart, ErrorKind, Finish, MediaPart, Message,
    Part, ResponseFormat, Result, Role, Sampling, ToolCall, ToolResult,
};
use peregrine_providers::offline::OfflineModel;
use serde_json::json;

pub(crate) const README: &str = "\
# Falcon

Falcon moves large files between data centres. It is written in Rust and
needs Rust 1.95 or newer; the minimum supported version (MSRV) is 1.95.

## Install

Run the following:

- `cargo install falcon`
- `falcon init`
- `falcon doctor`

## Limits

| limit | default | maximum |
|-------|--------:|--------:|
| chunk size | 8 MiB | 64 MiB |
| parallel transfers | 4 | 128 |
| retries | 5 | 50 |

## License

MIT OR Apache-2.0. Contact: Grace Hopper, grace@example.org.
";

pub(crate) const GUIDE: &str = "\
# Operations guide

Falcon listens on port 7171. A transfer that stalls for more than 30 seconds is
resumed from its last acknowledged chunk. Encryption is always on and cannot be
disabled.

## Exit status

Exit status 0 means that every file arrived. Exit status 3 means that a checksum
did not match.

Was ist die Antwort? Die Prüfsumme wird mit BLAKE3 berechnet.

鳥はとても速いです。東京は日本の首都です。
";

/// Asks the model, which never waits.
pub(crate) fn complete(request: &ChatRequest) -> Result<ChatResponse> {
    futures_util::FutureExt::now_or_never(OfflineModel::new().complete(request)).expect("it never waits")
}

fn documents() -> [Part; 2] {
    [
        Part::Document(DocumentPart::text("README.md", README)),
        Part::Document(DocumentPart::text("docs/guide.md", GUIDE)),
    ]
}

pub(crate) fn about(question: &str) -> ChatRequest {
    let [readme, guide] = documents();
    ChatRequest::new([Message::user(question).with_part(readme).with_part(guide)])
}

fn ask(question: &str) -> String {
    complete(&about(question)).expect("an answer").message.text()
}

#[test]
fn it_quotes_what_answers_and_names_the_source() {
    let cases = [
        (
            "What is the MSRV?",
            "the minimum supported version (MSRV) is 1.95.\" (README.md)",
        ),
        (
            "Which minimum supported Rust version does it need?",
            "(MSRV) is 1.95.\" (README.md)",
        ),
        (
            "On which port does Falcon listen?",
            "\"Falcon listens on port 7171.\" (docs/guide.md)",
        ),
        (
            "How many parallel transfers are allowed by default?",
            "\"parallel transfers | 4 | 128\" (README.md)",
        ),
        (
            "What does exit status 3 mean?",
            "\"Exit status 3 means that a checksum did not match.\" (docs/guide.md)",
        ),
        (
            "Can encryption be disabled?",
            "\"Encryption is always on and cannot be disabled.\" (docs/guide.md)",
        ),
        ("Under which license is it?", "\"MIT OR Apache-2.0.\" (README.md)"),
        (
            "Womit wird die Prüfsumme berechnet?",
            "\"Die Prüfsumme wird mit BLAKE3 berechnet.\" (docs/guide.md)",
        ),
        (
            "日本の首都はどこですか？",
            "\"東京は日本の首都です。\" (docs/guide.md)",
        ),
        (
            "How are stalled transfers resumed?",
            "resumed from its last acknowledged chunk.\" (docs/guide.md)",
        ),
        (
            "who should I contact",
            "Contact: Grace Hopper, grace@example.org.\" (README.md)",
        ),
    ];
    for (question, expected) in cases {
        let answer = ask(question);
        assert!(
            answer.lines().next().unwrap().ends_with(expected),
            "{question}\n{answer}"
        );
    }
}

#[test]
fn a_sentence_that_leads_in_a_list_brings_the_list() {
    let text = "To install Falcon, run:\n\n- cargo install falcon\n- falcon init\n\nThen read on.";
    let request =
        ChatRequest::new([Message::user("How do I install Falcon?")
            .with_part(Part::Document(DocumentPart::text("a.md", text)))]);
    assert_eq!(
        complete(&request).unwrap().message.text(),
        "\"To install Falcon, run:\n- cargo install falcon\n- falcon init\" (a.md)"
    );
}

#[test]
fn what_does_not_fit_is_said_plainly() {
    for question in [
        "Who is the president of France?",
        "What is the airspeed of an unladen swallow?",
        "Hello!",
    ] {
        let answer = complete(&about(question)).unwrap();
        assert_eq!(
            answer.message.text(),
            "I found no sentence that answers this in what I was given (README.md, docs/guide.md).",
            "{question}"
        );
        assert_eq!(
            (&answer.metadata["matched"], &answer.metadata["sources"]),
            (&json!(false), &json!([]))
        );
    }
    let nothing = complete(&ChatRequest::user("What is the MSRV?"))
        .unwrap()
        .message
        .text();
    assert!(
        nothing.starts_with("There is nothing to answer from."),
        "{nothing}"
    );
    assert!(
        complete(&ChatRequest::default())
            .unwrap()
            .message
            .text()
            .starts_with("There is nothing")
    );
    let close = ask("Which cipher does the encryption have?");
    assert!(
        close.starts_with("No sentence answers this directly. The closest one: \""),
        "{close}"
    );
}

#[test]
fn the_question_and_its_copies_are_no_answer() {
    let text = "Try `falcon ask \"Which chunk size applies?\"` now.\n\nWhich chunk size applies?\n\n\
                A chunk size of 8 MiB applies unless the operator has set another one by hand in the settings.";
    let request = ChatRequest::new([Message::user(text), Message::user("Which chunk size applies?")]);
    let answer = complete(&request).unwrap().message.text();
    assert!(answer.starts_with("\"A chunk size of 8 MiB applies"), "{answer}");
    assert_eq!(answer.lines().count(), 1, "{answer}");
}

#[test]
fn conversation_results_and_instructions_are_texts_too() {
    let said = ChatRequest::new([
        Message::user("My name is Ada and my cat is called Mieze."),
        Message::assistant("Your cat is called Rex."),
        Message::user("What is my cat called?"),
    ]);
    let answer = complete(&said).unwrap().message.text();
    assert_eq!(
        answer,
        "\"My name is Ada and my cat is called Mieze.\" (the conversation)"
    );

    let beside =
        ChatRequest::user("The red box weighs 7 kg. The blue box weighs 9 kg. How heavy is the blue box?");
    let answer = complete(&beside).unwrap().message.text();
    assert!(
        answer.starts_with("\"The blue box weighs 9 kg.\" (the conversation)"),
        "{answer}"
    );

    let call = ToolCall::new("1", "get_weather", "{\"city\":\"Paris\"}");
    let mut result = ChatRequest::new([
        Message::system("Opening hours: the office opens at nine."),
        Message::user("How warm is it in Paris?"),
        Message::new(Role::Assistant, vec![Part::ToolCall(call.clone())]),
        Message::tool(ToolResult::new(
            &call,
            "{\"city\":\"Paris\",\"warm\":\"21 degrees\"}",
        )),
    ]);
    let answer = complete(&result).unwrap().message.text();
    assert!(answer.contains("(get_weather)"), "{answer}");
    result.messages.push(Message::user("When does the office open?"));
    let answer = complete(&result).unwrap().message.text();
    assert_eq!(
        answer,
        "\"Opening hours: the office opens at nine.\" (the instructions)"
    );
    let failed = Message::tool(ToolResult::error(&call, "the office opens at noon"));
    result.messages.push(failed);
    assert!(
        !complete(&result).unwrap().message.text().contains("noon"),
        "a failure is no text"
    );
}

#[test]
fn it_says_what_it_is() {
    let model = OfflineModel::new();
    assert_eq!(model.info().to_string(), "offline/offline-bm25");
    let answer = complete(&about("What is the MSRV?")).unwrap();
    assert_eq!(answer.model, "offline-bm25");
    assert_eq!(answer.finish, Finish::Stop);
    assert_eq!(
        serde_json::to_value(&answer.metadata).unwrap(),
        json!({"matched": true, "method": "bm25 sentence extraction", "offline": true, "sources": ["README.md"]})
    );
    let usage = answer.usage.unwrap();
    let words = |text: &str| text.len().div_ceil(4) as u64;
    assert_eq!(
        usage.input_tokens,
        words("What is the MSRV?") + words(README) + words(GUIDE)
    );
    assert_eq!(usage.output_tokens, words(&answer.message.text()));
}

#[test]
fn the_same_request_gives_the_same_bytes_and_the_stream_is_the_answer() {
    let mut formats = vec![ResponseFormat::Text, ResponseFormat::Json];
    formats.push(ResponseFormat::schema(
        "s",
        json!({"type": "object", "properties": {"port": {"type": "integer"}}}),
    ));
    for format in formats {
        for question in [
            "On which port does Falcon listen?",
            "What is the MSRV?",
            "Who is Ada?",
        ] {
            let request = about(question).with_response_format(format.clone());
            let whole = complete(&request).unwrap();
            assert_eq!(complete(&request).unwrap(), whole);
            let events = async {
                let stream = OfflineModel::new().stream(&request).await.unwrap();
                stream.map(Result::unwrap).collect::<Vec<_>>().await
            };
            let events = futures_util::FutureExt::now_or_never(events).expect("it never waits");
            let pieces = events
                .iter()
                .filter(|event| matches!(event, ChatEvent::TextDelta { .. }))
                .count();
            assert_eq!(
                pieces,
                whole.message.text().split_inclusive(char::is_whitespace).count()
            );
            let mut fold = peregrine_core::Fold::new();
            events.into_iter().for_each(|event| fold.push(event).unwrap());
            assert_eq!(fold.finish().unwrap(), whole);
        }
    }
}

#[test]
fn limits_are_kept() {
    let with =
        |sampling| complete(&about("On which port does Falcon listen?").with_sampling(sampling)).unwrap();
    let full = with(Sampling::default()).message.text();
    let short = with(Sampling {
        max_tokens: Some(3),
        ..Sampling::default()
    });
    assert_eq!(
        (short.message.text().as_str(), &short.finish),
        (&full[..12], &Finish::Length)
    );
    assert_eq!(short.usage.unwrap().output_tokens, 3);
    let none = with(Sampling {
        max_tokens: Some(0),
        ..Sampling::default()
    });
    assert_eq!((none.message.text().as_str(), none.finish), ("", Finish::Length));
    let stopped = with(Sampling {
        stop: vec!["zzz".to_owned(), " port".to_owned(), "listens".to_owned()],
        temperature: Some(2.0),
        seed: Some(7),
        ..Sampling::default()
    });
    assert_eq!(
        (stopped.message.text().as_str(), stopped.finish),
        ("\"Falcon ", Finish::Stop)
    );
    assert_eq!(stopped.metadata["stop_sequence"], "listens");

    let model = OfflineModel::new().with_max_quotes(1);
    let request = about("What does exit status mean?");
    let one = futures_util::FutureExt::now_or_never(model.complete(&request))
        .unwrap()
        .unwrap();
    assert_eq!(one.message.text().lines().count(), 1);
    assert_eq!(complete(&request).unwrap().message.text().lines().count(), 2);

    let model = OfflineModel::new().with_max_text_bytes(300);
    let cut = futures_util::FutureExt::now_or_never(model.complete(&about("What is the MSRV?")))
        .unwrap()
        .unwrap();
    let unread = cut.metadata["unread_bytes"].as_u64().unwrap();
    assert!(
        unread > 500 && unread < (README.len() + GUIDE.len()) as u64,
        "{unread}"
    );
}

#[test]
fn what_it_cannot_read_is_refused() {
    let with =
        |part| complete(&ChatRequest::new([Message::user("What is it?").with_part(part)])).unwrap_err();
    for part in [
        Part::Image(MediaPart::bytes("image/png", Bytes::from_static(b"x"))),
        Part::Audio(MediaPart::url("https://example.org/a.wav")),
        Part::Document(DocumentPart::bytes(
            "application/pdf",
            Bytes::from_static(b"%PDF"),
        )),
        Part::Document(DocumentPart::url("https://example.org/a.txt")),
    ] {
        let error = with(part);
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(error.to_string().contains("offline model reads text"), "{error}");
    }
    let csv = Part::Document(DocumentPart::bytes("text/csv", &b"The port is 7171."[..]).with_title("p.csv"));
    let request = ChatRequest::new([Message::user("What is the port?").with_part(csv)]);
    assert!(complete(&request).unwrap().message.text().ends_with("(p.csv)"));
    let optioned = about("x").with_provider_option("offline", "depth", 3);
    assert!(complete(&optioned).unwrap_err().to_string().contains("depth"));
    assert!(complete(&about("x").with_provider_option("openai", "depth", 3)).is_ok());
}

#[test]
fn hostile_texts_do_not_panic() {
    let mut seed = 3_u64;
    let mut random = move || {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    };
    let noise: Vec<u8> = (0..20_000).map(|_| random() as u8).collect();
    let marks = [
        "|", "-", "#", "`", "\n", " ", ".", "?", "a", "\"", "é", "漢", "1", ":", "=", "{", "[", "*", "/",
        "\r",
    ];
    let markup: String = (0..20_000)
        .map(|_| marks[random() as usize % marks.len()])
        .collect();
    let texts = [
        String::new(),
        "\0".repeat(10_000),
        String::from_utf8_lossy(&noise).into_owned(),
        markup,
        "x".repeat(8_000),
        "port ".repeat(8_000),
        "port\n".repeat(8_000),
        "# port\n".repeat(5_000),
        "- port\n".repeat(5_000),
        "| port |\n".repeat(5_000),
        "漢字".repeat(10_000),
        "a. ".repeat(10_000),
        "\u{202e}\u{feff}\u{300}".repeat(5_000),
        "[".repeat(10_000),
        format!("{{\"a\":{}1{}}}", "[".repeat(100), "]".repeat(100)),
    ];
    let schema = json!({"type": "object", "properties": {"port": {"type": "integer"}, "names": {"type": "array", "items": {"type": "string"}}}});
    for text in &texts {
        let call = ToolCall::new("1", "search_files", "{\"query\":\"port\"}");
        for request in [
            ChatRequest::new([
                Message::user("What is the port?").with_part(Part::Document(DocumentPart::text("a", text)))
            ]),
            ChatRequest::user(text.as_str()),
            ChatRequest::user(format!("{text}\n\nWhat is the port?")),
            ChatRequest::new([
                Message::user("What is the port?"),
                Message::new(Role::Assistant, vec![Part::ToolCall(call.clone())]),
                Message::tool(ToolResult::new(&call, text.as_str())),
            ]),
        ] {
            complete(&request).unwrap();
            let request = request.with_response_format(ResponseFormat::schema("s", schema.clone()));
            let answer = complete(&request).unwrap().message.text();
            serde_json::from_str::<serde_json::Value>(&answer).unwrap();
        }
    }
}
