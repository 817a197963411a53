//! What Peregrine's tests, examples and benchmarks run against.
//!
//! - [`FakeClock`]: time that moves when told to.
//! - [`service`]: the real servers that some tests need.

pub mod clock;
pub mod service;

pub use clock::FakeClock;
