//! Many agents at the same time: how long each of them takes, and how many calls a second all of them make.
//!
//! One thread runs them all, so what is measured is what an agent costs, not how many cores there are; the server has the
//! other core. All begin together and make one call each.

use std::rc::Rc;
use std::time::Instant;

use futures_util::future::join_all;
use peregrine_agent::Agent;

use super::connect;
use crate::bench::{Group, Work, floor, ours, runtime};
use crate::crowd;
use crate::hand::Hand;
use crate::serve::{QUESTION, SYSTEM, Script, Server, TEXT};

pub(super) fn groups() -> Vec<Group> {
    let mut groups = Vec::new();
    for (latency_ms, agents) in [
        (0, 1),
        (0, 10),
        (0, 100),
        (0, 1_000),
        (50, 1),
        (50, 100),
        (50, 1_000),
    ] {
        groups.push(group(agents, latency_ms).unpinned());
    }
    groups.push(process().unpinned());
    groups
}

fn process() -> Group {
    const AGENTS: usize = 1_000;
    Group::new(
        "concurrency/process/1000_agents",
        "1,000 agents at the same time in a process of their own, connected, one call each over loopback, the model takes 50 ms; \
         what the processor takes for a call, in user space and in the kernel",
        &[ours("peregrine"), floor("reqwest")],
        || {
            let server = Rc::new(Server::start(Script::Text, 50));
            ["peregrine", "reqwest"]
                .into_iter()
                .map(|who| -> Work {
                    let server = Rc::clone(&server);
                    Box::new(move |meter| {
                        for _ in 0..meter.operations().div_ceil(AGENTS as u64) {
                            let used = crowd::run(who, &server.url(), AGENTS);
                            meter.took(used.call * used.calls as u32, used.calls);
                            if let Some(bytes) = used.peak_bytes {
                                meter.figure("resident peak of the process, MB:", bytes as f64 / 1e6);
                            }
                        }
                    })
                })
                .collect()
        },
    )
}

fn group(agents: usize, latency_ms: u64) -> Group {
    Group::new(
        format!("concurrency/{agents}_agents/{latency_ms}ms"),
        format!(
            "{agents} agents at the same time on one thread, one call each over loopback, the model takes {latency_ms} ms; time of \
             one of them"
        ),
        &[ours("peregrine"), floor("reqwest")],
        move || {
            let server = Rc::new(Server::start(Script::Text, latency_ms));
            let all = vec![Agent::new(connect(&server.url())).with_instructions(SYSTEM); agents];
            let hands = vec![Hand::new(&server.url()); agents];
            vec![
                together(&server, all, async |agent: &Agent| {
                    agent.run(QUESTION).await.unwrap().text()
                }),
                together(&server, hands, async |hand: &Hand| {
                    hand.ask(SYSTEM, QUESTION).await
                }),
            ]
        },
    )
}

/// Each operation is one call of one of them, with all the others under way.
fn together<T: 'static>(server: &Rc<Server>, all: Vec<T>, ask: impl AsyncFn(&T) -> String + 'static) -> Work {
    let (runtime, server) = (runtime(), Rc::clone(server));
    Box::new(move |meter| {
        for _ in 0..meter.operations() {
            let (times, elapsed) = runtime.block_on(async {
                let begun = Instant::now();
                let calls = all.iter().map(async |one| {
                    let begun = Instant::now();
                    let text = ask(one).await;
                    (begun.elapsed(), text)
                });
                let ended = join_all(calls).await;
                let elapsed = begun.elapsed();
                assert!(ended.iter().all(|(_, text)| text == TEXT));
                (
                    ended.into_iter().map(|(time, _)| time).collect::<Vec<_>>(),
                    elapsed,
                )
            });
            meter.took_together(elapsed, times.len() as u64);
            times.into_iter().for_each(|time| meter.took(time, 1));
        }
        assert!(!server.url().is_empty());
    })
}
