use aegis_core::Chain;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tonic::body::Body;
use tonic::{Code, Status};
use tower_service::Service;

use crate::deadline::{Deadline, DeadlineBody, enforce};
use crate::error::Unavailable;
use crate::http2::body::ResponseBody;
use crate::http2::slot::Slot;
use crate::link::{Link, LinkStatus};
use crate::network::BoxFuture;
use crate::timeout;

/// How often a waiter looks at a full connection, even if nothing is reported.
const LOOK: Duration = Duration::from_millis(100);

/// A service that sends its calls to one node, for generated clients.
///
/// A call waits for the connection that is being made and for a free stream, until its deadline;
/// it fails at once (`UNAVAILABLE`) when the node is in backoff. Nothing is sent twice.
/// The deadline is the request's `grpc-timeout`, which is sent on and covers the body of the response too.
/// Without one, only the wait for a connection (`UNAVAILABLE`) and a stream (`RESOURCE_EXHAUSTED`) has an end, after
/// [`Settings::wait`](crate::Settings::wait). Dropping the future of a call, or the body of its response, resets the stream.
#[derive(Debug, Clone)]
pub struct NodeChannel {
    link: Link,
    wait: Duration,
}

impl NodeChannel {
    pub(crate) fn new(link: Link, wait: Duration) -> Self {
        Self { link, wait }
    }

    /// The link it calls through.
    pub fn link(&self) -> &Link {
        &self.link
    }

    async fn slot(&self, patience: Option<Duration>) -> Result<Slot, Status> {
        let mut changes = self.link.changes();
        let patience = patience.map(Deadline::after);
        let mut in_line = pin!(self.link.acquire());
        loop {
            // There is no other node, so one that does not answer has to do.
            let why = match self.link.try_acquire_stalled() {
                Ok(slot) => return Ok(slot),
                Err(why) => why,
            };
            if let Some(status) = self.refusal(why, patience) {
                return Err(status);
            }
            tokio::select! {
                slot = &mut in_line => return Ok(slot),
                // Too long or too short a wait are both fine: the loop looks again.
                _ = tokio::time::timeout(LOOK, changes.changed()) => {}
            }
        }
    }

    fn late(&self) -> String {
        let late = format!("the deadline of the call to node {} has passed", self.link.node_id());
        match self.link.status() {
            LinkStatus::Backoff { error, .. }
            | LinkStatus::Connecting { error: Some(error), .. } => {
                format!("{late}; it is not connected: {}", error.chain())
            }
            LinkStatus::Connecting { .. } => format!("{late}; it is not connected yet"),
            _ => late,
        }
    }

    /// Why there is no point in waiting longer.
    fn refusal(&self, why: Unavailable, patience: Option<Deadline>) -> Option<Status> {
        let node = self.link.node_id();
        let tired = patience.is_some_and(Deadline::has_passed);
        match (why, self.link.status()) {
            (Unavailable::Closed, _) => Some(Status::unavailable(why.to_string())),
            (Unavailable::NotConnected, LinkStatus::Backoff { error, .. }) => {
                Some(Status::unavailable(format!(
                    "node {node} is not connected: {}",
                    Chain::new(&*error)
                )))
            }
            (Unavailable::Full, _) if tired => Some(Status::resource_exhausted(format!(
                "every stream that node {node} allows has been in use for {:?}",
                self.wait
            ))),
            _ if tired => Some(Status::unavailable(format!(
                "node {node} was not connected within {:?}",
                self.wait
            ))),
            _ => None,
        }
    }
}

impl Service<http::Request<Body>> for NodeChannel {
    type Response = http::Response<DeadlineBody<ResponseBody>>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Self::Response, Status>>;

    // Always ready: whether there is a stream is known when a call has a deadline to wait for it.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let channel = self.clone();
        Box::pin(async move {
            let deadline = timeout::parse(request.headers())?.map(Deadline::after);
            if deadline.is_some_and(Deadline::has_passed) {
                return Err(Status::deadline_exceeded(channel.late()));
            }
            let patience = deadline.is_none().then_some(channel.wait);
            let response = enforce(deadline, async {
                let slot = channel.slot(patience).await?;
                Ok(slot.send(request).await?)
            })
            .await
            .map_err(|status| match status.code() {
                Code::DeadlineExceeded => Status::deadline_exceeded(channel.late()),
                _ => status,
            })?;
            Ok(response.map(|body| {
                let body = DeadlineBody::new(body, deadline);
                if deadline.is_some() { body.with_message(channel.late()) } else { body }
            }))
        })
    }
}
