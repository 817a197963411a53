//! Durable runs: what is journalled, and what goes on from a journal.

mod basics;
mod every_poll;
mod everywhere;
mod forks;
mod support;
