//! `peregrine prompt lint`: where recorded prompts leave the ones before.
//!
//! The input is JSON values, one after the other, with or without line breaks in them: all lines of a recording
//! (`--record`), or all request bodies. They are told apart by their fields.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::process::ExitCode;

use peregrine::agent::{LintError, PromptBreak, PromptLint, lint_bodies, lint_requests};
use peregrine::{ChatRequest, ErrorKind};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Deserializer, Value};

use crate::args::LintArgs;
use crate::failure::{FOUND, Failure};
use crate::json::failed;
use crate::output::Console;

/// How large the input may be.
const MAX_INPUT_BYTES: u64 = 256 << 20;
/// The version of recordings that this build reads.
const RECORDING_VERSION: u32 = 1;

/// Lints a file and shows what was found.
///
/// # Errors
///
/// [`Failure`] if the input cannot be read, is neither a recording nor request bodies, or holds no request.
pub(crate) fn lint(args: &LintArgs, console: &mut Console) -> Result<ExitCode, Failure> {
    let found = read(&args.file).and_then(|input| Linted::of(&args.file, &input));
    if args.json {
        console.line(&match &found {
            Ok(linted) => linted.to_json().to_string(),
            Err(failure) => failed(failure),
        })?;
    }
    let linted = found?;
    if !args.json {
        console.answer(&linted.to_text())?;
    }
    Ok(match linted.lint.is_stable() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(FOUND),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let could_not = |what: &str, error: &io::Error| {
        let kind = Failure::io(error).kind();
        local(kind, format!("could not {what} {}: {error}", path.display()))
    };
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        let read = io::stdin()
            .lock()
            .take(MAX_INPUT_BYTES + 1)
            .read_to_end(&mut bytes);
        read.map_err(|error| could_not("read standard input as", &error))?;
    } else {
        let file = File::open(path).map_err(|error| could_not("open", &error))?;
        let read = file.take(MAX_INPUT_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|error| could_not("read", &error))?;
    }
    if bytes.len() as u64 > MAX_INPUT_BYTES {
        let limit = MAX_INPUT_BYTES >> 20;
        return Err(invalid(format!(
            "{} is larger than {limit} MiB; give a part of it",
            path.display()
        )));
    }
    Ok(bytes)
}

fn local(kind: ErrorKind, message: String) -> Failure {
    Failure::Local { kind, message }
}

fn invalid(message: String) -> Failure {
    local(ErrorKind::InvalidRequest, message)
}

/// A value of the input, and the line that it begins on.
struct Item<'a> {
    line: usize,
    text: &'a str,
}

/// What makes a value the line of a recording.
#[derive(Deserialize)]
struct Recorded<'a> {
    version: u32,
    #[serde(borrow)]
    request: &'a RawValue,
    #[serde(rename = "answer")]
    _answer: IgnoredAny,
}

struct Linted {
    lint: PromptLint,
    /// The line of each request.
    lines: Vec<usize>,
}

