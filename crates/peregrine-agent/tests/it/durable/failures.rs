//! Stores that are full, away or hang, and records that are too large: typed errors, nothing acknowledged is lost, and the
//! run goes on when it can.

use std::path::Path;
use std::process::Command;

use std::sync::atomic::Ordering;
use std::time::Duration;

use peregrine_agent::durable::{Resolution, RunStatus};
use peregrine_agent::{Agent, BudgetLimits, Error, Input, More, RunError, RunOutput};
use peregrine_checkpoints::{Checkpoints, Durability, Error as StoreError, Options};
use peregrine_core::{Effect, JsonSchema, ToolSpec};
use peregrine_tools::{Canceller, FnTool, ToolContext, ToolError, ToolInfo};
use tempfile::TempDir;

use super::support::{Ledger, id, memory, moody, poll_out, poll_times, scope, ten_tools};
use crate::support::{Script, calls, results, text};

fn model() -> Script {
    Script::new(|request, _| {
        Ok(match results(request).len() {
            0 => calls(&[("tool_0", "{}"), ("tool_2", "{}"), ("tool_1", "{}")]),
            3 => calls(&[("tool_8", "{}")]),
            _ => text("Done."),
        })
    })
}

fn input() -> Input {
    Input::from("Go.").with_run_id(id(1))
}

/// Goes on until it is over; whoever settles what is in doubt looks into the ledger.
fn to_the_end(agent: &Agent, ledger: &Ledger) -> Result<RunOutput, RunError> {
    for _ in 0..5 {
        let mut stored = match poll_out(agent.load(id(1))) {
            Ok(stored) if stored.status() != RunStatus::New => stored,
            Ok(_) | Err(Error::Checkpoints(StoreError::NotFound { .. })) => {
                return poll_out(agent.run(input()));
            }
            Err(error) => panic!("{error}"),
        };
        for doubt in stored.in_doubt() {
            let resolution = match ledger.lines().iter().any(|line| line.ends_with(&doubt.key)) {
                true => Resolution::from(format!("{} is done", doubt.tool_call.name)),
                false => Resolution::NotCarriedOut,
            };
            poll_out(stored.resolve(doubt.call, resolution)).unwrap();
        }
        match poll_out(stored.resume(More::default())) {
            Err(error) if matches!(error.error(), Error::InDoubt(_)) => {}
            outcome => return outcome,
        }
    }
    panic!("it does not come to an end");
}

fn once_each(ledger: &Ledger) {
    let mut side_effects: Vec<String> = ledger
        .lines()
        .into_iter()
        .filter(|line| line.starts_with("tool_2") || line.starts_with("tool_8"))
        .collect();
    assert_eq!(side_effects.len(), 2, "{side_effects:?}");
    side_effects.dedup();
    assert_eq!(side_effects.len(), 2);
}

#[test]
fn a_store_that_fails_at_any_append_ends_the_run_which_goes_on_when_it_is_back() {
    let expected = poll_out(ten_tools(model(), &Ledger::default(), memory()).run(input())).unwrap();
    let mut failed = 0;
    for room in 0.. {
        let (store, checkpoints) = moody(0);
        let ledger = Ledger::default();
        let agent = ten_tools(model(), &ledger, checkpoints);
        store.room.store(room, Ordering::Relaxed);
        let outcome = poll_out(agent.run(input()));
        let Err(error) = outcome else {
            assert_eq!(outcome.unwrap(), expected);
            break;
        };
        failed += 1;
        assert!(
            matches!(error.error(), Error::Checkpoints(StoreError::Full { .. })),
            "{error}"
        );
        assert_eq!((error.code(), error.is_retryable()), ("full", true));
        // Nothing more is begun than what is announced, and it fails again in the same way.
        let done = ledger.lines().len();
        if let Ok(stored) = poll_out(agent.load(id(1)))
            && stored.status() != RunStatus::New
        {
            let again = poll_out(stored.resume(More::default())).unwrap_err();
            assert!(
                matches!(again.error(), Error::Checkpoints(StoreError::Full { .. })),
                "{again}"
            );
        }
        assert_eq!(ledger.lines().len(), done);
        store.room.store(u64::MAX, Ordering::Relaxed);
        let output = to_the_end(&agent, &ledger).unwrap();
        assert_eq!(output.messages(), expected.messages(), "room for {room}");
        once_each(&ledger);
    }
    assert!(failed >= 6, "{failed}");
}

