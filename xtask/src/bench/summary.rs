//! What all rounds of a case say of one system.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::figures::{Spread, hundredths, median, tenths};

/// Counts of all rounds together, and times and throughput of the middle one.
pub(crate) struct Summary {
    calls: u64,
    failed: u64,
    codes: BTreeMap<String, u64>,
    /// The share of the third provider: of what was sent if that was counted, or else of what was answered.
    third: f64,
    late: u64,
    per_second: Spread,
    p50: f64,
    p99: Spread,
    max: f64,
}

impl Summary {
    pub(crate) fn of(rounds: &[Value]) -> Self {
        let all = |name: &str| -> Vec<f64> {
            rounds.iter().filter_map(|round| round.get(name)?.as_f64()).collect()
        };
        let millis =
            |name: &str| all(name).iter().map(|micros| micros / 1_000.0).collect::<Vec<_>>();
        let count = |name: &str| -> u64 {
            rounds.iter().filter_map(|round| round.get(name)?.as_u64()).sum()
        };
        let of_third = |round: &Value| round.get("answered_by")?.get("3")?.as_u64();
        let mut codes = BTreeMap::new();
        for round in rounds.iter().filter_map(|round| round.get("failures")?.as_object()) {
            for (code, count) in round {
                *codes.entry(code.clone()).or_insert(0) += count.as_u64().unwrap_or_default();
            }
        }
        let answered = count("calls");
        let third = match count("sent") {
            0 => share(rounds.iter().filter_map(of_third).sum(), answered),
            sent => share(count("sent_to_third"), sent),
        };
        Self {
            calls: answered + count("failed"),
            failed: count("failed"),
            codes,
            third,
            late: count("late"),
            per_second: Spread::of(&all("per_second")),
            p50: median(&millis("p50_us")),
            p99: Spread::of(&millis("p99_us")),
            max: millis("max_us").into_iter().fold(0.0, f64::max),
        }
    }

    pub(crate) fn row(&self, name: &str) -> String {
        let codes = self.codes.iter().map(|(code, count)| format!("{code} {count}"));
        format!(
            "{name:>20} {:>8} {:>8} {:>7.2}% {:>8} {:>9.1} {:>22} {:>9.0} {:>21} {:>6.1}%  {}",
            self.calls,
            self.failed,
            share(self.failed, self.calls) * 100.0,
            self.late,
            self.p50,
            self.p99.shown(1),
            self.max,
            self.per_second.shown(0),
            self.third * 100.0,
            codes.collect::<Vec<_>>().join(", "),
        )
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "calls": self.calls,
            "failed": self.failed,
            "failed_percent": hundredths(share(self.failed, self.calls) * 100.0),
            "failures": self.codes,
            "late": self.late,
            "p50_ms": hundredths(self.p50),
            "p99_ms": hundredths(self.p99.median),
            "max_ms": tenths(self.max),
            "per_second": self.per_second.median.round(),
            "third_percent": hundredths(self.third * 100.0),
            "of_rounds": {
                "p99_ms": self.p99.detail(hundredths),
                "per_second": self.per_second.detail(f64::round),
            },
        })
    }
}

pub(crate) fn heading() -> String {
    format!(
        "{:>20} {:>8} {:>8} {:>8} {:>8} {:>9} {:>22} {:>9} {:>21} {:>7}  codes",
        "", "calls", "failed", "", "> 1 s", "p50 ms", "p99 ms", "max ms", "calls/s", "third"
    )
}

#[expect(clippy::cast_precision_loss, reason = "counts of calls are far below 2^53")]
fn share(part: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { part as f64 / all as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(per_second: f64, p99_us: f64) -> Value {
        json!({
            "calls": 90,
            "failed": 10,
            "failures": { "Unavailable": 10 },
            "answered_by": { "1": 60, "3": 30 },
            "late": 1,
            "per_second": per_second,
            "p50_us": 1_000.0,
            "p99_us": p99_us,
            "max_us": 9_000.0,
        })
    }

    #[test]
    fn what_rounds_say_is_their_median_with_the_least_and_the_greatest() {
        let rounds = [round(200.0, 4_000.0), round(100.0, 8_000.0), round(300.0, 6_000.0)];
        let summary = Summary::of(&rounds);
        let expected = json!({
            "calls": 300,
            "failed": 30,
            "failed_percent": 10.0,
            "failures": { "Unavailable": 30 },
            "late": 3,
            "p50_ms": 1.0,
            "p99_ms": 6.0,
            "max_ms": 9.0,
            "per_second": 200.0,
            "third_percent": 33.33,
            "of_rounds": {
                "p99_ms": { "median": 6.0, "least": 4.0, "greatest": 8.0 },
                "per_second": { "median": 200.0, "least": 100.0, "greatest": 300.0 },
            },
        });
        assert_eq!(summary.json(), expected);
        let row = summary.row("aegis");
        assert!(row.contains("6.0 (4.0-8.0)") && row.contains("200 (100-300)"), "{row}");
        // Also of the requests that it failed, where they were counted.
        let counted =
            json!({ "calls": 90, "answered_by": { "1": 90 }, "sent": 100, "sent_to_third": 10 });
        assert_eq!(Summary::of(&[counted]).json()["third_percent"], 10.0);
        assert_eq!(heading().find("codes"), row.find("Unavailable"), "{row}");
    }
}
