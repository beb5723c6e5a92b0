//! What finding a call's provider costs; the benchmark itself is one of aegis-client's, with criterion.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::BenchError;
use super::figures::tenths;
use super::options::Options;
use super::programs::{cargo, target};
use super::report::Report;

/// What is measured, under the names that the benchmark gives it, and on how many threads.
const MEASURED: [(&str, &str, &[&str]); 5] = [
    ("pick", "round-robin", &["1", "2"]),
    ("attempt", "round-robin", &["1", "2"]),
    ("pick", "least-loaded", &["1", "2"]),
    ("attempt", "least-loaded", &["1", "2"]),
    ("call", "round-robin", &["1"]),
];
const PROVIDERS: [&str; 4] = ["3", "10", "1000", "10000"];

pub(super) fn run(workspace: &Path, options: &Options) -> Result<(), BenchError> {
    let mut report = Report::new("pick", workspace, options);
    cargo(workspace, &["bench", "--package", "aegis-client", "--bench", "pick"])?;
    for (what, balancer, threads) in MEASURED {
        let group = target(workspace).join("criterion").join(format!("{what}_{balancer}"));
        for threads in threads {
            let mut medians = Map::new();
            let mut details = Vec::new();
            for providers in PROVIDERS {
                let (median, [least, greatest]) = median(&group.join(providers).join(threads))?;
                medians.insert(providers.to_owned(), median.into());
                details.push(json!({
                    "what": what, "balancer": balancer, "threads": threads, "providers": providers,
                    "nanoseconds": { "median": median, "least": least, "greatest": greatest },
                }));
            }
            let line = json!({
                "bench": "pick", "what": what, "balancer": balancer, "threads": threads,
                "nanoseconds": medians,
            });
            report.add(line, details);
        }
    }
    report.finish(&json!({
        "nanoseconds": "median of what one takes its thread, by how many providers are connected; between least and greatest with 95 % confidence",
    }))
}

/// What criterion has written of a function, in nanoseconds.
fn median(directory: &Path) -> Result<(f64, [f64; 2]), BenchError> {
    let path: PathBuf = directory.join("new").join("estimates.json");
    let failed = |text: String| BenchError::Program { program: path.display().to_string(), text };
    let text = fs::read(&path).map_err(|error| failed(error.to_string()))?;
    let estimates: Value =
        serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?;
    let figure = |pointer: &str| {
        let figure = estimates.pointer(pointer).and_then(Value::as_f64).map(tenths);
        figure.ok_or_else(|| failed(format!("it has no {pointer}")))
    };
    Ok((
        figure("/median/point_estimate")?,
        [
            figure("/median/confidence_interval/lower_bound")?,
            figure("/median/confidence_interval/upper_bound")?,
        ],
    ))
}
