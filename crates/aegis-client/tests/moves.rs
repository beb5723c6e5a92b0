//! What moves to another provider, and what does not: the table of what was never sent.

use aegis_client::ServiceClient;
use aegis_testing::eventually;
use h2::Reason;
use tonic::Code;

use crate::mesh::{Client, Mesh, PATIENCE, assert_status, call, call_many, identity};
use crate::provider::{Act, Provider};
use crate::raw::{Raw, RawPeer};

/// Two connected providers, of which the first plays `raw` whenever a request reaches it: with 2 calls one does.
async fn two_calls(
    raw: Raw,
) -> (RawPeer, ServiceClient<Client>, Vec<Result<String, tonic::Status>>) {
    let mesh = Mesh::new();
    let bad = RawPeer::start(&mesh, "bad", raw).await;
    let good = Provider::start(&mesh, "good").await;
    let pool = mesh.builder(&[("bad", bad.address), ("good", good.address)]).build().unwrap();
    let client = identity(&pool);
    client.wait_ready(2, PATIENCE).await.unwrap();
    let outcomes = vec![call(&client).await, call(&client).await];
    (bad, client, outcomes)
}

#[track_caller]
fn moved(
    bad: &RawPeer,
    client: &ServiceClient<Client>,
    outcomes: &[Result<String, tonic::Status>],
) {
    for outcome in outcomes {
        assert_eq!(outcome.as_ref().unwrap(), "good");
    }
    assert_eq!((bad.requests(), client.explain().moved), (1, 1));
}

