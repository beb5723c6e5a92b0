use super::{Balance, Choice, Choices};

/// Compares two providers chosen at random and takes the one with less to do.
///
/// Two instead of all: from a view that is always a little old, the best of all would be everybody's choice at once
/// (M. Mitzenmacher, *The power of two choices in randomized load balancing*, 2001). What is compared is latency times
/// requests in hand, as in Finagle's and linkerd's P2C over Peak-EWMA, over the part that a slow start allows.
#[derive(Debug, Default)]
pub(crate) struct LeastLoaded;

impl Balance for LeastLoaded {
    fn pick(&self, choices: &Choices<'_>) -> usize {
        let (one, other) = two(choices.len(), fastrand::u64(..));
        match (choices.get(one), choices.get(other)) {
            (Some(a), Some(b)) if is_better(b, a) => other,
            _ => one,
        }
    }
}

/// Whether `a` has less to do than `b`.
fn is_better(a: Choice<'_>, b: Choice<'_>) -> bool {
    // Of one that was never measured nothing is assumed but what is known of the other: then the requests in hand
    // decide, so it gets its share, and no more, until its first answer.
    let (x, y) = match (a.seconds(), b.seconds()) {
        (Some(x), Some(y)) => (x, y),
        (Some(x), None) | (None, Some(x)) => (x, x),
        (None, None) => (1.0, 1.0),
    };
    cost(a, x) < cost(b, y)
}

fn cost(choice: Choice<'_>, latency: f64) -> f64 {
    let in_hand = u32::try_from(choice.in_flight()).unwrap_or(u32::MAX);
    // An average that has faded away says nothing, but the requests in hand still do.
    latency.max(1e-9) * (f64::from(in_hand) + 1.0) / choice.slow_start()
}

