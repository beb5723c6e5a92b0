//! usage: server CERTIFICATE KEY CA; prints its address and serves.

use std::{io, time::Duration};

use aegis_tls::{Caller, Subject, TlsOptions};
use tls_only::orders_server::{Orders, OrdersServer};
use tls_only::{PlaceRequest, PlaceResponse};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::{Request, Response, Status, transport::Server};

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
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [certificate, key, ca] = &*arguments else {
        return Err("usage: server CERTIFICATE KEY CA".into());
    };
    let tls = TlsOptions::files(certificate, key, ca).allow_development().load(&Subject::any())?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);

    let (connections, incoming) = tokio::sync::mpsc::channel(16);
    let accept = async move {
        // Beside each other: a client that is slow with its handshake holds up no other.
        let mut handshakes = JoinSet::new();
        loop {
            let Ok((io, address)) = listener.accept().await else {
                // Out of file descriptors, say: others may end meanwhile.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (tls, connections) = (tls.clone(), connections.clone());
            handshakes.spawn(async move {
                match tokio::time::timeout(Duration::from_secs(10), tls.accept(io)).await {
                    Ok(Ok(accepted)) => drop(connections.send(io::Result::Ok(accepted)).await),
                    Ok(Err(error)) => eprintln!("{address} was refused: {error}"),
                    Err(_) => eprintln!("{address} did not finish its handshake"),
                }
            });
            while handshakes.try_join_next().is_some() {}
        }
    };
    let incoming = tokio_stream::wrappers::ReceiverStream::new(incoming);
    let serve =
        Server::builder().add_service(OrdersServer::new(Shop)).serve_with_incoming(incoming);
    tokio::select! {
        result = serve => Ok(result?),
        () = accept => Ok(()),
    }
}
