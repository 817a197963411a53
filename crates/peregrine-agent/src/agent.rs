//! The agent: a model with tools, rules and bounds, from which any number of runs start.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use peregrine_core::{ChatModel, ChatRequest, Message, ModelHandle, PriceTable, Sampling, Scope, Timer};
use peregrine_signatures::{Contract, Signature};
use peregrine_tools::{Allowance, Registry, Tool};

use crate::approve::Approver;
use crate::budget::{Budget, BudgetLimits};
use crate::direct;
use crate::driver::{Driver, Setup, Start};
use crate::error::{ConfigProblem, Error, RunError};
use crate::hooks::{Guard, Hooks, Observer};
use crate::input::{Input, Resumption};
use crate::memory::Memory;
use crate::output::{RunOutput, TypedOutput};
use crate::run::{FallbackOn, Limits, More, OnLimit, RunSpec, Strategy};
use crate::stream::RunStream;
use crate::typed::TypedInput;
use crate::window::Window;

/// A model with tools, rules and bounds. A cheap handle: clones share everything, and any number of runs can be under way
/// at the same time.
///
/// # Examples
///
/// ```
/// use peregrine_agent::Agent;
/// # use peregrine_core::{ChatModel, ChatRequest, ChatResponse, ModelInfo, Part, ToolCall, Finish};
/// use peregrine_tools::tool;
///
/// /// Tells how warm it is somewhere, in degrees Celsius.
/// #[tool(effect = "read_only", danger = "safe")]
/// async fn temperature(city: String) -> f64 {
///     if city == "Oslo" { 4.5 } else { 20.0 }
/// }
///
/// # struct Clerk(ModelInfo);
/// # impl ChatModel for Clerk {
/// #     fn info(&self) -> &ModelInfo { &self.0 }
/// #     async fn complete(&self, request: &ChatRequest) -> peregrine_core::Result<ChatResponse> {
/// #         Ok(match request.messages.len() {
/// #             2 => ChatResponse::new(
/// #                 vec![Part::ToolCall(ToolCall::new("1", "temperature", r#"{"city": "Oslo"}"#))],
/// #                 Finish::ToolCalls,
/// #             ),
/// #             _ => ChatResponse::text("It is 4.5 degrees in Oslo."),
/// #         })
/// #     }
/// # }
/// # futures_util::FutureExt::now_or_never(async {
/// # let model = Clerk(ModelInfo::new("example", "clerk"));
/// let agent = Agent::new(model).with_instructions("Answer briefly.").with_tool(temperature());
/// let output = agent.run("How warm is it in Oslo?").await?;
/// assert_eq!(output.text(), "It is 4.5 degrees in Oslo.");
/// assert_eq!((output.report.steps, output.report.tool_calls.len()), (2, 1));
/// # Ok::<(), peregrine_agent::RunError>(())
/// # }).unwrap().unwrap();
/// ```
#[derive(Clone)]
pub struct Agent(Arc<Inner>);

#[derive(Clone)]
pub(crate) struct Inner {
    /// The first choice, then its fallbacks.
    pub(crate) models: Vec<ModelHandle>,
    pub(crate) spec: Arc<RunSpec>,
    pub(crate) registry: Registry,
    pub(crate) allowance: Allowance,
    pub(crate) approver: Option<Arc<dyn Approver>>,
    pub(crate) budget: Option<Budget>,
    pub(crate) budget_limits: BudgetLimits,
    pub(crate) prices: Option<Arc<PriceTable>>,
    pub(crate) hooks: Hooks,
    pub(crate) memory: Option<Arc<dyn Memory>>,
    pub(crate) timer: Option<Arc<dyn Timer>>,
    pub(crate) direct: bool,
    #[cfg(feature = "checkpoints")]
    pub(crate) checkpoints: Option<peregrine_checkpoints::Checkpoints>,
    pub(crate) grace: Duration,
    /// The first thing that was set up wrongly.
    pub(crate) problem: Option<ConfigProblem>,
}

/// Setting up.
impl Agent {
    /// A model, without tools, with the default bounds.
    pub fn new(model: impl ChatModel) -> Self {
        Self(Arc::new(Inner {
            models: vec![model.into_handle()],
            spec: Arc::new(RunSpec::default()),
            registry: Registry::new(),
            allowance: Allowance::read_only(),
            approver: None,
            budget: None,
            budget_limits: BudgetLimits::default(),
            prices: None,
            hooks: Hooks::default(),
            memory: None,
            #[cfg(feature = "tokio")]
            timer: Some(Arc::new(crate::clock::TokioTimer)),
            #[cfg(not(feature = "tokio"))]
            timer: None,
            direct: true,
            #[cfg(feature = "checkpoints")]
            checkpoints: None,
            grace: Duration::from_secs(2),
            problem: None,
        }))
    }

