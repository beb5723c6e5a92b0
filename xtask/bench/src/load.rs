use std::net::SocketAddr;
use std::process;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use crate::client::Client;
use crate::{Outcome, cpu};

const WARM_UP: Duration = Duration::from_millis(300);

/// What a client does.
#[derive(Clone)]
pub(crate) struct Plan {
    /// Callers that each make one call after the other.
    pub(crate) in_flight: usize,
    pub(crate) measured: Duration,
    /// The servers' processes, for their share of the CPU time.
    pub(crate) servers: Vec<u32>,
}

impl Default for Plan {
    fn default() -> Self {
        Self { in_flight: 1, measured: Duration::from_millis(1_500), servers: Vec::new() }
    }
}

/// Tells whoever started this server where it listens.
#[expect(clippy::print_stdout, reason = "it is read by the program that started this one")]
pub(crate) fn announce(address: SocketAddr) {
    println!("{address}");
}

/// Makes calls for the time that the plan says and prints what they took.
#[expect(clippy::print_stdout, reason = "it is read by the program that started this one")]
pub(crate) async fn run(plan: Plan, client: impl Client) -> Outcome<()> {
    let begin = Instant::now() + WARM_UP;
    let end = begin + plan.measured;
    let mut callers = JoinSet::new();
    for _ in 0..plan.in_flight {
        let client = client.clone();
        callers.spawn(async move { repeat(begin, end, client).await });
    }
    sleep_until(begin).await;
    let before = (cpu::of(&[process::id()]), cpu::of(&plan.servers), Instant::now());
    sleep_until(end).await;
    let after = (cpu::of(&[process::id()]), cpu::of(&plan.servers), Instant::now());

    let (mut latencies, mut failed, mut first_failure) = (Vec::new(), 0_u64, None);
    while let Some(caller) = callers.join_next().await {
        let caller = caller?;
        latencies.extend(caller.latencies);
        failed += caller.failed;
        first_failure = first_failure.or(caller.first_failure);
    }
    latencies.sort_unstable();
    let calls = u32::try_from(latencies.len())?;
    let per_call = |spent: Duration| micros(spent) / f64::from(calls.max(1));
    let line = json!({
        "calls": calls,
        "failed": failed,
        "failure": first_failure.map(|status| status.to_string()),
        "per_second": f64::from(calls) / (after.2 - before.2).as_secs_f64(),
        "p50_us": micros(percentile(&latencies, 50)),
        "p99_us": micros(percentile(&latencies, 99)),
        "client_cpu_us": per_call(after.0.saturating_sub(before.0)),
        "server_cpu_us": per_call(after.1.saturating_sub(before.1)),
    });
    println!("{line}");
    Ok(())
}

#[derive(Default)]
struct Caller {
    latencies: Vec<Duration>,
    failed: u64,
    first_failure: Option<Status>,
}

async fn repeat(begin: Instant, end: Instant, client: impl Client) -> Caller {
    let mut caller = Caller::default();
    let mut started = Instant::now();
    while started < end {
        let outcome = client.call().await;
        let ended = Instant::now();
        if begin <= started {
            match outcome {
                Ok(_) => caller.latencies.push(ended - started),
                Err(status) => {
                    caller.failed += 1;
                    caller.first_failure.get_or_insert(status);
                }
            }
        }
        started = ended;
    }
    caller
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get(sorted.len() * percent / 100).copied().unwrap_or_default()
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
