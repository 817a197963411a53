//! History windows: their rules as properties, against a naive model, and what a cut costs.

use peregrine_agent::{Cut, View, Window, WindowState, WindowTooSmall, tokens};
use peregrine_core::{Message, Messages, Part, Role, ToolCall, ToolResult};
use proptest::prelude::*;

fn call(id: usize) -> ToolCall {
    ToolCall::new(format!("call-{id}"), "search", "{}")
}

/// An assistant message with so many calls, and their results.
fn step(calls: usize, text: &str) -> Vec<Message> {
    let parts = (0..calls).map(|id| Part::ToolCall(call(id))).collect();
    let results = (0..calls).map(|id| Message::tool(ToolResult::new(&call(id), text)));
    std::iter::once(Message::new(Role::Assistant, parts))
        .chain(results)
        .collect()
}

fn is_result(message: &Message) -> bool {
    message.role == Role::Tool
        || message
            .parts
            .iter()
            .any(|part| matches!(part, Part::ToolResult(_)))
}

fn is_user(message: &Message) -> bool {
    message.role == Role::User && !is_result(message)
}

/// Mostly conversations as they are, with everything that is out of order now and then.
fn conversations() -> impl Strategy<Value = Vec<Message>> {
    let text = || (0_usize..60).prop_map(|length| "x".repeat(length));
    let piece = prop_oneof![
        4 => text().prop_map(|text| vec![Message::user(text)]),
        4 => text().prop_map(|text| vec![Message::assistant(text)]),
        4 => (1_usize..4, text()).prop_map(|(calls, text)| step(calls, &text)),
        1 => text().prop_map(|text| vec![Message::system(text)]),
        1 => text().prop_map(|text| vec![Message::tool(ToolResult::new(&call(9), text))]),
        1 => text().prop_map(|text| {
            vec![Message::user("and").with_part(Part::ToolResult(ToolResult::new(&call(9), text)))]
        }),
    ];
    (0_usize..3, prop::collection::vec(piece, 0..30)).prop_map(|(systems, pieces)| {
        let systems = (0..systems).map(|_| Message::system("be brief"));
        // Each message is recognisable by its place.
        let mut messages: Vec<_> = systems.chain(pieces.into_iter().flatten()).collect();
        for (place, message) in messages.iter_mut().enumerate() {
            if let Some(Part::Text(part)) = message.parts.first_mut() {
                part.text.insert_str(0, &format!("{place} "));
            }
        }
        messages
    })
}

fn windows() -> impl Strategy<Value = Window> {
    prop_oneof![
        1 => Just(Window::all()),
        3 => (0_u32..5, 0_u32..4).prop_map(|(turns, slack)| Window::last_turns(turns).with_slack(slack)),
        4 => (0_u64..250).prop_map(Window::tokens),
        2 => (0_u64..250, 0_u64..300).prop_map(|(budget, keep)| Window::tokens(budget).with_keep(keep)),
    ]
}

/// What is kept, as places, by adding up everything anew each time.
#[derive(Debug, Clone, Default)]
struct Model {
    body: Vec<usize>,
    seen: usize,
}

