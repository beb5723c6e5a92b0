//! Tests of aegis-gossip through its public API over real mTLS, one module per story.

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod identity;
#[cfg(test)]
mod joining;
#[cfg(test)]
mod leaving;
#[cfg(test)]
mod log;
#[cfg(test)]
mod mesh;
#[cfg(test)]
mod observing;
#[cfg(test)]
mod serving;