#[test]
fn a_store_that_goes_away_in_the_middle_of_a_run_ends_it() {
    for polls in 1..20 {
        let (store, checkpoints) = moody(1);
        let ledger = Ledger::default();
        let agent = ten_tools(model(), &ledger, checkpoints);
        let mut run = Box::pin(agent.run(input()));
        if poll_times(run.as_mut(), polls).is_some() {
            panic!("it is longer than that");
        }
        store.away.store(true, Ordering::Relaxed);
        let error = poll_out(run).unwrap_err();
        assert!(
            matches!(error.error(), Error::Checkpoints(StoreError::Unavailable { .. })),
            "{error}"
        );
        assert!(error.run().is_none(), "what is acknowledged is in the store");
        let missing = poll_out(agent.load(id(1))).unwrap_err();
        assert_eq!((missing.code(), missing.is_retryable()), ("unavailable", true));
        store.away.store(false, Ordering::Relaxed);
        assert_eq!(to_the_end(&agent, &ledger).unwrap().text(), "Done.");
        once_each(&ledger);
    }
}

#[test]
fn a_run_that_is_written_at_its_end_is_not_a_success_if_it_was_not_written() {
    let (store, checkpoints) = moody(0);
    let ledger = Ledger::default();
    let agent = ten_tools(
        model(),
        &ledger,
        checkpoints.with_durability(Durability::OnFinish),
    );
    poll_out(agent.run(input())).unwrap();
    assert_eq!(store.appends.load(Ordering::Relaxed), 1);
    assert_eq!(poll_out(agent.load(id(1))).unwrap().status(), RunStatus::Over);
    store.room.store(0, Ordering::Relaxed);
    let error = poll_out(agent.run(input().with_run_id(id(2)))).unwrap_err();
    assert!(
        matches!(error.error(), Error::Checkpoints(StoreError::Full { .. })),
        "{error}"
    );
    assert_eq!(
        error.report().messages.last().unwrap().text(),
        "Done.",
        "what was said is not lost"
    );
}

#[test]
fn a_run_without_a_scope_is_not_journalled_and_does_not_begin() {
    let model = model();
    let agent = Agent::new(model.clone()).with_checkpoints(memory());
    let error = poll_out(agent.run("Go.")).unwrap_err();
    assert!(
        matches!(error.error(), Error::Config(_)) && error.to_string().contains("with_scope"),
        "{error}"
    );
    let error = poll_out(agent.load(id(1))).unwrap_err();
    assert!(matches!(error, Error::Config(_)), "{error}");
    let error = poll_out(Agent::new(model.clone()).with_scope(scope()).load(id(1))).unwrap_err();
    assert!(error.to_string().contains("with_checkpoints"), "{error}");
    assert!(model.requests().is_empty());
}

