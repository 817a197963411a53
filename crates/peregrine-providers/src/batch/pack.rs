//! Which texts go into one call.
//!
//! Algorithm: first come, first packed. A batch ends where the next text would exceed a limit. Filling gaps with later
//! texts (bin packing) would save few calls of many short texts and make what fails together hard to foresee.

/// Divides items, given by their tokens, into runs of at most `max_items` that have at most `max_tokens` together. An item
/// that is larger than that by itself is a run by itself. The runs are given by their lengths.
pub(super) fn pack(tokens: impl IntoIterator<Item = u64>, max_items: usize, max_tokens: u64) -> Vec<usize> {
    let mut runs = Vec::new();
    let (mut items, mut sum) = (0, 0_u64);
    for tokens in tokens {
        let full = items == max_items.max(1) || sum.saturating_add(tokens) > max_tokens;
        if items > 0 && full {
            runs.push(items);
            (items, sum) = (0, 0);
        }
        items += 1;
        sum = sum.saturating_add(tokens);
    }
    if items > 0 {
        runs.push(items);
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn runs_end_at_either_limit_and_large_items_stand_alone() {
        assert_eq!(pack([1; 250], 100, 1_000), [100, 100, 50]);
        assert_eq!(pack([4, 4, 4, 20, 1, 1], 100, 10), [2, 1, 1, 2]);
        assert_eq!(pack([u64::MAX, u64::MAX, 0], 0, 0), [1, 1, 1]);
        assert!(pack([], 100, 10).is_empty());
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_no_run_could_take_its_successor(
            tokens in proptest::collection::vec(0..50_u64, 0..200), items in 1..20_usize, most in 1..100_u64,
        ) {
            let runs = pack(tokens.iter().copied(), items, most);
            prop_assert_eq!(runs.iter().sum::<usize>(), tokens.len());
            let mut rest = &tokens[..];
            for run in runs {
                let (these, next) = rest.split_at(run);
                let sum: u64 = these.iter().sum();
                prop_assert!(run >= 1 && run <= items && (run == 1 || sum <= most));
                if let Some(next) = next.first() {
                    prop_assert!(run == items || sum + next > most);
                }
                rest = next;
            }
        }
    }
}
