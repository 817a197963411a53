//! Recording and replay: the same answers without the model; a miss says what differs.

use peregrine_core::{
    ChatModel, ChatRequest, ChatResponse, Error, ErrorKind, Finish, Message, Part, ToolCall, Usage,
};
use peregrine_providers::{Record, Replay};

use crate::scripted::{Scripted, Turn};

fn answer() -> ChatResponse {
    let call = ToolCall::new("c1", "add", r#"{"a":1}"#);
    ChatResponse::new(vec![Part::text("sum:"), Part::ToolCall(call)], Finish::ToolCalls)
        .with_usage(Usage::new(3, 4))
}

fn request(text: &str) -> ChatRequest {
    ChatRequest::new([Message::system("be brief"), Message::user(text)]).with_temperature(0.0)
}

#[tokio::test]
async fn what_was_recorded_is_served_whole_and_streamed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.jsonl");
    let model = Scripted::new([
        Turn::Answer(answer()),
        Turn::Answer(ChatResponse::text("streamed")),
    ])
    .layered(Record::append_to(&path).unwrap());
    model.complete(&request("a")).await.unwrap();
    model
        .stream(&request("b"))
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();

    let replay = Scripted::new([]).layered(Replay::open(&path).unwrap());
    let mut labelled = request("a");
    labelled.metadata.insert("trace".into(), "7".into());
    assert_eq!(
        replay.complete(&labelled).await.unwrap(),
        answer(),
        "labels are no part of the question"
    );
    assert_eq!(
        replay
            .stream(&request("a"))
            .await
            .unwrap()
            .collect()
            .await
            .unwrap(),
        answer()
    );
    assert_eq!(
        replay.complete(&request("b")).await.unwrap().message.text(),
        "streamed"
    );
}

#[tokio::test]
async fn repeated_requests_get_their_answers_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.jsonl");
    let turns = ["one", "two"].map(|text| Turn::Answer(ChatResponse::text(text)));
    let model = Scripted::new(turns).layered(Record::append_to(&path).unwrap());
    for _ in 0..2 {
        model.complete(&request("same")).await.unwrap();
    }
    let replay = Scripted::new([]).layered(Replay::open(&path).unwrap());
    for expected in ["one", "two", "two"] {
        assert_eq!(
            replay.complete(&request("same")).await.unwrap().message.text(),
            expected
        );
    }
}

#[tokio::test]
async fn failures_and_cut_off_streams_are_not_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.jsonl");
    let model = Scripted::new([
        Turn::Fail(Error::Cancelled),
        Turn::Break(
            answer().into_events().into_iter().take(2).collect(),
            Error::Cancelled,
        ),
    ])
    .layered(Record::append_to(&path).unwrap());
    assert!(model.complete(&request("a")).await.is_err());
    assert!(
        model
            .stream(&request("a"))
            .await
            .unwrap()
            .collect()
            .await
            .is_err()
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
}

#[tokio::test]
async fn a_miss_shows_the_nearest_recording_and_what_differs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.jsonl");
    let model = Scripted::new([Turn::Answer(answer()), Turn::Answer(answer())])
        .layered(Record::append_to(&path).unwrap());
    model
        .complete(&request("a far question").with_max_tokens(7))
        .await
        .unwrap();
    model.complete(&request("how are you")).await.unwrap();

    let replay = Scripted::new([]).layered(Replay::open(&path).unwrap());
    let error = replay.complete(&request("how are they")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoRecording);
    let text = error.to_string();
    assert!(text.contains("number 2 of 2"), "{text}");
    assert!(
        text.contains(r#"/messages/1/parts/0/text (recorded "how are you", asked "how are they")"#),
        "{text}"
    );

    std::fs::write(&path, "").unwrap();
    let empty = Scripted::new([]).layered(Replay::open(&path).unwrap());
    assert!(
        empty
            .stream(&request("x"))
            .await
            .unwrap_err()
            .to_string()
            .contains("empty")
    );
}

#[test]
fn a_damaged_recording_is_an_error_that_names_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.jsonl");
    std::fs::write(&path, "\n{\"version\":1,").unwrap();
    let error = Replay::open(&path).unwrap_err();
    assert!(error.to_string().contains("line 2"), "{error}");
    let other = r#"{"version":9,"model":"m","request":{},"answer":{"events":[]}}"#;
    std::fs::write(&path, other).unwrap();
    assert!(
        Replay::open(&path)
            .unwrap_err()
            .to_string()
            .contains("version is 9")
    );
    assert_eq!(
        Replay::open(folder.path().join("none")).unwrap_err().kind(),
        ErrorKind::Config
    );
}
