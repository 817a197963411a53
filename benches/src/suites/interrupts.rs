//! Interrupts: how soon one is seen, how long it takes until everything has stopped, and until the state is safe.

use std::cell::RefCell;
use std::fs;
use std::hint::black_box;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use peregrine_agent::{Agent, Input};
use peregrine_checkpoints::{Checkpoints, Options, RunKey, Span};
use peregrine_core::{ChatModel, ChatRequest, ChatResponse, ModelInfo, RunId, Scope as Tenant};
use peregrine_interrupts::signal::Signals;
use peregrine_interrupts::{Kind, ManualTimer, Mode, Scope};
use rustix::process::{getpid, kill_process};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::bench::{Group, Work, each, floor, ours, rival, runtime, runtime_beside};
use crate::fake::{Fake, add};
use crate::serve::QUESTION;
use crate::words::{Turn, Words};

const TASKS: usize = 100;

pub(super) fn groups() -> Vec<Group> {
    vec![
        check(),
        wake().unpinned(),
        by_signal().unpinned(),
        shutdown(),
        checkpoint(),
        stop_of_run(),
    ]
}

fn run() -> Scope {
    Scope::root("run", ManualTimer::new())
}

fn check() -> Group {
    Group::new(
        "interrupts/detection/check",
        "a look at a scope two levels below its root, which is not interrupted",
        &[
            ours("peregrine").counted(),
            floor("atomic").counted(),
            rival("cancellation_token").counted(),
        ],
        || {
            let scope = run().child(Kind::Tool, "tool");
            let flag = AtomicBool::new(false);
            let token = CancellationToken::new().child_token();
            vec![
                each(move || black_box(&scope).check().is_ok(), |ok| assert!(*ok)),
                each(
                    move || !black_box(&flag).load(Ordering::Acquire),
                    |ok| assert!(*ok),
                ),
                each(move || !black_box(&token).is_cancelled(), |ok| assert!(*ok)),
            ]
        },
    )
    .with_counted_operations(1_000)
}

/// Something to wait for, and what ends the wait.
type Pair = (Pin<Box<dyn Future<Output = ()> + Send>>, Box<dyn FnOnce()>);

fn of_scope() -> Pair {
    let run = run();
    let child = run.child(Kind::Tool, "tool");
    let wait = async move {
        child.cancelled().await;
    };
    (
        Box::pin(wait),
        Box::new(move || assert!(run.interrupt(Mode::Immediate))),
    )
}

fn of_notify() -> Pair {
    let notify = Arc::new(Notify::new());
    let waits = Arc::clone(&notify);
    let wait = async move { waits.notified().await };
    (Box::pin(wait), Box::new(move || notify.notify_one()))
}

fn of_token() -> Pair {
    let token = CancellationToken::new();
    let child = token.child_token();
    let wait = async move { child.cancelled().await };
    (Box::pin(wait), Box::new(move || token.cancel()))
}

fn wake() -> Group {
    Group::new(
        "interrupts/detection/wake",
        "from just before the interrupt to the first statement of the task that waited for it, on another thread",
        &[ours("peregrine"), floor("notify"), rival("cancellation_token")],
        || {
            let runtime = runtime_beside();
            let makes: [fn() -> Pair; 3] = [of_scope, of_notify, of_token];
            makes.into_iter().map(|make| wakes(&runtime, make)).collect()
        },
    )
}

fn wakes(runtime: &Rc<Runtime>, make: fn() -> Pair) -> Work {
    let runtime = Rc::clone(runtime);
    Box::new(move |meter| {
        for _ in 0..meter.operations() {
            let (mut wait, end) = make();
            let (sender, woken) = mpsc::channel();
            let (ready, waits) = mpsc::channel();
            let task = runtime.spawn(async move {
                let mut first = true;
                std::future::poll_fn(|context| {
                    let polled = wait.as_mut().poll(context);
                    if std::mem::take(&mut first) {
                        ready.send(()).unwrap();
                    }
                    polled
                })
                .await;
                sender.send(Instant::now()).unwrap();
            });
            waits.recv().unwrap();
            // Until its thread sleeps, as it does when a run waits for a model.
            std::thread::sleep(Duration::from_micros(50));
            let begun = Instant::now();
            end();
            meter.took(woken.recv().unwrap().duration_since(begun), 1);
            runtime.block_on(task).unwrap();
        }
    })
}

fn by_signal() -> Group {
    Group::new(
        "interrupts/detection/signal",
        "from just before a signal is sent to this process to the first statement of the task that waited for the interrupt, on \
         another thread; the rival waits for tokio's signal",
        &[ours("peregrine"), rival("tokio_signal")],
        || {
            let runtime = runtime_beside();
            vec![signals(&runtime, true), signals(&runtime, false)]
        },
    )
}

