//! JSON lines on standard output.

use std::io::{self, Write as _};

use peregrine_core::{Error, ErrorKind};
use serde::Serialize;
use serde_json::{Value, json};

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
    pub(crate) fn error(&mut self, error: &Error) {
        let _closed = self.line(&error_line(error));
    }
}

fn error_line(error: &Error) -> Value {
    let mut fields = json!({
        "code": error.kind().code(),
        "retryable": error.is_retryable(),
        "message": error.to_string(),
    });
    if let Some(wait) = error.retry_after() {
        fields["retry_after_ms"] = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).into();
    }
    if let Some(status) = error.status() {
        fields["status"] = status.into();
    }
    if let Some(id) = error.request_id() {
        fields["request_id"] = id.into();
    }
    if let Error::Transport(transport) = error
        && let Some(stage) = transport.stage
    {
        fields["stage"] = json!(stage);
    }
    json!({ "error": fields })
}
