//! The program of a framework: `list`, `notes`, `run` and `once`.
//!
//! `run --group rivals/OP/PARAM/NAME` measures one benchmark in this process, against the server whose base URL is in
//! `PEREGRINE_RIVALS_URL`; `once` does its work once, so that it can be seen what is sent.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use peregrine_harness::protocol::{Descriptor, Id, Line, Measured, PROTOCOL};
use peregrine_harness::samples::Recorder;
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::{Builder, Runtime};

use crate::Framework;
use crate::work::{CONCURRENT, QUESTION, TEXT, TOOL_ARGUMENTS, TURNS, add, pieces, tool_text, turn_text};

/// The variable with the base URL of the server.
pub const URL: &str = "PEREGRINE_RIVALS_URL";
/// How many operations of less than a microsecond are timed together.
const BATCH: u64 = 100;
const MAX_SAMPLES: u64 = 100_000;

/// An operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    SingleCall,
    ToolLoop,
    ThreeTurns,
    StreamFirst,
    StreamAll,
    Concurrent,
    Agent,
    AgentWithTool,
}

impl Op {
    /// Names as `op/param` without the latency, and what is done, in words.
    const ALL: [(Self, &'static str, &'static str); 8] = [
        (
            Self::SingleCall,
            "single_call",
            "one question with instructions, one answer",
        ),
        (
            Self::ToolLoop,
            "tool_loop",
            "one question, a call of a tool, its result sent, the answer: two requests",
        ),
        (
            Self::ThreeTurns,
            "three_turns",
            "three questions in a row, the history of which is sent again each time",
        ),
        (
            Self::StreamFirst,
            "stream_first",
            "until the first of 64 pieces of a streamed answer is handed on",
        ),
        (
            Self::StreamAll,
            "stream_all",
            "until the last of 64 pieces of a streamed answer is handed on",
        ),
        (
            Self::Concurrent,
            "concurrent_1000",
            "1,000 agents at the same time on one thread, one call each; from the first until all have their answers",
        ),
        (
            Self::Agent,
            "agent/plain",
            "an agent with instructions from scratch, over a client that there is",
        ),
        (
            Self::AgentWithTool,
            "agent/one_tool",
            "an agent with instructions and a tool from scratch, over a client that there is",
        ),
    ];

    fn calls_the_model(self) -> bool {
        !matches!(self, Self::Agent | Self::AgentWithTool)
    }

    /// The operation of a name, without looking at its latency.
    fn of(id: &Id) -> Option<Self> {
        let [_, op, param, _] = id.parts();
        let found = Self::ALL
            .iter()
            .find(|(_, name, _)| *name == op || *name == format!("{op}/{param}"));
        found.map(|(op, ..)| *op)
    }
}

