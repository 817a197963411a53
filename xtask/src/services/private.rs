//! A server of our own on a free port of this machine, in a temporary folder, for as long as this process lives.
//!
//! Each is started through `watchdog.sh`, a process group of its own whose standard input we hold open: when this
//! process ends, in whatever way, the pipe closes and the watchdog stops the server and removes the folder. PostgreSQL
//! refuses to run as root; there it runs as the user `postgres`, which owns the folder.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Service, probe};

const STARTS_WITHIN: Duration = Duration::from_secs(30);
const LOOKS_EVERY: Duration = Duration::from_millis(20);
/// Another process may take the free port before the server does.
const ATTEMPTS: usize = 3;
const WATCHDOG: &str = include_str!("watchdog.sh");
/// Both commands in one, so that the watchdog clears up after the first one too.
const MAKE_AND_RUN_POSTGRES: &str = r#"
    initdb=$1 postgres=$2 data=$3
    shift 3
    "$initdb" -D "$data" -U postgres -A trust -E UTF8 --locale=C --no-sync && exec "$postgres" -D "$data" "$@"
"#;

/// A running server; dropping it stops it and waits until it is gone.
#[derive(Debug)]
pub(crate) struct PrivateServer {
    url: String,
    watchdog: Child,
}

impl PrivateServer {
    pub(super) fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}

/// Starts one, or says why there is none.
pub(super) fn start(service: Service) -> Result<PrivateServer, String> {
    if !cfg!(unix) {
        return Err("starting a server is only known on Unix".to_owned());
    }
    let binary = match service {
        Service::Redis => on_path("redis-server").ok_or("no redis-server on the PATH")?,
        Service::Nats => on_path("nats-server").ok_or("no nats-server on the PATH")?,
        Service::Postgres => postgres_binary().ok_or("no postgres with its initdb on the PATH")?,
    };
    let mut failure = String::new();
    for _ in 0..ATTEMPTS {
        match start_once(service, &binary) {
            Ok(server) => return Ok(server),
            Err(error) => failure = error,
        }
    }
    Err(format!("{} did not start: {failure}", binary.display()))
}

fn start_once(service: Service, binary: &Path) -> Result<PrivateServer, String> {
    let folder = Folder::new(service)?;
    let data = folder.path.join("data");
    let data_text = data.to_string_lossy().into_owned();
    let port = free_port().map_err(|error| format!("looking for a free port: {error}"))?;
    let port_text = port.to_string();
    let mut command: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| command.extend(words.iter().map(|word| (*word).to_owned()));
    let binary_text = binary.to_string_lossy();
    let signal = match service {
        Service::Redis => {
            make_folder(&data)?;
            add(&[
                &binary_text,
                "--port",
                &port_text,
                "--bind",
                "127.0.0.1",
                "--dir",
                &data_text,
            ]);
            add(&["--save", "", "--appendonly", "no"]);
            "TERM"
        }
        Service::Nats => {
            add(&[&binary_text, "--addr", "127.0.0.1", "--port", &port_text]);
            add(&["--jetstream", "--store_dir", &data_text]);
            "TERM"
        }
        Service::Postgres => {
            add(as_ordinary_user(&folder.path)?);
            let initdb = binary.with_file_name("initdb");
            add(&[
                "sh",
                "-c",
                MAKE_AND_RUN_POSTGRES,
                "postgres",
                &initdb.to_string_lossy(),
                &binary_text,
            ]);
            add(&[&data_text, "-p", &port_text, "-c", "listen_addresses=127.0.0.1"]);
            // No socket file, whose path may not be long; nothing here has to survive a power cut.
            add(&["-c", "unix_socket_directories=", "-c", "fsync=off"]);
            // INT is the fast shutdown; TERM would wait for every client to leave.
            "INT"
        }
    };
    let watchdog = watch(&folder.path, signal, &command)?;
    let mut server = PrivateServer {
        url: service.local_url(port),
        watchdog,
    };
    let path = folder.handed_over();
    let started = Instant::now();
    loop {
        let error = match probe::lets_us_in(service, port) {
            Ok(()) if !path.join("ended").exists() => return Ok(server),
            Ok(()) => "another server took the port".to_owned(),
            Err(error) => error,
        };
        let ended = path.join("ended").exists() || !matches!(server.watchdog.try_wait(), Ok(None));
        if ended || started.elapsed() > STARTS_WITHIN {
            let log = last_lines(&path.join("log"));
            return Err(if log.is_empty() { error } else { log });
        }
        std::thread::sleep(LOOKS_EVERY);
    }
}

