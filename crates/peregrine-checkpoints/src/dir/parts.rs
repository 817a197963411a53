//! Parts in files: one for each content of a scope, with a hard link for each segment that names it.
//!
//! The number of links counts the uses, and the file system keeps it, whatever happens to processes. Who removes a
//! segment removes its links, then each name in the pool that is the last one of its file. When a link is made between
//! those two steps, the pool loses the name, but not the content: readers look in the segments too.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use peregrine_core::{RunId, Scope};

use super::layout::{Layout, SegmentName, segments};
use super::sys::{if_there, links, sync_folder};
use crate::error::{Error, Result};
use crate::frame::{self, Place, Salt, Step};
use crate::record::{PartId, RunKey};
use crate::store::Persist;

/// Sees to it that a segment in `folder` has these parts.
pub(crate) fn put(
    layout: &Layout,
    scope: &Scope,
    folder: &Path,
    segment: SegmentName,
    parts: &[(PartId, Bytes)],
    persist: Persist,
) -> Result<()> {
    if parts.is_empty() {
        return Ok(());
    }
    let links = folder.join(segment.parts());
    let put = || -> io::Result<()> {
        fs::create_dir_all(&links)?;
        for (id, content) in parts {
            let pool = layout.part(scope, id);
            let link = links.join(id.to_string());
            if link_there(&pool, &link, id)? {
                if persist == Persist::Power {
                    fs::File::open(&link)?.sync_all()?;
                }
                continue;
            }
            let parent = pool.parent().unwrap_or(&pool);
            fs::create_dir_all(parent)?;
            write_new(&link, content, persist)?;
            match fs::hard_link(&link, &pool) {
                Ok(()) => {}
                // Somebody was faster, or what is there is damaged: the whole one takes the name.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let named = pool.with_extension(unfinished());
                    fs::hard_link(&link, &named)?;
                    fs::rename(&named, &pool)?;
                    // Two names of one file are not renamed onto each other.
                    if_there(fs::remove_file(&named))?;
                }
                // The file system knows no links, so each segment has its own.
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
                Err(error) => return Err(error),
            }
            if persist == Persist::Power {
                sync_folder(parent)?;
            }
        }
        if persist == Persist::Power {
            sync_folder(&links)?;
            sync_folder(folder)?;
        }
        Ok(())
    };
    put().map_err(|source| Error::io("store a part in", links.display(), source))
}

/// Whether the segment has the part, after linking it to that in the pool if there is one that is whole: after a power
/// cut it may be blank, and nobody who comes later should share that.
fn link_there(pool: &Path, link: &Path, id: &PartId) -> io::Result<bool> {
    match fs::hard_link(pool, link) {
        Ok(()) if is_whole(link, id)? => Ok(true),
        Ok(()) => fs::remove_file(link).map(|()| false),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => is_whole(link, id),
        // Nobody has it yet, links are not known here, or it has as many as it may.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::Unsupported | io::ErrorKind::TooManyLinks
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn is_whole(path: &Path, id: &PartId) -> io::Result<bool> {
    let stored = fs::read(path)?;
    let place = Place {
        run: RunId::from_parts(0, [0; 10]),
        salt: Salt::of_part(&id.0),
        name: "",
        offset: 0,
        may_be_torn: false,
        max_body: usize::MAX,
    };
    Ok(matches!(frame::step(&stored, 0, 0, &place), Ok(Step::Frame(frame)) if frame.end == stored.len()))
}

/// An extension that no other file here has.
fn unfinished() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{count}.tmp", std::process::id())
}

/// Writes a file that shows under its name only when it is whole.
fn write_new(path: &Path, content: &[u8], persist: Persist) -> io::Result<()> {
    let unfinished = path.with_extension(unfinished());
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&unfinished)?;
        file.write_all(content)?;
        if persist == Persist::Power {
            file.sync_all()?;
        }
        fs::rename(&unfinished, path)
    };
    write().inspect_err(|_| {
        let _gone = fs::remove_file(&unfinished);
    })
}

/// Reads a part of a run.
pub(crate) fn get(layout: &Layout, key: &RunKey, part: &PartId, max_bytes: u64) -> Result<Bytes> {
    let pool = layout.part(&key.scope, part);
    let failed = |source| Error::io("read", pool.display(), source);
    if let Some(content) = read(&pool, max_bytes).map_err(failed)? {
        return content;
    }
    let folder = layout.run(key);
    let names = segments(&folder).map_err(failed)?.unwrap_or_default();
    for name in names.iter().rev() {
        let path = folder.join(name.parts()).join(part.to_string());
        if let Some(content) = read(&path, max_bytes).map_err(failed)? {
            return content;
        }
    }
    Err(Error::NotFound { run: key.run })
}

fn read(path: &Path, max_bytes: u64) -> io::Result<Option<Result<Bytes>>> {
    let Some(metadata) = if_there(fs::metadata(path))? else {
        return Ok(None);
    };
    if metadata.len() > max_bytes {
        return Ok(Some(Err(Error::TooLarge {
            what: "a part",
            bytes: metadata.len(),
            limit: max_bytes,
        })));
    }
    Ok(if_there(fs::read(path))?.map(|content| Ok(content.into())))
}

/// Removes the links of one segment, and from the pool what nobody else has.
pub(crate) fn remove(layout: &Layout, scope: &Scope, links_of: &Path) -> io::Result<()> {
    let Some(entries) = if_there(fs::read_dir(links_of))? else {
        return Ok(());
    };
    for entry in entries {
        let entry = entry?;
        if_there(fs::remove_file(entry.path()))?;
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| blake3::Hash::from_hex(name).ok());
        if let Some(id) = id {
            let pool = layout.part(scope, &PartId(*id.as_bytes()));
            if if_there(links(&pool))? == Some(1) {
                if_there(fs::remove_file(&pool))?;
            }
        }
    }
    if_there(fs::remove_dir(links_of))?;
    Ok(())
}
