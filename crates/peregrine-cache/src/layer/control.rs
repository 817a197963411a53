//! What a request says of the cache, in a label that travels in its metadata and is not sent.

use std::fmt::Write as _;
use std::time::Duration;

use peregrine_core::{ChatRequest, Error, Result};

use crate::{Control, Mode, Tag, Ttl};

/// The label's name.
pub const CONTROL_LABEL: &str = "peregrine.cache";

/// Lets a request say what the cache is to do with it.
pub trait CacheControl {
    /// Writes it into the request's metadata, under [`CONTROL_LABEL`].
    #[must_use]
    fn with_cache(self, control: &Control) -> Self;
}

impl CacheControl for ChatRequest {
    fn with_cache(mut self, control: &Control) -> Self {
        self.metadata.insert(CONTROL_LABEL.to_owned(), write(control));
        self
    }
}

/// `mode=read; ttl=3600000; max-age=500; tag=..; anyway`, times in milliseconds, tags in hexadecimal.
fn write(control: &Control) -> String {
    let Control {
        mode,
        ttl,
        max_age,
        tags,
        anyway,
    } = control;
    let mut words = Vec::new();
    words.extend(mode.map(|mode| format!("mode={}", mode_word(mode))));
    words.extend(ttl.map(|ttl| match ttl {
        Ttl::Never => "ttl=never".to_owned(),
        Ttl::NoStore => "ttl=no-store".to_owned(),
        Ttl::After(ttl) => format!("ttl={}", ttl.as_millis()),
    }));
    words.extend(max_age.map(|age| format!("max-age={}", age.as_millis())));
    words.extend(tags.iter().map(|tag| format!("tag={tag}")));
    words.extend(anyway.then(|| "anyway".to_owned()));
    words.join("; ")
}

/// What a request says; nothing if it has no such label.
///
/// # Errors
///
/// That the label is not of the form, and which part of it.
pub(super) fn read(request: &ChatRequest) -> Result<Control> {
    let mut control = Control::new();
    let Some(label) = request.metadata.get(CONTROL_LABEL) else {
        return Ok(control);
    };
    for word in label.split(';').map(str::trim).filter(|word| !word.is_empty()) {
        parse(&mut control, word).ok_or_else(|| {
            let mut message = format!("the label {CONTROL_LABEL} has a part that is not known: ");
            let _infallible = write!(message, "{word:?}");
            Error::invalid_request(message)
        })?;
    }
    Ok(control)
}

fn parse(control: &mut Control, word: &str) -> Option<()> {
    let milliseconds = |text: &str| text.parse().ok().map(Duration::from_millis);
    match word.split_once('=') {
        None if word == "anyway" => control.anyway = true,
        Some(("mode", mode)) => {
            control.mode = Some(MODES.into_iter().find(|known| mode_word(*known) == mode)?)
        }
        Some(("ttl", "never")) => control.ttl = Some(Ttl::Never),
        Some(("ttl", "no-store")) => control.ttl = Some(Ttl::NoStore),
        Some(("ttl", ttl)) => control.ttl = Some(Ttl::After(milliseconds(ttl)?)),
        Some(("max-age", age)) => control.max_age = Some(milliseconds(age)?),
        Some(("tag", tag)) => control.tags.push(parse_tag(tag)?),
        _ => return None,
    }
    Some(())
}

fn parse_tag(text: &str) -> Option<Tag> {
    let digits = text.as_bytes();
    if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    Some(Tag::from_bytes(
        u128::from_str_radix(text, 16).ok()?.to_be_bytes(),
    ))
}

const MODES: [Mode; 4] = [Mode::Off, Mode::Read, Mode::Write, Mode::ReadWrite];

const fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Off => "off",
        Mode::Read => "read",
        Mode::Write => "write",
        Mode::ReadWrite => "read-write",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else_is_taken() {
        let controls = [
            Control::new(),
            Control::new()
                .with_mode(Mode::Write)
                .with_ttl(Ttl::Never)
                .anyway(),
            Control::new()
                .with_ttl(Ttl::After(Duration::from_millis(1500)))
                .with_max_age(Duration::ZERO)
                .with_tag(Tag::label("a;b=c"))
                .with_tag(Tag::label("")),
            Control::new().with_mode(Mode::ReadWrite).with_ttl(Ttl::NoStore),
        ];
        for control in controls {
            let request = ChatRequest::user("hi").with_cache(&control);
            assert_eq!(read(&request).unwrap(), control);
        }
        for label in [
            "mode=some",
            "ttl=-1",
            "ttl=soon",
            "tag=abc",
            "tag=\u{e9}\u{e9}\u{e9}",
            "never",
            "anyway=1",
        ] {
            let mut request = ChatRequest::user("hi");
            request
                .metadata
                .insert(CONTROL_LABEL.to_owned(), label.to_owned());
            assert!(
                read(&request).unwrap_err().to_string().contains(CONTROL_LABEL),
                "{label}"
            );
        }
    }
}
