//! History windows: which part of a conversation a model is shown.
//!
//! A window is a rule ([`Window`]); what it has come to for one conversation is its state ([`WindowState`]). The state
//! follows a conversation that only grows, and each [`View`] is a prefix of the next one until a cut is needed, so that
//! the provider's prompt cache and the codec's memo of the encoded prefix keep their worth. A cut is announced.
//!
//! Vocabulary, for messages behind the leading system messages (which are always shown):
//!
//! - A *user message* has the role of the user and holds no tool results.
//! - A *turn* is a user message and everything up to the next one. What stands before the first user message is a turn
//!   without one: it goes with the first cut.
//! - A *group* is a message and the results of tools that directly follow it (the only place where providers take them).
//!   A group is shown whole or not at all, so calls and their results stay together.
//!
//! Until the first cut a view is the conversation itself: a clone, which is one reference count. From then on the state
//! keeps the shown messages in a list of its own, shares the messages with the conversation, and pushes what is new.

mod index;

use peregrine_core::{Message, Messages, Part, Role};
use serde::{Deserialize, Serialize};

use index::Index;

/// Which part of a conversation is shown.
///
/// # Examples
///
/// ```
/// use peregrine_agent::Window;
///
/// let window = Window::last_turns(10).with_slack(5);
/// assert_eq!(window, Window::LastTurns { turns: 10, slack: 5 });
/// assert_eq!(Window::tokens(8_000), Window::Tokens { budget: 8_000, keep: 6_000 });
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Window {
    /// Everything.
    #[default]
    All,
    /// The newest turns.
    LastTurns {
        /// How many turns a cut leaves, the current one included; 0 is taken for 1.
        turns: u32,
        /// How many more there may be before a cut. Without slack, every turn cuts, and no turn finds the prompt of the
        /// last one in the provider's cache.
        #[serde(default)]
        slack: u32,
    },
    /// What fits into so many tokens, by the estimate of [`tokens`](crate::tokens).
    ///
    /// A cut drops whole turns, oldest first, and where the current turn alone is too long, its oldest groups. The current
    /// turn's user message and the newest group always stay.
    Tokens {
        /// What the messages of a view may have, leading system messages included.
        budget: u64,
        /// What a cut leaves at most, if that can be had; not more than `budget`.
        keep: u64,
    },
}

impl Window {
    /// Everything.
    pub const fn all() -> Self {
        Self::All
    }

    /// Exactly the newest turns.
    pub const fn last_turns(turns: u32) -> Self {
        Self::LastTurns { turns, slack: 0 }
    }

    /// What fits into so many tokens; a cut leaves three quarters.
    pub const fn tokens(budget: u64) -> Self {
        Self::Tokens {
            budget,
            keep: budget - budget / 4,
        }
    }

    /// Lets that many more turns pass between cuts. Changes nothing about windows that do not count turns.
    #[must_use]
    pub const fn with_slack(self, slack: u32) -> Self {
        match self {
            Self::LastTurns { turns, .. } => Self::LastTurns { turns, slack },
            other => other,
        }
    }

    /// Sets what a cut leaves. Changes nothing about windows that do not count tokens.
    #[must_use]
    pub const fn with_keep(self, keep: u64) -> Self {
        match self {
            Self::Tokens { budget, .. } => Self::Tokens { budget, keep },
            other => other,
        }
    }
}

/// What is shown, and whether what was shown before is its beginning.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// The messages.
    pub messages: Messages,
    /// The cut, if the view before is not a prefix of this one.
    pub cut: Option<Cut>,
}

/// That the beginning of the view changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// The first message that is not shown any more, by its place in the conversation.
    pub from: usize,
    /// The place behind the last one.
    pub to: usize,
    /// How many are not shown any more. Fewer than `to - from` where the current turn's user message stands among them;
    /// 0 where messages came back, because the window or the conversation was replaced.
    pub dropped: usize,
}

/// Not even the current turn's user message and the newest group fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error(
    "the history window has room for {budget} tokens, and what must be shown (instructions, the current question, the \
     newest step) has about {needed}: raise the window's budget, or make tools return less"
)]
pub struct WindowTooSmall {
    /// The estimated tokens of what must be shown.
    pub needed: u64,
    /// The window's budget.
    pub budget: u64,
}

