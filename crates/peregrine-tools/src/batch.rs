//! Which calls of one turn may run at the same time.
//!
//! Algorithm: one pass in the order of the model. Neighbours share a batch while their effects allow it:
//!
//! - read-only calls run beside read-only calls;
//! - idempotent calls run beside idempotent calls, unless tool and arguments are the same;
//! - a call with a side effect runs alone.
//!
//! Reads and writes never share a batch, so a read sees what the model wrote before it and not what it wrote after. A
//! tool whose calls with different arguments touch the same thing, so that their order matters, is not idempotent in
//! this sense and declares [`Effect::SideEffect`].

use std::ops::Range;

use peregrine_core::Effect;

use crate::ValidCall;

/// The batches of a turn's calls: run one after the other, each with all of its calls at the same time. Together they
/// are all calls, in order.
///
/// # Examples
///
/// ```
/// use peregrine_core::ToolCall;
/// use peregrine_tools::{Registry, batches, tool};
///
/// /// Reads a value.
/// #[tool(effect = "read_only")]
/// async fn read(key: String) -> String {
///     key
/// }
///
/// /// Sends a mail.
/// #[tool(effect = "side_effect")]
/// async fn send(to: String) {}
///
/// let registry = Registry::builder().with(read()).with(send()).build()?;
/// let valid = |id: &str, name: &str, arguments: &str| registry.validate(&ToolCall::new(id, name, arguments));
/// let calls = [
///     valid("1", "read", r#"{"key": "a"}"#)?,
///     valid("2", "read", r#"{"key": "b"}"#)?,
///     valid("3", "send", r#"{"to": "ann"}"#)?,
///     valid("4", "read", r#"{"key": "a"}"#)?,
/// ];
/// assert_eq!(batches(&calls), [0..2, 2..3, 3..4]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn batches(calls: &[ValidCall]) -> Vec<Range<usize>> {
    let mut batches: Vec<Range<usize>> = Vec::new();
    for (index, call) in calls.iter().enumerate() {
        match batches.last_mut() {
            Some(batch) if joins(&calls[batch.clone()], call) => batch.end = index + 1,
            _ => batches.push(index..index + 1),
        }
    }
    batches
}

/// Whether a call may run beside all of a batch, which is not empty and of one effect.
fn joins(batch: &[ValidCall], call: &ValidCall) -> bool {
    let effect = call.info().effect();
    if batch.iter().any(|other| other.info().effect() != effect) {
        return false;
    }
    match effect {
        Effect::ReadOnly => true,
        Effect::Idempotent => !batch.iter().any(|other| is_same(other, call)),
        Effect::SideEffect => false,
    }
}

/// Whether two calls would do the same.
fn is_same(one: &ValidCall, two: &ValidCall) -> bool {
    one.info().name() == two.info().name() && crate::schema::equal(one.arguments(), two.arguments())
}
