//! A circuit breaker: who fails too often is left alone for a while, then tried carefully.
//!
//! | file | what |
//! |---|---|
//! | `policy` | when the circuit opens, for how long, and how it is tried |
//! | `circuit` | the circuit as a state machine: time and randomness are passed in |
//! | `layer` | [`Breaker`], the middleware, and what counts as a failure |
//!
//! The pattern is Nygard's ("Release It!", 2007): closed, open, half open. What goes wrong with it in practice is a probe
//! that never comes back and leaves the circuit half open for ever; here a probe is a lease, which ends with the call
//! however that ends, or by time.

mod circuit;
mod layer;
mod policy;

pub use circuit::{Circuit, CircuitState, Permit, Refusal, Verdict};
pub use layer::{Breaker, BreakerStats};
pub use policy::BreakerPolicy;
