//! HTTP/2: a connection to a node, what drives it, and one call over it.
//!
//! Nothing outside of this module uses h2, so another implementation would replace this one and nothing else.

pub(crate) mod body;
pub(crate) mod call_error;
pub(crate) mod connection;
pub(crate) mod dial;
pub(crate) mod driver;
pub(crate) mod pump;
pub(crate) mod slot;
pub(crate) mod start;