impl Model {
    fn apply(&mut self, window: &Window, messages: &[Message]) -> Result<(Vec<usize>, usize), u64> {
        let head = messages
            .iter()
            .take_while(|message| message.role == Role::System)
            .count();
        self.body
            .extend((self.seen..messages.len()).filter(|place| *place >= head));
        self.seen = messages.len();
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for place in self.body.iter().copied() {
            match groups.last_mut() {
                Some(group) if is_result(&messages[place]) && group.last() == Some(&(place - 1)) => {
                    group.push(place)
                }
                _ => groups.push(vec![place]),
            }
        }
        let starts: Vec<usize> = (0..groups.len())
            .filter(|group| is_user(&messages[groups[*group][0]]))
            .collect();
        let sum = |groups: &[Vec<usize>]| {
            (0..head)
                .chain(groups.iter().flatten().copied())
                .map(|place| tokens::estimate(&messages[place]))
                .sum::<u64>()
        };
        let before = self.body.len();
        match *window {
            Window::LastTurns { turns, slack } => {
                let turns = turns.max(1) as usize;
                if starts.len() > turns + slack as usize {
                    groups.drain(..starts[starts.len() - turns]);
                }
            }
            Window::Tokens { budget, keep } if sum(&groups) > budget => {
                let keep = keep.min(budget);
                // Whole turns, and then groups behind the user's.
                while sum(&groups) > keep {
                    let starts: Vec<usize> = (0..groups.len())
                        .filter(|g| is_user(&messages[groups[*g][0]]))
                        .collect();
                    let has_user = !starts.is_empty();
                    match starts.iter().find(|start| **start > 0) {
                        Some(start) => drop(groups.drain(..*start)),
                        None if groups.len() > 1 + usize::from(has_user) => {
                            groups.remove(usize::from(has_user));
                        }
                        None => break,
                    }
                }
                if sum(&groups) > budget {
                    return Err(sum(&groups));
                }
            }
            _ => {}
        }
        self.body = groups.into_iter().flatten().collect();
        let shown = (0..head).chain(self.body.iter().copied()).collect();
        Ok((shown, before - self.body.len()))
    }
}

/// `whole`: the window was the same from the beginning, so nothing else can have cut more than it does.
fn check_view(window: &Window, messages: &[Message], shown: &[usize], view: &View, whole: bool) {
    let listed: Vec<&Message> = view.messages.iter().collect();
    let expected: Vec<&Message> = shown.iter().map(|place| &messages[*place]).collect();
    assert_eq!(listed, expected);
    // The rules once more, without the model's way of getting there.
    for (place, message) in messages.iter().enumerate().skip(1) {
        let joined = is_result(message) && messages[place - 1].role != Role::System;
        if joined && shown.contains(&place) {
            assert!(shown.contains(&(place - 1)), "cut between a call and its result");
        }
        if joined && shown.contains(&(place - 1)) {
            assert!(shown.contains(&place), "a result is missing");
        }
    }
    let head = messages
        .iter()
        .take_while(|message| message.role == Role::System)
        .count();
    assert!(
        (0..head).all(|place| shown.contains(&place)),
        "instructions are missing"
    );
    if let Some(user) = messages.iter().rposition(is_user) {
        assert!(shown.contains(&user), "the current question is missing");
    }
    assert!(
        messages.is_empty() || shown.contains(&(messages.len() - 1)),
        "the newest message is missing"
    );
    match *window {
        Window::LastTurns { turns, slack } => {
            let all = messages.iter().filter(|message| is_user(message)).count();
            let there = listed.iter().filter(|message| is_user(message)).count();
            let turns = turns.max(1) as usize;
            assert!(there <= turns + slack as usize && (!whole || there >= turns.min(all)));
            if slack == 0 && whole {
                assert_eq!(there, turns.min(all));
            }
        }
        Window::Tokens { budget, .. } => {
            assert!(
                listed
                    .iter()
                    .map(|message| tokens::estimate(message))
                    .sum::<u64>()
                    <= budget
            );
        }
        _ => assert_eq!(listed.len(), messages.len()),
    }
}

