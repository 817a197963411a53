//! The circuit breaker: the circuit against a naive model of it, and the layer around models that fail.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use peregrine_core::{
    ChatEvent, ChatModel, ChatRequest, ChatResponse, Clock as _, Error, ErrorKind, Monotonic, Unavailable,
};
use peregrine_providers::breaker::{Circuit, Permit, Refusal, Verdict};
use peregrine_providers::{Breaker, BreakerPolicy, CircuitState, Retry, RetryPolicy};
use peregrine_testkit::FakeClock;
use proptest::prelude::*;

use crate::scripted::{Scripted, Turn};
use crate::stage::{Stage, failure, now, poll};

const S: fn(u64) -> Duration = Duration::from_secs;

fn policy() -> BreakerPolicy {
    BreakerPolicy::default()
        .with_window(S(10))
        .with_failure_rate(0.5, 4)
        .with_open_for(S(5), S(30))
        .with_jitter(0.0)
}

fn breaker(policy: BreakerPolicy, clock: &FakeClock) -> Breaker {
    Breaker::with_random(policy, Arc::new(clock.clone()), || 0.5)
}

fn ask() -> ChatRequest {
    ChatRequest::user("?")
}

#[test]
fn too_many_failures_open_it_and_good_probes_close_it_again() {
    let clock = FakeClock::new();
    let breaker = breaker(policy(), &clock);
    let fail = |count| (0..count).map(|_| Turn::Fail(failure(ErrorKind::Overloaded)));
    let good = |count| (0..count).map(|_| Turn::Answer(ChatResponse::text("yes")));
    let script = Scripted::new(good(2).chain(fail(2)).chain(good(3)));
    let model = script.clone().layered(breaker.clone());
    for healthy in [true, true, false, false] {
        assert_eq!(breaker.stats().state, CircuitState::Closed);
        assert_eq!(now(model.complete(&ask())).is_ok(), healthy);
    }
    let left = script.left();
    let error = now(model.complete(&ask())).unwrap_err();
    assert_eq!(
        (error.kind(), error.retry_after()),
        (ErrorKind::Overloaded, Some(S(5)))
    );
    assert!(
        matches!(error, Error::Unavailable(_)) && error.to_string().contains("test/scripted"),
        "{error}"
    );
    clock.advance(S(4));
    assert_eq!(now(model.stream(&ask())).unwrap_err().retry_after(), Some(S(1)));
    assert_eq!(
        (script.left(), breaker.stats().refused),
        (left, 2),
        "nothing was sent"
    );

    clock.advance(S(1));
    assert_eq!(breaker.stats().state, CircuitState::HalfOpen);
    assert!(now(model.complete(&ask())).is_ok());
    assert_eq!(
        breaker.stats().state,
        CircuitState::HalfOpen,
        "two successes are asked for"
    );
    assert!(now(model.complete(&ask())).is_ok());
    assert_eq!(breaker.stats().state, CircuitState::Closed);
    assert_eq!(
        (breaker.stats().failures, breaker.stats().calls),
        (0, 0),
        "a fresh start"
    );
}

#[test]
fn each_failed_probe_doubles_the_time_up_to_its_bound_with_jitter() {
    let mut circuit = Circuit::new(policy().with_jitter(0.2).with_failure_rate(0.5, 1));
    let mut at = Monotonic::new(S(100));
    let fail = |at: Monotonic, circuit: &mut Circuit| {
        let permit = circuit.admit(at).unwrap();
        circuit.end(permit, Verdict::Failure, at, 0.5);
        match circuit.state(at) {
            CircuitState::Open(time) => time,
            other => panic!("{other:?}"),
        }
    };
    let mut times = Vec::new();
    for _ in 0..5 {
        let time = fail(at, &mut circuit);
        times.push(time.as_millis());
        at = at + time;
    }
    assert_eq!(
        times,
        [5_500, 11_000, 22_000, 33_000, 33_000],
        "a tenth more, at most 30 s before that"
    );
}

