//! How much a call to a model is expected to use, and may use at most.
//!
//! Algorithm: the sizes of a thread's messages are added up as they come, so that a call costs as much as it has new
//! messages. The output is bounded by the request's own limit or by the model's.

use std::collections::BTreeMap;
use std::sync::Arc;

use peregrine_core::{ChatRequest, Cost, ModelInfo, Price, PriceTable, ToolSpec, Usage};

use crate::agent::Inner;
use crate::budget::{Budget, BudgetLimits, Estimate, Overshoot, Reservation, Spent};
use crate::error::ConfigProblem;
use crate::tokens;

/// How many tokens an answer is expected to have if nothing else is known.
const OUTPUT_TOKENS: u64 = 512;

/// The sizes of what threads have sent.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    threads: BTreeMap<u32, Size>,
    tools: Option<(Arc<[ToolSpec]>, u64, u64)>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Size {
    messages: usize,
    tokens: u64,
    /// `None` if something has no known bound.
    at_most: Option<u64>,
}

impl Sizes {
    pub(super) fn estimate(
        &mut self,
        thread: u32,
        is_cut: bool,
        request: &ChatRequest,
        model: &ModelInfo,
        prices: Option<&PriceTable>,
    ) -> Estimate {
        let (tools, tools_at_most) = self.tools(&request.tools);
        let size = self.threads.entry(thread).or_insert(Size::EMPTY);
        if is_cut || size.messages > request.messages.len() {
            *size = Size::EMPTY;
        }
        for message in request.messages.iter().skip(size.messages) {
            size.tokens = size.tokens.saturating_add(tokens::estimate(message));
            size.at_most = size
                .at_most
                .zip(tokens::tokens_at_most(message))
                .map(|(sum, most)| sum.saturating_add(most));
        }
        size.messages = request.messages.len();
        let input = size.tokens.saturating_add(tools);
        let input_at_most = size.at_most.map(|most| most.saturating_add(tools_at_most));

        let bound = request.sampling.max_tokens.map(u64::from);
        let output_at_most = bound.or(model.capabilities().max_output_tokens.map(u64::from));
        let output = output_at_most.map_or(OUTPUT_TOKENS, |most| most.min(OUTPUT_TOKENS));
        let price = prices.and_then(|prices| prices.price(model.provider(), model.model()));
        let at_most = input_at_most.zip(output_at_most);
        Estimate {
            tokens: input.saturating_add(output),
            tokens_at_most: at_most.map(|(input, output)| input.saturating_add(output)),
            cost: price.map_or(Cost::Unpriced, |price| {
                Cost::Priced(price.cost(&Usage::new(input, output)))
            }),
            cost_at_most: price
                .zip(at_most)
                .map(|(price, (input, output))| dearest(price, input, output)),
            tool_calls: 0,
        }
    }

    fn tools(&mut self, specs: &Arc<[ToolSpec]>) -> (u64, u64) {
        if let Some((known, tokens, at_most)) = &self.tools
            && Arc::ptr_eq(known, specs)
        {
            return (*tokens, *at_most);
        }
        let tokens = specs.iter().map(tokens::estimate_tool).sum();
        let at_most = specs.iter().map(tokens::tool_at_most).sum();
        self.tools = Some((Arc::clone(specs), tokens, at_most));
        (tokens, at_most)
    }
}

impl Size {
    const EMPTY: Self = Self {
        messages: 0,
        tokens: 0,
        at_most: Some(0),
    };
}

/// What a call costs if its whole prompt is charged at the highest of its prices.
fn dearest(price: &Price, input: u64, output: u64) -> peregrine_core::NanoUsd {
    let highest = price.input.max(price.cache_write.unwrap_or(price.input));
    Price::per_million(highest, price.output).cost(&Usage::new(input, output))
}

/// What is set aside for a call. Given back if the call is not begun; from then on charged, whatever becomes of the call:
/// one that is cancelled half way has used something too.
pub(super) struct Held {
    reservation: Option<Reservation>,
    /// What is charged if nobody says more.
    begun: Option<Spent>,
}

impl Held {
    pub(super) fn new(reservation: Reservation) -> Self {
        Self {
            reservation: Some(reservation),
            begun: None,
        }
    }

    /// The call is begun, and charged with this unless it is settled or released.
    pub(super) fn begin(&mut self, spent: Spent) {
        self.begun = Some(spent);
    }

    /// What is expected of a model's call that says nothing of its use.
    pub(super) fn expected(&self) -> Spent {
        match &self.reservation {
            Some(reservation) => {
                let estimate = reservation.estimate();
                Spent::tokens(estimate.tokens).with_cost(estimate.cost)
            }
            None => Spent::nothing(),
        }
    }

    /// The call ended, and is known to have used this.
    pub(super) fn settle(mut self, spent: Spent) -> Vec<Overshoot> {
        match self.reservation.take() {
            Some(reservation) => reservation.settle(spent).overshoot().to_vec(),
            None => Vec::new(),
        }
    }

    /// The call ended, and is known to have used nothing.
    pub(super) fn release(mut self) {
        self.begun = None;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some((reservation, spent)) = self.reservation.take().zip(self.begun) {
            let _ = reservation.settle(spent);
        }
    }
}

impl Inner {
    /// The budget of one run: a child of what it is part of, of what the agent's runs share, or on its own. Where a run
    /// is to draw on two, one must be part of the other: drawing on that one is drawing on both.
    pub(super) fn budget_of_run(&self, parent: Option<Budget>) -> Result<Option<Budget>, ConfigProblem> {
        let limits = self.budget_limits;
        let drawn_on = match (parent, &self.budget) {
            (None, None) if limits == BudgetLimits::default() => return Ok(None),
            (None, None) => return Ok(Some(Budget::named("run", limits))),
            (Some(one), None) => one,
            (None, Some(one)) => one.clone(),
            (Some(parent), Some(shared)) if parent.is_within(shared) => parent,
            (Some(parent), Some(shared)) if shared.is_within(&parent) => shared.clone(),
            (Some(parent), Some(shared)) => {
                return Err(ConfigProblem::TwoBudgets {
                    input: parent.name().to_string(),
                    shared: shared.name().to_string(),
                });
            }
        };
        Ok(Some(drawn_on.child_named("run", limits)))
    }
}
