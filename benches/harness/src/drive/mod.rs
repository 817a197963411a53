//! Runs benchmarks: starts the runners of one or more revisions in turns and gathers what they measured.
//!
//! A round is one process of each revision for each group of benchmarks; the revisions change places from round to round,
//! and rounds are the outermost loop, so that a slow minute of the machine meets a round of everything, and not everything
//! of one benchmark. Counts are taken apart from times: a build that counts allocations is slower by that.

mod build;
mod count;
mod process;
mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use build::{Runners, build, checkout};
pub use count::has_callgrind;
pub use process::list;

use crate::bootstrap::SEED;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::protocol::{Descriptor, Line};
use crate::result::{BenchmarkResult, Failure, Gathered, Resources, SCHEMA_VERSION, Settings, SuiteResult};

/// How much is measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Effort {
    /// Not for the record.
    pub quick: bool,
    /// Processes, one after the other.
    pub rounds: u32,
    /// How long each variant runs before it is measured, in each process.
    pub warmup: Duration,
    /// How long each variant is measured, in each process.
    pub measure: Duration,
    /// A process that takes longer is stopped, and what it measured has failed.
    pub limit: Duration,
}

impl Effort {
    /// What figures for the record need.
    pub fn full() -> Self {
        Self {
            quick: false,
            rounds: 10,
            warmup: Duration::from_millis(200),
            measure: Duration::from_millis(500),
            limit: Duration::from_secs(300),
        }
    }

    /// To see that everything works.
    pub fn quick() -> Self {
        Self {
            quick: true,
            rounds: 6,
            warmup: Duration::from_millis(10),
            measure: Duration::from_millis(30),
            limit: Duration::from_secs(120),
        }
    }
}

/// One side of a session: a build of a revision.
#[derive(Debug, Clone)]
pub struct Lane {
    /// Its programs.
    pub runners: Runners,
    /// What it was built of, and where it runs.
    pub environment: Environment,
}

/// What is run.
#[derive(Debug, Clone)]
pub struct Session {
    /// Which groups of benchmarks: those whose suite or group is named here, or all.
    pub only: Vec<String>,
    /// How much.
    pub effort: Effort,
    /// Whether allocations are counted.
    pub allocations: bool,
    /// Whether instructions are counted.
    pub instructions: bool,
    /// Whether those that are hidden are run, if they are named.
    pub hidden: bool,
}

/// The results of each lane, by suite, in the order of the lanes. `say` is told what is under way.
///
/// # Errors
///
/// [`Error::Usage`] if nothing fits what was asked for; [`Error::Start`] and [`Error::Program`] if a runner cannot say what
/// it has. A benchmark that fails is in the results as such.
pub fn run(
    lanes: &[Lane],
    session: &Session,
    say: &mut dyn FnMut(&str),
) -> Result<Vec<BTreeMap<String, SuiteResult>>> {
    let mut sides: Vec<Gathering> = Vec::new();
    for lane in lanes {
        sides.push(Gathering::new(list(&lane.runners.time)?, session));
    }
    let mut groups: Vec<String> = Vec::new();
    let mut known = BTreeSet::new();
    for group in sides.iter().flat_map(|side| &side.groups) {
        if known.insert(group.clone()) {
            groups.push(group.clone());
        }
    }
    if groups.is_empty() {
        let asked = session.only.join(", ");
        return Err(Error::Usage(format!(
            "no benchmark is called {asked}; `list` tells their names"
        )));
    }
    let rounds = session.effort.rounds;
    for round in 0..rounds {
        for (place, group) in groups.iter().enumerate() {
            say(&format!(
                "round {} of {rounds}, {} of {}: {group}",
                round + 1,
                place + 1,
                groups.len()
            ));
            for turn in 0..lanes.len() {
                let lane = (turn + round as usize) % lanes.len();
                sides[lane].measure(&lanes[lane], group, round, session);
            }
        }
    }
    for (lane, side) in lanes.iter().zip(&mut sides) {
        for group in groups
            .iter()
            .filter(|_| session.allocations || session.instructions)
        {
            say(&format!("counting: {group}"));
            side.count(lane, group, session);
        }
    }
    let name = (lanes.len() > 1).then(|| format!("{}-{}", std::process::id(), lanes[0].environment.date));
    let settings = Settings {
        quick: session.effort.quick,
        rounds,
        seed: SEED,
        session: name,
    };
    let finished = lanes.iter().zip(sides);
    Ok(finished
        .map(|(lane, side)| side.finish(&lane.environment, &settings))
        .collect())
}

