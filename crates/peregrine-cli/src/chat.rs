//! `peregrine chat`: one question after the other.
//!
//! Invariants: a question that failed or was cancelled leaves no trace in the conversation; the conversation
//! is bounded, and says so when it forgets its oldest turns; one line is one question, at a terminal and from
//! a pipe.

use std::io::{BufRead as _, IsTerminal as _, Read as _};

use peregrine::core::{Message, Messages, Part};
use peregrine::tools::Registry;
use tokio::sync::mpsc;

use crate::args::ChatArgs;
use crate::ask;
use crate::failure::Failure;
use crate::interrupt::{self, Interrupts};
use crate::model::{self, Chosen};
use crate::output::{Console, Verbosity};
use crate::prompt;
use crate::run::{Asking, FirstSignal, Runner};
use crate::view::View;

/// How long a question may be.
const MAX_LINE_BYTES: u64 = 256 << 10;
/// How much text a conversation keeps.
const MAX_HISTORY_BYTES: usize = 1 << 20;

const HELP: &str = "/help  these lines\n/reset  forget the conversation\n/model NAME  let another model answer\n\
    /exit  leave (Ctrl-D too)\nCtrl-C cancels the running answer; a second one leaves.";

/// Answers until the input ends.
///
/// # Errors
///
/// [`Failure`] if no model was found, or the output cannot be written; from a pipe also if a question failed.
pub(crate) async fn chat(args: ChatArgs, console: &mut Console) -> Result<(), Failure> {
    let interactive = std::io::stdin().is_terminal();
    let tools = ask::tools(&args.paths)?;
    let mut interrupts = Interrupts::new()?;
    console.working("looking for a model");
    let chosen = interrupts.or(model::choose(&args.run)).await?;
    ask::announce(&chosen, console);
    if interactive {
        console.note(Verbosity::Normal, "one line is one question; /help says more");
    }
    let mut lines = read_lines();
    let mut chat = Chat::new(args, tools, chosen);
    let mut failed = None;
    // Whether the next Ctrl-C leaves.
    let mut leaving = false;
    loop {
        if interactive {
            console.prompt("> ");
        }
        let line = tokio::select! {
            line = lines.recv() => line,
            interrupted = interrupts.next() => {
                if leaving || !interactive || interrupt::leaves(&interrupted) {
                    return Err(interrupted);
                }
                leaving = true;
                console.prompt("\n(Ctrl-C again or Ctrl-D leaves)\n");
                continue;
            }
        };
        let Some(line) = line else { break };
        leaving = false;
        let line = match line {
            Ok(line) => line,
            Err(failure) => {
                console.failure(&failure);
                failed = Some(failure);
                continue;
            }
        };
        let ended = match Input::parse(&line) {
            Input::Nothing => Ok(()),
            Input::Exit => break,
            Input::Command(command, rest) => interrupts.or(chat.command(command, rest, console)).await,
            Input::Question(question) => chat.answer(question, console, &interrupts).await,
        };
        interrupts.renew()?;
        console.end_line()?;
        match ended {
            Ok(()) => {}
            Err(failure @ Failure::Interrupted(_)) if interactive && !interrupt::leaves(&failure) => {
                leaving = true;
                console.note(Verbosity::Quiet, "cancelled (Ctrl-C again leaves)");
            }
            Err(failure @ (Failure::Interrupted(_) | Failure::BrokenPipe | Failure::Output(_))) => {
                return Err(failure);
            }
            Err(failure) => {
                console.failure(&failure);
                failed = Some(failure);
            }
        }
    }
    match failed {
        // A person has seen it; a script needs the exit status.
        Some(_) if !interactive => Err(Failure::Local {
            kind: peregrine::ErrorKind::Internal,
            message: "not every question was answered".to_owned(),
        }),
        _ => Ok(()),
    }
}

struct Chat {
    args: ChatArgs,
    tools: Registry,
    chosen: Chosen,
    /// What the model is told before everything else.
    system: Option<String>,
    /// What was said, in questions that were answered.
    messages: Messages,
}

impl Chat {
    fn new(args: ChatArgs, tools: Registry, chosen: Chosen) -> Self {
        Self {
            system: prompt::system(&args.paths, false, args.run.system.as_deref()),
            args,
            tools,
            chosen,
            messages: Messages::new(),
        }
    }

    async fn answer(
        &mut self,
        question: &str,
        console: &mut Console,
        interrupts: &Interrupts,
    ) -> Result<(), Failure> {
        let run = &self.args.run;
        let asking = match console.is_terminal() {
            true => Asking::Streamed,
            false => Asking::Whole,
        };
        let system = self.system.clone();
        let runner = Runner::new(&self.chosen, &self.tools, system, run, run.wall_time(), asking);
        let mut view = View {
            console,
            json: false,
            asking,
        };
        let input = peregrine::Input::from(&self.messages).with_user(question);
        // Half an answer is no use to a conversation, and the next question is at hand.
        let ended = runner.run(input, &mut view, interrupts, FirstSignal::Stops).await;
        let output = ended.map_err(|unanswered| unanswered.failure)?;
        let response = ask::check(output.response)?;
        if asking == Asking::Whole {
            console.answer(&response.message.text())?;
        }
        console.end_line()?;
        ask::finish(&response, &output.report, console);
        self.messages = output.report.messages;
        let forgotten = bound(&mut self.messages, self.system.is_some(), MAX_HISTORY_BYTES);
        if forgotten > 0 {
            console.note(
                Verbosity::Normal,
                &format!("the conversation grew long: its first {forgotten} turns are forgotten"),
            );
        }
        Ok(())
    }

