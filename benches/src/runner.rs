//! The runner's command line: `list`, `run`, `count`, `instructions`, and `serve` and `crowd`, which it calls itself.
//!
//! `run` measures one group: each variant is warmed up alone, then all have their turn in ten slices, each slice beginning
//! with another one. Operations below 10 microseconds are timed in batches of about 50.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use peregrine_harness::protocol::{Counted, Descriptor, Id, Line, Measured, PROTOCOL};
use rustix::time::{ClockId, clock_gettime};

use crate::bench::{Group, Meter, Variant, Work};
use crate::{crowd, pin_to_one_core, serve, suites};

/// Operations faster than this are timed in batches.
const ALONE: Duration = Duration::from_micros(10);
const BATCH: Duration = Duration::from_micros(50);
const SLICES: u32 = 10;
/// The most samples of a variant in one process.
const MAX_SAMPLES: u64 = 20_000;

/// Runs what it is told to do, and gives allocations and bytes of it.
pub type CountAllocations = fn(&mut dyn FnMut()) -> (u64, u64);

/// The whole program. `allocations` counts, where the allocator can.
pub fn main(allocations: Option<CountAllocations>) -> ExitCode {
    end_with_the_harness();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = words.iter().position(|word| word == name)?;
        words.get(at + 1).cloned()
    };
    if let Some(model) = value("--ollama")
        && let Err(problem) = suites::ollama::ask_for(&model)
    {
        let _ = writeln!(std::io::stderr(), "{problem}");
        return ExitCode::from(2);
    }
    let number = |name: &str| value(name).and_then(|text| text.parse::<u64>().ok());
    let done = match words.first().map(String::as_str) {
        Some("list") => list(),
        Some("run") => {
            let ms = |name: &str, usual| Duration::from_millis(number(name).unwrap_or(usual));
            let (warmup, measure) = (ms("--warmup-ms", 200), ms("--measure-ms", 500));
            let round = number("--round").unwrap_or(0) as usize;
            value("--group").map(|group| run(&group, warmup, measure, round))
        }
        Some("count") => value("--group")
            .zip(allocations)
            .map(|(group, allocations)| count(&group, allocations)),
        Some("instructions") => {
            let times = number("--times").unwrap_or(1);
            value("--id").map(|id| instructions(&id, times))
        }
        Some("crowd") => value("--who")
            .zip(value("--url"))
            .map(|(who, url)| crowd::main(&who, &url, number("--agents").unwrap_or(1) as usize)),
        Some("serve") => {
            value("--script").map(|script| serve::main(&script, number("--latency-ms").unwrap_or(0)))
        }
        _ => None,
    };
    if done.is_some() {
        return ExitCode::SUCCESS;
    }
    let usage =
        "list | run --group G | count --group G | instructions --id ID --times N | serve --script S\n";
    let _ = std::io::stderr().write_all(usage.as_bytes());
    ExitCode::from(2)
}

/// Whoever started this process measures; without them it is of no use, and would go on with nobody to stop it.
fn end_with_the_harness() {
    #[cfg(target_os = "linux")]
    {
        let terminate = rustix::process::Signal::TERM;
        // Where this is not possible it goes on to its end.
        let _ = rustix::process::set_parent_process_death_signal(Some(terminate));
    }
}

fn say(line: &Line) {
    // Whoever asked has gone: there is nobody to tell.
    if std::io::stdout().write_all(line.to_json().as_bytes()).is_err() {
        std::process::exit(1);
    }
}

fn hello() {
    say(&Line::Hello {
        protocol: PROTOCOL,
        profile: if cfg!(debug_assertions) { "dev" } else { "release" }.to_owned(),
        features: Vec::new(),
    });
}

fn id(group: &Group, variant: &Variant) -> Id {
    format!("{}/{}", group.name, variant.name)
        .parse()
        .expect("suites name their benchmarks so")
}

fn list() -> Option<()> {
    hello();
    for group in suites::all() {
        for variant in &group.variants {
            say(&Line::Benchmark(Descriptor {
                id: id(&group, variant),
                role: variant.role,
                workload: group.workload.clone(),
                counted: variant.counted,
                hidden: group.hidden,
            }));
        }
    }
    Some(())
}

fn find(name: &str) -> Group {
    let group = suites::all().into_iter().find(|group| group.name == name);
    group.unwrap_or_else(|| panic!("there is no group {name}"))
}

fn ready(group: &Group) -> Vec<Work> {
    if group.pinned {
        // Where this is not possible times are more restless, and still times.
        let _ = pin_to_one_core();
    }
    let works = (group.make)();
    assert_eq!(works.len(), group.variants.len(), "each variant has its work");
    works
}

