//! One limit for many processes, against a real Redis: shared rates and places, crashes, and a server that goes and comes.
//!
//! Time is real here, so nothing is asserted about how fast anything is: only that no more is let through than may be,
//! that everybody is served in the end, and what happens in which order.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use peregrine_limits::{
    Ask, ErrorKind, Learning, Limiter, Limits, SharedConfig, SharedEvent, Signals, TokioTimer,
};
use peregrine_testkit::service;

const CHILD: &str = "PEREGRINE_LIMITS_CHILD";

/// A name that nobody else has, and its keys removed at the end.
pub(crate) struct Name {
    pub(crate) url: String,
    pub(crate) name: String,
}

impl Name {
    pub(crate) fn new(url: &str, test: &str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        Self {
            url: url.to_owned(),
            name: format!("test-{test}-{}-{now}", std::process::id()),
        }
    }

    pub(crate) fn config(&self, limits: &Limits) -> SharedConfig {
        // Slow machines are no reason to count a server as away.
        SharedConfig::new(self.url.as_str(), self.name.as_str(), limits.clone())
            .with_timeout(Duration::from_secs(20))
    }

    pub(crate) async fn limiter(&self, limits: &Limits) -> Limiter {
        self.config(limits).connect(TokioTimer::new()).await.unwrap()
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let keys =
            ["state", "alive", "counts"].map(|key| format!("peregrine:limits:{{{}}}:{key}", self.name));
        if let Ok(mut connection) =
            redis::Client::open(self.url.as_str()).and_then(|client| client.get_connection())
        {
            let _gone: Result<(), _> = redis::cmd("DEL").arg(&keys).query(&mut connection);
        }
    }
}

/// 20 a second, 20 at once.
pub(crate) fn twenty_a_second() -> Limits {
    Limits::new()
        .with_requests_per_minute(1_200)
        .with_margin(1.0)
        .with_burst(Duration::from_secs(1))
}