    async fn command(&mut self, name: &str, rest: &str, console: &mut Console) -> Result<(), Failure> {
        match (name, rest) {
            ("help", _) => console.note(Verbosity::Quiet, HELP),
            ("reset", _) => {
                self.messages = Messages::new();
                console.note(Verbosity::Normal, "the conversation is forgotten");
            }
            ("model", "") => ask::announce(&self.chosen, console),
            ("model", name) => {
                let mut run = self.args.run.clone();
                run.model = Some(name.to_owned());
                self.chosen = model::choose(&run).await?;
                self.args.run = run;
                ask::announce(&self.chosen, console);
            }
            _ => console.note(
                Verbosity::Quiet,
                &format!("there is no command /{name}; /help lists them"),
            ),
        }
        Ok(())
    }
}

/// A line of input.
#[derive(Debug, PartialEq, Eq)]
enum Input<'l> {
    Nothing,
    Exit,
    Command(&'l str, &'l str),
    Question(&'l str),
}

impl<'l> Input<'l> {
    fn parse(line: &'l str) -> Self {
        let line = line.trim();
        let Some(command) = line.strip_prefix('/') else {
            return if line.is_empty() {
                Self::Nothing
            } else {
                Self::Question(line)
            };
        };
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        match name {
            "exit" | "quit" => Self::Exit,
            name => Self::Command(name, rest.trim()),
        }
    }
}

/// Reads lines on a thread of its own, because a read of a terminal cannot be cancelled. One line is read ahead.
fn read_lines() -> mpsc::Receiver<Result<String, Failure>> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        loop {
            let mut line = Vec::new();
            let read = input
                .by_ref()
                .take(MAX_LINE_BYTES + 1)
                .read_until(b'\n', &mut line);
            let line = match read {
                Ok(0) => return,
                Ok(_) if line.len() as u64 > MAX_LINE_BYTES => {
                    let rest = input.skip_until(b'\n');
                    let message = format!(
                        "a question has at most {} KiB, this one was skipped",
                        MAX_LINE_BYTES >> 10
                    );
                    let kind = peregrine::ErrorKind::RequestTooLarge;
                    rest.map_or_else(
                        |error| Err(Failure::io(&error)),
                        |_| Err(Failure::Local { kind, message }),
                    )
                }
                Ok(_) => Ok(String::from_utf8_lossy(&line).into_owned()),
                Err(error) => Err(Failure::io(&error)),
            };
            let broken = read_failed(&line);
            if sender.blocking_send(line).is_err() || broken {
                return;
            }
        }
    });
    receiver
}

fn read_failed(line: &Result<String, Failure>) -> bool {
    matches!(line, Err(Failure::Local { kind, .. }) if *kind != peregrine::ErrorKind::RequestTooLarge)
}

/// Forgets the oldest turns until the text fits; the newest turn always stays. Gives how many were forgotten.
fn bound(messages: &mut Messages, has_system: bool, max_bytes: usize) -> usize {
    let mut total: usize = messages.iter().map(bytes_of).sum();
    if total <= max_bytes {
        return 0;
    }
    let first = usize::from(has_system);
    let starts: Vec<usize> = messages
        .iter()
        .enumerate()
        .filter(|(at, message)| *at >= first && message.role == peregrine::Role::User)
        .map(|(at, _)| at)
        .collect();
    let mut forgotten = 0;
    while total > max_bytes && forgotten + 1 < starts.len() {
        let turn = starts[forgotten]..starts[forgotten + 1];
        total -= messages
            .iter()
            .skip(turn.start)
            .take(turn.len())
            .map(bytes_of)
            .sum::<usize>();
        forgotten += 1;
    }
    let keep_from = starts.get(forgotten).copied().unwrap_or(first);
    *messages = messages
        .iter()
        .enumerate()
        .filter(|(at, _)| *at < first || *at >= keep_from)
        .map(|(_, message)| message.clone())
        .collect();
    forgotten
}

fn bytes_of(message: &Message) -> usize {
    let part = |part: &Part| match part {
        Part::Text(text) | Part::Refusal(text) => text.text.len(),
        Part::Reasoning(reasoning) => reasoning.text.len(),
        Part::ToolCall(call) => call.arguments.len() + call.name.len(),
        Part::ToolResult(result) => result.text().len(),
        _ => 0,
    };
    message.parts.iter().map(part).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_questions_or_commands() {
        assert_eq!(Input::parse(" \n"), Input::Nothing);
        assert_eq!(Input::parse("/exit\n"), Input::Exit);
        assert_eq!(Input::parse("/model  a/b \r\n"), Input::Command("model", "a/b"));
        assert_eq!(
            Input::parse("what is / in Rust?"),
            Input::Question("what is / in Rust?")
        );
    }

    #[test]
    fn the_oldest_turns_are_forgotten_first_and_the_newest_stays() {
        let turn = |text: &str| [Message::user(text), Message::assistant(text)];
        let mut messages: Messages = std::iter::once(Message::system("s"))
            .chain(["aaaa", "bbbb", "cccc"].into_iter().flat_map(turn))
            .collect();
        assert_eq!(bound(&mut messages, true, 25), 0);
        assert_eq!(bound(&mut messages, true, 17), 1);
        let texts: Vec<_> = messages.iter().map(Message::text).collect();
        assert_eq!(texts, ["s", "bbbb", "bbbb", "cccc", "cccc"]);
        assert_eq!(bound(&mut messages, true, 1), 1);
        assert_eq!(messages.len(), 3, "the system message and the newest turn stay");
    }
}
