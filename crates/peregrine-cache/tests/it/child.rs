//! Other processes: this test program again, with one test in it that acts on the environment.
//!
//! It reads words from its standard input and says a line for each thing that happened, after it happened: `READY`,
//! `ACK number`, `ERROR kind`, `GOT value how`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use futures_util::FutureExt as _;
use peregrine_cache::conformance::key;
use peregrine_cache::{
    Cache, Clock as _, Control, DiskConfig, DiskStore, Entry, Lookup, MemoryConfig, MemoryStore, Selector,
    Served, Settings, Store, SystemTimeClock, Tag,
};

const ROLE: &str = "PEREGRINE_TEST_CHILD_ROLE";
const PLACE: &str = "PEREGRINE_TEST_CHILD_PLACE";

/// What an entry holds that was put under a number: more or less, so that records end anywhere.
fn value(number: u64) -> String {
    format!("{number} {}", "x".repeat((number * 37 % 4_000) as usize))
}

fn config(dir: &Path) -> DiskConfig {
    DiskConfig::new(dir).with_max_bytes(64 << 20)
}

struct Other {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Other {
    fn spawn(role: &str, place: &str) -> Self {
        Self::spawn_with(Command::new(std::env::current_exe().unwrap()), role, place)
    }

    fn spawn_with(mut command: Command, role: &str, place: &str) -> Self {
        let mut process = command
            .args(["--exact", "child::acts", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(PLACE, place)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, output }
    }

    /// The words of the next line; `None` when it is gone.
    fn line(&mut self) -> Option<Vec<String>> {
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line).unwrap() == 0 || !line.ends_with('\n') {
                return None;
            }
            // The test harness talks too.
            let line = line.trim_end().rsplit(" ... ").next().unwrap_or_default();
            if ["READY", "ACK ", "ERROR ", "GOT "]
                .iter()
                .any(|word| line.starts_with(word))
            {
                return Some(line.split(' ').map(str::to_owned).collect());
            }
        }
    }

    fn ask(&mut self, number: u64) -> (String, String) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{number}").unwrap();
        let words = self.line().unwrap();
        assert_eq!(words[0], "GOT", "{words:?}");
        (words[1].clone(), words[2].clone())
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _gone_already = self.process.kill();
        let _status = self.process.wait();
    }
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // Whoever closed the pipe kills this process next.
    let _closed = out
        .write_all(format!("{text}\n").as_bytes())
        .and_then(|()| out.flush());
}

/// Does nothing, unless this process was started by one of the tests below.
#[test]
fn acts() {
    let (Ok(role), Ok(place)) = (std::env::var(ROLE), std::env::var(PLACE)) else {
        return;
    };
    match role.as_str() {
        "puts" => puts(Path::new(&place)),
        "asks" => asks(&place),
        _ => panic!("{role}"),
    }
}

fn puts(dir: &Path) {
    let store = DiskStore::open(&config(dir)).unwrap();
    let now = SystemTimeClock.unix_ms();
    for number in 0..400 {
        let entry = Entry::new(value(number), now, None, &[Tag::label("all")]);
        match store
            .put(&key("child", number), &entry, now)
            .now_or_never()
            .unwrap()
        {
            Ok(true) => say(&format!("ACK {number}")),
            Ok(false) => say("ERROR refused"),
            Err(error) => say(&format!("ERROR {}", error.kind().code())),
        }
    }
}

type Texts = Cache<String, String>;

/// A cache of a process: memory over what is shared.
fn cache(place: &str) -> Texts {
    let settings = Settings::new().with_store(MemoryStore::new(&MemoryConfig::default()));
    Texts::new(match place.split_once('|') {
        None => settings.with_store(DiskStore::open(&config(Path::new(place))).unwrap()),
        #[cfg(feature = "redis")]
        Some((url, prefix)) => {
            let slow = std::time::Duration::from_secs(10);
            let config = peregrine_cache::RedisConfig::new(url)
                .with_prefix(prefix)
                .with_timeouts(slow, slow);
            settings.with_store(peregrine_cache::RedisStore::new(&config).unwrap())
        }
        #[cfg(not(feature = "redis"))]
        Some(_) => panic!("no Redis in this build"),
    })
}

async fn ask(cache: &Texts, number: u64, who: &str) -> (String, Served) {
    let control = Control::new().with_tag(Tag::label(&format!("parity {}", number % 2)));
    let who = who.to_owned();
    let (value, served) = cache
        .get_or_compute(&key("child", number), &control, || async { Ok(who) })
        .await
        .unwrap();
    ((*value).clone(), served)
}

