//! The circuit: a state machine over admissions, ends of calls, and time. No clock, no randomness, no lock of its own.
//!
//! Algorithm: the window is a ring of ten slices, each with its counts; a slice that is asked for again after the
//! window has passed is emptied first. So the window moves by a tenth of itself, costs the same however many calls
//! there are, and never needs a timer.
//!
//! Invariants:
//!
//! - every change of state begins a new generation, and a call counts only in the generation that admitted it: what
//!   was begun while the circuit was closed says nothing about the probes of a later time;
//! - a half-open circuit has at most as many probes under way as allowed, and none of them keeps its place for longer
//!   than its lease;
//! - while open, nothing is admitted before its time has passed.

use std::time::Duration;

use peregrine_core::Monotonic;

use super::BreakerPolicy;

const SLICES: usize = 10;

/// A circuit, for calls of any kind. Time is passed in, and may stand still.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use peregrine_core::Monotonic;
/// use peregrine_providers::BreakerPolicy;
/// use peregrine_providers::breaker::{Circuit, CircuitState, Refusal, Verdict};
///
/// let policy = BreakerPolicy::default().with_failure_rate(0.5, 1).with_jitter(0.0);
/// let mut circuit = Circuit::new(policy);
/// let at = |seconds| Monotonic::new(Duration::from_secs(seconds));
/// let permit = circuit.admit(at(0)).expect("it is closed");
/// circuit.end(permit, Verdict::Failure, at(1), 0.0);
/// assert_eq!(circuit.admit(at(2)), Err(Refusal::Open(Duration::from_secs(4))));
/// assert_eq!(circuit.state(at(6)), CircuitState::HalfOpen);
/// ```
#[derive(Debug, Clone)]
pub struct Circuit {
    policy: BreakerPolicy,
    state: State,
    generation: u64,
    /// How many times in a row it has opened without having been closed again.
    opened: u32,
    next_probe: u64,
}

#[derive(Debug, Clone)]
#[allow(
    clippy::large_enum_variant,
    reason = "there is one for each circuit, closed nearly always"
)]
enum State {
    Closed(Window),
    Open {
        until: Monotonic,
    },
    HalfOpen {
        /// The probes under way: their number and the end of their lease.
        probes: Vec<(u64, Monotonic)>,
        successes: u32,
    },
}

/// What a circuit does with calls now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CircuitState {
    /// Calls go through.
    Closed,
    /// No call goes through for this long.
    Open(Duration),
    /// A few calls go through to find out.
    HalfOpen,
}

/// How a call ended, as far as the circuit cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The provider is there and does its work.
    Success,
    /// It is not, or does not.
    Failure,
    /// The call says nothing about it: it was cancelled, or never got there.
    Neutral,
}

/// The right to make one call. Give it back to [`Circuit::end`] however the call ends.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit that is not given back keeps a probe's place until its lease ends"]
pub struct Permit {
    generation: u64,
    probe: Option<u64>,
}

impl Permit {
    /// Whether the call is a probe of a half-open circuit.
    pub fn is_probe(&self) -> bool {
        self.probe.is_some()
    }
}

/// Why a call is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The circuit is open for this long.
    Open(Duration),
    /// The circuit is half open, and as many probes as allowed are under way.
    Probing,
}

impl Circuit {
    /// A closed circuit.
    pub fn new(policy: BreakerPolicy) -> Self {
        Self {
            state: State::Closed(Window::default()),
            policy,
            generation: 0,
            opened: 0,
            next_probe: 0,
        }
    }

    /// Asks for the right to make a call.
    ///
    /// # Errors
    ///
    /// Why the call is not to be made now.
    pub fn admit(&mut self, now: Monotonic) -> Result<Permit, Refusal> {
        if let State::Open { until } = self.state {
            if now < until {
                return Err(Refusal::Open(until - now));
            }
            self.enter(State::HalfOpen {
                probes: Vec::new(),
                successes: 0,
            });
        }
        let mut probe = None;
        if let State::HalfOpen { probes, successes } = &mut self.state {
            probes.retain(|(_, lease)| now < *lease);
            let needed = self.policy.successes_to_close.max(1).saturating_sub(*successes);
            let room = self.policy.probes.max(1).min(needed);
            if probes.len() >= room as usize {
                return Err(Refusal::Probing);
            }
            probe = Some(self.next_probe);
            probes.push((self.next_probe, now + self.policy.probe_lease));
            self.next_probe += 1;
        }
        Ok(Permit {
            generation: self.generation,
            probe,
        })
    }

