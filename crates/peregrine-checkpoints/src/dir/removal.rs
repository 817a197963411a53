//! Removing runs, and what is left of them when the last fork is gone.
//!
//! A run that is removed is first moved away, under a name that nobody looks for, so that it is gone at once and as a
//! whole. A fork that pins it at the same moment either finds nothing to pin, or its pin moves along and is found
//! there, and the run is moved back, marked as removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use peregrine_core::{Scope, UnixTime};

use super::chain::Chain;
use super::layout::{Layout, pin, pins, segments};
use super::lease::Held;
use super::parts;
use super::sys::if_there;
use crate::error::{Error, Result};
use crate::record::{Origin, RunKey};

/// Removes a run, or marks it as removed while forks need it.
pub(crate) fn remove(layout: &Layout, key: &RunKey, at: UnixTime) -> Result<()> {
    let folder = layout.run(key);
    let failed = |source| Error::io("remove", folder.display(), source);
    // Its own lease keeps writers out until it is gone.
    if !folder.try_exists().map_err(failed)? {
        return Err(Error::NotFound { run: key.run });
    }
    let lease = Held::take(&folder, key, false, at)?;
    if folder.join("removed").try_exists().map_err(failed)? || segments(&folder).map_err(failed)?.is_none() {
        return Err(Error::NotFound { run: key.run });
    }
    fs::write(folder.join("removed"), b"").map_err(failed)?;
    collect(layout, key, lease)
}

/// Removes a run that is marked as removed, if no fork needs it; then the one it was forked from, if that was only
/// kept for it.
pub(crate) fn collect(layout: &Layout, key: &RunKey, lease: Held) -> Result<()> {
    let (mut key, mut lease) = (key.clone(), Some(lease));
    loop {
        let folder = layout.run(&key);
        let failed = |source| Error::io("remove", folder.display(), source);
        if is_pinned(layout, &key, &folder).map_err(failed)? {
            // A fork that goes now finds the lease held and leaves the rest to us; so look again without it.
            drop(lease.take());
            if is_pinned(layout, &key, &folder).map_err(failed)? {
                return Ok(());
            }
            match Held::take(&folder, &key, false, UnixTime(0)) {
                Ok(taken) => lease = Some(taken),
                Err(Error::Leased { .. } | Error::NotFound { .. }) => return Ok(()),
                Err(error) => return Err(error),
            }
            continue;
        }
        // A damaged run can be removed; what it was forked from then stays pinned.
        let origin = Chain::of(&folder, &key)
            .and_then(|mut chain| chain.back())
            .ok()
            .flatten();
        let origin = origin.and_then(|link| link.head.origin);
        let Some(moved) = move_away(layout, &key).map_err(failed)? else {
            return Ok(());
        };
        if is_pinned(layout, &key, &moved).map_err(failed)? {
            return fs::rename(&moved, &folder).map_err(failed);
        }
        // Under the lease, so that nobody who sweeps gets in between.
        delete(layout, &key.scope, &moved).map_err(failed)?;
        drop(lease.take());
        let Some(parent) = unpin(layout, &key, origin)? else {
            return Ok(());
        };
        (key, lease) = parent;
    }
}

/// Takes back what a run pins of the one it was forked from. Returns that one with its lease, if it was removed and
/// waits to be collected.
pub(crate) fn unpin(
    layout: &Layout,
    key: &RunKey,
    origin: Option<Origin>,
) -> Result<Option<(RunKey, Option<Held>)>> {
    let Some(origin) = origin else {
        return Ok(None);
    };
    let parent = key.sibling(origin.run);
    let folder = layout.run(&parent);
    let failed = |source| Error::io("remove", folder.display(), source);
    if_there(fs::remove_file(pin(&folder, key.run, origin.at))).map_err(failed)?;
    if !folder.join("removed").try_exists().map_err(failed)? {
        return Ok(None);
    }
    match Held::take(&folder, &parent, false, UnixTime(0)) {
        Ok(lease) => Ok(Some((parent, Some(lease)))),
        // Somebody else is about to collect it, or has done so.
        Err(Error::Leased { .. } | Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// [`unpin`], and collects what then is no longer needed.
pub(crate) fn unpin_and_collect(layout: &Layout, key: &RunKey, origin: Option<Origin>) -> Result<()> {
    match unpin(layout, key, origin)? {
        Some((parent, Some(lease))) => collect(layout, &parent, lease),
        _ => Ok(()),
    }
}

/// Whether a fork needs this run. The pin of a fork that was never made, or was removed by a process that died before
/// it could take its pin back, does not count and goes.
fn is_pinned(layout: &Layout, key: &RunKey, folder: &Path) -> io::Result<bool> {
    let mut pinned = false;
    for Origin { run, at } in pins(folder)? {
        if segments(&layout.run(&key.sibling(run)))?.is_some_and(|names| !names.is_empty()) {
            pinned = true;
        } else {
            if_there(fs::remove_file(pin(folder, run, at)))?;
        }
    }
    Ok(pinned)
}

fn move_away(layout: &Layout, key: &RunKey) -> io::Result<Option<PathBuf>> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let trash = layout.trash(&key.scope);
    fs::create_dir_all(&trash)?;
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let moved = trash.join(format!("{}.{}-{count}", key.run, std::process::id()));
    Ok(if_there(fs::rename(layout.run(key), &moved))?.map(|()| moved))
}

/// Deletes a run that was moved away.
fn delete(layout: &Layout, scope: &Scope, moved: &Path) -> io::Result<()> {
    for name in segments(moved)?.unwrap_or_default() {
        parts::remove(layout, scope, &moved.join(name.parts()))?;
        if_there(fs::remove_file(moved.join(name.file())))?;
    }
    if_there(fs::remove_dir_all(moved))?;
    Ok(())
}

/// Finishes what processes that died have left in the trash of a scope.
pub(crate) fn sweep(layout: &Layout, scope: &Scope) -> Result<()> {
    let trash = layout.trash(scope);
    let failed = |source| Error::io("sweep", trash.display(), source);
    let Some(entries) = if_there(fs::read_dir(&trash)).map_err(failed)? else {
        return Ok(());
    };
    for entry in entries {
        let moved = entry.map_err(failed)?.path();
        let name = moved
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let Some(run) = name.split('.').next().and_then(|run| run.parse().ok()) else {
            continue;
        };
        let key = RunKey::new(scope.clone(), run);
        // Whoever is at work there holds the lease, which moved along.
        let lease = match Held::take_if_there(&moved, &key, UnixTime(0)) {
            Ok(lease) => lease,
            Err(Error::NotFound { .. }) => {
                // All but done: the lock goes last. If somebody is at it, one of the two finds nothing.
                if segments(&moved)
                    .map_err(failed)?
                    .is_some_and(|names| names.is_empty())
                {
                    let _left_for_next_time = fs::remove_dir_all(&moved);
                }
                continue;
            }
            Err(_) => continue,
        };
        if is_pinned(layout, &key, &moved).map_err(failed)? {
            fs::rename(&moved, layout.run(&key)).map_err(failed)?;
            continue;
        }
        let origin = Chain::of(&moved, &key)
            .and_then(|mut chain| chain.back())
            .ok()
            .flatten();
        delete(layout, scope, &moved).map_err(failed)?;
        drop(lease);
        unpin_and_collect(layout, &key, origin.and_then(|link| link.head.origin))?;
    }
    Ok(())
}
