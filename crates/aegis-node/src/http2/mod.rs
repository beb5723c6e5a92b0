//! HTTP/2: an accepted connection, its calls, and what they are asked and answer.
//!
//! Nothing outside of this module uses h2, so another implementation would replace this one and nothing else.

pub(crate) mod answer;
pub(crate) mod call;
pub(crate) mod calls;
pub(crate) mod connection;
pub(crate) mod keepalive;
pub(crate) mod nudge;
pub(crate) mod request_body;
