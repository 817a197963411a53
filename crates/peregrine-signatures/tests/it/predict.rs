//! Predictions: plans, repairs, tools, streams.

use std::sync::atomic::Ordering;

use peregrine_core::{
    Capabilities, ChatModel, ChatRequest, ChatResponse, ErrorKind, Message, Part, ResponseFormat, Role,
    Sampling, ToolChoice, ToolResult, ToolSpec, Usage,
};
use peregrine_signatures::{
    ANSWER_TOOL, Contract, Error, Extraction, FieldEvent, Fields, Plan, Predict, Signature, Step,
    ViolationKind, parse, predict,
};
use serde_json::json;

use crate::derive::{Triage, TriageInput};
use crate::model::{Script, calls, run};

type Set = fn(&mut Capabilities);

const GOOD: &str = r#"{"urgency": 3, "queue": "billing", "tags": ["money"]}"#;
const BAD: &str = r#"{"urgency": 9, "queue": "billing", "tags": ["money"]}"#;

fn ticket() -> TriageInput {
    TriageInput::new("I was charged twice!")
}

fn contract(plan: Plan) -> Contract {
    Contract::new(Triage::compiled().unwrap().clone(), plan)
}

#[test]
fn the_strongest_plan_is_chosen_and_recorded() {
    let cases: [(Set, Plan); 5] = [
        (|c| c.json_schema = true, Plan::NativeSchema),
        (
            |c| (c.tools, c.tool_choice, c.json_mode) = (true, true, true),
            Plan::ForcedTool,
        ),
        (|c| (c.tools, c.json_mode) = (true, true), Plan::JsonMode),
        (|c| c.tools = true, Plan::Prompt),
        (|_| {}, Plan::Prompt),
    ];
    for (set, plan) in cases {
        let answer = match plan {
            Plan::ForcedTool => calls([(ANSWER_TOOL, GOOD)]),
            _ => ChatResponse::text(GOOD),
        };
        let model = Script::new([answer]).with(set);
        let prediction = run(predict::<Triage>(&model, &ticket())).unwrap();
        assert_eq!(prediction.output.urgency, 3);
        assert_eq!(prediction.response.metadata["structured_output"], plan.as_str());
        assert_eq!(prediction.response.metadata["structured_parse"], "exact");
        let request = &model.asked()[0];
        let compiled = Triage::compiled().unwrap();
        let expected_format = match plan {
            Plan::NativeSchema => ResponseFormat::schema("Triage", compiled.schema().clone()),
            Plan::JsonMode => ResponseFormat::Json,
            _ => ResponseFormat::Text,
        };
        assert_eq!(request.response_format, expected_format, "{plan}");
        if plan == Plan::ForcedTool {
            assert_eq!(request.tool_choice, ToolChoice::Tool(ANSWER_TOOL.to_owned()));
            assert_eq!(
                (request.tools.len(), &request.tools[0].parameters),
                (1, compiled.schema())
            );
        } else {
            assert!(request.tools.is_empty() && request.tool_choice == ToolChoice::Auto);
        }
        assert_eq!(request.messages.len(), 2);
    }
}

#[test]
fn plans_work_beside_the_callers_tools() {
    let search = ToolSpec::new("search", "", json!({"type": "object"}));
    let request = |choice: ToolChoice| {
        ChatRequest::user("x")
            .with_tools([search.clone()])
            .with_tool_choice(choice)
    };
    for (plan, asked, expected) in [
        (Plan::ForcedTool, ToolChoice::Auto, ToolChoice::Required),
        (
            Plan::ForcedTool,
            ToolChoice::None,
            ToolChoice::Tool(ANSWER_TOOL.to_owned()),
        ),
        (
            Plan::ForcedTool,
            ToolChoice::Tool("search".to_owned()),
            ToolChoice::Tool("search".to_owned()),
        ),
        (Plan::OfferedTool, ToolChoice::Auto, ToolChoice::Auto),
    ] {
        let prepared = contract(plan).apply(request(asked)).unwrap();
        assert_eq!(prepared.tool_choice, expected);
        let names: Vec<&str> = prepared.tools.iter().map(|tool| tool.name.as_str()).collect();
        assert_eq!(names, ["search", ANSWER_TOOL]);
    }
    let native = contract(Plan::NativeSchema)
        .apply(request(ToolChoice::Auto))
        .unwrap();
    assert_eq!((native.tools.len(), native.tool_choice), (1, ToolChoice::Auto));
    assert!(matches!(
        native.response_format,
        ResponseFormat::Schema { strict: true, .. }
    ));

    let mut model = Capabilities::default();
    assert_eq!(Plan::choose(&model, true), Plan::Prompt);
    (model.tools, model.json_mode) = (true, true);
    assert_eq!(
        Plan::choose(&model, true),
        Plan::OfferedTool,
        "JSON mode would keep the tools from being called"
    );

    let clash = ChatRequest::user("x").with_tools([ToolSpec::new(ANSWER_TOOL, "", json!({}))]);
    let error = contract(Plan::ForcedTool).apply(clash).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
}

