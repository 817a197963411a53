//! What a run begins with.

use peregrine_core::{Message, Messages, RunId, Scope};
use peregrine_tools::Cancellation;

use crate::Budget;
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
    /// What of the run survives, where the agent keeps runs; that of the store if it is not said.
    #[cfg(feature = "checkpoints")]
    pub durability: Option<peregrine_checkpoints::Durability>,
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

    /// Stops the run when this is cancelled. What was done until then is in the error.
    #[must_use]
    pub fn with_cancellation(mut self, cancellation: Cancellation) -> Self {
        self.cancellation = cancellation;
        self
    }

    /// Says what of the run survives, where the agent keeps runs ([`Agent::with_checkpoints`](crate::Agent::with_checkpoints)).
    #[cfg(feature = "checkpoints")]
    #[must_use]
    pub fn with_durability(mut self, durability: peregrine_checkpoints::Durability) -> Self {
        self.durability = Some(durability);
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
}

impl Resumption {
    /// Draws on a budget, as a child of it.
    #[must_use]
    pub fn with_budget(mut self, budget: Budget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Stops the run when this is cancelled. What was done until then is in the error.
    #[must_use]
    pub fn with_cancellation(mut self, cancellation: Cancellation) -> Self {
        self.cancellation = cancellation;
        self
    }
}

impl From<Run> for Resumption {
    fn from(run: Run) -> Self {
        Self {
            run,
            budget: None,
            cancellation: Cancellation::never(),
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