proptest! {
    #[test]
    fn views_agree_with_the_model_and_survive_serialisation(
        all in conversations(),
        window in windows(),
        steps in prop::collection::vec((1_usize..6, any::<bool>()), 40),
    ) {
        let (mut state, mut model, mut messages) = (WindowState::new(), Model::default(), Messages::new());
        let mut before: Option<View> = None;
        let mut at = 0;
        for (step, restore) in steps {
            let new = &all[at.min(all.len())..(at + step).min(all.len())];
            at += step;
            messages.extend(new.iter().cloned());
            let so_far = &all[..messages.len()];
            let restored = restore.then(|| {
                let text = serde_json::to_string(&state).unwrap();
                serde_json::from_str::<WindowState>(&text).unwrap()
            });
            let result = state.apply(&window, &messages);
            if let Some(mut restored) = restored {
                prop_assert_eq!(&restored.apply(&window, &messages), &result, "after serialisation");
                prop_assert_eq!(&restored, &state);
                state = restored;
            }
            match (result, model.apply(&window, so_far)) {
                (Ok(view), Ok((shown, dropped))) => {
                    check_view(&window, so_far, &shown, &view, true);
                    prop_assert_eq!(view.cut.map_or(0, |cut| cut.dropped), dropped);
                    if let (Some(before), None) = (&before, view.cut) {
                        let count = before.messages.len();
                        prop_assert!(before.messages.iter().eq(view.messages.iter().take(count)), "not a prefix");
                    }
                    if let Some(Cut { from, to, dropped }) = view.cut {
                        prop_assert!(from < to && to <= messages.len() && dropped <= to - from);
                    }
                    before = Some(view);
                }
                (Err(WindowTooSmall { needed, budget }), Err(sum)) => {
                    prop_assert_eq!(needed, sum);
                    prop_assert!(needed > budget);
                }
                (ours, theirs) => prop_assert!(false, "{:?} instead of {:?}", ours, theirs),
            }
        }
    }

    #[test]
    fn no_state_and_no_change_of_window_panics_or_tears_a_group(
        all in conversations(),
        state in (prop::option::of((0_usize..40, prop::option::of(0_usize..40))), 0_usize..50, any::<bool>()),
        steps in prop::collection::vec((windows(), 0_usize..40), 1..8),
    ) {
        let (kept, seen, replaced) = state;
        // Mostly of a conversation that is as long as it says.
        let seen = if seen < 40 { seen.min(steps[0].1).min(all.len()) } else { seen };
        let mut json = serde_json::json!({"seen": seen, "replaced": replaced});
        if let Some((from, user)) = kept {
            json["kept"] = serde_json::json!({"from": from, "user": user});
        }
        let mut state: WindowState = serde_json::from_value(json).unwrap();
        let full: Messages = all.iter().cloned().collect();
        for (window, length) in steps {
            let mut messages = full.clone();
            messages.truncate(length);
            let Ok(view) = state.apply(&window, &messages) else { continue };
            let mut rest = 0;
            let mut shown = Vec::new();
            for message in view.messages.iter() {
                // Each is found behind the one before: the view is a part of the conversation, in its order.
                let place = (rest..messages.len()).find(|at| std::ptr::eq(messages.get(*at).unwrap(), message));
                prop_assert!(place.is_some());
                rest = place.unwrap() + 1;
                shown.push(place.unwrap());
            }
            check_view(&window, &all[..messages.len()], &shown, &view, false);
        }
    }
}

fn turns(count: usize) -> Messages {
    let turn = |n: usize| {
        [
            Message::user(format!("question {n}")),
            Message::assistant(format!("answer {n}")),
        ]
    };
    std::iter::once(Message::system("be brief"))
        .chain((0..count).flat_map(turn))
        .collect()
}

fn texts(view: &View) -> Vec<String> {
    view.messages.iter().map(Message::text).collect()
}

#[test]
fn the_newest_turns_are_the_newest() {
    let mut state = WindowState::new();
    let view = state.apply(&Window::last_turns(2), &turns(5)).unwrap();
    assert_eq!(
        texts(&view),
        ["be brief", "question 3", "answer 3", "question 4", "answer 4"]
    );
    assert_eq!(
        view.cut,
        Some(Cut {
            from: 1,
            to: 7,
            dropped: 6
        })
    );
}

#[test]
fn slack_lets_turns_pass_between_cuts() {
    let window = Window::last_turns(3).with_slack(2);
    let mut state = WindowState::new();
    let cuts: Vec<usize> = (1..=12)
        .filter(|count| state.apply(&window, &turns(*count)).unwrap().cut.is_some())
        .collect();
    assert_eq!(cuts, [6, 9, 12]);
}

