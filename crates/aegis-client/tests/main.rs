//! Tests of aegis-client through its public API, one module per story.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests fail as tests do; a measurement is printed"
)]

mod bodies;
mod mesh;
mod provider;
mod raw;

mod balancing;
mod building;
mod dead_ends;
mod deadlines;
mod errors;
mod explaining;
mod leaving;
mod lifecycle;
mod load;
mod moves;
mod narrow;
mod outliers;
mod pinning;
mod pushback;
mod replaying;
mod requests;
mod retries;
mod seeds;
mod waiting;
