//! The same work with other frameworks, with ours and with bare reqwest, in turns against one server: `bench --rivals`.
//!
//! They live in `benches/rivals`, a workspace of its own, a program each, so that none of them has the features or the
//! memory of another. A process measures one operation of one framework; in each round all frameworks have their turn at
//! an operation before the next one begins, and another of them begins in each round. The servers run as long as the
//! session. What each framework really sends is recorded before anything is timed, and told beside the figures.

mod programs;
mod report;
mod wire;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::bootstrap::SEED;
use crate::drive::{Effort, merged, watch};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::protocol::{Descriptor, Line};
use crate::result::{BenchmarkResult, Failure, Gathered, Resources, SCHEMA_VERSION, Settings, SuiteResult};

use programs::{Competitor, Servers};
use wire::Sent;

/// The name of the suite, and of its file.
pub const SUITE: &str = "rivals";
/// The variable in which a competitor finds its server.
const URL: &str = "PEREGRINE_RIVALS_URL";

/// What a session found.
#[derive(Debug)]
pub struct Comparison {
    /// For the result file.
    pub suite: SuiteResult,
    /// The tables, in Markdown.
    pub summary: String,
}

/// Builds everything, and runs it. Only operations that are named in `only` (`rivals/op` or `rivals/op/param`) are run, or
/// all. `say` is told what is under way.
///
/// # Errors
///
/// [`Error::Usage`] if nothing fits what was asked for; [`Error::Start`] and [`Error::Program`] if something cannot be built,
/// or does not start. A benchmark that fails is in the results as such.
pub fn run(root: &Path, only: &[String], effort: &Effort, say: &mut dyn FnMut(&str)) -> Result<Comparison> {
    let programs = programs::build(root, say)?;
    let mut environment = Environment::of(root);
    environment.profile = "release".to_owned();
    // Figures of other versions are figures of other programs, which is what features make a comparison say.
    environment.features = programs::versions(root)?;
    let competitors: Vec<Competitor> = programs.competitors;
    let groups = groups(&competitors, only)?;
    let mut sent = Vec::new();
    for group in groups.iter().filter(|group| wire::is_told(group)) {
        say(&format!("looking at what is sent: {group}"));
        for competitor in &competitors {
            if let Some(descriptor) = competitor.descriptor(group) {
                sent.push(once(&programs.server, competitor, descriptor)?);
            }
        }
    }
    let mut servers = Servers::new(programs.server);
    let mut gathering = Gathering::default();
    for round in 0..effort.rounds {
        for (place, group) in groups.iter().enumerate() {
            say(&format!(
                "round {} of {}, {} of {}: {group}",
                round + 1,
                effort.rounds,
                place + 1,
                groups.len()
            ));
            for turn in 0..competitors.len() {
                let competitor = &competitors[(turn + round as usize) % competitors.len()];
                if let Some(descriptor) = competitor.descriptor(group) {
                    let url = servers.url(group)?;
                    gathering.measure(competitor, descriptor, &url, effort);
                }
            }
        }
    }
    let settings = Settings {
        quick: effort.quick,
        rounds: effort.rounds,
        seed: SEED,
        session: None,
        condensed: false,
    };
    let mut suite = SuiteResult {
        schema_version: SCHEMA_VERSION,
        suite_name: SUITE.to_owned(),
        benchmark_results: Vec::new(),
        failures: Vec::new(),
        environment,
        settings,
    };
    for group in &groups {
        for competitor in &competitors {
            if let Some(descriptor) = competitor.descriptor(group) {
                gathering.finish(descriptor, &mut suite);
            }
        }
    }
    let summary = report::summary(&suite, &groups, &competitors, &sent);
    Ok(Comparison { suite, summary })
}

