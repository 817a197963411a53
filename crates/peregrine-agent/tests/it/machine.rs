//! Laws of the run: any order of events, any place of a restart, no event lost.
//!
//! Long because the generator of events, the world that answers them and the laws belong together.

use std::collections::BTreeMap;

use peregrine_agent::run::{
    Approval, CallId, Effect, End, Event, Failure, Form, Interrupt, Run, RunSpec, Stop, ToolOutcome,
    ToolRule, Verdict, Veto,
};
use peregrine_agent::{
    BestOfN, Dataflow, LimitReached, Limits, More, OnLimit, PlanAndExecute, Reflection, Resource, Strategy,
    Triage, Window,
};
use peregrine_core::{
    ChatResponse, Cost, Effect as ToolEffect, ErrorKind, Finish, JsonSchema, Message, NanoUsd, Part, Role,
    ToolCall, ToolResult, ToolSpec, Usage,
};
use proptest::prelude::*;
use proptest::sample::Index;

const TOOLS: [(&str, ToolEffect, bool); 4] = [
    ("read", ToolEffect::ReadOnly, false),
    ("put", ToolEffect::Idempotent, false),
    ("send", ToolEffect::SideEffect, false),
    ("ask", ToolEffect::SideEffect, true),
];

fn spec(
    strategy: Strategy,
    form: Form,
    on_limit: OnLimit,
    limits: Limits,
    has_memory: bool,
    window: Window,
) -> RunSpec {
    let mut spec = RunSpec::default();
    spec.strategy = strategy;
    spec.form = form;
    spec.on_limit = on_limit;
    spec.limits = limits;
    spec.has_memory = has_memory;
    spec.window = window;
    spec.models = 2;
    spec.head = vec![Message::system("Be good.").into()];
    spec.template.tools = TOOLS
        .iter()
        .map(|(name, ..)| ToolSpec::new(*name, "", JsonSchema::empty_object()))
        .collect();
    spec.tools = TOOLS
        .iter()
        .map(|(name, effect, ask)| {
            (
                (*name).to_owned(),
                ToolRule {
                    effect: *effect,
                    ask: *ask,
                },
            )
        })
        .collect();
    spec
}

fn any_spec() -> impl Strategy_<Value = RunSpec> {
    let strategy = prop_oneof![
        1 => Just(Strategy::SingleShot),
        1 => Just(Strategy::ToolLoop),
        1 => Just(Strategy::PlanAndExecute(PlanAndExecute::new(3))),
        3 => any_dataflow().prop_map(Strategy::PlanAndExecute),
        1 => Just(Strategy::Reflection(Reflection::new(2))),
        1 => (1_u32..5).prop_map(|n| Strategy::BestOfN(BestOfN::new(n))),
    ];
    let limits =
        (1_u32..8, 0_u32..8, 0_u64..60, 0_u32..3).prop_map(|(steps, calls, bytes, repairs)| Limits {
            max_steps: steps,
            max_tool_calls: calls,
            max_tool_output_bytes: bytes,
            max_repairs: repairs,
        });
    let window = prop_oneof![
        3 => Just(Window::all()),
        1 => (1_u32..3).prop_map(Window::last_turns),
        1 => (20_u64..200).prop_map(Window::tokens),
    ];
    let on_limit = prop_oneof![Just(OnLimit::End), Just(OnLimit::Pause)];
    let form = prop_oneof![Just(Form::Text), Just(Form::Answer)];
    (strategy, form, on_limit, limits, any::<bool>(), window).prop_map(
        |(strategy, form, on_limit, limits, memory, window)| {
            spec(strategy, form, on_limit, limits, memory, window)
        },
    )
}

fn any_dataflow() -> impl Strategy_<Value = PlanAndExecute> {
    (0_u32..3, 0_u32..3, 0_u32..4, 0_u32..3, any::<bool>()).prop_map(
        |(replans, repairs, parallel, tasks, triage)| {
            let mut dataflow = Dataflow::new()
                .with_max_plan_repairs(repairs)
                .with_max_parallel(parallel)
                .with_max_model_calls(tasks);
            if triage {
                let triage = Triage::new().with_asked(1).with_model("quick").with_model("good");
                dataflow = dataflow.with_triage(triage);
            }
            PlanAndExecute::new(6)
                .with_max_replans(replans)
                .with_dataflow(dataflow)
        },
    )
}

