//! Integration tests: the laws that the vocabulary promises.

mod fold;
mod model;
mod serde_forms;