/// Both listen all the time, so that each has to look at what is the other's too.
fn signals(runtime: &Rc<Runtime>, of_scope: bool) -> Work {
    let runtime = Rc::clone(runtime);
    Box::new(move |meter| {
        for _ in 0..meter.operations() {
            let (ready, waits) = mpsc::channel();
            let (sender, woken) = mpsc::channel();
            let scope = run();
            let listening = Signals::only([peregrine_interrupts::Signal::Hangup])
                .without_default_action()
                .subscribe(&scope)
                .unwrap();
            let waiting = scope.clone();
            let task = runtime.spawn(async move {
                if of_scope {
                    ready.send(()).unwrap();
                    assert_eq!(waiting.graceful().await.mode(), Mode::Graceful);
                } else {
                    let mut own = signal(SignalKind::hangup()).unwrap();
                    ready.send(()).unwrap();
                    own.recv().await.unwrap();
                }
                sender.send(Instant::now()).unwrap();
            });
            waits.recv().unwrap();
            std::thread::sleep(Duration::from_micros(50));
            let begun = Instant::now();
            kill_process(getpid(), rustix::process::Signal::HUP).unwrap();
            meter.took(woken.recv().unwrap().duration_since(begun), 1);
            runtime.block_on(task).unwrap();
            drop(listening);
        }
    })
}

/// How many turns a run has made before it is stopped.
const TURNS: u32 = 20;

fn stop_of_run() -> Group {
    Group::new(
        "interrupts/checkpoint/run",
        "a run of an agent with a journal in files, process-safe, is interrupted in its turn 20: from the interrupt until it has ended \
         and all of it is stored, to go on from; the floor has no journal",
        &[ours("peregrine"), floor("no_journal")],
        || vec![stopped_runs(runtime(), true), stopped_runs(runtime(), false)],
    )
}

/// Interrupts the run that it belongs to when it is called for the last time.
struct Stopping {
    fake: Fake,
    stop: Arc<Mutex<Option<(Scope, Instant)>>>,
}

impl ChatModel for Stopping {
    fn info(&self) -> &ModelInfo {
        self.fake.info()
    }

    async fn complete(&self, request: &ChatRequest) -> peregrine_core::Result<ChatResponse> {
        if request.messages.len() / 2 + 1 == TURNS as usize {
            let mut stop = self.stop.lock().unwrap();
            let (scope, begun) = stop.as_mut().expect("it was set");
            *begun = Instant::now();
            assert!(scope.interrupt(Mode::Graceful));
        }
        self.fake.complete(request).await
    }
}

fn stopped_runs(runtime: Rc<Runtime>, is_kept: bool) -> Work {
    let folder = TempDir::new().unwrap();
    let uri = format!("dir:{}", folder.path().display());
    let checkpoints = runtime
        .block_on(Checkpoints::open(&uri, Options::default()))
        .unwrap();
    let stop = Arc::new(Mutex::new(None));
    let model = Stopping {
        // One turn more than it is let make.
        fake: Fake::new(TURNS as usize + 1),
        stop: Arc::clone(&stop),
    };
    let scope = Tenant::tenant("bench").unwrap();
    let agent = Agent::new(model)
        .with_tool(add())
        .with_limits(peregrine_agent::Limits {
            max_steps: 100,
            max_tool_calls: 100,
            ..peregrine_agent::Limits::default()
        })
        .with_scope(scope.clone());
    let agent = match is_kept {
        true => agent.with_checkpoints(checkpoints.clone()),
        false => agent,
    };
    let mut runs = 0;
    Box::new(move |meter| {
        for _ in 0..meter.operations() {
            runs += 1;
            let (id, interrupts) = (RunId::from_parts(runs, [3; 10]), run());
            *stop.lock().unwrap() = Some((interrupts.clone(), Instant::now()));
            let input = Input::from(QUESTION).with_run_id(id).with_interrupts(&interrupts);
            let (ended, at) = runtime.block_on(async {
                let ended = agent.run(input).await;
                (ended, Instant::now())
            });
            let error = ended.expect_err("it was stopped");
            assert!(
                matches!(error.error(), peregrine_agent::Error::Interrupted(_)),
                "{error:?}"
            );
            let begun = stop.lock().unwrap().as_ref().map(|(_, begun)| *begun);
            meter.took(at.duration_since(begun.expect("it was set")), 1);
            assert_eq!(error.report().steps, TURNS);
            if !is_kept {
                continue;
            }
            runtime.block_on(async {
                let stored = agent.load(id).await.unwrap();
                assert_eq!(stored.run().counts().steps, TURNS);
                drop(stored);
                checkpoints.remove(&RunKey::new(scope.clone(), id)).await.unwrap();
            });
        }
        assert!(folder.path().exists());
    })
}

fn shutdown() -> Group {
    Group::new(
        "interrupts/shutdown/100_tasks",
        "an interrupt of a run with a hundred tasks that wait, until each of them has ended",
        &[ours("peregrine"), floor("cancellation_token")],
        || vec![shutdown_of_scopes(runtime()), shutdown_of_tokens(runtime())],
    )
}

