//! The server against peers that misbehave, with raw TCP, raw TLS and raw HTTP/2, one module per story.
//!
//! Each field of `ServerStats` has a test that moves it:
//!
//! | field | test |
//! |---|---|
//! | `connections`, `over_limit` | `caps::*` |
//! | `accepted`, `calls`, `certificates_parsed` | `surface::each_counter_counts` |
//! | `refused` | `handshakes::a_peer_that_does_not_get_in_is_counted_and_named_once` |
//! | `terminated` | `shutdown::calls_that_outlive_an_old_connection_end_unavailable_and_are_counted` |
//! | `evicted` | `handshakes::silent_peers_keep_nobody_out` |

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests, too, end a test this way; a child process tells its address"
)]

mod blocking;
mod bodies;
mod cancelling;
mod caps;
mod descriptors;
mod drain;
mod floods;
mod handshakes;
mod in_place;
mod keepalive;
mod probe;
mod requests;
mod shutdown;
mod signals;
mod support;
mod surface;
