//! Every wait of a plan ends with an interrupt of the scope that it runs under, and leaves nothing behind.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::stream;
use peregrine_executor::{
    ActionInfo, Actions, Answer, AttemptKey, Cause, Claim, Effect, Engine, EngineError, Executor, Lease,
    LocalEngine, Outcome, Placement, PlanError, Policy, Report, Run, Step, StepState, TokioTimer, parallel,
};
use peregrine_interrupts::{Mode, Scope};
use serde_json::{Value, json};

use crate::support::{ms, plan};

const LONG: Duration = Duration::from_secs(3_600);

/// Counts those that are alive.
#[derive(Debug, Clone, Default)]
struct Alive(Arc<AtomicUsize>);

struct One(Alive);

impl Alive {
    fn one(&self) -> One {
        self.0.fetch_add(1, Ordering::SeqCst);
        One(self.clone())
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// Waits for ever, and counts meanwhile.
    fn hang<T: Send + 'static>(&self) -> impl Future<Output = T> + Send + use<T> {
        let one = self.one();
        async move {
            let _one = one;
            pending().await
        }
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// An engine that never answers one of its questions.
#[derive(Debug)]
struct Deaf {
    to: &'static str,
    alive: Alive,
    local: LocalEngine,
}

impl Deaf {
    fn answer<T: Send + 'static>(&self, question: &str, otherwise: T) -> Answer<T> {
        match question == self.to {
            true => Answer::later(self.alive.hang()),
            false => Answer::now(Ok::<_, EngineError>(otherwise)),
        }
    }
}

impl Engine for Deaf {
    fn claim(&self, _: &AttemptKey<'_>) -> Answer<Claim> {
        match self.to {
            "held" => Answer::now(Ok(Claim::Held(Duration::from_secs(3_600)))),
            _ => {
                let heartbeat_every = Some(ms(1));
                self.answer(
                    "claim",
                    Claim::Granted(Lease {
                        token: 1,
                        heartbeat_every,
                    }),
                )
            }
        }
    }

    fn heartbeat(&self, _: &Lease) -> Answer<()> {
        self.answer("heartbeat", ())
    }

    fn complete(&self, _: &Lease, _: &Result<Value, Cause>) -> Answer<()> {
        self.answer("complete", ())
    }

    fn signal(&self, _: &str, _: &str) -> Answer<Value> {
        self.answer("signal", Value::Null)
    }

