//! aegis with its defaults: what a user of the guide's first page has.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use aegis::{Node, ServiceClient, ServiceInfo, ServicePool};
use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;

use crate::arguments::{Providers, Serve};
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

/// A client with a connection to each provider.
pub(crate) async fn connect(certs: &Path, providers: &Providers) -> Outcome<Aegis> {
    let mut pool = ServicePool::builder().tls(certificates::options(certs, certificates::CLIENT));
    if providers.foreign {
        for (id, address) in providers.named() {
            pool = pool.foreign_provider(id, address.to_string(), [IDENTITY_V1]);
        }
    } else {
        pool = pool.seeds(providers.addresses.iter().map(SocketAddr::to_string));
    }
    let identity = ServiceClient::new(&pool.build()?, IDENTITY_V1, IdentityServiceClient::new);
    identity.wait_ready(providers.addresses.len(), Duration::from_secs(10)).await?;
    Ok(identity)
}
