//! One accepted connection: HTTP/2, its calls, and the ways in which it ends.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use aegis_tls::Caller;
use bytes::Bytes;
use h2::server::{self, Connection};
use h2::{Ping, PingPong};
use http::Extensions;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpConnectInfo;

use crate::activity::{Activity, Watched};
use crate::call;
use crate::dispatch::Routes;
use crate::limits::Limits;
use crate::stats::Counters;

/// h2's own guards against floods. Their defaults close honest connections:
/// callers that time out or cancel reset streams, and readers of many small events fill the frame budget.
const RESET_STREAMS: usize = 1_024;
const LOCAL_ERROR_RESETS: usize = 16_384;
const DATA_FRAME_BUDGET: usize = 64 << 20;

/// What the calls of one connection share.
pub(crate) struct Shared {
    pub(crate) routes: Arc<Routes>,
    pub(crate) message_bytes: usize,
    pub(crate) header_bytes: usize,
    /// Cancelled when the calls of this connection have to end.
    pub(crate) terminate: CancellationToken,
    pub(crate) counters: Arc<Counters>,
    pub(crate) caller: Caller,
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) local: Option<SocketAddr>,
}

impl Shared {
    /// Tells a handler who calls and from where.
    pub(crate) fn describe(&self, extensions: &mut Extensions) {
        extensions.insert(self.caller.clone());
        // What `Request::remote_addr` and `local_addr` of tonic read.
        extensions.insert(TcpConnectInfo { local_addr: self.local, remote_addr: self.remote });
    }
}

/// Serves a connection until its peer or its age ends it, or `drain` and then `shared.terminate` are cancelled.
///
/// Dropping the future closes the connection and drops its handlers.
pub(crate) async fn serve<IO>(io: IO, shared: Shared, limits: Limits, drain: CancellationToken)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let (io, activity) = Watched::new(io);
    let handshake = builder(&limits).handshake::<_, Bytes>(io);
    let mut connection = match timeout(limits.handshake_timeout, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            return tracing::debug!(peer = %shared.caller.node_id(), %error, "no HTTP/2 connection");
        }
        Err(_) => {
            return tracing::debug!(peer = %shared.caller.node_id(), "the peer sent no HTTP/2 preface in time");
        }
    };
    let mut keepalive = Keepalive::new(&mut connection, activity, &limits);
    let shared = Arc::new(shared);
    let mut calls = JoinSet::new();
    let mut draining = false;
    let mut drained = pin!(drain.cancelled());
    let mut age = pin!(sleep_until(far_from(jitter(limits.max_age))));
    let mut grace = pin!(sleep_until(far_from(Duration::MAX)));

    loop {
        tokio::select! {
            biased;
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    let shared = Arc::clone(&shared);
                    shared.counters.calls.add(1);
                    calls.spawn(async move { call::serve(request, respond, &shared).await });
                }
                Some(Err(error)) => {
                    tracing::debug!(peer = %shared.caller.node_id(), %error, "the connection broke");
                    return;
                }
                None => return,
            },
            Some(_) = calls.join_next(), if !calls.is_empty() => {}
            () = &mut drained, if !draining => {
                draining = true;
                connection.graceful_shutdown();
            }
            () = &mut age, if !draining => {
                draining = true;
                connection.graceful_shutdown();
                grace.as_mut().reset(far_from(limits.max_age_grace));
            }
            () = &mut grace => {
                shared.terminate.cancel();
                grace.as_mut().reset(far_from(Duration::MAX));
            }
            () = poll_fn(|cx| keepalive.poll(cx)) => {
                tracing::debug!(peer = %shared.caller.node_id(), "the peer gave no sign of life");
                return;
            }
        }
    }
}

fn builder(limits: &Limits) -> server::Builder {
    let streams = usize::try_from(limits.streams).unwrap_or(usize::MAX);
    let mut builder = server::Builder::new();
    builder
        .initial_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.header_list_bytes)
        .max_pending_accept_reset_streams(streams.max(RESET_STREAMS))
        .max_concurrent_reset_streams(RESET_STREAMS)
        .max_local_error_reset_streams(Some(LOCAL_ERROR_RESETS))
        .data_frame_budget(DATA_FRAME_BUDGET);
    builder
}

/// ± 10 %, so that connections opened together are not replaced together.
fn jitter(age: Duration) -> Duration {
    age.mul_f64(0.9 + 0.2 * fastrand::f64())
}

/// A deadline from now, or one that never comes where the clock cannot hold it.
fn far_from(delay: Duration) -> Instant {
    const NEVER: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 30);
    let now = Instant::now();
    now.checked_add(delay.min(NEVER)).unwrap_or(now)
}

/// Asks a silent peer for a sign of life.
struct Keepalive {
    ping: Option<PingPong>,
    activity: Activity,
    interval: Duration,
    timeout: Duration,
    asked: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl Keepalive {
    fn new<IO>(connection: &mut Connection<IO, Bytes>, activity: Activity, limits: &Limits) -> Self
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let (interval, timeout) = (limits.keepalive_interval, limits.keepalive_timeout);
        let timer = Box::pin(sleep_until(far_from(interval)));
        Self { ping: connection.ping_pong(), activity, interval, timeout, asked: None, timer }
    }

    /// Ready when the peer is taken for dead.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(ping) = &mut self.ping else { return Poll::Pending };
        // The answer has to be taken before h2 lets us ask again.
        if self.asked.is_some() && ping.poll_pong(cx).is_ready() {
            self.asked = None;
            self.timer.as_mut().reset(self.activity.last() + self.interval);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let last = self.activity.last();
            let next = match self.asked {
                Some(asked) if last <= asked => return Poll::Ready(()),
                // It sends, though not yet the answer: that is life enough, and the question stands.
                Some(_) => {
                    self.asked = Some(now);
                    now + self.timeout
                }
                None if now < last + self.interval => last + self.interval,
                None => {
                    self.asked = ping.send_ping(Ping::opaque()).is_ok().then_some(now);
                    now + self.timeout
                }
            };
            self.timer.as_mut().reset(next);
        }
        Poll::Pending
    }
}
