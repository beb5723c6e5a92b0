//! What it costs to choose a provider and take one of its slots: one of ten in a mesh of 10 and of 10,000 nodes, and
//! one of 10,000 that are all connected, where every pick waits for memory that no cache holds.
//!
//! Each provider has an identity of its own and a real connection: mutual TLS and HTTP/2 over a pipe in memory.
//! While picks are measured the runtime stands still, so nothing else runs on the thread.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark ends this way, and reports"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use aegis_client::{ServiceChannel, ServicePool, Settings};
use aegis_core::ServiceInfo;
use aegis_testing::{MemoryNetwork, TestCa};
use aegis_tls::Tls;
use aegis_transport::{Listener, Network as _};
use criterion::{Criterion, criterion_group, criterion_main};
use tokio::runtime::{Builder, Runtime};

const IDENTITY_V1: ServiceInfo = ServiceInfo::from_static("identity", "v1");
const AUDIT_V1: ServiceInfo = ServiceInfo::from_static("audit", "v1");
/// Ten thousand handshakes on one thread take their time.
const PATIENCE: Duration = Duration::from_secs(300);

fn id(number: u16) -> String {
    format!("provider-{number}")
}

/// Takes one connection and keeps it.
async fn provide(mut listener: Box<dyn Listener>, tls: Tls) {
    let accepted = tls.accept(listener.accept().await.unwrap()).await.unwrap();
    let mut http2 = h2::server::handshake(accepted.stream).await.unwrap();
    while let Some(Ok(_)) = http2.accept().await {}
}

/// A channel of a service that so many of so many nodes provide, all of the providers connected.
fn connected(runtime: &Runtime, nodes: u16, providers: u16) -> (ServicePool, ServiceChannel) {
    let (ca, network) = (TestCa::new(), MemoryNetwork::new());
    let mut settings = Settings::default();
    settings.dial_limit = PATIENCE;
    runtime.block_on(async {
        let mut builder =
            ServicePool::builder().tls(ca.options("vicky-1", "storage")).settings(settings);
        for number in providers + 1..=nodes {
            builder = builder.provider(id(number), format!("127.0.0.1:{number}"), [AUDIT_V1]);
        }
        for number in 1..=providers {
            let listener = network.bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            builder = builder.provider(id(number), address, [IDENTITY_V1]);
            tokio::spawn(provide(listener, ca.tls(&id(number), "identity-server")));
        }
        let pool = builder.network(Arc::new(network)).build().unwrap();
        let channel = pool.channel(IDENTITY_V1);
        channel.wait_ready(usize::from(providers), PATIENCE).await.unwrap();
        (pool, channel)
    })
}

fn picks(criterion: &mut Criterion) {
    for (nodes, providers) in [(10, 10), (10_000, 10), (10_000, 10_000)] {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (_pool, channel) = connected(&runtime, nodes, providers);
        let allocated = allocation_counter::measure(|| {
            for _ in 0..20_000 {
                assert!(channel.pick());
            }
        });
        println!(
            "{providers} providers among {nodes} nodes: {} allocations in 20,000 picks",
            allocated.count_total
        );
        assert_eq!(allocated.count_total, 0);
        criterion.bench_function(&format!("pick of {providers} among {nodes}"), |bencher| {
            bencher.iter(|| black_box(channel.pick()));
        });
        // Ten thousand goodbyes are nobody's business here.
        runtime.shutdown_background();
    }
}

criterion_group!(benches, picks);
criterion_main!(benches);