    fn change(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    fn change_spec(self, change: impl FnOnce(&mut RunSpec)) -> Self {
        self.change(|inner| change(Arc::make_mut(&mut inner.spec)))
    }

    /// Tells the model what it is to do, before everything else. Several are told one after the other.
    #[must_use]
    pub fn with_instructions(self, text: impl Into<String>) -> Self {
        let message = Arc::new(Message::system(text));
        self.change_spec(|spec| spec.head.push(message))
    }

    /// Adds a tool.
    #[must_use]
    pub fn with_tool(self, tool: impl Tool) -> Self {
        self.with_tools(Registry::builder().with(tool))
    }

    /// Adds tools: a [`Registry`], or a builder of one.
    #[must_use]
    pub fn with_tools(self, tools: impl Into<crate::tools::Tools>) -> Self {
        let tools = tools.into();
        self.change(|inner| match tools.merge_into(&inner.registry) {
            Ok(registry) => {
                inner.registry = registry;
                inner.refresh_tools();
            }
            Err(error) => {
                inner.problem.get_or_insert(ConfigProblem::Tools(error));
            }
        })
    }

    /// Allows a tool by its name, whatever it does. Without this only tools run that declare themselves read-only.
    #[must_use]
    pub fn with_allowed(self, name: impl Into<String>) -> Self {
        self.change(|inner| {
            inner.allowance = inner.allowance.clone().with_allowed(name);
            inner.refresh_tools();
        })
    }

    /// Says which tools run.
    #[must_use]
    pub fn with_allowance(self, allowance: Allowance) -> Self {
        self.change(|inner| {
            inner.allowance = allowance;
            inner.refresh_tools();
        })
    }

    /// Asks about each call of a tool that is neither read-only nor allowed by name. Without an approver such calls are
    /// refused.
    #[must_use]
    pub fn with_approver(self, approver: impl Approver) -> Self {
        self.change(|inner| {
            inner.approver = Some(Arc::new(approver));
            inner.refresh_tools();
        })
    }

    /// Says how an answer is arrived at; a [tool loop](Strategy::ToolLoop) unless said otherwise.
    #[must_use]
    pub fn with_strategy(self, strategy: Strategy) -> Self {
        self.change_spec(|spec| spec.strategy = strategy)
    }

    /// Adds a model that is asked when those before it fail.
    #[must_use]
    pub fn with_fallback(self, model: impl ChatModel) -> Self {
        self.change(|inner| {
            inner.models.push(model.into_handle());
            Arc::make_mut(&mut inner.spec).models += 1;
        })
    }

    /// Says after which failures the next model is asked.
    #[must_use]
    pub fn with_fallback_on(self, failures: FallbackOn) -> Self {
        self.change_spec(|spec| spec.fallback_on = failures)
    }

    /// Bounds steps, calls of tools, the size of their results, and repairs.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        self.change_spec(|spec| spec.limits = limits)
    }

    /// Bounds each run in tokens, money, calls of tools and time.
    #[must_use]
    pub fn with_budget(self, limits: BudgetLimits) -> Self {
        self.change(|inner| inner.budget_limits = limits)
    }

    /// Lets all runs of this agent draw on one budget together, each within its own bounds.
    #[must_use]
    pub fn with_shared_budget(self, budget: Budget) -> Self {
        self.change(|inner| inner.budget = Some(budget))
    }

    /// Says whether a run ends at a bound, which is the default, or stops and can go on.
    #[must_use]
    pub fn with_on_limit(self, on_limit: OnLimit) -> Self {
        self.change_spec(|spec| spec.on_limit = on_limit)
    }

    /// Says how much of the conversation is sent; all of it unless said otherwise.
    #[must_use]
    pub fn with_window(self, window: Window) -> Self {
        self.change_spec(|spec| spec.window = window)
    }

    /// Knows what calls cost.
    #[must_use]
    pub fn with_prices(self, prices: PriceTable) -> Self {
        self.change(|inner| inner.prices = Some(Arc::new(prices)))
    }

    /// Adds a hook that may change what passes, or refuse it.
    #[must_use]
    pub fn with_guard(self, guard: impl Guard) -> Self {
        self.change(|inner| inner.hooks.guards.push(Arc::new(guard)))
    }

    /// Adds a hook that may only look.
    #[must_use]
    pub fn with_observer(self, observer: impl Observer) -> Self {
        self.change(|inner| inner.hooks.observers.push(Arc::new(observer)))
    }

    /// Remembers from run to run.
    #[must_use]
    pub fn with_memory(self, memory: impl Memory) -> Self {
        self.change(|inner| {
            inner.memory = Some(Arc::new(memory));
            Arc::make_mut(&mut inner.spec).has_memory = true;
        })
    }

