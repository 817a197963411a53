//! Calls to models: reserve, ask, settle; whole or piece by piece.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::stream;
use peregrine_core::{
    ChatEvent, ChatModel as _, ChatRequest, ChatResponse, ChatStream, Cost, Error as ModelError, ErrorKind,
    Fold, ModelHandle, PriceTable, Usage,
};
use peregrine_signatures::{ANSWER_TOOL, Contract, EventReader, FieldEvent, Violation};

use crate::budget::{Budget, Estimate, LimitReached, Spent};
use crate::driver::budgets::{Held, Sizes};
use crate::driver::ops::{Done, Operation, Outcome, Read, Told};
use crate::event::RunEvent;
use crate::hooks::BoundHooks;
use crate::run::{CallId, Event, Failure, Veto};

/// A call to a model, with all that it needs.
pub(super) struct ModelOp {
    pub(super) call: CallId,
    pub(super) thread: u32,
    pub(super) model: ModelHandle,
    pub(super) request: ChatRequest,
    /// The form of the answer, if it has one.
    pub(super) contract: Option<Contract>,
    pub(super) hooks: Option<BoundHooks>,
    /// The turn of this thread that ends where this one begins.
    pub(super) ends: Option<u32>,
    pub(super) budget: Option<(Budget, Estimate)>,
    pub(super) prices: Option<Arc<PriceTable>>,
}

/// Why a call has no answer.
enum Failed {
    Model(ModelError),
    Vetoed(Veto),
    Limit(LimitReached),
    /// It had one, which a guard refused.
    Refused(Veto, Option<Usage>, Cost),
}

impl From<ModelError> for Failed {
    fn from(error: ModelError) -> Self {
        Self::Model(error)
    }
}

impl From<Veto> for Failed {
    fn from(veto: Veto) -> Self {
        Self::Vetoed(veto)
    }
}

impl ModelOp {
    /// Asks for the whole answer.
    pub(super) fn complete(self) -> Operation {
        Box::pin(stream::once(self.completed()))
    }

    async fn completed(mut self) -> Told {
        if self.hooks.is_none() && self.budget.is_none() {
            let answered = self.model.complete(&self.request).await;
            return self.done(answered.map_err(Failed::Model), None, None);
        }
        // Boxed: with hooks and budgets it is several times as large as without.
        Box::pin(async move {
            let mut held = None;
            let answered = async {
                held = self.begin().await?;
                let response = self.model.complete(&self.request).await?;
                self.looked_at(response, &mut held).await
            }
            .await;
            self.done(answered, held, None)
        })
        .await
    }

    /// Asks for the answer piece by piece.
    pub(super) fn stream(self) -> Operation {
        Box::pin(stream::unfold(Some(Streaming::new(self)), |streaming| async {
            let mut streaming = streaming?;
            loop {
                if let Some(event) = streaming.ready.pop_front() {
                    return Some((Told::Event(event), Some(streaming)));
                }
                match streaming.advance().await {
                    Ok(false) => {}
                    Ok(true) if !streaming.ready.is_empty() => {}
                    Ok(true) => return Some((streaming.finish().await, None)),
                    Err(failed) => return Some((streaming.fail(failed), None)),
                }
            }
        }))
    }

    async fn begin(&mut self) -> Result<Option<Held>, Failed> {
        if let Some(hooks) = &self.hooks {
            if let Some(turn) = self.ends {
                hooks.at(self.thread, turn).after_turn().await?;
            }
            hooks.before_turn().await?;
            hooks.before_model(&mut self.request).await?;
            if let Some((_, estimate)) = self.budget.as_mut().filter(|_| hooks.may_change()) {
                let (info, prices) = (self.model.info(), self.prices.as_deref());
                *estimate = Sizes::default().estimate(self.thread, false, &self.request, info, prices);
            }
        }
        let Some((budget, estimate)) = &self.budget else {
            return Ok(None);
        };
        let mut held = Held::new(budget.reserve(estimate).await.map_err(Failed::Limit)?);
        // From here on the provider may charge for it, whether its answer is awaited or not.
        held.begin(held.expected());
        Ok(Some(held))
    }

