//! Typed answers: with tools, with repairs, with fallbacks.

use peregrine_agent::{Agent, Error, RunEvent};
use peregrine_core::{ErrorKind, ProviderError, ResponseFormat, ToolChoice};
use peregrine_signatures::{Error as SignatureError, Signature};
use peregrine_tools::tool;

use crate::support::{Script, calls, results, text};

/// Say where something is.
#[derive(Signature)]
struct Locate {
    #[input]
    thing: String,
    /// the name of the place
    #[output]
    place: String,
    #[output(range = 0.0..=1.0)]
    confidence: f64,
}

/// Looks things up.
#[tool(effect = "read_only", danger = "safe")]
async fn look_up(name: String) -> String {
    format!("{name} is in Oslo")
}

#[tokio::test]
async fn tools_first_then_an_answer_in_the_form() {
    for (schema, forced, plan) in [
        (true, false, "native_schema"),
        (false, true, "forced_tool"),
        (false, false, "offered_tool"),
    ] {
        let answer = r#"{"place": "Oslo", "confidence": 0.9}"#;
        let last = match schema {
            true => text(answer),
            false => calls(&[("final_answer", answer)]),
        };
        let both = calls(&[("look_up", r#"{"name": "The Scream"}"#), ("final_answer", answer)]);
        let model =
            Script::of([both, last]).able(|model| (model.json_schema, model.tool_choice) = (schema, forced));
        let agent = Agent::new(model.clone()).with_tool(look_up());
        let typed = agent
            .run_as::<Locate>(&LocateInput::new("The Scream"))
            .await
            .unwrap();
        assert_eq!(
            (typed.output.place.as_str(), typed.output.confidence),
            ("Oslo", 0.9)
        );
        assert_eq!(typed.run.response.metadata["structured_output"], plan);
        let asked = model.requests();
        match schema {
            true => assert!(matches!(asked[0].response_format, ResponseFormat::Schema { .. })),
            false => assert_eq!(asked[0].tools.len(), 2),
        }
        if forced {
            assert_eq!(asked[0].tool_choice, ToolChoice::Required);
        }
        let told = results(&asked[1]);
        assert_eq!(told[0], "The Scream is in Oslo");
        assert!(
            told[1].contains("first"),
            "an answer beside a tool call does not count: {told:?}"
        );
        let open = typed
            .run
            .messages()
            .iter()
            .flat_map(|message| message.tool_calls())
            .count();
        assert_eq!(
            open, 2,
            "the answer itself stands as text, so that the conversation can go on"
        );
    }
}

#[tokio::test]
async fn an_answer_that_never_fits_is_an_error_with_its_path() {
    let agent = Agent::new(Script::new(|_, _| {
        Ok(text(r#"{"place": "Oslo", "confidence": 3}"#))
    }))
    .with_tool(look_up());
    let error = agent
        .run_as::<Locate>(&LocateInput::new("The Scream"))
        .await
        .unwrap_err();
    let Error::Signature(SignatureError::Output(output)) = error.error() else {
        panic!("{error}")
    };
    assert_eq!((output.repairs, error.report().steps), (2, 3));
    assert!(output.to_string().contains("confidence"), "{output}");
    assert_eq!(
        error.report().usage.unwrap().total_tokens(),
        45,
        "what was done is reported"
    );
}

#[tokio::test]
async fn a_fallback_is_held_to_the_form_in_its_own_way() {
    let busy = Script::new(|_, _| Err(ProviderError::new("test", 503, ErrorKind::Overloaded, "busy").into()))
        .able(|model| model.json_schema = true);
    let other = Script::of([text(r#"Sure! {"place": "Oslo", "confidence": 1}"#)]).called("other");
    let agent = Agent::new(busy).with_fallback(other.clone());
    let typed = agent
        .run_as::<Locate>(&LocateInput::new("The Scream"))
        .await
        .unwrap();
    assert_eq!(typed.run.response.metadata["structured_output"], "prompt");
    let asked = &other.requests()[0];
    assert_eq!(asked.response_format, ResponseFormat::Text);
    assert!(
        asked.messages.get(0).unwrap().text().contains("one JSON object"),
        "it is told the form in words"
    );
}

#[tokio::test]
async fn fields_are_told_as_they_complete_and_the_answer_is_the_same() {
    let answer = r#"{"place": "Oslo", "confidence": 0.9}"#;
    let model = Script::of([calls(&[("look_up", r#"{"name": "x"}"#)]), text(answer)]);
    let agent = Agent::new(model).with_tool(look_up());
    let mut events = agent.run_stream_as::<Locate>(&LocateInput::new("x"));
    let mut told = Vec::new();
    while let Some(event) = events.next().await {
        match event.unwrap() {
            RunEvent::FieldCompleted { path, value, .. } => told.push(format!("{path} = {value}")),
            RunEvent::FieldText { path, text, .. } => told.push(format!("{path} += {text}")),
            RunEvent::ToolStart { name, .. } => told.push(name),
            RunEvent::Rejected { problem, .. } => panic!("{problem}"),
            _ => {}
        }
    }
    assert_eq!(
        told,
        [
            "look_up",
            "place += Oslo",
            r#"place = "Oslo""#,
            "confidence = 0.9"
        ]
    );
}

#[tokio::test]
async fn a_streamed_answer_ends_at_its_first_misfit_and_is_repaired() {
    let model = Script::of([
        text(r#"{"confidence": 7, "place": "Oslo"}"#),
        text(r#"{"place": "Oslo", "confidence": 0.7}"#),
    ]);
    let agent = Agent::new(model.clone());
    let input = LocateInput::new("x");
    let mut events = agent.run_stream_as::<Locate>(&input);
    let mut rejected = 0;
    let mut fields = Vec::new();
    while let Some(event) = events.next().await {
        match event.unwrap() {
            RunEvent::Rejected { .. } => {
                rejected += 1;
                fields.clear();
            }
            RunEvent::FieldCompleted { path, .. } => fields.push(path.to_string()),
            _ => {}
        }
    }
    assert_eq!(
        (rejected, fields),
        (1, vec!["place".to_owned(), "confidence".to_owned()])
    );

    let whole = agent_again()
        .run_stream_as::<Locate>(&input)
        .collect_as::<Locate>()
        .await
        .unwrap();
    assert_eq!(whole.output.confidence, 0.7);
    assert_eq!(whole.run.response.metadata["structured_repairs"], 1);
}

fn agent_again() -> Agent {
    Agent::new(Script::of([
        text(r#"{"confidence": 7, "place": "Oslo"}"#),
        text(r#"{"place": "Oslo", "confidence": 0.7}"#),
    ]))
}

#[tokio::test]
async fn a_tool_with_the_name_of_the_answer_is_an_error() {
    /// In the way.
    #[tool(effect = "read_only", danger = "safe")]
    async fn final_answer() -> String {
        String::new()
    }
    let model = Script::of([text("x")]).able(|model| model.tool_choice = true);
    let error = Agent::new(model)
        .with_tool(final_answer())
        .run_as::<Locate>(&LocateInput::new("x"))
        .await
        .unwrap_err();
    assert!(
        matches!(error.error(), Error::Signature(SignatureError::Input(_))),
        "{error}"
    );
}
