//! Forks: a run that goes on from a record of another, differently.

use peregrine_core::{Message, ToolResult};
use serde::{Deserialize, Serialize};

use crate::durable::fold::Folded;
use crate::run::Limits;

/// What a fork does differently, as it is journalled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Change {
    /// The model is told this before everything else.
    Instructions {
        /// System messages.
        head: Vec<Message>,
    },
    /// The agent has so many models, and the next to be asked is this one.
    Models {
        /// How many there are.
        models: u32,
        /// Which is asked; the others are its fallbacks, if they stand behind it.
        first: u32,
    },
    /// A tool returned something else.
    ToolResult {
        /// The model's id of the call.
        call_id: String,
        /// What it returned.
        result: ToolResult,
    },
    /// Other bounds.
    Limits {
        /// The bounds.
        limits: Limits,
    },
    /// Something else was asked.
    Input {
        /// The messages, oldest first.
        input: Vec<Message>,
    },
}

impl Folded {
    /// Makes a change, or says why it makes no sense here.
    pub(crate) fn amend(&mut self, change: Change) -> Result<(), String> {
        match change {
            Change::Input { input } if !self.run.has_begun() => {
                self.input = Some(input);
                Ok(())
            }
            change => self.run.amend(change),
        }
    }
}
