use std::io;

/// Says in plain words that a peer was cut off: its stream ended without TLS's `close_notify`.
///
/// rustls's own text sends users to rustls's manual. The kind stays `UnexpectedEof`, which HTTP/2 libraries look at.
pub(crate) fn explain(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        io::Error::new(error.kind(), "it closed without a goodbye, as a killed process does")
    } else {
        error
    }
}