#[test]
fn an_extraction_runs_tools_first_and_repairs_through_its_tool() {
    let request = ChatRequest::user("x").with_tools([ToolSpec::new("search", "", json!({"type": "object"}))]);
    let contract = contract(Plan::ForcedTool);
    let request = contract.apply(request).unwrap();
    let mut extraction: Extraction = Extraction::new(contract, request);

    let early = calls([("search", "{}"), (ANSWER_TOOL, GOOD)]);
    let search = early.tool_calls().next().unwrap().clone();
    assert!(matches!(extraction.answered(early).unwrap(), Step::Tools));
    extraction.tools_ran([ToolResult::new(&search, "found")]);
    let roles: Vec<Role> = extraction
        .request()
        .messages
        .iter()
        .map(|message| message.role)
        .collect();
    assert_eq!(
        roles,
        [Role::User, Role::Assistant, Role::Tool, Role::Tool],
        "every call has its result"
    );

    assert!(matches!(
        extraction.answered(calls([(ANSWER_TOOL, BAD)])).unwrap(),
        Step::Ask
    ));
    let Some(Part::ToolResult(result)) = extraction.request().messages.last().unwrap().parts.first() else {
        panic!()
    };
    assert!(
        result.is_error
            && result
                .text()
                .contains("`urgency`: expected integer from 1 to 5, found 9")
    );
    assert_eq!(extraction.last_problem().unwrap().kind, ViolationKind::Range);

    let Step::Done(answer) = extraction.answered(calls([(ANSWER_TOOL, GOOD)])).unwrap() else {
        panic!()
    };
    assert_eq!(answer.response.metadata["structured_repairs"], 1);
    assert_eq!(answer.response.metadata["structured_output"], "forced_tool");
}

#[test]
fn repairs_are_counted_and_bounded() {
    let model = Script::texts([BAD, "what?", GOOD]);
    let prediction = run(predict::<Triage>(&model, &ticket())).unwrap();
    assert_eq!(
        (prediction.repairs, prediction.usage),
        (2, Some(Usage::new(30, 3)))
    );
    assert_eq!(prediction.response.metadata["structured_repairs"], 2);
    assert_eq!(model.asked()[2].messages.len(), 6);

    let model = Script::texts([BAD, BAD, BAD, GOOD]);
    let error = run(predict::<Triage>(&model, &ticket())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the answer does not fit `Triage` after 2 repairs: `urgency`: expected integer from 1 to 5, found 9"
    );
    assert_eq!(model.asked().len(), 3);
    let Error::Output(output) = &error else { panic!() };
    assert_eq!(output.text, BAD);
    // An agent passes it on as the error of a call, and it can still be told apart.
    let core = peregrine_core::Error::from(error.clone());
    assert_eq!((core.kind(), core.is_retryable()), (ErrorKind::Protocol, false));

    let model = Script::texts([BAD, GOOD]);
    let once = Predict::of::<Triage>().unwrap().with_max_repairs(0);
    assert!(run(once.call(&model, &ticket())).is_err());
    assert_eq!(model.asked().len(), 1);
}

#[test]
fn an_empty_answer_is_repaired_without_an_empty_message() {
    let model = Script::new([
        ChatResponse::new(Vec::new(), peregrine_core::Finish::Stop),
        ChatResponse::text(GOOD),
    ]);
    run(predict::<Triage>(&model, &ticket())).unwrap();
    assert!(
        model.asked()[1]
            .messages
            .iter()
            .all(|message| !message.parts.is_empty())
    );
}

