//! Samples: percentiles and moments against exact ones.

use std::time::Duration;

use peregrine_harness::samples::{Recorder, Round};
use peregrine_harness::stats::{Latency, Trimmed};
use proptest::prelude::*;

use crate::support::round;

/// By the definition: the smallest value that at least `share` of them do not exceed.
fn exact(sorted: &[u64], share: f64) -> u64 {
    let rank = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len());
    sorted[rank - 1]
}

fn recorded(ns: &[u64]) -> Round {
    let mut recorder = Recorder::new();
    for ns in ns {
        recorder.push(Duration::from_nanos(*ns), 1);
    }
    recorder.finish()
}

proptest! {
    #[test]
    fn percentiles_are_exact_to_a_tenth_of_a_percent(
        mut ns in proptest::collection::vec(1_u64..10_000_000_000, 1..400),
        share in 0.0_f64..=1.0,
    ) {
        let all = recorded(&ns);
        prop_assert!(all.is_consistent());
        ns.sort_unstable();
        for share in [share, 0.0, 0.5, 0.95, 0.99, 1.0] {
            let (found, wanted) = (all.percentile(share).unwrap() as f64, exact(&ns, share) as f64 * 1e3);
            prop_assert!((found / wanted - 1.0).abs() <= 0.001, "{share}: {found} for {wanted}");
        }
        prop_assert_eq!((all.moments.min_ps, all.moments.max_ps), (ns[0] * 1_000, ns[ns.len() - 1] * 1_000));
    }

    #[test]
    fn mean_and_deviation_are_exact_however_rounds_are_cut(
        ns in proptest::collection::vec(1_u64..1_000_000_000, 2..300),
        cut in 0_usize..300,
    ) {
        let cut = cut.min(ns.len());
        let (first, second) = (recorded(&ns[..cut]), recorded(&ns[cut..]));
        let merged = Round::merged([&first, &second]);
        prop_assert!(merged.is_consistent());
        let count = ns.len() as f64;
        let mean = ns.iter().sum::<u64>() as f64 / count;
        let squares: f64 = ns.iter().map(|ns| (*ns as f64 - mean).powi(2)).sum();
        let deviation = (squares / (count - 1.0)).sqrt();
        prop_assert!((merged.moments.mean_ps / 1e3 - mean).abs() <= mean * 1e-9 + 1e-6);
        prop_assert!((merged.moments.stddev_ps() / 1e3 - deviation).abs() <= deviation * 1e-6 + 1e-3);
        prop_assert_eq!(merged.samples, recorded(&ns).samples);
    }
}

#[test]
fn a_batch_is_its_mean_and_does_not_round_to_nothing() {
    let mut recorder = Recorder::new();
    recorder.push(Duration::from_nanos(50), 200);
    let round = recorder.finish();
    assert_eq!(round.moments.min_ps, 250);
    let latency = Latency::of(&round);
    assert!((latency.p50 - 250e-9).abs() < 1e-12, "{latency:?}");
}

#[test]
fn extremes_are_taken_as_they_are() {
    let mut recorder = Recorder::new();
    for elapsed in [Duration::ZERO, Duration::MAX] {
        recorder.push(elapsed, 0);
    }
    assert_eq!(recorder.count(), 2);
    let round = recorder.finish();
    assert_eq!((round.moments.min_ps, round.moments.max_ps), (1, u64::MAX >> 1));
    assert!(round.is_consistent());
    let nothing = Recorder::default().finish();
    assert_eq!(nothing.percentile(0.5), None);
    assert_eq!(Latency::of(&nothing).count, 0);
    assert!(nothing.is_consistent());
}

#[test]
fn a_99th_percentile_needs_a_thousand_samples() {
    let few = Latency::of(&round((0..999).map(f64::from).map(|n| n + 1.0)));
    let enough = Latency::of(&round((0..1_000).map(f64::from).map(|n| n + 1.0)));
    assert_eq!(few.p99, None);
    assert!((enough.p99.unwrap() - 0.99).abs() < 0.001, "{enough:?}");
}

#[test]
fn what_lies_far_out_is_missing_from_the_second_set_only() {
    let all = round((0..200).map(|n| 100.0 + f64::from(n % 5)).chain([5_000.0]));
    let (latency, trimmed) = (Latency::of(&all), Trimmed::of(&all));
    assert_eq!((latency.count, trimmed.count), (201, 200));
    assert_eq!(latency.max, 5.0);
    assert!((trimmed.mean - 0.102).abs() < 0.000_2, "{trimmed:?}");
    assert!(
        trimmed.stddev < 0.002 && latency.stddev > 0.3,
        "{latency:?} {trimmed:?}"
    );
    let interval = trimmed.confidence_interval;
    let half = 1.96 * trimmed.stddev / 200_f64.sqrt();
    assert!((interval.upper - trimmed.mean - half).abs() < half * 0.001);
    assert!((trimmed.mean - interval.lower - half).abs() < half * 0.001);

    let even = round((0..200).map(|n| 100.0 + f64::from(n % 5)));
    assert_eq!(Trimmed::of(&even).count, 200);
    assert_eq!(Trimmed::of(&even).mean, Latency::of(&even).mean);
}
