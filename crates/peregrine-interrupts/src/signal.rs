//! Ctrl-C and friends: one installation for the whole process, any number of runs.
//!
//! Each [`subscribe`]d scope takes every signal for itself: the first interrupts it gracefully, the next immediately,
//! whatever else is going on in the process. Nobody takes a signal away from anybody.
//!
//! A signal that has nothing left to tell anyone does what it would have done without this module: it ends the process,
//! with the status that its parent expects. That is so
//!
//! - when every subscribed scope is told to stop immediately already, or is gone: the third Ctrl-C;
//! - when nobody is subscribed (any more): Ctrl-C ends a program whose run is over, or is stuck somewhere else.
//!
//! # How
//!
//! With the first subscription a thread begins that waits for signals, and lives as long as the process; it needs no
//! runtime, so a runtime that is blocked, or one of several that is shut down, loses nothing. It wakes and runs hooks
//! itself. A signal handler, once installed, cannot soundly be taken out again under a process that has other libraries in
//! it (that is why tokio never does). So ours stays, and beside it one that looks at a flag: while nobody listens to a
//! signal, the flag is up, and the handler itself restores the default and raises the signal again. That takes no thread and
//! no lock: a process that hangs can still be ended.
//!
//! # With other users of signals
//!
//! `tokio::signal` and `signal-hook` share one registry with this module, and all of them see every signal. A program
//! that handles signals by itself as well does not want them to end it when no run is subscribed: see
//! [`Signals::without_default_action`].
//!
//! A signal that arrives twice before the thread looks counts once, as with all of Unix. Child processes start with
//! default handlers; those in [groups of their own](../process/index.html) do not get a terminal's Ctrl-C at all.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{io, thread};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator;

use crate::scope::raise_further;
use crate::sync::lock;
use crate::{Error, Handle, Interrupt, Scope, Signal, Source};

/// Interrupts `scope` at `SIGINT` (Ctrl-C) and `SIGTERM`: gracefully at first, immediately when it comes again.
///
/// # Errors
///
/// [`Error::Signals`] if the handler cannot be installed or the thread not started.
///
/// # Examples
///
/// ```
/// use peregrine_interrupts::{ManualTimer, Scope, signal};
///
/// let run = Scope::root("run-1", ManualTimer::new());
/// let listening = signal::subscribe(&run)?;
/// // .. the run ..
/// drop(listening); // Ctrl-C ends the process from here on
/// # Ok::<(), peregrine_interrupts::Error>(())
/// ```
pub fn subscribe(scope: &Scope) -> Result<Subscription, Error> {
    Signals::new().subscribe(scope)
}

/// Which signals to listen to.
///
/// # Examples
///
/// ```
/// use peregrine_interrupts::signal::Signals;
/// use peregrine_interrupts::{ManualTimer, Scope, Signal};
///
/// let server = Scope::root("server", ManualTimer::new());
/// let listening = Signals::new().with(Signal::Hangup).subscribe(&server)?;
/// # drop(listening);
/// # Ok::<(), peregrine_interrupts::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signals {
    listened: Vec<Signal>,
    default_action: bool,
}

impl Signals {
    /// [`Signal::Interrupt`] and [`Signal::Terminate`].
    pub fn new() -> Self {
        Self::only([Signal::Interrupt, Signal::Terminate])
    }

    /// These.
    pub fn only(signals: impl IntoIterator<Item = Signal>) -> Self {
        let mut none = Self {
            listened: Vec::new(),
            default_action: true,
        };
        none.listened.extend(signals);
        none
    }

    /// This one as well.
    pub fn with(mut self, signal: Signal) -> Self {
        self.listened.push(signal);
        self
    }

    /// Signals that have nothing to tell do nothing, from now on and in the whole process: for programs that handle them
    /// by themselves as well. This cannot be undone.
    pub fn without_default_action(mut self) -> Self {
        self.default_action = false;
        self
    }

    /// Interrupts `scope` when one of these signals comes.
    ///
    /// # Errors
    ///
    /// [`Error::Signals`] if the handler cannot be installed or the thread not started.
    pub fn subscribe(&self, scope: &Scope) -> Result<Subscription, Error> {
        let mut hub = lock(&HUB);
        if !self.default_action {
            DEFAULT_ACTION.store(false, Ordering::SeqCst);
        }
        for signal in &self.listened {
            if let Err(source) = hub.install(*signal) {
                hub.update_flags();
                return Err(Error::Signals { source });
            }
        }
        let id = hub.next;
        hub.next += 1;
        let subscriber = Subscriber {
            signals: self.listened.clone(),
            scope: scope.handle(),
        };
        hub.subscribers.insert(id, subscriber);
        hub.update_flags();
        Ok(Subscription(id))
    }
}