fn asks(place: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let cache = cache(place);
    say("READY");
    for line in std::io::stdin().lines() {
        let number = line.unwrap().parse().unwrap();
        let (value, served) = runtime.block_on(ask(&cache, number, "other"));
        say(&format!("GOT {value} {served}"));
    }
}

/// Two processes that fetch from each other, and one that clears what the other one holds.
async fn share(place: &str) {
    let mut other = Other::spawn("asks", place);
    assert_eq!(other.line().unwrap(), ["READY"]);
    let cache = cache(place);
    assert_eq!(ask(&cache, 1, "me").await, ("me".to_owned(), Served::Miss));
    assert_eq!(other.ask(1), ("me".to_owned(), "hit".to_owned()));
    assert_eq!(other.ask(2), ("other".to_owned(), "miss".to_owned()));
    assert_eq!(ask(&cache, 2, "me").await, ("other".to_owned(), Served::Hit));
    assert_eq!(ask(&cache, 4, "me").await, ("me".to_owned(), Served::Miss));
    // What the other one has in its own memory stays there, as its time says; what it does not have is gone.
    let removed = cache.remove(&Selector::Tag(Tag::label("parity 0"))).await;
    assert_eq!(removed.unwrap(), 2);
    assert_eq!(other.ask(4), ("other".to_owned(), "miss".to_owned()));
    assert_eq!(other.ask(1), ("me".to_owned(), "hit".to_owned()));
    assert!(cache.remove(&Selector::All).await.unwrap() >= 2);
}

#[tokio::test]
async fn two_processes_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    share(dir.path().to_str().unwrap()).await;
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn two_processes_share_a_server() {
    let Some(url) = peregrine_testkit::service::redis() else {
        return;
    };
    let me = std::process::id();
    share(&format!(
        "{url}|peregrine-test:{me}:{}:child:",
        SystemTimeClock.unix_ms()
    ))
    .await;
}

#[test]
fn what_was_stored_by_a_process_that_is_killed_is_there_and_whole() {
    let dir = tempfile::tempdir().unwrap();
    // One that is open all the time sees the same as one that is opened afterwards.
    let open = DiskStore::open(&config(dir.path())).unwrap();
    let mut most = 0;
    for round in 0..12_u64 {
        let mut other = Other::spawn("puts", dir.path().to_str().unwrap());
        let (wait_for, mut last) = (round * 11 % 90, None::<u64>);
        while last.is_none_or(|last| last < wait_for) {
            let words = other.line().unwrap();
            assert_eq!(words[0], "ACK", "{words:?}");
            last = words[1].parse().ok();
        }
        other.process.kill().unwrap();
        other.process.wait().unwrap();
        // What it said until then.
        while let Some(words) = other.line() {
            last = words[1].parse().ok();
        }
        most = most.max(last.unwrap() + 1);
        let opened = DiskStore::open(&config(dir.path())).unwrap();
        let now = SystemTimeClock.unix_ms();
        for store in [&open, &opened] {
            for number in 0..400 {
                match Store::<String>::get_now(store, &key("child", number), now).unwrap() {
                    Lookup::Hit(entry) => assert_eq!(*entry.value, value(number)),
                    _ => assert!(number >= most, "{number} was acknowledged"),
                }
            }
        }
    }
    assert!(most > 80);
}

/// A limit on the size of files fails in the middle of a write, as a full disk does, and needs no privileges.
#[test]
fn a_disk_that_is_full_is_an_error_and_what_was_stored_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mut limited = Command::new("bash");
    limited
        .arg("-c")
        .arg("trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\"")
        .arg(std::env::current_exe().unwrap());
    let mut other = Other::spawn_with(limited, "puts", dir.path().to_str().unwrap());
    let (mut stored, mut errors) = (Vec::new(), 0);
    while let Some(words) = other.line() {
        match words[0].as_str() {
            "ACK" => stored.push(words[1].parse::<u64>().unwrap()),
            _ => {
                assert_eq!(words[1], "io", "{words:?}");
                errors += 1;
            }
        }
    }
    assert!(other.process.wait().unwrap().success(), "no panic");
    assert!(
        stored.len() > 10 && errors > 10,
        "{} stored, {errors} errors",
        stored.len()
    );
    let store = DiskStore::open(&config(dir.path())).unwrap();
    let now = SystemTimeClock.unix_ms();
    for number in stored {
        let found = Store::<String>::get_now(&store, &key("child", number), now).unwrap();
        let Lookup::Hit(entry) = found else {
            panic!("{number} was acknowledged")
        };
        assert_eq!(*entry.value, value(number));
    }
    let entry = Entry::new("v".to_owned(), now, None, &[]);
    let stored = store
        .put(&key("child", 1_000), &entry, now)
        .now_or_never()
        .unwrap();
    assert!(stored.unwrap(), "with room again it goes on");
}
