use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process;
use std::time::Duration;

use aegis::RequestExt;
use aegis_proto::identity::v1::ValidateSessionRequest;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until};
use tonic::{Request, Status};

use crate::client::Client;
use crate::{Outcome, cpu, service, stream};

const WARM_UP: Duration = Duration::from_millis(300);
/// A caller waits for it after a failure, as callers do; a failure may come at once, and then they would do nothing else.
const PAUSE: Duration = Duration::from_millis(1);
/// A call that took longer is late.
const LATE: Duration = Duration::from_secs(1);

/// What a client does.
#[derive(Clone)]
pub(crate) struct Plan {
    /// Callers that each make one call after the other.
    pub(crate) in_flight: usize,
    pub(crate) measured: Duration,
    /// The servers' processes, for their share of the CPU time.
    pub(crate) servers: Vec<u32>,
    /// Calls that all callers together begin in a second, at most.
    pub(crate) rate: Option<u32>,
    /// What each call is given.
    pub(crate) deadline: Option<Duration>,
    /// Calls may be made twice.
    pub(crate) idempotent: bool,
    /// Streams of large messages that are read beside the calls.
    pub(crate) bulk: usize,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            in_flight: 1,
            measured: Duration::from_millis(1_500),
            servers: Vec::new(),
            rate: None,
            deadline: None,
            idempotent: false,
            bulk: 0,
        }
    }
}

impl Plan {
    fn request(&self) -> Request<ValidateSessionRequest> {
        let mut request = service::request();
        if let Some(deadline) = self.deadline {
            request.set_timeout(deadline);
        }
        if self.idempotent { request.idempotent() } else { request }
    }
}

/// Tells whoever started this server where it listens.
#[expect(clippy::print_stdout, reason = "it is read by the program that started this one")]
pub(crate) fn announce(address: SocketAddr) {
    println!("{address}");
}

/// The time in which a client is measured, and what CPU time was spent in it.
pub(crate) struct Window {
    pub(crate) begin: Instant,
    pub(crate) end: Instant,
    servers: Vec<u32>,
}

/// What passed in a window.
pub(crate) struct Spent {
    pub(crate) elapsed: Duration,
    pub(crate) client: Duration,
    pub(crate) servers: Duration,
}

impl Window {
    pub(crate) fn new(plan: &Plan) -> Self {
        let begin = Instant::now() + WARM_UP;
        Self { begin, end: begin + plan.measured, servers: plan.servers.clone() }
    }

    /// Waits for its end; `begun` is called at its beginning.
    pub(crate) async fn pass(&self, begun: impl FnOnce()) -> Spent {
        let now = || (cpu::of(&[process::id()]), cpu::of(&self.servers), Instant::now());
        sleep_until(self.begin).await;
        begun();
        let before = now();
        sleep_until(self.end).await;
        let after = now();
        Spent {
            elapsed: after.2 - before.2,
            client: after.0.saturating_sub(before.0),
            servers: after.1.saturating_sub(before.1),
        }
    }
}

