//! The pieces of a typed call, as the loop of an agent uses them: around its own messages, tools and streams.

use peregrine_core::{
    Capabilities, ChatEvent, ChatModel, ChatRequest, ChatResponse, Finish, Fold, Message, Part,
    ReasoningPart, Role, ToolCall, ToolChoice, ToolResult, ToolSpec,
};
use peregrine_signatures::{
    ANSWER_TOOL, Contract, Error, FieldEvent, Fields, JsonSchema, Plan, Reply, Signature, Violation,
    ViolationKind, schemars,
};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::json;

use crate::derive::{Triage, TriageInput, TriageOutput};
use crate::model::{Script, calls, run};

const GOOD: &str = r#"{"urgency": 3, "queue": "billing", "tags": ["money"]}"#;
const BAD: &str = r#"{"urgency": 9, "queue": "billing", "tags": ["money"]}"#;
const PLANS: [Plan; 5] = [
    Plan::NativeSchema,
    Plan::ForcedTool,
    Plan::OfferedTool,
    Plan::JsonMode,
    Plan::Prompt,
];

fn contract(plan: Plan) -> Contract {
    Contract::new(Triage::compiled().unwrap().clone(), plan)
}

fn with_tools() -> ChatRequest {
    ChatRequest::new([
        Message::system("You are a clerk."),
        Message::user("earlier"),
        Message::assistant("yes"),
    ])
    .with_tools([ToolSpec::new("search", "", json!({"type": "object"}))])
}

