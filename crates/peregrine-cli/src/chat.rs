//! `peregrine chat`: one question after the other.
//!
//! Invariants: a question that failed or was cancelled leaves no trace in the conversation; the conversation
//! is bounded, and says so when it forgets its oldest turns; one line is one question, at a terminal and from
//! a pipe.

use std::io::{BufRead as _, IsTerminal as _, Read as _};

use peregrine::agent::run::More;
use peregrine::checkpoints::RunKey;
use peregrine::core::{Message, Messages, Part, RunId};
use peregrine::tools::Registry;
use tokio::sync::mpsc;

use crate::args::ChatArgs;
use crate::ask;
use crate::chat_log::{self, Asked, ChatLog};
use crate::command;
use crate::failure::Failure;
use crate::interrupt::{self, Interrupts};
use crate::keep::{self, Kept};
use crate::model::{self, Chosen};
use crate::output::{Console, Verbosity};
use crate::prompt;
use crate::run::{Asking, FirstSignal, Runner};
use crate::runs;
use crate::runs::args::RunName;
use crate::runs::store::Runs;
use crate::view::View;

/// How long a question may be.
const MAX_LINE_BYTES: u64 = 256 << 10;
/// How much text a conversation keeps.
const MAX_HISTORY_BYTES: usize = 1 << 20;

/// Among so many runs the last chat is looked for.
const RECENT: usize = 32;

const HELP: &str = "/help  these lines\n/reset  forget the conversation\n/model NAME  let another model answer\n\
    /exit  leave (Ctrl-D too)\nCtrl-C cancels the running answer; a second one leaves.";

/// Answers until the input ends.
///
/// # Errors
///
/// [`Failure`] if no model was found, or the output cannot be written; from a pipe also if a question failed.
pub(crate) async fn chat(args: ChatArgs, console: &mut Console) -> Result<(), Failure> {
    let mut chat = None;
    let ended = converse(args, &mut chat, console).await;
    match chat.and_then(|chat| chat.log) {
        // What is to survive the end of the chat is written now, however it ended.
        Some(log) => ended.and(log.finish().await),
        None => ended,
    }
}

async fn converse(mut args: ChatArgs, chat: &mut Option<Chat>, console: &mut Console) -> Result<(), Failure> {
    let interactive = std::io::stdin().is_terminal();
    let before = goes_on(&mut args).await?;
    let tools = ask::tools(&args.paths)?;
    let mut interrupts = Interrupts::new()?;
    console.working("looking for a model");
    let chosen = interrupts.or(model::choose(&args.run)).await?;
    ask::announce(&chosen, console);
    let (log, said, open) = keep(&args, &chosen, before).await?;
    if let Some(log) = &log {
        keep::announce(log.runs(), log.id(), console);
    }
    if interactive {
        console.note(Verbosity::Normal, "one line is one question; /help says more");
    }
    let mut lines = read_lines();
    let chat = chat.insert(Chat::new(args, tools, chosen, log, said));
    let mut failed = None;
    if let Some(asked) = open {
        let brief: String = asked.question.chars().take(100).collect();
        console.note(Verbosity::Normal, &format!("going on with: {brief}"));
        let ended = chat
            .answer(&asked.question, Some(asked.run), console, &interrupts)
            .await;
        // A signal that came too late to end it is still to be heard.
        if ended.is_err() {
            interrupts.renew()?;
        }
        console.end_line()?;
        match ended {
            Ok(()) => {}
            Err(failure @ (Failure::Interrupted(_) | Failure::BrokenPipe | Failure::Output(_))) => {
                return Err(failure);
            }
            Err(failure) => {
                console.failure(&failure);
                failed = Some(failure);
            }
        }
    }
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
            Input::Question(question) => chat.answer(question, None, console, &interrupts).await,
        };
        // A signal that came too late to end it is still to be heard.
        if ended.is_err() {
            interrupts.renew()?;
        }
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

/// What a chat goes on from.
enum Before {
    Nothing,
    /// One that was kept.
    Chat(Box<ChatLog>),
    /// The conversation of an answered run.
    Run(Messages),
}

/// What the chat goes on from, with the files and the model of before where no others are given.
async fn goes_on(args: &mut ChatArgs) -> Result<Before, Failure> {
    let ChatArgs { paths, run, durable } = args;
    let Some(name) = &durable.resume else {
        return Ok(Before::Nothing);
    };
    let runs = Runs::find(&durable.store).await?;
    let key = match name {
        RunName::Last => last(&runs).await?,
        name => runs.named(name).await?,
    };
    if !chat_log::is_chat(&runs, &key).await? {
        return Ok(Before::Run(ask::answered(name, durable, paths, run).await?));
    }
    let log = ChatLog::resume(durable.at_its_level(runs), &key).await?;
    let labels = &log.conversation().labels;
    keep::as_before(labels, command::reads_files(labels), paths, run)?;
    Ok(Before::Chat(Box::new(log)))
}

/// The chat that was written last, and without one of late the run: the run of a question that is under way is no answer
/// to go on from.
async fn last(runs: &Runs) -> Result<RunKey, Failure> {
    for key in runs.latest(RECENT).await? {
        if chat_log::is_chat(runs, &key).await.unwrap_or(false) {
            return Ok(key);
        }
    }
    runs.named(&RunName::Last).await
}

