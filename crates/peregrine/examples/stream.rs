//! Prints an answer as it arrives, from whatever model is at hand: `cargo run -p peregrine --example stream -- "Hello!"`.
//!
//! With a key in the environment (`OPENAI_API_KEY`, `ANTHROPIC_API_KEY`, ..) or a local Ollama a real model answers,
//! else the offline one; the first line says which, and why.

#![allow(clippy::print_stdout, reason = "an example shows its result")]

use std::io::Write as _;

use peregrine::prelude::*;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let question = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "What can you do?".to_owned());
    let choice = from_env().await?;
    println!("{} ({})", choice.model.info(), choice.why);

    let mut events = choice.model.stream(&ChatRequest::user(question)).await?;
    let mut out = std::io::stdout();
    while let Some(event) = events.next().await {
        match event? {
            ChatEvent::TextDelta { text } => {
                write!(out, "{text}")?;
                out.flush()?;
            }
            ChatEvent::Usage { usage } => println!("\n({} tokens)", usage.total_tokens()),
            _ => {}
        }
    }
    writeln!(out)?;
    Ok(())
}