/// Two different indices below `length`, or the same one where there is one only; each pair in each order is as likely.
fn two(length: usize, random: u64) -> (usize, usize) {
    let below = |random: u64, length: usize| {
        let index = ((random & 0xffff_ffff) * u64::try_from(length).unwrap_or(u64::MAX)) >> 32;
        usize::try_from(index).unwrap_or_default()
    };
    let one = below(random, length);
    let other = below(random >> 32, length.saturating_sub(1));
    (one, if one <= other && 1 < length { other + 1 } else { other })
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::{BTreeMap, BinaryHeap};
    use std::time::Duration;

    use super::super::tests::{Bench, MS};
    use super::*;
    use crate::load::Outcome;

    #[test]
    fn each_pair_is_as_likely() {
        let mut pairs = BTreeMap::new();
        for high in 0..300_u64 {
            for low in 0..300_u64 {
                // Spread over all 32 bits of each half.
                let random = (high * (u64::from(u32::MAX) / 300)) << 32
                    | (low * (u64::from(u32::MAX) / 300));
                *pairs.entry(two(3, random)).or_insert(0) += 1;
            }
        }
        let counts: Vec<_> = pairs.values().copied().collect();
        assert_eq!(pairs.len(), 6, "{pairs:?}");
        assert!(counts.iter().all(|it| (14_700..15_300).contains(it)), "{pairs:?}");
        assert!(pairs.keys().all(|(one, other)| one != other));
        assert_eq!(two(1, u64::MAX), (0, 0));
        assert_eq!(two(0, u64::MAX), (0, 0));
    }

    #[test]
    fn the_one_with_fewer_requests_in_hand_is_taken() {
        let bench = Bench::new(&["a", "b"]);
        bench.observe(0, Outcome::Answered, MS * 10);
        bench.observe(1, Outcome::Answered, MS * 10);
        for index in [0, 0, 1] {
            bench.begin(index);
        }
        assert_eq!(bench.shares(&LeastLoaded, 100), [0, 100]);
    }

    #[test]
    fn ties_are_broken_at_random() {
        let bench = Bench::new(&["a", "b", "c"]);
        let shares = bench.shares(&LeastLoaded, 3_000);
        assert!(shares.iter().all(|it| (800..1_200).contains(it)), "{shares:?}");
    }

    #[test]
    fn a_slow_one_gets_calls_only_once_the_others_have_as_much_to_do() {
        let bench = Bench::new(&["fast", "slow"]);
        bench.observe(0, Outcome::Answered, MS);
        bench.observe(1, Outcome::Answered, MS * 50);
        for _ in 0..49 {
            assert_eq!(bench.pick(&LeastLoaded), 0);
            bench.begin(0);
        }
        bench.begin(0);
        assert_eq!(bench.pick(&LeastLoaded), 1);
    }

    #[test]
    fn a_slow_one_is_tried_again_after_a_while() {
        let mut bench = Bench::new(&["fast", "slow"]);
        bench.observe(1, Outcome::Answered, MS * 50);
        // e^-t/10 of 50 ms is below 1 ms after 39.1 s.
        for (second, expected) in [(1, 0), (39, 0), (40, 1)] {
            bench.at(Duration::from_secs(second));
            bench.observe(0, Outcome::Answered, MS);
            assert_eq!(bench.pick(&LeastLoaded), expected, "after {second} s");
        }
    }

    #[test]
    fn failing_fast_attracts_nobody() {
        let bench = Bench::new(&["good", "bad"]);
        bench.observe(0, Outcome::Answered, MS);
        for outcome in [Outcome::Failed, Outcome::Refused] {
            bench.observe(1, outcome, Duration::ZERO);
            assert_eq!(bench.shares(&LeastLoaded, 100), [100, 0]);
        }
    }

    #[test]
    fn one_that_was_never_measured_is_neither_flooded_nor_starved() {
        let bench = Bench::new(&["known", "new"]);
        bench.observe(0, Outcome::Answered, MS);
        for _ in 0..100 {
            bench.begin(bench.pick(&LeastLoaded));
        }
        assert_eq!(bench.in_flight(), [50, 50]);
    }

    #[test]
    fn one_that_has_just_come_gets_a_tenth_of_a_share_at_first() {
        let mut bench = Bench::new(&["old", "new"]);
        bench.start_slowly(1);
        for (second, share) in [(0, 9..=11), (5, 36..=38), (10, 54..=56)] {
            bench.at(Duration::from_secs(second));
            bench.end_all();
            for _ in 0..110 {
                bench.begin(bench.pick(&LeastLoaded));
            }
            let taken = bench.in_flight()[1];
            assert!(share.contains(&taken), "{taken} of 110 after {second} s");
        }
    }

    /// Thirty callers, each with its next call as soon as it has its answer, for so long; how many calls each provider
    /// got. `reply` says how long one takes and how it ends.
    fn crowd(
        ids: &[&str],
        lasts: Duration,
        reply: impl Fn(usize, Duration) -> (Duration, Outcome),
    ) -> Vec<usize> {
        fastrand::seed(7);
        let mut bench = Bench::new(ids);
        let mut calls = vec![0; ids.len()];
        let mut ends: BinaryHeap<_> = (0..30).map(|_| Reverse((Duration::ZERO, None))).collect();
        while let Some(Reverse((now, ended))) = ends.pop() {
            bench.at(now);
            if let Some((index, began)) = ended {
                let (_, outcome) = reply(index, began);
                bench.end(index);
                bench.observe(index, outcome, now.saturating_sub(began));
            }
            if now < lasts {
                let index = bench.pick(&LeastLoaded);
                bench.begin(index);
                calls[index] += 1;
                ends.push(Reverse((now + reply(index, now).0, Some((index, now)))));
            }
        }
        calls
    }

    #[track_caller]
    fn check_share(calls: &[usize], index: usize, per_mille: usize) {
        let all: usize = calls.iter().sum();
        assert!(calls[index] * 1_000 <= all * per_mille, "{calls:?}");
    }

    #[test]
    fn a_slow_provider_beside_two_fast_ones_gets_less_than_a_hundredth() {
        let calls = crowd(&["slow", "a", "b"], Duration::from_secs(5), |index, _| {
            (if index == 0 { MS * 50 } else { MS }, Outcome::Answered)
        });
        check_share(&calls, 0, 1);
        check_share(&calls, 1, 600);
        check_share(&calls, 2, 600);
    }

    #[test]
    fn a_stall_of_our_own_is_forgotten_soon() {
        let calls = crowd(&["slow", "a", "b"], Duration::from_secs(5), |index, began| {
            // Whatever is under way when the first second ends is answered late.
            let took = if index == 0 { MS * 50 } else { MS };
            let stall = Duration::from_secs(1);
            let stalls = began < stall && stall <= began + took;
            (if stalls { took + MS * 250 } else { took }, Outcome::Answered)
        });
        check_share(&calls, 0, 10);
    }

    #[test]
    fn a_provider_that_fails_at_once_gets_less_than_a_hundredth() {
        let calls = crowd(&["bad", "a", "b"], Duration::from_secs(5), |index, _| {
            if index == 0 { (MS / 10, Outcome::Failed) } else { (MS, Outcome::Answered) }
        });
        check_share(&calls, 0, 1);
    }
}
