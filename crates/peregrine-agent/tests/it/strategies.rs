//! Strategies: who is asked what, when each of them ends, and what it reports.

use peregrine_agent::run::RunSpec;
use peregrine_agent::{Agent, BestOfN, Error, FallbackOn, PlanAndExecute, Reflection, RunEvent, Strategy};
use peregrine_core::{ChatRequest, ErrorKind, ProviderError, Role, Sampling};
use peregrine_signatures::Signature;
use peregrine_tools::tool;

use crate::support::{Script, calls, results, text};

/// Adds two numbers.
#[tool(effect = "read_only", danger = "safe")]
async fn add(a: i64, b: i64) -> i64 {
    a + b
}

fn failure(kind: ErrorKind) -> peregrine_core::Error {
    ProviderError::new("test", 500, kind, "no").into()
}

fn last(request: &ChatRequest) -> String {
    request.messages.last().unwrap().text()
}

#[tokio::test]
async fn a_single_shot_offers_no_tools() {
    let model = Script::of([text("42")]);
    let agent = Agent::new(model.clone())
        .with_tool(add())
        .with_strategy(Strategy::SingleShot);
    assert_eq!(agent.run("40 + 2?").await.unwrap().text(), "42");
    assert!(model.requests()[0].tools.is_empty());
}