#[test]
fn a_made_up_tool_is_answered_and_counts_as_a_repair() {
    let model = Script::new([calls([("search", "{}")]), ChatResponse::text(GOOD)]);
    let prediction = run(predict::<Triage>(&model, &ticket())).unwrap();
    assert_eq!(prediction.repairs, 1);
    assert_eq!(model.asked()[1].messages.last().unwrap().role, Role::Tool);
    let model = Script::new((0..9).map(|_| calls([("search", "{}")])));
    assert!(matches!(
        run(predict::<Triage>(&model, &ticket())),
        Err(Error::Output(_))
    ));
    assert_eq!(model.asked().len(), 3);
}

#[test]
fn settings_are_kept() {
    let settings = ChatRequest::new([Message::user("earlier"), Message::assistant("yes")])
        .with_sampling(Sampling {
            temperature: Some(0.0),
            ..Sampling::default()
        })
        .with_max_tokens(7);
    let model = Script::texts([GOOD]);
    let predict = Predict::of::<Triage>()
        .unwrap()
        .with_settings(settings)
        .with_plan(Plan::JsonMode);
    let prediction = run(predict.call(&model, &ticket())).unwrap();
    assert_eq!(prediction.response.metadata["structured_output"], "json_mode");
    let request = &model.asked()[0];
    assert_eq!(
        (request.sampling.temperature, request.sampling.max_tokens),
        (Some(0.0), Some(7))
    );
    let roles: Vec<Role> = request.messages.iter().map(|message| message.role).collect();
    assert_eq!(roles, [Role::System, Role::User, Role::Assistant, Role::User]);

    let with_tools = ChatRequest::default().with_tools([ToolSpec::new("t", "", json!({}))]);
    let predict = Predict::of::<Triage>().unwrap().with_settings(with_tools);
    assert!(matches!(
        run(predict.call(&model, &ticket())),
        Err(Error::Input(_))
    ));
}

#[test]
fn a_models_error_is_its_own() {
    let model = Script::texts([]);
    let error = run(predict::<Triage>(&model, &ticket())).unwrap_err();
    assert!(matches!(error, Error::Model(_)));
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
}

async fn all_events<M: ChatModel>(
    predict: &Predict<TriageInput, crate::derive::TriageOutput>,
    model: &M,
) -> Vec<Result<FieldEvent, Error>> {
    let mut stream = predict.stream(model, &ticket()).unwrap();
    let mut events = Vec::new();
    while let Some(event) = stream.next().await {
        events.push(event);
    }
    events
}

/// The events of a stream without errors, as texts.
fn told<M: ChatModel>(predict: &Predict<TriageInput, crate::derive::TriageOutput>, model: &M) -> Vec<String> {
    let events = run(all_events(predict, model)).into_iter();
    events.map(|event| event.unwrap().to_string()).collect()
}

#[test]
fn a_stream_gives_what_a_call_gives() {
    let cases: [(Set, ChatResponse); 3] = [
        (|_| {}, ChatResponse::text(GOOD)),
        (
            |c| (c.tools, c.tool_choice) = (true, true),
            calls([(ANSWER_TOOL, GOOD)]),
        ),
        (|_| {}, ChatResponse::text(format!("```json\n{GOOD}\n```"))),
    ];
    for (set, answer) in cases {
        let whole = run(predict::<Triage>(
            &Script::new([answer.clone()]).with(set),
            &ticket(),
        ))
        .unwrap();
        let model = Script::new([answer]).with(set);
        let predict = Predict::of::<Triage>().unwrap();
        let told = told(&predict, &model);
        assert_eq!(
            told.iter()
                .filter(|told| told.contains(" = "))
                .collect::<Vec<_>>(),
            [
                "urgency = 3",
                r#"queue = "billing""#,
                r#"tags[0] = "money""#,
                r#"tags = ["money"]"#
            ]
        );
        let model = Script::new([whole_text(&whole.response)]).with(set);
        let streamed = run(predict.stream(&model, &ticket()).unwrap().finish()).unwrap();
        assert_eq!(streamed, whole);
    }
}

/// The response as the model gave it, without what the extraction recorded.
fn whole_text(response: &ChatResponse) -> ChatResponse {
    let mut response = response.clone();
    response.metadata.clear();
    response
}

