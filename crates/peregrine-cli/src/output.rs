//! What people see: the answer on standard output, everything else on standard error.
//!
//! Invariants: escape codes are written to a terminal only, never with `NO_COLOR`; text from a model or a file
//! that is shown on a terminal has its control characters replaced, so that it cannot drive the terminal; a
//! reader that goes away is told apart from other errors.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::failure::Failure;

/// How much is said beside the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verbosity {
    /// Errors only.
    Quiet,
    /// Which model answers, and what needs attention.
    Normal,
    /// Steps, tools and usage too.
    Verbose,
}

/// Standard output and standard error.
#[derive(Debug)]
pub(crate) struct Console {
    verbosity: Verbosity,
    to_terminal: bool,
    notes_to_terminal: bool,
    colour: bool,
    spinner: Option<ProgressBar>,
    /// Whether standard output stands in the middle of a line.
    line_open: bool,
}

const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[1;31m";
const RESET: &str = "\x1b[0m";

impl Console {
    /// Looks at what the two outputs are.
    pub(crate) fn new(verbosity: Verbosity) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let notes_to_terminal = io::stderr().is_terminal();
        Self {
            verbosity,
            to_terminal: io::stdout().is_terminal(),
            notes_to_terminal: notes_to_terminal && !dumb,
            colour: notes_to_terminal && !dumb && !set("NO_COLOR"),
            spinner: None,
            line_open: false,
        }
    }

    /// Whether standard output is a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        self.to_terminal
    }

    /// Whether what goes on can be shown while it does, in a line that changes.
    pub(crate) fn is_live(&self) -> bool {
        self.notes_to_terminal && self.verbosity > Verbosity::Quiet
    }

    /// Says something on standard error, if that much is to be said.
    pub(crate) fn note(&mut self, level: Verbosity, text: &str) {
        if level <= self.verbosity {
            self.say(DIM, text);
        }
    }

    /// Says what went wrong, and what may help.
    pub(crate) fn failure(&mut self, failure: &Failure) {
        if matches!(failure, Failure::BrokenPipe) {
            return;
        }
        self.say(RED, &format!("error: {failure}"));
        if let Some(hint) = failure.hint() {
            self.say(DIM, &format!("hint: {hint}"));
        }
    }

    /// Asks for input.
    pub(crate) fn prompt(&mut self, text: &str) {
        self.settle();
        // A prompt that nobody sees harms nobody.
        let _ = write!(io::stderr(), "{text}").and_then(|()| io::stderr().flush());
    }

    /// Asks for a yes; anything else is a no.
    pub(crate) fn confirms(&mut self, what: &str) -> io::Result<bool> {
        self.prompt(&format!("{what} [y/N] "));
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }

    /// Shows that something is going on, on a terminal.
    pub(crate) fn working(&mut self, what: &str) {
        if !self.notes_to_terminal || self.verbosity == Verbosity::Quiet || self.line_open {
            return;
        }
        let spinner = self.spinner.get_or_insert_with(|| {
            let template = if self.colour {
                "{spinner:.cyan} {msg:.dim} {elapsed:.dim}"
            } else {
                "{spinner} {msg} {elapsed}"
            };
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
            let spinner = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style);
            spinner.enable_steady_tick(Duration::from_millis(100));
            spinner
        });
        spinner.set_message(printable(what).into_owned());
    }

    /// Writes a piece of the answer.
    pub(crate) fn answer(&mut self, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        self.settle();
        let text = if self.to_terminal {
            printable(text)
        } else {
            Cow::Borrowed(text)
        };
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        self.line_open = !text.ends_with('\n');
        Ok(())
    }

    /// Ends the line of the answer, if it stands in the middle of one.
    pub(crate) fn end_line(&mut self) -> io::Result<()> {
        if self.line_open { self.answer("\n") } else { Ok(()) }
    }

    /// Writes a line for a program.
    pub(crate) fn line(&mut self, json: &str) -> io::Result<()> {
        self.settle();
        let mut out = io::stdout().lock();
        writeln!(out, "{json}")?;
        out.flush()
    }

    /// Takes the spinner away.
    pub(crate) fn settle(&mut self) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
    }

    fn say(&mut self, colour: &str, text: &str) {
        self.settle();
        if self.line_open && self.to_terminal && self.notes_to_terminal {
            // Both show on one screen: do not write into the answer's line.
            let _ = self.end_line();
        }
        let text = printable(text);
        // Who cannot be told cannot be told that either.
        let _ = match self.colour {
            true => writeln!(io::stderr(), "{colour}{text}{RESET}"),
            false => writeln!(io::stderr(), "{text}"),
        };
    }
}

/// The text with control characters replaced, except line breaks and tabs.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let harmless = |char: char| !char.is_control() || matches!(char, '\n' | '\t');
    if text.chars().all(harmless) {
        return Cow::Borrowed(text);
    }
    let replace = |char: char| match char {
        '\r' => None,
        char if harmless(char) => Some(char),
        _ => Some('\u{fffd}'),
    };
    Cow::Owned(text.chars().filter_map(replace).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_codes_of_others_are_defused() {
        assert_eq!(
            printable("a\x1b[2Jb\r\n\u{9b}31m\tc"),
            "a\u{fffd}[2Jb\n\u{fffd}31m\tc"
        );
        assert!(matches!(printable("plain \u{e9}\n"), Cow::Borrowed(_)));
    }
}
