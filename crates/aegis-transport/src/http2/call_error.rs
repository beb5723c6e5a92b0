use std::error::Error;
use std::fmt;
use std::sync::Arc;

use aegis_core::{Address, Chain, NodeId};
use h2::Reason;
use http::StatusCode;
use tonic::{Code, Status};

/// Why a call got no response, or a response lost its body.
///
/// Names the node and the address it was sent to.
/// [`never_sent`](Self::never_sent) says whether another node may be asked without asking twice.
///
/// As a [`Status`], which keeps it as its source:
///
/// | what happened | code | who acts |
/// |---|---|---|
/// | the connection was lost, or closed by the peer | unavailable | the caller may retry what may run twice |
/// | the peer reset the stream: `REFUSED_STREAM`, `CANCEL`, `ENHANCE_YOUR_CALM`, `INADEQUATE_SECURITY`, others | unavailable, cancelled, resource exhausted, permission denied, internal or unknown, by `PROTOCOL-HTTP2.md` | the peer's operator |
/// | an HTTP status other than 200 without a gRPC status | by `http-grpc-status-mapping.md` | the operator of what answered |
/// | our metadata is more than the peer takes, by its SETTINGS (60 KiB where they do not say) | resource exhausted | the caller |
/// | our request is no HTTP/2 request, or the answer's trailers hold no gRPC status | internal | the caller's, the peer's developer |
/// | the caller's own request body failed | its own | the caller |
#[derive(Debug)]
pub struct CallError {
    node: NodeId,
    address: Address,
    cause: Cause,
    never_sent: Option<NeverSent>,
}

/// How it is known that no handler has seen a request, so that it may be sent again whatever it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NeverSent {
    /// The peer's GOAWAY said that it had not processed the stream.
    GoAway,
    /// The peer reset the stream with `REFUSED_STREAM`.
    Refused,
    /// The connection went away between getting the slot and opening the stream: nothing left this process.
    SlotLost,
}

#[derive(Debug)]
pub(crate) enum Cause {
    /// The response's HTTP status is not 200, and it has no gRPC status.
    Http(StatusCode),
    /// The connection or the stream ended.
    Http2 { error: h2::Error, lost: Option<Arc<str>> },
    /// The request's header list is too long to be sent.
    LongHead { size: usize, longest: usize },
    /// The request cannot be written in HTTP/2.
    Request(h2::Error),
    /// The caller's own body failed.
    RequestBody(Status),
    /// The connection went away first.
    SlotLost,
    /// The response's trailers hold no gRPC status.
    Trailers,
}

impl CallError {
    pub(crate) fn new(node: &NodeId, address: &Address, cause: Cause) -> Self {
        let never_sent = match &cause {
            Cause::SlotLost => Some(NeverSent::SlotLost),
            Cause::Http2 { error, .. } => never_sent(error),
            Cause::Http(_)
            | Cause::LongHead { .. }
            | Cause::Request(_)
            | Cause::RequestBody(_)
            | Cause::Trailers => None,
        };
        Self { node: node.clone(), address: address.clone(), cause, never_sent }
    }

    /// Whether the request is known to have reached no handler, and how; `None` where it may have.
    pub fn never_sent(&self) -> Option<NeverSent> {
        self.never_sent
    }

    /// Whether the request itself is why it failed, before anything of it was sent: its metadata is too large, or it
    /// cannot be written in HTTP/2.
    pub fn is_unsendable(&self) -> bool {
        matches!(self.cause, Cause::LongHead { .. } | Cause::Request(_))
    }

    /// Whether the connection was lost, and every call on it, and not the call's stream alone.
    pub fn is_lost_connection(&self) -> bool {
        matches!(&self.cause, Cause::Http2 { error, .. } if !error.is_reset())
    }

    /// The node the call was sent to.
    pub fn node_id(&self) -> &NodeId {
        &self.node
    }

    /// The address of the connection the call was sent on.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The gRPC status code that the error stands for, by gRPC's own tables (`PROTOCOL-HTTP2.md`, "Errors", and
    /// `http-grpc-status-mapping.md`).
    pub fn code(&self) -> Code {
        match &self.cause {
            Cause::Http(status) => http_code(*status),
            Cause::Http2 { error, .. } => http2_code(error),
            Cause::LongHead { .. } => Code::ResourceExhausted,
            Cause::Request(_) | Cause::Trailers => Code::Internal,
            Cause::RequestBody(status) => status.code(),
            Cause::SlotLost => Code::Unavailable,
        }
    }
}

/// The rule of the whole project for what was never sent.
fn never_sent(error: &h2::Error) -> Option<NeverSent> {
    if !error.is_remote() {
        // h2 reports the GOAWAYs and resets that this end made in the same way.
        None
    } else if error.is_go_away() {
        Some(NeverSent::GoAway)
    } else if error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM) {
        Some(NeverSent::Refused)
    } else {
        None
    }
}

