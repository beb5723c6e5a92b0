//! usage: client-only CERTIFICATE KEY CA ADDRESS
//!
//! Finds the providers through any node of the mesh, and is none itself.

use aegis::{ServiceClient, ServiceInfo, ServicePool, TlsOptions};

mod proto {
    tonic::include_proto!("shop.orders.v1");
}
use proto::PlaceRequest;
use proto::orders_client::OrdersClient;

const ORDERS_V1: ServiceInfo = ServiceInfo::from_static("orders", "v1");

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [certificate, key, ca, address] = &*arguments else {
        return Err("usage: client-only CERTIFICATE KEY CA ADDRESS".into());
    };
    let pool = ServicePool::builder()
        // Certificates of production need no more than this: not even the second line.
        .tls(TlsOptions::files(certificate, key, ca).allow_development())
        .seeds([address])
        .build()?;
    let orders = ServiceClient::new(&pool, ORDERS_V1, OrdersClient::new);
    let reply = orders.get()?.place(PlaceRequest { article: "rice".into() }).await?.into_inner();
    assert_eq!((&*reply.article, &*reply.placed_by), ("rice", "batch-1"));
    Ok(())
}
