//! The program behind `cargo xtask bench` and `cargo xtask compare`. Exit status: 0 ok, 1 something failed, 2 could not run.

mod documents;
mod selftest;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, Parser, Subcommand};
use peregrine_harness::baseline::Baseline;
use peregrine_harness::compare::{Exit, compare};
use peregrine_harness::drive::{self, Effort, Lane, Session};
use peregrine_harness::environment::{Environment, target};
use peregrine_harness::error::{Error, Result};
use peregrine_harness::result::{SuiteResult, read_all, schema, write_whole};
use peregrine_harness::{html, markdown, rivals};

/// What `--save` takes to write the counts into the repository instead.
const BASELINE: &str = "baseline";

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "The project's benchmarks")]
struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Runs the benchmarks, writes a JSON file for each suite, and a report
    Bench(Bench),
    /// Compares the results of two runs
    Compare(Compare),
    /// Prints the schema of result files
    #[command(hide = true)]
    Schema,
}

#[derive(Debug, Args)]
struct Bench {
    /// Only this suite, or this group (suite/op/param); may be given several times
    #[arg(long = "suite", value_name = "S")]
    suites: Vec<String>,
    /// A short run, to see that everything works
    #[arg(long)]
    quick: bool,
    /// Processes that measure each benchmark, one after the other
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: Option<u32>,
    /// Where the result files go, instead of target/bench
    #[arg(long, value_name = "DIR")]
    json: Option<PathBuf>,
    /// Keeps the results under a name that `compare` knows; `baseline` writes benches/baselines/TARGET.json instead
    #[arg(long, value_name = "NAME")]
    save: Option<String>,
    /// Builds this revision too, runs both in turns, and compares
    #[arg(long, value_name = "GIT_REF")]
    against: Option<String>,
    /// The same work with other frameworks, ours and bare reqwest in turns (benches/rivals) instead
    #[arg(long, conflicts_with_all = ["save", "against", "no_counts", "no_instructions", "list"])]
    rivals: bool,
    /// Leaves out counts of allocations and instructions
    #[arg(long)]
    no_counts: bool,
    /// Leaves out counts of instructions, which take long
    #[arg(long)]
    no_instructions: bool,
    /// The execution suite also against this model of a real Ollama, at OLLAMA_HOST or its usual port
    #[arg(long, value_name = "MODEL", conflicts_with = "rivals")]
    ollama: Option<String>,
    /// What each optimisation is worth: the suite `ablations`, and those that are named
    #[arg(long)]
    ablate: bool,
    /// Writes docs/benchmarks.md and the README's table from benches/results; measures nothing
    #[arg(long, conflicts_with_all = ["suites", "quick", "rounds", "json", "save", "against", "ablate", "list", "ollama"])]
    write_docs: bool,
    /// With --write-docs: takes the results of a folder (such as target/bench) into benches/results first, without samples
    #[arg(long, value_name = "DIR", requires = "write_docs", conflicts_with = "check")]
    from: Option<PathBuf>,
    /// With --write-docs: writes nothing, and fails if they are not what it would write
    #[arg(long, requires = "write_docs")]
    check: bool,
    /// Lists what there is instead
    #[arg(long)]
    list: bool,
}

#[derive(Debug, Args)]
struct Compare {
    /// Result file, folder of them, or saved name: what was
    #[arg(required_unless_present = "self_test")]
    base: Option<String>,
    /// Result file, folder of them, or saved name: what is
    #[arg(required_unless_present = "self_test")]
    head: Option<String>,
    /// Writes the summary as Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Writes the report as HTML
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Tests the comparison itself: equal runs, simulated and real, raise no alarm, planted changes are caught
    #[arg(long, conflicts_with_all = ["base", "head"])]
    self_test: bool,
    /// With --self-test: leaves out the real runs
    #[arg(long, requires = "self_test")]
    simulated: bool,
}

fn main() -> ExitCode {
    let command = match Command::try_parse() {
        Ok(command) => command,
        Err(error) => {
            let status = if error.use_stderr() { 2 } else { 0 };
            // Nothing is left to do if nobody listens.
            let _ = error.print();
            return ExitCode::from(status);
        }
    };
    let root = root();
    let done = match command.verb {
        Verb::Bench(bench) if bench.write_docs => documents::run(&root, bench.from.as_deref(), bench.check),
        Verb::Bench(bench) if bench.rivals => with_rivals(&root, &bench),
        Verb::Bench(bench) => run(&root, &bench),
        Verb::Compare(compare) if compare.self_test => selftest::run(&root, compare.simulated),
        Verb::Compare(compare) => files(&root, &compare),
        Verb::Schema => {
            let text = serde_json::to_string_pretty(&schema()).expect("a schema is JSON");
            say(&text);
            Ok(Exit::Ok)
        }
    };
    match done {
        Ok(Exit::Ok) => ExitCode::SUCCESS,
        Ok(Exit::Failed) => ExitCode::from(1),
        Ok(Exit::CouldNotCompare) => ExitCode::from(2),
        Err(error) => {
            tell(&format!("bench: {}", error.chain()));
            ExitCode::from(2)
        }
    }
}

