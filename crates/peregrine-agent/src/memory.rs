//! What is remembered from run to run.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use peregrine_core::{Message, Result, Role, RunId, Scope};

/// Gives a run what was said before, and takes what is said in it.
///
/// An agent with a memory asks it before the first call to a model and tells it after the answer. A memory that fails is
/// not passed over: the run ends with its error, which holds the answer if there was one.
#[async_trait]
pub trait Memory: Send + Sync + 'static {
    /// The messages that belong between what the agent is told and the input, oldest first.
    ///
    /// # Errors
    ///
    /// Whatever kept it from looking; the run ends with it.
    async fn load(&self, context: &MemoryContext, input: &[Arc<Message>]) -> Result<Vec<Arc<Message>>>;

    /// Keeps what was said in a run: its input, the answers, the calls of tools and their results.
    ///
    /// # Errors
    ///
    /// Whatever kept it from keeping; the run ends with it.
    async fn save(&self, context: &MemoryContext, messages: &[Arc<Message>]) -> Result<()>;
}

/// Which run asks.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MemoryContext {
    /// The run.
    pub run: RunId,
    /// Whose it is. A memory keeps scopes apart.
    pub scope: Option<Scope>,
}

/// A memory of the latest turns, in this process. One for each scope, and one for runs without a scope.
///
/// Bounded: at most so many turns of each scope, and at most [`MAX_SCOPES`](Self::MAX_SCOPES) scopes, of which the least
/// recently used is forgotten.
pub struct TurnMemory {
    max_turns: usize,
    /// Least recently used first.
    scopes: Mutex<VecDeque<(Option<Scope>, Turns)>>,
}

/// The turns of a scope, oldest first.
type Turns = VecDeque<Vec<Arc<Message>>>;

impl TurnMemory {
    /// The most scopes that are kept.
    pub const MAX_SCOPES: usize = 1_024;

    /// Keeps the newest `max_turns` turns: a message of the user, and all that follows until the next one.
    pub fn new(max_turns: usize) -> Self {
        Self {
            max_turns,
            scopes: Mutex::default(),
        }
    }

    fn with_turns<T>(&self, scope: Option<&Scope>, use_it: impl FnOnce(&mut Turns) -> T) -> T {
        let mut scopes = self.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        let place = scopes.iter().position(|(known, _)| known.as_ref() == scope);
        let (scope, mut turns) = match place.and_then(|place| scopes.remove(place)) {
            Some(found) => found,
            None => (scope.cloned(), VecDeque::new()),
        };
        let used = use_it(&mut turns);
        if !turns.is_empty() {
            if scopes.len() == Self::MAX_SCOPES {
                scopes.pop_front();
            }
            scopes.push_back((scope, turns));
        }
        used
    }
}

#[async_trait]
impl Memory for TurnMemory {
    async fn load(&self, context: &MemoryContext, _: &[Arc<Message>]) -> Result<Vec<Arc<Message>>> {
        Ok(self.with_turns(context.scope.as_ref(), |turns| {
            let mut all = Vec::with_capacity(turns.iter().map(Vec::len).sum());
            all.extend(turns.iter().flatten().map(Arc::clone));
            all
        }))
    }

    async fn save(&self, context: &MemoryContext, messages: &[Arc<Message>]) -> Result<()> {
        self.with_turns(context.scope.as_ref(), |turns| {
            for message in messages {
                // A turn never begins with what belongs to the one before.
                if message.role == Role::User || turns.is_empty() {
                    turns.push_back(Vec::new());
                }
                if let Some(turn) = turns.back_mut() {
                    turn.push(Arc::clone(message));
                }
            }
            while turns.len() > self.max_turns {
                turns.pop_front();
            }
        });
        Ok(())
    }
}

impl fmt::Debug for TurnMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurnMemory")
            .field("max_turns", &self.max_turns)
            .finish_non_exhaustive()
    }
}