#[test]
fn failures_leave_the_window_with_time() {
    let clock = FakeClock::new();
    let breaker = breaker(policy(), &clock);
    let model =
        Scripted::new((0..9).map(|_| Turn::Fail(failure(ErrorKind::Server)))).layered(breaker.clone());
    for _ in 0..3 {
        for _ in 0..3 {
            assert!(now(model.complete(&ask())).is_err());
        }
        assert_eq!(
            (breaker.stats().failures, breaker.stats().state),
            (3, CircuitState::Closed)
        );
        clock.advance(S(11));
    }
    assert_eq!(breaker.stats().calls, 0);
}

#[test]
fn only_what_speaks_about_the_provider_counts() {
    use ErrorKind as Kind;
    let cases = [
        (failure(Kind::Server), Some(true)),
        (failure(Kind::Timeout), Some(true)),
        (failure(Kind::Protocol), Some(true)),
        (Error::truncated("cut"), Some(true)),
        (failure(Kind::InvalidRequest), Some(false)),
        (failure(Kind::Authentication), Some(false)),
        (failure(Kind::ContentFilter), Some(false)),
        (failure(Kind::RateLimited), None),
        (Error::Cancelled, None),
        (Error::invalid_request("it cannot be said"), None),
        (
            Unavailable::new(Kind::Overloaded, "held back by a layer within").into(),
            None,
        ),
    ];
    for (error, failed) in cases {
        let clock = FakeClock::new();
        let breaker = breaker(policy(), &clock);
        let model = Scripted::new([Turn::Fail(error.clone())]).layered(breaker.clone());
        now(model.complete(&ask())).unwrap_err();
        let expected = failed.map_or((0, 0), |failed| (u64::from(failed), 1));
        assert_eq!(
            (breaker.stats().failures, breaker.stats().calls),
            expected,
            "{error:?}"
        );
    }
}

#[test]
fn a_dropped_call_counts_as_nothing_and_frees_its_probe() {
    let clock = FakeClock::new();
    let breaker = breaker(policy().with_failure_rate(0.5, 1).with_probes(1, 1), &clock);
    let stage = Stage::new("m");
    let model = stage.clone().layered(breaker.clone());
    let request = ask();
    {
        let mut call = pin!(model.complete(&request));
        assert!(poll(&mut call).is_pending());
    }
    assert_eq!((stage.cancelled(), breaker.stats().calls), (1, 0));

    {
        let mut call = pin!(model.complete(&request));
        assert!(poll(&mut call).is_pending());
        stage.end(1, Err(failure(ErrorKind::Server)));
        assert!(poll(&mut call).is_ready());
    }
    clock.advance(S(5));
    for dropped in 0..3 {
        let mut probe = pin!(model.stream(&request));
        assert!(poll(&mut probe).is_pending(), "{dropped}: the place is free");
        let refused = now(model.complete(&request)).unwrap_err();
        assert_eq!(
            (refused.kind(), refused.retry_after()),
            (ErrorKind::Overloaded, None)
        );
        assert_eq!(breaker.stats().state, CircuitState::HalfOpen);
    }
    let mut probe = pin!(model.complete(&request));
    assert!(poll(&mut probe).is_pending());
    stage.answer(stage.calls() - 1, "well again");
    assert!(poll(&mut probe).is_ready());
    assert_eq!(breaker.stats().state, CircuitState::Closed);
}

#[test]
fn a_stream_counts_when_it_has_ended() {
    let text = |text: &str| ChatEvent::TextDelta { text: text.into() };
    let clock = FakeClock::new();
    let breaker = breaker(policy(), &clock);
    let script = Scripted::new([
        Turn::Answer(ChatResponse::text("whole")),
        Turn::Break(vec![text("half")], failure(ErrorKind::Connection)),
        Turn::Answer(ChatResponse::text("dropped")),
    ]);
    let model = script.layered(breaker.clone());
    let stream = now(model.stream(&ask())).unwrap();
    assert_eq!(breaker.stats().calls, 0, "not yet");
    assert!(now(stream.collect()).is_ok());
    assert_eq!((breaker.stats().failures, breaker.stats().calls), (0, 1));
    assert!(now(now(model.stream(&ask())).unwrap().collect()).is_err());
    assert_eq!((breaker.stats().failures, breaker.stats().calls), (1, 2));
    let mut stream = now(model.stream(&ask())).unwrap();
    assert!(now(stream.next()).unwrap().is_ok());
    drop(stream);
    assert_eq!(
        (breaker.stats().failures, breaker.stats().calls),
        (1, 2),
        "a drop is no end"
    );
}

