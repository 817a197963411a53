//! Which earlier request a request follows.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, VecDeque};
use std::hash::Hasher as _;

use super::json::unspaced;
use super::prompt::{Element, Prompt, Section};

/// How many conversations are searched for one whose beginning a request has lost.
const RECENT: usize = 32;

/// How many conversations that begin with the same user message are told apart.
const ALIKE: usize = 8;

/// The newest request of each conversation.
#[derive(Debug, Default)]
pub(super) struct Conversations<'a> {
    newest: Vec<Newest<'a>>,
    /// Conversations by their first user message (see [`key`]), the newest last.
    by_first: HashMap<u64, Vec<usize>>,
    /// The conversations that were spoken in lately, the newest last.
    recent: VecDeque<usize>,
}

#[derive(Debug)]
pub(super) struct Newest<'a> {
    /// The place of the request.
    pub(super) at: usize,
    pub(super) prompt: Prompt<'a>,
}

impl<'a> Conversations<'a> {
    /// The conversations that a request may go on with, the likeliest first.
    pub(super) fn candidates(&self, prompt: &Prompt<'_>) -> Vec<(usize, &Newest<'a>)> {
        let ids: Vec<usize> = match self.by_first.get(&key(prompt)) {
            Some(same_first) => same_first.iter().rev().copied().collect(),
            None => self
                .recent
                .iter()
                .rev()
                .copied()
                .find(|id| self.lost_beginning(*id, prompt))
                .into_iter()
                .collect(),
        };
        ids.into_iter().map(|id| (id, &self.newest[id])).collect()
    }

    /// Whether a request may be one of this conversation of which the first user message was dropped or edited.
    fn lost_beginning(&self, id: usize, prompt: &Prompt<'_>) -> bool {
        let Some(first) = first_user(prompt) else {
            return false;
        };
        let earlier = &self.newest[id].prompt;
        let mut messages = earlier
            .elements
            .iter()
            .filter(|element| element.section == Section::Messages);
        messages.any(|element| element.is(first))
            || second(prompt)
                .zip(second(earlier))
                .is_some_and(|(one, two)| one.is(two))
    }

    /// Makes a request the newest of its conversation; without one, of a new one.
    pub(super) fn put(&mut self, id: Option<usize>, at: usize, prompt: Prompt<'a>) {
        let id = id.unwrap_or(self.newest.len());
        if let Some(old) = self.newest.get(id).map(|newest| key(&newest.prompt))
            && let Some(ids) = self.by_first.get_mut(&old)
        {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_first.remove(&old);
            }
        }
        let alike = self.by_first.entry(key(&prompt)).or_default();
        alike.push(id);
        if alike.len() > ALIKE {
            alike.remove(0);
        }
        self.recent.retain(|other| *other != id);
        self.recent.push_back(id);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        let newest = Newest { at, prompt };
        match self.newest.get_mut(id) {
            Some(place) => *place = newest,
            None => self.newest.push(newest),
        }
    }
}

/// A hash of the first user message without its white space, so that a message that was trimmed is the same one.
fn key(prompt: &Prompt<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    let bytes: Vec<u8> = first_user(prompt)
        .into_iter()
        .flat_map(|first| unspaced(first.text()))
        .collect();
    hasher.write(&bytes);
    hasher.finish()
}

fn first_user<'p, 'a>(prompt: &'p Prompt<'a>) -> Option<&'p Element<'a>> {
    prompt.elements.get(prompt.first_user?)
}

/// The message behind the user's first one.
fn second<'p, 'a>(prompt: &'p Prompt<'a>) -> Option<&'p Element<'a>> {
    prompt.elements.get(prompt.first_user? + 1)
}
