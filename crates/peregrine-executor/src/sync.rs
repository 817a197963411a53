//! What the ready queue takes from the standard library, in one place: the model test puts loom's in its stead.

pub(crate) use std::sync::atomic::{AtomicBool, Ordering};
pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError};

/// The lock, whoever panicked while holding it: nothing foreign is called or dropped under any lock of this crate
/// but the `clone` of a waker, and each lock guards a value that is whole between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
