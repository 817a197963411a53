//! A run that survives its process: `cargo run -p peregrine --example durable --features checkpoints`. Needs no key and
//! no network.
//!
//! The first process ends in the middle: its run is dropped when it is about to call the tool. What is left is the journal.
#![allow(clippy::print_stdout, reason = "an example shows its result")]

use peregrine::agent::More;
use peregrine::agent::durable::Fork;
use peregrine::checkpoints::Options;
use peregrine::core::RunId;
use peregrine::prelude::*;
use peregrine::{Checkpoints, Input, Scope};

/// Searches the notes on birds.
#[tool(effect = "read_only", danger = "safe")]
async fn search_notes(query: String) -> String {
    println!("  the tool is asked for {query:?}");
    match query.contains("sleep") {
        true => "The swift sleeps in the air.".to_owned(),
        false => "The peregrine dives at 320 km/h.".to_owned(),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // `dir:PATH`, `sqlite:PATH` or `postgres://..` for runs that are to survive.
    let store = Checkpoints::open("memory:", Options::default()).await?;
    let agent = || {
        Agent::new(OfflineModel::new())
            .with_scope(Scope::tenant("acme").expect("a plain name"))
            .with_tool(search_notes())
            .with_checkpoints(store.clone())
    };

    println!("one process begins:");
    let id = RunId::from_parts(1_700_000_000_000, [7; 10]);
    let question = Input::from("How fast does the peregrine dive?").with_run_id(id);
    let first = agent();
    let mut run = first.run_stream(question);
    while !matches!(
        run.next().await.transpose()?,
        None | Some(RunEvent::ToolStart { .. })
    ) {}
    drop((run, first));

    println!("another goes on:");
    let second = agent();
    let output = second.load(id).await?.resume(More::default()).await?;
    println!("  {}", output.text());

    let replayed = second.replay(id).await?;
    println!(
        "replayed {} records, and no model or tool was asked",
        replayed.records
    );

    println!("a fork asks something else:");
    let fork = Fork::at(2).with_input("What sleeps in the air?");
    let output = second.fork(id, fork).await?.resume(More::default()).await?;
    println!("  {}", output.text());
    Ok(())
}
