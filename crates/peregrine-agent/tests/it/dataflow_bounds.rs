//! Plans of calls of tools within their bounds: hostile plans, limits, budgets, cancelled runs that go on, doubt.

use std::sync::{Arc, Mutex};

use peregrine_agent::run::{
    CallId, Effect as Asks, Event, Form, Interrupt, RunSpec, ToolOutcome, ToolRule, Verdict,
};
use peregrine_agent::{
    BudgetLimits, Dataflow, Error, Input, Limits, More, OnLimit, PlanAndExecute, Resource, Run, RunError,
};
use peregrine_core::{ChatResponse, Cost, Effect, JsonSchema, Message, ToolCall, ToolResult, ToolSpec};
use peregrine_tools::{Canceller, FnTool, Tool, ToolContext, ToolError, ToolInfo, ToolOutput};
use serde_json::{Value, json};

use crate::plans::{Log, agent, facts, last, planner, strategy};
use crate::support::{Script, text};

fn rejected(error: &RunError) -> String {
    match error.error() {
        Error::Rejected { problem, .. } => problem.clone(),
        Error::Signature(error) => error.to_string(),
        _ => panic!("{error}"),
    }
}

#[tokio::test]
async fn hostile_plans_are_refused() {
    let many = |count: usize| {
        let steps: Vec<Value> = (0..count)
            .map(|n| json!({"id": format!("s{n}"), "tool": "look"}))
            .collect();
        json!({ "steps": steps }).to_string()
    };
    let ring = |count: usize| {
        let steps: Vec<Value> = (0..count)
            .map(|n| json!({"id": format!("s{n}"), "tool": "look", "arguments": {"x": format!("$s{}", (n + 1) % count)}}))
            .collect();
        json!({ "steps": steps }).to_string()
    };
    let deep = |depth: usize| {
        let arguments = format!("{}1{}", r#"{"x":"#.repeat(depth), "}".repeat(depth));
        format!(r#"{{"steps":[{{"id":"a","tool":"look","arguments":{arguments}}}]}}"#)
    };
    let large =
        json!({"steps": [{"id": "a", "tool": "look", "arguments": {"x": "x".repeat(2 << 20)}}]}).to_string();
    let log = Log::default();
    for (plan, words) in [
        (many(10_000), "256"),
        (many(200), "at most 100"),
        (ring(100), "wait for each other"),
        (deep(110), "at most 64 levels"),
        (deep(10_000), ""),
        (large, "1024 KiB"),
        (many(3).replace("look", &"l".repeat(100_000)), "calls `llll"),
        (many(3).replace("s1", "no id"), "an id is of"),
    ] {
        let model = Script::new(move |_, _| Ok(text(&plan)));
        let numbers = strategy(PlanAndExecute::new(100), Dataflow::new().with_max_plan_repairs(1));
        let limits = Limits {
            max_repairs: 1,
            max_tool_calls: 10_000,
            ..Limits::default()
        };
        let look = log.any("look", Effect::ReadOnly, |_| Ok(ToolOutput::from("seen")));
        let agent = agent(model.clone())
            .with_strategy(numbers)
            .with_limits(limits)
            .with_tool(look);
        let error = agent.run("Look.").await.unwrap_err();
        let problem = rejected(&error);
        assert!(
            problem.contains(words),
            "{words} in {}",
            &problem[..problem.len().min(2_000)]
        );
        assert!(problem.len() < 20_000, "{words}: {}", problem.len());
        let told = last(model.requests().last().unwrap());
        assert!(told.len() < 50_000, "{words}: {}", told.len());
    }
    assert!(log.names().is_empty(), "nothing of them was done");
}

#[tokio::test]
async fn results_that_double_do_not_fill_the_memory() {
    let log = Log::default();
    let echo = log.any("echo", Effect::ReadOnly, |arguments| {
        Ok(ToolOutput::from(arguments["x"].clone()))
    });
    let mut steps = vec![json!({"id": "s0", "tool": "echo", "arguments": {"x": "x".repeat(1_000)}})];
    steps.extend((1..40).map(|n| {
        let before = format!("$s{}", n - 1);
        json!({"id": format!("s{n}"), "tool": "echo", "arguments": {"x": [before, before]}})
    }));
    let numbers = strategy(PlanAndExecute::new(40).with_max_replans(0), Dataflow::new());
    let limits = Limits {
        max_tool_output_bytes: 1 << 40,
        ..Limits::default()
    };
    let agent = agent(planner([Value::from(steps)]))
        .with_strategy(numbers)
        .with_limits(limits)
        .with_tool(echo);
    let error = agent.run("Double.").await.unwrap_err();
    assert!(rejected(&error).contains("would take more than"), "{error}");
    assert!(log.names().len() < 20);
}

#[tokio::test]
async fn a_plan_with_too_many_calls_is_stopped_before_its_first_and_may_go_on() {
    let log = Log::default();
    let look = log.any("look", Effect::ReadOnly, |_| Ok(ToolOutput::from("seen")));
    let steps: Vec<Value> = (0..5)
        .map(|n| json!({"id": format!("s{n}"), "tool": "look"}))
        .collect();
    let limits = Limits {
        max_tool_calls: 3,
        ..Limits::default()
    };
    let agent = agent(planner([Value::from(steps)]))
        .with_tool(look)
        .with_limits(limits);
    let error = agent.run("Look.").await.unwrap_err();
    let Error::Limit(limit) = error.error() else {
        panic!("{error}")
    };
    assert_eq!((limit.resource, log.names().len()), (Resource::ToolCalls, 0));

    let pausing = agent.with_on_limit(OnLimit::Pause);
    let error = pausing.run("Look.").await.unwrap_err();
    let more = More {
        tool_calls: 2,
        ..More::default()
    };
    let output = pausing
        .resume(through_bytes(error.run().unwrap()), more)
        .await
        .unwrap();
    assert_eq!(
        (log.names().len(), output.report.steps),
        (5, 2),
        "the plan was kept"
    );
}

#[tokio::test]
async fn results_and_budgets_are_bounded_inside_a_plan() {
    let log = Log::default();
    let steps = json!([{"id": "a", "tool": "look"}, {"id": "b", "tool": "look", "arguments": {"x": "$a"}},
                       {"id": "c", "tool": "look", "arguments": {"x": "$b"}}]);
    let look = || log.any("look", Effect::ReadOnly, |_| Ok(ToolOutput::from("0123456789")));
    let limits = Limits {
        max_tool_output_bytes: 15,
        ..Limits::default()
    };
    let error = agent(planner([steps.clone()]))
        .with_tool(look())
        .with_limits(limits)
        .run("?")
        .await
        .unwrap_err();
    assert!(
        matches!(error.error(), Error::Limit(limit) if limit.resource == Resource::ToolOutput),
        "{error}"
    );
    assert_eq!(log.names().len(), 2);

    let budget = BudgetLimits::default().with_tool_calls(1);
    let error = agent(planner([steps]))
        .with_tool(look())
        .with_budget(budget)
        .run("?")
        .await
        .unwrap_err();
    assert!(
        matches!(error.error(), Error::Limit(limit) if limit.resource == Resource::ToolCalls),
        "{error}"
    );
    assert_eq!(log.names().len(), 3);
}

fn through_bytes(run: &Run) -> Run {
    serde_json::from_slice(&serde_json::to_vec(run).unwrap()).unwrap()
}

/// Hangs the first time, and keeps the keys that it is called with.
fn hanging(name: &str, effect: Effect, keys: &Arc<Mutex<Vec<String>>>) -> impl Tool {
    let keys = Arc::clone(keys);
    let info = ToolInfo::new(ToolSpec::new(name, "", JsonSchema::empty_object()));
    FnTool::raw(info.with_effect(effect), move |context: ToolContext, _| {
        let mut keys = keys.lock().unwrap();
        keys.push(context.idempotency_key.to_string());
        let hangs = keys.len() == 1;
        async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            Ok::<_, ToolError>("done")
        }
    })
}

#[tokio::test]
async fn a_plan_that_was_cancelled_goes_on_where_it_was() {
    for effect in [Effect::ReadOnly, Effect::Idempotent, Effect::SideEffect] {
        let log = Log::default();
        let keys = Arc::<Mutex<Vec<String>>>::default();
        let model = planner([json!([
            {"id": "a", "tool": "look"},
            {"id": "b", "tool": "hang", "depends_on": ["a"]},
            {"id": "c", "tool": "look", "arguments": {"a": "$a.n", "b": "$b"}},
        ])]);
        let agent = agent(model.clone())
            .with_tool(log.any("look", Effect::ReadOnly, |_| {
                Ok(ToolOutput::from(json!({"n": 1})))
            }))
            .with_tool(hanging("hang", effect, &keys))
            .with_allowed("hang");
        let canceller = Canceller::new();
        let run = agent.run(Input::from("Go.").with_cancellation(canceller.cancellation()));
        let stop = async {
            while keys.lock().unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
            canceller.cancel();
        };
        let error = futures_util::future::join(run, stop).await.0.unwrap_err();
        let mut run = through_bytes(error.run().unwrap());
        if effect == Effect::SideEffect {
            let error = agent.resume(run, More::default()).await.unwrap_err();
            let Error::InDoubt(calls) = error.error() else {
                panic!("{error}")
            };
            // Somebody finds out what became of it.
            run = through_bytes(error.run().unwrap());
            let result = ToolResult::new(&ToolCall::new("b", "hang", "{}"), "done");
            let outcome = ToolOutcome::Returned(result);
            run.handle(Event::ToolReturned {
                call: calls[0],
                outcome,
            })
            .unwrap();
        }
        let output = agent.resume(run, More::default()).await.unwrap();
        assert_eq!(
            log.of("look"),
            [json!({}), json!({"a": 1, "b": "done"})],
            "{effect:?}"
        );
        let keys = keys.lock().unwrap();
        match effect {
            Effect::SideEffect => assert_eq!(keys.len(), 1, "what is in doubt is not done again"),
            _ => assert_eq!((keys.len(), &keys[0]), (2, &keys[1]), "the same call again"),
        }
        assert_eq!(
            (&facts(&output)["steps"], output.report.steps),
            (&json!(3), 2),
            "the plan was kept"
        );
        assert_eq!(model.requests().len(), 2);
        let called: Vec<_> = output
            .report
            .tool_calls
            .iter()
            .map(|call| call.call_id.as_str())
            .collect();
        assert_eq!(called, ["a", "b", "c"], "{effect:?}");
    }
}

/// A run with three tools, and the plan that its planner writes.
fn with_plan(steps: &Value, limits: Limits) -> (Run, Vec<Asks>) {
    let mut spec = RunSpec::default();
    spec.strategy = strategy(PlanAndExecute::new(300), Dataflow::new());
    spec.limits = limits;
    let tools = [("look", Effect::ReadOnly), ("send", Effect::SideEffect)];
    let specs = tools.map(|(name, _)| ToolSpec::new(name, "", JsonSchema::new(json!({"type": "object"}))));
    spec.template.tools = Arc::from(specs);
    spec.tools = tools
        .map(|(name, effect)| (name.to_owned(), ToolRule { effect, ask: false }))
        .into();
    let mut run = Run::new(spec);
    let input = vec![Message::user("Go.")];
    let effects = run.handle(Event::Started { input }).unwrap();
    let [Asks::CallModel(asked)] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(asked.form, Form::Dataflow);
    let answered = Event::ModelAnswered {
        call: asked.call,
        outcome: Ok(Box::new(ChatResponse::text(""))),
        cost: Cost::Unpriced,
    };
    let effects = run.handle(answered).unwrap();
    let [Asks::CheckAnswer { call, .. }] = &effects[..] else {
        panic!("{effects:?}")
    };
    let verdict = Verdict::Accepted {
        value: json!({ "steps": steps }).as_object().unwrap().clone(),
        metadata: Default::default(),
    };
    let effects = run.handle(Event::AnswerChecked { call: *call, verdict }).unwrap();
    (run, effects)
}

fn called(effects: &[Asks]) -> Vec<(CallId, String)> {
    let tasks = effects.iter().map(|effect| match effect {
        Asks::CallTool(task) => (task.call, task.tool_call.id.clone()),
        other => panic!("{other:?}"),
    });
    tasks.collect()
}

fn returned(call: CallId, value: &Value) -> Event {
    let result = ToolResult::new(&ToolCall::new("", "", "{}"), value.to_string());
    Event::ToolReturned {
        call,
        outcome: ToolOutcome::Returned(result),
    }
}

/// What came to its end before it began is kept too: otherwise a restored run would take what waited for it for not begun,
/// and send twice.
#[test]
fn a_step_that_failed_before_it_began_is_remembered() {
    let steps = json!([
        {"id": "a", "tool": "look"},
        {"id": "m", "tool": "send", "arguments": {"x": "$a.missing"}},
        {"id": "n", "tool": "send"},
        {"id": "z", "tool": "look"},
    ]);
    let (mut run, effects) = with_plan(&steps, Limits::default());
    let begun = called(&effects);
    assert_eq!(
        begun.iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>(),
        ["a", "z"]
    );
    // Nobody can send before the first one has, or has failed to.
    let effects = run.handle(returned(begun[0].0, &json!({"n": 1}))).unwrap();
    let sent = called(&effects);
    assert_eq!(sent[0].1, "n");
    let mut restored = through_bytes(&run);
    assert_eq!(restored, run);
    for run in [&mut run, &mut restored] {
        assert!(
            run.handle(returned(begun[1].0, &json!(1))).unwrap().is_empty(),
            "it has been sent"
        );
    }
    // All has ended: there is a new plan to make, with what is known.
    let effects = restored.handle(returned(sent[0].0, &json!(1))).unwrap();
    let [Asks::CallModel(asked)] = &effects[..] else {
        panic!("{effects:?}")
    };
    let told = last(&asked.request);
    assert!(
        told.contains("- `n`, send({}) (done): 1") && told.contains("(failed)"),
        "{told}"
    );
    assert_eq!(run.handle(returned(sent[0].0, &json!(1))).unwrap(), effects);
}

/// The state of a run with a plan grows with the plan, not with its square, and each event costs about the same.
#[test]
fn a_plan_of_256_steps_is_taken_step_by_step() {
    let mut steps = vec![json!({"id": "s0", "tool": "look"})];
    steps.extend((1..256).map(
        |n| json!({"id": format!("s{n}"), "tool": "look", "arguments": {"before": format!("$s{}.n", n - 1)}}),
    ));
    let limits = Limits {
        max_tool_calls: 300,
        ..Limits::default()
    };
    let (mut run, mut effects) = with_plan(&Value::from(steps), limits);
    for n in 0..256 {
        let begun = called(&effects);
        assert_eq!((begun.len(), begun[0].1.as_str()), (1, format!("s{n}").as_str()));
        effects = run.handle(returned(begun[0].0, &json!({ "n": n }))).unwrap();
    }
    let [Asks::CallModel(asked)] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(asked.form, Form::Text);
    assert!(last(&asked.request).contains(r#"- `s255`, look({"before":"$s254.n"}): {"n":255}"#));
    assert!(serde_json::to_vec(&run).unwrap().len() < 256 << 10);
}

#[test]
fn a_plan_that_is_stopped_gracefully_begins_nothing_and_goes_on() {
    let steps = json!([{"id": "a", "tool": "look"}, {"id": "b", "tool": "look", "arguments": {"x": "$a"}}]);
    let (mut run, effects) = with_plan(&steps, Limits::default());
    let call = called(&effects)[0].0;
    let interrupt = Interrupt::graceful("later");
    assert!(
        run.handle(Event::Interrupted { interrupt }).unwrap().is_empty(),
        "it waits for the call"
    );
    let effects = run.handle(returned(call, &json!(1))).unwrap();
    assert!(matches!(&effects[..], [Asks::Pause { .. }]), "{effects:?}");
    assert_eq!(run.counts().tool_calls, 1);
    let effects = through_bytes(&run)
        .handle(Event::Resumed {
            more: More::default(),
        })
        .unwrap();
    assert_eq!(called(&effects)[0].1, "b");
    assert_eq!(
        run.handle(Event::Resumed {
            more: More::default()
        })
        .unwrap(),
        effects
    );
}

/// A driver that checks nothing changes nothing about what a plan may be.
#[test]
fn a_run_keeps_its_bounds_whoever_checks_the_form() {
    let many: Vec<Value> = (0..10_000)
        .map(|n| json!({"id": format!("s{n}"), "task": "x"}))
        .collect();
    let deep = (0..110).fold(json!(1), |inner, _| json!({ "x": inner }));
    for (steps, words) in [
        (Value::from(many), "it has 10000 steps; at most 256 are allowed"),
        (
            json!([{"id": "a", "tool": "look", "arguments": deep}]),
            "nest more than 100 deep",
        ),
        (
            json!([{"id": "a", "tool": "look", "argument": {}}, 7]),
            "step 1 cannot be read",
        ),
    ] {
        let (_, effects) = with_plan(&steps, Limits::default());
        let [Asks::CallModel(asked)] = &effects[..] else {
            panic!("{effects:?}")
        };
        let told = last(&asked.request);
        assert!(asked.form == Form::Dataflow && told.contains(words), "{told}");
    }
}

#[test]
fn a_restored_run_with_what_is_no_plan_ends_with_an_error() {
    let steps = json!([{"id": "a", "tool": "look"}, {"id": "b", "tool": "look", "arguments": {"x": "$a"}}]);
    let (run, effects) = with_plan(&steps, Limits::default());
    let call = called(&effects)[0].0;
    let text = serde_json::to_string(&run).unwrap();
    let broken = text.replace(r#"{"x":"$a"}"#, r#"{"x":"$c"}"#);
    assert_ne!(broken, text);
    let mut run: Run = serde_json::from_str(&broken).unwrap();
    let effects = run.handle(returned(call, &json!(1))).unwrap();
    assert!(
        matches!(&effects[..], [Asks::Finish { end }] if end.code() == "answer_rejected"),
        "{effects:?}"
    );
}
