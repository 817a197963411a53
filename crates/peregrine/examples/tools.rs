//! An agent with tools: `cargo run -p peregrine --example tools`. Needs no key and no network.
#![allow(clippy::print_stdout, reason = "an example shows its result")]

use peregrine::prelude::*;

/// Searches the notes on birds.
#[tool(effect = "read_only", danger = "safe", timeout_ms = 1000)]
async fn search_notes(
    /// Words to search for.
    query: String,
) -> Result<String, std::io::Error> {
    let notes = ["The peregrine dives at 320 km/h.", "The swift sleeps in the air."];
    let words: Vec<String> = query
        .to_lowercase()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let fits = |note: &&&str| {
        words
            .iter()
            .any(|word| word.len() > 3 && note.to_lowercase().contains(word))
    };
    match notes.iter().find(fits) {
        Some(note) => Ok((*note).to_owned()),
        // The model is told, and may try other words.
        None => Err(std::io::Error::other(format!("no note has a word of {query:?}"))),
    }
}

/// Writes a letter. It is declared to have side effects, so it only runs if it is allowed by name.
#[tool(effect = "side_effect", danger = "medium")]
async fn send_letter(to: String, text: String) -> String {
    println!("(a letter to {to}: {text})");
    "sent".to_owned()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), peregrine::RunError> {
    let agent = Agent::new(OfflineModel::new())
        .with_instructions("Answer from what the tools say.")
        .with_tool(search_notes())
        .with_tool(send_letter());
    let mut events = agent.run_stream("How fast does the peregrine dive?");
    while let Some(event) = events.next().await {
        match event? {
            RunEvent::ToolStart { name, arguments, .. } => println!("calls {name} {arguments}"),
            RunEvent::ToolEnd { result, .. } => println!("it says: {}", result.text()),
            RunEvent::Finished(output) => {
                println!("{}", output.text());
                println!(
                    "{} steps, {} tool calls",
                    output.report.steps,
                    output.report.tool_calls.len()
                );
            }
            _ => {}
        }
    }
    Ok(())
}
