//! Nodes find each other, and the directory says what there is.

use aegis::client::Error;
use aegis::topology::NodeState;
use aegis::{NodeId, ServiceInfo};
use aegis_testing::{TestMesh, eventually};

use crate::service::{IDENTITY_V1, Identity, LIMIT, SECOND, ask, client, ready};

const IDENTITY_V2: ServiceInfo = ServiceInfo::from_static("identity", "v2");

#[tokio::test]
async fn three_fresh_nodes_of_which_two_know_only_the_first_see_each_other() {
    let mesh = TestMesh::loopback();
    let a = mesh.serve("a", |node| Identity::new("a").on(node)).await;
    let seed = a.local_addr().to_string();
    let join = |id| mesh.builder(id).join([&seed]);
    let b = mesh.start(Identity::new("b").on(join("b"))).await;
    let c = mesh.start(join("c")).await;
    for server in [&a, &b, &c] {
        let snapshot = server
            .node()
            .directory()
            .wait_for(|snapshot| snapshot.nodes().len() == 3, 2 * SECOND)
            .await
            .unwrap();
        let providers: Vec<_> =
            snapshot.providers(&IDENTITY_V1).iter().map(|node| node.node_id().as_str()).collect();
        assert_eq!(providers, ["a", "b"]);
    }
    let versions = [&a, &b, &c].map(|server| server.node().directory().version().root);
    assert_eq!(versions[0], versions[1]);
    assert_eq!(versions[1], versions[2]);
}

#[tokio::test]
async fn others_dial_the_advertised_address_and_not_the_one_that_was_bound() {
    let mesh = TestMesh::loopback();
    let identity = Identity::new("a");
    let everywhere =
        |node: aegis::NodeBuilder| node.address("0.0.0.0:0").advertise_address("localhost:0");
    let a = mesh.serve("a", |node| everywhere(identity.on(node))).await;
    let port = a.local_addr().port();
    assert!(a.local_addr().ip().is_unspecified());
    // The seed that the test mesh noted is the unspecified address, which this host can dial.
    let c = mesh.builder("c").join([format!("127.0.0.1:{port}")]).build().unwrap();
    let client = ready(&c.pool(), 1).await;
    assert_eq!(ask(&client, "1").await.unwrap().name, "a");
    let shown = c.directory().snapshot().node(a.node().id()).unwrap().addresses().to_vec();
    assert_eq!(shown, [format!("localhost:{port}").parse().unwrap()]);
}

#[tokio::test]
async fn the_directory_reads_as_json() {
    let mesh = TestMesh::in_memory();
    let a = mesh.serve("a", |node| Identity::new("a").on(node.name("Morpheus"))).await;
    let c = mesh.node("c");
    let snapshot = c.directory().wait_for_providers(&IDENTITY_V1, 1, LIMIT).await.unwrap();
    let json = serde_json::to_value(&*snapshot).unwrap();
    let node = &json["nodes"][0];
    assert_eq!((&node["node_id"], &node["name"]), (&"a".into(), &"Morpheus".into()), "{json}");
    assert_eq!(node["addresses"][0], a.local_addr().to_string());
    assert_eq!(
        (&node["services"][0]["name"], &node["services"][0]["version"]),
        (&"identity".into(), &"v1".into())
    );
    assert_eq!(
        serde_json::to_value(&IDENTITY_V1).unwrap(),
        serde_json::json!({"name": "identity", "version": "v1"})
    );
}

#[tokio::test]
async fn no_provider_is_an_error_that_says_what_there_is() {
    let mesh = TestMesh::in_memory();
    let _a = mesh.serve("a", |node| Identity::new("a").on(node)).await;
    let c = mesh.node("c");
    ready(&c.pool(), 1).await;
    let v2 = aegis::ServiceClient::new(&c.pool(), IDENTITY_V2, |channel| channel);
    let error = v2.get().map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::NoProviders { .. }));
    assert_eq!(
        error.to_string(),
        "no provider of identity/v2 can be called: 0 of 1 nodes advertise identity/v2; v1 is"
    );
}

#[tokio::test]
async fn a_provider_that_died_leaves_the_picks_at_once() {
    let mesh = TestMesh::in_memory();
    let a = mesh.serve("a", |node| Identity::new("a").on(node)).await;
    let _b = mesh.serve("b", |node| Identity::new("b").on(node)).await;
    let identity = ready(&mesh.node("c").pool(), 2).await;
    drop(a);
    eventually(LIMIT, || {
        let now = identity.explain();
        let connected =
            now.candidates.iter().filter(|candidate| candidate.verdict.is_eligible()).count();
        if connected == 1 { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
    for _ in 0..100 {
        assert_eq!(ask(&identity, "1").await.unwrap().name, "b");
    }
}

#[tokio::test]
async fn a_node_that_drains_and_leaves_is_seen_to() {
    let mesh = TestMesh::in_memory();
    let _seed = mesh.serve("seed", |node| node).await;
    let identity = Identity::new("a");
    let a = mesh.serve("a", |node| identity.on(node)).await;
    let c = mesh.node("c");
    let client = ready(&c.pool(), 1).await;
    let mut watch = c.directory().watch();
    let slow = tokio::spawn(async move { ask(&client, "sleep 500").await });
    eventually(LIMIT, || if identity.seen.calls() == 1 { Ok(()) } else { Err("not called") }).await;
    let shutdown = tokio::spawn(a.shutdown());
    let mut states = Vec::new();
    while states.last() != Some(&None) {
        let snapshot = tokio::time::timeout(LIMIT, watch.changed()).await.unwrap();
        let state = snapshot
            .node(&NodeId::from_static("a"))
            .map(|node| node.state())
            .filter(|state| *state != NodeState::Left);
        if states.last() != Some(&state) {
            states.push(state);
        }
    }
    shutdown.await.unwrap().unwrap();
    // What else changed before the shutdown may come first.
    states.retain(|state| *state != Some(NodeState::Active));
    assert_eq!(states, [Some(NodeState::Draining), None]);
    assert_eq!(slow.await.unwrap().unwrap().name, "a", "the call in flight was answered");
    assert!(client_error(&c.pool()).contains("0 of 1 nodes advertise identity/v1"));
}

fn client_error(pool: &aegis::ServicePool) -> String {
    client(pool).get().map(|_| ()).unwrap_err().to_string()
}
