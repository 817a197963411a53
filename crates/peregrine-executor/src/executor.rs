//! The executor: actions, limits and time, with which plans run.

use std::future::{Future, IntoFuture};
use std::hash::{BuildHasher as _, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;

use crate::action::RunContext;
use crate::engine::{Engine, LocalEngine};
use crate::plan::Compiler;
use crate::run::{Bounds, Driver, Graph, Intake, Observers, Parts, PlanState};
use crate::scheduler::Limits;
use crate::{Actions, DEFAULT_MAX_PARALLEL, Observer, Plan, PlanError, Report, Snapshot, Step, Timer};

/// In which order steps may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Order {
    /// A step starts when what it depends on has ended and there is a place, the longest way to the end first.
    #[default]
    Dataflow,
    /// A step starts when all steps of smaller levels have ended, a level being the length of the longest way to a step.
    /// How most others do it; here to compare with.
    Levels,
    /// One step after the other, checks included, in the order of [`Plan::order`].
    Sequential,
}

/// Where steps run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Placement {
    /// On the task that awaits the run. For steps that wait, which is what calls of models and tools do.
    #[default]
    InPlace,
    /// Each on a tokio task of its own, for steps that compute. With virtual time they stay in place.
    #[cfg(feature = "tokio")]
    Spawned,
}

/// Runs plans: actions, limits, time. Cheap to clone.
///
/// # Examples
///
/// ```
/// use peregrine_executor::{Event, Executor, Plan, VirtualTimer, builtin};
/// use serde_json::json;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let plan = Plan::from_json(r#"[
///     {"id": "one", "action": "sleep", "parameters": {"ms": 300, "name": "falcon"}},
///     {"id": "two", "action": "sleep", "parameters": {"ms": 200}},
///     {"id": "both", "action": "echo", "parameters": ["$one.name", "after ${two.ms} ms"]}
/// ]"#)?;
/// let executor = Executor::new(builtin::actions(), VirtualTimer::new());
/// let mut ended = Vec::new();
/// let mut observer = |event: &Event<'_>| {
///     if let Event::Ended { record, .. } = event {
///         ended.push(record.id.to_string());
///     }
/// };
/// let report = executor.run(&plan).observed_by(&mut observer).await?;
/// assert!(report.is_success());
/// assert_eq!(report.step("both").unwrap().result, Some(json!(["falcon", "after 200 ms"])));
/// assert_eq!((report.makespan.as_millis(), report.work.as_millis()), (300, 500));
/// assert_eq!(ended, ["two", "one", "both"]);
/// # Ok::<(), peregrine_executor::PlanError>(())
/// # })?;
/// # Ok::<(), peregrine_executor::PlanError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Executor {
    actions: Arc<Actions>,
    timer: Arc<dyn Timer>,
    engine: Arc<dyn Engine>,
    limits: Limits,
    order: Order,
    placement: Placement,
    bounds: Bounds,
}

impl Executor {
    /// An executor with the usual limits: 5 steps, 3 model calls and 5 checks at the same time, 16 MiB of parameters and
    /// 64 MiB of result a step, steps on the caller's task, every step kept by this process alone.
    pub fn new(actions: impl Into<Arc<Actions>>, timer: impl Timer + 'static) -> Self {
        let timer: Arc<dyn Timer> = Arc::new(timer);
        Self {
            actions: actions.into(),
            engine: Arc::new(LocalEngine::new(Arc::clone(&timer))),
            timer,
            limits: Limits {
                steps: DEFAULT_MAX_PARALLEL,
                model_calls: 3,
                checks: DEFAULT_MAX_PARALLEL,
            },
            order: Order::default(),
            placement: Placement::default(),
            bounds: Bounds {
                max_parameter_bytes: 16 << 20,
                max_result_bytes: 64 << 20,
            },
        }
    }

    /// At most this many steps at the same time; 0 counts as 1.
    pub fn with_max_parallel(mut self, max_parallel: usize) -> Self {
        self.limits.steps = max_parallel.max(1);
        self
    }

    /// At most this many steps and checks that ask a model at the same time; 0 counts as 1.
    pub fn with_max_model_calls(mut self, max_model_calls: usize) -> Self {
        self.limits.model_calls = max_model_calls.max(1);
        self
    }

