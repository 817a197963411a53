//! The direct path and the run give the same: every test here runs on both.

use std::sync::{Arc, Mutex};

use peregrine_agent::{
    Agent, Error, Input, Memory, MemoryContext, RunError, RunOutput, TurnMemory, async_trait,
};
use peregrine_core::{ErrorKind, Message, Result, RunId, Scope, Usage};
use peregrine_signatures::Signature;

use crate::support::{Script, calls, text};

/// Everything of a run that does not depend on chance.
async fn both(script: impl Fn() -> Script, input: Input) -> [std::result::Result<RunOutput, RunError>; 2] {
    let mut outcomes = Vec::new();
    let mut asked = Vec::new();
    for direct in [true, false] {
        let model = script();
        let agent = Agent::new(model.clone())
            .with_instructions("Be brief.")
            .with_direct_path(direct);
        outcomes.push(
            agent
                .run(input.clone().with_run_id(RunId::from_parts(1, [7; 10])))
                .await,
        );
        asked.push(model.requests());
    }
    assert_eq!(asked[0], asked[1], "the model is asked the same");
    outcomes.try_into().unwrap()
}

#[tokio::test]
async fn answers_and_reports_are_identical() {
    let inputs = [
        Input::from("Hello?"),
        Input::new([Message::user("a"), Message::assistant("b")]).with_user("c"),
        Input::from("Hello?").with_scope(Scope::new("acme", "s").unwrap()),
    ];
    for input in inputs {
        let [direct, run] = both(|| Script::of([text("Hi.").with_metadata("k", 1)]), input).await;
        let (direct, run) = (direct.unwrap(), run.unwrap());
        assert_eq!(direct, run);
        assert_eq!(
            (direct.report.steps, direct.usage()),
            (1, Some(Usage::new(10, 5)))
        );
    }
}

#[tokio::test]
async fn failures_are_identical() {
    let busy: fn() -> Script = || {
        Script::new(|_, _| {
            Err(peregrine_core::ProviderError::new("test", 503, ErrorKind::Overloaded, "busy").into())
        })
    };
    let fine: fn() -> Script = || Script::of([text("x")]);
    for (script, input) in [(busy, Input::from("Hello?")), (fine, Input::default())] {
        let [direct, run] = both(script, input).await;
        let (direct, run) = (direct.unwrap_err(), run.unwrap_err());
        assert_eq!(direct.report(), run.report());
        assert_eq!((direct.code(), direct.to_string()), (run.code(), run.to_string()));
        assert_eq!(direct.is_retryable(), run.is_retryable());
    }
}

#[tokio::test]
async fn a_model_that_makes_up_tools_is_told_so_on_both_paths() {
    let script = || Script::of([calls(&[("search", "{}")]), text("Without it, then.")]);
    let [direct, run] = both(script, Input::from("Hello?")).await;
    let direct = direct.unwrap();
    assert_eq!(direct, run.unwrap());
    assert_eq!((direct.report.steps, direct.report.tool_calls.len()), (2, 1));
}

/// Judge a text.
#[derive(Signature)]
struct Judge {
    #[input]
    text: String,
    #[output(range = 0..=10)]
    score: u8,
}

