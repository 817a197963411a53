//! Walking the given paths in one fixed order, within bounds.
//!
//! Algorithm: depth first, each folder's names sorted by their bytes. Symlinks are not followed, hidden and
//! generated names are passed over, and every bound that cuts the walk short is noted, so that nobody takes
//! part of the files for all of them.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use cap_std::fs::{Dir, DirEntry};

use super::Bounds;
use super::roots::{Root, Roots, is_skipped};

/// A file that the walk came to.
pub(super) struct Found<'w> {
    /// Its path for the model.
    pub(super) path: &'w str,
    /// The folder it is in.
    pub(super) dir: &'w Dir,
    /// Its name there.
    pub(super) name: &'w Path,
    /// Its size.
    pub(super) bytes: u64,
}

/// What the walk passed over or did not come to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Missed {
    /// The bound that ended the walk.
    pub(super) cut_short: Option<String>,
    /// Folders that are nested too deeply or could not be read.
    pub(super) folders: usize,
    /// Files whose names are not UTF-8, or hold control characters.
    pub(super) unnameable: usize,
}

impl Missed {
    /// A note for the end of a tool's answer; empty if nothing was missed.
    pub(super) fn note(&self) -> String {
        let mut notes = Vec::new();
        notes.extend(self.cut_short.clone());
        if self.folders > 0 {
            notes.push(format!(
                "{} folders could not be read or are nested too deeply",
                self.folders
            ));
        }
        if self.unnameable > 0 {
            notes.push(format!(
                "{} files have names that are not plain text",
                self.unnameable
            ));
        }
        if notes.is_empty() {
            String::new()
        } else {
            format!("\n[{}]", notes.join("; "))
        }
    }
}

/// Visits every file until `visit` breaks, a bound is reached, or `stop` is set.
pub(super) fn walk(
    roots: &Roots,
    bounds: &Bounds,
    stop: &AtomicBool,
    visit: &mut dyn FnMut(&Found<'_>) -> ControlFlow<String>,
) -> Missed {
    let mut walk = Walk {
        bounds,
        stop,
        visit,
        seen: BTreeSet::new(),
        entries: 0,
        missed: Missed::default(),
    };
    // In the order of their labels, whatever order they were given in.
    let mut ordered: Vec<_> = roots.iter().collect();
    ordered.sort_by_key(|root| match root {
        Root::Folder { label, .. } | Root::File { label, .. } => label.clone(),
    });
    for root in ordered {
        let flow = match root {
            Root::Folder { label, dir } => walk.folder(dir, label, 0),
            Root::File { label, dir, name } => {
                let bytes = dir.metadata(name).map_or(0, |metadata| metadata.len());
                walk.file(label.clone(), dir, Path::new(name), bytes)
            }
        };
        if let ControlFlow::Break(why) = flow {
            walk.missed.cut_short = Some(why);
            break;
        }
    }
    walk.missed
}

struct Walk<'w> {
    bounds: &'w Bounds,
    stop: &'w AtomicBool,
    visit: &'w mut dyn FnMut(&Found<'_>) -> ControlFlow<String>,
    /// The paths visited, so that a file that was given twice is visited once.
    seen: BTreeSet<String>,
    entries: usize,
    missed: Missed,
}

impl Walk<'_> {
    fn folder(&mut self, dir: &Dir, label: &str, depth: usize) -> ControlFlow<String> {
        let Some(entries) = self.sorted_entries(dir).filter(|_| depth < self.bounds.max_depth) else {
            self.missed.folders += 1;
            return ControlFlow::Continue(());
        };
        for (name, entry) in entries {
            if self.entries > self.bounds.max_entries {
                return ControlFlow::Break(format!(
                    "more than {} names: the rest was not looked at",
                    self.bounds.max_entries
                ));
            }
            if self.stop.load(Ordering::Relaxed) {
                return ControlFlow::Break("stopped".to_owned());
            }
            let Ok(kind) = entry.file_type() else { continue };
            if is_skipped(entry.file_name().as_os_str(), kind.is_dir()) {
                continue;
            }
            let Some(name) = name else {
                self.missed.unnameable += 1;
                continue;
            };
            let path = match label {
                "" => name.clone(),
                label if label.ends_with('/') => format!("{label}{name}"),
                label => format!("{label}/{name}"),
            };
            if kind.is_dir() {
                match entry.open_dir() {
                    Ok(inner) => self.folder(&inner, &path, depth + 1)?,
                    Err(_) => self.missed.folders += 1,
                }
            } else if kind.is_file() {
                let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
                self.file(path, dir, Path::new(&name), bytes)?;
            }
        }
        ControlFlow::Continue(())
    }

    fn file(&mut self, path: String, dir: &Dir, name: &Path, bytes: u64) -> ControlFlow<String> {
        if self.seen.contains(&path) {
            return ControlFlow::Continue(());
        }
        if self.seen.len() == self.bounds.max_files {
            return ControlFlow::Break(format!(
                "more than {} files: the rest was not looked at",
                self.bounds.max_files
            ));
        }
        (self.visit)(&Found {
            path: &path,
            dir,
            name,
            bytes,
        })?;
        self.seen.insert(path);
        ControlFlow::Continue(())
    }

    /// A folder's entries with their names (where those can be shown), sorted; one more than the bound at most.
    fn sorted_entries(&mut self, dir: &Dir) -> Option<Vec<(Option<String>, DirEntry)>> {
        let left = (self.bounds.max_entries + 1).saturating_sub(self.entries);
        let named = |entry: DirEntry| {
            let name = entry.file_name().into_string().ok();
            (name.filter(|name| !name.chars().any(char::is_control)), entry)
        };
        let mut entries: Vec<_> = dir
            .entries()
            .ok()?
            .filter_map(Result::ok)
            .take(left)
            .map(named)
            .collect();
        self.entries += entries.len();
        entries.sort_by(|(a, one), (b, two)| a.cmp(b).then_with(|| one.file_name().cmp(&two.file_name())));
        Some(entries)
    }
}
