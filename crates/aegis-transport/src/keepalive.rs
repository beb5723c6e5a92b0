use std::time::Duration;

use tokio::time::Instant;

use crate::clock::later;
use crate::settings::{Keepalive, Pace};

/// Whether a peer still answers. Sans-IO: the driver tells it what it has heard, and when.
#[derive(Debug)]
pub(crate) struct Watchdog {
    settings: Keepalive,
    foreign: bool,
    /// How often the peer has called our PINGs too many.
    doubled: u32,
    /// Since when something has been wanted of it: the first stream that it has not answered with a byte.
    ///
    /// Silence before that does not count. Only a byte ends it, not the end of the stream: whoever gave up on the peer
    /// has learnt nothing, and calls that are shorter than our patience must not start it anew.
    wanted: Option<Instant>,
    asked: Option<Asked>,
    stalled: Option<Stall>,
}

#[derive(Debug)]
struct Stall {
    /// When the last byte before it came: a later one ends it.
    heard: Instant,
    dead_at: Instant,
}

#[derive(Debug)]
struct Asked {
    at: Instant,
    /// h2 has one PING at a time: until its answer came no other can be sent.
    unanswered: bool,
}

/// What the driver has to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Alive,
    /// Send a PING.
    Ask,
    /// Keep new calls away: it has not answered in time.
    Stalled,
    /// Close the connection.
    Dead,
}

impl Watchdog {
    pub(crate) fn new(settings: Keepalive, foreign: bool, doubled: u32) -> Self {
        Self { settings, foreign, doubled, wanted: None, asked: None, stalled: None }
    }

    /// The peer answered the PING.
    pub(crate) fn answered(&mut self) {
        if let Some(asked) = &mut self.asked {
            asked.unanswered = false;
        }
    }

    /// Judges the peer, after the socket was read: `heard` is when its last byte came.
    ///
    /// Returns also when to judge again, unless something happens before.
    pub(crate) fn judge(&mut self, now: Instant, heard: Instant, busy: bool) -> (Verdict, Instant) {
        if !busy && self.wanted.is_some_and(|since| since <= heard) {
            self.wanted = None;
        }
        if busy {
            self.wanted.get_or_insert(now);
        }
        if let Some(stall) = &self.stalled {
            // Streams that come and go do not change that it is silent.
            if heard <= stall.heard {
                let verdict = if now < stall.dead_at { Verdict::Stalled } else { Verdict::Dead };
                return (verdict, stall.dead_at);
            }
            self.stalled = None;
        }
        let pace = self.pace();
        let base = self.wanted.map_or(heard, |since| heard.max(since));
        let ask_at = later(base, pace.silence);
        if now < ask_at {
            return (Verdict::Alive, ask_at);
        }
        let Some(asked) = &mut self.asked else {
            self.asked = Some(Asked { at: now, unanswered: true });
            return (Verdict::Ask, later(now, pace.answer));
        };
        // On a clock that stands still, as a paused one does, the answer comes in the moment of the question.
        if asked.at < base || !asked.unanswered {
            // An older PING that is still unanswered has to serve for this silence too.
            let verdict = if asked.unanswered { Verdict::Alive } else { Verdict::Ask };
            *asked = Asked { at: now, unanswered: true };
            return (verdict, later(now, pace.answer));
        }
        let late_at = later(asked.at, pace.answer);
        if now < late_at {
            return (Verdict::Alive, late_at);
        }
        let dead_at =
            later(base, self.settings.dead_after).max(later(asked.at, self.settings.idle.answer));
        self.stalled = Some(Stall { heard, dead_at });
        (if now < dead_at { Verdict::Stalled } else { Verdict::Dead }, dead_at)
    }