#[tokio::test]
async fn typed_answers_are_identical_with_every_plan_and_with_repairs() {
    let good = || text(r#"{"score": 7}"#);
    let by_tool = || calls(&[("final_answer", r#"{"score": 7}"#)]);
    let bad = || text(r#"{"score": 70}"#);
    let answers: [(&str, Vec<_>); 5] = [
        ("once", vec![good()]),
        ("by a tool", vec![by_tool()]),
        ("repaired", vec![bad(), text("I think 7."), good()]),
        ("never", vec![bad(), bad(), bad(), bad()]),
        ("tools", vec![calls(&[("search", "{}")]), good()]),
    ];
    for (name, answers) in answers {
        for (schema, forced) in [(true, false), (false, true), (false, false)] {
            let mut outcomes = Vec::new();
            for direct in [true, false] {
                let model = Script::of(answers.clone())
                    .able(|model| (model.json_schema, model.tool_choice) = (schema, forced));
                let agent = Agent::new(model.clone())
                    .with_instructions("Be fair.")
                    .with_direct_path(direct);
                let input = Input::default().with_run_id(RunId::from_parts(1, [7; 10]));
                let outcome = agent.run_as::<Judge>((&JudgeInput::new("well"), input)).await;
                let outcome = match outcome {
                    Ok(typed) => (Some((typed.output.score, typed.run.clone())), String::new(), None),
                    Err(error) => (None, error.to_string(), Some(error.report().clone())),
                };
                outcomes.push((outcome, model.requests()));
            }
            assert_eq!(
                outcomes[0].1, outcomes[1].1,
                "{name}: the model is asked the same"
            );
            assert_eq!(outcomes[0].0, outcomes[1].0, "{name}");
            assert_eq!(
                outcomes[0].0.0.is_some(),
                name != "never",
                "{name}: {:?}",
                outcomes[0].0
            );
        }
    }
}

#[tokio::test]
async fn memory_reaches_the_model_and_scopes_do_not_see_each_other() {
    let model = Script::new(|request, _| Ok(text(&format!("heard {}", request.messages.len()))));
    let agent = Agent::new(model.clone()).with_memory(TurnMemory::new(2));
    let scope = |name: &str| Scope::new("acme", name).unwrap();
    for (said, who, heard) in [
        ("a", "x", 1),
        ("b", "x", 3),
        ("c", "y", 1),
        ("d", "x", 5),
        ("e", "x", 5),
    ] {
        let output = agent.run(Input::from(said).with_scope(scope(who))).await.unwrap();
        assert_eq!(output.text(), format!("heard {heard}"), "{said}");
    }
    let last: Vec<String> = model.requests()[4]
        .messages
        .iter()
        .map(|message| message.text())
        .collect();
    assert_eq!(
        last,
        ["b", "heard 3", "d", "heard 5", "e"],
        "the newest turns are the newest"
    );
}

#[tokio::test]
async fn a_memory_that_fails_is_not_passed_over() {
    struct Broken(bool);
    #[async_trait]
    impl Memory for Broken {
        async fn load(&self, _: &MemoryContext, _: &[Arc<Message>]) -> Result<Vec<Arc<Message>>> {
            match self.0 {
                true => Err(peregrine_core::Error::invalid_request("cannot load")),
                false => Ok(Vec::new()),
            }
        }
        async fn save(&self, _: &MemoryContext, _: &[Arc<Message>]) -> Result<()> {
            Err(peregrine_core::Error::invalid_request("cannot save"))
        }
    }
    for (at_load, asked, kept) in [(true, 0, 0), (false, 1, 2)] {
        let model = Script::of([text("Hi.")]);
        let error = Agent::new(model.clone())
            .with_memory(Broken(at_load))
            .run("Hello?")
            .await
            .unwrap_err();
        assert!(matches!(error.error(), Error::Memory(_)), "{error}");
        assert_eq!(
            (model.requests().len(), error.report().messages.len()),
            (asked, kept)
        );
    }
}

#[tokio::test]
async fn one_agent_starts_any_number_of_runs_at_the_same_time() {
    let model = Script::new(|request, _| Ok(text(&request.messages.last().unwrap().text())));
    let agent = Agent::new(model).with_direct_path(false);
    let outputs = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for place in 0..200 {
        let (agent, outputs) = (agent.clone(), Arc::clone(&outputs));
        tasks.push(tokio::spawn(async move {
            let output = agent.run(format!("{place}")).await.unwrap();
            assert_eq!(output.text(), place.to_string());
            outputs.lock().unwrap().push(output.report.run_id);
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let mut ids = outputs.lock().unwrap().clone();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 200);
}
