//! Everything at once: a hundred nested scopes, each with an open socket and a group of processes, stopped immediately.
//! Counted through /proc: no task, no descriptor, no process is left.

use std::collections::HashSet;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use peregrine_interrupts::process::ProcessGroup;
use peregrine_interrupts::{Kind, ManualTimer, Mode, Scope};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

const DEPTH: usize = 100;
/// Beyond this something hangs; how fast it is, is printed.
const PATIENCE: Duration = Duration::from_secs(2);

/// Every living process of these groups: the fields of `/proc/PID/stat` after the name are state, parent, group.
fn alive(groups: &HashSet<u32>) -> usize {
    let of_proc = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    of_proc
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok())
        .filter(|stat| {
            let mut fields = stat.rsplit(") ").next().unwrap().split(' ');
            let (state, _parent, group) = (fields.next(), fields.next(), fields.next().unwrap());
            !matches!(state, Some("Z" | "X")) && groups.contains(&group.parse().unwrap())
        })
        .count()
}

/// Zombies of ours among them.
fn unreaped(groups: &HashSet<u32>) -> usize {
    groups
        .iter()
        .filter(|id| Path::new(&format!("/proc/{id}")).exists())
        .count()
}

fn sockets() -> usize {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok);
    let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    targets
        .filter(|target| target.to_string_lossy().starts_with("socket:"))
        .count()
}

/// Opens a connection and a group of three processes under each scope, and the next scope below it.
fn nest(
    scope: &Scope,
    depth: usize,
    port: u16,
    tasks: &mut JoinSet<()>,
    started: &mpsc::UnboundedSender<u32>,
) {
    let model = scope.child(Kind::ModelCall, "stream");
    let tool = scope.child(Kind::Tool, "shell");
    tasks.spawn(async move {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let mut buffer = [0; 64];
        let read = model.run_until_stopped(stream.read(&mut buffer)).await;
        assert!(read.is_err(), "the server never says anything");
    });
    let started = started.clone();
    let tell = started.clone();
    tasks.spawn(async move {
        let mut command = Command::new("sh");
        command
            .args(["-c", "sleep 1000 & sleep 1000 & wait"])
            .stdin(Stdio::null());
        let mut group = ProcessGroup::spawn(&tool, command).unwrap();
        tell.send(group.id().unwrap()).unwrap();
        // Half of them are waited for, half are dropped with their task's future.
        if depth.is_multiple_of(2) {
            group.wait().await.unwrap_err();
        } else {
            tool.run_until_stopped(std::future::pending::<()>())
                .await
                .unwrap_err();
        }
    });
    if depth + 1 < DEPTH {
        let agent = scope.child(Kind::Agent, "agent");
        nest(&agent, depth + 1, port, tasks, &started);
        // The scope lives as long as its agent.
        tasks.spawn(async move { drop(agent.cancelled().await) });
    }
}

#[test]
fn a_hundred_nested_agents_are_gone_at_once() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let before = sockets();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let mut open = JoinSet::new();
            for _ in 0..DEPTH {
                let (mut peer, _) = listener.accept().await.unwrap();
                // Ends when the other side is closed.
                open.spawn(async move { peer.read(&mut [0; 1]).await });
            }
            open
        });

        let run = Scope::root("run-1", ManualTimer::new());
        let mut tasks = JoinSet::new();
        let (started, mut groups) = mpsc::unbounded_channel();
        nest(&run, 0, port, &mut tasks, &started);
        let mut open = server.await.unwrap();
        let mut ids = HashSet::new();
        while ids.len() < DEPTH {
            ids.insert(groups.recv().await.unwrap());
        }
        // The shells have started their children: three to a group.
        while alive(&ids) < 3 * DEPTH {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(run.tree_len() >= 3 * DEPTH);
        assert!(sockets() >= before + 2 * DEPTH);

        let began = Instant::now();
        assert!(run.interrupt(Mode::Immediate));
        let told = began.elapsed();
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        let joined = began.elapsed();
        while let Some(closed) = open.join_next().await {
            assert_eq!(closed.unwrap().unwrap(), 0, "closed, and nothing was said");
        }
        let closed = began.elapsed();
        while alive(&ids) + unreaped(&ids) > 0 {
            assert!(began.elapsed() < PATIENCE, "{} alive, {} unreaped", alive(&ids), unreaped(&ids));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let gone = began.elapsed();
        println!(
            "{DEPTH} nested agents, {} processes: told {told:?}, tasks joined {joined:?}, sockets closed {closed:?}, \
             processes gone and reaped {gone:?}",
            3 * DEPTH
        );
        assert!(gone < PATIENCE);
        assert_eq!(run.tree_len(), 1);
    });
    drop(runtime);
    // Other tests of this binary open sockets as well; ours alone would be two hundred.
    assert!(sockets() < before + DEPTH / 2);
}
