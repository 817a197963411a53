//! Hedged calls: who waits unusually long asks a second time, and takes whichever answers first.
//!
//! | file | what |
//! |---|---|
//! | `policy` | after how long, and how often |
//! | `window` | how long calls took of late |
//! | `budget` | how many extra calls may be made |
//! | `race` | two calls, of which one is awaited and the other dropped |
//! | `layer` | [`Hedge`], the middleware |
//!
//! Algorithm: "The Tail at Scale" (Dean and Barroso, Communications of the ACM 56(2), 2013). The second call begins when
//! the first has taken longer than a quantile of the latest latencies, so few calls have one; a budget bounds them also
//! when everything is slow at once, which is when more load helps least.
//!
//! A call that lost is dropped before it ends. Its latency is not known, only that it was longer than what it was
//! waited for; it is counted as that. Leaving it out would count fast calls only, and the delay would creep down.

mod budget;
mod layer;
mod policy;
mod race;
mod window;

pub use layer::{Hedge, HedgeStats};
pub use policy::HedgePolicy;
