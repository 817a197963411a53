//! Work of a known size, for the tests of the harness.

use std::hint::black_box;

use crate::bench::{Group, each, ours};

pub(super) fn groups() -> Vec<Group> {
    [1_000, 1_050, 2_000].map(spin).into()
}

fn spin(turns: u64) -> Group {
    let workload = format!("a counter that is turned {turns} times");
    let mut group = Group::new(
        format!("selftest/spin/{turns}"),
        workload,
        &[ours("counter").counted()],
        move || {
            vec![each(
                move || (0..black_box(turns)).fold(0_u64, |sum, n| black_box(sum.wrapping_add(n))),
                move |sum| assert_eq!(*sum, turns * (turns - 1) / 2),
            )]
        },
    );
    group.hidden = true;
    group
}