    /// At most this many checks at the same time, beside the steps; 0 counts as 1.
    pub fn with_max_checks(mut self, max_checks: usize) -> Self {
        self.limits.checks = max_checks.max(1);
        self
    }

    /// How much results that are put into parameters may take there, in bytes, for one step.
    pub fn with_max_parameter_bytes(mut self, max_parameter_bytes: usize) -> Self {
        self.bounds.max_parameter_bytes = max_parameter_bytes;
        self
    }

    /// How much a result may take, in bytes. A larger one fails its step.
    pub fn with_max_result_bytes(mut self, max_result_bytes: usize) -> Self {
        self.bounds.max_result_bytes = max_result_bytes;
        self
    }

    /// In which order steps may start.
    pub fn with_order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Where steps run.
    pub fn with_placement(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// What keeps the steps.
    pub fn with_engine(mut self, engine: impl Engine + 'static) -> Self {
        self.engine = Arc::new(engine);
        self
    }

    /// The actions.
    pub fn actions(&self) -> &Actions {
        &self.actions
    }

    /// Whether a plan could run: whether its actions are there, and its references point at what they give.
    ///
    /// # Errors
    ///
    /// What is wrong, at most 64 problems of it.
    pub fn check(&self, plan: &Plan) -> Result<(), PlanError> {
        self.graph(plan).map(|_| ())
    }

    /// Runs a plan. Await what is returned.
    pub fn run<'a>(&self, plan: &Plan) -> Run<'a> {
        Run::new(self.clone(), Source::Plan(plan.clone()))
    }

    /// Runs a plan while it is written: a step starts when it has come and what it depends on has ended. A step may only
    /// depend on steps before it.
    ///
    /// Until the last step has come, the order of the plan decides where there is a choice. If a step is wrong, or the
    /// stream fails, nothing more starts, what runs goes on to its end, and the report says why
    /// ([`Report::source_error`]).
    pub fn run_stream<'a, S, E>(&self, steps: S) -> Run<'a>
    where
        S: Stream<Item = Result<Step, E>> + Send + 'a,
        E: Into<PlanError>,
    {
        Run::new(self.clone(), Source::Stream(Box::pin(Mapped(Box::pin(steps)))))
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    pub(crate) fn bounds(&self) -> Bounds {
        self.bounds
    }

    pub(crate) fn graph(&self, plan: &Plan) -> Result<Graph, PlanError> {
        let mut graph = self.empty_graph();
        graph.add_plan(plan)?;
        Ok(graph)
    }

    fn empty_graph(&self) -> Graph {
        Graph::new(Arc::clone(&self.actions), self.limits, self.order)
    }
}

type StepStream<'a> = Pin<Box<dyn Stream<Item = Result<Step, PlanError>> + Send + 'a>>;

enum Source<'a> {
    Plan(Plan),
    Stream(StepStream<'a>),
}

/// A run of a plan, which starts when it is awaited and gives a [`Report`].
///
/// # Errors
///
/// The plan cannot run: an action is not there, a reference points at what an action never gives, or what is resumed
/// belongs to another plan. Nothing has run then. Everything that happens later is in the report.
///
/// # Cancel safety
///
/// Dropping it drops what runs here and aborts what runs as tasks; nothing is reported. To cancel and get a report, use
/// [`until`](Self::until).
#[must_use = "a run does nothing unless awaited"]
pub struct Run<'a> {
    executor: Executor,
    source: Source<'a>,
    id: Option<String>,
    observers: Observers<'a>,
    cancel: Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>,
    wind_down: Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>,
    known: Option<&'a Snapshot>,
}

impl<'a> Run<'a> {
    fn new(executor: Executor, source: Source<'a>) -> Self {
        Self {
            executor,
            source,
            id: None,
            observers: Observers::default(),
            cancel: None,
            wind_down: None,
            known: None,
        }
    }

    /// What engines and idempotency keys know the run by. Otherwise it is one that no other run has; a run that is to be
    /// resumed needs the same one both times.
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// One more who looks at it.
    pub fn observed_by(mut self, observer: &'a mut dyn Observer) -> Self {
        self.observers.add(observer);
        self
    }

