//! usage: consumer CERT_DIR ADDRESS; places an order with whoever takes them.

use aegis::{Node, ServiceClient};
use facade::orders_client::OrdersClient;
use facade::{ORDERS_V1, PlaceRequest};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut arguments = std::env::args().skip(1);
    let certificates = arguments.next().ok_or("no CERT_DIR")?;
    let address = arguments.next().ok_or("no ADDRESS")?;
    let till = Node::builder()
        .id("till-1")
        .node_type("till")
        .join([address])
        .cert_dir(certificates)
        .build()?;
    let orders = ServiceClient::new(&till.pool(), ORDERS_V1, OrdersClient::new);
    let reply = orders.get()?.place(PlaceRequest { article: "tea".into() }).await?.into_inner();
    assert_eq!((&*reply.article, &*reply.placed_by), ("tea", "till-1"));
    Ok(())
}
