//! What `src/sync.rs` is to the crate, with loom's types: `src/flight` is compiled against it for the model tests.

pub(crate) use loom::sync::{Mutex, MutexGuard};

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}
