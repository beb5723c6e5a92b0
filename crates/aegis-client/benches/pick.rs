//! What it costs to find a call's provider among 3 to 10,000 that are connected.
//!
//! | what | |
//! |---|---|
//! | `pick` | a provider is chosen, one of its slots is taken, by reference, and given back |
//! | `attempt` | the same, and both are made the call's own, and it is measured |
//! | `call` | a whole call, without a body, of which both ends run on one thread |
//!
//! Each provider has an identity of its own and a real connection: mutual TLS and HTTP/2 over a pipe in memory.
//! While picks are measured the runtime stands still, so nothing else runs on the threads. Two threads pick at once from the
//! same service; a figure is the time that one pick takes the thread that makes it.

#![expect(clippy::unwrap_used, reason = "a benchmark ends this way")]

use std::hint::{self, black_box};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aegis_client::{Balancer, ServiceChannel, ServicePool, Settings};
use aegis_core::ServiceInfo;
use aegis_testing::{MemoryNetwork, TestCa};
use aegis_tls::Tls;
use aegis_transport::{Listener, Network as _};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{Request, Response};
use tokio::runtime::{Builder, Runtime};
use tonic::body::Body;
use tower_service::Service as _;

/// How many nodes provide each of the services; the last one is provided by all.
const PROVIDERS: [u16; 4] = [3, 10, 1_000, 10_000];
const THREADS: [u32; 2] = [1, 2];
/// Ten thousand handshakes on one thread take their time.
const PATIENCE: Duration = Duration::from_secs(300);

/// What is measured; whether a provider was picked.
type Work = fn(&ServiceChannel) -> bool;

/// The service that so many nodes provide.
fn service(balancer: &str, providers: u16) -> ServiceInfo {
    ServiceInfo::new(format!("{balancer}-{providers}"), "v1").unwrap()
}

/// Takes one connection, keeps it, and answers each request that all is well.
async fn provide(mut listener: Box<dyn Listener>, tls: Tls) {
    let accepted = tls.accept(listener.accept().await.unwrap()).await.unwrap();
    let mut http2 = h2::server::handshake(accepted.stream).await.unwrap();
    while let Some(Ok((_, mut respond))) = http2.accept().await {
        let answer = Response::builder().header("content-type", "application/grpc");
        let answer = answer.header("grpc-status", "0").body(()).unwrap();
        respond.send_response(answer, true).unwrap();
    }
}

/// Makes so many calls, one after the other.
async fn calls(channel: &ServiceChannel, times: u64) {
    let mut channel = channel.clone();
    for _ in 0..times {
        let request = Request::post("/bench.Pick/Call").body(Body::empty()).unwrap();
        drop(channel.call(request).await.unwrap());
    }
}

/// A pool that is connected to all nodes, and the channel that keeps it so.
fn connected(runtime: &Runtime) -> (ServicePool, ServiceChannel) {
    let (ca, network) = (TestCa::new(), MemoryNetwork::new());
    let mut settings = Settings::default();
    settings.dial_limit = PATIENCE;
    let [.., all] = PROVIDERS;
    runtime.block_on(async {
        let mut builder =
            ServicePool::builder().tls(ca.options("vicky-1", "storage")).settings(settings);
        for providers in PROVIDERS {
            let service = service("least-loaded", providers);
            builder = builder.balance_service(service, Balancer::least_loaded());
        }
        for number in 1..=all {
            let id = format!("provider-{number}");
            let listener = network.bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let provided = PROVIDERS.into_iter().filter(|providers| number <= *providers);
            let services = provided
                .flat_map(|it| [service("round-robin", it), service("least-loaded", it)])
                .collect::<Vec<_>>();
            builder = builder.provider(id.clone(), address, services);
            tokio::spawn(provide(listener, ca.tls(&id, "identity-server")));
        }
        let pool = builder.network(Arc::new(network)).build().unwrap();
        let channel = pool.channel(service("round-robin", all));
        channel.wait_ready(usize::from(all), PATIENCE).await.unwrap();
        (pool, channel)
    })
}

/// How long so many times take each of so many threads while all of them are at it.
fn at_once(threads: u32, times: u64, each: impl Fn() + Sync) -> Duration {
    let (ready, done) = (AtomicU32::new(0), AtomicU32::new(0));
    // None sleeps: woken together, two threads may well begin on one core, one after the other.
    let run = || {
        ready.fetch_add(1, Ordering::SeqCst);
        while ready.load(Ordering::SeqCst) < threads {
            hint::spin_loop();
        }
        let began = Instant::now();
        for _ in 0..times {
            each();
        }
        let took = began.elapsed();
        // The others go on to have company.
        done.fetch_add(1, Ordering::SeqCst);
        while done.load(Ordering::SeqCst) < threads {
            each();
        }
        took
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|it| it.join().unwrap()).sum::<Duration>()
    }) / threads
}

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.warm_up_time(Duration::from_millis(100));
    group.measurement_time(Duration::from_millis(500));
    group.sample_size(20);
    group
}

fn picks(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let (pool, _all) = connected(&runtime);
    let channel = |balancer: &str, providers: u16| -> ServiceChannel {
        let channel = pool.channel(service(balancer, providers));
        let ready = channel.wait_ready(usize::from(providers), PATIENCE);
        runtime.block_on(ready).unwrap();
        channel
    };
    let works: [(&str, Work); 2] =
        [("pick", ServiceChannel::pick), ("attempt", ServiceChannel::attempt)];
    for balancer in ["round-robin", "least-loaded"] {
        for (name, work) in works {
            let mut group = group(criterion, &format!("{name}/{balancer}"));
            for providers in PROVIDERS {
                let channel = channel(balancer, providers);
                let allocated = allocation_counter::measure(|| {
                    (0..20_000).for_each(|_| assert!(work(&channel)));
                });
                assert_eq!(allocated.count_total, 0, "allocations in 20,000");
                for threads in THREADS {
                    let id = BenchmarkId::new(providers.to_string(), threads);
                    group.bench_function(id, |bencher| {
                        bencher.iter_custom(|times| {
                            at_once(threads, times, || {
                                black_box(work(&channel));
                            })
                        });
                    });
                }
            }
        }
    }
    let mut group = group(criterion, "call/round-robin");
    for providers in PROVIDERS {
        let channel = channel("round-robin", providers);
        // Each provider has been called before.
        runtime.block_on(calls(&channel, providers.into()));
        group.bench_function(BenchmarkId::new(providers.to_string(), 1), |bencher| {
            bencher.iter_custom(|times| {
                let began = Instant::now();
                runtime.block_on(calls(&channel, times));
                began.elapsed()
            });
        });
    }
    group.finish();
    // Ten thousand goodbyes are nobody's business here.
    runtime.shutdown_background();
}

criterion_group!(benches, picks);
criterion_main!(benches);
