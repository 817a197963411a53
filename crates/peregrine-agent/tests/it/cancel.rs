//! Cancelling and time limits, at every place at which a run can wait: nothing of it lives on, and what was spent is charged.

use std::future::{pending, poll_fn};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt as _;
use peregrine_agent::{
    Agent, Approval, ApprovalRequest, Approver, Budget, BudgetLimits, Error, Guard, HookContext, Input,
    Memory, MemoryContext, More, OnLimit, Resource, TurnMemory, async_trait,
};
use peregrine_core::{
    ChatModel, ChatRequest, ChatResponse, ChatStream, JsonSchema, Message, ModelInfo, ToolCall, ToolResult,
    ToolSpec,
};
use peregrine_tools::{Cancellation, Canceller, FnTool, Tool, ToolContext, ToolError, ToolInfo};

use crate::support::{Script, calls, text};

/// Counts those that are alive.
#[derive(Clone, Default)]
struct Alive(Arc<AtomicUsize>);

struct One(Alive);

impl Alive {
    fn one(&self) -> One {
        self.0.fetch_add(1, Ordering::SeqCst);
        One(self.clone())
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn pause(alive: &Alive) {
    let _one = alive.one();
    tokio::task::yield_now().await;
}

/// A model, a memory, an approver and a guard, each of which waits a moment.
#[derive(Clone)]
struct Slow {
    alive: Alive,
    inner: Script,
}

impl ChatModel for Slow {
    fn info(&self) -> &ModelInfo {
        self.inner.info()
    }

    async fn complete(&self, request: &ChatRequest) -> peregrine_core::Result<ChatResponse> {
        let answer = self.inner.complete(request).await;
        pause(&self.alive).await;
        answer
    }

    async fn stream(&self, request: &ChatRequest) -> peregrine_core::Result<ChatStream> {
        let answer = self.inner.stream(request).await;
        pause(&self.alive).await;
        answer
    }
}

#[async_trait]
impl Memory for Slow {
    async fn load(&self, _: &MemoryContext, _: &[Arc<Message>]) -> peregrine_core::Result<Vec<Arc<Message>>> {
        pause(&self.alive).await;
        Ok(Vec::new())
    }

    async fn save(&self, _: &MemoryContext, _: &[Arc<Message>]) -> peregrine_core::Result<()> {
        pause(&self.alive).await;
        Ok(())
    }
}

#[async_trait]
impl Approver for Slow {
    async fn decide(&self, _: &ApprovalRequest) -> Approval {
        pause(&self.alive).await;
        Approval::Approved
    }
}

#[async_trait]
impl Guard for Slow {
    fn name(&self) -> &str {
        "slow"
    }
    async fn before_run(&self, _: &HookContext, _: &mut Vec<Message>) -> Result<(), String> {
        pause(&self.alive).await;
        Ok(())
    }
    async fn before_model(&self, _: &HookContext, _: &mut ChatRequest) -> Result<(), String> {
        pause(&self.alive).await;
        Ok(())
    }
    async fn after_run(&self, _: &HookContext, _: &mut ChatResponse) -> Result<(), String> {
        pause(&self.alive).await;
        Ok(())
    }
}

/// The cancellation of a call, and whether it returned.
type Handed = Arc<Mutex<Vec<(Cancellation, Arc<AtomicUsize>)>>>;

/// A tool with side effects that waits a moment, and hands its cancellation out.
fn send(alive: Alive, handed: Handed) -> impl Tool {
    let info = ToolInfo::new(ToolSpec::new("send", "Sends.", JsonSchema::empty_object()));
    FnTool::raw(info, move |context: ToolContext, _| {
        let (alive, ended) = (alive.clone(), Arc::new(AtomicUsize::new(0)));
        handed
            .lock()
            .unwrap()
            .push((context.cancellation, Arc::clone(&ended)));
        async move {
            pause(&alive).await;
            ended.store(1, Ordering::SeqCst);
            Ok::<_, ToolError>("sent")
        }
    })
}

#[tokio::test]
async fn a_run_that_is_dropped_anywhere_leaves_nothing_behind() {
    for streamed in [false, true] {
        let mut places = 0;
        for polls in 1.. {
            let alive = Alive::default();
            let handed = Handed::default();
            let budget = Budget::new(
                BudgetLimits::default()
                    .with_tokens(1_000_000)
                    .with_tool_calls(100),
            );
            let slow = Slow {
                alive: alive.clone(),
                inner: Script::of([calls(&[("send", "{}")]), text("Done.")]),
            };
            let agent = Agent::new(slow.clone())
                .with_tool(send(alive.clone(), Arc::clone(&handed)))
                .with_memory(slow.clone())
                .with_approver(slow.clone())
                .with_guard(slow.clone())
                .with_timer(Arc::new(peregrine_providers::TokioClock));
            let input = Input::from("Go.").with_budget(budget.clone());
            let is_over = {
                let mut run: futures_util::future::BoxFuture<'_, _> = match streamed {
                    true => agent.run_stream(input).collect().boxed(),
                    false => agent.run(input).boxed(),
                };
                let mut over = false;
                for _ in 0..polls {
                    if poll_fn(|cx| Poll::Ready(run.as_mut().poll(cx).is_ready())).await {
                        over = true;
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                over
            };
            assert_eq!(alive.count(), 0, "after {polls} polls something lives on");
            let status = budget.status();
            assert_eq!(
                (status.in_flight, status.reserved.tokens),
                (0, 0),
                "after {polls} polls"
            );
            let asked = slow.inner.requests().len() as u64;
            assert!(
                status.spent.tokens >= 15 * asked,
                "what was asked is charged: {asked}, {status:?}"
            );
            for (cancellation, ended) in handed.lock().unwrap().iter() {
                let ended = ended.load(Ordering::SeqCst) == 1;
                assert!(ended || cancellation.is_cancelled(), "after {polls} polls");
                assert_eq!(status.spent.tool_calls, 1, "a call that was begun counts");
            }
            if is_over {
                break;
            }
            places = polls;
        }
        assert!(places >= 8, "the run waits at every kind of place: {places}");
    }
}

/// Never answers, at one place of a run.
#[derive(Clone)]
struct Hangs(&'static str);

impl Hangs {
    async fn at(&self, place: &str) {
        if place == self.0 {
            pending::<()>().await;
        }
    }
}

#[async_trait]
impl Memory for Hangs {
    async fn load(&self, _: &MemoryContext, _: &[Arc<Message>]) -> peregrine_core::Result<Vec<Arc<Message>>> {
        self.at("load").await;
        Ok(Vec::new())
    }

    async fn save(&self, _: &MemoryContext, _: &[Arc<Message>]) -> peregrine_core::Result<()> {
        self.at("save").await;
        Ok(())
    }
}

#[async_trait]
impl Approver for Hangs {
    async fn decide(&self, _: &ApprovalRequest) -> Approval {
        self.at("approve").await;
        Approval::Approved
    }
}

#[async_trait]
impl Guard for Hangs {
    fn name(&self) -> &str {
        "hangs"
    }
    fn timeout(&self) -> Duration {
        Duration::from_secs(3_600)
    }
    async fn before_run(&self, _: &HookContext, _: &mut Vec<Message>) -> Result<(), String> {
        self.at("before_run").await;
        Ok(())
    }
    async fn before_model(&self, _: &HookContext, _: &mut ChatRequest) -> Result<(), String> {
        self.at("before_model").await;
        Ok(())
    }
    async fn after_tool(&self, _: &HookContext, _: &ToolCall, _: &mut ToolResult) -> Result<(), String> {
        self.at("after_tool").await;
        Ok(())
    }
    async fn after_run(&self, _: &HookContext, _: &mut ChatResponse) -> Result<(), String> {
        self.at("after_run").await;
        Ok(())
    }
}

const PLACES: [&str; 7] = [
    "before_run",
    "load",
    "before_model",
    "approve",
    "after_tool",
    "save",
    "after_run",
];

fn hanging(place: &'static str, on_limit: OnLimit) -> Agent {
    Agent::new(Script::of([calls(&[("send", "{}")]), text("Done.")]))
        .with_tool(send(Alive::default(), Handed::default()))
        .with_memory(Hangs(place))
        .with_approver(Hangs(place))
        .with_guard(Hangs(place))
        .with_on_limit(on_limit)
        .with_timer(Arc::new(peregrine_providers::TokioClock))
}

#[tokio::test(start_paused = true)]
async fn no_wait_outlasts_the_time_limit() {
    for place in PLACES {
        for on_limit in [OnLimit::End, OnLimit::Pause] {
            let limits = BudgetLimits::default().with_wall_time(Duration::from_secs(5));
            let agent = hanging(place, on_limit).with_budget(limits);
            let began = tokio::time::Instant::now();
            let error = agent.run("Go.").await.unwrap_err();
            assert_eq!(began.elapsed().as_secs(), 5, "{place}, {on_limit:?}");
            assert!(
                matches!(error.error(), Error::Limit(limit) if limit.resource == Resource::WallTime),
                "{place}: {error}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_wait_outlasts_a_cancellation() {
    for place in PLACES {
        let agent = hanging(place, OnLimit::End);
        let canceller = Canceller::new();
        let input = Input::from("Go.").with_cancellation(canceller.cancellation());
        let stop = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            canceller.cancel();
        };
        let began = tokio::time::Instant::now();
        let (outcome, ()) = futures_util::future::join(agent.run(input), stop).await;
        let error = outcome.unwrap_err();
        assert_eq!(began.elapsed().as_secs(), 1, "{place}");
        assert!(matches!(error.error(), Error::Interrupted(_)), "{place}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_was_stopped_while_it_saved_saves_when_it_goes_on() {
    let agent = hanging("save", OnLimit::End);
    let canceller = Canceller::new();
    let input = Input::from("Go.").with_cancellation(canceller.cancellation());
    let stop = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        canceller.cancel();
    };
    let (outcome, ()) = futures_util::future::join(agent.run(input), stop).await;
    let run = outcome.unwrap_err().into_run().unwrap();
    let saved = Arc::new(TurnMemory::new(4));
    let agent = agent.with_memory(Shared(Arc::clone(&saved)));
    assert_eq!(agent.resume(run, More::default()).await.unwrap().text(), "Done.");
    let context_free = Agent::new(Script::of([text("Hi.")])).with_memory(Shared(saved));
    let output = context_free.run("And?").await.unwrap();
    assert!(
        output.messages().len() > 4,
        "it was saved: {:?}",
        output.messages().len()
    );
}

/// A memory that several agents have.
struct Shared(Arc<TurnMemory>);

#[async_trait]
impl Memory for Shared {
    async fn load(
        &self,
        context: &MemoryContext,
        input: &[Arc<Message>],
    ) -> peregrine_core::Result<Vec<Arc<Message>>> {
        self.0.load(context, input).await
    }

    async fn save(&self, context: &MemoryContext, messages: &[Arc<Message>]) -> peregrine_core::Result<()> {
        self.0.save(context, messages).await
    }
}
