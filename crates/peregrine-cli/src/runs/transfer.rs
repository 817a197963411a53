//! `runs export` and `runs import`: a run as JSON lines.
//!
//! Invariants: no half of an export or of a run is left behind, whatever fails; nothing that is there is written over.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use peregrine::ErrorKind;
use peregrine::checkpoints::Error;
use peregrine::core::RunId;
use serde::Deserialize;
use serde_json::json;

use super::args::{ExportArgs, ImportArgs, ImportId};
use super::store::Runs;
use super::{json_line, text};
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::output::{Console, Verbosity};

/// How long the first line may be, which only names the run.
const MAX_HEAD_BYTES: u64 = 64 << 10;
/// So much is read at once.
const PIECE_BYTES: usize = 64 << 10;
/// While nothing comes, it is looked so often whether to stop.
const LOOK: Duration = Duration::from_millis(50);

/// Writes a run as JSON lines.
///
/// # Errors
///
/// [`Failure`]; a file that was begun is removed again.
pub(crate) async fn export(args: &ExportArgs, console: &mut Console) -> Result<ExitCode, Failure> {
    let runs = Runs::find(&args.store).await?;
    let key = runs.named(&args.run).await?;
    let records = match &args.output {
        None => {
            let mut out = BufWriter::new(Harmless {
                out: io::stdout(),
                is_terminal: console.is_terminal(),
                pending: false,
            });
            runs.checkpoints.export(&key, &mut out).await
        }
        Some(path) => {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true);
            // Runs hold conversations.
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let file = options
                .open(path)
                .map_err(|error| could_not("make", path, &error))?;
            let begun = Begun(Some(path.clone()));
            let mut out = BufWriter::new(file);
            let exported = runs.checkpoints.export(&key, &mut out).await;
            if exported.is_ok() {
                begun.keep();
            }
            exported
        }
    };
    let records = records.map_err(|error| match broken_pipe(&error) {
        true => Failure::BrokenPipe,
        false => error.into(),
    })?;
    console.note(
        Verbosity::Normal,
        &format!("{} of run {}", text::counted(records, "record"), key.run),
    );
    Ok(ExitCode::SUCCESS)
}

