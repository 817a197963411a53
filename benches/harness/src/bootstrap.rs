//! Bootstrap intervals (Efron, 1979) of a median, and of the ratio of two medians.
//!
//! What is drawn again is the round, not the sample. A round is one process; samples within it share its memory layout,
//! its hash seeds and whatever else the machine did just then, so to draw samples would claim far more evidence than there
//! is. The ends are percentiles of what was drawn, moved outwards as few rounds need (the expanded percentile interval:
//! Hesterberg, "What Teachers Should Know About the Bootstrap", 2015).
//!
//! Below six rounds no interval of their medians reaches 95 %; then the interval is from the smallest to the largest round,
//! and its confidence is what that has: 1 - 2^(1 - rounds), the sign test's. One round alone is drawn by samples. The
//! median of n independent draws from samples is the sample at the place of the median of n uniform draws, which is
//! Beta-distributed, so each draw costs the same however many samples there are.
//!
//! Draws are seeded: the same samples give the same interval.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::samples::Round;

/// How often is drawn.
pub const DRAWS: usize = 2_000;
/// What everything random here starts from.
pub const SEED: u64 = 42;
/// How sure an interval is to be.
pub const CONFIDENCE: f64 = 0.95;
/// From how many rounds on an interval can reach that.
pub const ROUNDS_FOR_CONFIDENCE: usize = 6;

/// What was drawn again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Whole rounds.
    Rounds,
    /// Nothing: from the smallest to the largest round, because there are too few of them.
    RangeOfRounds,
    /// The samples of the only round.
    Samples,
}

/// Where a figure lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The figure of the samples themselves.
    pub estimate: f64,
    /// Lower end.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
    /// How sure, from 0 to 1.
    pub confidence: f64,
    /// How it was found.
    pub method: Method,
}

impl Interval {
    /// The interval of the median of samples, in picoseconds. `None` without samples.
    pub fn of_median(rounds: &[Round]) -> Option<Self> {
        let draws = Drawable::new(rounds)?;
        let estimate = draws.median();
        let mut random = fastrand::Rng::with_seed(SEED);
        Some(match draws.method() {
            Method::RangeOfRounds => Self::range(estimate, rounds.iter().map(Round::median)),
            Method::Rounds => {
                let drawn = (0..DRAWS).map(|_| draws.of_rounds(&draw(&mut random, rounds.len())));
                Self::percentiles(estimate, drawn.collect(), rounds.len())
            }
            Method::Samples => {
                let drawn = (0..DRAWS).map(|_| draws.of_samples(&mut random));
                Self::of_samples(estimate, drawn.collect())
            }
        })
    }

    /// The interval of the ratio of the medians, head to base. Rounds that were `paired`, run in turns and equally many,
    /// are drawn together, so that what slowed both down does not count. `None` if one has no samples.
    pub fn of_ratio(base: &[Round], head: &[Round], paired: bool) -> Option<Self> {
        let (below, above) = (Drawable::new(base)?, Drawable::new(head)?);
        let estimate = above.median() / below.median();
        let paired = paired && base.len() == head.len();
        let mut random = fastrand::Rng::with_seed(SEED);
        let fewest = base.len().min(head.len());
        Some(match (below.method(), above.method()) {
            (Method::Rounds, Method::Rounds) => {
                let drawn = (0..DRAWS).map(|_| {
                    let picked = draw(&mut random, base.len());
                    let other = match paired {
                        true => above.of_rounds(&picked),
                        false => above.of_rounds(&draw(&mut random, head.len())),
                    };
                    other / below.of_rounds(&picked)
                });
                Self::percentiles(estimate, drawn.collect(), fewest)
            }
            (Method::Samples, Method::Samples) => {
                let drawn = (0..DRAWS).map(|_| above.of_samples(&mut random) / below.of_samples(&mut random));
                Self::of_samples(estimate, drawn.collect())
            }
            _ if paired => Self::range(
                estimate,
                base.iter().zip(head).map(|(b, h)| h.median() / b.median()),
            ),
            _ => {
                let every = base
                    .iter()
                    .flat_map(|b| head.iter().map(move |h| h.median() / b.median()));
                let mut all = Self::range(estimate, every);
                all.confidence = 1.0 - 0.5_f64.powi(i32::try_from(fewest).unwrap_or(i32::MAX) - 1);
                all
            }
        })
    }

