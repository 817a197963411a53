//! With what a kept run was asked, so that it goes on with the same.
//!
//! The paths, the model and its address stand in the run's journal, as labels that no provider is sent. They decide what a
//! model gets to read and where that is sent, and a journal may come from anybody: it was imported, or its database is
//! shared. So they count only if this user sealed them (keyed BLAKE3), with a key that is kept in the user's data folder
//! and nowhere else. What is not sealed has to be given again.
//!
//! Invariant: no key of a provider, and no address with a name or a password in it, is written down.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::args::{Allotment, RunArgs};
use crate::model::Chosen;

const COMMAND: &str = "peregrine.command";
const SEAL: &str = "peregrine.seal";
const VERSION: u32 = 1;

/// With what a run was asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Command {
    version: u32,
    /// Where the paths begin.
    pub(crate) folder: PathBuf,
    /// The files and folders.
    pub(crate) paths: Vec<PathBuf>,
    /// The model, as `--model` names it.
    pub(crate) model: String,
    /// The address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) base_url: Option<String>,
    /// The instructions of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) system: Option<String>,
    /// How random the model is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) temperature: Option<f64>,
    /// How long its outputs may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_tokens: Option<u32>,
    /// What one answer may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) budget: Option<Allotment>,
    /// There was an address that is not written down.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) secret_base_url: bool,
}

/// What a journal says about its command.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Recalled {
    /// This user said so.
    Sealed(Command),
    /// Somebody says so.
    Unsealed(Command),
    /// Nothing that can be read.
    Nothing,
}

impl Command {
    fn new(paths: &[PathBuf], model: &str, run: &RunArgs) -> io::Result<Self> {
        let base_url = run.base_url.as_deref();
        let is_secret = base_url.is_some_and(has_secret);
        Ok(Self {
            version: VERSION,
            folder: std::env::current_dir()?,
            paths: paths.to_vec(),
            model: model.to_owned(),
            base_url: base_url.filter(|_| !is_secret).map(str::to_owned),
            system: run.system.clone(),
            temperature: run.temperature,
            max_tokens: run.max_tokens,
            budget: run.budget,
            secret_base_url: is_secret,
        })
    }

    /// The labels for a journal, sealed if there is a key to be had. None at all for paths that are no UTF-8.
    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        let key = key_path().and_then(|path| key(&path, true).ok());
        self.labels_with(key.as_ref())
    }

    fn labels_with(&self, key: Option<&[u8; 32]>) -> BTreeMap<String, String> {
        let Ok(text) = serde_json::to_string(self) else {
            return BTreeMap::new();
        };
        let seal = key.map(|key| (SEAL.to_owned(), seal(key, &text).to_hex().to_string()));
        let text = (COMMAND.to_owned(), text);
        std::iter::once(text).chain(seal).collect()
    }
}

/// The labels for what is asked now. None at all if the folder that it is asked in is gone.
pub(crate) fn labels(paths: &[PathBuf], chosen: &Chosen, run: &RunArgs) -> BTreeMap<String, String> {
    Command::new(paths, &chosen.spec, run)
        .map(|command| command.labels())
        .unwrap_or_default()
}

/// Reads the labels of a journal.
pub(crate) fn recall(labels: &BTreeMap<String, String>) -> Recalled {
    let key = key_path().and_then(|path| key(&path, false).ok());
    recall_with(labels, key.as_ref())
}

/// Whether a journal says that files are read.
pub(crate) fn reads_files(labels: &BTreeMap<String, String>) -> bool {
    match recall_with(labels, None) {
        Recalled::Sealed(command) | Recalled::Unsealed(command) => !command.paths.is_empty(),
        Recalled::Nothing => false,
    }
}

fn recall_with(labels: &BTreeMap<String, String>, key: Option<&[u8; 32]>) -> Recalled {
    let Some(text) = labels.get(COMMAND) else {
        return Recalled::Nothing;
    };
    let command: Command = match serde_json::from_str(text) {
        Ok(command) => command,
        Err(_) => return Recalled::Nothing,
    };
    let found = labels
        .get(SEAL)
        .and_then(|seal| blake3::Hash::from_hex(seal).ok());
    // The comparison takes the same time wherever they differ.
    match (key, found) {
        (Some(key), Some(found)) if command.version == VERSION && seal(key, text) == found => {
            Recalled::Sealed(command)
        }
        _ => Recalled::Unsealed(command),
    }
}

fn seal(key: &[u8; 32], text: &str) -> blake3::Hash {
    blake3::keyed_hash(key, text.as_bytes())
}

impl Command {
    /// Gives it another address.
    pub(crate) fn set_base_url(&mut self, base_url: &str) {
        self.secret_base_url = has_secret(base_url);
        self.base_url = (!self.secret_base_url).then(|| base_url.to_owned());
    }

