//! Durable runs: what is journalled, and what goes on from a journal.

mod basics;
mod budgets;
mod child;
mod every_poll;
mod everywhere;
mod failures;
mod forks;
mod golden;
mod kill;
mod secrets;
mod stops;
mod support;