#[track_caller]
fn not_moved(
    bad: &RawPeer,
    client: &ServiceClient<Client>,
    outcomes: &[Result<String, tonic::Status>],
    code: Code,
) {
    let mut failures = outcomes.iter().filter_map(|it| it.as_ref().err());
    assert_status(failures.next().expect("a failure"), code, &["node bad at", "attempt 1"]);
    assert!(failures.next().is_none());
    assert_eq!((bad.requests(), client.explain().moved), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_stream_moves() {
    let (bad, client, outcomes) = two_calls(Raw::Reset(Reason::REFUSED_STREAM.into())).await;
    moved(&bad, &client, &outcomes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_above_the_goaway_moves() {
    let (bad, client, outcomes) = two_calls(Raw::GoAwayBefore).await;
    moved(&bad, &client, &outcomes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_the_goaway_counts_does_not_move() {
    let (bad, client, outcomes) = two_calls(Raw::GoAwayAfter).await;
    not_moved(&bad, &client, &outcomes, Code::Unavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_on_a_connection_that_breaks_does_not_move() {
    let (bad, client, outcomes) = two_calls(Raw::Cut).await;
    not_moved(&bad, &client, &outcomes, Code::Unavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_reset_otherwise_does_not_move() {
    for (reason, code) in [
        (Reason::CANCEL, Code::Cancelled),
        (Reason::INTERNAL_ERROR, Code::Internal),
        (Reason::ENHANCE_YOUR_CALM, Code::ResourceExhausted),
    ] {
        let (bad, client, outcomes) = two_calls(Raw::Reset(reason.into())).await;
        not_moved(&bad, &client, &outcomes, code);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_goaway_that_we_made_does_not_move() {
    // A frame that breaks the protocol makes our own side end the connection, and h2 says GOAWAY for that as well.
    let (bad, client, outcomes) = two_calls(Raw::Nonsense).await;
    let failed = outcomes.iter().filter(|it| it.is_err()).count();
    assert_eq!((failed, bad.requests(), client.explain().moved), (1, 1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_of_the_provider_does_not_move() {
    let mesh = Mesh::new();
    let [a, b] = [Provider::start(&mesh, "a").await, Provider::start(&mesh, "b").await];
    let (_pool, client) = mesh.connected(&[&a, &b]).await;
    a.always(Act::Fail(14));
    let outcomes = [call(&client).await, call(&client).await];
    assert_eq!(outcomes.iter().filter(|it| it.is_ok()).count(), 1);
    assert_eq!((a.requests(), b.requests()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_the_service_is_not_served_moves() {
    let mesh = Mesh::new();
    let [a, b] = [Provider::start(&mesh, "a").await, Provider::start(&mesh, "b").await];
    let (_pool, client) = mesh.connected(&[&a, &b]).await;
    a.always(Act::NotServed);
    for _ in 0..4 {
        assert_eq!(call(&client).await.unwrap(), "b");
    }
    assert_eq!((a.requests(), client.explain().moved), (2, 2));
    // Nobody serves it any more: the answer is the answer, and says where it is from.
    b.always(Act::NotServed);
    let status = call(&client).await.unwrap_err();
    let last = if status.message().contains("node a at") { &a } else { &b };
    let place = format!("node {} at {}", last.id, last.address);
    assert_status(&status, Code::Unimplemented, &[&place, "attempt 2 of identity/v1"]);
    assert!(status.metadata().get("aegis-refused").is_none(), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_with_a_body_was_processed_whatever_its_headers_say() {
    let mesh = Mesh::new();
    let [a, b] = [Provider::start(&mesh, "a").await, Provider::start(&mesh, "b").await];
    let (_pool, client) = mesh.connected(&[&a, &b]).await;
    a.always(Act::NotServedAfter);
    b.always(Act::NotServedAfter);
    let status = call(&client).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert_eq!((a.requests() + b.requests(), client.explain().moved), (1, 0));
    // Passed on by a handler, it would say of that handler's call that it was not processed.
    assert!(status.metadata().get("aegis-refused").is_none(), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unimplemented_method_does_not_move() {
    let mesh = Mesh::new();
    let [a, b] = [Provider::start(&mesh, "a").await, Provider::start(&mesh, "b").await];
    let (_pool, client) = mesh.connected(&[&a, &b]).await;
    a.always(Act::Fail(12));
    b.always(Act::Fail(12));
    assert_eq!(call(&client).await.unwrap_err().code(), Code::Unimplemented);
    assert_eq!(a.requests() + b.requests(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_provider_gets_a_refused_request_again() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    let (_pool, client) = mesh.connected(&[&provider]).await;
    provider.once(Act::Reset(Reason::REFUSED_STREAM));
    assert_eq!(call(&client).await.unwrap(), "a");
    assert_eq!((provider.requests(), client.explain().moved), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_providers_next_connection_is_waited_for() {
    let mesh = Mesh::new();
    let provider = RawPeer::start(&mesh, "a", Raw::GoAwayOnceThenReset).await;
    let pool = mesh.builder(&[("a", provider.address)]).build().unwrap();
    let client = identity(&pool);
    client.wait_ready(1, PATIENCE).await.unwrap();
    // The second connection has the request: what it does with it shows that it came there.
    assert_eq!(call(&client).await.unwrap_err().code(), Code::Internal);
    assert_eq!((provider.requests(), client.explain().moved), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_connections_cost_no_call() {
    let mesh = Mesh::new();
    let [a, b] = [Provider::start(&mesh, "a").await, Provider::start(&mesh, "b").await];
    let (_pool, client) = mesh.connected(&[&a, &b]).await;
    for round in 2..=3 {
        a.once(Act::GoAway);
        call_many(&client, 40).await.unwrap();
        eventually(PATIENCE, || match a.connections() {
            some if some == round => Ok(()),
            some => Err(format!("{some} connections in round {round}")),
        })
        .await;
        client.wait_ready(2, PATIENCE).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeats_of_refused_requests_stay_within_the_budget() {
    const CALLS: usize = 200;
    let mesh = Mesh::new();
    let [a, b] = [Provider::start(&mesh, "a").await, Provider::start(&mesh, "b").await];
    let (_pool, client) = mesh.connected(&[&a, &b]).await;
    a.always(Act::Reset(Reason::REFUSED_STREAM));
    b.always(Act::Reset(Reason::REFUSED_STREAM));
    let calls = (0..CALLS).map(|_| call(&client));
    for outcome in futures_util::future::join_all(calls).await {
        let status = outcome.unwrap_err();
        assert_status(&status, Code::Unavailable, &["identity/v1"]);
    }
    let attempts = a.requests() + b.requests();
    let explanation = client.explain();
    // Each call once, and once more for free; then 10 % of them and 3 per second of the window.
    assert!(attempts <= 2 * CALLS + CALLS / 10 + 30, "{attempts} attempts");
    assert_eq!(explanation.moved, u64::try_from(attempts - CALLS).unwrap());
    assert!(0 < explanation.over_budget);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_providers_that_refuse_every_stream_are_asked_little_more_than_twice_a_call() {
    const CALLS: usize = 500;
    let mesh = Mesh::new();
    let ids: Vec<_> = (0..50).map(|number| format!("provider-{number}")).collect();
    let starts = ids.iter().map(|id| Provider::start(&mesh, id));
    let providers = futures_util::future::join_all(starts).await;
    for provider in &providers {
        provider.always(Act::Reset(Reason::REFUSED_STREAM));
    }
    let (_pool, client) = mesh.connected(&providers.iter().collect::<Vec<_>>()).await;
    let calls = (0..CALLS).map(|_| call(&client));
    for outcome in futures_util::future::join_all(calls).await {
        assert_eq!(outcome.unwrap_err().code(), Code::Unavailable);
    }
    let attempts: usize = providers.iter().map(Provider::requests).sum();
    println!("{attempts} attempts for {CALLS} calls");
    assert!(CALLS * 2 <= attempts && attempts * 10 <= CALLS * 22, "{attempts} attempts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_waiting_for_a_slot_survives_the_loss_of_the_connection() {
    let mesh = Mesh::new();
    let provider = Provider::with_streams(&mesh, "narrow", 1).await;
    provider.always(Act::Hang);
    let (_pool, client) = mesh.connected(&[&provider]).await;
    // More than its connections have slots for; those that got one hang.
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { call(&client).await })
        })
        .collect();
    let begun = eventually(PATIENCE, || match provider.requests() {
        4 => Ok(4),
        some => Err(format!("{some} of the 4 calls that there are slots for")),
    })
    .await;
    // Connections that break at once are dialled with backoff, and no call waits for that.
    tokio::time::sleep(aegis_transport::Settings::default().backoff.steady).await;
    provider.always(Act::Answer);
    let address = provider.kill().await;
    let _again = Provider::bind(&mesh, "narrow", address).await;
    let mut lost = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(id) => assert_eq!(id, "narrow"),
            Err(status) => {
                assert_status(&status, Code::Unavailable, &["narrow"]);
                lost += 1;
            }
        }
    }
    assert_eq!(lost, begun, "what was on the wire is lost, and nothing else");
}
