//! Panics as values.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How much of a panic's message is kept, in bytes.
const MAX_MESSAGE_BYTES: usize = 1024;

/// Runs `work`; where it panics, the message of the panic.
///
/// What `work` touches must not be used after a panic other than to drop it, which each caller sees to.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| message(&*payload))
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text.as_str(),
        _ => "a panic without a message",
    };
    text[..text.floor_char_boundary(MAX_MESSAGE_BYTES)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_kept_up_to_a_bound() {
        assert_eq!(caught(|| 1), Ok(1));
        assert_eq!(caught(|| panic!("static")), Err::<(), _>("static".to_owned()));
        assert_eq!(caught(|| panic!("{}", "built")), Err::<(), _>("built".to_owned()));
        let odd = caught(|| std::panic::panic_any(7_u8));
        assert_eq!(odd, Err::<(), _>("a panic without a message".to_owned()));
        let long = "ä".repeat(MAX_MESSAGE_BYTES);
        let kept = caught(|| -> () { panic!("{long}") }).unwrap_err();
        assert_eq!(kept.len(), MAX_MESSAGE_BYTES);
    }
}
