//! Results that one makes and others wait for.
//!
//! Invariant: while a key is in the map, somebody holds its [`Lead`]; a lead that is dropped takes its key out and wakes
//! everybody, with or without a result. No lock is held while anybody waits.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// What is being made now.
#[derive(Debug)]
pub(super) struct Flights<K, T>(Arc<Mutex<HashMap<K, watch::Receiver<Option<T>>>>>);

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// Who makes the result of a key.
#[derive(Debug)]
pub(super) struct Lead<K: Eq + Hash, T> {
    key: K,
    sender: watch::Sender<Option<T>>,
    flights: Arc<Mutex<HashMap<K, watch::Receiver<Option<T>>>>>,
}

/// Who waits for the result of a key.
#[derive(Debug)]
pub(super) struct Follow<T>(watch::Receiver<Option<T>>);

/// What to do about a key.
#[derive(Debug)]
pub(super) enum Claim<K: Eq + Hash, T> {
    Lead(Lead<K, T>),
    Follow(Follow<T>),
}

impl<K: Eq + Hash + Clone, T: Clone> Flights<K, T> {
    /// Leads, or follows who leads already. `known` is asked within the lock, so that a result that was kept before its
    /// flight ended is never missed.
    pub(super) fn claim(&self, key: &K, known: impl FnOnce() -> Option<T>) -> Result<Claim<K, T>, T> {
        let mut flights = lock(&self.0);
        if let Some(receiver) = flights.get(key) {
            return Ok(Claim::Follow(Follow(receiver.clone())));
        }
        if let Some(known) = known() {
            return Err(known);
        }
        let (sender, receiver) = watch::channel(None);
        flights.insert(key.clone(), receiver);
        Ok(Claim::Lead(Lead {
            key: key.clone(),
            sender,
            flights: Arc::clone(&self.0),
        }))
    }

    /// How many results are being made.
    pub(super) fn len(&self) -> usize {
        lock(&self.0).len()
    }
}

impl<K: Eq + Hash, T> Lead<K, T> {
    pub(super) fn key(&self) -> &K {
        &self.key
    }

    /// Gives the result to everybody who waits.
    pub(super) fn finish(self, result: T) {
        // Nobody may be waiting.
        self.sender.send_replace(Some(result));
    }
}

impl<K: Eq + Hash, T> Drop for Lead<K, T> {
    fn drop(&mut self) {
        lock(&self.flights).remove(&self.key);
    }
}

impl<T: Clone> Follow<T> {
    /// The result; `None` if who led was dropped without one.
    pub(super) async fn result(mut self) -> Option<T> {
        self.0.wait_for(Option::is_some).await.ok()?.clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
