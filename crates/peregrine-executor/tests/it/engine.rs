//! Engines: what is asked of them, when, and what their answers mean. With an engine of several owners.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use peregrine_executor::{
    ActionInfo, Answer, AttemptKey, Cause, Claim, Effect, Engine, EngineError, Executor, Lease, LocalEngine,
    Sleep, Timer, VirtualTimer,
};
use serde_json::{Value, json};

use crate::support::{Calls, finish, ms, plan, result, states};

/// A table of leases in memory that several executors share: what a table in a database would be.
#[derive(Debug, Clone)]
struct Table {
    timer: VirtualTimer,
    rows: Arc<Mutex<Rows>>,
    lease: Duration,
}

#[derive(Debug, Default)]
struct Rows {
    steps: BTreeMap<String, Row>,
    log: Vec<String>,
    fail_completions: bool,
    lose_leases: bool,
    tokens: u64,
}

#[derive(Debug, Clone)]
struct Row {
    token: u64,
    until: Duration,
    end: Option<Result<Value, Cause>>,
}

impl Table {
    fn new(timer: &VirtualTimer) -> Self {
        Self {
            timer: timer.clone(),
            rows: Arc::default(),
            lease: ms(100),
        }
    }

    fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.rows.lock().unwrap().log)
    }

    /// Answers as a database does: a little later.
    fn soon<T: Send + 'static>(&self, answer: Result<T, EngineError>) -> Answer<T> {
        let sleep: Sleep = self.timer.sleep_until(self.timer.now() + ms(1));
        Answer::later(async move {
            sleep.await;
            answer
        })
    }
}

impl Engine for Table {
    fn claim(&self, attempt: &AttemptKey<'_>) -> Answer<Claim> {
        let mut rows = self.rows.lock().unwrap();
        let now = self.timer.now();
        let key = format!("{}/{}", attempt.run_id, attempt.step);
        let claim = match rows.steps.get(&key) {
            Some(Row {
                end: Some(Ok(value)), ..
            }) => Claim::Done(value.clone()),
            Some(Row { end: None, until, .. }) if *until > now => Claim::Held(*until - now),
            _ => {
                rows.tokens += 1;
                let token = rows.tokens;
                let until = now + self.lease;
                rows.steps.insert(
                    key.clone(),
                    Row {
                        token,
                        until,
                        end: None,
                    },
                );
                Claim::Granted(Lease {
                    token,
                    heartbeat_every: Some(self.lease / 2),
                })
            }
        };
        rows.log.push(format!(
            "claim {key} {}: {}",
            attempt.attempt,
            match claim {
                Claim::Granted(_) => "granted",
                Claim::Done(_) => "done",
                _ => "held",
            }
        ));
        drop(rows);
        self.soon(Ok(claim))
    }

    fn heartbeat(&self, lease: &Lease) -> Answer<()> {
        let mut rows = self.rows.lock().unwrap();
        rows.log.push("heartbeat".to_owned());
        let lost = rows.lose_leases;
        let until = self.timer.now() + self.lease;
        if let Some(row) = rows.steps.values_mut().find(|row| row.token == lease.token) {
            row.until = until;
        }
        drop(rows);
        self.soon(if lost {
            Err(EngineError::new("the lease is lost"))
        } else {
            Ok(())
        })
    }

    fn complete(&self, lease: &Lease, end: &Result<Value, Cause>) -> Answer<()> {
        let mut rows = self.rows.lock().unwrap();
        if rows.fail_completions {
            drop(rows);
            return self.soon(Err(EngineError::new("the table is gone")));
        }
        let (key, row) = rows
            .steps
            .iter_mut()
            .find(|(_, row)| row.token == lease.token)
            .unwrap();
        row.end = Some(end.clone());
        let line = format!("complete {key} {}", if end.is_ok() { "ok" } else { "failed" });
        rows.log.push(line);
        drop(rows);
        self.soon(Ok(()))
    }

    fn signal(&self, _: &str, _: &str) -> Answer<Value> {
        Answer::now(Err(EngineError::new("no signals here")))
    }

    fn timer(&self, run_id: &str, name: &str, duration: Duration) -> Answer<()> {
        self.rows
            .lock()
            .unwrap()
            .log
            .push(format!("timer {run_id}/{name} {duration:?}"));
        let sleep = self.timer.sleep_until(self.timer.now() + duration);
        Answer::later(async move {
            sleep.await;
            Ok(())
        })
    }
}

