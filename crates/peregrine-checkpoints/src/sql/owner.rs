//! Who holds a lease in a database: enough to see from the same machine that it is dead.
//!
//! A row does not go away with a process, so a lease in a database has an end, and its holder renews it. Who finds a
//! lease that has not ended waits, unless it can see that the holder is gone: the same boot of the same machine, the
//! same namespace of process ids, and no process of that id that began at that time. So a run can be resumed at once
//! after a crash where it ran before, and elsewhere when the lease has ended.

use std::fs;

use peregrine_core::UnixTime;
use serde::{Deserialize, Serialize};

use crate::error::Holder;

/// A process, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    process: u32,
    host: String,
    since: UnixTime,
    /// What follows is known on Linux only.
    boot: Option<String>,
    namespace: Option<String>,
    started: Option<u64>,
}

impl Owner {
    /// This process.
    pub(crate) fn here(at: UnixTime) -> Self {
        let process = std::process::id();
        let host = fs::read_to_string("/proc/sys/kernel/hostname");
        Self {
            process,
            host: host.map_or_else(|_| "this host".to_owned(), |name| name.trim().to_owned()),
            since: at,
            boot: boot(),
            namespace: namespace(),
            started: started(process),
        }
    }

    pub(crate) fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub(crate) fn holder(&self) -> Holder {
        Holder {
            process: self.process,
            host: self.host.clone(),
            since: self.since,
        }
    }

    /// Whether it can be seen from here that the process is gone. In doubt it is not.
    pub(crate) fn is_gone(&self) -> bool {
        let here = self.boot.is_some()
            && self.boot == boot()
            && self.namespace.is_some()
            && self.namespace == namespace();
        here && self.started.is_some() && started(self.process) != self.started
    }
}

fn boot() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(boot.trim().to_owned())
}

fn namespace() -> Option<String> {
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    Some(namespace.to_string_lossy().into_owned())
}

/// When a process began, in ticks since boot; `None` if there is no such process.
fn started(process: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name of the program, in parentheses, may hold anything; the 20th word behind it is the time (proc(5)).
    let mut words = stat.rsplit_once(") ")?.1.split(' ');
    // A process that is dead and waits for its parent holds nothing.
    (words.next()? != "Z").then_some(())?;
    words.nth(18)?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_to_be_gone_only_where_it_can_be_seen() {
        let here = Owner::here(UnixTime(1));
        assert_eq!(Owner::parse(&here.to_text()), Some(here.clone()));
        assert!(!here.is_gone());
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let mut other = here.clone();
        other.process = child.id();
        other.started = started(child.id());
        assert!(other.started.is_some() && !other.is_gone());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(other.is_gone());
        // Elsewhere, or after another boot, nothing can be seen.
        other.boot = Some("another".to_owned());
        assert!(!other.is_gone());
        // The same id for another process.
        let mut reused = here;
        reused.started = reused.started.map(|started| started + 1);
        assert!(reused.is_gone());
    }
}
