//! What single flight takes from the standard library, in one place: the model tests put loom's in its stead.

pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError};

/// The lock, whoever panicked while holding it: nothing foreign runs under any lock of this crate, and each of them
/// guards a value that is whole between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
