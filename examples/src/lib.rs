//! What the examples share: an identity service, command lines and logs.

pub mod args;
pub mod identity;
pub mod logs;
