//! Calls reach the node they are meant for, or nobody.

use std::sync::Arc;
use std::time::Duration;

use aegis::{ServiceClient, ServicePool};
use aegis_core::{NodeId, SpiffeId};
use aegis_proto::convert::encode_record;
use aegis_proto::identity::v1::GetUserRequest;
use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;
use aegis_proto::mesh::v1 as wire;
use aegis_proto::mesh::v1::directory_service_client::DirectoryServiceClient;
use aegis_testing::{TestCa, TestMesh, eventually};
use aegis_tls::Tls;
use aegis_topology::{
    Description, Instance, Label, Precedence, Record, ServiceEntry, SignedRecord, Timestamp,
};
use aegis_transport::{Connections, Settings, Target};
use bytes::Bytes;

use crate::service::{IDENTITY_V1, Identity, LIMIT, ask, client, ready};

#[tokio::test]
async fn ids_that_are_no_dns_names_call_each_other() {
    let mesh = TestMesh::loopback();
    for id in ["10", "node.1", "a.-b"] {
        let server = mesh.serve(id, |node| Identity::new(id).on(node)).await;
        let caller = mesh.node(&format!("{id}-c"));
        let identity = ready(&caller.pool(), 1).await;
        let reply = ask(&identity, "1").await.unwrap();
        assert_eq!((reply.name.as_str(), reply.email), (id, caller.spiffe_id().to_string()));
        server.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_swap_ports_get_only_their_own_calls() {
    let mesh = Arc::new(TestMesh::loopback());
    let anchor = mesh.serve("anchor", |node| node).await;
    let serve = async |id: &str, address: String| {
        mesh.start(Identity::new(id).on(mesh.builder(id).address(address))).await
    };
    let (a, b) = (serve("a", "127.0.0.1:0".into()).await, serve("b", "127.0.0.1:0".into()).await);
    let (a_address, b_address) = (a.local_addr().to_string(), b.local_addr().to_string());

    // Whoever keeps the old addresses dials the wrong node from the swap on.
    let stale = ServicePool::builder()
        .tls(mesh.ca().options("stale", "test"))
        .provider("a", a_address.clone(), [IDENTITY_V1])
        .provider("b", b_address.clone(), [IDENTITY_V1])
        .build()
        .unwrap();
    let identity = ready(&stale, 2).await;
    assert_eq!(stale.directory().snapshot().providers(&IDENTITY_V1).len(), 2);

    // Each client is pinned to one node and knows which.
    let pool = mesh.node("c").pool();
    ready(&pool, 2).await;
    let pinned = ServiceClient::new(&pool, IDENTITY_V1, |channel| {
        (channel.pinned_to().cloned(), IdentityServiceClient::new(channel))
    });
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let pinned = pinned.clone();
        calls.spawn(async move {
            let (mut right, mut wrong, mut failed) = (0_u32, 0_u32, 0_u32);
            while right + wrong + failed < 500 {
                let Ok((Some(node), mut client)) = pinned.pinned() else {
                    // Both are away for a moment.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                match client.get_user(GetUserRequest::default()).await {
                    Ok(reply) if reply.get_ref().name == node.as_str() => right += 1,
                    Ok(_) => wrong += 1,
                    Err(_) => failed += 1,
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            (right, wrong, failed)
        });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop((a, b));
    // The sockets close with the tasks that hold them.
    let bound = async |id: &str, address: &str| {
        let node = Identity::new(id).on(mesh.builder(id).address(address)).build().unwrap();
        loop {
            match node.start().await {
                Ok(server) => return server,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let (a, b) = (bound("a", &b_address).await, bound("b", &a_address).await);

    let (right, wrong, failed) = calls
        .join_all()
        .await
        .into_iter()
        .fold((0, 0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1, sum.2 + one.2));
    assert_eq!((right + wrong + failed, wrong), (10_000, 0), "{failed} failed");
    println!(
        "{right} calls reached the right node, {wrong} another, {failed} failed while both were away"
    );
    assert!(5_000 < right, "only {right} calls were answered");

    // The stale pool did dial: each handshake was refused by the client, for the right reason.
    let explanation = eventually(LIMIT, || {
        let now = stale.explain(&IDENTITY_V1).to_string();
        let seen = |expected, found| {
            now.contains(&format!("is {found} by its certificate, not {expected}"))
        };
        if seen("a", "b") && seen("b", "a") { Ok(now) } else { Err(now) }
    })
    .await;
    let status = ask(&identity, "1").await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable, "{explanation}");
    drop((a, b, anchor));
}

#[tokio::test]
async fn a_node_that_claims_anothers_address_or_id_gets_no_call() {
    let mesh = TestMesh::in_memory();
    let honest = Identity::new("a");
    let a = mesh.serve("a", |node| honest.on(node)).await;

    // It may advertise the address: the handshake there tells another id.
    let rogue = Identity::new("mallory");
    let _claims_address = mesh
        .serve("mallory", |node| rogue.on(node).advertise_address(a.local_addr().to_string()))
        .await;
    // It may sign a record for the other's id: its signature is not the owner's.
    let claims_id = Identity::new("mallet");
    let mallet = mesh.serve("mallet", |node| claims_id.on(node)).await;
    let tls = mesh.ca().tls("mallet", "test");
    push_record_of("a", &mallet.local_addr().to_string(), &tls, &mesh, &a.local_addr().to_string())
        .await;

    let c = mesh.node("c");
    let identity = ready(&c.pool(), 2).await;
    eventually(LIMIT, || {
        let now = c.pool().explain(&IDENTITY_V1).to_string();
        if now.contains("is a by its certificate, not mallory") { Ok(()) } else { Err(now) }
    })
    .await;
    let mut by = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..1_000 {
        *by.entry(ask(&identity, "1").await.unwrap().name).or_default() += 1;
    }
    // Mallet's own calls are its own, under its own name; nothing meant for `a` or `mallory` went anywhere else.
    assert_eq!(
        by.into_iter().collect::<Vec<_>>(),
        [("a".to_owned(), 500), ("mallet".to_owned(), 500)]
    );
    assert_eq!((honest.seen.calls(), claims_id.seen.calls(), rogue.seen.calls()), (500, 500, 0));
    let shown = c.directory().snapshot().node(&NodeId::from_static("a")).unwrap().addresses()[0]
        .to_string();
    assert_eq!(shown, a.local_addr().to_string());
}

/// Tells the node at `to` that `id` is at `address`, signed by the sender's own key.
async fn push_record_of(id: &str, address: &str, tls: &Tls, mesh: &TestMesh, to: &str) {
    let own = tls.spiffe_id();
    let owner =
        SpiffeId::new(own.trust_domain().clone(), own.node_type().clone(), id.parse().unwrap());
    let service =
        ServiceEntry::new(IDENTITY_V1).served_by(["aegis.identity.v1.IdentityService"]).unwrap();
    let description =
        Description::new(Label::default(), [address.parse().unwrap()], [service]).unwrap();
    let now: Timestamp = std::time::SystemTime::now().into();
    let precedence = Precedence::new(now.as_millis() + 1_000, 9);
    let body = encode_record(&Record::new(
        owner,
        Instance::from_bytes([7; 16]),
        precedence,
        description,
        now,
        Duration::from_secs(600),
    ));
    let signature = tls.sign_record(&body).unwrap();
    let chain: Vec<_> = signature.chain.iter().map(|der| Bytes::copy_from_slice(der)).collect();
    let record = SignedRecord::new(body, chain, signature.scheme, signature.signature.into());
    let connections = Connections::new(tls.clone(), mesh.network(), Settings::default());
    let link = connections.dial_seed(&to.parse().unwrap()).await.unwrap();
    assert_eq!(link.node_id().as_str(), "a");
    let link = connections.link(Target::new(link.node_id().clone(), vec![to.parse().unwrap()]));
    let request = wire::SyncRequest { records: vec![record.into()], ..Default::default() };
    DirectoryServiceClient::new(link.channel()).sync(request).await.unwrap();
}

#[tokio::test]
async fn a_provider_of_another_ca_gets_no_calls_and_its_dials_back_off() {
    // Both present certificates that the consumer accepts. Only one of them trusts the CA of the consumer's own:
    // at the other our handshake ends well all the same, and the refusal comes after it.
    let (mesh, other) = (TestMesh::loopback(), TestCa::new());
    let (trusts_both, foreign) = (Identity::new("a"), Identity::new("b"));
    let tls = mesh.ca().issue("a", "test").trusting(&[mesh.ca(), &other]).options();
    let a = mesh.start(trusts_both.on(mesh.builder("a").tls(tls))).await;
    let b = mesh.start(foreign.on(mesh.builder("b"))).await;

    let pool = ServicePool::builder()
        .tls(other.issue("c", "test").trusting(&[&other, mesh.ca()]).options())
        .provider("a", a.local_addr().to_string(), [IDENTITY_V1])
        .provider("b", b.local_addr().to_string(), [IDENTITY_V1])
        .build()
        .unwrap();
    let identity = client(&pool);
    let began = std::time::Instant::now();
    for _ in 0..1_000 {
        assert_eq!(ask(&identity, "1").await.unwrap().name, "a");
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    assert_eq!(foreign.seen.calls(), 0);
    let explanation = pool.explain(&IDENTITY_V1).to_string();
    assert!(explanation.contains("refused our certificate"), "{explanation}");
    // Waits of 1 s, 1.6 s, 2.6 s, each shorter by 20 % at most.
    let dials = b.stats().refused;
    let most = match began.elapsed().as_secs_f64() {
        seconds if seconds < 4.1 => 3,
        seconds if seconds < 7.4 => 4,
        _ => 6,
    };
    println!("1,000 calls, none failed; {dials} dials of the other in {:?}", began.elapsed());
    assert!((1..=most).contains(&dials), "{dials} dials in {:?}", began.elapsed());
}
