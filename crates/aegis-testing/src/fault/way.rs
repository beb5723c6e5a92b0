use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::link::Direction;
use super::queue::Queue;
use super::rules::{Rule, Shared};
use super::seed::Draws;

/// One direction.
pub(super) struct Way {
    pub(super) direction: Direction,
    pub(super) queue: Queue,
    pub(super) timer: Option<Pin<Box<Sleep>>>,
    pub(super) draws: Draws,
    /// Bytes that have arrived, and how many had when the present limit was set.
    pub(super) passed: u64,
    pub(super) passed_before: u64,
    /// After the last byte: when, and why.
    pub(super) end: Option<(Instant, io::Result<()>)>,
}

impl Way {
    pub(super) fn new(direction: Direction, draws: Draws) -> Self {
        Self {
            direction,
            queue: Queue::default(),
            timer: None,
            draws,
            passed: 0,
            passed_before: 0,
            end: None,
        }
    }

    /// How many bytes may still pass.
    pub(super) fn left(&self, rule: &Rule) -> usize {
        match rule.limit {
            Some((direction, bytes, _)) if direction == self.direction => {
                let left = bytes.saturating_sub(self.passed - self.passed_before);
                usize::try_from(left).unwrap_or(usize::MAX)
            }
            _ => usize::MAX,
        }
    }

    pub(super) fn pass(&mut self, bytes: usize) {
        // A usize has no more bits than a u64 anywhere.
        self.passed += bytes as u64;
    }

    /// When bytes arrive that set off now.
    pub(super) fn due(&mut self, shared: &Shared, rule: &Rule) -> Instant {
        let delay = rule.delay.map(|delay| shared.draw(delay, &mut self.draws));
        Instant::now() + delay.unwrap_or(Duration::ZERO)
    }

    pub(super) fn poll_until(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        let timer = match &mut self.timer {
            Some(timer) => {
                if timer.deadline() != due {
                    timer.as_mut().reset(due);
                }
                timer
            }
            none => none.insert(Box::pin(sleep_until(due))),
        };
        timer.as_mut().poll(cx)
    }
}
