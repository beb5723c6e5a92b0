use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use aegis_core::{Address, NodeId};
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::header::{HOST, HeaderValue, TE, USER_AGENT};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, StatusCode, Uri, Version};
use http_body::{Body, Frame};

use crate::body::{Call, GRPC_STATUS, ResponseBody, Sending};
use crate::bulk::Meter;
use crate::call_error::{CallError, Cause};
use crate::connection::{Connection, Lease};
use crate::pump::{Pump, Pumped, body_error};
use crate::task::OwnedTask;

/// Up to so many bytes a first frame is queued together with the head, before the window is asked for.
const SMALL: usize = 16 << 10;

const AGENT: &str = concat!("aegis/", env!("CARGO_PKG_VERSION"));
const OUR_AGENT: HeaderValue = HeaderValue::from_static(AGENT);
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// The right to open one stream to a node now; dropping it gives the right back.
///
/// It counts as in flight until the response has ended, so nothing ever waits inside HTTP/2:
/// what fails while waiting was never sent.
#[derive(Debug)]
#[must_use = "a slot that is not used is in nobody's use, but taken"]
pub struct Slot {
    lease: Lease,
}

impl Slot {
    pub(crate) fn new(lease: Lease) -> Self {
        Self { lease }
    }

    /// The node it leads to.
    pub fn node_id(&self) -> &NodeId {
        &self.lease.connection.node
    }

    /// The address it leads to.
    pub fn address(&self) -> &Address {
        &self.lease.connection.address
    }

    /// Sends a request and waits for the head of its response.
    ///
    /// Of the request's URI only path and query count: `:scheme` is `https`, `:authority` the node's server name.
    /// `te: trailers` and the user agent are set (one that is there is kept, with ours after it).
    /// A small body goes out together with the head. Of a longer one, the rest goes out as the peer gives window,
    /// and goes on after the response has begun; it stops, with a reset, when the response body has ended or was dropped.
    /// Interim responses (1xx) are skipped; a response that is neither 200 nor has a gRPC status is an error.
    ///
    /// No timeout applies; see [`deadline`](crate::deadline).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future resets the stream (`CANCEL`) and frees the slot; the peer may have acted on the request.
    pub async fn send<B>(
        self,
        request: http::Request<B>,
    ) -> Result<http::Response<ResponseBody>, CallError>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let lease = self.lease;
        let connection = &lease.connection;
        let fail = |cause| CallError::new(&connection.node, &connection.address, cause);
        let (head, mut body) = split(request, connection);
        let start = poll_fn(|cx| Poll::Ready(Start::of(&mut body, cx)))
            .await
            .map_err(|status| fail(Cause::RequestBody(status)))?;
        let Some(mut sender) = connection.sender() else {
            return Err(fail(Cause::SlotLost));
        };
        let whole = matches!(start, Start::Empty);
        let (response, stream) = match sender.send_request(head, whole) {
            Ok(streams) => streams,
            Err(error) => return Err(fail(refused(sender, error).await)),
        };
        // A handle that lives on would keep an unused connection open.
        drop(sender);
        lease.opened();
        let mut pump = start.go_on(body, stream, || Meter::new(connection));
        let response = answer(response, &mut pump).await.map_err(|cause| {
            fail(match cause {
                Cause::Http2 { error, .. } => Cause::Http2 { error, lost: connection.lost() },
                cause => cause,
            })
        })?;
        if response.status() != StatusCode::OK && !response.headers().contains_key(GRPC_STATUS) {
            return Err(fail(Cause::Http(response.status())));
        }
        let call = match pump {
            None => Call::Sent(lease),
            Some(pump) => send_on(pump, lease),
        };
        Ok(response.map(|stream| ResponseBody::new(stream, call)))
    }
}

/// Sends the rest of a request body in a task, since its response may be read late or never.
fn send_on<B>(mut pump: Pump<B>, lease: Lease) -> Call
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let sending = Arc::new(Sending { lease, failed: Mutex::default() });
    let shared = Arc::clone(&sending);
    let task = OwnedTask::spawn(async move {
        if let Pumped::BodyFailed(status) = poll_fn(|cx| pump.poll(cx)).await {
            *shared.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
            // Only now, so that the reader of the response finds the reason.
            pump.reset();
        }
        drop(pump);
        drop(shared);
    });
    Call::Sending(sending, task)
}