    fn range(estimate: f64, medians: impl Iterator<Item = f64>) -> Self {
        let (mut lower, mut upper, mut count) = (estimate, estimate, 0);
        for median in medians {
            (lower, upper, count) = (lower.min(median), upper.max(median), count + 1);
        }
        Self {
            estimate,
            lower,
            upper,
            confidence: 1.0 - 0.5_f64.powi(count - 1),
            method: Method::RangeOfRounds,
        }
    }

    fn percentiles(estimate: f64, drawn: Vec<f64>, rounds: usize) -> Self {
        Self::between(estimate, drawn, expanded_tail(rounds), Method::Rounds)
    }

    fn of_samples(estimate: f64, drawn: Vec<f64>) -> Self {
        Self::between(estimate, drawn, (1.0 - CONFIDENCE) / 2.0, Method::Samples)
    }

    fn between(estimate: f64, mut drawn: Vec<f64>, tail: f64, method: Method) -> Self {
        drawn.sort_unstable_by(f64::total_cmp);
        let last = drawn.len() - 1;
        let lower = ((tail * last as f64).floor() as usize).min(last);
        Self {
            estimate,
            lower: drawn[lower].min(estimate),
            upper: drawn[last - lower].max(estimate),
            confidence: CONFIDENCE,
            method,
        }
    }
}

/// How often each round is drawn.
fn draw(random: &mut fastrand::Rng, rounds: usize) -> Vec<u64> {
    let mut times = vec![0; rounds];
    for _ in 0..rounds {
        times[random.usize(0..rounds)] += 1;
    }
    times
}

/// The samples of several rounds in one order, with how many of each round lie up to each value: to find the median of
/// rounds drawn again takes as many looks as the number of values has binary digits.
struct Drawable {
    /// Every value, ascending.
    values: Vec<u64>,
    /// For each value, one after the other: how many samples of each round do not exceed it.
    upto: Vec<u64>,
    counts: Vec<u64>,
}

impl Drawable {
    fn new(rounds: &[Round]) -> Option<Self> {
        let counts: Vec<u64> = rounds.iter().map(|round| round.moments.count).collect();
        if counts.is_empty() || counts.contains(&0) {
            return None;
        }
        let mut samples: Vec<_> = rounds
            .iter()
            .enumerate()
            .flat_map(|(place, round)| {
                round
                    .samples
                    .iter()
                    .map(move |(value, times)| (*value, place, *times))
            })
            .collect();
        samples.sort_unstable();
        let (mut values, mut upto) = (Vec::new(), Vec::new());
        let mut seen = vec![0; rounds.len()];
        for of_value in samples.chunk_by(|one, next| one.0 == next.0) {
            for (_, place, times) in of_value {
                seen[*place] += times;
            }
            values.push(of_value[0].0);
            upto.extend_from_slice(&seen);
        }
        Some(Self { values, upto, counts })
    }

    fn method(&self) -> Method {
        match self.counts.len() {
            1 => Method::Samples,
            few if few < ROUNDS_FOR_CONFIDENCE => Method::RangeOfRounds,
            _ => Method::Rounds,
        }
    }

    fn median(&self) -> f64 {
        self.of_rounds(&vec![1; self.counts.len()])
    }

    /// The median of rounds that were each drawn so often.
    fn of_rounds(&self, times: &[u64]) -> f64 {
        self.at(weighted(&self.counts, times).div_ceil(2), times)
    }

