//! A node that calls `identity/v1` and reports how the calls went.
//!
//! ```text
//! cargo run --example consumer -- --id vicky-1 --type storage --cert-dir ./certs --join 127.0.0.1:8443 --calls 100
//! ```
//!
//! It ends with one JSON object on standard output and exits 0 when no call failed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aegis::client::{Balancer, Failure, RequestExt as _, Verdict};
use aegis::topology::SyncState;
use aegis::{Node, ServiceClient, ServiceInfo};
use aegis_proto::identity::v1::GetUserRequest;
use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;
use examples::args::{self, Outcome};
use lexopt::Arg::Long;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::Request;

const IDENTITY_V1: ServiceInfo = ServiceInfo::from_static("identity", "v1");
/// How long calls may wait for providers to be connected.
const READY: Duration = Duration::from_secs(5);

const USAGE: &str = "\
A node that calls identity/v1 and reports how the calls went, as one JSON object.

usage: consumer --id ID --type TYPE --cert-dir DIR --join HOST:PORT [options]

  --id ID              the node's id, as its certificate has it
  --type TYPE          what kind of node it is
  --cert-dir DIR       certificates; a development CA makes what is missing
  --join HOST:PORT     a node to learn the mesh from; may be repeated
  --address HOST:PORT  listen as well (default: only call)
  --wait-for N         begin when N providers are connected, at most after 5s (default: all that are known)
  --no-wait            begin at once
  --calls N            how many calls (default 1, or as many as --duration has time for)
  --concurrency C      how many at once (default 1)
  --rate R             calls a second (default: as fast as they go)
  --duration DURATION  stop after this time
  --deadline DURATION  of each call (default: none)
  --idempotent         the calls may be made twice: one that fails goes to another provider, within a budget
  --balance RULE       round-robin (default), least-loaded or weighted: which provider a call goes to
  --subscribe          keep a stream of events open next to the calls
  --explain            say at the end, before the JSON object, of each provider why it is called or not
  --json               nothing but the JSON object, and what --explain says before it

A DURATION is 500ms, 5s, 2m or plain seconds. Exit code 0 when no call failed.

The JSON object has: calls, ok; failed (how many by code), failed_by_provider (by the node of the last attempt, - for
none), by_provider (how many each answered); p50_ms, p99_ms; last_ok_ms, last_failed_ms (after the start of the first).";

#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
struct Options {
    id: String,
    node_type: String,
    cert_dir: PathBuf,
    join: Vec<String>,
    address: Option<String>,
    wait_for: Option<usize>,
    no_wait: bool,
    calls: Option<u64>,
    concurrency: u64,
    rate: Option<f64>,
    duration: Option<Duration>,
    deadline: Option<Duration>,
    idempotent: bool,
    balance: Balancer,
    subscribe: bool,
    explain: bool,
    json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    examples::logs::install();
    args::report(run().await)
}

