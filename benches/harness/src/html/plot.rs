//! Plots as inline SVG, coloured by the style of the page: distributions of times, and intervals of ratios.

use std::fmt::Write as _;

use super::{Text, class};
use crate::compare::{Row, Severity, Verdict};
use crate::limits::human_ms;
use crate::result::BenchmarkResult;
use crate::samples::{PS_PER_MS, Round};

const WIDTH: f64 = 520.0;
const LABELS: f64 = 132.0;
const RIGHT: f64 = 78.0;
const ROW: f64 = 44.0;
const BINS: usize = 96;

/// A row for each variant, all on one logarithmic scale.
pub(super) fn distributions(page: &mut String, members: &[&BenchmarkResult]) {
    let rounds: Vec<Round> = members
        .iter()
        .map(|member| Round::merged(&member.rounds))
        .collect();
    let end = |round: &Round, share| round.percentile(share).unwrap_or(1).max(1) as f64 / PS_PER_MS;
    let low = rounds
        .iter()
        .map(|round| end(round, 0.0))
        .fold(f64::MAX, f64::min);
    let high = rounds.iter().map(|round| end(round, 0.995)).fold(0.0, f64::max);
    if low > high {
        return;
    }
    // At least a tenth from end to end, with some air.
    let middle = (low * high).sqrt();
    let (low, high) = (low.min(middle / 1.05) / 1.02, high.max(middle * 1.05) * 1.02);
    let (log_low, span) = (low.ln(), (high / low).ln());
    let width = WIDTH - LABELS - RIGHT;
    let x = |ms: f64| LABELS + ((ms.max(low).min(high).ln() - log_low) / span) * width;
    let height = ROW * members.len() as f64 + 26.0;
    let _ = writeln!(
        page,
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"distributions\">"
    );
    let bottom = height - 20.0;
    for ms in ticks(low, high) {
        let at = x(ms);
        let _ = writeln!(
            page,
            "<line class=\"grid\" x1=\"{at:.1}\" y1=\"2\" x2=\"{at:.1}\" y2=\"{bottom:.1}\"/>\
             <text class=\"soft\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            height - 5.0,
            human_ms(ms)
        );
    }
    for (place, (member, round)) in members.iter().zip(&rounds).enumerate() {
        let base = ROW * (place as f64 + 1.0) - 6.0;
        let _ = writeln!(page, "<g class=\"{}\">", class(member.role));
        shape(page, round, (low, span), width, base);
        let interval = &member.confidence_interval;
        let p50 = member.latency_ms.p50;
        let _ = writeln!(
            page,
            "<line class=\"range\" x1=\"{:.1}\" y1=\"{base:.1}\" x2=\"{:.1}\" y2=\"{base:.1}\"/>\
             <circle class=\"mid\" cx=\"{:.1}\" cy=\"{base:.1}\" r=\"4.5\"/>",
            x(interval.lower),
            x(interval.upper),
            x(p50)
        );
        let _ = writeln!(
            page,
            "<text x=\"0\" y=\"{:.1}\">{}</text><text x=\"{WIDTH}\" y=\"{:.1}\" text-anchor=\"end\">{}</text></g>",
            base - 4.0,
            Text(&shortened(member.implementation())),
            base - 4.0,
            human_ms(p50)
        );
    }
    page.push_str("</svg>\n");
}

/// The outline of how samples are distributed, its highest place as high as the row.
fn shape(page: &mut String, round: &Round, (low, span): (f64, f64), width: f64, base: f64) {
    let mut bins = [0.0_f64; BINS];
    for (ps, times) in &round.samples {
        let share = ((*ps as f64 / PS_PER_MS / low).ln() / span).clamp(0.0, 1.0);
        let bin = ((share * BINS as f64) as usize).min(BINS - 1);
        // What lies beyond the scale would pile up at its end.
        if share < 1.0 {
            bins[bin] += *times as f64;
        }
    }
    let smooth = |at: usize| {
        let near = at.saturating_sub(1)..=(at + 1).min(BINS - 1);
        let weight = |place: usize| if place == at { 2.0 } else { 1.0 };
        let total: f64 = near.clone().map(weight).sum();
        near.map(|place| bins[place] * weight(place)).sum::<f64>() / total
    };
    let heights: Vec<f64> = (0..BINS).map(smooth).collect();
    let highest = heights.iter().copied().fold(0.0, f64::max);
    if highest == 0.0 {
        return;
    }
    let mut path = format!("M{LABELS:.1},{base:.1}");
    for (bin, height) in heights.iter().enumerate() {
        let at = LABELS + (bin as f64 + 0.5) / BINS as f64 * width;
        let _ = write!(path, "L{at:.1},{:.1}", base - height / highest * (ROW - 12.0));
    }
    let _ = writeln!(
        page,
        "<path class=\"shape\" d=\"{path}L{:.1},{base:.1}Z\"/>",
        LABELS + width
    );
}

