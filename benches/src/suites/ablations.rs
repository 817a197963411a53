//! What each optimisation is worth: the same work `on`, as it is, and `off`, done the slow way through the public interface.
//!
//! The first part are bottlenecks, the second layers. Absent until their crates are here: direct SQL and lazy recency (memory),
//! precomputed embeddings (routing). `off` is what a program does that lacks the optimisation, not one that is slowed down.

use std::cell::RefCell;
use std::fs;
use std::future::Future;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use peregrine_agent::{Agent, Input, Window};
use peregrine_cache::{CacheLayer, MemoryConfig, MemoryStore, Settings};
use peregrine_checkpoints::{
    Checkpoints, Durability, Kind as RecordKind, Options, RunKey, SnapshotPolicy, Span,
};
use peregrine_core::{
    ChatModel, ChatRequest, JsonSchema, Message, ModelHandle, RunId, Scope as Tenant, Secret, ToolCall,
    ToolSpec,
};
use peregrine_executor::parallel;
use peregrine_interrupts::{Kind, ManualTimer, Mode, Scope};
use peregrine_providers::{Connector, Pool, PoolConfig};
use peregrine_signatures::{Registry as Signatures, SignatureSpec};
use peregrine_tools::{Allowance, Registry, ToolContext, ToolInfo};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::connect;
use crate::bench::{Group, Variant, Work, each, each_async, ours, rival, runtime, runtime_beside};
use crate::fake::{FAKE_TEXT, Fake, add};
use crate::serve::{QUESTION, SYSTEM, Script, Server, TEXT, turn_text};
use crate::words::{Turn, Words};

const BOTH: [Variant; 2] = [ours("on"), rival("off")];
const COUNTED: [Variant; 2] = [ours("on").counted(), rival("off").counted()];

pub(super) fn groups() -> Vec<Group> {
    vec![
        direct_path(),
        provider_pool(),
        signature_cache(),
        permission_index(),
        incremental_checkpoints(),
        event_driven_interrupts(),
        sliding_window(),
        infrastructure(),
        tools(),
        middleware(),
        coordination(),
        application(),
    ]
}

fn group(name: &str, workload: &str, variants: &[Variant], make: impl Fn() -> Vec<Work> + 'static) -> Group {
    Group::new(format!("ablations/{name}"), workload, variants, make)
}

/// Answers of an agent, each of which must be the same.
fn asks<F: Future<Output = String> + 'static>(
    runtime: &Rc<Runtime>,
    ask: impl FnMut() -> F + 'static,
    answer: impl Into<String>,
) -> Work {
    let answer = answer.into();
    each_async(runtime, ask, move |text| assert_eq!(*text, answer))
}

fn direct_path() -> Group {
    group(
        "direct_path/in_process",
        "one question to an agent around a model in this process; off: the whole run with its state machine, although nothing \
         in it is needed",
        &COUNTED,
        || {
            let runtime = runtime();
            let agent = Agent::new(Fake::new(1).into_handle());
            [agent.clone(), agent.with_direct_path(false)]
                .map(|agent| {
                    let ask = move || {
                        let agent = agent.clone();
                        async move { agent.run(QUESTION).await.unwrap().text() }
                    };
                    asks(&runtime, ask, FAKE_TEXT)
                })
                .into()
        },
    )
}

fn with_pool(url: &str, pool: Pool) -> ModelHandle {
    let connector = Connector::new().with_pool(pool).with_base_url(url);
    let connector = connector.with_api_key(Secret::new("sk-test"));
    connector.chat("openai/test-model").unwrap()
}

fn provider_pool() -> Group {
    group(
        "provider_pool/model_per_call",
        "a model is made by its name for each call over loopback, as in a service that is told the model with the request; off: \
         with a pool of its own, so with a new client and a new connection",
        &BOTH,
        || {
            let (runtime, server) = (runtime(), Rc::new(Server::start(Script::Text, 0)));
            let shared = Pool::new(PoolConfig::default());
            let pools: [Box<dyn Fn() -> Pool>; 2] = [
                Box::new(move || shared.clone()),
                Box::new(|| Pool::new(PoolConfig::default())),
            ];
            pools
                .map(|pool| {
                    let server = Rc::clone(&server);
                    let ask = move || {
                        let model = with_pool(&server.url(), pool());
                        async move { model.complete(&request()).await.unwrap().message.text() }
                    };
                    asks(&runtime, ask, TEXT)
                })
                .into()
        },
    )
}