#[expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "the report is this program's result"
)]
async fn run() -> Outcome<ExitCode> {
    let Some(options) = parse()? else {
        println!("{USAGE}");
        return Ok(ExitCode::SUCCESS);
    };
    let mut builder = Node::builder()
        .id(&options.id)
        .node_type(&options.node_type)
        .cert_dir(&options.cert_dir)
        .balance(options.balance.clone())
        .join(&options.join);
    if let Some(address) = &options.address {
        builder = builder.address(address);
    }
    let node = builder.build()?;
    let server = match options.address {
        Some(_) => Some(node.start().await?),
        None => None,
    };
    let pool = node.pool();
    let identity = ServiceClient::new(&pool, IDENTITY_V1, IdentityServiceClient::new);
    match options.wait_for {
        _ if options.no_wait => {}
        Some(providers) => {
            if let Err(error) = identity.wait_ready(providers, READY).await {
                // The calls will show what it means.
                tracing::warn!(%error, "calls start all the same");
            }
        }
        None => settle(&identity).await,
    }
    let _subscription = if options.subscribe { Some(subscribe(&identity).await?) } else { None };
    let report = load(&identity, &options).await;
    // Of a closed pool there is no more to say.
    let explanation = options.explain.then(|| pool.explain(&IDENTITY_V1));
    pool.close().await;
    if let Some(server) = server {
        server.shutdown().await?;
    }
    let failed = !report.failed.is_empty();
    if !options.json {
        eprintln!("slowest call: {} ms", report.slowest_ms);
        for (code, error) in &report.errors {
            eprintln!("first {code}: {error}");
        }
    }
    if let Some(explanation) = explanation {
        println!("{explanation}");
    }
    println!("{}", serde_json::to_string(&report)?);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Waits until the directory is there and each provider in it was reached or has failed once.
async fn settle(identity: &Client) {
    let start = Instant::now();
    while start.elapsed() < READY {
        let now = identity.explain();
        let open = |verdict: &Verdict| {
            matches!(verdict, Verdict::Connecting { failures: 0, .. } | Verdict::Unwatched)
        };
        if now.sync == SyncState::Complete
            && !now.candidates.iter().any(|candidate| open(&candidate.verdict))
        {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Keeps a stream open next to the calls.
async fn subscribe(identity: &Client) -> Outcome<tokio::task::JoinHandle<()>> {
    let mut events = identity
        .get()?
        .subscribe_session_events(aegis_proto::identity::v1::SubscribeSessionEventsRequest {})
        .await?
        .into_inner();
    Ok(tokio::spawn(async move { while let Ok(Some(_)) = events.message().await {} }))
}

type Client = ServiceClient<IdentityServiceClient<aegis::ServiceChannel>>;

#[derive(Serialize, Default)]
struct Report {
    calls: u64,
    ok: u64,
    failed: BTreeMap<String, u64>,
    by_provider: BTreeMap<String, u64>,
    /// How many of the failed calls each provider had last; `-` stands for those that no provider had.
    failed_by_provider: BTreeMap<String, u64>,
    p50_ms: f64,
    p99_ms: f64,
    last_ok_ms: f64,
    last_failed_ms: f64,
    /// The text of the first failure of each code, for people.
    #[serde(skip)]
    errors: BTreeMap<String, String>,
    #[serde(skip)]
    slowest_ms: f64,
}

/// One call as it went.
struct Outgoing {
    took: Duration,
    ended: Duration,
    result: Result<String, tonic::Status>,
}

/// Makes the calls, `concurrency` at once, paced if a rate is given.
async fn load(identity: &Client, options: &Options) -> Report {
    let start = Instant::now();
    let end = options.duration.map(|duration| start + duration);
    let calls = options.calls.unwrap_or(match options.duration {
        Some(_) => u64::MAX,
        None => 1,
    });
    let next = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..options.concurrency.max(1) {
        let (identity, next) = (identity.clone(), Arc::clone(&next));
        let (rate, deadline, idempotent) = (options.rate, options.deadline, options.idempotent);
        workers.spawn(async move {
            let mut done = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if calls <= number {
                    return done;
                }
                if let Some(rate) = rate {
                    let due = start + due(number, rate);
                    sleep_until(end.map_or(due, |end| due.min(end))).await;
                }
                if end.is_some_and(|end| end <= Instant::now()) {
                    return done;
                }
                let began = Instant::now();
                let result = call(&identity, number, deadline, idempotent).await;
                done.push(Outgoing { took: began.elapsed(), ended: start.elapsed(), result });
            }
        });
    }
    report(workers.join_all().await.into_iter().flatten().collect())
}

#[expect(clippy::cast_precision_loss, reason = "a pace needs no 53 bits")]
fn due(number: u64, rate: f64) -> Duration {
    Duration::from_secs_f64(number as f64 / rate)
}

async fn call(
    identity: &Client,
    number: u64,
    deadline: Option<Duration>,
    idempotent: bool,
) -> Result<String, tonic::Status> {
    let mut request = Request::new(GetUserRequest { user_id: number.to_string() });
    if idempotent {
        request = request.idempotent();
    }
    if let Some(deadline) = deadline {
        request.set_timeout(deadline);
    }
    Ok(identity.get()?.get_user(request).await?.into_inner().name)
}

fn report(done: Vec<Outgoing>) -> Report {
    let mut report = Report::default();
    let mut took: Vec<f64> = Vec::with_capacity(done.len());
    for call in done {
        report.calls += 1;
        took.push(millis(call.took));
        let ended = millis(call.ended);
        match call.result {
            Ok(provider) => {
                report.ok += 1;
                report.last_ok_ms = report.last_ok_ms.max(ended);
                *report.by_provider.entry(provider).or_default() += 1;
            }
            Err(status) => {
                report.last_failed_ms = report.last_failed_ms.max(ended);
                let code = upper_snake(status.code());
                report.errors.entry(code.clone()).or_insert_with(|| status.message().to_owned());
                *report.failed.entry(code).or_default() += 1;
                *report.failed_by_provider.entry(had_last(&status)).or_default() += 1;
            }
        }
    }
    took.sort_by(f64::total_cmp);
    let quantile = |percent: usize| {
        took.get((took.len() * percent / 100).min(took.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    };
    (report.p50_ms, report.p99_ms) = (quantile(50), quantile(99));
    report.slowest_ms = took.last().copied().unwrap_or_default();
    report
}

/// The provider of a failed call's last attempt.
fn had_last(status: &tonic::Status) -> String {
    let attempts = Failure::from_status(status).map(Failure::attempts).unwrap_or_default();
    attempts.last().map_or_else(|| "-".to_owned(), |attempt| attempt.node_id.to_string())
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// `DeadlineExceeded` as `DEADLINE_EXCEEDED`.
fn upper_snake(code: tonic::Code) -> String {
    let mut text = String::new();
    for c in format!("{code:?}").chars() {
        if c.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(c.to_ascii_uppercase());
    }
    text
}

fn parse() -> Outcome<Option<Options>> {
    let (mut id, mut node_type, mut cert_dir, mut address) = (None, None, None, None);
    let (mut join, mut wait_for, mut calls, mut concurrency) = (Vec::new(), None, None, 1);
    let (mut rate, mut duration, mut deadline) = (None, None, None);
    let (mut balance, mut idempotent) = (Balancer::round_robin(), false);
    let (mut subscribe, mut explain, mut no_wait, mut json) = (false, false, false, false);
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("id") => id = Some(args::value("id", &mut parser)?),
            Long("type") => node_type = Some(args::value("type", &mut parser)?),
            Long("cert-dir") => cert_dir = Some(args::value("cert-dir", &mut parser)?),
            Long("join") => join.push(args::value("join", &mut parser)?),
            Long("address") => address = Some(args::value("address", &mut parser)?),
            Long("wait-for") => wait_for = Some(args::value("wait-for", &mut parser)?),
            Long("no-wait") => no_wait = true,
            Long("calls") => calls = Some(args::value("calls", &mut parser)?),
            Long("concurrency") => concurrency = args::value("concurrency", &mut parser)?,
            Long("rate") => rate = Some(args::value("rate", &mut parser)?),
            Long("duration") => duration = Some(args::duration("duration", &mut parser)?),
            Long("deadline") => deadline = Some(args::duration("deadline", &mut parser)?),
            Long("idempotent") => idempotent = true,
            Long("balance") => balance = args::value("balance", &mut parser)?,
            Long("subscribe") => subscribe = true,
            Long("explain") => explain = true,
            Long("json") => json = true,
            Long("help") => return Ok(None),
            _ => return Err(format!("{}\n{USAGE}", arg.unexpected()).into()),
        }
    }
    if rate.is_some_and(|rate: f64| !rate.is_finite() || rate <= 0.0) {
        return Err("--rate must be more than 0 calls a second".into());
    }
    if join.is_empty() {
        return Err("--join is missing".into());
    }
    Ok(Some(Options {
        id: args::required(id, "--id")?,
        node_type: args::required(node_type, "--type")?,
        cert_dir: args::required(cert_dir, "--cert-dir")?,
        join,
        address,
        wait_for,
        no_wait,
        calls,
        concurrency,
        rate,
        duration,
        deadline,
        idempotent,
        balance,
        subscribe,
        explain,
        json,
    }))
}
