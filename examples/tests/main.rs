//! The examples as a user runs them: real processes, real sockets, real signals.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests, too, end a test this way"
)]

mod directory;
mod foreign;
mod process;
mod processes;
mod restarts;
mod steps;
