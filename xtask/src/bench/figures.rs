//! Medians and ratios.

use std::fmt;

use serde_json::{Value, json};

/// What one client printed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Round {
    pub(crate) per_second: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Of both processes, for one call.
    pub(crate) cpu: f64,
}

impl Round {
    /// Of each figure the median.
    pub(crate) fn middle(rounds: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| median(&rounds.iter().map(figure).collect::<Vec<_>>());
        Self {
            per_second: of(|round| round.per_second),
            p50: of(|round| round.p50),
            p99: of(|round| round.p99),
            cpu: of(|round| round.cpu),
        }
    }
}

/// How aegis compares with its peer in one respect.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ratio {
    /// Of the medians.
    pub(crate) median: f64,
    /// Of the rounds.
    pub(crate) least: f64,
    pub(crate) greatest: f64,
}

impl Ratio {
    /// Rounds are paired by the order in which they were run.
    pub(crate) fn of(ours: &[Round], theirs: &[Round], figure: impl Fn(&Round) -> f64) -> Self {
        let all = |rounds: &[Round]| rounds.iter().map(&figure).collect::<Vec<_>>();
        let (ours, theirs) = (all(ours), all(theirs));
        let rounds = ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs);
        Self {
            median: median(&ours) / median(&theirs),
            least: rounds.clone().fold(f64::INFINITY, f64::min),
            greatest: rounds.fold(f64::NEG_INFINITY, f64::max),
        }
    }

    /// For JSON, which needs no more.
    pub(crate) fn rounded(self) -> f64 {
        thousandths(self.median)
    }

    /// With what the rounds say beside it.
    pub(crate) fn detail(self) -> Value {
        let Self { median, least, greatest } = self;
        json!({ "median": thousandths(median), "least": thousandths(least), "greatest": thousandths(greatest) })
    }
}

/// What the rounds of one system say in one respect.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    least: f64,
    greatest: f64,
}

impl Spread {
    pub(crate) fn of(rounds: &[f64]) -> Self {
        Self {
            median: median(rounds),
            least: rounds.iter().copied().fold(f64::INFINITY, f64::min),
            greatest: rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        }
    }

    pub(crate) fn detail(self, rounded: fn(f64) -> f64) -> Value {
        let Self { median, least, greatest } = self;
        json!({ "median": rounded(median), "least": rounded(least), "greatest": rounded(greatest) })
    }

    /// For a table, with so many digits after the point.
    pub(crate) fn shown(self, digits: usize) -> String {
        let Self { median, least, greatest } = self;
        format!("{median:.digits$} ({least:.digits$}-{greatest:.digits$})")
    }
}

pub(crate) fn thousandths(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

pub(crate) fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// To one place, as far as a figure in microseconds means something.
pub(crate) fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} ({:.2}-{:.2})", self.median, self.least, self.greatest)
    }
}

/// The middle one; of an even number the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = sorted.get(middle).copied().unwrap_or(f64::NAN);
    if sorted.len() % 2 == 1 {
        return upper;
    }
    let lower = middle.checked_sub(1).and_then(|index| sorted.get(index)).copied();
    f64::midpoint(lower.unwrap_or(f64::NAN), upper)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(per_second: &[f64]) -> Vec<Round> {
        per_second.iter().map(|&per_second| Round { per_second, ..Round::default() }).collect()
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "these values are exact")]
    fn the_median_stands_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_ratio_is_of_medians_and_its_range_of_rounds() {
        let ratio =
            Ratio::of(&rounds(&[2.0, 4.0, 6.0]), &rounds(&[1.0, 4.0, 2.0]), |it| it.per_second);
        assert_eq!(ratio, Ratio { median: 2.0, least: 1.0, greatest: 3.0 });
        let detail = json!({ "median": 2.0, "least": 1.0, "greatest": 3.0 });
        assert_eq!(ratio.detail(), detail);
    }

    #[test]
    fn the_middle_of_rounds_is_that_of_each_figure() {
        let round = |per_second, p99| Round { per_second, p99, ..Round::default() };
        let middle = Round::middle(&[round(1.0, 9.0), round(2.0, 7.0), round(3.0, 8.0)]);
        assert_eq!((middle.per_second, middle.p99, middle.p50), (2.0, 8.0, 0.0));
    }
}
