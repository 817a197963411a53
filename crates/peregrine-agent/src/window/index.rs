//! What is shown of one conversation, as groups with their tokens.
//!
//! Invariants: the groups are in the conversation's order and touch each other, but for a gap behind the first one, which
//! then is the user message of the current turn; the last group ends where the conversation was read to; the list of
//! what is shown exists once something was cut, and is the leading system messages and the groups.

use std::collections::VecDeque;
use std::sync::Arc;

use peregrine_core::{Message, Messages, Role};

use super::{Cut, Kept, Window, WindowTooSmall, holds_results, starts_turn};
use crate::tokens;

#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    /// How many system messages lead.
    head: usize,
    head_tokens: u64,
    groups: VecDeque<Group>,
    /// Sums over the groups.
    tokens: u64,
    turns: usize,
    /// How many messages of the conversation were read, and the last of them.
    read: usize,
    last: Option<Arc<Message>>,
    shown: Option<Messages>,
}

/// A message, and the results that follow it.
#[derive(Debug, Clone, Copy)]
struct Group {
    start: usize,
    end: usize,
    tokens: u64,
    starts_turn: bool,
}

/// Which groups go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// So many from the front.
    front: usize,
    /// And then so many behind the first of those that stay.
    inner: usize,
}

impl Index {
    /// Of a conversation of which nothing was cut.
    pub(super) fn of(messages: &Messages) -> Self {
        let mut index = Self::default();
        index.extend(messages);
        index
    }

    /// Of a conversation that was cut before; `None` if it cannot have been cut like that.
    pub(super) fn restored(kept: Kept, messages: &Messages) -> Option<Self> {
        let Kept { from, user } = kept;
        let mut index = Self {
            shown: Some(Messages::new()),
            ..Self::default()
        };
        while messages
            .get(index.read)
            .is_some_and(|message| message.role == Role::System)
        {
            index.push(messages);
        }
        let first = messages.get(from)?;
        if from <= index.head || holds_results(first) {
            return None;
        }
        let turn_starts_in =
            |mut range: std::ops::Range<usize>| range.any(|at| messages.get(at).is_some_and(starts_turn));
        match user {
            Some(user) => {
                let in_order =
                    (index.head..from).contains(&user) && messages.get(user).is_some_and(starts_turn);
                if !in_order || turn_starts_in(user + 1..from + 1) {
                    return None;
                }
                index.read = user;
                index.push(messages);
                while index.read < from && messages.get(index.read).is_some_and(holds_results) {
                    index.push(messages);
                }
            }
            None if !starts_turn(first) && turn_starts_in(index.head..from) => return None,
            None => {}
        }
        index.read = from;
        index.extend(messages);
        Some(index)
    }

    /// Whether `messages` are those that were read, maybe with more behind them.
    pub(super) fn is_of(&self, messages: &Messages) -> bool {
        let Some(last) = &self.last else {
            return self.read == 0;
        };
        messages
            .get_shared(self.read - 1)
            .is_some_and(|message| Arc::ptr_eq(message, last) || message == last)
    }

    /// Reads the rest of the conversation.
    pub(super) fn extend(&mut self, messages: &Messages) {
        while self.read < messages.len() {
            self.push(messages);
        }
    }

    /// Reads one message.
    fn push(&mut self, messages: &Messages) {
        let at = self.read;
        let Some(message) = messages.get_shared(at) else {
            return;
        };
        self.read = at + 1;
        self.last = Some(message.clone());
        if let Some(shown) = &mut self.shown {
            shown.push(message.clone());
        }
        let tokens = tokens::estimate(message);
        if self.groups.is_empty() && at == self.head && message.role == Role::System {
            self.head += 1;
            self.head_tokens = self.head_tokens.saturating_add(tokens);
            return;
        }
        self.tokens = self.tokens.saturating_add(tokens);
        match self.groups.back_mut() {
            Some(group) if group.end == at && holds_results(message) => {
                group.end += 1;
                group.tokens = group.tokens.saturating_add(tokens);
            }
            _ => {
                let starts_turn = starts_turn(message);
                self.turns += usize::from(starts_turn);
                self.groups.push_back(Group {
                    start: at,
                    end: at + 1,
                    tokens,
                    starts_turn,
                });
            }
        }
    }

