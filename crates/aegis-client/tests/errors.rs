//! What a caller is told when no call can be made.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use aegis_client::{Error, ServiceClient, ServicePool, Verdict};
use aegis_core::{ServiceInfo, ServiceVersion};
use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;
use aegis_testing::eventually;
use tonic::Code;

use crate::mesh::{IDENTITY, Mesh, PATIENCE, assert_status, call, identity, request};
use crate::provider::Provider;

const IDENTITY_V2: ServiceInfo = ServiceInfo::from_static("identity", "v2");

#[tokio::test]
async fn a_version_that_nobody_has_is_told_with_those_that_there_are() {
    let mesh = Mesh::new();
    let [a, b] = [Provider::start(&mesh, "a").await, Provider::start(&mesh, "b").await];
    let pool = mesh.pool(&[&a, &b]);
    let client = ServiceClient::new(&pool, IDENTITY_V2, IdentityServiceClient::new);
    let error = client.get().unwrap_err();
    assert_eq!(
        error.to_string(),
        "no provider of identity/v2 can be called: 0 of 2 nodes advertise identity/v2; v1 is"
    );
    let Error::NoProviders { service, explanation } = error else { panic!("{error}") };
    assert_eq!((service, explanation.nodes), (IDENTITY_V2, 2));
    assert_eq!(explanation.other_versions, ["v1".parse::<ServiceVersion>().unwrap()]);
    // The channel says the same as a status, and the error is found in it.
    let mut client = IdentityServiceClient::new(pool.channel(IDENTITY_V2));
    let status = client.validate_session(request()).await.unwrap_err();
    assert_status(&status, Code::Unavailable, &["0 of 2 nodes advertise identity/v2; v1 is"]);
    assert!(matches!(Error::from_status(&status), Some(Error::NoProviders { .. })));
}

#[tokio::test]
async fn providers_that_cannot_be_reached_are_told_with_the_reason() {
    let mesh = Mesh::new();
    let address = Provider::start(&mesh, "down").await.kill().await;
    let pool = mesh.builder(&[("down", address)]).build().unwrap();
    let client = identity(&pool);
    // The first call waits for the first attempt, and then fails with its outcome.
    let status = call(&client).await.unwrap_err();
    assert_status(
        &status,
        Code::Unavailable,
        &["identity/v1", "down at 127.0.0.1", &address.to_string(), "efused"],
    );
    let Some(Error::NoProviders { explanation, .. }) = Error::from_status(&status) else {
        panic!("{status}")
    };
    assert!(matches!(explanation.candidates[0].verdict, Verdict::Backoff { failures: 1, .. }));
    // From then on `get` says so at once.
    assert!(matches!(client.get(), Err(Error::NoProviders { .. })));
}

#[tokio::test]
async fn an_expired_certificate_is_told_from_get_and_from_a_call() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    let expired = Arc::new(AtomicBool::new(false));
    let clock = {
        let expired = Arc::clone(&expired);
        move || {
            let ahead = if expired.load(Ordering::SeqCst) { 100 * 365 } else { 0 };
            SystemTime::now() + Duration::from_secs(ahead * 86_400)
        }
    };
    let pool = ServicePool::builder()
        .tls(mesh.options().clock(clock))
        .provider("a", provider.address.to_string(), [IDENTITY])
        .build()
        .unwrap();
    let client = identity(&pool);
    let mut held = client.get().unwrap();
    call(&client).await.unwrap();
    expired.store(true, Ordering::SeqCst);
    assert!(matches!(client.get(), Err(Error::NoTlsConfig { .. })));
    let status = held.validate_session(request()).await.unwrap_err();
    assert_status(&status, Code::Internal, &["certificate", "vicky"]);
    assert!(matches!(Error::from_status(&status), Some(Error::NoTlsConfig { .. })));
    expired.store(false, Ordering::SeqCst);
    held.validate_session(request()).await.unwrap();
}

#[tokio::test]
async fn a_call_after_close_says_that_the_pool_is_closed() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    let (pool, client) = mesh.connected(&[&provider]).await;
    let mut held = client.get().unwrap();
    pool.close().await;
    assert!(matches!(client.get(), Err(Error::Closed)));
    assert!(matches!(client.pinned(), Err(Error::Closed)));
    assert!(matches!(client.wait_ready(1, PATIENCE).await, Err(Error::Closed)));
    let status = held.validate_session(request()).await.unwrap_err();
    assert_status(&status, Code::Unavailable, &["the pool is closed"]);
    assert!(matches!(Error::from_status(&status), Some(Error::Closed)));
    assert!(matches!(pool.explain(&IDENTITY).candidates[0].verdict, Verdict::Closed));
}

#[tokio::test]
async fn an_error_of_the_provider_names_it_and_is_none_of_ours() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    let (_pool, client) = mesh.connected(&[&provider]).await;
    provider.once(crate::provider::Act::Fail(14));
    let status = call(&client).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(Error::from_status(&status).is_none());
    provider.once(crate::provider::Act::Cut);
    let status = call(&client).await.unwrap_err();
    let address = provider.address.to_string();
    assert_status(&status, Code::Unavailable, &["node a at", &address, "attempt 1 of identity/v1"]);
    assert!(Error::from_status(&status).is_none());
}

#[tokio::test]
async fn nobody_dials_a_service_that_no_channel_asks_for() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    let pool = mesh.pool(&[&provider]);
    assert!(matches!(pool.explain(&IDENTITY).candidates[0].verdict, Verdict::Unwatched));
    let channel = pool.channel(IDENTITY);
    channel.wait_ready(1, PATIENCE).await.unwrap();
    assert!(pool.explain(&IDENTITY).candidates[0].verdict.is_eligible());
    assert_eq!(provider.connections(), 1);
    // The last channel's end is the end of the demand.
    drop(channel);
    eventually(PATIENCE, || match &pool.explain(&IDENTITY).candidates[0].verdict {
        Verdict::Unwatched => Ok(()),
        verdict => Err(verdict.to_string()),
    })
    .await;
}
