//! Integration tests of the providers.

mod recordings;