fn request() -> ChatRequest {
    ChatRequest::new([Message::system(SYSTEM), Message::user(QUESTION)])
}

fn signature_cache() -> Group {
    const SIGNATURE: &str =
        "question, context: list[str] -> answer, confidence: float, kind: literal['fact', 'guess']";
    group(
        "signature_cache/text",
        "a line of text becomes a signature with schema, prompt and parser; off: parsed and compiled each time",
        &COUNTED,
        || {
            let kept = Signatures::new(NonZeroUsize::new(256).expect("it is more than 0"));
            let digest = kept.parse(SIGNATURE).unwrap().digest();
            vec![
                each(
                    move || kept.parse(black_box(SIGNATURE)).unwrap(),
                    move |compiled| {
                        assert_eq!(compiled.digest(), digest);
                    },
                ),
                each(
                    || {
                        SignatureSpec::parse(black_box(SIGNATURE))
                            .unwrap()
                            .compile()
                            .unwrap()
                    },
                    move |compiled| assert_eq!(compiled.digest(), digest),
                ),
            ]
        },
    )
}

fn permission_index() -> Group {
    const RULES: usize = 10_000;
    group(
        "permission_index/10000_names",
        "whether a tool may run, by 10,000 names that are allowed, the middle one being its own; off: the names are gone \
         through one after the other",
        &COUNTED,
        || {
            let name = |n: usize| format!("tool_{n:05}");
            let names: Vec<String> = (0..RULES).map(name).collect();
            let mut allowance = Allowance::nothing();
            for name in &names {
                allowance = allowance.with_allowed(name);
            }
            let tool = ToolInfo::new(ToolSpec::new(name(RULES / 2), "", JsonSchema::empty_object()));
            let same = tool.clone();
            vec![
                each(
                    move || allowance.decide(black_box(&tool)).is_allowed(),
                    |allowed| assert!(*allowed),
                ),
                each(
                    move || names.iter().any(|name| name == black_box(&same).name()),
                    |allowed| assert!(*allowed),
                ),
            ]
        },
    )
}

fn incremental_checkpoints() -> Group {
    const TURNS: usize = 100;
    group(
        "incremental_checkpoints/turn_100",
        "turn 100 of a run, each of 1 kB, becomes safe from the end of the process: a binary record is appended; off: the state \
         with all turns is written as JSON, beside its place, and renamed",
        &BOTH,
        || {
            let folder = Rc::new(TempDir::new().unwrap());
            let mut words = Words::new();
            let state: Rc<[Turn]> = (0..TURNS).map(|_| words.turn(1_024)).collect();
            vec![
                appended(Rc::clone(&folder), state[TURNS - 1].clone()),
                rewritten(folder, state),
            ]
        },
    )
}

fn appended(folder: Rc<TempDir>, turn: Turn) -> Work {
    let runtime = runtime();
    let uri = format!("dir:{}", folder.path().join("store").display());
    let mut options = Options::default();
    (options.durability, options.snapshots) = (Durability::ProcessSafe, SnapshotPolicy::NEVER);
    let key = RunKey::new(Tenant::tenant("bench").unwrap(), RunId::from_parts(1, [0; 10]));
    let checkpoints = runtime.block_on(Checkpoints::open(&uri, options)).unwrap();
    let mut journal = runtime.block_on(checkpoints.create(&key)).unwrap();
    Box::new(move |meter| {
        let elapsed = runtime.block_on(async {
            let begun = Instant::now();
            for _ in 0..meter.operations() {
                journal.append(RecordKind::Event, 1, &turn).await.unwrap();
            }
            begun.elapsed()
        });
        meter.took(elapsed, meter.operations());
        let last = Span::from(journal.next_seq() - 1);
        // A look at the last record costs as much as all of them did before it.
        if journal.next_seq() % 4_096 < meter.operations() {
            let history = runtime.block_on(checkpoints.load(&key, last)).unwrap();
            assert_eq!(history.records[0].decode::<Turn>().unwrap(), turn);
        }
        assert!(folder.path().exists());
    })
}

