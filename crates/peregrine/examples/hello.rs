//! Asks a model a question about a document: `cargo run -p peregrine --example hello`. Needs no key and no network.
#![allow(clippy::print_stdout, reason = "an example shows its result")]

use peregrine::prelude::*;

#[tokio::main(flavor = "current_thread")]
async fn main() -> peregrine::Result<()> {
    let model = connect("offline")?; // or "openai/gpt-5-mini", "ollama/llama3.2:1b", ..
    let falcon = DocumentPart::text(
        "falcon.md",
        "The peregrine dives at 320 km/h. It nests on cliffs and towers.",
    );
    let question = Message::user("How fast does the peregrine dive?").with_part(Part::Document(falcon));
    let answer = model.complete(&ChatRequest::new([question])).await?;
    println!("{}: {}", answer.model, answer.message.text());
    Ok(())
}