#[tokio::test]
async fn fallbacks_are_asked_in_turn_and_stay() {
    let down = Script::new(|_, _| Err(failure(ErrorKind::Overloaded))).called("down");
    let also_down = Script::new(|_, _| Err(failure(ErrorKind::Authentication))).called("also-down");
    let up = Script::of([calls(&[("add", r#"{"a": 1, "b": 2}"#)]), text("3")]).called("up");
    let agent = Agent::new(down.clone())
        .with_fallback(also_down.clone())
        .with_fallback(up.clone())
        .with_tool(add());
    let mut events = agent.run_stream("1 + 2?");
    let mut told = Vec::new();
    while let Some(event) = events.next().await {
        match event.unwrap() {
            RunEvent::Fallback { failed, problem, .. } => told.push(format!("{failed}: {problem}")),
            RunEvent::Finished(output) => assert_eq!((output.text().as_str(), output.report.steps), ("3", 4)),
            _ => {}
        }
    }
    assert_eq!(told.len(), 2);
    assert!(
        told[0].starts_with("test/down: ") && told[1].contains("authentication"),
        "{told:?}"
    );
    assert_eq!(
        [&down, &also_down, &up].map(|model| model.requests().len()),
        [1, 1, 2],
        "the one that works is kept"
    );
}

#[tokio::test]
async fn a_fault_of_the_request_is_not_tried_elsewhere() {
    let bad = || Script::new(|_, _| Err(failure(ErrorKind::InvalidRequest)));
    let up = Script::of([text("x")]);
    let error = Agent::new(bad())
        .with_fallback(up.clone())
        .run("Go.")
        .await
        .unwrap_err();
    assert_eq!(
        (error.model_kind(), up.requests().len()),
        (Some(ErrorKind::InvalidRequest), 0)
    );
    let only = FallbackOn::Kinds(vec![ErrorKind::InvalidRequest]);
    let output = Agent::new(bad())
        .with_fallback(up)
        .with_fallback_on(only)
        .run("Go.")
        .await
        .unwrap();
    assert_eq!(output.text(), "x");
}

#[tokio::test]
async fn the_error_of_the_last_model_is_the_run_s() {
    let one = Script::new(|_, _| Err(failure(ErrorKind::Overloaded)));
    let two = Script::new(|_, _| Err(failure(ErrorKind::RateLimited)));
    let error = Agent::new(one).with_fallback(two).run("Go.").await.unwrap_err();
    assert_eq!(
        (error.model_kind(), error.report().steps),
        (Some(ErrorKind::RateLimited), 2)
    );
}

#[tokio::test]
async fn the_most_frequent_answer_wins_and_the_vote_is_told() {
    let model = Script::new(|request, _| {
        let seed = request.sampling.seed.unwrap();
        Ok(text(match seed {
            101 | 103 | 104 => " Oslo",
            _ => "Bergen",
        }))
    });
    let sampling = Sampling {
        seed: Some(100),
        ..Sampling::default()
    };
    let agent = Agent::new(model.clone())
        .with_strategy(Strategy::BestOfN(BestOfN::new(5)))
        .with_sampling(sampling);
    let output = agent.run("Capital of Norway?").await.unwrap();
    assert_eq!(output.text().trim(), "Oslo");
    let vote = &output.response.metadata["best_of_n"];
    assert_eq!(
        (&vote["candidates"], &vote["votes"]),
        (&5.into(), &3.into()),
        "{vote}"
    );
    assert_eq!(
        output.messages().last().unwrap().text().trim(),
        "Oslo",
        "the winner's conversation is the run's"
    );
    assert_eq!(output.report.steps, 5);
}

/// Guess.
#[derive(Signature)]
struct Guess {
    #[input]
    riddle: String,
    #[output]
    answer: String,
    #[output]
    sure: bool,
}

#[tokio::test]
async fn votes_count_equal_outputs_whatever_their_spelling() {
    let model = Script::of([
        text(r#"{"answer": "egg", "sure": true}"#),
        text(r#"{"sure":true,"answer":"egg"}"#),
        text(r#"{"answer": "ball", "sure": true}"#),
    ]);
    let agent = Agent::new(model).with_strategy(Strategy::BestOfN(BestOfN::new(3)));
    let typed = agent.run_as::<Guess>(&GuessInput::new("?")).await.unwrap();
    assert_eq!(typed.output.answer, "egg");
    assert_eq!(typed.run.response.metadata["best_of_n"]["votes"], 2);
}

#[tokio::test]
async fn a_vote_survives_failures_but_not_too_many() {
    let flaky = |bad: usize| {
        Script::new(move |_, place| match place < bad {
            true => Err(failure(ErrorKind::Server)),
            false => Ok(text("yes")),
        })
    };
    let agent = |bad| Agent::new(flaky(bad)).with_strategy(Strategy::BestOfN(BestOfN::new(5)));
    assert_eq!(
        agent(2).run("?").await.unwrap().response.metadata["best_of_n"]["answers"],
        3
    );
    let error = agent(3).run("?").await.unwrap_err();
    assert_eq!(error.model_kind(), Some(ErrorKind::Server));
}

#[tokio::test]
async fn an_answer_is_judged_and_made_anew() {
    let model = Script::of([
        text("Oslo is in Sweden."),
        text(r#"{"problems": ["Oslo is in Norway"], "accept": false}"#),
        text("Oslo is in Norway."),
        text(r#"{"problems": [], "accept": true}"#),
    ]);
    let agent = Agent::new(model.clone()).with_strategy(Strategy::Reflection(Reflection::new(3)));
    let output = agent.run("Where is Oslo?").await.unwrap();
    assert_eq!(output.text(), "Oslo is in Norway.");
    assert_eq!(
        output.response.metadata["reflection"],
        serde_json::json!({"rounds": 2, "accepted": true})
    );
    let asked = model.requests();
    assert!(last(&asked[1]).contains("Oslo is in Sweden.") && last(&asked[1]).contains("Where is Oslo?"));
    assert!(last(&asked[2]).contains("- Oslo is in Norway"));
    assert_eq!(asked[2].messages.len(), 3);
}

#[tokio::test]
async fn judging_is_bounded_and_says_that_nobody_accepted() {
    let model = Script::new(|request, _| {
        Ok(match request.messages.get(0).unwrap().role {
            Role::System => text(r#"{"problems": ["worse"], "accept": false}"#),
            _ => text("draft"),
        })
    });
    let agent = Agent::new(model).with_strategy(Strategy::Reflection(Reflection::new(2)));
    let output = agent.run("Go.").await.unwrap();
    assert_eq!(
        output.response.metadata["reflection"],
        serde_json::json!({"rounds": 2, "accepted": false})
    );
    assert_eq!(
        output.report.steps, 4,
        "two judgements, each of an answer; nobody looks at a third"
    );
}

#[tokio::test]
async fn a_plan_is_made_and_done_step_by_step() {
    let model = Script::of([
        text(r#"{"steps": ["Add 1 and 2.", "Double it."]}"#),
        calls(&[("add", r#"{"a": 1, "b": 2}"#)]),
        text("The sum is 3."),
        text("The double is 6."),
        text("It is 6."),
    ]);
    let agent = Agent::new(model.clone())
        .with_instructions("Count.")
        .with_tool(add())
        .with_strategy(Strategy::PlanAndExecute(PlanAndExecute::new(4)));
    let output = agent.run("Add 1 and 2, then double.").await.unwrap();
    assert_eq!((output.text().as_str(), output.report.steps), ("It is 6.", 5));
    let asked = model.requests();
    assert!(
        last(&asked[0]).contains("add: Adds two numbers."),
        "the planner knows the tools: {}",
        last(&asked[0])
    );
    assert!(asked[0].tools.is_empty() && !asked[1].tools.is_empty());
    assert_eq!(results(&asked[2]), ["3"]);
    assert!(last(&asked[3]).contains("The sum is 3.") && last(&asked[3]).contains("Double it."));
    assert!(last(&asked[4]).contains("The double is 6."));
    assert_eq!(asked[4].messages.get(0).unwrap().text(), "Count.");
}

#[tokio::test]
async fn a_plan_is_made_again_when_a_step_fails_and_not_without_end() {
    let model = Script::new(|request, _| {
        let told = last(request);
        if told.contains("<task>") {
            let known = told.contains("failed");
            return Ok(text(match known {
                true => r#"{"steps": ["Another way."]}"#,
                false => r#"{"steps": ["First way."]}"#,
            }));
        }
        match told.ends_with("First way.") {
            true => Err(failure(ErrorKind::Server)),
            false => Ok(text("Done.")),
        }
    });
    let plan = |replans| {
        let plan = PlanAndExecute::new(4).with_max_replans(replans);
        Agent::new(model.clone()).with_strategy(Strategy::PlanAndExecute(plan))
    };
    assert_eq!(plan(1).run("Go.").await.unwrap().text(), "Done.");
    let error = plan(0).run("Go.").await.unwrap_err();
    assert_eq!(error.model_kind(), Some(ErrorKind::Server));
}

#[tokio::test]
async fn too_long_a_plan_is_refused() {
    let model = Script::of([text(r#"{"steps": ["a", "b", "c"]}"#)]);
    let agent = Agent::new(model).with_strategy(Strategy::PlanAndExecute(PlanAndExecute::new(2)));
    let error = agent.run("Go.").await.unwrap_err();
    assert!(matches!(error.error(), Error::Rejected { .. }), "{error}");
}

#[tokio::test]
async fn numbers_that_make_no_sense_are_an_error_before_anything_is_asked() {
    for strategy in [
        Strategy::BestOfN(BestOfN::new(0)),
        Strategy::BestOfN(BestOfN::new(1_000)),
        Strategy::PlanAndExecute(PlanAndExecute::new(0)),
    ] {
        let model = Script::of([text("x")]);
        let agent = Agent::new(model.clone()).with_strategy(strategy);
        assert!(agent.check().is_err());
        assert!(matches!(
            agent.run("Go.").await.unwrap_err().error(),
            Error::Config(_)
        ));
        assert!(model.requests().is_empty());
    }
}

#[test]
fn rules_survive_being_written_down() {
    let spec = RunSpec::default();
    let text = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<RunSpec>(&text).unwrap(), spec);
    let unknown = text.replacen('{', r#"{"max_money": 3, "#, 1);
    assert!(
        serde_json::from_str::<RunSpec>(&unknown)
            .unwrap_err()
            .to_string()
            .contains("max_money")
    );
}
