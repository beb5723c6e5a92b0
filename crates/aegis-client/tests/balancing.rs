//! Who gets a call.

use std::collections::BTreeMap;
use std::time::Duration;

use aegis_client::Verdict;
use aegis_core::NodeId;
use aegis_testing::eventually;
use aegis_tls::TlsOptions;
use tokio::task::JoinSet;

use crate::mesh::{Mesh, PATIENCE, call, call_many, fill, identity, one_connection, request, send};
use crate::provider::{Act, Provider};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_connected_providers_share_the_calls_exactly() {
    let mesh = Mesh::new();
    let [a, b, c] = [
        Provider::start(&mesh, "a").await,
        Provider::start(&mesh, "b").await,
        Provider::start(&mesh, "c").await,
    ];
    let (pool, client) = mesh.connected(&[&a, &b, &c]).await;
    let counts = call_many(&client, 3_000).await.unwrap();
    assert_eq!(counts, BTreeMap::from(["a", "b", "c"].map(|id| (id.to_owned(), 1_000))));
    let explanation = pool.explain(client.info());
    assert_eq!(explanation.calls, 3_000);
    assert_eq!(explanation.moved, 0);
    let picks: Vec<_> = explanation.candidates.iter().map(|it| it.picks).collect();
    assert_eq!(picks, [1_000; 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_of_another_ca_costs_no_call_and_is_dialled_with_backoff() {
    let (mesh, other) = (Mesh::new(), Mesh::new());
    let theirs = Provider::start(&other, "theirs").await;
    check_unusable(&mesh, mesh.options(), &theirs, "issued by a CA that is not in our bundle")
        .await;
}

// The hard case: in TLS 1.3 our own handshake is over, and well, before the server says no.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_refuses_our_certificate_costs_no_call_and_is_dialled_with_backoff() {
    let (mesh, other) = (Mesh::new(), Mesh::new());
    let theirs = Provider::start(&other, "theirs").await;
    // We trust both CAs, they only theirs.
    check_unusable(&mesh, other.stranger(&mesh), &theirs, "refused our certificate").await;
}

/// Calls past a provider whose handshakes fail: it gets no call, few dials, and `why` is told.
async fn check_unusable(mesh: &Mesh, options: TlsOptions, theirs: &Provider, why: &str) {
    let ours = Provider::start(mesh, "ours").await;
    let addresses = [("ours", ours.address), ("theirs", theirs.address)];
    let pool = mesh.builder(&addresses).tls(options).build().unwrap();
    let client = identity(&pool);
    let counts = call_many(&client, 1_000).await.unwrap();
    assert_eq!(counts, BTreeMap::from([("ours".to_owned(), 1_000)]));
    let id = NodeId::new("theirs").unwrap();
    let failures = eventually(PATIENCE, || {
        let explanation = client.explain();
        match &explanation.candidate(&id).unwrap().verdict {
            Verdict::Backoff { failures, error, .. } if error.contains(why) => Ok(*failures),
            verdict => Err(format!("it is {verdict}")),
        }
    })
    .await;
    assert!(failures < 5, "{failures} dials");
    assert_eq!(theirs.refused(), failures as usize);
    assert_eq!(theirs.requests(), 0);
    assert_eq!(client.explain().candidate(&id).unwrap().picks, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wrong_node_at_an_address_gets_no_call() {
    let mesh = Mesh::new();
    let right = Provider::start(&mesh, "right").await;
    let wrong = Provider::start(&mesh, "wrong").await;
    let pool =
        mesh.builder(&[("moved-away", wrong.address), ("right", right.address)]).build().unwrap();
    let client = identity(&pool);
    call_many(&client, 100).await.unwrap();
    assert_eq!(wrong.requests(), 0);
    let text = eventually(PATIENCE, || {
        let text = client.explain().to_string();
        if text.contains("wrong by its certificate, not moved-away") { Ok(text) } else { Err(text) }
    })
    .await;
    assert!(text.starts_with("identity/v1: 1 of 2 providers are called"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_provider_is_skipped_while_another_has_a_slot() {
    let mesh = Mesh::new();
    let full = Provider::with_streams(&mesh, "full", 1).await;
    let free = Provider::start(&mesh, "free").await;
    let (_pool, client) = mesh.connected(&[&free, &full]).await;
    full.always(Act::Hang);
    let _hanging = fill(&client, "full").await;
    let before = full.requests();
    let counts = call_many(&client, 100).await.unwrap();
    assert_eq!(counts, BTreeMap::from([("free".to_owned(), 100)]));
    assert_eq!(full.requests(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_wait_for_a_slot_of_the_only_provider() {
    let mesh = Mesh::new();
    let provider = Provider::with_streams(&mesh, "narrow", 2).await;
    provider.always(Act::AnswerAfter(Duration::from_millis(5)));
    let (_pool, client) = mesh.connected(&[&provider]).await;
    let counts = call_many(&client, 100).await.unwrap();
    assert_eq!(counts, BTreeMap::from([("narrow".to_owned(), 100)]));
}

// On one thread, where a call that was spawned has lined up before the next one is.
#[tokio::test]
async fn a_free_slot_goes_to_the_call_that_has_waited_longest_and_concerns_nobody_else() {
    const WAITING: usize = 50;
    let mesh = Mesh::new();
    let provider = Provider::with_streams(&mesh, "narrow", 1).await;
    let addresses = [("narrow", provider.address)];
    let pool = mesh.builder(&addresses).settings(one_connection()).build().unwrap();
    let client = identity(&pool);
    client.wait_ready(1, PATIENCE).await.unwrap();
    provider.once(Act::Hang);
    let mut hanging = JoinSet::new();
    hanging.spawn({
        let client = client.clone();
        async move { drop(call(&client).await) }
    });
    eventually(PATIENCE, || match provider.requests() {
        1 => Ok(()),
        _ => Err("the call that hangs has not arrived"),
    })
    .await;
    let mut calls = Vec::new();
    for number in 0..WAITING {
        let (caller, mut request) = (client.clone(), request());
        request.metadata_mut().insert("number", number.to_string().parse().unwrap());
        calls.push(tokio::spawn(async move { send(&caller, request).await }));
        while client.explain().calls < 2 + number as u64 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(provider.requests(), 1);
    let before = client.explain().looks;
    hanging.shutdown().await;
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), "narrow");
    }
    let numbers: Vec<_> =
        provider.all_headers().iter().skip(1).map(|it| it["number"].clone()).collect();
    let in_order: Vec<_> = (0..WAITING).map(|number| number.to_string()).collect();
    assert_eq!(numbers, in_order);
    // Nor does one that nobody waits for.
    for _ in 0..10 {
        call(&client).await.unwrap();
    }
    assert_eq!(client.explain().looks, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_dies_and_returns_costs_no_later_call() {
    let mesh = Mesh::new();
    let stays = Provider::start(&mesh, "stays").await;
    let dies = Provider::start(&mesh, "dies").await;
    let (_pool, client) = mesh.connected(&[&dies, &stays]).await;
    call_many(&client, 10).await.unwrap();
    let address = dies.kill().await;
    let id = NodeId::new("dies").unwrap();
    eventually(PATIENCE, || match &client.explain().candidate(&id).unwrap().verdict {
        Verdict::Eligible { .. } => Err("its end was not seen yet"),
        _ => Ok(()),
    })
    .await;
    let counts = call_many(&client, 100).await.unwrap();
    assert_eq!(counts, BTreeMap::from([("stays".to_owned(), 100)]));
    let _back = Provider::bind(&mesh, "dies", address).await;
    client.wait_ready(2, PATIENCE).await.unwrap();
    let counts = call_many(&client, 100).await.unwrap();
    assert_eq!(counts["dies"], 50);
}