    /// Begins nothing more when this ends: what runs goes on to its own end, what has not started is cancelled, and the
    /// report says so. With [`until`](Self::until), which still cancels what runs, these are the two ways in which a plan
    /// stops below a scope of `peregrine-interrupts`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use peregrine_executor::{ActionInfo, Actions, Effect, Executor, Outcome, Plan, StepState, VirtualTimer};
    /// use peregrine_interrupts::{ManualTimer, Mode, Scope};
    /// use serde_json::json;
    ///
    /// let scope = Scope::root("plan", ManualTimer::new());
    /// let handle = scope.handle();
    /// let actions = Actions::new().with_fn("stop", ActionInfo::new(Effect::ReadOnly), move |call| {
    ///     handle.interrupt(Mode::Graceful);
    ///     async move {
    ///         call.sleep(Duration::from_secs(1)).await;
    ///         Ok(json!("finished"))
    ///     }
    /// });
    /// let plan = Plan::from_json(r#"[
    ///     {"id": "first", "action": "stop"},
    ///     {"id": "second", "action": "stop", "depends_on": ["first"]}
    /// ]"#)?;
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let report = Executor::new(actions, VirtualTimer::new())
    ///     .run(&plan)
    ///     .wind_down_when(async { drop(scope.graceful().await) })
    ///     .until(async { drop(scope.cancelled().await) })
    ///     .await?;
    /// assert_eq!(report.step("first").unwrap().state, StepState::Succeeded);
    /// assert_eq!((report.step("second").unwrap().state, report.outcome), (StepState::Cancelled, Outcome::Cancelled));
    /// # Ok::<(), peregrine_executor::PlanError>(())
    /// # })?;
    /// # Ok::<(), peregrine_executor::PlanError>(())
    /// ```
    pub fn wind_down_when(mut self, told: impl Future<Output = ()> + Send + 'a) -> Self {
        self.wind_down = Some(Box::pin(told));
        self
    }

    /// Cancels the run when this ends: what runs is dropped, what has not started does not, and the report says so.
    pub fn until(mut self, cancelled: impl Future<Output = ()> + Send + 'a) -> Self {
        self.cancel = Some(Box::pin(cancelled));
        self
    }

    /// Goes on where an earlier run was: what succeeded there is not done again, what failed stays failed, and what had
    /// begun is done again, unless it has side effects, which makes it [`InDoubt`](crate::Cause::InDoubt).
    pub fn resumed_from(mut self, known: &'a Snapshot) -> Self {
        self.known = Some(known);
        self
    }

    async fn drive(self) -> Result<Report, PlanError> {
        let Self {
            executor,
            source,
            id,
            observers,
            cancel,
            wind_down,
            known,
        } = self;
        let (graph, intake) = match source {
            Source::Plan(plan) => (executor.graph(&plan)?, None),
            Source::Stream(source) => {
                let compiler = Compiler::new();
                (executor.empty_graph(), Some(Intake { source, compiler }))
            }
        };
        let Executor {
            actions,
            timer,
            engine,
            limits,
            order: _,
            placement,
            bounds,
        } = executor;
        let driver = Driver::new(Parts {
            state: PlanState::new(graph, bounds),
            context: RunContext {
                run_id: id.unwrap_or_else(unique_id),
                actions,
                engine,
                timer,
            },
            placement,
            max_parallel: limits.steps,
            observers,
            cancel,
            wind_down,
            intake,
            known,
        })?;
        Ok(driver.drive().await)
    }
}

impl<'a> IntoFuture for Run<'a> {
    type Output = Result<Report, PlanError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.drive())
    }
}

impl std::fmt::Debug for Run<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Run")
            .field("id", &self.id)
            .field("executor", &self.executor)
            .finish_non_exhaustive()
    }
}

/// A stream whose errors are those of plans.
struct Mapped<S>(Pin<Box<S>>);

impl<S, E> Stream for Mapped<S>
where
    S: Stream<Item = Result<Step, E>>,
    E: Into<PlanError>,
{
    type Item = Result<Step, PlanError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.0.as_mut().poll_next(context);
        next.map(|item| item.map(|step| step.map_err(Into::into)))
    }
}

/// An id that no other run has: 128 bits, from the keys that the standard library draws for its hash tables.
fn unique_id() -> String {
    let half =
        |word: &str| RandomState::new().hash_one((word, std::process::id(), std::time::SystemTime::now()));
    format!("{:016x}{:016x}", half("one"), half("other"))
}
