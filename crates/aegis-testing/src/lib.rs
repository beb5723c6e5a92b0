//! Test support for meshes: a CA whose certificates are good, or bad in exactly one point.

#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "test support: a broken assumption ends the test"
)]

mod ca;
mod flaw;

pub use ca::{TestCa, TestCert, Validity};
pub use flaw::Flaw;
