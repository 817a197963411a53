//! The given paths, as the only files there are.
//!
//! Invariant: every file is opened through a capability (`cap_std::fs::Dir`) for a folder that the user named, or
//! for the folder of a file that the user named and then under that one name. No text from a model is ever
//! given to an ambient file function, so `..`, absolute paths and symlinks cannot lead out. Only regular files
//! are opened, without blocking, and what was opened is looked at again before it is read.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, File, OpenOptions};

/// Folders that hold what programs made, not what people wrote.
const SKIPPED_FOLDERS: [&str; 3] = ["target", "node_modules", "__pycache__"];

/// The given paths.
#[derive(Debug)]
pub(super) struct Roots(Vec<Root>);

/// One given path. Its label is the path as it was given, tidied, and what the model's paths begin with.
#[derive(Debug)]
pub(super) enum Root {
    /// A folder and everything in it.
    Folder {
        /// The label; empty for the current folder.
        label: String,
        /// The folder.
        dir: Dir,
    },
    /// One file.
    File {
        /// The label.
        label: String,
        /// Its folder.
        dir: Dir,
        /// Its name there.
        name: OsString,
    },
}

impl Root {
    fn label(&self) -> &str {
        match self {
            Self::Folder { label, .. } | Self::File { label, .. } => label,
        }
    }
}

/// Why a file is not read, in words for the model (and for a person).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    Absolute,
    ParentFolder,
    Outside,
    Hidden,
    NotFound,
    Folder,
    NotRegular,
    Io(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absolute => "absolute paths are refused; use a path as list_files gives it",
            Self::ParentFolder => "`..` is refused; use a path as list_files gives it",
            Self::Outside => "it leads outside of the given paths",
            Self::Hidden => "hidden and generated files are not read",
            Self::NotFound => "there is no such file; list_files names those there are",
            Self::Folder => "it is a folder; list_files names what is in it",
            Self::NotRegular => "it is not a regular file but a device, a pipe or a socket",
            Self::Io(why) => return write!(f, "it could not be read: {why}"),
        })
    }
}

impl Roots {
    /// Opens the given paths. This is the one place where a path reaches the file system as it is.
    pub(super) fn open(paths: &[PathBuf]) -> io::Result<Self> {
        let mut roots = Vec::new();
        for path in paths {
            let root = open_root(path).map_err(|why| {
                io::Error::new(why.kind(), format!("could not open {}: {why}", path.display()))
            })?;
            if !roots.iter().any(|known: &Root| known.label() == root.label()) {
                roots.push(root);
            }
        }
        // The longest label first, so that a path belongs to the innermost folder that was given.
        roots.sort_by(|a, b| {
            let depth = |root: &Root| Path::new(root.label()).components().count();
            depth(b).cmp(&depth(a)).then_with(|| a.label().cmp(b.label()))
        });
        Ok(Self(roots))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Root> {
        self.0.iter()
    }

    /// Opens the file that a model named.
    pub(super) fn open_file(&self, path: &str) -> Result<File, Refusal> {
        let asked = tidy(Path::new(path));
        let mut refusal = None;
        for root in self.iter() {
            match root {
                Root::File { label, dir, name } if *label == asked => {
                    return open_regular(dir, Path::new(name));
                }
                Root::File { .. } => {}
                Root::Folder { label, dir } => {
                    let Some(rest) = below(label, &asked) else {
                        continue;
                    };
                    match open_below(dir, rest) {
                        Err(Refusal::NotFound) => refusal = Some(Refusal::NotFound),
                        Err(other) => return Err(other),
                        Ok(file) => return Ok(file),
                    }
                }
            }
        }
        Err(refusal.unwrap_or_else(|| classify(&asked)))
    }
}

/// Whether a file or folder of this name is passed over.
pub(super) fn is_skipped(name: &OsStr, is_folder: bool) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b".") || (is_folder && SKIPPED_FOLDERS.iter().any(|skipped| skipped.as_bytes() == name))
}

/// Opens a regular file of a folder without ever waiting for it (a pipe without a writer, a terminal).
pub(super) fn open_regular(dir: &Dir, path: &Path) -> Result<File, Refusal> {
    let regular = |metadata: &cap_std::fs::Metadata| match (metadata.is_file(), metadata.is_dir()) {
        (true, _) => Ok(()),
        (_, true) => Err(Refusal::Folder),
        _ => Err(Refusal::NotRegular),
    };
    // Looked at before, because opening some devices has effects; and after, because it may have been
    // exchanged in between.
    regular(&dir.metadata(path).map_err(|error| refuse(&error))?)?;
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        cap_std::fs::OpenOptionsExt::custom_flags(&mut options, flags.bits().cast_signed());
    }
    let file = dir.open_with(path, &options).map_err(|error| refuse(&error))?;
    regular(&file.metadata().map_err(|error| refuse(&error))?)?;
    Ok(file)
}

