//! Plans of calls of tools: what runs side by side, what steps get of each other, repairs, new plans, people.

use std::sync::{Arc, Mutex};

use peregrine_agent::{
    Approval, ApprovalRequest, Approver, Dataflow, Error, PlanAndExecute, RunEvent, async_trait,
};
use peregrine_core::{
    ChatModel, ChatRequest, ChatResponse, Effect, JsonSchema, Message, ModelInfo, Role, ToolSpec,
};
use peregrine_signatures::Signature;
use peregrine_tools::{FnTool, ToolContext, ToolError, ToolInfo, ToolOutput};
use serde_json::{Value, json};
use tokio::sync::Barrier;

use crate::plans::{Asked, Gauge, Log, agent, facts, last, plan, planner, strategy, who};
use crate::support::{Script, text};

#[tokio::test]
async fn steps_get_the_results_of_others_with_their_types() {
    let log = Log::default();
    let search = log.any("search", Effect::ReadOnly, |_| {
        Ok(ToolOutput::from(
            json!({"hits": [{"id": 7, "tags": ["a", null]}], "rate": 0.5, "next": null, "ok": true}),
        ))
    });
    let name = log.any("name", Effect::ReadOnly, |_| Ok(ToolOutput::from("0042")));
    let count = log.any("count", Effect::ReadOnly, |_| Ok(ToolOutput::from(json!(12))));
    let parameters = json!({"type": "object", "properties": {
        "hit": {"type": "integer"}, "text": {"type": "string"}, "tags": {"type": "array"}, "code": {"type": "string"}},
        "required": ["hit"]});
    let use_it = log.tool("use_it", Effect::ReadOnly, parameters, |_| {
        Ok(ToolOutput::from("used"))
    });
    let model = planner([json!([
        {"id": "s", "tool": "search", "arguments": {"query": "falcons for $$5"}},
        {"id": "n", "tool": "name"},
        {"id": "c", "tool": "count"},
        {"id": "u", "tool": "use_it", "arguments": {
            "hit": "$s.hits[0].id", "tags": "$s.hits[0].tags", "rate": "$s.rate", "next": "$s.next", "ok": "$s.ok",
            "name": "$n", "text": "$c", "code": "$s.hits[0].id", "line": "hit ${s.hits[0].id} of $c at $s.rate"}},
    ])]);
    let output = agent(model.clone())
        .with_tool(search)
        .with_tool(name)
        .with_tool(count)
        .with_tool(use_it)
        .run("Use it.")
        .await
        .unwrap();
    assert_eq!(log.of("search"), [json!({"query": "falcons for $5"})]);
    assert_eq!(
        log.of("use_it"),
        [
            json!({"hit": 7, "tags": ["a", null], "rate": 0.5, "next": null, "ok": true, "name": "0042",
                "text": "12", "code": "7", "line": "hit 7 of 12 at 0.5"})
        ],
        "values keep their types; what is said to be text is text"
    );
    assert_eq!(facts(&output), &json!({"plans": 1, "steps": 4, "failed": 0}));
    let called: Vec<_> = output
        .report
        .tool_calls
        .iter()
        .map(|call| (call.call_id.as_str(), call.ok))
        .collect();
    assert_eq!(called, [("s", true), ("n", true), ("c", true), ("u", true)]);
    assert_eq!(output.report.steps, 2, "a planner, and the answer");
    assert!(
        output.text().contains("used") && output.text().contains("0042"),
        "{}",
        output.text()
    );
    assert_eq!(output.messages().len(), 3, "question, results, answer");
    let asked = model.requests();
    let told = last(&asked[0]);
    assert!(
        told.contains("use_it (changes nothing)") && told.contains(r#""required":["hit"]"#),
        "{told}"
    );
    assert!(asked.iter().all(|request| request.tools.is_empty()));
}

#[tokio::test]
async fn what_does_not_wait_for_each_other_is_under_way_at_once() {
    // Each of three calls only ends once all three have begun; the fourth needs two of them.
    let barrier = Arc::new(Barrier::new(3));
    let meet = |name: &'static str| {
        let barrier = Arc::clone(&barrier);
        let spec = ToolSpec::new(name, "", JsonSchema::empty_object());
        FnTool::raw(
            ToolInfo::new(spec).with_effect(Effect::ReadOnly),
            move |_: ToolContext, _| {
                let barrier = Arc::clone(&barrier);
                async move {
                    barrier.wait().await;
                    Ok::<_, ToolError>("met")
                }
            },
        )
    };
    let log = Log::default();
    let model = planner([json!([
        {"id": "d", "tool": "after", "arguments": {"a": "$a", "b": "$b"}},
        {"id": "a", "tool": "one"}, {"id": "b", "tool": "two"}, {"id": "c", "tool": "three"},
    ])]);
    let agent = agent(model)
        .with_tool(meet("one"))
        .with_tool(meet("two"))
        .with_tool(meet("three"))
        .with_tool(log.any("after", Effect::ReadOnly, |_| Ok(ToolOutput::from("then"))));
    let mut events = agent.run_stream("Meet.");
    let (mut open, mut most, mut ended) = (0, 0, Vec::new());
    while let Some(event) = events.next().await {
        match event.unwrap() {
            RunEvent::ToolStart { .. } => {
                open += 1;
                most = most.max(open);
            }
            RunEvent::ToolEnd { call_id, .. } => {
                open -= 1;
                ended.push(call_id);
            }
            _ => {}
        }
    }
    assert_eq!(
        (most, ended.len(), ended.last().map(String::as_str)),
        (3, 4, Some("d"))
    );
    assert_eq!(log.of("after"), [json!({"a": "met", "b": "met"})]);
}