/// The whole program.
pub fn main<F: Framework>() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = words.iter().position(|word| word == name)?;
        words.get(at + 1).cloned()
    };
    let ms = |name: &str, usual| {
        let ms = value(name).and_then(|text| text.parse().ok()).unwrap_or(usual);
        Duration::from_millis(ms)
    };
    let group = value("--group").and_then(|group| group.parse::<Id>().ok());
    match (words.first().map(String::as_str), group) {
        (Some("list"), _) => list::<F>(),
        (Some("notes"), _) => F::NOTES.iter().for_each(|note| say(note)),
        (Some("run"), Some(id)) => run::<F>(&id, ms("--warmup-ms", 200), ms("--measure-ms", 500)),
        (Some("once"), Some(id)) => once::<F>(&id),
        _ => {
            let usage = "list | notes | run --group ID [--warmup-ms N] [--measure-ms N] | once --group ID\n";
            let _ = std::io::stderr().write_all(usage.as_bytes());
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn say(line: &str) {
    // Whoever asked has gone: there is nobody to tell.
    if writeln!(std::io::stdout(), "{}", line.trim_end()).is_err() {
        std::process::exit(1);
    }
}

fn hello() {
    let hello = Line::Hello {
        protocol: PROTOCOL,
        profile: if cfg!(debug_assertions) { "dev" } else { "release" }.to_owned(),
        features: Vec::new(),
    };
    say(&hello.to_json());
}

fn list<F: Framework>() {
    hello();
    for (op, name, what) in Op::ALL {
        if !op.calls_the_model() && !F::HAS_AGENTS {
            continue;
        }
        let params: &[_] = match op.calls_the_model() {
            true => &[
                ("/0ms", ", over loopback, the model takes 0 ms"),
                ("/50ms", ", over loopback, the model takes 50 ms"),
            ],
            false => &[("", "")],
        };
        for (param, suffix) in params {
            let id = format!("rivals/{name}{param}/{}", F::NAME);
            let descriptor = Descriptor {
                id: id.parse().expect("frameworks have names of small letters"),
                role: F::ROLE,
                workload: format!("{what}{suffix}"),
                counted: false,
                hidden: false,
            };
            say(&Line::Benchmark(descriptor).to_json());
        }
    }
}

/// What one process needs.
struct Bench<F: Framework> {
    op: Op,
    /// What the model takes for a request, and nobody can be faster than.
    latency: Duration,
    runtime: Runtime,
    framework: F,
    agent: F::Agent,
    tool_agent: F::ToolAgent,
    /// For the operation that needs many.
    agents: Vec<F::Agent>,
}

impl<F: Framework> Bench<F> {
    fn new(id: &Id) -> Self {
        let op = Op::of(id).unwrap_or_else(|| panic!("there is no {id}"));
        if op != Op::Concurrent {
            // Where this is not possible times are more restless, and still times.
            let mut one = rustix::thread::CpuSet::new();
            one.set(0);
            let _ = rustix::thread::sched_setaffinity(None, &one);
        }
        let url = std::env::var(URL).unwrap_or_else(|_| panic!("{URL} is not set"));
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("the system has what a runtime needs");
        // Within the runtime, because a client may look for one.
        let (framework, agent, tool_agent, agents) = runtime.block_on(async {
            let framework = F::connect(&url);
            let (agent, tool_agent) = (framework.agent().await, framework.agent_with_tool().await);
            let mut agents = Vec::new();
            if op == Op::Concurrent {
                for _ in 0..CONCURRENT {
                    agents.push(framework.agent().await);
                }
            }
            (framework, agent, tool_agent, agents)
        });
        let latency_ms = id.parts()[2]
            .strip_suffix("ms")
            .and_then(|text| text.parse().ok());
        Self {
            op,
            latency: Duration::from_millis(latency_ms.unwrap_or(0)),
            runtime,
            framework,
            agent,
            tool_agent,
            agents,
        }
    }

    /// Does it, checks it, and says how long it took and how many operations it was.
    fn sample(&self) -> (Duration, u64) {
        let (elapsed, operations) = self.work();
        let in_a_row = match self.op {
            Op::ToolLoop => 2,
            Op::ThreeTurns => 3,
            _ => 1,
        };
        assert!(
            elapsed >= self.latency * in_a_row,
            "the model took less than it should"
        );
        (elapsed, operations)
    }

    fn work(&self) -> (Duration, u64) {
        self.runtime.block_on(async {
            let Self { framework, agent, .. } = self;
            let mut first = None;
            let begun = Instant::now();
            let answer = match self.op {
                Op::SingleCall => framework.ask(agent, QUESTION).await,
                Op::ToolLoop => framework.use_tool(&self.tool_agent, QUESTION).await,
                Op::ThreeTurns => framework.converse(agent, &TURNS).await,
                Op::StreamFirst | Op::StreamAll => {
                    let mut at_first = || {
                        first.get_or_insert_with(Instant::now);
                    };
                    framework.stream(agent, QUESTION, &mut at_first).await
                }
                Op::Concurrent => return self.together().await,
                Op::Agent => {
                    for _ in 0..BATCH {
                        black_box(framework.agent().await);
                    }
                    return (begun.elapsed(), BATCH);
                }
                Op::AgentWithTool => {
                    for _ in 0..BATCH {
                        black_box(framework.agent_with_tool().await);
                    }
                    return (begun.elapsed(), BATCH);
                }
            };
            let elapsed = match self.op {
                Op::StreamFirst => first.expect("there was a first piece").duration_since(begun),
                _ => begun.elapsed(),
            };
            self.check(&answer);
            (elapsed, 1)
        })
    }

    async fn together(&self) -> (Duration, u64) {
        let begun = Instant::now();
        let calls = self
            .agents
            .iter()
            .map(|agent| self.framework.ask(agent, QUESTION));
        let answers = join_all(calls).await;
        let elapsed = begun.elapsed();
        assert_eq!(answers.len(), CONCURRENT);
        answers.iter().for_each(|answer| assert_eq!(answer, TEXT));
        (elapsed, 1)
    }

    fn check(&self, answer: &str) {
        let (a, b) = TOOL_ARGUMENTS;
        let expected = match self.op {
            // Instructions, the question, the call, its result.
            Op::ToolLoop => tool_text(&add(a, b).to_string(), 4),
            // Instructions, three questions, two answers.
            Op::ThreeTurns => turn_text(3, 6),
            Op::StreamFirst | Op::StreamAll => pieces(),
            _ => TEXT.to_owned(),
        };
        assert_eq!(answer, expected, "{}: another answer was expected", F::NAME);
    }

    /// Agents that are only made are asked once too, so that nothing is measured that does not work. The server needs no
    /// tool for that.
    fn check_agents(&self) {
        if self.op.calls_the_model() {
            return;
        }
        let answer = self.runtime.block_on(async {
            match self.op {
                Op::AgentWithTool => self.framework.use_tool(&self.tool_agent, QUESTION).await,
                _ => self.framework.ask(&self.agent, QUESTION).await,
            }
        });
        assert_eq!(answer, TEXT);
    }

    /// How many requests a sample makes.
    fn requests(&self) -> u64 {
        match self.op {
            Op::ToolLoop => 2,
            Op::ThreeTurns => 3,
            Op::Concurrent => CONCURRENT as u64,
            Op::SingleCall | Op::StreamFirst | Op::StreamAll => 1,
            Op::Agent | Op::AgentWithTool => 0,
        }
    }
}

fn once<F: Framework>(id: &Id) {
    let bench = Bench::<F>::new(id);
    bench.sample();
    bench.check_agents();
}

fn run<F: Framework>(id: &Id, warmup: Duration, measure: Duration) {
    hello();
    let bench = Bench::<F>::new(id);
    bench.check_agents();
    let before_mb = status_mb("VmRSS:");
    let (begun, mut warmed) = (Instant::now(), 0);
    while warmed == 0 || begun.elapsed() < warmup {
        warmed += bench.sample().1;
    }
    say(&Line::Ready.to_json());
    let (mut recorder, mut together) = (Recorder::new(), Duration::ZERO);
    let (mut iterations, mut samples, mut cpu) = (0, 0, Duration::ZERO);
    let begun = Instant::now();
    while samples < 3 || (begun.elapsed() < measure && samples < MAX_SAMPLES) {
        let before = processor_time();
        let (elapsed, operations) = bench.sample();
        cpu += processor_time().saturating_sub(before);
        recorder.push(elapsed, operations);
        together += elapsed;
        iterations += operations;
        samples += 1;
    }
    let mut figures = BTreeMap::new();
    if bench.requests() > 0 {
        let requests = (bench.requests() * iterations) as f64;
        figures.insert(CPU.to_owned(), cpu.as_secs_f64() * 1e6 / requests);
    }
    for (name, mb) in [(BEFORE, before_mb), (PEAK, status_mb("VmHWM:"))] {
        figures.extend(mb.map(|mb| (name.to_owned(), mb)));
    }
    let throughput =
        (bench.op == Op::Concurrent).then(|| (bench.requests() * iterations) as f64 / together.as_secs_f64());
    say(&Line::Measured(Measured {
        id: id.clone(),
        iterations,
        warmup_iterations: warmed,
        batch: if bench.op.calls_the_model() { 1 } else { BATCH },
        round: recorder.finish(),
        throughput,
        cpu_ns: u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX),
        figures,
    })
    .to_json());
}

/// The figure with the processor time of all threads.
const CPU: &str = "CPU of a request, us";
/// The figure with the memory before the first operation that counts, all agents made.
const BEFORE: &str = "resident before, MB";
/// The figure with the most memory that ever was resident.
const PEAK: &str = "resident peak, MB";

/// What this process used, on all its threads.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// A figure of `/proc/self/status`, where there is one.
fn status_mb(name: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1_024.0 / 1e6)
}
