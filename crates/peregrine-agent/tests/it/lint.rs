//! Prompt lint: on what the codecs really send, on each cause, on conversations that begin and lose their beginning, and
//! on hostile bytes.

use peregrine_agent::{Cause, LintError, MAX_BREAKS, PromptLint, lint_bodies, lint_requests};
use peregrine_core::{
    Capabilities, ChatRequest, Message, Messages, Part, Role, ToolCall, ToolResult, ToolSpec,
};
use peregrine_providers::wire::anthropic::Anthropic;
use peregrine_providers::wire::gemini::Gemini;
use peregrine_providers::wire::ollama::Ollama;
use peregrine_providers::wire::openai_chat::OpenAiChat;
use peregrine_providers::wire::openai_responses::OpenAiResponses;
use peregrine_providers::wire::{ChatCodec, Mode, Target};
use proptest::prelude::*;
use serde_json::{Value, json};

fn lint(bodies: &[Value]) -> PromptLint {
    let bodies: Vec<String> = bodies.iter().map(Value::to_string).collect();
    lint_bodies(&bodies).unwrap()
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

fn assistant(text: &str) -> Value {
    json!({"role": "assistant", "content": text})
}

fn system(text: &str) -> Value {
    json!({"role": "system", "content": text})
}

fn chat(messages: &[Value]) -> Value {
    json!({"model": "m", "messages": messages})
}

/// The one break between two bodies.
fn broken(one: &Value, two: &Value) -> (String, Option<Cause>) {
    let found = lint(&[one.clone(), two.clone()]);
    assert_eq!(
        (found.breaks.len(), found.compared, found.conversations),
        (1, 1, 1),
        "{found:?}"
    );
    (found.breaks[0].field.clone(), found.breaks[0].cause)
}

fn codecs() -> Vec<Box<dyn ChatCodec>> {
    vec![
        Box::new(OpenAiChat::default()),
        Box::new(OpenAiResponses::default()),
        Box::new(Anthropic::new()),
        Box::new(Gemini::new()),
        Box::new(Ollama::new()),
    ]
}

fn encode(codec: &dyn ChatCodec, request: &ChatRequest) -> Vec<u8> {
    let mut capabilities = Capabilities::default();
    capabilities.prompt_cache_breakpoints = true;
    let target = Target {
        provider: "test",
        model: "model",
        capabilities: &capabilities,
    };
    let mut out = Vec::new();
    codec.encode(&target, request, Mode::Complete, &mut out).unwrap();
    out
}

/// A conversation of so many turns with tools, as requests. The newest message of each carries a cache breakpoint.
fn conversation(turns: usize) -> Vec<ChatRequest> {
    let tool = |name: &str| {
        ToolSpec::new(
            name,
            "Looks something up.",
            json!({"type": "object", "properties": {}}),
        )
    };
    let mut messages = Messages::from(vec![Message::system("Answer briefly.")]);
    let mut requests = Vec::new();
    let mut ask = |messages: &Messages| {
        let mut marked = messages.clone();
        marked.truncate(messages.len() - 1);
        marked.push(messages.last().unwrap().clone().with_cache_breakpoint());
        let request = ChatRequest {
            messages: marked,
            ..ChatRequest::default()
        };
        requests.push(
            request
                .with_tools([tool("find"), tool("read")])
                .with_max_tokens(100),
        );
    };
    for turn in 0..turns {
        messages.push(Message::user(format!("Question {turn}?")));
        ask(&messages);
        let call = ToolCall::new(format!("call_{turn:09}"), "find", r#"{"q":"x"}"#);
        messages.push(Message::new(Role::Assistant, vec![Part::ToolCall(call.clone())]));
        messages.push(Message::tool(ToolResult::new(&call, "It was found.")));
        ask(&messages);
        messages.push(Message::assistant(format!("Answer {turn}.")));
    }
    requests
}

#[test]
fn what_the_codecs_send_is_stable_in_every_dialect() {
    let requests = conversation(4);
    let found = lint_requests(&requests);
    assert_eq!((found.requests, found.compared, found.conversations), (8, 7, 1));
    assert!(found.is_stable(), "{found:?}");
    for codec in codecs() {
        let bodies: Vec<_> = requests.iter().map(|request| encode(&*codec, request)).collect();
        let found = lint_bodies(&bodies).unwrap();
        assert_eq!(
            (found.requests, found.compared, found.conversations),
            (8, 7, 1),
            "{}",
            codec.dialect()
        );
        assert!(found.is_stable(), "{}: {found:?}", codec.dialect());
    }
}

#[test]
fn a_changed_instruction_is_found_in_every_dialect() {
    let fields = [
        "messages[0].content",
        "input[0].content",
        "system",
        "systemInstruction.parts[0].text",
        "messages[0].content",
    ];
    for (codec, field) in codecs().into_iter().zip(fields) {
        let mut requests = conversation(2);
        let mut messages: Vec<Message> = requests[2].messages.iter().cloned().collect();
        messages[0] = Message::system("Answer at 10:15 o'clock.");
        requests[2].messages = messages.clone().into();
        messages[0] = Message::system("Answer at 10:16 o'clock.");
        requests[3].messages = messages.into();
        let bodies: Vec<_> = requests.iter().map(|request| encode(&*codec, request)).collect();
        let found = lint_bodies(&bodies).unwrap();
        let places: Vec<_> = found
            .breaks
            .iter()
            .map(|b| (b.before, b.after, b.cause))
            .collect();
        assert_eq!(
            places,
            [(1, 2, None), (2, 3, Some(Cause::Timestamp))],
            "{}",
            codec.dialect()
        );
        // Some dialects write the instructions as a list of blocks.
        let found = &found.breaks[1].field;
        assert!(found.starts_with(field), "{found} is not {field}");
    }
}

#[test]
fn every_cause_is_told() {
    let clock = |time: &str| chat(&[system(&format!("Today is {time}. Be brief.")), user("hi")]);
    for (one, two) in [
        ("2026-11-20", "2026-11-21"),
        ("2026-11-20T10:00:00Z", "2026-11-20T10:00:01Z"),
        ("9:59 am", "10:00 am"),
        ("Friday", "Saturday"),
        ("Nov 9", "Nov 10"),
        ("20 November 2026", "21 November 2026"),
        ("11/20/2026", "11/21/2026"),
        ("1795168800", "1795168860"),
    ] {
        assert_eq!(
            broken(&clock(one), &clock(two)),
            ("messages[0].content".to_owned(), Some(Cause::Timestamp)),
            "{one}"
        );
    }
    for (one, two) in [
        (
            "6f1c2a9e-3b1d-4c55-9f10-1c2d3e4f5a6b",
            "0d9b7a11-77aa-4e0e-8a3f-aabbccddeeff",
        ),
        ("req_8f3ab91c0d", "req_77d01cafe2"),
    ] {
        assert_eq!(broken(&clock(one), &clock(two)).1, Some(Cause::RandomId), "{one}");
    }
    for (one, two) in [
        ("sunny", "rainy"),
        ("1.2.10", "1.2.11"),
        ("version 7", "version 8"),
        ("Monkey", "Monday's"),
    ] {
        assert_eq!(broken(&clock(one), &clock(two)).1, None, "{one}");
    }
    assert_eq!(
        broken(&clock("  bright"), &clock("bright\n")).1,
        Some(Cause::Whitespace)
    );

    let tool =
        |name: &str, text: &str| json!({"type": "function", "function": {"name": name, "description": text}});
    let tools = |tools: &[Value]| json!({"messages": [user("hi")], "tools": tools});
    let (a, b) = (tool("a", "does a"), tool("b", "does b"));
    let ordered = tools(&[a.clone(), b.clone()]);
    for (other, field, cause) in [
        (
            tools(&[b.clone(), a.clone()]),
            "tools[0].function.name",
            Cause::ToolsReordered,
        ),
        (tools(std::slice::from_ref(&a)), "tools[1]", Cause::ToolsChanged),
        (tools(&[a.clone(), b, a.clone()]), "tools[2]", Cause::ToolsChanged),
        (
            tools(&[a.clone(), tool("c", "does b")]),
            "tools[1].function.name",
            Cause::ToolsChanged,
        ),
        (
            tools(&[a, tool("b", "does more")]),
            "tools[1].function.description",
            Cause::ToolsChanged,
        ),
    ] {
        assert_eq!(broken(&ordered, &other), (field.to_owned(), Some(cause)));
    }
    assert_eq!(
        broken(
            &tools(&[tool("a", "since 10:00")]),
            &tools(&[tool("a", "since 10:05")])
        )
        .1,
        Some(Cause::Timestamp)
    );
    let gemini = |names: &[&str]| {
        let declared: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
        json!({"tools": [{"functionDeclarations": declared}], "contents": [{"parts": [{"text": "hi"}]}]})
    };
    assert_eq!(
        broken(&gemini(&["a", "b"]), &gemini(&["b", "a"])),
        (
            "tools[0].functionDeclarations[0].name".to_owned(),
            Some(Cause::ToolsReordered)
        )
    );
}

#[test]
fn bytes_count_as_they_were_written() {
    let texts = |one: &str, two: &str| {
        let body =
            |schema: &str| format!(r#"{{"messages":[{{"role":"user","content":"hi"}}],"tools":[{schema}]}}"#);
        let found = lint_bodies(&[body(one), body(two)]).unwrap();
        (found.breaks[0].field.clone(), found.breaks[0].cause)
    };
    let plain = r#"{"name":"a","parameters":{"x":1,"y":"é"}}"#;
    for (other, field, cause) in [
        (
            r#"{"name":"a","parameters":{"y":"é","x":1}}"#,
            "tools[0].parameters",
            Cause::KeyOrder,
        ),
        (
            r#"{"name":"a", "parameters":{"x":1,"y":"é"}}"#,
            "tools[0]",
            Cause::Whitespace,
        ),
        (
            r#"{"name":"a","parameters":{"x":1,"y":"\u00e9"}}"#,
            "tools[0].parameters.y",
            Cause::Encoding,
        ),
    ] {
        assert_eq!(texts(plain, other), (field.to_owned(), Some(cause)), "{other}");
    }
}

#[test]
fn offsets_and_losses_are_those_of_the_rendered_prompt() {
    let one = r#"{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"ha"}],"system":"be é A","tools":[{"name":"t"}]}"#;
    let two = r#"{"tools":[{"name":"t"}],"system":"be é B","messages":[{"role":"user","content":"hi"}]}"#;
    let found = lint_bodies(&[one, two]).unwrap();
    let rendered = "{\"name\":\"t\"}\n\"be é A\"\n{\"role\":\"user\",\"content\":\"hi\"}\n{\"role\":\"assistant\",\"content\":\"ha\"}\n";
    let broken = &found.breaks[0];
    assert_eq!(broken.offset as usize, rendered.find('A').unwrap());
    assert_eq!(
        broken.lost_bytes as usize,
        rendered.len() - rendered.find('A').unwrap()
    );
    assert_eq!(broken.lost_tokens, broken.lost_bytes.div_ceil(4));
    assert_eq!(
        (found.lost_bytes, found.lost_tokens),
        (broken.lost_bytes, broken.lost_tokens)
    );
    assert_eq!(
        (broken.before_excerpt.as_str(), broken.after_excerpt.as_str()),
        ("\"be é A\"", "\"be é B\"")
    );
    assert_eq!(broken.field, "system");
    // A byte within a character.
    let found = lint_bodies(&[one.replace("é A", "é"), one.replace("é A", "è")]).unwrap();
    assert_eq!(found.breaks[0].offset as usize, rendered.find('é').unwrap() + 1);
    let long = |text: &str| {
        chat(&[
            system(&format!("{}{text}{}", "x".repeat(500), "y".repeat(500))),
            user("hi"),
        ])
    };
    let found = lint(&[long("1"), long("2")]);
    assert!(
        found.breaks[0].before_excerpt.starts_with("..xxx")
            && found.breaks[0].before_excerpt.ends_with("yyy..")
    );
    assert!(found.breaks[0].before_excerpt.len() < 100);
}

#[test]
fn growing_repeating_and_going_back_is_stable() {
    let (s, u1, a1, u2) = (system("s"), user("one"), assistant("1"), user("two"));
    let first = chat(&[s.clone(), u1.clone()]);
    let second = chat(&[s, u1, a1, u2]);
    let found = lint(&[first.clone(), first.clone(), second.clone(), first, second]);
    assert!(found.is_stable(), "{found:?}");
    assert_eq!((found.conversations, found.compared), (1, 4));
}

#[test]
fn new_conversations_are_no_breaks_even_interleaved() {
    let turn = |name: &str, count: usize| {
        let mut messages = vec![system(&format!("You serve {name}."))];
        for n in 0..count {
            messages.extend([
                user(&format!("{name} asks {n}")),
                assistant(&format!("{n} for {name}")),
            ]);
        }
        messages.push(user(&format!("{name} asks {count}")));
        chat(&messages)
    };
    let found = lint(&[
        turn("a", 0),
        turn("b", 0),
        turn("a", 1),
        turn("c", 0),
        turn("b", 1),
        turn("a", 2),
    ]);
    assert!(found.is_stable(), "{found:?}");
    assert_eq!((found.conversations, found.compared), (3, 3));

    // Examples in front: the same beginning, other questions.
    let shots = |question: &str, more: &[Value]| {
        let mut messages = vec![user("example"), assistant("like this"), user(question)];
        messages.extend_from_slice(more);
        chat(&messages)
    };
    let (answer, again) = (assistant("answer"), user("and?"));
    let found = lint(&[
        shots("x", &[]),
        shots("y", &[]),
        shots("x", &[answer, again]),
        shots("z", &[]),
    ]);
    assert!(found.is_stable(), "{found:?}");
    assert_eq!((found.conversations, found.compared), (3, 1));

    // A long conversation does not crowd out the other one.
    let mut bodies = vec![shots("y", &[])];
    let mut more = Vec::new();
    for n in 0..12 {
        bodies.push(shots("x", &more));
        more.extend([assistant(&format!("answer {n}")), user("and?")]);
    }
    bodies.push(shots("y", &more));
    let found = lint(&bodies);
    assert!(found.is_stable(), "{found:?}");
    assert_eq!((found.conversations, found.compared), (2, 12));
}

#[test]
fn a_lost_beginning_is_a_break_and_no_new_conversation() {
    let (s, u1, a1, u2) = (system("s"), user("one"), assistant("1"), user("two"));
    let (a2, u3) = (assistant("2"), user("three"));
    let whole = chat(&[s.clone(), u1.clone(), a1.clone(), u2.clone()]);
    let cut = chat(&[s.clone(), u2.clone(), a2.clone(), u3.clone()]);
    assert_eq!(
        broken(&whole, &cut),
        ("messages[1].content".to_owned(), Some(Cause::Dropped))
    );
    // The middle is gone, the question stays.
    let inner = chat(&[s.clone(), u1.clone(), u2.clone(), a2.clone(), u3.clone()]);
    assert_eq!(
        broken(&whole, &inner),
        ("messages[2].role".to_owned(), Some(Cause::Dropped))
    );
    let alone = chat(&[s.clone(), u2.clone()]);
    assert_eq!(
        broken(&whole, &alone),
        ("messages[1].content".to_owned(), Some(Cause::Dropped))
    );
    // The first message carries the time.
    let timed = |time: &str, rest: &[Value]| {
        let first = user(&format!("[{time}] one"));
        chat(&[&[s.clone(), first, a1.clone()], rest].concat())
    };
    assert_eq!(
        broken(
            &timed("10:00", std::slice::from_ref(&u2)),
            &timed("10:05", &[u2.clone(), a2, u3])
        ),
        ("messages[1].content".to_owned(), Some(Cause::Timestamp))
    );
    // It was trimmed.
    let spaced = chat(&[s.clone(), user("one\n")]);
    assert_eq!(
        broken(&spaced, &whole),
        ("messages[1].content".to_owned(), Some(Cause::Whitespace))
    );
    // What stood in the newest question is gone from the history.
    let stuffed = chat(&[
        s.clone(),
        u1.clone(),
        a1.clone(),
        user("two, see the 10 documents above"),
    ]);
    let bare = chat(&[s, u1, a1, u2, assistant("2")]);
    assert_eq!(broken(&stuffed, &bare), ("messages[3].content".to_owned(), None));
}

#[test]
fn bodies_of_nobody_are_named() {
    let good = r#"{"messages":[]}"#;
    for (bad, words) in [
        ("", "request 1 is no JSON object: EOF"),
        (
            "[]",
            "request 1 is no JSON object: invalid type: sequence, expected the body of a request",
        ),
        ("{\"messages\":[}", "request 1 is no JSON object"),
        ("{}", "request 1 has no messages"),
        (r#"{"messages":null,"prompt":"x"}"#, "request 1 has no messages"),
        (
            r#"{"messages":[]} trailing"#,
            "request 1 is no JSON object: trailing characters",
        ),
    ] {
        let error = lint_bodies(&[good, bad]).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    assert!(matches!(
        lint_bodies(&[&b"{\"messages\":[\"\xff\"]}"[..]]),
        Err(LintError::NotJson { at: 0, .. })
    ));
    assert_eq!(lint_bodies::<&str>(&[]).unwrap(), PromptLint::default());
}

#[test]
fn many_breaks_are_counted_and_depth_is_no_danger() {
    let bodies: Vec<Value> = (0..MAX_BREAKS + 50)
        .map(|n| chat(&[system(&format!("s{n}")), user("hi")]))
        .collect();
    let found = lint(&bodies);
    assert_eq!((found.breaks.len(), found.more_breaks), (MAX_BREAKS, 49));
    assert!(!found.is_stable());
    let deep = |tail: &str| {
        let (open, close) = ("[".repeat(50_000), "]".repeat(50_000));
        format!(r#"{{"messages":[{{"role":"user","content":"hi"}}],"tools":[{open}{tail}{close}]}}"#)
    };
    let found = lint_bodies(&[deep("1"), deep("2")]).unwrap();
    assert_eq!(found.breaks.len(), 1);
    assert!(found.breaks[0].field.len() < 200, "{}", found.breaks[0].field);
}

#[test]
fn the_report_is_data() {
    let found = lint(&[
        chat(&[system("at 10:00"), user("hi")]),
        chat(&[system("at 10:01"), user("hi")]),
    ]);
    let value = serde_json::to_value(&found).unwrap();
    assert_eq!(value["breaks"][0]["cause"], "timestamp");
    assert_eq!(value["breaks"][0]["field"], "messages[0].content");
    assert_eq!(value["requests"], 2);
}

/// Elements as a body may have them: short, and often the same.
fn elements() -> impl Strategy<Value = Vec<String>> {
    let element = (0_usize..3, "[ab\\\\\"é\n]{0,4}").prop_map(|(role, text)| {
        let role = ["user", "assistant", "tool"][role];
        format!(r#"{{"role":"{role}","content":{}}}"#, Value::from(text))
    });
    prop::collection::vec(element, 0..6)
}

proptest! {
    /// Against the definition: render both, compare the bytes.
    #[test]
    fn the_first_byte_is_the_first_byte(
        tools in (elements(), elements()),
        system in ("[ab]{0,3}", "[ab]{0,3}"),
        messages in (elements(), elements()),
        shared in 0_usize..6,
    ) {
        let first = r#"{"role":"user","content":"first"}"#.to_owned();
        let mut later = messages.1;
        later.splice(..shared.min(later.len()), messages.0.iter().take(shared).cloned());
        let body = |tools: &[String], system: &str, messages: &[String]| {
            let messages = [std::slice::from_ref(&first), messages].concat();
            let body = format!(
                r#"{{"messages":[{}],"system":"{system}","tools":[{}]}}"#, messages.join(","), tools.join(",")
            );
            let rendered: String = tools.iter().chain([&format!("\"{system}\"")]).chain(&messages)
                .map(|element| format!("{element}\n")).collect();
            (body, rendered)
        };
        let (one, before) = body(&tools.0, &system.0, &messages.0);
        let (two, after) = body(&tools.1, &system.1, &later);
        let found = lint_bodies(&[&one, &two]).unwrap();
        let common = before.bytes().zip(after.bytes()).take_while(|(one, two)| one == two).count();
        if common == before.len().min(after.len()) {
            prop_assert!(found.is_stable(), "{:?}", found);
        } else if found.conversations == 1 {
            prop_assert_eq!(found.breaks.len(), 1);
            prop_assert_eq!(found.breaks[0].offset as usize, common);
            prop_assert_eq!(found.breaks[0].lost_bytes as usize, before.len() - common);
        } else {
            // It ends with another question.
            let line = after[..common].matches('\n').count();
            prop_assert_eq!(line + 1, after.matches('\n').count());
            prop_assert!(before.lines().nth(line).unwrap().contains("\"user\""));
        }
    }

    #[test]
    fn no_bytes_panic(bodies in prop::collection::vec(
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            r#"\{("(tools|system|input|contents|messages)":(\[((null|1|"x"|\[\]|\{("role":("user"|1|"\\u0075ser"),?)?("cache_control":\{"a":"ephemeral"\})?\}),?){0,3}\]|"é\\n"|null),?){0,3}\}"#
                .prop_map(String::into_bytes),
        ], 0..5)) {
        let _ = lint_bodies(&bodies);
    }
}