/// What the loop of an agent does with a contract, streaming or not: the typed output, the fields told, and how often
/// the model was asked.
async fn agent(
    contract: &Contract,
    model: &Script,
    request: ChatRequest,
    streams: bool,
) -> Result<(TriageOutput, Vec<String>, usize), Error> {
    let mut request = contract.ask(request, &TriageInput::new("I was charged twice!"))?;
    let (mut told, mut turns, mut repairs) = (Vec::new(), 0, 0);
    loop {
        turns += 1;
        let (mut response, reply) = if streams {
            let mut reader = contract.reader(&request);
            let mut events = model.stream(&request).await?;
            let (mut fold, mut misfit) = (Fold::new(), None);
            while let Some(event) = events.next().await {
                let event = event?;
                let pushed = reader.push(&event, &mut told);
                fold.push(event)?;
                if let Err(problem) = pushed {
                    misfit = Some(problem);
                    break;
                }
            }
            if let Some(problem) = misfit {
                let partial = contract.cut_short(fold.partial());
                request.messages.extend(contract.repair(&partial, &[problem]));
                repairs += 1;
                continue;
            }
            let response = fold.finish()?;
            let reply = reader.finish(&response, &mut told);
            (response, reply)
        } else {
            let response = model.complete(&request).await?;
            let reply = contract.read(&response);
            (response, reply)
        };
        match reply {
            Ok(Reply::Answer {
                output, exactness, ..
            }) => {
                contract.record(&mut response, exactness, repairs);
                assert_eq!(response.metadata["structured_output"], contract.plan().as_str());
                assert_eq!(
                    contract.settled(&response).message.tool_calls().count(),
                    0,
                    "a conversation can go on behind it"
                );
                let told = told.iter().map(ToString::to_string).collect();
                return Ok((output, told, turns));
            }
            Ok(_) => {
                let postponed: Vec<ToolResult> = contract.postponed(&response).collect();
                let ours = response.tool_calls().filter(|call| call.name != ANSWER_TOOL);
                let results: Vec<Message> = ours
                    .map(|call| ToolResult::new(call, "found"))
                    .chain(postponed)
                    .map(Message::tool)
                    .collect();
                request.messages.push(response.message);
                request.messages.extend(results);
            }
            Err(Error::Output(error)) if repairs < 2 => {
                request
                    .messages
                    .extend(contract.repair(&response, &error.problems));
                repairs += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Every call in a request has exactly one result, right behind it; no message is empty.
fn check(request: &ChatRequest) {
    let mut open: Vec<&str> = Vec::new();
    for message in request.messages.iter() {
        assert!(!message.parts.is_empty());
        if message.role == Role::Tool {
            for part in &message.parts {
                let Part::ToolResult(result) = part else { panic!() };
                let place = open.iter().position(|id| *id == result.call_id);
                open.remove(place.expect("a result has its call"));
            }
        } else {
            assert!(open.is_empty(), "calls without results: {open:?}");
            open.extend(message.tool_calls().map(|call| call.id.as_str()));
        }
    }
    assert!(open.is_empty());
}

#[test]
fn an_agents_loop_is_typed_by_every_plan_with_tools_history_and_streams() {
    for (plan, streams) in PLANS.into_iter().flat_map(|plan| [(plan, false), (plan, true)]) {
        let answer = |text: &str| match plan {
            Plan::ForcedTool | Plan::OfferedTool => calls([(ANSWER_TOOL, text)]),
            _ => ChatResponse::text(text),
        };
        let mut looking = calls([("search", r#"{"q": "charges"}"#)]);
        let thinking = Part::text("I call search with {\"q\": \"charges\"} first.");
        looking.message.parts.insert(0, thinking);
        let model = Script::new([looking, answer(BAD), answer(GOOD)]);
        let (output, told, turns) = run(agent(&contract(plan), &model, with_tools(), streams)).unwrap();
        assert_eq!((output.urgency, turns), (3, 3), "{plan} {streams}");
        let asked = model.asked();
        asked.iter().for_each(check);
        let roles: Vec<Role> = asked[0].messages.iter().map(|message| message.role).collect();
        assert_eq!(
            roles,
            [
                Role::System,
                Role::System,
                Role::User,
                Role::Assistant,
                Role::User
            ],
            "the instruction stands behind the caller's own"
        );
        assert!(asked[0].tools.iter().any(|tool| tool.name == "search"));
        if streams {
            let completed: Vec<&String> = told.iter().filter(|told| told.contains(" = ")).collect();
            assert_eq!(
                completed,
                [
                    "urgency = 3",
                    r#"queue = "billing""#,
                    r#"tags[0] = "money""#,
                    r#"tags = ["money"]"#
                ],
                "{plan}"
            );
        }
    }
}

/// Pushes the events of a response, and gives what was told and whether its call could be ended early.
fn read_in_pieces(
    contract: &Contract,
    request: &ChatRequest,
    response: &ChatResponse,
) -> (Vec<FieldEvent>, Option<Violation>, Result<Reply, Error>) {
    let mut reader = contract.reader(request);
    let (mut told, mut misfit) = (Vec::new(), None);
    for event in response.clone().into_events() {
        if let Err(problem) = reader.push(&event, &mut told) {
            assert!(misfit.replace(problem).is_none(), "there is one error at most");
        }
    }
    let reply = reader.finish(response, &mut told);
    (told, misfit, reply)
}

#[test]
fn a_text_before_calls_is_not_the_answer() {
    let ask = |plan: Plan, has_tools: bool| {
        let request = if has_tools {
            with_tools()
        } else {
            ChatRequest::default()
        };
        let contract = contract(plan);
        let request = contract.ask(request, &TriageInput::new("t")).unwrap();
        (contract, request)
    };
    let before = |text: &str, rest: ChatResponse| {
        let mut response = rest;
        response.message.parts.insert(0, Part::text(text));
        response
    };
    // JSON that fits no field, then a call: nothing is told, and the call is not ended.
    for plan in PLANS {
        let (contract, request) = ask(plan, true);
        let response = before("{\"q\": 1}", calls([("search", "{}")]));
        let (told, misfit, reply) = read_in_pieces(&contract, &request, &response);
        assert_eq!((told, misfit, reply.unwrap()), (Vec::new(), None, Reply::Tools));
    }
    // Fields in the text, then a call of another tool: they are taken back.
    let (contract, request) = ask(Plan::NativeSchema, true);
    let (told, misfit, reply) = read_in_pieces(&contract, &request, &before(GOOD, calls([("search", "{}")])));
    assert_eq!((misfit, reply.unwrap()), (None, Reply::Tools));
    assert!(matches!(told.last(), Some(FieldEvent::Restarted { .. })));
    // Fields in the text, then the answer by its tool: only the call counts, as when it is read whole.
    let (contract, request) = ask(Plan::ForcedTool, false);
    let other = GOOD.replace('3', "4");
    let response = before(&other, calls([(ANSWER_TOOL, GOOD)]));
    let (told, misfit, reply) = read_in_pieces(&contract, &request, &response);
    assert_eq!(
        (misfit, reply.unwrap()),
        (None, contract.read(&response).unwrap())
    );
    let place = told
        .iter()
        .position(|event| matches!(event, FieldEvent::Restarted { .. }))
        .unwrap();
    assert_eq!(told[place + 1].to_string(), "urgency = 3");
    // Where nothing can follow, a text that does not fit ends the call.
    let (contract, request) = ask(Plan::Prompt, false);
    let (_, misfit, reply) = read_in_pieces(&contract, &request, &ChatResponse::text(BAD));
    assert_eq!(misfit.unwrap().kind, ViolationKind::Range);
    assert!(matches!(reply, Err(Error::Output(_))));
    // A model that was to call the tool and wrote the answer as text is taken at its word.
    let (contract, request) = ask(Plan::ForcedTool, false);
    let (told, misfit, reply) = read_in_pieces(&contract, &request, &ChatResponse::text(GOOD));
    assert!(misfit.is_none() && matches!(reply, Ok(Reply::Answer { .. })) && told.len() == 5);
}

#[test]
fn arguments_that_come_with_the_end_of_the_call_are_read() {
    let contract = contract(Plan::ForcedTool);
    let response = calls([(ANSWER_TOOL, GOOD)]);
    let mut reader = contract.reader(&ChatRequest::default());
    let mut told = Vec::new();
    for event in response.clone().into_events() {
        if !matches!(event, ChatEvent::ToolCallDelta { .. }) {
            reader.push(&event, &mut told).unwrap();
        }
    }
    assert_eq!(told.last().unwrap().to_string(), r#"tags = ["money"]"#);
    assert!(matches!(
        reader.finish::<Fields>(&response, &mut told).unwrap(),
        Reply::Answer { .. }
    ));
    assert_eq!(told.len(), 5);
}

#[test]
fn what_is_sent_back_is_what_providers_take() {
    let contract = contract(Plan::ForcedTool);
    let thought = Part::Reasoning(ReasoningPart {
        text: "hm".to_owned(),
        data: None,
    });
    let call = |name: &str| Part::ToolCall(ToolCall::new("c", name, GOOD));
    let response = ChatResponse::new(
        vec![thought, call("search"), call(ANSWER_TOOL)],
        Finish::ToolCalls,
    );
    let partial = contract.cut_short(&response);
    assert_eq!(partial.message.parts, [Part::text(GOOD), Part::text(GOOD)]);
    let settled = contract.settled(&response);
    assert_eq!(settled.message.parts[..2], response.message.parts[..2]);
    assert_eq!(settled.message.parts[2], Part::text(GOOD));
    assert_eq!(contract.postponed(&response).count(), 1);
}

#[test]
fn asking_keeps_what_the_caller_has() {
    let contract = contract(Plan::ForcedTool);
    let request = with_tools()
        .with_tool_choice(ToolChoice::Required)
        .with_max_tokens(7);
    let asked = contract.ask(request.clone(), &TriageInput::new("t")).unwrap();
    assert_eq!(
        (asked.sampling.max_tokens, asked.tool_choice),
        (Some(7), ToolChoice::Required)
    );
    assert_eq!(asked.messages.get(0), request.messages.get(0));
    assert_eq!(asked.messages.get(1), Some(&**contract.system()));
    assert_eq!(
        asked.messages.last(),
        Some(&contract.user(&TriageInput::new("t")).unwrap())
    );
    let alone = contract
        .ask(ChatRequest::new([Message::system("s")]), &TriageInput::new("t"))
        .unwrap();
    assert_eq!(alone.messages.get(1), Some(&**contract.system()));
    assert_eq!(alone.messages.len(), 3);

    let mut model = Capabilities::default();
    (model.tools, model.json_mode) = (true, true);
    let of = |has_tools| Contract::of::<Triage>(&model, has_tools).unwrap().plan();
    assert_eq!((of(false), of(true)), (Plan::JsonMode, Plan::OfferedTool));
}

/// An even number: something that only the type itself can judge.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(crate = "schemars")]
#[serde(try_from = "u8")]
pub(crate) struct Even(u8);

impl TryFrom<u8> for Even {
    type Error = String;

    fn try_from(value: u8) -> Result<Self, String> {
        match value % 2 {
            0 => Ok(Self(value)),
            _ => Err("not an even number".to_owned()),
        }
    }
}

/// Count.
#[derive(Signature)]
pub(crate) struct Count {
    #[input]
    text: String,
    #[output]
    pairs: Even,
}

#[test]
fn what_a_fields_own_type_refuses_can_be_repaired() {
    let contract = Contract::new(Count::compiled().unwrap().clone(), Plan::Prompt);
    let odd = ChatResponse::text(r#"{"pairs": 3}"#);
    let Err(Error::Output(error)) = contract.read::<CountOutput>(&odd) else {
        panic!()
    };
    assert_eq!(
        error.problems[0].to_string(),
        "`pairs`: expected a value that its type takes (not an even number), found 3"
    );
    let mut reader = contract.reader(&ChatRequest::default());
    let mut told = Vec::new();
    for event in odd.clone().into_events() {
        reader.push(&event, &mut told).unwrap();
    }
    let Err(Error::Output(streamed)) = reader.finish::<CountOutput>(&odd, &mut told) else {
        panic!()
    };
    assert_eq!(streamed, error);
    // Whoever reads it as fields, to store them, is told the same, and gets the type from them later.
    let Err(Error::Output(untyped)) = contract.read::<Fields>(&odd) else {
        panic!()
    };
    assert_eq!(untyped, error);
    let Ok(Reply::Answer { output, .. }) = contract.read::<Fields>(&ChatResponse::text(r#"{"pairs": 6}"#))
    else {
        panic!()
    };
    assert_eq!(contract.outputs::<CountOutput>(output).unwrap().pairs.0, 6);
    assert!(matches!(
        contract.outputs::<CountOutput>(Fields::new()),
        Err(Error::Output(_))
    ));
    let Ok(Reply::Answer { output, .. }) =
        contract.read::<CountOutput>(&ChatResponse::text(r#"{"pairs": 4}"#))
    else {
        panic!()
    };
    assert_eq!(output.pairs.0, 4);
}

fn part() -> impl Strategy<Value = Part> {
    let text = prop::sample::select(vec![
        GOOD,
        BAD,
        "{\"urgency\": 3, \"queue\": \"bil",
        "prose {not} ",
        "{\"other\": 1}",
        "",
        "```json\n",
        "\n```",
    ]);
    let name = prop::sample::select(vec![ANSWER_TOOL, ANSWER_TOOL, "search"]);
    prop_oneof![
        3 => text.clone().prop_map(Part::text),
        2 => (name, text.clone()).prop_map(|(name, text)| Part::ToolCall(ToolCall::new("c", name, text))),
        1 => text.prop_map(|text| Part::Refusal(peregrine_core::TextPart { text: text.to_owned(), data: None })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Whatever a response is made of, reading its events ends as reading it whole does, and what was told and not
    /// taken back is the answer.
    #[test]
    fn events_end_as_the_whole_response_does(
        parts in prop::collection::vec(part(), 0..4),
        plan in prop::sample::select(PLANS.to_vec()),
        has_tools in any::<bool>(),
        length in any::<bool>(),
    ) {
        let contract = contract(plan);
        let request = if has_tools { with_tools() } else { ChatRequest::default() };
        let finish = if length { Finish::Length } else { Finish::Stop };
        let response = ChatResponse::new(parts, finish);
        let (told, misfit, reply) = read_in_pieces(&contract, &request, &response);
        let whole = contract.read::<Fields>(&response);
        match (&reply, &whole) {
            (Ok(one), Ok(other)) => prop_assert_eq!(one, other),
            (Err(Error::Output(one)), Err(Error::Output(other))) => prop_assert_eq!(one, other),
            (Err(Error::Refused { .. }), Err(Error::Refused { .. })) => {}
            other => prop_assert!(false, "{:?}", other),
        }
        let restarted = told.iter().rposition(|event| matches!(event, FieldEvent::Restarted { .. }));
        let counts = &told[restarted.map_or(0, |place| place + 1)..];
        let completed: Fields = counts
            .iter()
            .filter_map(|event| match event {
                FieldEvent::Completed { path, value } if path.index().is_none() => {
                    Some((path.name().to_owned(), value.clone()))
                }
                _ => None,
            })
            .collect();
        match whole {
            Ok(Reply::Answer { output, .. }) => prop_assert_eq!(completed, output),
            Ok(_) => prop_assert!(counts.is_empty(), "{:?}", counts),
            Err(_) => {}
        }
        if has_tools && misfit.is_some() {
            prop_assert!(response.tool_calls().next().is_some_and(|call| call.name == ANSWER_TOOL));
        }
    }
}
