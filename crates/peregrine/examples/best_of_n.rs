//! Best of n: several answers side by side, of which the most frequent wins: `cargo run -p peregrine --example best_of_n`.
//! Needs no key and no network.
#![allow(clippy::print_stdout, reason = "an example shows its result")]

use peregrine::core::{ModelInfo, Sampling};
use peregrine::prelude::*;

/// A model that is right most of the time. Real ones differ by their temperature; this one by the seed.
struct Guesses(ModelInfo);

impl ChatModel for Guesses {
    fn info(&self) -> &ModelInfo {
        &self.0
    }

    async fn complete(&self, request: &ChatRequest) -> peregrine::Result<ChatResponse> {
        let seed = request.sampling.seed.unwrap_or_default();
        Ok(ChatResponse::text(if seed % 3 == 0 {
            "240 km/h"
        } else {
            "320 km/h"
        }))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), peregrine::RunError> {
    let sampling = Sampling {
        seed: Some(1),
        ..Sampling::default()
    };
    let agent = Agent::new(Guesses(ModelInfo::new("example", "guesses")))
        .with_sampling(sampling)
        .with_strategy(Strategy::BestOfN(BestOfN::new(5)));
    let output = agent.run("How fast does the peregrine dive?").await?;
    println!("{}", output.text());
    println!("{}", output.response.metadata["best_of_n"]);
    Ok(())
}
