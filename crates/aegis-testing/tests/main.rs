//! What tests are made of does what it says, or it would prove nothing.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests, too, end a test this way"
)]

mod calls;
mod links;
mod seeds;
