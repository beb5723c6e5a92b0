//! aegis with its defaults: what a user of the guide's first page has.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use aegis::{Node, ServiceClient, ServiceInfo, ServicePool};
use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;

use crate::arguments::{Known, Providers, Serve};
use crate::client::Aegis;
use crate::load::announce;
use crate::{Outcome, certificates, service};

const IDENTITY_V1: ServiceInfo = ServiceInfo::from_static("identity", "v1");

pub(crate) async fn serve(certs: &Path, serve: Serve) -> Outcome<()> {
    let id = certificates::server(serve.behaviour.number);
    let node = Node::builder()
        .id(&id)
        .node_type("node")
        .address(serve.listen.to_string())
        .join(serve.join.as_ref().map(SocketAddr::to_string))
        .service(IDENTITY_V1, service::service(serve.behaviour))
        .tls(certificates::options(certs, &id))
        .build()?;
    let server = node.start().await?;
    announce(server.local_addr());
    server.run_until_signal().await?;
    Ok(())
}

/// A client that is connected to its providers.
pub(crate) async fn connect(certs: &Path, providers: &Providers) -> Outcome<Aegis> {
    let mut pool = ServicePool::builder().tls(certificates::options(certs, certificates::CLIENT));
    if let Some(balancer) = &providers.balancer {
        pool = pool.balance(balancer.clone());
    }
    match providers.known {
        Known::Seeds => pool = pool.seeds(providers.addresses.iter().map(SocketAddr::to_string)),
        Known::Fixed => {
            for (id, address) in providers.named() {
                pool = pool.provider(id, address.to_string(), [IDENTITY_V1]);
            }
        }
        Known::Foreign => {
            for (id, address) in providers.named() {
                pool = pool.foreign_provider(id, address.to_string(), [IDENTITY_V1]);
            }
        }
    }
    let identity = ServiceClient::new(&pool.build()?, IDENTITY_V1, IdentityServiceClient::new);
    let ready = providers.ready.unwrap_or(providers.addresses.len());
    identity.wait_ready(ready, Duration::from_secs(10)).await?;
    Ok(identity)
}
