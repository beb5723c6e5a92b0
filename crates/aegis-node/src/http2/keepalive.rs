use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use aegis_transport::Heard;
use bytes::Bytes;
use h2::server::Connection;
use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::limits::Limits;
use crate::timer::{after, later};

/// Asks a silent peer for a sign of life.
pub(crate) struct Keepalive {
    ping: Option<PingPong>,
    heard: Heard,
    interval: Duration,
    timeout: Duration,
    asked: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl Keepalive {
    pub(crate) fn new<IO>(
        connection: &mut Connection<IO, Bytes>,
        heard: Heard,
        limits: &Limits,
    ) -> Self
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let (interval, timeout) = (limits.keepalive_interval, limits.keepalive_timeout);
        let timer = Box::pin(sleep_until(after(interval)));
        Self { ping: connection.ping_pong(), heard, interval, timeout, asked: None, timer }
    }

    /// Asks now: a peer that is gone must not hold the end of its connection.
    pub(crate) fn ask(&mut self) {
        if self.asked.is_none()
            && let Some(ping) = &mut self.ping
            && ping.send_ping(Ping::opaque()).is_ok()
        {
            let now = Instant::now();
            self.asked = Some(now);
            self.timer.as_mut().reset(later(now, self.timeout));
        }
    }

    /// Ready when the peer is taken for dead.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(ping) = &mut self.ping else { return Poll::Pending };
        // The answer has to be taken before h2 lets us ask again.
        if self.asked.is_some() && ping.poll_pong(cx).is_ready() {
            self.asked = None;
            self.timer.as_mut().reset(later(self.heard.last(), self.interval));
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let last = self.heard.last();
            let next = match self.asked {
                Some(asked) if last <= asked => return Poll::Ready(()),
                // It sends, though not yet the answer: that is life enough, and the question stands.
                Some(_) => {
                    self.asked = Some(now);
                    later(now, self.timeout)
                }
                None if now < later(last, self.interval) => later(last, self.interval),
                None => {
                    self.asked = ping.send_ping(Ping::opaque()).is_ok().then_some(now);
                    later(now, self.timeout)
                }
            };
            self.timer.as_mut().reset(next);
        }
        Poll::Pending
    }
}