/// Plans of calls of tools, good and bad ones.
fn any_plan(how: u8) -> serde_json::Value {
    let steps = match how % 9 {
        0 => serde_json::json!([]),
        1 | 8 => serde_json::json!([
            {"id": "a", "tool": "read"}, {"id": "b", "tool": "read", "arguments": {"n": how}},
            {"id": "c", "tool": "send", "arguments": {"x": "$a", "y": "with $b"}},
            {"id": "d", "tool": "send", "depends_on": ["b"]},
        ]),
        2 => serde_json::json!([
            {"id": "e", "tool": "ask"}, {"id": "t", "task": "about $e"},
            {"id": "p", "tool": "put"}, {"id": "q", "tool": "put"}, {"id": "r", "tool": "put", "arguments": {"x": "$p"}},
        ]),
        3 => serde_json::json!([{"id": "a", "tool": "read", "arguments": {"x": "$b"}},
                                {"id": "b", "tool": "read", "depends_on": ["a"]}]),
        4 => serde_json::json!([{"id": "a", "tool": "nobody"}, {"id": "a", "task": "x", "tool": "read"}]),
        5 => {
            serde_json::json!([{"id": "a", "tool": "read"}, {"id": "m", "tool": "read", "arguments": {"x": "$a.missing"}},
                                {"id": "n", "tool": "send", "arguments": {"x": "$m"}}])
        }
        6 => {
            serde_json::json!([{"id": "w", "task": "think"}, {"id": "v", "task": "more of $w"}, {"id": "u", "task": "else"}])
        }
        _ => serde_json::json!(7),
    };
    serde_json::json!({"steps": steps})
}

use proptest::strategy::Strategy as Strategy_;

/// One thing that happens, before it is known what the run waits for.
#[derive(Debug, Clone)]
enum Move {
    /// What one of the effects that are under way asked for comes true, somehow.
    Answer(Index, u8),
    /// An event for a call that may not exist.
    Wild(u64, u8),
    Graceful,
    Immediate,
    Resume(u32),
    Time,
}

fn any_move() -> impl Strategy_<Value = Move> {
    prop_oneof![
        12 => (any::<Index>(), any::<u8>()).prop_map(|(which, how)| Move::Answer(which, how)),
        2 => (0_u64..30, any::<u8>()).prop_map(|(call, how)| Move::Wild(call, how)),
        1 => Just(Move::Graceful),
        1 => Just(Move::Immediate),
        2 => (0_u32..4).prop_map(Move::Resume),
        1 => Just(Move::Time),
    ]
}

fn response(how: u8) -> ChatResponse {
    let call = |name: &str, place: usize| Part::ToolCall(ToolCall::new(format!("c{place}"), name, "{}"));
    let parts = match how % 8 {
        0 => vec![call("read", 0), call("read", 1), call("send", 2)],
        1 => vec![call("put", 0), call("put", 1), call("nobody", 2), call("read", 3)],
        2 => vec![call("ask", 0), call("read", 1)],
        3 => vec![call("final_answer", 0)],
        4 => vec![call("final_answer", 0), call("read", 1)],
        5 => vec![],
        _ => vec![Part::text(format!("answer {}", how % 3))],
    };
    let response = ChatResponse::new(parts, Finish::Stop);
    match how % 5 {
        0 => response,
        _ => response.with_usage(Usage::new(7, 3)),
    }
}

fn model_answered(call: CallId, how: u8) -> Event {
    let outcome = match how % 11 {
        0 => Err(Failure::new(ErrorKind::Overloaded, "busy")),
        1 => Err(Failure::new(ErrorKind::InvalidRequest, "bad")),
        _ => Ok(Box::new(response(how))),
    };
    let cost = Cost::Priced(NanoUsd(5));
    Event::ModelAnswered { call, outcome, cost }
}

