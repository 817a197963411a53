//! Shows a run while it goes on: the answer as it arrives, a line for each event, or notes and a spinner.

use peregrine::{ChatEvent, RunEvent};

use crate::failure::Failure;
use crate::json;
use crate::output::{Console, Verbosity};
use crate::run::Asking;

/// Shows a run while it goes on.
pub(crate) struct View<'c> {
    pub(crate) console: &'c mut Console,
    /// Whether a program reads.
    pub(crate) json: bool,
    pub(crate) asking: Asking,
}

impl View<'_> {
    /// Shows an event of the run.
    ///
    /// # Errors
    ///
    /// That nobody can see it.
    pub(crate) fn event(&mut self, event: &RunEvent) -> Result<(), Failure> {
        if self.asking == Asking::Watched
            && let Some(line) = json::event(event)
        {
            self.console.line(&line)?;
        }
        match event {
            RunEvent::Turn { turn: 1, .. } => self.console.working("thinking"),
            RunEvent::Turn { turn, .. } => {
                if !self.json {
                    self.console.end_line()?;
                }
                self.console.working(&format!("thinking, step {turn}"));
            }
            RunEvent::Text { text, .. } if self.asking == Asking::Streamed => self.console.answer(text)?,
            RunEvent::ToolStart { name, arguments, .. } => {
                let what = format!("{name} {}", brief(arguments));
                self.console.note(Verbosity::Verbose, &format!("tool: {what}"));
                self.console.working(&what);
            }
            RunEvent::ToolEnd { result, .. } => {
                let text = result.text();
                let outcome = match result.is_error {
                    true => brief(&text),
                    false => format!("{} lines", text.lines().count()),
                };
                let note = format!("tool: {} gave {outcome}", result.name);
                self.console.note(Verbosity::Verbose, &note);
            }
            RunEvent::LimitNear { limit, .. } => self.console.note(Verbosity::Verbose, limit),
            _ => {}
        }
        Ok(())
    }

    /// Shows an event of the model's own.
    ///
    /// # Errors
    ///
    /// That nobody can see it.
    pub(crate) fn model_event(&mut self, event: &ChatEvent) -> Result<(), Failure> {
        Ok(self.console.line(&json::model_event(event))?)
    }
}

/// The beginning of a text, on one line.
fn brief(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .take(100)
        .collect();
    if line.len() < text.len() {
        line + ".."
    } else {
        line
    }
}
