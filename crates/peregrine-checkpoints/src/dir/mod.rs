//! A store in a directory of files: the default for runs that are to survive.
//!
//! Everything is done on the caller's task, because a `write` of a few kilobytes into the page cache takes a microsecond
//! and a hop to another thread takes ten. What a power-safe append waits for, the disk, is waited for elsewhere
//! ([`commit`]). Rare things wait where they are: opening a power-safe run, its snapshots and its large parts.

mod chain;
mod commit;
mod layout;
mod lease;
mod parts;
mod recover;
mod removal;
mod sys;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use async_trait::async_trait;
use bytes::Bytes;
use peregrine_core::{Clock as _, RunId, Scope, SystemClock, UnixTime};
use tokio::sync::oneshot;

use crate::error::{Error, Result};
use crate::record::{PartId, RunKey};
use crate::store::{Acquire, Range, RunInfo, RunWriter, Store, Stored};

/// The usual size of the commit log.
const LOG_BYTES: usize = 2 << 20;
/// The smallest one that makes sense.
const MIN_LOG_BYTES: usize = 64 << 10;

/// Keeps runs in a directory, which several processes may use at the same time. Clones share it.
///
/// A local file system with locks, hard links and atomic renames is needed; on network file systems the promises are
/// those of their locks.
#[derive(Debug, Clone)]
pub struct DirStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    layout: layout::Layout,
    log_bytes: usize,
    /// Started by the first run that is to be power-safe.
    committer: Mutex<Option<Arc<commit::Committer>>>,
}

impl Inner {
    fn committer(&self) -> Result<Arc<commit::Committer>> {
        let mut committer = self.committer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(committer) = &*committer {
            return Ok(Arc::clone(committer));
        }
        let wal = self.layout.wal();
        let started = commit::Committer::start(&self.layout.base, &wal, self.log_bytes);
        let started = started.map_err(|source| Error::io("make a commit log in", wal.display(), source))?;
        Ok(Arc::clone(committer.insert(Arc::new(started))))
    }
}

impl DirStore {
    /// Opens the store in `root`, and makes it if it is not there. After a power cut, what the commit logs have is
    /// first put back where it belongs.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::Full`]; [`Error::Unavailable`] if another process recovers for more than half a minute.
    pub async fn open(root: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(root, LOG_BYTES).await
    }

    /// As [`DirStore::open`], with a commit log of `log_bytes` (at least 64 KiB; 2 MiB is usual). It is made when the
    /// first power-safe run is, and takes that much room on the disk as long as the store is open.
    ///
    /// # Errors
    ///
    /// As for [`DirStore::open`].
    pub async fn open_with(root: impl AsRef<Path>, log_bytes: usize) -> Result<Self> {
        let layout = layout::Layout::new(root.as_ref());
        let inner = Arc::new(Inner {
            layout: layout.clone(),
            log_bytes: log_bytes.max(MIN_LOG_BYTES),
            committer: Mutex::new(None),
        });
        // It may have to wait for another process, and whoever waits for this may want to stop.
        let (done, recovered) = oneshot::channel();
        let thread = std::thread::Builder::new().name("peregrine-recover".to_owned());
        let spawned = thread.spawn(move || {
            let _nobody_waits = done.send(recover::run(&layout));
        });
        spawned.map_err(|source| Error::io("start a thread to recover", "this process", source))?;
        recovered.await.map_err(|_| {
            Error::unavailable("recover", std::io::Error::other("the recovering thread is gone"))
        })??;
        Ok(Self { inner })
    }

    /// How often the disk was asked to make power-safe records durable, for all runs of this store together.
    pub fn syncs(&self) -> u64 {
        let committer = self
            .inner
            .committer
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        committer.as_ref().map_or(0, |committer| committer.syncs())
    }

    fn run(&self, key: &RunKey) -> PathBuf {
        self.inner.layout.run(key)
    }
}

#[async_trait]
impl Store for DirStore {
    async fn acquire(&self, key: &RunKey, how: Acquire) -> Result<Box<dyn RunWriter>> {
        Ok(Box::new(writer::Writer::acquire(&self.inner, key, how)?))
    }

    async fn read(&self, key: &RunKey, range: &Range) -> Result<Stored> {
        chain::read(&self.run(key), key, range)
    }

    async fn part(&self, key: &RunKey, part: &PartId, max_bytes: u64) -> Result<Bytes> {
        parts::get(&self.inner.layout, key, part, max_bytes)
    }

    async fn runs(&self, scope: &Scope, after: Option<RunId>, limit: usize) -> Result<Vec<RunInfo>> {
        let folder = self.inner.layout.runs(scope);
        let failed = |source| Error::io("list", folder.display(), source);
        let Some(entries) = sys::if_there(std::fs::read_dir(&folder)).map_err(failed)? else {
            return Ok(Vec::new());
        };
        let mut ids: Vec<RunId> = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            let id = name.to_str().and_then(|name| name.parse::<RunId>().ok());
            ids.extend(id.filter(|id| after.is_none_or(|after| *id > after)));
        }
        ids.sort_unstable();
        let mut runs = Vec::new();
        for run in ids {
            if runs.len() == limit {
                break;
            }
            runs.extend(info(
                &folder.join(run.to_string()),
                &RunKey::new(scope.clone(), run),
            )?);
        }
        Ok(runs)
    }

    async fn remove(&self, key: &RunKey) -> Result<()> {
        removal::remove(&self.inner.layout, key, SystemClock.unix())?;
        removal::sweep(&self.inner.layout, &key.scope)
    }
}

/// What is listed of a run; `None` if it is not there, or removed.
fn info(folder: &Path, key: &RunKey) -> Result<Option<RunInfo>> {
    let look = || -> std::io::Result<Option<(UnixTime, u64)>> {
        if folder.join("removed").try_exists()? {
            return Ok(None);
        }
        let names = layout::segments(folder)?.unwrap_or_default();
        let (mut bytes, mut updated) = (0, None);
        for name in names {
            if let Some(metadata) = sys::if_there(std::fs::metadata(folder.join(name.file())))? {
                bytes += metadata.len();
                let changed = metadata
                    .modified()?
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                let changed = UnixTime(u64::try_from(changed.as_millis()).unwrap_or(u64::MAX));
                updated = updated.max(Some(changed));
            }
        }
        Ok(updated.map(|updated| (updated, bytes)))
    };
    let found = look().map_err(|source| Error::io("list", folder.display(), source))?;
    let Some((updated, bytes)) = found else {
        return Ok(None);
    };
    // A run whose last segment is damaged is listed, so that it can be found and removed.
    let head = chain::Chain::of(folder, key).and_then(|mut chain| chain.back());
    let origin = head.ok().flatten().and_then(|link| link.head.origin);
    Ok(Some(RunInfo {
        origin,
        holder: lease::holder(folder),
        ..RunInfo::new(key.run, updated, bytes)
    }))
}
