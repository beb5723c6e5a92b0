//! The headers that aegis puts on calls, for those who write the other end.

use http::{HeaderMap, HeaderName, HeaderValue};

/// On each request: the service it is for, written `name/version`.
pub const SERVICE_HEADER: HeaderName = HeaderName::from_static("aegis-service");

/// On the answer of a node that did not process the request: why. [`NOT_SERVED`] is the only reason so far.
///
/// A client takes it only from an answer that is nothing but its headers, and passes it to nobody: whoever served a
/// call and passes on the status of another must not seem not to have served it.
pub const REFUSED_HEADER: HeaderName = HeaderName::from_static("aegis-refused");

/// The node does not serve what [`SERVICE_HEADER`] says, and answers `UNIMPLEMENTED`.
pub const NOT_SERVED: HeaderValue = HeaderValue::from_static("not-served");

/// Takes [`REFUSED_HEADER`] off an answer or its trailers. Looked through first: most have two or three fields.
#[doc(hidden)]
pub fn take_refusal(headers: &mut HeaderMap) -> Option<HeaderValue> {
    if !headers.keys().any(|name| *name == REFUSED_HEADER) {
        return None;
    }
    headers.remove(REFUSED_HEADER)
}
