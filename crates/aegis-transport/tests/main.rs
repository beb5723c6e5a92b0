//! Tests of aegis-transport through its public API, one module per story.
//!
//! The peer is a server of raw HTTP/2 frames, or one made with h2, always over mutual TLS on loopback.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a broken assumption ends the test"
)]

mod bodies;
mod channels;
mod closing;
mod crashed;
mod deadlines;
mod dialling;
mod going_away;
mod load;
mod log;
mod long_heads;
mod never_sent;
mod rude_status;
mod silence;
mod slots;
mod support;