#[test]
fn a_result_that_is_too_large_for_the_journal_is_an_error_and_is_not_lost() {
    let info = ToolInfo::new(ToolSpec::new("pay", "Pays.", JsonSchema::empty_object()));
    let ledger = Ledger::default();
    let paid = ledger.clone();
    let pay = FnTool::raw(info.with_effect(Effect::SideEffect), move |_: ToolContext, _| {
        paid.write("paid");
        async { Ok::<_, ToolError>("x".repeat(100_000)) }
    });
    let checkpoints = memory().with_options(|options| {
        options.limits.max_record_bytes = 20_000;
        options.spill_bytes = usize::MAX;
    });
    let agent = Agent::new(Script::new(|request, _| {
        Ok(match results(request).len() {
            0 => calls(&[("pay", "{}")]),
            _ => text("Paid."),
        })
    }))
    .with_scope(scope())
    .with_tool(pay)
    .with_allowed("pay")
    .with_checkpoints(checkpoints);
    let error = poll_out(agent.run(input())).unwrap_err();
    assert!(
        matches!(error.error(), Error::Checkpoints(StoreError::TooLarge { .. })),
        "{error}"
    );
    let mut stored = poll_out(agent.load(id(1))).unwrap();
    let doubt = stored.in_doubt().remove(0);
    poll_out(stored.resolve(doubt.call, "It was paid.")).unwrap();
    assert_eq!(poll_out(stored.resume(More::default())).unwrap().text(), "Paid.");
    assert_eq!(ledger.lines(), ["paid"]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_never_answers_does_not_keep_a_run_that_is_stopped() {
    for polls in 0..14 {
        let (store, checkpoints) = moody(1);
        let ledger = Ledger::default();
        let agent = ten_tools(model(), &ledger, checkpoints);
        let canceller = Canceller::new();
        let mut run = Box::pin(agent.run(input().with_cancellation(canceller.cancellation())));
        for _ in 0..polls {
            assert!(futures_util::FutureExt::now_or_never(run.as_mut()).is_none());
        }
        store.hangs.store(true, Ordering::Relaxed);
        canceller.cancel();
        let outcome = tokio::time::timeout(Duration::from_secs(60), run).await;
        let error = outcome.expect("it does not end").unwrap_err();
        assert!(matches!(error.error(), Error::Interrupted(_)), "{error}");
        store.hangs.store(false, Ordering::Relaxed);
        assert_eq!(
            to_the_end(&agent, &ledger).unwrap().text(),
            "Done.",
            "after {polls} polls"
        );
        once_each(&ledger);
    }
    // A limit on time ends it too.
    let (store, checkpoints) = moody(1);
    store.hangs.store(true, Ordering::Relaxed);
    let limits = BudgetLimits::default().with_wall_time(Duration::from_secs(1));
    let agent = ten_tools(model(), &Ledger::default(), checkpoints).with_budget(limits);
    let run = agent.run(input());
    let error = tokio::time::timeout(Duration::from_secs(60), run).await;
    let error = error.expect("it does not end").unwrap_err();
    assert!(matches!(error.error(), Error::Limit(_)), "{error}");
}

#[tokio::test]
async fn a_run_that_is_cancelled_is_stopped_in_its_journal_and_nothing_is_in_doubt_that_was_not_begun() {
    let mut stopped = 0;
    for polls in 2..26 {
        let (_, checkpoints) = moody(1);
        let ledger = Ledger::default();
        let agent = ten_tools(model(), &ledger, checkpoints);
        let canceller = Canceller::new();
        let mut run = Box::pin(agent.run(input().with_cancellation(canceller.cancellation())));
        for _ in 0..polls {
            assert!(futures_util::FutureExt::now_or_never(run.as_mut()).is_none());
        }
        canceller.cancel();
        let error = run.await.unwrap_err();
        assert!(matches!(error.error(), Error::Interrupted(_)), "{error}");
        let Ok(stored) = agent.load(id(1)).await else {
            continue;
        };
        if stored.status() == RunStatus::New {
            continue;
        }
        stopped += 1;
        // In memory or by its id, it goes on from the same place.
        let output = match (polls % 2 == 0, error.into_run()) {
            (true, Ok(run)) if stored.in_doubt().is_empty() => {
                assert_eq!(run.counts(), stored.run().counts());
                agent.resume(run, More::default()).await.unwrap()
            }
            _ => to_the_end(&agent, &ledger).unwrap(),
        };
        assert_eq!(output.text(), "Done.");
        once_each(&ledger);
    }
    assert!(stopped > 15, "{stopped}");
}

#[tokio::test]
async fn a_call_that_was_announced_and_not_begun_when_the_run_was_stopped_is_not_in_doubt() {
    let (mut in_doubt, mut not_begun) = (0, 0);
    for polls in 1..20 {
        let (_, checkpoints) = moody(3);
        let begun = Ledger::default();
        let info = ToolInfo::new(ToolSpec::new("pay", "Pays.", JsonSchema::empty_object()));
        let paying = begun.clone();
        let pay = FnTool::raw(info.with_effect(Effect::SideEffect), move |_: ToolContext, _| {
            paying.write("begun");
            async {
                super::support::wait(3).await;
                Ok::<_, ToolError>("paid")
            }
        });
        let agent = Agent::new(Script::new(|request, _| {
            Ok(match results(request).len() {
                0 => calls(&[("pay", "{}")]),
                _ => text("Paid."),
            })
        }))
        .with_scope(scope())
        .with_tool(pay)
        .with_allowed("pay")
        .with_checkpoints(checkpoints);
        let canceller = Canceller::new();
        let mut run = Box::pin(agent.run(input().with_cancellation(canceller.cancellation())));
        for _ in 0..polls {
            assert!(futures_util::FutureExt::now_or_never(run.as_mut()).is_none());
        }
        canceller.cancel();
        run.await.unwrap_err();
        let Ok(stored) = agent.load(id(1)).await else {
            continue;
        };
        let history = agent.history(id(1)).await.unwrap();
        let is_announced = history.iter().any(|entry| entry.what.name() == "call_tool");
        if history.iter().any(|entry| entry.what.name() == "tool_returned") {
            continue;
        }
        assert_eq!(
            stored.in_doubt().len(),
            begun.lines().len(),
            "after {polls} polls"
        );
        match stored.in_doubt().is_empty() {
            true => not_begun += usize::from(is_announced),
            false => in_doubt += 1,
        }
    }
    assert!(
        in_doubt > 0 && not_begun > 0,
        "{in_doubt} in doubt, {not_begun} not begun"
    );
}

#[tokio::test]
async fn a_stopped_run_that_has_no_journal_gets_one_when_it_goes_on() {
    let ledger = Ledger::default();
    let agent = ten_tools(model(), &ledger, memory());
    let canceller = Canceller::new();
    let without = input().with_durability(Durability::None);
    let mut run = Box::pin(agent.run(without.with_cancellation(canceller.cancellation())));
    assert!(futures_util::FutureExt::now_or_never(run.as_mut()).is_none());
    canceller.cancel();
    let run = run.await.unwrap_err().into_run().unwrap();
    let output = agent.resume(run.clone(), More::default()).await.unwrap();
    assert_eq!(output.text(), "Done.");
    once_each(&ledger);
    let replayed = agent.replay(id(1)).await.unwrap();
    assert_eq!(replayed.outcome.unwrap().unwrap(), output);
    // What is in the store now is further than the run at hand.
    let refused = agent.resume(run, More::default()).await.unwrap_err();
    assert!(matches!(refused.error(), Error::Config(_)), "{refused}");
}

/// A small file system of its own; `None` where this process may not mount one.
struct Small(TempDir);

impl Small {
    fn mount() -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=300k", "tmpfs"])
            .arg(folder.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then_some(Self(folder))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _busy = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn fill(path: &Path) {
    let mut ballast = std::fs::File::create(path).unwrap();
    while std::io::Write::write_all(&mut ballast, &[0; 512]).is_ok() {}
}

#[tokio::test]
async fn a_disk_that_gets_full_under_a_run_ends_it_and_it_goes_on_when_there_is_room() {
    let Some(small) = Small::mount() else { return };
    let ballast = small.0.path().join("ballast");
    let info = ToolInfo::new(ToolSpec::new("fill", "Fills.", JsonSchema::empty_object()));
    let (path, ledger) = (ballast.clone(), Ledger::default());
    let paid = ledger.clone();
    let tool = FnTool::raw(info.with_effect(Effect::SideEffect), move |_: ToolContext, _| {
        paid.write("filled");
        fill(&path);
        async { Ok::<_, ToolError>("It is full.".repeat(1_000)) }
    });
    let uri = format!("dir:{}", small.0.path().join("runs").display());
    let mut options = Options::default();
    options.compress_bytes = usize::MAX;
    let checkpoints = Checkpoints::open(&uri, options).await.unwrap();
    let agent = Agent::new(Script::new(|request, _| {
        Ok(match results(request).len() {
            0 => calls(&[("fill", "{}")]),
            _ => text("Done."),
        })
    }))
    .with_scope(scope())
    .with_tool(tool)
    .with_allowed("fill")
    .with_checkpoints(checkpoints);
    let error = agent.run(input()).await.unwrap_err();
    assert!(
        matches!(error.error(), Error::Checkpoints(StoreError::Full { .. })),
        "{error}"
    );
    std::fs::remove_file(&ballast).unwrap();
    let mut stored = agent.load(id(1)).await.unwrap();
    let doubt = stored.in_doubt().remove(0);
    stored.resolve(doubt.call, "It was full.").await.unwrap();
    assert_eq!(stored.resume(More::default()).await.unwrap().text(), "Done.");
    assert_eq!(ledger.lines(), ["filled"]);
}

#[tokio::test]
async fn every_durability_and_store_runs_and_replays() {
    let folder = TempDir::new().unwrap();
    for (place, uri) in [
        "memory:".to_owned(),
        format!("dir:{}", folder.path().join("dir").display()),
        format!("sqlite:{}", folder.path().join("runs.db").display()),
    ]
    .iter()
    .enumerate()
    {
        for durability in [
            Durability::OnFinish,
            Durability::ProcessSafe,
            Durability::PowerSafe,
        ] {
            let mut options = Options::default();
            options.durability = durability;
            let checkpoints = Checkpoints::open(uri, options).await.unwrap();
            let ledger = Ledger::default();
            let agent = ten_tools(model(), &ledger, checkpoints);
            let run = id(u8::try_from(place * 10).unwrap() + durability as u8 + 1);
            let output = agent.run(Input::from("Go.").with_run_id(run)).await.unwrap();
            let replayed = agent.replay(run).await.unwrap();
            assert_eq!(replayed.outcome.unwrap().unwrap(), output);
            assert_eq!(
                agent
                    .load(run)
                    .await
                    .unwrap()
                    .resume(More::default())
                    .await
                    .unwrap(),
                output
            );
        }
    }
}
