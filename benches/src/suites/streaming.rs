//! Streams over loopback: until the first piece of text, and until the last.

use std::rc::Rc;
use std::time::Instant;

use peregrine_agent::{Agent, RunEvent};

use super::connect;
use crate::bench::{Group, Meter, Work, floor, ours, runtime};
use crate::hand::Hand;
use crate::serve::{PIECES, QUESTION, SYSTEM, Script, Server, piece};

pub(super) fn groups() -> Vec<Group> {
    let mut groups = Vec::new();
    for latency_ms in [0, 50] {
        groups.push(group("first_token", latency_ms, Until::First));
        groups.push(group("whole", latency_ms, Until::Last));
    }
    groups
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Until {
    First,
    Last,
}

fn group(op: &str, latency_ms: u64, until: Until) -> Group {
    let what = match until {
        Until::First => "until the first of 64 pieces of a streamed answer is handed on",
        Until::Last => "until the last of 64 pieces of a streamed answer is handed on",
    };
    Group::new(
        format!("streaming/{op}/{latency_ms}ms"),
        format!("{what}, over loopback, the model takes {latency_ms} ms to begin"),
        &[ours("peregrine"), floor("reqwest")],
        move || {
            let server = Rc::new(Server::start(Script::Stream, latency_ms));
            vec![of_agent(&server, until), by_hand(&server, until)]
        },
    )
}

fn text() -> String {
    (0..PIECES).map(piece).collect()
}

fn took(meter: &mut Meter, until: Until, begun: Instant, first: Option<Instant>) {
    let end = match until {
        Until::First => first.expect("there was a piece"),
        Until::Last => Instant::now(),
    };
    meter.took(end.duration_since(begun), 1);
}

fn of_agent(server: &Rc<Server>, until: Until) -> Work {
    let (runtime, server) = (runtime(), Rc::clone(server));
    let agent = Agent::new(connect(&server.url())).with_instructions(SYSTEM);
    Box::new(move |meter| {
        for _ in 0..meter.operations() {
            runtime.block_on(async {
                let begun = Instant::now();
                let (mut first, mut all) = (None, String::new());
                let mut events = agent.run_stream(QUESTION);
                while let Some(event) = events.next().await {
                    if let RunEvent::Text { text, .. } = event.unwrap() {
                        first.get_or_insert_with(Instant::now);
                        all += &text;
                    }
                }
                took(meter, until, begun, first);
                assert_eq!(all, text());
            });
        }
        assert!(!server.url().is_empty());
    })
}

fn by_hand(server: &Rc<Server>, until: Until) -> Work {
    let (runtime, server) = (runtime(), Rc::clone(server));
    let hand = Hand::new(&server.url());
    Box::new(move |meter| {
        for _ in 0..meter.operations() {
            runtime.block_on(async {
                let begun = Instant::now();
                let mut first = None;
                let all = hand
                    .stream(SYSTEM, QUESTION, || first = Some(Instant::now()))
                    .await;
                took(meter, until, begun, first);
                assert_eq!(all, text());
            });
        }
        assert!(!server.url().is_empty());
    })
}
