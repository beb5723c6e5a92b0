//! Stories of a whole mesh through the public API, over real mutual TLS and HTTP/2, one module each.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests, too, end a test this way; a measurement is printed"
)]

mod age;
mod builder;
mod discovery;
mod handlers;
mod identity;
mod lifecycle;
mod service;
mod unread;
