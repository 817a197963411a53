//! Tests of the comparison itself, of which the real part runs benchmarks that only turn a counter.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use peregrine_harness::compare::{Exit, Metric, Severity, Verdict, compare};
use peregrine_harness::drive::{self, Effort, Session};
use peregrine_harness::error::Result;
use peregrine_harness::result::SuiteResult;
use peregrine_harness::simulate::{self, Findings, alarms, verdict};

use crate::{lane, say, tell};

const SIMULATED_RUNS: u64 = 200;
const REAL_RUNS: usize = 10;

pub(crate) fn run(root: &Path, only_simulated: bool) -> Result<Exit> {
    tell("simulated runs");
    let mut findings = simulate::self_test(SIMULATED_RUNS)?;
    if !only_simulated {
        real(root, &mut findings)?;
    }
    for line in &findings.seen {
        let is_wrong = findings.wrong.contains(line);
        say(&format!("{} {line}", if is_wrong { "WRONG" } else { "ok   " }));
    }
    Ok(match findings.wrong.is_empty() {
        true => Exit::Ok,
        false => Exit::Failed,
    })
}

fn real(root: &Path, findings: &mut Findings) -> Result<()> {
    tell("building the benchmarks");
    let lane = lane(root, root, &root.join("target"), "head")?;
    let has_callgrind = drive::has_callgrind();
    let mut session = Session {
        only: vec!["selftest".to_owned()],
        effort: Effort {
            // So that times can fail.
            quick: false,
            rounds: 10,
            warmup: Duration::from_millis(10),
            measure: Duration::from_millis(40),
            ..Effort::quick()
        },
        allocations: true,
        instructions: false,
        hidden: true,
        ollama: None,
    };
    let twice = [lane.clone(), lane.clone(), lane];
    let mut raised = 0;
    let mut last = BTreeMap::new();
    for run in 0..REAL_RUNS {
        tell(&format!("real equal run {} of {REAL_RUNS}", run + 1));
        session.instructions = has_callgrind && run + 1 == REAL_RUNS;
        let mut sides = drive::run(&twice, &session, &mut |_| {})?;
        let (again, head, base) = (sides.remove(2), sides.remove(1), sides.remove(0));
        let comparison = compare(&base, &head, &again);
        for row in comparison.rows.iter().filter(|row| row.severity > Severity::Fine) {
            tell(&format!("alarm: {} {} {:?}", row.name, row.metric, row.ratio));
        }
        raised += usize::from(alarms(&comparison));
        last = head;
    }
    findings.note(
        raised == 0,
        format!("{raised} alarms in {REAL_RUNS} real equal runs"),
    );

    let planted = |from: &str, to: &str, metric| {
        let (base, head) = (renamed(&last, from), renamed(&last, to));
        verdict(&compare(&base, &head, &BTreeMap::new()), metric)
    };
    let failed = Some((Verdict::Regressed, Severity::Fail));
    let found = planted("1000", "2000", Metric::WallTime);
    findings.note(found == failed, "a real slowdown of 2 x is caught".to_owned());
    if has_callgrind {
        let found = planted("1000", "1050", Metric::Instructions);
        findings.note(
            found == failed,
            "5 % more real instructions are caught".to_owned(),
        );
    } else {
        let absent = "real instructions were not counted: there is no valgrind";
        findings.note(true, absent.to_owned());
    }
    Ok(())
}

/// One benchmark of the self-test, called and described as if it were another.
fn renamed(suites: &BTreeMap<String, SuiteResult>, param: &str) -> BTreeMap<String, SuiteResult> {
    let mut suites = suites.clone();
    for suite in suites.values_mut() {
        suite
            .benchmark_results
            .retain(|result| result.name.contains(&format!("/{param}/")));
        for result in &mut suite.benchmark_results {
            result.name = result.name.replace(&format!("/{param}/"), "/planted/");
            result.workload = "planted".to_owned();
        }
    }
    suites
}
