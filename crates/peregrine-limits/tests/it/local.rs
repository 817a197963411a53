//! One process: rates, queues, cancellation, refunds, pauses. Time is tokio's paused clock.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use peregrine_limits::{
    Ask, Error, ErrorKind, Learning, Limiter, Limits, Signals, Sleep, Timer, TokioTimer, Window,
};
use proptest::prelude::*;
use tokio::time::{Instant, timeout};

fn limiter(limits: Limits) -> Limiter {
    Limiter::new(limits, TokioTimer::new()).unwrap()
}

/// One a second and one at once, the whole limit.
fn one_a_second() -> Limits {
    Limits::new()
        .with_requests_per_minute(60)
        .with_margin(1.0)
        .with_burst(Duration::from_secs(1))
}

#[tokio::test(start_paused = true)]
async fn requests_come_at_the_rate_with_the_margin() {
    let limiter = limiter(Limits::new().with_requests_per_minute(600));
    let began = Instant::now();
    for _ in 0..900 {
        limiter.acquire(Ask::tokens(0)).await.unwrap().settle(0);
    }
    // 9 a second, and 6 s of them at once.
    let took = began.elapsed();
    let expected = Duration::from_secs(94);
    assert!(
        took >= expected - Duration::from_millis(200) && took < expected + Duration::from_secs(1),
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_not_used_is_given_back_and_what_was_used_beyond_is_owed() {
    let limits = Limits::new()
        .with_tokens_per_minute(6_000)
        .with_margin(1.0)
        .with_burst(Duration::from_secs(10));
    let limiter = limiter(limits);
    let began = Instant::now();
    // 1,000 at once; 100 a second.
    limiter.acquire(Ask::tokens(1_000)).await.unwrap().settle(100);
    limiter.acquire(Ask::tokens(900)).await.unwrap().settle(1_900);
    assert_eq!(began.elapsed(), Duration::ZERO);
    let permit = limiter.acquire(Ask::tokens(500)).await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 15, "1,000 owed, 500 asked for");
    permit.refund();
    limiter.acquire(Ask::tokens(500)).await.unwrap().settle(500);
    assert_eq!(began.elapsed().as_secs(), 15, "given back");
    drop(limiter.acquire(Ask::tokens(500)).await.unwrap());
    limiter.acquire(Ask::tokens(500)).await.unwrap().settle(500);
    assert_eq!(began.elapsed().as_secs(), 25, "what is dropped counts as used");
}

#[tokio::test(start_paused = true)]
async fn more_than_a_minute_has_is_an_error_at_once() {
    let limiter = limiter(Limits::new().with_tokens_per_minute(1_000));
    let error = limiter.acquire(Ask::tokens(1_001)).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::TooLarge, false));
    assert!(matches!(
        error,
        Error::TooLarge {
            asked: 1_001,
            limit: 1_000,
            ..
        }
    ));
    // All of a minute is more than the burst, and goes through.
    limiter.acquire(Ask::tokens(1_000)).await.unwrap().settle(1_000);
    let began = Instant::now();
    limiter.acquire(Ask::tokens(1_000)).await.unwrap().settle(1_000);
    assert!(
        began.elapsed() <= Duration::from_secs(68),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_is_refused_when_the_provider_announces_less() {
    let limits = Limits::new()
        .with_tokens_per_minute(1_000)
        .with_learning(Learning::new());
    let limiter = limiter(limits);
    let first = limiter.acquire(Ask::tokens(900)).await.unwrap();
    let other = limiter.clone();
    let waits = tokio::spawn(async move { other.acquire(Ask::tokens(800)).await.map(drop) });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let window = Window {
        limit: Some(500),
        ..Window::default()
    };
    first.settle_with(
        900,
        &Signals {
            tokens: Some(window),
            ..Signals::default()
        },
    );
    let error = waits.await.unwrap().unwrap_err();
    assert!(
        matches!(
            error,
            Error::TooLarge {
                asked: 800,
                limit: 500,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded() {
    let limiter = limiter(Limits::new().with_concurrency(1).with_max_waiting(2));
    let held = limiter.acquire(Ask::tokens(0)).await.unwrap();
    let mut waiting: Vec<_> = (0..2)
        .map(|_| Box::pin(limiter.acquire(Ask::tokens(0))))
        .collect();
    for waiter in &mut waiting {
        assert!(timeout(Duration::ZERO, waiter).await.is_err());
    }
    let error = limiter.acquire(Ask::tokens(0)).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::QueueFull, true));
    waiting.pop();
    assert!(
        timeout(Duration::ZERO, limiter.acquire(Ask::tokens(0)))
            .await
            .is_err(),
        "a place is free again"
    );
    drop(held);
    waiting.pop().unwrap().await.unwrap().settle(0);
}

#[tokio::test(start_paused = true)]
async fn requests_at_the_same_time_are_bounded_and_a_dropped_permit_frees_its_place() {
    let limiter = limiter(Limits::new().with_concurrency(2));
    let one = limiter.acquire(Ask::tokens(0)).await.unwrap();
    let _two = limiter.acquire(Ask::tokens(0)).await.unwrap();
    assert!(
        timeout(Duration::from_secs(3_600), limiter.acquire(Ask::tokens(0)))
            .await
            .is_err()
    );
    assert_eq!((limiter.status().in_flight, limiter.status().waiting), (2, 0));
    drop(one);
    limiter.acquire(Ask::tokens(0)).await.unwrap().settle(0);
}

#[tokio::test(start_paused = true)]
async fn dropping_a_future_that_waits_or_was_let_through_takes_nothing() {
    let limiter = limiter(one_a_second());
    limiter.acquire(Ask::tokens(0)).await.unwrap().settle(0);
    let mut waiting: Vec<_> = (0..5)
        .map(|_| Box::pin(limiter.acquire(Ask::tokens(0))))
        .collect();
    for waiter in &mut waiting {
        assert!(timeout(Duration::ZERO, waiter).await.is_err());
    }
    tokio::time::advance(Duration::from_secs(1)).await;
    // Somebody else's call lets the first one through, which nobody polls any more.
    assert!(timeout(Duration::ZERO, &mut waiting[4]).await.is_err());
    waiting.clear();
    assert_eq!((limiter.status().in_flight, limiter.status().waiting), (0, 0));
    let began = Instant::now();
    limiter.acquire(Ask::tokens(0)).await.unwrap().settle(0);
    assert_eq!(
        began.elapsed(),
        Duration::ZERO,
        "what it was granted was given back"
    );
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_nobody_polls_does_not_stop_the_others() {
    let limiter = limiter(one_a_second());
    limiter.acquire(Ask::tokens(0)).await.unwrap().settle(0);
    let mut forgotten = Box::pin(limiter.acquire(Ask::tokens(0)));
    assert!(timeout(Duration::ZERO, &mut forgotten).await.is_err());
    let began = Instant::now();
    limiter.acquire(Ask::tokens(0)).await.unwrap().settle(0);
    assert!(began.elapsed() <= Duration::from_secs(6), "{:?}", began.elapsed());
    forgotten.await.unwrap().settle(0);
}

#[tokio::test(start_paused = true)]
async fn within_a_tenant_first_come_first_served_and_tenants_take_turns() {
    let limiter = limiter(one_a_second());
    limiter.acquire(Ask::tokens(0)).await.unwrap().settle(0);
    let order = Arc::new(Mutex::new(String::new()));
    let mut tasks = Vec::new();
    for (tenant, name) in [("a", '1'), ("a", '2'), ("a", '3'), ("b", 'x'), ("b", 'y')] {
        let (limiter, order) = (limiter.clone(), order.clone());
        tasks.push(tokio::spawn(async move {
            let permit = limiter.acquire(Ask::tokens(0).for_tenant(tenant)).await.unwrap();
            order.lock().unwrap().push(name);
            permit.settle(0);
        }));
        tokio::task::yield_now().await;
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), "1x2y3");
}

#[tokio::test(start_paused = true)]
async fn everybody_waits_as_long_as_the_provider_asks_for_but_not_for_ever() {
    for (asked, waited) in [(30, 30), (1_000_000_000, 120)] {
        let limiter = limiter(Limits::new().with_requests_per_minute(600));
        let permit = limiter.acquire(Ask::tokens(0)).await.unwrap();
        permit.rejected(&Signals::new().with_retry_after(Duration::from_secs(asked)));
        let began = Instant::now();
        limiter.acquire(Ask::tokens(0)).await.unwrap().settle(0);
        assert_eq!(began.elapsed().as_secs(), waited);
    }
}

#[tokio::test(start_paused = true)]
async fn a_429_lowers_the_rate_between_floor_and_ceiling_and_use_raises_it_again() {
    let limits = Limits::new()
        .with_requests_per_minute(6_000)
        .with_learning(Learning::new().with_bounds(0.5, 1.0));
    let limiter = limiter(limits);
    let rate = || limiter.status().requests_per_minute.unwrap();
    assert_eq!(rate(), 5_400.0);
    for _ in 0..40 {
        limiter
            .acquire(Ask::tokens(0))
            .await
            .unwrap()
            .rejected(&Signals::default());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(rate(), 3_000.0, "the floor");
    for _ in 0..80_000 {
        limiter.acquire(Ask::tokens(0)).await.unwrap().settle(0);
    }
    assert_eq!(rate(), 6_000.0, "the ceiling");
}

#[tokio::test(start_paused = true)]
async fn nothing_that_a_provider_reports_stops_everybody_for_good() {
    let limits = Limits::new()
        .with_tokens_per_minute(6_000)
        .with_margin(1.0)
        .with_learning(Learning::new());
    let limiter = limiter(limits);
    // A usage that is nonsense is owed for ten minutes of the limit, however often it is told.
    let permits = [
        limiter.acquire(Ask::tokens(1)).await.unwrap(),
        limiter.acquire(Ask::tokens(1)).await.unwrap(),
    ];
    for permit in permits {
        permit.settle(u64::MAX);
    }
    let began = Instant::now();
    limiter.acquire(Ask::tokens(1)).await.unwrap().settle(1);
    assert!(
        began.elapsed() <= Duration::from_secs(601),
        "{:?}",
        began.elapsed()
    );
    // A limit of one token is believed, but not for ever: somebody has to find out.
    let window = Window {
        limit: Some(1),
        ..Window::default()
    };
    let signals = Signals {
        tokens: Some(window),
        ..Signals::default()
    };
    let permit = limiter.acquire(Ask::tokens(1)).await.unwrap();
    permit.settle_with(1, &signals);
    let error = limiter.acquire(Ask::tokens(100)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    tokio::time::sleep(Duration::from_secs(600)).await;
    limiter.acquire(Ask::tokens(100)).await.unwrap().settle(100);
}

#[tokio::test(start_paused = true)]
async fn what_the_provider_declines_is_a_request_without_tokens() {
    let limits = Limits::new()
        .with_requests_per_minute(60)
        .with_tokens_per_minute(600)
        .with_margin(1.0)
        .with_burst(Duration::from_secs(2));
    let limiter = limiter(limits);
    let began = Instant::now();
    for _ in 0..3 {
        let permit = limiter.acquire(Ask::tokens(600)).await.unwrap();
        permit.declined(&Signals::default());
    }
    assert_eq!(began.elapsed(), Duration::from_secs(1), "two requests at once");
}

#[tokio::test(start_paused = true)]
async fn after_a_wait_that_the_provider_asked_for_one_request_goes_ahead() {
    let limiter = limiter(Limits::new().with_requests_per_minute(6_000));
    let permit = limiter.acquire(Ask::tokens(0)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    permit.rejected(&Signals::new().with_retry_after(Duration::from_secs(5)));
    let first = limiter.acquire(Ask::tokens(0)).await.unwrap();
    assert!(
        timeout(Duration::from_millis(500), limiter.acquire(Ask::tokens(0)))
            .await
            .is_err(),
        "the others wait for how it ends"
    );
    first.settle(0);
    let began = Instant::now();
    limiter.acquire(Ask::tokens(0)).await.unwrap().settle(0);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    let senseless = [
        Limits::new().with_requests_per_minute(0),
        Limits::new().with_tokens_per_minute(u64::MAX),
        Limits::new().with_concurrency(0),
        Limits::new().with_margin(0.0),
        Limits::new().with_margin(f64::NAN),
        Limits::new().with_burst(Duration::MAX),
        Limits::new().with_learning(Learning::new().with_bounds(1.0, 0.5)),
        Limits::new().with_learning(Learning::new().with_rejections(f64::INFINITY)),
    ];
    for limits in senseless {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let _inside = runtime.enter();
        let error = Limiter::new(limits.clone(), TokioTimer::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{limits:?}");
    }
}

/// A clock that the test sets as it likes, backwards too; its sleeps are over at once.
#[derive(Clone, Default)]
struct Jumping(Arc<Mutex<Duration>>);

impl Timer for Jumping {
    fn now(&self) -> Duration {
        *self.0.lock().unwrap()
    }

    fn sleep(&self, _: Duration) -> Sleep {
        Box::pin(std::future::pending())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the clock does, whatever is settled, refunded, dropped or refused: in any span no more is let through
    /// than the burst (or the largest request) and what the rate gives, and at the end nothing is held.
    #[test]
    fn no_span_has_more_than_it_may(
        steps in proptest::collection::vec((-3_000_i64..4_000, 1_u64..300, 0_u8..5), 1..80),
    ) {
        use std::future::Future as _;
        let clock = Jumping::default();
        *clock.0.lock().unwrap() = Duration::from_secs(100);
        let limits = Limits::new()
            .with_tokens_per_minute(6_000)
            .with_concurrency(4)
            .with_margin(1.0)
            .with_burst(Duration::from_secs(2));
        let limiter = Limiter::new(limits, clock.clone()).unwrap();
        let mut latest = Duration::from_secs(100);
        let mut used: Vec<(Duration, u64)> = Vec::new();
        let mut held = Vec::new();
        for (step_ms, tokens, end) in steps {
            {
                let mut now = clock.0.lock().unwrap();
                *now = match u64::try_from(step_ms) {
                    Ok(later) => *now + Duration::from_millis(later),
                    Err(_) => now.saturating_sub(Duration::from_millis(step_ms.unsigned_abs())),
                };
                latest = latest.max(*now);
            }
            let mut acquire = Box::pin(limiter.acquire(Ask::tokens(tokens)));
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            if let std::task::Poll::Ready(permit) = acquire.as_mut().poll(&mut cx) {
                let permit = permit.unwrap();
                match end {
                    0 => { permit.refund(); }
                    1 => { permit.settle(tokens / 2); used.push((latest, tokens / 2)); }
                    2 => { drop(permit); used.push((latest, tokens)); }
                    _ => { held.push(permit); used.push((latest, tokens)); }
                }
                if held.len() > 2 {
                    drop(held.remove(0));
                }
            }
        }
        held.clear();
        prop_assert_eq!(limiter.status().in_flight, 0);
        prop_assert_eq!(limiter.status().waiting, 0);
        for (first, (from, _)) in used.iter().enumerate() {
            let mut sum = 0;
            for (at, tokens) in &used[first..] {
                sum += tokens;
                // 100 a second; 200 at once, or one request of up to 300.
                let may = 300.0 + (*at - *from).as_secs_f64() * 100.0;
                prop_assert!(sum as f64 <= may + 1e-6);
            }
        }
    }
}
