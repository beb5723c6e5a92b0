//! What a call waits for, and for how long.

use std::time::{Duration, Instant};

use aegis_client::{Error, RequestExt as _, ServicePool};
use tokio::net::TcpListener;
use tonic::Code;

use crate::mesh::{IDENTITY, Mesh, PATIENCE, assert_status, call, identity, request, send, timed};
use crate::provider::Provider;

#[tokio::test]
async fn a_call_waits_for_the_first_connection() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    let pool = mesh.pool(&[&provider]);
    // Made outside of every wait: nothing has been dialled yet.
    assert_eq!(call(&identity(&pool)).await.unwrap(), "a");
}

#[tokio::test]
async fn a_call_waits_no_longer_than_its_deadline() {
    let mesh = Mesh::new();
    // It takes connections, and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let pool = mesh.builder(&[("silent", address)]).build().unwrap();
    let client = identity(&pool);
    let began = Instant::now();
    let status = send(&client, timed(Duration::from_millis(200))).await.unwrap_err();
    let waited = "the deadline passed while the call waited for a provider of identity/v1: \
                  0 of 1 providers are connected: silent at 127.0.0.1";
    assert_status(&status, Code::DeadlineExceeded, &[waited, "connecting"]);
    assert!(began.elapsed() < Duration::from_secs(1));
}

// Nothing here is waited for but timers, so paused time jumps from one to the next.
#[tokio::test(start_paused = true)]
async fn a_call_waits_at_most_five_seconds_and_says_what_is_known() {
    let mesh = Mesh::new();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let pool = mesh.builder(&[("silent", address)]).build().unwrap();
    let client = identity(&pool);
    let began = tokio::time::Instant::now();
    let status = call(&client).await.unwrap_err();
    assert_status(&status, Code::Unavailable, &["silent at 127.0.0.1"]);
    let Some(Error::NoProviders { explanation, .. }) = Error::from_status(&status) else {
        panic!("{status}")
    };
    assert_eq!(explanation.candidates.len(), 1);
    assert!(began.elapsed() <= Duration::from_millis(5_100), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_call_marked_so_waits_for_a_provider_that_comes_later() {
    let mesh = Mesh::new();
    let address = Provider::start(&mesh, "late").await.kill().await;
    let pool = mesh.builder(&[("late", address)]).build().unwrap();
    let client = identity(&pool);
    call(&client).await.expect_err("the first attempt fails");
    let mut client = IdentityClient::new(pool.channel(IDENTITY));
    let mut waiting = request().wait_ready();
    waiting.set_timeout(PATIENCE);
    let call = tokio::spawn(async move { client.validate_session(waiting).await });
    let _late = Provider::bind(&mesh, "late", address).await;
    assert_eq!(call.await.unwrap().unwrap().into_inner().user_id, "late");
}

type IdentityClient<T> =
    aegis_proto::identity::v1::identity_service_client::IdentityServiceClient<T>;

#[tokio::test]
async fn a_call_marked_so_waits_until_its_deadline_and_no_longer() {
    let mesh = Mesh::new();
    let address = Provider::start(&mesh, "never").await.kill().await;
    let pool = mesh.builder(&[("never", address)]).build().unwrap();
    let channel = pool.channel(IDENTITY);
    let mut client = IdentityClient::new(channel.clone());
    client.validate_session(request()).await.expect_err("the first attempt fails");
    let mut waiting = request().wait_ready();
    waiting.set_timeout(Duration::from_millis(200));
    let status = client.validate_session(waiting).await.unwrap_err();
    let waited = ["provider of identity/v1", "never at 127.0.0.1", "cannot reach", "refused"];
    assert_status(&status, Code::DeadlineExceeded, &waited);
    // Without a deadline the response limit ends the wait, and is named.
    let mut client = IdentityClient::new(channel.response_limit(Duration::from_millis(100)));
    let status = client.validate_session(request().wait_ready()).await.unwrap_err();
    assert_status(&status, Code::Unavailable, &["response_limit of 100ms", "identity/v1"]);
    assert!(matches!(Error::from_status(&status), Some(Error::NoProviders { .. })));
}

#[tokio::test]
async fn wait_ready_counts_connected_providers() {
    let mesh = Mesh::new();
    let up = Provider::start(&mesh, "up").await;
    let down = Provider::start(&mesh, "down").await.kill().await;
    let pool = mesh.builder(&[("down", down), ("up", up.address)]).build().unwrap();
    let client = identity(&pool);
    client.wait_ready(1, PATIENCE).await.unwrap();
    let error = client.wait_ready(2, Duration::from_millis(200)).await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("1 of the 2 providers of identity/v1 waited for"), "{text}");
    assert!(text.contains("down at"), "{text}");
    let Error::NotReady { wanted, connected, .. } = error else { panic!("{text}") };
    assert_eq!((wanted, connected), (2, 1));
}

#[tokio::test]
async fn a_peer_that_refuses_us_does_not_count_as_connected() {
    let (mesh, other) = (Mesh::new(), Mesh::new());
    let provider = Provider::start(&mesh, "a").await;
    // In TLS 1.3 a client that is refused has finished its own handshake all the same.
    let pool = ServicePool::builder()
        .tls(mesh.stranger(&other))
        .provider("a", provider.address.to_string(), [IDENTITY])
        .build()
        .unwrap();
    let client = identity(&pool);
    let error = client.wait_ready(1, Duration::from_millis(500)).await.unwrap_err();
    assert!(matches!(error, Error::NotReady { connected: 0, .. }), "{error}");
    assert!(error.to_string().contains("refused our certificate"), "{error}");
    assert!(0 < provider.refused());
}