    /// The hooks look at an answer. Those of a turn too, if it ends with this answer.
    async fn looked_at(
        &self,
        mut response: ChatResponse,
        held: &mut Option<Held>,
    ) -> Result<ChatResponse, Failed> {
        let Some(hooks) = &self.hooks else {
            return Ok(response);
        };
        let (usage, cost) = (response.usage, self.cost(&response));
        if let Some(held) = held {
            held.begin(spent(usage, cost, held));
        }
        let looked = async {
            hooks.after_model(&mut response).await?;
            match ends_turn(&response) {
                true => hooks.after_turn().await,
                false => Ok(()),
            }
        };
        match looked.await {
            Ok(()) => Ok(response),
            Err(veto) => Err(Failed::Refused(veto, usage, cost)),
        }
    }

    fn done(&self, answered: Result<ChatResponse, Failed>, held: Option<Held>, read: Option<Read>) -> Told {
        let call = self.call;
        let (mut failed, mut overshoot, mut unread) = (None, Vec::new(), None);
        let event = match answered {
            Ok(response) => {
                let cost = self.cost(&response);
                if let Some(held) = held {
                    let spent = spent(response.usage, cost, &held);
                    overshoot = held.settle(spent);
                }
                Event::ModelAnswered {
                    call,
                    outcome: Ok(Box::new(response)),
                    cost,
                }
            }
            Err(Failed::Model(error)) => {
                if let Some(held) = held.filter(|_| !may_cost(error.kind())) {
                    held.release();
                }
                let failure = Failure::from(&error);
                failed = Some(error);
                Event::ModelAnswered {
                    call,
                    outcome: Err(failure),
                    cost: Cost::Unpriced,
                }
            }
            Err(Failed::Refused(veto, usage, cost)) => {
                if let Some(held) = held {
                    let spent = spent(usage, cost, &held);
                    overshoot = held.settle(spent);
                }
                unread = Some((usage, cost));
                // The call was made, so the run keeps it in its count.
                Event::Vetoed { call: None, veto }
            }
            Err(Failed::Vetoed(veto)) => Event::Vetoed {
                call: Some(call),
                veto,
            },
            Err(Failed::Limit(limit)) => Event::LimitReached {
                call: Some(call),
                limit,
            },
        };
        Told::Done(Box::new(Done {
            outcome: Outcome::Event(event),
            error: failed,
            read,
            overshoot,
            unread,
        }))
    }

    fn cost(&self, response: &ChatResponse) -> Cost {
        let info = self.model.info();
        match &self.prices {
            None => Cost::Unpriced,
            Some(prices) => prices.cost(info.provider(), info.model(), response.usage.as_ref()),
        }
    }
}

/// What a call used. A provider that does not say so is charged what was estimated.
fn spent(usage: Option<Usage>, cost: Cost, held: &Held) -> Spent {
    match usage {
        Some(usage) => Spent::tokens(usage.total_tokens()).with_cost(cost),
        None => held.expected(),
    }
}

/// Whether a provider may have answered, and charge for it, although this side got no answer.
fn may_cost(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Connection
            | ErrorKind::Timeout
            | ErrorKind::Protocol
            | ErrorKind::Truncated
            | ErrorKind::ResponseTooLarge
            | ErrorKind::Cancelled
    )
}

/// Whether nothing follows in a turn: an answer that calls no tools, or only gives itself by one.
pub(super) fn ends_turn(response: &ChatResponse) -> bool {
    response.tool_calls().all(|call| call.name == ANSWER_TOOL)
}

/// A streamed answer that is under way.
struct Streaming {
    op: ModelOp,
    held: Option<Held>,
    events: Option<ChatStream>,
    fold: Fold,
    reader: Option<EventReader>,
    misfit: Option<Violation>,
    told: Vec<FieldEvent>,
    ready: VecDeque<RunEvent>,
}

