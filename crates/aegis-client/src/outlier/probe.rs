use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use aegis_transport::Link;
use aegis_transport::timeout::{self, GRPC_TIMEOUT};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request};
use http_body::{Body, Frame, SizeHint};
use tonic::{Code, Status};

use crate::load::Outcome;

const CHECK: &str = "/grpc.health.v1.Health/Check";
/// A `HealthCheckRequest` that names no service, so that the whole server is meant: an empty message.
const WHOLE_SERVER: &[u8] = &[0, 0, 0, 0, 0];
/// The tag of `HealthCheckResponse.status`, and its value for a server that asks not to be called.
const STATUS: u8 = 0x08;
const NOT_SERVING: u8 = 2;
/// More than any such answer has.
const LONGEST: usize = 1_024;

/// Asks a node over its connection whether it is healthy; says why not.
///
/// A server that does not know the question has answered it. The two messages are so small that they are read by hand:
/// generated code would put a package into every client for them.
pub(crate) async fn probe(link: &Link, limit: Duration) -> Result<(), String> {
    match tokio::time::timeout(limit, ask(link, limit)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("no answer within {limit:?}")),
    }
}

async fn ask(link: &Link, limit: Duration) -> Result<(), String> {
    let slot = link.try_acquire_stalled();
    let slot = match slot {
        Ok(slot) => slot,
        Err(_) => link.acquire().await,
    };
    let request = Request::post(CHECK)
        .header(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
        .header(GRPC_TIMEOUT, timeout::encode(limit))
        .body(Question(Some(Bytes::from_static(WHOLE_SERVER))))
        .map_err(|error| error.to_string())?;
    let answer = slot.send(request).await.map_err(|error| error.to_string())?;
    if let Some(status) = Status::from_header_map(answer.headers()) {
        return judge(&status, &[]);
    }
    let mut body = pin!(answer.into_body());
    let mut message = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let frame = frame.map_err(|status| status.message().to_owned())?;
        match frame.into_data() {
            Ok(data) if message.len() + data.len() <= LONGEST => message.extend_from_slice(&data),
            Ok(_) => return Err(format!("an answer of more than {LONGEST} bytes")),
            Err(frame) => {
                let trailers = frame.into_trailers().ok();
                let status = trailers.and_then(|trailers| Status::from_header_map(&trailers));
                return judge(&status.unwrap_or_else(|| Status::unknown("no status")), &message);
            }
        }
    }
    Err("the answer has no end".to_owned())
}

/// What an answer says: its status, and the message with its five bytes of framing.
fn judge(status: &Status, message: &[u8]) -> Result<(), String> {
    match (status.code(), message.get(5..)) {
        (Code::Ok, Some([STATUS, NOT_SERVING, ..])) => Err("it does not serve now".to_owned()),
        (code, _) if Outcome::of(code) == Outcome::Failed => {
            Err(format!("{}: {}", code.description(), status.message()))
        }
        _ => Ok(()),
    }
}

/// The body of the question.
struct Question(Option<Bytes>);

impl Body for Question {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|message| Ok(Frame::data(message))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |it| it.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: &Status, message: &[u8], healthy: bool) {
        assert_eq!(judge(status, message).is_ok(), healthy, "{status} {message:?}");
    }

    #[test]
    fn whoever_answers_and_does_not_ask_to_be_left_alone_is_healthy() {
        let ok = Status::ok("");
        check(&ok, &[0, 0, 0, 0, 2, 0x08, 1], true);
        check(&ok, &[0, 0, 0, 0, 0], true);
        check(&Status::unimplemented("no such service"), &[], true);
        check(&Status::permission_denied("not for you"), &[], true);
        check(&ok, &[0, 0, 0, 0, 2, 0x08, 2], false);
        check(&Status::unavailable("not now"), &[], false);
        check(&Status::deadline_exceeded(""), &[], false);
    }
}
