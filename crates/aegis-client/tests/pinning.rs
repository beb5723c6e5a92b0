//! A client whose calls all go to one provider.

use std::collections::BTreeSet;

use aegis_client::Error;
use tonic::Code;

use crate::mesh::{Client, Mesh, assert_status, call, identity, request};
use crate::provider::Provider;

async fn ask(client: &mut Client) -> Result<String, tonic::Status> {
    Ok(client.validate_session(request()).await?.into_inner().user_id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_calls_of_a_pinned_client_go_to_one_provider() {
    let mesh = Mesh::new();
    let [a, b] = [Provider::start(&mesh, "a").await, Provider::start(&mesh, "b").await];
    let (_pool, client) = mesh.connected(&[&a, &b]).await;
    let mut homes = BTreeSet::new();
    for _ in 0..2 {
        let mut pinned = client.pinned().unwrap();
        let home = ask(&mut pinned).await.unwrap();
        for _ in 0..10 {
            call(&client).await.unwrap();
            assert_eq!(ask(&mut pinned).await.unwrap(), home);
            assert_eq!(ask(&mut pinned.clone()).await.unwrap(), home);
        }
        homes.insert(home);
    }
    assert_eq!(homes.len(), 2, "each pinned client has its turn");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pinned_client_fails_with_its_provider_and_does_not_move() {
    let mesh = Mesh::new();
    let [a, b] = [Provider::start(&mesh, "a").await, Provider::start(&mesh, "b").await];
    let (_pool, client) = mesh.connected(&[&a, &b]).await;
    let mut pinned = client.pinned().unwrap();
    let home = ask(&mut pinned).await.unwrap();
    let (gone, stays) = if home == "a" { (a, b) } else { (b, a) };
    gone.kill().await;
    let before = stays.requests();
    let status = loop {
        let status = ask(&mut pinned).await.unwrap_err();
        // The first may still have been on the wire.
        if matches!(Error::from_status(&status), Some(Error::PinLost { .. })) {
            break status;
        }
    };
    assert_status(&status, Code::Unavailable, &[&home, "pinned", "efused"]);
    assert_eq!(stays.requests(), before);
    assert_eq!(call(&client).await.unwrap(), stays.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_pinned_before_the_first_connection_is_pinned_by_its_first_call() {
    let mesh = Mesh::new();
    let [a, b] = [Provider::start(&mesh, "a").await, Provider::start(&mesh, "b").await];
    let pool = mesh.pool(&[&a, &b]);
    let mut pinned = identity(&pool).pinned().unwrap();
    let home = ask(&mut pinned).await.unwrap();
    for _ in 0..10 {
        assert_eq!(ask(&mut pinned).await.unwrap(), home);
    }
}
