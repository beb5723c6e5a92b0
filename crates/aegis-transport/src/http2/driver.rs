use aegis_core::Chain;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Ping, PingPong, Reason};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::gather::Gather;
use crate::heard::Heard;
use crate::http2::connection::Connection;
use crate::keepalive::{Verdict, Watchdog};
use crate::signals::Counters;
use crate::slots::Phase;

/// How long a goodbye may take when nothing is in flight any more.
const GOODBYE: Duration = Duration::from_secs(1);

/// Drives one connection until it ends: reads and writes, sees GOAWAYs and limits, asks a silent peer.
///
/// Dropping it cuts the connection.
pub(crate) struct Driver<IO> {
    http2: h2::client::Connection<IO, Bytes>,
    /// A handle of our own to look for a GOAWAY; while it lives, h2 does not say goodbye.
    probe: Option<SendRequest<Bytes>>,
    connection: Arc<Connection>,
    heard: Heard,
    watchdog: Watchdog,
    ping: Option<PingPong>,
    asked: bool,
    busy: bool,
    /// Where a task that was woken runs next, before those that are ready.
    gather: Option<Gather>,
    timer: Pin<Box<Sleep>>,
    goodbye: Option<Pin<Box<Sleep>>>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Driver<IO> {
    pub(crate) fn new(
        mut http2: h2::client::Connection<IO, Bytes>,
        probe: SendRequest<Bytes>,
        connection: Arc<Connection>,
        heard: Heard,
        mut watchdog: Watchdog,
    ) -> Self {
        let runtime = Handle::current().runtime_flavor();
        let (_, judge_at) = watchdog.judge(Instant::now(), heard.last(), false);
        Self {
            ping: http2.ping_pong(),
            http2,
            probe: Some(probe),
            connection,
            heard,
            watchdog,
            asked: false,
            busy: false,
            gather: (runtime == RuntimeFlavor::MultiThread).then(Gather::default),
            timer: Box::pin(sleep_until(judge_at)),
            goodbye: None,
        }
    }

    /// A GOAWAY shows nowhere else while a stream is open.
    fn look_for_go_away(&mut self, cx: &mut Context<'_>) {
        let Some(probe) = &mut self.probe else {
            return;
        };
        let Poll::Ready(Err(error)) = probe.poll_ready(cx) else {
            return;
        };
        if !self.connection.is_open() {
            return;
        }
        if error.is_go_away() && error.is_remote() {
            let signals = &self.connection.signals;
            Counters::add(&signals.counters.go_aways);
            // h2 shows the debug data in the text only.
            if error.reason() == Some(Reason::ENHANCE_YOUR_CALM)
                && error.to_string().contains("too_many_pings")
            {
                signals.too_many_pings.fetch_add(1, Ordering::Relaxed);
                tracing::info!(
                    node = %self.connection.node, address = %self.connection.address,
                    "node calls our PINGs too many: asking it half as often"
                );
            }
            tracing::debug!(
                node = %self.connection.node, address = %self.connection.address, %error,
                "node is closing a connection"
            );
            self.connection.send_away();
        } else {
            self.connection.leave();
        }
    }

    /// Judges the peer's silence; the socket has been read. `false` once it is dead.
    fn watch(&mut self, cx: &mut Context<'_>) -> bool {
        if self.asked
            && let Some(ping) = &mut self.ping
            && ping.poll_pong(cx).is_ready()
        {
            self.asked = false;
            self.watchdog.answered();
        }
        let busy = 0 < self.connection.in_flight();
        let mut due = busy != self.busy || self.connection.is_stalled();
        self.busy = busy;
        loop {
            let fired = self.timer.as_mut().poll(cx).is_ready();
            if !fired && !due {
                return true;
            }
            due = false;
            let now = Instant::now();
            let (verdict, again) = self.watchdog.judge(now, self.heard.last(), busy);
            self.connection.set_stalled(verdict == Verdict::Stalled);
            match verdict {
                Verdict::Alive | Verdict::Stalled => {}
                // Fails only on a connection that is gone, as the next poll will say.
                Verdict::Ask => {
                    if let Some(ping) = &mut self.ping {
                        self.asked = ping.send_ping(Ping::opaque()).is_ok();
                    }
                }
                Verdict::Dead => return false,
            }
            if fired || again < self.timer.deadline() {
                let earliest = now + Duration::from_millis(1);
                self.timer.as_mut().reset(again.max(earliest));
            }
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Future for Driver<IO> {
    type Output = Arc<Connection>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.connection.register_driver(cx.waker());
        let (opened, in_flight) = (this.connection.opened(), this.connection.in_flight());
        if let Some(gather) = &mut this.gather
            && gather.steps_back(opened, in_flight, Instant::now)
        {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if Phase::Closing <= this.connection.phase() {
            this.probe = None;
            let goodbye = this.goodbye.get_or_insert_with(|| Box::pin(sleep(GOODBYE)));
            if goodbye.as_mut().poll(cx).is_ready() {
                this.connection.end(|| "it was closed".to_owned());
                return Poll::Ready(Arc::clone(&this.connection));
            }
        }
        if let Poll::Ready(outcome) = Pin::new(&mut this.http2).poll(cx) {
            this.look_for_go_away(cx);
            this.connection.end(|| match outcome {
                Ok(()) => "the peer closed it".to_owned(),
                Err(error) => Chain::new(&error).to_string(),
            });
            return Poll::Ready(Arc::clone(&this.connection));
        }
        this.connection.set_peer_limit(this.http2.max_concurrent_send_streams());
        this.look_for_go_away(cx);
        if !this.watch(cx) {
            this.connection.end(|| "the peer has not answered for too long".to_owned());
            return Poll::Ready(Arc::clone(&this.connection));
        }
        Poll::Pending
    }
}

impl<IO> Drop for Driver<IO> {
    fn drop(&mut self) {
        // For one that was aborted.
        self.connection.end(|| "it was closed".to_owned());
    }
}