    /// One that says nothing but with which model.
    pub(crate) fn bare(model: &str) -> io::Result<Self> {
        Self::new(&[], model, &RunArgs::default())
    }
}

/// Whether something in an address may be a secret: a name and a password, or a query.
fn has_secret(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.contains(['@', '?'])
}

/// The folder for this user's data that is to stay.
pub(crate) fn data_folder(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Option<PathBuf> {
    user_folder(variable, "XDG_DATA_HOME", ".local/share")
}

/// This program's folder in one of this user's: as the variable of the XDG Base Directory Specification says, else here
/// in the home.
pub(crate) fn user_folder(
    variable: impl Fn(&str) -> Option<std::ffi::OsString>,
    xdg: &str,
    in_home: &str,
) -> Option<PathBuf> {
    // A relative path there is to be ignored, the specification says.
    let absolute = |name| {
        let path = variable(name).map(PathBuf::from);
        path.filter(|path| path.is_absolute())
    };
    absolute(xdg)
        .or_else(|| absolute("LOCALAPPDATA").filter(|_| cfg!(windows)))
        .or_else(|| absolute("HOME").map(|home| home.join(in_home)))
        .map(|data| data.join("peregrine"))
}

fn key_path() -> Option<PathBuf> {
    Some(data_folder(|name| std::env::var_os(name))?.join("seal.key"))
}

/// The key; made if it is not there and may be.
fn key(path: &Path, may_make: bool) -> io::Result<[u8; 32]> {
    let read = || -> io::Result<[u8; 32]> {
        let bytes = fs::read(path)?;
        bytes
            .try_into()
            .map_err(|_| io::Error::other("the key has another length"))
    };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound && may_make => {}
        found => return found,
    }
    let mut key = [0; 32];
    let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    random
        .fill(&mut key)
        .map_err(|_| io::Error::other("there is no randomness"))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)?;
    // Whole under its name or not at all, and never in place of another one.
    let begun = folder.join(format!(".seal.key.{}", std::process::id()));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(&begun).and_then(|mut file| file.write_all(&key));
    let linked = written.and_then(|()| fs::hard_link(&begun, path));
    // It has another name by now, or is of no use.
    let _ = fs::remove_file(&begun);
    match linked {
        Ok(()) => Ok(key),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read(),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command_at(base_url: &str) -> Command {
        let run = RunArgs {
            base_url: Some(base_url.to_owned()),
            ..RunArgs::default()
        };
        Command::new(&["docs".into()], "openai/falcon", &run).unwrap()
    }

    fn command() -> Command {
        command_at("http://localhost:1")
    }

    #[test]
    fn only_what_this_user_sealed_counts() {
        let command = command();
        let labels = command.labels_with(Some(&[7; 32]));
        assert_eq!(
            recall_with(&labels, Some(&[7; 32])),
            Recalled::Sealed(command.clone())
        );
        for key in [None, Some(&[8; 32])] {
            assert_eq!(recall_with(&labels, key), Recalled::Unsealed(command.clone()));
        }
        let mut altered = labels.clone();
        altered
            .get_mut(COMMAND)
            .unwrap()
            .replace_range(.., &labels[COMMAND].replace("docs", "/etc"));
        let Recalled::Unsealed(found) = recall_with(&altered, Some(&[7; 32])) else {
            panic!("an altered command counts");
        };
        assert_eq!(found.paths, [PathBuf::from("/etc")]);
        let unsealed = command.labels_with(None);
        assert_eq!(
            recall_with(&unsealed, Some(&[7; 32])),
            Recalled::Unsealed(command)
        );
        for hostile in ["", "{}", "[1]", "{\"version\":1}"] {
            let labels = BTreeMap::from([(COMMAND.to_owned(), hostile.to_owned())]);
            assert_eq!(recall_with(&labels, Some(&[7; 32])), Recalled::Nothing);
        }
        assert_eq!(recall_with(&BTreeMap::new(), None), Recalled::Nothing);
    }

    #[test]
    fn secrets_in_an_address_are_not_written_down() {
        for url in [
            "http://me:hunter2@host/v1",
            "https://host/v1?key=hunter2",
            "me:hunter2@host",
        ] {
            let command = command_at(url);
            assert!(command.secret_base_url && command.base_url.is_none());
            let labels = command.labels_with(None);
            assert!(!labels[COMMAND].contains("hunter2"), "{labels:?}");
        }
    }

    #[test]
    fn a_key_is_made_once_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/peregrine/seal.key");
        assert!(key(&path, false).is_err() && !path.exists());
        let made = key(&path, true).unwrap();
        assert_ne!(made, [0; 32]);
        assert_eq!(
            (key(&path, true).unwrap(), key(&path, false).unwrap()),
            (made, made)
        );
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        fs::write(&path, "short").unwrap();
        assert!(
            key(&path, true).is_err(),
            "a key of another length is not replaced"
        );
    }
}