fn checked(call: CallId, how: u8, form: Form) -> Event {
    let verdict = match how % 4 {
        0 => Verdict::Rejected {
            told: vec![Message::assistant("x"), Message::user("no")],
            problem: "no".to_owned(),
        },
        1 if how > 200 => Verdict::Declined {
            text: "no".to_owned(),
        },
        _ => {
            let value = match form {
                Form::Plan => serde_json::json!({"steps": ["one", "two"]}),
                Form::Dataflow => any_plan(how),
                Form::Triage => serde_json::json!({"needs_plan": !how.is_multiple_of(3), "model": how % 4}),
                Form::Critique => serde_json::json!({"problems": ["p"], "accept": how.is_multiple_of(2)}),
                _ => serde_json::json!({"answer": how % 3}),
            };
            Verdict::Accepted {
                value: value.as_object().unwrap().clone(),
                metadata: Default::default(),
            }
        }
    };
    Event::AnswerChecked { call, verdict }
}

fn tool_returned(call: CallId, id: &str, name: &str, how: u8) -> Event {
    let outcome = match how % 16 {
        0 => ToolOutcome::Cancelled,
        1 if how > 200 => ToolOutcome::Fatal {
            message: "broken".to_owned(),
        },
        _ => ToolOutcome::Returned(ToolResult::new(
            &ToolCall::new(id, name, "{}"),
            format!("result {how}"),
        )),
    };
    Event::ToolReturned { call, outcome }
}

/// A run with what is under way for it, as a driver keeps it.
struct World {
    run: Run,
    open: BTreeMap<CallId, Effect>,
    memory: Option<Effect>,
    ends: usize,
}

impl World {
    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match &effect {
                Effect::CallModel(asked) => drop(self.open.insert(asked.call, effect)),
                Effect::CheckAnswer { call, .. } => drop(self.open.insert(*call, effect)),
                Effect::CallTool(task) | Effect::AskPerson(task) => drop(self.open.insert(task.call, effect)),
                Effect::LoadMemory | Effect::SaveMemory { .. } => self.memory = Some(effect),
                Effect::Cancel { calls } => calls.iter().for_each(|call| drop(self.open.remove(call))),
                Effect::Finish { .. } => self.ends += 1,
                _ => {}
            }
        }
    }

    /// The event of a move, if there is one.
    fn event(&mut self, happens: &Move) -> Option<Event> {
        let limit = |resource| LimitReached::new(resource, 1, 1, 1, "b");
        Some(match happens {
            Move::Answer(which, how) => {
                if let Some(asked) = self.memory.take() {
                    let failure = Failure::new(ErrorKind::Internal, "broken");
                    return Some(match (asked, how % 9) {
                        (Effect::LoadMemory, 0) => Event::MemoryLoaded {
                            outcome: Err(failure),
                        },
                        (Effect::LoadMemory, _) => Event::MemoryLoaded {
                            outcome: Ok(vec![
                                Message::user("before").into(),
                                Message::assistant("yes").into(),
                            ]),
                        },
                        (_, 0) => Event::MemorySaved {
                            failure: Some(failure),
                        },
                        _ => Event::MemorySaved { failure: None },
                    });
                }
                if self.open.is_empty() {
                    return None;
                }
                let call = *self.open.keys().nth(which.index(self.open.len())).unwrap();
                match self.open.remove(&call).unwrap() {
                    Effect::CallModel(_) if how % 13 == 0 => Event::LimitReached {
                        call: Some(call),
                        limit: limit(Resource::Tokens),
                    },
                    Effect::CallModel(_) if *how == 255 => Event::Vetoed {
                        call: Some(call),
                        veto: Veto::new("guard", "no"),
                    },
                    Effect::CallModel(_) => model_answered(call, *how),
                    Effect::CheckAnswer { form, .. } => checked(call, *how, form),
                    Effect::CallTool(_) if how % 17 == 0 => Event::LimitReached {
                        call: Some(call),
                        limit: limit(Resource::ToolCalls),
                    },
                    Effect::CallTool(task) => {
                        tool_returned(call, &task.tool_call.id, &task.tool_call.name, *how)
                    }
                    Effect::AskPerson(_) => Event::ApprovalDecided {
                        call,
                        approval: match how % 2 {
                            0 => Approval::Approved,
                            _ => Approval::Denied {
                                reason: "no".to_owned(),
                            },
                        },
                    },
                    other => unreachable!("{other:?}"),
                }
            }
            Move::Wild(call, how) => {
                // Not for a call that is under way: that would be an answer, and the driver has to hear of it.
                let call = CallId(*call);
                if self.open.contains_key(&call) {
                    return None;
                }
                match how % 6 {
                    0 => model_answered(call, *how),
                    1 => checked(call, *how, Form::Answer),
                    2 => tool_returned(call, "c0", "read", *how),
                    3 => Event::ApprovalDecided {
                        call,
                        approval: Approval::Approved,
                    },
                    4 => Event::MemorySaved { failure: None },
                    _ => Event::Started { input: Vec::new() },
                }
            }
            Move::Graceful => Event::Interrupted {
                interrupt: Interrupt::graceful("stop"),
            },
            Move::Immediate => Event::Interrupted {
                interrupt: Interrupt::immediate("stop now"),
            },
            Move::Resume(steps) => Event::Resumed {
                more: More {
                    steps: *steps,
                    tool_calls: *steps,
                    tool_output_bytes: u64::from(*steps) * 20,
                },
            },
            Move::Time => Event::LimitReached {
                call: None,
                limit: limit(Resource::WallTime),
            },
        })
    }

    /// What must hold after every event.
    fn check(&self) {
        let outstanding = self.run.outstanding();
        let is_still = self.run.paused().is_some() || self.run.ended().is_some();
        if is_still {
            return;
        }
        let open: Vec<CallId> = self.open.keys().copied().collect();
        assert_eq!(outstanding, open, "what the run waits for is what it asked for");
        assert!(
            !open.is_empty() || self.memory.is_some(),
            "it waits for something"
        );
        for effect in self.open.values() {
            if let Effect::CallModel(asked) = effect {
                check_pairs(asked.request.messages.iter());
            }
        }
        let counts = self.run.counts();
        let limits = self.run.limits();
        assert!(counts.steps <= limits.max_steps && counts.tool_calls <= limits.max_tool_calls);
    }
}

