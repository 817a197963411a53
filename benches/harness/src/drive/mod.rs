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

pub use build::{Runners, build, checkout, seed};
pub use count::has_callgrind;
pub(crate) use process::watch;
pub use process::{Listing, list};
pub(crate) use usage::merged;

use crate::bootstrap::SEED;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::protocol::{Descriptor, Id, Line};
use crate::result::{
    BenchmarkResult, Counts, Failure, Gathered, Resources, SCHEMA_VERSION, Settings, SuiteResult,
};

/// The suite of what each optimisation is worth. It is run when it is named, because it says nothing about speed as such.
pub const ABLATIONS: &str = "ablations";

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
            warmup: Duration::from_millis(100),
            measure: Duration::from_millis(250),
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
    /// With which model of a real Ollama the execution suite runs too.
    pub ollama: Option<String>,
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
    say: &mut (dyn FnMut(&str) + Send),
) -> Result<Vec<BTreeMap<String, SuiteResult>>> {
    let mut sides: Vec<Gathering> = Vec::new();
    for lane in lanes {
        let listing = list(&lane.runners.time, session.ollama.as_deref(), &mut *say)?;
        sides.push(Gathering::new(listing, session));
    }
    let mut groups: Vec<String> = Vec::new();
    let mut known = BTreeSet::new();
    for group in sides.iter().flat_map(|side| &side.groups) {
        if known.insert(group.clone()) {
            groups.push(group.clone());
        }
    }
    let mut ids = sides
        .iter()
        .flat_map(|side| &side.descriptors)
        .map(|found| &found.id);
    let unknown = |name: &&String| !ids.clone().any(|id| is_named(id, name));
    if let Some(name) = session.only.iter().find(unknown) {
        return Err(Error::Usage(format!(
            "no suite and no group of benchmarks is called `{name}`; `cargo xtask bench --list` tells their names"
        )));
    }
    if ids.next().is_none() {
        return Err(Error::Usage("there are no benchmarks".to_owned()));
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
    if session.allocations {
        for (lane, side) in lanes.iter().zip(&mut sides) {
            for group in &groups {
                side.count_allocations(lane, group, session);
            }
        }
    }
    if session.instructions {
        count_instructions(lanes, &mut sides, say);
    }
    let name = (lanes.len() > 1).then(|| format!("{}-{}", std::process::id(), lanes[0].environment.date));
    let settings = Settings {
        quick: session.effort.quick,
        rounds,
        seed: SEED,
        session: name,
        condensed: false,
    };
    let finished = lanes.iter().zip(sides);
    Ok(finished
        .map(|(lane, side)| side.finish(&lane.environment, &settings))
        .collect())
}

fn count_instructions(lanes: &[Lane], sides: &mut [Gathering], say: &mut (dyn FnMut(&str) + Send)) {
    let mut wanted = Vec::new();
    for (place, side) in sides.iter().enumerate() {
        for group in &side.groups {
            wanted.extend(side.counted(group).into_iter().map(|id| (place, id)));
        }
    }
    let job = |(place, id): &(usize, Id)| (lanes[*place].runners.time.as_path(), id.clone());
    let jobs: Vec<_> = wanted.iter().map(job).collect();
    for ((place, id), found) in wanted.iter().zip(count::instructions(&jobs, say)) {
        let side = &mut sides[*place];
        match found {
            Ok(count) => side.take(
                id,
                Counts {
                    instructions_per_op: Some(count),
                    ..Counts::default()
                },
            ),
            Err(error) => {
                side.failures.insert(id.group().to_owned(), error.chain());
            }
        }
    }
}

/// Whether a suite or a group is called so.
fn is_named(id: &Id, name: &str) -> bool {
    name == id.suite() || name == id.group() || id.as_str().starts_with(&format!("{name}/"))
}

/// What was gathered of one lane.
struct Gathering {
    profile: String,
    features: Vec<String>,
    descriptors: Vec<Descriptor>,
    groups: Vec<String>,
    gathered: BTreeMap<String, Gathered>,
    usage: BTreeMap<String, Vec<Resources>>,
    failures: BTreeMap<String, String>,
}

impl Gathering {
    fn new(listing: Listing, session: &Session) -> Self {
        let mut descriptors = listing.benchmarks;
        let named = |descriptor: &Descriptor| session.only.iter().any(|name| is_named(&descriptor.id, name));
        descriptors.retain(|descriptor| match descriptor.hidden {
            true => session.hidden && named(descriptor),
            false if session.only.is_empty() => descriptor.id.suite() != ABLATIONS,
            false => named(descriptor),
        });
        let mut groups: Vec<String> = descriptors
            .iter()
            .map(|descriptor| descriptor.id.group().to_owned())
            .collect();
        groups.dedup();
        Self {
            profile: listing.profile,
            features: listing.features,
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
        match process::measure(&lane.runners.time, group, round, session) {
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

    /// Those of a group that are counted.
    fn counted(&self, group: &str) -> Vec<Id> {
        let counted = |descriptor: &&Descriptor| descriptor.id.group() == group && descriptor.counted;
        match self.failures.contains_key(group) {
            true => Vec::new(),
            false => self
                .descriptors
                .iter()
                .filter(counted)
                .map(|descriptor| descriptor.id.clone())
                .collect(),
        }
    }

    fn count_allocations(&mut self, lane: &Lane, group: &str, session: &Session) {
        let ids = self.counted(group);
        if ids.is_empty() {
            return;
        }
        match count::allocations(&lane.runners, group, &ids, session) {
            Ok(counts) => {
                for (id, counts) in counts {
                    self.take(&id, counts);
                }
            }
            Err(error) => {
                self.failures.insert(group.to_owned(), error.chain());
            }
        }
    }

    fn take(&mut self, id: &Id, counts: Counts) {
        let all = self.gathered.entry(id.to_string()).or_default();
        all.counts = all.counts.or(counts);
    }

    fn finish(mut self, environment: &Environment, settings: &Settings) -> BTreeMap<String, SuiteResult> {
        let mut suites: BTreeMap<String, SuiteResult> = BTreeMap::new();
        let environment = Environment {
            profile: std::mem::take(&mut self.profile),
            features: std::mem::take(&mut self.features),
            ..environment.clone()
        };
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
            gathered.resources = merged(self.usage.get(group).map(Vec::as_slice).unwrap_or_default());
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