    fn pace(&self) -> Pace {
        let pace = match (self.foreign, self.wanted.is_some()) {
            (true, _) => self.settings.foreign,
            (false, true) => self.settings.busy,
            (false, false) => self.settings.idle,
        };
        // An hour between two PINGs is as good as none.
        let silence = pace.silence.saturating_mul(1 << self.doubled.min(12));
        Pace { silence: silence.min(Duration::from_secs(3_600)).max(pace.silence), ..pace }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Run {
        watchdog: Watchdog,
        start: Instant,
    }

    impl Run {
        fn new(foreign: bool) -> Self {
            let start = Instant::now();
            Self { watchdog: Watchdog::new(Keepalive::default(), foreign, 0), start }
        }

        fn at(&self, millis: u64) -> Instant {
            self.start + Duration::from_millis(millis)
        }

        #[track_caller]
        fn judge(&mut self, now: u64, heard: u64, busy: bool, verdict: Verdict, again: u64) {
            let (now, heard) = (self.at(now), self.at(heard));
            assert_eq!(self.watchdog.judge(now, heard, busy), (verdict, self.at(again)));
        }
    }

    #[test]
    fn a_silent_peer_with_streams_is_asked_stalls_and_dies() {
        let mut run = Run::new(false);
        run.judge(0, 0, true, Verdict::Alive, 1_000);
        run.judge(1_000, 0, true, Verdict::Ask, 2_000);
        run.judge(1_500, 0, true, Verdict::Alive, 2_000);
        run.judge(2_000, 0, true, Verdict::Stalled, 20_000);
        run.judge(19_999, 0, true, Verdict::Stalled, 20_000);
        run.judge(20_000, 0, true, Verdict::Dead, 20_000);
    }

    #[test]
    fn an_answer_in_the_moment_of_the_question_counts() {
        let mut run = Run::new(false);
        run.judge(0, 0, true, Verdict::Alive, 1_000);
        run.judge(1_000, 0, true, Verdict::Ask, 2_000);
        run.watchdog.answered();
        run.judge(1_000, 1_000, true, Verdict::Alive, 2_000);
        run.judge(2_000, 1_000, true, Verdict::Ask, 3_000);
        run.judge(3_000, 1_000, true, Verdict::Stalled, 21_000);
    }

    #[test]
    fn any_byte_ends_a_stall_even_without_the_answer() {
        let mut run = Run::new(false);
        run.judge(0, 0, true, Verdict::Alive, 1_000);
        run.judge(1_000, 0, true, Verdict::Ask, 2_000);
        run.judge(2_000, 0, true, Verdict::Stalled, 20_000);
        run.judge(2_100, 2_050, true, Verdict::Alive, 3_050);
        // The old PING stands for a new one.
        run.judge(3_050, 2_050, true, Verdict::Alive, 4_050);
        run.judge(4_050, 2_050, true, Verdict::Stalled, 22_050);
    }

    #[test]
    fn silence_counts_from_the_first_stream() {
        let mut run = Run::new(false);
        run.judge(0, 0, false, Verdict::Alive, 30_000);
        run.judge(25_000, 0, true, Verdict::Alive, 26_000);
        run.judge(26_000, 0, true, Verdict::Ask, 27_000);
        run.judge(27_000, 0, true, Verdict::Stalled, 45_000);
        // The caller gave up, the next one comes: still stalled.
        run.judge(27_100, 0, false, Verdict::Stalled, 45_000);
        run.judge(28_000, 0, true, Verdict::Stalled, 45_000);
    }

    #[test]
    fn short_calls_to_a_silent_peer_put_nothing_off() {
        let mut run = Run::new(false);
        run.judge(0, 0, false, Verdict::Alive, 30_000);
        // A call of half a second each second, none of them answered.
        run.judge(5_000, 0, true, Verdict::Alive, 6_000);
        run.judge(5_500, 0, false, Verdict::Alive, 6_000);
        run.judge(6_000, 0, true, Verdict::Ask, 7_000);
        run.judge(6_500, 0, false, Verdict::Alive, 7_000);
        run.judge(7_000, 0, true, Verdict::Stalled, 25_000);
        run.judge(7_500, 0, false, Verdict::Stalled, 25_000);
        run.judge(25_000, 0, true, Verdict::Dead, 25_000);
    }

    #[test]
    fn one_call_that_was_given_up_is_enough_to_ask() {
        let mut run = Run::new(false);
        run.judge(5_000, 0, true, Verdict::Alive, 6_000);
        run.judge(5_100, 0, false, Verdict::Alive, 6_000);
        run.judge(6_000, 0, false, Verdict::Ask, 7_000);
        run.watchdog.answered();
        // The answer: nothing is wanted of it any more.
        run.judge(6_010, 6_005, false, Verdict::Alive, 36_005);
        run.judge(20_000, 6_005, true, Verdict::Alive, 21_000);
        run.judge(20_010, 20_005, false, Verdict::Alive, 50_005);
    }

    #[test]
    fn an_idle_peer_is_asked_every_half_minute() {
        let mut run = Run::new(false);
        run.judge(0, 0, false, Verdict::Alive, 30_000);
        run.judge(30_000, 0, false, Verdict::Ask, 40_000);
        run.watchdog.answered();
        run.judge(30_100, 30_050, false, Verdict::Alive, 60_050);
        run.judge(60_050, 30_050, false, Verdict::Ask, 70_050);
        run.judge(70_050, 30_050, false, Verdict::Dead, 70_050);
    }

    #[test]
    fn a_foreign_server_is_asked_every_five_minutes_busy_or_not() {
        let mut run = Run::new(true);
        run.judge(0, 0, true, Verdict::Alive, 300_000);
        run.judge(300_000, 0, true, Verdict::Ask, 320_000);
    }

    #[test]
    fn each_complaint_doubles_the_silence() {
        let start = Instant::now();
        let mut watchdog = Watchdog::new(Keepalive::default(), false, 2);
        assert_eq!(
            watchdog.judge(start, start, true),
            (Verdict::Alive, start + Duration::from_secs(4))
        );
    }

    #[test]
    fn a_process_that_slept_asks_before_it_judges() {
        let mut run = Run::new(false);
        run.judge(0, 0, true, Verdict::Alive, 1_000);
        run.judge(60_000, 0, true, Verdict::Ask, 61_000);
        run.judge(61_000, 0, true, Verdict::Stalled, 70_000);
    }
}
