//! What the bounded and the endless fuzz test do with bytes: read them as a plan, in one piece and in many, and run what
//! comes of that.

use std::time::Duration;

use peregrine_executor::{Executor, Plan, PlanDecoder, PlanError, Simulated, Step, VirtualTimer, builtin};

/// Decodes the pieces of a text.
pub(crate) fn decode(pieces: &[&[u8]]) -> Result<Vec<Step>, PlanError> {
    let mut decoder = PlanDecoder::new().with_max_step_bytes(4096);
    let mut steps = Vec::new();
    for piece in pieces {
        steps.extend(decoder.push(piece)?);
    }
    decoder.finish().map(|()| steps)
}

/// The same for every cut, never a panic, and whatever can run comes to its end.
pub(crate) fn plans(bytes: &[u8]) {
    let outcome = decode(&[bytes]);
    let size = usize::from(bytes.first().copied().unwrap_or_default() % 9) + 1;
    let cut: Vec<&[u8]> = bytes.chunks(size).collect();
    assert_eq!(decode(&cut), outcome, "in pieces of {size} bytes");
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _no_panic = Plan::from_json(text);
    }
    let Some(plan) = outcome.ok().and_then(|steps| Plan::new(steps).ok()) else {
        return;
    };
    let executor = Executor::new(builtin::actions(), VirtualTimer::new());
    let behave = |call: peregrine_executor::SimulatedCall<'_>| {
        let duration = Duration::from_millis(call.id.len() as u64);
        Simulated::ok(duration, call.parameters.clone())
    };
    if let Ok(report) = executor.simulate(&plan, behave) {
        assert!(report.steps.iter().all(|record| record.state.is_terminal()));
        assert!(report.makespan >= report.critical_path);
        let _no_panic = (report.gantt_svg(), report.gantt_text(80));
    }
}
