//! Who wants to be told: a list with one place for each listener.
//!
//! A listener that was told keeps its place, empty, until it gives the place back; places are used again, and this way
//! nobody gives back what belongs to another by now. So the list is as long as there are listeners, told or not.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::task::Waker;

use slab::Slab;

use super::Mode;

/// An emptied list above this many places gives its memory back.
const KEPT_PLACES: usize = 64;

/// Where a listener is in its list.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place(usize);

pub(crate) enum Listener {
    Task(Waker),
    Hook(Box<dyn FnOnce() + Send>),
}

/// What came of [`Listeners::listen`].
pub(crate) enum Listened {
    /// The waker is there; it took the place of this.
    Done(Option<Listener>),
    /// Nothing was done for want of a clone.
    NeedsSpare,
}

#[derive(Default)]
pub(crate) struct Listeners {
    places: Slab<Slot>,
}

struct Slot {
    mode: Mode,
    /// `None`: was told.
    listener: Option<Listener>,
}

impl Listeners {
    /// Puts the waker of a task into its place, a new one if it has none.
    ///
    /// Nothing foreign may run under a lock, and both a clone and a drop of a waker are foreign. So the clone is made
    /// before, into `spare`, where it will be needed: for a new place, or after this has said [`Listened::NeedsSpare`].
    /// What is returned, or left in `spare`, is to be dropped after.
    pub(crate) fn listen(
        &mut self,
        place: &mut Option<Place>,
        mode: Mode,
        waker: &Waker,
        spare: &mut Option<Waker>,
    ) -> Listened {
        if let Some(slot) = place.as_ref().and_then(|place| self.places.get_mut(place.0)) {
            slot.mode = mode;
            if matches!(&slot.listener, Some(Listener::Task(known)) if known.will_wake(waker)) {
                return Listened::Done(None);
            }
            return match spare.take() {
                Some(waker) => Listened::Done(slot.listener.replace(Listener::Task(waker))),
                None => Listened::NeedsSpare,
            };
        }
        match spare.take() {
            Some(waker) => {
                *place = Some(self.add(mode, Listener::Task(waker)));
                Listened::Done(None)
            }
            None => Listened::NeedsSpare,
        }
    }

    pub(crate) fn add(&mut self, mode: Mode, listener: Listener) -> Place {
        let listener = Some(listener);
        Place(self.places.insert(Slot { mode, listener }))
    }

    /// Gives a place back, and returns who was still waiting there, to be dropped without a lock.
    #[must_use]
    pub(crate) fn remove(&mut self, Place(index): Place) -> Option<Listener> {
        let slot = self.places.try_remove(index)?;
        if self.places.is_empty() && self.places.capacity() > KEPT_PLACES {
            self.places = Slab::new();
        }
        slot.listener
    }

    /// Moves everyone who waits for `mode`, or for less, to `due`.
    pub(crate) fn take_due(&mut self, mode: Mode, due: &mut Vec<Listener>) {
        let slots = self.places.iter_mut().map(|(_, slot)| slot);
        due.extend(
            slots
                .filter(|slot| slot.mode <= mode)
                .filter_map(|slot| slot.listener.take()),
        );
    }

    /// Empties the list: its owner goes.
    pub(crate) fn take_all(&mut self) -> Vec<Listener> {
        std::mem::take(&mut self.places)
            .into_iter()
            .filter_map(|(_, slot)| slot.listener)
            .collect()
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }
}

/// Wakes tasks and then runs hooks, each in the order in which they came; to be called without any lock.
///
/// A waker or a hook that panics keeps nobody else from being told; the first panic goes on afterwards.
pub(crate) fn tell(mut due: Vec<Listener>) {
    // Hooks take longer, a kill of a process group some hundred microseconds: nobody's wake waits for that.
    due.sort_by_key(|listener| matches!(listener, Listener::Hook(_)));
    let mut panic = None;
    for listener in due {
        let told = match listener {
            Listener::Task(waker) => catch_unwind(AssertUnwindSafe(|| waker.wake())),
            Listener::Hook(hook) => catch_unwind(AssertUnwindSafe(hook)),
        };
        panic = panic.or(told.err());
    }
    if let Some(panic) = panic {
        resume_unwind(panic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(listeners: &mut Listeners, place: &mut Option<Place>, mode: Mode) {
        let waker = Waker::noop();
        let mut spare = None;
        let first = listeners.listen(place, mode, waker, &mut spare);
        assert!(matches!(first, Listened::NeedsSpare));
        let mut spare = Some(waker.clone());
        let second = listeners.listen(place, mode, waker, &mut spare);
        assert!(matches!(second, Listened::Done(None)) && spare.is_none());
    }

    #[test]
    fn a_told_listener_keeps_its_place_until_it_gives_it_back() {
        let mut listeners = Listeners::default();
        let (mut one, mut two) = (None, None);
        listen(&mut listeners, &mut one, Mode::Graceful);
        let mut due = Vec::new();
        listeners.take_due(Mode::Graceful, &mut due);
        assert_eq!(due.len(), 1);
        listen(&mut listeners, &mut two, Mode::Graceful);
        assert_ne!(one, two, "the place of one who was told is not given to another");
        assert!(listeners.remove(one.take().unwrap()).is_none());
        assert!(listeners.remove(two.take().unwrap()).is_some());
        assert_eq!(listeners.len(), 0);
    }

    #[test]
    fn who_waits_for_more_is_not_told_of_less() {
        let mut listeners = Listeners::default();
        let (mut graceful, mut immediate) = (None, None);
        listen(&mut listeners, &mut graceful, Mode::Graceful);
        listen(&mut listeners, &mut immediate, Mode::Immediate);
        let mut due = Vec::new();
        listeners.take_due(Mode::Graceful, &mut due);
        assert_eq!(due.len(), 1);
        listeners.take_due(Mode::Immediate, &mut due);
        assert_eq!(due.len(), 2);
    }

    #[test]
    fn an_emptied_list_gives_its_memory_back() {
        let mut listeners = Listeners::default();
        let places: Vec<Place> = (0..10_000)
            .map(|_| listeners.add(Mode::Graceful, Listener::Hook(Box::new(|| ()))))
            .collect();
        for place in places {
            drop(listeners.remove(place));
        }
        assert!(listeners.places.capacity() <= KEPT_PLACES);
    }

    #[test]
    fn a_panic_keeps_nobody_from_being_told() {
        let (told, told_of) = std::sync::mpsc::channel();
        let second = told.clone();
        let due = vec![
            Listener::Hook(Box::new(move || told.send(1).unwrap())),
            Listener::Hook(Box::new(|| panic!("the first panic"))),
            Listener::Hook(Box::new(|| panic!("the second panic"))),
            Listener::Hook(Box::new(move || second.send(2).unwrap())),
        ];
        let panic = catch_unwind(AssertUnwindSafe(|| tell(due))).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"the first panic"));
        assert_eq!(told_of.try_iter().collect::<Vec<_>>(), [1, 2]);
    }
}
