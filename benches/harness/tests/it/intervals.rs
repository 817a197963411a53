//! Bootstrap intervals: as often right as they say, on distributions of which the median is known.

use peregrine_harness::bootstrap::{CONFIDENCE, Interval, Method};
use peregrine_harness::samples::Round;

use crate::support::{round, rounds};

const RUNS: u64 = 1_000;

fn normal(random: &mut fastrand::Rng) -> f64 {
    let (u, v) = (1.0 - random.f64(), random.f64());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// A name, a value, and the median of such values.
type Distribution = (&'static str, fn(&mut fastrand::Rng) -> f64, f64);

const DISTRIBUTIONS: [Distribution; 4] = [
    ("normal", |random| 1_000.0 + 100.0 * normal(random), 1_000.0),
    (
        "log-normal",
        |random| 1_000.0 * (0.8 * normal(random)).exp(),
        1_000.0,
    ),
    (
        "exponential",
        |random| -1_000.0 * (1.0 - random.f64()).ln(),
        1_000.0 * std::f64::consts::LN_2,
    ),
    ("uniform", |random| 500.0 + 1_000.0 * random.f64(), 1_000.0),
];

/// How often the intervals of such runs contain a value, as a share.
fn coverage(mut run: impl FnMut(&mut fastrand::Rng) -> Interval, truth: f64) -> f64 {
    let mut random = fastrand::Rng::with_seed(42);
    let hits = (0..RUNS).filter(|_| {
        let interval = run(&mut random);
        (interval.lower..=interval.upper).contains(&truth)
    });
    hits.count() as f64 / RUNS as f64
}

#[test]
fn an_interval_of_one_round_is_right_as_often_as_it_says() {
    for (name, value, median) in DISTRIBUTIONS {
        for count in [61, 501] {
            let covered = coverage(
                |random| {
                    let samples = round((0..count).map(|_| value(random)));
                    let interval = Interval::of_median(&[samples]).unwrap();
                    assert_eq!(
                        (interval.method, interval.confidence),
                        (Method::Samples, CONFIDENCE)
                    );
                    interval
                },
                median * 1e6,
            );
            assert!(
                (0.91..=0.985).contains(&covered),
                "{name}, {count} samples: {covered}"
            );
        }
    }
}

#[test]
fn an_interval_of_rounds_is_right_although_samples_of_a_round_are_alike() {
    for (name, value, median) in DISTRIBUTIONS {
        for count in [6, 10] {
            let covered = coverage(
                |random| {
                    let one = |random: &mut fastrand::Rng| {
                        let shift = (0.03 * normal(random)).exp();
                        round((0..60).map(|_| shift * value(random)))
                    };
                    let rounds: Vec<Round> = (0..count).map(|_| one(random)).collect();
                    let interval = Interval::of_median(&rounds).unwrap();
                    assert_eq!(interval.method, Method::Rounds);
                    interval
                },
                median * 1e6,
            );
            assert!(
                (0.90..=1.0).contains(&covered),
                "{name}, {count} rounds: {covered}"
            );
        }
    }
    // What taking samples for independent would claim of the same rounds.
    let covered = coverage(
        |random| {
            let mut all = Vec::new();
            for _ in 0..10 {
                let shift = (0.03 * normal(random)).exp();
                all.extend((0..200).map(|_| shift * (1_000.0 + 20.0 * normal(random))));
            }
            Interval::of_median(&[round(all)]).unwrap()
        },
        1e9,
    );
    assert!(covered < 0.5, "this is why rounds are drawn: {covered}");
}

#[test]
fn a_ratio_of_equal_sides_contains_one() {
    for paired in [false, true] {
        let covered = coverage(
            |random| {
                let weather: Vec<f64> = (0..10).map(|_| (0.10 * normal(random)).exp()).collect();
                let mut side = || -> Vec<Round> {
                    let one = |weather: &f64| {
                        let shift = weather * (0.02 * normal(random)).exp();
                        round((0..50).map(|_| shift * 1_000.0 * (0.1 * normal(random)).exp()))
                    };
                    weather.iter().map(one).collect()
                };
                let (base, head) = (side(), side());
                Interval::of_ratio(&base, &head, paired).unwrap()
            },
            1.0,
        );
        assert!((0.90..=1.0).contains(&covered), "paired {paired}: {covered}");
    }
}

#[test]
fn rounds_in_turns_forgive_what_slowed_both() {
    let mut random = fastrand::Rng::with_seed(7);
    let mut side = |factor: f64| -> Vec<Round> {
        let weather = [1.0, 1.5, 0.8, 2.0, 1.2, 0.9, 1.7, 1.1, 1.3, 1.0];
        let one =
            |weather: f64| round((0..100).map(|_| factor * weather * 1_000.0 * (1.0 + 0.01 * random.f64())));
        weather.into_iter().map(one).collect()
    };
    let (base, head) = (side(1.0), side(1.2));
    let paired = Interval::of_ratio(&base, &head, true).unwrap();
    let apart = Interval::of_ratio(&base, &head, false).unwrap();
    assert!(paired.lower > 1.1 && paired.upper < 1.3, "{paired:?}");
    assert!(
        apart.upper - apart.lower > 3.0 * (paired.upper - paired.lower),
        "{apart:?}"
    );
}

#[test]
fn few_rounds_admit_how_little_they_know() {
    let all = rounds(1_000.0);
    for count in 2..=5 {
        let interval = Interval::of_median(&all[..count]).unwrap();
        assert_eq!(interval.method, Method::RangeOfRounds);
        assert_eq!(
            interval.confidence,
            1.0 - 0.5_f64.powi(i32::try_from(count).unwrap() - 1)
        );
    }
    assert_eq!(Interval::of_median(&all[..6]).unwrap().confidence, CONFIDENCE);
    assert_eq!(Interval::of_median(&[]), None);
    assert_eq!(Interval::of_median(&[Round::default()]), None);
    assert_eq!(Interval::of_ratio(&all, &[], true), None);
}

#[test]
fn the_same_samples_give_the_same_interval() {
    let all = rounds(1_000.0);
    assert_eq!(Interval::of_median(&all), Interval::of_median(&all));
    assert_eq!(Interval::of_ratio(&all, &all, true).unwrap().estimate, 1.0);
    assert_eq!(Interval::of_ratio(&all, &all, true).unwrap().upper, 1.0);
}
