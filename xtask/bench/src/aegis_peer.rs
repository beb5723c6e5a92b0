//! aegis with its defaults: what a user of the guide's first page has.

use std::path::PathBuf;
use std::time::Duration;

use aegis::{Node, ServiceClient, ServiceInfo, ServicePool};
use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;
use tonic::Status;

use crate::load::{Plan, announce};
use crate::{Outcome, certificates, load, service};

const IDENTITY_V1: ServiceInfo = ServiceInfo::from_static("identity", "v1");

pub(crate) async fn serve(certs: PathBuf) -> Outcome<()> {
    let node = Node::builder()
        .id(certificates::SERVER)
        .node_type("node")
        .address("127.0.0.1:0")
        .service(IDENTITY_V1, service::service())
        .tls(certificates::options(&certs, certificates::SERVER))
        .build()?;
    let server = node.start().await?;
    announce(server.local_addr());
    server.run_until_signal().await?;
    Ok(())
}

pub(crate) async fn call(certs: PathBuf, address: String, plan: Plan) -> Outcome<()> {
    let pool = ServicePool::builder()
        .tls(certificates::options(&certs, certificates::CLIENT))
        .seeds([address])
        .build()?;
    let identity = ServiceClient::new(&pool, IDENTITY_V1, IdentityServiceClient::new);
    identity.wait_ready(1, Duration::from_secs(5)).await?;
    load::run(plan, move || {
        let client = identity.get().map_err(Status::from);
        async move { client?.validate_session(service::request()).await.map(drop) }
    })
    .await
}