fn rewritten(folder: Rc<TempDir>, state: Rc<[Turn]>) -> Work {
    let (path, unfinished) = (folder.path().join("state"), folder.path().join("unfinished"));
    Box::new(move |meter| {
        let begun = Instant::now();
        for _ in 0..meter.operations() {
            fs::write(&unfinished, serde_json::to_vec(&*state).unwrap()).unwrap();
            fs::rename(&unfinished, &path).unwrap();
        }
        meter.took(begun.elapsed(), meter.operations());
        let kept: Vec<Turn> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(kept, *state);
        assert!(folder.path().exists());
    })
}

fn event_driven_interrupts() -> Group {
    group(
        "event_driven_interrupts/wake",
        "from just before the interrupt to the first statement of the task that waits for it on another thread; off: the task \
         looks every 10 ms",
        &BOTH,
        || {
            let runtime = runtime_beside();
            vec![
                noticed(&runtime, async |scope| {
                    scope.cancelled().await;
                }),
                noticed(&runtime, async |scope| {
                    while scope.check().is_ok() {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }),
            ]
        },
    )
    .unpinned()
}

fn noticed<F: Future<Output = ()> + Send + 'static>(
    runtime: &Rc<Runtime>,
    wait: impl Fn(Scope) -> F + 'static,
) -> Work {
    let runtime = Rc::clone(runtime);
    // Interrupts come at any time between two looks.
    let pause = RefCell::new(0_u64);
    Box::new(move |meter| {
        for _ in 0..meter.operations() {
            let run = Scope::root("run", ManualTimer::new());
            let wait = wait(run.child(Kind::Tool, "tool"));
            let (sender, woken) = mpsc::channel();
            let task = runtime.spawn(async move {
                wait.await;
                sender.send(Instant::now()).unwrap();
            });
            let step = (*pause.borrow() * 7 + 3) % 10;
            *pause.borrow_mut() += 1;
            std::thread::sleep(Duration::from_millis(step));
            let begun = Instant::now();
            assert!(run.interrupt(Mode::Immediate));
            meter.took(woken.recv().unwrap().saturating_duration_since(begun), 1);
            runtime.block_on(task).unwrap();
        }
    })
}

fn sliding_window() -> Group {
    const TURNS: usize = 200;
    const KEPT: u32 = 10;
    group(
        "sliding_window/200_turns",
        "a question after 200 turns of 2 kB, over loopback; on: the last ten turns are sent; off: all of them",
        &BOTH,
        || {
            let (runtime, server) = (runtime(), Rc::new(Server::start(Script::Turns, 0)));
            let mut words = Words::new();
            let said = |_| [Message::user(words.text(1_024)), Message::assistant(words.text(1_024))];
            let history: Rc<[Message]> = (0..TURNS - 1).flat_map(said).collect();
            let agent = Agent::new(connect(&server.url()));
            let windowed = agent.clone().with_window(Window::last_turns(KEPT));
            [(windowed, KEPT as usize), (agent, TURNS)]
                .map(|(agent, turns)| {
                    let (history, server) = (Rc::clone(&history), Rc::clone(&server));
                    let ask = move || {
                        let input = Input::new(history.iter().cloned()).with_user(QUESTION);
                        let (agent, _server) = (agent.clone(), &server);
                        async move { agent.run(input).await.unwrap().text() }
                    };
                    // The server tells what it was sent.
                    asks(&runtime, ask, turn_text(turns, 2 * turns - 1))
                })
                .into()
        },
    )
    .with_counted_operations(10)
}

fn infrastructure() -> Group {
    group(
        "layer_infrastructure/connection",
        "one question to an agent over loopback; on: on a connection that is kept; off: the same client keeps none, so that each \
         call opens one",
        &BOTH,
        || {
            let (runtime, server) = (runtime(), Rc::new(Server::start(Script::Text, 0)));
            let http = peregrine_providers::HttpConfig::default();
            [http.clone(), http.with_max_idle_connections(0)]
                .map(|http| {
                    let connector = Connector::new()
                        .with_pool(Pool::new(PoolConfig::default()))
                        .with_http(http);
                    let connector = connector
                        .with_base_url(server.url())
                        .with_api_key(Secret::new("sk-test"));
                    let agent =
                        Agent::new(connector.chat("openai/test-model").unwrap()).with_instructions(SYSTEM);
                    let server = Rc::clone(&server);
                    let ask = move || {
                        let (agent, _server) = (agent.clone(), &server);
                        async move { agent.run(QUESTION).await.unwrap().text() }
                    };
                    asks(&runtime, ask, TEXT)
                })
                .into()
        },
    )
}

