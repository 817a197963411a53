//! A typed answer: `cargo run -p peregrine --example typed`. Needs no key and no network.
#![allow(clippy::print_stdout, reason = "an example shows its result")]

use peregrine::prelude::*;

/// Find where the falcon nests and how fast it dives.
#[derive(Signature)]
struct Falcon {
    /// what is known about the bird
    #[input]
    notes: String,
    /// where it nests
    #[output]
    nests: String,
    /// how fast the peregrine dives, in km/h
    #[output(range = 1..=500)]
    speed: u16,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), peregrine::RunError> {
    let agent = Agent::new(OfflineModel::new()); // or `connect("openai/gpt-5-mini")?`
    let notes = "Speed: 320 km/h in a dive. Nests: on cliffs and towers";
    let falcon = agent.run_as::<Falcon>(&FalconInput::new(notes)).await?;
    println!(
        "it nests {} and dives at {} km/h",
        falcon.output.nests, falcon.output.speed
    );
    println!(
        "held to the form by: {}",
        falcon.run.response.metadata["structured_output"]
    );
    Ok(())
}