/// Every call of a tool is followed by its result, in order, before anybody else speaks.
fn check_pairs<'m>(messages: impl Iterator<Item = &'m Message>) {
    let mut waiting: Vec<String> = Vec::new();
    for message in messages {
        match message.role {
            Role::Tool => {
                for part in &message.parts {
                    let Part::ToolResult(result) = part else {
                        panic!("{message:?}")
                    };
                    assert_eq!(
                        waiting.remove(0),
                        result.call_id,
                        "results stand in the order of the calls"
                    );
                }
            }
            _ => {
                assert!(waiting.is_empty(), "{waiting:?} have no result");
                waiting = message.tool_calls().map(|call| call.id.clone()).collect();
            }
        }
    }
    assert!(waiting.is_empty(), "{waiting:?} have no result");
}

fn begin(spec: &RunSpec) -> World {
    let mut world = World {
        run: Run::new(spec.clone()),
        open: BTreeMap::new(),
        memory: None,
        ends: 0,
    };
    let input = vec![Message::user("Do it.")];
    let effects = world.run.handle(Event::Started { input }).unwrap();
    world.take(effects);
    world.check();
    world
}

fn through_bytes(run: &Run) -> Run {
    serde_json::from_slice(&serde_json::to_vec(run).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Any order of events: no panic, nothing lost, one end at most, and the same again from the bytes of any moment.
    #[test]
    fn any_order_of_events_is_taken_and_a_restored_run_goes_on_the_same(
        spec in any_spec(),
        moves in prop::collection::vec(any_move(), 0..60),
    ) {
        let mut world = begin(&spec);
        let (mut taken, mut strays) = (1, 0);
        for happens in &moves {
            let Some(event) = world.event(happens) else { continue };
            let mut restored = through_bytes(&world.run);
            prop_assert_eq!(&restored, &world.run);
            let same = restored.handle(event.clone());
            // The conversation of a vote is the winner's, once there is one.
            let is_vote = matches!(spec.strategy, Strategy::BestOfN(_));
            let messages = if is_vote { 0 } else { world.run.messages().len() };
            match world.run.handle(event.clone()) {
                Ok(effects) => {
                    taken += 1;
                    prop_assert_eq!(same, Ok(effects.clone()));
                    world.take(effects);
                }
                Err(stray) => {
                    strays += 1;
                    prop_assert_eq!(&*stray.event, &event, "it is handed back as it was");
                    prop_assert_eq!(same, Err(stray));
                }
            }
            prop_assert_eq!(&restored, &world.run);
            prop_assert_eq!((world.run.counts().events, world.run.counts().strays), (taken, strays));
            prop_assert!(world.run.messages().len() >= messages, "nothing said is lost");
            prop_assert!(world.ends <= 1);
            prop_assert_eq!(world.ends == 1, world.run.ended().is_some());
            world.check();
        }
    }

    /// Whatever happens, a run whose effects are answered ends, within its bounds.
    #[test]
    fn a_run_that_is_answered_ends(spec in any_spec(), answers in prop::collection::vec(any::<(Index, u8)>(), 300)) {
        let mut world = begin(&spec);
        for (which, how) in answers {
            if world.run.ended().is_some() {
                break;
            }
            if let Some(event) = world.event(&Move::Answer(which, how)) {
                let effects = world.run.handle(event).unwrap();
                world.take(effects);
                world.check();
            }
            if world.run.paused().is_some() {
                // Settle what is in doubt, and raise whatever bound there was.
                if let Some(Stop::InDoubt { calls }) = world.run.paused().cloned() {
                    for call in calls {
                        world.run.handle(tool_returned(call, "c", "send", 2)).unwrap();
                    }
                }
                world.open.clear();
                world.memory = None;
                let more = More { steps: 3, tool_calls: 8, tool_output_bytes: 1_000 };
                let effects = world.run.handle(Event::Resumed { more }).unwrap();
                world.take(effects);
            }
        }
        prop_assert!(world.run.ended().is_some() || world.run.counts().steps > 40, "{:?}", world.run);
    }

    /// Bytes from outside: an error or a run that takes events, never a panic.
    #[test]
    fn a_damaged_run_never_panics(
        spec in any_spec(),
        moves in prop::collection::vec(any_move(), 0..20),
        damage in prop::collection::vec((any::<Index>(), any::<u8>()), 1..4),
        after in prop::collection::vec(any_move(), 0..10),
    ) {
        let mut world = begin(&spec);
        for happens in &moves {
            if let Some(event) = world.event(happens)
                && let Ok(effects) = world.run.handle(event)
            {
                world.take(effects);
            }
        }
        let mut value = serde_json::to_value(&world.run).unwrap();
        let count = numbers(&mut value, &mut |_| {});
        for (place, byte) in &damage {
            // Counters at their end are where arithmetic breaks.
            let (chosen, mut at) = (place.index(count.max(1)), 0);
            let most = if byte % 2 == 0 { u64::from(u32::MAX) } else { u64::MAX };
            if byte % 3 == 0 {
                numbers(&mut value, &mut |number| {
                    if at == chosen {
                        *number = most.into();
                    }
                    at += 1;
                });
            }
        }
        let mut bytes = serde_json::to_vec(&value).unwrap();
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            // Digits for digits keep it readable more often, and make it wrong in more interesting ways.
            bytes[place] = match bytes[place] {
                digit @ b'0'..=b'9' => b'0' + (digit - b'0' + byte % 10) % 10,
                _ if byte % 4 == 0 => byte,
                same => same,
            };
        }
        let Ok(run) = serde_json::from_slice::<Run>(&bytes) else { return Ok(()) };
        world.run = run;
        for happens in &after {
            if let Some(event) = world.event(happens)
                && let Ok(effects) = world.run.handle(event)
            {
                world.take(effects);
            }
        }
    }
}