fn run(root: &Path, bench: &Bench) -> Result<Exit> {
    let saved = bench.save.as_deref().map(|name| place(root, name)).transpose()?;
    let mut effort = if bench.quick {
        Effort::quick()
    } else {
        Effort::full()
    };
    effort.rounds = bench.rounds.unwrap_or(effort.rounds);
    let mut only = bench.suites.clone();
    if bench.ablate {
        only.push(drive::ABLATIONS.to_owned());
    }
    let session = Session {
        only,
        effort,
        allocations: !bench.no_counts,
        instructions: !bench.no_counts && !bench.no_instructions && drive::has_callgrind(),
        hidden: false,
        ollama: bench.ollama.clone(),
    };
    // Before anything is built: what is misspelt is told at once.
    let base = match &bench.against {
        Some(revision) => Some(drive::checkout(root, revision)?),
        None => None,
    };
    tell("building the benchmarks");
    let head = lane(root, root, &root.join("target"), "head")?;
    if bench.list {
        for descriptor in drive::list(&head.runners.time, bench.ollama.as_deref(), &mut |what| {
            tell(what)
        })?
        .benchmarks
        {
            let hidden = if descriptor.hidden { " (hidden)" } else { "" };
            say(&format!("{}{hidden}", descriptor.id));
        }
        return Ok(Exit::Ok);
    }
    let mut lanes = vec![head];
    if let Some((source, commit)) = base {
        tell(&format!("building {}", &commit[..commit.len().min(12)]));
        let target = drive::folder(root).join("against").join("target");
        drive::seed(&root.join("target"), &target)?;
        let base = lane(root, &source, &target, "base")?;
        // The base twice: how far it lies from itself is the noise of this session.
        lanes = vec![base.clone(), lanes.remove(0), base];
    }
    let begun = Instant::now();
    let mut sides = drive::run(&lanes, &session, &mut |what| tell(what))?;
    let took = begun.elapsed().as_secs();
    let folder = match &bench.json {
        Some(folder) => std::path::absolute(folder).map_err(|source| Error::Write {
            path: folder.clone(),
            source,
        })?,
        None => drive::folder(root),
    };
    let (suites, comparison) = match sides.len() {
        1 => (sides.remove(0), None),
        _ => {
            let (again, head, base) = (sides.remove(2), sides.remove(1), sides.remove(0));
            write(&base, &folder.join("base"))?;
            let comparison = compare(&base, &head, &again);
            (head, Some(comparison))
        }
    };
    let comparison = match (comparison, &bench.against) {
        (None, None) => kept(root)?.map(|kept| kept.compare(suites.values())),
        (comparison, _) => comparison,
    };
    let comparison = comparison.filter(|comparison| !comparison.rows.is_empty());
    write(&suites, &folder)?;
    write_whole(
        &folder.join("report.html"),
        &html::report(suites.values(), comparison.as_ref()),
    )?;
    let mut summary = markdown::results(suites.values());
    if let Some(comparison) = &comparison {
        let compared = markdown::comparison(comparison);
        write_whole(&folder.join("comparison.md"), &compared)?;
        summary = compared + "\n" + &summary;
    } else {
        // One of an earlier run says nothing of this one; mostly there is none.
        let _ = std::fs::remove_file(folder.join("comparison.md"));
    }
    write_whole(&folder.join("summary.md"), &summary)?;
    say(&summary);
    tell(&format!(
        "measured in {} min {} s; results and report.html are in {}",
        took / 60,
        took % 60,
        folder.display()
    ));
    match saved {
        Some(Place::Baseline(path)) => {
            let counts = Baseline::of(suites.values(), Baseline::read(&path)?);
            let counts = counts.filter(|baseline| !baseline.counts.is_empty());
            let Some(counts) = counts else {
                return Err(Error::Usage(
                    "nothing was counted, so there is no baseline to save".to_owned(),
                ));
            };
            counts.write(&path)?;
            tell(&format!("saved the counts in {}", path.display()));
            // The new baseline is what was asked for, whatever the old one said.
            return Ok(failures(&suites).unwrap_or(Exit::Ok));
        }
        Some(Place::Folder(path)) => {
            write(&suites, &path)?;
            tell(&format!("saved as {}", path.display()));
        }
        None => {}
    }
    let verdict = comparison
        .as_ref()
        .map_or(Exit::Ok, |comparison| match comparison.exit() {
            // Without a comparable baseline the run itself is what was asked for.
            Exit::CouldNotCompare if bench.against.is_none() => Exit::Ok,
            exit => exit,
        });
    Ok(failures(&suites).unwrap_or(verdict))
}

