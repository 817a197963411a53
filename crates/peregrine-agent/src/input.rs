//! What a run begins with.

use peregrine_core::{Message, Messages, RunId, Scope};
use peregrine_interrupts::Scope as InterruptScope;
use peregrine_tools::{Cancellation, ToolContext};

use crate::Budget;
use crate::interrupts::ToolScope as _;
use crate::run::Run;

/// What a run begins with: what is asked, what was said before, and whose run it is.
///
/// # Examples
///
/// ```
/// use peregrine_agent::Input;
/// use peregrine_core::{Message, Scope};
///
/// let short = Input::from("What is new?");
/// let long = Input::new([Message::user("I am Ada."), Message::assistant("Hello Ada.")])
///     .with_user("Who am I?")
///     .with_scope(Scope::new("acme", "chat-7")?);
/// # Ok::<(), peregrine_core::InvalidId>(())
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Input {
    /// The messages, oldest first.
    pub messages: Vec<Message>,
    /// The id of the run; made up if there is none.
    pub run_id: Option<RunId>,
    /// Whose run it is; the agent's scope if there is none.
    pub scope: Option<Scope>,
    /// What the run draws on, besides the agent's own limits: the budget of the run or request that it is part of.
    pub budget: Option<Budget>,
    /// Stops the run at once, and everything below it.
    pub cancellation: Cancellation,
    /// What the run and everything below it can be stopped through, gracefully or immediately.
    pub interrupts: Option<InterruptScope>,
}