/// The groups of all competitors, in their order.
fn groups(competitors: &[Competitor], only: &[String]) -> Result<Vec<String>> {
    let mut groups: Vec<String> = Vec::new();
    let named = |group: &str| {
        only.is_empty()
            || only
                .iter()
                .any(|name| group == name || group.starts_with(&format!("{}/", name.trim_end_matches('/'))))
    };
    for descriptor in competitors.iter().flat_map(|competitor| &competitor.has) {
        let group = descriptor.id.group();
        if named(group) && groups.iter().all(|known| known != group) {
            groups.push(group.to_owned());
        }
    }
    match groups.is_empty() {
        true => Err(Error::Usage(format!(
            "no rival does {}; without --suite all of it is done",
            only.join(", ")
        ))),
        false => Ok(groups),
    }
}

/// Has the work done once, with a server that keeps what it is sent.
fn once(server: &Path, competitor: &Competitor, descriptor: &Descriptor) -> Result<Sent> {
    let recorder = programs::Recorder::start(server, descriptor.id.group())?;
    let output = Command::new(&competitor.program)
        .args(["once", "--group", descriptor.id.as_str()])
        .env(URL, recorder.url())
        .output();
    let program = format!("{} once --group {}", competitor.name, descriptor.id);
    let output = output.map_err(|source| Error::Start {
        program: program.clone(),
        source,
    })?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        let message = format!("{}: {}", output.status, complaint.trim());
        return Err(Error::Program { program, message });
    }
    Ok(Sent::new(descriptor, recorder.finish()?))
}

#[derive(Default)]
struct Gathering {
    gathered: BTreeMap<String, Gathered>,
    /// What each process told of itself, by benchmark and figure.
    figures: BTreeMap<String, BTreeMap<String, Vec<f64>>>,
    usage: BTreeMap<String, Vec<Resources>>,
    failures: BTreeMap<String, String>,
}

impl Gathering {
    fn measure(&mut self, competitor: &Competitor, descriptor: &Descriptor, url: &str, effort: &Effort) {
        let name = descriptor.id.to_string();
        if self.failures.contains_key(&name) {
            return;
        }
        let mut command = Command::new(&competitor.program);
        command.args(["run", "--group", &name]);
        command.args(["--warmup-ms", &effort.warmup.as_millis().to_string()]);
        command.args(["--measure-ms", &effort.measure.as_millis().to_string()]);
        command.env(URL, url);
        match watch(command, effort.limit, true) {
            Ok((lines, used)) => {
                self.usage.entry(name.clone()).or_default().push(used);
                let all = self.gathered.entry(name.clone()).or_default();
                for line in lines {
                    let Line::Measured(measured) = line else { continue };
                    all.rounds.push(measured.round);
                    all.iterations += measured.iterations;
                    all.warmup_iterations += measured.warmup_iterations;
                    all.batch = all.batch.max(measured.batch);
                    all.throughput.extend(measured.throughput);
                    all.cpu_ns += measured.cpu_ns;
                    let figures = self.figures.entry(name.clone()).or_default();
                    for (figure, value) in measured.figures {
                        figures.entry(figure).or_default().push(value);
                    }
                }
            }
            Err(error) => {
                self.failures.insert(name, error.chain());
            }
        }
    }

    fn finish(&mut self, descriptor: &Descriptor, suite: &mut SuiteResult) {
        let name = descriptor.id.to_string();
        let failed = |message: String| Failure {
            name: name.clone(),
            message,
        };
        if let Some(message) = self.failures.remove(&name) {
            suite.failures.push(failed(message));
            return;
        }
        let mut gathered = self.gathered.remove(&name).unwrap_or_default();
        gathered.resources = merged(self.usage.get(&name).map(Vec::as_slice).unwrap_or_default());
        let figures = self.figures.remove(&name).unwrap_or_default();
        gathered.figures = figures
            .into_iter()
            .map(|(figure, values)| (figure, median(values)))
            .collect();
        match BenchmarkResult::of(descriptor, gathered) {
            Ok(result) => suite.benchmark_results.push(result),
            Err(error) => suite.failures.push(failed(error.chain())),
        }
    }
}

/// The middle one, the lower of two; 0 without any.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len().saturating_sub(1) / 2;
    values.get(middle).copied().unwrap_or_default()
}
