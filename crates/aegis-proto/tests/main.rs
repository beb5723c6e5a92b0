//! What the descriptors say: the facts that nodes of other languages rely on.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[cfg(feature = "convert")]
mod convert;
mod wire;
