//! A typed answer, field by field as it arrives: `cargo run -p peregrine --example typed_stream`. Needs no key and no
//! network.
#![allow(clippy::print_stdout, reason = "an example shows its result")]

use peregrine::prelude::*;

/// Say what the report is about.
#[derive(Signature)]
struct Report {
    #[input]
    report: String,
    /// the month of the opening
    #[output]
    opening: String,
    /// by how much sales rose
    #[output]
    sales: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), peregrine::RunError> {
    let agent = Agent::new(OfflineModel::new());
    let input = ReportInput::new("Sales: they rose by 4 %. Opening: the office in Kyoto opened in May.");
    let mut events = agent.run_stream_as::<Report>(&input);
    while let Some(event) = events.next().await {
        match event? {
            RunEvent::FieldText { path, text, .. } => println!("{path} += {text:?}"),
            RunEvent::FieldCompleted { path, value, .. } => println!("{path} = {value}"),
            // What was told of this answer does not count; the model is asked again.
            RunEvent::Rejected { problem, .. } => println!("asking again: {problem}"),
            RunEvent::Finished(output) => println!("{} step(s)", output.report.steps),
            _ => {}
        }
    }
    Ok(())
}