    /// The median of as many samples as there are, drawn from the only round.
    fn of_samples(&self, random: &mut fastrand::Rng) -> f64 {
        let count = self.counts[0];
        let middle = count.div_ceil(2) as f64;
        // The k-th smallest of n uniform values is Beta(k, n + 1 - k).
        let (below, above) = (gamma(random, middle), gamma(random, count as f64 + 1.0 - middle));
        let rank = (below / (below + above) * count as f64).ceil() as u64;
        self.at(rank.clamp(1, count), &[1])
    }

    /// The sample of a rank, with each round so often.
    fn at(&self, rank: u64, times: &[u64]) -> f64 {
        let (mut low, mut high) = (0, self.values.len() - 1);
        while low < high {
            let middle = low.midpoint(high);
            let row = &self.upto[middle * times.len()..][..times.len()];
            match weighted(row, times) >= rank {
                true => high = middle,
                false => low = middle + 1,
            }
        }
        self.values[low] as f64
    }
}

fn weighted(counts: &[u64], times: &[u64]) -> u64 {
    counts.iter().zip(times).map(|(count, times)| count * times).sum()
}

/// A value of the gamma distribution of a shape from 1 on (Marsaglia and Tsang, 2000).
fn gamma(random: &mut fastrand::Rng, shape: f64) -> f64 {
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(random);
        let v = (1.0 + c * x).powi(3);
        if v <= 0.0 {
            continue;
        }
        let u = 1.0 - random.f64();
        if u.ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

/// A value of the standard normal distribution (Box and Muller, 1958).
pub(crate) fn normal(random: &mut fastrand::Rng) -> f64 {
    let (u, v) = (1.0 - random.f64(), random.f64());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// How much of the draws lies beyond each end of a 95 % interval that so few rounds gave.
fn expanded_tail(rounds: usize) -> f64 {
    let n = rounds as f64;
    below_minus((n / (n - 1.0)).sqrt() * student(rounds - 1))
}

/// The 97.5th percentile of Student's distribution.
fn student(freedom: usize) -> f64 {
    const TABLE: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145,
        2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048,
        2.045, 2.042,
    ];
    match freedom {
        0 => f64::INFINITY,
        1..=30 => TABLE[freedom - 1],
        // The first term of its expansion around the normal distribution (Fisher, 1941).
        _ => 1.96 + 2.372 / freedom as f64,
    }
}

/// The share of the normal distribution below `-x`, for `x` from 0 on (Abramowitz and Stegun, 26.2.17; error below
/// 7.5e-8).
fn below_minus(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * x);
    let sum = t
        * (0.319_381_530
            + t * (-0.356_563_782 + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt() * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_normal_tail_is_that_of_the_tables() {
        for (x, tail) in [
            (0.0, 0.5),
            (1.0, 0.158_655_25),
            (1.959_964, 0.025),
            (3.0, 0.001_349_9),
        ] {
            assert!((below_minus(x) - tail).abs() < 1e-6, "{x}");
        }
    }

    #[test]
    fn few_rounds_reach_further_out() {
        let tails: Vec<f64> = [6, 10, 20, 40, 400].into_iter().map(expanded_tail).collect();
        assert!(tails.windows(2).all(|pair| pair[0] < pair[1]), "{tails:?}");
        assert!(tails[0] > 0.0 && (tails[4] - 0.025).abs() < 0.001, "{tails:?}");
    }

    #[test]
    fn gamma_values_have_the_mean_and_the_variance_of_their_shape() {
        let mut random = fastrand::Rng::with_seed(7);
        for shape in [1.0, 5.0, 500.0] {
            const COUNT: usize = 40_000;
            let values: Vec<f64> = (0..COUNT).map(|_| gamma(&mut random, shape)).collect();
            let mean = values.iter().sum::<f64>() / COUNT as f64;
            let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / COUNT as f64;
            assert!((mean / shape - 1.0).abs() < 0.03, "{shape}: mean {mean}");
            assert!(
                (variance / shape - 1.0).abs() < 0.08,
                "{shape}: variance {variance}"
            );
        }
    }
}
