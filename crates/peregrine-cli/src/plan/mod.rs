//! `peregrine plan`: what is wrong with a plan, and what becomes of it.
//!
//! A plan is what `peregrine::executor` reads: a JSON list of steps, or an object with it as `steps`. Here its steps ask for
//! the actions that the executor brings along (`sleep`, `echo`, `fail`, `panic`, `check`), so plans can be tried, timed and
//! drawn before a program runs them with actions of its own.

mod check;
mod report;
mod run;
mod text;

pub(crate) use check::check;
pub(crate) use run::run;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use peregrine::ErrorKind;

use crate::failure::Failure;
use crate::interrupt::Interrupts;

/// How large a plan may be.
const MAX_PLAN_BYTES: u64 = 64 << 20;

/// Reads a plan, as text. `-` is standard input, which Ctrl-C interrupts.
async fn read(path: &Path, interrupts: &Interrupts) -> Result<String, Failure> {
    let name = match path == Path::new("-") {
        true => "standard input".to_owned(),
        false => path.display().to_string(),
    };
    let source = path.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        let source: Box<dyn Read> = match source == Path::new("-") {
            true => Box::new(io::stdin().lock()),
            false => Box::new(File::open(&source)?),
        };
        source.take(MAX_PLAN_BYTES + 1).read_to_end(&mut bytes)?;
        Ok::<_, io::Error>(bytes)
    });
    let read = async { Ok::<_, Failure>(read.await) };
    let bytes = match interrupts.or(read).await? {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => {
            let kind = Failure::io(&error).kind();
            return Err(local(kind, format!("could not read {name}: {error}")));
        }
        Err(panicked) => {
            return Err(local(
                ErrorKind::Internal,
                format!("could not read {name}: {panicked}"),
            ));
        }
    };
    if bytes.len() as u64 > MAX_PLAN_BYTES {
        let limit = MAX_PLAN_BYTES >> 20;
        return Err(invalid(format!("{name} is larger than {limit} MiB")));
    }
    String::from_utf8(bytes).map_err(|error| invalid(format!("{name} is no text: {error}")))
}

fn local(kind: ErrorKind, message: String) -> Failure {
    Failure::Local { kind, message }
}

fn invalid(message: String) -> Failure {
    local(ErrorKind::InvalidRequest, message)
}
