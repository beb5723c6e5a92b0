//! usage: client-alone CERTIFICATE KEY CA ADDRESS
//!
//! Knows its provider by id and address, and looks at no directory.

use aegis_client::{ServiceClient, ServicePool};
use aegis_core::ServiceInfo;
use aegis_tls::TlsOptions;

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
        return Err("usage: client-alone CERTIFICATE KEY CA ADDRESS".into());
    };
    let pool = ServicePool::builder()
        .tls(TlsOptions::files(certificate, key, ca).allow_development())
        .provider("shop-1", address, [ORDERS_V1])
        .build()?;
    let orders = ServiceClient::new(&pool, ORDERS_V1, OrdersClient::new);
    let reply = orders.get()?.place(PlaceRequest { article: "salt".into() }).await?.into_inner();
    assert_eq!((&*reply.article, &*reply.placed_by), ("salt", "batch-1"));
    Ok(())
}