    /// Sets the sampling parameters.
    #[must_use]
    pub fn with_sampling(self, sampling: Sampling) -> Self {
        self.change_spec(|spec| spec.template.sampling = sampling)
    }

    /// Takes from a request everything but its messages and tools: sampling, reasoning, hints for the prompt cache,
    /// options of providers, metadata.
    #[must_use]
    pub fn with_settings(self, settings: ChatRequest) -> Self {
        self.change_spec(|spec| {
            spec.template = ChatRequest {
                messages: peregrine_core::Messages::new(),
                tools: Arc::clone(&spec.template.tools),
                ..settings
            };
        })
    }

    /// Says whose runs these are.
    #[must_use]
    pub fn with_scope(self, scope: Scope) -> Self {
        self.change_spec(|spec| spec.template.scope = Some(scope))
    }

    /// Keeps time. With the feature `tokio` there is a timer already.
    #[must_use]
    pub fn with_timer(self, timer: Arc<dyn Timer>) -> Self {
        self.change(|inner| inner.timer = Some(timer))
    }

    /// How long tools that listen or have side effects, a memory that is told, and the hooks after a run have to end by
    /// themselves when a run is stopped immediately through its [scope](Input::with_interrupts); 2 seconds unless said
    /// otherwise. What does not is abandoned and [reported](crate::RunReport::abandoned). Zero drops everything at once.
    ///
    /// How long a graceful stop may take is a limit of the scope: [`Limits::with_grace`](peregrine_interrupts::Limits::with_grace).
    #[must_use]
    pub fn with_grace(self, grace: Duration) -> Self {
        self.change(|inner| inner.grace = grace)
    }

    /// Turns the direct path off, or on again: a run that needs neither tools nor memory nor hooks nor bounds of tokens,
    /// money or time goes straight to the model and back. What comes of it is the same either way.
    #[must_use]
    pub fn with_direct_path(self, is_on: bool) -> Self {
        self.change(|inner| inner.direct = is_on)
    }

    /// Keeps a journal of each run, from which it goes on after whatever ended it: see [`durable`](crate::durable). The runs
    /// need a scope ([`with_scope`](Self::with_scope)).
    #[cfg(feature = "checkpoints")]
    #[must_use]
    pub fn with_checkpoints(self, checkpoints: peregrine_checkpoints::Checkpoints) -> Self {
        self.change(|inner| inner.checkpoints = Some(checkpoints))
    }

    /// Looks whether runs can start, which each of them does too.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] with the first thing that is wrong.
    pub fn check(&self) -> Result<(), Error> {
        self.0.check()
    }

    /// The rules of its runs.
    pub fn spec(&self) -> &Arc<RunSpec> {
        &self.0.spec
    }

    /// The store of its runs.
    #[cfg(feature = "checkpoints")]
    pub fn checkpoints(&self) -> Option<&peregrine_checkpoints::Checkpoints> {
        self.0.checkpoints.as_ref()
    }

    /// Its tools.
    pub fn tools(&self) -> &Registry {
        &self.0.registry
    }
}

/// Running.
impl Agent {
    /// Runs until there is an answer.
    ///
    /// # Errors
    ///
    /// [`RunError`], with what was done until then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops everything that is under way. To keep what was done, stop it through
    /// [`Input::with_interrupts`] or [`Input::with_cancellation`].
    pub async fn run(&self, input: impl Into<Input>) -> Result<RunOutput, RunError> {
        let input = input.into();
        match self.0.is_direct(&input) {
            true => direct::run(&self.0, input).await,
            false => self.driver(Start::New(input), false)?.finish().await,
        }
    }

    /// Runs, and tells what happens.
    pub fn run_stream(&self, input: impl Into<Input>) -> RunStream {
        RunStream::new(self.driver(Start::New(input.into()), true))
    }

    /// Runs until there is an answer in the form of a signature.
    ///
    /// # Errors
    ///
    /// [`RunError`], with what was done until then; [`Error::Signature`] for inputs and answers that do not fit.
    ///
    /// # Cancel safety
    ///
    /// As [`run`](Self::run).
    pub async fn run_as<S: Signature>(
        &self,
        input: impl Into<TypedInput<'_, S>>,
    ) -> Result<TypedOutput<S::Output>, RunError> {
        let typed = input.into();
        let (contract, input) = self.typed(typed)?;
        if self.0.is_direct(&input) {
            return direct::run_as::<S>(&self.0, contract, input).await;
        }
        let mut driver = self.typed_driver(&contract, Start::New(input), false)?;
        driver.finish_as::<S>().await
    }

