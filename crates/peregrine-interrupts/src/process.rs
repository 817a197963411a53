//! Child processes that end with their scope, and take with them what they started.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::signal::unix::{self, SignalKind};

use crate::sync::lock;
use crate::{Error, Hook, Mode, Scope};

/// A child process in a process group of its own.
///
/// The whole group is killed (`SIGKILL`)
///
/// - at an immediate interrupt of the scope, by the thread that interrupts, before `interrupt` returns: nobody has to
///   be polled for that;
/// - when this is dropped;
/// - when the child itself has ended: what it left running in the background ends with it.
///
/// A graceful interrupt does nothing to it. [`terminate`](Self::terminate) asks the group to end (`SIGTERM`), for whoever
/// wants that.
///
/// The child is reaped by [`wait`](Self::wait), or after a drop by tokio's runtime. Until then its id is not given to
/// another process, and it is only used until then: no signal can reach a stranger.
///
/// # What it cannot do
///
/// A process that leaves its group (`setsid`, a daemon) is not found any more. If our own process is killed with
/// `SIGKILL`, nobody is left to kill the group.
///
/// The group is not the terminal's foreground group: Ctrl-C does not reach it, and it must not read from the terminal.
/// Give it a `stdin` of its own.
///
/// # Examples
///
/// ```
/// use std::process::Stdio;
/// use peregrine_interrupts::process::ProcessGroup;
/// use peregrine_interrupts::{ErrorKind, Kind, ManualTimer, Mode, Scope};
/// use tokio::process::Command;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let run = Scope::root("run-1", ManualTimer::new());
/// let tool = run.child(Kind::Tool, "shell");
/// let mut command = Command::new("sh");
/// command.args(["-c", "sleep 1000 & sleep 1000"]).stdin(Stdio::null());
/// let mut shell = ProcessGroup::spawn(&tool, command)?;
///
/// run.interrupt(Mode::Immediate);
/// assert_eq!(shell.wait().await.unwrap_err().kind(), ErrorKind::Interrupted);
/// # Ok::<(), peregrine_interrupts::Error>(())
/// # }).unwrap();
/// ```
pub struct ProcessGroup {
    child: Child,
    group: Arc<Group>,
    exits: unix::Signal,
    status: Option<ExitStatus>,
    program: String,
    scope: Scope,
    hook: Option<Hook>,
}

/// What the hook shares with its owner.
struct Group {
    /// The id of the group, which is that of the child. `None` from before the child is reaped.
    leader: Mutex<Option<Pid>>,
}

impl Group {
    fn signal(&self, signal: rustix::process::Signal) -> bool {
        let leader = lock(&self.leader);
        leader.is_some_and(|leader| kill_process_group(leader, signal).is_ok())
    }

    /// Kills what is left, for good: the id is not used afterwards.
    fn end(&self) {
        if let Some(leader) = lock(&self.leader).take() {
            // It fails where nobody is left, which is what we want.
            let _ = kill_process_group(leader, rustix::process::Signal::KILL);
        }
    }
}

impl ProcessGroup {
    /// Starts `command` in a process group of its own, under `scope`.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`] if there is an immediate interrupt already; [`Error::Process`] if it cannot be started.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with its I/O driver on.
    pub fn spawn(scope: &Scope, mut command: Command) -> Result<Self, Error> {
        if scope.is_cancelled() {
            return Err(scope.reasons().into());
        }
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        let failed = |source| failure("start", &program, source);
        // Before the child begins, so that its end is not missed.
        let exits = unix::signal(SignalKind::child()).map_err(failed)?;
        let child = command.process_group(0).spawn().map_err(failed)?;
        let leader = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let group = Arc::new(Group {
            leader: Mutex::new(leader),
        });
        let of_hook = group.clone();
        let hook = scope.on(Mode::Immediate, move || {
            of_hook.signal(rustix::process::Signal::KILL);
        });
        Ok(Self {
            child,
            group,
            exits,
            status: None,
            program,
            scope: scope.clone(),
            hook: Some(hook),
        })
    }

    /// The id of the child and of its group; `None` once it is reaped.
    pub fn id(&self) -> Option<u32> {
        let leader = lock(&self.group.leader);
        leader.map(|leader| leader.as_raw_nonzero().get().cast_unsigned())
    }

    /// Takes the child's standard input, if it was piped.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Takes the child's standard output, if it was piped.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Takes the child's standard error, if it was piped.
    pub fn stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Asks the whole group to end (`SIGTERM`). Returns whether there was anybody to ask.
    pub fn terminate(&self) -> bool {
        self.group.signal(rustix::process::Signal::TERM)
    }

    /// Kills the whole group (`SIGKILL`). Returns whether there was anybody to kill.
    pub fn kill(&self) -> bool {
        self.group.signal(rustix::process::Signal::KILL)
    }

    /// Waits for the child to end, kills what it left in its group, and reaps it. A piped standard input that was not
    /// taken is closed first.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`] if an immediate interrupt killed it; a child that had ended by itself before that has its
    /// status. [`Error::Process`] if the operating system does not tell.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing; it can be called again, also after the end.
    pub async fn wait(&mut self) -> Result<ExitStatus, Error> {
        drop(self.child.stdin.take());
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            // Any child's end wakes us; ours is among them. `None` cannot come while the runtime lives.
            if self.exits.recv().await.is_none() {
                let source = std::io::Error::other("the runtime no longer listens to signals");
                return Err(failure("wait for", &self.program, source));
            }
        }
    }

    /// Like [`wait`](Self::wait), without waiting: `None` while the child runs.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>, Error> {
        let failed = |source| failure("wait for", &self.program, source);
        if self.status.is_none() {
            let leader = *lock(&self.group.leader);
            if let Some(leader) = leader {
                // Sees the end and leaves the child unreaped: its id stays ours while the rest of the group is killed.
                let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
                if waitid(WaitId::Pid(leader), options)
                    .map_err(|errno| failed(errno.into()))?
                    .is_none()
                {
                    return Ok(None);
                }
                self.group.end();
            }
            self.status = self.child.try_wait().map_err(failed)?;
            self.hook = None;
        }
        match self.status {
            Some(status) if status.signal() == Some(rustix::process::Signal::KILL.as_raw()) => self
                .scope
                .interrupted()
                .filter(|_| self.scope.is_cancelled())
                .map_or(Ok(Some(status)), |why| Err(why.into())),
            status => Ok(status),
        }
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        // The child is not reaped yet, so the id is its own. Reaping is tokio's, which does so for children it is left with.
        self.group.end();
    }
}

impl fmt::Debug for ProcessGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessGroup")
            .field("program", &self.program)
            .field("id", &self.id())
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

fn failure(what: &str, program: &str, source: std::io::Error) -> Error {
    Error::Process {
        attempt: format!("{what} `{}`", crate::name::Printable(program)),
        source,
    }
}