/// Waits for the response, while the rest of the request goes out.
async fn answer<B>(
    mut response: ResponseFuture,
    pump: &mut Option<Pump<B>>,
) -> Result<http::Response<RecvStream>, Cause>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    poll_fn(|cx| {
        if let Some(pumping) = pump {
            match pumping.poll(cx) {
                Poll::Ready(Pumped::Done) => *pump = None,
                Poll::Ready(Pumped::BodyFailed(status)) => {
                    return Poll::Ready(Err(Cause::RequestBody(status)));
                }
                Poll::Pending => {}
            }
        }
        Pin::new(&mut response).poll(cx).map_err(|error| Cause::Http2 { error, lost: None })
    })
    .await
}

/// Why h2 refused to open a stream: the connection is on its way out, or the request is no HTTP/2 request.
async fn refused(mut sender: SendRequest<Bytes>, error: h2::Error) -> Cause {
    let usable =
        poll_fn(|cx| Poll::Ready(!matches!(sender.poll_ready(cx), Poll::Ready(Err(_))))).await;
    if usable { Cause::Request(error) } else { Cause::SlotLost }
}

/// How a request body begins.
enum Start {
    Empty,
    /// All of it.
    Small(Bytes),
    /// The first frame, and the second if it is there already.
    Some(Bytes, Option<Frame<Bytes>>),
    /// A first frame that has to wait for the window, or that is none of data.
    First(Frame<Bytes>),
    Later,
}

impl Start {
    fn of<B>(body: &mut B, cx: &mut Context<'_>) -> Result<Self, tonic::Status>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        if body.is_end_stream() {
            return Ok(Self::Empty);
        }
        let mut next = || match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(frame) => {
                frame.transpose().map(Poll::Ready).map_err(|error| body_error(error.into()))
            }
            Poll::Pending => Ok(Poll::Pending),
        };
        let first = match next()? {
            Poll::Pending => return Ok(Self::Later),
            Poll::Ready(None) => return Ok(Self::Empty),
            Poll::Ready(Some(frame)) => frame,
        };
        if first.data_ref().is_none_or(|data| SMALL < data.len()) {
            return Ok(Self::First(first));
        }
        let Ok(data) = first.into_data() else {
            return Ok(Self::Later);
        };
        Ok(match next()? {
            Poll::Pending => Self::Some(data, None),
            Poll::Ready(None) => Self::Small(data),
            Poll::Ready(second) => Self::Some(data, second),
        })
    }

    /// Sends what need not wait; what is left is for the pump.
    fn go_on<B>(
        self,
        body: B,
        mut stream: SendStream<Bytes>,
        meter: impl FnOnce() -> Meter,
    ) -> Option<Pump<B>>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        // A stream that is closed already takes nothing; its response says why.
        match self {
            Self::Empty => None,
            Self::Small(data) => {
                drop(stream.send_data(data, true));
                None
            }
            Self::Some(data, second) => {
                drop(stream.send_data(data, false));
                let pump = Pump::new(body, stream, meter());
                match second {
                    Some(frame) => pump.with(frame).ok(),
                    None => Some(pump),
                }
            }
            Self::First(frame) => Pump::new(body, stream, meter()).with(frame).ok(),
            Self::Later => Some(Pump::new(body, stream, meter())),
        }
    }
}

/// The request's head as it goes on the wire, and its body.
fn split<B>(request: http::Request<B>, connection: &Connection) -> (http::Request<()>, B) {
    let (mut head, body) = request.into_parts();
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTPS);
    uri.authority = Some(connection.authority.clone());
    uri.path_and_query =
        Some(head.uri.into_parts().path_and_query.unwrap_or(PathAndQuery::from_static("/")));
    // Scheme, authority and path together always are a URI.
    head.uri = Uri::from_parts(uri).unwrap_or_default();
    head.version = Version::HTTP_2;
    finish_headers(&mut head.headers);
    // What layers left for each other is not for the wire, and may hold handles.
    head.extensions.clear();
    (http::Request::from_parts(head, ()), body)
}

fn finish_headers(headers: &mut HeaderMap) {
    headers.remove(HOST);
    headers.insert(TE, TRAILERS);
    let agent = match headers.get(USER_AGENT) {
        None => OUR_AGENT,
        Some(theirs) => {
            let both = [theirs.as_bytes(), b" ", AGENT.as_bytes()].concat();
            HeaderValue::from_maybe_shared(Bytes::from(both)).unwrap_or(OUR_AGENT)
        }
    };
    headers.insert(USER_AGENT, agent);
}
