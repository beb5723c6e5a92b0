use tokio::time::Instant;

use super::OutlierDetection;
use super::record::{Record, Standing, Why};

/// A provider as the judge sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member<'a> {
    pub(crate) record: &'a Record,
    pub(crate) connected: bool,
}

/// What a review has decided, by the members' indices.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Decisions {
    pub(crate) ejected: Vec<(usize, Why, Instant)>,
    /// To be asked whether they live.
    pub(crate) probes: Vec<usize>,
    /// Back without a question: their connection is gone, and that of their return says more.
    pub(crate) restored: Vec<usize>,
    /// When to review again, if nothing happens.
    pub(crate) due: Option<Instant>,
}

/// Ejects who has to go, and looks whose time is over; `rates` where the interval of the success rates has ended.
pub(crate) fn review(
    members: &[Member<'_>],
    detection: &OutlierDetection,
    rates: bool,
    now: Instant,
) -> Decisions {
    let mut decisions = Decisions::default();
    for (index, member) in members.iter().enumerate() {
        if member.record.ask(now) {
            if member.connected {
                decisions.probes.push(index);
            } else {
                member.record.restore();
                decisions.restored.push(index);
            }
        }
    }
    let connected = members.iter().filter(|it| it.connected).count();
    let out = members.iter().filter(|it| it.connected && it.record.is_ejected()).count();
    let mut room = most_ejected(connected, detection.most_ejected).saturating_sub(out);
    let mut eject = |index: usize, record: &Record, why: Why| {
        if 0 < room && !record.is_ejected() {
            room -= 1;
            let until = record.eject(why.clone(), detection, now);
            decisions.ejected.push((index, why, until));
        }
    };
    for (index, member) in members.iter().enumerate().filter(|(_, it)| it.connected) {
        if let Some(why) = member.record.charge(detection) {
            eject(index, member.record, why);
        }
    }
    if rates {
        for (index, why) in outliers(members, detection) {
            if let Some(member) = members.get(index) {
                eject(index, member.record, why);
            }
        }
        for member in members.iter().filter(|it| !it.record.is_ejected()) {
            member.record.forgive();
        }
    }
    decisions.due = members
        .iter()
        .filter_map(|member| match member.record.standing() {
            Standing::Out { until, .. } => Some(until),
            Standing::In | Standing::Probed { .. } => None,
        })
        .min();
    decisions
}

/// How many of so many may be out at once.
fn most_ejected(connected: usize, percent: u8) -> usize {
    let share = connected * usize::from(percent.min(100)) / 100;
    // One in any case, unless it is the only one; all never.
    share.max(1).min(connected.saturating_sub(1))
}

/// Those whose success rate lies too far below the mean (gRFC A50, *success rate algorithm*). Begins a new interval.
fn outliers(members: &[Member<'_>], detection: &OutlierDetection) -> Vec<(usize, Why)> {
    let rate = |(index, member): (usize, &Member<'_>)| {
        let (successes, failures) = member.record.take_counts();
        let enough = detection.success_rate_calls.max(1) <= successes + failures;
        (enough && member.connected).then(|| (index, ratio(successes, successes + failures)))
    };
    let rates: Vec<_> = members.iter().enumerate().filter_map(rate).collect();
    if rates.len() < detection.success_rate_providers.max(1) {
        return Vec::new();
    }
    let count = ratio(rates.len() as u64, 1);
    let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
    let variance = rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / count;
    let threshold = mean - variance.sqrt() * detection.success_rate_deviations;
    let low = rates.into_iter().filter(|(_, rate)| *rate < threshold);
    low.map(|(index, rate)| (index, Why::SuccessRate { rate, mean })).collect()
}

fn ratio(part: u64, whole: u64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a ratio of counts; the 53rd bit is nobody's concern"
    )]
    let ratio = part as f64 / whole as f64;
    ratio
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Providers on a clock that stands still until it is told.
    struct Lab {
        start: Instant,
        now: Instant,
        detection: OutlierDetection,
        records: Vec<Record>,
        connected: Vec<bool>,
    }

    impl Lab {
        fn new(providers: usize) -> Self {
            let start = Instant::now();
            let records = (0..providers).map(|_| Record::default()).collect();
            let connected = vec![true; providers];
            Self { start, now: start, detection: OutlierDetection::default(), records, connected }
        }

        fn at(&mut self, seconds: u32) {
            self.now = self.start + SECOND * seconds;
        }

        /// So many failures; whether the last one asks for a review.
        fn fail(&self, index: usize, times: usize) -> bool {
            (0..times).fold(false, |_, _| self.records[index].failed(&self.detection))
        }

        fn fail_all(&self) {
            for index in 0..self.records.len() {
                self.fail(index, 5);
            }
        }

        fn answer(&self, index: usize, times: usize) {
            (0..times).for_each(|_| self.records[index].answered());
        }

        fn review(&self, rates: bool) -> Decisions {
            let members = self.records.iter().zip(&self.connected);
            let members: Vec<_> =
                members.map(|(record, it)| Member { record, connected: *it }).collect();
            review(&members, &self.detection, rates, self.now)
        }

        /// Who was ejected, and for how many seconds.
        #[track_caller]
        fn check(&self, rates: bool, ejected: &[(usize, u64)]) {
            let decisions = self.review(rates);
            let found: Vec<_> = decisions
                .ejected
                .iter()
                .map(|(index, _, until)| (*index, (*until - self.now).as_secs()))
                .collect();
            assert_eq!(found, ejected, "{decisions:?}");
        }
    }

    #[test]
    fn five_failures_in_a_row_eject() {
        let lab = Lab::new(3);
        assert!(!lab.fail(1, 4));
        lab.answer(1, 1);
        assert!(!lab.fail(1, 4));
        lab.check(false, &[]);
        assert!(lab.fail(1, 1), "the fifth asks for a review");
        lab.check(false, &[(1, 1)]);
        lab.check(false, &[]);
    }

    #[test]
    fn a_lost_connection_is_one_failure_however_many_calls_it_carried() {
        let mut lab = Lab::new(3);
        for (second, ejected) in [(1, &[][..]), (3, &[]), (5, &[]), (7, &[]), (9, &[(1, 1)])] {
            lab.at(second);
            for _ in 0..20 {
                if lab.records[1].lost(lab.start + SECOND * (second - 1), lab.now) {
                    lab.fail(1, 1);
                }
            }
            lab.check(false, ejected);
        }
    }

    #[test]
    fn at_most_half_are_out_and_never_all() {
        for (providers, most) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (10, 5)] {
            let lab = Lab::new(providers);
            lab.fail_all();
            assert_eq!(lab.review(true).ejected.len(), most, "of {providers}");
        }
        let mut lab = Lab::new(3);
        lab.detection.most_ejected = 100;
        lab.fail_all();
        assert_eq!(lab.review(false).ejected.len(), 2, "not even where all may be");
    }

    #[test]
    fn who_is_not_connected_is_not_ejected_and_does_not_count() {
        let mut lab = Lab::new(4);
        lab.connected = vec![true, true, false, false];
        lab.fail_all();
        lab.check(false, &[(0, 1)]);
    }

    #[test]
    fn each_ejection_lasts_twice_as_long_up_to_the_limit() {
        let mut lab = Lab::new(2);
        let mut lasted = Vec::new();
        for round in 0..7 {
            lab.at(round * 100);
            assert!(lab.fail(0, 5), "round {round}");
            let (_, _, until) = lab.review(false).ejected[0];
            lasted.push((until - lab.now).as_secs());
            lab.now = until;
            assert_eq!(lab.review(false).probes, [0]);
            lab.records[0].restore();
        }
        assert_eq!(lasted, [1, 2, 4, 8, 16, 30, 30]);
        // Each good interval takes one back.
        (0..4).for_each(|_| drop(lab.review(true)));
        lab.fail(0, 5);
        lab.check(false, &[(0, 8)]);
    }

    #[test]
    fn one_that_returned_is_out_with_its_next_failure_until_it_is_trusted() {
        let mut lab = Lab::new(2);
        lab.fail(0, 5);
        lab.check(false, &[(0, 1)]);
        lab.at(1);
        assert_eq!(lab.review(false).probes, [0]);
        lab.records[0].restore();
        lab.answer(0, 4);
        assert!(lab.fail(0, 1));
        lab.check(false, &[(0, 2)]);
        lab.at(3);
        lab.review(false);
        lab.records[0].restore();
        lab.answer(0, 5);
        assert!(!lab.fail(0, 4));
        lab.check(false, &[]);
    }

    #[test]
    fn one_that_is_not_healthy_stays_out_for_longer() {
        let mut lab = Lab::new(2);
        lab.fail(0, 5);
        lab.check(false, &[(0, 1)]);
        assert_eq!(lab.review(false).due, Some(lab.start + SECOND));
        lab.at(1);
        assert_eq!(lab.review(false).probes, [0]);
        assert_eq!(lab.review(false).probes, [], "one question at a time");
        assert!(lab.records[0].is_ejected());
        lab.records[0].stay_out("no answer".to_owned(), &lab.detection, lab.now);
        assert_eq!(lab.review(false).due, Some(lab.start + SECOND * 3));
        lab.at(3);
        assert_eq!(lab.review(false).probes, [0]);
    }

    #[test]
    fn one_whose_connection_is_gone_returns_with_the_next() {
        let mut lab = Lab::new(2);
        lab.fail(0, 5);
        lab.check(false, &[(0, 1)]);
        lab.connected[0] = false;
        lab.at(1);
        let decisions = lab.review(false);
        assert_eq!((decisions.probes, decisions.restored), (vec![], vec![0]));
        assert!(!lab.records[0].is_ejected());
    }

    #[test]
    fn a_success_rate_far_below_the_others_ejects() {
        let lab = Lab::new(6);
        for index in 0..6 {
            lab.answer(index, 200);
        }
        // 75 % beside five with 100 %, never two failures in a row.
        for _ in 0..120 {
            lab.fail(5, 1);
            lab.answer(5, 1);
        }
        lab.answer(5, 40);
        assert_eq!(lab.review(false).ejected.len(), 0, "rates are compared once an interval");
        lab.check(true, &[(5, 1)]);
        lab.check(true, &[]);
    }

    #[test]
    fn few_calls_or_few_providers_say_nothing() {
        for (providers, calls, ejected) in [(6, 100, 1), (6, 99, 0), (5, 100, 1), (4, 100, 0)] {
            let lab = Lab::new(providers);
            for index in 0..providers {
                lab.answer(index, 100);
            }
            lab.records[0].take_counts();
            for _ in 0..calls / 2 {
                lab.fail(0, 1);
                lab.answer(0, 1);
            }
            lab.answer(0, calls % 2);
            let found = lab.review(true).ejected.len();
            assert_eq!(found, ejected, "{providers} providers, {calls} calls");
        }
    }
}