fn watch(folder: &Path, signal: &str, command: &[String]) -> Result<Child, String> {
    // Without its comments, which would be part of its line in every list of processes.
    let script: String = WATCHDOG
        .split_inclusive('\n')
        .filter(|line| !line.starts_with('#'))
        .collect();
    let mut watchdog = Command::new("sh");
    watchdog
        .args(["-c", &script, "watchdog"])
        .arg(folder)
        .arg(signal)
        .args(command);
    watchdog
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // Out of the terminal's reach: Ctrl-C ends us, and our end is what ends the server.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut watchdog, 0);
    watchdog.spawn().map_err(|error| format!("starting sh: {error}"))
}

/// The words before a PostgreSQL command: none for an ordinary user, a change of user for root, who may not run it.
/// The folder then belongs to that user.
fn as_ordinary_user(folder: &Path) -> Result<&'static [&'static str], String> {
    if answer(Command::new("id").arg("-u"))? != "0" {
        return Ok(&[]);
    }
    if answer(Command::new("id").args(["-u", "postgres"])).is_err() {
        return Err("postgres does not run as root, and there is no user `postgres` to run it as".to_owned());
    }
    let words: &[&str] = if on_path("setpriv").is_some() {
        &[
            "setpriv",
            "--reuid",
            "postgres",
            "--regid",
            "postgres",
            "--init-groups",
        ]
    } else if on_path("runuser").is_some() {
        &["runuser", "-u", "postgres", "--"]
    } else {
        return Err("postgres does not run as root, and there is neither setpriv nor runuser".to_owned());
    };
    answer(Command::new("chown").arg("postgres").arg(folder))?;
    Ok(words)
}

fn answer(command: &mut Command) -> Result<String, String> {
    let shown = format!("{command:?}");
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{shown}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(format!(
        "{shown}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// `postgres` with an `initdb` beside it. Debian keeps both off the PATH, one folder a version.
fn postgres_binary() -> Option<PathBuf> {
    let resolved = |file: PathBuf| file.canonicalize().unwrap_or(file);
    let mut candidates: Vec<PathBuf> = on_path("postgres").map(resolved).into_iter().collect();
    candidates.extend(on_path("pg_ctl").map(|file| resolved(file).with_file_name("postgres")));
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin/postgres")))
        .collect();
    versions.sort();
    candidates.extend(versions.into_iter().rev());
    candidates
        .into_iter()
        .find(|file| file.is_file() && file.with_file_name("initdb").is_file())
}

fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn last_lines(file: &Path) -> String {
    let Ok(text) = std::fs::read(file) else {
        return String::new();
    };
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join(" / ")
}

/// A temporary folder that is removed with this value, unless a watchdog has taken that over.
struct Folder {
    path: PathBuf,
    ours: bool,
}

impl Folder {
    fn new(service: Service) -> Result<Self, String> {
        let nanos = std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(0, |time| time.as_nanos());
        let name = format!("peregrine-{service}-{}-{nanos}", std::process::id());
        let path = std::env::temp_dir().join(name);
        make_folder(&path)?;
        Ok(Self { path, ours: true })
    }

    fn handed_over(mut self) -> PathBuf {
        self.ours = false;
        self.path.clone()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.ours {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// A new folder that nobody else may look into.
fn make_folder(path: &Path) -> Result<(), String> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(path)
        .map_err(|error| format!("creating {}: {error}", path.display()))
}