impl Input {
    /// These messages, oldest first.
    pub fn new(messages: impl IntoIterator<Item = Message>) -> Self {
        Self {
            messages: messages.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Adds what the user says.
    #[must_use]
    pub fn with_user(mut self, text: impl Into<String>) -> Self {
        self.messages.push(Message::user(text));
        self
    }

    /// Adds a message.
    #[must_use]
    pub fn with_message(mut self, message: Message) -> Self {
        self.messages.push(message);
        self
    }

    /// Sets the id of the run.
    #[must_use]
    pub fn with_run_id(mut self, id: RunId) -> Self {
        self.run_id = Some(id);
        self
    }

    /// Says whose run it is.
    #[must_use]
    pub fn with_scope(mut self, scope: Scope) -> Self {
        self.scope = Some(scope);
        self
    }

    /// Draws on a budget, as a child of it.
    #[must_use]
    pub fn with_budget(mut self, budget: Budget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Stops the run at once when this is cancelled. What was done until then is in the error.
    #[must_use]
    pub fn with_cancellation(mut self, cancellation: Cancellation) -> Self {
        self.cancellation = cancellation;
        self
    }

    /// Runs below a scope, which stops the run and everything below it: by hand, by a signal, by limits on time and on
    /// what is used (tokens, money, calls of models and tools are charged to it).
    ///
    /// A graceful interrupt lets the step finish that is under way; if that gives the answer, the run is complete, else
    /// its error holds the run, which can [go on](crate::Agent::resume). An immediate interrupt drops calls of models, and
    /// tools that can be called again; the rest is given the [grace period](crate::Agent::with_grace). A run under a scope
    /// that is interrupted already begins nothing. Child processes and tasks that are tied to the scopes of its tools
    /// ([`ToolScope`](crate::ToolScope)) end with the run at the latest.
    ///
    /// # Examples
    ///
    /// ```
    /// use peregrine_agent::{Agent, Error, Input, More};
    /// use peregrine_interrupts::{ManualTimer, Mode, Scope};
    /// # use peregrine_core::{ChatModel, ChatRequest, ChatResponse, ModelInfo};
    /// # struct Clerk(ModelInfo);
    /// # impl ChatModel for Clerk {
    /// #     fn info(&self) -> &ModelInfo { &self.0 }
    /// #     async fn complete(&self, _: &ChatRequest) -> peregrine_core::Result<ChatResponse> {
    /// #         Ok(ChatResponse::text("Good morning."))
    /// #     }
    /// # }
    /// # futures_util::FutureExt::now_or_never(async {
    /// # let agent = Agent::new(Clerk(ModelInfo::new("example", "clerk")));
    /// let server = Scope::root("server", ManualTimer::new());
    /// server.interrupt(Mode::Graceful);
    /// let stopped = agent.run(Input::from("Greet me.").with_interrupts(&server)).await.unwrap_err();
    /// let Error::Interrupted(interrupt) = stopped.error() else { panic!() };
    /// assert_eq!(interrupt.reason, "graceful interrupt of run `server`: asked to stop");
    ///
    /// // Later, elsewhere.
    /// let output = agent.resume(stopped.into_run()?, More::default()).await?;
    /// assert_eq!(output.text(), "Good morning.");
    /// # Ok::<(), peregrine_agent::RunError>(())
    /// # }).unwrap().unwrap();
    /// ```
    #[must_use]
    pub fn with_interrupts(mut self, scope: &InterruptScope) -> Self {
        self.interrupts = Some(scope.clone());
        self
    }

    /// Makes it a run inside of a call of a tool: what stops the call stops the run, which is for the same owner.
    ///
    /// See [`ToolScope`](crate::ToolScope) for an example.
    #[must_use]
    pub fn within(mut self, context: &ToolContext) -> Self {
        self.interrupts = context.interrupts().cloned();
        if self.interrupts.is_none() {
            self.cancellation = context.cancellation.clone();
        }
        if self.scope.is_none() {
            self.scope.clone_from(&context.scope);
        }
        self
    }
}

/// A stopped run that is to go on, and what it is part of now.
///
/// A [`Run`] alone is one that is part of nothing: it goes on within its agent's bounds, and is stopped by dropping the
/// future.
///
/// # Examples
///
/// ```
/// use peregrine_agent::run::RunSpec;
/// use peregrine_agent::{Budget, BudgetLimits, Resumption, Run};
///
/// let request = Budget::named("request", BudgetLimits::default().with_tokens(10_000));
/// let resumption = Resumption::from(Run::new(RunSpec::default())).with_budget(request);
/// assert!(resumption.budget.is_some());
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Resumption {
    /// The run.
    pub run: Run,
    /// What it draws on, besides the agent's own limits.
    pub budget: Option<Budget>,
    /// Stops the run at once, and everything below it.
    pub cancellation: Cancellation,
    /// What the run and everything below it can be stopped through, gracefully or immediately.
    pub interrupts: Option<InterruptScope>,
}

impl Resumption {
    /// Draws on a budget, as a child of it.
    #[must_use]
    pub fn with_budget(mut self, budget: Budget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Stops the run at once when this is cancelled. What was done until then is in the error.
    #[must_use]
    pub fn with_cancellation(mut self, cancellation: Cancellation) -> Self {
        self.cancellation = cancellation;
        self
    }

    /// Runs below a scope; see [`Input::with_interrupts`].
    #[must_use]
    pub fn with_interrupts(mut self, scope: &InterruptScope) -> Self {
        self.interrupts = Some(scope.clone());
        self
    }

    /// Goes on inside of a call of a tool; see [`Input::within`].
    #[must_use]
    pub fn within(mut self, context: &ToolContext) -> Self {
        self.interrupts = context.interrupts().cloned();
        if self.interrupts.is_none() {
            self.cancellation = context.cancellation.clone();
        }
        self
    }
}

impl From<Run> for Resumption {
    fn from(run: Run) -> Self {
        Self {
            run,
            budget: None,
            cancellation: Cancellation::never(),
            interrupts: None,
        }
    }
}

impl From<&str> for Input {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl From<String> for Input {
    fn from(text: String) -> Self {
        Self::from(Message::user(text))
    }
}

impl From<Message> for Input {
    fn from(message: Message) -> Self {
        Self {
            messages: vec![message],
            ..Self::default()
        }
    }
}

impl From<Vec<Message>> for Input {
    fn from(messages: Vec<Message>) -> Self {
        Self {
            messages,
            ..Self::default()
        }
    }
}

/// A conversation goes on: the messages of an earlier run, with what is asked now behind them. System messages among them
/// are left out, because the agent says its own.
impl From<&Messages> for Input {
    fn from(messages: &Messages) -> Self {
        let said = messages
            .iter()
            .filter(|message| message.role != peregrine_core::Role::System);
        Self::new(said.cloned())
    }
}
