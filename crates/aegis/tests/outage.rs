//! All providers are away for half a minute, and 60 clients come back to them.
//!
//! On paused time and in memory: a minute of it takes a few seconds, over real TLS and HTTP/2.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aegis::{Server, ServicePool};
use aegis_core::Address;
use aegis_testing::TestMesh;
use aegis_transport::{BoxFuture, BoxIo, Listener, Network};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};

use crate::service::{IDENTITY_V1, Identity, SECOND, ask, client};

const SERVERS: usize = 3;
const CLIENTS: usize = 60;
const OUTAGE: Duration = Duration::from_secs(30);

/// A network that notes when somebody dials, and with what success.
#[derive(Clone, Debug)]
struct Watched {
    network: Arc<dyn Network>,
    dials: Arc<Mutex<Vec<(Instant, bool)>>>,
}

impl Network for Watched {
    fn connect(&self, address: &Address) -> BoxFuture<'static, io::Result<BoxIo>> {
        let (watched, connecting) = (self.clone(), self.network.connect(address));
        Box::pin(async move {
            let result = connecting.await;
            watched.dials.lock().unwrap().push((Instant::now(), result.is_ok()));
            result
        })
    }

    fn bind(&self, address: &Address) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        self.network.bind(address)
    }
}

impl Watched {
    /// How many dials fall into each second of a span, all of them or those that succeeded.
    fn buckets(&self, from: Instant, successes: bool) -> Vec<usize> {
        self.buckets_of(SECOND, from, successes)
    }

    fn buckets_of(&self, width: Duration, from: Instant, successes: bool) -> Vec<usize> {
        let mut buckets = BTreeMap::<u128, usize>::new();
        for (at, connected) in self.dials.lock().unwrap().iter() {
            if from <= *at && (*connected || !successes) {
                *buckets.entry((*at - from).as_nanos() / width.as_nanos()).or_default() += 1;
            }
        }
        let last = buckets.keys().last().copied().unwrap_or_default();
        (0..=last).map(|second| buckets.get(&second).copied().unwrap_or_default()).collect()
    }
}

/// No bucket holds most of the whole.
#[track_caller]
fn assert_spread(what: &str, buckets: &[usize]) {
    let (most, all) = (buckets.iter().max().unwrap(), buckets.iter().sum::<usize>());
    println!("{what}: {all} dials, {buckets:?}");
    assert!(most * 2 < all, "{what}: {most} of {all} at once, {buckets:?}");
}

struct Calling {
    at: Instant,
    took: Duration,
    answer: Result<String, Status>,
}

struct Story {
    mesh: TestMesh,
    watched: Watched,
    servers: Vec<Option<(Server, Identity)>>,
    addresses: Vec<String>,
    callers: JoinSet<()>,
    calls: Vec<Arc<Mutex<Vec<Calling>>>>,
    pools: Vec<ServicePool>,
}

impl Story {
    async fn start() -> Self {
        let mesh = TestMesh::in_memory();
        let watched = Watched { network: mesh.network(), dials: Arc::default() };
        let mut story = Self {
            mesh,
            watched,
            servers: (0..SERVERS).map(|_| None).collect(),
            addresses: vec!["127.0.0.1:0".to_owned(); SERVERS],
            callers: JoinSet::new(),
            calls: Vec::new(),
            pools: Vec::new(),
        };
        for index in 0..SERVERS {
            story.start_server(index).await;
        }
        for index in 0..CLIENTS {
            story.start_client(index);
        }
        story.all_connected().await;
        story
    }

    async fn start_server(&mut self, index: usize) {
        let identity = Identity::new(&format!("server-{index}"));
        let builder = self.mesh.ca().options(&format!("server-{index}"), "test");
        let builder = aegis::Node::builder()
            .id(format!("server-{index}"))
            .node_type("test")
            .address(&*self.addresses[index])
            .tls(builder)
            .network(self.mesh.network());
        let server = identity.on(builder).build().unwrap().start().await.unwrap();
        self.addresses[index] = server.local_addr().to_string();
        self.servers[index] = Some((server, identity));
    }

    /// As a crash: nobody says goodbye.
    fn stop_server(&mut self, index: usize) {
        self.servers[index] = None;
    }