    /// Runs until there is an answer in the form of a signature, and tells what happens, its fields as they complete. The
    /// answer is read with [`RunStream::collect_as`].
    ///
    /// An answer is ended at the first thing in it that does not fit, which saves its rest.
    pub fn run_stream_as<'i, S: Signature>(&self, input: impl Into<TypedInput<'i, S>>) -> RunStream {
        let driver = self
            .typed(input.into())
            .and_then(|(contract, input)| self.typed_driver(&contract, Start::New(input), true));
        RunStream::new(driver)
    }

    /// Goes on with a run that was stopped, under the id that it had. Its own bounds may be raised first.
    ///
    /// Its rules are those with which it began: instructions, tools that are offered, strategy, bounds. What performs them
    /// is this agent's: models, tools, memory, hooks, what is allowed. Budgets begin anew: those of the agent, and that of
    /// the [`Resumption`], if it has one. A tool that the agent has no more is an error that the model is told.
    ///
    /// An agent that keeps runs (`with_checkpoints`) goes on with the journal of the run, which must be where the run was
    /// stopped; a run that has none gets one.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run); [`ConfigProblem::Resume`], with the run, if it cannot go on with this agent.
    ///
    /// # Cancel safety
    ///
    /// As [`run`](Self::run). Keep a clone of the run: dropping the future loses what was done since.
    pub async fn resume(&self, run: impl Into<Resumption>, more: More) -> Result<RunOutput, RunError> {
        self.driver(Start::Resumed(Box::new(run.into()), more), false)?
            .finish()
            .await
    }

    /// Goes on with a typed run that was stopped.
    ///
    /// # Errors
    ///
    /// As [`run_as`](Self::run_as); [`ConfigProblem::Resume`], with the run, if it cannot go on with this agent.
    ///
    /// # Cancel safety
    ///
    /// As [`resume`](Self::resume).
    pub async fn resume_as<S: Signature>(
        &self,
        run: impl Into<Resumption>,
        more: More,
    ) -> Result<TypedOutput<S::Output>, RunError> {
        let start = Start::Resumed(Box::new(run.into()), more);
        let contract = match Contract::of::<S>(self.0.capabilities(), self.0.offers_tools()) {
            Ok(contract) => contract,
            Err(error) => return Err(start.failed(error)),
        };
        self.typed_driver(&contract, start, false)?.finish_as::<S>().await
    }

    #[cfg(feature = "checkpoints")]
    pub(crate) fn resuming_as<S: Signature>(
        &self,
        start: Start,
        streaming: bool,
    ) -> Result<Box<Driver>, RunError> {
        match Contract::of::<S>(self.0.capabilities(), self.0.offers_tools()) {
            Ok(contract) => self.typed_driver(&contract, start, streaming),
            Err(error) => Err(start.failed(error)),
        }
    }

    /// How many models it has.
    #[cfg(feature = "checkpoints")]
    pub(crate) fn models(&self) -> usize {
        self.0.models.len()
    }

    /// The rules of its untyped runs.
    #[cfg(feature = "checkpoints")]
    pub(crate) fn ready_rules(&self) -> Arc<RunSpec> {
        self.0.ready_spec(None)
    }

    pub(crate) fn driver(&self, start: Start, streaming: bool) -> Result<Box<Driver>, RunError> {
        Driver::new(Setup {
            inner: Arc::clone(&self.0),
            spec: self.0.ready_spec(None),
            signature: None,
            streaming,
            start,
        })
    }

    fn typed_driver(
        &self,
        contract: &Contract,
        start: Start,
        streaming: bool,
    ) -> Result<Box<Driver>, RunError> {
        Driver::new(Setup {
            inner: Arc::clone(&self.0),
            spec: self.0.ready_spec(Some(contract)),
            signature: Some(Arc::clone(contract.signature())),
            streaming,
            start,
        })
    }

    fn contract<S: Signature>(&self) -> Result<Contract, RunError> {
        let contract = Contract::of::<S>(self.0.capabilities(), self.0.offers_tools());
        contract.map_err(|error| Start::New(Input::default()).failed(error))
    }

    /// The contract of a signature with the first model, and the input with the user's message.
    fn typed<S: Signature>(&self, typed: TypedInput<'_, S>) -> Result<(Contract, Input), RunError> {
        let TypedInput { values, mut input } = typed;
        let contract = self.contract::<S>()?;
        match contract.user(values) {
            Ok(message) => {
                input.messages.push(message);
                Ok((contract, input))
            }
            Err(error) => Err(Start::New(input).failed(error)),
        }
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent")
            .field("models", &self.0.models)
            .field("tools", &self.0.registry)
            .field("strategy", &self.0.spec.strategy)
            .finish_non_exhaustive()
    }
}