#[test]
fn nothing_happens_before_its_claim_and_nothing_follows_before_its_completion() {
    let timer = VirtualTimer::new();
    let table = Table::new(&timer);
    let calls = Calls::default();
    let executor = Executor::new(calls.actions(), timer).with_engine(table.clone());
    let steps = json!([
        {"id": "a", "action": "note", "parameters": {"ms": 120}},
        {"id": "b", "action": "note", "depends_on": ["a"]},
        {"id": "c", "action": "fail", "retries": {"max": 1, "wait": 0}, "depends_on": ["b"], "on_failure": "optional"},
    ]);
    let report = finish(executor.run(&plan(&steps)).with_id("r").into_future()).unwrap();
    assert!(report.is_success());
    assert_eq!(
        table.log(),
        [
            "claim r/a 1: granted",
            "heartbeat",
            "heartbeat",
            "complete r/a ok",
            "claim r/b 1: granted",
            "complete r/b ok",
            "claim r/c 1: granted",
            "complete r/c failed",
            "claim r/c 2: granted",
            "complete r/c failed",
        ]
    );
    // A claim and a completion take 1 ms each there.
    assert_eq!(report.step("b").unwrap().started_at, Some(ms(122)));
}

#[test]
fn two_executors_share_a_run_and_each_step_is_done_once() {
    let timer = VirtualTimer::new();
    let table = Table::new(&timer);
    let calls = Calls::default();
    let steps: Vec<Value> = (0..20)
        .map(|n| {
            let after: Vec<String> = (n >= 4).then(|| format!("s{}", n - 4)).into_iter().collect();
            json!({"id": format!("s{n}"), "action": "write", "parameters": {"ms": n % 3 * 70, "n": n}, "depends_on": after})
        })
        .collect();
    let steps = plan(&json!(steps));
    let one = Executor::new(calls.actions(), timer.clone())
        .with_engine(table.clone())
        .with_max_parallel(2);
    let other = Executor::new(calls.actions(), timer)
        .with_engine(table.clone())
        .with_max_parallel(3);
    let both = futures_util::future::join(
        one.run(&steps).with_id("shared").into_future(),
        other.run(&steps).with_id("shared").into_future(),
    );
    let (one, other) = finish(both);
    let (one, other) = (one.unwrap(), other.unwrap());
    assert!(one.is_success() && other.is_success());
    for (mine, theirs) in one.steps.iter().zip(&other.steps) {
        assert_eq!(mine.result, theirs.result);
        assert!(mine.reused != theirs.reused, "one of them did `{}`", mine.id);
    }
    let mut done = calls.take();
    done.sort();
    done.dedup();
    assert_eq!(done.len(), 20);
    assert!(table.log().iter().any(|line| line.ends_with("held")));
}

#[test]
fn a_dead_owner_s_step_is_taken_over_when_its_lease_runs_out() {
    let timer = VirtualTimer::new();
    let table = Table::new(&timer);
    let calls = Calls::default();
    let executor = Executor::new(calls.actions(), timer.clone()).with_engine(table);
    let steps = plan(&json!([{"id": "a", "action": "put", "parameters": {"ms": 60}}]));
    // The first owner is dropped in the middle.
    let run = executor.run(&steps).with_id("r").into_future();
    let _dropped = finish(futures_util::future::select(timer.sleep_until(ms(20)), run));
    let report = finish(executor.run(&steps).with_id("r").into_future()).unwrap();
    assert!(report.is_success());
    assert_eq!(calls.take(), ["a", "a"]);
    assert_eq!(
        report.makespan,
        ms(100 - 20 + 3 + 60),
        "it waited for the lease, and took it over"
    );
}

#[test]
fn a_lost_lease_or_a_completion_that_fails_fails_the_step() {
    let timer = VirtualTimer::new();
    let table = Table::new(&timer);
    let calls = Calls::default();
    let executor = Executor::new(calls.actions(), timer).with_engine(table.clone());
    let steps = plan(&json!([
        {"id": "a", "action": "put", "parameters": {"ms": 500}, "retries": {"max": 3, "wait": 0}},
        {"id": "b", "action": "note", "depends_on": ["a"]},
    ]));
    table.rows.lock().unwrap().lose_leases = true;
    let report = finish(executor.run(&steps).into_future()).unwrap();
    assert_eq!(
        states(&report)[0],
        "a: failed: the engine failed: the lease is lost"
    );
    assert!(report.makespan < ms(60));
    table.rows.lock().unwrap().lose_leases = false;
    table.rows.lock().unwrap().fail_completions = true;
    let report = finish(executor.run(&steps).into_future()).unwrap();
    assert_eq!(
        states(&report),
        [
            "a: failed: the engine failed: the table is gone",
            "b: skipped: `a`, which it depends on, did not succeed"
        ]
    );
    assert_eq!(calls.take(), ["a", "a"]);
}

