//! A loopback LLM server with scripted answers and faults, a fake clock, and the peregrine-probe command

pub mod service;