/// The journal, if there is to be one; what was said before; and the question that is under way.
async fn keep(
    args: &ChatArgs,
    chosen: &Chosen,
    before: Before,
) -> Result<(Option<ChatLog>, Messages, Option<Asked>), Failure> {
    let labels = command::labels(&args.paths, chosen, &args.run);
    let said = match before {
        Before::Chat(mut log) => {
            log.goes_on_with(labels).await?;
            let conversation = log.conversation();
            let mut said = conversation.messages.iter().cloned().collect();
            bound(&mut said, false, MAX_HISTORY_BYTES);
            let open = conversation.open.clone();
            return Ok((Some(*log), said, open));
        }
        Before::Run(messages) => messages,
        Before::Nothing => Messages::new(),
    };
    let log = match args.durable.open().await? {
        Some(runs) => Some(ChatLog::begin(runs, runs::new_id(), labels, spoken(&said, 0)).await?),
        None => None,
    };
    Ok((log, said, None))
}

/// A conversation without instructions, from some message on.
fn spoken(messages: &Messages, from: usize) -> Vec<Message> {
    let spoken = messages
        .iter()
        .filter(|message| message.role != peregrine::Role::System);
    spoken.skip(from).cloned().collect()
}

struct Chat {
    args: ChatArgs,
    tools: Registry,
    chosen: Chosen,
    /// What the model is told before everything else.
    system: Option<String>,
    /// What was said, in questions that were answered.
    messages: Messages,
    /// Where that is kept.
    log: Option<ChatLog>,
}

impl Chat {
    fn new(
        args: ChatArgs,
        tools: Registry,
        chosen: Chosen,
        log: Option<ChatLog>,
        messages: Messages,
    ) -> Self {
        Self {
            system: prompt::system(&args.paths, false, args.run.system.as_deref()),
            args,
            tools,
            chosen,
            messages,
            log,
        }
    }

    /// Answers a question; `going` is its run, if that was under way.
    async fn answer(
        &mut self,
        question: &str,
        going: Option<RunId>,
        console: &mut Console,
        interrupts: &Interrupts,
    ) -> Result<(), Failure> {
        let run = going.unwrap_or_else(runs::new_id);
        let kept = match &mut self.log {
            None => None,
            Some(log) => {
                if going.is_none() {
                    log.asked(question, run).await?;
                }
                Some(log.kept(run))
            }
        };
        let before = spoken(&self.messages, 0).len();
        let ended = self
            .run(question, kept.as_ref(), going.is_some(), console, interrupts)
            .await;
        let Some(log) = &mut self.log else { return ended };
        match ended {
            Ok(()) => log.answered(spoken(&self.messages, before)).await?,
            Err(failure) => {
                // What keeps the store from being told that is no news, if it is why the question failed.
                let told = log.unanswered().await;
                return Err(match (failure, told) {
                    (failure @ Failure::Store(_), _) | (failure, Ok(())) => failure,
                    (_, Err(failure)) => failure,
                });
            }
        }
        self.forget_the_oldest(console);
        Ok(())
    }

    async fn run(
        &mut self,
        question: &str,
        kept: Option<&Kept>,
        is_going: bool,
        console: &mut Console,
        interrupts: &Interrupts,
    ) -> Result<(), Failure> {
        let run = &self.args.run;
        let asking = match console.is_terminal() {
            true => Asking::Streamed,
            false => Asking::Whole,
        };
        let system = self.system.clone();
        let runner = Runner::new(
            &self.chosen,
            &self.tools,
            system,
            run,
            run.wall_time(),
            asking,
            kept,
        );
        let mut view = View {
            console,
            json: false,
            asking,
        };
        let mut input = peregrine::Input::from(&self.messages).with_user(question);
        input.run_id = kept.map(|kept| kept.key.run);
        // Half an answer is no use to a conversation, and the next question is at hand.
        let first = FirstSignal::Stops;
        let ended = match kept {
            Some(kept) if is_going && kept.has_begun().await? => {
                runner
                    .go_on(&kept.key, More::default(), false, &mut view, interrupts, first)
                    .await
            }
            _ => runner.run(input, &mut view, interrupts, first).await,
        };
        let output = ended.map_err(|unanswered| unanswered.failure)?;
        let response = ask::check(output.response)?;
        if asking == Asking::Whole {
            console.answer(&response.message.text())?;
        }
        console.end_line()?;
        ask::finish(&response, &output.report, console);
        self.messages = output.report.messages;
        if self.log.is_none() {
            self.forget_the_oldest(console);
        }
        Ok(())
    }

    fn forget_the_oldest(&mut self, console: &mut Console) {
        let forgotten = bound(&mut self.messages, self.system.is_some(), MAX_HISTORY_BYTES);
        if forgotten > 0 {
            console.note(
                Verbosity::Normal,
                &format!("the conversation grew long: its first {forgotten} turns are forgotten"),
            );
        }
    }

    async fn command(&mut self, name: &str, rest: &str, console: &mut Console) -> Result<(), Failure> {
        match (name, rest) {
            ("help", _) => console.note(Verbosity::Quiet, HELP),
            ("reset", _) => {
                self.messages = Messages::new();
                if let Some(log) = &mut self.log {
                    log.forgotten().await?;
                }
                console.note(Verbosity::Normal, "the conversation is forgotten");
            }
            ("model", "") => ask::announce(&self.chosen, console),
            ("model", name) => {
                let mut run = self.args.run.clone();
                run.model = Some(name.to_owned());
                self.chosen = model::choose(&run).await?;
                self.args.run = run;
                if let Some(log) = &mut self.log {
                    let labels = command::labels(&self.args.paths, &self.chosen, &self.args.run);
                    log.goes_on_with(labels).await?;
                }
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