/// `PROTOCOL-HTTP2.md`, "Errors", for a reset stream; a lost connection is `UNAVAILABLE`.
fn http2_code(error: &h2::Error) -> Code {
    if error.is_io() || error.is_go_away() {
        return Code::Unavailable;
    }
    match error.reason() {
        Some(Reason::REFUSED_STREAM) | None => Code::Unavailable,
        Some(Reason::CANCEL) => Code::Cancelled,
        Some(Reason::ENHANCE_YOUR_CALM) => Code::ResourceExhausted,
        Some(Reason::INADEQUATE_SECURITY) => Code::PermissionDenied,
        Some(Reason::STREAM_CLOSED | Reason::HTTP_1_1_REQUIRED) => Code::Unknown,
        Some(_) => Code::Internal,
    }
}

/// `http-grpc-status-mapping.md`, for a response without a gRPC status.
fn http_code(status: StatusCode) -> Code {
    match status {
        StatusCode::BAD_REQUEST => Code::Internal,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::Unimplemented,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Code::Unavailable,
        _ => Code::Unknown,
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, address, .. } = self;
        match &self.cause {
            Cause::Http(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE) => {
                write!(f, "the metadata of the call is larger than node {node} at {address} takes")
            }
            Cause::Http(status) => {
                write!(f, "node {node} at {address} answered HTTP {status} without a gRPC status")
            }
            Cause::LongHead { size, longest } => write!(
                f,
                "the metadata of the call to node {node} at {address} is {size} bytes long, above the {longest} that are sent to it"
            ),
            // Where the peer breaks the protocol or floods us, the source says which.
            Cause::Http2 { error, .. } if error.is_go_away() && !error.is_remote() => {
                write!(f, "the connection to node {node} at {address} was given up")
            }
            Cause::Http2 { lost: Some(lost), .. } => {
                write!(f, "the connection to node {node} at {address} was lost: {lost}")
            }
            Cause::Http2 { error, .. } if error.is_io() => {
                write!(f, "the connection to node {node} at {address} was lost")
            }
            Cause::Http2 { error, .. } if error.is_go_away() => {
                write!(f, "node {node} at {address} closed the connection")
            }
            Cause::Http2 { error, .. } if error.is_reset() && error.is_remote() => {
                write!(f, "node {node} at {address} ended the call")
            }
            Cause::Http2 { error, .. } if error.reason() == Some(Reason::PROTOCOL_ERROR) => write!(
                f,
                "the response of node {node} at {address} was refused: it is malformed, or its metadata too large"
            ),
            Cause::Http2 { .. } => write!(f, "the call to node {node} at {address} broke"),
            Cause::Request(_) => {
                write!(f, "the request to node {node} at {address} cannot be written in HTTP/2")
            }
            Cause::RequestBody(_) => f.write_str("the body of the request failed"),
            Cause::SlotLost => {
                write!(
                    f,
                    "the connection to node {node} at {address} closed before the call was sent"
                )
            }
            Cause::Trailers => write!(
                f,
                "node {node} at {address} ended the call without a gRPC status, or with its metadata too large"
            ),
        }
    }
}

impl Error for CallError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.cause {
            Cause::Http2 { error, .. } | Cause::Request(error) => Some(error),
            Cause::RequestBody(status) => Some(status),
            Cause::Http(_) | Cause::LongHead { .. } | Cause::SlotLost | Cause::Trailers => None,
        }
    }
}

impl From<CallError> for Status {
    /// The code of [`CallError::code`], with node, address and cause in the message; the caller's own error stays as it is.
    fn from(error: CallError) -> Self {
        if let Cause::RequestBody(status) = error.cause {
            return status;
        }
        // Without the error as its source: tonic would print that behind the message, field by field.
        Self::new(error.code(), Chain::new(&error).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resets_map_as_grpc_says() {
        for (reason, code) in [
            (Reason::NO_ERROR, Code::Internal),
            (Reason::PROTOCOL_ERROR, Code::Internal),
            (Reason::FRAME_SIZE_ERROR, Code::Internal),
            (Reason::REFUSED_STREAM, Code::Unavailable),
            (Reason::CANCEL, Code::Cancelled),
            (Reason::ENHANCE_YOUR_CALM, Code::ResourceExhausted),
            (Reason::INADEQUATE_SECURITY, Code::PermissionDenied),
            (Reason::STREAM_CLOSED, Code::Unknown),
        ] {
            assert_eq!(http2_code(&reason.into()), code, "{reason}");
        }
    }

    #[test]
    fn a_status_is_printed_as_its_message_and_nothing_else() {
        let (node, address) = (NodeId::from_static("a"), "127.0.0.1:1".parse().unwrap());
        let error = h2::Error::from(Reason::CANCEL);
        let status =
            Status::from(CallError::new(&node, &address, Cause::Http2 { error, lost: None }));
        assert!(status.message().contains("node a at 127.0.0.1:1"), "{status}");
        let (text, code) = (status.to_string(), status.code());
        assert_eq!(text, format!("code: '{code}', message: {:?}", status.message()));
    }

    #[test]
    fn an_error_of_our_own_making_was_sent() {
        for reason in [Reason::REFUSED_STREAM, Reason::NO_ERROR] {
            assert_eq!(never_sent(&reason.into()), None, "{reason}");
        }
    }
}
