//! JSON lines on standard output.

use std::io::{self, Write as _};

use peregrine_core::{Error, ErrorKind, Usage};
use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::Failure;

/// Where the lines go.
#[derive(Debug)]
pub(crate) struct Output(io::Stdout);

impl Output {
    pub(crate) fn stdout() -> Self {
        Self(io::stdout())
    }

    /// Prints a line, at once.
    pub(crate) fn line(&mut self, value: &impl Serialize) -> Result<(), Error> {
        let mut line =
            serde_json::to_vec(value).map_err(|source| Error::layer(ErrorKind::Internal, source))?;
        line.push(b'\n');
        let mut out = self.0.lock();
        out.write_all(&line)
            .and_then(|()| out.flush())
            .map_err(|source| Error::layer(ErrorKind::Internal, source))
    }

    /// Prints the last line of a failure. Whoever closed the pipe does not want to know.
    pub(crate) fn failure(&mut self, failure: &Failure) {
        let _closed = self.line(&failure.line());
    }
}

/// The usage in its stored form, and `input` and `output` as short names of the two main counts.
pub(crate) fn usage(usage: &Usage) -> Value {
    let mut fields = json!(usage);
    fields["input"] = usage.input_tokens.into();
    fields["output"] = usage.output_tokens.into();
    fields
}

/// The arguments of a call as JSON; as their text if they are none.
pub(crate) fn arguments_of(text: &str) -> Value {
    match text.trim() {
        "" => json!({}),
        _ => serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())),
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