    /// What has to go for the window.
    pub(super) fn plan(&self, window: &Window) -> Result<Plan, WindowTooSmall> {
        match *window {
            Window::All => Ok(Plan::default()),
            Window::LastTurns { turns, slack } => Ok(self.plan_turns(turns, slack)),
            Window::Tokens { budget, keep } => self.plan_tokens(budget, keep.min(budget)),
        }
    }

    fn plan_turns(&self, turns: u32, slack: u32) -> Plan {
        let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let keep = count(turns.max(1));
        if self.turns <= keep.saturating_add(count(slack)) {
            return Plan::default();
        }
        let mut starts = (0..).zip(&self.groups).filter(|(_, group)| group.starts_turn);
        let first = starts.nth(self.turns - keep).map_or(0, |(place, _)| place);
        Plan {
            front: first,
            inner: 0,
        }
    }

    fn plan_tokens(&self, budget: u64, keep: u64) -> Result<Plan, WindowTooSmall> {
        let mut plan = Plan::default();
        let mut left = self.head_tokens.saturating_add(self.tokens);
        if left <= budget {
            return Ok(plan);
        }
        // The sum may be capped; what is subtracted below never is more than it holds then.
        let current = self.groups.iter().rposition(|group| group.starts_turn);
        let turn = current.unwrap_or_default();
        while left > keep && plan.front < turn {
            // A whole turn: up to the next one that starts.
            loop {
                left = left.saturating_sub(self.groups[plan.front].tokens);
                plan.front += 1;
                if self.groups[plan.front].starts_turn {
                    break;
                }
            }
        }
        let behind_user = turn + usize::from(current.is_some());
        let newest = self.groups.len().saturating_sub(1);
        while left > keep && plan.front == turn && behind_user + plan.inner < newest {
            left = left.saturating_sub(self.groups[behind_user + plan.inner].tokens);
            plan.inner += 1;
        }
        if left > budget {
            return Err(WindowTooSmall { needed: left, budget });
        }
        if current.is_none() {
            // Without a user message there is nothing that must stay in front.
            plan = Plan {
                front: plan.inner,
                inner: 0,
            };
        }
        Ok(plan)
    }

    /// Lets go what the plan says.
    pub(super) fn cut(&mut self, plan: &Plan, messages: &Messages) -> Option<Cut> {
        let Plan { front, inner } = *plan;
        let first = usize::from(inner > 0);
        let gone: Vec<Group> = self.groups.drain(..front).collect();
        let gone: Vec<Group> = gone
            .into_iter()
            .chain(self.groups.drain(first..first + inner))
            .collect();
        let (from, to) = (gone.first()?.start, gone.last()?.end);
        for group in &gone {
            self.turns -= usize::from(group.starts_turn);
        }
        // Not by subtraction: a capped sum would stay wrong.
        self.tokens = self
            .groups
            .iter()
            .map(|group| group.tokens)
            .fold(0, u64::saturating_add);
        let shown = (0..self.head).chain(self.groups.iter().flat_map(|group| group.start..group.end));
        let mut list = Messages::new();
        for message in shown.filter_map(|at| messages.get_shared(at)) {
            list.push(message.clone());
        }
        self.shown = Some(list);
        Some(Cut {
            from,
            to,
            dropped: gone.iter().map(|group| group.end - group.start).sum(),
        })
    }

    /// What is shown; `None` is the conversation itself.
    pub(super) fn shown(&self) -> Option<&Messages> {
        self.shown.as_ref()
    }

    /// What a cut left, to be remembered.
    pub(super) fn kept(&self) -> Option<Kept> {
        self.shown.as_ref()?;
        let first = self.groups.front()?;
        let gap = self.groups.get(1).filter(|second| second.start != first.end);
        Some(match gap {
            Some(second) => Kept {
                from: second.start,
                user: Some(first.start),
            },
            None => Kept {
                from: first.start,
                user: None,
            },
        })
    }
}