/// What was gathered of one lane.
struct Gathering {
    descriptors: Vec<Descriptor>,
    groups: Vec<String>,
    gathered: BTreeMap<String, Gathered>,
    usage: BTreeMap<String, Vec<Resources>>,
    failures: BTreeMap<String, String>,
}

impl Gathering {
    fn new(mut descriptors: Vec<Descriptor>, session: &Session) -> Self {
        let named = |descriptor: &Descriptor| {
            let id = &descriptor.id;
            session
                .only
                .iter()
                .any(|name| name == id.suite() || id.as_str().starts_with(&format!("{name}/")))
        };
        descriptors.retain(|descriptor| match descriptor.hidden {
            true => session.hidden && named(descriptor),
            false => session.only.is_empty() || named(descriptor),
        });
        let mut groups: Vec<String> = descriptors
            .iter()
            .map(|descriptor| descriptor.id.group().to_owned())
            .collect();
        groups.dedup();
        Self {
            descriptors,
            groups,
            gathered: BTreeMap::new(),
            usage: BTreeMap::new(),
            failures: BTreeMap::new(),
        }
    }

    fn measure(&mut self, lane: &Lane, group: &str, round: u32, session: &Session) {
        if self.failures.contains_key(group) || !self.groups.iter().any(|known| known == group) {
            return;
        }
        match process::measure(&lane.runners.time, group, round, &session.effort) {
            Ok((lines, used)) => {
                self.usage.entry(group.to_owned()).or_default().push(used);
                for line in lines {
                    if let Line::Measured(measured) = line {
                        let all = self.gathered.entry(measured.id.to_string()).or_default();
                        all.rounds.push(measured.round);
                        all.iterations += measured.iterations;
                        all.warmup_iterations += measured.warmup_iterations;
                        all.batch = all.batch.max(measured.batch);
                        all.throughput.extend(measured.throughput);
                        all.cpu_ns += measured.cpu_ns;
                        all.figures.extend(measured.figures);
                    }
                }
            }
            Err(error) => {
                self.failures.insert(group.to_owned(), error.chain());
            }
        }
    }

    fn count(&mut self, lane: &Lane, group: &str, session: &Session) {
        let counted = |descriptor: &&Descriptor| descriptor.id.group() == group && descriptor.counted;
        let ids: Vec<_> = self
            .descriptors
            .iter()
            .filter(counted)
            .map(|descriptor| descriptor.id.clone())
            .collect();
        if ids.is_empty() || self.failures.contains_key(group) {
            return;
        }
        match count::count(&lane.runners, group, &ids, session) {
            Ok(counts) => {
                for (id, counts) in counts {
                    let all = self.gathered.entry(id.to_string()).or_default();
                    all.counts = all.counts.or(counts);
                }
            }
            Err(error) => {
                self.failures.insert(group.to_owned(), error.chain());
            }
        }
    }

    fn finish(mut self, environment: &Environment, settings: &Settings) -> BTreeMap<String, SuiteResult> {
        let mut suites: BTreeMap<String, SuiteResult> = BTreeMap::new();
        for descriptor in &self.descriptors {
            let suite = descriptor.id.suite().to_owned();
            let suite = suites.entry(suite.clone()).or_insert_with(|| SuiteResult {
                schema_version: SCHEMA_VERSION,
                suite_name: suite,
                benchmark_results: Vec::new(),
                failures: Vec::new(),
                environment: environment.clone(),
                settings: settings.clone(),
            });
            let group = descriptor.id.group();
            let failure = |name: &str, message: &str| Failure {
                name: name.to_owned(),
                message: message.to_owned(),
            };
            if let Some(message) = self.failures.get(group) {
                if suite.failures.iter().all(|failure| failure.name != group) {
                    suite.failures.push(failure(group, message));
                }
                continue;
            }
            let mut gathered = self.gathered.remove(descriptor.id.as_str()).unwrap_or_default();
            gathered.resources = usage::merged(self.usage.get(group).map(Vec::as_slice).unwrap_or_default());
            match BenchmarkResult::of(descriptor, gathered) {
                Ok(result) => suite.benchmark_results.push(result),
                Err(error) => suite
                    .failures
                    .push(failure(descriptor.id.as_str(), &error.chain())),
            }
        }
        suites
    }
}

/// The folder in which the harness keeps what it writes: results, builds of other revisions, what was saved.
pub fn folder(root: &Path) -> PathBuf {
    root.join("target").join("bench")
}
