//! usage: provider CERT_DIR; prints its address and serves until it is told to stop.

use aegis::{Caller, Node};
use facade::orders_server::{Orders, OrdersServer};
use facade::{ORDERS_V1, PlaceRequest, PlaceResponse};
use tonic::{Request, Response, Status};

struct Shop;

#[tonic::async_trait]
impl Orders for Shop {
    async fn place(
        &self,
        request: Request<PlaceRequest>,
    ) -> Result<Response<PlaceResponse>, Status> {
        let placed_by = Caller::from_request(&request)?.node_id().to_string();
        let PlaceRequest { article } = request.into_inner();
        Ok(Response::new(PlaceResponse { article, placed_by }))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let certificates = std::env::args().nth(1).ok_or("no CERT_DIR")?;
    let shop = Node::builder()
        .id("shop-1")
        .node_type("shop")
        .address("127.0.0.1:0")
        .service(ORDERS_V1, OrdersServer::new(Shop))
        .cert_dir(certificates)
        .build()?;
    let server = shop.start().await?;
    println!("{}", server.local_addr());
    server.run_until_signal().await?;
    Ok(())
}