    /// A process of its own in all but name: certificate, pool, connections.
    fn start_client(&mut self, index: usize) {
        let mut builder = ServicePool::builder()
            .tls(self.mesh.ca().options(&format!("client-{index}"), "test"))
            .network(Arc::new(self.watched.clone()));
        for (index, address) in self.addresses.iter().enumerate() {
            builder = builder.provider(format!("server-{index}"), address, [IDENTITY_V1]);
        }
        let pool = builder.build().unwrap();
        let identity = client(&pool);
        let calls = Arc::new(Mutex::new(Vec::new()));
        self.calls.push(Arc::clone(&calls));
        self.pools.push(pool);
        self.callers.spawn(async move {
            // They do not call in step.
            sleep(SECOND * u32::try_from(index).unwrap() / u32::try_from(CLIENTS).unwrap()).await;
            loop {
                let at = Instant::now();
                let answer = ask(&identity, "1").await.map(|answer| answer.name);
                calls.lock().unwrap().push(Calling { at, took: at.elapsed(), answer });
                sleep(SECOND).await;
            }
        });
    }

    async fn all_connected(&self) {
        for pool in &self.pools {
            client(pool).wait_ready(SERVERS, OUTAGE * 2).await.unwrap();
        }
    }

    /// Checks the calls of each client within a span.
    #[track_caller]
    fn each(&self, from: Instant, mut check: impl FnMut(&[&Calling])) {
        for calls in &self.calls {
            let calls = calls.lock().unwrap();
            check(&calls.iter().filter(|call| from <= call.at).collect::<Vec<_>>());
        }
    }

    /// Runs for a while in which no call fails and each server gets its share.
    async fn check_shares(&self, what: &str) {
        let began = Instant::now();
        sleep(SECOND * 10).await;
        let mut shares = BTreeMap::<String, usize>::new();
        self.each(began, |calls| {
            for call in calls {
                *shares.entry(call.answer.clone().unwrap()).or_default() += 1;
            }
        });
        println!("{what}: {shares:?}");
        let fair = shares.values().sum::<usize>() / SERVERS;
        assert!(CLIENTS * 9 / SERVERS <= fair, "{shares:?}");
        assert_eq!(shares.len(), SERVERS);
        for (server, share) in &shares {
            assert!(share.abs_diff(fair) * 4 <= fair, "{server} has {share} of {shares:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn sixty_clients_come_back_after_an_outage_without_a_stampede_or_a_leftover_failure() {
    let mut story = Story::start().await;
    story.check_shares("before").await;

    let down = Instant::now();
    (0..SERVERS).for_each(|index| story.stop_server(index));
    sleep(OUTAGE).await;
    // What was called a second or more after the end knows that nobody is there.
    story.each(down + SECOND, |calls| {
        assert!(20 < calls.len(), "{} calls: they hang", calls.len());
        for Calling { took, answer, .. } in calls {
            assert_eq!(answer.as_ref().unwrap_err().code(), Code::Unavailable, "{answer:?}");
            assert!(*took < SECOND / 2, "{took:?}: {answer:?}");
        }
    });
    // So does what was called before, a little later.
    story.each(down, |calls| {
        assert!(calls.iter().all(|call| call.took < SECOND), "a call waits for long");
    });
    assert_spread("while they are down", &story.watched.buckets(down, false));

    let up = Instant::now();
    for index in 0..SERVERS {
        story.start_server(index).await;
        sleep(SECOND / 3).await;
    }
    story.all_connected().await;
    println!("all {} connections are back after {:?}", CLIENTS * SERVERS, up.elapsed());
    assert_spread("when they are back", &story.watched.buckets(up, true));
    story.each(up, |calls| {
        let failed = calls.iter().rposition(|call| call.answer.is_err());
        let answered = calls.iter().position(|call| call.answer.is_ok());
        assert!(failed < answered, "a call failed after one had succeeded");
    });
    story.check_shares("after").await;

    for bounce in 1..=5 {
        let at = Instant::now();
        story.stop_server(0);
        sleep(SECOND / 10).await;
        story.start_server(0).await;
        story.all_connected().await;
        // By design a broken connection is dialled again within half a second, at random.
        let buckets = story.watched.buckets_of(SECOND / 10, at, false);
        assert_spread(&format!("bounce {bounce}, by tenths of a second"), &buckets);
        // What was under way in that very moment may have gone with the server.
        story.each(at + Duration::from_millis(2), |calls| {
            assert!(calls.iter().all(|call| call.answer.is_ok()), "a bounce cost a call");
        });
        sleep(SECOND * 2).await;
    }
    story.check_shares("after five bounces of one").await;
}
