//! Integration tests: what the journals and their stores promise.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]
#![allow(clippy::print_stdout, reason = "what a long test did is worth a line")]

mod child;
#[cfg(all(feature = "sqlite", feature = "postgres"))]
mod cut;
mod damage;
mod decoding;
#[cfg(feature = "encrypt")]
mod encrypt;
mod full;
mod golden;
mod kill;
mod power;
mod seeded_fuzz;
#[cfg(all(feature = "sqlite", feature = "postgres"))]
mod sql;
mod stores;
mod together;
mod whole;
