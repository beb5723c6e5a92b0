use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use aegis_core::{Address, NodeId};
use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, StatusCode};
use http_body::Body;

use crate::head::{RequestHead, size};
use crate::http2::body::{Call, GRPC_STATUS, ResponseBody, Sending};
use crate::http2::call_error::{CallError, Cause};
use crate::http2::connection::Connection;
use crate::http2::pump::{Pump, Pumped};
use crate::http2::start::Start;
use crate::lease::Lease;
use crate::pulse::Pulse;
use crate::sanitize::sanitize;
use crate::task::OwnedTask;

/// The right to open one stream to a node now; dropping it gives the right back.
///
/// It counts as in flight until the response has ended, so nothing ever waits inside HTTP/2:
/// what fails while waiting was never sent.
#[derive(Debug)]
#[must_use = "a slot that is kept without use is one that others lack"]
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

    /// Whether the peer answers on the slot's connection, for as long as the call lasts.
    pub fn pulse(&self) -> Pulse {
        Pulse::of(&self.lease.connection)
    }

    /// Sends a request and waits for the head of its response.
    ///
    /// Of the request's URI only path and query count: `:scheme` is `https`, `:authority` the node's server name.
    /// `te: trailers` and the user agent are set (one that is there is kept, with ours after it).
    /// A request with more metadata than the server's SETTINGS allow is not sent, since many servers end the connection for it;
    /// where they say nothing, 60 KiB are the limit. Trailers of the request keep to it, too.
    /// A small body goes out together with the head. Of a longer one, the rest goes out as the peer gives window,
    /// and goes on after the response has begun; it stops, with a reset, when the response body has ended or was dropped.
    /// Interim responses (1xx) are skipped; a response that is neither 200 nor has a gRPC status is an error.
    ///
    /// No timeout applies; see [`deadline`](crate::deadline).
    ///
    /// # Errors
    ///
    /// [`CallError`]; [`CallError::never_sent`] says whether the request may be sent again, whatever it does.
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
        let (head, body) = request.into_parts();
        self.send_head(&RequestHead::new(head), |_| {}, body).await
    }

    /// The same for a request whose head is made already and may be sent more than once.
    ///
    /// `finish` has the last word on the fields of this one, before their length is looked at. It may be asked twice.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// As [`send`](Self::send).
    pub async fn send_head<B>(
        self,
        head: &RequestHead,
        finish: impl Fn(&mut HeaderMap),
        mut body: B,
    ) -> Result<http::Response<ResponseBody>, CallError>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let lease = self.lease;
        let connection = &lease.connection;
        let fail = |cause| CallError::new(&connection.node, &connection.address, cause);
        // Before the body is touched: a caller can send it again only as long as nobody has.
        if !connection.is_open() {
            return Err(fail(Cause::SlotLost));
        }
        let start = poll_fn(|cx| Poll::Ready(Start::of(&mut body, cx)))
            .await
            .map_err(|status| fail(Cause::RequestBody(status)))?;
        let (response, stream) = open(connection, head, &finish, &start).map_err(fail)?;
        lease.opened();
        let mut pump = start.go_on(body, stream, connection);
        let mut response = answer(response, &mut pump).await.map_err(|cause| match cause {
            Cause::Http2 { error, .. } => {
                // It has ended by itself.
                lease.done();
                fail(Cause::Http2 { error, lost: connection.lost() })
            }
            cause => fail(cause),
        })?;
        sanitize(response.headers_mut());
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

/// Opens the stream of a request.
fn open(
    connection: &Connection,
    head: &RequestHead,
    finish: &impl Fn(&mut HeaderMap),
    start: &Start,
) -> Result<(ResponseFuture, SendStream<Bytes>), Cause> {
    let open = || {
        let mut request = head.to(&connection.authority);
        finish(request.headers_mut());
        let size = size(&request);
        let longest = connection.longest_head;
        if longest < size {
            return Err(Cause::LongHead { size, longest });
        }
        connection.open(request, matches!(start, Start::Empty)).map_err(|refused| match refused {
            Some(error) => Cause::Request(error),
            None => Cause::SlotLost,
        })
    };
    match open() {
        // The fault may have been an earlier request, which waits inside h2 for its stream.
        Err(Cause::Request(_)) => open(),
        opened => opened,
    }
}