    fn timer(&self, run_id: &str, name: &str, duration: Duration) -> Answer<()> {
        match self.to {
            "timer" => self.answer("timer", ()),
            _ => self.local.timer(run_id, name, duration),
        }
    }
}

fn actions(alive: &Alive) -> Actions {
    let hangs = alive.clone();
    Actions::new()
        .with_fn("hang", ActionInfo::new(Effect::ReadOnly), move |_| hangs.hang())
        .with_fn("quick", ActionInfo::new(Effect::ReadOnly), async |_| {
            Ok(json!("done"))
        })
        .with_fn("fails", ActionInfo::new(Effect::ReadOnly), async |_| {
            Err("not now".into())
        })
        .with_fn("sleep", ActionInfo::new(Effect::ReadOnly), async |call| {
            call.sleep(LONG).await;
            Ok(json!(null))
        })
        .with_fn("durable", ActionInfo::new(Effect::ReadOnly), async |call| {
            call.durable_sleep("nap", LONG)
                .await
                .map_err(|error| error.to_string())?;
            Ok(json!(null))
        })
}

/// Runs until everything waits, interrupts, and says what came of it.
async fn stopped(run: Run<'_>, mode: Mode) -> Report {
    let scope = Scope::root("plan", peregrine_interrupts::TokioTimer::new());
    let (graceful, cancelled) = (scope.graceful(), scope.cancelled());
    let run = run
        .wind_down_when(async move { drop(graceful.await) })
        .until(async move { drop(cancelled.await) })
        .into_future();
    let stop = async {
        tokio::time::sleep(ms(100)).await;
        scope.interrupt(mode);
    };
    let (report, ()) = tokio::join!(run, stop);
    report.unwrap()
}

/// A name, a plan that waits at one place, and to which question of the engine.
fn waits() -> Vec<(&'static str, Value, &'static str)> {
    let one = |action: &str| json!([{"id": "a", "action": action}]);
    vec![
        ("an action", one("hang"), ""),
        ("a sleep", one("sleep"), ""),
        ("a durable sleep", one("durable"), ""),
        ("a durable sleep of the engine", one("durable"), "timer"),
        (
            "the next attempt",
            json!([{"id": "a", "action": "fails", "retries": {"max": 3, "wait": "1h", "max_wait": "1h"}}]),
            "",
        ),
        (
            "a time limit",
            json!([{"id": "a", "action": "hang", "timeout": "1h"}]),
            "",
        ),
        (
            "a check",
            json!([{"id": "a", "action": "quick", "checks": [{"action": "hang", "policy": "gate"}]},
                   {"id": "b", "action": "quick", "depends_on": ["a"]}]),
            "",
        ),
        ("a claim", one("quick"), "claim"),
        ("a claim of somebody else", one("quick"), "held"),
        ("a heartbeat", one("hang"), "heartbeat"),
        ("a completion", one("quick"), "complete"),
    ]
}

#[tokio::test(start_paused = true)]
async fn every_wait_of_a_plan_ends_with_an_immediate_interrupt() {
    for placement in [Placement::default(), Placement::Spawned] {
        for (what, steps, deaf_to) in waits() {
            let alive = Alive::default();
            let local = LocalEngine::new(Arc::new(TokioTimer::new()));
            let engine = Deaf {
                to: deaf_to,
                alive: alive.clone(),
                local,
            };
            let executor = Executor::new(actions(&alive), TokioTimer::new())
                .with_engine(engine)
                .with_placement(placement);
            let began = tokio::time::Instant::now();
            let plan = plan(&steps);
            let report = stopped(executor.run(&plan), Mode::Immediate).await;
            assert_eq!(began.elapsed(), ms(100), "{what}");
            assert_eq!(report.outcome, Outcome::Cancelled, "{what}");
            assert_eq!(alive.count(), 0, "{what}: something lives on");

            // The same by dropping: nothing is reported, and nothing is left.
            let scope = Scope::root("plan", peregrine_interrupts::TokioTimer::new());
            let run = scope.run_until_stopped(executor.run(&plan).into_future());
            let stop = async {
                tokio::time::sleep(ms(100)).await;
                scope.interrupt(Mode::Immediate);
            };
            assert!(tokio::join!(run, stop).0.is_err(), "{what}");
            while alive.count() > 0 {
                tokio::task::yield_now().await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_steps_that_never_comes_ends_too() {
    for mode in [Mode::Graceful, Mode::Immediate] {
        let alive = Alive::default();
        let executor = Executor::new(actions(&alive), TokioTimer::new());
        let first = [Ok::<_, PlanError>(Step::new("a", "quick"))];
        let source = futures_util::StreamExt::chain(stream::iter(first), stream::pending());
        let report = stopped(executor.run_stream(source), mode).await;
        assert_eq!(report.step("a").unwrap().state, StepState::Succeeded);
        assert_eq!(
            report.outcome,
            Outcome::Cancelled,
            "{mode}: there may have been more"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_graceful_interrupt_lets_what_runs_end_and_begins_nothing_more() {
    let steps = json!([
        {"id": "runs", "action": "nap", "parameters": {"ms": 500}},
        {"id": "after", "action": "nap", "depends_on": ["runs"]},
        {"id": "again", "action": "fails", "retries": {"max": 3, "wait": "1h", "max_wait": "1h"}},
    ]);
    let napping = || {
        actions(&Alive::default()).with_fn("nap", ActionInfo::new(Effect::ReadOnly), async |call| {
            call.sleep(ms(500)).await;
            Ok(json!("rested"))
        })
    };
    for placement in [Placement::default(), Placement::Spawned] {
        let executor = Executor::new(napping(), TokioTimer::new()).with_placement(placement);
        let plan = plan(&steps);
        let report = stopped(executor.run(&plan), Mode::Graceful).await;
        let states: Vec<_> = report.steps.iter().map(|step| step.state).collect();
        assert_eq!(
            states,
            [StepState::Succeeded, StepState::Cancelled, StepState::Cancelled]
        );
        assert_eq!((report.outcome, report.makespan), (Outcome::Cancelled, ms(500)));
    }
}

#[tokio::test(start_paused = true)]
async fn an_escalation_cancels_what_still_runs() {
    let alive = Alive::default();
    let executor = Executor::new(actions(&alive), TokioTimer::new());
    let scope = Scope::root("plan", peregrine_interrupts::TokioTimer::new());
    let plan =
        plan(&json!([{"id": "a", "action": "hang"}, {"id": "b", "action": "quick", "depends_on": ["a"]}]));
    let run = executor
        .run(&plan)
        .wind_down_when(async { drop(scope.graceful().await) })
        .until(async { drop(scope.cancelled().await) })
        .into_future();
    let stop = async {
        for mode in [Mode::Graceful, Mode::Immediate] {
            tokio::time::sleep(ms(100)).await;
            assert_eq!(alive.count(), 1);
            scope.interrupt(mode);
        }
    };
    let (report, ()) = tokio::join!(run, stop);
    let report = report.unwrap();
    assert_eq!((report.makespan, alive.count()), (ms(200), 0));
    assert_eq!(report.count(StepState::Cancelled), 2);
}

#[tokio::test(start_paused = true)]
async fn parallel_calls_end_with_their_scope() {
    for policy in [Policy::CollectAll, Policy::FailFast] {
        let alive = Alive::default();
        let calls = (0..20).map(|_| alive.hang::<Result<(), String>>());
        let scope = Scope::root("calls", peregrine_interrupts::TokioTimer::new());
        let results = scope.run_until_stopped(
            parallel(calls.collect::<Vec<_>>())
                .with_policy(policy)
                .into_future(),
        );
        let stop = async {
            tokio::time::sleep(ms(100)).await;
            scope.interrupt(Mode::Immediate);
        };
        assert!(tokio::join!(results, stop).0.is_err());
        assert_eq!(alive.count(), 0);
    }
}