#[tokio::test]
async fn no_more_than_the_numbers_say_is_under_way() {
    let gauge = Gauge::default();
    let inside = gauge.clone();
    let spec = ToolSpec::new("look", "", JsonSchema::empty_object());
    let look = FnTool::raw(
        ToolInfo::new(spec).with_effect(Effect::ReadOnly),
        move |_: ToolContext, _| {
            let gauge = inside.clone();
            async move {
                gauge.enter();
                tokio::task::yield_now().await;
                gauge.leave();
                Ok::<_, ToolError>("seen")
            }
        },
    );
    let steps: Vec<Value> = (0..12)
        .map(|n| json!({"id": format!("s{n}"), "tool": "look"}))
        .collect();
    let model = planner([Value::from(steps)]);
    let numbers = strategy(PlanAndExecute::new(12), Dataflow::new().with_max_parallel(4));
    let output = agent(model)
        .with_strategy(numbers)
        .with_tool(look)
        .run("Look.")
        .await
        .unwrap();
    assert_eq!(gauge.counts(), (0, 4));
    assert_eq!(output.report.tool_calls.len(), 12);
}

#[tokio::test]
async fn tasks_are_done_by_models_a_few_at_a_time() {
    #[derive(Clone)]
    struct Crowd {
        inner: Script,
        tasks: Gauge,
    }
    impl ChatModel for Crowd {
        fn info(&self) -> &ModelInfo {
            self.inner.info()
        }
        async fn complete(&self, request: &ChatRequest) -> peregrine_core::Result<ChatResponse> {
            let is_task = who(request) == Asked::Task;
            if is_task {
                self.tasks.enter();
            }
            tokio::task::yield_now().await;
            let answer = self.inner.complete(request).await;
            if is_task {
                self.tasks.leave();
            }
            answer
        }
    }
    let mut steps: Vec<Value> = (0..6)
        .map(|n| json!({"id": format!("t{n}"), "task": format!("number {n}")}))
        .collect();
    steps.push(json!({"id": "sum", "task": "join: $t0 | $t5"}));
    let model = Crowd {
        inner: planner([Value::from(steps)]),
        tasks: Gauge::default(),
    };
    let output = agent(model.clone()).run("Do them.").await.unwrap();
    assert_eq!(model.tasks.counts(), (0, 3));
    assert_eq!(output.report.steps, 9);
    let asked = model.inner.requests();
    let joined = asked
        .iter()
        .map(last)
        .find(|told| told.contains("join: "))
        .unwrap();
    assert!(
        joined.contains("number 0 | ") && joined.ends_with("number 5"),
        "{joined}"
    );
}

