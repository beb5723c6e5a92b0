//! Tests of aegis-topology through its public API, one module per story.

#[cfg(test)]
mod convergence;
#[cfg(test)]
mod expiry;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod ownership;
#[cfg(test)]
mod simulation;
