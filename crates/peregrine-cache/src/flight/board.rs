//! One call and those who wait for it.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use crate::sync::{Mutex, MutexGuard, lock};

/// The call.
pub(crate) type Work<O> = Pin<Box<dyn Future<Output = O> + Send>>;

/// How a call ends; told to every party.
pub(crate) trait Ending<I>: Clone + Send + Sync + 'static {
    /// The items of the whole call, if the log was taken for this end.
    fn items(&self) -> &[I];

    /// The end of a call that panicked. The panic itself goes on in whoever polled it.
    fn panicked() -> Self;
}

/// What a party finds.
#[derive(Debug)]
pub(crate) enum Read<I, O> {
    /// The call was accepted; items follow.
    Opened,
    /// The next item.
    Item(I),
    /// The end.
    End(O),
    /// Items it had not read were dropped: it was too slow, and the call too large.
    Behind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    Open,
    Item,
    End,
}

/// One call, its log and its parties.
pub(super) struct Board<I, O> {
    state: Mutex<State<I, O>>,
    max_bytes: usize,
}

struct State<I, O> {
    work: Option<Work<O>>,
    /// The call has something to do. Also true before it is polled for the first time.
    woken: bool,
    /// Nobody may join any more: the call is over, or too large to be kept from its beginning.
    closed: bool,
    opened: bool,
    /// Items, with their sizes.
    log: VecDeque<(I, usize)>,
    /// How many items were dropped before the log.
    dropped: usize,
    log_bytes: usize,
    /// The log was taken for the end, which has the items.
    taken: bool,
    end: Option<O>,
    parties: Vec<Option<Seat>>,
    present: usize,
    /// Somebody was told that the call is charged to it.
    paid: bool,
}

struct Seat {
    waker: Option<Waker>,
    /// How many items it has read; `None` if it waits for the end alone.
    cursor: Option<usize>,
    /// Whether the call is charged to it, once it has asked.
    pays: Option<bool>,
}

