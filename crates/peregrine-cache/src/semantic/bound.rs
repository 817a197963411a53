//! How much one stored prompt may be trusted for similar ones: learned from what was right and wrong before.
//!
//! After vCache (Schroeder et al.: Verified semantic prompt caching, arXiv 2502.03771): there is no global threshold.
//! Each stored prompt keeps what is known of itself: at which similarities its answer was right for another prompt, and
//! at which it was wrong. The probability that it is right is taken to grow with the similarity along a logistic curve
//! of unknown place and steepness. What is not excluded by the observations (a likelihood-ratio region after Wilks,
//! over a grid of curves) gives the lowest probability `p` that is still credible, and the answer is used with a
//! probability of at most `error / (1 - p)`: so of all requests that are similar to something, no more than `error` get a
//! wrong answer, whatever the curve. A prompt of which little is known is nearly always asked anew, and learned from.

/// Places of the curve, and how steep it may be.
const PLACES: usize = 37;
const STEEPNESSES: [f64; 6] = [4.0, 8.0, 16.0, 32.0, 64.0, 128.0];
/// Half the 99th percentile of chi-squared with two degrees of freedom: what is less likely than the best curve by more
/// than this factor (as a logarithm) is excluded.
const REGION: f64 = 4.605;
/// An observation can be wrong itself (a judge errs): no curve is excluded by a single one.
const DOUBT: f64 = 0.02;

/// What is known of one stored prompt.
#[derive(Debug, Clone)]
pub struct Trust {
    /// The logarithm of how likely the observations are, for each curve.
    likelihoods: Vec<f64>,
    observations: u32,
}

impl Default for Trust {
    fn default() -> Self {
        Self::new()
    }
}

impl Trust {
    /// Nothing is known.
    pub fn new() -> Self {
        Self {
            likelihoods: vec![0.0; PLACES * STEEPNESSES.len()],
            observations: 0,
        }
    }

    /// How often it was observed.
    pub const fn observations(&self) -> u32 {
        self.observations
    }

    /// Notes that at a similarity (-1 to 1) the answer was right or wrong.
    pub fn observe(&mut self, similarity: f64, right: bool) {
        if !similarity.is_finite() {
            return;
        }
        for (likelihood, curve) in self.likelihoods.iter_mut().zip(curves()) {
            let p = DOUBT + (1.0 - 2.0 * DOUBT) * at(curve, similarity);
            *likelihood += if right { p.ln() } else { (1.0 - p).ln() };
        }
        self.observations = self.observations.saturating_add(1);
    }

    /// The lowest credible probability that the answer is right at a similarity.
    pub fn lowest(&self, similarity: f64) -> f64 {
        if self.observations == 0 || !similarity.is_finite() {
            return 0.0;
        }
        let best = self.likelihoods.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        self.likelihoods
            .iter()
            .zip(curves())
            .filter(|(likelihood, _)| **likelihood >= best - REGION)
            .map(|(_, curve)| at(curve, similarity))
            .fold(1.0, f64::min)
    }

    /// With which probability the answer may be used, so that no more than `error` of all requests get a wrong one.
    pub fn exploit(&self, similarity: f64, error: f64) -> f64 {
        let wrong = 1.0 - self.lowest(similarity);
        if wrong <= error { 1.0 } else { error / wrong }
    }
}

/// Place and steepness of each curve; places lie from 0.4, where embeddings of related texts begin, to beyond 1, because a
/// prompt may be right for none but itself, however similar the others are.
fn curves() -> impl Iterator<Item = (f64, f64)> {
    (0..PLACES).flat_map(|place| {
        let place = 0.4 + 0.9 * place as f64 / (PLACES - 1) as f64;
        STEEPNESSES.iter().map(move |steepness| (place, *steepness))
    })
}

fn at((place, steepness): (f64, f64), similarity: f64) -> f64 {
    1.0 / (1.0 + (-steepness * (similarity - place)).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_is_earned_at_a_similarity_and_lost_again() {
        let mut trust = Trust::new();
        assert!(
            trust.exploit(1.0, 0.02) <= 0.02,
            "of an unknown prompt nearly nothing is used"
        );
        for _ in 0..60 {
            trust.observe(0.97, true);
            trust.observe(0.7, false);
        }
        assert!(trust.lowest(0.98) > 0.8, "{}", trust.lowest(0.98));
        assert!(trust.lowest(0.7) < 0.1);
        assert!(
            trust.lowest(0.98) >= trust.lowest(0.9),
            "more similar is never trusted less"
        );
        let before = trust.exploit(0.97, 0.02);
        for _ in 0..20 {
            trust.observe(0.97, false);
        }
        assert!(trust.exploit(0.97, 0.02) < before / 2.0);
        assert_eq!(trust.lowest(f64::NAN), 0.0);
    }

    /// The promise: with a curve that the prompt really has, wrong answers among those used stay below the bound.
    #[test]
    fn no_more_is_wrong_than_was_promised() {
        let mut state = 7_u64;
        let mut random = move || {
            state = super::super::mix(state);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        for (place, steepness) in [(0.8, 30.0), (0.95, 60.0), (0.6, 10.0)] {
            let error = 0.05;
            let (mut trust, mut used, mut wrong, mut asked) = (Trust::new(), 0, 0, 0);
            for _ in 0..4_000 {
                let similarity = 0.5 + random() / 2.0;
                let right = random() < at((place, steepness), similarity);
                asked += 1;
                if random() < trust.exploit(similarity, error) {
                    used += 1;
                    wrong += usize::from(!right);
                } else {
                    trust.observe(similarity, right);
                }
            }
            assert!(used > asked / 20, "it learns: {used} of {asked} used");
            let rate = f64::from(wrong as u32) / f64::from(asked);
            assert!(rate <= error, "{rate} of all were wrong at {place}");
        }
    }
}
