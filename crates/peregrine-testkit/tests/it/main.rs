//! Integration tests of the testkit, one module a subject.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod service;
