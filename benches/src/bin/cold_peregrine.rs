//! A program that runs an agent once and ends: the cold start.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark fails by panicking and tells its results on its standard output"
)]

use peregrine_agent::Agent;
use peregrine_core::Secret;
use peregrine_providers::Connector;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let url = std::env::args().nth(1).unwrap();
    let model = Connector::new()
        .with_base_url(url)
        .with_api_key(Secret::new("sk-test"))
        .chat("openai/test-model")
        .unwrap();
    let agent = Agent::new(model).with_instructions("You are a helpful assistant.");
    let output = agent
        .run("Write the sentence that has every letter of the alphabet.")
        .await
        .unwrap();
    println!("{}", output.text());
}