#[test]
fn an_engine_that_panics_fails_its_step() {
    #[derive(Debug)]
    struct Broken;
    impl Engine for Broken {
        fn claim(&self, attempt: &AttemptKey<'_>) -> Answer<Claim> {
            assert!(attempt.step != "a", "no table");
            Answer::now(Err(EngineError::new("no connection")))
        }
        fn heartbeat(&self, _: &Lease) -> Answer<()> {
            Answer::now(Ok(()))
        }
        fn complete(&self, _: &Lease, _: &Result<Value, Cause>) -> Answer<()> {
            Answer::now(Ok(()))
        }
        fn signal(&self, _: &str, _: &str) -> Answer<Value> {
            Answer::now(Ok(json!(null)))
        }
        fn timer(&self, _: &str, _: &str, _: Duration) -> Answer<()> {
            Answer::now(Ok(()))
        }
    }
    let executor = crate::support::executor().with_engine(Broken);
    let steps = plan(&json!([{"id": "a", "action": "echo"}, {"id": "b", "action": "echo"}]));
    let report = finish(executor.run(&steps).into_future()).unwrap();
    assert_eq!(
        states(&report),
        [
            "a: failed: the engine failed: it panicked: no table",
            "b: failed: the engine failed: no connection"
        ]
    );
}

#[test]
fn signals_and_timers_reach_the_steps() {
    let timer = VirtualTimer::new();
    let engine = LocalEngine::new(Arc::new(timer.clone()));
    let info = || ActionInfo::new(Effect::ReadOnly);
    let actions = Calls::default()
        .actions()
        .with_fn("approve", info(), async |call| {
            Ok(call.signal("approval").await.map_err(|error| error.to_string())?)
        })
        .with_fn("nap", info(), async |call| {
            call.durable_sleep("nap", ms(70))
                .await
                .map_err(|error| error.to_string())?;
            Ok(json!("rested"))
        });
    let sender = engine.clone();
    let actions = actions.with_fn("send", info(), move |call| {
        let sender = sender.clone();
        async move {
            let value = call.parameters()["value"].clone();
            sender
                .send_signal(call.run_id(), "approval", value)
                .map_err(|error| error.to_string())?;
            Ok(json!(null))
        }
    });
    let executor = Executor::new(actions, timer).with_engine(engine.clone());
    let steps = plan(&json!([
        {"id": "one", "action": "approve"}, {"id": "two", "action": "approve"},
        {"id": "impatient", "action": "approve", "timeout": 5},
        {"id": "nap", "action": "nap"},
        {"id": "yes", "action": "send", "parameters": {"value": "yes"}, "depends_on": ["nap"]},
        {"id": "no", "action": "send", "parameters": {"value": "no"}, "depends_on": ["yes"]},
    ]));
    engine
        .send_signal("other", "approval", json!("not for you"))
        .unwrap();
    let report = finish(executor.run(&steps).with_id("r").into_future()).unwrap();
    let mut answers = [result(&report, "one").clone(), result(&report, "two").clone()];
    answers.sort_by_key(ToString::to_string);
    assert_eq!(answers, [json!("no"), json!("yes")]);
    assert_eq!(states(&report)[2], "impatient: failed: it took longer than 5ms");
    assert_eq!(report.makespan, ms(70));
    // What nobody asks for is bounded.
    for n in 0..1023 {
        engine.send_signal("nobody", "x", json!(n)).unwrap();
    }
    let error = engine.send_signal("nobody", "x", json!(1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the signal `x` cannot be kept: 1024 wait already"
    );
}

#[test]
fn runs_without_a_name_have_different_ones() {
    let actions = peregrine_executor::Actions::new().with_fn("key", ActionInfo::default(), async |call| {
        Ok(json!(call.idempotency_key()))
    });
    let executor = Executor::new(actions, VirtualTimer::new());
    let steps = plan(&json!([{"id": "a", "action": "key"}]));
    let key = || {
        result(&finish(executor.run(&steps).into_future()).unwrap(), "a")
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (one, other) = (key(), key());
    assert_ne!(one, other);
    assert_eq!((one.len(), &one[32..]), (34, "/a"));
}
