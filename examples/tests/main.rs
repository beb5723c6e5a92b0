//! The examples as a user runs them: real processes, real sockets, real signals.

mod foreign;
mod process;
mod processes;
