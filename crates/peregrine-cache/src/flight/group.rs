//! The calls under way, by what they ask.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll};

use super::board::{Board, Emitter, Ending, Read, Want};
use crate::sync::{Mutex, lock};

/// The calls under way, each with a label. As many as there are callers at most, so nothing else bounds them.
pub(crate) struct Group<K, I, O, L = ()> {
    calls: Mutex<BTreeMap<K, Call<I, O, L>>>,
    max_bytes: usize,
}

struct Call<I, O, L> {
    board: Arc<Board<I, O>>,
    label: L,
}

impl<K, I, O, L> Group<K, I, O, L>
where
    K: Ord + Clone,
    I: Clone + Send + Sync + 'static,
    O: Ending<I>,
{
    /// No calls. The items of one are kept up to this size for those who come late.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self {
            calls: Mutex::new(BTreeMap::new()),
            max_bytes,
        }
    }

    /// Joins the call that asks the same, or begins it: then the party leads.
    pub(crate) fn join<W>(
        self: &Arc<Self>,
        key: &K,
        label: L,
        reads_items: bool,
        work: impl FnOnce(Emitter<I, O>) -> W,
    ) -> Party<K, I, O, L>
    where
        W: Future<Output = O> + Send + 'static,
    {
        let (board, id, leads, _replaced) = {
            let mut calls = lock(&self.calls);
            let joined = calls
                .get(key)
                .and_then(|call| Some((call.board.clone(), call.board.sit(reads_items)?)));
            match joined {
                Some((board, id)) => (board, id, false, None),
                None => {
                    let board = Arc::new(Board::new(self.max_bytes));
                    let id = board.sit(reads_items).unwrap_or_default();
                    // What nobody can join any more is dropped after the lock.
                    let call = Call {
                        board: board.clone(),
                        label,
                    };
                    let replaced = calls.insert(key.clone(), call);
                    (board, id, true, replaced)
                }
            }
        };
        let party = Party {
            group: self.clone(),
            key: key.clone(),
            board,
            id,
            leads,
        };
        if leads {
            let emitter = Emitter::new(party.board.clone());
            party.board.begin(Box::pin(work(emitter)));
        }
        party
    }

    /// Lets nobody join some of what is under way: it may be out of date. Those who wait go on.
    pub(crate) fn part_with(&self, is_one: impl Fn(&K, &L) -> bool) {
        let gone: Vec<_> = lock(&self.calls)
            .extract_if(.., |key, call| is_one(key, &call.label))
            .collect();
        drop(gone);
    }

    /// How many wait for calls that others may join.
    pub(crate) fn waiting(&self) -> usize {
        lock(&self.calls).values().map(|call| call.board.present()).sum()
    }

    /// How many calls are under way.
    pub(crate) fn len(&self) -> usize {
        lock(&self.calls).len()
    }

    fn forget(&self, key: &K, board: &Arc<Board<I, O>>) {
        let mut calls = lock(&self.calls);
        let mut gone = None;
        if calls.get(key).is_some_and(|held| Arc::ptr_eq(&held.board, board)) {
            gone = calls.remove(key);
        }
        drop(calls);
        drop(gone);
    }
}

/// One that waits for a call. Dropping it leaves the call to the others, or cancels it if there are none.
pub(crate) struct Party<K, I, O, L = ()>
where
    K: Ord + Clone,
    I: Clone + Send + Sync + 'static,
    O: Ending<I>,
{
    group: Arc<Group<K, I, O, L>>,
    key: K,
    board: Arc<Board<I, O>>,
    id: usize,
    leads: bool,
}

impl<K, I, O, L> Party<K, I, O, L>
where
    K: Ord + Clone,
    I: Clone + Send + Sync + 'static,
    O: Ending<I>,
{
    /// Whether the call began with it.
    pub(crate) const fn leads(&self) -> bool {
        self.leads
    }

    /// Whether the call is charged to it: to the first party that asks. To be asked by whoever has the end, or an error.
    pub(crate) fn pays(&self) -> bool {
        self.board.charge(self.id)
    }

    /// Waits until the call was accepted, or ended without that.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub(crate) async fn opened(&self) -> Option<O> {
        match poll_fn(|cx| self.poll(Want::Open, cx)).await {
            Read::End(end) => Some(end),
            _ => None,
        }
    }

    /// Reads on.
    pub(crate) fn poll_item(&self, cx: &mut Context<'_>) -> Poll<Read<I, O>> {
        self.poll(Want::Item, cx)
    }

    /// Waits for the end. `None` never comes: an end is all that this waits for.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub(crate) async fn end(&self) -> Option<O> {
        match poll_fn(|cx| self.poll(Want::End, cx)).await {
            Read::End(end) => Some(end),
            _ => None,
        }
    }

    fn poll(&self, want: Want, cx: &mut Context<'_>) -> Poll<Read<I, O>> {
        let read = self.board.poll(self.id, want, cx);
        if let Poll::Ready(Read::End(_)) = &read {
            self.group.forget(&self.key, &self.board);
        }
        read
    }
}

impl<K, I, O, L> Drop for Party<K, I, O, L>
where
    K: Ord + Clone,
    I: Clone + Send + Sync + 'static,
    O: Ending<I>,
{
    fn drop(&mut self) {
        if self.board.leave(self.id) {
            self.group.forget(&self.key, &self.board);
        }
    }
}