impl<I, O> Board<I, O>
where
    I: Clone + Send + Sync + 'static,
    O: Ending<I>,
{
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            state: Mutex::new(State {
                work: None,
                woken: true,
                closed: false,
                opened: false,
                log: VecDeque::new(),
                dropped: 0,
                log_bytes: 0,
                taken: false,
                end: None,
                parties: Vec::new(),
                present: 0,
                paid: false,
            }),
            max_bytes,
        }
    }

    fn state(&self) -> MutexGuard<'_, State<I, O>> {
        lock(&self.state)
    }

    /// A seat for a further party. `None` if it is too late.
    pub(super) fn sit(&self, reads_items: bool) -> Option<usize> {
        let mut state = self.state();
        if state.closed {
            return None;
        }
        let seat = Seat {
            waker: None,
            cursor: reads_items.then_some(0),
            pays: None,
        };
        state.present += 1;
        let id = match state.parties.iter().position(Option::is_none) {
            Some(free) => {
                state.parties[free] = Some(seat);
                free
            }
            None => {
                state.parties.push(Some(seat));
                state.parties.len() - 1
            }
        };
        Some(id)
    }

    /// How many parties there are.
    pub(super) fn present(&self) -> usize {
        self.state().present
    }

    pub(super) fn begin(&self, work: Work<O>) {
        let mut state = self.state();
        state.work = Some(work);
        // Who came before this found nothing to do, and the leader may leave without having been polled.
        let wakers = state.take_wakers();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Whether a party is the one that pays: the first who asks. Nobody is kept in mind for it who may leave before that, or
    /// nobody might pay.
    pub(super) fn charge(&self, id: usize) -> bool {
        let mut guard = self.state();
        let State { parties, paid, .. } = &mut *guard;
        let Some(Some(seat)) = parties.get_mut(id) else {
            return false;
        };
        *seat.pays.get_or_insert_with(|| !std::mem::replace(paid, true))
    }

    /// True if nobody is left.
    pub(super) fn leave(&self, id: usize) -> bool {
        let mut state = self.state();
        let seat = state.parties.get_mut(id).and_then(Option::take);
        state.present -= 1;
        let empty = state.present == 0;
        let mut work = None;
        if empty {
            state.closed = true;
            work = state.work.take();
        }
        drop(state);
        drop((seat, work));
        empty
    }

    /// Reads on, and polls the call if it has something to do and nobody else is at it.
    pub(super) fn poll(self: &Arc<Self>, id: usize, want: Want, cx: &mut Context<'_>) -> Poll<Read<I, O>> {
        let mut waker = Some(cx.waker().clone());
        let mut polled = false;
        loop {
            let mut state = self.state();
            let read = state.read(id, want);
            let mut work = None;
            if read.is_none() && !polled {
                if let Some(Some(seat)) = state.parties.get_mut(id) {
                    // The old one is dropped with this variable, after the lock.
                    waker = std::mem::replace(&mut seat.waker, waker);
                }
                if state.woken {
                    work = state.work.take();
                    state.woken &= work.is_none();
                }
            }
            drop(state);
            match (read, work) {
                (Some(read), _) => return Poll::Ready(read),
                (None, None) => return Poll::Pending,
                (None, Some(work)) => self.drive(work),
            }
            // Whatever took this party's waker meanwhile has also woken it.
            polled = true;
        }
    }

    fn drive(self: &Arc<Self>, mut work: Work<O>) {
        let waker = Waker::from(self.clone());
        let result = catch_unwind(AssertUnwindSafe(|| {
            work.as_mut().poll(&mut Context::from_waker(&waker))
        }));
        match result {
            Ok(Poll::Pending) => {
                let mut state = self.state();
                let mut orphan = None;
                let mut wakers = Vec::new();
                if state.present == 0 {
                    orphan = Some(work);
                } else {
                    state.work = Some(work);
                    // Who came while the call was out of its place has not heard of this.
                    if state.woken {
                        wakers = state.take_wakers();
                    }
                }
                drop(state);
                drop(orphan);
                wakers.into_iter().for_each(Waker::wake);
            }
            Ok(Poll::Ready(end)) => {
                self.end(end);
                drop(work);
            }
            Err(panic) => {
                self.end(O::panicked());
                drop(work);
                resume_unwind(panic);
            }
        }
    }

    fn end(&self, end: O) {
        let mut state = self.state();
        state.end = Some(end);
        state.closed = true;
        let wakers = state.take_wakers();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn is_full(&self, bytes: usize) -> bool {
        let state = self.state();
        !state.log.is_empty() && (state.closed || state.log_bytes.saturating_add(bytes) > self.max_bytes)
    }

    fn push(&self, item: I, bytes: usize) {
        let mut state = self.state();
        state.opened = true;
        state.log.push_back((item, bytes));
        state.log_bytes = state.log_bytes.saturating_add(bytes);
        let mut gone = Vec::new();
        if state.closed || state.log_bytes > self.max_bytes {
            // The beginning cannot be kept for those who come late. What everybody has read goes, and then what a slow
            // one has not.
            state.closed = true;
            let slowest = state.slowest();
            while (state.dropped < slowest || state.log_bytes > self.max_bytes)
                && state.log.len() > 1
                && let Some((item, bytes)) = state.log.pop_front()
            {
                state.dropped += 1;
                state.log_bytes -= bytes;
                gone.push(item);
            }
        }
        let wakers = state.take_wakers();
        drop(state);
        drop(gone);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn open(&self) {
        let mut state = self.state();
        state.opened = true;
        let wakers = state.take_wakers();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn take_log(&self) -> Option<Vec<I>> {
        let mut state = self.state();
        if state.dropped > 0 {
            return None;
        }
        state.taken = true;
        let log = std::mem::take(&mut state.log);
        drop(state);
        Some(log.into_iter().map(|(item, _)| item).collect())
    }
}

impl<I: Clone, O: Ending<I>> State<I, O> {
    fn read(&mut self, id: usize, want: Want) -> Option<Read<I, O>> {
        if want == Want::Open && self.opened {
            return Some(Read::Opened);
        }
        if want == Want::Item {
            let cursor = self.parties.get_mut(id)?.as_mut()?.cursor.as_mut()?;
            if *cursor < self.dropped {
                return Some(Read::Behind);
            }
            let item = match &self.end {
                Some(end) if self.taken => end.items().get(*cursor),
                _ => self.log.get(*cursor - self.dropped).map(|(item, _)| item),
            };
            if let Some(item) = item {
                *cursor += 1;
                return Some(Read::Item(item.clone()));
            }
        }
        self.end.clone().map(Read::End)
    }

    fn slowest(&self) -> usize {
        let cursors = self.parties.iter().flatten().filter_map(|seat| seat.cursor);
        cursors.min().unwrap_or(self.dropped + self.log.len())
    }

    fn take_wakers(&mut self) -> Vec<Waker> {
        let seats = self.parties.iter_mut().flatten();
        seats.filter_map(|seat| seat.waker.take()).collect()
    }
}

impl<I, O> Wake for Board<I, O>
where
    I: Clone + Send + Sync + 'static,
    O: Ending<I>,
{
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut state = self.state();
        state.woken = true;
        let wakers = state.take_wakers();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// How a call gives what it has before its end. Only the call itself holds one.
pub(crate) struct Emitter<I, O>(Arc<Board<I, O>>);

impl<I, O> Emitter<I, O>
where
    I: Clone + Send + Sync + 'static,
    O: Ending<I>,
{
    pub(super) const fn new(board: Arc<Board<I, O>>) -> Self {
        Self(board)
    }

    /// The call was accepted; items follow.
    pub(crate) fn open(&self) {
        self.0.open();
    }

    /// The next item, of a size. Where there is no room for it, whoever polls the call first reads what is there.
    pub(crate) async fn item(&self, item: I, bytes: usize) {
        if self.0.is_full(bytes) {
            let mut yielded = false;
            poll_fn(|cx| {
                if std::mem::replace(&mut yielded, true) {
                    return Poll::Ready(());
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
        }
        self.0.push(item, bytes);
    }

    /// All items so far, which the end must then have. `None` if they were too many to keep; the call goes on.
    pub(crate) fn take_log(&self) -> Option<Vec<I>> {
        self.0.take_log()
    }
}