fn open_root(path: &Path) -> io::Result<Root> {
    let label = tidy(path);
    if std::fs::metadata(path)?.is_dir() {
        let dir = Dir::open_ambient_dir(path, ambient_authority())?;
        return Ok(Root::Folder { label, dir });
    }
    // The user named this file: where it is a symlink, its target is meant.
    let file = std::fs::canonicalize(path)?;
    let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else {
        return Err(io::Error::other("it is neither a file nor a folder"));
    };
    let dir = Dir::open_ambient_dir(folder, ambient_authority())?;
    open_regular(&dir, Path::new(name)).map_err(|refusal| io::Error::other(refusal.to_string()))?;
    Ok(Root::File {
        label,
        dir,
        name: name.to_owned(),
    })
}

/// A path with `/` between its components and no `.` among them; `""` is the current folder.
fn tidy(path: &Path) -> String {
    let mut tidied = String::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::RootDir => tidied.push('/'),
            Component::Prefix(_) | Component::ParentDir | Component::Normal(_) => {
                if !tidied.is_empty() && !tidied.ends_with('/') {
                    tidied.push('/');
                }
                tidied.push_str(&component.as_os_str().to_string_lossy());
            }
        }
    }
    tidied
}

/// What of `path` comes after the folder `label`, if anything does.
fn below<'p>(label: &str, path: &'p str) -> Option<&'p str> {
    if label.is_empty() {
        return (!path.starts_with('/')).then_some(path);
    }
    let rest = path.strip_prefix(label)?;
    if rest.is_empty() {
        Some(rest)
    } else {
        label
            .ends_with('/')
            .then_some(rest)
            .or_else(|| rest.strip_prefix('/'))
    }
}

fn open_below(dir: &Dir, rest: &str) -> Result<File, Refusal> {
    if rest.is_empty() {
        return Err(Refusal::Folder);
    }
    let rest = Path::new(rest);
    if rest
        .components()
        .any(|component| !matches!(component, Component::Normal(_)))
    {
        return Err(classify_components(rest));
    }
    check_not_skipped(rest)?;
    // Where symlinks lead is judged by the same rule as what was asked for.
    check_not_skipped(&dir.canonicalize(rest).map_err(|error| refuse(&error))?)?;
    open_regular(dir, rest)
}

fn check_not_skipped(path: &Path) -> Result<(), Refusal> {
    let mut names = path.components().map(Component::as_os_str).peekable();
    while let Some(name) = names.next() {
        if is_skipped(name, names.peek().is_some()) {
            return Err(Refusal::Hidden);
        }
    }
    Ok(())
}

/// Why a path that fits none of the given ones is refused.
fn classify(path: &str) -> Refusal {
    match classify_components(Path::new(path)) {
        Refusal::Outside => Refusal::NotFound,
        other => other,
    }
}

fn classify_components(path: &Path) -> Refusal {
    let mut components = path.components();
    if path.is_absolute() || path.has_root() {
        Refusal::Absolute
    } else if components.any(|component| component == Component::ParentDir) {
        Refusal::ParentFolder
    } else {
        Refusal::Outside
    }
}

fn refuse(error: &io::Error) -> Refusal {
    // The confinement reports an escape as a refusal without a number from the operating system.
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Refusal::NotFound,
        io::ErrorKind::IsADirectory => Refusal::Folder,
        io::ErrorKind::PermissionDenied if error.raw_os_error().is_none() => Refusal::Outside,
        _ => Refusal::Io(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_tidied_and_matched_by_component() {
        for (given, tidied) in [
            (".", ""),
            ("./docs/", "docs"),
            ("a//b/./c", "a/b/c"),
            ("../x", "../x"),
            ("/a/b", "/a/b"),
            ("/", "/"),
        ] {
            assert_eq!(tidy(Path::new(given)), tidied, "{given}");
        }
        assert_eq!(below("docs", "docs/a.md"), Some("a.md"));
        assert_eq!(below("docs", "docs"), Some(""));
        assert_eq!(below("docs", "docs2/a.md"), None);
        assert_eq!(below("", "a/b"), Some("a/b"));
        assert_eq!(below("", "/a"), None);
        assert_eq!(below("/", "/a"), Some("a"));
        assert_eq!(below("../x", "../x/y"), Some("y"));
        assert_eq!(below("../x", "../y"), None);
    }
}
