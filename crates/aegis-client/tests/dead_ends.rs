//! Addresses that lead nowhere, each in its own way, cost no call and no time.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aegis_client::{Explanation, Settings, Verdict};
use aegis_core::NodeId;
use aegis_testing::eventually;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::mesh::{Mesh, PATIENCE, call, identity};
use crate::provider::Provider;

const CALLS: usize = 2_000;
const AT_ONCE: usize = 8;
const DIAL_LIMIT: Duration = Duration::from_secs(2);

/// A listener whose backlog is full: whoever dials it gets no answer of any kind.
struct Blackhole {
    listener: TcpListener,
    _held: Vec<TcpStream>,
}

impl Blackhole {
    async fn dig() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut held = Vec::new();
        // Until nobody answers any more: how many fit is the system's business.
        while let Ok(connected) =
            tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await
        {
            held.push(connected.unwrap());
            assert!(held.len() < 100, "the backlog has no end");
        }
        Self { listener, _held: held }
    }
}

/// Takes each connection, notes when, and closes it.
async fn slam(listener: TcpListener, dials: Arc<Mutex<Vec<Instant>>>) {
    while let Ok(accepted) = listener.accept().await {
        dials.lock().unwrap().push(Instant::now());
        drop(accepted);
    }
}

fn verdict(explanation: &Explanation, id: &str) -> Verdict {
    explanation.candidate(&NodeId::new(id).unwrap()).unwrap().verdict.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn providers_that_are_down_silent_or_rude_cost_no_call() {
    let mesh = Mesh::new();
    let [a, b] = [Provider::start(&mesh, "a").await, Provider::start(&mesh, "b").await];
    let refused = Provider::start(&mesh, "refused").await.kill().await;
    let hole = Blackhole::dig().await;
    let rude = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = [
        ("a", a.address),
        ("b", b.address),
        ("hole", hole.listener.local_addr().unwrap()),
        ("refused", refused),
        ("rude", rude.local_addr().unwrap()),
    ];
    let dials = Arc::default();
    let mut tasks = JoinSet::new();
    tasks.spawn(slam(rude, Arc::clone(&dials)));
    let mut settings = Settings::default();
    settings.dial_limit = DIAL_LIMIT;
    let pool = mesh.builder(&addresses).settings(settings).build().unwrap();
    let client = identity(&pool);

    // From a cold start: nobody is connected yet.
    let mut callers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let client = client.clone();
        callers.spawn(async move {
            let mut times = Vec::new();
            for _ in 0..CALLS / AT_ONCE {
                let began = Instant::now();
                let id = call(&client).await.unwrap();
                times.push((began.elapsed(), id));
            }
            times
        });
    }
    let mut times = callers.join_all().await.concat();
    assert_eq!(times.len(), CALLS);
    times.sort();
    let [p50, p99, most] = [CALLS / 2, CALLS * 99 / 100, CALLS - 1].map(|at| times[at].0);
    println!("{CALLS} calls, 0 failed: p50 {p50:?}, p99 {p99:?}, slowest {most:?}");
    assert!(p99 < DIAL_LIMIT / 4, "p99 {p99:?}");
    assert!(most < DIAL_LIMIT, "no call waits for a dial to give up: {most:?}");
    let of = |node| times.iter().filter(|(_, id)| id == node).count();
    assert_eq!(of("a") + of("b"), CALLS);
    assert!(CALLS / 4 < of("a") && CALLS / 4 < of("b"), "{} and {}", of("a"), of("b"));

    // The others are tried again meanwhile, by nobody's call, and each time later.
    eventually(PATIENCE, || match dials.lock().unwrap().len() {
        0..3 => Err("it is not dialled again"),
        _ => Ok(()),
    })
    .await;
    let dials = dials.lock().unwrap().clone();
    let pauses: Vec<_> = dials.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // 1 s × 1.6, each 20 % less at most.
    assert!(Duration::from_millis(790) < pauses[0], "{pauses:?}");
    assert!(Duration::from_millis(1_270) < pauses[1], "{pauses:?}");
    for id in ["hole", "refused", "rude"] {
        eventually(PATIENCE, || match verdict(&client.explain(), id) {
            Verdict::Backoff { failures: 1.., .. } => Ok(()),
            verdict => Err(format!("{id} is {verdict}")),
        })
        .await;
        assert_eq!(client.explain().candidate(&NodeId::new(id).unwrap()).unwrap().picks, 0);
    }
}