#[tokio::test]
async fn a_plan_that_cannot_run_is_sent_back_with_everything_that_is_wrong() {
    let log = Log::default();
    let add = |log: &Log| {
        let parameters = json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                                "required": ["a", "b"], "additionalProperties": false});
        log.tool("add", Effect::ReadOnly, parameters, |arguments| {
            let number = |name: &str| arguments[name].as_i64().unwrap();
            Ok(ToolOutput::from(json!(number("a") + number("b"))))
        })
    };
    let bad = json!([
        {"id": "a", "tool": "add", "arguments": {"a": 1, "b": 2}, "depends_on": ["b"]},
        {"id": "b", "tool": "add", "arguments": {"a": "$a", "b": 2}},
        {"id": "c", "tool": "fly", "arguments": {}},
        {"id": "d", "tool": "add", "arguments": {"a": "one", "b": "$nobody"}},
        {"id": "e", "tool": "add", "arguments": {"a": "$a"}},
        {"id": "f", "tool": "add", "task": "add"},
        {"id": "g", "task": "5 $ please"},
    ]);
    let good = json!([{"id": "a", "tool": "add", "arguments": {"a": 1, "b": 2}},
                      {"id": "b", "tool": "add", "arguments": {"a": "$a", "b": 2}}]);
    let model = planner([bad.clone(), good]);
    let output = agent(model.clone())
        .with_tool(add(&log))
        .run("1 + 2 + 2?")
        .await
        .unwrap();
    assert_eq!(log.of("add"), [json!({"a": 1, "b": 2}), json!({"a": 3, "b": 2})]);
    assert_eq!((output.report.steps, &facts(&output)["plans"]), (3, &json!(1)));
    let told = last(&model.requests()[1]);
    for wrong in [
        "a -> b -> a",
        "step `c` calls `fly`, which there is not; there are add",
        "the arguments of step `d` do not fit: /a: expected an integer",
        "step `d` depends on `nobody`",
        "the arguments of step `e` do not fit: /b",
        "step `f` has a tool and a task",
        "step `g`",
    ] {
        assert!(told.contains(wrong), "{wrong} in {told}");
    }
    assert!(
        !told.contains("/a: expected an integer, found string of 2"),
        "a reference is not a text: {told}"
    );

    // As often as the numbers say, and not once more.
    for repairs in [0, 3] {
        let model = planner([bad.clone()]);
        let numbers = strategy(
            PlanAndExecute::new(9),
            Dataflow::new().with_max_plan_repairs(repairs),
        );
        let error = agent(model.clone())
            .with_strategy(numbers)
            .with_tool(add(&log))
            .run("?")
            .await
            .unwrap_err();
        let Error::Rejected {
            problem,
            repairs: made,
        } = error.error()
        else {
            panic!("{error}")
        };
        assert!(problem.contains("a -> b -> a"), "{problem}");
        assert_eq!((*made, model.requests().len()), (repairs, repairs as usize + 1));
        assert!(error.report().tool_calls.is_empty());
    }
}

/// Fails the first time.
fn flaky(log: &Log) -> FnTool {
    let failed = Mutex::new(false);
    log.any("flaky", Effect::ReadOnly, move |_| {
        match std::mem::replace(&mut *failed.lock().unwrap(), true) {
            false => Err(ToolError::model("no wind")),
            true => Ok(ToolOutput::from("flown")),
        }
    })
}