impl Linted {
    fn of(path: &Path, input: &[u8]) -> Result<Self, Failure> {
        let items = items(input)?;
        let Some(first) = items.first() else {
            return Err(invalid(format!("there is no request in {}", path.display())));
        };
        let lint = if serde_json::from_str::<Recorded<'_>>(first.text).is_ok() {
            lint_requests(&recording(&items)?)
        } else {
            let bodies: Vec<&str> = items.iter().map(|item| item.text).collect();
            lint_bodies(&bodies).map_err(|error| {
                let at = |at: usize| items.get(at).map_or(0, |item| item.line);
                invalid(match error {
                    LintError::NotJson { at: place, source } => {
                        format!("line {} is no request body: {source}", at(place))
                    }
                    LintError::NoMessages { at: place } => format!(
                        "line {} is neither of a recording nor a request body: none of `messages`, `input`, `contents` \
                         is there",
                        at(place)
                    ),
                    error => error.to_string(),
                })
            })?
        };
        let lines = items.iter().map(|item| item.line).collect();
        Ok(Self { lint, lines })
    }

    fn to_text(&self) -> String {
        let PromptLint {
            requests,
            conversations,
            compared,
            breaks,
            more_breaks,
            lost_bytes,
            lost_tokens,
            ..
        } = &self.lint;
        let mut text = String::new();
        for broken in breaks {
            text.push_str(&self.shown(broken));
            text.push('\n');
        }
        if *more_breaks > 0 {
            text.push_str(&format!("and {more_breaks} more breaks\n\n"));
        }
        text.push_str(&format!(
            "{} in {}, {compared} compared with the one before: ",
            counted(*requests, "request"),
            counted(*conversations, "conversation")
        ));
        text.push_str(&match breaks.len() + more_breaks {
            0 if *compared == 0 => "there is nothing to compare\n".to_owned(),
            0 => "every prompt begins with the one before\n".to_owned(),
            count => format!(
                "{}, {lost_bytes} bytes (about {lost_tokens} tokens) cannot be read from the provider's cache\n",
                counted(count, "break")
            ),
        });
        text
    }

    fn shown(&self, broken: &PromptBreak) -> String {
        let one_line = |text: &str| text.replace(['\n', '\r', '\t'], " ");
        let cause = broken
            .cause
            .map(|cause| format!(" ({cause})"))
            .unwrap_or_default();
        let help = broken
            .cause
            .map(|cause| format!("  help:   {}\n", cause.advice()))
            .unwrap_or_default();
        format!(
            "{} differs from byte {} of the prompt on{cause}\n  before: line {}: {}\n  after:  line {}: {}\n  lost:   {} \
             bytes, about {} tokens\n{help}",
            one_line(&broken.field),
            broken.offset,
            self.line(broken.before),
            one_line(&broken.before_excerpt),
            self.line(broken.after),
            one_line(&broken.after_excerpt),
            broken.lost_bytes,
            broken.lost_tokens,
        )
    }

    fn to_json(&self) -> Value {
        let mut value = serde_json::to_value(&self.lint).unwrap_or_default();
        value["stable"] = self.lint.is_stable().into();
        for (broken, shown) in self
            .lint
            .breaks
            .iter()
            .zip(value["breaks"].as_array_mut().into_iter().flatten())
        {
            shown["before_line"] = self.line(broken.before).into();
            shown["after_line"] = self.line(broken.after).into();
            if let Some(cause) = broken.cause {
                shown["advice"] = cause.advice().into();
            }
        }
        value
    }

    fn line(&self, request: usize) -> usize {
        self.lines.get(request).copied().unwrap_or_default()
    }
}

/// The values of the input.
fn items(input: &[u8]) -> Result<Vec<Item<'_>>, Failure> {
    let mut items = Vec::new();
    let mut values = Deserializer::from_slice(input).into_iter::<&RawValue>();
    let (mut line, mut from) = (1, 0);
    loop {
        let rest = &input[from..];
        let start = from + rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        line += lines(&input[from..start]);
        match values.next() {
            None => return Ok(items),
            Some(Ok(value)) => items.push(Item {
                line,
                text: value.get(),
            }),
            Some(Err(error)) => return Err(invalid(format!("line {line} is no JSON: {error}"))),
        }
        from = values.byte_offset();
        line += lines(&input[start..from]);
    }
}

fn lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

fn recording(items: &[Item<'_>]) -> Result<Vec<ChatRequest>, Failure> {
    let request = |item: &Item<'_>| {
        let refuse = |why: String| invalid(format!("line {} is no line of a recording: {why}", item.line));
        let recorded: Recorded<'_> =
            serde_json::from_str(item.text).map_err(|error| refuse(error.to_string()))?;
        if recorded.version != RECORDING_VERSION {
            return Err(refuse(format!(
                "its version is {}, this build reads {RECORDING_VERSION}",
                recorded.version
            )));
        }
        serde_json::from_str(recorded.request.get()).map_err(|error| refuse(error.to_string()))
    };
    items.iter().map(request).collect()
}

fn counted(count: usize, what: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {what}{s}")
}