/// Makes calls for the time that the plan says and prints what they took.
#[expect(clippy::print_stdout, reason = "it is read by the program that started this one")]
pub(crate) async fn run(plan: Plan, client: impl Client) -> Outcome<()> {
    let mut beside = JoinSet::new();
    for _ in 0..plan.bulk {
        beside.spawn(stream::read(client.clone(), stream::LARGE, |_| ()));
    }
    let window = Window::new(&plan);
    let mut callers = JoinSet::new();
    for caller in 0..plan.in_flight {
        let (client, plan, begin, end) = (client.clone(), plan.clone(), window.begin, window.end);
        callers.spawn(async move { repeat(caller, begin, end, &plan, client).await });
    }
    let mut before = None;
    let spent = window.pass(|| before = client.attempts()).await;

    let mut all = Caller::default();
    while let Some(caller) = callers.join_next().await {
        all.add(caller?);
    }
    let before = before.unwrap_or_default();
    let attempts = client.attempts().map(|attempts| {
        let since = |(number, all): (i64, u64)| {
            (number, all.saturating_sub(before.get(&number).copied().unwrap_or_default()))
        };
        attempts.into_iter().map(since).collect::<BTreeMap<_, _>>()
    });
    all.latencies.sort_unstable();
    let latencies = &all.latencies;
    let calls = u32::try_from(latencies.len())?;
    let per_call = |spent: Duration| micros(spent) / f64::from(calls.max(1));
    // Who answers once is there.
    let after_first =
        all.failures.iter().filter(|(begun, _)| all.first.is_some_and(|first| first < *begun));
    let mut codes = BTreeMap::new();
    for (_, status) in &all.failures {
        *codes.entry(format!("{:?}", status.code())).or_insert(0) += 1;
    }
    let late = latencies.len() - latencies.partition_point(|latency| *latency <= LATE);
    let line = json!({
        "calls": calls,
        "failed": all.failures.len(),
        "failed_after_first": after_first.count(),
        "failures": codes,
        "failure": all.failures.first().map(|(_, status)| status.to_string()),
        "answered_by": all.answered_by,
        "attempts": attempts,
        "late": late,
        "per_second": f64::from(calls) / spent.elapsed.as_secs_f64(),
        "p50_us": micros(percentile(latencies, 50)),
        "p99_us": micros(percentile(latencies, 99)),
        "max_us": micros(latencies.last().copied().unwrap_or_default()),
        "client_cpu_us": per_call(spent.client),
        "server_cpu_us": per_call(spent.servers),
    });
    println!("{line}");
    Ok(())
}

/// What one caller saw, or all.
#[derive(Default)]
struct Caller {
    latencies: Vec<Duration>,
    /// When the failed calls began, and what they failed with.
    failures: Vec<(Instant, Status)>,
    answered_by: BTreeMap<i64, u64>,
    /// When the first call was answered.
    first: Option<Instant>,
}

impl Caller {
    fn add(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.failures.extend(other.failures);
        for (provider, calls) in other.answered_by {
            *self.answered_by.entry(provider).or_insert(0) += calls;
        }
        self.first = self.first.into_iter().chain(other.first).min();
    }
}

async fn repeat(
    caller: usize,
    begin: Instant,
    end: Instant,
    plan: &Plan,
    client: impl Client,
) -> Caller {
    let mut seen = Caller::default();
    let mut pace = plan.rate.map(|rate| {
        // In turns, not all at once.
        let step = Duration::from_secs(1) / rate;
        let turn = Instant::now() + step * u32::try_from(caller).unwrap_or_default();
        let mut pace = interval_at(turn, step * u32::try_from(plan.in_flight).unwrap_or(1));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pace
    });
    // The answers of one provider come in a row where there is only one.
    let (mut provider, mut in_a_row) = (0, 0);
    let mut started = Instant::now();
    while started < end {
        if let Some(pace) = &mut pace {
            pace.tick().await;
            started = Instant::now();
        }
        let outcome = client.call(plan.request()).await;
        let ended = Instant::now();
        let failed = outcome.is_err();
        if begin <= started {
            match outcome {
                Ok(answered) => {
                    seen.latencies.push(ended - started);
                    seen.first.get_or_insert(ended);
                    if answered != provider {
                        *seen.answered_by.entry(provider).or_insert(0) += in_a_row;
                        (provider, in_a_row) = (answered, 0);
                    }
                    in_a_row += 1;
                }
                Err(status) => seen.failures.push((started, status)),
            }
        }
        started = ended;
        if failed {
            sleep(PAUSE).await;
            started = Instant::now();
        }
    }
    *seen.answered_by.entry(provider).or_insert(0) += in_a_row;
    seen.answered_by.retain(|_, calls| *calls > 0);
    seen
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get(sorted.len() * percent / 100).copied().unwrap_or_default()
}

pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
