//! What goes wrong with a shared limit: killed processes, clocks that are set, limits that differ, providers that say more.
//!
//! Time is real, as in `shared`: nothing is asserted about how fast anything is, except that it comes to an end.

use std::io::{BufRead as _, BufReader};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use peregrine_limits::{Ask, Limiter, Limits, Signals, TokioTimer, Window};
use peregrine_testkit::service;

use crate::shared::{Name, Server, spawn, twenty_a_second};

const LONG: Duration = Duration::from_secs(60);

impl Name {
    fn key(&self, key: &str) -> String {
        format!("peregrine:limits:{{{}}}:{key}", self.name)
    }

    fn redis<T: redis::FromRedisValue>(&self, command: &str, key: &str, arguments: &[&str]) -> T {
        let client = redis::Client::open(self.url.as_str()).unwrap();
        let mut connection = client.get_connection().unwrap();
        let mut command = redis::cmd(command);
        command.arg(self.key(key)).arg(arguments);
        command.query(&mut connection).unwrap()
    }
}

async fn acquire(limiter: &Limiter, times: usize) {
    for _ in 0..times {
        limiter.acquire(Ask::tokens(0)).await.unwrap().settle(0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_are_killed_under_load_leave_nothing_behind_and_take_no_more_than_theirs() {
    let Some(url) = service::redis() else { return };
    let name = Name::new(&url, "killed");
    let began = Instant::now();
    let mut children = [spawn(&name, "load"), spawn(&name, "load"), spawn(&name, "load")];
    let limits = twenty_a_second().with_concurrency(4);
    let limiter = name
        .config(&limits)
        .with_lease(Duration::from_secs(1))
        .connect(TokioTimer::new())
        .await
        .unwrap();
    acquire(&limiter, 20).await;
    let mut served = 20 + children.len();
    for child in &mut children {
        // SIGKILL, in the middle of whatever it does.
        child.kill().unwrap();
        child.wait().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        served += output
            .lines()
            .filter(|line| line.as_ref().is_ok_and(|line| line.contains("SERVED")))
            .count();
        acquire(&limiter, 5).await;
        served += 5;
    }
    let may = 20.0 + began.elapsed().as_secs_f64() * 20.0;
    assert!(served as f64 <= may, "{served} of {may}");
    // All places are ours, and nobody else is counted.
    let all = async {
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(limiter.acquire(Ask::tokens(0)).await.unwrap());
        }
        held
    };
    let held = tokio::time::timeout(LONG, all).await.unwrap();
    let until_alone = async {
        while name.redis::<u64>("HLEN", "counts", &[]) != 1 || limiter.status().processes != 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, until_alone).await.unwrap();
    drop(held);
    let until_free = async {
        while !name.redis::<Vec<String>>("HVALS", "counts", &[])[0].starts_with("0 ") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, until_free).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_clock_is_set_back_does_not_stand_still() {
    let Some(url) = service::redis() else { return };
    let name = Name::new(&url, "clock");
    let limiter = name.limiter(&twenty_a_second()).await;
    acquire(&limiter, 1).await;
    // As it looks after the clock was put back by an hour: everything is from the future.
    let later = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(3_600);
    let (at, pause) = (
        later.as_micros().to_string(),
        (later.as_micros() + 500_000).to_string(),
    );
    let lease = (later.as_millis() + 1_000).to_string();
    // All at once: what the limiter sends on its own may come between any two commands, and find the clock set back already.
    let gone = "a process that is gone";
    let [state, alive, counts] = ["state", "alive", "counts"].map(|key| name.key(key));
    let mut set_back = redis::pipe();
    set_back.atomic();
    set_back
        .cmd("HSET")
        .arg(&state)
        .arg(&["at", &at, "pause", &pause]);
    set_back.cmd("ZADD").arg(&alive).arg(&[&lease, gone]);
    set_back.cmd("HSET").arg(&counts).arg(&[gone, "3 1"]);
    let client = redis::Client::open(url.as_str()).unwrap();
    let () = set_back.query(&mut client.get_connection().unwrap()).unwrap();
    let began = Instant::now();
    // Standing still, each of them would wait longer than the one before it, minutes together.
    tokio::time::timeout(LONG, acquire(&limiter, 100)).await.unwrap();
    // But it did not begin anew either: 19 were left, and 20 came each second.
    assert!(
        began.elapsed() >= Duration::from_millis(3_900),
        "{:?}",
        began.elapsed()
    );
    let gone = async {
        while name.redis::<u64>("HLEN", "counts", &[]) != 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            acquire(&limiter, 1).await;
        }
    };
    tokio::time::timeout(LONG, gone).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_with_other_limits_share_what_was_used() {
    let Some(url) = service::redis() else { return };
    let name = Name::new(&url, "mixed");
    let began = Instant::now();
    let limiters = [
        name.limiter(&twenty_a_second()).await,
        name.limiter(&twenty_a_second().with_requests_per_minute(1_260))
            .await,
    ];
    let served = limiters.map(|limiter| tokio::spawn(async move { acquire(&limiter, 40).await }));
    for one in served {
        one.await.unwrap();
    }
    // 80 of them: 21 at once, 59 at 21 a second.
    assert!(
        began.elapsed() >= Duration::from_millis(2_700),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stand_in_refuses_nothing_that_fits_the_whole() {
    if service::redis().is_none() {
        return;
    }
    let mut server = Server::start();
    let name = Name::new(&server.url(), "whole");
    let limits = Limits::new()
        .with_tokens_per_minute(60_000)
        .with_margin(1.0)
        .with_burst(Duration::from_secs(1));
    let limiters = [name.limiter(&limits).await, name.limiter(&limits).await];
    acquire(&limiters[1], 1).await;
    acquire(&limiters[0], 1).await;
    assert_eq!(limiters[0].status().processes, 2);
    server.stop();
    let large = limiters[0].acquire(Ask::tokens(40_000));
    let permit = tokio::time::timeout(LONG, large).await.unwrap().unwrap();
    permit.settle(40_000);
    assert!(!limiters[0].status().shared);
    assert!(limiters[0].acquire(Ask::tokens(60_001)).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_provider_says_is_left_is_all_that_is_left_for_everybody() {
    let Some(url) = service::redis() else { return };
    let name = Name::new(&url, "left");
    // 60 at once, one a second.
    let limits = Limits::new()
        .with_requests_per_minute(60)
        .with_margin(1.0)
        .with_burst(LONG);
    let (one, other) = (name.limiter(&limits).await, name.limiter(&limits).await);
    let began = Instant::now();
    let window = Window {
        remaining: Some(3),
        ..Window::default()
    };
    let signals = Signals {
        requests: Some(window),
        ..Signals::default()
    };
    let permit = one.acquire(Ask::tokens(0)).await.unwrap();
    permit.settle_with(0, &signals);
    let told = async {
        while name.redis::<f64>("HGET", "state", &["level1"]) > 30.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, told).await.unwrap();
    tokio::time::timeout(LONG, acquire(&other, 10)).await.unwrap();
    // 3 of them, and one a second since.
    assert!(
        began.elapsed() >= Duration::from_millis(6_500),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_booked_already_waits_too_when_the_provider_asks_for_it() {
    let Some(url) = service::redis() else { return };
    let name = Name::new(&url, "booked");
    let limits = Limits::new()
        .with_requests_per_minute(20)
        .with_margin(1.0)
        .with_burst(Duration::from_secs(3));
    let limiter = name.limiter(&limits).await;
    let first = limiter.acquire(Ask::tokens(0)).await.unwrap();
    let other = limiter.clone();
    let booked = tokio::spawn(async move { acquire(&other, 1).await });
    // It is served three seconds after it has booked, and its debt is seen for most of that.
    let has_booked = async {
        while name.redis::<f64>("HGET", "state", &["level1"]) > -0.1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, has_booked).await.unwrap();
    let began = Instant::now();
    first.rejected(&Signals::new().with_retry_after(Duration::from_secs(5)));
    tokio::time::timeout(LONG, booked).await.unwrap().unwrap();
    assert!(
        began.elapsed() >= Duration::from_millis(4_900),
        "{:?}",
        began.elapsed()
    );
}