/// Makes a run of JSON lines.
///
/// # Errors
///
/// [`Failure`]; a run that was begun is removed again.
pub(crate) async fn import(args: &ImportArgs, console: &mut Console) -> Result<ExitCode, Failure> {
    let mut interrupts = Interrupts::new()?;
    let stopped = Arc::new(AtomicBool::new(false));
    let input: Box<dyn Read + Send> = match args.file.as_path() {
        path if path == Path::new("-") => Box::new(io::stdin()),
        path => Box::new(File::open(path).map_err(|error| could_not("open", path, &error))?),
    };
    let mut input = BufReader::new(Stoppable::read(input, Arc::clone(&stopped)));
    let runs = Runs::open(&args.store).await?;
    let id = args.id;
    console.working("importing");
    // On a thread of its own, so that this one hears signals.
    let runtime = tokio::runtime::Handle::current();
    let mut importing = tokio::task::spawn_blocking(move || {
        runtime.block_on(async move {
            let (head, was) = head(&mut input)?;
            let run = match id {
                None => was,
                Some(ImportId::Given(run)) => run,
                Some(ImportId::New) => super::new_id(),
            };
            let mut input = BufReader::new(Cursor::new(head).chain(input));
            let journal = runs.checkpoints.import(&runs.key(run), &mut input).await?;
            let records = journal.next_seq();
            journal.finish().await?;
            Ok::<_, Failure>((run, was, records))
        })
    });
    let mut interrupted = None;
    let ended = tokio::select! {
        ended = &mut importing => Ok(ended),
        failure = interrupts.next() => {
            interrupted = Some(failure);
            // It ends with an error, which removes what it has made. Who cannot wait for that says so once more.
            stopped.store(true, Ordering::Relaxed);
            interrupts.or(async { Ok::<_, Failure>(importing.await) }).await
        }
    };
    let imported = ended?.map_err(|panicked| Failure::internal(&panicked.to_string()))?;
    let (run, was, records) = match (imported, interrupted) {
        (Err(_), Some(interrupted)) => return Err(interrupted),
        (imported, _) => imported?,
    };
    match args.json {
        true => json_line(console, &json!({"run": run, "was": was, "records": records}))?,
        false => {
            console.answer(&format!("{run}\n"))?;
            let note = format!("{} imported", text::counted(records, "record"));
            console.note(Verbosity::Normal, &note);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The first line, and the run that it names.
fn head(input: &mut (dyn BufRead + Send)) -> Result<(Vec<u8>, RunId), Failure> {
    #[derive(Deserialize)]
    struct Head {
        run: RunId,
    }

    let mut line = Vec::new();
    let read = Read::take(input, MAX_HEAD_BYTES).read_until(b'\n', &mut line);
    read.map_err(|error| Failure::io(&error))?;
    match serde_json::from_slice::<Head>(&line) {
        Ok(head) => Ok((line, head.run)),
        Err(_) => Err(Failure::Local {
            kind: ErrorKind::InvalidRequest,
            message: "line 1 does not begin a run that was exported".to_owned(),
        }),
    }
}

/// Input that ends with an error when it is told to, also while nothing comes.
struct Stoppable {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: Cursor<Vec<u8>>,
    stopped: Arc<AtomicBool>,
}

impl Stoppable {
    /// Reads on a thread of its own, because a read of standard input or of a dead disk cannot be cancelled.
    fn read(mut input: impl Read + Send + 'static, stopped: Arc<AtomicBool>) -> Self {
        let (sender, pieces) = sync_channel(1);
        std::thread::spawn(move || {
            loop {
                let mut piece = vec![0; PIECE_BYTES];
                let read = match input.read(&mut piece) {
                    Ok(count) => {
                        piece.truncate(count);
                        Ok(piece)
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let is_last = !matches!(&read, Ok(piece) if !piece.is_empty());
                if sender.send(read).is_err() || is_last {
                    return;
                }
            }
        });
        Self {
            pieces,
            piece: Cursor::default(),
            stopped,
        }
    }
}

impl Read for Stoppable {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.stopped.load(Ordering::Relaxed) {
                return Err(io::Error::other("interrupted"));
            }
            match self.piece.read(buffer)? {
                0 => match self.pieces.recv_timeout(LOOK) {
                    Ok(piece) => {
                        let piece = piece?;
                        if piece.is_empty() {
                            return Ok(0);
                        }
                        self.piece = Cursor::new(piece);
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return Ok(0),
                },
                count => return Ok(count),
            }
        }
    }
}

fn could_not(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::Local {
        kind: Failure::io(error).kind(),
        message: format!("could not {what} {}: {error}", path.display()),
    }
}

fn broken_pipe(error: &Error) -> bool {
    match error {
        Error::Io { source, .. } => source
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe),
        _ => false,
    }
}

/// A file that goes again unless it is kept.
struct Begun(Option<PathBuf>);

impl Begun {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // What cannot be removed cannot be helped; the failure before it is told.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// JSON on its way to a terminal: the control characters U+0080 to U+009F, in UTF-8 0xC2 and one more byte, and U+007F
/// are escaped. JSON has escaped the others. To anything else the bytes pass as they are.
struct Harmless<W> {
    out: W,
    is_terminal: bool,
    /// 0xC2 came last.
    pending: bool,
}

impl<W: Write> Write for Harmless<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_terminal {
            return self.out.write(bytes);
        }
        let mut harmless = Vec::with_capacity(bytes.len() + 8);
        for byte in bytes {
            match (std::mem::take(&mut self.pending), *byte) {
                (true, 0x80..=0x9f) | (false, 0x7f) => {
                    harmless.extend_from_slice(format!("\\u{:04x}", *byte).as_bytes());
                }
                (true, other) => harmless.extend_from_slice(&[0xc2, other]),
                (false, 0xc2) => self.pending = true,
                (false, other) => harmless.push(other),
            }
        }
        self.out.write_all(&harmless)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_cannot_drive_a_terminal_however_it_is_cut() {
        let text = "{\"a\u{9b}31m\":\"\u{7f}\u{a9}\u{e9}\u{80}\"}\n";
        for cut in 0..=text.len() {
            let mut out = Harmless {
                out: Vec::new(),
                is_terminal: true,
                pending: false,
            };
            let (first, second) = text.as_bytes().split_at(cut);
            out.write_all(first).unwrap();
            out.write_all(second).unwrap();
            let shown = String::from_utf8(out.out).unwrap();
            assert_eq!(shown, text::harmless(text), "cut at {cut}");
        }
    }
}