#[test]
fn a_long_tool_loop_keeps_its_question_and_its_newest_step() {
    let mut messages = turns(2);
    messages.push(Message::user("the question"));
    let mut state = WindowState::new();
    let window = Window::tokens(120).with_keep(80);
    let mut views = Vec::new();
    for n in 0..12 {
        messages.extend(step(1, &format!("result {n} {}", "x".repeat(30))));
        views.push(state.apply(&window, &messages).unwrap());
    }
    let last = texts(views.last().unwrap());
    assert_eq!(last[..2], ["be brief", "the question"]);
    let results: Vec<_> = views
        .last()
        .unwrap()
        .messages
        .iter()
        .filter(|message| message.role == Role::Tool)
        .collect();
    let Part::ToolResult(newest) = &results.last().unwrap().parts[0] else {
        panic!()
    };
    assert!(newest.text().starts_with("result 11"));
    let cuts: Vec<_> = views.iter().filter_map(|view| view.cut).collect();
    assert!(cuts.len() >= 2, "{cuts:?}");
    assert_eq!(cuts[0].from, 1, "whole turns go first");
    assert!(cuts[1].from > 5, "then steps of the current turn: {cuts:?}");

    // The next question: the turn that was cut in its middle goes as a whole.
    messages.push(Message::user("y".repeat(300)));
    let view = state.apply(&window, &messages).unwrap();
    assert_eq!(view.messages.len(), 2);
}

#[test]
fn what_cannot_fit_is_an_error_and_a_larger_window_goes_on() {
    let mut messages = turns(3);
    let mut state = WindowState::new();
    state.apply(&Window::tokens(40), &messages).unwrap();
    messages.push(Message::user("z".repeat(400)));
    let error = state.apply(&Window::tokens(40), &messages).unwrap_err();
    assert_eq!((error.needed, error.budget), (110, 40));
    assert!(error.to_string().contains("raise the window's budget"), "{error}");
    let before = serde_json::to_string(&state).unwrap();
    assert_eq!(state.apply(&Window::tokens(40), &messages).unwrap_err(), error);
    assert_eq!(serde_json::to_string(&state).unwrap(), before);
    let view = state.apply(&Window::tokens(200), &messages).unwrap();
    assert_eq!(view.cut, None);
    assert_eq!(view.messages.last(), messages.last());
}

#[test]
fn all_and_uncut_views_are_the_conversation_itself() {
    let messages = turns(3);
    let bytes = bytes::Bytes::from_static(b"encoded");
    for window in [Window::all(), Window::last_turns(3), Window::tokens(10_000)] {
        let view = WindowState::new().apply(&window, &messages).unwrap();
        view.messages.remember_prefix(7, 2, bytes.clone());
        assert!(messages.encoded_prefix(7).is_some(), "one list, one memo");
        messages.remember_prefix(7, 0, bytes::Bytes::new());
    }
}

#[test]
fn between_cuts_the_encoded_prefix_stays_and_nothing_is_copied() {
    let mut state = WindowState::new();
    let window = Window::last_turns(2).with_slack(3);
    let mut messages = turns(6);
    let view = state.apply(&window, &messages).unwrap();
    assert!(view.cut.is_some());
    view.messages
        .remember_prefix(7, 3, bytes::Bytes::from_static(b"abc"));
    let first: *const Message = view.messages.get(1).unwrap();
    assert!(
        std::ptr::eq(first, messages.get(9).unwrap()),
        "messages are shared, not copied"
    );
    drop(view);
    for _ in 0..3 {
        messages.push(Message::user("more"));
        let view = state.apply(&window, &messages).unwrap();
        assert_eq!(view.cut, None);
        assert_eq!(view.messages.encoded_prefix(7).map(|(count, _)| count), Some(3));
    }
    messages.push(Message::user("one too many"));
    let view = state.apply(&window, &messages).unwrap();
    assert_eq!(
        (view.cut.is_some(), view.messages.encoded_prefix(7)),
        (true, None)
    );
}

