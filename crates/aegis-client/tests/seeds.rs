//! A pool that follows a mesh without being a node of it.

use std::time::Duration;

use aegis_client::{ServiceClient, ServicePool};
use aegis_core::ServiceInfo;
use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;
use aegis_proto::identity::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use aegis_proto::identity::v1::{ValidateSessionRequest, ValidateSessionResponse};
use aegis_testing::{TestMesh, eventually};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::mesh::{IDENTITY, Mesh, PATIENCE, call, identity};

const OTHER: ServiceInfo = ServiceInfo::from_static("other", "v1");

/// Answers with the node's id.
struct Identity(&'static str);

#[tonic::async_trait]
impl IdentityService for Identity {
    async fn validate_session(
        &self,
        _: Request<ValidateSessionRequest>,
    ) -> Result<Response<ValidateSessionResponse>, Status> {
        let user_id = self.0.to_owned();
        Ok(Response::new(ValidateSessionResponse { user_id, ..Default::default() }))
    }
}

async fn serve(mesh: &TestMesh, id: &'static str) -> aegis_node::Server {
    let service = IdentityServiceServer::new(Identity(id));
    mesh.serve(id, |node| node.service(IDENTITY, service)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_learns_providers_from_any_node_and_its_first_call_waits_for_them() {
    let mesh = TestMesh::in_memory();
    let seed = mesh
        .serve("seed", |node| node.service(OTHER, IdentityServiceServer::new(Identity("seed"))))
        .await;
    let _a = serve(&mesh, "a").await;
    let _b = serve(&mesh, "b").await;
    seed.node().directory().wait_for_providers(&IDENTITY, 2, PATIENCE).await.unwrap();
    let pool = ServicePool::builder()
        .tls(mesh.ca().options("vicky", "api-gateway"))
        .network(mesh.network())
        .seeds([seed.local_addr().to_string()])
        .build()
        .unwrap();
    let client = identity(&pool);
    call(&client).await.unwrap();
    client.wait_ready(2, PATIENCE).await.unwrap();
    let mut homes: Vec<_> = [call(&client).await.unwrap(), call(&client).await.unwrap()].into();
    homes.sort();
    assert_eq!(homes, ["a", "b"]);
    // A service that comes later is found as well.
    let v2 = ServiceInfo::from_static("identity", "v2");
    let later = ServiceClient::new(&pool, v2.clone(), IdentityServiceClient::new);
    assert!(later.get().is_err());
    let service = IdentityServiceServer::new(Identity("c"));
    let _c = mesh.serve("c", |node| node.service(v2, service)).await;
    later.wait_ready(1, PATIENCE).await.unwrap();
    assert_eq!(call(&later).await.unwrap(), "c");
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_leaves_in_order_costs_no_call() {
    let mesh = TestMesh::in_memory();
    let a = serve(&mesh, "a").await;
    let b = serve(&mesh, "b").await;
    let pool = ServicePool::builder()
        .tls(mesh.ca().options("vicky", "api-gateway"))
        .network(mesh.network())
        .seeds([a.local_addr().to_string()])
        .build()
        .unwrap();
    let client = identity(&pool);
    client.wait_ready(2, PATIENCE).await.unwrap();
    let (stop, stopped) = watch::channel(false);
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (client, stopped) = (client.clone(), stopped.clone());
            tokio::spawn(async move {
                let mut calls = 0;
                while !*stopped.borrow() {
                    call(&client).await?;
                    calls += 1;
                }
                Ok::<_, Status>(calls)
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    b.shutdown().await.unwrap();
    stop.send_replace(true);
    for caller in callers {
        assert!(0 < caller.await.unwrap().unwrap());
    }
    assert_eq!(call(&client).await.unwrap(), "a");
}

#[tokio::test]
async fn a_seed_that_cannot_be_reached_is_told() {
    let pool =
        ServicePool::builder().tls(Mesh::new().options()).seeds(["127.0.0.1:1"]).build().unwrap();
    let client = identity(&pool);
    client.get().expect("the first sync is still under way");
    let text = eventually(PATIENCE, || {
        let text = client.explain().to_string();
        if text.contains("127.0.0.1:1") { Ok(text) } else { Err(text) }
    })
    .await;
    assert!(text.contains("0 of 0 nodes advertise identity/v1"), "{text}");
    assert!(text.contains("efused"), "{text}");
}
