//! The lease on a run: a lock of the operating system, and a token that tells holders apart.
//!
//! The lock goes with the process, so a run can be resumed the moment its writer is dead. Who takes a run over from a
//! living writer replaces the lock file and raises the token; the old writer finds another token after its next write
//! and does not acknowledge it. The order makes this airtight: a writer writes, then compares the token, then
//! acknowledges; a successor raises the token, then looks what is there. Either the writer sees the new token, or the
//! successor sees the write. What is written even later lies behind the end that the successor's segment names, and
//! does not count.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

use peregrine_core::UnixTime;

use super::sys::{is_at, read_exact_at, write_all_at};
use crate::error::{Error, Holder, Result};
use crate::record::RunKey;

const TOKEN_BYTES: usize = 8;

/// The lease, until it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    /// Open as long as the lease is held: closing it gives the lock back.
    _lock: File,
    file: File,
    pub(crate) token: u64,
}

impl Held {
    /// Takes the lease of the run in `folder`, which must be there.
    pub(crate) fn take(folder: &Path, key: &RunKey, takeover: bool, at: UnixTime) -> Result<Self> {
        Self::take_with(folder, key, takeover, at, true)
    }

    /// As [`Held::take`], but makes no lock where there is none.
    pub(crate) fn take_if_there(folder: &Path, key: &RunKey, at: UnixTime) -> Result<Self> {
        Self::take_with(folder, key, false, at, false)
    }

    fn take_with(folder: &Path, key: &RunKey, takeover: bool, at: UnixTime, create: bool) -> Result<Self> {
        let lock_path = folder.join("lock");
        let token_path = folder.join("token");
        let failed = |source: io::Error| match source.kind() {
            // The run was removed in front of us.
            io::ErrorKind::NotFound => Error::NotFound { run: key.run },
            _ => Error::io("lock", folder.display(), source),
        };
        let leased = || Error::Leased {
            run: key.run,
            holder: holder(folder).map(Box::new),
        };
        let file = open(&token_path, create).map_err(failed)?;
        // Whoever changes the token holds a lock on its file, so that no two get the same one.
        if !try_lock(&file).map_err(failed)? {
            return Err(leased());
        }
        let mut lock = open(&lock_path, create).map_err(failed)?;
        if !try_lock(&lock).map_err(failed)? {
            if !takeover {
                return Err(leased());
            }
            let fresh = folder.join("lock.new");
            lock = open(&fresh, true).map_err(failed)?;
            if !try_lock(&lock).map_err(failed)? {
                return Err(leased());
            }
            fs::rename(&fresh, &lock_path).map_err(failed)?;
        }
        if !is_at(&lock, &lock_path).map_err(failed)? {
            return Err(leased());
        }
        let token = read(&file).map_err(failed)?.saturating_add(1);
        let mut bytes = token.to_be_bytes().to_vec();
        let holder = Holder {
            process: std::process::id(),
            host: host(),
            since: at,
        };
        bytes.extend_from_slice(&serde_json::to_vec(&holder).unwrap_or_default());
        write_all_at(&file, &bytes, 0).map_err(failed)?;
        file.set_len(bytes.len() as u64).map_err(failed)?;
        file.unlock().map_err(failed)?;
        Ok(Self {
            _lock: lock,
            file,
            token,
        })
    }

    /// Whether nobody took the lease meanwhile.
    pub(crate) fn is_valid(&self) -> io::Result<bool> {
        Ok(read(&self.file)? == self.token)
    }

    pub(crate) fn check(&self, key: &RunKey, folder: &Path) -> Result<()> {
        match self.is_valid() {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::Fenced {
                run: key.run,
                token: self.token,
            }),
            Err(source) => Err(Error::io("read the token in", folder.display(), source)),
        }
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The name goes, the token stays. It is for people, so a failure does no harm.
        if self.is_valid().unwrap_or(false) {
            let _only_a_name = self.file.set_len(TOKEN_BYTES as u64);
        }
    }
}

/// Who holds the run in `folder`, or held it when it died.
pub(crate) fn holder(folder: &Path) -> Option<Holder> {
    let bytes = fs::read(folder.join("token")).ok()?;
    let holder: Holder = serde_json::from_slice(bytes.get(TOKEN_BYTES..)?).ok()?;
    let is_gone = cfg!(target_os = "linux")
        && holder.host == host()
        && !Path::new(&format!("/proc/{}", holder.process)).exists();
    (!is_gone).then_some(holder)
}

fn open(path: &Path, create: bool) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(create)
        .truncate(false)
        .open(path)
}

fn try_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn read(file: &File) -> io::Result<u64> {
    let mut bytes = [0; TOKEN_BYTES];
    match read_exact_at(file, &mut bytes, 0) {
        Ok(()) => Ok(u64::from_be_bytes(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
        Err(error) => Err(error),
    }
}

fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .or_else(|| std::env::var("COMPUTERNAME").ok());
    name.map_or_else(|| "this host".to_owned(), |name| name.trim().to_owned())
}