#[test]
fn another_conversation_is_looked_at_anew_and_said() {
    let window = Window::last_turns(1);
    let mut state = WindowState::new();
    state.apply(&window, &turns(5)).unwrap();
    let shorter = state.apply(&window, &turns(1)).unwrap();
    assert_eq!(texts(&shorter), ["be brief", "question 0", "answer 0"]);
    assert_eq!(shorter.cut.map(|cut| cut.dropped), Some(0));
    let mut other = turns(1);
    other.truncate(2);
    other.extend([Message::assistant("another answer"), Message::user("next")]);
    let view = state.apply(&window, &other).unwrap();
    assert_eq!(texts(&view), ["be brief", "next"]);
    // Longer than the last one, but not its continuation: nothing of that may be shown.
    let mut longer = turns(6);
    longer.push(Message::user("now"));
    let view = state.apply(&Window::last_turns(10), &longer).unwrap();
    assert_eq!(view.messages, longer);
    assert!(view.cut.is_some());
    assert_eq!(state.apply(&Window::all(), &longer).unwrap().cut, None);
    state.apply(&window, &longer).unwrap();
    let all = state.apply(&Window::all(), &longer).unwrap();
    assert_eq!((all.messages, all.cut.map(|cut| cut.dropped)), (longer, Some(0)));
}

#[test]
fn a_state_that_fits_no_cut_of_the_conversation_is_not_believed() {
    // 0 system, 1 user, 2 assistant, 3 user, 4 assistant with call, 5 its result, 6 assistant
    let mut messages = turns(1);
    messages.push(Message::user("second"));
    messages.extend(step(1, "found"));
    messages.push(Message::assistant("done"));
    let kept = |kept: &str| {
        let text = format!(r#"{{"seen":7,"kept":{kept}}}"#);
        let mut state: WindowState = serde_json::from_str(&text).unwrap();
        let view = state.apply(&Window::last_turns(9), &messages).unwrap();
        (view.messages.len(), view.cut.is_some())
    };
    for sound in [
        r#"{"from":3}"#,
        r#"{"from":4,"user":3}"#,
        r#"{"from":6,"user":3}"#,
    ] {
        assert!(kept(sound).0 < 7 && !kept(sound).1, "{sound}");
    }
    for unsound in [
        r#"{"from":0}"#,
        r#"{"from":1}"#,
        r#"{"from":7}"#,
        r#"{"from":99}"#,
        r#"{"from":4}"#,
        r#"{"from":5}"#,
        r#"{"from":5,"user":3}"#,
        r#"{"from":6,"user":1}"#,
        r#"{"from":3,"user":1}"#,
        r#"{"from":6,"user":0}"#,
        r#"{"from":6,"user":2}"#,
        r#"{"from":3,"user":6}"#,
    ] {
        assert_eq!(kept(unsound), (7, true), "{unsound}");
    }
}

#[test]
fn windows_are_data() {
    for (window, text) in [
        (Window::all(), r#""all""#),
        (Window::last_turns(3), r#"{"last_turns":{"turns":3,"slack":0}}"#),
        (Window::tokens(100), r#"{"tokens":{"budget":100,"keep":75}}"#),
        (
            Window::tokens(u64::MAX).with_keep(5),
            r#"{"tokens":{"budget":18446744073709551615,"keep":5}}"#,
        ),
    ] {
        assert_eq!(serde_json::to_string(&window).unwrap(), text);
        assert_eq!(serde_json::from_str::<Window>(text).unwrap(), window);
    }
    assert!(serde_json::from_str::<Window>(r#"{"last_turns":{"turns":3,"slak":1}}"#).is_err());
    assert_eq!(
        serde_json::to_string(&WindowState::new()).unwrap(),
        r#"{"seen":0}"#
    );
}