#[test]
fn a_probe_that_never_ends_loses_its_place_and_its_vote() {
    let mut circuit = Circuit::new(
        policy()
            .with_failure_rate(0.1, 1)
            .with_probes(1, 1)
            .with_probe_lease(S(60)),
    );
    let at = |s| Monotonic::new(S(s));
    let permit = circuit.admit(at(0)).unwrap();
    let old = circuit.admit(at(0)).unwrap();
    let older = circuit.admit(at(0)).unwrap();
    circuit.end(permit, Verdict::Failure, at(0), 0.0);
    let stuck = circuit.admit(at(5)).unwrap();
    assert!(stuck.is_probe() && !old.is_probe());
    assert_eq!(circuit.admit(at(64)), Err(Refusal::Probing));
    circuit.end(old, Verdict::Success, at(64), 0.0);
    assert_eq!(
        circuit.state(at(64)),
        CircuitState::HalfOpen,
        "a call of an older time says nothing"
    );
    let next = circuit.admit(at(65)).unwrap();
    circuit.end(stuck, Verdict::Failure, at(66), 0.0);
    assert_eq!(circuit.state(at(66)), CircuitState::HalfOpen, "its lease is over");
    circuit.end(next, Verdict::Success, at(67), 0.0);
    assert_eq!(circuit.state(at(67)), CircuitState::Closed);
    circuit.end(older, Verdict::Failure, at(68), 0.0);
    assert_eq!(
        circuit.state(at(68)),
        CircuitState::Closed,
        "one failure would open it, if it were of this time"
    );
}

#[test]
fn retries_around_it_stop_when_it_opens() {
    let clock = FakeClock::jumping();
    let breaker = breaker(policy().with_failure_rate(0.5, 2), &clock);
    let script = Scripted::new((0..10).map(|_| Turn::Fail(failure(ErrorKind::Overloaded))));
    let retry = Retry::new(RetryPolicy::new(8), Arc::new(clock.clone())).with_random(|| 0.5);
    let model = script.clone().layered(breaker).layered(retry);
    let error = now(model.complete(&ask())).unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    assert_eq!(
        (script.left(), clock.sleeps().len()),
        (8, 2),
        "two calls, and no wait for the circuit"
    );
    assert!(clock.now().since_origin() < S(5));
}

#[test]
fn absurd_settings_neither_panic_nor_lock_out_for_ever() {
    let absurd = BreakerPolicy::default()
        .with_window(Duration::ZERO)
        .with_failure_rate(f64::NAN, 0)
        .with_open_for(Duration::MAX, Duration::MAX)
        .with_jitter(f64::INFINITY)
        .with_probes(0, 0)
        .with_probe_lease(Duration::MAX);
    let mut circuit = Circuit::new(absurd);
    let end = Monotonic::new(Duration::MAX);
    for at in [Monotonic::new(Duration::ZERO), end] {
        if let Ok(permit) = circuit.admit(at) {
            circuit.end(permit, Verdict::Failure, at, f64::NAN);
        }
    }
    assert!(matches!(
        circuit.state(Monotonic::new(S(1))),
        CircuitState::Open(_)
    ));
}

/// What is done to a circuit, one after another.
#[derive(Debug, Clone)]
enum Step {
    Admit,
    /// Ends the n-th permit that is out, in the order of admission.
    End(usize, Verdict),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let verdict = prop_oneof![
        Just(Verdict::Success),
        Just(Verdict::Failure),
        Just(Verdict::Neutral)
    ];
    let step = prop_oneof![
        4 => Just(Step::Admit),
        4 => (0..8_usize, verdict).prop_map(|(n, verdict)| Step::End(n, verdict)),
        1 => (1..8_000_u64).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..200)
}

