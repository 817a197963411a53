//! What a process uses, seen from outside through `/proc`; nothing where there is none.

use std::fs;
use std::time::{Duration, Instant};

use crate::result::Resources;

/// How often is looked.
pub(super) const INTERVAL: Duration = Duration::from_millis(10);
/// The span over which a peak of processor time is told: the system counts it in steps of 10 ms.
const PEAK: Duration = Duration::from_millis(50);
/// Steps of processor time in a second, in `/proc`: fixed for programs, whatever the kernel counts in.
const TICKS_PER_SECOND: f64 = 100.0;

/// Looks at one process.
pub(super) struct Watcher {
    process: u32,
    looks: Vec<Look>,
}

struct Look {
    at: Instant,
    ticks: u64,
    memory_mb: f64,
    threads: f64,
}

impl Watcher {
    pub(super) fn new(process: u32) -> Self {
        Self {
            process,
            looks: Vec::new(),
        }
    }

    /// Looks, unless it did just now.
    pub(super) fn look(&mut self) {
        let is_due = self.looks.last().is_none_or(|last| last.at.elapsed() >= INTERVAL);
        if is_due && let Some(look) = look(self.process) {
            self.looks.push(look);
        }
    }

    pub(super) fn finish(self) -> Resources {
        let looks = &self.looks;
        let (Some(first), Some(last)) = (looks.first(), looks.last()) else {
            return Resources::default();
        };
        let share = |from: &Look, to: &Look| {
            let seconds = to.at.duration_since(from.at).as_secs_f64();
            let ticks = to.ticks.saturating_sub(from.ticks) as f64;
            (seconds >= PEAK.as_secs_f64()).then(|| 100.0 * ticks / TICKS_PER_SECOND / seconds)
        };
        let spans = looks.iter().enumerate().filter_map(|(place, from)| {
            let to = looks[place..]
                .iter()
                .find(|to| to.at.duration_since(from.at) >= PEAK)?;
            share(from, to)
        });
        let mean = |of: fn(&Look) -> f64| looks.iter().map(of).sum::<f64>() / looks.len() as f64;
        let peak = |of: fn(&Look) -> f64| looks.iter().map(of).fold(0.0, f64::max);
        Resources {
            cpu_mean: share(first, last),
            cpu_peak: spans.max_by(f64::total_cmp),
            memory_mean_mb: Some(mean(|look| look.memory_mb)),
            memory_peak_mb: Some(peak(|look| look.memory_mb)),
            threads_mean: Some(mean(|look| look.threads)),
            threads_peak: Some(peak(|look| look.threads)),
            cpu_ns_per_op: None,
        }
    }
}

/// The means of the means, and the largest peaks.
pub(crate) fn merged(all: &[Resources]) -> Resources {
    let mean = |of: fn(&Resources) -> Option<f64>| {
        let values: Vec<f64> = all.iter().filter_map(of).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    let peak = |of: fn(&Resources) -> Option<f64>| all.iter().filter_map(of).max_by(f64::total_cmp);
    Resources {
        cpu_mean: mean(|used| used.cpu_mean),
        cpu_peak: peak(|used| used.cpu_peak),
        memory_mean_mb: mean(|used| used.memory_mean_mb),
        memory_peak_mb: peak(|used| used.memory_peak_mb),
        threads_mean: mean(|used| used.threads_mean),
        threads_peak: peak(|used| used.threads_peak),
        cpu_ns_per_op: None,
    }
}

fn look(process: u32) -> Option<Look> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name of the program stands in brackets and may contain anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = resident.split_whitespace().next()?.parse().ok()?;
    Some(Look {
        at: Instant::now(),
        ticks: field(14)? + field(15)?,
        memory_mb: kib * 1_024.0 / 1e6,
        threads: field(20)? as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(begin: Instant, ms: u64, ticks: u64, memory_mb: f64) -> Look {
        Look {
            at: begin + Duration::from_millis(ms),
            ticks,
            memory_mb,
            threads: 2.0,
        }
    }

    #[test]
    fn shares_and_peaks_are_those_of_the_looks() {
        let begin = Instant::now();
        let mut watcher = Watcher::new(0);
        assert_eq!(Watcher::new(0).finish(), Resources::default());
        watcher.looks = vec![
            at(begin, 0, 0, 10.0),
            at(begin, 50, 5, 30.0),
            at(begin, 200, 5, 20.0),
        ];
        let used = watcher.finish();
        assert_eq!((used.cpu_mean, used.cpu_peak), (Some(25.0), Some(100.0)));
        assert_eq!(
            (used.memory_mean_mb, used.memory_peak_mb),
            (Some(20.0), Some(30.0))
        );
        let both = merged(&[used, Resources::default()]);
        assert_eq!((both.cpu_mean, both.threads_peak), (Some(25.0), Some(2.0)));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_seen() {
        let mut watcher = Watcher::new(std::process::id());
        watcher.look();
        let used = watcher.finish();
        assert!(
            used.memory_mean_mb.unwrap() > 0.1 && used.threads_peak.unwrap() >= 1.0,
            "{used:?}"
        );
        let mut nobody = Watcher::new(u32::MAX);
        nobody.look();
        assert_eq!(nobody.finish(), Resources::default());
    }
}
