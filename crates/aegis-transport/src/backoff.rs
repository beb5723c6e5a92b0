use std::time::Duration;

use tokio::time::Instant;

use crate::clock::LONGEST;
use crate::settings::Backoff;

/// When a node is dialled next. Sans-IO: clock and chance (in 0..1) are arguments.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Attempts {
    /// Dials that failed in a row.
    failures: u32,
    /// Since when.
    since: Option<Instant>,
    given_up: bool,
    /// Connections in a row that ended before they were steady.
    short_lived: u32,
    /// A connection has ended since the last one was made.
    broken: bool,
}

/// So many connections in a row may be short-lived: a process that restarts, say, and is sent away once more.
const EXCUSED: u32 = 2;

/// What a failure is worth in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Say {
    First,
    GivingUp,
    Nothing,
}

impl Attempts {
    /// How often in a row it came to nothing: a dial that failed, or a connection that did not last beyond the excusable.
    pub(crate) fn failures(&self) -> u32 {
        self.failures.max(self.short_lived.saturating_sub(EXCUSED))
    }

    /// A dial failed: how long to wait for the next, and what to log.
    pub(crate) fn failed(
        &mut self,
        settings: &Backoff,
        now: Instant,
        chance: f64,
    ) -> (Duration, Say) {
        let since = *self.since.get_or_insert(now);
        let before = self.failures;
        self.failures = self.failures.saturating_add(1);
        if now.saturating_duration_since(since) < settings.give_up_after {
            let steps = before.saturating_add(self.short_lived.saturating_sub(1));
            let say = if before == 0 { Say::First } else { Say::Nothing };
            return (grown(settings, steps, chance), say);
        }
        let say = if self.given_up { Say::Nothing } else { Say::GivingUp };
        self.given_up = true;
        (jittered(settings.give_up_pace, chance), say)
    }

    /// The node is connected.
    pub(crate) fn connected(&mut self) {
        *self = Self { short_lived: self.short_lived, ..Self::default() };
    }

    /// An established connection ended: how long to wait for the next dial, and what to log; `None` where that is settled,
    /// since another one ended before it and none was made since: what breaks together is one event.
    ///
    /// The successor of one that the peer ended in order is dialled at once; that of a broken one at random within `redial`,
    /// so that the clients of a restarted server do not all come in the same moment.
    /// A peer that takes connections only to end them is treated like one that takes none.
    pub(crate) fn ended(
        &mut self,
        settings: &Backoff,
        lived: Duration,
        orderly: bool,
        chance: f64,
    ) -> Option<(Duration, Say)> {
        if self.broken {
            if settings.steady <= lived {
                self.short_lived = 1;
            }
            return None;
        }
        let short_lived = if settings.steady <= lived { 0 } else { self.short_lived };
        // Failures before this were about further connections.
        *self =
            Self { short_lived: short_lived.saturating_add(1), broken: true, ..Self::default() };
        Some(match self.short_lived {
            1 if orderly => (Duration::ZERO, Say::Nothing),
            ..=EXCUSED => (settings.redial.min(LONGEST).mul_f64(chance), Say::Nothing),
            more => {
                let steps = more - EXCUSED - 1;
                let say = if steps == 0 { Say::First } else { Say::Nothing };
                (grown(settings, steps, chance), say)
            }
        })
    }

    /// Addresses or record changed: everything starts again.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}

fn grown(settings: &Backoff, steps: u32, chance: f64) -> Duration {
    // By 64 steps the limit is far behind; and no overflow.
    let wait = settings.first.as_secs_f64() * settings.factor.powf(f64::from(steps.min(64)));
    let wait = Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX);
    jittered(wait.min(settings.limit), chance)
}

fn jittered(wait: Duration, chance: f64) -> Duration {
    wait.min(LONGEST).mul_f64(0.8 + 0.4 * chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_grow_to_the_limit_and_then_to_the_slow_pace() {
        let (settings, mut attempts) = (Backoff::default(), Attempts::default());
        let start = Instant::now();
        let mut now = start;
        let mut waits = Vec::new();
        let mut said = Vec::new();
        while waits.last().is_none_or(|wait| *wait < settings.give_up_pace) {
            let (wait, say) = attempts.failed(&settings, now, 0.5);
            now += wait;
            waits.push(wait);
            said.push(say);
        }
        assert_eq!(waits[0], SECOND);
        assert_eq!(waits[1], SECOND.mul_f64(1.6));
        assert!(waits.contains(&settings.limit));
        assert!(now - start >= settings.give_up_after + settings.give_up_pace);
        assert_eq!(said[0], Say::First);
        assert_eq!(said.last(), Some(&Say::GivingUp));
        assert_eq!(said.iter().filter(|say| **say != Say::Nothing).count(), 2);
        assert_eq!(attempts.failed(&settings, now, 0.5), (settings.give_up_pace, Say::Nothing));

        attempts.reset();
        assert_eq!(attempts.failed(&settings, now, 0.5), (SECOND, Say::First));
    }

    #[test]
    fn chance_moves_a_wait_by_a_fifth() {
        let settings = Backoff::default();
        for (chance, millis) in [(0.0, 800), (0.5, 1_000), (1.0, 1_200)] {
            let (wait, _) = Attempts::default().failed(&settings, Instant::now(), chance);
            assert_eq!(wait.as_millis(), millis);
        }
    }

    #[test]
    fn a_steady_connection_is_replaced_at_once_and_a_flapping_one_is_not() {
        let (settings, mut attempts) = (Backoff::default(), Attempts::default());
        let long = settings.steady;
        for (orderly, wait) in [(true, Duration::ZERO), (false, settings.redial / 2)] {
            attempts.connected();
            let ended = attempts.ended(&settings, long, orderly, 0.5);
            assert_eq!(ended, Some((wait, Say::Nothing)));
            assert_eq!(attempts.failures(), 0);
        }
        for (wait, say, failures) in [
            (settings.redial / 2, Say::Nothing, 0),
            (SECOND, Say::First, 1),
            (SECOND.mul_f64(1.6), Say::Nothing, 2),
        ] {
            attempts.connected();
            let ended = attempts.ended(&settings, Duration::ZERO, true, 0.5);
            assert_eq!(ended, Some((wait, say)));
            // One that breaks with it changes nothing.
            assert_eq!(attempts.ended(&settings, Duration::ZERO, true, 0.5), None);
            assert_eq!(attempts.failures(), failures);
        }
    }

    #[test]
    fn a_restarted_process_is_dialled_within_three_seconds() {
        let (settings, mut attempts) = (Backoff::default(), Attempts::default());
        let mut now = Instant::now();
        let broke = now;
        now += attempts.ended(&settings, settings.steady, false, 1.0).unwrap().0;
        now += attempts.failed(&settings, now, 1.0).0;
        assert!(now - broke < Duration::from_secs(3));
    }
}