proptest! {
    /// Whatever happens: while open nothing gets through before its time; while half open no more probes are out than
    /// allowed; and if all calls end and time passes, a call is admitted.
    #[test]
    fn a_circuit_keeps_its_promises(steps in steps(), probes in 1..4_u32, needed in 1..4_u32) {
        let mut circuit = Circuit::new(policy().with_probes(probes, needed).with_probe_lease(S(20)));
        let mut at = Monotonic::new(Duration::ZERO);
        let mut out: Vec<(Permit, Monotonic)> = Vec::new();
        for step in steps {
            match step {
                Step::Wait(ms) => at = at + Duration::from_millis(ms),
                Step::End(n, verdict) if n < out.len() => {
                    let before = circuit.state(at);
                    let (permit, _) = out.remove(n);
                    let probe = permit.is_probe();
                    circuit.end(permit, verdict, at, 0.0);
                    let after = circuit.state(at);
                    if verdict == Verdict::Neutral {
                        prop_assert_eq!(before, after, "a neutral end changes nothing");
                    }
                    if matches!(before, CircuitState::Open(_)) {
                        prop_assert_eq!(before, after, "late ends do not change an open circuit");
                    }
                    if before == CircuitState::HalfOpen && !probe {
                        prop_assert_eq!(before, after, "nor a half-open one, unless they are probes");
                    }
                }
                Step::End(..) => {}
                Step::Admit => {
                    let state = circuit.state(at);
                    let admitted = circuit.admit(at);
                    match (&state, &admitted) {
                        (CircuitState::Closed, Ok(permit)) => prop_assert!(!permit.is_probe()),
                        (CircuitState::Open(left), Err(Refusal::Open(wait))) => prop_assert_eq!(left, wait),
                        (CircuitState::HalfOpen, Ok(permit)) => prop_assert!(permit.is_probe()),
                        (CircuitState::HalfOpen, Err(Refusal::Probing)) => {}
                        other => prop_assert!(false, "{:?}", other),
                    }
                    if let Ok(permit) = admitted {
                        out.push((permit, at));
                    }
                    if circuit.state(at) == CircuitState::HalfOpen {
                        // Permits of older generations may be out too; those of this one are within the bound, so
                        // that many fresh admissions at this moment cannot exceed it.
                        let mut trial = circuit.clone();
                        let more = std::iter::from_fn(|| trial.admit(at).ok()).take(10).count();
                        prop_assert!(more <= probes as usize);
                    }
                }
            }
        }
        for (permit, _) in out {
            circuit.end(permit, Verdict::Neutral, at, 0.0);
        }
        let later = at + S(60);
        prop_assert!(circuit.admit(later).is_ok(), "it is never locked for ever");
    }

    /// The window counts what a list of all calls would, up to the tenth of the window that it moves by.
    #[test]
    fn the_window_is_a_list_of_the_last_calls(gaps in proptest::collection::vec((0..3_000_u64, any::<bool>()), 1..100)) {
        let mut circuit = Circuit::new(policy().with_failure_rate(1.0, u32::MAX));
        let mut at = Monotonic::new(Duration::ZERO);
        let mut calls = Vec::new();
        for (gap, failed) in gaps {
            at = at + Duration::from_millis(gap);
            let permit = circuit.admit(at).unwrap();
            let verdict = if failed { Verdict::Failure } else { Verdict::Success };
            circuit.end(permit, verdict, at, 0.0);
            calls.push((at, failed));
            // Ten slices of a second: those that began within the last ten.
            let oldest = at.since_origin().as_secs().saturating_sub(9);
            let live = calls.iter().filter(|(at, _)| at.since_origin().as_secs() >= oldest);
            let expected = live.fold((0, 0), |(f, n), (_, failed)| (f + u64::from(*failed), n + 1));
            prop_assert_eq!(circuit.counts(at), expected);
        }
    }
}