#[test]
fn a_stream_is_aborted_at_its_first_misfit_and_repaired() {
    let long = BAD.replace("money", &"money ".repeat(1_000));
    let model = Script::texts([long.as_str(), GOOD]);
    let predict = Predict::of::<Triage>().unwrap();
    let events = run(all_events(&predict, &model));
    let told: Vec<String> = events
        .iter()
        .map(|event| event.as_ref().unwrap().to_string())
        .collect();
    assert_eq!(
        told[0],
        "restarted: `urgency`: expected integer from 1 to 5, found 9"
    );
    assert_eq!(told[1], "urgency = 3");
    assert!(
        model.streamed.load(Ordering::Relaxed) < 40,
        "the rest of the bad answer was not read"
    );
    let repair = &model.asked()[1];
    let partial = repair.messages.get(2).unwrap().text();
    assert!(BAD.starts_with(&partial) && partial.len() < 20, "{partial}");

    let model = Script::texts([BAD, BAD]);
    let events = run(all_events(&predict.with_max_repairs(1), &model));
    assert!(matches!(events.last(), Some(Err(Error::Output(_)))));
    assert_eq!(events.len(), 2);
}

#[test]
fn what_was_not_finished_is_not_sent_back() {
    let thought = Part::Reasoning(peregrine_core::ReasoningPart {
        text: "unsigned".to_owned(),
        data: None,
    });
    let call = Part::ToolCall(peregrine_core::ToolCall::new("c", ANSWER_TOOL, BAD));
    let bad = ChatResponse::new(vec![thought, call], peregrine_core::Finish::ToolCalls);
    let model =
        Script::new([bad, calls([(ANSWER_TOOL, GOOD)])]).with(|c| (c.tools, c.tool_choice) = (true, true));
    let prediction = run(Predict::of::<Triage>()
        .unwrap()
        .stream(&model, &ticket())
        .unwrap()
        .finish())
    .unwrap();
    assert_eq!(prediction.repairs, 1);
    let repair = &model.asked()[1];
    let partial = repair.messages.get(2).unwrap();
    assert_eq!(partial.parts.len(), 1);
    assert!(BAD.starts_with(partial.parts[0].as_text().unwrap()));
    assert_eq!(repair.messages.last().unwrap().role, Role::User);
}

#[test]
fn without_early_abort_an_answer_is_read_to_its_end_and_once_more_as_a_whole() {
    let predict = Predict::of::<Triage>()
        .unwrap()
        .with_early_abort(false)
        .with_max_repairs(0);
    // In pieces, an unknown object is the answer; read as a whole, it is seen to be something else.
    let text = format!("{{\"ticket\": \"..\"}} was the input. {GOOD}");
    let model = Script::texts([text.as_str()]);
    let told = told(&predict, &model);
    assert_eq!(
        told,
        ["urgency = 3", r#"queue = "billing""#, r#"tags = ["money"]"#]
    );

    let model = Script::texts([BAD]);
    let events = run(all_events(&predict, &model));
    assert!(matches!(events.last(), Some(Err(Error::Output(_)))));
    assert_eq!(
        model.streamed.load(Ordering::Relaxed),
        2 + BAD.len().div_ceil(5) + 2,
        "it was read to its end"
    );
}

#[test]
fn a_cut_stream_is_no_answer() {
    struct Cut(peregrine_core::ModelInfo);
    impl ChatModel for Cut {
        fn info(&self) -> &peregrine_core::ModelInfo {
            &self.0
        }
        async fn complete(&self, _: &ChatRequest) -> peregrine_core::Result<ChatResponse> {
            Err(peregrine_core::Error::Cancelled)
        }
        async fn stream(&self, _: &ChatRequest) -> peregrine_core::Result<peregrine_core::ChatStream> {
            let mut events = ChatResponse::text(GOOD).into_events();
            events.pop();
            Ok(peregrine_core::ChatStream::from_events(events))
        }
    }
    let model = Cut(peregrine_core::ModelInfo::new("test", "cut"));
    let predict = Predict::of::<Triage>().unwrap();
    let error = run(predict.stream(&model, &ticket()).unwrap().finish()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Truncated);
    assert!(error.is_retryable(), "the call failed, not the answer");
}

#[test]
fn run_time_signatures_take_and_give_fields() {
    let model = Script::texts([r#"{"answer": "because", "confidence": 1}"#]);
    let inputs = Fields::from_iter([("question".to_owned(), "why?".into())]);
    let predict = Predict::new(parse("question -> answer, confidence: float").unwrap());
    let prediction = run(predict.call(&model, &inputs)).unwrap();
    assert_eq!(prediction.output["confidence"], 1);
}
