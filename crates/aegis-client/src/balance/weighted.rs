use std::sync::atomic::{AtomicU64, Ordering};

use super::{Balance, Choices};

/// Gives each provider calls in proportion to its weight: over a list that does not change, exactly, to within one at the
/// end of each round.
///
/// A static stride scheduler (Waldspurger and Weihl, 1995, in the form that gRFC A58 uses): a counter goes round
/// and round, the heaviest provider is taken each time it is passed, the others as often as their weights relate to
/// its. So picks need no lock and no memory but the counter; they pass as many providers as the heaviest one is heavier
/// than the average.
#[derive(Debug, Default)]
pub(crate) struct Weighted {
    next: AtomicU64,
}

impl Balance for Weighted {
    fn pick(&self, choices: &Choices<'_>) -> usize {
        let length = u64::try_from(choices.len()).unwrap_or(u64::MAX).max(1);
        let most = u64::from(choices.heaviest().max(1)) * 1_000;
        loop {
            // Relaxed: the counter orders nothing but itself.
            let turn = self.next.fetch_add(1, Ordering::Relaxed);
            let (round, index) = (turn / length, turn % length);
            // Half a round apart, or all light ones would be taken in the same round.
            let offset = index % 2 * (most / 2);
            let index = usize::try_from(index).unwrap_or_default();
            // Nobody there is no reason to go on for ever.
            let Some(choice) = choices.get(index) else { return 0 };
            let weight = u64::from(choice.weight()) * u64::from(choice.per_mille());
            // Both factors are below 2^24.
            if most <= (weight * (round % most) + offset) % most + weight {
                return index;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::tests::Bench;
    use super::*;

    #[test]
    fn shares_are_as_the_weights() {
        let bench = Bench::weighted(&[100, 200, 700]);
        assert_eq!(bench.shares(&Weighted::default(), 10_000), [1_000, 2_000, 7_000]);
    }

    #[test]
    fn equal_weights_take_turns() {
        let bench = Bench::weighted(&[100, 100, 100]);
        let balance = Weighted::default();
        let picks: Vec<_> = (0..6).map(|_| bench.pick(&balance)).collect();
        assert_eq!(picks, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn light_ones_are_spread_out() {
        let bench = Bench::weighted(&[4, 1, 1]);
        let balance = Weighted::default();
        let picks: Vec<_> = (0..12).map(|_| bench.pick(&balance)).collect();
        let longest = picks.split(|it| *it != 0).map(<[_]>::len).max();
        assert!(longest <= Some(3), "{picks:?}");
    }

    #[test]
    fn another_weight_counts_from_the_next_call_on() {
        let bench = Bench::weighted(&[100, 100]);
        let balance = Weighted::default();
        assert_eq!(bench.shares(&balance, 1_000), [500, 500]);
        bench.weigh(1, 25);
        assert_eq!(bench.shares(&balance, 1_000), [800, 200]);
    }

    #[test]
    fn one_that_has_just_come_gets_a_tenth_of_its_share_at_first() {
        let mut bench = Bench::weighted(&[100, 100]);
        bench.start_slowly(1);
        let balance = Weighted::default();
        assert_eq!(bench.shares(&balance, 1_100), [1_000, 100]);
        bench.at(Duration::from_secs(5));
        assert_eq!(bench.shares(&balance, 1_500), [1_000, 500]);
        bench.at(Duration::from_secs(10));
        assert_eq!(bench.shares(&balance, 1_000), [500, 500]);
    }

    fn float(count: usize) -> f64 {
        u32::try_from(count).map(f64::from).unwrap()
    }

    proptest! {
        #[test]
        fn any_weights_are_kept_to_within_two(
            weights in prop::collection::vec(1_u32..=10_000, 1..12),
            calls in 1_usize..3_000,
        ) {
            let bench = Bench::weighted(&weights);
            let shares = bench.shares(&Weighted::default(), calls);
            let total: f64 = weights.iter().map(|it| f64::from(*it)).sum();
            for (weight, share) in weights.iter().zip(&shares) {
                let part = f64::from(*weight) / total;
                let (ideal, share) = (float(calls) * part, float(*share));
                // One for the rounds gone, one for where in a round they are, and the others' the same.
                let slack = 2.0 + float(weights.len()) * part;
                prop_assert!((ideal - share).abs() <= slack, "{weights:?}: {shares:?}");
            }
        }
    }
}
