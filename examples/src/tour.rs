//! The lines of a tour: an example that shows something in steps and checks each.

use std::fmt::Display;
use std::time::Instant;

/// Prints what a step has shown.
#[expect(clippy::print_stdout, reason = "the tour's lines")]
pub fn line(step: impl Display, text: impl Display) {
    println!("{:<12}{text}", step.to_string());
}

/// How long something took.
pub fn millis(began: Instant) -> String {
    format!("{:.1} ms", began.elapsed().as_secs_f64() * 1e3)
}
