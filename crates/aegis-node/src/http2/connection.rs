//! One accepted connection: HTTP/2, its calls, and the ways in which it ends.

use std::future::{poll_fn, ready};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use aegis_tls::Caller;
use aegis_transport::{HeaderList, Heard};
use bytes::Bytes;
use h2::server;
use http::Extensions;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpConnectInfo;

use crate::dispatch::Routes;
use crate::http2::calls::{Arrived, Begun, Calls};
use crate::http2::keepalive::Keepalive;
use crate::http2::nudge::Nudge;
use crate::limits::Limits;
use crate::linger::Lingering;
use crate::stats::Counters;
use crate::timer::after;
use crate::turn::Places;

/// h2's own guards against floods. Their defaults close honest connections:
/// callers that time out or cancel reset streams, and readers of many small events fill the frame budget.
const RESET_STREAMS: usize = 1_024;
const LOCAL_ERROR_RESETS: usize = 16_384;
const DATA_FRAME_BUDGET: usize = 64 << 20;

/// How long the ends of calls may take to be read, once an old connection's calls were told to end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What the calls of one connection share.
pub(crate) struct Shared {
    pub(crate) routes: Arc<Routes>,
    pub(crate) message_bytes: usize,
    /// The window of each stream, in bytes.
    pub(crate) stream_window: u32,
    /// What a header list that is sent may weigh at most, where the peer takes so much.
    pub(crate) header_bytes: u32,
    pub(crate) header_list: HeaderList,
    /// Cancelled when the calls of this connection have to end.
    pub(crate) terminate: CancellationToken,
    pub(crate) counters: Arc<Counters>,
    pub(crate) places: Arc<Places>,
    pub(crate) caller: Caller,
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) local: Option<SocketAddr>,
}

impl Shared {
    /// The longest header list that is sent, in bytes.
    ///
    /// For a longer one than it takes, a client may end the connection, and with it other calls.
    pub(crate) fn longest_head(&self) -> usize {
        let theirs = self.header_list.get().unwrap_or(u32::MAX);
        usize::try_from(theirs.min(self.header_bytes)).unwrap_or(usize::MAX)
    }

    /// Tells a handler who calls and from where.
    pub(crate) fn describe(&self, extensions: &mut Extensions) {
        extensions.insert(self.caller.clone());
        // What `Request::remote_addr` and `local_addr` of tonic read.
        extensions.insert(TcpConnectInfo { local_addr: self.local, remote_addr: self.remote });
    }
}

/// Why an authenticated peer got no HTTP/2 connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoHttp2 {
    #[error("the peer did not begin HTTP/2 after its handshake")]
    Broken(#[source] h2::Error),
    #[error("the peer sent no HTTP/2 preface within {0:?} of its handshake")]
    Silent(Duration),
}

impl NoHttp2 {
    /// A fixed word for logs.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Broken(_) => "no_http2",
            Self::Silent(_) => "no_preface",
        }
    }
}

/// The ends of a connection that come with time.
enum Stage {
    /// New streams are welcome, until the connection is old.
    Open,
    /// It was told to go away because the server drains, which has its own clock.
    Draining,
    /// It was told to go away because it is old.
    Old,
    /// Its calls were told to end.
    Terminated,
}

/// Serves a connection until its peer or its age ends it, or `drain` and then `shared.terminate` are cancelled.
///
/// Dropping the future closes the connection and drops its handlers.
pub(crate) async fn serve<IO>(
    io: IO,
    mut shared: Shared,
    limits: Limits,
    drain: CancellationToken,
) -> Result<(), NoHttp2>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let (io, linger) = Lingering::new(io);
    let (io, heard) = Heard::on(io);
    let (io, header_list) = HeaderList::of_client(io);
    shared.header_list = header_list;
    let handshake = timeout(limits.handshake_timeout, builder(&limits).handshake::<_, Bytes>(io));
    let mut connection = tokio::select! {
        biased;
        result = handshake => match result {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(NoHttp2::Broken(error)),
            Err(_) => return Err(NoHttp2::Silent(limits.handshake_timeout)),
        },
        // Nothing was asked of us yet, and nothing will be.
        () = drain.cancelled() => return Ok(()),
    };
    let mut keepalive = Keepalive::new(&mut connection, heard, &limits);
    let shared = Arc::new(shared);
    let mut calls = Calls::default();
    let mut begun = Begun::default();
    let mut arrived = Arrived::default();
    let mut stage = Stage::Open;
    let mut drained = pin!(drain.cancelled());
    let mut timer = pin!(sleep_until(after(jitter(limits.max_age))));
    let nudge = Nudge::new();
    // Whether it is the others' turn.
    let mut rested = false;

    loop {
        tokio::select! {
            // The socket is read before keepalive judges its silence.
            // The timer comes first, since reading may use up what tokio lets a task do at once.
            biased;
            () = &mut timer => match stage {
                Stage::Open => {
                    stage = Stage::Old;
                    linger.ask();
                    connection.graceful_shutdown();
                    timer.as_mut().reset(after(limits.max_age_grace));
                }
                Stage::Old => {
                    stage = Stage::Terminated;
                    shared.terminate.cancel();
                    timer.as_mut().reset(after(LAST_WORDS));
                }
                // Whoever does not read the end of its calls by now is cut.
                Stage::Terminated => return Ok(()),
                Stage::Draining => timer.as_mut().reset(after(Duration::MAX)),
            },
            open = poll_fn(|cx| {
                // What was answered is written here. The calls that run in place have wakers of the task's own.
                let open = arrived.poll(&mut connection, &mut nudge.context(cx));
                if matches!(open, Poll::Pending | Poll::Ready(Ok(true))) && begun.steps_back() {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                match open {
                    Poll::Pending => begun.poll_turn().map(|()| Ok(true)),
                    open @ Poll::Ready(_) => open,
                }
            }), if !rested => {
                rested = arrived.is_full();
                poll_fn(|cx| {
                    nudge.running(|| calls.begin(&mut begun, &mut arrived, &shared, cx));
                    Poll::Ready(())
                })
                .await;
                match open {
                    Ok(true) => {}
                    Ok(false) => return Ok(()),
                    Err(error) => {
                        tracing::debug!(node = %shared.caller.node_id(), %error, "the connection broke");
                        return Ok(());
                    }
                }
            },
            () = calls.ended() => {}
            () = &mut drained, if matches!(stage, Stage::Open) => {
                stage = Stage::Draining;
                linger.ask();
                connection.graceful_shutdown();
                keepalive.ask();
                timer.as_mut().reset(after(Duration::MAX));
            }
            () = poll_fn(|cx| keepalive.poll(cx)) => {
                tracing::debug!(node = %shared.caller.node_id(), "the peer gave no sign of life");
                return Ok(());
            }
            () = ready(()), if rested => rested = false,
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
    // A tenth less, and up to a fifth more than that; an endless age stays one.
    let least = age.saturating_sub(age / 10);
    least.saturating_add((age / 5).mul_f64(fastrand::f64()))
}