/// Round values between two ends: 1, 2 and 5 of each power of ten, or fewer where that is too many.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let decades = (low.log10().floor() as i32)..=(high.log10().ceil() as i32);
    for steps in [
        &[1.0, 1.2, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0][..],
        &[1.0, 2.0, 5.0],
        &[1.0, 3.0],
        &[1.0],
    ] {
        let ticks: Vec<f64> = decades
            .clone()
            .flat_map(|power| steps.iter().map(move |step| step * 10_f64.powi(power)))
            .filter(|ms| (low..=high).contains(ms))
            .collect();
        if (2..=5).contains(&ticks.len()) {
            return ticks;
        }
        if ticks.len() < 2 {
            break;
        }
    }
    let step = (high - low) / 4.0;
    let digits = 10_f64.powf((1.0 - step.log10()).floor().max(0.0));
    (0..4)
        .map(|place| ((low + step * (f64::from(place) + 0.5)) * digits).round() / digits)
        .collect()
}

fn shortened(name: &str) -> String {
    const LONGEST: usize = 19;
    match name.chars().count() > LONGEST {
        true => name.chars().take(LONGEST - 1).chain(['…']).collect(),
        false => name.to_owned(),
    }
}

/// A bar for how many times as long something takes, on a logarithmic scale up to the longest.
pub(super) fn times(page: &mut String, times: f64, longest: f64) {
    const WIDTH: f64 = 150.0;
    let share = (times.max(1.0).ln() / longest.max(1.1).ln()).clamp(0.0, 1.0);
    let _ = write!(
        page,
        "<svg viewBox=\"0 0 {WIDTH} 14\" style=\"width:{WIDTH}px\" role=\"img\" aria-label=\"times\"><rect class=\"band\" x=\"0\" y=\"2\" \
         width=\"{WIDTH}\" height=\"10\" rx=\"3\"/><rect class=\"worth\" x=\"0\" y=\"2\" width=\"{:.1}\" height=\"10\" rx=\"3\"/></svg>",
        (share * WIDTH).max(3.0)
    );
}

/// Where a ratio lies between a fifth less and a fifth more; the band is the threshold that fails.
pub(super) fn ratio(page: &mut String, [lower, middle, upper]: [f64; 3], row: &Row) {
    const WIDTH: f64 = 150.0;
    let x = |ratio: f64| (WIDTH / 2.0 * (1.0 + (ratio - 1.0) / 0.2)).clamp(4.0, WIDTH - 4.0);
    let class = match (row.severity, row.verdict) {
        (Severity::Fail | Severity::Alert, _) => "bad",
        (_, Verdict::Improved) => "good",
        _ => "calm",
    };
    let fail = row.metric.thresholds().fail;
    let (left, right) = (x(1.0 - fail), x(1.0 + fail));
    let _ = write!(
        page,
        "<svg viewBox=\"0 0 {WIDTH} 18\" style=\"width:{WIDTH}px\" role=\"img\" aria-label=\"interval\"><rect class=\"band\" x=\"{left:.1}\" \
         y=\"2\" width=\"{:.1}\" height=\"14\" rx=\"3\"/><line class=\"zero\" x1=\"{z}\" y1=\"1\" x2=\"{z}\" y2=\"17\"/>\
         <g class=\"{class}\"><line class=\"range\" x1=\"{:.1}\" y1=\"9\" x2=\"{:.1}\" y2=\"9\"/><circle class=\"mid\" cx=\"{:.1}\" cy=\"9\" r=\"4\"/></g></svg>",
        right - left,
        x(lower),
        x(upper),
        x(middle),
        z = WIDTH / 2.0,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_have_a_few_round_values_within_them() {
        for (low, high) in [
            (0.021, 0.024),
            (0.02, 0.9),
            (1.0, 1.1),
            (0.000_1, 50.0),
            (3e-7, 4e-7),
            (950.0, 1_050.0),
        ] {
            let ticks = ticks(low, high);
            assert!((1..=6).contains(&ticks.len()), "{low} {high}: {ticks:?}");
            assert!(
                ticks.iter().all(|ms| *ms > low / 1.2 && *ms < high * 1.2),
                "{low} {high}: {ticks:?}"
            );
        }
    }

    #[test]
    fn long_names_are_cut() {
        assert_eq!(shortened("peregrine"), "peregrine");
        assert_eq!(shortened("a-very-long-implementation").chars().count(), 19);
    }
}
