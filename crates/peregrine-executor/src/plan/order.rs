//! An order in which each step comes behind all that it waits for, or a cycle. No recursion.
//!
//! A gate that refers to other steps makes everything behind its step wait for those. It is a vertex of its own here,
//! between its step and what depends on that, so that the edges stay linear in the plan.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::Compiled;

/// The places in the order of Kahn (Topological sorting of large networks, 1962), the smallest first where there is a
/// choice; or a cycle, each place depending on the next one and the last on the first.
pub(super) fn topological(steps: &[Arc<Compiled>]) -> Result<Vec<u32>, Vec<u32>> {
    let needs = Needs::of(steps);
    let mut missing = vec![0_u32; needs.vertices()];
    let mut behind: Vec<Vec<u32>> = vec![Vec::new(); needs.vertices()];
    for vertex in needs.all() {
        for needed in needs.of_vertex(vertex) {
            behind[needed as usize].push(vertex);
            missing[vertex as usize] += 1;
        }
    }
    let mut free: BinaryHeap<Reverse<u32>> = needs
        .all()
        .filter(|vertex| missing[*vertex as usize] == 0)
        .map(Reverse)
        .collect();
    let mut order = Vec::with_capacity(steps.len());
    let mut ended = Vec::new();
    while let Some(Reverse(place)) = free.pop() {
        order.push(place);
        ended.push(place);
        // Gates end with what they wait for, so that they do not hold up the order.
        while let Some(vertex) = ended.pop() {
            for &next in &behind[vertex as usize] {
                let count = &mut missing[next as usize];
                *count -= 1;
                match *count {
                    0 if needs.is_gate(next) => ended.push(next),
                    0 => free.push(Reverse(next)),
                    _ => {}
                }
            }
        }
    }
    if order.len() == steps.len() {
        Ok(order)
    } else {
        Err(cycle(&needs, &missing))
    }
}

/// What waits for what. The vertices are the places of the steps, and behind them one for each step whose gates refer to
/// other steps.
struct Needs<'a> {
    steps: &'a [Arc<Compiled>],
    /// By place, the vertex of its gates, or its own.
    gates: Vec<u32>,
    /// By vertex of gates, from the first one on, the place of the step.
    gated: Vec<u32>,
}

impl<'a> Needs<'a> {
    fn of(steps: &'a [Arc<Compiled>]) -> Self {
        let mut gated = Vec::new();
        let gates = (0..).zip(steps).map(|(place, step)| {
            let mut checks = step.checks.iter();
            if checks.all(|check| !check.check.policy.is_gate() || check.dependencies.is_empty()) {
                return place;
            }
            gated.push(place);
            as_vertex(steps.len() + gated.len() - 1)
        });
        let gates = gates.collect();
        Self { steps, gates, gated }
    }

    fn vertices(&self) -> usize {
        self.steps.len() + self.gated.len()
    }

    fn all(&self) -> impl Iterator<Item = u32> + use<> {
        0..as_vertex(self.vertices())
    }

    fn is_gate(&self, vertex: u32) -> bool {
        vertex as usize >= self.steps.len()
    }

    fn of_vertex(&self, vertex: u32) -> Box<dyn Iterator<Item = u32> + '_> {
        let behind_gates = |place: &u32| self.gates[*place as usize];
        match (vertex as usize).checked_sub(self.steps.len()) {
            None => Box::new(self.steps[vertex as usize].dependencies.iter().map(behind_gates)),
            Some(gate) => {
                let place = self.gated[gate];
                let checks = self.steps[place as usize].checks.iter();
                let gates = checks.filter(|check| check.check.policy.is_gate());
                let others = gates.flat_map(|check| &check.dependencies).copied();
                Box::new(std::iter::once(place).chain(others))
            }
        }
    }
}

fn as_vertex(count: usize) -> u32 {
    u32::try_from(count).expect("plans have at most a million steps")
}

/// Walks from a vertex that is still missing something to what it misses, until it comes to one for the second time.
fn cycle(needs: &Needs<'_>, missing: &[u32]) -> Vec<u32> {
    let stuck = |vertex: u32| missing[vertex as usize] > 0;
    let mut seen_at = vec![None; missing.len()];
    let mut path = Vec::new();
    let mut next = needs.all().find(|vertex| stuck(*vertex));
    while let Some(vertex) = next {
        if let Some(start) = seen_at[vertex as usize] {
            path.drain(..start);
            break;
        }
        seen_at[vertex as usize] = Some(path.len());
        path.push(vertex);
        next = needs.of_vertex(vertex).find(|needed| stuck(*needed));
    }
    path.retain(|vertex| !needs.is_gate(*vertex));
    path
}
