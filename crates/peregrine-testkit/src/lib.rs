//! What Peregrine's tests, examples and benchmarks run against.
//!
//! - [`FakeClock`]: time that moves when told to.

pub mod clock;

pub use clock::FakeClock;
