//! A hundred agents at once, agents inside of tools inside of agents, each with a model's stream open over loopback and a
//! group of child processes; and what of them is left after an interrupt, counted through /proc and by the runtime.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use peregrine_agent::{Agent, BestOfN, Error, Input, RunError, Strategy, ToolScope as _};
use peregrine_core::{Effect, JsonSchema, ModelHandle, Secret, ToolSpec};
use peregrine_interrupts::process::ProcessGroup;
use peregrine_interrupts::{Mode, Scope, TokioTimer};
use peregrine_providers::Connector;
use peregrine_testkit::server::{At, Fault, LlmServer, Reply};
use peregrine_tools::{FnTool, Tool, ToolContext, ToolError, ToolInfo};
use tokio::process::Command;
use tokio::task::JoinSet;

/// Beyond this something hangs. How fast it is, is measured.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long it took until something was gone, from the interrupt on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gone {
    /// `interrupt` returned: everyone is told, every group is killed.
    pub(crate) told: Duration,
    /// The runs have ended, with their reports.
    pub(crate) runs: Duration,
    /// The server has seen every stream close.
    pub(crate) streams: Duration,
    /// No process is left, not even a dead one of ours.
    pub(crate) processes: Duration,
    /// Nothing at all is left: tasks and descriptors, too.
    pub(crate) all: Duration,
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            told,
            runs,
            streams,
            processes,
            all,
        } = self;
        write!(
            f,
            "told {told:?}, runs {runs:?}, streams {streams:?}, processes {processes:?}, all {all:?}"
        )
    }
}

/// What there is in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Census {
    descriptors: usize,
    threads: usize,
    tasks: usize,
    children: usize,
}

impl Census {
    fn now() -> Self {
        Self {
            descriptors: count("/proc/self/fd"),
            threads: count("/proc/self/task"),
            tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
            children: children(),
        }
    }

    fn is_within(&self, before: &Self) -> bool {
        self.descriptors <= before.descriptors
            && self.tasks <= before.tasks
            && self.children <= before.children
            && self.threads <= before.threads
    }
}

fn count(directory: &str) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

/// Our children, living and dead: the fields of `/proc/PID/stat` after the name are state and parent.
fn children() -> usize {
    let ours = std::process::id().to_string();
    processes(|fields| fields.get(1) == Some(&ours.as_str()))
}

/// The living of these groups. The dead among them whose parent was a shell are not ours to reap.
fn of_groups(groups: &BTreeSet<u32>) -> usize {
    processes(|fields| {
        let group = fields.get(2).and_then(|group| group.parse().ok());
        !matches!(fields.first(), Some(&("Z" | "X"))) && group.is_some_and(|group| groups.contains(&group))
    })
}

fn processes(is_meant: impl Fn(&[&str]) -> bool) -> usize {
    let all = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    all.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok())
        .filter(|stat| {
            let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
            is_meant(&fields)
        })
        .count()
}

/// The groups that were started.
type Groups = Arc<Mutex<BTreeSet<u32>>>;

/// An agent of two threads: one keeps a stream open, the other calls a tool, which starts processes and the next agent.
fn agent(model: &ModelHandle, name: &str, depth: usize, groups: &Groups) -> Agent {
    let below = (depth > 1).then(|| agent(model, &format!("{name}.{depth}"), depth - 1, groups));
    Agent::new(model.clone())
        .with_instructions(format!("You are <{name}>."))
        .with_strategy(Strategy::BestOfN(BestOfN::new(2)))
        .with_tool(delegate(below, Arc::clone(groups)))
        .with_allowed("delegate")
}

fn delegate(below: Option<Agent>, groups: Groups) -> impl Tool {
    let spec = ToolSpec::new("delegate", "Delegates.", JsonSchema::empty_object());
    let info = ToolInfo::new(spec).with_effect(Effect::Idempotent);
    FnTool::raw(info, move |context: ToolContext, _| {
        let (below, groups) = (below.clone(), Arc::clone(&groups));
        async move {
            let scope = context
                .interrupts()
                .ok_or_else(|| ToolError::fatal("there is no scope"))?;
            let mut command = Command::new("sh");
            command.args(["-c", "sleep 1000 & wait"]).stdin(Stdio::null());
            let mut group = ProcessGroup::spawn(scope, command).map_err(ToolError::fatal)?;
            groups.lock().unwrap().extend(group.id());
            if let Some(below) = below {
                let run = below.run_stream(Input::from("Go on.").within(&context));
                run.collect().await?;
            }
            // An interrupt is the only way in which the processes end.
            group.wait().await.map_err(|_| ToolError::Cancelled)?;
            Ok::<_, ToolError>("done")
        }
    })
}