/// Shows each number of a value but its format; how many there are.
fn numbers(value: &mut serde_json::Value, show: &mut impl FnMut(&mut serde_json::Value)) -> usize {
    match value {
        serde_json::Value::Number(_) => {
            show(value);
            1
        }
        serde_json::Value::Array(items) => items.iter_mut().map(|item| numbers(item, show)).sum(),
        serde_json::Value::Object(fields) => fields
            .iter_mut()
            .filter(|(name, _)| *name != "format")
            .map(|(_, field)| numbers(field, show))
            .sum(),
        _ => 0,
    }
}

#[test]
fn a_counter_at_its_end_stays_there() {
    let spec = spec(
        Strategy::ToolLoop,
        Form::Text,
        OnLimit::End,
        Limits::default(),
        false,
        Window::all(),
    );
    let world = begin(&spec);
    let value = serde_json::to_value(&world.run).unwrap();
    let mut clone = value.clone();
    let count = numbers(&mut clone, &mut |_| {});
    let mut readable = 0;
    for chosen in 0..count {
        for most in [u64::from(u32::MAX), u64::MAX] {
            let (mut damaged, mut at) = (value.clone(), 0);
            numbers(&mut damaged, &mut |number| {
                if at == chosen {
                    *number = most.into();
                }
                at += 1;
            });
            let Ok(mut run) = serde_json::from_value::<Run>(damaged) else {
                continue;
            };
            readable += 1;
            for event in [
                model_answered(CallId(0), 8),
                model_answered(CallId(most), 8),
                Event::Interrupted {
                    interrupt: Interrupt::immediate("stop"),
                },
                Event::Resumed {
                    more: More {
                        steps: 1,
                        tool_calls: 1,
                        tool_output_bytes: 1,
                    },
                },
            ] {
                let _ = run.handle(event);
            }
        }
    }
    assert!(readable > 20, "{readable}");
}

