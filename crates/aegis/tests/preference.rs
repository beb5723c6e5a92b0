//! A client that names several versions moves between them as providers come and go.

use aegis::{ServiceClient, ServiceInfo};
use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;
use aegis_testing::{TestMesh, eventually};

use tonic::{Code, Status};

use crate::service::{Client, IDENTITY_V1, Identity, LIMIT, ask};

const IDENTITY_V2: ServiceInfo = ServiceInfo::from_static("identity", "v2");

/// Asks until this provider answers; how many calls it took. None of them fails, but for those that `may_fail`.
async fn asked_until(
    client: &ServiceClient<Client>,
    name: &str,
    may_fail: impl Fn(&Status) -> bool,
) -> u64 {
    for calls in 1.. {
        match ask(client, "1").await {
            Ok(answer) if answer.name == name => return calls,
            Err(status) if !may_fail(&status) => panic!("{status}"),
            _ => {}
        }
        assert!(calls < 10_000, "{name} never answers: {:?}", client.explain_all());
        tokio::task::yield_now().await;
    }
    unreachable!()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_version_that_is_connected_is_called_and_no_call_fails_when_a_better_one_comes() {
    let mesh = TestMesh::in_memory();
    let old = mesh.start(Identity::new("old").on(mesh.builder("old"))).await;
    let pool = mesh.node("vicky-1").pool();
    let client = ServiceClient::new(&pool, IDENTITY_V2, IdentityServiceClient::new).or(IDENTITY_V1);
    client.wait_ready(1, LIMIT).await.unwrap();
    assert_eq!(ask(&client, "1").await.unwrap().name, "old");

    let new = mesh.builder("new").service(IDENTITY_V2, Identity::new("new").server());
    let new = mesh.start(new).await;
    let mut calls = 1 + asked_until(&client, "new", |_| false).await;
    for _ in 0..20 {
        assert_eq!(ask(&client, "1").await.unwrap().name, "new");
        calls += 1;
    }
    assert_eq!(new.node().usage()[0].calls, 21);

    let leaving = tokio::spawn(new.shutdown());
    // A call that crosses the goodbye of a version's last provider has nobody else to go to.
    let nobody_else = |status: &Status| status.code() == Code::Unavailable;
    calls += asked_until(&client, "old", nobody_else).await;
    leaving.await.unwrap().unwrap();
    assert_eq!(ask(&client, "1").await.unwrap().name, "old");
    calls += 1;

    let [preferred, fallback] = &client.explain_all()[..] else { panic!("two versions") };
    assert_eq!((&preferred.service, &fallback.service), (&IDENTITY_V2, &IDENTITY_V1));
    assert_eq!(preferred.calls + fallback.calls, calls);
    let usage = old.node().usage();
    assert_eq!((&usage[0].service, usage[0].calls), (&IDENTITY_V1, fallback.calls));
    assert_eq!(usage[0].unnamed, 0);
}

#[tokio::test]
async fn with_no_version_served_the_error_is_about_the_preferred_one_and_names_what_is_there() {
    let mesh = TestMesh::in_memory();
    let _other = mesh
        .serve("other", |node| {
            node.service(
                ServiceInfo::from_static("identity", "v7"),
                Identity::new("other").server(),
            )
        })
        .await;
    let pool = mesh.node("vicky-1").pool();
    let client = ServiceClient::new(&pool, IDENTITY_V2, IdentityServiceClient::new).or(IDENTITY_V1);
    eventually(LIMIT, || match client.get() {
        Ok(_) => Err("the first sync is under way".to_owned()),
        Err(error) => {
            let text = error.to_string();
            if text.contains("identity/v2") && text.contains("v7") { Ok(()) } else { Err(text) }
        }
    })
    .await;
}
