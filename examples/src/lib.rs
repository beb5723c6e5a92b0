//! What the examples share: an identity service, load, strangers, command lines and what they print.

pub mod args;
#[cfg(feature = "server")]
pub mod identity;
pub mod load;
pub mod logs;
#[cfg(feature = "server")]
pub mod strangers;
pub mod tour;