#[tokio::test]
async fn after_a_failure_there_is_a_new_plan_with_what_is_known() {
    let log = Log::default();
    let look = || {
        log.any("look", Effect::ReadOnly, |_| {
            Ok(ToolOutput::from(json!({"n": [1, 2]})))
        })
    };
    let first = json!([
        {"id": "a", "tool": "look"},
        {"id": "f", "tool": "flaky"},
        {"id": "g", "tool": "look", "arguments": {"f": "$f"}},
        {"id": "h", "tool": "look", "arguments": {"a": "$a.n[1]"}},
    ]);
    // It may say again what is done, and refer to it.
    let second = json!([
        {"id": "a", "tool": "look"},
        {"id": "f", "tool": "flaky", "arguments": {"height": "$a.n[0]"}},
        {"id": "i", "tool": "look", "arguments": {"all": ["$a.n", "$h", "$f"]}},
    ]);
    let model = planner([first.clone(), second]);
    let output = agent(model.clone())
        .with_tool(look())
        .with_tool(flaky(&log))
        .run("Fly.")
        .await
        .unwrap();
    assert_eq!(
        log.of("look"),
        [
            json!({}),
            json!({"a": 2}),
            json!({"all": [[1, 2], {"n": [1, 2]}, "flown"]})
        ],
        "what needed the failed step was not done, the rest was, once"
    );
    assert_eq!(log.of("flaky"), [json!({}), json!({"height": 1})]);
    assert_eq!(facts(&output), &json!({"plans": 2, "steps": 4, "failed": 1}));
    let asked = model.requests();
    let told = asked
        .iter()
        .filter(|request| who(request) == Asked::Planner)
        .map(last)
        .nth(1)
        .unwrap();
    assert!(told.contains(r#"- `a`, look({}) (done): {"n":[1,2]}"#), "{told}");
    assert!(
        told.contains("flaky({}) (failed)") && told.contains("no wind"),
        "{told}"
    );

    // Not without end.
    let log = Log::default();
    let broken = log.any("flaky", Effect::ReadOnly, |_| Err(ToolError::model("no wind")));
    let look = log.any("look", Effect::ReadOnly, |_| {
        Ok(ToolOutput::from(json!({"n": [1, 2]})))
    });
    let again = json!([{"id": "f", "tool": "flaky"}]);
    let model = planner([first, again]);
    let error = agent(model)
        .with_tool(look)
        .with_tool(broken)
        .run("Fly.")
        .await
        .unwrap_err();
    let Error::Tool { tool, message } = error.error() else {
        panic!("{error}")
    };
    assert!(tool == "flaky" && message.contains("no wind"), "{error}");
    assert_eq!(log.of("flaky").len(), 2);
}

#[tokio::test]
async fn a_reference_to_nothing_fails_its_step() {
    let log = Log::default();
    let look = log.any("look", Effect::ReadOnly, |_| {
        Ok(ToolOutput::from(json!({"n": 1})))
    });
    let model = planner([
        json!([{"id": "a", "tool": "look"}, {"id": "b", "tool": "look", "arguments": {"x": "$a.m"}}]),
        json!([{"id": "b", "tool": "look", "arguments": {"x": "$a.n"}}]),
    ]);
    let output = agent(model.clone()).with_tool(look).run("Look.").await.unwrap();
    assert_eq!(log.of("look"), [json!({}), json!({"x": 1})]);
    assert_eq!(facts(&output)["failed"], 1);
    let told = model
        .requests()
        .iter()
        .map(last)
        .find(|told| told.contains("(failed)"))
        .unwrap();
    assert!(told.contains("there is no field `m`; there are n"), "{told}");
}

/// Allows what is sent to `b`, and keeps what it was asked.
#[derive(Clone, Default)]
struct Boss(Arc<Mutex<Vec<String>>>);

#[async_trait]
impl Approver for Boss {
    async fn decide(&self, request: &ApprovalRequest) -> Approval {
        self.0.lock().unwrap().push(request.call.arguments.clone());
        match request.call.arguments.contains(r#""b""#) {
            true => Approval::Approved,
            false => Approval::Denied {
                reason: "not to them".to_owned(),
            },
        }
    }
}

#[tokio::test]
async fn side_effects_are_asked_about_with_their_real_arguments_and_follow_the_plan() {
    let log = Log::default();
    let send = || log.any("send", Effect::SideEffect, |_| Ok(ToolOutput::from("sent")));
    let find = || {
        log.any("find", Effect::ReadOnly, |_| {
            Ok(ToolOutput::from(json!({"who": "b"})))
        })
    };
    let steps = json!([
        {"id": "f", "tool": "find"},
        {"id": "one", "tool": "send", "arguments": {"to": "$f.who", "text": "1"}},
        {"id": "two", "tool": "send", "arguments": {"to": "b", "text": "2"}},
    ]);
    let boss = Boss::default();
    let model = planner([steps.clone()]);
    let agent_ = agent(model)
        .with_tool(send())
        .with_tool(find())
        .with_approver(boss.clone());
    agent_.run("Send.").await.unwrap();
    let sent = [json!({"to": "b", "text": "1"}), json!({"to": "b", "text": "2"})];
    assert_eq!(
        log.of("send"),
        sent,
        "one after the other, in the order of the plan, though the second could begin at once"
    );
    let asked: Vec<Value> = boss
        .0
        .lock()
        .unwrap()
        .iter()
        .map(|asked| serde_json::from_str(asked).unwrap())
        .collect();
    assert_eq!(asked, sent);

    // What is refused is a failed step, and told to the planner.
    let refused = json!([{"id": "x", "tool": "send", "arguments": {"to": "c"}}]);
    let model = planner([refused, json!([])]);
    let output = agent(model.clone())
        .with_tool(send())
        .with_approver(boss)
        .run("Send.")
        .await
        .unwrap();
    assert_eq!((log.of("send").len(), &facts(&output)["failed"]), (2, &json!(1)));
    assert!(
        output.text().contains("(failed)") && output.text().contains("not to them"),
        "whoever answers knows: {}",
        output.text()
    );
    assert!(
        model
            .requests()
            .iter()
            .map(last)
            .any(|told| told.contains("(failed)") && told.contains("not to them"))
    );

    // Without anybody to ask, and without leave, nothing is sent; denied by name is denied.
    for denied in [false, true] {
        let model = planner([steps.clone(), json!([])]);
        let mut agent = agent(model).with_tool(send()).with_tool(find());
        if denied {
            let allowance = peregrine_tools::Allowance::read_only()
                .with_allowed("send")
                .with_denied("send");
            agent = agent.with_allowance(allowance).with_approver(Boss::default());
        }
        let output = agent.run("Send.").await.unwrap();
        assert_eq!(
            (log.of("send").len(), &facts(&output)["failed"]),
            (2, &json!(2)),
            "{denied}"
        );
    }
}

#[tokio::test]
async fn idempotent_calls_that_are_the_same_are_not_under_way_together() {
    let log = Log::default();
    let open: Arc<Mutex<Vec<Value>>> = Arc::default();
    let spec = ToolSpec::new("put", "", JsonSchema::new(json!({"type": "object"})));
    let most = Arc::new(Mutex::new(0));
    let (under_way, peak) = (Arc::clone(&open), Arc::clone(&most));
    let put = FnTool::raw(
        ToolInfo::new(spec).with_effect(Effect::Idempotent),
        move |_: ToolContext, arguments: Value| {
            let (open, peak) = (Arc::clone(&under_way), Arc::clone(&peak));
            async move {
                {
                    let mut open = open.lock().unwrap();
                    assert!(!open.contains(&arguments), "{arguments} twice at once");
                    open.push(arguments.clone());
                    let mut peak = peak.lock().unwrap();
                    *peak = open.len().max(*peak);
                }
                tokio::task::yield_now().await;
                open.lock().unwrap().retain(|known| *known != arguments);
                Ok::<_, ToolError>("put")
            }
        },
    );
    let key = log.any("key", Effect::ReadOnly, |_| Ok(ToolOutput::from("k")));
    let model = planner([json!([
        {"id": "a", "tool": "put", "arguments": {"key": "k", "value": 1}},
        {"id": "b", "tool": "put", "arguments": {"value": 1, "key": "k"}},
        {"id": "c", "tool": "put", "arguments": {"key": "l"}},
        {"id": "k", "tool": "key"},
        {"id": "d", "tool": "put", "arguments": {"key": "$k", "value": 1}},
    ])]);
    let output = agent(model)
        .with_tool(put)
        .with_tool(key)
        .with_allowed("put")
        .run("Put.")
        .await
        .unwrap();
    assert!(output.report.tool_calls.iter().all(|call| call.ok));
    assert_eq!(*most.lock().unwrap(), 2, "those that cannot be the same are");
}

/// Answer the question.
#[derive(Signature)]
struct Ask {
    #[input]
    question: String,
    #[output]
    answer: String,
}

#[tokio::test]
async fn the_answer_may_have_a_form() {
    let log = Log::default();
    let look = log.any("look", Effect::ReadOnly, |_| Ok(ToolOutput::from("blue")));
    let steps = json!([{"id": "a", "tool": "look"}]);
    let model = Script::new(move |request, _| {
        Ok(match who(request) {
            Asked::Planner => plan(&steps),
            _ => text(&json!({"answer": last(request).contains("blue").to_string()}).to_string()),
        })
    });
    let typed = agent(model)
        .with_tool(look)
        .run_as::<Ask>(&AskInput::new("Which colour?"))
        .await
        .unwrap();
    assert_eq!(typed.output.answer, "true");
    assert_eq!(typed.run.response.metadata["plan"]["steps"], 1);
}

#[tokio::test]
async fn a_plan_without_steps_is_an_answer_at_once() {
    let model = planner([json!([])]);
    let output = agent(model.clone())
        .run(vec![Message::user("Hi!")])
        .await
        .unwrap();
    assert_eq!((output.text().as_str(), output.report.steps), ("Hi!", 2));
    let roles: Vec<Role> = output.messages().iter().map(|message| message.role).collect();
    assert_eq!(roles, [Role::User, Role::Assistant]);
}
