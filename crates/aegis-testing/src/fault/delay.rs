use std::ops::RangeInclusive;
use std::time::Duration;

use super::seed::Draws;

/// How long something takes: always the same, or drawn from a range each time.
///
/// ```
/// use std::time::Duration;
///
/// use aegis_testing::Delay;
///
/// let always = Delay::from(Duration::from_millis(20));
/// let drawn = Delay::from(Duration::from_millis(5)..=Duration::from_millis(50));
/// assert_ne!(always, drawn);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delay {
    least: Duration,
    most: Duration,
}

impl Delay {
    /// Whether it has to be drawn.
    pub(crate) fn is_range(self) -> bool {
        self.least != self.most
    }

    pub(crate) fn draw(self, draws: &mut Draws) -> Duration {
        if self.is_range() {
            self.least + self.most.saturating_sub(self.least).mul_f64(draws.fraction())
        } else {
            self.least
        }
    }
}

impl From<Duration> for Delay {
    fn from(always: Duration) -> Self {
        Self { least: always, most: always }
    }
}

/// Evenly distributed; a range whose end comes before its start is always its start.
impl From<RangeInclusive<Duration>> for Delay {
    fn from(range: RangeInclusive<Duration>) -> Self {
        let (least, most) = range.into_inner();
        Self { least, most: most.max(least) }
    }
}