    /// Takes note of how a call ended. `random` in `[0, 1)` is for the jitter, if the circuit opens.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "a call ends once, and so does its permit"
    )]
    pub fn end(&mut self, permit: Permit, verdict: Verdict, now: Monotonic, random: f64) {
        if permit.generation != self.generation {
            return;
        }
        match (&mut self.state, permit.probe) {
            (State::Closed(window), _) => {
                window.count(&self.policy, now, verdict);
                if verdict == Verdict::Failure && window.is_bad(&self.policy, now) {
                    self.open(now, random);
                }
            }
            (State::HalfOpen { probes, successes }, Some(number)) => {
                let Some(place) = probes.iter().position(|(known, _)| *known == number) else {
                    return;
                };
                let (_, lease) = probes.swap_remove(place);
                match verdict {
                    Verdict::Failure => self.open(now, random),
                    Verdict::Success if now < lease => {
                        *successes += 1;
                        if *successes >= self.policy.successes_to_close.max(1) {
                            self.opened = 0;
                            self.enter(State::Closed(Window::default()));
                        }
                    }
                    Verdict::Success | Verdict::Neutral => {}
                }
            }
            // Nothing is admitted while it is open, and nothing but probes while it is half open.
            (State::HalfOpen { .. } | State::Open { .. }, _) => {}
        }
    }

    /// What it does with calls now.
    pub fn state(&self, now: Monotonic) -> CircuitState {
        match &self.state {
            State::Closed(_) => CircuitState::Closed,
            State::Open { until } if now < *until => CircuitState::Open(*until - now),
            State::Open { .. } | State::HalfOpen { .. } => CircuitState::HalfOpen,
        }
    }

    /// The failures and the calls of the window. While it is not closed there are none.
    pub fn counts(&self, now: Monotonic) -> (u64, u64) {
        match &self.state {
            State::Closed(window) => window.totals(&self.policy, now),
            State::Open { .. } | State::HalfOpen { .. } => (0, 0),
        }
    }

    fn open(&mut self, now: Monotonic, random: f64) {
        let until = now + self.policy.open_time(self.opened, random);
        self.opened = self.opened.saturating_add(1);
        self.enter(State::Open { until });
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.generation += 1;
    }
}

/// The calls of the last while, in slices.
#[derive(Debug, Clone, Default)]
struct Window([Slice; SLICES]);

#[derive(Debug, Clone, Copy, Default)]
struct Slice {
    /// Which slice of all time it is.
    number: u64,
    successes: u64,
    failures: u64,
}

impl Window {
    fn count(&mut self, policy: &BreakerPolicy, now: Monotonic, verdict: Verdict) {
        let number = slice_number(policy, now);
        let slice = &mut self.0[(number % SLICES as u64) as usize];
        if slice.number < number {
            *slice = Slice {
                number,
                ..Slice::default()
            };
        }
        match verdict {
            Verdict::Success => slice.successes += 1,
            Verdict::Failure => slice.failures += 1,
            Verdict::Neutral => {}
        }
    }

    /// The failures and the calls.
    fn totals(&self, policy: &BreakerPolicy, now: Monotonic) -> (u64, u64) {
        let oldest = slice_number(policy, now).saturating_sub(SLICES as u64 - 1);
        let live = self.0.iter().filter(|slice| slice.number >= oldest);
        live.fold((0, 0), |(failures, calls), slice| {
            (
                failures + slice.failures,
                calls + slice.failures + slice.successes,
            )
        })
    }

    fn is_bad(&self, policy: &BreakerPolicy, now: Monotonic) -> bool {
        let (failures, calls) = self.totals(policy, now);
        calls >= u64::from(policy.min_calls.max(1)) && failures as f64 >= calls as f64 * policy.rate()
    }
}

fn slice_number(policy: &BreakerPolicy, now: Monotonic) -> u64 {
    let length = (policy.window / SLICES as u32).as_nanos().max(1);
    u64::try_from(now.since_origin().as_nanos() / length).unwrap_or(u64::MAX)
}