/// Tells each agent to call its tool, the first time it asks, and begins an answer without an end the second time.
fn script(server: &LlmServer) {
    let asked = Mutex::new(BTreeMap::<String, u32>::new());
    server.set_responder(move |request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let name = body.split('<').nth(1).and_then(|rest| rest.split('>').next());
        let mut asked = asked.lock().unwrap();
        let times = asked.entry(name.unwrap_or_default().to_owned()).or_default();
        *times += 1;
        match *times {
            1 => Reply::tool_call("call-1", "delegate", serde_json::json!({})),
            _ => Reply::text_pieces(["Well, ", "let me ", "think."])
                .with_fault(Fault::stall(At::AfterPieces(1))),
        }
    });
}

/// Starts `chains` agents with `depth - 1` more below each, stops all of them by `stop`, and waits until nothing is left.
///
/// # Panics
///
/// If something is left, or an end is not what it should be.
pub(crate) async fn stop_all(chains: usize, depth: usize, stop: impl FnOnce(&Scope) -> Mode) -> Gone {
    let before = Census::now();
    let server = LlmServer::start_blocking().unwrap();
    script(&server);
    let model = Connector::new()
        .with_base_url(server.url())
        .with_api_key(Secret::new("sk-hundred"))
        .with_retry(None)
        .chat("openai/gpt-4o-mini")
        .unwrap();
    let groups = Groups::default();
    let scope = Scope::root("test", TokioTimer::new());
    let mut runs = JoinSet::new();
    for chain in 0..chains {
        let agent = agent(&model, &chain.to_string(), depth, &groups);
        let input = Input::from("Go.").with_interrupts(&scope);
        runs.spawn(async move { agent.run_stream(input).collect().await.map(|_| ()) });
    }
    drop(model);

    let wanted = chains * depth;
    let all_open = server.wait_until(|seen| seen.in_flight == wanted as u64);
    tokio::time::timeout(PATIENCE, all_open)
        .await
        .expect("every agent has a stream open");
    let began = Instant::now();
    // A shell and what it started.
    while groups.lock().unwrap().len() < wanted || of_groups(&groups.lock().unwrap()) < 2 * wanted {
        assert!(
            began.elapsed() < PATIENCE,
            "{} groups",
            groups.lock().unwrap().len()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let groups = groups.lock().unwrap().clone();
    assert!(
        scope.tree_len() > 3 * wanted,
        "a scope for each agent, its tool and its stream"
    );

    let began = Instant::now();
    let mode = stop(&scope);
    let told = began.elapsed();
    while let Some(ended) = runs.join_next().await {
        let error: RunError = ended.unwrap().unwrap_err();
        assert!(matches!(error.error(), Error::Interrupted(_)), "{error}");
        assert!(
            error.report().abandoned.is_empty(),
            "{:?}",
            error.report().abandoned
        );
        assert!(error.run().is_some(), "{mode}: it can go on");
    }
    let ended = began.elapsed();
    let closed = server.wait_until(|seen| seen.in_flight == 0 && seen.cancelled == wanted as u64);
    tokio::time::timeout(PATIENCE, closed)
        .await
        .expect("every stream is closed");
    let streams = began.elapsed();
    let is_left = |id: &u32| Path::new(&format!("/proc/{id}")).exists();
    while groups.iter().any(is_left) || of_groups(&groups) > 0 {
        assert!(
            began.elapsed() < PATIENCE,
            "{} processes are left",
            of_groups(&groups)
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let processes = began.elapsed();
    assert_eq!(scope.tree_len(), 1);
    drop(server);
    while !Census::now().is_within(&before) {
        assert!(
            began.elapsed() < PATIENCE,
            "before {before:?}, left {:?}",
            Census::now()
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Gone {
        told,
        runs: ended,
        streams,
        processes,
        all: began.elapsed(),
    }
}
