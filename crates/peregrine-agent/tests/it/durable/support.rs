//! A world with ten tools, and stores that wait or fail when they are told to.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use peregrine_agent::{Agent, Approval, ApprovalRequest, Approver, Limits};
use peregrine_checkpoints::store::{Acquire, Batch, Range, RunWriter, Stored};
use peregrine_checkpoints::{
    Checkpoints, Error, Lease, MemoryStore, Options, PartId, Result, RunInfo, RunKey, Store, Tail,
    async_trait,
};
use peregrine_core::{Effect, JsonSchema, RunId, Scope, ToolSpec};
use peregrine_tools::{FnTool, Tool, ToolContext, ToolError, ToolInfo};

use crate::support::Script;

pub(crate) fn id(number: u8) -> RunId {
    RunId::from_parts(1_700_000_000_000, [number; 10])
}

pub(crate) fn scope() -> Scope {
    Scope::new("acme", "tests").unwrap()
}

pub(crate) fn memory() -> Checkpoints {
    Checkpoints::new(Arc::new(MemoryStore::new()), Options::default())
}

/// Not ready so many times.
pub(crate) async fn wait(times: usize) {
    for _ in 0..times {
        let mut was_asked = false;
        std::future::poll_fn(|cx: &mut Context<'_>| {
            if std::mem::replace(&mut was_asked, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

/// Polls at most so often; `None` if that was not enough, and the future is dropped then.
pub(crate) fn poll_times<F: Future>(future: F, times: usize) -> Option<F::Output> {
    let mut future = Box::pin(future);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..times {
        if let Poll::Ready(output) = Pin::new(&mut future).poll(&mut cx) {
            return Some(output);
        }
    }
    None
}

/// Polls to the end.
pub(crate) fn poll_out<F: Future>(future: F) -> F::Output {
    poll_times(future, 100_000).expect("it ends")
}

/// What was done in the world: the key of each call that was carried out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger(pub(crate) Arc<Mutex<Vec<String>>>);

impl Ledger {
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn write(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }
}

/// A tool that waits, does what it does, waits, and returns.
pub(crate) fn acting(name: &str, effect: Effect, ledger: &Ledger) -> impl Tool + use<> {
    let info = ToolInfo::new(ToolSpec::new(name, "Acts.", JsonSchema::empty_object())).with_effect(effect);
    let (ledger, name) = (ledger.clone(), name.to_owned());
    FnTool::raw(info, move |context: ToolContext, _| {
        let (ledger, name) = (ledger.clone(), name.clone());
        async move {
            wait(1).await;
            ledger.write(format!("{name} {}", context.idempotency_key));
            wait(1).await;
            Ok::<_, ToolError>(format!("{name} is done"))
        }
    })
}

/// The effect of the tool with this number.
pub(crate) fn effect(number: usize) -> Effect {
    [Effect::ReadOnly, Effect::Idempotent, Effect::SideEffect][number % 3]
}

/// Approves everything, after a while.
pub(crate) struct Yes;

#[peregrine_agent::async_trait]
impl Approver for Yes {
    async fn decide(&self, _: &ApprovalRequest) -> Approval {
        wait(1).await;
        Approval::Approved
    }
}

/// An agent with ten tools of mixed effects, some of which a person is asked about.
pub(crate) fn ten_tools(model: Script, ledger: &Ledger, checkpoints: Checkpoints) -> Agent {
    let limits = Limits {
        max_steps: 200,
        ..Limits::default()
    };
    let mut agent = Agent::new(model)
        .with_scope(scope())
        .with_instructions("Act.")
        .with_limits(limits)
        .with_approver(Yes)
        .with_checkpoints(checkpoints);
    for number in 0..10 {
        let name = format!("tool_{number}");
        agent = agent.with_tool(acting(&name, effect(number), ledger));
        if number < 6 {
            agent = agent.with_allowed(name);
        }
    }
    agent
}

/// A store that is not ready at once, and fails when it is told to.
pub(crate) struct Moody {
    inner: MemoryStore,
    pub(crate) away: AtomicBool,
    /// Never answers again.
    pub(crate) hangs: AtomicBool,
    /// After so many more appends it is full; `u64::MAX` is never.
    pub(crate) room: AtomicU64,
    pub(crate) appends: AtomicU64,
    waits: usize,
}

impl fmt::Debug for Moody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Moody")
    }
}

impl Moody {
    pub(crate) fn new(waits: usize) -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryStore::new(),
            away: AtomicBool::new(false),
            hangs: AtomicBool::new(false),
            room: AtomicU64::new(u64::MAX),
            appends: AtomicU64::new(0),
            waits,
        })
    }

    async fn check(&self) -> Result<()> {
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        match self.away.load(Ordering::Relaxed) {
            true => Err(Error::unavailable("reach the store", "it is away")),
            false => Ok(()),
        }
    }
}

#[derive(Debug)]
struct MoodyWriter(Box<dyn RunWriter>, Arc<Moody>);

/// A store behind a handle, so that a test keeps hold of it.
#[derive(Debug, Clone)]
pub(crate) struct Handle(pub(crate) Arc<Moody>);

#[async_trait]
impl Store for Handle {
    async fn acquire(&self, key: &RunKey, how: Acquire) -> Result<Box<dyn RunWriter>> {
        wait(self.0.waits).await;
        self.0.check().await?;
        let writer = self.0.inner.acquire(key, how).await?;
        Ok(Box::new(MoodyWriter(writer, Arc::clone(&self.0))))
    }

    async fn read(&self, key: &RunKey, range: &Range) -> Result<Stored> {
        wait(self.0.waits).await;
        self.0.check().await?;
        self.0.inner.read(key, range).await
    }

    async fn part(&self, key: &RunKey, part: &PartId, max_bytes: u64) -> Result<bytes::Bytes> {
        self.0.check().await?;
        self.0.inner.part(key, part, max_bytes).await
    }

    async fn runs(&self, scope: &Scope, after: Option<RunId>, limit: usize) -> Result<Vec<RunInfo>> {
        self.0.inner.runs(scope, after, limit).await
    }

    async fn remove(&self, key: &RunKey) -> Result<()> {
        self.0.inner.remove(key).await
    }
}

#[async_trait]
impl RunWriter for MoodyWriter {
    fn lease(&self) -> Lease {
        self.0.lease()
    }

    async fn append(&mut self, batch: &Batch<'_>) -> Result<()> {
        wait(self.1.waits).await;
        self.1.check().await?;
        self.1.appends.fetch_add(1, Ordering::Relaxed);
        let room = self.1.room.load(Ordering::Relaxed);
        if room == 0 {
            let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(Error::io("append", "the store", full));
        }
        if room != u64::MAX {
            self.1.room.store(room - 1, Ordering::Relaxed);
        }
        self.0.append(batch).await?;
        wait(self.1.waits).await;
        Ok(())
    }

    fn cut(&self) -> Option<Tail> {
        self.0.cut()
    }

    async fn settle(&mut self) -> Result<u64> {
        self.1.check().await?;
        self.0.settle().await
    }

    async fn trim(&mut self, before: u64) -> Result<u64> {
        self.0.trim(before).await
    }

    async fn release(self: Box<Self>) -> Result<()> {
        wait(self.1.waits).await;
        self.0.release().await
    }
}

pub(crate) fn moody(waits: usize) -> (Arc<Moody>, Checkpoints) {
    let store = Moody::new(waits);
    let checkpoints = Checkpoints::new(Arc::new(Handle(Arc::clone(&store))), Options::default());
    (store, checkpoints)
}