#[tokio::test(flavor = "multi_thread")]
async fn two_limiters_share_a_rate() {
    let Some(url) = service::redis() else { return };
    let name = Name::new(&url, "rate");
    let began = Instant::now();
    let limiters = [
        name.limiter(&twenty_a_second()).await,
        name.limiter(&twenty_a_second()).await,
    ];
    let served = limiters.map(|limiter| {
        tokio::spawn(async move {
            for _ in 0..40 {
                limiter.acquire(Ask::tokens(0)).await.unwrap().settle(0);
            }
            limiter.status().processes
        })
    });
    for one in served {
        assert_eq!(one.await.unwrap(), 2);
    }
    // 80 of them: 20 at once, 60 at 20 a second. The clocks of the server and of this process may run a little apart.
    assert!(
        began.elapsed() >= Duration::from_millis(2_900),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_back_others_can_use_and_what_is_owed_they_wait_for() {
    let Some(url) = service::redis() else { return };
    let name = Name::new(&url, "settle");
    // 1,000 at once, and next to nothing after that.
    let limits = Limits::new()
        .with_tokens_per_minute(1_000)
        .with_margin(1.0)
        .with_burst(Duration::from_secs(60));
    let (one, other) = (name.limiter(&limits).await, name.limiter(&limits).await);
    let error = one.acquire(Ask::tokens(1_001)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    one.acquire(Ask::tokens(1_000)).await.unwrap().settle(1);
    one.acquire(Ask::tokens(400)).await.unwrap().refund();
    // Dropped while it waits in debt: given back too.
    let large = tokio::time::timeout(Duration::from_millis(200), async {
        let first = one.acquire(Ask::tokens(990)).await.unwrap();
        let _never = one.acquire(Ask::tokens(900)).await;
        drop(first);
    });
    assert!(large.await.is_err());
    // The permit of 990 was dropped and counts: 1,000 - 1 - 990 are left.
    let waits = tokio::time::timeout(Duration::from_millis(500), other.acquire(Ask::tokens(500)));
    assert!(waits.await.is_err(), "what is used up here is used up there");
    tokio::time::timeout(Duration::from_secs(60), other.acquire(Ask::tokens(5)))
        .await
        .unwrap()
        .unwrap()
        .settle(5);
}

#[tokio::test(flavor = "multi_thread")]
async fn places_are_shared_and_those_of_a_crashed_process_are_free_after_its_lease() {
    let Some(url) = service::redis() else { return };
    let name = Name::new(&url, "places");
    let limits = Limits::new().with_concurrency(2);
    let mut child = spawn(&name, "hold");
    let limiter = name
        .config(&limits)
        .with_lease(Duration::from_secs(1))
        .connect(TokioTimer::new())
        .await
        .unwrap();
    let mine = limiter.acquire(Ask::tokens(0)).await.unwrap();
    let waits = tokio::time::timeout(Duration::from_secs(3), limiter.acquire(Ask::tokens(0)));
    assert!(waits.await.is_err(), "the child renews its lease while it lives");
    child.kill().unwrap();
    child.wait().unwrap();
    tokio::time::timeout(Duration::from_secs(60), limiter.acquire(Ask::tokens(0)))
        .await
        .unwrap()
        .unwrap()
        .settle(0);
    mine.settle(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_a_limit() {
    let Some(url) = service::redis() else { return };
    let name = Name::new(&url, "processes");
    let began = Instant::now();
    let children = [spawn(&name, "count"), spawn(&name, "count")];
    let served: u64 = children
        .into_iter()
        .map(|mut child| {
            let output = BufReader::new(child.stdout.take().unwrap());
            let lines = output.lines().map(Result::unwrap);
            let served = lines.filter(|line| line.contains("SERVED")).count() as u64;
            assert!(child.wait().unwrap().success());
            served
        })
        .sum();
    let may = 20.0 + began.elapsed().as_secs_f64() * 20.0;
    // Of the 51 that each has, `spawn` read the first.
    assert_eq!(served, 100);
    assert!(served as f64 <= may, "{served} of {may}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_429_here_makes_everybody_wait_and_lowers_the_rate_there() {
    let Some(url) = service::redis() else { return };
    let name = Name::new(&url, "learn");
    let limits = Limits::new()
        .with_requests_per_minute(6_000)
        .with_learning(Learning::new());
    let (one, other) = (name.limiter(&limits).await, name.limiter(&limits).await);
    other.acquire(Ask::tokens(0)).await.unwrap().settle(0);
    let permit = one.acquire(Ask::tokens(0)).await.unwrap();
    permit.rejected(&Signals::new().with_retry_after(Duration::from_secs(3)));
    let before = 5_400.0;
    while one.status().requests_per_minute.unwrap() >= before {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let began = Instant::now();
    other.acquire(Ask::tokens(0)).await.unwrap().settle(0);
    assert!(
        began.elapsed() >= Duration::from_millis(500),
        "the pause is everybody's: {:?}",
        began.elapsed()
    );
    while other.status().requests_per_minute.unwrap() >= before {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_and_comes_back_under_load() {
    // Asks for a server, so that a run without one says that this did not run.
    if service::redis().is_none() {
        return;
    }
    let mut server = Server::start();
    let name = Name::new(&server.url(), "restart");
    let events = Arc::new(Mutex::new(Vec::new()));
    let connect = async || {
        let events = events.clone();
        let note = move |event: &SharedEvent| events.lock().unwrap().push(matches!(event, SharedEvent::Back));
        let config = name.config(&twenty_a_second());
        config.on_event(note).connect(TokioTimer::new()).await.unwrap()
    };
    let limiters = [connect().await, connect().await];
    let began = Instant::now();
    let served = Arc::new(Mutex::new(Vec::new()));
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let workers: Vec<_> = (0..20)
        .map(|place| {
            let (limiter, served, stop) = (limiters[place % 2].clone(), served.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let permit = limiter.acquire(Ask::tokens(0)).await.unwrap();
                    served.lock().unwrap().push(began.elapsed());
                    permit.settle(0);
                }
            })
        })
        .collect();
    let all = |shared: bool| limiters.iter().all(|limiter| limiter.status().shared == shared);
    let until = async |what: &str, done: &dyn Fn() -> bool| {
        let began = Instant::now();
        while !done() {
            assert!(began.elapsed() < Duration::from_secs(60), "{what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let count = || served.lock().unwrap().len();
    until("served by the server", &|| count() > 40).await;
    assert!(all(true));
    for _ in 0..2 {
        server.stop();
        until("gone", &|| all(false)).await;
        let before = count();
        until("served without the server", &|| count() > before + 20).await;
        assert_eq!(
            limiters[0].status().requests_per_minute,
            Some(600.0),
            "half of it each"
        );
        server.restart();
        until("back", &|| all(true)).await;
        let before = count();
        until("served by the server again", &|| count() > before + 20).await;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for worker in workers {
        tokio::time::timeout(Duration::from_secs(60), worker)
            .await
            .unwrap()
            .unwrap();
    }
    // Each limiter said so once for each time.
    let events = events.lock().unwrap().clone();
    assert_eq!(events.len(), 8, "{events:?}");
    assert_eq!(events.iter().filter(|back| **back).count(), 4);
    // In no span more than the rate gives, but for what may be there at once: at the start, and when the server comes and
    // goes (the stand-ins begin with nothing, and so does a server that has forgotten).
    let served = served.lock().unwrap();
    for (first, from) in served.iter().enumerate().step_by(7) {
        for (more, to) in served[first..].iter().enumerate() {
            let may = 20.0 + 2.0 + (*to - *from).as_secs_f64() * 20.0 + 20.0;
            assert!(more as f64 <= may, "{more} from {from:?} to {to:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_never_there_is_no_error_and_passwords_are_not_told() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("redis://:hunter2@127.0.0.1:{free}");
    let config = SharedConfig::new(url, "nobody", twenty_a_second());
    assert!(!format!("{config:?}").contains("hunter2"));
    let limiter = config.connect(TokioTimer::new()).await.unwrap();
    assert!(!limiter.status().shared);
    limiter.acquire(Ask::tokens(0)).await.unwrap().settle(0);
    let error = SharedConfig::new("hunter2@", "x", twenty_a_second())
        .connect(TokioTimer::new())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

/// A server of our own that can be stopped.
pub(crate) struct Server {
    port: u16,
    process: Option<Child>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut server = Self { port, process: None };
        server.restart();
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Keeps nothing on disk: who comes back has forgotten everything.
    pub(crate) fn restart(&mut self) {
        let mut command = Command::new("redis-server");
        command.args([
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--port",
        ]);
        command
            .arg(self.port.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.process = Some(command.spawn().unwrap());
        let began = Instant::now();
        let client = redis::Client::open(self.url()).unwrap();
        while client.get_connection().is_err() {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "the server does not start"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// This test program again, as a process that shares the limit.
pub(crate) fn spawn(name: &Name, role: &str) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "shared::child_process", "--nocapture"])
        .env(CHILD, format!("{role} {} {}", name.url, name.name))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    if let Some(output) = &mut child.stdout {
        // It has its first permit from now on.
        let mut output = BufReader::with_capacity(1, output);
        let mut line = String::new();
        while !line.contains("SERVED") {
            line.clear();
            assert!(output.read_line(&mut line).unwrap() > 0, "the child is gone");
        }
    }
    child
}

/// Does nothing unless it is started as a child.
#[tokio::test(flavor = "multi_thread")]
async fn child_process() {
    let Ok(given) = std::env::var(CHILD) else { return };
    let [role, url, name]: [&str; 3] = given.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let limits = match role {
        "hold" => Limits::new().with_concurrency(2),
        "load" => twenty_a_second().with_concurrency(4),
        _ => twenty_a_second(),
    };
    let config = SharedConfig::new(url, name, limits).with_timeout(Duration::from_secs(20));
    let limiter = config
        .with_lease(Duration::from_secs(1))
        .connect(TokioTimer::new())
        .await
        .unwrap();
    assert!(limiter.status().shared);
    let permit = limiter.acquire(Ask::tokens(0)).await.unwrap();
    println!("\nSERVED");
    if role == "load" {
        // Until it is killed.
        for place in 0..8 {
            let limiter = limiter.clone();
            tokio::spawn(async move {
                loop {
                    let permit = limiter.acquire(Ask::tokens(0)).await.unwrap();
                    println!("\nSERVED");
                    tokio::time::sleep(Duration::from_millis(30 + 10 * place)).await;
                    permit.settle(0);
                }
            });
        }
        drop(permit);
        return std::future::pending().await;
    }
    if role == "hold" {
        std::future::pending::<()>().await;
    }
    permit.settle(0);
    for _ in 0..50 {
        limiter.acquire(Ask::tokens(0)).await.unwrap().settle(0);
        println!("\nSERVED");
    }
}
