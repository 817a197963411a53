//! What turns samples into claims: statistics, result files, verdicts and reports of the benchmarks.
//!
//! The benchmarks themselves are in the package above this one, in a program called the runner. This crate knows nothing of
//! Peregrine: it starts runners of one or two revisions in turns ([`drive`]), takes what they say ([`protocol`]),
//! summarises it ([`samples`], [`stats`], [`bootstrap`], [`result`]), judges it ([`compare`], [`limits`], [`baseline`]),
//! and shows it ([`markdown`], [`html`], [`docs`]). `cargo xtask bench` and `cargo xtask compare` call its program.
//!
//! # What holds
//!
//! - **Nothing is thrown away.** Every sample is in the result file, to 0.1 %. Values far out are counted; a second set
//!   without them stands beside the first, never in its place.
//! - **A round is a process.** The variants of a benchmark take turns within it; with two revisions, their processes take
//!   turns too. Intervals draw rounds, not samples, because samples of one process are not independent.
//! - **A verdict names its doubt.** What the samples do not decide is inconclusive; what was not measured alike is
//!   incomparable.
//! - **The same input gives the same output.** Randomness starts from 42.

#![allow(
    clippy::missing_panics_doc,
    reason = "each `expect` says why it holds whatever it is given"
)]

pub mod ablation;
pub mod baseline;
pub mod bootstrap;
pub mod compare;
pub mod docs;
pub mod drive;
pub mod environment;
pub mod error;
pub mod goals;
pub mod html;
pub mod limits;
pub mod markdown;
pub mod protocol;
pub mod result;
pub mod rivals;
pub mod samples;
pub mod simulate;
pub mod stats;