#[test]
fn a_run_of_another_format_is_refused() {
    let text = serde_json::to_string(&Run::new(RunSpec::default())).unwrap();
    let newer = text.replacen("\"format\":1", "\"format\":2", 1);
    assert_ne!(text, newer);
    let error = serde_json::from_str::<Run>(&newer).unwrap_err().to_string();
    assert!(error.contains("format 2"), "{error}");
}

#[test]
fn a_result_that_comes_after_the_run_was_stopped_is_kept() {
    let spec = spec(
        Strategy::ToolLoop,
        Form::Text,
        OnLimit::End,
        Limits::default(),
        false,
        Window::all(),
    );
    let mut world = begin(&spec);
    let call = *world.open.keys().next().unwrap();
    let effects = world.run.handle(model_answered(call, 8)).unwrap(); // two reads and a send
    world.take(effects);
    let stop = Event::Interrupted {
        interrupt: Interrupt::immediate("stop"),
    };
    let reads: Vec<CallId> = world.run.outstanding();
    assert_eq!(reads.len(), 2);
    world.run.handle(stop).unwrap();
    assert!(world.run.paused().is_some());
    assert!(
        world
            .run
            .handle(tool_returned(reads[0], "c0", "read", 2))
            .unwrap()
            .is_empty()
    );
    let effects = world
        .run
        .handle(Event::Resumed {
            more: More::default(),
        })
        .unwrap();
    let again: Vec<CallId> = effects
        .iter()
        .map(|effect| match effect {
            Effect::CallTool(task) => task.call,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        again,
        [reads[1]],
        "only what gave no result runs again, under the same id"
    );
}

#[test]
fn the_same_events_give_the_same_bytes() {
    let spec = spec(
        Strategy::BestOfN(BestOfN::new(3)),
        Form::Text,
        OnLimit::End,
        Limits::default(),
        false,
        Window::all(),
    );
    let go = || {
        let mut world = begin(&spec);
        for how in [7_u8, 14, 23] {
            let call = *world.open.keys().next().unwrap();
            world.open.remove(&call);
            let effects = world.run.handle(model_answered(call, how)).unwrap();
            world.take(effects);
        }
        serde_json::to_vec(&world.run).unwrap()
    };
    assert_eq!(go(), go());
    let run: Run = serde_json::from_slice(&go()).unwrap();
    assert!(
        matches!(run.ended(), Some(End::Completed { .. })),
        "{:?}",
        run.ended()
    );
}