/// What is known of a variant while it is measured.
struct Turn {
    work: Work,
    meter: Meter,
    batch: u64,
    warmed: u64,
    cpu: Duration,
    samples: u64,
}

fn run(name: &str, warmup: Duration, measure: Duration, round: usize) {
    let group = find(name);
    hello();
    let mut turns: Vec<Turn> = ready(&group).into_iter().map(|work| warm(work, warmup)).collect();
    say(&Line::Ready);
    let variants = turns.len();
    for slice in 0..SLICES {
        for place in 0..variants {
            turns[(place + slice as usize + round) % variants].slice(measure / SLICES, slice);
        }
    }
    for (turn, variant) in turns.into_iter().zip(&group.variants) {
        say(&Line::Measured(turn.finish(id(&group, variant))));
    }
}

/// Runs a variant for a while, at least once, and finds out how many operations make a sample.
fn warm(mut work: Work, warmup: Duration) -> Turn {
    let begun = Instant::now();
    let (mut batch, mut warmed) = (1_u64, 0);
    loop {
        let mut meter = Meter::default();
        meter.want(batch);
        work(&mut meter);
        let (elapsed, done) = meter.total();
        warmed += done;
        let each = elapsed / u32::try_from(done.max(1)).unwrap_or(u32::MAX);
        // What it took the first time says little.
        if each >= ALONE {
            batch = 1;
        } else if elapsed < BATCH {
            batch = (batch * 2).min(1 << 20);
        }
        if begun.elapsed() >= warmup && (batch == 1 || elapsed >= BATCH / 2) {
            break;
        }
    }
    Turn {
        work,
        meter: Meter::recording(),
        batch,
        warmed,
        cpu: Duration::ZERO,
        samples: 0,
    }
}

impl Turn {
    fn slice(&mut self, measure: Duration, slice: u32) {
        // What takes long is measured in some slices only: at least in three, or in one if that is as long as all of them.
        let so_far = self.meter.total().0;
        let enough = if so_far >= measure * SLICES { 1 } else { 3 };
        if self.samples >= enough && so_far >= measure * (slice + 1) {
            return;
        }
        let begun = Instant::now();
        while self.samples < MAX_SAMPLES {
            self.meter.want(self.batch);
            let before = processor_time();
            (self.work)(&mut self.meter);
            self.cpu += processor_time().saturating_sub(before);
            self.samples += 1;
            if begun.elapsed() >= measure {
                break;
            }
        }
    }

    fn finish(self, id: Id) -> Measured {
        let throughput = self.meter.throughput();
        let (_, iterations) = self.meter.total();
        let (recorder, figures) = self.meter.into_parts();
        Measured {
            id,
            iterations,
            warmup_iterations: self.warmed,
            batch: self.batch,
            round: recorder.finish(),
            throughput,
            cpu_ns: u64::try_from(self.cpu.as_nanos()).unwrap_or(u64::MAX),
            figures: figures
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect::<BTreeMap<_, _>>(),
        }
    }
}

/// What this thread used of the processor.
pub(crate) fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

fn count(name: &str, allocations: CountAllocations) {
    let group = find(name);
    hello();
    let operations = group.counted_operations;
    for (mut work, variant) in ready(&group).into_iter().zip(&group.variants) {
        if !variant.counted {
            continue;
        }
        let mut done = |times: u64| {
            let mut meter = Meter::default();
            meter.want(operations * times);
            allocations(&mut || work(&mut meter))
        };
        // What the first operations do once, and what is done before and after the others, is in both.
        done(1);
        let (once, twice) = (done(1), done(2));
        say(&Line::Counted(Counted {
            id: id(&group, variant),
            iterations: operations,
            allocations: twice.0.saturating_sub(once.0),
            bytes: twice.1.saturating_sub(once.1),
        }));
    }
}

fn instructions(name: &str, times: u64) {
    let id: Id = name.parse().expect("it is `suite/op/param/impl`");
    let group = find(id.group());
    hello();
    let place = group
        .variants
        .iter()
        .position(|variant| variant.name == id.parts()[3]);
    let place = place.unwrap_or_else(|| panic!("there is no {id}"));
    let mut work = ready(&group).swap_remove(place);
    let operations = group.counted_operations * times;
    for operations in [group.counted_operations, operations] {
        let mut meter = Meter::default();
        meter.want(operations);
        work(&mut meter);
    }
    say(&Line::Counted(Counted {
        id,
        iterations: operations,
        allocations: 0,
        bytes: 0,
    }));
}
