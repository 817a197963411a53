//! The fold of the events of an answer is the answer; broken orders and truncation are errors.

use peregrine_core::{
    ChatEvent, ChatResponse, Done, ErrorKind, Finish, Fold, OpaquePart, Part, ProviderData, ReasoningPart,
    TextPart, ToolCall, Usage,
};
use proptest::prelude::*;
use serde_json::json;

fn data() -> impl Strategy<Value = Option<ProviderData>> {
    proptest::option::of(".{0,8}".prop_map(|text| ProviderData::new("d", json!(text))))
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![
        (".{0,20}", data()).prop_map(|(text, data)| Part::Text(TextPart { text, data })),
        (".{0,20}", data()).prop_map(|(text, data)| Part::Reasoning(ReasoningPart { text, data })),
        (".{1,8}", ".{1,8}", ".{0,20}", data()).prop_map(|(id, name, arguments, data)| {
            Part::ToolCall(ToolCall {
                id,
                name,
                arguments,
                data,
            })
        }),
        ".{0,8}".prop_map(|kind| Part::Opaque(OpaquePart {
            dialect: "d".into(),
            kind,
            value: json!({"a": 1})
        })),
        ".{0,8}".prop_map(|text| Part::Refusal(TextPart { text, data: None })),
    ]
}

fn response() -> impl Strategy<Value = ChatResponse> {
    (
        proptest::collection::vec(part(), 0..8),
        ".{0,6}",
        any::<Option<(u64, u64)>>(),
        ".{1,9}",
    )
        .prop_map(|(parts, model, usage, finish)| {
            let mut response = ChatResponse::new(parts, Finish::from(finish)).with_model(model);
            response.usage = usage.map(|(input, output)| Usage::new(input, output));
            response.with_metadata("k", 1)
        })
}

fn fold(events: Vec<ChatEvent>) -> peregrine_core::Result<ChatResponse> {
    let mut fold = Fold::new();
    for event in events {
        fold.push(event)?;
    }
    fold.finish()
}

proptest! {
    #[test]
    fn the_fold_of_an_answers_events_is_the_answer(response in response()) {
        prop_assert_eq!(fold(response.clone().into_events()).unwrap(), response);
    }

    #[test]
    fn events_survive_json(response in response()) {
        let events = response.clone().into_events();
        let text = serde_json::to_string(&events).unwrap();
        let back: Vec<ChatEvent> = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(fold(back).unwrap(), response);
    }

    #[test]
    fn an_answer_without_its_end_is_truncated(response in response(), keep in 0.0..1.0_f64) {
        let mut events = response.into_events();
        let keep = ((events.len() - 1) as f64 * keep) as usize;
        events.truncate(keep);
        prop_assert_eq!(fold(events).unwrap_err().kind(), ErrorKind::Truncated);
    }
}

#[test]
fn interleaved_deltas_go_to_their_open_parts() {
    let events = vec![
        ChatEvent::ReasoningDelta { text: "a".into() },
        ChatEvent::TextDelta { text: "x".into() },
        ChatEvent::ReasoningDelta { text: "b".into() },
        ChatEvent::TextDelta { text: "y".into() },
        ChatEvent::ToolCallStart {
            index: 1,
            id: "i".into(),
            name: "n".into(),
        },
        ChatEvent::ToolCallStart {
            index: 0,
            id: "j".into(),
            name: "m".into(),
        },
        ChatEvent::ToolCallDelta {
            index: 1,
            arguments: "{".into(),
        },
        ChatEvent::ToolCallDelta {
            index: 0,
            arguments: "[".into(),
        },
        ChatEvent::ToolCallDelta {
            index: 1,
            arguments: "}".into(),
        },
        ChatEvent::Done(Box::new(Done::new(Finish::ToolCalls))),
    ];
    let answer = fold(events).unwrap();
    assert_eq!(
        (
            answer.message.reasoning().as_str(),
            answer.message.text().as_str()
        ),
        ("ab", "xy")
    );
    let calls: Vec<_> = answer
        .tool_calls()
        .map(|call| (call.name.as_str(), call.arguments.as_str()))
        .collect();
    assert_eq!(calls, [("n", "{}"), ("m", "[")]);
}

#[test]
fn impossible_orders_are_protocol_errors() {
    let start = || ChatEvent::ToolCallStart {
        index: 0,
        id: "i".into(),
        name: "n".into(),
    };
    let delta = || ChatEvent::ToolCallDelta {
        index: 0,
        arguments: "x".into(),
    };
    let end = || ChatEvent::ToolCallEnd {
        index: 0,
        call: ToolCall::new("i", "n", "x"),
    };
    let done = || ChatEvent::Done(Box::new(Done::new(Finish::Stop)));
    for events in [
        vec![delta()],
        vec![end()],
        vec![start(), start()],
        vec![start(), end(), delta()],
        vec![done(), done()],
    ] {
        let shown = format!("{events:?}");
        assert_eq!(fold(events).unwrap_err().kind(), ErrorKind::Protocol, "{shown}");
    }
}