fn shutdown_of_scopes(runtime: Rc<Runtime>) -> Work {
    Box::new(move |meter| {
        for _ in 0..meter.operations() {
            let elapsed = runtime.block_on(async {
                let (run, mut tasks) = (run(), JoinSet::new());
                for _ in 0..TASKS {
                    let scope = run.child(Kind::Tool, "tool");
                    tasks.spawn(async move {
                        scope
                            .run_until_graceful(std::future::pending::<()>())
                            .await
                            .is_err()
                    });
                }
                tokio::task::yield_now().await;
                let begun = Instant::now();
                run.interrupt(Mode::Graceful);
                let stopped = tasks.join_all().await;
                let elapsed = begun.elapsed();
                assert!(stopped.len() == TASKS && stopped.into_iter().all(|stopped| stopped));
                elapsed
            });
            meter.took(elapsed, 1);
        }
    })
}

fn shutdown_of_tokens(runtime: Rc<Runtime>) -> Work {
    Box::new(move |meter| {
        for _ in 0..meter.operations() {
            let elapsed = runtime.block_on(async {
                let (run, mut tasks) = (CancellationToken::new(), JoinSet::new());
                for _ in 0..TASKS {
                    let token = run.child_token();
                    let wait = async move {
                        token
                            .run_until_cancelled(std::future::pending::<()>())
                            .await
                            .is_none()
                    };
                    tasks.spawn(wait);
                }
                tokio::task::yield_now().await;
                let begun = Instant::now();
                run.cancel();
                let stopped = tasks.join_all().await;
                let elapsed = begun.elapsed();
                assert!(stopped.len() == TASKS && stopped.into_iter().all(|stopped| stopped));
                elapsed
            });
            meter.took(elapsed, 1);
        }
    })
}

fn checkpoint() -> Group {
    Group::new(
        "interrupts/checkpoint/100kb",
        "from the interrupt of a waiting run until its state of 100 kB is in a file, process-safe, and the run is closed; \
         the floor serialises the state and renames a file",
        &[ours("peregrine"), floor("file")],
        || {
            let folder = Rc::new(TempDir::new().unwrap());
            let mut words = Words::new();
            let state: Rc<[Turn]> = (0..100).map(|_| words.turn(1_000)).collect();
            vec![
                journals(runtime(), Rc::clone(&folder), Rc::clone(&state)),
                files(runtime(), folder, state),
            ]
        },
    )
}

/// Waits until it is interrupted, which happens as soon as it waits.
async fn interrupted(scope: &Scope) -> Instant {
    let run = scope.child(Kind::Tool, "tool");
    let mut begun = None;
    let mut wait = std::pin::pin!(run.run_until_graceful(std::future::pending::<()>()));
    std::future::poll_fn(|context| {
        let polled = wait.as_mut().poll(context);
        if polled.is_pending() && begun.is_none() {
            begun = Some(Instant::now());
            scope.interrupt(Mode::Graceful);
        }
        polled.map(|outcome| assert!(outcome.is_err()))
    })
    .await;
    begun.unwrap()
}

fn journals(runtime: Rc<Runtime>, folder: Rc<TempDir>, state: Rc<[Turn]>) -> Work {
    let uri = format!("dir:{}", folder.path().join("store").display());
    let checkpoints = runtime
        .block_on(Checkpoints::open(&uri, Options::default()))
        .unwrap();
    let runs = RefCell::new(0);
    Box::new(move |meter| {
        for _ in 0..meter.operations() {
            *runs.borrow_mut() += 1;
            let run = RunId::from_parts(*runs.borrow(), [1; 10]);
            let key = RunKey::new(Tenant::tenant("bench").unwrap(), run);
            let elapsed = runtime.block_on(async {
                let mut journal = checkpoints.create(&key).await.unwrap();
                let begun = interrupted(&self::run()).await;
                journal.snapshot(1, &*state).await.unwrap();
                journal.finish().await.unwrap();
                let elapsed = begun.elapsed();
                let history = checkpoints.load(&key, Span::SINCE_SNAPSHOT).await.unwrap();
                let kept: Vec<Turn> = history.records[0].decode().unwrap();
                assert_eq!(kept, *state);
                checkpoints.remove(&key).await.unwrap();
                elapsed
            });
            meter.took(elapsed, 1);
        }
        assert!(folder.path().exists());
    })
}

fn files(runtime: Rc<Runtime>, folder: Rc<TempDir>, state: Rc<[Turn]>) -> Work {
    let (path, unfinished) = (
        folder.path().join("state"),
        folder.path().join("state.unfinished"),
    );
    Box::new(move |meter| {
        for _ in 0..meter.operations() {
            let elapsed = runtime.block_on(async {
                let begun = interrupted(&run()).await;
                fs::write(&unfinished, rmp_serde::to_vec_named(&*state).unwrap()).unwrap();
                fs::rename(&unfinished, &path).unwrap();
                begun.elapsed()
            });
            meter.took(elapsed, 1);
            let kept: Vec<Turn> = rmp_serde::from_slice(&fs::read(&path).unwrap()).unwrap();
            assert_eq!(kept, *state);
        }
        assert!(folder.path().exists());
    })
}
