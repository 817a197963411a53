//! Fallback over models: `cargo run -p peregrine --example fallback`. Needs no key and no network.
#![allow(clippy::print_stdout, reason = "an example shows its result")]

use peregrine::prelude::*;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Nothing listens there, which is found out at the first call.
    let away = Connector::new()
        .with_base_url("http://127.0.0.1:9/v1")
        .with_api_key(Secret::new("not-a-key"))
        .with_retry(None)
        .chat("openai/gpt-5-mini")?;
    let agent = Agent::new(away).with_fallback(OfflineModel::new());
    let mut events = agent.run_stream("How fast does it dive? The peregrine dives at 320 km/h.");
    while let Some(event) = events.next().await {
        match event? {
            RunEvent::Fallback { failed, problem, .. } => println!("{failed} failed: {problem}"),
            RunEvent::Turn { model, .. } => println!("asking {model}"),
            RunEvent::Finished(output) => println!("{}", output.text()),
            _ => {}
        }
    }
    Ok(())
}