fn with_rivals(root: &Path, bench: &Bench) -> Result<Exit> {
    let mut effort = if bench.quick {
        Effort::quick()
    } else {
        Effort::full()
    };
    effort.rounds = bench.rounds.unwrap_or(effort.rounds);
    let found = rivals::run(root, &bench.suites, &effort, &mut |what| tell(what))?;
    let folder = bench.json.clone().unwrap_or_else(|| drive::folder(root));
    let written = found.suite.write(&folder)?;
    write_whole(&folder.join("rivals.md"), &found.summary)?;
    say(&found.summary);
    tell(&format!(
        "results are in {}, tables in rivals.md beside it",
        written.display()
    ));
    Ok(match found.suite.failures.is_empty() {
        true => Exit::Ok,
        false => Exit::Failed,
    })
}

fn failures(suites: &BTreeMap<String, SuiteResult>) -> Option<Exit> {
    let failed = suites.values().any(|suite| !suite.failures.is_empty());
    failed.then_some(Exit::Failed)
}

/// A build of a source, as one side of a session; its programs are kept under the name of the side.
fn lane(root: &Path, source: &Path, target: &Path, side: &str) -> Result<Lane> {
    // Before the build: its load is none that the figures meet.
    let environment = Environment::of(source);
    let programs = drive::folder(root).join("programs").join(side);
    let runners = drive::build(source, target, &programs)?;
    Ok(Lane { runners, environment })
}

fn write(suites: &BTreeMap<String, SuiteResult>, folder: &Path) -> Result<()> {
    for suite in suites.values() {
        suite.write(folder)?;
    }
    Ok(())
}

fn kept(root: &Path) -> Result<Option<Baseline>> {
    match target() {
        Some(target) => Baseline::read(&baseline(root, &target)),
        None => Ok(None),
    }
}

fn baseline(root: &Path, target: &str) -> PathBuf {
    root.join("benches/baselines").join(format!("{target}.json"))
}

/// Where something is saved.
enum Place {
    Baseline(PathBuf),
    Folder(PathBuf),
}

fn place(root: &Path, name: &str) -> Result<Place> {
    if name == BASELINE {
        let target = target().ok_or_else(|| Error::Usage("`rustc` does not say its target".to_owned()))?;
        return Ok(Place::Baseline(baseline(root, &target)));
    }
    let is_name = !name.is_empty()
        && !name.starts_with('.')
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    match is_name {
        true => Ok(Place::Folder(drive::folder(root).join("saved").join(name))),
        false => Err(Error::Usage(format!(
            "`{name}` is no name for a folder: letters, digits, `-`, `_`, `.`"
        ))),
    }
}

fn files(root: &Path, asked: &Compare) -> Result<Exit> {
    let read = |name: &Option<String>| {
        let name = name.as_deref().unwrap_or_default();
        // What stands there as a path goes before what was saved under the name.
        let path = PathBuf::from(name);
        match (path.exists(), place(root, name)) {
            (false, Ok(Place::Folder(saved))) if saved.exists() => read_all(&saved),
            _ => read_all(&path),
        }
    };
    let (base, head) = (read(&asked.base)?, read(&asked.head)?);
    let comparison = compare(&base, &head, &BTreeMap::new());
    let summary = markdown::comparison(&comparison);
    if let Some(path) = &asked.markdown {
        write_whole(path, &summary)?;
    }
    if let Some(path) = &asked.html {
        write_whole(path, &html::report(head.values(), Some(&comparison)))?;
    }
    say(&summary);
    Ok(comparison.exit())
}

/// The folder of the workspace: where the nearest manifest of one is, upwards from here.
fn root() -> PathBuf {
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    let is_root = |folder: &&Path| folder.join("Cargo.lock").exists() && folder.join("xtask").exists();
    here.ancestors()
        .find(is_root)
        .map_or_else(|| here.clone(), Path::to_path_buf)
}

/// To standard output; a reader that went away is nobody's failure.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// To standard error: what is under way.
fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
