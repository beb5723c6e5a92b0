use bytes::Bytes;
use http::header::{HOST, HeaderValue, TE, USER_AGENT};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Uri, Version};

use crate::connection::Connection;

const AGENT: &str = concat!("aegis/", env!("CARGO_PKG_VERSION"));
const OUR_AGENT: HeaderValue = HeaderValue::from_static(AGENT);
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// The longest header list that is sent, in bytes.
///
/// A server answers one that is longer than it takes; but from four times its limit on, which most servers leave at 16 KiB,
/// it may end the connection, and with it the calls of others.
pub(crate) const LONGEST: usize = 60 << 10;

/// The size of a request's header list, without its pseudo-headers of fixed length (RFC 9113 §6.5.2).
pub(crate) fn size(head: &http::Request<()>) -> usize {
    let path = head.uri().path_and_query().map_or(0, |path| path.as_str().len());
    let fields = head.headers().iter();
    path + fields.map(|(name, value)| name.as_str().len() + value.len() + 32).sum::<usize>()
}

/// The request's head as it goes on the wire, and its body.
pub(crate) fn split<B>(
    request: http::Request<B>,
    connection: &Connection,
) -> (http::Request<()>, B) {
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