fn tools() -> Group {
    group(
        "layer_tools/registry",
        "a call is looked up, its arguments are checked, it runs; on: in a registry with compiled schemas; off: the registry is \
         made for the call, as where tools are described anew in each turn",
        &COUNTED,
        || {
            let runtime = runtime();
            let made = || Registry::builder().with(add()).build().unwrap();
            let kept = made();
            let registries: [Box<dyn Fn() -> Registry>; 2] = [Box::new(move || kept.clone()), Box::new(made)];
            registries
                .map(|registry| {
                    let call = ToolCall::new("call", "add", r#"{"a": 40, "b": 2}"#);
                    let run = move || {
                        let (tools, call) = (registry(), call.clone());
                        async move {
                            let output = tools.run(&call, ToolContext::new("call"), None).await;
                            output.unwrap().text()
                        }
                    };
                    asks(&runtime, run, "42")
                })
                .into()
        },
    )
}

fn middleware() -> Group {
    group(
        "layer_middleware/cache",
        "a question that was asked before, over loopback, to a model that takes no time; on: with a cache in memory around the \
         model; off: asked again",
        &BOTH,
        || {
            let (runtime, server) = (runtime(), Rc::new(Server::start(Script::Text, 0)));
            let model = connect(&server.url());
            let store = MemoryStore::new(&MemoryConfig::default());
            let cached = model
                .clone()
                .layered(CacheLayer::new(Settings::new().with_store(store)))
                .into_handle();
            [cached, model]
                .map(|model| {
                    let (agent, server) = (Agent::new(model).with_instructions(SYSTEM), Rc::clone(&server));
                    let ask = move || {
                        let (agent, _server) = (agent.clone(), &server);
                        async move { agent.run(QUESTION).await.unwrap().text() }
                    };
                    asks(&runtime, ask, TEXT)
                })
                .into()
        },
    )
}

fn coordination() -> Group {
    const CALLS: usize = 10;
    group(
        "layer_coordination/10_calls",
        "ten questions to an agent over loopback, to a model that takes 50 ms; on: five at a time; off: one after the other",
        &BOTH,
        || {
            let (runtime, server) = (runtime(), Rc::new(Server::start(Script::Text, 50)));
            let agent = Agent::new(connect(&server.url())).with_instructions(SYSTEM);
            [5, 1]
                .map(|slots| {
                    let (agent, server) = (agent.clone(), Rc::clone(&server));
                    let ask = move || {
                        let (agent, _server) = (agent.clone(), &server);
                        async move {
                            let call = |_| {
                                let agent = agent.clone();
                                async move { agent.run(QUESTION).await.map(|output| output.text()) }
                            };
                            let answers = parallel((0..CALLS).map(call)).with_max_parallel(slots).await;
                            answers.into_values().unwrap()
                        }
                    };
                    each_async(&runtime, ask, |answers: &Vec<String>| {
                        assert!(answers.len() == CALLS && answers.iter().all(|text| text == TEXT));
                    })
                })
                .into()
        },
    )
}

fn application() -> Group {
    group(
        "layer_application/shared_agent",
        "a question to an agent with instructions and a tool, of a model in this process; on: the agent is made once and shared; \
         off: it is made for the question, with its tool and the schema of it",
        &COUNTED,
        || {
            let runtime = runtime();
            let model = Fake::new(1).into_handle();
            let make = move || {
                Agent::new(model.clone())
                    .with_instructions(SYSTEM)
                    .with_tool(add())
            };
            let shared = make();
            let agents: [Box<dyn Fn() -> Agent>; 2] = [Box::new(move || shared.clone()), Box::new(make)];
            agents
                .map(|agent| {
                    let ask = move || {
                        let agent = agent();
                        async move { agent.run(QUESTION).await.unwrap().text() }
                    };
                    asks(&runtime, ask, FAKE_TEXT)
                })
                .into()
        },
    )
}