/// What a window has come to over a conversation that only grows.
///
/// Serialised, it is the place of the cut. What else it knows is found again from there, once, and views go on as they
/// would have.
///
/// # Examples
///
/// ```
/// use peregrine_agent::{Window, WindowState};
/// use peregrine_core::{Message, Messages};
///
/// let mut conversation = Messages::from(vec![Message::system("Be brief."), Message::user("one")]);
/// let mut state = WindowState::new();
/// let window = Window::last_turns(1);
/// assert_eq!(state.apply(&window, &conversation)?.cut, None);
///
/// conversation.extend([Message::assistant("1"), Message::user("two")]);
/// let view = state.apply(&window, &conversation)?;
/// let shown: Vec<_> = view.messages.iter().map(Message::text).collect();
/// assert_eq!(shown, ["Be brief.", "two"]);
/// assert_eq!(view.cut.map(|cut| (cut.from, cut.to, cut.dropped)), Some((1, 3, 2)));
/// # Ok::<(), peregrine_agent::WindowTooSmall>(())
/// ```
///
/// # Performance
///
/// O(1) amortised for each message that was pushed since the last call, plus O(shown messages) for each cut (pointers,
/// not texts).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowState {
    /// What is left of the conversation; `None` is all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kept: Option<Kept>,
    /// How long the conversation was when it was looked at last.
    #[serde(default)]
    seen: usize,
    /// That the beginning changed, and no view has said so yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    replaced: bool,
    #[serde(skip)]
    index: Option<Index>,
}

/// What a cut left, beside the leading system messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// Everything from here on.
    from: usize,
    /// And the group of this user message, whose turn was cut in its middle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<usize>,
}

impl WindowState {
    /// Of a conversation that was not looked at yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What `window` shows of `messages`, which are those of the last call and maybe more.
    ///
    /// A conversation that is not the last one grown longer (it is shorter, or its message at the old end is another
    /// one) is looked at anew, and so is one that a restored state does not fit.
    ///
    /// # Errors
    ///
    /// [`WindowTooSmall`] if a window of tokens has no room for what must always be shown. The state is as before, and a
    /// larger window goes on from it.
    pub fn apply(&mut self, window: &Window, messages: &Messages) -> Result<View, WindowTooSmall> {
        let shrunk = messages.len() < self.seen;
        self.seen = messages.len();
        if *window == Window::All {
            self.replaced |= shrunk || self.kept.take().is_some();
            self.index = None;
            return Ok(View {
                messages: messages.clone(),
                cut: self.said(None),
            });
        }
        let mut index = self.follow(messages, shrunk);
        let planned = index.plan(window);
        let cut = planned.map(|plan| index.cut(&plan, messages));
        let shown = index.shown().unwrap_or(messages).clone();
        self.kept = index.kept();
        self.index = Some(index);
        Ok(View {
            messages: shown,
            cut: self.said(cut?),
        })
    }

    /// The index with what is new in the conversation; a new one if the conversation is another.
    fn follow(&mut self, messages: &Messages, shrunk: bool) -> Index {
        let had_index = self.index.is_some();
        let known = self.index.take().filter(|index| !shrunk && index.is_of(messages));
        if let Some(mut index) = known {
            index.extend(messages);
            return index;
        }
        match self.kept {
            Some(kept) if !shrunk && !had_index => {
                if let Some(index) = Index::restored(kept, messages) {
                    return index;
                }
                self.replaced = true;
            }
            _ => self.replaced |= shrunk || had_index,
        }
        Index::of(messages)
    }

    fn said(&mut self, cut: Option<Cut>) -> Option<Cut> {
        let replaced = std::mem::take(&mut self.replaced);
        cut.or(replaced.then_some(Cut {
            from: 0,
            to: 0,
            dropped: 0,
        }))
    }
}

/// Two states are equal if they go on alike.
impl PartialEq for WindowState {
    fn eq(&self, other: &Self) -> bool {
        (self.kept, self.seen, self.replaced) == (other.kept, other.seen, other.replaced)
    }
}

/// Whether a message holds results of tools, which belong to the message before.
fn holds_results(message: &Message) -> bool {
    message.role == Role::Tool
        || message
            .parts
            .iter()
            .any(|part| matches!(part, Part::ToolResult(_)))
}

/// Whether a message is the user's and begins a turn.
fn starts_turn(message: &Message) -> bool {
    message.role == Role::User && !holds_results(message)
}
