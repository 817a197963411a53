//! Where and of what something was measured. Written into each result, because a figure without it means nothing.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The machine, the toolchain and the source.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Environment {
    /// The model of the processor, as it names itself.
    pub cpu_model: Option<String>,
    /// How many processors may be used.
    pub cores: u32,
    /// Memory, in MB of 1,000,000 bytes.
    pub memory_mb: Option<u64>,
    /// Operating system.
    pub os: String,
    /// Version of the kernel.
    pub kernel: Option<String>,
    /// Who decides on the clock of the processor; `null` where nobody says.
    pub governor: Option<String>,
    /// Load over the last minute before the run began: what else the machine did.
    pub load: Option<String>,
    /// The compiler.
    pub rustc: Option<String>,
    /// The target it compiled for.
    pub target: Option<String>,
    /// The profile of the benchmarks.
    pub profile: String,
    /// The features of the benchmarks.
    pub features: Vec<String>,
    /// The commit of the source.
    pub commit: Option<String>,
    /// Whether the source had changes that were not committed.
    pub dirty: Option<bool>,
    /// When the run began, UTC.
    pub date: String,
}

impl Environment {
    /// This machine now, and the source in a folder.
    pub fn of(source: &Path) -> Self {
        let verbose = output(Command::new("rustc").arg("-vV").current_dir(source));
        let line = |begin: &str| {
            let mut lines = verbose.as_deref().unwrap_or_default().lines();
            lines
                .find_map(|line| line.strip_prefix(begin))
                .map(|rest| rest.trim().to_owned())
        };
        let git = |arguments: &[&str]| output(Command::new("git").args(arguments).current_dir(source));
        Self {
            cpu_model: cpu_model(),
            cores: std::thread::available_parallelism()
                .map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
            memory_mb: memory_mb(),
            os: std::env::consts::OS.to_owned(),
            kernel: read("/proc/sys/kernel/osrelease").or_else(|| output(Command::new("uname").arg("-r"))),
            governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            load: read("/proc/loadavg").and_then(|text| Some(text.split(' ').next()?.to_owned())),
            rustc: verbose
                .as_deref()
                .and_then(|text| text.lines().next())
                .map(str::to_owned),
            target: line("host:"),
            profile: String::new(),
            features: Vec::new(),
            commit: git(&["rev-parse", "HEAD"]),
            dirty: git(&["status", "--porcelain"]).map(|changes| !changes.is_empty()),
            date: utc(SystemTime::now()),
        }
    }

    /// What one should know of it to read figures, each with its name.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
        let short = self
            .commit
            .as_deref()
            .map(|commit| &commit[..commit.len().min(12)]);
        let source = match (short, self.dirty) {
            (None, _) => "unknown".to_owned(),
            (Some(commit), Some(false)) => commit.to_owned(),
            (Some(commit), _) => format!("{commit}, with changes that are not committed"),
        };
        let built = match self.features.is_empty() {
            true => self.profile.clone(),
            false => format!("{}, {}", self.profile, self.features.join(", ")),
        };
        let memory = self.memory_mb;
        let memory = memory.map_or_else(|| "unknown".to_owned(), |mb| format!("{:.1} GB", mb as f64 / 1e3));
        vec![
            (
                "processor",
                format!("{}, {} cores", or(&self.cpu_model), self.cores),
            ),
            ("memory", memory),
            ("system", format!("{} {}", self.os, or(&self.kernel))),
            ("governor", or(&self.governor)),
            ("load before", or(&self.load)),
            ("compiler", or(&self.rustc)),
            ("target", or(&self.target)),
            ("build", built),
            ("source", source),
            ("date", self.date.clone()),
        ]
    }

    /// Why times of two runs cannot be compared, if they cannot.
    pub fn why_times_differ(&self, other: &Self) -> Option<String> {
        let pairs = [
            ("processor", &self.cpu_model, &other.cpu_model),
            ("target", &self.target, &other.target),
            ("governor", &self.governor, &other.governor),
        ];
        if let Some((what, ours, theirs)) = pairs.into_iter().find(|(_, ours, theirs)| ours != theirs) {
            let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
            return Some(format!("another {what}: {} and {}", or(ours), or(theirs)));
        }
        if self.cores != other.cores {
            return Some(format!("{} and {} cores", self.cores, other.cores));
        }
        self.why_builds_differ(other)
    }

    /// Why counts of two runs cannot be compared, if they cannot: other programs were run.
    pub fn why_counts_differ(&self, other: &Self) -> Option<String> {
        if self.target != other.target {
            return Some("another target".to_owned());
        }
        self.why_builds_differ(other)
    }

    /// Why counts of instructions cannot be compared, if they cannot: compilers count differently, and the system's own
    /// library chooses its instructions by the processor.
    pub fn why_instructions_differ(&self, other: &Self) -> Option<String> {
        if self.rustc != other.rustc {
            return Some("another compiler".to_owned());
        }
        if self.cpu_model != other.cpu_model {
            return Some("another processor".to_owned());
        }
        self.why_counts_differ(other)
    }

    fn why_builds_differ(&self, other: &Self) -> Option<String> {
        if self.profile != other.profile {
            return Some(format!("profiles {} and {}", self.profile, other.profile));
        }
        (self.features != other.features).then(|| "other features".to_owned())
    }
}

/// The target of the compiler at hand.
pub fn target() -> Option<String> {
    let verbose = output(Command::new("rustc").arg("-vV"))?;
    let host = verbose.lines().find_map(|line| line.strip_prefix("host:"))?;
    Some(host.trim().to_owned())
}

fn cpu_model() -> Option<String> {
    if cfg!(target_os = "macos") {
        return output(Command::new("sysctl").args(["-n", "machdep.cpu.brand_string"]));
    }
    let text = read("/proc/cpuinfo")?;
    let named = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    named("model name").or_else(|| named("CPU part"))
}

fn memory_mb() -> Option<u64> {
    let text = read("/proc/meminfo")?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.trim().split(' ').next()?.parse().ok()?;
    Some(kib * 1_024 / 1_000_000)
}

fn read(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

/// RFC 3339, to the second, in the proleptic Gregorian calendar.
fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days from 1 March of year 0, in which a leap day is the last of its year (H. Hinnant, "chrono-compatible low-level
    // date algorithms", 2013).
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_164_799, "2024-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(seconds)), date);
        }
    }

    #[test]
    fn this_machine_says_something() {
        let here = Environment::of(Path::new("."));
        assert!(here.cores > 0 && here.date.len() == 20);
        assert_eq!(here.why_times_differ(&here), None);
        assert_eq!(here.why_instructions_differ(&here), None);
    }

    #[test]
    fn what_makes_figures_incomparable_is_named() {
        let here = Environment {
            cores: 2,
            cpu_model: Some("a".to_owned()),
            rustc: Some("rustc 1".to_owned()),
            profile: "release".to_owned(),
            ..Environment::default()
        };
        let mut other = here.clone();
        other.rustc = Some("rustc 2".to_owned());
        assert_eq!(
            here.why_times_differ(&other),
            None,
            "a new compiler is a change like others"
        );
        assert_eq!(here.why_counts_differ(&other), None);
        assert!(here.why_instructions_differ(&other).is_some());
        let mut other = here.clone();
        other.cpu_model = Some("b".to_owned());
        assert!(here.why_times_differ(&other).unwrap().contains("a and b"));
        assert_eq!(here.why_counts_differ(&other), None);
        let mut other = here.clone();
        other.profile = "dev".to_owned();
        assert!(here.why_times_differ(&other).is_some() && here.why_counts_differ(&other).is_some());
    }
}