impl Default for Signals {
    fn default() -> Self {
        Self::new()
    }
}

/// Ends listening when it is dropped. It does not keep the scope.
#[derive(Debug)]
#[must_use = "dropping this ends listening"]
pub struct Subscription(u64);

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut hub = lock(&HUB);
        let gone = hub.subscribers.remove(&self.0);
        hub.update_flags();
        drop(hub);
        drop(gone);
    }
}

static HUB: Mutex<Hub> = Mutex::new(Hub {
    subscribers: BTreeMap::new(),
    next: 0,
    listener: None,
    installed: Vec::new(),
});

/// Whether signals that have nothing to tell do what they do by default.
static DEFAULT_ACTION: AtomicBool = AtomicBool::new(true);

/// For each signal: up while nobody listens to it. A handler looks at this, so it is read and written in one step.
static IDLE: [AtomicBool; ALL.len()] = [const { AtomicBool::new(false) }; ALL.len()];

const ALL: [(Signal, i32); 4] = [
    (Signal::Interrupt, SIGINT),
    (Signal::Terminate, SIGTERM),
    (Signal::Hangup, SIGHUP),
    (Signal::Quit, SIGQUIT),
];

struct Hub {
    subscribers: BTreeMap<u64, Subscriber>,
    next: u64,
    /// Of the thread; it never ends.
    listener: Option<iterator::Handle>,
    installed: Vec<Signal>,
}

struct Subscriber {
    signals: Vec<Signal>,
    scope: Handle,
}

impl Hub {
    fn install(&mut self, signal: Signal) -> io::Result<()> {
        if self.installed.contains(&signal) {
            return Ok(());
        }
        let (Some(flag), Some((_, number))) = (idle(signal), ALL.iter().find(|(known, _)| *known == signal))
        else {
            return Ok(());
        };
        match &self.listener {
            Some(listener) => listener.add_signal(*number)?,
            None => {
                let signals = iterator::Signals::new([*number])?;
                let handle = signals.handle();
                let thread = thread::Builder::new().name("peregrine-signals".to_owned());
                thread.spawn(move || listen(signals))?;
                self.listener = Some(handle);
            }
        }
        signal_hook::flag::register_conditional_default(*number, flag)?;
        self.installed.push(signal);
        Ok(())
    }

    fn update_flags(&self) {
        let by_default = DEFAULT_ACTION.load(Ordering::SeqCst);
        for signal in &self.installed {
            let is_heard = self.subscribers.values().any(|one| one.signals.contains(signal));
            if let Some(flag) = idle(*signal) {
                flag.store(by_default && !is_heard, Ordering::SeqCst);
            }
        }
    }
}

fn idle(signal: Signal) -> Option<&'static AtomicBool> {
    let index = ALL.iter().position(|(known, _)| *known == signal)?;
    IDLE.get(index)
}

/// The thread.
fn listen(mut signals: iterator::Signals) {
    for number in signals.forever() {
        let Some((signal, _)) = ALL.iter().find(|(_, known)| *known == number) else {
            continue;
        };
        if !dispatch(*signal) && DEFAULT_ACTION.load(Ordering::SeqCst) {
            let _ = signal_hook::low_level::emulate_default_handler(number);
        }
    }
}

/// Tells everyone who listens; returns whether that was news to anyone.
fn dispatch(signal: Signal) -> bool {
    let scopes: Vec<Handle> = {
        let hub = lock(&HUB);
        let listening = hub
            .subscribers
            .values()
            .filter(|one| one.signals.contains(&signal));
        listening.map(|one| one.scope.clone()).collect()
    };
    let mut told_anyone = false;
    for scope in &scopes {
        let interrupt = |mode| Interrupt::new(mode).with_source(Source::Signal(signal));
        // A hook that panics must neither keep others from being told nor end this thread.
        let told = catch_unwind(AssertUnwindSafe(|| {
            scope.node().is_some_and(|node| raise_further(&node, interrupt))
        }));
        told_anyone |= told.unwrap_or(true);
    }
    told_anyone
}
