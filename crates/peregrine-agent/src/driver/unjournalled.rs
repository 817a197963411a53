//! What a driver does about journals where the feature `checkpoints` is off: nothing, at no cost.

use std::task::{Context, Poll};

use peregrine_core::{ChatResponse, Cost, Message, Scope, Usage};

use super::Driver;
use super::start::Start;
use crate::agent::Inner;
use crate::budget::{Budget, Estimate};
use crate::error::{ConfigProblem, Error};
use crate::run::{CallId, Event};

/// There is none.
pub(super) enum Log {}

impl Log {
    #[allow(
        clippy::unnecessary_wraps,
        reason = "the form of the one that there is with the feature"
    )]
    pub(super) fn of(
        _: &Inner,
        _: &Start,
        _: peregrine_core::RunId,
        _: Option<&Scope>,
    ) -> Result<Option<Box<Self>>, ConfigProblem> {
        Ok(None)
    }
}

#[allow(
    clippy::unused_self,
    reason = "the form of those that there are with the feature"
)]
impl Driver {
    pub(super) fn poll_journal(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    pub(super) fn has_unwritten(&self) -> bool {
        false
    }

    pub(super) fn awaits_journal(&self) -> bool {
        false
    }

    pub(super) fn note_begun(&mut self, _: &[Message]) {}

    pub(super) fn note_unread(&mut self, _: Option<Usage>, _: Cost) {}

    pub(super) fn charge_lost(&mut self, _: u32, _: &Budget, _: &Estimate) {}

    pub(super) fn record(&mut self, _: Event) {}

    pub(super) fn unhold(&mut self, _: &[CallId]) {}

    pub(super) fn unhold_all(&mut self) {}

    pub(super) fn key_of(&self, call: CallId) -> String {
        format!("{}/{call}", self.run_id)
    }

    pub(super) fn close_journal(&mut self, _: &Result<ChatResponse, Error>) -> bool {
        false
    }
}