impl Streaming {
    fn new(op: ModelOp) -> Self {
        Self {
            op,
            held: None,
            events: None,
            fold: Fold::new(),
            reader: None,
            misfit: None,
            told: Vec::new(),
            ready: VecDeque::new(),
        }
    }

    /// Waits for one event of the model and takes it in; whether it was the last.
    async fn advance(&mut self) -> Result<bool, Failed> {
        if self.misfit.is_some() {
            return Ok(true);
        }
        let Some(events) = &mut self.events else {
            self.held = self.op.begin().await?;
            self.reader = self
                .op
                .contract
                .as_ref()
                .map(|contract| contract.reader(&self.op.request));
            self.events = Some(self.op.model.stream(&self.op.request).await?);
            return Ok(false);
        };
        let Some(event) = events.next().await else {
            if self.fold.is_done() {
                return Ok(true);
            }
            return Err(ModelError::truncated("the stream ended without its end event").into());
        };
        let event = event?;
        let thread = self.op.thread;
        match &event {
            ChatEvent::TextDelta { text } => self.ready.push_back(RunEvent::Text {
                thread,
                text: text.clone(),
            }),
            ChatEvent::ReasoningDelta { text } => self.ready.push_back(RunEvent::Reasoning {
                thread,
                text: text.clone(),
            }),
            _ => {}
        }
        if let Some(reader) = &mut self.reader {
            let outcome = reader.push(&event, &mut self.told);
            self.ready
                .extend(self.told.drain(..).map(|told| field(thread, told)));
            self.misfit = outcome.err();
        }
        self.fold.push(event)?;
        if self.misfit.is_some() && !self.fold.is_done() {
            // Dropped here, which ends the call: the rest would not be of any use.
            self.events = None;
            return Ok(true);
        }
        // Also behind the last event: a connection is used again only if it was read to its end.
        Ok(false)
    }

    async fn finish(mut self) -> Told {
        let fold = std::mem::take(&mut self.fold);
        let (response, mut read) = match (fold.is_done(), self.misfit, &self.op.contract) {
            (false, Some(misfit), Some(contract)) => {
                let mut response = contract.cut_short(fold.partial());
                // What it says of its use by then is not what is charged for it.
                response.usage = None;
                (Ok(response), Some(Read::UpTo(misfit)))
            }
            _ => (
                fold.finish(),
                self.reader.map(|reader| Read::Whole(Box::new(reader))),
            ),
        };
        let answered = match response {
            Ok(response) => {
                let may_change = self.op.hooks.as_ref().is_some_and(BoundHooks::may_change);
                let before = may_change.then(|| response.message.clone());
                let looked_at = self.op.looked_at(response, &mut self.held).await;
                // What was read as it came is not what a guard put in its place.
                if let (Ok(response), Some(before)) = (&looked_at, before)
                    && response.message != before
                {
                    read = None;
                }
                looked_at
            }
            Err(error) => Err(error.into()),
        };
        self.op.done(answered, self.held, read)
    }

    /// The call failed on its way. What had come by then was charged for, whatever the reason.
    fn fail(self, failed: Failed) -> Told {
        let partial = self.fold.partial();
        let has_come = partial.usage.is_some() || !partial.message.parts.is_empty();
        // Dropped, it is charged as expected; handed on, it is given back where the error says so.
        self.op.done(Err(failed), self.held.filter(|_| !has_come), None)
    }
}

/// A field's event as one of the run's.
pub(super) fn field(thread: u32, told: FieldEvent) -> RunEvent {
    match told {
        FieldEvent::Partial { path, text } => RunEvent::FieldText { thread, path, text },
        FieldEvent::Completed { path, value } => RunEvent::FieldCompleted { thread, path, value },
        FieldEvent::Restarted { problem } => RunEvent::Rejected {
            thread,
            problem: problem.to_string(),
        },
        // A kind of event that is newer than this.
        _ => RunEvent::Rejected {
            thread,
            problem: "an event of the signature that is not known here".to_owned(),
        },
    }
}
